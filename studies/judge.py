"""An independent judge of class-conditional samples: a small ResNet, trained on real images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mage import images, rng
from mage.precision import autocast


class Residual(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.cut: nn.Module = nn.Identity()
        if before != after:
            self.cut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps."""
        return functional.relu(self.body(x) + self.cut(x))


class Classifier(nn.Module):
    """Five residual blocks in three resolutions, ten classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [(32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.stem = nn.Sequential(nn.Conv2d(channels, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(*sizes) for sizes in widths))
        self.head = nn.Linear(128, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Images uint8 (n, c, H, W) -> scores (n, 10)."""
        x = images.to_float(pixels).sub(0.47).mul(4).contiguous(memory_format=torch.channels_last)
        scores: Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return scores


def train_classifier(
    pixels: Tensor, labels: Tensor, *, mirror: bool, soften: bool, epochs: int, precision: str, device: torch.device
) -> Classifier:
    """SGD on shifted (and mirrored) images, one cycle of the learning rate; soften: half of the batches at a lower
    resolution, so that the judge knows a class by its shapes and not by details that tokens do not carry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_seed(0, "classifier"))
        network = Classifier(pixels.shape[1]).to(device, memory_format=torch.channels_last)
    batch, steps = 128, epochs * (len(pixels) // 128)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    height, width = pixels.shape[2:]
    padded = functional.pad(pixels, (4, 4, 4, 4))
    for epoch in range(epochs):
        generator = rng.generator(0, "classifier", epoch)
        order = torch.randperm(len(pixels), generator=generator)[: len(pixels) // batch * batch]
        for chosen in order.split(batch):
            top, left = torch.randint(0, 9, (2, batch, 1), generator=generator)
            rows, columns = top + torch.arange(height), left + torch.arange(width)
            if mirror:
                columns = torch.where(torch.rand(batch, 1, generator=generator) < 0.5, columns, columns.flip(1))
            x = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
            if soften and torch.rand((), generator=generator) < 0.5:
                x = _softened(x, share=0.3 + 0.6 * float(torch.rand((), generator=generator)))
            with autocast(precision, device):
                scores = network(x.to(device))
            loss = functional.cross_entropy(scores.float(), labels[chosen].to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval().requires_grad_(False)


def _softened(pixels: Tensor, *, share: float) -> Tensor:
    """Images uint8, as large as before, of which only a share of the resolution (a length) is left."""
    height, width = pixels.shape[2:]
    small = functional.interpolate(pixels.float(), (round(height * share), round(width * share)), mode="area")
    again = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return again.round().clamp(0, 255).to(torch.uint8)
