"""Write the tables of README and docs from results/*.json: `python docs/tables.py`, or `--check` to only compare.

Text between `<!-- KIND NAME -->` and `<!-- end -->` is replaced by the table of results/NAME.json; kinds are in KINDS.
`<!-- shipped PAGE -->` is the table of packaged models, for README (`readme`) or another page.
`<!-- tried MODEL_WHAT_WHAT -->`: trainings that do not ship, results/tried_MODEL_WHAT.json, beside the one that does.
`<!-- card NAME -->` is the card of a packaged model with its pictures, results/models/NAME/*.png.
The charts of results/speed.json are drawn at the same time.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mage.report.card import card_text
from mage.report.glossary import describe, format_value
from mage.store import packaged

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def table(name: str, rows_of: Callable[[dict[str, float]], list[str]]) -> str:
    """A record as a Markdown table, with command, seed, commit and machine; "" without a record."""
    path = ROOT / "results" / f"{name}.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    return "\n".join([*rows_of(record["metrics"]), "", about(name, record)])


def about(name: str, record: dict[str, Any]) -> str:
    """How a record was made."""
    text = (
        f"`{record['command']}`, seed {record['seed']}, commit {record['commit']}, {record['seconds'] / 60:.1f} "
        f"minutes on {record['machine']}; from `results/{name}.json`, which also states the protocols."
    )
    return text + (f" {record['protocol']['validation']}" if "validation" in record["protocol"] else "")


def measures(metrics: dict[str, float]) -> list[str]:
    """One row per metric that an evaluator describes, with its explanation."""
    rows = ["| measure | value | meaning |", "|---|---|---|"]
    for name, value in metrics.items():
        description = describe(name)
        if description.explanation:
            rows.append(f"| {description.title} | {format_value(name, value)} | {description.explanation} |")
    return rows


OWN_BATCH = {"small_pretrain": "128"}
"""Images per step of jobs that do not take the benchmark's batch, whose names of numbers have it nevertheless."""


def speeds(metrics: dict[str, float]) -> list[str]:
    """One row per job, batch size and implementation."""
    form = re.compile(
        r"seconds_(?P<work>.+?)_(?P<way>ours\w*?|plain\w*?|prototype|floor|timm|timm_compiled)_b(?P<batch>\d+)"
    )
    rows = ["| job | batch | way | seconds per image | ours is faster by | ours, GFLOP/s | of the ceiling |"]
    rows.append("|---|---|---|---|---|---|---|")
    for match in filter(None, map(form.fullmatch, metrics)):
        work, way, batch = match["work"], match["way"], match["batch"]
        seconds, images = metrics[match[0]], OWN_BATCH.get(work, batch)
        if way.startswith("timm"):  # an anchor, which has nothing of ours beside it
            share = metrics[f"ceiling_share_{work}_{way}_b{batch}"]
            rows.append(f"| {work} | {images} | {way} | {seconds:.3g} | | | {share:.0%} |")
            continue
        ours = metrics[f"seconds_{work}_ours_b{batch}"]
        if way == "ours":
            reached = f"{metrics[f'gflops_{work}_b{batch}']:.0f}"
            rest = f"| {reached} | {metrics[f'ceiling_share_{work}_b{batch}']:.0%} |"
        else:
            rest = "| | |"
        rows.append(f"| {work} | {images} | {way} | {seconds:.3g} | {seconds / ours:.2f} {rest}")
    limits = [
        f"{name.removeprefix('ceiling_gflops_')} {value:.0f}"
        for name, value in metrics.items()
        if name.startswith("ceiling_gflops_")
    ]
    return [*rows, "", f"Ceilings of this machine, in GFLOP/s: {', '.join(limits)}."]


def profile(metrics: dict[str, float]) -> list[str]:
    """One row per job: the operations that take most of its time."""
    rows = ["| job | batch | of the ceiling | where the time goes |", "|---|---|---|---|"]
    form = re.compile(r"time_share_(?P<work>\w+)_b(?P<batch>\d+)\.(?P<operation>.+)")
    jobs: dict[tuple[str, str], list[str]] = {}
    for match in filter(None, map(form.fullmatch, metrics)):
        jobs.setdefault((match["work"], match["batch"]), []).append(f"{match['operation']} {metrics[match[0]]:.0%}")
    for (work, batch), parts in jobs.items():
        images, share = OWN_BATCH.get(work, batch), metrics[f"ceiling_share_{work}_b{batch}"]
        rows.append(f"| {work} | {images} | {share:.0%} | {', '.join(parts)} |")
    return rows


