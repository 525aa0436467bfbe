"""Options shared by several commands, with the same meaning in all of them.

Nothing here imports PyTorch, so that help and errors appear at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mage.cli.options.bounds import BatchSize, Count, Minutes, Number, Seed, Steps, Workers
from mage.cli.options.choices import FeaturePool, GuidanceSchedule, ReviseBy, Schedule
from mage.cli.options.places import Images, Model, NewFolder

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class Printing:
    """Options that every command has."""

    json: bool = False
    """print the result as one JSON object on standard output, nothing else"""


@dataclass(frozen=True, kw_only=True)
class Common(Printing):
    """Options of every command that computes on a device."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 if the hardware is fast at it, else float32"""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Common):
    """Options of commands with a recipe."""

    recipe: str | None = None
    """name of a built-in recipe: {RECIPES}; default: the tokenizer's recipe, else
    the one that fits --data (photos64 for a folder), else mnist5k; tokens for tokens that are no images"""
    config: Path | None = None
    """a recipe as a YAML file, instead of --recipe"""
    set: Repeated = ()
    """override one setting, such as --set pretraining.steps=100; may be repeated"""
    data: Images | None = None
    """data set by name ({DATASETS}), a folder of images, or tar shards (a folder of them, x-{0000..0099}.tar,
    s3://bucket/x-{0000..0099}.tar); default: the recipe's"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    seed: Seed | None = None
    """seed of everything random; default: the recipe's"""


@dataclass(frozen=True, kw_only=True)
class RunOptions(RecipeOptions):
    """Options of commands that fill a run folder."""

    out: NewFolder
    """run folder"""
    workers: Workers = 0
    """processes that read and augment images; 0: the main one"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Options of commands that train: recipe.yaml, metrics.jsonl, checkpoints/, samples/, model/ in OUT."""

    resume: bool = False
    """continue the run in --out; a larger number of steps makes it longer"""
    deterministic: bool = False
    """repeated on the same device, give the same weights to the last bit; a CPU does so anyway, a GPU takes longer"""


@dataclass(frozen=True, kw_only=True)
class TimedOptions(TrainOptions):
    """Options of commands that train by a recipe from the start."""

    minutes: Minutes | None = None
    """fit codes, sizes, batch and steps to the number of images and to so many minutes of training on this machine;
    recorded in recipe.yaml, so that --resume keeps them; default: as the recipe says"""


@dataclass(frozen=True, kw_only=True)
class SamplerOptions(Common):
    """Options of commands that generate; settings that are left out are the model's own, else the paper's."""

    seed: Seed = 0
    """seed of everything random"""
    class_: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = ()
    """class by name or number, for a model with classes; several: in turn; all: every class in turn; none: without
    class; default: the class of each new image is drawn, with its frequency in the training images; edits have none"""
    steps: Steps | None = None
    """network passes per image; default: the model's own, else 20"""
    choice_temperature: float | None = None
    """with the order confidence: larger gives more variety; default: the model's own, else 6"""
    token_temperature: float | None = None
    """0 takes the most probable code; default: the model's own, else 1"""
    token_temperature_end: float | None = None
    """token temperature of the last step, reached linearly"""
    encoder_keep: float | None = None
    """share of the tokens that the encoder sees while more are unknown; 0.5, as in training, is faster; default:
    the model's own, else 1"""
    reuse: Count | None = None
    """compute all positions in one pass of so many, in the others only what changed and what is drawn: faster, and
    slightly different; default: the model's own, else 1: in all"""
    order: str | None = None
    """which tokens become known first: confidence, halton, random; default: the model's own, else confidence"""
    schedule: Schedule | None = None
    """schedule of the number of tokens unknown after each step; default: the model's own, else cosine"""
    power: float | None = None
    """exponent of the schedule power: a share of 1 - progress^power stays unknown; default: the model's own, else 2"""
    top_k: Number | None = None
    """draw from the k most probable codes only; default: the model's own, else 0: from all"""
    top_p: float | None = None
    """draw from the most probable codes that together have this probability; default: the model's own, else 1"""
    revisions: Number | None = None
    """rounds of revision after the last step, which redraw a share of the tokens; default: the model's own, else 0"""
    revise_share: float | None = None
    """share of the tokens that the first round redraws; later ones fewer; default: the model's own, else 0.2"""
    revise_by: ReviseBy | None = None
    """critic: redraw the tokens that the network finds least likely; random"""
    guidance: float | None = None
    """weight of classifier-free guidance towards the class; default: the model's own, else 0: none"""
    guidance_schedule: GuidanceSchedule | None = None
    """constant; linear: growing with the steps; interval: in a part of them; default: the model's own, else linear"""
    guidance_interval: tuple[float, float] | None = None
    """part of the steps, from 0 to 1, in which "interval" applies guidance; default: the model's own, else 0.3 1"""


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Common):
    """Options of commands that measure features."""

    model: Model
    """model or run folder"""
    data: Images
    """data set by name, a folder with one folder per class, or tar shards with labels"""
    data_root: str | None = None
    """folder with the files of a named data set"""
    pool: FeaturePool = "mean"
    """mean over the tokens, the class token, both concatenated, or both of each of the last four blocks"""
    cut: Literal["auto", "whole", "paper"] = "auto"
    """what is cut from an image. whole: all that a centre crop shows; paper: the centre after scaling to 292/256 of the
    model's size, as published; auto: paper with the lars protocol, else whole"""
    seed: Seed = 0
    """seed of everything random"""
    batch_size: BatchSize = 256
    """images at a time"""
