"""`mage edit`: redraw a part of an image."""

from torch import Tensor

import mage
from mage import images, pictures
from mage.cli.arguments import classes_of, sampling_of
from mage.cli.console import counting, emit
from mage.cli.options.edit import Options
from mage.evaluation.seams import seam_ratio
from mage.sampling.edit import box_mask, expand_canvas, grow_mask, marked_pixels
from mage.sampling.large import large_token_mask

MOST_SHOWN = 6
"""Variants on the sheet."""


def run(options: Options) -> None:
    """Edit and write the result."""
    if sum(region is not None for region in (options.mask, options.box, options.expand, options.vary)) != 1:
        raise ValueError("give exactly one of --mask, --box, --expand and --vary: it selects what is redrawn")
    if options.vary is not None and (options.grow or options.full_size or options.paste):
        raise ValueError("--vary cannot be combined with --grow, --full-size and --paste")
    if options.expand is not None and options.grow:
        raise ValueError("--grow has no effect with --expand: all that is new is redrawn")
    model = mage.load(options.model, precision=options.precision, device=options.device)
    if model.tokenizer is not None and model.channels not in (1, 3):
        raise ValueError(
            f"this model edits {model.channels} channels, but PNG has 1 or 3: use mage.load(...).edit in Python"
        )
    image = images.load_image(options.image, model.channels)
    classes = classes_of(options, model)
    settings = sampling_of(options) | {"seed": options.seed}
    if classes:
        settings["classes"] = [classes[k % len(classes)] for k in range(options.num)]
    if options.vary is not None:
        region, mask = images.to_float(images.fit(image, model.image_size)), None
        copies = region.expand(options.num, -1, -1, -1)
        variants, share, seam = model.variations(copies, strength=options.vary, **settings).cpu(), options.vary, None
    else:
        region, mask = _prepare(options, image, model.image_size)
        several = region.expand(options.num, -1, -1, -1)
        paste = options.paste or options.full_size  # else windows would show where they meet
        with counting(options.num * int(_redrawn_tokens(model, mask).sum()), "token", options) as done:
            variants = model.edit(several, mask, paste=paste, on_tokens=done, **settings).cpu()
        redrawn = mask if paste else _redrawn_pixels(model, mask)
        share = float(redrawn.float().mean())
        seams = seam_ratio(variants, redrawn.expand(options.num, -1, -1))
        seam = float(seams.mean()) if bool(seams.isfinite().all()) else None
    images.save_png(options.out, variants[0] if options.num == 1 else images.make_grid(variants))
    sheet = options.out.with_name(f"{options.out.stem}_sheet.png")
    images.save_png(sheet, _sheet(region, mask, variants))
    seam_note = "" if seam is None else f"; contrast at the border is {seam:.2f} of that next to it"
    emit(
        options,
        {
            "out": str(options.out),
            "sheet": str(sheet),
            "marked_share": share,
            "variants": options.num,
            "seam_ratio": seam,
        },
        f"{options.out}: {share:.1%} redrawn{seam_note}; {sheet}: before, marked, after",
    )


def _sheet(before: Tensor, mask: Tensor | None, variants: Tensor) -> Tensor:
    """Before, marked and after, each enlarged; of many variants the first."""
    parts = [("before", before)]
    if mask is not None:
        before = before.expand(3, -1, -1)
        parts = [("before", before), ("marked", pictures.marked(before, mask))]
    several = len(variants) > 1
    for number, variant in enumerate(variants[:MOST_SHOWN]):
        parts.append((f"after, {number + 1}" if several else "after", variant.expand(len(parts[0][1]), -1, -1)))
    return pictures.panels(parts)


def _redrawn_tokens(model: mage.Mage, mask: Tensor) -> Tensor:
    """The tokens that a mask of pixels touches."""
    rows, columns = model.require_tokenizer().grid
    return large_token_mask(mask, (rows, columns), model.token_size)


def _redrawn_pixels(model: mage.Mage, mask: Tensor) -> Tensor:
    """The pixels of these tokens, which are redrawn whole unless the others are pasted back."""
    pixels = marked_pixels(_redrawn_tokens(model, mask)[None], model.token_size)[0]
    return pixels[: mask.shape[0], : mask.shape[1]]


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
        painted = images.load_image(options.mask, channels=1, ground="black")  # transparent pixels are not marked
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
        raise ValueError(_outside(pixels, size))
    return images.to_float(images.fit(image, size)), fitted


def _outside(pixels: tuple[int, int], size: tuple[int, int]) -> str:
    """The error if all marked pixels are cropped away; (height, width) each."""
    rows, columns = min(pixels[0], pixels[1] * size[0] // size[1]), min(pixels[1], pixels[0] * size[1] // size[0])
    top, left = (pixels[0] - rows) // 2, (pixels[1] - columns) // 2
    fits = pixels[0] >= size[0] and pixels[1] >= size[1]
    advice = "add --full-size to edit the image at its own size, or " if fits else ""
    return (
        f"the marked pixels are outside the part of the image that is scaled to the model's {size[1]} x {size[0]} "
        f"pixels: columns {left} to {left + columns} and rows {top} to {top + rows} of {pixels[1]} x {pixels[0]}; "
        f"{advice}mark pixels inside"
    )
