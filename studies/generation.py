"""Samplers, classes and clusters: `python studies/generation.py --data-root DATA --model RUN --out OUT`.

RUN is a finished run of the recipe cifar10, or with `--data digits` of mnist5k, with its tokenizer inside (of other
sizes than the recipe's: give them with `--set model.width=...` again). On its frozen encoder the study trains decoders
for labels, for clusters and for nothing, from scratch a model that knows labels, and goes on with the whole of RUN,
without and with clusters; then it generates with many samplers and judges: Frechet distance (fd_efflite0), and how many
class-conditional samples an independent classifier, trained on real images, takes for their class.

Whatever is chosen (a sampler, a guidance, a number of clusters, one of two models) is chosen by validation images; what
was chosen, and the rows of the tables, are measured on test images with other random numbers, and choose nothing.
Results go to results/generation.json (of digits: generation_digits.json), figures beside it. Trainings resume, and no
set of samples is measured twice: `--parts` and repeated runs share OUT.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from choices import RESULTS
from generation_study import CHOICE_SEED, FINAL_SEED, LARGE, SMALL, SUBJECTS, Study

import mage
from mage import images
from mage.report.charts import Series, line_chart, standalone
from mage.runs.record import Record, write_record

PARTS = ("labels", "clusters", "classes", "whole", "samplers", "encoder_keep", "guidance", "self_conditional", "edits")
CLUSTERS = (16, 64, 256, 1024)
GUIDANCES = (0.0, 1.0)
"""Guidances that are tried with clusters."""
KEPT = (1.0, 0.75, 0.5, 0.25)
"""Least shares of the tokens that the encoder sees while sampling."""


def samplers(study: Study) -> dict[str, float]:
    """Steps against quality, for every sampler; above 16 steps only with the settings that were best at 16."""
    found: dict[str, float] = {}
    lines = []
    for name, tried in study.subject.samplers.items():
        points: list[tuple[float, float | None]] = []
        for steps in study.subject.steps:
            if steps > 16:
                tried = [study.choose("base", [one | {"steps": 16} for one in tried])]
            best = study.choose("base", [one | {"steps": steps} for one in tried])
            value = study.final("base", best)["fd"]
            found[f"fd_1k.{name.replace(', ', ' ').replace(' ', '_')}.steps{steps}"] = value
            points.append((steps, value))
        lines.append(Series(name, points, markers=True))
    figure(study, "steps", lines, f"fd_efflite0 of {study.small:,} samples, smaller is better", "steps")
    return found


def encoder_keep(study: Study) -> dict[str, float]:
    """What it costs in quality to let the encoder see a part of the unknown tokens only."""
    found: dict[str, float] = {}
    paper = study.subject.samplers["confidence"]
    best = study.choose("base", [one | {"steps": 16} for one in paper])
    for kept in KEPT:
        values = study.final("base", best | {"encoder_keep": kept})
        found |= {f"{name}_1k.encoder_keep_{kept:g}": values[name] for name in ("fd", "precision", "recall")}
    return found


def guidance(study: Study) -> dict[str, float]:
    """Accuracy of the class against guidance, and the trade-off with the Frechet distance."""
    found: dict[str, float] = {}
    accuracy, distance, both = [], [], []
    judged: dict[tuple[str, float], float] = {}
    for model in ("labels", "classes"):
        if model not in study.models:
            continue
        chosen = {guidance: told(study, model, guidance) for guidance in study.subject.guidances}
        judged |= {(model, guidance): values["accuracy"] for guidance, (values, _) in chosen.items()}
        values = {guidance: study.final(model, sampler, by_class=True) for guidance, (_, sampler) in chosen.items()}
        found |= {f"class_accuracy.{model}.guidance{g:g}": value["accuracy"] for g, value in values.items()}
        found |= {f"fd_1k.{model}.guidance{g:g}": value["fd"] for g, value in values.items()}
        for one in study.subject.guided:
            label = " ".join(str(setting) for setting in one.values())
            unguided = study.final(model, one | {"guidance": 0.0}, by_class=True)
            found |= {f"unguided.{model}.{label}.{key}": unguided[key] for key in ("accuracy", "fd")}
        accuracy.append(Series(model, [(g, value["accuracy"]) for g, value in values.items()], markers=True))
        distance.append(Series(model, [(g, value["fd"]) for g, value in values.items()], markers=True))
        pairs = [(100 * value["accuracy"], value["fd"]) for value in values.values()]
        both.append(Series(model, list(pairs), markers=True))
    figure(study, "guidance_accuracy", accuracy, "share of samples taken for their class", "guidance")
    figure(study, "guidance_distance", distance, f"fd_efflite0 of {study.small:,} samples", "guidance")
    title = f"fd_efflite0 at guidance {', '.join(f'{one:g}' for one in study.subject.guidances)}"
    figure(study, "trade_off", both, title, "% of samples taken for their class")
    for name, tried in (("", [pair for pair in judged if pair[1] == 0.0]), ("_guided", list(judged))):
        if tried:  # by the samples that chose the samplers, not by those that are reported
            model, weight = max(tried, key=lambda pair: judged[pair])
            found[f"class_accuracy{name}"] = found[f"class_accuracy.{model}.guidance{weight:g}"]
    return found


def self_conditional(study: Study) -> dict[str, float]:
    """The same model before and after it was told its own clusters: its decoder, then all of it."""
    found: dict[str, float] = {}
    lines: dict[float, list[tuple[float, float | None]]] = {guidance: [] for guidance in GUIDANCES}
    for name in ("decoder", "longer"):
        if name in study.models:
            found[f"fd_1k.{name}"] = study.final(name, study.sampler())["fd"]
    pairs = (("base", "clusters", ""), ("decoder", "clusters", "_even"), ("longer", "whole", "_whole"))
    for before, kind, end in pairs:
        tried: list[tuple[float, str, dict[str, Any]]] = []
        for count in study.options.clusters:
            name = f"{kind}{count}"
            if name not in study.models:
                continue
            for guidance in GUIDANCES:
                values, sampler = told(study, name, guidance)
                found[f"fd_1k.{name}.guidance{guidance:g}"] = value = study.final(name, sampler)["fd"]
                tried.append((values["fd"], name, sampler))
                if before == "base":
                    lines[guidance].append((count, value))
        if tried and before in study.models:
            found |= gain(study, before, *min(tried, key=lambda one: one[0])[1:], end)
    if {"fd_large.before", "fd_large.after_whole"} <= found.keys():
        found["self_conditional_gain_with_training"] = 1 - found["fd_large.after_whole"] / found["fd_large.before"]
    title = f"fd_efflite0 of {study.small:,} samples"
    figure(
        study,
        "clusters",
        [Series(f"guidance {one:g}", at, markers=True) for one, at in lines.items()],
        title,
        "clusters",
    )
    return found


def told(study: Study, name: str, guidance: float) -> tuple[dict[str, float], dict[str, Any]]:
    """The sampler of a model that knows classes or clusters that validation images choose, and what it got there."""
    by_class = name in ("labels", "classes")
    tried = [one | {"guidance": guidance} for one in (study.subject.guided if by_class else study.subject.told)]
    best = study.choose(name, tried, by_class=by_class)
    return study.measure(name, best, by_class=by_class), best


def gain(study: Study, before: str, name: str, sampler: dict[str, Any], end: str) -> dict[str, float]:
    """What a model that knows clusters gains over the one before it, of many samples."""
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
    """A picture of what classes, clusters and edits look like."""
    rows = []
    names = study.parts.train.class_names
    if knowing := {"labels", "classes"} & study.models.keys():
        model = max(knowing)
        sampler = told(study, model, 2.0)[1]
        for number, name in enumerate(names):
            made = study.models[model].generate(12, classes=number, **sampler)
            rows.append((name, made.float().cpu()))
        images.save_png(path(study, "_classes.png"), images.labelled_rows(rows, side=48))
    base = study.base.generate(48, **study.sampler()).float().cpu()
    shown = [("as it was", base[k : k + 12]) for k in range(0, 48, 12)]
    for count in study.options.clusters:
        name = f"clusters{count}"
        if name in study.models:
            made = study.models[name].generate(24, **told(study, name, 1.0)[1]).float().cpu()
            shown += [(f"{count} clusters", made[k : k + 12]) for k in range(0, 24, 12)]
    images.save_png(path(study, "_clusters.png"), images.labelled_rows(shown, side=48))


def path(study: Study, end: str) -> Path:
    """A file of the results."""
    name = "generation" + ("" if study.options.data == "cifar10" else "_digits") + study.options.tag
    return study.options.results / (name + end)


def figure(study: Study, name: str, lines: list[Series], title: str, x_label: str) -> None:
    """A chart of the results."""
    chart = line_chart(lines, title=title, x_label=x_label, width=760, height=340)
    if chart:
        path(study, f"_{name}.svg").write_text(standalone(chart))


def main() -> None:
    """Train, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SUBJECTS, default="cifar10", help="what RUN is a model of")
    parser.add_argument("--data-root", help="folder where CIFAR-10 lies")
    parser.add_argument("--model", required=True, type=Path, help="finished run of the recipe cifar10 or mnist5k")
    parser.add_argument("--out", type=Path, default=Path("runs/generation"), help="folder of the runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--set", action="append", default=[], help="settings of every training, as of `mage pretrain`")
    parser.add_argument("--set-classes", action="append", default=[], help="settings of the training from scratch")
    parser.add_argument("--classes-from-model", action="store_true", help="begin that one at RUN's weights instead")
    parser.add_argument("--clusters", nargs="+", type=int, default=list(CLUSTERS), help="numbers of clusters to train")
    parser.add_argument("--whole", nargs="+", type=int, default=[64], help="numbers of clusters for all of the model")
    parser.add_argument("--set-whole", action="append", default=[], help="settings of the trainings of the part whole")
    parser.add_argument("--train-only", action="store_true", help="train the parts before samplers; no more")
    parser.add_argument(
        "--tag", default="", help="ending of the names of the results, to keep them beside another RUN's"
    )
    parser.add_argument("--note", action="append", default=[], help="how RUN and the rest were trained, for the record")
    parser.add_argument("--epochs", type=int, default=12, help="of the independent classifier")
    parser.add_argument("--samples", type=int, default=SMALL, help="samples of each setting")
    parser.add_argument("--large", type=int, default=LARGE, help="samples of the numbers that are compared in the text")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record and its figures")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
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
    """Write what is measured so far."""
    best, options = study.sampler(), study.options
    guidances = ", ".join(f"{one:g}" for one in GUIDANCES)
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
        f"numbers of clusters, samplers ({len(study.subject.told)}) and guidance ({guidances}); same_sampler: of "
        f"{study.small:,} samples, all settings but guidance alike; even, whole: before and after had the same "
        "further training, of the decoder, of all; with_training: of the model told its clusters in it to the model "
        "before it",
    }
    timings = {"total": sum(values.get("seconds", 0.0) for values in study.measured.values())}
    places = {str(options.model): "RUN", str(options.data_root): "DATA", str(options.out): "OUT"}
    places[str(options.results)] = "RESULTS"
    words = [places.get(word, word) for word in sys.argv[1:] if word not in ("--note", *options.note)]
    command = f"python studies/generation.py {shlex.join(words)}"
    found = metrics | {"best_sampler_fd_1k": study.final("base", best)["fd"]}
    write_record(path(study, ".json"), Record(command, 0, protocol, timings, found))


if __name__ == "__main__":
    main()
