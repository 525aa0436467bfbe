"""Everything that is measured of a representation, in one go: every registered protocol on one model.

Features of the training and test images are computed once and shared by all probes. Corruptions and attacks judge a
classifier: the model itself if it was fine-tuned, else a logistic regression on its frozen features.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mage.evaluation import adversarial, attentive_probe, fewshot, knn, linear_probe, robustness  # noqa: F401  # register
from mage.evaluation.metric import Measured, measure
from mage.evaluation.representation import REPRESENTATION_PROTOCOLS, Representation, RepresentationProtocol

BUILT_IN = ("linear", "knn", "fewshot", "attentive", "corruptions", "attacks")
"""The library's own, in the order in which they run; those of other packages follow."""


def build_protocols(
    names: Sequence[str] | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, RepresentationProtocol]:
    """Protocols by name; all of them without names.

    settings: NAME -> fields of the protocol's class that differ from their defaults.
    Raises ValueError for a name that there is not, and for no name at all.
    """
    everything = dict.fromkeys((*BUILT_IN, *REPRESENTATION_PROTOCOLS))
    chosen = tuple(everything if names is None else names)
    if not chosen:
        raise ValueError(f"name at least one protocol of {', '.join(everything)}")
    settings = settings or {}
    return {name: REPRESENTATION_PROTOCOLS.get(name)(**settings.get(name, {})) for name in chosen}


def measure_representation(
    subject: Representation,
    protocols: Mapping[str, RepresentationProtocol] | None = None,
    *,
    on_start: Callable[[str], None] | None = None,
) -> Measured:
    """Run the protocols, all with their defaults if none are given; timings say what "features" and each took.

    on_start: called with the name of each part before it begins.
    Raises ValueError for a model without features.
    """
    protocols = build_protocols() if protocols is None else protocols
    seconds = {}
    if any(protocol.uses_features for protocol in protocols.values()):
        if on_start is not None:
            on_start("features")
        start = time.perf_counter()
        _ = subject.train, subject.test  # computed when first asked for
        seconds["features"] = time.perf_counter() - start
    measured = measure(protocols, subject, on_start=on_start)
    measured.timings = seconds | measured.timings
    return measured
