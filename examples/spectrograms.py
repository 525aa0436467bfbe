"""Sound to pictures and back: log-mel spectrograms as grey images, and Griffin and Lim's iteration for the way back.

A picture has 64 rows, bands on the mel scale with low ones at the bottom, and 64 columns of 16 ms: about one second at
8,000 samples a second, the rate of telephones. White is the loudest of the recording, black 60 decibels below or less.
"""

import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RATE, WINDOW, HOP = 8000, 256, 128
BANDS = COLUMNS = 64
DECIBELS = 60.0
"""From black to white."""


def read_wave(path: Path) -> Tensor:
    """Samples of a file, in [-1, 1]. Raises ValueError unless it is 16-bit mono at RATE."""
    with wave.open(str(path)) as file:
        found = (file.getframerate(), file.getsampwidth(), file.getnchannels())
        if found != (RATE, 2, 1):
            raise ValueError(f"{path}: {found} as rate, bytes and channels; needed are ({RATE}, 2, 1)")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return torch.from_numpy(samples.astype(np.float32) / 2**15)


def write_wave(path: Path, samples: Tensor) -> None:
    """Write samples, scaled to full volume."""
    scaled = samples / samples.abs().max().clamp(min=1e-9) * (2**15 - 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(scaled.numpy().astype("<i2").tobytes())


def filters() -> Tensor:
    """Triangular filters, evenly spaced on the mel scale: (BANDS, WINDOW / 2 + 1), each with sum 1."""
    mel = torch.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    width = RATE / WINDOW  # of a bin: narrower triangles would fall between bins
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2]).clamp(min=width)[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1]).clamp(min=width)[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    return triangles / triangles.sum(dim=1, keepdim=True).clamp(min=1e-9)


def spectrogram(samples: Tensor) -> Tensor:
    """Picture of a recording: (BANDS, columns) in [0, 1]; empty for silence."""
    if len(samples) < WINDOW or not samples.any():
        return torch.zeros(BANDS, 0)
    window = torch.hann_window(WINDOW)
    power = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True).abs().square()
    level = 10 * (filters() @ power).clamp(min=1e-10).log10()
    return ((level - level.max()) / DECIBELS + 1).clamp(0, 1).flip(0)


def clips(picture: Tensor, hop: int, least: float = 0.15) -> Tensor:
    """Pieces of COLUMNS columns, one every `hop`, without those that are mostly silent: (n, BANDS, COLUMNS)."""
    if picture.shape[1] < COLUMNS:
        return torch.zeros(0, BANDS, COLUMNS)
    pieces = picture.unfold(1, COLUMNS, hop).movedim(1, 0)
    return pieces[pieces.mean(dim=(1, 2)) > least]


def sound_of(picture: Tensor, rounds: int = 60) -> Tensor:
    """Samples whose spectrogram is close to a picture (Griffin and Lim 1984): the phases are found by iteration."""
    power = 10 ** ((picture.flip(0) - 1) * DECIBELS / 10)
    magnitude = (torch.linalg.pinv(filters()) @ power).clamp(min=0).sqrt()
    window = torch.hann_window(WINDOW)
    phase = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
    turned = torch.polar(magnitude, phase)
    for _ in range(rounds):
        samples = torch.istft(turned, WINDOW, HOP, window=window)
        angle = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True).angle()
        turned = torch.polar(magnitude, angle)
    return torch.istft(turned, WINDOW, HOP, window=window)
