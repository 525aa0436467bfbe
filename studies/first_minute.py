"""What a new user gets in the first minutes: `python studies/first_minute.py --program VENV/bin/mage`.

In an empty folder with empty caches, and without a network where the system can take it away: seconds of
`mage generate --model cifar10 --num 16`, of `mage demo --minutes 0`, and what demos of more minutes reach. Finished
demos are not repeated. Writes results/first_minute.json; `--install` copies it into the package, whose demo shows it.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from choices import RESULTS

from mage import atomic
from mage.runs.record import Record, write_record
from mage.store import packaged

KEPT = ("linear_probe_mean_accuracy", "sample_confident_share", "knn_accuracy")
"""Metrics of a demo that the report draws against the minutes: shares."""
WITHOUT_NETWORK = ("unshare", "--net", "--map-root-user")
"""Runs a command in a namespace of its own, without a network (Linux)."""


class NewUser:
    """Commands as a new user gives them: an empty home and working directory."""

    def __init__(self, program: str, folder: Path, *, network: bool) -> None:
        self.folder, self.prefix = folder.resolve(), () if network else WITHOUT_NETWORK
        self.program = program
        (self.folder / "home").mkdir(parents=True, exist_ok=True)

    def call(self, *words: str) -> float:
        """Run `mage` with these words; the seconds that it took."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAGE_", "PYTHONPATH", "TORCH_HOME", "HF_"))
        }
        environment |= {"HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "home" / ".cache")}
        start = time.perf_counter()
        subprocess.run([*self.prefix, self.program, *words], cwd=self.folder, env=environment, check=True)
        return time.perf_counter() - start


def network_can_be_taken_away() -> bool:
    """Whether this user may run a process without a network."""
    try:
        return not subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


def main() -> None:
    """Time, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=shutil.which("mage"), help="the installed command")
    parser.add_argument("--model", default="cifar10", help="packaged model that generates 16 images")
    parser.add_argument("--minutes", type=int, nargs="*", default=[2, 5, 10, 30], help="of the demos")
    parser.add_argument("--out", type=Path, default=Path("runs/first_minute"), help="working directory of the new user")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--install", action="store_true", help="put the record into the package, too")
    options = parser.parse_args()
    blocked = network_can_be_taken_away()
    user = NewUser(options.program, options.out, network=not blocked)
    shutil.rmtree(user.folder / "samples", ignore_errors=True)
    metrics = {"generate_seconds": user.call("generate", "--model", options.model, "--num", "16", "--out", "samples")}
    shutil.rmtree(user.folder / "first", ignore_errors=True)
    metrics["demo_seconds"] = user.call("demo", "--minutes", "0", "--out", "first")
    timings = dict(metrics)
    for minutes in options.minutes:
        folder = user.folder / f"minutes{minutes}"
        if not (folder / "seconds.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an interrupted study, whose time would be short
            seconds = user.call("demo", "--minutes", str(minutes), "--out", folder.name)
            atomic.write_json(folder / "seconds.json", seconds)
        results = json.loads((folder / "results.json").read_text())["metrics"]
        metrics |= {f"minutes{minutes}.{name}": results[name] for name in KEPT if name in results}
        metrics[f"minutes{minutes}.seconds"] = json.loads((folder / "seconds.json").read_text())
        timings[f"demo_{minutes}_minutes"] = metrics[f"minutes{minutes}.seconds"]
    protocol = {
        "seconds": "wall time of the whole command, start of Python included, in an empty folder with empty caches"
        + (", without a network" if blocked else ""),
        "minutes": "mage demo --minutes M, seed 0; features on 1,000 test images, 300 samples",
    }
    command = f"python studies/first_minute.py --minutes {' '.join(map(str, options.minutes))}"
    path = options.results / "first_minute.json"
    write_record(path, Record(command, 0, protocol, timings, metrics))
    if options.install:
        shutil.copyfile(path, packaged.MINUTES)
    print(path.read_text())


if __name__ == "__main__":
    main()
