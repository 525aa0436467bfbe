"""Models on the Hugging Face Hub: download into the cache, upload in one commit.

Only config.json and safetensors files are downloaded and uploaded, never pickles or code. The package huggingface-hub
does the transfer: it reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE and HF_TOKEN, and is imported when a hub model is
named, not before.
"""

import importlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mage import atomic, checksums
from mage.store.files import CONFIG, HASHES, WEIGHTS, check_hashes, hashes
from mage.store.hub_names import HubName
from mage.store.model_card import MARK, without_paths

CARD = "README.md"
DOWNLOADED = (CONFIG, *WEIGHTS)
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_cached(folder: Path) -> bool:
    """Whether a model folder belongs to the cache of downloaded models, which is not to be written to."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def fetch(name: HubName, looked_at: str = "") -> Path:
    """The folder of a hub model in the cache; missing files are downloaded, and all weights are checked.

    looked_at: what else the name could have meant, for errors. Raises ValueError if there is no such model or revision,
    if it is private, and if its weights are not those that were uploaded; ConnectionError without a connection, if
    the model is not in the cache either.
    """
    hub = _library()
    with _errors(name, looked_at):
        folder = Path(
            hub.snapshot_download(
                name.model, revision=name.revision, allow_patterns=list(DOWNLOADED), library_name="mage-vision"
            )
        )
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{name} on the Hub is not a model of this library: it has no {CONFIG}")
    check_hashes(folder, f"{name} on the Hub")
    return folder


def push(
    folder: Path,
    name: HubName,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a model folder that `prepare` has made ready, in one commit; returns the address of the commit.

    private: of a new model; None: as the account's settings say. A missing model or branch is made. Weights that the
    new model does not have are deleted. A card on the Hub without `model_card.MARK`, one that somebody wrote, stays.
    Raises ValueError without permission, ConnectionError without a connection.
    """
    hub = _library()
    api = hub.HfApi(library_name="mage-vision")
    with _errors(name, "", writing=True):
        api.create_repo(name.model, private=private, exist_ok=True)
        if name.revision is not None:
            api.create_branch(name.model, branch=name.revision, exist_ok=True)
        there = api.list_repo_files(name.model, revision=name.revision)
        files = [file for file in (*DOWNLOADED, CARD) if (folder / file).is_file()]
        if CARD in there and CARD in files:
            old = hub.hf_hub_download(name.model, CARD, revision=name.revision)
            if MARK not in Path(old).read_text(encoding="utf-8", errors="replace"):
                files.remove(CARD)
        operations: list[Any] = [hub.CommitOperationAdd(file, str(folder / file)) for file in files]
        stale = [file for file in WEIGHTS if file in there and file not in files]
        operations += [hub.CommitOperationDelete(file) for file in stale]
        commit = api.create_commit(
            name.model, operations, commit_message=commit_message or "Upload a model", revision=name.revision
        )
    return str(commit.commit_url)


def cache_folder() -> Path:
    """Where downloaded models are kept."""
    return Path(_library().constants.HF_HUB_CACHE)


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A temporary copy of a model folder's config.json and weights, to be prepared for upload."""
    with tempfile.TemporaryDirectory() as temporary:
        for file in DOWNLOADED:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, Path(temporary) / file)
        yield Path(temporary)


def prepare(folder: Path, card: str) -> None:
    """Make a model folder ready for upload: a card, and in config.json the hashes of the weights.

    A card without `model_card.MARK`, one that somebody wrote, stays. Absolute paths in recipe and notes, which
    tell of a machine and its user, are shortened to the last name; names of classes stay.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config |= {part: without_paths(config.get(part, {})) for part in ("recipe", "notes")}
    atomic.write_json(folder / CONFIG, checksums.sealed(config | {HASHES: hashes(folder)}))
    own = folder / CARD
    if not own.is_file() or MARK in own.read_text(encoding="utf-8", errors="replace"):
        atomic.write_text(own, card)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError('models on the Hub need huggingface-hub: pip install "mage-vision[hub]"') from None
    return huggingface_hub


@contextmanager
def _errors(name: HubName, looked_at: str, *, writing: bool = False) -> Iterator[None]:
    """Translate the errors of huggingface-hub, whose texts are long and speak of its own arguments."""
    constants, errors = _library().constants, importlib.import_module("huggingface_hub.errors")
    where = f"the Hub ({constants.ENDPOINT})"
    try:
        yield
    except errors.RevisionNotFoundError:
        raise ValueError(f"{name.model} on the Hub has no revision {name.revision!r}") from None
    except errors.GatedRepoError:
        raise ValueError(
            f"{name} on the Hub asks for its owner's permission first: see {where}; then {LOG_IN}"
        ) from None
    except errors.HfHubHTTPError as error:
        raise _of_status(error, name, where, looked_at, writing) from None
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _of_status(cause, name, where, looked_at, writing) from None
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{where} cannot be reached"
        raise ConnectionError(
            f"there is no model at {name}: {looked_at}it is not in the cache of downloaded models, and {reason}"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise ConnectionError(f"{name} cannot be uploaded: HF_HUB_OFFLINE is set") from None
    except (OSError, errors.HTTPError, RuntimeError) as error:  # a failed upload is a RuntimeError
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(f"the transfer of {name} broke off ({reason}): try again") from None


def _of_status(error: Any, name: HubName, where: str, looked_at: str, writing: bool) -> Exception:
    status = error.response.status_code
    if writing and status in (401, 403):
        return ValueError(f"{where} does not let you write to {name}: {LOG_IN}, with a token that may write")
    if status in (401, 404):
        return ValueError(f"there is no model at {name}: {looked_at}{where} has none, or it is private: then {LOG_IN}")
    if status == 403:
        return ValueError(f"{where} does not let you read {name}: {LOG_IN}, with a token that may read it")
    return ConnectionError(f"{where} answered with status {status} when asked for {name}: try again later")
