"""Precision is a policy, chosen once: float32, or bfloat16 autocast where the hardware is fast at it."""

import contextlib
import copy
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["auto", "float32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bf16")


def bf16_is_fast(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        cpu_has = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
        return any(supported() for supported in cpu_has)
    return False


def resolve(precision: str, device: torch.device) -> Literal["float32", "bf16"]:
    """Turn a policy into what is used on `device`: "auto" becomes "bf16" where that is fast, else "float32"."""
    if precision == "auto":
        return "bf16" if bf16_is_fast(device) else "float32"
    if precision == "float32" or precision == "bf16":
        return precision  # type: ignore[return-value]  # mypy does not narrow str by comparison
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which networks run under a policy; under float32 it does nothing."""
    if resolve(precision, device) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def cast_for_inference(network: Network, precision: str) -> Network:
    """The network for several passes without gradients: under bf16 a copy whose weights are cast once and for all.

    Autocast casts every weight again in every pass, which for a few images takes longer than some layers. The copy
    shares everything but the weights of linear layers and convolutions, and gives the same numbers to the last bit.
    It does not follow later changes of the weights: make it anew for each job.
    """
    if precision != "bf16":
        return network
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for tensor in layer.parameters():
                shared[id(tensor)] = nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False)
    return copy.deepcopy(network, shared)  # its memo: what is found there is not copied


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is the first CUDA GPU, else Apple's GPU, else the CPU. Raises ValueError for one that is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} is not available here ({reason}); try --device cpu") from None
    return found
