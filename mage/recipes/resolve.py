"""Builds a run's recipe from names, YAML files, single settings, or the recipe of a tokenizer or a cache.

Every recipe that a run follows is built here; front ends only pass on their options.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mage.data.storage import check_not_remote
from mage.recipes.finetune import FINETUNES, FinetuneRecipe
from mage.recipes.named import RECIPES
from mage.recipes.schema import Recipe
from mage.settings import from_dict, name_of, override, read_yaml
from mage.training.legacy import upgraded

Kind = TypeVar("Kind", Recipe, FinetuneRecipe)


FITTING = {
    **dict.fromkeys(("mnist5k", "mnist", "fashion-mnist", "digits"), "mnist5k"),
    **dict.fromkeys(("cifar10", "cifar100"), "cifar10"),
}
"""Recipes of named data sets, where the user names data and no recipe."""


@dataclass(frozen=True)
class Choice:
    """The user's choice of a recipe; each field may be left out."""

    recipe: str | None = None
    """Name of a built-in recipe."""
    config: str | Path | None = None
    """A recipe as a YAML file, instead of `recipe`."""
    changes: Sequence[str] = ()
    """Single settings, such as "pretraining.steps=100", applied before the two below."""
    data: str | None = None
    """Data set by name, or a folder of images."""
    seed: int | None = None


def resolve(choice: Choice, *, base: Mapping[str, Any] | None = None, default: str | None = None) -> Recipe:
    """The chosen recipe.

    base: the recipe of a tokenizer or a cache as plain values, used if neither name nor file is given.
    default: name of the recipe where none is given; None: the one that fits the data, by `recipe_for`.
    Raises ValueError for an unknown name, an unreadable file or a wrong setting, and for data in a store that only
    `base` names.
    """
    if choice.recipe is None and choice.config is None and base is not None and "pretraining" in base:
        recipe = _changed(from_dict(Recipe, upgraded(base)), choice)
        if choice.data is None and "data.name" not in map(name_of, choice.changes):
            check_not_remote(recipe.data.name)
        return recipe
    return _changed(_chosen(Recipe, RECIPES, choice, default or recipe_for(_data_of(choice))), choice)


def recipe_for(data: str | None) -> str:
    """Name of the recipe that fits a data set, a folder or shards: photos64 where nothing is known of the images.

    None: no data are given, and the recipe brings its own, the digits.
    """
    if data is None:
        return "mnist5k"
    return FITTING.get(data.lower().replace("_", "-"), "photos64")


def _data_of(choice: Choice) -> str | None:
    """The data that the choice names, as an option or as a change."""
    named_data = [change.partition("=")[2].strip() for change in choice.changes if name_of(change) == "data.name"]
    return choice.data or (named_data[-1] if named_data else None)


def resolve_finetune(choice: Choice, *, default: str = "small") -> FinetuneRecipe:
    """The chosen recipe of fine-tuning; errors as in `resolve`."""
    return _changed(_chosen(FinetuneRecipe, FINETUNES, choice, default), choice)


def named(name: str) -> Recipe:
    """The recipe called `name`. Raises ValueError, listing the names, if there is none."""
    return resolve(Choice(recipe=name))


def from_yaml(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file. Raises ValueError that names the mistake in the file."""
    return resolve(Choice(config=path))


def _chosen(kind: type[Kind], known: Mapping[str, Callable[[], Kind]], choice: Choice, default: str) -> Kind:
    if choice.config is not None:
        if choice.recipe is not None:
            raise ValueError("give --recipe or --config, not both")
        return _read(kind, Path(choice.config))
    name = choice.recipe or default
    if name not in known:
        raise ValueError(f"there is no recipe {name!r}; recipes are {', '.join(known)}; your own: --config FILE.yaml")
    return known[name]()


def _read(kind: type[Kind], path: Path) -> Kind:
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no recipe file {path}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not readable as YAML: {' '.join(str(error).split())[:120]}") from None
    try:
        return from_dict(kind, upgraded(values) if isinstance(values, dict) else values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def without_steps(changes: Sequence[str]) -> list[str]:
    """Changes that let the epochs count which the user sets: steps, which a recipe may have, go before them."""
    changed = set(map(name_of, changes))
    parts = [name.removesuffix(".epochs") for name in sorted(changed) if name.endswith(".epochs")]
    return [f"{part}.steps=0" for part in parts if f"{part}.steps" not in changed]


def _changed(recipe: Kind, choice: Choice) -> Kind:
    recipe = override(recipe, [*choice.changes, *without_steps(choice.changes)])
    if choice.data is not None:
        recipe = replace(recipe, data=replace(recipe.data, name=choice.data))
    return recipe if choice.seed is None else replace(recipe, seed=choice.seed)
