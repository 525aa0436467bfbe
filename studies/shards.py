"""Training data in an object store: `python studies/shards.py [--data-root CIFAR10]` writes results/shards.json.

Small images become tar shards in an S3 store on this machine (moto). One epoch of the training loader, without a
network, is killed three times with SIGKILL and goes on from the last checkpoint with another number of processes and
workers. Of the steps that count, each image must have been seen once, in the order of an undisturbed epoch, and steps
that were done again must be the same. Images: those of --data-root/train, or noise.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from object_store import object_store, upload

from mage import rng
from mage.data.datasets import ArrayDataset, ImageDataset, Subset, load_dataset
from mage.data.epoch_order import epoch_order
from mage.data.image_sets import locality_of
from mage.data.loaders import TrainLoader
from mage.data.shard_writer import write_shards
from mage.data.transforms import TransformConfig, build_transform
from mage.runs.record import Record, write_record
from mage.share import Share

SEED = 0


@dataclass(frozen=True)
class Part:
    """How one stretch of the epoch is read."""

    processes: int
    workers: int
    start: int
    batch_size: int
    steps: int
    url: str


SHAPES = ((1, 2), (2, 1), (1, 0), (1, 1))
"""Processes, and workers of each, of the four stretches."""


def read(part: Part, rank: int, log: Path) -> None:
    """Read one process's share of the steps from `part.start` on, and note each step with its images and the time."""
    dataset = load_dataset(part.url, split="all")
    share = Share(part.batch_size, 1, rank, part.processes)
    loader = TrainLoader(
        dataset,
        build_transform(TransformConfig(size=(32, 32), augmentation="flip")),
        share=share,
        seed=SEED,
        start=part.start,
        num_workers=part.workers,
    )
    with open(log, "a") as file:
        for step, batch in enumerate(itertools.islice(iter(loader), part.steps - part.start), part.start):
            line = {"step": step, "index": batch["index"].tolist(), "time": time.time()}
            file.write(json.dumps(line) + "\n")
            file.flush()


