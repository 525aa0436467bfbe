"""`mage evaluate tokenizer` and `mage evaluate representations`."""

from typing import Annotated

import tyro

from mage.cli import evaluate_representations, evaluate_tokenizer

Options = (
    Annotated[evaluate_tokenizer.Options, tyro.conf.subcommand("tokenizer", prefix_name=False)]
    | Annotated[evaluate_representations.Options, tyro.conf.subcommand("representations", prefix_name=False)]
)


def run(options: evaluate_tokenizer.Options | evaluate_representations.Options) -> None:
    """Measure what was named."""
    if isinstance(options, evaluate_tokenizer.Options):
        evaluate_tokenizer.run(options)
    else:
        evaluate_representations.run(options)
