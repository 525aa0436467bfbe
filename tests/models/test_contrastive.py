"""The contrastive loss against loops, and in two processes against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from mage import rng
from mage.models.contrastive import ContrastiveConfig, Projection, agreement, info_nce
from tests.reference import contrastive as reference

ROOT = Path(__file__).resolve().parents[2]


def vectors(count: int, *, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of two views, in float64."""
    drawn = torch.randn(2, count, width, generator=rng.generator(0, "vectors"), dtype=torch.float64)
    first, second = functional.normalize(drawn, dim=2)
    return first, second


@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("use", [[True] * 6, [True, False, True, True, False, True]])
def test_info_nce_is_that_of_the_loops(same_view: bool, use: list[bool]) -> None:
    first, second = vectors(6)
    found = info_nce(first, second, temperature=0.3, use=torch.tensor(use), same_view=same_view)
    wanted = reference.info_nce(first.tolist(), second.tolist(), 0.3, use, same_view=same_view)
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_autocast_takes_nothing_from_the_similarities() -> None:
    first, second = (part.float().requires_grad_() for part in vectors(32, width=64))
    exact = torch.autograd.grad(info_nce(first, second, temperature=0.05), (first, second))
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(first, second, temperature=0.05)
    for found, wanted in zip(torch.autograd.grad(loss, (first, second)), exact, strict=True):
        assert torch.equal(found, wanted)


def test_no_image_to_contrast_costs_nothing() -> None:
    first, second = vectors(4)
    first.requires_grad_()
    loss = info_nce(first, second, temperature=0.3, use=torch.zeros(4, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert first.grad is not None
    assert not first.grad.any()


def test_agreeing_views_cost_less_than_strangers() -> None:
    first, second = vectors(32)
    assert float(info_nce(first, first, temperature=0.2)) < float(info_nce(first, second, temperature=0.2))
    assert float(agreement(first, first)) == 1
    assert float(agreement(first, first.flip(0))) == 0


WORKER = """
import sys, torch, torch.distributed as dist
from torch.nn import functional
from mage import distributed
from mage.models.contrastive import info_nce
dist.init_process_group("gloo")
data = torch.load(sys.argv[1], weights_only=True)
rank, share = dist.get_rank(), len(data["inputs"][0]) // 2
weight = data["weight"].requires_grad_()
parts = [functional.normalize(view.chunk(2)[rank] @ weight, dim=1) for view in data["inputs"]]
loss = info_nce(*parts, temperature=0.3, use=data["use"].chunk(2)[rank], same_view=data["same_view"])
loss.backward()
value = loss.detach().clone()
for tensor in (value, weight.grad):
    dist.all_reduce(tensor)
    tensor /= 2
if rank == 0:
    torch.save({"loss": value, "gradient": weight.grad}, sys.argv[2])
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
@pytest.mark.parametrize("same_view", [False, True])
def test_two_processes_are_one_process_with_the_whole_batch(tmp_path: Path, same_view: bool) -> None:
    inputs = torch.randn(2, 8, 6, generator=rng.generator(0, "inputs"), dtype=torch.float64)
    weight = torch.randn(6, 4, generator=rng.generator(0, "weight"), dtype=torch.float64)
    use = torch.tensor([True, True, False, True, True, False, False, True])  # three of the first four, two of the last
    torch.save({"inputs": inputs, "weight": weight, "use": use, "same_view": same_view}, tmp_path / "data.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "worker.py")]
    result = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "data.pt"), str(tmp_path / "found.pt")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    weight.requires_grad_()
    first, second = (functional.normalize(view @ weight, dim=1) for view in inputs)
    loss = info_nce(first, second, temperature=0.3, use=use, same_view=same_view)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found["gradient"], weight.grad, rtol=1e-10, atol=1e-12)


def test_projections_have_length_one_and_the_widths_asked_for() -> None:
    projection = Projection(8, ContrastiveConfig(hidden_width=12, width=5))
    found = projection(torch.randn(3, 8, generator=rng.generator(0)))
    assert found.shape == (3, 5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert projection.layers[0].weight.shape == (12, 8)


def test_the_weight_follows_its_schedule() -> None:
    for schedule, values in (("constant", (0.1, 0.1)), ("rising", (0.0, 0.1)), ("falling", (0.1, 0.0))):
        config = ContrastiveConfig(weight=0.1, schedule=schedule)  # type: ignore[arg-type]
        assert (config.weight_at(0.0), config.weight_at(1.0)) == values
    with pytest.raises(ValueError, match="max_ratio"):
        ContrastiveConfig(max_ratio=0)
    with pytest.raises(ValueError, match="positive"):
        ContrastiveConfig(temperature=0)


def test_the_contrast_has_one_shape_however_many_images_count() -> None:
    """With tensors that have shapes alone: choosing rows by a flag fails there, and would wait for a GPU."""
    with FakeTensorMode():
        first, second = (torch.randn(4, 8).requires_grad_() for _ in range(2))
        info_nce(first, second, temperature=0.3, use=torch.ones(4, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
