"""Training and evaluation runs: functions that take a recipe and a launch and fill a run folder."""

from mage.runs.adapt import adapt as adapt
from mage.runs.embed import embed as embed
from mage.runs.finetune import finetune as finetune
from mage.runs.launch import Launch as Launch
from mage.runs.predict import predict as predict
from mage.runs.pretrain import pretrain as pretrain
from mage.runs.shards import shards as shards
from mage.runs.tokenizer import load_tokenizer as load_tokenizer
from mage.runs.tokenizer import train_tokenizer as train_tokenizer
from mage.runs.tokens import tokenize as tokenize
