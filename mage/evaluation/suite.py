"""All registered protocols for representations, run on one model.

Features of the training and test images are computed once and shared by all probes. Corruptions and attacks evaluate a
classifier: the model itself if it is fine-tuned, else logistic regression on its frozen features.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mage.evaluation import adversarial, attentive_probe, fewshot, knn, linear_probe, robustness  # noqa: F401  # register
from mage.evaluation.metric import Measured, measure
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol

BUILT_IN = ("linear", "knn", "fewshot", "attentive", "corruptions", "attacks")
"""The library's own protocols, in the order in which they run; those of other packages follow."""


def build_protocols(
    names: Sequence[str] | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, RepresentationProtocol]:
    """Protocols by name; without names, all of them.

    settings: NAME -> fields of the protocol's class that differ from their defaults.
    Raises ValueError for an unknown name, and for an empty sequence.
    """
    available = dict.fromkeys((*BUILT_IN, *REPRESENTATION_PROTOCOLS))
    chosen = tuple(available if names is None else names)
    if not chosen:
        raise ValueError(f"name at least one protocol of {', '.join(available)}")
    settings = settings or {}
    return {name: REPRESENTATION_PROTOCOLS.get(name)(**settings.get(name, {})) for name in chosen}


def measure_representation(
    subject: Representation,
    protocols: Mapping[str, RepresentationProtocol] | None = None,
    *,
    on_start: Callable[[str], None] | None = None,
) -> Measured:
    """Run protocols; default: all with their defaults. Timings are of "features" and of each protocol.

    on_start: called with "features" and the name of each protocol before it starts.
    Raises ValueError for a model without features.
    """
    protocols = build_protocols() if protocols is None else protocols
    seconds = {}
    if any(protocol.uses_features for protocol in protocols.values()):
        if on_start is not None:
            on_start("features")
        start = time.perf_counter()
        _ = subject.train, subject.test  # computed on first access
        seconds["features"] = time.perf_counter() - start
    measured = measure(protocols, subject, on_start=on_start)
    measured.timings = seconds | measured.timings
    return measured
