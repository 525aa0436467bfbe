"""A model folder: `config.json` describes the networks, safetensors files hold the weights. Written atomically.

config.json               kind, tokenizer, transformer, vocabulary, recipe
tokenizer.safetensors     weights of the tokenizer: our VQGAN, or one that was trained elsewhere (LDMTokenizer)
transformer.safetensors   weights of MAGE, of an encoder with a classifier, or of a baseline's encoder
released_extra.safetensors   tensors of a released file that our networks do not use (only in converted folders)
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mage import atomic, checksums
from mage.models import (
    Classifier,
    MAGEClassifier,
    MAGEConfig,
    MAGETransformer,
    PatchClassifier,
    PatchEncoder,
    PatchEncoderConfig,
    Transformer,
)
from mage.nn.grids import check_grid
from mage.settings import from_dict, to_dict
from mage.store import hub, packaged
from mage.store.example_images import EXAMPLES
from mage.store.files import CONFIG as CONFIG
from mage.store.files import EXTRA as EXTRA
from mage.store.files import HASHES, check_written, hashes
from mage.store.files import TOKENIZER as TOKENIZER
from mage.store.files import TRANSFORMER as TRANSFORMER
from mage.store.find import located
from mage.store.fitting import restored
from mage.store.hub_names import HubName
from mage.store.parts import ModelParts
from mage.tokenizers import VQGAN, LDMConfig, LDMTokenizer, Tokenizer, VQGANConfig
from mage.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

FORMAT = 1
FILES = (CONFIG, TOKENIZER, TRANSFORMER, EXTRA, packaged.CARD, EXAMPLES)
"""What is written for a model, or of what belongs to the one that it replaces; other files stay."""
HEAD = ("num_classes", "pool", "head_kind")


def write(
    parts: ModelParts,
    folder: str | Path,
    *,
    extra: dict[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model folder; an older one at the same path is replaced at the end, in one step.

    dtype: that floating-point weights are rounded to, such as bfloat16 for half the size; None: as they are. Networks
    are read in float32 either way.
    """
    folder = Path(folder)
    if folder.is_symlink():
        check_own(folder.resolve())
    if not atomic.is_empty(folder) and not _is_ours(folder / CONFIG):
        raise ValueError(f"{folder} exists and is not a model folder; choose another name, nothing was overwritten")
    try:
        with atomic.replacing_folder(folder, replaces=FILES) as temporary:
            _write_files(parts, temporary, extra=extra, dtype=dtype)
    except SafetensorError as error:  # of the system, such as a full disk, whose number is in the text
        number = re.search(r"os error (\d+)", str(error))
        raise atomic.explain(OSError(int(number[1]) if number else 0, str(error)), folder) from None
    return folder


def check_own(folder: Path) -> None:
    """Raise ValueError for a packaged model, which belongs to the installation, and for a downloaded one."""
    if folder.parent == packaged.FOLDER:
        raise ValueError(
            f"the packaged model {folder.name} belongs to the installation: write a copy of your own with "
            f"mage.load({folder.name!r}).save(PATH)"
        )
    if hub.is_cached(folder):
        raise ValueError(f"{folder} is a downloaded model: write a copy of your own with mage.load(NAME).save(PATH)")


