"""A file that remembers the finished steps of a call, so that the same call goes on where it stopped."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mage import atomic, checksums, distributed
from mage.settings import differences


class Journal:
    """Results of steps by name, as JSON; the file is written when the first step is finished."""

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        """asked: what the call is to do; a repeated call must ask for the same.

        Raises ValueError, naming the difference, if the file is of a call that asked for something else.
        """
        self.path = path
        self.values: dict[str, Any] = distributed.by_first_process(self._read)
        changed = differences(self.values.get("asked", dict(asked)), dict(asked))
        if changed:
            raise ValueError(
                f"{path.parent} was started with other settings: {changed[0]}; give the same ones to continue it, or "
                "choose another folder"
            )
        self.values["asked"] = dict(asked)

    def once(self, name: str, step: Callable[[], Any]) -> Any:
        """The result of a step, as JSON gives it back: computed by the first process, or read if it is finished."""
        if name not in self.values:
            self.values[name] = distributed.by_first_process(lambda: self._finish(name, step()))
        return self.values[name]

    def _finish(self, name: str, result: Any) -> Any:
        plain = json.loads(json.dumps(result))
        atomic.write_json(self.path, checksums.sealed(self.values | {name: plain}))
        return plain

    def _read(self) -> dict[str, Any]:
        try:
            values = checksums.unsealed(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ValueError(
                f"{self.path} cannot be read: {reason}; delete its folder to begin again, or choose another one"
            ) from None
        if not isinstance(values, dict):
            raise ValueError(f"{self.path} does not hold a mapping of names to values")
        return values
