"""The keys of a recipe that are ours, their short forms, and what TRL leaves unsaid about its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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
