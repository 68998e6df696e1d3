"""Recipes: a flat YAML file and flags over it become the dataclasses of TRL and of the task. Strict.

Every key is parsed by TRL's own argument parser, from the file just as from a flag, so a wrong type or a value
outside its choices is caught in both. Nothing heavier than TRL's configs is imported here: a wrong recipe ends
before a trainer, a model or a dataset is touched.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import shlex
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import yaml

from stonk_trainer import tasks
from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules
from stonk_trainer.models.loading import check_folder
from stonk_trainer.terminal import quiet_imports
from stonk_trainer.training.checkpoints import AUTO

if TYPE_CHECKING:
    from argparse import Action

    from trl import TrlParser

    from stonk_trainer.task import Task

RECIPES = Path(__file__).parent.parent / "recipes"  # in a checkout a link to the folder beside the package

# Names users know from other tools → TRL's key.
ALIASES = {
    "kl_coef": "beta",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "batch": "per_device_train_batch_size",
    "lr": "learning_rate",
    "quantize": "load_in_4bit",
    "stage1_model": "model_name_or_path",
    "model": "model_name_or_path",
    "in": "model_name_or_path",
    "out": "output_dir",
    "steps": "max_steps",
}

EXAMPLES = {
    "sft": "stocks/demo/warmup",
    "grpo": "stocks/demo/stage1 --lr 2e-5",
    "eval": "stocks/demo/eval --models runs/demo/stage1/best_model",
}

JUST_MAPPINGS: tuple[str, ...] = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "generation_kwargs")
JUST_MAPPINGS += ("model_init_kwargs", "chat_template_kwargs", "dataset_kwargs")  # the others may also be a file's name

MODEL_CONFIGS = ("config.json", "adapter_config.json")  # one of these is in a model's folder

SECRET = ("hub_token",)  # keys whose values stay out of a run's folder

NEW_MODEL = "new"  # as model_name_or_path: random weights, of the sizes the task's keys say

# `algorithm: reinforce`, in TRL's keys: the loss, and samples of the policy itself.
REINFORCE = {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0, "num_iterations": 1}
REINFORCE |= {"multi_objective_aggregation": "sum_then_normalize", "top_entropy_quantile": 1.0, "entropy_coef": 0.0}
REINFORCE |= {"use_adaptive_entropy": False, "top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}

# Choices that TRL documents but declares as plain strings: without them a typo surfaces steps into the run.
CHOICES = {
    "sft": {"dtype": ["auto", "bfloat16", "float16", "float32"]},
    "grpo": {
        "dtype": ["auto", "bfloat16", "float16", "float32"],
        "loss_type": ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"],
        "scale_rewards": ["group", "batch", "none"],
        "importance_sampling_level": ["token", "sequence"],
        "multi_objective_aggregation": ["sum_then_normalize", "normalize_then_sum"],
        "vllm_mode": ["server", "colocate"],
    },
    "eval": {"dtype": ["auto", "bfloat16", "float16", "float32"]},
}


@dataclass
class SFTRun:
    """Keys of `stonk sft` beyond TRL's."""

    dry_run: bool = field(
        default=False, metadata={"help": "Check recipe, model and data, print the plan, train nothing."}
    )


