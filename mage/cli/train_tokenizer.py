"""`mage train-tokenizer`: images -> a tokenizer."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mage.cli.options import RecipeOptions, check_parent, emit, note, skipped_sentence
from mage.precision import resolve, resolve_device
from mage.recipes import runs


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """Train a VQGAN."""

    out: Path
    """run folder: recipe.yaml, metrics.jsonl, checkpoints/, samples/, model/"""
    resume: bool = False
    """go on with the run in --out"""
    workers: int = 0
    """processes that read and augment images"""


def run(options: Options) -> None:
    """Train and say how well it reconstructs."""
    check_parent(options.out)
    recipe = options.read_recipe()
    note(options, f"precision {resolve(options.precision, resolve_device(options.device))}, recipe {recipe.name}")
    result = runs.train_tokenizer(
        recipe,
        options.out,
        data_root=options.data_root,
        resume=options.resume,
        precision=options.precision,
        device=options.device,
        progress=not options.json,
        workers=options.workers,
    )
    metrics = result.metrics
    emit(
        options,
        {"out": str(options.out), **asdict(result)},
        f"{options.out}: {result.steps} steps in {result.seconds:.0f} s; "
        f"held-out images: PSNR {metrics['psnr_db']:.2f} dB, {metrics['codes_used']:.1%} of the codes used, "
        f"perplexity {metrics['codebook_perplexity']:.0f}{skipped_sentence(result.skipped)}",
    )
