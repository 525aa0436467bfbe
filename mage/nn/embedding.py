"""Token embedding: word + learned position, LayerNorm, dropout (section 3.1, as in BERT).

Letters: n images, l positions (class position first), d width.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from mage.nn.dropout import Dropout


class TokenEmbedding(nn.Module):
    """Turns word ids into vectors."""

    def __init__(self, vocabulary_size: int, length: int, width: int, *, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.word.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, ids: Int[Tensor, "n l"], positions: Int[Tensor, "n l"] | None = None) -> Float[Tensor, "n l d"]:
        """Embed `ids` at `positions` (default: all positions in order)."""
        return self.place(self.word(ids), positions)

    def place(
        self, words: Float[Tensor, "n l d"], positions: Int[Tensor, "n l"] | None = None
    ) -> Float[Tensor, "n l d"]:
        """The same for word vectors, which may be mixtures."""
        position_vectors = self.position.weight if positions is None else self.position(positions)
        embedded: Tensor = self.dropout(self.norm(words + position_vectors))
        return embedded