@dataclass
class GRPORun(SFTRun):
    """Keys of `stonk grpo` beyond TRL's."""

    algorithm: Literal["grpo", "reinforce"] = field(
        default="grpo",
        metadata={
            "help": "grpo: as TRL's keys say. reinforce: on-policy, the group's mean as baseline, no clipping, no "
            "scaling by the spread, no KL."
        },
    )
    batch_episodes: int | None = field(
        default=None,
        metadata={"help": "Prompts per batch: sets per_device_train_batch_size to this x num_generations."},
    )
    shared_prefix: Literal["auto", "true", "false"] = field(
        default="auto",
        metadata={
            "help": "Compute each prompt once for its whole group. auto: where it can be done; true: an error where it "
            "cannot; false: as TRL does."
        },
    )
    skip_zero_variance: bool = field(
        default=False,
        metadata={"help": "Leave groups whose rewards are all equal out of the gradient pass, and their KL with them."},
    )
    resample_groups: int = field(
        default=0,
        metadata={
            "help": "Draw further prompts for such groups, up to so many times a batch (DAPO's dynamic sampling)."
        },
    )
    kl_target: float | None = field(
        default=None,
        metadata={"help": "Steer beta so that the KL to the reference stays near this value (nats per token)."},
    )
    stats_window: int = field(default=200, metadata={"help": "Completions in the sliding window of market_stats.json."})
    milestone_reward: float = field(default=0.8, metadata={"help": "Milestone: mean validation reward above this."})
    milestone_accuracy: float = field(default=0.8, metadata={"help": "Milestone: validation accuracy above this."})
    milestone_coherence: float = field(default=0.7, metadata={"help": "Milestone: validation coherence above this."})
    milestone_loss_std: float = field(
        default=0.5, metadata={"help": "Milestone: standard deviation of the recent losses below this."}
    )
    milestone_evaluations: int = field(
        default=2, metadata={"help": "Milestone: over this many evaluations in a row; 0: it is not judged."}
    )
    stop_at_milestone: bool = field(default=False, metadata={"help": "End the run when the milestone is reached."})


@dataclass
class EvalRun:
    """Keys of `stonk eval`."""

    models: list[str] = field(
        default_factory=list,
        metadata={"help": "Models (folder or name), judged on the same rows; none: the baselines alone."},
    )
    predictions: str | None = field(
        default=None,
        metadata={
            "help": "Judge the forecasts of this JSONL or CSV file (ticker, date, and completion or direction and "
            "confidence) instead of asking models."
        },
    )
    audit: bool = field(
        default=False,
        metadata={"help": "Also look for leaks: in the rows of every split, and in what models recall of outcomes."},
    )
    output_dir: str = field(default="runs/eval", metadata={"help": "Folder for summary.json and predictions.jsonl."})
    split: str = field(
        default="test", metadata={"help": "Split to judge on.", "choices": ["train", "validation", "test"]}
    )
    audit_rows: str | None = field(
        default=None,
        metadata={"help": "Only look for leaks, in rows built elsewhere: a folder of {train,validation,test}.jsonl."},
    )
    audit_prices: str | None = field(
        default=None, metadata={"help": "CSV of prices (ticker, date, close) to check audit_rows against."}
    )
    batch_size: int = field(default=32, metadata={"help": "Prompts generated together."})
    max_completion_length: int = field(default=512, metadata={"help": "Longest answer, in tokens."})
    temperature: float = field(default=0.0, metadata={"help": "0: the most probable answer; above: sampled."})
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward in the total, in the order of `reward`."}
    )
    cost_bps: float = field(
        default=5.0, metadata={"help": "Backtest: cost of trading, in hundredths of a percent of the amount traded."}
    )
    lag: int = field(
        default=1,
        metadata={"help": "Backtest: trading days from a signal to the first return it can earn; at least 1."},
    )
    long_only: bool = field(
        default=False, metadata={"help": "Backtest: hold nothing on a DOWN forecast instead of selling short."}
    )
    trials: int | None = field(
        default=None,
        metadata={"help": "Strategies tried, for the deflated Sharpe ratio; as many as the table has when left out."},
    )
    seed: int = field(default=42, metadata={"help": "Seed of sampling, of LightGBM and of the bootstrap."})


@dataclass
class Arguments:
    """A resolved recipe: what each part of a run reads, and `values`, the keys set by file and flags."""

    trainer: str
    train: Any  # SFTConfig, GRPOConfig or EvalRun
    run: Any  # SFTRun, GRPORun or EvalRun
    model: Any  # ModelConfig
    task: Any  # the task's Arguments
    values: dict[str, Any]
    command: str

    def save(self, folder: str | Path) -> None:
        """Write `recipe.yaml`: the keys of file and flags under TRL's names, ready to be run again."""
        text = f"# stonk {self.trainer}, as resolved from: {self.command}\n"
        values = {key: value for key, value in self.values.items() if key not in SECRET}
        (make_folder(folder, "output_dir") / "recipe.yaml").write_text(text + yaml.safe_dump(values, sort_keys=False))


