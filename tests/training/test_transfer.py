"""Batches on their way to the device."""

from collections.abc import Iterator

import torch

from mage.data.batches import Batch
from mage.training.transfer import on_device, one_ahead


def numbered(count: int, events: list[str] | None = None) -> Iterator[Batch]:
    for number in range(count):
        if events is not None:
            events.append(f"read {number}")
        yield {"tokens": torch.tensor([number])}


def test_on_a_cpu_a_batch_is_handed_on_as_it_is_and_no_other_is_read() -> None:
    events: list[str] = []
    batches = list(numbered(2))
    assert next(on_device(iter(batches), torch.device("cpu")))["tokens"] is batches[0]["tokens"]
    next(on_device(numbered(2, events), torch.device("cpu")))
    assert events == ["read 0"]


def test_the_next_batch_is_sent_before_one_is_handed_out_and_after_its_receipt() -> None:
    events: list[str] = []

    def send(batch: Batch) -> Batch:
        events.append(f"send {int(batch['tokens'])}")
        return batch

    def receive(batch: Batch) -> Batch:
        events.append(f"receive {int(batch['tokens'])}")
        return batch

    batches = one_ahead(numbered(3, events), send, receive)
    assert int(next(batches)["tokens"]) == 0
    assert events == ["read 0", "send 0", "receive 0", "read 1", "send 1"]
    assert [int(batch["tokens"]) for batch in batches] == [1, 2]
    assert events[-1] == "receive 2"
    assert not list(one_ahead(numbered(0), send, receive))
