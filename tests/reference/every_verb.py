"""Every verb of the library at smoke size, in as many processes as the launcher started: `every_verb.py OUT [SETTING]`.

Dropout is 0, so that what comes out follows from seeds alone. Numbers of each run stay in OUT/NAME/metrics.jsonl.
"""

import sys
from pathlib import Path

import torch

import mage
from mage import runs
from mage.recipes import FINETUNES, Recipe, named
from mage.runs import Launch
from mage.settings import override

PLAIN = ["model.dropout=0", "run.log_every=1", "data.views=2", "data.online_images=200"]
TOKENIZERS = {
    "tokenizer-normalized": [],
    "tokenizer-ema": ["tokenizer.quantizer.kind=ema", "tokenizer.quantizer.entropy=0.1"],
    "tokenizer-adversarial": [
        "tokenizer.quantizer.kind=vq",
        "tokenizer.quantizer.keep_alive=true",
        "tokenizer_loss.adversarial.weight=0.5",
        "tokenizer_loss.adversarial.start=0",
        "tokenizer_loss.adversarial.r1=1",
        "tokenizer_loss.adversarial.discriminator.levels=1",
        "tokenizer_loss.adversarial.discriminator.width=8",
        "tokenizer_training.base_learning_rate=1e-3",
        "data.tokenizer_transform.augmentation=shift",
    ],
}
PIXELS = ["tokenizer=null", "data.channels=1", "data.transform.augmentation=crop_flip"]
METHODS = {
    "mage": ["method.masking.per_image=true", "method.conditions.source=labels"],
    "mage-shared-ratio": [],
    "mage-c": ["method={name: mage-c, masking: {per_image: true}}"],
    "maskgit": ["model.decoder_depth=0", "method={name: maskgit}"],
    "mae": ["method={name: mae, patch_size: 2, mae: {decoder_width: 16, decoder_depth: 1, decoder_heads: 2}}", *PIXELS],
    "simclr": ["method={name: simclr, patch_size: 2}", *PIXELS],
    "ijepa": ["method={name: ijepa, patch_size: 2}", *PIXELS],
}


def main(out: Path, settings: list[str]) -> None:
    """Run them all, with these settings of `run`."""
    torch.set_num_threads(1)

    def smoke(changes: list[str]) -> Recipe:
        return override(named("smoke"), [*PLAIN, *settings, *changes])

    def launch(name: str) -> Launch:
        return Launch(out / name, device="cpu", precision="float32", progress=False)

    for name, changes in TOKENIZERS.items():
        runs.train_tokenizer(smoke(changes), launch(name))
    tokenizer = runs.load_tokenizer(out / "tokenizer-normalized", precision="float32", device="cpu")
    cache = runs.tokenize(smoke([]), launch("tokens"), tokenizer)
    for name, changes in METHODS.items():
        if "tokenizer=null" in changes:
            runs.pretrain(smoke(changes), launch(name))
        else:
            runs.pretrain(smoke(changes), launch(name), tokenizer, cache=cache)
    runs.pretrain(smoke(["method={name: mage-c}"]), launch("online"), tokenizer)
    runs.pretrain(smoke(["pretraining.accumulation=2"]), launch("accumulated"), tokenizer, cache=cache)
    model = mage.load(out / "mage-shared-ratio", precision="float32", device="cpu")
    decoder = ["tokenizer_loss.freeze_encoder=true", "tokenizer_loss.redrawn=0.5"]
    runs.train_tokenizer(smoke(decoder), launch("decoder"), redrawn_by=model)
    changes = ["data.name=digits", "optim.steps=8", "optim.batch_size=16", "drop_path=0", "run.log_every=1"]
    changes += ["data.validation.images=40", "embedding_dropout=0"]
    runs.finetune(override(FINETUNES["small"](), [*settings, *changes]), launch("finetune"), model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
