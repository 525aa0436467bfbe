"""Training in any number of processes: `python studies/distributed.py` writes results/distributed.json.

MAGE, MAGE-C, MAE and a tokenizer with its discriminator, tiny and without dropout, are trained on the CPU with the same
batches by 1, 2 and 4 processes, whole (DDP) and cut (FSDP2). float64_max_rel, float32_stepN_rel: largest relative
deviation of a loss from that of one process; with _ddp and _fsdp, by strategy. order_mismatches: images that a run
sees which goes on with other numbers of processes, formats and readers, and that an uninterrupted one does not see;
elastic_loss_max_rel: of its losses. efficiency_2: pace of two processes over twice that of one; bytes_over_formula:
bytes that a process writes in a step over those of a ring.
"""

import argparse
import tempfile
import time
from pathlib import Path

from choices import RESULTS, stated

from mage.benchmarks.elastic import elastic_metrics
from mage.benchmarks.processes import BATCH, SIZES, loss_metrics, pace_metrics
from mage.runs.record import Record, write_record


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--most", type=int, default=4, choices=(2, 4), help="processes, for the losses")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    options = parser.parse_args()
    seconds, metrics = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for part, measure in (
            ("elastic", lambda: elastic_metrics(out)),
            ("pace", lambda: pace_metrics(out)),
            ("losses", lambda: loss_metrics(out, steps=options.steps, most=options.most)),
        ):
            start = time.perf_counter()
            metrics |= measure()
            seconds[part] = time.perf_counter() - start
            print(part, metrics, flush=True)
    protocol = {
        "network": f"{SIZES.width} wide, {SIZES.depth} + {SIZES.decoder_depth} blocks, batch {BATCH}, no dropout, "
        "AdamW, clipping, weight average; tokenizer with running means and revival, a discriminator from a tenth on",
        "run": f"{options.steps} steps, gloo on the CPU, one thread a process",
        "elastic": "MAE on 1, 2, 4, 2, 1 processes, DDP and FSDP2 in turn, whole and sharded checkpoints, readers",
    }
    seconds["total"] = sum(seconds.values())
    record = Record(
        f"python studies/distributed.py{stated(parser, options, 'steps', 'most')}", 0, protocol, seconds, metrics
    )
    write_record(options.results / "distributed.json", record)


if __name__ == "__main__":
    main()
