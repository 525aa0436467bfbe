"""The benchmarks run, count what they say they count, and name their ratios; nothing here is timed."""

import math
import subprocess
import sys

import pytest
import torch

from mage.benchmarks import suite
from mage.benchmarks.counters import count_call, count_events, time_shares
from mage.benchmarks.measure import Timing, count_flops, take_turns
from mage.benchmarks.suite import GPU_JOBS, PATHS, Row, jobs_of, metrics
from mage.benchmarks.work import Bench, Work
from mage.masking import MaskRatioConfig, mask_from_noise
from mage.models import MAGEConfig, MAGETransformer
from mage.runs.budget import training_flops
from mage.tokenizers import QuantizerConfig, VQGANConfig
from mage.vocabulary import Vocabulary

CPU = torch.device("cpu")


def test_the_command_starts_where_no_memory_can_be_measured() -> None:
    """Windows has no module `resource`; what cannot be measured is left out."""
    code = "import sys; sys.modules['resource'] = None; import mage.cli.benchmark"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_path_runs_and_gets_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mage.benchmarks.measure.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("mage.benchmarks.growth.GRIDS", ((4, 4), (8, 8)))
    monkeypatch.setattr("mage.benchmarks.suite.ceilings", lambda device, precision: dict.fromkeys(CEILINGS, 100.0))
    monkeypatch.setattr("mage.benchmarks.timm_anchor.ANCHOR", "vit_tiny_patch16_224")
    monkeypatch.setattr("mage.benchmarks.small.PROTOTYPE", MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1))
    tokenizer = VQGANConfig(
        image_size=(16, 16), width=8, multipliers=(1, 2), patch_size=2, blocks=1, quantizer=QuantizerConfig(num_codes=9)
    )
    network = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    rows, limits = suite.run(
        network,
        jobs_of(tuple(PATHS), (2, 3)),
        rounds=1,
        steps=2,
        precision="float32",
        device="cpu",
        tokenizer=tokenizer,
        profiled=True,
    )
    found = metrics(rows, limits)
    wanted = {
        "train_cached_vs_plain_online", "train_cached_vs_plain_cached", "train_online", "tokenize", "generate",
        "generate_encoder_keep", "edit", "features", "probe_fixed_crops", "probe_random_crops",
        "tokenizer_step", "placement", "detokenize", "small_pretrain", "latency_ms_b1",
        "ceiling_share_timm_step_timm_b2",
        "pass_16_tokens", "step_64_tokens", "ceiling_share_generate", "ceiling_share_pretrain",
    }  # fmt: skip
    assert wanted <= set(found)
    assert sum(share for name, share in found.items() if name.startswith("time_share_latency_b1.")) == pytest.approx(1)
    assert all(math.isfinite(value) and value > 0 for name, value in found.items() if not name.endswith(".others"))
    assert found["generate"] == min(found["generate_b2"], found["generate_b3"]), "the worst batch size counts"


