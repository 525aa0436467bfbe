"""What all tests share: one thread, no network, repeatable examples."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Examples are drawn from the test itself, so that a failure repeats; time limits fail on a busy machine only.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

# No test may reach a server.
os.environ["HF_HUB_OFFLINE"] = "1"

# Tests compare with numbers computed on the CPU, so they run there whatever the machine has; `make test-gpu` runs the
# tests in tests/gpu, and only those, on a CUDA GPU.
if not os.environ.get("MAGE_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep for later runs, such as judges, and where named data sets are looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGE_DATA", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: one thread is faster than several, and sums come out in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh CPU generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    """Four random colour images in [0, 1]: (4, 3, 16, 16)."""
    return torch.rand(4, 3, 16, 16, generator=generator)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """An empty folder for a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