def make_folder(path: str | Path, key: str) -> Path:
    """The folder, made where it is not there. Raises UserError naming `key` when it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: folder {path} cannot be made: {error.strerror}") from error
    return Path(path)


def load_recipe(argv: list[str] | None, trainer: str, model_must_exist: bool = True) -> tuple[Task, Arguments]:
    """Parse `--config FILE` and flags for `trainer` ("sft", "grpo" or "eval"); flags win over the file.

    Returns the task and its resolved arguments. model_must_exist: refuse a path that holds no model. Raises UserError
    naming file, key, value and the nearest valid key.
    """
    quiet_imports()
    argv = list(sys.argv[1:] if argv is None else argv)
    command = _without_secrets(f"stonk {trainer} {shlex.join(argv)}")
    task_name, path, file_values, flags = _read_task(argv)
    task = tasks.load(task_name)
    if trainer in task.NOT_FOR:
        raise UserError(task.NOT_FOR[trainer])
    parser = _make_parser(trainer, task)
    values, given_as_flags = _merge(parser, path, file_values, flags, trainer)
    given = set(values)
    if trainer != "eval":
        _fill_in(parser, values)
    implied = task.settings_from(values, trainer)  # follows from other keys, and is not saved: those may be changed
    _check_implied(values, implied)
    if trainer == "grpo":
        implied |= _implied_in_rl(parser, values, given_as_flags)
        _check_groups(parser, values | implied)
    here = {} if "use_cpu" in values or _has_accelerator() else {"use_cpu": True}  # of this machine, not of the recipe
    here |= {"ddp_find_unused_parameters": values.get("ddp_find_unused_parameters", False)}  # every parameter is used
    for key, value in values.items():
        if isinstance(value, str) and key in JUST_MAPPINGS:
            raise UserError(f"{key}: {value} is not a mapping: write it as JSON, such as '{{\"key\": 1}}'")
    parts = _build(parser, values | implied | here, path)
    values = {"task": task_name, **values}
    if trainer == "eval":
        run, model, task_args = parts
        train = run
    else:
        run, train, model, task_args = parts
        task_args.model = None if model.model_name_or_path == NEW_MODEL else model.model_name_or_path
        task_args.max_completion_length = getattr(train, "max_completion_length", None)
    # The flag alone: a recipe beside a model cannot vouch for itself.
    trusted = "trust_remote_code" in given_as_flags and getattr(train, "trust_remote_code", False)
    task_args.imports = import_rules(path, "reward" in given_as_flags, trusted)
    args = Arguments(trainer, train, run, model, task_args, values, command)
    _check(args, given, model_must_exist)
    return task, args


def import_rules(path: str | None, named_by_flag: bool, trusted: bool) -> ImportRules:
    """Rewards are imported from the current folder, then the recipe's. A recipe beside a model came with it, from
    whoever made it: it imports nothing unless it is trusted."""
    folders = [Path.cwd()]
    if path:
        home = find_recipe(path).resolve().parent
        folders += [home] if home != folders[0] else []
        if not (named_by_flag or trusted) and any((home / name).is_file() for name in MODEL_CONFIGS):
            return ImportRules(
                refused=f"{path} lies beside a model, so it may be anyone's: name the rewards with --reward, or in "
                "training pass --trust_remote_code true"
            )
    return ImportRules(tuple(folders), None)


def _without_secrets(command: str) -> str:
    return re.sub(rf"(--(?:{'|'.join(SECRET)})[ =])\S+", r"\1…", command)


def task_of(argv: list[str] | None) -> Task:
    """The task that a recipe or `--task` names. Raises UserError when neither does."""
    return tasks.load(_read_task(list(sys.argv[1:] if argv is None else argv))[0])


def _read_task(argv: list[str]) -> tuple[str, str | None, dict[str, Any], list[str]]:
    """(the task's name, the recipe's, its values without the task, the flags besides)."""
    path, file_values, flags = _read_config(argv)
    flag_task, flags = take_option(flags, "--task")
    named = file_values.pop("task", None)
    task_name = flag_task or named
    if task_name is None and {"-h", "--help"} & set(flags):
        task_name = next(iter(tasks.TASKS))
    if task_name is None:
        raise UserError(f"no task: give --config RECIPE or --task, one of {', '.join(tasks.TASKS)}")
    return str(task_name), path, file_values, flags


def load_command(argv: list[str], command: str, arguments: type, example: str) -> Any:
    """Parse `--config FILE` and flags of a command that trains nothing into its dataclass `arguments`.

    As strict as a trainer's recipe; `task` is left aside. Raises UserError likewise.
    """
    quiet_imports()
    path, file_values, flags = _read_config(argv)
    _, flags = take_option(flags, "--task")
    file_values.pop("task", None)
    parser = _strict_parser(
        (arguments,), f"stonk {command}", (arguments.__doc__ or "").partition("\n")[0], f"stonk {command} {example}"
    )
    values, _ = _merge(parser, path, file_values, flags, command)
    return _build(parser, values, path)[0]


def task_arguments(recipe: str, **overrides: Any) -> tuple[Task, Any, dict[str, Any]]:
    """(the task of a recipe, its arguments, all values of the recipe): how its rows are made, whoever reads them.

    overrides: keys of the task that win over the recipe. Keys of a trainer are left aside. Raises UserError for a
    recipe that cannot be read or names no task, and for a value of the task that is wrong.
    """
    quiet_imports()
    values = read_yaml(recipe)
    if values.get("task") is None:
        raise UserError(f"{find_recipe(recipe)} names no task: add `task:`, one of {', '.join(tasks.TASKS)}")
    task = tasks.load(str(values["task"]))
    parser = _strict_parser((task.Arguments,), "stonk", "", "")
    own = {}
    for key, value in values.items():
        canonical = _canonical(key, parser, "")
        if _action(parser, canonical):
            own[canonical] = _parse_file_value(parser, str(find_recipe(recipe)), canonical, value)
    return task, _build(parser, own | overrides, recipe)[0], values


def _read_config(argv: list[str]) -> tuple[str | None, dict[str, Any], list[str]]:
    """(the recipe's name, its values, the flags besides)."""
    path, flags = take_option(argv, "--config")
    return path, read_yaml(path) if path else {}, flags


def _merge(
    parser: TrlParser, path: str | None, file_values: dict[str, Any], flags: list[str], trainer: str
) -> tuple[dict[str, Any], set[str]]:
    """The values of file and flags under the parser's own keys, and which of them came as flags."""
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in file_values.items():
        canonical = _canonical(key, parser, trainer)
        if canonical in values:
            raise UserError(f"{path}: {spelled[canonical]} and {key} are the same key; keep one")
        spelled[canonical] = key
        values[canonical] = _parse_file_value(parser, path, canonical, value)
    namespace = _parse_flags(parser, [_canonical_flag(flag, parser, trainer) for flag in flags])
    return values | namespace, set(namespace)


def take_option(flags: list[str], option: str) -> tuple[str | None, list[str]]:
    """Take `option VALUE` or `option=VALUE` out of `flags`; the last one wins."""
    value, rest = None, []
    items = iter(flags)
    for item in items:
        if item == option:
            value = next(items, None)
            if value is None:
                raise UserError(f"{option} needs a value")
        elif item.startswith(option + "="):
            value = item.split("=", 1)[1]
        else:
            rest.append(item)
    return value, rest


def _canonical(name: str, parser: TrlParser, trainer: str) -> str:
    """The parser's name of a key: `kl_coef` → `beta`; a key that it knows by itself is its own name.

    Where TRL's key is not known, another name of the same may be: `batch` → `batch_size` of a codec's recipe.
    """
    key = ALIASES.get(name, name)
    if trainer == "eval" and key == "model_name_or_path":
        return "models"
    same = [alias for alias, of in ALIASES.items() if of == key]
    return next((known for known in (name, key, *same) if _action(parser, known)), name)


def _canonical_flag(flag: str, parser: TrlParser, trainer: str) -> str:
    """`--kl-coef=0.1` → `--beta=0.1`; what is no flag is left as it is."""
    if not flag.startswith("--") or len(flag) == 2:
        return flag
    name, equals, value = flag[2:].partition("=")
    return f"--{_canonical(name.replace('-', '_'), parser, trainer)}{equals}{value}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once: PyYAML would silently keep the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_recipe(name: str) -> Path:
    """A recipe file by path, or a shipped one by its name (`stocks/demo/stage1`)."""
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UserError(f"recipe {name} not found: give a YAML file, or the name of a shipped one such as stocks/stage1")


def read_yaml(name: str) -> dict[str, Any]:
    path = find_recipe(name)
    try:
        values = yaml.load(path.read_text(), _UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # a day such as 2020-02-30, a key that is a mapping
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path} is {found}: a recipe is `key: value` lines, such as task: stocks")
    return {str(key): value for key, value in values.items()}


def _dataclasses(trainer: str, task: Task) -> tuple[type, ...]:
    from trl import GRPOConfig, ModelConfig, SFTConfig

    config = {"sft": (SFTRun, SFTConfig), "grpo": (GRPORun, GRPOConfig), "eval": (EvalRun,)}[trainer]
    return *config, ModelConfig, task.Arguments


def known_keys(trainer: str, task: Task) -> set[str]:
    """The keys a recipe of this trainer and task may have, under TRL's names."""
    return {field.name for cls in _dataclasses(trainer, task) for field in fields(cls) if field.init}


def _make_parser(trainer: str, task: Task) -> TrlParser:
    """TRL's parser over the dataclasses of this trainer and task; its errors are UserErrors."""
    parser = _strict_parser(
        _dataclasses(trainer, task),
        f"stonk {trainer}",
        "Every key of a recipe is a flag. Short forms: "
        + ", ".join(f"--{alias} ({key})" for alias, key in ALIASES.items()),
        f"stonk {trainer} --config {EXAMPLES[trainer]}",
    )
    for action in parser._actions:
        if action.dest in CHOICES[trainer]:
            action.choices = CHOICES[trainer][action.dest]
    return parser


def _strict_parser(dataclasses: tuple[type, ...], prog: str, description: str, example: str) -> TrlParser:
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message):
            raise UserError(message)

    return Parser(
        dataclasses,
        allow_abbrev=False,
        prog=prog,
        usage=f"{prog} --config RECIPE.yaml [--key value ...]",
        description=description,
        epilog=f"example: {example}",
    )


