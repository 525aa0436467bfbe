"""Registries of what other packages may add: sampler orders, quantizers, methods, metrics, data sets, trackers.

An entry is added by `register`, or by an entry point of the registry's group in another package, which is loaded when
its name is first used. The library's own names cannot be replaced. This file imports nothing else of the library.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
Registered = TypeVar("Registered")


class Registry(Generic[Entry]):
    """Entries by name."""

    def __init__(self, kind: str, group: str) -> None:
        """kind: noun for an entry, for messages; group: group of entry points, such as "mage.orders"."""
        self.kind, self.group = kind, group
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator that adds the decorated object. Raises ValueError if another entry has the name."""

        def add(entry: Registered) -> Registered:
            self.add(name, entry)  # type: ignore[arg-type]  # a class is an entry of type[Base]
            return entry

        return add

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry. Raises ValueError if another entry has the name."""
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"the {self.kind} {name!r} exists already: choose another name")
        self._entries[name] = entry

    def remove(self, name: str) -> None:
        """Remove an entry; for tests."""
        self._entries.pop(name, None)

    def get(self, name: str) -> Entry:
        """The entry called `name`. Raises ValueError for an unknown name, or an entry point that cannot be loaded."""
        if name not in self._entries:
            points = self._points().get(name, [])
            if not points:
                raise ValueError(
                    f"there is no {self.kind} {name!r}; there are {', '.join(self.names())} "
                    f"(others: register them, or give an entry point of the group {self.group})"
                )
            self.add(name, self._load(points))
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names; those of entry points that are not loaded yet come last."""
        return (*self._entries, *(name for name in self._points() if name not in self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _points(self) -> dict[str, list[EntryPoint]]:
        return _points_of(self.group, tuple(sys.path))

    def _load(self, points: list[EntryPoint]) -> Entry:
        """The object of the entry points of one name. Raises ValueError if packages disagree, or loading fails."""
        point = points[0]
        if len({other.value for other in points}) > 1:
            packages = " and ".join(sorted(_package(other) for other in points))
            raise ValueError(f"the {self.kind} {point.name!r} is provided by {packages}: uninstall all but one")
        try:
            entry: Entry = point.load()
        except Exception as error:  # importing another package can raise any exception
            raise ValueError(
                f"the {self.kind} {point.name!r} of the package {_package(point)} cannot be loaded "
                f"({type(error).__name__}: {error})"
            ) from None
        return entry


@cache
def _points_of(group: str, path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """Entry points of a group by name, searched for once: what is installed later on this path needs a new process.

    path: where packages are searched for, which is sys.path now.
    """
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        points.setdefault(point.name, []).append(point)
    return points


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
