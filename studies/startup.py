"""Start-up times: `python studies/startup.py` writes results/startup.json.

CPU seconds (user and system) of fresh processes, medians. help_seconds: `mage --help`; command_help_seconds_max: the
slowest `mage COMMAND --help`; import_over_torch: `import mage; mage.load` over `import torch, torchvision, timm`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mage.cli.main import COMMANDS
from mage.runs.record import Record, write_record


def cpu_seconds(*arguments: str) -> float:
    """CPU seconds of a new Python process with these arguments; its output is discarded."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def median(rounds: int, *arguments: str) -> float:
    """Median CPU seconds of `rounds` processes, after one that fills the file cache."""
    cpu_seconds(*arguments)
    return statistics.median(cpu_seconds(*arguments) for _ in range(rounds))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/startup.json"))
    options = parser.parse_args()
    start = time.perf_counter()
    helps = {name: median(options.rounds, "-m", "mage", name, "--help") for name in COMMANDS}
    pairs = [  # in turns, so that other load affects both
        (cpu_seconds("-c", "import mage; mage.load"), cpu_seconds("-c", "import torch, torchvision, timm"))
        for _ in range(options.rounds + 1)
    ][1:]
    metrics = {
        "help_seconds": median(options.rounds, "-m", "mage", "--help"),
        "command_help_seconds_max": max(helps.values()),
        "import_over_torch": statistics.median(ours for ours, _ in pairs)
        / statistics.median(base for _, base in pairs),
        "import_seconds": statistics.median(ours for ours, _ in pairs),
    }
    slowest = max(helps, key=lambda name: helps[name])
    protocol = {
        "help_seconds": f"CPU seconds of `mage --help` in a fresh process, median of {options.rounds}",
        "command_help_seconds_max": f"the same of `mage COMMAND --help`, the slowest: {slowest}",
        "import_over_torch": "`import mage; mage.load` over `import torch, torchvision, timm`, in turns",
    }
    seconds = {"total": time.perf_counter() - start}
    write_record(options.out, Record("python studies/startup.py", 0, protocol, seconds, metrics))
    print(metrics)


if __name__ == "__main__":
    main()