def noted(log: Path) -> dict[int, dict[str, Any]]:
    """The whole lines of a log, by step."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # without one that was cut off
    return {line["step"]: line for line in map(json.loads, lines)}


def stretch(part: Part, stop: int | None, folder: Path) -> tuple[dict[int, list[int]], float]:
    """Read from `part.start` until all processes have noted step `stop`, then kill them; None: to the end.

    Images of each step that all processes noted, and images per second between the first and the last.
    """
    logs = [folder / f"{part.start}-{rank}.jsonl" for rank in range(part.processes)]
    words = [sys.executable, __file__, "--part", json.dumps(asdict(part))]
    running = [subprocess.Popen([*words, "--rank", str(rank), "--log", str(log)]) for rank, log in enumerate(logs)]
    while stop is not None and any(stop not in noted(log) for log in logs):
        if any(process.poll() not in (None, 0) for process in running):
            break
        time.sleep(0.05)
    if stop is not None:
        for process in running:
            process.send_signal(signal.SIGKILL)
    codes = [process.wait() for process in running]
    if any(code != (0 if stop is None else -signal.SIGKILL) for code in codes):
        raise RuntimeError(f"a process that reads the shards ended with {codes}")
    lines = [noted(log) for log in logs]
    common = sorted(set.intersection(*map(set, lines)))
    images = {step: [index for own in lines for index in own[step]["index"]] for step in common}
    times = [max(own[step]["time"] for own in lines) for step in (common[0], common[-1])]
    speed = part.batch_size * (len(common) - 1) / max(times[1] - times[0], 1e-6)
    return images, speed


def measure(shards: str, count: int, *, batch_size: int, kills: int, every: int, folder: Path) -> dict[str, float]:
    """Read one epoch with `kills` interruptions; every: steps from one checkpoint to the next."""
    steps = count // batch_size
    seen: dict[int, list[int]] = {}
    speeds, redone, same = [], 0, True
    start = 0
    for number, (processes, workers) in enumerate(SHAPES[:kills] + SHAPES[-1:]):
        stop = None if number == kills else start + (steps - start) // (kills + 1 - number)
        part = Part(processes, workers, start, batch_size, steps, shards)
        images, speed = stretch(part, stop, folder)
        for step, index in images.items():
            if step in seen:
                redone, same = redone + 1, same and seen[step] == index
            seen[step] = index
        speeds.append(speed)
        start = max(images) // every * every  # of the last checkpoint that a training would have written
    counts = Counter(index for index in itertools.chain.from_iterable(seen.values()))
    dataset = load_dataset(shards, split="all")
    undisturbed = epoch_order(count, locality_of(dataset), SEED, 0)[: steps * batch_size].tolist()
    return {
        "images": float(count),
        "steps": float(steps),
        "kills": float(kills),
        "steps_done_again": float(redone),
        "done_again_alike": float(same),
        "seen_once": float(sum(n == 1 for n in counts.values()) == count),
        "missing": float(count - len(counts)),
        "repeated": float(sum(n > 1 for n in counts.values())),
        "order_of_an_undisturbed_epoch": float([i for step in range(steps) for i in seen[step]] == undisturbed),
        "images_per_second_first": speeds[0],
        "images_per_second_last": speeds[-1],
    }


def pictures(data_root: Path | None, count: int) -> ImageDataset:
    """The training images of a folder, or noise as PNG."""
    if data_root is not None:
        dataset = load_dataset(data_root, split="train")
        return Subset(dataset, range(count)) if count < len(dataset) else dataset
    noise = torch.randint(0, 256, (count, 3, 4, 4), generator=rng.generator(SEED, "noise"), dtype=torch.uint8)
    return ArrayDataset("noise", noise.repeat_interleave(8, 2).repeat_interleave(8, 3), np.arange(count) % 10)


def main() -> None:
    """Measure and write; with --part, be one of the processes that are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with train/CLASS/*.jpg; default: noise")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--kills", type=int, default=3, choices=range(1, len(SHAPES)))
    parser.add_argument("--shard-bytes", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, default=Path("results/shards.json"))
    for name in ("--part", "--rank", "--log"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        read(Part(**json.loads(options.part)), int(options.rank), Path(options.log))
        return
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, object_store() as environment:
        os.environ.update(environment)
        os.environ["MAGE_DATA"] = f"{name}/kept"  # so that no copy of an earlier study helps
        made = time.perf_counter()
        source = pictures(options.data_root, options.images)
        written = write_shards(source, Path(name, "shards"), prefix="x", most_bytes=options.shard_bytes)
        upload(Path(name, "shards"), "study")
        pattern = f"s3://study/x-{{000000..{len(written.shards) - 1:06d}}}.tar"
        started = time.perf_counter()
        metrics = measure(
            pattern,
            written.images,
            batch_size=options.batch_size,
            kills=options.kills,
            every=10,
            folder=Path(name),
        )
        seconds = {"write_and_upload": started - made, "epoch": time.perf_counter() - started}
        metrics["shards"] = float(len(written.shards))
    shapes = ", ".join(f"{processes} x {workers}" for processes, workers in (*SHAPES[: options.kills], SHAPES[-1]))
    protocol = {
        "epoch": f"batches of {options.batch_size}; killed {options.kills} times; processes x workers: {shapes}",
        "images_per_second": "32 x 32 pixels, read, decoded and flipped; the first stretch copies the shards",
        "images": "CIFAR-10, training" if options.data_root else "noise",
    }
    command = "python studies/shards.py" + (" --data-root CIFAR10" if options.data_root else "")
    seconds["total"] = time.perf_counter() - begun
    write_record(options.out, Record(command, SEED, protocol, seconds, metrics))
    print(metrics)


if __name__ == "__main__":
    main()
