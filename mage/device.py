"""Device, process group and precision of a run.

Only `start` reads a launcher's environment variables (torchrun's; SLURM with the same names), chooses a device and
joins the process group; a second call returns the same device.

Precision is a policy, chosen once: float32, or bfloat16 autocast where the hardware is fast at it.
"""

import contextlib
import copy
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from mage import distributed

Precision = Literal["auto", "float32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)
ALIGNMENT = 16
"""Bytes, of which the address of a tensor is a multiple: compiled code reads so many at once."""
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bf16")


def start(device: str | torch.device = "auto") -> torch.device:
    """The device of this process; under a launcher, also join its process group. Raises ValueError if it is missing.

    device: "auto", "cpu", "cuda", "cuda:1", "mps". With several processes on one machine, each takes the GPU of its
    local rank, so that a number after "cuda" is for a single process only.
    """
    world_size, local_rank = _launched("WORLD_SIZE", 1), _launched("LOCAL_RANK", 0)
    if world_size == 1:
        chosen = resolve_device(device)
    else:
        chosen = _of_local_rank(str(device), local_rank)
        distributed.join("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def is_first_launched() -> bool:
    """Whether a launcher started this process as its first, which it tells before the processes have joined."""
    return _launched("RANK", 0) == 0


def _launched(name: str, otherwise: int) -> int:
    """A number that a launcher set in the environment."""
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else otherwise


def _of_local_rank(device: str, local_rank: int) -> torch.device:
    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (number and number != str(local_rank)):
        raise ValueError(
            f"several processes were launched, and each uses its own GPU: give --device cuda or cpu, not {device}"
        )
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, there are {torch.cuda.device_count()}: launch as many "
            "processes as there are GPUs, or give --device cpu"
        )
    return torch.device("cuda", local_rank)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is the first CUDA GPU, else Apple's GPU, else the CPU. Raises ValueError for a missing device."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} is not available here ({reason}); try --device cpu") from None
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def device_of(device: str, number: int) -> str:
    """The device of worker process `number`, started by this process: GPUs in turn, unless one was named."""
    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return f"cuda:{number % torch.cuda.device_count()}"
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware, and faster than those of float32.

    The latter is not so on an Intel processor that has AVX512-FP16, and thus AMX, but whose host hides AMX from its
    guests: AVX512-BF16 takes twice the time of float32 there.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if torch.cpu._is_amx_tile_supported() or not torch.cpu._is_avx512_bf16_supported():
        return torch.cpu._is_amx_tile_supported()
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return not (found.get("avx512_fp16") and str(found.get("cpu_name")).startswith("Intel"))


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU's own memory; None for devices that share the host's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def move_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Several tensors from the CPU on `device` by one copy, for which the CPU does not wait.

    Each copy costs a launch, and one from ordinary memory waits for the device: all are joined in pinned memory.
    """
    ends = list(itertools.accumulate(-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors))
    joined = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")

    def parts(of: Tensor) -> list[Tensor]:
        slices = [of[start : start + tensor.nbytes] for start, tensor in zip([0, *ends], tensors, strict=False)]
        return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(slices, tensors, strict=True)]

    for part, tensor in zip(parts(joined), tensors, strict=True):
        part.copy_(tensor)
    return parts(send(joined, device))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`; for a copy to a CUDA GPU the CPU does not wait.

    On other devices a copy for which it does not wait may read the memory of a tensor that is gone by then.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def resolve(precision: str, device: torch.device) -> Literal["float32", "bf16"]:
    """The precision that a policy means on `device`: "auto" is "bf16" where that is fast, else "float32"."""
    if precision == "auto":
        return "bf16" if bf16_is_fast(device) else "float32"
    if precision == "float32" or precision == "bf16":
        return precision  # type: ignore[return-value]  # mypy does not narrow str by comparison
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which networks run under a policy; that of the backward pass is `exact`."""
    if resolve(precision, device) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return exact(precision, device)


def exact(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which float32 is float32: on a GPU, without TensorFloat-32. Under bf16 it does nothing."""
    if device.type == "cuda" and resolve(precision, device) == "float32":
        return _exact.entered()
    return contextlib.nullcontext()


class _Exact:
    """Convolutions with all digits of float32; PyTorch's default on a GPU rounds their inputs to 10 bits.

    The setting is the process's: the first thread that enters sets it, the last one that leaves restores it.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, True

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    torch.backends.cudnn.allow_tf32 = self._before


_exact = _Exact()


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Context in which a device that computes the same again arrives at the same bits; on a GPU it takes longer.

    Raises ValueError for an operation of which PyTorch has no such form.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.are_deterministic_algorithms_enabled()
    tuned, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).split(". ")[0]
        raise ValueError(
            f"this training cannot be repeated bit by bit ({reason}): leave out --deterministic"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = tuned


def cast_for_inference(network: Network, precision: str) -> Network:
    """The network for several passes without gradients: under bf16, a copy whose weights are cast once.

    Autocast casts every weight in every pass, which for a few images takes longer than some layers. The copy shares
    everything but the weights of linear layers and convolutions, and its outputs are identical to the last bit. It does
    not follow later changes of the weights: make a new copy for each job.
    """
    if precision != "bf16":
        return network
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for tensor in layer.parameters():
                shared[id(tensor)] = nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False)
    return copy.deepcopy(network, shared)  # deepcopy's memo: objects in it are shared, not copied
