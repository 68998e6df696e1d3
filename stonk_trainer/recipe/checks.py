"""Values and combinations that parse but cannot work. Each error says which keys, and what to set instead."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.models import drafting
from stonk_trainer.models.loading import check_folder
from stonk_trainer.recipe.keys import AUTO, NEW_MODEL

if TYPE_CHECKING:
    from trl import TrlParser

    from stonk_trainer.recipe.arguments import Arguments

# Ranges that TRL does not check, or checks only in the middle of a run. A round bracket leaves its end out.
RANGES = {
    "(0, inf)": "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps num_train_epochs "
    "max_completion_length max_length lora_alpha kl_target stats_window batch_size num_generations_eval lag trials "
    "batch_episodes packed_tokens save_steps eval_steps logging_steps repetition_penalty adam_epsilon temperature",
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
}
RANGE_OF = {key: interval for interval, keys in RANGES.items() for key in keys.split()}
MAY_BE_ZERO = {"eval": ["temperature"]}  # the most probable answer


def check(args: Arguments, given: set[str], model_must_exist: bool) -> None:
    """Raise UserError for what cannot work. given: the keys of file and flags."""
    for part in (args.train, args.options, args.model, args.task.args):
        for key, value in vars(part).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                zero = key in MAY_BE_ZERO.get(args.trainer, ())
                _check_range(key, value, "[0, inf)" if zero else RANGE_OF.get(key, "(-inf, inf)"))
    if args.trainer != "sft":
        drafting.tokens_of(args.options.draft_tokens)
    if args.trainer == "eval":
        _check_evaluation(args, given)
    else:
        _check_training(args, given, model_must_exist)
    _check_packages(args)


def _check_training(args: Arguments, given: set[str], model_must_exist: bool) -> None:
    if not args.train.output_dir or "output_dir" not in given:
        raise UserError("output_dir is missing: say where the run's files go with --out FOLDER")
    _check_model(args, model_must_exist)
    _check_output(args.train.output_dir, [args.model.model_name_or_path])
    if args.train.max_steps == 0:
        raise UserError("max_steps: 0 trains nothing: leave it out for num_train_epochs, or give a positive number")
    resume = args.train.resume_from_checkpoint
    if resume and resume not in AUTO and not (Path(resume) / "trainer_state.json").is_file():
        raise UserError(
            f"resume_from_checkpoint: {resume} is not a checkpoint (it has no trainer_state.json): give one, or auto "
            "for the last one of output_dir"
        )
    _check_reporting(args.train.report_to)
    if args.trainer == "grpo":
        _check_grpo(args)


def _check_evaluation(args: Arguments, given: set[str]) -> None:
    run = args.options
    models = [] if run.predictions or run.audit_rows else run.models
    if not {"models", "predictions", "audit_rows"} & given:
        raise UserError("no model to judge: give --models FOLDER [FOLDER ...]; `models: []`: the baselines alone")
    if run.split == "train" and not (models or run.predictions or run.audit_rows):
        raise UserError("nothing to judge: baselines are fit on the training split; give --split test, or --models")
    _check_output(run.output_dir, models)
    for name in models:
        check_folder(name)
    if run.audit_prices and not run.audit_rows:
        raise UserError("audit_prices belongs to audit_rows: give the folder of the rows too")
    _check_weights(run.reward_weights, args.task.args.reward)


def _check_model(args: Arguments, must_exist: bool) -> None:
    name = args.model.model_name_or_path
    if not name:
        beta = getattr(args.train, "beta", 0)
        what = f"beta: {beta} has nothing to refer to: " if beta else ""
        raise UserError(f"{what}model_name_or_path is missing: give --model, or Stage I's model with --stage1_model")
    if name == NEW_MODEL and args.trainer != "sft":
        raise UserError(f"model_name_or_path: {NEW_MODEL}: RL needs a trained model: train one with stonk sft")
    if name != NEW_MODEL and must_exist:
        check_folder(name)
    if args.model.use_peft and "lm_head" in (args.model.lora_target_modules or []):
        raise UserError(
            "lora_target_modules: lm_head would not be trained, because TRL's loss reads the head's own weights: leave "
            "it out, or train the head whole with lora_modules_to_save: lm_head"
        )
    if (args.model.load_in_4bit or args.model.load_in_8bit) and not args.model.use_peft:
        raise UserError("load_in_4bit trains only through LoRA: set use_peft: true")


def _check_grpo(args: Arguments) -> None:
    _check_weights(args.train.reward_weights, args.task.args.reward)
    if args.train.use_vllm and (args.model.load_in_4bit or args.model.load_in_8bit):
        raise UserError("load_in_4bit and use_vllm do not go together: TRL would push packed 4-bit weights to vLLM")
    if args.train.remove_unused_columns:
        raise UserError("remove_unused_columns: true takes away what the rewards read: leave it out")
    if args.options.kl_target is not None and args.train.beta == 0:
        raise UserError("kl_target steers beta, which is 0: set beta to its starting value, such as 0.05")


def check_day(key: str, value: str | None) -> None:
    """Raise UserError unless `value` is None or a day written YYYY-MM-DD: days are compared as they are written."""
    try:
        right = value is None or date.fromisoformat(value).isoformat() == value
    except ValueError:
        right = False
    if not right:
        raise UserError(f"{key}: {value} is not a day (YYYY-MM-DD)")


def check_ranges(arguments: Any, ranges: Mapping[str, str]) -> None:
    """Raise UserError for the first number of a command's arguments that lies outside its interval; None may stand.

    ranges: names, with spaces between, by interval: {"[1, inf)": "samples horizon", "(0, 1]": "top_p"}.
    """
    for interval, names in ranges.items():
        for name in names.split():
            if getattr(arguments, name) is not None:
                _check_range(name, getattr(arguments, name), interval)


def check_groups(parser: TrlParser, values: dict[str, Any]) -> None:
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


def _check_range(key: str, value: float, interval: str) -> None:
    """Raise UserError for a number outside an interval such as "(0, 1]", and for one that is not finite."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    if math.isfinite(value) and above and below:
        return
    words = {
        "(-inf, inf)": "a finite number",
        "(0, inf)": "a finite number above 0",
        "[0, inf)": "a finite number, 0 or more",
    }
    other = f"at least {low:g}" if interval[0] == "[" and high == math.inf else f"in {interval}"
    raise UserError(f"{key}: {value} must be {words.get(interval, other)}")


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


