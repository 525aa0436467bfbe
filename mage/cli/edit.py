"""`mage edit`: draw a part of an image anew."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import mage
from mage import images
from mage.cli.options import Common, check_output_file, emit
from mage.sampling.edit import box_mask, expand_canvas


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Inpaint (--mask, --box) or outpaint (--expand). Exactly one of the three says what is drawn anew."""

    model: Path
    """model or run folder"""
    image: Path
    """image file, any size; it is scaled and cut to the model's"""
    out: Path
    """PNG file for the result"""
    mask: Path | None = None
    """image file of the same size: white is drawn anew, black is kept"""
    box: tuple[int, int, int, int] | None = None
    """left top right bottom, in pixels of the image: the inside is drawn anew"""
    expand: tuple[int, ...] | None = None
    """pixels to add around the image: one number for all sides, or left top right bottom"""
    paste: bool = False
    """keep the pixels of untouched tokens exactly as they were"""
    num: int = 1
    """variants; more than one are written side by side"""
    seed: int = 0
    """seed of the first variant"""
    steps: int | None = None
    """network passes; default: the model's own, else 20"""
    choice_temperature: float | None = None
    """more means more variety; default: the model's own, else 6"""
    encoder_keep: float | None = None
    """share of the tokens that the encoder sees while more are unknown; default 1: all"""


def run(options: Options) -> None:
    """Edit and write the result."""
    check_output_file(options.out)
    if sum(given is not None for given in (options.mask, options.box, options.expand)) != 1:
        raise ValueError("give exactly one of --mask, --box and --expand: it says what is drawn anew")
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, not {options.num}")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    image, mask = _prepare(options, images.load_image(options.image, model.channels), model.image_size)
    variants = model.edit(
        image.expand(options.num, -1, -1, -1),
        mask,
        paste=options.paste,
        seed=options.seed,
        steps=options.steps,
        choice_temperature=options.choice_temperature,
        encoder_keep=options.encoder_keep,
    ).cpu()
    images.save_png(options.out, variants[0] if options.num == 1 else images.make_grid(variants))
    share = float(mask.float().mean())
    emit(
        options,
        {"out": str(options.out), "marked_share": share, "variants": options.num},
        f"{options.out}: {share:.0%} of the pixels marked to be drawn anew",
    )


def _prepare(options: Options, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image and mask at the model's size, from the options in pixels of the file."""
    pixels = (int(image.shape[1]), int(image.shape[2]))
    if options.expand is not None:
        margins = options.expand * 4 if len(options.expand) == 1 else options.expand
        if len(margins) != 4:
            raise ValueError(f"--expand takes 1 or 4 numbers, not {len(margins)}")
        left, top, right, bottom = margins
        canvas, mask = expand_canvas(images.to_float(image), (left, top, right, bottom))
        if abs(canvas.shape[1] * size[1] - canvas.shape[2] * size[0]) > 0.02 * canvas.shape[2] * size[0]:
            raise ValueError(
                f"the expanded image is {canvas.shape[2]} x {canvas.shape[1]} pixels, but the model draws "
                f"{size[1]} x {size[0]}; choose --expand so that the proportions agree"
            )
        image = images.to_uint8(canvas)
    elif options.box is not None:
        mask = box_mask(pixels, options.box)
    else:
        assert options.mask is not None
        painted = images.load_image(options.mask, channels=1)
        if tuple(painted.shape[1:]) != pixels:
            raise ValueError(
                f"the mask {options.mask} is {painted.shape[2]} x {painted.shape[1]} pixels, "
                f"the image {pixels[1]} x {pixels[0]}: they must have the same size"
            )
        mask = painted[0] >= 128
    fitted = images.fit_mask(mask, size)
    if mask.any() and not fitted.any():
        raise ValueError(
            f"what is marked lies outside the middle of the image; of {pixels[1]} x {pixels[0]} pixels the model sees "
            f"only a part of the proportions {size[1]} x {size[0]}: cut the image first"
        )
    return images.to_float(images.fit(image, size)), fitted
