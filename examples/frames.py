"""A world model: what will the explorer see next, after this action? `pip install crafter; python examples/frames.py`

MAGE gets three moments of Crafter and the action after the third, and fills in the fourth. Nearly all cells of a view
are what they were a step before, so it is compared with a copy of the third moment, also on the cells that changed, and
with a rule that knows the game: a step leads to the next cell if it is free, and all else stays.
"""

import numpy as np
import torch
from crafter_model import Options, filled, held_out, options, tensor, trained
from crafter_tokens import FIRST_ACTION, MOMENTS, MOVES, NUMBER, PICTURES, SIDE, WORDS, drawn
from PIL import Image

PLAYER = torch.tensor([NUMBER[name] for name in PICTURES if name.startswith("player")])
FREE = [NUMBER[name] for name in ("grass", "sand", "path")]


def unknown_after(tokens: torch.Tensor, known: int) -> torch.Tensor:
    """Sequences whose moments from number `known` on are unknown; all actions stay."""
    start = tokens.clone()
    start[:, known:] = -1
    start[:, :, 0, 0] = tokens[:, :, 0, 0]
    return start


def stepped(before: torch.Tensor, action: int) -> torch.Tensor:
    """The rule's view after a view (rows, columns) and an action."""
    step = MOVES.get(WORDS[action]) if action >= FIRST_ACTION else None
    places = torch.isin(before, PLAYER).nonzero()
    if step is None or len(places) != 1:
        return before
    row, column = places[0].tolist()
    after = before.clone()
    goal = (row + step[1], column + step[0])
    if all(0 <= place < SIDE for place in goal) and int(before[goal]) in FREE:
        after[row, column] = FREE[0]  # what the player stood on is hidden: grass is the best guess
        row, column = goal
    after[row, column] = NUMBER["player-" + WORDS[action].removeprefix("move_")]
    return after


def accuracies(drawn_views: torch.Tensor, before: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Share of correct cells, and the same among the cells that changed; views (n, rows, columns)."""
    right = drawn_views == truth
    return float(right.float().mean()), float(right[before != truth].float().mean())


def measure(settings: Options) -> dict[str, float]:
    """Train if there is no model yet, then compare on worlds that it has not seen."""
    model, tokens = trained(settings), tensor(held_out(settings, every=5))
    views = tokens[:, :, 1:]
    before, truth = views[:, -2], views[:, -1]
    next_views = filled(model, unknown_after(tokens, known=MOMENTS - 1))[:, -1, 1:]
    actions = tokens[:, -1, 0, 0].tolist()
    rule = torch.stack([stepped(view, action) for view, action in zip(before, actions, strict=True)])
    far = filled(model, unknown_after(tokens, known=1), steps=8)[:, -1, 1:]
    results = {}
    for name, result in {"accuracy": next_views, "copy": before, "rule": rule}.items():
        results[f"frames.{name}"], results[f"frames.{name}_where_changed"] = accuracies(result, before, truth)
    results["frames.accuracy_over_copy"] = results["frames.accuracy"] - results["frames.copy"]
    results["frames.three_steps_accuracy"], _ = accuracies(far, views[:, 0], truth)
    results["frames.three_steps_copy"], _ = accuracies(views[:, 0], views[:, 0], truth)
    changed = (before != truth).flatten(1).sum(dim=1)
    moved = [index for index, action in enumerate(actions) if WORDS[action] in MOVES and changed[index] > 2]
    save_picture([tokens[moved, -2], predicted_moments(tokens, next_views)[moved], tokens[moved, -1]], settings)
    return results


def predicted_moments(tokens: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """The last moments with predicted views."""
    moments = tokens[:, -1].clone()
    moments[:, 1:] = views
    return moments


def save_picture(columns: list[torch.Tensor], settings: Options, count: int = 5) -> None:
    """Rows of pictures: before, predicted, true; evenly from all sequences."""
    if not len(columns[0]):
        return
    chosen = np.linspace(0, len(columns[0]) - 1, count).astype(int)
    rows = [
        [np.pad(drawn(column[index].numpy()), ((3, 3), (3, 3), (0, 0)), constant_values=255) for index in chosen]
        for column in columns
    ]
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(settings.out / "frames.png")


if __name__ == "__main__":
    for metric, value in measure(options(__doc__)).items():
        print(f"{metric:<36}{value:.3f}")
