"""Samplers, classes and clusters: `python studies/generation.py --data-root DATA --model RUN --out OUT`.

RUN is a finished run of the recipe cifar10, or with `--data digits` of mnist5k, with its tokenizer inside (if its sizes
differ from the recipe's, give them by `--set model.width=...`). The study trains decoders on its frozen encoder for
labels, for clusters and without conditions, a model with labels from scratch, and continues the training of the whole
of RUN without and with clusters. Samples of many samplers are measured by Frechet distance (fd_efflite0), and
class-conditional ones by the accuracy of an independent classifier, trained on real images.

Samplers, guidances, numbers of clusters and models are chosen by validation images; the chosen ones, and the rows of
the tables, are measured on test images with other random numbers, by which nothing is chosen. Results are written to
results/generation.json (of digits: generation_digits.json), with figures in the same folder. Trainings are resumed, and
no set of samples is measured twice: `--parts` and repeated runs share OUT.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from choices import RESULTS, ask, place, published
from generation_study import CHOICE_SEED, FINAL_SEED, LARGE, SMALL, SUBJECTS, Study

import mage
from mage import images, pictures
from mage.report.charts import Series, line_chart, standalone
from mage.runs.record import Record, write_record

PARTS = ("labels", "clusters", "classes", "whole", "samplers", "encoder_keep", "guidance", "self_conditional", "edits")
CLUSTERS = (16, 64, 256, 1024)
GUIDANCES = (0.0, 1.0)
"""Guidances that are tried with clusters."""
KEPT = (1.0, 0.75, 0.5, 0.25)
"""Smallest shares of the tokens in the encoder during sampling."""


def samplers(study: Study) -> dict[str, float]:
    """Quality by steps for every sampler; above 16 steps only with the settings that are best at 16."""
    metrics: dict[str, float] = {}
    lines = []
    for name, tried in study.subject.samplers.items():
        points: list[tuple[float, float | None]] = []
        for steps in study.subject.steps:
            if steps > 16:
                tried = [study.choose("base", [settings | {"steps": 16} for settings in tried])]
            best = study.choose("base", [settings | {"steps": steps} for settings in tried])
            value = study.final("base", best)["fd"]
            metrics[f"fd_1k.{name.replace(', ', ' ').replace(' ', '_')}.steps{steps}"] = value
            points.append((steps, value))
        lines.append(Series(name, points, markers=True))
    figure(study, "steps", lines, f"fd_efflite0 of {study.small:,} samples, smaller is better", "steps")
    return metrics


def encoder_keep(study: Study) -> dict[str, float]:
    """Quality with only a part of the masked tokens in the encoder."""
    metrics: dict[str, float] = {}
    paper = study.subject.samplers["confidence"]
    best = study.choose("base", [settings | {"steps": 16} for settings in paper])
    for kept in KEPT:
        values = study.final("base", best | {"encoder_keep": kept})
        metrics |= {f"{name}_1k.encoder_keep_{kept:g}": values[name] for name in ("fd", "precision", "recall")}
    return metrics


def guidance(study: Study) -> dict[str, float]:
    """Accuracy of the class by guidance, and the trade-off with the Frechet distance."""
    metrics: dict[str, float] = {}
    accuracy, distance, both = [], [], []
    judged: dict[tuple[str, float], float] = {}
    for model in ("labels", "classes"):
        if model not in study.models:
            continue
        chosen = {guidance: best_sampler(study, model, guidance) for guidance in study.subject.guidances}
        judged |= {(model, guidance): values["accuracy"] for guidance, (values, _) in chosen.items()}
        values = {guidance: study.final(model, sampler, by_class=True) for guidance, (_, sampler) in chosen.items()}
        metrics |= {f"class_accuracy.{model}.guidance{g:g}": value["accuracy"] for g, value in values.items()}
        metrics |= {f"fd_1k.{model}.guidance{g:g}": value["fd"] for g, value in values.items()}
        for sampler in study.subject.guided:
            label = " ".join(str(setting) for setting in sampler.values())
            unguided = study.final(model, sampler | {"guidance": 0.0}, by_class=True)
            metrics |= {f"unguided.{model}.{label}.{key}": unguided[key] for key in ("accuracy", "fd")}
        accuracy.append(Series(model, [(g, value["accuracy"]) for g, value in values.items()], markers=True))
        distance.append(Series(model, [(g, value["fd"]) for g, value in values.items()], markers=True))
        pairs = [(100 * value["accuracy"], value["fd"]) for value in values.values()]
        both.append(Series(model, list(pairs), markers=True))
    figure(study, "guidance_accuracy", accuracy, "share of samples taken for their class", "guidance")
    figure(study, "guidance_distance", distance, f"fd_efflite0 of {study.small:,} samples", "guidance")
    title = f"fd_efflite0 at guidance {', '.join(f'{weight:g}' for weight in study.subject.guidances)}"
    figure(study, "trade_off", both, title, "% of samples taken for their class")
    for name, tried in (("", [pair for pair in judged if pair[1] == 0.0]), ("_guided", list(judged))):
        if tried:  # by the samples that chose the samplers, not by those that are reported
            model, weight = max(tried, key=lambda pair: judged[pair])
            metrics[f"class_accuracy{name}"] = metrics[f"class_accuracy.{model}.guidance{weight:g}"]
    return metrics


def self_conditional(study: Study) -> dict[str, float]:
    """A model before and after training with its own clusters as conditions: of its decoder, and of all of it."""
    metrics: dict[str, float] = {}
    lines: dict[float, list[tuple[float, float | None]]] = {guidance: [] for guidance in GUIDANCES}
    for name in ("decoder", "longer"):
        if name in study.models:
            metrics[f"fd_1k.{name}"] = study.final(name, study.sampler())["fd"]
    pairs = (("base", "clusters", ""), ("decoder", "clusters", "_even"), ("longer", "whole", "_whole"))
    for before, kind, end in pairs:
        tried: list[tuple[float, str, dict[str, Any]]] = []
        for count in study.options.clusters:
            name = f"{kind}{count}"
            if name not in study.models:
                continue
            for guidance in GUIDANCES:
                values, sampler = best_sampler(study, name, guidance)
                metrics[f"fd_1k.{name}.guidance{guidance:g}"] = value = study.final(name, sampler)["fd"]
                tried.append((values["fd"], name, sampler))
                if before == "base":
                    lines[guidance].append((count, value))
        if tried and before in study.models:
            metrics |= gain(study, before, *min(tried, key=lambda measured: measured[0])[1:], end)
    if {"fd_large.before", "fd_large.after_whole"} <= metrics.keys():
        ratio = metrics["fd_large.after_whole"] / metrics["fd_large.before"]
        metrics["self_conditional_gain_with_training"] = 1 - ratio
    title = f"fd_efflite0 of {study.small:,} samples"
    figure(
        study,
        "clusters",
        [Series(f"guidance {weight:g}", points, markers=True) for weight, points in lines.items()],
        title,
        "clusters",
    )
    return metrics


def best_sampler(study: Study, name: str, guidance: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics on validation images, and settings, of the best sampler for a model with classes or clusters."""
    by_class = name in ("labels", "classes")
    samplers = study.subject.guided if by_class else study.subject.clustered
    tried = [sampler | {"guidance": guidance} for sampler in samplers]
    best = study.choose(name, tried, by_class=by_class)
    return study.measure(name, best, by_class=by_class), best


