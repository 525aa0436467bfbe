"""`mage COMMAND`: finds the command, parses its options, reports a user's mistake in one sentence (exit code 2)."""

import contextlib
import difflib
import importlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import NoReturn

COMMANDS = {
    "demo": "all steps on 5,000 digits in minutes, ending with a report",
    "train-tokenizer": "train a VQGAN on images",
    "shards": "write a data set as tar shards, for a cluster's disk or an object store",
    "tokenize": "encode a data set once, into a token cache",
    "pretrain": "train MAGE on tokens",
    "adapt": "continue a model's training on a folder of images, and compare before and after",
    "generate": "generate images",
    "reconstruct": "reconstruct images of which a growing share is masked",
    "edit": "redraw a part of an image, or vary all of it: inpaint, outpaint, uncrop, another class",
    "evaluate": "measure a tokenizer (reconstructions), representations (all protocols) or generation (FID and others)",
    "tune-sampler": "find the sampler's settings for a model, and store them with it",
    "explore": "a folder of images as one page: a map, groups, near-duplicates, outliers",
    "embed": "write the features of every image of a folder into a table",
    "predict": "write the class of every image of a folder into a table",
    "probe": "linear probe on a model's features, which may be kept as a classifier",
    "knn": "nearest-neighbour accuracy of a model's features",
    "fewshot": "accuracy from a handful of labelled images per class",
    "finetune": "train encoder and head on labels",
    "transfer": "probes of one or several models on several data sets",
    "robustness": "accuracy on corrupted and on attacked images",
    "anomalies": "rank the images of a folder by how much they surprise a model",
    "convert": "released checkpoint <-> model folder",
    "push": "upload a model to the Hugging Face Hub, with a card",
    "export": "a model as ONNX files or programs of torch.export, which run without this library",
    "serve": "models in a browser: generate, edit, reconstruct, look at features",
    "report": "a run as one self-contained HTML page",
    "compare": "several runs side by side, on one page",
    "reproduce": "the published numbers, from the published weights and your ImageNet",
    "plan": "show a recipe's images, steps, time and parameters before it runs",
    "benchmark": "measure the library's speed on this machine, compared with a plain implementation",
    "info": "describe a model folder",
    "doctor": "check the installation, the devices and the packaged models, in seconds",
    "completion": "print a script that completes commands and options in a shell",
    "models": "the models that come with the package, and their cards",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; exits with 0, 2 for a user's mistake, 1 for a failed run, 130 after Ctrl-C, 143 after SIGTERM.

    Exits silently with 141 if the reader of its output has closed the pipe, as in `mage info --help | head -1`.
    """
    _print_anything()
    try:
        with _terminable():
            _main(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt as stop:  # while modules are imported; a command says more by itself
        print("\nmage: stopped", file=sys.stderr)
        raise SystemExit(_exit_code(stop)) from None
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python prints an error when it flushes at exit
        raise SystemExit(141) from None


def _print_anything() -> None:
    """Print letters that the output's encoding lacks as escapes: on Windows, that of a file is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _main(arguments: list[str] | None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--version":
        from mage import __version__

        print(__version__)
        return
    name, *rest = arguments
    if name not in COMMANDS:
        meant = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {meant[0]!r}?" if meant else f"commands are {', '.join(COMMANDS)}"
        _fail("mage", f"there is no command {name!r}; {advice}")
    _log_to_stderr(quiet="--json" in rest)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from mage.cli import parse
    from mage.cli.examples import EXAMPLES
    from mage.cli.options.places import check_places

    # Options first: help and mistakes need no PyTorch, whose import takes seconds.
    file = name.replace("-", "_")
    kind = importlib.import_module(f"mage.cli.options.{file}").Options
    try:
        options = parse.parse(kind, rest, program=f"mage {name}", description=COMMANDS[name], examples=EXAMPLES[name])
        check_places(options)
    except (parse.Mistake, ValueError) as mistake:
        _fail(f"mage {name}", str(mistake))
    with _waiting("--json" in rest):
        module = importlib.import_module(f"mage.cli.{file}")
    if getattr(module, "WITHOUT_PYTORCH", False):
        module.run(options)
        return
    from torch import OutOfMemoryError

    from mage import device, distributed
    from mage.training.run import Interrupted, NonFiniteLoss

    try:
        asked = getattr(options, "device", "cpu")
        elsewhere = asked in getattr(module, "ELSEWHERE", ())  # a device that this machine does not have
        here = str(device.start("cpu" if elsewhere else asked))
        spread = getattr(options, "processes", 1) > 1  # over all GPUs, unless one was named
        if hasattr(options, "device") and not elsewhere and not spread:
            options = replace(options, device=here)
        if getattr(module, "PARALLEL", False):
            module.run(options)
        elif distributed.is_first():  # one process does the work of a command that several cannot share
            with distributed.alone():
                module.run(options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        _fail(f"mage {name}", " ".join(str(error).split()))
    except OutOfMemoryError as error:
        reason = " ".join(str(error).split(". ")[0].split())
        _fail(
            f"mage {name}",
            f"{reason}: take fewer images at a time (--batch-size, or --set with a batch_size or accumulation)",
            1,
        )
    except (NonFiniteLoss, distributed.ProcessLost) as error:
        _fail(f"mage {name}", str(error), code=1)
    except Interrupted as error:
        if not distributed.is_first():
            raise SystemExit(error.exit_code) from None
        from mage.runs.record import shell_line

        known = any(field.name == "resume" for field in fields(options))
        resume = ["--resume"] if known and "--resume" not in rest else []
        print(f"\n{error}\ncontinue with: {shell_line([name, *rest, *resume])}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        print(f"\nmage {name}: stopped", file=sys.stderr)
        raise SystemExit(_exit_code(stop)) from None


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems and containers send it."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: what is done is written, locks and temporary files are removed."""

    def stop(number: int, frame: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_code(stop: KeyboardInterrupt) -> int:
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def _waiting(quiet: bool) -> Iterator[None]:
    """A word on a terminal while PyTorch is imported, which takes seconds; it disappears."""
    shown = sys.stderr.isatty() and not quiet
    if shown:
        print("loading PyTorch ...", end="\r", file=sys.stderr, flush=True)
    yield
    if shown:
        print(" " * 20, end="\r", file=sys.stderr, flush=True)


def _log_to_stderr(*, quiet: bool) -> None:
    """Log warnings and, unless `quiet`, messages of the run as plain lines."""

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            message = super().format(record)
            return message if record.levelno == logging.INFO else f"{record.levelname}: {message}"

    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("mage").setLevel(logging.WARNING if quiet else logging.INFO)


def _fail(who: str, sentence: str, code: int = 2) -> NoReturn:
    print(f"{who}: error: {sentence}", file=sys.stderr)
    raise SystemExit(code)


GROUPS = {
    "start here": ("demo", "models", "plan", "info", "doctor", "completion"),
    "train": ("shards", "train-tokenizer", "tokenize", "pretrain", "adapt", "finetune"),
    "generate and edit": ("generate", "edit", "reconstruct", "tune-sampler"),
    "use on a folder": ("explore", "embed", "predict", "anomalies"),
    "measure": ("evaluate", "probe", "knn", "fewshot", "transfer", "robustness", "reproduce", "benchmark"),
    "show and convert": ("report", "compare", "convert", "push", "export", "serve"),
}
"""Commands by purpose, as `mage --help` lists them."""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: mage COMMAND [options]   (mage COMMAND --help describes a command)"]
    for purpose, names in GROUPS.items():
        lines += ["", f"{purpose}:", *(f"  {name:{width}}  {COMMANDS[name]}" for name in names)]
    return "\n".join(lines)
