"""Copies of choices and defaults from files that import PyTorch; tests check that they agree."""

from typing import Literal

Schedule = Literal["cosine", "linear", "arccos", "power"]
GuidanceSchedule = Literal["constant", "linear", "interval"]
ReviseBy = Literal["critic", "random"]
Form = Literal["png", "tar", "features"]
Part = Literal["generation", "linear", "fewshot", "finetune"]
Tuning = Literal["auto", "keep", "tune"]
ExportPart = Literal["encode", "decode", "features", "logits", "classes"]
FeaturePool = Literal["mean", "class", "both", "last4"]
MapPool = Literal["mean", "max", "top"]
MapScale = Literal["expected", "none", "position", "error"]

PROTOCOLS = ("linear", "knn", "fewshot", "attentive", "corruptions", "attacks")
RATIOS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
COUNTS = (1, 5, 10, 13, 25)
DRAWS = 5
NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
RECIPES = (
    "mnist5k", "cifar10", "cifar10-crops", "cifar10-mage-c", "cifar10-maskgit", "cifar10-mae", "cifar10-simclr",
    "cifar10-ijepa",
    "cifar10-classes", "cifar10-labels", "cifar10-clusters", "photos64", "tokens", "imagenet-base", "imagenet-large",
    "imagenet-taming", "smoke",
)  # fmt: skip
FINETUNES = ("base", "large", "small")
DATASETS = ("mnist5k", "digits", "cifar10", "cifar100", "mnist", "fashion-mnist")
