"""Recipes: the configuration of a training run as one typed tree; `mage.runs` executes them."""

from mage.recipes.finetune import FINETUNES as FINETUNES
from mage.recipes.finetune import FinetuneRecipe as FinetuneRecipe
from mage.recipes.named import RECIPES as RECIPES
from mage.recipes.resolve import Choice as Choice
from mage.recipes.resolve import named as named
from mage.recipes.resolve import resolve as resolve
from mage.recipes.schema import Recipe as Recipe