def tuned_sampler(folder: Path) -> dict[str, Any]:
    """Sampler and note of `mage tune-sampler` in a model folder, as `sampling` and `sampling_tuned`; empty without."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        note = config["notes"]["sampling_tuned"]
        return {"sampling": config["recipe"]["sampling"], "sampling_tuned": note}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_settings(parts: ModelParts, folder: Path) -> None:
    """Write a changed recipe and changed notes into a model folder; weights and other settings are kept.

    Raises ValueError as `check_own`.
    """
    check_own(folder)
    config = json.loads((folder / CONFIG).read_text())
    atomic.write_json(folder / CONFIG, checksums.sealed(config | {"recipe": parts.recipe, "notes": parts.notes}))


def _write_files(
    parts: ModelParts, folder: Path, *, extra: dict[str, Tensor] | None, dtype: torch.dtype | None
) -> None:
    config: dict[str, Any] = {"format": FORMAT, "recipe": parts.recipe, "notes": parts.notes}
    config |= {"tokenizer": None, "transformer": None}
    if isinstance(parts.tokenizer, VQGAN | LDMTokenizer):
        kind = {"kind": "ldm"} if isinstance(parts.tokenizer, LDMTokenizer) else {}
        config["tokenizer"] = kind | to_dict(parts.tokenizer.config)
        save_file(_contiguous(parts.tokenizer, dtype), folder / TOKENIZER)
    elif parts.tokenizer is not None:  # the user's own: only named here, and passed to `read` again
        config["tokenizer"] = {
            "kind": "external",
            "class": type(parts.tokenizer).__name__,
            "fingerprint": parts.tokenizer.fingerprint(),
        }
    if parts.transformer is not None:
        config["transformer"] = transformer_dict(parts.transformer)
        save_file(_contiguous(parts.transformer, dtype), folder / TRANSFORMER)
    if extra:
        save_file({name: tensor.contiguous() for name, tensor in extra.items()}, folder / EXTRA)
    config[HASHES] = hashes(folder)
    (folder / CONFIG).write_text(json.dumps(checksums.sealed(config), indent=2) + "\n")


def read(path: str | Path, *, tokenizer: Tokenizer | None = None, revision: str | None = None) -> ModelParts:
    """Read a model, wherever `find_folder` finds it, to the CPU. Raises ValueError for anything else.

    tokenizer: your own, for a model that was trained on its tokens; without it such a model works on tokens only.
    revision: branch, tag or commit of a model on the Hub.
    """
    own_tokenizer = tokenizer
    folder = find_folder(path, revision)
    try:
        config = _whole_config(folder)
        _warn_of_changes(folder, config)
        transformer = None
        with torch.random.fork_rng(devices=[]):  # new networks draw random weights, which are replaced at once
            tokenizer = _tokenizer(config["tokenizer"], own_tokenizer, folder) or own_tokenizer
            sizes = config["transformer"]
            if sizes is not None:
                transformer = restored(lambda: build_transformer(sizes), sizes, folder / TRANSFORMER)
        recipe, notes = config["recipe"], config.get("notes", {})  # the latter are absent in folders of 0.1
        if not isinstance(recipe, dict) or not isinstance(notes, dict):
            raise TypeError("recipe and notes are mappings")
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not a model configuration ({type(error).__name__}: {error})") from None
    return ModelParts(tokenizer, transformer, recipe, notes)


def _is_ours(path: Path) -> bool:
    """Whether a config.json is of a model folder, perhaps a damaged one: other libraries have files of this name."""
    if not path.is_file():
        return False
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return True
    return isinstance(config, dict) and config.keys() >= {"format", "tokenizer", "transformer"}


def _whole_config(folder: Path) -> dict[str, Any]:
    """config.json, with whose weights it was written; a run may replace both while they are looked at."""
    for last in (False, False, True):
        text = (folder / CONFIG).read_text(encoding="utf-8")
        config: dict[str, Any] = json.loads(text)
        if config["format"] != FORMAT:
            raise ValueError(f"{folder} has format {config['format']}; this version of mage reads {FORMAT}")
        try:
            check_written(folder, config)
            break
        except ValueError:
            if last or (folder / CONFIG).read_text(encoding="utf-8") == text:
                raise
    return config


def _warn_of_changes(folder: Path, config: dict[str, Any]) -> None:
    """A warning only: people change settings by hand, and what does not fit the weights is refused anyway."""
    try:
        checksums.unsealed(config)
    except ValueError:
        logger.warning(
            "%s was changed after it was written, by hand or by damage; remove its entry %r if you did it",
            folder / CONFIG,
            checksums.CHECKSUM,
        )


def _tokenizer(
    values: dict[str, Any] | None, own_tokenizer: Tokenizer | None, folder: Path
) -> VQGAN | LDMTokenizer | None:
    """The folder's own tokenizer, if there is one; also checks the user's tokenizer."""
    if not isinstance(values, dict | None):
        raise TypeError("tokenizer is a mapping, or null")
    values = dict(values) if values is not None else {"kind": "none"}
    kind = values.pop("kind", "vqgan")
    if kind == "external" and own_tokenizer is not None and own_tokenizer.fingerprint() != values["fingerprint"]:
        raise ValueError(
            f"{folder} was trained on the tokens of a {values['class']} with fingerprint {values['fingerprint']}, "
            f"not on those of this {type(own_tokenizer).__name__}, {own_tokenizer.fingerprint()}"
        )
    if kind in ("external", "none"):
        return None
    if own_tokenizer is not None:
        raise ValueError(f"{folder} holds a tokenizer of its own; load it without tokenizer=")
    path = folder / TOKENIZER
    if kind == "ldm":
        return restored(lambda: LDMTokenizer(from_dict(LDMConfig, values, where="tokenizer")), values, path)
    return restored(lambda: VQGAN(from_dict(VQGANConfig, values, where="tokenizer")), values, path)


def find_folder(path: str | Path, revision: str | None = None) -> Path:
    """The model folder that `path` means, see `find.located`; a model on the Hub is downloaded into the cache.

    Raises ValueError if there is no model, ConnectionError if the Hub cannot be reached.
    """
    place = located(path, revision)
    if isinstance(place, HubName):
        known = ", ".join(packaged.names()) or "none"
        return hub.fetch(place, f"no folder has this name, packaged models are {known}, ")
    return place


def transformer_dict(transformer: Transformer) -> dict[str, Any]:
    """The network's configuration as JSON values, for `build_transformer`."""
    values: dict[str, Any] = {"sizes": to_dict(transformer.config)}
    if isinstance(transformer, Classifier):
        values |= {"num_classes": transformer.num_classes, "pool": transformer.pool, "head_kind": transformer.head_kind}
    if isinstance(transformer, PatchEncoder | PatchClassifier):
        return {"kind": "patches" if isinstance(transformer, PatchEncoder) else "patch_classifier", **values}
    values |= {"grid": list(transformer.grid), "vocabulary": to_dict(transformer.vocabulary)}
    return {"kind": "mage" if isinstance(transformer, MAGETransformer) else "classifier", **values}


def build_transformer(values: dict[str, Any]) -> Transformer:
    """The network that `transformer_dict` describes, with random weights."""
    kind, head = values["kind"], {name: values[name] for name in HEAD if name in values}
    if kind in ("patches", "patch_classifier"):
        patches = from_dict(PatchEncoderConfig, values["sizes"])
        return PatchEncoder(patches) if kind == "patches" else PatchClassifier(patches, **head)
    config, vocabulary = from_dict(MAGEConfig, values["sizes"]), from_dict(Vocabulary, values["vocabulary"])
    grid = check_grid(values["grid"])
    if kind == "mage":
        return MAGETransformer(config, vocabulary, grid)
    return MAGEClassifier(config, vocabulary, grid, **head)


def _contiguous(module: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return {
        name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
