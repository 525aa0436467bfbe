"""Ten bad inputs per command: exit code 2, one sentence, nothing written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mage
from mage import images

RECIPE = [
    ("--recipe nonsense", "there is no recipe 'nonsense'"),
    ("--config {root}/none.yaml", "there is no recipe file"),
    ("--config {root}/text.yaml", "not readable as YAML"),
    ("--config {root}/wrong.yaml", "no setting 'modell'"),
    ("--recipe smoke --config {root}/wrong.yaml", "give --recipe or --config, not both"),
    ("--recipe smoke --set model.widht=3", r"there is no setting 'model\.widht'"),
    ("--recipe smoke --set model.width=wide", r"model\.width must be int"),
    ("--recipe smoke --set model.width", "not of the form"),
    ("--recipe smoke --set method.masking.mode=0.1", "mask ratios need"),
    ("--recipe smoke --set pretraining.steps=[1", "not readable as YAML"),
]
DATA = [
    ("--data {root}/none", "no data set"),
    ("--data {root}/empty", "no image"),
    ("--data {root}/text.png", "is a file"),
]
MODEL = [
    ("--model {root}/none", "there is no model"),
    ("--model {root}/photo.png", "is a file"),
    ("--model {root}/empty", "holds no model"),
    ("--model {root}/no-config", "holds no model"),
    ("--model {root}/truncated", "damaged"),
    ("--model {root}/renamed", "does not fit"),
    ("--model {root}/foreign", "not a model configuration"),
]
COMMON = [
    ("--precision float16", "precision"),
    ("--device quantum", "not available"),
    ("--sede 1", "sede"),
]
TRAIN = "--recipe smoke --out {out}"
CASES: dict[str, list[tuple[str, str]]] = {
    "train-tokenizer": [
        *((f"{arguments} --out {{out}}", message) for arguments, message in RECIPE),
        *((f"{TRAIN} {arguments}", message) for arguments, message in DATA + COMMON),
        (f"{TRAIN} --resume", "no checkpoint to resume"),
        (f"{TRAIN} --minutes 0", "--minutes must be at least 1"),
        (f"{TRAIN} --minutes 5 --data {{root}}/none", "no data set"),
        (f"{TRAIN} --set tokenizer_training.batch_size=5000", "5000"),
        ("--decoder-of {root}/none --out {out}", "there is no model"),
        ("--decoder-of {root}/tokenizer --out {out}", "without a transformer"),
        ("--decoder-of {root}/model --set tokenizer_loss.redrawn=2 --out {out}", "share of the tokens"),
        (f"{TRAIN} --set tokenizer_loss.redrawn=0.5", "needs tokenizer_loss.freeze_encoder"),
        (f"{TRAIN} --set tokenizer.image_size=[9,9]", "not a multiple"),
        ("--recipe smoke", "out"),
        ("--recipe smoke --out {root}/photo.png/run", "is a file"),
    ],
    "tokenize": [
        *((f"{arguments} --tokenizer {{root}}/tokenizer --out {{out}}", message) for arguments, message in RECIPE[:6]),
        *((f"{TRAIN} --tokenizer {{root}}/tokenizer {arguments}", message) for arguments, message in DATA + COMMON),
        *((f"{TRAIN} {a.replace('--model', '--tokenizer')}", message) for a, message in MODEL[:5]),
        ("--recipe smoke --tokenizer {root}/tokenizer --out {out} --views 0", "--views must be at least 1"),
        ("--recipe smoke --tokenizer {root}/other-tokenizer --out {root}/tokens", "holds a token cache with tokenizer"),
        ("--recipe smoke --tokenizer {root}/tokenizer --out {root}/folder", "not a token cache"),
    ],
    "pretrain": [
        *((f"{arguments} --tokenizer {{root}}/tokenizer --out {{out}}", message) for arguments, message in RECIPE[:6]),
        *((f"{TRAIN} --tokenizer {{root}}/tokenizer {arguments}", message) for arguments, message in DATA + COMMON),
        *((f"{TRAIN} {a.replace('--model', '--tokenizer')}", message) for a, message in MODEL[:5]),
        (f"{TRAIN} --tokenizer {{root}}/other-tokenizer --data {{root}}/tokens", "was made by tokenizer"),
        (f"{TRAIN} --tokenizer {{root}}/tokenizer --resume --online", "no checkpoint to resume"),
        (f"{TRAIN} --tokenizer {{root}}/tokenizer --online --set model.heads=3", "not a multiple of 3 heads"),
    ],
    "generate": [
        *((f"{arguments} --out {{out}}", message) for arguments, message in MODEL),
        *((f"--model {{root}}/model --out {{out}} {arguments}", message) for arguments, message in COMMON),
        ("--model {root}/tokenizer --out {out}", "without a transformer"),
        ("--model {root}/model --out {out} --num 0", "at least 1"),
        ("--model {root}/model --out {out} --num many", "num"),
        ("--model {root}/model --out {out} --steps 0", "--steps must be at least 1"),
        ("--model {root}/model --out {out} --choice-temperature -1", "must be 0 or more"),
        ("--model {root}/model --out {out} --encoder-keep 0", "encoder_keep"),
        ("--model {root}/model --out {root}/photo.png/x", "is a file"),
        ("--model {root}/model --out {out} --class ship", "without classes"),
        ("--model {root}/model --out {out} --class all", "needs a model with classes"),
        ("--model {root}/model --out {out} --guidance 2", "guidance needs a model with classes"),
        ("--model {root}/model --out {out} --order backwards", "order"),
        ("--model {root}/model --out {out} --top-p 0", "top_p"),
        ("--model {root}/model --out {out} --part 2 2", "no part 2 of 2"),
        ("--model {root}/model --out {out} --part 0 2 --processes 2", "give --part or --processes, not both"),
        ("--model {root}/model --out {out} --processes 0", "at least 1"),
        ("--model {root}/model --out {out} --to tar --shard-size 100", "not a multiple"),
        ("--model {root}/model --out {out} --to features --extractor vgg", "no extractor 'vgg'"),
    ],
    "tune-sampler": [
        *((f"{arguments} --data digits", message) for arguments, message in MODEL[:4]),
        *((f"--model {{root}}/model --data digits {a}", m) for a, m in COMMON),
        ("--model {root}/model", "give --data"),
        ("--model digits", r"belongs to the installation: .*--no-store"),
        ("--model {root}/model --data digits --num 1", "at least 2"),
        ("--model {root}/model --data digits --try-guidances 1", "guidance needs a model with classes"),
        ("--model digits --no-store --class none --try-guidances 1", "guidance has no effect on images without class"),
        ("--model {root}/model --data digits --try-steps 0", "--try-steps must be at least 1"),
        ("--model {root}/model --data digits --try-orders diagonal", "there is no order .diagonal."),
    ],
    "reproduce": [
        ("imagenet --checkpoint {root}/none.pth --data {root}/folder --out {out}", "none.pth"),
        ("imagenet --checkpoint {root}/text.png --data {root}/folder --out {out}", "text.png"),
        ("imagenet --checkpoint {root}/tokenizer --data {root}/folder --out {out}", "tokenizer only"),
        ("imagenet --checkpoint {root}/model --data {root}/none --out {out} --parts linear", "no data set"),
        ("imagenet --checkpoint {root}/model --data {root}/folder --out {out} --num 0", "at least 1"),
        ("cifar --checkpoint {root}/model --data {root}/folder --out {out}", "cifar"),
        *((f"--checkpoint {{root}}/model --data {{root}}/folder --out {{out}} {a}", m) for a, m in COMMON),
        (
            "--checkpoint {root}/model --data {root}/folder --out {out} --config {root}/none.json",
            "not readable as JSON",
        ),
        ("--checkpoint {root}/model --data {root}/folder --out {root}/photo.png/x", "is a file"),
        ("--checkpoint {root}/model --data {root}/folder --out {out} --parts everything", "parts"),
    ],
    "reconstruct": [
        *((f"{arguments} --image {{root}}/photo.png --out {{out}}.png", message) for arguments, message in MODEL),
        *((f"--model {{root}}/model --image {{root}}/photo.png --out {{out}}.png {a}", m) for a, m in COMMON),
        ("--model {root}/model --image --out {out}.png", "--image needs at least one file"),
        ("--model {root}/model --image {root}/none.png --out {out}.png", "no such file"),
        ("--model {root}/model --image {root}/text.png --out {out}.png", "cannot read"),
        ("--model {root}/model --image {root}/photo.png --out {out}.gif", "must end in"),
        ("--model {root}/model --image {root}/photo.png --out {out}.png --mask-ratio 1.5", "must lie in"),
    ],
    "edit": [
        *((f"{a} --image {{root}}/square.png --box 0 0 8 8 --out {{out}}.png", message) for a, message in MODEL[:4]),
        *(
            (f"--model {{root}}/model --image {{root}}/square.png --box 0 0 8 8 --out {{out}}.png {a}", m)
            for a, m in COMMON
        ),
        *(
            (f"--model {{root}}/model --image {{root}}/square.png --out {{out}}.png {arguments}", message)
            for arguments, message in [
                ("", "exactly one of"),
                ("--box 0 0 8 8 --expand 4", "exactly one of"),
                ("--box 0 0 80 8", "not inside the image"),
                ("--box 8 8 8 8", "not inside the image"),
                ("--box 1 2 3", "box"),
                ("--mask {root}/photo.png", "must have the same size"),
                ("--mask {root}/none.png", "no such file"),
                ("--mask {root}/text.png", "cannot read"),
                ("--expand 1 2 3", "1 or 4 numbers"),
                ("--expand 0", "at least one positive"),
                ("--expand -3", "--expand must be at least 0"),
                ("--expand 30 0 0 0", "proportions"),
                ("--box 0 0 8 8 --num 0", "at least 1"),
                ("--box 0 0 8 8 --num 9223372036854775808", "--num must be at most 1,000"),
                ("--expand 10000000", "--expand must be at most 4,096"),
                ("--vary 1.5", "strength of variations"),
                ("--expand 4 --grow 2", "--grow has no effect with --expand"),
                ("--vary 0.5 --paste", "cannot be combined"),
                ("--box 0 0 8 8 --grow -1", "--grow must be at least 0"),
                ("--box 0 0 8 8 --class 1", "without classes"),
            ]
        ),
        ("--model {root}/model --image {root}/text.png --box 0 0 8 8 --out {out}.png", "cannot read"),
        (
            "--model {root}/model --image {root}/photo.png --box 0 0 4 20 --out {out}.png",
            r"columns 5 to 25 and rows 0 to 20 of 30 x 20; add --full-size .* or mark pixels inside",
        ),
    ],
    "convert": [
        ("{root}/none.pth --out {out}", "no file"),
        ("{root}/photo.png --out {out}", "photo.png"),
        ("{root}/text.png --out {out}", "text.png"),
        ("--out {out}", "file"),
        ("{root}/empty --out {out}.pth", "holds no model|converted"),
        ("{root}/model --out {out}", "must end in"),
        ("{root}/model/transformer.safetensors --out {out}", "transformer.safetensors"),
        ("{root}/photo.png --out {out} --config {root}/none.json", "not readable as JSON"),
        ("{root}/photo.png --out {out} --config {root}/text.yaml", "not readable as JSON"),
        ("{root}/photo.png --out {root}/photo.png/x", "is a file"),
        ("{root}/photo.png --out {out} --frobnicate", "frobnicate"),
    ],
    "serve": [
        *(case for case in MODEL),
        *COMMON[:2],
        ("--port 0", "--port must be at least 1"),
        ("--port 70000", "--port must be at most 65,535"),
        ("--host 203.0.113.7", "cannot listen on 203.0.113.7, port 7860"),
        ("--model {root}/tokenizer", "without a transformer"),
        ("--model {root}/model --folder {root}/none", "none"),
        ("--model {root}/model --folder {root}/empty", "no image"),
    ],
    "report": [
        ("{root}/none", "none"),
        ("{root}/empty", "empty"),
        ("{root}/photo.png", "photo.png"),
        ("{root}/model", "model"),
        ("{root}/folder", "folder"),
        ("{root}/tokens", "tokens"),
        ("", "run"),
        ("{root}/none --frobnicate", "frobnicate"),
        ("{root}/none {root}/empty", "empty"),
        ("{root}/text.yaml", "text.yaml"),
    ],
    "plan": [
        *RECIPE,
        ("--images 0", "--images must be at least 1"),
        ("--recipe smoke --seed x", "seed"),
        ("--devices 0", "--devices must be at least 1"),
        ("--recipe imagenet-base --device h100 --devices 7", "cannot be shared by 7 devices"),
        ("--recipe imagenet-base --device h100 --share 2", "a share of the peak above 0"),
        ("--recipe imagenet-base --device v100 --precision bf16", "v100 does not multiply bfloat16"),
        ("--recipe cifar10-mae --device h100", "describe mage and maskgit, not mae"),
        ("--recipe smoke --set model.width=100000000000", r"model: width 1e\+11 is beyond any network's, at most"),
        ("--recipe smoke --set tokenizer.width=1000000000", r"tokenizer: width 1e\+09 is beyond any network's"),
        ("--recipe smoke --set pretraining.steps=9223372036854775808", "steps has more digits than 64 bits hold"),
        ("--recipe smoke --set pretraining.epochs=.nan", "epochs must be a finite number, not nan"),
        ("--recipe smoke --share 0.4", "--share and --strategy are of a plan for published devices"),
        ("--recipe smoke --strategy fsdp", "name one, such as --device h100"),
        ("--device h99", "device 'h99' is not available"),
        ("--device h100 --strategy zero", "strategy"),
    ],
    "benchmark": [
        *COMMON,
        ("--size gigantic", "no size 'gigantic'"),
        ("--paths generate dance", "no path 'dance'"),
        ("--paths", "paths"),
        ("--batch-sizes 0", "at least 1"),
        ("--batch-sizes many", "batch-sizes"),
        ("--rounds 0", "at least 1"),
        ("--steps 0", "at least 1"),
        ("--record {out}.txt", "must end in .json"),
        ("--record {root}/photo.png/x.json", "is a file"),
    ],
    "info": [
        *((arguments.replace("--model ", ""), message) for arguments, message in MODEL),
        *((f"{{root}}/model {arguments}", message) for arguments, message in COMMON),
    ],
    "models": [
        *((name, "no packaged model") for name in ("none", "../none", "{root}/none", "{root}/model", "{root}", ".")),
        ("--model digits", "Unrecognized"),
        ("one two", "Unrecognized"),
        ("--precision float16", "precision"),
        ("--sede 1", "sede"),
    ],
    "demo": [
        *((f"{arguments} --out {{out}}", message) for arguments, message in RECIPE),
        *((f"{TRAIN} {arguments}", message) for arguments, message in DATA + COMMON),
        (f"{TRAIN} --samples 3", "at least 100"),
        (f"{TRAIN} --minutes -1", "at least 0"),
    ],
}
EVALUATE = "tokenizer --data digits --tokenizer {root}/tokenizer"
CASES["evaluate"] = [
    *((f"tokenizer --data digits {a.replace('--model', '--tokenizer')}", message) for a, message in MODEL),
    ("tokenizer --tokenizer {root}/tokenizer", "give --data"),
    *((f"{EVALUATE} {arguments}", message) for arguments, message in DATA + COMMON),
    ("samples --tokenizer {root}/tokenizer", "samples"),
    (f"{EVALUATE} --num 1", "at least 2"),
    (f"{EVALUATE} --perceptual magic", "must be efflite0"),
    (f"{EVALUATE} --extractor magic", "no extractor 'magic'"),
    (f"{EVALUATE} --extractor inception --extractor-weights {{root}}/text.png", "SHA-256"),
    (f"{EVALUATE} --perceptual lpips-vgg --perceptual-weights {{root}}/none", "vgg16"),
    (f"{EVALUATE} --out {{root}}/photo.png/x", "is a file"),
]
PROBE_CASES = [
    *((f"{arguments} --data digits", message) for arguments, message in MODEL),
    *((f"--model {{root}}/model {arguments}", message) for arguments, message in DATA),
    *((f"--model {{root}}/model --data digits {arguments}", message) for arguments, message in COMMON),
    ("--model {root}/tokenizer --data digits", "without a transformer"),
    ("--model {root}/model --data digits --batch-size 0", "at least 1"),
    ("--model {root}/model --data {root}/folder/a", "no labels"),
]
CASES["probe"] = [
    *PROBE_CASES,
    ("--model {root}/model --data digits --epochs 0 --protocol lars", "--epochs must be at least 1"),
    ("--model {root}/model --data digits --crops random", "needs --protocol lars"),
    ("--model {root}/model --data digits --crops random --protocol lars --crop-scale 0 1", "crop scale"),
]
CASES["probe"] += [
    ("--model {root}/model --data digits --out {root}/folder", "nothing was overwritten"),
    ("--model {root}/model --data digits --out {root}/photo.png/x", "is a file"),
]
FOLDER = "{root}/folder --out {out}.csv"
CASES["embed"] = [
    *((f"{FOLDER} {arguments}", message) for arguments, message in MODEL),
    *(
        (f"{arguments.removeprefix('--data ')} --model {{root}}/model --out {{out}}.csv", message)
        for arguments, message in DATA
    ),
    *((f"{FOLDER} --model {{root}}/model {arguments}", message) for arguments, message in COMMON),
    (f"{FOLDER} --model {{root}}/tokenizer", "without a transformer"),
    (f"{FOLDER} --model {{root}}/model --batch-size 0", "at least 1"),
    (f"{FOLDER} --model {{root}}/model --split valid", "valid"),
    ("{root}/folder --model {root}/model --out {out}.txt", "must end in"),
    ("{root}/folder --model {root}/model --out {root}/photo.png/x.csv", "is a file"),
]
CASES["explore"] = [
    *((f"{{root}}/folder --out {{out}}.html {arguments}", message) for arguments, message in MODEL),
    *(
        (f"{arguments.removeprefix('--data ')} --model {{root}}/model --out {{out}}.html", message)
        for arguments, message in DATA
    ),
    ("{root}/folder --model {root}/model --out {out}.pdf", "must end in .html"),
    ("{root}/folder --model {root}/model --out {out}.html --clusters 41", "1 to 40 clusters"),
    ("{root}/folder --model {root}/model --out {out}.html --limit 0", "--limit must be at least 1"),
]
CASES["predict"] = [
    *((f"{FOLDER} {arguments}", message) for arguments, message in MODEL),
    (f"{FOLDER} --model {{root}}/model", "is no classifier.*mage probe"),
    *((f"{FOLDER} --model {{root}}/model {arguments}", message) for arguments, message in COMMON),
    ("{root}/folder --model {root}/model --out {root}/photo.png/x.csv", "is a file"),
]
CASES["knn"] = [*PROBE_CASES, ("--model {root}/model --data digits --neighbours 0", "--neighbours must be at least 1")]

CASES["fewshot"] = [
    *PROBE_CASES,
    ("--model {root}/model --data digits --counts 0", "--counts must be at least 1"),
    ("--model {root}/model --data digits --draws 0", "--draws must be at least 1"),
    ("--model {root}/model --data digits --counts 5000", "smallest class has"),
]
CASES["transfer"] = [
    *PROBE_CASES[:13],
    ("--model {root}/model {root}/none --data digits", "there is no model"),
    ("--model {root}/model --data {root}/folder/a", "no labels"),
]
ROBUST = "--model {root}/model --data digits"
CASES["robustness"] = [
    *PROBE_CASES[:13],
    (f"{ROBUST} --batch-size 0", "--batch-size must be at least 1"),
    (f"{ROBUST} --corruption-images 0", "--corruption-images must be at least 1"),
    (f"{ROBUST} --official {{root}}/empty --no-attacks", "holds no corruption"),
    (f"{ROBUST} --baseline resnet", "neither alexnet"),
    (f"{ROBUST} --baseline alexnet", "give its folder with --official"),
    (f"{ROBUST} --out {{out}}.txt", "must end in .json"),
]
FIND = "{root}/folder --model {root}/model --out {out}"
EXPORT = "--model {root}/model --onnx {out}"
CASES["export"] = [
    *((f"{arguments} --onnx {{out}}", message) for arguments, message in MODEL),
    *((f"{EXPORT} {arguments}", "Unrecognized") for arguments, _ in COMMON),
    ("--onnx {out}", "model"),
    ("--model {root}/model", "give --onnx FOLDER, --torch FOLDER, or both"),
    ("--model {root}/model --onnx {out} --torch {out}", "into two folders"),
    ("--model {root}/model --onnx {root}/folder", "holds no export"),
    ("--model {root}/model --torch {root}/photo.png", "is a file"),
    ("--model {root}/model --torch {root}/photo.png/x", "is a file"),
    (f"{EXPORT} --parts everything", "parts"),
    (f"{EXPORT} --parts classes", "has no part 'classes'; it has encode, decode, features, logits"),
    (f"{EXPORT} --pool most", "pool"),
    ("--model {root}/tokenizer --onnx {out} --parts features", "has no part 'features'; it has encode, decode"),
]
CASES["anomalies"] = [
    *((f"{{root}}/folder {arguments} --out {{out}}", message) for arguments, message in MODEL),
    *((f"{FIND} {arguments}", message) for arguments, message in COMMON),
    ("--model {root}/model --out {out}", "folder"),
    ("{root}/folder --model {root}/model", "out"),
    ("{root}/none --model {root}/model --out {out}", "no folder called"),
    ("{root}/empty --model {root}/model --out {out}", "holds no images"),
    ("{root}/text.png --model {root}/model --out {out}", "is a file"),
    ("{root}/folder --model {root}/tokenizer --out {out}", "without a transformer"),
    ("{root}/folder --model {root}/model --out {root}/photo.png", "is a file"),
    (f"{FIND} --parts 1", "--parts must be at least 2"),
    (f"{FIND} --parts 17", "between 2 and the 16 tokens"),
    (f"{FIND} --draws 0", "--draws must be at least 1"),
    (f"{FIND} --top 0", "--top must be at least 1"),
    (f"{FIND} --pool median", "pool"),
    (f"{FIND} --scale position", "training is unknown: give --normal"),
    (f"{FIND} --scale position --normal {{root}}/none", "no data set"),
    (f"{FIND} --scale error --normal {{root}}/empty", "holds no images"),
]
CASES["evaluate"] += [
    ("representations --data digits --model {root}/none", "there is no model"),
    ("representations --data digits --model {root}/tokenizer", "without a transformer"),
    ("representations --data digits --model {root}/model --parts colour", "no protocol .colour.; there are"),
    ("representations --data digits --model {root}/model --finetune huge", "no recipe 'huge'"),
    ("representations --data digits --model {root}/model --finetune small", "give --out"),
    ("representations --data {root}/folder/a --model {root}/model", "no labels"),
    ("representations --data digits --model {root}/model --attack-images 0", "--attack-images must be at least 1"),
]
ADAPT = "{root}/folder --from {root}/model --out {out}"
CASES["adapt"] = [
    *((f"{{root}}/folder --out {{out}} {a.replace('--model', '--from')}", message) for a, message in MODEL),
    *((f"{a.removeprefix('--data ')} --from {{root}}/trained --out {{out}}", message) for a, message in DATA),
    *((f"{ADAPT} {arguments}", message) for arguments, message in COMMON),
    ("--from {root}/model --out {out}", "folder"),
    ("{root}/folder --out {out}", "from"),
    ("{root}/folder --from {root}/model", "out"),
    ("{root}/folder --from {root}/tokenizer --out {out}", "without a transformer"),
    (ADAPT, "no recipe to continue by"),
    (f"{ADAPT} --minutes 0", "--minutes must be at least 1"),
    (f"{ADAPT} --minutes -5", "--minutes must be at least 1"),
    (f"{ADAPT} --tokenizer all", "tokenizer"),
    ("{root}/folder --from {root}/model --out {root}/photo.png/x", "is a file"),
    ("{root}/folder --from {root}/trained --out {root}/photo.png", "is a file"),
    ("{root}/folder --from {root}/trained --out {root}/model", "is a model folder"),
    ("{root}/folder --from {root}/trained --out {out} --set model.widht=3", "there is no setting"),
    ("{root}/one --from {root}/trained --out {out}", "holds 1 images to train on: adapting takes at least 10"),
]
CASES["shards"] = [
    ("--out {out}", "data"),
    ("{root}/folder", "out"),
    ("{root}/none --out {out}", "no data set and no folder"),
    ("{root}/empty --out {out}", "holds no images"),
    ("{root}/text.png --out {out}", "is a file"),
    ("{root}/none.tar --out {out}", r"none\.tar is missing"),
    ("{root}/x-{{3..1}}.tar --out {out}", "smaller number first"),
    ("ftp://host/x.tar --out {out}", "protocol 'ftp'"),
    ("{root}/folder --out {out} --size many", "no size: write a number and a unit"),
    ("{root}/folder --out {out} --size 1kB", "too small"),
    ("{root}/folder --out {out} --seed -1", "--seed must be at least 0"),
    ("{root}/folder --out {root}/photo.png", "is a file"),
    ("{root}/folder --out {root}/model", r"holds no shards\.json"),
]
SAMPLES = "generation --samples {root}/folder"
CASES["evaluate"] += [
    ("generation --samples {root}/none --data digits", "no folder"),
    ("generation --samples {root}/empty --data digits", "holds no images"),
    ("generation --samples {root}/folder", "give --data or --reference"),
    ("generation --samples {root}/folder --reference {root}/none.npz", "does not hold feature statistics"),
    ("generation --samples {root}/folder --data digits --extractor magic", "no extractor 'magic'"),
    (
        "generation --samples {root}/folder --data digits --extractor inception --extractor-weights {root}/text.png",
        "SHA-256",
    ),
    ("generation --samples {root}/folder --data digits --save-reference {out}.txt", "must end in .npz"),
    ("generation --samples {root}/model --data digits --num 1", "at least 2"),
    ("generation --samples {root}/model", "give --data"),
]
TUNE = "--model {root}/model --data digits --out {out}"
CASES["finetune"] = [
    *((f"{arguments} --data digits --out {{out}}", message) for arguments, message in MODEL),
    *((f"--model {{root}}/model --out {{out}} {arguments}", message) for arguments, message in DATA),
    *((f"{TUNE} {arguments}", message) for arguments, message in COMMON),
    ("--model {root}/tokenizer --data digits --out {out}", "no transformer"),
    ("--model {root}/model --data {root}/folder/a --out {out}", "no labels"),
    (f"{TUNE} --recipe huge", "no recipe 'huge'"),
    (f"{TUNE} --config {{root}}/wrong.yaml", "no setting 'modell'"),
    (f"{TUNE} --config {{root}}/none.yaml", "there is no recipe file"),
    (f"{TUNE} --set optim.layer_decay=2", "layer_decay must lie in"),
    (f"{TUNE} --set mixing.mixup=-1", "mixup and cutmix must be 0 or more"),
    (f"{TUNE} --resume", "no checkpoint to resume"),
    ("--model {root}/model --data digits --out {root}/photo.png/x", "is a file"),
]
CASES["push"] = [
    *((f"{arguments} --to me/toy", message) for arguments, message in MODEL),
    *((f"--model {{root}}/model --to me/toy {arguments}", message) for arguments, message in COMMON),
    ("--model {root}/model --to toy", "cannot upload to 'toy'.*hf://user/name"),
    ("--model {root}/model --to a/b/c", "cannot upload to 'a/b/c'"),
    ("--model {root}/model --to me/toy@x --revision y", "two revisions are given"),
    ("--model {root}/model", "to"),
    ("--model {root}/model --to me/toy", "HF_HUB_OFFLINE is set"),
]
NOTHING = [
    *COMMON,
    ("--device cuda:99", "not available"),
    ("--device", "device"),
    ("--precision", "precision"),
    ("--model {root}/model", "model"),
    ("--out {out}", "out"),
    ("--json=yes", "yes"),
    ("{root}/photo.png {root}/mask.png", "photo.png|mask.png"),
]
"""For commands that take nothing but a device, or one word."""
CASES["doctor"] = NOTHING
CASES["completion"] = [
    *(
        (f"bash {arguments}", message)
        for arguments, message in NOTHING
        if "quantum" not in arguments and "99" not in arguments
    ),
    ("", "shell|required|bash"),
    ("powershell", "powershell"),
]
CASES["compare"] = [
    ("", "runs"),
    ("{root}/none {root}/empty --out {out}.html", "none"),
    ("{root}/empty {root}/folder --out {out}.html", "empty"),
    ("{root}/model {root}/tokens --out {out}.html", "not a run folder"),
    ("{root}/folder --out {out}.html", "at least two"),
    ("{root}/folder {root}/folder --out {out}.html", "named twice"),
    ("{root}/photo.png {root}/square.png --out {out}.html", "photo.png"),
    ("{root}/model {root}/folder --out {out}.pdf", "must end in .html"),
    ("{root}/model {root}/folder --out {root}/photo.png/x.html", "is a file"),
    ("{root}/model {root}/folder --frobnicate", "frobnicate"),
]


def test_every_command_is_tried_with_ten_bad_inputs() -> None:
    from mage.cli.main import COMMANDS

    assert set(CASES) == set(COMMANDS)
    assert all(len(cases) >= 10 for cases in CASES.values())


@pytest.mark.parametrize(
    ("name", "arguments", "message"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    name: str,
    arguments: str,
    message: str,
    disk: SimpleNamespace,
    command: Callable[..., SimpleNamespace],
    tmp_path: Path,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in disk.root.rglob("*")}
    words = [word.format(root=disk.root, out=tmp_path / "out") for word in arguments.split()]
    result = command(name, *words)
    assert result.code == 2, result.err
    assert result.out == ""
    last = result.err.strip().splitlines()[-1]
    assert last.startswith(f"mage {name}: error: ")
    import re

    assert re.search(message, last), last
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in disk.root.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--reference {here}/missing.npz", "missing.npz"),
        ("--reference {here}/narrow.npz", "the reference narrow has features of 3 numbers, efflite0 of"),
        ("--reference {here}/other.npz", "the reference other has features of inception, not of efflite0"),
        ("--data {here}/lone", "has train/ but no test/"),
    ],
)
def test_what_samples_are_compared_with_is_looked_at_before_any_is_generated(
    arguments: str,
    message: str,
    disk: SimpleNamespace,
    command: Callable[..., SimpleNamespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mage.Mage, "generate", lambda *_, **__: pytest.fail("images were generated"))
    images.save_png(tmp_path / "lone" / "train" / "a.png", torch.zeros(1, 8, 8))
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3), extractor="inception")
    result = command(
        "evaluate", "generation", "--samples", disk.root / "model", *arguments.format(here=tmp_path).split()
    )
    assert result.code == 2, result.err
    assert message in result.err


def test_an_unknown_command_names_the_known_ones(command: Callable[..., SimpleNamespace]) -> None:
    result = command("genrate")
    assert result.code == 2
    assert "generate" in result.err
