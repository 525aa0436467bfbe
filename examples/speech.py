"""MAGE on speech: spectrograms become tokens by a VQGAN that is trained here. `python examples/speech.py FOLDER`

FOLDER holds recordings as .wav, mono, 16 bits, 8,000 samples a second. Real ones under a free licence (CC BY-SA 3.0),
25 minutes of one voice:

    apt-get download asterisk-core-sounds-en-wav && dpkg -x asterisk-core-sounds-en-wav_*.deb sounds

A clip of one second is a picture of 64 x 64, and 8 x 8 tokens. MAGE fills a gap of a quarter of a second in recordings
it has not heard; filled ones can be heard (OUT/*.wav). Compared are the tokens in the gap with a copy of the last ones
before it and with the most frequent one of their band; the sound level with a straight line between both sides; and
the bits that a token costs with n-grams along each band.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from made_of import made_of
from ngrams import Ngrams
from spectrograms import BANDS, COLUMNS, DECIBELS, clips, read_wave, sound_of, spectrogram, write_wave
from torch import Tensor

import mage
from mage import atomic, images, runs
from mage.data.token_cache import TokenCache
from mage.pictures import labelled_rows
from mage.recipes import named
from mage.recipes.schema import Recipe
from mage.settings import override

SIDE = 8
"""Tokens along either side: a token is 8 bands and 128 ms."""
STEPS = 800
"""Training steps of either network unless the user says otherwise."""
GAP = slice(3, 5)
"""Columns of tokens that are unknown."""
PIXELS = slice(GAP.start * COLUMNS // SIDE, GAP.stop * COLUMNS // SIDE)


def write_pictures(recordings: Path, out: Path) -> None:
    """Pictures of clips, out/train and out/test; every tenth recording is held out, and its clips do not overlap."""
    files = sorted(recordings.rglob("*.wav"))
    if not files:
        raise ValueError(f"{recordings} holds no .wav files")
    for index, file in enumerate(files):
        split, hop = ("test", COLUMNS) if index % 10 == 9 else ("train", COLUMNS // 4)
        for number, picture in enumerate(clips(spectrogram(read_wave(file)), hop)):
            path = out / split / f"{index:04d}-{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save_png(path, picture[None])
    if not (out / "train").exists() or not (out / "test").exists():
        raise ValueError(f"the recordings in {recordings} are too few, shorter than a second, or silent")


def recipe(out: Path, steps: int) -> Recipe:
    """Both networks: a VQGAN of 8 x 8 tokens, and MAGE without conditions."""
    return override(
        named("mnist5k"),
        [
            "name=speech",
            f"data.name={out / 'pictures'}",
            f"data.tokenizer_transform.size=[{BANDS},{COLUMNS}]",
            f"data.transform.size=[{BANDS},{COLUMNS}]",
            f"tokenizer.image_size=[{BANDS},{COLUMNS}]",
            f"tokenizer.patch_size={COLUMNS // SIDE}",
            f"tokenizer_training.steps={steps}",
            "model.width=128",
            "model.depth=3",
            "model.heads=4",
            "model.decoder_depth=3",
            "model.class_input=encoder",
            "method.conditions.source=none",
            "method.masking.distribution=uniform",
            "method.masking.low=0.2",
            "sampling.encoder_keep=0.8",
            "pretraining.batch_size=64",
            "pretraining.base_learning_rate=0.04",
            "pretraining.ema_decay=0.99",
            f"pretraining.steps={steps}",
            f"run.observe_every={steps}",
        ],
    )


def trained(recordings: Path, out: Path, steps: int) -> mage.Mage:
    """The model; trained once, and resumed where a stop left it. Raises ValueError if it was of other recordings."""
    sounds = {str(path.relative_to(recordings)): path.stat().st_size for path in sorted(recordings.rglob("*.wav"))}
    if (out / "pictures").exists():
        made_of(out, {"recordings": sounds}, begun=True)
    else:
        with atomic.replacing_folder(out / "pictures") as unfinished:
            write_pictures(recordings, unfinished)
            made_of(out, {"recordings": sounds}, begun=False)
    settings, launch = recipe(out, steps), runs.Launch(out)
    runs.train_tokenizer(settings, launch.inside("tokenizer"))
    tokenizer = runs.load_tokenizer(out / "tokenizer")
    cache = runs.tokenize(settings, launch.inside("tokens"), tokenizer)
    runs.pretrain(settings, launch.inside("run"), tokenizer, cache=cache)
    return mage.load(out / "run")


def straight(pictures: Tensor) -> Tensor:
    """Pictures (n, 1, bands, columns) whose gap is a straight line between the columns on both sides."""
    before, after = pictures[..., PIXELS.start - 1 : PIXELS.start], pictures[..., PIXELS.stop : PIXELS.stop + 1]
    width = PIXELS.stop - PIXELS.start
    share = torch.arange(1, width + 1) / (width + 1)
    line = pictures.clone()
    line[..., PIXELS] = before + (after - before) * share
    return line


def level_error(pictures: Tensor, truth: Tensor, columns: slice = PIXELS) -> float:
    """Root mean square difference of the sound level, in decibels."""
    return float((pictures - truth)[..., columns].square().mean().sqrt()) * DECIBELS


def pictures_of(folder: Path) -> Tensor:
    """All pictures of a folder: (n, 1, BANDS, COLUMNS) in [0, 1]."""
    return images.to_float(torch.stack([images.load_image(path, channels=1) for path in sorted(folder.glob("*.png"))]))


def measure(recordings: Path, out: Path, steps: int) -> dict[str, float]:
    """Train if there is no model yet, then fill gaps in held-out recordings."""
    model = trained(recordings, out, steps)
    pictures = pictures_of(out / "pictures" / "test")
    tokens = model.encode(pictures).cpu()
    cache = TokenCache(out / "tokens")
    rows = np.arange(len(cache))
    seen = cache.tokens(rows, np.zeros_like(rows)).long()
    start = tokens.clone()
    start[..., GAP] = -1
    filled = model.generate_tokens(
        len(start), start=start, steps=8, token_temperature=0.0, choice_temperature=0.0, revisions=0
    ).cpu()
    copied = tokens.clone()
    copied[..., GAP] = tokens[..., GAP.start - 1 : GAP.start]
    frequent = torch.stack([band.flatten().bincount().argmax() for band in seen.unbind(1)])[:, None].expand_as(tokens)
    results = {"audio.clips": float(len(tokens))}
    for name, other in {"gap_accuracy": filled, "gap_copy": copied, "gap_most_frequent": frequent}.items():
        results[f"audio.{name}"] = float((other == tokens)[..., GAP].float().mean())
    restored, redrawn = model.decode_tokens(tokens).cpu(), model.decode_tokens(filled).cpu()
    mean = pictures_of(out / "pictures" / "train").mean(dim=(0, 3), keepdim=True).expand_as(pictures)
    levels = {"filled": redrawn, "straight_line": straight(pictures), "mean_spectrum": mean, "tokenizer": restored}
    results |= {f"audio.gap_decibels_{name}": level_error(other, pictures) for name, other in levels.items()}
    nats = model.code_length_of_tokens(tokens, passes=32)
    results["audio.bits_per_token"] = float(nats.mean()) / SIDE**2 / math.log(2)
    for order in (0, 1):
        bands = Ngrams(seen.flatten(0, 1).numpy(), cache.num_codes, order)
        results[f"audio.bits_order_{order}"] = bands.bits_per_token(tokens.flatten(0, 1).numpy())
    results["audio.bits_chance"] = math.log2(cache.num_codes)
    silent = pictures.clone()
    silent[..., PIXELS] = 0
    rows_shown = [("recording", pictures), ("gap", silent), ("straight line", straight(pictures)), ("filled", redrawn)]
    images.save_png(out / "gaps.png", labelled_rows([(name, batch[:8]) for name, batch in rows_shown], side=96))
    for name, batch in rows_shown:
        write_wave(out / f"{name.replace(' ', '-')}.wav", torch.cat([sound_of(picture[0]) for picture in batch[:8]]))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="folder of .wav files")
    parser.add_argument("--out", type=Path, default=Path("runs/speech"), help="folder of pictures, tokens and models")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of either network")
    options = parser.parse_args()
    for metric, value in measure(options.recordings, options.out, options.steps).items():
        print(f"{metric:<32}{value:.3f}")