def _action(parser: TrlParser, key: str) -> Action | None:
    return next((a for a in parser._actions if a.dest == key and a.option_strings), None)


def _hint(parser: TrlParser, key: str) -> str:
    known = {a.dest for a in parser._actions} | set(ALIASES)
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _parse_file_value(parser: TrlParser, path: str | None, key: str, value: Any) -> Any:
    """One key of the file through the same conversion and choices as its flag."""
    action = _action(parser, key)
    if action is None:
        raise UserError(f"{path}: unknown key {key}: {value}{_hint(parser, key)}")
    if value is None:
        if key not in _optional_keys(parser):
            raise UserError(f"{path}: {key} is empty: give a value, or leave the key out")
        return None
    choices = [str(c.value if hasattr(c, "value") else c) for c in action.choices or []]
    if isinstance(value, bool):  # YAML reads a bare `no` as false, and `true` is no text to it
        value = next((word for word in (str(value).lower(), "no" if not value else "yes") if word in choices), value)
    many = action.nargs in ("+", "*")
    if isinstance(value, dict):
        if not _takes_mapping(parser, key):
            raise UserError(f"{path}: {key}: {value} is a mapping, but one value is expected")
        try:
            words = [json.dumps(value)]
        except (ValueError, TypeError) as error:  # an alias of itself, a date as a key
            raise UserError(f"{path}: {key} is no mapping of plain values: {error}") from error
    elif isinstance(value, list):
        if not many:
            raise UserError(f"{path}: {key}: {value} is a list, but one value is expected")
        if not value:
            return []
        if any(isinstance(v, bool) for v in value):
            raise UserError(f"{path}: {key}: {value}: YAML reads ON, NO and the like as booleans: put them in quotes")
        words = [str(v) for v in value]
    else:
        words = [str(value)]
    try:
        return getattr(parser.parse_args([f"--{key}", *words]), key)
    except UserError as error:
        raise UserError(f"{path}: {key}: {value}: {str(error).partition(': ')[2] or error}") from error


