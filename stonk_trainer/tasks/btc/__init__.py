"""BTC: tokens of a price series' returns, a small GPT over them, and forecasts of the paths that may follow.

codec (`stonk codec train`) → Stage 1, pretraining on many assets (`stonk sft`) → Stage 2, SFT on one asset → Stage 3,
RL on what came after (`stonk grpo`) → `stonk forecast`. Any daily CSV takes the place of BTC.

This module is the task object of `tasks/base.py`; what it needs is imported when called. The dates that split the data
are the codec's: it is trained first, and every model folder holds a copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer import imports
from stonk_trainer.errors import UserError
from stonk_trainer.task import Asking, Forecaster, Row, TaskArguments

if TYPE_CHECKING:
    from datasets import Dataset

NOT_FOR = {"eval": "stonk eval judges answers in text: judge a GPT with `stonk forecast --evaluate true`"}
SAMPLES = 200
EVALUATION = None
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of sampled paths, in tables and pictures
REWARDS = ("token_acc", "return_mse", "crps", "pnl")


@dataclass
class Market:
    """Recipe keys that say which prices are read, and how dates split them."""

    dataset_name: str = field(
        default="embedded:markets",
        metadata={
            "help": "Daily prices: a CSV file (date, close) or a folder of them, embedded:markets (20 S&P 500 "
            "companies, BTC, ETH, LTC) or one of these alone, such as embedded:BTC.",
            "aliases": ["--csv"],
        },
    )
    tickers: list[str] | None = field(default=None, metadata={"help": "Only these series; all when left out."})
    train_end: str | None = field(
        default=None, metadata={"help": "Last day training may see, YYYY-MM-DD; left out: the codec's."}
    )
    validation_end: str | None = field(
        default=None, metadata={"help": "Last day of validation; left out: the codec's. Test is the rest."}
    )

    def __post_init__(self):
        check_days(self.train_end, self.validation_end)


def check_day(name: str, value: str | None) -> None:
    """Raise UserError unless `value` is None or a day written YYYY-MM-DD: days are compared as they are written."""
    from datetime import date

    try:
        right = value is None or date.fromisoformat(value).isoformat() == value
    except ValueError:
        right = False
    if not right:
        raise UserError(f"{name}: {value} is not a day (YYYY-MM-DD)")


def check_days(train_end: str | None, validation_end: str | None) -> None:
    """Raise UserError for what is no day, and for a validation that ends before training does."""
    check_day("train_end", train_end)
    check_day("validation_end", validation_end)
    if train_end and validation_end and train_end >= validation_end:
        raise UserError(f"validation_end: {validation_end} must come after train_end {train_end}")


@dataclass
class Arguments(TaskArguments, Market):
    """Recipe keys of the btc task in `stonk sft` and `stonk grpo`."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "Text file of tokens, a series per line (stonk codec encode), to pretrain on instead of prices; "
            "the last tenth of each series is held out."
        },
    )
    codec: str | None = field(
        default=None, metadata={"help": "The codec: a folder or a .pt file; left out: the one in the model's folder."}
    )
    context_len: int = field(default=128, metadata={"help": "Tokens of a training window, or before a sampled future."})
    horizon: int = field(default=32, metadata={"help": "Tokens sampled in RL: exactly so many, no more, no fewer."})
    reward: list[str] = field(
        default_factory=lambda: ["token_acc"],
        metadata={
            "help": "Reward functions: token_acc, return_mse, crps, pnl, or an import path such as my_rewards:sharpe; "
            "weigh several with reward_weights."
        },
    )
    cost_bps: float = field(
        default=5.0, metadata={"help": "pnl: cost of trading, in hundredths of a percent of the amount traded."}
    )
    context_step: int | None = field(
        default=None,
        metadata={"help": "Tokens from one window or context to the next; left out: half a window in SFT, 1 in RL."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "RL contexts, drawn at random over the dates."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Validation contexts, drawn at random over the dates."}
    )
    sampling_seed: int = field(default=42, metadata={"help": "Seed of drawing contexts."})
    gpt_hidden_size: int = field(default=64, metadata={"help": "A new GPT: width."})
    gpt_layers: int = field(default=3, metadata={"help": "A new GPT: layers."})
    gpt_heads: int = field(default=4, metadata={"help": "A new GPT: attention heads, a divisor of the width."})
    gpt_positions: int = field(default=1024, metadata={"help": "A new GPT: the longest sequence, context and future."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("context_len", "horizon", "context_step", "gpt_hidden_size", "gpt_layers", "gpt_heads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1; leave it out for all contexts")
        if self.cost_bps < 0:
            raise UserError(f"cost_bps: {self.cost_bps} must be 0 or more")
        if self.gpt_hidden_size % (2 * self.gpt_heads):
            raise UserError(
                f"gpt_heads: {self.gpt_heads} heads of an even size do not make up gpt_hidden_size "
                f"{self.gpt_hidden_size}"
            )
        if self.gpt_positions < self.context_len + self.horizon:
            raise UserError(
                f"gpt_positions: {self.gpt_positions} is less than context_len {self.context_len} + horizon "
                f"{self.horizon}"
            )
        imports.check_names(self.reward, REWARDS)


def settings_from(values: dict[str, Any], trainer: str) -> dict[str, Any]:
    """A sample is exactly `horizon` tokens, none of them an end: TRL would take it for cut off and learn nothing."""
    if trainer != "grpo":
        return {}
    for key in ("num_generations", "num_generations_eval"):
        if "crps" in values.get("reward", ()) and (values.get(key) or 8) < 3:
            raise UserError(f"{key}: {values[key]}: crps compares samples of one context: set it to 3 or more")
    return {"max_completion_length": values.get("horizon", Arguments.horizon), "mask_truncated_completions": False}


def new_model(args: Arguments, folder: Path, seed: int) -> None:
    """Write a GPT with random weights, of the sizes in `args`, into `folder`."""
    from stonk_trainer.tasks.btc import dataset, gpt

    size = dataset.codec_of(args).config.codebook_size
    shape = args.gpt_hidden_size, args.gpt_layers, args.gpt_heads, args.gpt_positions
    gpt.new_gpt(folder, size, *shape, seed=seed)


def check_tokenizer(args: Arguments, tokenizer: Any, name: str) -> None:
    """The model's tokens must be the codec's."""
    from stonk_trainer.tasks.btc import dataset

    codec = dataset.codec_of(args)
    dataset.check_tokenizer(codec, tokenizer, name)
    dataset.check_same_codec(codec, name)


def add_to_model(args: Arguments, folder: Path) -> None:
    """The codec goes with every model: whoever has the folder can forecast."""
    from stonk_trainer.tasks.btc import dataset

    dataset.codec_of(args).save_pretrained(folder / "codec")


def sft_dataset(args: Arguments, split: str) -> Dataset:
    """Windows of tokens: `input_ids`, and for validation `labels` that leave the context out."""
    from stonk_trainer.tasks.btc import dataset

    return dataset.sft_rows(args, split)


def rl_dataset(args: Arguments, split: str) -> Dataset:
    """Contexts as text, with what came after: `prompt`, `future_tokens`, `future_returns`, `scale`, and the row's
    `ticker`, `date` (last day known), `label` and `next_return` (of the whole horizon)."""
    from stonk_trainer.tasks.btc import dataset

    return dataset.rl_rows(args, split)


def rows_to_forecast(args: Arguments, first: str | None, last: str | None, horizon: int = 1) -> list[dict[str, Any]]:
    """Rows of days, whether or not what came after is known; see `dataset.rows_to_forecast`."""
    from stonk_trainer.tasks.btc import dataset

    return dataset.rows_to_forecast(args, first, last, horizon)


def check_row(args: Arguments, row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row with a prompt of market tokens and the scale of its series."""
    from stonk_trainer.tasks.btc import dataset

    return dataset.check_row(dataset.codec_of(args), row, where)


def load_forecaster(args: Arguments, path: str, asking: Asking) -> Forecaster:
    """A GPT that samples paths; see `forecaster.RowForecaster`."""
    from stonk_trainer.tasks.btc import dataset
    from stonk_trainer.tasks.btc.forecaster import RowForecaster

    return RowForecaster(path, dataset.codec_of(args), args.context_len, asking)


def reward_functions(args: Arguments) -> list[Callable[..., list[float]]]:
    """The reward functions named in `args.reward`, for TRL."""
    from stonk_trainer.tasks.btc import dataset, rewards

    built_in = [name for name in args.reward if not imports.is_imported(name)]
    own = rewards.reward_functions(built_in, dataset.codec_of(args), args.horizon, args.cost_bps)
    return imports.merged(args.reward, own, args.imports)


def proper_scores(args: Arguments) -> list[str]:
    """`crps` is one."""
    return [name for name in args.reward if name == "crps"]


def example_answers(args: Arguments, row: dict[str, Any]) -> dict[str, str]:
    """What came; one token all the time; what came, from its end to its beginning."""
    from stonk_trainer.tasks.btc.tokens import to_text

    future = list(row["future_tokens"])
    answers = {"what came": future, "one token": [0] * len(future), "backwards": future[::-1]}
    return {name: to_text(tokens) for name, tokens in answers.items()}


def records(args: Arguments, rows: Sequence[Row], completions: Sequence[str]) -> list[Row]:
    """Columns of the run log: the row, and the direction and size of the sampled path over the whole horizon."""
    from stonk_trainer.tasks.btc import dataset

    codec = dataset.codec_of(args)
    return [dataset.record(codec, row, text) for row, text in zip(rows, completions, strict=True)]


def run_log_name(args: Arguments) -> str:
    return "training_log.jsonl"
