"""Mage as a library object: what it takes, what it gives back, and that it behaves as a module."""

import copy
import dataclasses
import inspect
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import mage
from mage import rng
from mage.models import MAGEConfig
from mage.tokenizers import QuantizerConfig, VQGANConfig


@pytest.fixture(scope="module")
def model() -> mage.Mage:
    tokenizer = VQGANConfig(
        image_size=(16, 16), channels=3, width=8, multipliers=(1, 2), patch_size=2, blocks=1, decoder_blocks=1,
        middle_blocks=0, code_width=4, quantizer=QuantizerConfig(kind="normalized", num_codes=32),
    )  # fmt: skip
    sizes = MAGEConfig(32, 2, 2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return mage.build(sizes, tokenizer=tokenizer, precision="float32", device="cpu")


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(3, 16, 16, 3), uint8."""
    return torch.randint(0, 256, (3, 16, 16, 3), generator=rng.generator(0, "pixels"), dtype=torch.uint8)


def test_every_form_of_the_same_images_has_the_same_features(
    model: mage.Mage, pixels: torch.Tensor, tmp_path: Path
) -> None:
    floats = pixels.permute(0, 3, 1, 2).float() / 255
    pictures = [Image.fromarray(one.numpy()) for one in pixels]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    files = sorted(tmp_path.iterdir())
    expected = model.features(floats)
    for form in (
        pixels.permute(0, 3, 1, 2),
        pixels.numpy(),
        pixels.numpy().astype(np.float64) / 255,
        pictures,
        files,
        [str(file) for file in files],
        tmp_path,
        [files[0], pictures[1], floats[2]],
    ):
        assert torch.equal(model.features(form), expected)
        assert torch.equal(model.encode(form), model.encode(floats))


def test_one_image_gives_one_result_and_a_list_of_one_gives_a_batch(model: mage.Mage, pixels: torch.Tensor) -> None:
    picture = Image.fromarray(pixels[0].numpy())
    assert model.reconstruct(picture).shape == (3, 16, 16)
    assert model.reconstruct([picture]).shape == (1, 3, 16, 16)
    assert model.edit(picture, torch.ones(16, 16, dtype=torch.bool), steps=2).shape == (3, 16, 16)


def test_files_of_another_size_are_cut_to_the_models_and_tensors_are_refused(
    model: mage.Mage, pixels: torch.Tensor
) -> None:
    wide = Image.fromarray(pixels[0].numpy()).resize((60, 20))
    assert torch.equal(model.features([wide])[0], model.features([model.transform(wide)])[0])
    with pytest.raises(ValueError, match=r"scale it with model\.transform"):
        model.features(torch.rand(1, 3, 20, 60))


def test_a_dataloader_feeds_the_model(model: mage.Mage, pixels: torch.Tensor) -> None:
    class Photos(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> torch.Tensor:
            return model.transform(Image.fromarray(pixels[index].numpy()).resize((40, 30)))

    batches = [model.features(batch) for batch in DataLoader(Photos(), batch_size=2)]
    assert [tuple(batch.shape) for batch in batches] == [(2, 32), (1, 32)]


def test_returned_tensors_can_be_trained_on(model: mage.Mage, pixels: torch.Tensor) -> None:
    features = model.features(pixels.numpy())
    layer = torch.nn.Linear(32, 4)
    layer(features).square().sum().backward()
    assert layer.weight.grad is not None
    images = model.generate(2, steps=2).requires_grad_()
    images.square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None


def test_inside_a_call_the_networks_evaluate_and_then_are_as_they_were(model: mage.Mage, pixels: torch.Tensor) -> None:
    mage_model = copy.deepcopy(model)
    expected = mage_model.features(pixels.numpy())
    assert mage_model.transformer is not None
    mage_model.transformer.train()
    assert torch.equal(mage_model.features(pixels.numpy()), expected), "dropout is off"
    assert torch.equal(mage_model.generate(1, steps=2), mage_model.generate(1, steps=2))
    assert mage_model.transformer.training


def test_the_transformer_is_an_ordinary_module(model: mage.Mage, pixels: torch.Tensor) -> None:
    own = copy.deepcopy(model)
    ids = own.encode(pixels.numpy())
    before = own.features(pixels.numpy())
    network = own.transformer
    assert isinstance(network, mage.MAGETransformer)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    mask = mage.mask_from_noise(torch.rand(3, 16, generator=rng.generator(0)), 0.75, drop_ratio=0.5)
    loss = network.loss(network(ids, mask), ids, mask)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert not torch.equal(own.features(pixels.numpy()), before)
    assert torch.equal(model.features(pixels.numpy()), before), "a copy shares nothing"


def test_a_compiled_transformer_computes_and_learns_the_same() -> None:
    root = Path(__file__).resolve().parents[1]
    words = [sys.executable, root / "tests" / "reference" / "compiled.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout)
    assert {"features", "latent, 0.5 dropped", "logits, 0.0 dropped"} < differences.keys()
    assert max(differences.values()) < 1e-4, differences


def test_copies_by_pickle_and_by_to_are_the_same_model(model: mage.Mage, pixels: torch.Tensor) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.features(pixels.numpy()), model.features(pixels.numpy()))
    moved = model.to("cpu")
    assert moved is model
    assert model.device == torch.device("cpu")
    buffer = io.BytesIO()
    torch.save(model.transformer, buffer)  # type: ignore[no-untyped-call]
    assert buffer.tell() > 1000


@pytest.mark.parametrize("name", ["generate", "generate_tokens", "edit"])
def test_help_shows_every_setting_of_the_sampler(name: str) -> None:
    method = getattr(mage.Mage, name)
    parameters = inspect.signature(method).parameters
    settings = {field.name for field in dataclasses.fields(mage.SamplingConfig)}
    assert settings <= parameters.keys()
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    assert len(method.__doc__.splitlines()) > 1


def test_the_repr_of_a_model_describes_it(model: mage.Mage) -> None:
    text = repr(model)
    assert "16" in text
    assert "MAGETransformer" in text or "transformer" in text
    assert len(text.splitlines()) < 12, "a summary and no list of layers"


@pytest.mark.parametrize("name", ["MAGE"])
def test_old_names_work_and_warn(name: str) -> None:
    with pytest.warns(DeprecationWarning, match="MAGETransformer"):
        assert getattr(mage, name) is mage.MAGETransformer


def test_public_names_and_their_meaning_are_kept(model: mage.Mage, pixels: torch.Tensor) -> None:
    assert callable(mage.checkpoints.official.load_released)
    assert callable(mage.masking.mask_from_noise)
    assert model.features(pixels.numpy(), pool="class").shape == (3, 32)
    start = model.encode(pixels.numpy())
    start[:, 2:5] = -1
    more = {"choice_temperature": 4.5, "token_temperature": 1.0, "seed": 3}
    filled = model.generate_tokens(3, start=start, steps=2, **more)  # type: ignore[arg-type]
    assert torch.equal(filled[start >= 0], start[start >= 0])