def _check_packages(args: Arguments) -> None:
    """Raise UserError for what is asked for and is not installed, before TRL says so in terms of the model."""
    from importlib.util import find_spec

    from transformers.utils import import_utils

    number = re.fullmatch(r"flash_attention_([234])", args.model.attn_implementation or "")
    if number and not getattr(import_utils, f"is_flash_attn_{number[1]}_available")(kernels_fallback_ok=True):
        raise UserError(
            f"attn_implementation: {number[0]} needs a package that is not installed, or a GPU that it runs on: leave "
            "the key out for PyTorch's own attention (sdpa)"
        )
    if getattr(args.train, "use_vllm", False) and find_spec("vllm") is None:
        raise UserError("use_vllm: vLLM is not installed: pip install 'trl[vllm]', or leave the key out")


def _check_weights(weights: list[float] | None, rewards: list[str]) -> None:
    if weights is not None and len(weights) != len(rewards):
        given, names = len(weights), ", ".join(rewards)
        raise UserError(f"reward_weights has {given} values for {len(rewards)} rewards ({names}): give one each")
    if weights is not None and not all(map(math.isfinite, weights)):
        raise UserError(f"reward_weights: {' '.join(map(str, weights))}: each must be a finite number")
    if weights is not None and not any(weights):
        raise UserError("reward_weights are all 0: nothing is rewarded")