COLUMNS = {
    "psnr_db": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "codes_used": ("codes used", "{:.1%}"),
    "perplexity_share": ("perplexity, share of codes", "{:.1%}"),
    "fd_efflite0": ("fd_efflite0", "{:.0f}"),
    "fd_judge": ("fd_judge", "{:.2f}"),
    "seconds": ("seconds", "{:.0f}"),
}


def variants(metrics: dict[str, float]) -> list[str]:
    """One row per variant of a study, whose metrics are called VARIANT.METRIC."""
    rows = [
        "| variant | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for name in dict.fromkeys(metric.split(".")[0] for metric in metrics):
        cells = [form.format(metrics[f"{name}.{key}"]) for key, (_, form) in COLUMNS.items()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


KERNELS = re.compile(r"fused_over_written_(?P<work>forward|step)_(?P<shape>\w+)_(?P<precision>bf16|float32)")
NORMS = {
    "encode_seconds": ("encoding, ms per image", 1e3),
    "decode_seconds": ("decoding", 1e3),
    "same_ids": ("same ids, %", 1e2),
}


def norms(metrics: dict[str, float]) -> list[str]:
    """One row per layout and norm of a tokenizer, whose metrics are called WAY.METRIC."""
    rows = ["| way | " + " | ".join(title for title, _ in NORMS.values()) + " |", "|---" * (1 + len(NORMS)) + "|"]
    for way in dict.fromkeys(metric.split(".")[0] for metric in metrics):
        values = {key: metrics.get(f"{way}.{key}") for key in NORMS}
        cells = ["" if values[key] is None else f"{values[key] * scale:.3g}" for key, (_, scale) in NORMS.items()]
        rows.append(f"| {way.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return rows


PRECISION = {
    "loss_mean_deviation": ("training loss over 1,000 steps: mean deviation of bf16 from float32", "{:.4f}"),
    "loss_mean_deviation_of_seeds": ("the same between two float32 runs of different seeds", "{:.4f}"),
    "logits_rms_deviation": ("logits of one model: root mean square deviation", "{:.3f}"),
    "logits_deviation_over_spread": ("that, over the spread of the logits", "{:.4f}"),
    "same_best_code": ("positions whose most probable code is the same", "{:.1%}"),
    "probability_total_variation": ("distance of the two distributions over codes (total variation)", "{:.4f}"),
    "fd_efflite0_bf16_against_float32": ("fd_efflite0 of 2,000 bf16 samples against 2,000 float32 samples", "{:.1f}"),
    "fd_efflite0_float32_against_float32": ("the same between two sets of float32 samples", "{:.1f}"),
    "fd_efflite0_bf16_against_real": ("fd_efflite0 of bf16 samples against real images", "{:.0f}"),
    "fd_efflite0_float32_against_real": ("the same of float32 samples", "{:.0f}"),
}


def kernels(metrics: dict[str, float]) -> list[str]:
    """Attention written out against the fused kernel, by shape; then the gain of compilation."""
    rows = ["| blocks | precision | forward | forward and backward |", "|---|---|---|---|"]
    ratios = {
        (m["shape"], m["precision"], m["work"]): metrics[m[0]] for m in filter(None, map(KERNELS.fullmatch, metrics))
    }
    for shape, precision in dict.fromkeys((shape, precision) for shape, precision, _ in ratios):
        cells = " | ".join(f"{ratios[shape, precision, work]:.2f}" for work in ("forward", "step"))
        rows.append(f"| {shape.replace('_', ', ')} | {precision} | {cells} |")
    rows += ["", "| compiled | a step is faster by | the first step takes |", "|---|---|---|"]
    for name, value in metrics.items():
        if name.startswith("compile_speedup_step_"):
            shape = name.removeprefix("compile_speedup_step_")
            first = metrics[f"compile_first_step_seconds_{shape}"]
            rows.append(f"| {shape.replace('_', ', ')} | {value:.2f} | {first:.0f} s |")
    return rows


def deviations(metrics: dict[str, float]) -> list[str]:
    """Effects of bfloat16."""
    rows = ["| measure | value |", "|---|---|"]
    return rows + [f"| {title} | {form.format(metrics[name])} |" for name, (title, form) in PRECISION.items()]


METHODS = {
    "linear": "linear probe",
    "knn": "k-NN",
    "fewshot25": "25 per class",
    "finetune": "fine-tuned",
    "corruption_clean": "not corrupted",
    "corruption": "corrupted",
    "attack_clean": "not attacked",
    "pgd": "attacked",
}


def methods(metrics: dict[str, float]) -> list[str]:
    """One row per method of pre-training, whose metrics are called METHOD.PROTOCOL."""
    rows = ["| method | " + " | ".join(METHODS.values()) + " | images seen |", "|---" * (2 + len(METHODS)) + "|"]
    for name in dict.fromkeys(metric.split(".")[0] for metric in metrics):
        if f"{name}.finetune" in metrics:
            cells = [f"{metrics[f'{name}.{protocol}']:.1%}" for protocol in METHODS]
            rows.append(f"| {name} | " + " | ".join(cells) + f" | {metrics[f'{name}.images_seen']:,.0f} |")
    few = "fewshot25_lbfgs"
    same = any(name.endswith(few) for name in metrics)  # earlier records have the references' by least squares
    few, title = (few, "25 per class") if same else ("fewshot25", "25 per class, least squares")
    rows += ["", f"| reference, not pre-trained here | least squares | k-NN | {title} |", "|---|---|---|---|"]
    for name in (metric.removesuffix(".linear_ridge") for metric in metrics if metric.endswith(".linear_ridge")):
        cells = [f"{metrics[f'{name}.{protocol}']:.1%}" for protocol in ("linear_ridge", "knn", few)]
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return rows


def online(metrics: dict[str, float]) -> list[str]:
    """One row per method: the last online probes in the log of its pre-training."""
    rows = ["| method | least squares | k-NN | images seen |", "|---|---|---|---|"]
    for name in dict.fromkeys(metric.split(".")[0] for metric in metrics):
        if f"{name}.online_knn" in metrics:
            cells = f"{metrics[f'{name}.online_linear']:.1%} | {metrics[f'{name}.online_knn']:.1%}"
            rows.append(f"| {name} | {cells} | {metrics[f'{name}.images_seen']:,.0f} |")
    return rows


FORM = {
    "fd": ("fd_efflite0", "{:.0f}"),
    "recall": ("recall", "{:.1%}"),
    "loss": ("reconstruction loss", "{:.3f}"),
    "knn": ("k-NN", "{:.1%}"),
    "linear": ("least squares", "{:.1%}"),
}


def forms(metrics: dict[str, float]) -> list[str]:
    """One row per form of MAGE-C, whose metrics are called FORM.METRIC."""
    rows = ["| form | " + " | ".join(title for title, _ in FORM.values()) + " |", "|---" * (1 + len(FORM)) + "|"]
    for name in dict.fromkeys(metric.rsplit(".", 1)[0] for metric in metrics):
        cells = [form.format(metrics[f"{name}.{key}"]) for key, (_, form) in FORM.items()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


KILLS = ("kills", "lost", "duplicates", "unreadable", "different", "refused", "traces")


def kills(metrics: dict[str, float]) -> list[str]:
    """One row per command that was killed, whose counts are called COMMAND.COUNT, and their sum."""
    rows = ["| command | " + " | ".join(KILLS) + " |", "|---" * (1 + len(KILLS)) + "|"]
    for name in dict.fromkeys(metric.split(".")[0] for metric in metrics if "." in metric):
        cells = [f"{metrics[f'{name}.{key}']:.0f}" for key in KILLS]
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return [*rows, "| all | " + " | ".join(f"{metrics[key]:.0f}" for key in KILLS) + " |"]


FUZZED = ("inputs", "accepted", "undocumented", "hangs")


def fuzzed(metrics: dict[str, float]) -> list[str]:
    """One row per kind of file that was damaged, whose counts are called KIND.COUNT, and their sum."""
    rows = ["| file | " + " | ".join((*FUZZED, "memory, GB")) + " |", "|---" * (2 + len(FUZZED)) + "|"]
    names = dict.fromkeys(metric.split(".")[0] for metric in metrics if "." in metric)
    for name, prefix in [*((name, f"{name}.") for name in names), ("all", "")]:
        cells = [f"{metrics[prefix + key]:,.0f}" for key in FUZZED]
        cells.append(f"{metrics[f'{prefix}largest_memory_gb']:.2f}")
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return rows


ADAPTATION = {
    "new_linear": "linear probe, new images",
    "new_knn": "k-NN, new images",
    "old_linear": "linear probe, old images",
    "old_knn": "k-NN, old images",
}


def adaptation(metrics: dict[str, float]) -> list[str]:
    """One row per model of a domain adaptation, whose metrics are called MODEL.METRIC."""
    rows = ["| model | " + " | ".join(ADAPTATION.values()) + " |", "|---" * (1 + len(ADAPTATION)) + "|"]
    for name in dict.fromkeys(metric.split(".")[0] for metric in metrics):
        cells = [f"{metrics[f'{name}.{key}']:.1%}" for key in ADAPTATION]
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return rows


ADAPTED = {
    "psnr_db": ("tokenizer PSNR, dB", "{:.1f}"),
    "masked_loss": ("masked loss", "{:.2f}"),
    "fd_efflite0": ("fd_efflite0 of samples", "{:.0f}"),
    "knn_accuracy": ("k-NN", "{:.1%}"),
}


def adapted(metrics: dict[str, float]) -> list[str]:
    """One row per data set and number of images, DATA.COUNT.WHEN.METRIC, each measure before and after."""
    rows = ["| data | images | tokenizer | " + " | ".join(title for title, _ in ADAPTED.values()) + " |"]
    rows.append("|---" * (3 + len(ADAPTED)) + "|")
    for run in dict.fromkeys(name.removesuffix(".tuned") for name in metrics if name.endswith(".tuned")):
        cells = []
        for key, (_, form) in ADAPTED.items():
            old, new = (metrics.get(f"{run}.{when}.{key}") for when in ("before", "after"))
            ends = [metrics.get(f"{run}.after.{key}_{end}") for end in ("low", "high")]
            shown = "" if old is None or new is None else f"{form.format(old)} → {form.format(new)}"
            reach = (
                f" ({100 * ends[0]:.0f} to {100 * ends[1]:.0f})" if ends[0] is not None and ends[1] is not None else ""
            )
            cells.append(shown + reach)
        data, count = run.rsplit(".", 1)
        kind = "tuned" if metrics[f"{run}.tuned"] else "kept"
        rows.append(f"| {data} | {int(count):,} | {kind} | " + " | ".join(cells) + " |")
    return rows


GENERATION = {
    "class_accuracy": ("samples of a class that the classifier takes for it, without guidance", "{:.1%}"),
    "class_accuracy_guided": ("the same, with the best guidance", "{:.1%}"),
    "accuracy.real": ("real test images that it takes for their class", "{:.1%}"),
    "accuracy_reconstructed.real": ("the same after the tokenizer", "{:.1%}"),
    "fd_1000.real": ("fd_efflite0 of 1,000 real training images", "{:.0f}"),
    "fd_1000_reconstructed.real": ("the same after the tokenizer", "{:.0f}"),
    "fd_MANY.real": ("fd_efflite0 of MANY real training images", "{:.0f}"),
    "fd_MANY_reconstructed.real": ("the same after the tokenizer", "{:.0f}"),
    "fd_large.before": ("fd_efflite0 of MANY samples without classes", "{:.0f}"),
    "fd_large.after": ("the same model, its decoder told its own clusters", "{:.0f}"),
    "self_conditional_gain": ("gain by its own clusters, 1 - after / before", "{:.1%}"),
    "self_conditional_gain_same_sampler": ("the same of 1,000 samples, with one sampler for both", "{:.1%}"),
    "fd_large.before_even": ("the same model, its decoder trained as long without clusters", "{:.0f}"),
    "self_conditional_gain_even": ("gain by clusters, 1 - after / that", "{:.1%}"),
    "fd_large.before_whole": ("the same model, all of it trained on without clusters", "{:.0f}"),
    "fd_large.after_whole": ("the same training, all of the model told its own clusters", "{:.0f}"),
    "self_conditional_gain_whole": ("gain by clusters in that training", "{:.1%}"),
    "self_conditional_gain_whole_same_sampler": ("the same of 1,000 samples, with one sampler for both", "{:.1%}"),
    "self_conditional_gain_with_training": ("gain by clusters and that training together", "{:.1%}"),
}
"""Headline metrics; MANY stands for the number of samples of the larger sets."""


def generation(metrics: dict[str, float]) -> list[str]:
    """The headline metrics, then fd_efflite0 of each sampler by steps, then guidance."""
    rows = ["| measure | value |", "|---|---|"]
    counts = [int(match[1]) for match in map(re.compile(r"fd_(\d+)\.real").fullmatch, metrics) if match is not None]
    many = max(counts, default=0)
    for key, (title, form) in GENERATION.items():
        name = key.replace("MANY", str(many))
        if name in metrics:
            rows.append(f"| {title.replace('MANY', f'{many:,}')} | {form.format(metrics[name])} |")
    by_steps = [match for match in map(re.compile(r"fd_1k\.(.+)\.steps(\d+)").fullmatch, metrics) if match is not None]
    steps = sorted({int(match[2]) for match in by_steps})
    if steps:
        rows += ["", "| fd_efflite0 of 1,000 samples | " + " | ".join(f"{count} steps" for count in steps) + " |"]
        rows.append("|---" * (1 + len(steps)) + "|")
    for name in dict.fromkeys(match[1] for match in by_steps):
        cells = [f"{metrics[f'fd_1k.{name}.steps{count}']:.0f}" for count in steps]
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    kept = [name.removeprefix("fd_1k.") for name in metrics if name.startswith("fd_1k.encoder_keep")]
    if kept:
        rows += ["", "| sampler | fd_efflite0 of 1,000 samples | precision | recall |", "|---|---|---|---|"]
    for name in kept:
        shares = " | ".join(f"{metrics[f'{measure}_1k.{name}']:.1%}" for measure in ("precision", "recall"))
        rows.append(f"| {name.replace('_', ' ')} | {metrics[f'fd_1k.{name}']:.0f} | {shares} |")
    guided = re.compile(r"fd_1k\.(\w+?)(?:\.guidance([\d.]+))?")
    rows += ["", "| model | guidance | fd_efflite0 of 1,000 samples | taken for its class |", "|---|---|---|---|"]
    for match in filter(None, map(guided.fullmatch, metrics)):
        if match[1].startswith("encoder_keep"):
            continue
        accuracy = metrics.get(f"class_accuracy.{match[1]}.guidance{match[2]}")
        shown = "" if accuracy is None else f"{accuracy:.1%}"
        rows.append(f"| {match[1]} | {match[2] or ''} | {metrics[match[0]]:.0f} | {shown} |")
    return rows


def reuse(metrics: dict[str, float]) -> list[str]:
    """One row per order and reuse: how much faster, and how far from real images."""
    rows = ["| order | `reuse` | times faster | fd_efflite0 | over the paper's sampler |", "|---|---|---|---|---|"]
    rows.append(f"| the paper's sampler | 1 | 1.00 | {metrics['published.fd']:.1f} | 1.000 |")
    form = re.compile(r"(?P<order>\w+)\.reuse(?P<every>\d+)\.fd")
    for match in filter(None, map(form.fullmatch, metrics)):
        order, every, distance = match["order"], match["every"], metrics[match[0]]
        share = distance / metrics["published.fd"]
        mark = " (recommended)" if metrics[f"{order}.recommended"] == int(every) else ""
        faster = metrics[f"{order}.reuse{every}.speedup"]
        rows.append(f"| {order} | {every}{mark} | {faster:.2f} | {distance:.1f} | {share:.3f} |")
    return rows


def limits(metrics: dict[str, float]) -> list[str]:
    """The distance on the way from real images to samples, and how well tokens are predicted."""
    ladder = {"real": "training images", "restored": "their reconstructions"}
    form = re.compile(r"redrawn(?P<share>[\d.]+)\.fd")
    shares = [match["share"] for match in filter(None, map(form.fullmatch, metrics))]
    ladder |= {f"redrawn{share}": f"{float(share):.0%} of their tokens redrawn" for share in shares}
    rows = [f"| {title} | {metrics[f'{name}.fd']:.1f} |" for name, title in ladder.items()]
    parts = {"train": "training", "validation": "validation"}
    rows += [f"| nats per token, {title} images | {metrics[f'{name}.nats']:.2f} |" for name, title in parts.items()]
    return ["| fd_efflite0 to validation images | value |", "|---|---|", *rows]


def decoders(metrics: dict[str, float]) -> list[str]:
    """Distances of the same tokens after decoders that were trained further, results/decoder_DATA.json."""
    names = {"before": "as it is", "redrawn0": "trained further on the images' own tokens"}
    names |= {f"redrawn{share}": f"up to {float(share):.0%} of the tokens redrawn" for share in ("0.5", "1")}
    columns = {"free": "samples", "classes": "samples by class", "restored": "reconstructions"}
    shown = [name for name in columns if f"before.{name}" in metrics]
    lines = [f"| decoder | {' | '.join(columns[name] for name in shown)} |", "|---" * (len(shown) + 1) + "|"]
    for key, title in names.items():
        cells = [f"{metrics[f'{key}.{name}']:.1f}" for name in shown]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


TRIED = {
    "Fréchet distance, without class": "fd_efflite0_test{n}_none",
    "Fréchet distance, by class": "fd_efflite0_test{n}_classes",
    "of their class": "class_accuracy",
    "samples a judge is sure of": "sample_confident_share",
    "samples of a class a judge is sure of": "class_confident_share",
    "near copies of training images": "near_copy_share",
    "the same of test images after the tokenizer": "near_copy_share_restored",
    "linear probe": "linear_probe_accuracy",
    "k-NN": "knn_accuracy",
    "25 labelled images of each class": "fewshot25_accuracy",
}
"""Rows of a trained model that does not ship; {n} is the number of samples in a metric's name."""


def tried(name: str) -> str:
    """Measures of models that were trained and do not ship, beside the one that does, and how they were made.

    name: MODEL_WHAT_WHAT..., for the records results/tried_MODEL_WHAT.json, one column each.
    """
    model, *whats = name.split("_")
    records = {what: json.loads((ROOT / "results" / f"tried_{model}_{what}.json").read_text()) for what in whats}
    columns = [record["metrics"] for record in records.values()] + [packaged.card_of(model).record["metrics"]]
    lines = [f"| measure | {' | '.join(whats)} | ships |", "|---" * (len(columns) + 1) + "|"]
    longest = max(re.findall(r"fd_efflite0_test(\w+)_restored", " ".join(columns[-1])), key=len)
    for title, form in TRIED.items():
        key = form.format(n=longest)
        names = [key if key in metrics else key.removesuffix("_none") for metrics in columns]  # of older records
        cells = [format_value(name, got[name]) if name in got else "" for name, got in zip(names, columns, strict=True)]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    made = [f"- {what}: {about(f'tried_{model}_{what}', record)}" for what, record in records.items()]
    return "\n".join([*lines, "", *made])


GRAPHS = {
    "graph_breaks": ("graph breaks", "{:.0f}"),
    "recompilations": ("recompilations", "{:.0f}"),
    "host_syncs_per_step": ("numbers read back from the device per step", "{:.0f}"),
    "loss_max_rel_200": ("largest relative deviation of the losses of 200 steps from the plain step's", "{:.1e}"),
}


CLICKS = {
    "first_seconds": ("first click after the start, seconds until the first pictures", "{:.2f}"),
    "first_seconds_most": ("the same, the longest", "{:.2f}"),
    "later_seconds": ("later clicks", "{:.2f}"),
    "start_seconds": ("from the command until the page can be opened", "{:.1f}"),
}
PROCESSES = {
    "float64_max_rel_ddp": ("largest relative deviation of a loss in 200 steps, float64, DDP", "{:.1e}"),
    "float64_max_rel_fsdp": ("the same, FSDP2", "{:.1e}"),
    "float32_step1_rel_ddp": ("at step 1, float32, DDP", "{:.1e}"),
    "float32_step1_rel_fsdp": ("the same, FSDP2", "{:.1e}"),
    "float32_step200_rel_ddp": ("at step 200, float32, DDP", "{:.1e}"),
    "float32_step200_rel_fsdp": ("the same, FSDP2", "{:.1e}"),
    "order_mismatches": ("images out of order in a run that changes its processes four times", "{:.0f}"),
    "elastic_loss_max_rel": ("largest relative deviation of its losses", "{:.1e}"),
    "bytes_over_formula": ("bytes that a process sends in a step, over those of a ring", "{:.4f}"),
    "efficiency_2": ("pace of two processes on two cores, over twice that of one", "{:.2f}"),
}


def listed(head: str, titles: dict[str, tuple[str, str]]) -> Callable[[dict[str, float]], list[str]]:
    """One row per title, with its value in its form."""

    def rows(metrics: dict[str, float]) -> list[str]:
        found = [f"| {title} | {form.format(metrics[name])} |" for name, (title, form) in titles.items()]
        return [f"| {head} | value |", "|---|---|", *found]

    return rows


LEFT_OUT = {
    "surprise": "surprise",
    "knn_features": "k-NN, features",
    "knn_pixels": "k-NN, pixels",
    "reconstruction": "reconstruction error",
}


def left_out(metrics: dict[str, float]) -> list[str]:
    """One row per left-out class, DATA.CLASS.METHOD, and the settings of surprise on images that choose."""
    rows = ["| left out | " + " | ".join(LEFT_OUT.values()) + " |", "|---" * (1 + len(LEFT_OUT)) + "|"]
    tested = [name.removesuffix(".surprise") for name in metrics if name.endswith(".surprise")]
    for name in tested:
        cells = [f"{metrics[f'{name}.{method}']:.1%}" for method in LEFT_OUT]
        data, number = name.split(".")
        rows.append(f"| {data}, {number} | " + " | ".join(cells) + " |")
    form = re.compile(r"(?P<data>\w+)\.validation\.surprise\.(?P<division>parts\d+\.draws\d+)\.(?P<scale>\w+)\.mean")
    rows += ["", "| surprise, on images that choose | scale | mean | max | top |", "|---|---|---|---|---|"]
    for match in filter(None, map(form.fullmatch, metrics)):
        cells = [f"{metrics[match[0].removesuffix('mean') + pool]:.1%}" for pool in ("mean", "max", "top")]
        division = match["division"].replace("parts", "parts ").replace(".draws", ", draws ")
        rows.append(f"| {match['data']}, {division} | {match['scale']} | " + " | ".join(cells) + " |")
    return rows


PICTURES = {
    "samples": "64 samples, seeds 0 to 63, none chosen",
    "edits": "Edits of test images: before; the marked part; after",
    "nearest": "Samples, each beside its nearest training image, with the root mean square difference of their pixels "
    "(0 to 1): on the left the closest of 64, on the right those in the middle",
}


def card(name: str) -> str:
    """Card and pictures of a packaged model, below a heading of the second level; "" if there is no such model."""
    if name not in packaged.names():
        return ""
    text = re.sub("^#", "##", card_text(name, packaged.card_of(name)), flags=re.M)
    for picture, words in PICTURES.items():
        file = f"results/models/{name}/{picture}.png"
        text += f"\n\n{words}:\n\n![{words}](../{file})" if (ROOT / file).is_file() else ""
    return text


SHIPPED = {
    "Fréchet distance, by class": "fd_efflite0_test{n}_classes",
    "of their class": "class_accuracy",
    "linear probe": "linear_probe_accuracy",
    "k-NN": "knn_accuracy",
    "25 per class": "fewshot25_accuracy",
}
"""Columns of the table of packaged models; {n} is the number of samples in a metric's name."""


def shipped(cards: str) -> str:
    """Packaged models, a row each: size, distance of samples beside that of reconstructions, accuracies.

    cards: the page that the models' names link to.
    """
    rows = ["| model | images | weights | " + " | ".join(SHIPPED) + " |", "|---|---|---|" + "---|" * len(SHIPPED)]
    for name in packaged.names():
        card, cells = packaged.card_of(name), list[str]()
        metrics = card.record["metrics"]
        longest = max(re.findall(r"fd_efflite0_test(\w+)_restored", " ".join(metrics)), key=len)
        for column in SHIPPED.values():
            key = column.format(n=longest)
            text = format_value(key, metrics[key]) if key in metrics else ""
            if key.startswith("fd_") and text:
                restored, real = (metrics[f"fd_efflite0_test{longest}_{other}"] for other in ("restored", "real"))
                text += f" ({format_value(key, restored)} after the tokenizer alone, {format_value(key, real)} real)"
            cells.append(text)
        size = sum(path.stat().st_size for path in (packaged.FOLDER / name).glob("*.safetensors")) / 1e6
        rows.append(f"| [`{name}`]({cards}) | {card.title} | {size:.1f} MB | {' | '.join(cells)} |")
    return "\n".join(rows)


def of_examples(*questions: str) -> Callable[[dict[str, float]], list[str]]:
    """Rows of the examples that answer these questions: how well, beside chance and simple baselines."""

    def rows(metrics: dict[str, float]) -> list[str]:
        chosen = [name for name in metrics if name.split(".")[0] in questions]
        cells = [f"| {name.replace('.', ' | ').replace('_', ' ')} | {metrics[name]:.3g} |" for name in chosen]
        return ["| example | measure | value |", "|---|---|---|", *cells]

    return rows


def clusters(metrics: dict[str, float]) -> list[str]:
    """One row per network, device and number of devices, as studies/scaling.py computes them."""
    rows = ["| network | devices | hours | GPU-days | GB a device | of linear speed-up |", "|---|---|---|---|---|---|"]
    form = re.compile(r"hours_(?P<size>\w+?)_(?P<device>\w+)_(?P<count>1|8|64|256)")
    for match in filter(None, map(form.fullmatch, metrics)):
        size, device, count = match["size"], match["device"], match["count"]
        hours, days, memory, share = (
            metrics[f"{name}_{size}_{device}_{count}"] for name in ("hours", "device_days", "memory_gb", "efficiency")
        )
        name = f"ViT-{size[0].upper()}"
        rows.append(f"| {name} | {count} {device} | {hours:,.0f} | {days:,.0f} | {memory:.0f} | {share:.0%} |")
    return rows


def demos(metrics: dict[str, float]) -> list[str]:
    """One row per demo: what more minutes bring."""
    forms = {"linear_probe_mean_accuracy": "linear probe, mean", "knn_accuracy": "k-NN",
             "sample_confident_share": "samples a judge is sure of"}  # fmt: skip
    rows = [f"| `mage demo --minutes` | {' | '.join(forms.values())} |", "|---" * (len(forms) + 1) + "|"]
    for number in sorted({int(found[1]) for name in metrics if (found := re.match(r"minutes(\d+)\.", name))}):
        cells = [f"{metrics[f'minutes{number}.{name}']:.1%}" for name in forms]
        rows.append(f"| {number} | {' | '.join(cells)} |")
    return rows


KINDS = {
    "demos": demos,
    "clusters": clusters,
    "tokens": of_examples("text", "audio"),
    "decisions": of_examples("frames", "actions", "plans"),
    "left_out": left_out,
    "graphs": listed("over all steps, mask ratios from 0.5 to 1", GRAPHS),
    "clicks": listed("`mage serve` and a browser on one machine", CLICKS),
    "processes": listed("1, 2 and 4 processes", PROCESSES),
    "table": measures,
    "reuse": reuse,
    "limits": limits,
    "decoders": decoders,
    "speeds": speeds,
    "profile": profile,
    "variants": variants,
    "kernels": kernels,
    "norms": norms,
    "deviations": deviations,
    "methods": methods,
    "online": online,
    "forms": forms,
    "adaptation": adaptation,
    "kills": kills,
    "fuzzed": fuzzed,
    "adapted": adapted,
    "generation": generation,
}


def filled(text: str) -> str:
    """A page with all its tables replaced."""
    form = re.compile(r"(<!-- (\w+) (\w+) -->\n).*?(<!-- end -->)", re.S)

    def content(kind: str, name: str) -> str:
        if kind == "shipped":
            return shipped("docs/models.md" if name == "readme" else "models.md")
        if kind == "tried":
            return tried(name)
        return card(name) if kind == "card" else table(name, KINDS[kind])

    return form.sub(lambda match: f"{match[1]}\n{content(match[2], match[3])}\n\n{match[4]}", text)


def charts() -> None:
    """Draw charts of speed and of cost by sequence length next to results/speed.json."""
    from mage.report.charts import Bar, Series, bar_chart, line_chart, standalone

    path = ROOT / "results" / "speed.json"
    if not path.is_file():
        return
    metrics: dict[str, float] = json.loads(path.read_text())["metrics"]
    form = re.compile(r"ceiling_share_(\w+)_b(\d+)")
    bars = [
        Bar(f"{m[1].replace('_', ' ')}, batch {m[2]}", metrics[m[0]], f"{metrics[m[0]]:.0%}")
        for m in filter(None, map(form.fullmatch, metrics))
    ]
    chart = bar_chart(bars, title="Share of this machine's ceiling that each job reaches", most=1.0, width=820)
    path.with_name("speed_ceiling.svg").write_text(standalone(chart))
    lines = []
    for work, name in (("pass", "a decoding pass"), ("step", "a training step")):
        for way in ("ours", "plain"):
            key = re.compile(rf"seconds_{work}_(\d+)_tokens_{way}_b\d+")
            points = [(int(m[1]), metrics[m[0]]) for m in filter(None, map(key.fullmatch, metrics))]
            lines.append(Series(f"{name}, {way}", sorted(points), markers=True))
    chart = line_chart(lines, title="Seconds per image of ViT-B", x_label="tokens", width=760, height=340)
    if chart:
        path.with_name("speed_growth.svg").write_text(standalone(chart))


def main() -> None:
    """Write the tables, or with --check fail if one is out of date."""
    for page in PAGES:
        if not page.is_file():
            continue
        text = page.read_text()
        new = filled(text)
        if new != text and "--check" in sys.argv:
            raise SystemExit(f"{page.relative_to(ROOT)} is out of date: run `python docs/tables.py`")
        page.write_text(new)
    if "--check" not in sys.argv:
        charts()


if __name__ == "__main__":
    main()
