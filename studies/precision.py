"""Effects of bfloat16: `python studies/precision.py --out runs/precision`.

Three measurements: the deviation of the logits of a trained model; the deviation of the loss over 1,000 steps between
two trainings that differ in precision, compared with that between two seeds; and the Frechet distance between samples
of one model in both precisions, compared with that between samples of two seeds in float32. The data are the digits of
the demo; logits are measured on test images, and nothing is chosen. Results are written to results/precision.json.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from choices import NO_CHOICE, RESULTS, ask

import mage
from mage import images, runs
from mage.data.datasets import load_dataset
from mage.evaluation.extractors import build_extractor
from mage.evaluation.frechet import frechet_distance
from mage.evaluation.seen import look_at
from mage.masking import MaskRatioConfig, random_mask
from mage.recipes import named
from mage.runs import Launch
from mage.runs.inputs import load_images
from mage.runs.record import Record, write_record
from mage.training.runlog import read_log

STEPS, SAMPLES = 1000, 2000


def losses(run: Path) -> torch.Tensor:
    """Training loss, one value per 50 steps."""
    return torch.tensor([line["loss"] for line in read_log(run) if "loss" in line])


def train_all(out: Path, steps: int) -> dict[str, Path]:
    """A tokenizer, and MAGE in float32 with two seeds and in bfloat16."""
    recipe = named("mnist5k")
    training = replace(recipe.tokenizer_training, steps=min(steps, recipe.tokenizer_training.steps))
    recipe = replace(recipe, tokenizer_training=training, pretraining=replace(recipe.pretraining, steps=steps))
    if not (out / "tokenizer" / "finished").exists():
        runs.train_tokenizer(recipe, Launch(out).inside("tokenizer"))
        (out / "tokenizer" / "finished").touch()
    tokenizer = runs.load_tokenizer(out / "tokenizer", precision="float32")
    cache = runs.tokenize(recipe, Launch(out / "tokens"), tokenizer)
    trained = {}
    for name, precision, seed in (("float32", "float32", 0), ("bf16", "bf16", 0), ("seed", "float32", 1)):
        trained[name] = out / name
        if not (out / name / "finished").exists():
            launch = Launch(out, precision=precision).inside(name)
            runs.pretrain(replace(recipe, seed=seed), launch, tokenizer, cache=cache)
            (out / name / "finished").touch()
    return trained


@torch.inference_mode()
def logit_deviation(run: Path) -> dict[str, float]:
    """Deviation of the logits for the same masked test images between both precisions."""
    models = {precision: mage.load(run, precision=precision) for precision in ("float32", "bf16")}
    test = load_dataset("mnist5k", split="test")
    pixels = load_images(test, list(range(256)), named("mnist5k").data.transform).float() / 255
    tokens = models["float32"].encode(pixels).flatten(1)
    mask = random_mask(MaskRatioConfig(per_image=True), len(tokens), tokens.shape[1], torch.Generator().manual_seed(0))
    logits = {}
    for precision, model in models.items():
        with model.autocast():
            output = model.transformer(tokens, mask)
            decoded = output.decoded.flatten(0, 1)[mask.masked_index]
            logits[precision] = model.transformer.word_logits(decoded, model.transformer.vocabulary.num_codes).float()
    difference = logits["bf16"] - logits["float32"]
    probabilities = [values.softmax(dim=1) for values in (logits["float32"], logits["bf16"])]
    return {
        "logits_rms_deviation": float(difference.square().mean().sqrt()),
        "logits_deviation_over_spread": float(difference.square().mean().sqrt() / logits["float32"].std()),
        "probability_total_variation": float((probabilities[0] - probabilities[1]).abs().sum(dim=1).mean() / 2),
        "same_best_code": float((logits["float32"].argmax(1) == logits["bf16"].argmax(1)).double().mean()),
    }


def sample_distances(run: Path, count: int) -> dict[str, float]:
    """fd_efflite0 between samples of one model: bf16 against float32, and float32 against float32 of another seed."""
    extractor = build_extractor("efflite0")
    moments = {}
    for name, precision, seed in (("float32", "float32", 0), ("bf16", "bf16", 1), ("other", "float32", 1)):
        samples = mage.load(run, precision=precision).generate(count, seed=seed)
        moments[name] = look_at(images.to_uint8(samples.cpu()).split(250), extractor, count).moments
    train = load_dataset("mnist5k", split="train")
    real = load_images(
        train, list(range(0, len(train), max(1, len(train) // count)))[:count], named("mnist5k").data.transform
    )
    reference = look_at(real.split(250), extractor, len(real)).moments
    return {
        "fd_efflite0_bf16_against_float32": frechet_distance(moments["bf16"], moments["float32"]),
        "fd_efflite0_float32_against_float32": frechet_distance(moments["other"], moments["float32"]),
        "fd_efflite0_float32_against_real": frechet_distance(moments["other"], reference),
        "fd_efflite0_bf16_against_real": frechet_distance(moments["bf16"], reference),
    }


def main() -> None:
    """Train, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"), help="folder of the runs")
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help="steps of each training; the tokenizer takes no more than its recipe says",
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples of each set")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    ask(options.out, {"steps": options.steps})
    start = time.perf_counter()
    trained = train_all(options.out, options.steps)
    curves = {name: losses(run) for name, run in trained.items()}
    metrics = {
        "loss_mean_deviation": float((curves["bf16"] - curves["float32"]).abs().mean()),
        "loss_mean_deviation_of_seeds": float((curves["seed"] - curves["float32"]).abs().mean()),
        "loss_last_200_steps_float32": float(curves["float32"][-4:].mean()),
        "loss_last_200_steps_bf16": float(curves["bf16"][-4:].mean()),
        "loss_last_200_steps_other_seed": float(curves["seed"][-4:].mean()),
        **logit_deviation(trained["float32"]),
        **sample_distances(trained["float32"], options.samples),
    }
    protocol = {
        "validation": NO_CHOICE,
        "model": f"recipe mnist5k, {options.steps} steps",
        "loss": "training loss, means of 50 steps; seeds: two float32 runs whose seeds differ",
        "logits": "masked positions of 256 test images under one mask",
        "fd_efflite0": f"{options.samples:,} samples each, seeds differ; the second line is its floor",
    }
    seconds = {"total": time.perf_counter() - start}
    command = f"python studies/precision.py --steps {options.steps} --samples {options.samples}"
    record = Record(command, 0, protocol, seconds, metrics)
    write_record(options.results / "precision.json", record)
    for name, value in metrics.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