def _hints_of(parser: TrlParser) -> dict[str, Any]:
    return {key: hint for cls in parser.dataclass_types for key, hint in get_type_hints(cls).items()}


def _optional_keys(parser: TrlParser) -> set[str]:
    """Keys that may be empty: their type admits None."""
    return {key for key, hint in _hints_of(parser).items() if type(None) in get_args(hint)}


def _takes_mapping(parser: TrlParser, key: str) -> bool:
    hint = _hints_of(parser)[key]
    return any(kind is dict or get_origin(kind) is dict for kind in (hint, *get_args(hint)))


def _parse_flags(parser: TrlParser, flags: list[str]) -> dict[str, Any]:
    """The flags that were given, parsed; an unknown one is an error with the nearest key."""
    from argparse import SUPPRESS

    defaults = {a: a.default for a in parser._actions}
    for action in parser._actions:
        action.default = SUPPRESS
    namespace, unknown = parser.parse_known_args(flags)
    for action, default in defaults.items():
        action.default = default
    if unknown:
        name = unknown[0]
        key = name.lstrip("-").partition("=")[0]
        what = f"unknown flag {name}" if name.startswith("--") else f"unexpected argument {name}"
        raise UserError(f"{what}{_hint(parser, key)}")
    return vars(namespace)


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
        if values["batch_episodes"] < 1:
            raise UserError(f"batch_episodes: {values['batch_episodes']} must be at least 1")
        if "per_device_train_batch_size" in flags and "batch_episodes" not in flags:
            del values["batch_episodes"]  # the flag says it in other words, and wins over the file
        elif "per_device_train_batch_size" in values and ("batch_episodes" in flags) == (
            "per_device_train_batch_size" in flags
        ):
            raise UserError("batch_episodes and per_device_train_batch_size say the same: keep one")
        else:
            values.pop("per_device_train_batch_size", None)
            group = values.get("num_generations", parser.get_default("num_generations"))
            implied["per_device_train_batch_size"] = values["batch_episodes"] * group
    return implied


