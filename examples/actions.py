"""Inverse dynamics: which actions led from each moment to the next? `pip install crafter; python examples/actions.py`

MAGE sees four moments of Crafter and fills in the three actions between them: so actions can be read off recordings
that do not hold them. Compared with the most frequent action and with a logistic regression on differences of pixels.
Not everything can be known: a step against a tree, waiting, and reaching for nothing may look the same.
"""

import numpy as np
import torch
from crafter_model import Options, actions_of, filled, held_out, options, tensor, trained, training_tokens
from crafter_tokens import FIRST_ACTION, drawn
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def unknown_actions(tokens: torch.Tensor) -> torch.Tensor:
    """Sequences without the actions between their moments."""
    start = tokens.clone()
    start[:, 1:, 0, 0] = -1
    return start


def pixel_differences(tokens: torch.Tensor) -> np.ndarray:
    """Differences of consecutive grey pictures: (n (MOMENTS - 1), pixels)."""
    grey = np.stack([[drawn(moment, 8).mean(axis=2) for moment in sequence] for sequence in tokens.numpy()])
    return np.diff(grey, axis=1).reshape(tokens.shape[0] * (tokens.shape[1] - 1), -1) / 255


def measure(settings: Options, regression_sequences: int = 1500) -> dict[str, float]:
    """Train if there is no model yet, then compare on worlds that it has not seen."""
    model, tokens = trained(settings), tensor(held_out(settings, every=5))
    cache = training_tokens(settings)
    chosen = np.random.default_rng(0).permutation(len(cache))[:regression_sequences]
    known = cache.tokens(chosen, np.zeros_like(chosen)).long()
    truth, seen = actions_of(tokens).flatten(), actions_of(known).flatten()
    inferred = actions_of(filled(model, unknown_actions(tokens))).flatten()
    scaler = StandardScaler().fit(pixel_differences(known))
    regression = LogisticRegression(C=0.01, max_iter=200)
    regression.fit(scaler.transform(pixel_differences(known)), seen.numpy())
    guessed = torch.from_numpy(regression.predict(scaler.transform(pixel_differences(tokens))))
    frequent = seen.bincount().argmax()
    results = {
        "actions.accuracy": float((inferred == truth).float().mean()),
        "actions.most_frequent": float((truth == frequent).float().mean()),
        "actions.logistic_regression": float((guessed == truth).float().mean()),
        "actions.are_actions": float((inferred >= FIRST_ACTION).float().mean()),
    }
    for name, other in {"chance": "most_frequent", "logistic_regression": "logistic_regression"}.items():
        results[f"actions.accuracy_over_{name}"] = results["actions.accuracy"] - results[f"actions.{other}"]
    return results


if __name__ == "__main__":
    for metric, value in measure(options(__doc__)).items():
        print(f"{metric:<44}{value:.3f}")
