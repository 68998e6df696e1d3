"""Recipes: a YAML file and flags over it, checked, become the settings of a run."""

from stonk_trainer.recipe.parse import *
