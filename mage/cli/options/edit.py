"""Options of `mage edit`."""

from dataclasses import dataclass
from pathlib import Path

from mage.cli.options.base import SamplerOptions
from mage.cli.options.bounds import Margin, Number, Variants
from mage.cli.options.places import Model, NewPicture


@dataclass(frozen=True, kw_only=True)
class Options(SamplerOptions):
    """Inpaint or remove (--mask, --box), outpaint (--expand), or vary all of it (--vary): exactly one of the four.

    With --class, the new content is of that class.
    """

    model: Model
    """model or run folder"""
    image: Path
    """image file, any size; it is scaled and cropped to the model's"""
    out: NewPicture
    """PNG file for the result; NAME_sheet.png beside it shows before, marked and after, enlarged"""
    mask: Path | None = None
    """image file of the same size: white is redrawn, black is kept"""
    box: tuple[Number, Number, Number, Number] | None = None
    """left top right bottom, in pixels of the image: the inside is redrawn"""
    expand: tuple[Margin, ...] | None = None
    """pixels to add around the image: one number for all sides, or left top right bottom"""
    vary: float | None = None
    """strength from 0 to 1: this random share of the tokens is redrawn"""
    grow: Margin = 0
    """pixels by which --mask and --box grow: to remove an object, its edge and shadow must be covered"""
    full_size: bool = False
    """edit at the image's own size, in windows of the model's size, instead of scaling and cropping it"""
    paste: bool = False
    """keep the pixels of untouched tokens exactly as they were; --full-size always does"""
    num: Variants = 1
    """variants; more than one are written side by side"""
