"""Where the model is that a name means. Imports no PyTorch: the command line says at once that there is none."""

from pathlib import Path

from mage import atomic
from mage.store import packaged
from mage.store.files import CONFIG
from mage.store.hub_names import HubName, hub_name


def located(path: str | Path, revision: str | None = None) -> Path | HubName:
    """The model folder that `path` means: itself, `model` inside a run folder, a packaged model; or a name on the Hub.

    They are looked for in this order; the Hub is never asked for what is a folder, a file or a packaged model.
    revision: branch, tag or commit of a model on the Hub. Raises ValueError if there is no model.
    """
    name, path = path, Path(path)
    local = _local_folder(path)
    if local is not None:
        if revision is not None:
            raise ValueError(
                f"{path} is the folder {local}: revision={revision!r} is for models on the Hub (hf://user/name)"
            )
        return local
    if path.is_file():
        raise ValueError(f"{path} is a file, a model is a folder; `mage convert {path} --out DIR` reads released files")
    if path.exists():
        raise ValueError(f"{path} holds no model: neither {CONFIG} nor model/{CONFIG} is there")
    if (shared := hub_name(name, revision)) is not None:
        return shared
    known = ", ".join(packaged.names())
    about = f"; packaged models are {known}" if known else ""
    about += f"; if you mean a model on the Hub, write hf://{path.as_posix()}" if len(path.parts) == 2 else ""
    raise ValueError(f"there is no model at {path}{about}")


def _local_folder(path: Path) -> Path | None:
    for folder in (path, path / "model"):
        atomic.recover(folder)
        if (folder / CONFIG).is_file():
            return folder
    return packaged.folder_of(str(path)) if not path.is_file() else None
