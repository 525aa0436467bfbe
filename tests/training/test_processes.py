"""Two processes on one machine train the same networks as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SETTINGS = [
    "tokenizer_loss.adversarial.weight=0.5",
    "tokenizer_loss.adversarial.adaptive=false",  # each process would balance on its own images
    "tokenizer_loss.adversarial.start=0",
    "tokenizer_loss.adversarial.r1=1",
    "tokenizer_loss.adversarial.discriminator.levels=1",
    "tokenizer_loss.adversarial.discriminator.width=8",
    "tokenizer_training.steps=6",
    "tokenizer.quantizer.kind=vq",  # k-means would start from the first process's vectors
    "data.tokenizer_transform.augmentation=none",
]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_processes_train_tokenizer_and_discriminator_as_one_does(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for count in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        arguments = ["-m", "mage", "train-tokenizer", "--recipe", "smoke", "--device", "cpu", "--precision", "float32"]
        arguments += ["--out", str(tmp_path / str(count)), "--json"]
        for change in SETTINGS:
            arguments += ["--set", change]
        result = subprocess.run([sys.executable, *launch, *arguments], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "step-000000006.pt", weights_only=True) for name in ("1", "2")
    )
    for part in ("tokenizer", "discriminator"):
        first, second = (
            torch.cat([tensor.flatten() for tensor in state["modules"][part].values()]).double() for state in (one, two)
        )
        # Adam makes steps of full size out of gradients that are rounding errors, of biases before a norm for one.
        assert (first - second).norm() < 0.01 * first.norm(), part
    assert one["observed"]["psnr_db"] == pytest.approx(two["observed"]["psnr_db"], abs=0.05)
