"""SimCLR with a ViT (Chen et al. 2020): a baseline, for comparisons on the same training engine.

Two strongly augmented views of each image attract each other and repel the views of all other images. Nothing
is masked and nothing is reconstructed.

Letters: n images, c channels, H W pixels, z width of the compared vectors.
"""

from jaxtyping import Float
from torch import Tensor, nn

from mage.models.contrastive import ContrastConfig, Projection, info_nce
from mage.models.pixels import PatchEncoder, PatchEncoderConfig


class SimCLR(nn.Module):
    """Encoder and projection; after pre-training only the encoder is kept."""

    def __init__(self, encoder: PatchEncoderConfig, config: ContrastConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PatchEncoder(encoder)
        self.projection = Projection(encoder.width, config)

    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n z"]:
        """Unit vectors: the mean over the patches, projected as in MAGE-C."""
        assert self.encoder.norm is not None
        vectors: Tensor = self.projection(self.encoder.norm(self.encoder(images))[:, 1:].mean(dim=1))
        return vectors

    def loss(self, first: Float[Tensor, "n z"], second: Float[Tensor, "n z"]) -> Float[Tensor, ""]:
        """NT-Xent: negatives are both views of all other images."""
        return info_nce(first, second, temperature=self.config.temperature, same_view=True)
