"""The code of docs/export.md and docs/interop.md runs, one block after the other."""

from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from mage.data.datasets import DATASETS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["export.md", "interop.md"])
@pytest.mark.filterwarnings("ignore")  # of the other libraries
def test_the_code_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for block in (DOCS / page).read_text().split("```python\n")[1:]:
            exec(compile(block.split("```")[0], page, "exec"), scope)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        DATASETS.remove("my-digits")
    if page == "export.md":
        assert scope["vectors"].shape == (5, 160)
        assert max(scope["manifest"]["largest_difference"].values()) < 1e-4
    else:
        assert scope["scores"].shape == (2, 10)
        assert [tuple(image.shape) for image in scope["maps"](torch.zeros(1, 1, 28, 28))] == [(1, 160, 7, 7)] * 2
        assert (len(scope["dataset"]), scope["dataset"].load(0).shape) == (64, (1, 28, 28))
