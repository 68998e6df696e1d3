"""`stonk check RECIPE [--key value ...]`: what can be found before a run, within a minute and without training.

The recipe, the model's files, the data and what is left out of it, lengths against the limits, the first example as the
trainer sees it, the rewards of a good, a bad and an empty answer, what a step is made of, memory and disk. What lies on
the Hub and cannot be asked for is reported, and is not an error.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlparse

from stonk_trainer import recipe
from stonk_trainer.errors import Unreachable, UserError, exits_cleanly, explained
from stonk_trainer.terminal import quiet_imports, start_log

USAGE = """usage: stonk check RECIPE [--key value ...]

Checks a recipe of stonk sft or stonk grpo, with the flags it would be run with: recipe, model, data, lengths, the first
example, rewards, a step, memory, disk. Nothing is trained. Exit status 0, or 2 with what to put right.

RECIPE, or --config RECIPE, is a YAML file or the name of a shipped recipe; --trainer sft or grpo says which where the
keys of the recipe do not.

example: stonk check stocks/demo/stage1 --lr 2e-5"""


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE)
        return
    quiet_imports()
    if not argv[0].startswith("-"):
        argv = ["--config", *argv]
    trainer, argv = recipe.take_option(argv, "--trainer")
    trainer = trainer or trainer_of(argv)
    if trainer not in ("sft", "grpo"):
        raise UserError(f"--trainer: {trainer} is not sft or grpo")
    args = recipe.load_recipe(argv, trainer, model_must_exist=False)

    import torch

    from stonk_trainer.preflight.sections import SECTIONS, Check

    _go_offline_without_a_hub()
    start_log()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    run = Check(args, processes=int(os.environ.get("WORLD_SIZE", max(1, gpus))))
    for title, section in SECTIONS.items():
        print(f"\n{title}")
        try:
            with explained(title):
                section(run)
        except Unreachable as error:
            run.unknown.append(str(error))
        except UserError as error:
            maker = recipe_that_makes(str(error))
            if maker:
                run.unknown.append(f"{error} (the recipe {maker} makes it)")
            else:
                run.errors.append(str(error))
    print()
    for kind, lines in (("could not be checked", run.unknown), ("warning", run.warnings), ("error", run.errors[1:])):
        for line in lines:
            print(f"{kind}: {' '.join(line.split())}")
    if run.errors:
        raise UserError(run.errors[0])
    print("no errors found" + (", as far as could be checked" if run.unknown else ""))


def trainer_of(argv: list[str]) -> str:
    """sft or grpo: the one that knows more of a recipe's keys, sft where both know them all.

    Raises UserError without a recipe, and for one of another command.
    """
    name, flags = recipe.take_option(argv, "--config")
    if name is None:
        raise UserError("which recipe? usage: stonk check RECIPE [--key value ...]")
    keys = [*recipe.read_yaml(name), *re.findall(r"--([\w-]+)", " ".join(flags))]
    names = {recipe.ALIASES.get(key.replace("-", "_"), key.replace("-", "_")) for key in keys} - {"task"}
    task = recipe.task_class_of(argv)
    unknown = {trainer: sorted(names - recipe.known_keys(trainer, task)) for trainer in ("sft", "grpo")}
    trainer = min(unknown, key=lambda trainer: len(unknown[trainer]))
    if len(unknown[trainer]) > 2:
        some = ", ".join(unknown[trainer][:3])
        raise UserError(f"{name}: stonk check is for recipes of stonk sft and stonk grpo, which do not know {some}")
    return trainer


def _go_offline_without_a_hub() -> None:
    """Where the Hub does not answer, what is in the cache is used and the rest fails at once, not after retries."""
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((host.hostname, host.port or 443), timeout=3).close()
    except OSError:
        if not os.environ.get("HTTPS_PROXY") and not os.environ.get("https_proxy"):
            from huggingface_hub import constants

            constants.HF_HUB_OFFLINE = True
            os.environ["HF_HUB_OFFLINE"] = "1"


def recipe_that_makes(complaint: str) -> str | None:
    """The shipped recipe that makes the file or folder an error complains of, when that is not there yet."""
    for file in sorted(recipe.RECIPES.rglob("*.yaml")):
        if file.parent.name in ("tasks", "accelerate"):
            continue  # of lm-eval and accelerate
        values = recipe.read_yaml(str(file))
        made = next((values[key] for key in ("output_dir", "output", "out") if values.get(key)), None)
        if made and made in complaint and not Path(made).exists():
            return str(file.relative_to(recipe.RECIPES).with_suffix(""))
    return None


if __name__ == "__main__":
    main()
