"""Two examples for every command, shown in its help and checked by the tests."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("mage demo", "mage demo --recipe cifar10 --data-root data --out runs/cifar10"),
    "train-tokenizer": (
        "mage train-tokenizer --recipe cifar10 --data photos/ --out runs/photos-tokenizer",
        "mage train-tokenizer --recipe cifar10 --data photos/ --minutes 30 --out runs/photos-tokenizer",
        "mage train-tokenizer --recipe cifar10 --data photos/ --minutes 30 --out runs/photos-tokenizer --resume",
        "mage train-tokenizer --decoder-of runs/photos --data photos/ --minutes 20 --out runs/photos-decoder",
    ),
    "shards": (
        "mage shards photos/ --out shards --size 500MB",
        "mage shards cifar10 --data-root data --out cifar10-shards --size 20MB",
    ),
    "tokenize": (
        "mage tokenize --tokenizer runs/photos-tokenizer --data photos/ --out tokens --views 4",
        "mage tokenize --array text.npy --num-codes 128 --out text-tokens",
    ),
    "pretrain": (
        "mage pretrain --tokenizer runs/photos-tokenizer --minutes 60 --out runs/photos",
        "mage pretrain --recipe cifar10-mae --data-root data --out runs/mae",
    ),
    "adapt": (
        "mage adapt photos/ --from cifar10 --minutes 20 --out runs/photos",
        "mage adapt photos/ --from runs/cifar10 --minutes 60 --tokenizer keep --out runs/photos",
    ),
    "generate": (
        "mage generate --model runs/photos --num-images 64 --out samples",
        "mage generate --model runs/classes --class all --guidance 2 --out samples",
    ),
    "reconstruct": (
        "mage reconstruct --model runs/photos --image cat.jpg dog.jpg --out figure.png",
        "mage reconstruct --model runs/photos --image cat.jpg --mask-ratio 0.5 0.9 --steps 8 --out figure.png",
    ),
    "edit": (
        "mage edit --model runs/photos --image cat.jpg --box 10 10 20 20 --out edited.png",
        "mage edit --model runs/photos --image cat.jpg --expand 16 --full-size --out wider.png",
    ),
    "evaluate": (
        "mage evaluate tokenizer --tokenizer runs/photos-tokenizer --out runs/photos-tokenizer",
        "mage evaluate generation --samples runs/photos --num 1000",
    ),
    "tune-sampler": (
        "mage tune-sampler --model runs/photos",
        "mage tune-sampler --model runs/photos --try-orders halton --try-steps 4 8 --no-store",
    ),
    "explore": (
        "mage explore photos/ --model runs/photos --out photos.html",
        "mage explore photos/ --model runs/photos --clusters 8 --limit 5000 --out photos.html",
    ),
    "embed": (
        "mage embed photos/ --model runs/photos --out features.parquet",
        "mage embed cifar10 --model runs/photos --split test --pool both --out features.npz",
    ),
    "predict": (
        "mage predict holiday/ --model runs/classifier --out classes.csv",
        "mage predict holiday/ --model runs/finetuned --workers 4 --out classes.parquet",
    ),
    "probe": (
        "mage probe --model runs/photos --data photos/ --out runs/classifier",
        "mage probe --model runs/photos --data cifar10 --protocol lars --crops random",
    ),
    "knn": ("mage knn --model runs/photos --data photos/", "mage knn --model runs/photos --data cifar10 --pool both"),
    "fewshot": (
        "mage fewshot --model runs/photos --data photos/ --counts 1 5",
        "mage fewshot --model runs/photos --data cifar10 --draws 10",
    ),
    "finetune": (
        "mage finetune --model runs/photos --data photos/ --out runs/classifier",
        "mage finetune --model models/mage-base --recipe base --data imagenet/ --out runs/finetuned",
    ),
    "transfer": (
        "mage transfer --model runs/photos --data digits cifar10",
        "mage transfer --model runs/before runs/after --data photos/ --protocol ridge",
    ),
    "robustness": (
        "mage robustness --model runs/photos --data photos/",
        "mage robustness --model runs/photos --data imagenet/ --official ImageNet-C --baseline alexnet",
    ),
    "anomalies": (
        "mage anomalies new-photos/ --model runs/photos --out found",
        "mage anomalies new-photos/ --model runs/photos --draws 4 --pool mean --top 50 --out found",
    ),
    "doctor": ("mage doctor", "mage doctor --device cuda --json"),
    "completion": ("mage completion bash", "mage completion fish"),
    "push": (
        "mage push --model runs/photos --to somebody/photos --license cc-by-4.0",
        "mage push --model runs/photos --to somebody/photos --revision more-steps --private",
    ),
    "convert": (
        "mage convert mage-vitb-1600.pth vqgan_jax_strongaug.ckpt --out models/mage-base",
        "mage convert models/mage-base --out mage-base.pth",
    ),
    "export": (
        "mage export --model digits --onnx digits-onnx",
        "mage export --model runs/photos --torch photos-pt2 --parts encode features --pool both",
    ),
    "serve": ("mage serve", "mage serve --model digits runs/photos --folder photos/ --port 8080"),
    "report": ("mage report runs/photos", "mage report runs/demo --json"),
    "compare": ("mage compare runs/a runs/b", "mage compare runs/a runs/b --out comparison.html"),
    "reproduce": (
        "mage reproduce imagenet --checkpoint mage-vitb-1600.pth --tokenizer vqgan.ckpt --data imagenet/ --out r",
        "mage reproduce imagenet --checkpoint models/mage-base --data imagenet/ --out r --parts fewshot",
    ),
    "plan": (
        "mage plan --recipe cifar10 --data photos/",
        "mage plan --recipe imagenet-base --device h100 --devices 64 --strategy fsdp",
    ),
    "benchmark": ("mage benchmark", "mage benchmark --size base --batch-sizes 4 16 --record speed.json"),
    "info": ("mage info runs/photos", "mage info runs/photos --json"),
    "models": ("mage models", "mage models digits"),
}