def _check_implied(values: dict[str, Any], settings: dict[str, Any]) -> None:
    """Keys of the trainer that follow from the task's: a recipe cannot say otherwise."""
    for key, value in settings.items():
        if values.get(key, value) != value:
            raise UserError(
                f"{key}: {values[key]} does not go with this task, which needs {key}: {value}; leave it out"
            )


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _build(parser: TrlParser, values: dict[str, Any], path: str | None) -> list[Any]:
    parts = []
    for cls in parser.dataclass_types:
        names = {f.name for f in fields(cls) if f.init}
        try:
            parts.append(cls(**{k: v for k, v in values.items() if k in names}))
        except (ValueError, TypeError, ArithmeticError, ImportError, NotImplementedError, OSError) as error:
            raise UserError(f"{path + ': ' if path else ''}{error}") from error
    return parts


def _check_groups(parser: TrlParser, values: dict[str, Any]) -> None:
    """A step must hold whole groups of `num_generations` answers. TRL says so too, in terms of internal keys."""
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations")
    batch, accumulation, group = (values.get(key, parser.get_default(key)) for key in keys)
    for key, value in zip(keys, (batch, accumulation, group), strict=True):
        if value is None or value < 1:
            raise UserError(f"{key}: {value} must be at least 1")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    answers = batch * accumulation * processes
    plain = not values.keys() & {"generation_batch_size", "steps_per_generation"}
    if plain and answers % group:
        raise UserError(
            f"num_generations: {group} does not divide the {answers} answers of a step (per_device_train_batch_size "
            f"{batch} x gradient_accumulation_steps {accumulation} x {processes} processes): change one of them"
        )


