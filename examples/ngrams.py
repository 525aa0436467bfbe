"""What a model of sequences has to beat: n-grams, counted on the training sequences, in bits per token.

Contexts do not reach beyond a sequence, because the network sees no more either. A context that was seen seldom takes
over what the next shorter one says, with the weight of Witten and Bell (1991): the number of different tokens after it.
"""

import numpy as np


class Ngrams:
    """Probabilities of a token after up to `order` others."""

    def __init__(self, sequences: np.ndarray, num_codes: int, order: int) -> None:
        """sequences: (n, length)."""
        if num_codes ** (order + 1) > 2**26:
            raise ValueError(f"order {order} of {num_codes} codes needs too much memory; choose a smaller order")
        self.num_codes = num_codes
        self.tables = [np.full(num_codes, 1 / num_codes)]
        for context in range(order + 1):
            counts = np.zeros((num_codes,) * (context + 1))
            np.add.at(counts, self._windows(sequences, context), 1)
            total, different = counts.sum(axis=-1, keepdims=True), (counts > 0).sum(axis=-1, keepdims=True)
            different = np.maximum(different, 1)
            self.tables.append((counts + different * self.tables[-1]) / (total + different))

    @staticmethod
    def _windows(sequences: np.ndarray, context: int) -> tuple[np.ndarray, ...]:
        length = sequences.shape[1]
        return tuple(sequences[:, first : length - context + first] for first in range(context + 1))

    def bits_per_token(self, sequences: np.ndarray) -> float:
        """Mean -log2 p of the tokens of sequences (n, length); the first ones have shorter contexts."""
        order = len(self.tables) - 2
        bits = sum(
            float(-np.log2(self.tables[context + 1][self._windows(sequences[:, : context + 1], context)]).sum())
            for context in range(order)
        )
        bits += float(-np.log2(self.tables[-1][self._windows(sequences, order)]).sum())
        return bits / sequences.size
