"""Whatever is read from strangers, damaged on purpose: `python studies/fuzz.py` writes results/fuzz.json.

Valid files of every kind are changed at random (mutations.py) and read. A change that reaches lines of the library that
no earlier one reached is changed further. An input may be read, or refused with ValueError or OSError; anything else
is undocumented, and kept under --out with its traceback. Readers run in child processes, one for some hundred inputs:
one that dies is undocumented, one that takes longer than 10 s for an input hangs, and its memory is measured.
"""

import argparse
import json
import logging
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from choices import RESULTS
from readers import Reader, readers

from mage.runs.record import Record, write_record

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = str(ROOT / "mage")
DOCUMENTED = (ValueError, OSError)
BATCH, PATIENCE = 200, 10.0
"""Inputs of a child process, and seconds until an input hangs."""


@dataclass
class Found:
    """Counts of one reader."""

    inputs: int = 0
    accepted: int = 0
    undocumented: int = 0
    hangs: int = 0
    largest_memory_gb: float = 0.0


def fuzz(reader: Reader, inputs: int, seed: int, out: Path) -> Found:
    """Read so many changed files."""
    found = Found()
    valid = reader.corpus[0]
    reader.read()  # its example must be valid
    while found.inputs < inputs:
        _batch(reader, found, min(BATCH, inputs - found.inputs), (seed, reader.name, found.inputs), out)
    reader.target.write_bytes(valid)
    return found


def _batch(reader: Reader, found: Found, count: int, seed: tuple[int, str, int], out: Path) -> None:
    """Some inputs in a child process; it tells of each when it begins it and when it has ended."""
    news, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(news)
        _child(reader, count, random.Random(repr(seed)), told, out)
    os.close(told)
    begun, hung, text = 0, False, b""
    while True:
        ready, _, _ = select.select([news], [], [], PATIENCE)
        piece = os.read(news, 1 << 20) if ready else b""
        if not ready:
            hung = True
            os.kill(child, signal.SIGKILL)
        if not piece:
            break
        text += piece
    os.close(news)
    _, status, usage = os.wait4(child, 0)
    for line in text.decode().splitlines():
        word, _, rest = line.partition(" ")
        begun += word == "begin"
        found.accepted += word == "accepted"
        found.undocumented += word == "undocumented"
        if word == "lines":
            reader.lines |= {(name, int(number)) for name, number in json.loads(rest)}
        elif word == "kept":
            reader.corpus.append(Path(rest).read_bytes())
    found.inputs += begun
    found.hangs += hung
    if not hung and os.waitstatus_to_exitcode(status):
        found.undocumented += 1
    if hung or os.waitstatus_to_exitcode(status):
        keep(out, reader, "took too long" if hung else f"the process ended with {status}")
    found.largest_memory_gb = max(found.largest_memory_gb, usage.ru_maxrss / 1e6)


def _child(reader: Reader, count: int, rng: random.Random, told: int, out: Path) -> None:
    """Never returns."""
    warnings.simplefilter("ignore")
    logging.disable()
    seen: set[tuple[str, int]] = set()

    def tell(text: str) -> None:
        os.write(told, f"{text}\n".encode())

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        seen.add((frame.f_code.co_filename[len(LIBRARY) :], frame.f_lineno))
        return trace

    for _ in range(count):
        data = reader.mutate(rng.choice(reader.corpus[-30:] + reader.corpus[:1]), rng)
        reader.target.write_bytes(data)
        tell("begin")
        seen.clear()
        sys.settrace(trace)
        try:
            reader.read()
            outcome = "accepted"
        except DOCUMENTED:
            outcome = "refused"
        except BaseException:
            sys.settrace(None)
            outcome = "undocumented"
            keep(out, reader, traceback.format_exc())
        sys.settrace(None)
        tell(outcome)
        new = seen - reader.lines
        if new and outcome != "undocumented":
            reader.lines |= new
            reader.corpus.append(data)
            path = out / "corpus" / f"{reader.name.replace(' ', '-')}-{zlib.crc32(data):08x}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            tell(f"lines {json.dumps(sorted(new))}")
            tell(f"kept {path}")
    os._exit(0)


def keep(out: Path, reader: Reader, why: str) -> None:
    """Keep an input, and what it led to."""
    folder = out / "found"
    folder.mkdir(parents=True, exist_ok=True)
    data = reader.target.read_bytes()
    name = f"{reader.name.replace(' ', '-')}-{zlib.crc32(data):08x}"
    (folder / name).write_bytes(data)
    (folder / f"{name}.txt").write_text(why)


def main() -> None:
    """Change, read, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4000, help="inputs of each reader")
    parser.add_argument("--only", nargs="+", help="names of readers; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for what is found")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, metrics = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = [reader for reader in readers(Path(folder)) if not options.only or reader.name in options.only]
        for reader in chosen:
            found = fuzz(reader, options.inputs, options.seed, options.out.absolute())
            metrics |= {f"{reader.name.replace(' ', '_')}.{key}": value for key, value in vars(found).items()}
            print(reader.name, vars(found), f"{len(reader.corpus)} kept, {len(reader.lines)} lines", flush=True)
    for key in ("inputs", "accepted", "undocumented", "hangs"):
        metrics[key] = sum(value for name, value in metrics.items() if name.endswith(f".{key}"))
    metrics["largest_memory_gb"] = max(value for name, value in metrics.items() if name.endswith(".largest_memory_gb"))
    protocol = {
        "inputs": "valid files, changed at random; those that reach new lines of the library are changed further",
        "undocumented": "neither read nor refused with ValueError or OSError, or the end of the process",
        "hangs": f"inputs that take longer than {PATIENCE:.0f} s",
        "largest_memory_gb": f"peak of a process that reads {BATCH} inputs, PyTorch and the library included",
    }
    record = Record("python studies/fuzz.py", options.seed, protocol, {"total": time.perf_counter() - start}, metrics)
    write_record(options.results / "fuzz.json", record)


if __name__ == "__main__":
    main()
