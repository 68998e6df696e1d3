"""The sections of `stonk check`: each looks at one thing and prints what it finds."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch

from stonk_trainer import recipe
from stonk_trainer.errors import UserError
from stonk_trainer.models import chat, loading
from stonk_trainer.terminal import log
from stonk_trainer.training import checkpoints, guards, memory
from stonk_trainer.training.run_record import record_of_model

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedTokenizerBase
    from trl import SFTConfig

MIB, GIB = 2**20, 2**30
MOST_ROWS = 2000  # whose tokens are counted
FEWEST_GROUPS = 4  # over which advantages are scaled, for a proper score to stay one


@dataclass
class Check:
    """A run as far as it is known, and what was found.

    errors: what would end the run. warnings: a run that may not do what is meant. unknown: what could not be checked.
    """

    args: recipe.Arguments
    processes: int
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    config: PretrainedConfig | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    rows: dict[str, Dataset] = field(default_factory=dict)  # by split
    prompt_tokens: int = 0  # of the longest row that is trained on
    row_tokens: int = 0
    steps: int = 0

    @property
    def answers_per_generation(self) -> int:
        """Over all processes; the config counts those of this launch only."""
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        return self.args.train.generation_batch_size * self.processes // launched


def plan(run: Check) -> None:
    """What the recipe says, in words."""
    args, train, model = run.args, run.args.train, run.args.model
    kind = f"LoRA r {model.lora_r} (alpha {model.lora_alpha})" if model.use_peft else "all weights"
    bits = " over 4-bit weights" if model.load_in_4bit else " over 8-bit weights" if model.load_in_8bit else ""
    what = f"stonk {args.trainer}, task {args.values['task']}"
    _tell(f"{what}: {model.model_name_or_path} -> {train.output_dir}/best_model")
    rate = f"learning rate {train.learning_rate:g} ({train.lr_scheduler_type.value})"
    _tell(f"trains {kind}{bits}, {model.dtype} weights, {rate}")
    if args.trainer == "grpo":
        weights = train.reward_weights or [1.0] * len(args.task.args.reward)
        rewards = ", ".join(f"{name} x {weight:g}" for name, weight in zip(args.task.args.reward, weights, strict=True))
        _tell(f"rewards: {rewards}")
        kl = f"beta {train.beta:g} to the model it starts from" if train.beta else "none (beta 0)"
        _tell(f"KL: {kl}; loss {train.loss_type}; advantages scaled by {train.scale_rewards}")
        _check_scaling(run)
    checkpoints.resume_point(train.resume_from_checkpoint, train.output_dir)  # says which, or why none
    run.warnings += args.notes


def _check_scaling(run: Check) -> None:
    """A proper score divided by the spread of its own group pays for overconfidence (arXiv:2508.11800)."""
    train = run.args.train
    proper = run.args.task.proper_scores()
    if not proper:
        return
    what = f"{proper[0]} is a proper score, and "
    remedy = f"set scale_rewards: batch with at least {FEWEST_GROUPS} prompts a step, or none"
    groups = run.answers_per_generation // train.num_generations
    if train.multi_objective_aggregation == "normalize_then_sum":
        run.warnings.append(
            f"{what}normalize_then_sum divides it by its spread in the group, which pays for overconfidence: leave "
            "multi_objective_aggregation out"
        )
    elif train.scale_rewards == "group":
        run.warnings.append(
            f"{what}scale_rewards: group divides it by its spread in the group, which pays for overconfidence: {remedy}"
        )
    elif train.scale_rewards == "batch" and groups < FEWEST_GROUPS:
        run.warnings.append(f"{what}scale_rewards: batch over {groups} prompts still pays for overconfidence: {remedy}")


def model(run: Check) -> None:
    """The model's config and tokenizer; its weights are not read."""
    from transformers import AutoConfig

    args = run.args.model
    if args.model_name_or_path == recipe.NEW_MODEL:
        with tempfile.TemporaryDirectory() as folder:
            run.args.task.new_model(Path(folder), run.args.train.seed)
            run.config, run.tokenizer = AutoConfig.from_pretrained(folder), loading.load_tokenizer(folder)
        _tell(f"a new one: {_size(run.config)}")
        return
    trust = run.args.train.trust_remote_code
    located = loading.locate_model(
        args.model_name_or_path, run.args.train.output_dir, args.model_revision, merge=False, trust_remote_code=trust
    )
    template = getattr(run.args.train, "chat_template_path", None)  # of stonk sft
    tokenizer = loading.load_tokenizer(located, args.model_revision, trust, template)
    run.args.task.check_tokenizer(tokenizer, args.model_name_or_path)
    run.tokenizer = tokenizer
    if run.args.trainer == "grpo" and tokenizer.chat_template and not chat.ends_answers(tokenizer):
        run.warnings.append("the chat template ends an answer with no stop token: a model it trained does not stop")
    try:
        run.config = AutoConfig.from_pretrained(located, revision=args.model_revision, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model {located}: config.json cannot be read: {reason}") from error
    loading.check_weights(located, args, trust)
    _tell(f"{located}: {_size(run.config)}")
    if record := record_of_model(args.model_name_or_path):
        _tell(f"from {record['stage']}, {record['steps']} steps")


def data(run: Check) -> None:
    """Rows of each split; the task, and the model's chat template, say what they leave out and why."""
    task = run.args.task
    rows = task.sft_dataset if run.args.trainer == "sft" else task.rl_dataset
    splits = ["train"] + ["validation"] * (run.args.train.eval_strategy != "no")
    for split in splits:
        run.rows[split] = rows(split)
        if run.tokenizer is not None:
            run.rows[split] = chat.rendered_whole(run.rows[split], run.tokenizer, split)
        _tell(f"{split}: {len(run.rows[split]):,} rows")
    trained = record_of_model(run.args.model.model_name_or_path).get("data", {}).get("train") or {}
    held_out = task.data.get("validation")
    if held_out and held_out.first and held_out.first <= str(trained.get("last") or ""):
        run.warnings.append(
            f"the model was trained on days up to {trained['last']}, and validation begins on {held_out.first}: it is "
            "not on unseen days; set train_end to that of the earlier stage, or a later one"
        )


def lengths(run: Check) -> None:
    """Tokens of prompts and whole rows, against the limits."""

    if run.tokenizer is None or "train" not in run.rows:
        return _tell("not without the model's tokenizer and the data")
    train, rows = run.args.train, run.rows["train"]
    some = rows.select(np.linspace(0, len(rows) - 1, MOST_ROWS).astype(int)) if len(rows) > MOST_ROWS else rows
    positions = getattr(run.config, "max_position_embeddings", None)
    prompts_B, wholes_B = chat.token_lengths(some, run.tokenizer)
    if run.args.trainer == "sft":
        limit = train.max_length or wholes_B.max()
        fits = wholes_B <= limit
        if prompts_B.any():
            _tell(f"prompt tokens:  {_spread(prompts_B)}")
        _tell(f"tokens of a row: {_spread(wholes_B)}; max_length {train.max_length}: {(~fits).mean():.1%} left out")
        if not fits.any():
            raise UserError(f"max_length: {train.max_length}: every row is longer: set it to {wholes_B.max()}")
        if (~fits).mean() > 0.1:
            run.warnings.append(
                f"max_length {train.max_length} leaves out {(~fits).mean():.0%} of the rows: "
                f"{np.percentile(wholes_B, 99):.0f} would keep 99%"
            )
        run.prompt_tokens, run.row_tokens = int(prompts_B[fits].max()), int(wholes_B[fits].max())
    else:
        run.prompt_tokens = int(prompts_B.max())
        run.row_tokens = run.prompt_tokens + train.max_completion_length
        _tell(f"prompt tokens: {_spread(prompts_B)}; answers of at most {train.max_completion_length}")
    if len(some) < len(rows):
        _tell(f"(of {len(some):,} rows, evenly drawn)")
    if positions and run.row_tokens > positions:
        raise UserError(
            f"the longest row has {run.row_tokens} tokens, and the model has {positions} positions: show less in the "
            "prompt, or lower max_completion_length or max_length"
        )


def example(run: Check) -> None:
    """The first row as the trainer sees it: what is learnt of it, or the prompt and what answers to it earn."""
    if "train" not in run.rows:
        return _tell("not without the data")
    row = run.rows["train"][0]
    if run.args.trainer == "grpo":
        _show_rewards(run, row)
    elif run.tokenizer is None:
        _tell("not without the model's tokenizer")
    else:
        _show_learnt(run.args, row, run.tokenizer)


def _show_learnt(args: recipe.Arguments, row: dict, tokenizer: PreTrainedTokenizerBase) -> None:
    """Text in green is trained on; the rest is context. Without colour, it is enclosed in ⟦ and ⟧."""
    from rich.console import Console
    from rich.text import Text

    ids, mask = learnt(args.train, row, tokenizer)
    console, text = Console(highlight=False, soft_wrap=True), Text()
    for learns, run_of in itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
        part = tokenizer.decode([token for token, _ in run_of])  # together: a letter may be several tokens
        marked = f"⟦{part}⟧" if learns and not console.is_terminal else part
        text.append(marked, style="green" if learns else "dim")
    console.print(text)
    _tell(f"{sum(mask)} of {len(mask)} tokens are trained on ({'green' if console.is_terminal else 'between ⟦ and ⟧'})")
    if not any(mask):
        raise UserError(
            "the first row has no token to train on: assistant_only_loss needs a chat template that marks answers "
            "({% generation %}); completion_only_loss does without"
        )


def learnt(train: SFTConfig, row: dict, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """(tokens of an SFT row, whether each is learnt), as TRL builds them."""
    if "input_ids" in row:
        labels = row.get("labels") or row["input_ids"]
        return row["input_ids"], [label != -100 for label in labels]
    messages = row["prompt"] + row["completion"]
    known = len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"])
    if train.assistant_only_loss:
        whole = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        return whole["input_ids"], [bool(mark) for mark in whole["assistant_masks"]]
    whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    only_answer = train.completion_only_loss is not False
    return whole, [not only_answer or place >= known for place in range(len(whole))]


def _show_rewards(run: Check, row: dict) -> None:
    prompt = row["prompt"]
    if isinstance(prompt, str):
        print(prompt)
    elif run.tokenizer is None:
        print("\n".join(message["content"] for message in prompt))
    else:
        print(run.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))
    task = run.args.task
    answers = task.examples(row)
    earned = task.earned([row] * len(answers), list(answers.values()), run.tokenizer)
    names = task.reward_names
    weights = run.args.train.reward_weights or [1.0] * len(names)
    totals = [sum(w * (r or 0.0) for w, r in zip(weights, one.values(), strict=True)) for one in earned]
    _tell(f"{'what is earned':<24}" + "".join(f"{name:>14}" for name in (*names, "total")))
    for name, one, total in zip(answers, earned, totals, strict=True):
        cells = "".join(f"{'-' if value is None else f'{value:.3f}':>14}" for value in (*one.values(), total))
        _tell(f"{name:<24}{cells}")
    for name, answer in answers.items():
        if answer:
            _tell(f"{name}: {' '.join(answer.split())[:300]}")
    if totals[0] <= max(totals[1:]):
        run.warnings.append("with these rewards and weights a good answer earns no more than a bad one")


def step(run: Check) -> None:
    """What one step is made of, and how many there are."""

    train, rows = run.args.train, len(run.rows.get("train", ()))
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps * run.processes
    devices = "1 device" if run.processes == 1 else f"{run.processes} devices"
    guards.check_optimisation(train)
    made = f"{devices} x {train.per_device_train_batch_size} x accumulation {train.gradient_accumulation_steps}"
    if run.args.trainer == "grpo":
        prompts = batch / train.num_generations
        _tell(f"{made} = {batch} answers, {prompts:g} prompts of {train.num_generations} answers each")
        needed = run.answers_per_generation // train.num_generations
        if rows and rows < needed:
            raise UserError(
                f"{rows} training rows do not fill one batch of {needed} prompts: give more rows, or lower "
                "per_device_train_batch_size or gradient_accumulation_steps"
            )
    else:
        _tell(f"{made} = {batch} rows")
    if not rows:
        run.steps = max(train.max_steps, 0)
        return
    if run.args.trainer == "grpo":  # a generation is learnt from in several steps, if the recipe says so
        batches = rows // needed * train.num_iterations * train.steps_per_generation
        epoch = max(1, int(batches // train.gradient_accumulation_steps))
    else:
        epoch = -(-rows // batch)
    run.steps = train.max_steps if train.max_steps > 0 else int(np.ceil(epoch * train.num_train_epochs))
    tokens = run.steps * batch * run.row_tokens
    total = f", at most {tokens / 1e6:.3g}M tokens" if tokens else ""
    _tell(f"{epoch:,} steps an epoch; {run.steps:,} steps in all{total}")
    if train.save_strategy == "steps" and train.save_steps > run.steps:
        run.warnings.append(f"save_steps {train.save_steps:g} of {run.steps} steps: no checkpoint before the end")
    warmup = train.warmup_steps if train.warmup_steps >= 1 else train.warmup_steps * run.steps
    if warmup >= run.steps:
        run.warnings.append(f"warmup_steps {warmup:g} of {run.steps} steps: the learning rate is never reached")
    if run.args.trainer == "grpo" and run.args.options.stop_at_milestone and train.eval_strategy == "no":
        run.warnings.append("stop_at_milestone needs evaluations: eval_strategy is no")
    of_text = "input_ids" not in run.rows["train"].column_names
    if run.args.trainer == "sft" and train.packing and of_text and not run.args.model.attn_implementation:
        run.warnings.append("packing without FlashAttention lets rows of one pack see each other: packing: false")


def room(run: Check) -> None:
    """Memory of a device by part, and the disk that checkpoints take, against what there is."""

    if run.config is None or not run.row_tokens:
        return _tell("not without the model's config and the lengths")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths_ = run.prompt_tokens, run.row_tokens - run.prompt_tokens, run.processes, device
    phases = memory.estimate(run.config, run.args, *lengths_)
    need, peak = memory.total(phases), memory.peak(phases)
    for part, size in phases[peak].items():
        if size >= MIB / 2:
            _tell(f"{part:<28}{size / MIB:>10,.0f} MiB")
    there = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    place = "on this GPU" if device == "cuda" else "on this machine"
    _tell(f"about {need / GIB:.1f} GiB at its peak ({peak}); {there / GIB:.1f} GiB are free {place}")
    _disk(run, phases)
    if need > there:
        raise UserError(
            f"memory: about {need / GIB:.1f} GiB are needed and {there / GIB:.1f} are free {place}: "
            + guards.what_to_shrink(run.config, run.args, *lengths_)
        )


def _disk(run: Check, phases: dict) -> None:
    train, parts = run.args.train, phases["step"]
    weights = sum(size for part, size in parts.items() if part.startswith("weights"))
    checkpoint = (parts.get("LoRA") or weights) + parts.get("optimiser", 0)
    every = train.save_steps if train.save_steps >= 1 else train.save_steps * run.steps
    saves = {"no": 0, "epoch": np.ceil(train.num_train_epochs)}.get(train.save_strategy, run.steps // max(every, 1))
    saves = int(saves) or int(train.save_strategy != "no")
    kept = min(saves, train.save_total_limit or saves)
    model = memory.saved_bytes(run.config, run.args)
    need = (kept + (kept > 0)) * checkpoint + model
    folder = Path(train.output_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    _tell(
        f"disk: {kept} checkpoints of about {checkpoint / MIB:,.0f} MiB, one more while it is written, and "
        f"{model / GIB:.1f} GiB of models: {need / GIB:.1f} GiB; {free / GIB:.1f} GiB are free"
    )
    if need > free:
        run.errors.append(
            f"disk: about {need / GIB:.1f} GiB are needed in {folder} and {free / GIB:.1f} are free: lower "
            "save_total_limit, or give another folder with --out"
        )


SECTIONS: dict[str, Callable[[Check], None]] = {
    "Plan": plan, "Model": model, "Data": data, "Lengths": lengths, "First example": example, "A step": step,
    "Memory and disk": room,
}  # fmt: skip


def _tell(text: str) -> None:
    log.info("  %s", text)


def _spread(counts: np.ndarray) -> str:
    return f"median {np.median(counts):.0f}, 95% below {np.percentile(counts, 95):.0f}, longest {counts.max()}"


def _size(config: PretrainedConfig) -> str:
    """Kind, layers and parameters of a model, without its weights."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(text)
    empty.tie_weights()
    count = sum(parameter.numel() for parameter in empty.parameters())
    return f"{config.model_type}, {text.num_hidden_layers} layers, {count / 1e6:,.4g}M parameters"
