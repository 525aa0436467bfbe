"""Batches on the device of the training; on a GPU the next one is copied while the last one is computed on.

A copy from ordinary memory makes the CPU wait until the GPU has finished everything before it. From pinned memory and
in a stream of its own, it takes place beside the computation.
"""

from collections.abc import Callable, Iterator

import torch

from mage.data.batches import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in the same order, on `device`; on a GPU, one more than is asked for is read."""
    if device.type != "cuda":
        return ({name: value.to(device) for name, value in batch.items()} for batch in batches)
    copies = torch.cuda.Stream(device)

    def send(batch: Batch) -> Batch:
        with torch.cuda.stream(copies):
            return {
                name: value if value.is_cuda else value.pin_memory().to(device, non_blocking=True)
                for name, value in batch.items()
            }

    def receive(batch: Batch) -> Batch:
        user = torch.cuda.current_stream(device)
        user.wait_stream(copies)
        for value in batch.values():
            value.record_stream(user)  # its memory is the other stream's: not to be used again before this one is done
        return batch

    return one_ahead(batches, send, receive)


def one_ahead(
    batches: Iterator[Batch], send: Callable[[Batch], Batch], receive: Callable[[Batch], Batch]
) -> Iterator[Batch]:
    """Every batch sent and received; each is sent before the previous one is handed out, and after its receipt."""
    first = next(batches, None)
    coming = None if first is None else send(first)
    while coming is not None:
        here, following = receive(coming), next(batches, None)
        coming = None if following is None else send(following)
        yield here
