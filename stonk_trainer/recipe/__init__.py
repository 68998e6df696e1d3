"""Recipes: a YAML file and flags over it, checked, become the settings of a run.

`keys` are ours beside TRL's; `parse` reads YAML and flags into dataclasses; `checks` refuses what cannot work;
`resolve` puts a run together.
"""

from stonk_trainer.recipe.arguments import Arguments
from stonk_trainer.recipe.checks import check_day, check_ranges
from stonk_trainer.recipe.keys import ALIASES, AUTO, NEW_MODEL, EvalRun, GRPORun, SFTRun
from stonk_trainer.recipe.parse import RECIPES, find_recipe, read_yaml, take_option
from stonk_trainer.recipe.resolve import (
    import_rules,
    known_keys,
    load_command,
    load_recipe,
    task_class_of,
    task_of_recipe,
)

__all__ = [
    "ALIASES", "AUTO", "NEW_MODEL", "RECIPES", "Arguments", "EvalRun", "GRPORun", "SFTRun", "check_day", "check_ranges",
    "find_recipe", "import_rules", "known_keys", "load_command", "load_recipe", "read_yaml", "take_option",
    "task_class_of", "task_of_recipe",
]  # fmt: skip
