"""Names of data sets. Imports no PyTorch: the command line says at once that there is no such data set or folder."""

from collections.abc import Callable
from pathlib import Path

from mage.registry import Registry

DatasetLoader = Callable[[str, str | Path | None, int | None], object]
"""(split train or test, data_root, channels or None) -> an ImageDataset; registered by name in DATASETS."""
DATASETS: Registry[DatasetLoader] = Registry(kind="data set", group="mage.datasets")


def registered(name: str | Path, known: tuple[str, ...]) -> str:
    """The name as in `known`: as it is written, else in lower case with hyphens; "" if it is none of them."""
    if not isinstance(name, str):
        return ""
    return next((key for key in (name, name.lower().replace("_", "-")) if key in known), "")


def is_folder(name: str | Path, known: tuple[str, ...]) -> bool:
    """Whether a name means a folder: there is one, and no data set of this name."""
    return not registered(name, known) and Path(name).expanduser().is_dir()


def check_folder(name: str | Path, known: tuple[str, ...]) -> Path:
    """The folder that `name` means, which is no data set's name. Raises ValueError if there is none."""
    folder = Path(name).expanduser()
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder of images (an archive has to be unpacked first)")
    if not folder.is_dir():
        raise ValueError(
            f"there is no data set and no folder called {str(name)!r}; named data sets are {', '.join(known)}"
        )
    return folder
