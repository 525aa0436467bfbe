"""Prediction head: a small MLP, then the dot product with the word embeddings (section 3.1).

The embeddings are detached: they learn from the encoder's side only, as the released checkpoints did.

Letters: v words, d encoder width, p decoder width.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class TokenHead(nn.Module):
    """Decoder output -> one logit per word."""

    def __init__(self, vocabulary_size: int, decoder_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(decoder_width, width)
        self.norm = nn.LayerNorm(width, eps=1e-5)  # all other norms have 1e-6; released checkpoints depend on it
        self.bias = nn.Parameter(self.linear.weight.new_zeros(vocabulary_size))

    def forward(
        self, decoded: Float[Tensor, "*n p"], words: Float[Tensor, "v d"], num_words: int
    ) -> Float[Tensor, "*n k"]:
        """Logits of the first `num_words` words, whose embeddings are the first rows of `words`."""
        query = self.norm(functional.gelu(self.linear(decoded)))
        return functional.linear(query, words[:num_words].detach(), self.bias[:num_words])
