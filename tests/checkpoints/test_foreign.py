"""Tokenizers trained elsewhere, as synthetic files of their layouts, beside formulas and diffusers itself."""

import json
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mage
from mage.checkpoints import foreign
from mage.checkpoints.pickles import unpickle
from mage.cli.main import main
from mage.pipeline import Mage
from mage.tokenizers import LDMConfig, LDMTokenizer, Tokenizer
from tests.reference import ldm

SMALL = LDMConfig(
    image_size=(16, 24), width=32, multipliers=(1, 2, 2), blocks=1, encoder_attention=(2,), decoder_attention=(1, 2),
    latent_width=8, code_width=6, num_codes=20,
)  # fmt: skip


def taming_state(config: LDMConfig = SMALL) -> dict[str, Tensor]:
    """Random tensors under taming's names, in float32, with norms away from 1."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = LDMTokenizer(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_a_taming_file_becomes_a_tokenizer_that_computes_the_same(tmp_path: Path) -> None:
    state = taming_state()
    extra = {
        "loss.discriminator.main.0.weight": torch.zeros(3),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(1),
    }
    torch.save({"state_dict": OrderedDict(state | extra), "epoch": 3, "global_step": 7}, tmp_path / "last.ckpt")
    model = Mage.of(foreign.read_taming(tmp_path / "last.ckpt", image_size=(16, 24)), precision="float32", device="cpu")
    assert model.tokenizer.config == SMALL
    assert isinstance(model.tokenizer, Tokenizer)
    images = pictures(3, 3, 16, 24)
    ids = model.encode(images)
    assert torch.equal(ids, ldm.encode(state, images, 32))
    assert len(ids.unique()) > 3
    torch.testing.assert_close(model.decode_tokens(ids), ldm.decode(state, ids, 32), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "folder")
    again = mage.load(tmp_path / "folder", precision="float32")
    assert torch.equal(again.encode(images), ids)
    assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()


def test_training_state_of_other_libraries_is_left_behind_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("pytorch_lightning.callbacks")

    class ModelCheckpoint:
        """Remembers whether it was ever made by a file."""

        made = 0

        def __init__(self) -> None:
            self.best = 1.0

        def __setstate__(self, state: Any) -> None:
            ModelCheckpoint.made += 1

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = "pytorch_lightning.callbacks", "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    path = tmp_path / "last.ckpt"
    torch.save(
        {"callbacks": {ModelCheckpoint: {"best": 1}, "object": ModelCheckpoint()}, "state_dict": taming_state()}, path
    )
    model = Mage.of(foreign.read_taming(path, image_size=(16, 24)), precision="float32", device="cpu")
    assert model.tokenizer.num_codes == 20
    assert ModelCheckpoint.made == 0
    with pytest.raises(ValueError, match=r"holds a pytorch_lightning\.callbacks\.ModelCheckpoint"):
        unpickle(path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit",))

    torch.save({"state_dict": taming_state(), "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"holds a .*exec and was not read"):
        foreign.read_taming(tmp_path / "evil.ckpt")
    assert not foreign.is_taming_file(tmp_path / "evil.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("decoder.mid.block_1.conv1.bias"),
            "missing, unknown or of another shape: decoder.mid.block_1",
        ),
        (lambda s: s.update({"encoder.strange": torch.zeros(1)}), r"encoder\.strange"),
        (lambda s: s.update({"post_quant_conv.weight": torch.zeros(8, 5, 1, 1)}), r"post_quant_conv\.weight"),
        (lambda s: s.pop("quantize.embedding.weight"), r"quantize\.embedding\.weight"),
        (lambda s: s.update({"quantize.proj.weight": torch.zeros(1)}), "Gumbel"),
        (lambda s: s.pop("encoder.conv_in.weight"), "not a taming VQGAN"),
        (lambda s: s.update({"encoder.conv_in.weight": torch.zeros(())}), "does not hold a VQGAN"),
    ],
)
def test_files_that_do_not_fit_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    state = taming_state()
    change(state)
    torch.save(state, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=words):
        foreign.read_taming(tmp_path / "bad.ckpt", image_size=(16, 24))


def test_an_image_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(taming_state(), tmp_path / "good.ckpt")
    with pytest.raises(ValueError, match="not a multiple of the stride 4"):
        foreign.read_taming(tmp_path / "good.ckpt", image_size=(17, 24))


@pytest.mark.filterwarnings("ignore")  # diffusers warns of its own future
@pytest.mark.parametrize("safe", [True, False])
def test_a_diffusers_folder_becomes_a_tokenizer_that_computes_the_same(safe: bool, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.VQModel(
            in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), block_out_channels=(32, 64),
            layers_per_block=1, latent_channels=4, sample_size=16, num_vq_embeddings=24, norm_num_groups=16,
            vq_embed_dim=5,
        ).eval()  # fmt: skip
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    network.save_pretrained(tmp_path / "theirs", safe_serialization=safe)
    assert foreign.is_diffusers(tmp_path / "theirs")
    model = Mage.of(foreign.read_diffusers(tmp_path / "theirs"), precision="float32", device="cpu")
    assert model.tokenizer.grid == (8, 8)
    images = pictures(2, 3, 16, 16)
    with torch.no_grad():
        latents = network.encode(images * 2 - 1).latents
        words, _, (_, _, ids) = network.quantize(latents)
        expected = ((network.decode(latents).sample + 1) / 2).clamp(0, 1)
    found = model.encode(images)
    assert torch.equal(found.flatten(), ids.flatten())
    torch.testing.assert_close(model.decode_tokens(found), expected, rtol=1e-4, atol=1e-4)
    assert words.shape == (2, 5, 8, 8)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "AutoencoderKL"}, "holds a AutoencoderKL"),
        ({"_class_name": "VQModel", "norm_type": "spatial"}, "norm_type='spatial'"),
        ({"_class_name": "VQModel"}, "holds no weights"),
    ],
)
def test_other_diffusers_folders_are_refused(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        foreign.read_diffusers(tmp_path)
    assert not foreign.is_diffusers(tmp_path / "none")


def test_the_command_converts_and_the_result_tokenizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": taming_state()}, tmp_path / "last.ckpt")
    out = tmp_path / "tokenizer"
    main(["convert", str(tmp_path / "last.ckpt"), "--out", str(out), "--image-size", "16", "24"])
    assert "16 x 24 pixels to 4 x 6 tokens, 20 codes" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "last.ckpt"), "--out", str(tmp_path / "no"), "--allow-extra"])
    assert "leave out --config and --allow-extra" in capsys.readouterr().err
    assert mage.load(out).tokenizer.grid == (4, 6)
