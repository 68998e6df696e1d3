"""The keys of a recipe that are ours, their short forms, and what TRL leaves unsaid about its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stonk_trainer.models import drafting
from stonk_trainer.options import option

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

SECRET = ("hub_token",)  # keys whose values stay out of a run's folder

NEW_MODEL = "new"  # as model_name_or_path: random weights, of the sizes the task's keys say

AUTO = ("auto", "last", "true", "True")  # as resume_from_checkpoint: the last whole checkpoint of output_dir

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

    dry_run: bool = option(False, "Check recipe, model and data, print the plan, train nothing.")
    trial_pass: bool = option(
        True,
        "Before step one, a forward and backward pass of the longest rows, so that a run too large for its device ends "
        "in the first minute; its gradients are dropped.",
    )


@dataclass
class GRPORun(SFTRun):
    """Keys of `stonk grpo` beyond TRL's."""

    algorithm: Literal["grpo", "reinforce"] = option(
        "grpo",
        "grpo: as TRL's keys say. reinforce: on-policy, the group's mean as baseline, no clipping, no scaling by the "
        "spread, no KL.",
    )
    batch_episodes: int | None = option(
        None, "Prompts per batch: sets per_device_train_batch_size to this x num_generations."
    )
    shared_prefix: Literal["auto", "true", "false"] = option(
        "auto",
        "Compute each prompt once for its whole group. auto: where it can be done; true: an error where it cannot; "
        "false: as TRL does.",
    )
    packed_tokens: int | None = option(
        None,
        "Distinct tokens of a forward pass at most, where prompts are shared; a larger micro-batch takes several, with "
        "the same loss, less memory and up to a third more time. Left out: one pass.",
    )
    draft_tokens: str = option("auto", drafting.HELP)
    skip_zero_variance: bool = option(
        False, "Leave groups whose rewards are all equal out of the gradient pass, and their KL with them."
    )
    resample_groups: int = option(
        0, "Draw new prompts for such groups, up to this many times a batch (DAPO's dynamic sampling)."
    )
    kl_target: float | None = option(
        None, "Steer beta so that the KL to the reference stays near this value (nats per token)."
    )
    stats_window: int = option(200, "Completions in the sliding window of market_stats.json.")
    milestone_loss_std: float = option(0.5, "Milestone: standard deviation of the recent losses below this.")
    milestone_evaluations: int = option(2, "Milestone: over this many evaluations in a row; 0: it is not judged.")
    stop_at_milestone: bool = option(False, "End the run when the milestone is reached.")


@dataclass
class EvalRun:
    """Keys of `stonk eval`."""

    models: list[str] = option([], "Models (folder or name), judged on the same rows; none: the baselines alone.")
    predictions: str | None = option(
        None,
        "Judge the forecasts of this JSONL or CSV file (ticker, date, and completion or direction and confidence) "
        "instead of asking models.",
    )
    audit: bool = option(
        False, "Also look for leaks: in the rows of every split, and in what models recall of outcomes."
    )
    output_dir: str = option("runs/eval", "Folder for summary.json and predictions.jsonl.")
    split: str = field(
        default="test", metadata={"help": "Split to judge on.", "choices": ["train", "validation", "test"]}
    )
    audit_rows: str | None = option(
        None, "Only look for leaks, in rows built elsewhere: a folder of {train,validation,test}.jsonl."
    )
    audit_prices: str | None = option(None, "CSV of prices (ticker, date, close) to check audit_rows against.")
    batch_size: int = option(32, "Prompts generated together.")
    max_completion_length: int = option(512, "Longest answer, in tokens.")
    temperature: float = option(0.0, "0: the most probable answer; above: sampled.")
    draft_tokens: str = option("auto", drafting.HELP)
    reward_weights: list[float] | None = option(None, "Weight of each reward in the total, in the order of `reward`.")
    cost_bps: float = option(5.0, "Backtest: cost of trading, in hundredths of a percent of the amount traded.")
    lag: int = option(1, "Backtest: trading days from a signal to the first return it can earn; at least 1.")
    long_only: bool = option(False, "Backtest: hold nothing on a DOWN forecast instead of selling short.")
    trials: int | None = option(
        None, "Strategies tried, for the deflated Sharpe ratio; as many as the table has when left out."
    )
    seed: int = option(42, "Seed of sampling, of LightGBM and of the bootstrap.")
