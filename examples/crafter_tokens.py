"""Crafter as tokens: what an explorer sees, has and does, in grids of integers. Needs `pip install crafter`.

A moment of the game is a grid of 8 x 7 tokens. The first row: the action that led to it, then what the player has;
seven rows: the cells around the place where the sequence began, by the name of the picture that the game draws there.
So every token is exact, and no tokenizer is trained. The camera stands still for the four moments of a sequence, 224
tokens, while the player walks about; Crafter's own camera follows the player and shows 9 x 7 cells.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import crafter
import numpy as np
from crafter import constants, engine

SIDE = 7
"""Cells along either side of a view."""
MOMENTS = 4
GRID = (MOMENTS, SIDE + 1, SIDE)
THINGS = ("food", "drink", "sapling", "wood", "stone", "wood_pickaxe")
ACTIONS = ("noop", "move_left", "move_right", "move_up", "move_down", "do", "place_plant", "place_table",
           "make_wood_pickaxe", "place_stone")  # fmt: skip
"""The actions that the explorer takes."""
MOVES = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}
PICTURES = ("unknown", *constants.materials, "player-left", "player-right", "player-up", "player-down", "player-sleep",
            "cow", "zombie", "skeleton", "arrow-left", "arrow-right", "arrow-up", "arrow-down",
            "plant", "plant-ripe")  # fmt: skip
WORDS = (*PICTURES, *(f"{amount} of it" for amount in range(10)), *ACTIONS)
NUMBER = {word: index for index, word in enumerate(WORDS)}
FIRST_AMOUNT, FIRST_ACTION = len(PICTURES), len(PICTURES) + 10
CARE_EVERY = 60
"""Steps between two meals; no sequence crosses one."""


class Game(crafter.Env):  # type: ignore[misc]  # crafter has no types
    """Crafter in a small world, without drawing every step."""

    def __init__(self, seed: int, side: int = 32) -> None:
        super().__init__(area=(side, side), seed=seed)
        self.reset()

    def _obs(self) -> None:
        return None

    @property
    def place(self) -> tuple[int, int]:
        """Where the player stands."""
        return tuple(map(int, self._player.pos))  # type: ignore[return-value]

    def ahead(self, direction: tuple[int, int]) -> str:
        """Name of the picture next to the player."""
        material, thing = self._world[self.place[0] + direction[0], self.place[1] + direction[1]]
        return str(thing.texture if thing else material or "unknown")

    def tokens(self, action: str, camera: tuple[int, int]) -> np.ndarray:
        """The present moment around a cell, and the action that led to it: (SIDE + 1, SIDE)."""
        cells = self._world._mat_map.astype(np.int64)  # Crafter numbers materials as PICTURES does
        for thing in self._world.objects:
            cells[tuple(thing.pos)] = NUMBER[thing.texture]
        x, y = camera
        view = np.pad(cells, SIDE // 2)[x : x + SIDE, y : y + SIDE].T
        things = [FIRST_AMOUNT + min(9, self._player.inventory[thing]) for thing in THINGS]
        return np.vstack([[NUMBER[action], *things], view])

    def act(self, action: str) -> bool:
        """One step of the game; whether it goes on."""
        self._player.inventory.update(health=9, energy=9)  # neither is a token: the explorer neither dies nor sleeps
        return not self.step(constants.actions.index(action))[2]

    def care(self) -> None:
        """Give food and drink, which are tokens."""
        self._player.inventory.update(food=9, drink=9)


class Explorer:
    """Walks on in one direction for a while, takes what it faces, and builds now and then: random steps hardly move."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.heading = "move_down"

    def action(self, game: Game) -> str:
        """The next action."""
        has, ahead = game._player.inventory, game.ahead(game._player.facing)
        draw = self.random.random()
        if draw < 0.05:
            return "noop"
        chance = {"grass": 0.08, "tree": 0.7, "water": 0.4, "cow": 0.7, "zombie": 0.8}
        chance |= {"stone": 0.8, "coal": 0.8} if has["wood_pickaxe"] else {}
        if draw < 0.05 + chance.get(ahead, 0):
            return "do"
        if draw > 0.93:
            makes = {"place_plant": has["sapling"] and ahead == "grass", "place_table": has["wood"] > 2}
            makes |= {"make_wood_pickaxe": has["wood"], "place_stone": has["stone"]}
            possible = [name for name, enough in makes.items() if enough]
            if possible:
                return str(self.random.choice(possible))
        if self.random.random() < 0.25 or not self._free(game, self.heading):
            free = [name for name in MOVES if self._free(game, name)]
            self.heading = str(self.random.choice(free or list(MOVES)))
        return self.heading

    @staticmethod
    def _free(game: Game, move: str) -> bool:
        return game.ahead(MOVES[move]) in constants.walkable


@dataclass(frozen=True)
class Sequence:
    """Consecutive moments, and the game as it was at the first."""

    tokens: np.ndarray
    """(MOMENTS, SIDE + 1, SIDE)"""
    start: Game | None
    end: tuple[int, int]
    """Where the player stands at the last moment."""


def explored(seed: int, steps: int, *, every: int = 1, keep_games: bool = False) -> Iterator[Sequence]:
    """Sequences of an explorer's `steps` in the world of this seed, one in `every`; fewer if the player dies."""
    game, explorer = Game(seed), Explorer(seed)
    begun: list[tuple[tuple[int, int], Game | None, list[np.ndarray]]] = []
    action = "noop"
    for step in range(steps):
        if step % CARE_EVERY == 0:
            game.care()
            begun, action = [], "noop"
        if step % every == 0:
            begun.append((game.place, deepcopy(game) if keep_games else None, []))
        for camera, start, moments in begun:
            moments.append(game.tokens(action, camera))
            if len(moments) == MOMENTS:
                yield Sequence(np.stack(moments), start, game.place)
        begun = [sequence for sequence in begun if len(sequence[2]) < MOMENTS]
        action = explorer.action(game)
        if not game.act(action):
            return


@cache
def pictures() -> engine.Textures:
    """The game's pictures, read once."""
    return engine.Textures(constants.root / "assets")


def drawn(tokens: np.ndarray, unit: int = 16) -> np.ndarray:
    """The view of a moment in the game's own pictures: (SIDE x unit, SIDE x unit, 3) uint8; grass below things."""
    textures = pictures()
    canvas = np.zeros((SIDE * unit, SIDE * unit, 3), np.uint8)
    for row, column in np.ndindex(SIDE, SIDE):
        place = np.array([column, row]) * unit
        word = WORDS[tokens[row + 1, column]]
        if word in ("unknown", *constants.materials):
            engine._draw(canvas, place, textures.get(word, (unit, unit)))
        elif word in PICTURES:
            engine._draw(canvas, place, textures.get("grass", (unit, unit)))
            engine._draw_alpha(canvas, place, textures.get(word, (unit, unit)))
    return canvas.transpose(1, 0, 2)
