"""`mage evaluate tokenizer`, `mage evaluate representations` and `mage evaluate generation`."""

from mage.cli import evaluate_generation, evaluate_representations, evaluate_tokenizer
from mage.cli.options import evaluate_generation as generation
from mage.cli.options import evaluate_representations as representations
from mage.cli.options import evaluate_tokenizer as tokenizer


def run(options: tokenizer.Options | representations.Options | generation.Options) -> None:
    """Run the chosen evaluation."""
    if isinstance(options, tokenizer.Options):
        evaluate_tokenizer.run(options)
    elif isinstance(options, representations.Options):
        evaluate_representations.run(options)
    else:
        evaluate_generation.run(options)
