"""Checks of an installation: versions, devices, extras, caches, packaged models, and whether a model computes."""

import contextlib
import os
import platform
import re
import tempfile
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import mage
from mage import device as device_policy
from mage.data.datasets import default_root
from mage.store import hub, packaged

DISTRIBUTION = "mage-vision"
SHOWN = (
    "torch", "torchvision", "timm", "safetensors", "scikit-learn", "scipy", "numpy", "Pillow", "tyro", "jaxtyping",
)  # fmt: skip
"""Packages whose versions are told."""
NOT_FOR_USE = ("dev", "docs", "all")
"""Extras that only those need who change the library."""
IMAGES, STEPS = 4, 4


@dataclass(frozen=True)
class Checkup:
    """What was found; `problems` is empty if all that matters is in order."""

    versions: dict[str, str]
    device: dict[str, Any]
    extras: dict[str, list[str]]
    """Extra -> packages of it that are missing."""
    caches: dict[str, dict[str, Any]]
    """What is kept -> path and bytes."""
    packaged: dict[str, bool]
    """Packaged model -> whether its weights are those of its card."""
    seconds: float
    """Of encoding and generating some small images; 0 if that failed."""
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def check(device: str = "auto", precision: str = "auto") -> Checkup:
    """Check everything, in seconds. Raises ValueError for a device that is not there."""
    chosen = device_policy.resolve_device(device)
    problems, hints = [], _hints()
    intact = {name: _intact(name) for name in packaged.names()}
    problems += [
        f"the packaged model {name} is damaged: install again with pip install --force-reinstall --no-deps mage-vision"
        for name, good in intact.items()
        if not good
    ]
    if not intact:
        problems.append("no packaged model is there: the installation is incomplete")
    seconds = 0.0
    try:
        seconds = self_check(chosen, precision)
    except Exception as error:  # whatever breaks is what a user must know
        problems.append(f"a model does not compute on {chosen}: {type(error).__name__}: {' '.join(str(error).split())}")
    return Checkup(
        _versions(), _device(chosen, precision), missing_extras(), caches(), intact, seconds, problems, hints
    )


def self_check(device: torch.device, precision: str) -> float:
    """Seconds to encode, restore and generate some small images with random weights; each result is checked.

    Raises ValueError for results that are not finite or not in their range.
    """
    from mage.recipes import named

    recipe = named("smoke")
    model = mage.build(recipe.model, tokenizer=recipe.tokenizer, device=str(device), precision=precision)
    start = time.perf_counter()
    images = model.generate(IMAGES, steps=STEPS)
    restored = model.decode_tokens(model.encode(images))  # which refuses images that are not finite or not in [0, 1]
    features = model.features(images)
    for name, values in (("restored images", restored), ("features", features)):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} are not finite numbers")
    with tempfile.TemporaryDirectory() as folder:
        same = mage.load(model.save(Path(folder) / "model"), device=device, precision=precision)
        if not torch.equal(same.encode(images), model.encode(images)):
            raise ValueError("a model that is saved and loaded gives other tokens")
    return time.perf_counter() - start


def missing_extras() -> dict[str, list[str]]:
    """For each extra, its packages that are not installed; empty if the library itself is not installed."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None or extra[1] in NOT_FOR_USE:
            continue
        missing.setdefault(extra[1], [])
        if not _installed(name[0]):
            missing[extra[1]].append(name[0])
    return missing


def caches() -> dict[str, dict[str, Any]]:
    """Folders that fill up in the course of time, and their bytes."""
    compiled = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(
        Path(tempfile.gettempdir()) / f"torchinductor_{os.environ.get('USER') or os.environ.get('LOGNAME') or 'root'}"
    )
    folders = {"data sets and judges": default_root(), "compiled code": Path(compiled)}
    with contextlib.suppress(ValueError):  # without the extra there are none
        folders["models of the Hub"] = hub.cache_folder()
    return {name: {"path": str(path), "bytes": folder_bytes(path)} for name, path in folders.items()}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed; 0 if it is not there."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(root, file)).st_size
            except OSError:  # deleted meanwhile
                continue
    return total


def _intact(name: str) -> bool:
    return packaged.weights_hash(packaged.FOLDER / name) == packaged.card_of(name).weights


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _versions() -> dict[str, str]:
    versions = {"mage": mage.__version__, "python": platform.python_version(), "system": platform.platform()}
    return versions | {name: metadata.version(name) if _installed(name) else "missing" for name in SHOWN}


def _device(chosen: torch.device, precision: str) -> dict[str, Any]:
    """Devices of this machine, which one is used, and in which precision, with the reason."""
    resolved = device_policy.resolve(precision, chosen)
    fast = device_policy.bf16_is_fast(chosen)
    reason = f"{chosen.type} {'multiplies' if fast else 'does not multiply'} bfloat16 faster than float32"
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "used": str(chosen),
        "precision": resolved,
        "reason": reason if precision == "auto" else "asked for",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [{"name": gpu.name, "bytes": gpu.total_memory, "capability": [gpu.major, gpu.minor]} for gpu in gpus],
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
    }


def _hints() -> list[str]:
    """Advice that depends on the machine's state."""
    cores = os.cpu_count() or 1
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > cores
    if busy and "OMP_WAIT_POLICY" not in os.environ and _threads_spin():
        return [
            f"other programs keep the {cores} cores busy (load {os.getloadavg()[0]:.1f}): OMP_WAIT_POLICY=PASSIVE in "
            "front of a command can make it several times faster (docs/performance.md)"
        ]
    return []


def _threads_spin() -> bool:
    """Whether PyTorch's threads are those of GNU OpenMP, which spin while they wait for each other."""
    return platform.system() == "Linux"
