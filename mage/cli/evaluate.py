"""`mage evaluate tokenizer`, `mage evaluate representations` and `mage evaluate generation`."""

from typing import Annotated

import tyro

from mage.cli import evaluate_generation, evaluate_representations, evaluate_tokenizer

Options = (
    Annotated[evaluate_tokenizer.Options, tyro.conf.subcommand("tokenizer", prefix_name=False)]
    | Annotated[evaluate_representations.Options, tyro.conf.subcommand("representations", prefix_name=False)]
    | Annotated[evaluate_generation.Options, tyro.conf.subcommand("generation", prefix_name=False)]
)


def run(options: evaluate_tokenizer.Options | evaluate_representations.Options | evaluate_generation.Options) -> None:
    """Measure what was named."""
    if isinstance(options, evaluate_tokenizer.Options):
        evaluate_tokenizer.run(options)
    elif isinstance(options, evaluate_representations.Options):
        evaluate_representations.run(options)
    else:
        evaluate_generation.run(options)