def gain(study: Study, before: str, name: str, sampler: dict[str, Any], end: str) -> dict[str, float]:
    """Gain of a model with clusters over the one before it, measured with many samples."""
    same = {key: value for key, value in sampler.items() if key != "guidance"}
    best = study.choose(before, [study.sampler(), same])
    alone = study.final(before, best, num=study.large)["fd"]
    after = study.final(name, sampler, num=study.large)["fd"]
    return {
        f"fd_large.before{end}": alone,
        f"fd_large.after{end}": after,
        f"self_conditional_gain{end}": 1 - after / alone,
        f"self_conditional_gain{end}_same_sampler": 1
        - study.final(name, sampler)["fd"] / study.final(before, same)["fd"],
    }


def edits(study: Study) -> None:
    """Pictures of samples by class and by clusters."""
    rows = []
    names = study.parts.train.class_names
    if with_classes := {"labels", "classes"} & study.models.keys():
        model = max(with_classes)
        sampler = best_sampler(study, model, 2.0)[1]
        for number, name in enumerate(names):
            samples = study.models[model].generate(12, classes=number, **published(sampler))
            rows.append((name, samples.float().cpu()))
        images.save_png(path(study, "_classes.png"), pictures.labelled_rows(rows, side=48))
    base = study.base.generate(48, **published(study.sampler())).float().cpu()
    shown = [("as it was", base[k : k + 12]) for k in range(0, 48, 12)]
    for count in study.options.clusters:
        name = f"clusters{count}"
        if name in study.models:
            sampler = best_sampler(study, name, 1.0)[1]
            samples = study.models[name].generate(24, **published(sampler)).float().cpu()
            shown += [(f"{count} clusters", samples[k : k + 12]) for k in range(0, 24, 12)]
    images.save_png(path(study, "_clusters.png"), pictures.labelled_rows(shown, side=48))


def path(study: Study, end: str) -> Path:
    """Path of a file of the results."""
    name = "generation" + ("" if study.options.data == "cifar10" else "_digits") + study.options.tag
    return study.options.results / (name + end)


def figure(study: Study, name: str, lines: list[Series], title: str, x_label: str) -> None:
    """Write a chart of the results."""
    chart = line_chart(lines, title=title, x_label=x_label, width=760, height=340)
    if chart:
        path(study, f"_{name}.svg").write_text(standalone(chart))