def test_minutes_leave_the_last_jobs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job takes a minute of a clock of its own; in three and a half minutes there is time for three."""
    now = 0.0
    done: list[int] = []

    def job(bench: Bench) -> list[Work]:
        nonlocal now
        now += 60.0
        done.append(bench.batch)
        return []

    monkeypatch.setattr("mage.benchmarks.suite.time.perf_counter", lambda: now)
    monkeypatch.setattr("mage.benchmarks.suite.ceilings", lambda device, precision: dict.fromkeys(CEILINGS, 100.0))
    monkeypatch.setitem(PATHS, "job", job)
    tokenizer = VQGANConfig((8, 8), 1, 8, (1, 1), 1, quantizer=QuantizerConfig("ema", 9))
    jobs = [("job", batch) for batch in (1, 2, 3, 4, 5)]
    network = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    suite.run(
        network, jobs, rounds=1, steps=2, precision="float32", device="cpu", tokenizer=tokenizer, minutes=3.5
    )  # fmt: skip
    assert done == [1, 2, 3]
    assert {path for path, _ in GPU_JOBS} <= set(PATHS)


def test_a_job_is_expected_to_take_what_its_path_took_or_the_longest_other_that_compiles_nothing() -> None:
    lengths = {("pretrain", 64): 30.0, ("timm_anchor", 64): 200.0, ("tokenize", 16): 10.0, ("tokenize", 64): 16.0}
    assert suite.expected(("pretrain", 16), lengths) == 30
    assert suite.expected(("tokenize", 128), lengths) == 32
    assert suite.expected(("features", 64), lengths) == 30
    assert suite.expected(("features", 64), {}) == 0


def test_a_job_for_which_there_is_no_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    def job(bench: Bench) -> list[Work]:
        done.append(bench.batch)
        if bench.batch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return []

    monkeypatch.setattr("mage.benchmarks.suite.ceilings", lambda device, precision: dict.fromkeys(CEILINGS, 100.0))
    monkeypatch.setitem(PATHS, "job", job)
    tokenizer = VQGANConfig((8, 8), 1, 8, (1, 1), 1, quantizer=QuantizerConfig("ema", 9))
    network = MAGEConfig(16, 1, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    jobs = [("job", batch) for batch in (1, 2, 3)]
    suite.run(network, jobs, rounds=1, steps=2, precision="float32", device="cpu", tokenizer=tokenizer)
    assert done == [1, 2, 3]
    assert "job with 2 images is left out: CUDA out of memory" in caplog.text


def test_waits_and_launches_are_counted_among_the_events_of_a_gpu() -> None:
    names = ["aten::mm", "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaStreamSynchronize"]
    names += ["cudaGraphLaunch", "cudaMemcpyAsync", "cudaDeviceSynchronize", "ampere_bf16_gemm"]
    assert count_events(names) == {"host_syncs": 1, "kernel_launches": 4}


def test_a_profile_names_the_longest_operations_and_leaves_nothing_out() -> None:
    weights = torch.ones(400, 400)
    counts = count_call(lambda: (weights @ weights).relu(), CPU)
    assert {name.split(".")[0] for name in counts} == {"time_share"}
    assert next(iter(counts)) == "time_share.mm"
    assert sum(counts.values()) == pytest.approx(1)
    shares = time_shares({f"aten::op{number}": 2.0**-number for number in range(12)})
    assert list(shares) == [*(f"op{number}" for number in range(8)), "others"]


CEILINGS = ("matmul_float32", "conv3x3_float32")


def test_ways_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter(range(1000))
    monkeypatch.setattr("mage.benchmarks.measure.time.perf_counter", lambda: float(next(clock)))
    timings = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, device=CPU)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert timings["a"] == Timing(1.0, 1.0, 1.0)


def test_flops_are_those_of_the_budget() -> None:
    config = MAGEConfig(32, 2, 2, decoder_width=32, decoder_depth=1, decoder_heads=2, dropout=0.0)
    network = MAGETransformer(config, Vocabulary.fresh(50), (8, 8))
    ids = torch.zeros(4, 64, dtype=torch.int64)
    ratio = MaskRatioConfig(mode=0.694, std=0.0, low=0.5).mode
    mask = mask_from_noise(torch.rand(4, 64), ratio)

    def step() -> None:
        network.loss(network(ids, mask), ids, mask).backward()

    expected = 4 * training_flops(config, 64, 50, 0.5)
    # The embedding needs no gradient for its input and the head none for its words: a little less than three passes.
    assert 0.9 < count_flops(step) / expected <= 1.02


def test_ratios_say_how_many_times_faster_ours_is() -> None:
    seconds = {"ours": Timing(1, 1, 1), "plain": Timing(3, 3, 3)}
    row = Row("generate", 4, seconds, gflops=50.0, ceiling=200.0, counts={"host_syncs": 2.0, "time_share.mm": 0.7})
    assert row.times_faster("ours", "plain") == 3
    found = metrics([row], {"matmul_float32": 200.0})
    assert found["generate"] == found["generate_b4"] == 3
    assert found["ceiling_share_generate"] == 0.25
    assert found["host_syncs_generate_b4"] == 2
    assert found["time_share_generate_b4.mm"] == 0.7
