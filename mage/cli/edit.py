"""`mage edit`: draw a part of an image anew."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import mage
from mage import images
from mage.cli.options import check_output_file, emit
from mage.cli.sampler_options import SamplerOptions
from mage.evaluation.seams import seam_ratio
from mage.sampling.edit import box_mask, expand_canvas, grow_mask


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Inpaint or remove (--mask, --box), outpaint (--expand), or vary all of it (--vary): exactly one of the four.

    With --class, what is drawn is of that class.
    """

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
    vary: float | None = None
    """strength from 0 to 1: this share of the tokens, at random, is drawn anew"""
    grow: int = 0
    """pixels by which --mask and --box grow: to remove an object, its rim and shadow must go too"""
    full_size: bool = False
    """edit at the image's own size, in windows of the model's, instead of scaling and cutting it"""
    paste: bool = False
    """keep the pixels of untouched tokens exactly as they were"""
    num: int = 1
    """variants; more than one are written side by side"""


def run(options: Options) -> None:
    """Edit and write the result."""
    check_output_file(options.out)
    if sum(given is not None for given in (options.mask, options.box, options.expand, options.vary)) != 1:
        raise ValueError("give exactly one of --mask, --box, --expand and --vary: it says what is drawn anew")
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, not {options.num}")
    if options.vary is not None and (options.grow or options.full_size or options.paste):
        raise ValueError("--vary goes without --grow, --full-size and --paste")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    if model.tokenizer is not None and model.channels not in (1, 3):
        raise ValueError(
            f"this model edits {model.channels} bands, PNG holds 1 or 3: use mage.load(...).edit in Python"
        )
    image = images.load_image(options.image, model.channels)
    classes = options.classes(model)
    how = options.sampling() | {"seed": options.seed}
    if classes:
        how["classes"] = [classes[k % len(classes)] for k in range(options.num)]
    if options.vary is not None:
        copies = images.to_float(images.fit(image, model.image_size)).expand(options.num, -1, -1, -1)
        variants, share, seam = model.variations(copies, strength=options.vary, **how).cpu(), options.vary, None
    else:
        given, mask = _prepare(options, image, model.image_size)
        variants = model.edit(given.expand(options.num, -1, -1, -1), mask, paste=options.paste, **how).cpu()
        share = float(mask.float().mean())
        seams = seam_ratio(variants, mask.expand(options.num, -1, -1))
        seam = float(seams.mean()) if bool(seams.isfinite().all()) else None
    images.save_png(options.out, variants[0] if options.num == 1 else images.make_grid(variants))
    visible = "" if seam is None else f"; step at the border {seam:.2f} of that beside it"
    emit(
        options,
        {"out": str(options.out), "marked_share": share, "variants": options.num, "seam_ratio": seam},
        f"{options.out}: {share:.0%} drawn anew{visible}",
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
        skewed = abs(canvas.shape[1] * size[1] - canvas.shape[2] * size[0]) > 0.02 * canvas.shape[2] * size[0]
        if skewed and not options.full_size:
            raise ValueError(
                f"the expanded image is {canvas.shape[2]} x {canvas.shape[1]} pixels, but the model draws "
                f"{size[1]} x {size[0]}; choose --expand so that the proportions agree, or add --full-size"
            )
        image = images.to_uint8(canvas)
    elif options.box is not None:
        mask = box_mask(pixels, options.box)
    else:
        assert options.mask is not None
        painted = images.load_image(options.mask, channels=1, ground="black")  # what is transparent is not marked
        if tuple(painted.shape[1:]) != pixels:
            raise ValueError(
                f"the mask {options.mask} is {painted.shape[2]} x {painted.shape[1]} pixels, "
                f"the image {pixels[1]} x {pixels[0]}: they must have the same size"
            )
        mask = painted[0] >= 128
    if options.grow and options.expand is None:
        mask = grow_mask(mask, options.grow)
    if options.full_size:
        if min(have - need for have, need in zip(image.shape[1:], size, strict=True)) < 0:
            raise ValueError(
                f"--full-size: the image is {image.shape[2]} x {image.shape[1]} pixels, a window of the model "
                f"{size[1]} x {size[0]}: leave --full-size out"
            )
        return images.to_float(image), mask
    fitted = images.fit_mask(mask, size)
    if mask.any() and not fitted.any():
        raise ValueError(
            f"what is marked lies outside the middle of the image; of {pixels[1]} x {pixels[0]} pixels the model sees "
            f"only a part of the proportions {size[1]} x {size[0]}: cut the image first"
        )
    return images.to_float(images.fit(image, size)), fitted
