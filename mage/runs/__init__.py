"""What the library does for its user, a verb a file: a recipe and a launch go in, a run folder comes out."""

from mage.runs.finetune import finetune as finetune
from mage.runs.launch import Launch as Launch
from mage.runs.pretrain import pretrain as pretrain
from mage.runs.tokenizer import load_tokenizer as load_tokenizer
from mage.runs.tokenizer import train_tokenizer as train_tokenizer
from mage.runs.tokens import tokenize as tokenize
