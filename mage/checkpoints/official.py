"""Converts released checkpoints to models and back, with every tensor identical to the last byte.

A released file is a pickle. It is read as data: tensors, plain values and argparse.Namespace, nothing else, and no
code of the file runs. Files hold a tokenizer, a pre-trained MAGE, a linear probe or a fine-tuned classifier (paper,
sections 4.1 to 4.3); names are translated in `official_names.py`, sizes read in `official_sizes.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mage import atomic
from mage.checkpoints.official_names import (
    UNUSED,
    VQGAN_PREFIX,
    enumerated,
    fill,
    released_tensors,
    tokenizer_names,
    transformer_names,
)
from mage.checkpoints.official_sizes import Settings, mage_config, read_vocabulary, token_grid, vqgan_config
from mage.checkpoints.pickles import check_tensors, unpickle
from mage.models import MAGEClassifier, MAGETransformer
from mage.pipeline import Mage
from mage.store import folder as store
from mage.store.fitting import read_tensors
from mage.store.parts import ModelParts
from mage.tokenizers import VQGAN

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Converted:
    """A released file as a model, and a report of the rest of the file."""

    parts: ModelParts
    extra: dict[str, Tensor]
    """Tensors that our networks do not use, under their released names."""
    dropped: tuple[str, ...]
    """Entries of the file that were not converted, such as "optimizer"."""
    kind: str
    """ "pretrained", "linear_probe", "fine_tuned" or "tokenizer"."""

    @cached_property
    def model(self) -> Mage:
        """The parts as a model, in float32 on the CPU."""
        return Mage.of(self.parts, precision="float32", device="cpu")


def load_released(
    paths: Paths,
    config: dict[str, Any] | None = None,
    precision: str = "float32",
    *,
    allow_extra: bool = False,
    device: str = "auto",
) -> Mage:
    """A released checkpoint as a model; arguments and errors as in `read_released`."""
    parts = read_released(paths, config, allow_extra=allow_extra).parts
    return Mage.of(parts, precision=precision, device=device)


def read_released(
    paths: Paths,
    config: dict[str, Any] | None = None,
    *,
    allow_extra: bool = False,
) -> Converted:
    """Read one released file, or a MAGE file without tokenizer together with a tokenizer file.

    config: values that no tensor shows, with the public port's keys (num_heads, decoder_num_heads, ...); published
        widths need none. Sizes that it repeats must agree with the tensors.
    allow_extra: keep tensors with unknown names instead of refusing the file.
    Raises ValueError for damaged files, pickles with anything but data, and missing, unknown or misshapen tensors.
    """
    files = [_read_file(Path(path)) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    try:
        return _translate(*_combine(files), Settings(config), allow_extra)
    except ValueError as error:
        raise ValueError(f"{' and '.join(file.path.name for file in files) or 'no file'}: {error}") from None


def _translate(
    state: dict[str, Tensor],
    form: str,
    dropped: tuple[str, ...],
    settings: Settings,
    allow_extra: bool,
) -> Converted:
    """Networks with the released weights; their tensors are removed from `state`, unused ones are left."""
    kind = _kind(state)
    prefix = "" if kind == "tokenizer" else VQGAN_PREFIX
    grid = None if kind == "tokenizer" else token_grid(state, settings)
    dtypes: dict[str, str] = {}
    tokenizer: VQGAN | None = None
    transformer: MAGETransformer | MAGEClassifier | None = None
    # Networks are built on the meta device first, so that weights that are replaced are never initialised.
    if kind == "tokenizer" or any(name.startswith(VQGAN_PREFIX) for name in state):
        part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        with torch.device("meta"):
            tokenizer = VQGAN(vqgan_config(part, settings, grid))
        dtypes |= fill(tokenizer.to_empty(device="cpu"), tokenizer_names(tokenizer, prefix), state)
    if grid is not None:
        vocabulary = read_vocabulary(state, settings, tokenizer.num_codes if tokenizer is not None else None)
        with torch.device("meta"):
            if kind == "pretrained":
                transformer = MAGETransformer(mage_config(state, settings), vocabulary, grid)
            else:
                weight = state.get("head.1.weight" if kind == "linear_probe" else "head.weight", torch.empty(1))
                transformer = MAGEClassifier(
                    mage_config(state, settings),
                    vocabulary,
                    grid,
                    num_classes=weight.shape[:1].numel(),
                    pool="mean" if "fc_norm.weight" in state else "class",
                    head_kind="batchnorm_linear" if kind == "linear_probe" else "linear",
                )
        dtypes |= fill(transformer.to_empty(device="cpu"), transformer_names(transformer), state)
    unknown = sorted(state.keys() - UNUSED)
    if unknown and not allow_extra:
        raise ValueError(
            f"the file has {len(unknown)} tensors that no released file has: {enumerated(unknown)}; "
            "allow_extra=True (--allow-extra) keeps them aside, unused"
        )
    # Copies: tensors may be mapped from the file and may share memory, which safetensors refuses.
    extra = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    origin = {"kind": kind, "form": form, "extra": sorted(extra), "dropped": list(dropped), "dtypes": dtypes}
    return Converted(ModelParts(tokenizer, transformer, {"released": origin}), extra, dropped, kind)


def convert(
    paths: Paths, out_folder: str | Path, *, config: dict[str, Any] | None = None, allow_extra: bool = False
) -> Converted:
    """Read released files and write them as a model folder, atomically."""
    converted = read_released(paths, config, allow_extra=allow_extra)
    store.write(converted.parts, out_folder, extra=converted.extra)
    return converted


def to_released(folder: str | Path, out_file: str | Path) -> Path:
    """Write a folder that `convert` made as a released file, with the original names, shapes, types and bytes.

    A MAGE file and a tokenizer file that were converted together become one file.
    """
    folder = store.find_folder(folder)
    model = store.read(folder)
    origin = model.recipe.get("released")
    if origin is None:
        raise ValueError(f"{folder} was not converted from a released file, so it cannot be converted back")
    extra = read_tensors(folder / store.EXTRA) if origin["extra"] else {}
    if sorted(extra) != origin["extra"]:
        raise ValueError(
            f"{folder / store.EXTRA} does not hold the tensors that {store.CONFIG} names; convert the file again"
        )
    tensors = dict(extra)
    if isinstance(model.tokenizer, VQGAN):
        names = tokenizer_names(model.tokenizer, "" if model.transformer is None else VQGAN_PREFIX)
        tensors |= released_tensors(model.tokenizer, names, origin["dtypes"])
    if isinstance(model.transformer, MAGETransformer | MAGEClassifier):
        tensors |= released_tensors(model.transformer, transformer_names(model.transformer), origin["dtypes"])
    with atomic.replacing(out_file) as temporary, open(temporary, "wb") as file:  # a name would be stored, too
        torch.save(tensors if origin["form"] == "bare" else {origin["form"]: tensors}, file)
    return Path(out_file)


class _File(NamedTuple):
    path: Path
    state: dict[str, Tensor]
    form: str
    """Key of the weights in the file: "model" or "state_dict"; "bare" if the file holds only them."""
    dropped: tuple[str, ...]


def _read_file(path: Path) -> _File:
    content = unpickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not the named tensors of a checkpoint")
    form = next((key for key in ("model", "state_dict") if isinstance(content.get(key), dict)), "bare")
    state = content if form == "bare" else content[form]
    check_tensors(path, state)
    dropped = () if form == "bare" else tuple(str(key) for key in content if key != form)
    return _File(path, dict(state), form, dropped)


def _combine(files: list[_File]) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """One set of tensors from one or two files; with a MAGE file, the tokenizer's names get their prefix."""
    tokenizers = [file for file in files if _is_tokenizer(file.state)]
    others = [file for file in files if not _is_tokenizer(file.state)]
    dropped = tuple(dict.fromkeys(name for file in files for name in file.dropped))
    if len(files) == 1:
        return files[0].state, files[0].form, dropped
    if len(tokenizers) != 1 or len(others) != 1:
        names = ", ".join(f"{file.path.name} ({'tokenizer' if file in tokenizers else 'network'})" for file in files)
        raise ValueError(f"give one file, or one network and one tokenizer, not {names or 'nothing'}")
    network, tokenizer = others[0], tokenizers[0]
    if any(name.startswith(VQGAN_PREFIX) for name in network.state):
        raise ValueError(f"{network.path} holds a tokenizer already; leave out {tokenizer.path}")
    tensors = {VQGAN_PREFIX + name: tensor for name, tensor in tokenizer.state.items()}
    return network.state | tensors, network.form, dropped


def _is_tokenizer(state: dict[str, Tensor]) -> bool:
    return "quantize.embedding.weight" in state or any(name.startswith(("encoder.", "decoder.")) for name in state)


def _kind(state: dict[str, Tensor]) -> str:
    if _is_tokenizer(state):
        return "tokenizer"
    if any(name.startswith("token_emb.") for name in state):
        if any(name.startswith(("mlm_layer.", "decoder_embed.")) for name in state):
            return "pretrained"
        if any(name.startswith("head.1.") for name in state):
            return "linear_probe"
        if any(name.startswith("head.") for name in state):
            return "fine_tuned"
    raise ValueError(
        f"the file holds neither a tokenizer nor a MAGE network with a decoder or a classifier: its first tensors are "
        f"{enumerated(list(state)) or 'missing'}"
    )
