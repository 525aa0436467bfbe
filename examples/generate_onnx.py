"""Images from exported files with numpy and onnxruntime alone: `python examples/generate_onnx.py FOLDER [CLASS]`

`mage export --model digits --onnx FOLDER` writes the files. The sampler is the paper's (section 3.2): in each step all
unknown tokens are drawn, and the most confident are kept, whatever order the model's own sampler has. Left out are
top-k, top-p and revisions.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

CHOICE_TEMPERATURE = 6.0
"""The published one, for models whose own temperature belongs to another order."""


def sampler(own: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The settings of the manifest with changes. Raises ValueError for another number of steps."""
    if changes.get("steps", own["steps"]) != own["steps"]:
        raise ValueError("in place of steps give still_unknown: the number of unknown tokens after each step, last 0")
    choice = own["choice_temperature"] if own["order"] == "confidence" else CHOICE_TEMPERATURE
    return own | {"choice_temperature": choice} | changes


def guidance_at(sampling: dict[str, Any], progress: float) -> float:
    """Weight of the guidance in the step that ends at `progress`, from above 0 to 1."""
    low, high = sampling["guidance_interval"]
    weights = {"linear": progress, "constant": 1.0, "interval": float(low <= progress <= high)}
    return float(sampling["guidance"] * weights[sampling["guidance_schedule"]])


def generate(folder: Path, count: int, label: int | None = None, seed: int = 0, **settings: Any) -> Any:
    """`count` images (n, c, h, w) in [0, 1]; settings replace those of the manifest.

    label: -1 = no class; None: drawn with the frequencies of the manifest, if there are any.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    logits, decode = (onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("logits", "decode"))
    grid, sampling = manifest["tokens"]["grid"], sampler(manifest["sampling"], settings)
    random = np.random.default_rng(seed)
    tokens = np.full((count, int(np.prod(grid))), manifest["tokens"]["unknown"])
    conditional = manifest["classes"] is not None
    labels = np.full(count, -1 if label is None else label)
    if conditional and label is None and manifest["classes"]["shares"]:
        labels = random.choice(manifest["classes"]["count"], count, p=manifest["classes"]["shares"])
    for step, still_unknown in enumerate(sampling["still_unknown"]):
        done, progress = step / max(1, len(sampling["still_unknown"]) - 1), (step + 1) / len(sampling["still_unknown"])
        given = {"tokens": tokens.reshape(count, *grid)}
        (scores,) = logits.run(None, given | ({"classes": labels} if conditional else {}))
        if conditional and labels[0] >= 0:  # guidance: away from the scores without class
            (without,) = logits.run(None, given | {"classes": np.full(count, -1)})
            scores = scores + guidance_at(sampling, progress) * (scores - without)
        log_probability = scores - np.logaddexp.reduce(scores, axis=2, keepdims=True)
        first, last = sampling["token_temperature"], sampling["token_temperature_end"]
        temperature = first if last is None else first + done * (last - first)
        drawn = (log_probability + temperature * random.gumbel(size=scores.shape)).argmax(axis=2)
        confidence = np.take_along_axis(log_probability, drawn[..., None], axis=2)[..., 0]
        fading = sampling["choice_temperature"] * (1 - progress)
        confidence = np.where(tokens < 0, confidence + fading * random.gumbel(size=confidence.shape), np.inf)
        tokens = np.where(tokens < 0, drawn, tokens)
        np.put_along_axis(tokens, confidence.argsort(axis=1, kind="stable")[:, :still_unknown], -1, axis=1)
    return decode.run(None, {"tokens": tokens.reshape(count, *grid)})[0]


def main(folder: Path, label: int | None = None) -> None:
    """Eight images side by side, as a PPM file, which needs no image library."""
    images = np.concatenate(list(generate(folder, 8, label)), axis=2).transpose(1, 2, 0)
    pixels = np.broadcast_to((images * 255).round().astype(np.uint8), (*images.shape[:2], 3))
    header = f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode()
    (folder / "samples.ppm").write_bytes(header + pixels.tobytes())
    print(folder / "samples.ppm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