# Ranges that the libraries below do not check, or check only in the middle of a run. (: the end does not belong to it.
RANGES = {
    "(0, inf)": "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps num_train_epochs "
    "max_completion_length max_length lora_alpha kl_target stats_window batch_size num_generations_eval lag trials "
    "batch_episodes save_steps eval_steps logging_steps repetition_penalty adam_epsilon temperature",
    "[0, inf)": "beta cost_bps max_grad_norm weight_decay warmup_steps milestone_loss_std milestone_evaluations "
    "resample_groups top_k epsilon delta dataloader_num_workers neftune_noise_alpha",
    "[1, inf)": "num_iterations steps_per_generation save_total_limit pad_to_multiple_of",
    "(0, 10)": "learning_rate",
    "(0, 1]": "top_p",
    "[0, 1]": "min_p label_smoothing_factor top_entropy_quantile",
    "[0, 1)": "lora_dropout adam_beta1 adam_beta2",
    "[1, 8192]": "lora_r",
    "[-1, 1000000000]": "max_steps",  # -1: as num_train_epochs says
    "[0, 4294967295]": "seed data_seed",
    "(-inf, inf)": "milestone_reward milestone_accuracy milestone_coherence",
}
RANGE_OF = {key: interval for interval, keys in RANGES.items() for key in keys.split()}
MAY_BE_ZERO = {"eval": ["temperature"]}  # the most probable answer


