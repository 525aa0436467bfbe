"""Meaning of the transformer's word ids: codes, then class ids, the null class, the mask (paper, section 3.1).

Released checkpoints have a legacy layout of 2025 words in which the null class, 1100, lies inside the class range;
`Vocabulary.released()` is that layout. A new model uses `Vocabulary.fresh(...)`. No other code contains such a number.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Words of the transformer."""

    num_codes: int
    """Codes of the tokenizer: words 0 to num_codes - 1, the only ones that are predicted."""
    num_classes: int
    """Class words, directly after the codes."""
    null_class_id: int
    """The word at the class position of an image without class."""
    mask_id: int
    """The word that stands for a masked token."""
    size: int
    """Total number of words."""

    def __post_init__(self) -> None:
        if self.num_codes < 2:
            raise ValueError(f"a vocabulary needs at least 2 codes, not {self.num_codes}")
        for name in ("null_class_id", "mask_id"):
            if not self.num_codes <= getattr(self, name) < self.size:
                raise ValueError(
                    f"{name} {getattr(self, name)} must lie after the {self.num_codes} codes and below {self.size}"
                )

    @classmethod
    def fresh(cls, num_codes: int, num_classes: int = 0) -> "Vocabulary":
        """Codes, classes, null class, mask: num_codes + num_classes + 2 words."""
        null = num_codes + num_classes
        return cls(num_codes=num_codes, num_classes=num_classes, null_class_id=null, mask_id=null + 1, size=null + 2)

    @classmethod
    def released(cls) -> "Vocabulary":
        """The layout of the released checkpoints: 1024 codes, 1000 classes, mask 2024; null class 1100."""
        return cls(num_codes=1024, num_classes=1000, null_class_id=1100, mask_id=2024, size=2025)
