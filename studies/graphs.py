"""Whether a training step is one graph: `python studies/graphs.py` writes results/graphs.json.

A small MAGE is trained twice on the CPU by the library's own loop, plain and with run.compile, over mask ratios from
0.5 to 1. graph_breaks, recompilations: over the whole compiled run; host_syncs_per_step: times that a step would wait
for a GPU, to read a number or to count flags; masks are drawn on the CPU before it. loss_max_rel: largest relative
deviation of the compiled losses.
"""

import argparse
import tempfile
import time
from pathlib import Path

from choices import RESULTS, stated

from mage.benchmarks.graphs import BATCH, GRID, SIZES, graph_metrics
from mage.runs.record import Record, write_record


def main() -> None:
    """Train, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; inductor needs a C++ compiler")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        metrics = graph_metrics(Path(folder), steps=options.steps, backend=options.backend)
    protocol = {
        "network": f"{SIZES.width} wide, {SIZES.depth} + {SIZES.decoder_depth} blocks, {GRID[0] * GRID[1]} tokens, "
        f"batch {BATCH}, float32, no dropout, AdamW with clipping and weight average",
        "run": f"{options.steps} steps, mask ratios from 0.5 to 1 in turn, backend {options.backend}",
    }
    seconds = {"total": time.perf_counter() - start}
    command = f"python studies/graphs.py{stated(parser, options, 'steps', 'backend')}"
    write_record(options.results / "graphs.json", Record(command, 0, protocol, seconds, metrics))
    print(metrics)


if __name__ == "__main__":
    main()
