"""Feature networks for the metrics of generated images, by name; the name is part of the names of metrics.

efflite0            EfficientNet-Lite0 at 64 pixels, from a package: works offline, and is the default
inception           the network of the FID (torch-fidelity's port of the TensorFlow graph); its weights are a file
timm:NAME           any timm model: pooled features, and class scores if it has a classifier
fidelity:NAME       any extractor that torch-fidelity knows, such as clip-vit-b-32 or vgg16

Weights are read as data only (`weights_only=True`), those of Inception after a check of their hash.

Letters: n images, c channels, H W pixels, d feature width, k classes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from mage import images
from mage.nn.backbones import EFFLITE0_SIZE, PooledFeatures, efflite0
from mage.store.files import file_hash

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_HASH = "6726825d"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"

DATA_ALONE = (".safetensors", ".npz", ".npy")
"""Files that cannot hold code, as they are read."""


class Seen(NamedTuple):
    """Output of an extractor: features (n, d), and class scores (n, k) if it has a classifier."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """A feature network with its name in the names of metrics."""

    name: str
    """Short name, a part of the names of metrics."""
    fingerprint: str
    """Name with all that changes the features, such as the image size; statistics of another one are not compared."""
    see: Callable[[Tensor], Seen]
    """RGB images, uint8 (n, 3, H, W) -> features and class scores."""

    def __call__(self, pixels: UInt8[Tensor, "n c H W"]) -> Seen:
        """Features of grey or RGB images. Raises ValueError for other numbers of channels."""
        if pixels.shape[1] not in (1, 3):
            raise ValueError(f"extractors take grey or RGB images, not {pixels.shape[1]} channels")
        with torch.inference_mode(), torch.autocast(pixels.device.type, enabled=False):
            return self.see(pixels if pixels.shape[1] == 3 else pixels.expand(-1, 3, -1, -1))


def build_extractor(name: str, *, weights: str | Path = "", device: str | torch.device = "cpu") -> Extractor:
    """The extractor of this name. weights: a local file, if it is not in the default place.

    Raises ValueError for an unknown name, and with instructions if weights or a package are missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "efflite0" and not rest:
        return _efflite0(torch.device(device))
    if kind == "inception" and not rest:
        return _inception(weights, torch.device(device))
    if kind == "timm" and rest:
        return _timm(rest, weights, torch.device(device))
    if kind == "fidelity" and rest:
        return _fidelity(rest, weights, torch.device(device))
    raise ValueError(f"there is no extractor {name!r}; there are efflite0, inception, timm:NAME and fidelity:NAME")


def _efflite0(device: torch.device) -> Extractor:
    network = PooledFeatures(efflite0()).to(device)

    def see(pixels: Tensor) -> Seen:
        features = network(images.to_float(pixels.to(device)))
        return Seen(features, network.network.classifier(features))  # type: ignore[operator]

    return Extractor("efflite0", f"efflite0_{EFFLITE0_SIZE}px", see)


def find_inception(weights: str | Path = "", *, sha256: str = INCEPTION_HASH) -> Path:
    """The file of Inception's weights: `weights`, or the one that torch-fidelity stores in PyTorch's cache.

    Raises ValueError for a missing file, or another one: FIDs of other weights are not comparable.
    """
    path = Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.is_file():
        raise ValueError(
            f"the weights of the FID's Inception are not at {path}: download {INCEPTION_URL} there, or give the file "
            "with --extractor-weights; without a download, the extractor efflite0 gives fd_efflite0"
        )
    digest = file_hash(path)
    if not digest.startswith(sha256):
        raise ValueError(f"{path} is not {INCEPTION_FILE}: its SHA-256 begins with {digest[:8]}, not with {sha256}")
    return path


def _inception(weights: str | Path, device: torch.device) -> Extractor:
    return fidelity_extractor("inception", "inception-v3-compat", find_inception(weights), device)


def _fidelity(name: str, weights: str | Path, device: torch.device) -> Extractor:
    path = Path(weights).expanduser() if weights else None
    if path is not None and not path.is_file():
        raise ValueError(f"there is no file {path}")
    return fidelity_extractor(name, name, path, device)


def fidelity_extractor(name: str, registered: str, weights: Path | None, device: torch.device) -> Extractor:
    """An extractor of torch-fidelity on 8-bit images. weights: local file; None: torch-fidelity downloads them.

    Raises ValueError for an unknown extractor, a missing package, or weights that cannot be read.
    """
    try:
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as known
    except ImportError:
        raise ValueError('this extractor needs torch-fidelity: pip install "mage-vision[metrics]"') from None
    if registered not in known:
        raise ValueError(f"torch-fidelity has no extractor {registered!r}; it has {', '.join(sorted(known))}")
    if weights is not None:
        check_is_data(weights)
    kind = known[registered]
    layers = [kind.get_default_feature_layer_for_metric("fid")]
    classifies = "logits_unbiased" in kind.get_provided_features_list()
    layers += ["logits_unbiased"] if classifies else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = kind(registered, layers, feature_extractor_weights_path=None if weights is None else str(weights))
    except Exception as error:  # downloads and files of others can raise any exception
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"torch-fidelity cannot build {registered} ({type(error).__name__}: {reason})") from None
    network = network.to(device).eval()

    def see(pixels: Tensor) -> Seen:
        outputs = network(pixels.to(device))
        return Seen(outputs[0].flatten(1).float(), outputs[1].float() if classifies else None)

    return Extractor(name, name, see)


def check_is_data(path: Path) -> None:
    """Raise ValueError unless a .pth file contains tensors only, so that loading it cannot execute code."""
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # files of others can raise any exception
        raise ValueError(f"{path} is not a file of weights alone ({type(error).__name__})") from None


def _timm(name: str, weights: str | Path, device: torch.device) -> Extractor:
    source: dict[str, Any] = {"pretrained": True}
    if weights:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        if path.suffix.lower() not in DATA_ALONE:
            check_is_data(path)
        source = {"checkpoint_path": str(path)}
    try:
        network: nn.Module = timm.create_model(name, **source)
    except Exception as error:  # unknown names, no connection, files of others: any exception
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"timm cannot build {name!r} ({type(error).__name__}: {reason})") from None
    network = network.to(device).eval().requires_grad_(False)
    resolve: Any = timm.data.resolve_model_data_config  # it has no types
    data = resolve(network)
    mean, deviation = (torch.tensor(data[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    size = tuple(data["input_size"][-2:])
    classes = int(getattr(network, "num_classes", 0))

    def see(pixels: Tensor) -> Seen:
        x = images.to_float(pixels.to(device))
        if tuple(x.shape[-2:]) != size:
            x = nn.functional.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        maps = network.forward_features((x - mean) / deviation)  # type: ignore[operator]
        features = network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        logits = network.forward_head(maps) if classes else None  # type: ignore[operator]
        return Seen(features.float().flatten(1), None if logits is None else logits.float())

    return Extractor(name, f"timm_{name}_{size[0]}px", see)
