"""Options of `mage evaluate`: of its three subcommands."""

from typing import Annotated

import tyro

from mage.cli.options import evaluate_generation, evaluate_representations, evaluate_tokenizer

Options = (
    Annotated[evaluate_tokenizer.Options, tyro.conf.subcommand("tokenizer", prefix_name=False)]
    | Annotated[evaluate_representations.Options, tyro.conf.subcommand("representations", prefix_name=False)]
    | Annotated[evaluate_generation.Options, tyro.conf.subcommand("generation", prefix_name=False)]
)
