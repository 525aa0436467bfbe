"""Extractors by name: what they give, and what is said where weights are missing or wrong."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from mage import images, rng
from mage.evaluation.extractors import (
    INCEPTION_FILE,
    build_extractor,
    check_is_data,
    fidelity_extractor,
    find_inception,
)
from mage.nn.backbones import PooledFeatures, efflite0

PIXELS = torch.randint(0, 256, (2, 3, 20, 24), generator=rng.generator(0, "pixels"), dtype=torch.uint8)


def test_efflite0_gives_its_pooled_features_and_class_scores() -> None:
    extractor = build_extractor("efflite0")
    seen = extractor(PIXELS)
    torch.testing.assert_close(seen.features, PooledFeatures(efflite0())(images.to_float(PIXELS)))
    assert extractor.fingerprint == "efflite0_64px"
    assert seen.logits is not None
    assert seen.logits.shape == (2, 1000)
    grey = extractor(PIXELS[:, :1])
    torch.testing.assert_close(grey.features, extractor(PIXELS[:, :1].expand(-1, 3, -1, -1)).features)


@pytest.mark.parametrize("name", ["", "vgg", "timm:", "efflite0:64", "fidelity:"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no extractor"):
        build_extractor(name)


def test_missing_inception_weights_come_with_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=rf"download https://.*{INCEPTION_FILE}.*fd_efflite0"):
        build_extractor("inception")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION_FILE).write_bytes(b"x")
    with pytest.raises(ValueError, match="SHA-256"):
        build_extractor("inception")
    digest = hashlib.sha256(b"x").hexdigest()
    assert find_inception(sha256=digest[:8]) == tmp_path / "checkpoints" / INCEPTION_FILE


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/never",)


def test_files_that_hold_code_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "other": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="not a file of weights alone"):
        check_is_data(tmp_path / "bad.pth")


def test_inception_of_torch_fidelity_from_a_local_file(tmp_path: Path) -> None:
    """Random weights stand in for the released ones: the path is the same, the hash is checked above."""
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    class Shell(Inception):  # type: ignore[misc]
        """Its layers without its weights."""

    original = torch.load
    shell = Shell.__new__(Shell)
    captured: dict[str, Any] = {}

    def first_state(module: Any, state: Any) -> None:
        captured.update({name: value.clone() for name, value in torch.nn.Module.state_dict(module).items()})

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(torch, "load", lambda *args, **options: {})
        patch.setattr(Shell, "load_state_dict", first_state)
        shell.__init__("inception-v3-compat", ["2048"], feature_extractor_weights_path="none")  # type: ignore[misc]
    assert torch.load is original
    torch.save(captured, tmp_path / "weights.pth")
    extractor = fidelity_extractor("inception", "inception-v3-compat", tmp_path / "weights.pth", torch.device("cpu"))
    seen = extractor(PIXELS)
    assert seen.features.shape == (2, 2048)
    assert seen.logits is not None
    assert seen.logits.shape == (2, 1008)


def test_extractors_of_torch_fidelity_by_name(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    with pytest.raises(ValueError, match=r"has no extractor 'nonsense'; it has .*inception-v3-compat"):
        build_extractor("fidelity:nonsense")
    with pytest.raises(ValueError, match="there is no file"):
        build_extractor("fidelity:vgg16", weights=tmp_path / "absent.pth")


def test_timm_models_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    extractor = build_extractor("timm:test_vit", weights=tmp_path / "vit.pth")
    seen = extractor(PIXELS)
    assert seen.features.shape == (2, network.num_features)
    assert seen.logits is not None
    assert seen.logits.shape == (2, 1000)
    assert extractor.fingerprint.startswith("timm_test_vit_")
    with pytest.raises(ValueError, match="timm cannot build 'no_such_model'"):
        build_extractor("timm:no_such_model")
    torch.save({"other": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="not a file of weights alone"):
        build_extractor("timm:test_vit", weights=tmp_path / "bad.pth")
