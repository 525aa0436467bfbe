"""Policies of precision and names of devices."""

import contextlib

import pytest
import torch

from mage import device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("avx", "amx", "found", "fast"),
    [
        (False, False, {}, False),
        (True, False, {}, True),
        (True, False, {"avx512_fp16": False, "cpu_name": "AMD EPYC"}, True),
        (True, False, {"avx512_fp16": True, "cpu_name": "AMD EPYC"}, True),
        (True, False, {"avx512_fp16": True, "cpu_name": "Intel Xeon"}, False),
        (True, True, {"avx512_fp16": True, "cpu_name": "Intel Xeon"}, True),
        (False, True, {}, True),
    ],
)
def test_auto_uses_bfloat16_where_the_processor_is_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, found: dict[str, object], fast: bool
) -> None:
    """Having the instructions is not enough: where a host hides AMX, the others are slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert device.bf16_is_fast(CPU) == fast
    assert device.resolve("auto", CPU) == ("bf16" if fast else "float32")


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_are_fast_from_the_ampere_generation_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device.bf16_is_fast(torch.device("cuda")) == fast
    assert device.resolve("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize("fast", [True, False])
def test_the_requested_device_is_used(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(device, "bf16_is_fast", lambda device: fast)
    assert device.resolve("float32", CPU) == "float32"
    assert device.resolve("bf16", CPU) == "bf16"


def test_networks_run_in_the_precision_of_the_policy() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with device.autocast("bf16", CPU):
        assert layer(x).dtype == torch.bfloat16
    with device.autocast("float32", CPU):
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("name", ["fp16", "", "Float32"])
def test_an_unknown_policy_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"one of auto, float32, bf16, not '{name}'"):
        device.resolve(name, CPU)
    with pytest.raises(ValueError, match="one of auto, float32, bf16"):
        device.autocast(name, CPU)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda:0"), (True, False, "cuda:0"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_fastest_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device.resolve_device() == torch.device(expected)
    assert device.resolve_device("cpu") == CPU
    assert device.resolve_device(CPU) == CPU


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{name}' is not available here .*try --device cpu"):
        device.resolve_device(name)


def test_of_a_long_explanation_the_first_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int, device: torch.device) -> None:
        raise RuntimeError("no driver\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ValueError, match=r"device 'cuda' is not available here \(no driver\); try --device cpu$"):
        device.resolve_device("cuda")


def test_a_copy_with_cast_weights_computes_the_same_bits() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Flatten(), torch.nn.Linear(8 * 4, 5)
    )
    copy = device.cast_for_inference(network, "bf16")
    x = torch.randn(4, 3, 4, 4)
    with torch.inference_mode(), device.autocast("bf16", CPU):
        assert torch.equal(copy(x), network(x))
    assert copy[0].weight.dtype == copy[3].weight.dtype == torch.bfloat16
    assert copy[1].weight is network[1].weight, "what is not cast is shared"
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in network.parameters())
    assert device.cast_for_inference(network, "float32") is network


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | torch.device]:
    """The third of four processes, on a machine with four GPUs; what it does."""
    done: dict[str, str | torch.device] = {}
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: done.update(current=chosen))
    monkeypatch.setattr(device.distributed, "join", lambda backend: done.update(backend=backend))
    return done


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:2"])
def test_each_process_takes_the_gpu_of_its_local_rank(launched: dict[str, str | torch.device], name: str) -> None:
    assert device.start(name) == torch.device("cuda:2")
    assert launched == {"current": torch.device("cuda:2"), "backend": "cpu:gloo,cuda:nccl"}


def test_processes_on_the_cpu_meet_without_gpus(launched: dict[str, str | torch.device]) -> None:
    assert device.start("cpu") == CPU
    assert launched == {"backend": "gloo"}


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda:1", 4, "several processes were launched.*give --device cuda or cpu, not cuda:1"),
        ("mps", 4, "not mps"),
        ("cuda", 2, "process 2 of this machine has no GPU, there are 2: launch as many processes"),
    ],
)
def test_a_gpu_that_a_process_cannot_have_is_explained(
    launched: dict[str, str | torch.device], monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        device.start(name)
    assert not launched, "nobody waits for one that will not come"


def test_a_single_process_computes_on_the_gpu_that_was_named(
    launched: dict[str, str | torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    assert device.start("cuda:1") == torch.device("cuda:1")
    assert launched == {"current": torch.device("cuda:1")}


def test_tensors_that_move_together_keep_values_shapes_and_types() -> None:
    tensors = [torch.tensor([True, False]), torch.arange(12).view(3, 4).T, torch.rand(0), torch.rand(2, 1, 3)]
    for moved, tensor in zip(device.move_together(tensors, CPU), tensors, strict=True):
        assert moved.dtype == tensor.dtype
        assert torch.equal(moved, tensor)


def test_only_copies_to_a_cuda_gpu_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        told.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    for name in ("cuda", "mps", "cpu"):
        device.send(torch.zeros(2), torch.device(name))
    assert told == [("cuda", True), ("mps", False), ("cpu", False)]


def test_float32_on_a_gpu_is_no_tensorfloat32(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for before in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
        with device.autocast("float32", gpu):
            with contextlib.suppress(RuntimeError), device.autocast("float32", gpu):
                assert not torch.backends.cudnn.allow_tf32
                raise RuntimeError
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32 == before


def test_the_setting_of_convolutions_lasts_until_the_last_thread_has_left() -> None:
    first, second = (device.autocast("float32", torch.device("cuda")) for _ in range(2))
    assert torch.backends.cudnn.allow_tf32
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32, "the other one still computes"
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32
