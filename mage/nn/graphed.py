"""CUDA graphs for inference: a function of fixed shapes, recorded once and replayed as one launch.

For a few images a GPU computes a layer faster than Python starts the next one. A graph holds all launches of a pass
with their addresses: a replay fills the recorded inputs, runs, and returns a copy of the recorded output. Weights are
read where they were at the recording, so that changes in place are seen and replaced ones are not.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_SHAPES = 8
"""Recorded per function; each keeps its inputs and its output. Calls of further shapes run without a graph."""
_CAPTURING = threading.Lock()
"""PyTorch records one graph at a time in a process, whatever its device."""
WARM_UP = 3
"""Calls before a recording: libraries choose their algorithms and allocate in them, which cannot be recorded."""


@dataclass(frozen=True)
class Recorded:
    """A recorded call."""

    inputs: tuple[Tensor, ...]
    """Read by every replay."""
    output: Tensor
    """Overwritten by every replay."""
    replay: Callable[[], None]


Record = Callable[[Callable[..., Tensor], tuple[Tensor, ...]], Recorded]


class Graphed:
    """A function of tensors on a GPU that is recorded once for each combination of shapes and types, then replayed.

    It must compute the same launches for the same shapes: no decision on values, nothing that waits for the GPU. With
    gradients enabled it is called as it is. Several threads may call it; they take turns.
    """

    def __init__(
        self, function: Callable[..., Tensor], *, most_shapes: int = MOST_SHAPES, record: Record | None = None
    ) -> None:
        """record: how a call is recorded; default: as a CUDA graph."""
        self._function, self._most = function, most_shapes
        self._record = CudaRecord() if record is None else record
        self._recorded: dict[tuple[object, ...], Recorded] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's output, a tensor of the caller's own."""
        if torch.is_grad_enabled():
            return self._function(*inputs)
        with self._lock:
            key = _key(inputs)
            if key not in self._recorded and len(self._recorded) == self._most:
                return self._function(*inputs)
            if key not in self._recorded:
                self._recorded[key] = self._record(self._function, inputs)
            call = self._recorded[key]
            for static, given in zip(call.inputs, inputs, strict=True):
                static.copy_(given, non_blocking=True)
            call.replay()
            return call.output.clone()


def graphed(function: Callable[..., Tensor], device: torch.device, *, enabled: bool) -> Callable[..., Tensor]:
    """The function as graphs if they are enabled and the device is a GPU; else the function itself."""
    return Graphed(function) if enabled and device.type == "cuda" else function


class CudaRecord:
    """Records calls as CUDA graphs, which share one pool of memory: they are never replayed at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        """Recordings that share a pool take place in one stream."""

    def __call__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Recorded:
        """Raises ValueError if the function cannot be recorded."""
        device = inputs[0].device
        with (
            _CAPTURING,
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),  # current again also if the end of a recording fails
            torch.inference_mode(False),  # else later calls outside of it could not fill the recorded inputs
            torch.no_grad(),
        ):
            if device not in self._streams:
                self._streams[device] = torch.cuda.Stream(device)
            return self._recorded(function, inputs, self._streams[device])

    def _recorded(
        self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], aside: torch.cuda.Stream
    ) -> Recorded:
        static = tuple(given.clone() for given in inputs)
        aside.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        # Weights that autocast has kept would be read where they are no longer after this context: every pass casts.
        dtype, active = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", dtype, enabled=active, cache_enabled=False):
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function(*static)
            torch.cuda.current_stream().wait_stream(aside)
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                    output = function(*static)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"this pass cannot be recorded as a CUDA graph ({reason}); load the model with graphs=False"
                ) from error
        return Recorded(static, output, graph.replay)


def _key(inputs: tuple[Tensor, ...]) -> tuple[object, ...]:
    """What a recording holds for: shapes, layouts, types, and the precision of the context."""
    context = (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
    return (context, *((given.shape, given.stride(), given.dtype, given.device) for given in inputs))
