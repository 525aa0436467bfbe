"""Plans: which three actions lead from this view to that one? `pip install crafter; python examples/plans.py`

MAGE gets the first moment and the view of the last, at least two cells away, and fills in what lies between: actions,
and what would be seen on the way. The actions are then carried out in the game, from the same state; a plan has reached
its goal if the player ends where it was seen. Compared with random moves, and with a rule that walks there straight,
first sideways, without a look at what is in the way.
"""

from copy import deepcopy

import numpy as np
import torch
from crafter_model import Options, actions_of, filled, held_out, names, options, tensor, trained
from crafter_tokens import MOMENTS, MOVES, Sequence
from frames import PLAYER

FAR = 2
"""Least distance of a goal, in steps."""


def distance(sequence: Sequence) -> int:
    """Steps between the first and the last place, without obstacles."""
    assert sequence.start is not None
    (x, y), (goal_x, goal_y) = sequence.start.place, sequence.end
    return abs(x - goal_x) + abs(y - goal_y)


def questions(tokens: torch.Tensor) -> torch.Tensor:
    """Sequences of which only the first moment and the last view are known."""
    start = torch.full_like(tokens, -1)
    start[:, 0], start[:, -1, 1:] = tokens[:, 0], tokens[:, -1, 1:]
    return start


def reaches(sequence: Sequence, actions: list[str]) -> bool:
    """Whether the actions lead from the sequence's first place to its last."""
    game = deepcopy(sequence.start)
    assert game is not None
    for action in actions:
        if not game.act(action):
            return False
    return game.place == sequence.end


def straight(tokens: torch.Tensor) -> list[str]:
    """The rule's plan for one sequence: from where the player is to where it is seen, first sideways."""
    (row, column), (goal_row, goal_column) = (
        torch.isin(moment[1:], PLAYER).nonzero()[0].tolist() for moment in (tokens[0], tokens[-1])
    )
    sideways = "move_right" if goal_column > column else "move_left"
    upright = "move_down" if goal_row > row else "move_up"
    return [sideways] * abs(goal_column - column) + [upright] * abs(goal_row - row)


def measure(settings: Options, every: int = 5) -> dict[str, float]:
    """Train if there is no model yet, then plan in worlds that it has not seen."""
    model = trained(settings)
    goals = [found for found in held_out(settings, every=every, keep_games=True) if distance(found) >= FAR]
    if not goals:
        raise ValueError("the explorer went nowhere: explore more worlds or longer")
    tokens, random = tensor(goals), np.random.default_rng(0)
    plans = actions_of(filled(model, questions(tokens), steps=12))
    makers = {
        "reached": [names(plan) for plan in plans],
        "random_moves": [list(random.choice(list(MOVES), MOMENTS - 1)) for _ in goals],
        "straight": [straight(sequence) for sequence in tokens],
        "recorded_actions": [names(actions) for actions in actions_of(tokens)],
    }
    results = {"plans.goals": float(len(goals))}
    for name, made in makers.items():
        results[f"plans.{name}"] = float(np.mean([reaches(*pair) for pair in zip(goals, made, strict=True)]))
    return results


if __name__ == "__main__":
    for metric, value in measure(options(__doc__)).items():
        print(f"{metric:<32}{value:.3f}")
