"""Images from exported files with numpy and onnxruntime alone: `python examples/generate_onnx.py FOLDER [CLASS]`

`mage export --model digits --onnx FOLDER` writes the files. The sampler is the paper's (section 3.2): in each step all
unknown tokens are drawn, and the most confident are kept.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def generate(folder: Path, count: int, label: int = -1, seed: int = 0, **settings: float) -> Any:
    """`count` images (n, c, h, w) in [0, 1]; settings replace those of the manifest; label: -1 = no class."""
    manifest = json.loads((folder / "manifest.json").read_text())
    logits, decode = (onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("logits", "decode"))
    grid, sampling, random = manifest["tokens"]["grid"], manifest["sampling"] | settings, np.random.default_rng(seed)
    tokens = np.full((count, int(np.prod(grid))), manifest["tokens"]["unknown"])
    conditional = manifest["classes"] is not None
    for step, still_unknown in enumerate(manifest["sampling"]["still_unknown"]):
        given = {"tokens": tokens.reshape(count, *grid)}
        (scores,) = logits.run(None, given | ({"classes": np.full(count, label)} if conditional else {}))
        if conditional and label >= 0:  # guidance, growing with the steps: away from the scores without class
            (without,) = logits.run(None, given | {"classes": np.full(count, -1)})
            scores = scores + sampling["guidance"] * (step + 1) / sampling["steps"] * (scores - without)
        log_probability = scores - np.logaddexp.reduce(scores, axis=2, keepdims=True)
        noise = sampling["token_temperature"] * random.gumbel(size=scores.shape)
        drawn = (log_probability + noise).argmax(axis=2)
        confidence = np.take_along_axis(log_probability, drawn[..., None], axis=2)[..., 0]
        fading = sampling["choice_temperature"] * (1 - (step + 1) / sampling["steps"])
        confidence = np.where(tokens < 0, confidence + fading * random.gumbel(size=confidence.shape), np.inf)
        tokens = np.where(tokens < 0, drawn, tokens)
        np.put_along_axis(tokens, confidence.argsort(axis=1, kind="stable")[:, :still_unknown], -1, axis=1)
    return decode.run(None, {"tokens": tokens.reshape(count, *grid)})[0]


def main(folder: Path, label: int = -1) -> None:
    """Eight images side by side, as a PPM file, which needs no image library."""
    images = np.concatenate(list(generate(folder, 8, label)), axis=2).transpose(1, 2, 0)
    pixels = np.broadcast_to((images * 255).round().astype(np.uint8), (*images.shape[:2], 3))
    header = f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode()
    (folder / "samples.ppm").write_bytes(header + pixels.tobytes())
    print(folder / "samples.ppm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((*sys.argv, -1)[2]))
