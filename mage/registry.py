"""Names for what strangers may add."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T | None = None):  # type: ignore[no-untyped-def]
        if entry is not None:
            self._entries[name] = entry
            return entry

        def take(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return take

    def get(self, name: str) -> T:
        if name not in self._entries:
            raise ValueError(f"there is no {self.kind} {name!r}; there are {', '.join(self._entries)}")
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)
