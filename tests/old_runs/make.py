"""Make the files of one version for test_old_runs.py: `python tests/old_runs/make.py VERSION [SOURCE]`.

SOURCE: a checkout of that version; default: this one. All is made by its own commands at smoke size, on the CPU: a
tokenizer, a token cache, and a pre-training that was stopped half-way. `computed.json` holds what that version computed
with them, which later versions must repeat.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORDS = ["--device", "cpu", "--precision", "float32"]
COMPUTE = """
import json, sys, torch, mage
model = mage.load(sys.argv[1], device="cpu", precision="float32")
image = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
print(json.dumps({
    "features": model.features(image)[0].tolist(),
    "reconstruction": model.tokenizer.decode(model.tokenizer.encode(image))[0, 0].tolist(),
    "generated": model.generate(2, seed=0, steps=2).sum(dim=(1, 2, 3)).tolist(),
}))
"""
"""Program that prints what the model in the folder given as its argument computes."""


def main(version: str, source: Path) -> None:
    """Replace the files of `version`."""
    path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])  # 0.1 needs accelerate, from elsewhere
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def python(*words: str) -> str:
        result = subprocess.run(
            [sys.executable, *words], cwd=source, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return result.stdout

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tokenizer, tokens, run = (str(work / name) for name in ("tokenizer", "tokens", "run"))
        recipe = ["--recipe", "smoke"]
        python("-m", "mage", "train-tokenizer", *recipe, "--out", tokenizer, *WORDS)
        python("-m", "mage", "tokenize", *recipe, "--tokenizer", tokenizer, "--out", tokens, *WORDS)
        words = ["--data", tokens, "--tokenizer", tokenizer, "--out", run, "--set", "pretraining.steps=6", *WORDS]
        python("-m", "mage", "pretrain", *recipe, *words)
        computed = json.loads(python("-c", COMPUTE, run).splitlines()[-1])
        target = HERE / version
        shutil.rmtree(target, ignore_errors=True)
        for part in (
            "tokenizer/model",
            "tokens",
            "run/recipe.yaml",
            "run/metrics.jsonl",
            "run/checkpoints",
            "run/model",
        ):
            copy = shutil.copytree if (work / part).is_dir() else shutil.copyfile
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            copy(work / part, target / part)
        (target / "computed.json").write_text(json.dumps(computed, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else HERE.parents[1])
