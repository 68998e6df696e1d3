"""From a recipe and flags to the settings of a run: the task with its arguments, TRL's configs, and ours."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules
from stonk_trainer.recipe import machine
from stonk_trainer.recipe.arguments import Arguments
from stonk_trainer.recipe.checks import check, check_groups
from stonk_trainer.recipe.keys import ALIASES, CHOICES, EXAMPLES, NEW_MODEL, REINFORCE, SECRET, EvalRun, GRPORun, SFTRun
from stonk_trainer.recipe.parse import (
    action_of,
    build,
    canonical,
    check_mappings,
    find_recipe,
    merge,
    parse_file_value,
    read_config,
    read_yaml,
    strict_parser,
    take_option,
)
from stonk_trainer.task import BUILT_IN, Task, load_task
from stonk_trainer.terminal import quiet_imports

if TYPE_CHECKING:
    from trl import TrlParser

MODEL_CONFIGS = ("config.json", "adapter_config.json")  # one of these is in a model's folder


def load_recipe(argv: list[str] | None, trainer: str, model_must_exist: bool = True) -> Arguments:
    """Parse `--config FILE` and flags for `trainer` ("sft", "grpo" or "eval"); flags win over the file.

    model_must_exist: refuse a path that holds no model. Raises UserError naming file, key, value and the nearest valid
    key.
    """
    quiet_imports()
    argv = list(sys.argv[1:] if argv is None else argv)
    command = _without_secrets(f"stonk {trainer} {shlex.join(argv)}")
    task_name, path, file_values, flags, task_by_flag = _read_task(argv)
    cls = load_task(task_name, import_rules(path, task_by_flag, _trusted(flags)))
    if trainer in cls.UNSUPPORTED_COMMANDS:
        raise UserError(cls.UNSUPPORTED_COMMANDS[trainer])
    parser = _make_parser(trainer, cls)
    values, given_as_flags = merge(parser, path, file_values, flags, trainer)
    given = set(values)
    check_mappings(values)
    if trainer != "eval":
        _fill_in(parser, values)
    task_args = build(values, path, cls.Arguments)
    task = cls(task_args, imports=import_rules(path, "reward" in given_as_flags, _trusted(flags)))
    implied = task.trainer_settings(trainer, values)  # not saved: the keys they follow from may be changed
    _check_implied(values, implied)
    if trainer == "grpo":
        implied |= _implied_in_rl(parser, values, given_as_flags)
        check_groups(parser, values | implied)
    here = machine.settings(trainer, values)  # not saved either
    here |= {"ddp_find_unused_parameters": values.get("ddp_find_unused_parameters", False)}  # every parameter is used
    *parts, model = (build(values | implied | here, path, kind) for kind in _dataclasses(trainer))
    options, train = parts[0], parts[-1]
    task.model = None if model.model_name_or_path == NEW_MODEL else model.model_name_or_path
    task.max_completion_length = getattr(train, "max_completion_length", None)
    notes = machine.notes(model, here)
    args = Arguments(trainer, task, train, options, model, {"task": task_name, **values}, command, notes)
    check(args, given, model_must_exist)
    return args


def import_rules(path: str | None, named_by_flag: bool, trusted: bool) -> ImportRules:
    """Tasks and rewards are imported from the current folder, then the recipe's. A recipe beside a model came with it,
    from whoever made it: it imports nothing unless it is trusted, which only a flag can say."""
    folders = [Path.cwd()]
    if path:
        home = find_recipe(path).resolve().parent
        folders += [home] if home != folders[0] else []
        if not (named_by_flag or trusted) and any((home / name).is_file() for name in MODEL_CONFIGS):
            return ImportRules(
                refused=f"{path} lies beside a model, so it may be anyone's: name it with a flag, or in training pass "
                "--trust_remote_code true"
            )
    return ImportRules(tuple(folders), None)


def _trusted(flags: list[str]) -> bool:
    """Whether the flags say --trust_remote_code; a recipe cannot vouch for itself."""
    for flag, following in itertools.zip_longest(flags, flags[1:], fillvalue="--"):
        name, _, value = flag.replace("-", "_").partition("=")
        if name == "__trust_remote_code":
            value = value or ("true" if following.startswith("--") else following)
            return value.lower() == "true"
    return False


def task_class_of(argv: list[str] | None) -> type[Task]:
    """The task that a recipe or `--task` names. Raises UserError when neither does."""
    name, path, _, flags, by_flag = _read_task(list(sys.argv[1:] if argv is None else argv))
    return load_task(name, import_rules(path, by_flag, _trusted(flags)))


def _read_task(argv: list[str]) -> tuple[str, str | None, dict[str, Any], list[str], bool]:
    """(the task's name, the recipe's, its values, the flags, both without the task, whether a flag names the task)."""
    path, file_values, flags = read_config(argv)
    flag_task, flags = take_option(flags, "--task")
    named = file_values.pop("task", None)
    task_name = flag_task or named
    if task_name is None and {"-h", "--help"} & set(flags):
        task_name = next(iter(BUILT_IN))
    if task_name is None:
        raise UserError(f"no task: give --config RECIPE or --task, one of {', '.join(BUILT_IN)}")
    return str(task_name), path, file_values, flags, flag_task is not None


def load_command(argv: list[str] | None, command: str, arguments: type, example: str) -> Any:
    """Parse `--config FILE` and flags of a command that trains nothing into its dataclass `arguments`.

    As strict as a trainer's recipe; `task` is left aside. Raises UserError likewise.
    """
    quiet_imports()
    path, file_values, flags = read_config(list(sys.argv[1:] if argv is None else argv))
    _, flags = take_option(flags, "--task")
    file_values.pop("task", None)
    summary = (arguments.__doc__ or "").partition("\n")[0]
    parser = strict_parser((arguments,), f"stonk {command}", summary, f"stonk {command} {example}")
    values, _ = merge(parser, path, file_values, flags, command)
    return build(values, path, arguments)


def task_of_recipe(recipe: str, model: str | None = None, **overrides: Any) -> tuple[Task, dict[str, Any]]:
    """(the task of a recipe, all values of the recipe): how its rows are made, whoever reads them.

    model: the model whose rows they are, if not the recipe's. overrides: keys of the task that win over the recipe.
    Keys of a trainer are left aside. Raises UserError for a recipe that cannot be read or names no task, and for a
    value of the task that is wrong.
    """
    quiet_imports()
    values = read_yaml(recipe)
    if values.get("task") is None:
        raise UserError(f"{find_recipe(recipe)} names no task: add `task:`, one of {', '.join(BUILT_IN)}")
    rules = import_rules(recipe, named_by_flag=False, trusted=False)
    cls = load_task(str(values["task"]), rules)
    parser = strict_parser((cls.Arguments,), "stonk", "", "")
    own = {}
    for key, value in values.items():
        name = canonical(key, parser, "")
        if action_of(parser, name):
            own[name] = parse_file_value(parser, str(find_recipe(recipe)), name, value)
    task = cls(
        build(own | overrides, recipe, cls.Arguments),
        model=model or values.get("model_name_or_path"),
        max_completion_length=values.get("max_completion_length"),
        imports=rules,
    )
    return task, values


def known_keys(trainer: str, task: type[Task]) -> set[str]:
    """The keys a recipe of this trainer and task may have, under TRL's names."""
    return {field.name for cls in (*_dataclasses(trainer), task.Arguments) for field in fields(cls) if field.init}