def main() -> None:
    """Train, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SUBJECTS, default="cifar10", help="data set of RUN")
    parser.add_argument("--data-root", help="folder where CIFAR-10 lies")
    parser.add_argument("--model", required=True, type=Path, help="finished run of the recipe cifar10 or mnist5k")
    parser.add_argument("--out", type=Path, default=Path("runs/generation"), help="folder of the runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--set", action="append", default=[], help="settings of every training, as of `mage pretrain`")
    parser.add_argument("--set-classes", action="append", default=[], help="settings of the training from scratch")
    parser.add_argument("--classes-from-model", action="store_true", help="start that one from RUN's weights instead")
    parser.add_argument("--clusters", nargs="+", type=int, default=list(CLUSTERS), help="numbers of clusters to train")
    parser.add_argument("--whole", nargs="+", type=int, default=[64], help="numbers of clusters for all of the model")
    parser.add_argument("--set-whole", action="append", default=[], help="settings of the trainings of the part whole")
    parser.add_argument("--train-only", action="store_true", help="train the parts before samplers; no more")
    parser.add_argument(
        "--tag", default="", help="ending of the names of the results, to distinguish those of several RUNs"
    )
    parser.add_argument("--note", action="append", default=[], help="how RUN was trained, for the record")
    parser.add_argument("--epochs", type=int, default=12, help="of the independent classifier")
    parser.add_argument("--samples", type=int, default=SMALL, help="samples of each setting")
    parser.add_argument("--large", type=int, default=LARGE, help="samples of the numbers that are compared in the text")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record and its figures")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    request = {"model": place(options.model), "data": options.data, "set": " ".join(options.set)}
    if "classes" in options.parts:
        request |= {"set_classes": " ".join(options.set_classes), "classes_from_model": options.classes_from_model}
    if "whole" in options.parts:
        request["set_whole"] = " ".join(options.set_whole)
    if not options.train_only:
        request |= {"epochs": options.epochs, "samples": options.samples, "large": options.large}
    ask(options.out, request)
    study = Study(options)
    if "labels" in options.parts:
        study.pretrain("labels", "labels")
    if "clusters" in options.parts:
        study.pretrain("decoder", "decoder")
        for count in options.clusters:
            study.pretrain(f"clusters{count}", "clusters", f"method.conditions.clusters={count}")
    if "classes" in options.parts:
        study.pretrain("classes", "classes", *options.set_classes, start=options.classes_from_model)
    if "whole" in options.parts:
        study.pretrain("longer", "longer", *options.set_whole)
        for count in options.whole:
            study.pretrain(f"whole{count}", "whole", f"method.conditions.clusters={count}", *options.set_whole)
    if options.train_only:
        return
    clustered = [f"{kind}{count}" for kind in ("clusters", "whole") for count in options.clusters]
    for name in ("labels", "classes", "decoder", "longer", *clustered):
        if (options.out / name / "finished").exists():
            study.models[name] = mage.load(options.out / name)
    metrics = {f"{name}.real": value for name, value in study.real().items()}
    works = {
        "samplers": samplers,
        "encoder_keep": encoder_keep,
        "guidance": guidance,
        "self_conditional": self_conditional,
    }
    for part, work in works.items():
        if part in options.parts:
            metrics |= work(study)
            record(study, metrics)
    if "edits" in options.parts:
        edits(study)


def record(study: Study, metrics: dict[str, float]) -> None:
    """Write the results so far."""
    best, options = study.sampler(), study.options
    guidances = ", ".join(f"{weight:g}" for weight in GUIDANCES)
    protocol = {
        "models": " ".join(options.note) or "as the recipes say",
        "best_sampler": ", ".join(f"{name} {value}" for name, value in best.items()),
        "validation": study.parts.sentence("Samplers, guidances, numbers of clusters and models were chosen"),
        "fd": f"fd_efflite0 against the {len(study.parts.test):,} test images; 1k: of {study.small:,} samples of seed "
        f"{FINAL_SEED}; settings were chosen by as many of seed {CHOICE_SEED} against the validation images",
        "class_accuracy": f"share of {study.small:,} samples, each class in turn, that a small network of real images "
        f"takes for their class ({options.epochs} epochs"
        f"{', half of the batches softened' if study.subject.soften else ''}); of the model and guidance with the best "
        f"share while choosing, each with the sampler (of {len(study.subject.guided)}) of the least fd",
        "self_conditional_gain": f"1 - after / before, {study.large:,} samples; "
        "before, of all samplers at up to 16 steps (decoder, longer: RUN's best, or the one after); after, of "
        f"numbers of clusters, samplers ({len(study.subject.clustered)}) and guidance ({guidances}); same_sampler: of "
        f"{study.small:,} samples, all settings but guidance alike; even, whole: before and after had the same "
        "further training, of the decoder, of all; with_training: of the model told its clusters in it to the model "
        "before it",
    }
    timings = {"total": sum(values.get("seconds", 0.0) for values in study.measured.values())}
    places = {str(options.model): "RUN", str(options.data_root): "DATA", str(options.out): "OUT"}
    places[str(options.results)] = "RESULTS"
    words = [places.get(word, word) for word in sys.argv[1:] if word not in ("--note", *options.note)]
    command = f"python studies/generation.py {shlex.join(words)}"
    metrics = metrics | {"best_sampler_fd_1k": study.final("base", best)["fd"]}
    write_record(path(study, ".json"), Record(command, 0, protocol, timings, metrics))


if __name__ == "__main__":
    main()