def _check_range(key: str, value: float, interval: str) -> None:
    """Raise UserError for a number outside an interval such as "(0, 1]", and for one that is not finite."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    if math.isfinite(value) and above and below:
        return
    words = {"(0, inf)": "a finite number above 0", "[0, inf)": "a finite number, 0 or more"}
    raise UserError(f"{key}: {value} must be {words.get(interval, f'in {interval}')}")


def _check(args: Arguments, given: set[str], model_must_exist: bool) -> None:
    """Values and combinations that parse but cannot work. Each line says which keys, and what to set."""
    for part in (args.train, args.run, args.model):
        for key, value in vars(part).items():
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                continue
            interval = "[0, inf)" if key in MAY_BE_ZERO.get(args.trainer, ()) else RANGE_OF.get(key)
            if interval:
                _check_range(key, value, interval)
    model = args.model
    if args.trainer == "eval":
        models = [] if args.run.predictions or args.run.audit_rows else args.run.models
        if not {"models", "predictions", "audit_rows"} & given:
            raise UserError("no model to judge: give --models FOLDER [FOLDER ...]; `models: []`: the baselines alone")
        if args.run.split == "train" and not (models or args.run.predictions or args.run.audit_rows):
            raise UserError("nothing to judge: baselines are fit on the training split; give --split test, or --models")
        _check_output(args.run.output_dir, models)
        for name in models:
            check_folder(name)
        if args.run.audit_prices and not args.run.audit_rows:
            raise UserError("audit_prices belongs to audit_rows: give the folder of the rows too")
        _check_weights(args.run.reward_weights, args.task.reward)
        return
    if not args.train.output_dir or "output_dir" not in given:
        raise UserError("output_dir is missing: say where the run's files go with --out FOLDER")
    if not model.model_name_or_path:
        beta = getattr(args.train, "beta", 0)
        what = f"beta: {beta} has nothing to refer to: " if beta else ""
        raise UserError(f"{what}model_name_or_path is missing: give --model, or Stage I's model with --stage1_model")
    if model.model_name_or_path == NEW_MODEL:
        if args.trainer != "sft":
            raise UserError(
                f"model_name_or_path: {NEW_MODEL}: RL needs a model that has learnt: train one with stonk sft"
            )
    elif model_must_exist:
        check_folder(model.model_name_or_path)
    _check_output(args.train.output_dir, [model.model_name_or_path])
    if args.train.max_steps == 0:
        raise UserError("max_steps: 0 trains nothing: leave it out for num_train_epochs, or give a positive number")
    resume = args.train.resume_from_checkpoint
    if resume and resume not in AUTO and not (Path(resume) / "trainer_state.json").is_file():
        raise UserError(
            f"resume_from_checkpoint: {resume} is no checkpoint (no trainer_state.json in it): give one, or auto for "
            "the last one of output_dir"
        )
    _check_reporting(args.train.report_to)
    if (model.load_in_4bit or model.load_in_8bit) and not model.use_peft:
        raise UserError("load_in_4bit trains only through LoRA: set use_peft: true")
    if args.trainer == "grpo":
        _check_weights(args.train.reward_weights, args.task.reward)
        if args.train.use_vllm and (model.load_in_4bit or model.load_in_8bit):
            raise UserError("load_in_4bit and use_vllm do not go together: TRL would push packed 4-bit weights to vLLM")
        if args.train.remove_unused_columns:
            raise UserError("remove_unused_columns: true takes away what the rewards read: leave it out")
        if args.run.kl_target is not None and args.train.beta == 0:
            raise UserError("kl_target steers beta, which is 0: set beta to its starting value, such as 0.05")


def _check_output(output_dir: str, models: list[str]) -> None:
    """The run's folder must be one that can be made, and saving into it must not replace a model it reads."""
    output = Path(output_dir).expanduser()
    try:
        output.resolve()
        if output.exists() and not output.is_dir():
            raise UserError(f"output_dir: {output_dir} is a file: give a folder")
        there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    except (OSError, ValueError) as error:  # a name that is too long, a NUL
        raise UserError(f"output_dir: {output_dir[:80]} cannot be a folder: {error}"[:300]) from error
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"output_dir: {output_dir} cannot be made: {there} is not a folder that can be written to")
    written = {(output / name).resolve() for name in (".", "best_model", "best_adapter", "merged_model")}
    for model in models:
        if Path(model).expanduser().is_dir() and Path(model).expanduser().resolve() in written:
            raise UserError(
                f"output_dir: {output_dir} would overwrite the model {model}: give another folder with --out"
            )


REPORTERS = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}  # the extra that brings each


def _check_reporting(names: list[str] | str | None) -> None:
    from importlib.util import find_spec

    for name in [names] if isinstance(names, str) else names or []:
        if name not in ("none", "all") and find_spec(REPORTERS.get(name, name)) is None:
            extra = f"pip install 'stonk-trainer[{REPORTERS[name]}]'" if name in REPORTERS else "it is not installed"
            raise UserError(f"report_to: {name}: {extra}; `none` keeps to the run's own files")


def _check_weights(weights: list[float] | None, rewards: list[str]) -> None:
    if weights is not None and len(weights) != len(rewards):
        given, names = len(weights), ", ".join(rewards)
        raise UserError(f"reward_weights has {given} values for {len(rewards)} rewards ({names}): give one each")
    if weights is not None and not all(map(math.isfinite, weights)):
        raise UserError(f"reward_weights: {' '.join(map(str, weights))}: each must be a finite number")
    if weights is not None and not any(weights):
        raise UserError("reward_weights are all 0: nothing is rewarded")