def _without_secrets(command: str) -> str:
    return re.sub(rf"(--(?:{'|'.join(SECRET)})[ =])\S+", r"\1…", command)


def _dataclasses(trainer: str) -> tuple[type, ...]:
    """Ours, TRL's and the model's, without the task's."""
    from trl import GRPOConfig, ModelConfig, SFTConfig

    return {
        "sft": (SFTRun, SFTConfig, ModelConfig),
        "grpo": (GRPORun, GRPOConfig, ModelConfig),
        "eval": (EvalRun, ModelConfig),
    }[trainer]


def _make_parser(trainer: str, task: type[Task]) -> TrlParser:
    """TRL's parser over the dataclasses of this trainer and task; its errors are UserErrors."""
    parser = strict_parser(
        (*_dataclasses(trainer), task.Arguments),
        f"stonk {trainer}",
        "Every key of a recipe is a flag. Short forms: "
        + ", ".join(f"--{alias} ({key})" for alias, key in ALIASES.items()),
        f"stonk {trainer} --config {EXAMPLES[trainer]}",
    )
    for action in parser._actions:
        if action.dest in CHOICES[trainer]:
            action.choices = CHOICES[trainer][action.dest]
    return parser


def _fill_in(parser: TrlParser, values: dict[str, Any]) -> None:
    """Keys that follow from others when the recipe leaves them out."""
    if values.get("eval_strategy") not in (None, "no"):
        # One evaluation per checkpoint, so that "the best checkpoint" is one that was evaluated.
        values.setdefault("eval_steps", values.get("save_steps", parser.get_default("save_steps")))


def _implied_in_rl(parser: TrlParser, values: dict[str, Any], flags: set[str]) -> dict[str, Any]:
    """What `algorithm` and `batch_episodes` mean in TRL's keys. Raises UserError where a key says otherwise."""
    implied: dict[str, Any] = {}
    if values.get("algorithm") == "reinforce":
        for key, value in REINFORCE.items():
            if values.get(key, value) != value:
                raise UserError(
                    f"{key}: {values[key]} does not go with algorithm: reinforce, which means {key}: {value}; "
                    "set algorithm: grpo"
                )
        for key in ("steps_per_generation", "generation_batch_size"):
            if values.get(key) is not None:
                raise UserError(
                    f"{key}: {values[key]} does not go with algorithm: reinforce, which samples anew for every step; "
                    "leave it out, or set algorithm: grpo"
                )
        implied |= REINFORCE
    if values.get("batch_episodes") is not None:
        implied |= _batch_of_episodes(parser, values, flags)
    return implied


def _batch_of_episodes(parser: TrlParser, values: dict[str, Any], flags: set[str]) -> dict[str, Any]:
    if values["batch_episodes"] < 1:
        raise UserError(f"batch_episodes: {values['batch_episodes']} must be at least 1")
    size = "per_device_train_batch_size"
    if size in flags and "batch_episodes" not in flags:
        del values["batch_episodes"]  # the flag says it in other words, and wins over the file
        return {}
    if size in values and ("batch_episodes" in flags) == (size in flags):
        raise UserError(f"batch_episodes and {size} say the same: keep one")
    values.pop(size, None)
    return {size: values["batch_episodes"] * values.get("num_generations", parser.get_default("num_generations"))}


def _check_implied(values: dict[str, Any], settings: dict[str, Any]) -> None:
    """Keys of the trainer that follow from the task's: a recipe cannot say otherwise."""
    for key, value in settings.items():
        if values.get(key, value) != value:
            raise UserError(
                f"{key}: {values[key]} does not go with this task, which needs {key}: {value}; leave it out"
            )
