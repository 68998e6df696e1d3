"""Stocks: read a company's data, reason, and forecast the next trading day UP or DOWN with a confidence.

This module is the task object of `tasks/base.py`. What it needs is imported when called, so that a wrong recipe ends
before pandas, datasets or a model is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer import imports
from stonk_trainer.errors import UserError
from stonk_trainer.task import Asking, Forecaster, Row, TaskArguments, check_chat_template

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from stonk_trainer.tasks.stocks.rewards import Scorer

_INDICATOR = r"volume|change_([1-9]|[1-5]\d)d|sma_([2-9]|[1-5]\d)|volatility_([5-9]|[1-5]\d)d"

NOT_FOR: dict[str, str] = {}
SAMPLES = 4
EVALUATION = None


@dataclass
class Arguments(TaskArguments):
    """Recipe keys of the stocks task."""

    dataset_name: str = field(
        default="embedded:sp500",
        metadata={
            "help": "embedded:sp500, a Hub dataset in the deepstock schema, a parquet/JSONL file or folder of that "
            "schema, or a price CSV (date, close).",
            "aliases": ["--csv"],
        },
    )
    dataset_split: str = field(default="train", metadata={"help": "Split of the Hub dataset to read."})
    tickers: list[str] | None = field(default=None, metadata={"help": "Only these companies; all when left out."})
    train_end: str = field(
        default="auto",
        metadata={
            "help": "Last day whose outcome training may see, YYYY-MM-DD; auto: the first 70 percent of the days."
        },
    )
    validation_end: str = field(
        default="auto",
        metadata={"help": "Last day of validation, YYYY-MM-DD; auto: the next 10 percent. Test is the rest."},
    )
    embargo_days: int = field(
        default=7, metadata={"help": "Calendar days left out after each boundary; at least the horizon of 7 days."}
    )
    natural_distribution: bool = field(
        default=False, metadata={"help": "Keep the market's own share of UP days; otherwise balance them (Stage I)."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Training rows, drawn at random over companies and dates."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Validation or test rows, drawn at random over companies and dates."}
    )
    sampling_seed: int = field(
        default=42, metadata={"help": "Seed of balancing, of drawing rows and of warm-up texts."}
    )
    history_days: int = field(default=15, metadata={"help": "Earlier closes shown in the prompt."})
    indicators: list[str] = field(
        default_factory=lambda: (
            ["change_1d", "change_5d", "change_10d", "change_20d", "sma_5", "sma_20", "volatility_20d", "volume"]
        ),
        metadata={"help": "Indicators shown, in this order: change_Nd, sma_N, volatility_Nd over N days; volume."},
    )
    max_headlines: int = field(default=8, metadata={"help": "Headlines shown."})
    max_financials: int = field(default=12, metadata={"help": "Reported figures shown."})
    financials_lag_days: int = field(
        default=0, metadata={"help": "Days between the end of a financial year and the day its figures are public."}
    )
    anonymise: bool = field(default=False, metadata={"help": "Hide the company's name and the calendar."})
    reward: list[str] = field(
        default_factory=lambda: ["accuracy", "data_usage", "coherence"],
        metadata={
            "help": "Reward functions: accuracy, magnitude, data_usage, coherence, or an import path such as "
            "my_rewards:humility."
        },
    )
    evidence: Literal["required", "optional"] = field(
        default="optional",
        metadata={
            "help": "What data_usage and coherence need. required: lines of evidence as the prompt asks for them. "
            "optional: in an answer without any, the numbers of its reasoning count as lines."
        },
    )
    accuracy: Literal["direction", "calibrated"] = field(
        default="direction",
        metadata={"help": "direction: 1 if right. calibrated: 1 - (p_up - y)^2, a proper score of the confidence."},
    )
    skew_aware: bool = field(
        default=False, metadata={"help": "Weigh each direction by 0.5 / its base rate: the majority earns no more."}
    )

    @functools.cached_property
    def scorer(self) -> Scorer:
        """How these arguments score: one for the rewards and the run log, which share what it has parsed."""
        from stonk_trainer.tasks.stocks.rewards import Scorer

        return Scorer(self.accuracy, self.skew_aware, self.evidence)

    def __post_init__(self):
        import re

        for name in ("history_days", "max_headlines", "max_financials", "financials_lag_days", "sampling_seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1; leave it out for all rows")
        if self.history_days > 60:
            raise UserError(f"history_days: {self.history_days} is more than the 60 days kept")
        if self.embargo_days < 7:
            raise UserError(f"embargo_days: {self.embargo_days} is shorter than the horizon of 7 days")
        for name in self.indicators:
            if not re.fullmatch(_INDICATOR, name):
                raise UserError(f"indicators: {name} is not volume, change_Nd, sma_N or volatility_Nd (N below 60)")
        imports.check_names(self.reward, ("accuracy", "magnitude", "data_usage", "coherence"))


def settings_from(values: dict[str, Any], trainer: str) -> dict[str, Any]:
    return {}


def new_model(args: Arguments, folder: Path, seed: int) -> None:
    raise UserError("model_name_or_path: new: the stocks task starts from an instruct model: give one with --model")


def check_tokenizer(args: Arguments, tokenizer: Any, name: str) -> None:
    """The prompts are messages: they need a chat template."""
    check_chat_template(tokenizer, name)


def add_to_model(args: Arguments, folder: Path) -> None:
    """Nothing: the model is all there is."""


def sft_dataset(args: Arguments, split: str) -> Dataset:
    """Warm-up rows: `prompt` and `completion`; the stated direction is drawn at random (`warmup.py`)."""
    from stonk_trainer.tasks.stocks.warmup import warmup_rows

    return warmup_rows(rl_dataset(args, split), seed=args.sampling_seed)


def rl_dataset(args: Arguments, split: str) -> Dataset:
    """Rows of one split: `prompt`, `label`, `next_return`, `facts`, `base_rate_up`, `ticker`, `date`."""
    from stonk_trainer.tasks.stocks.dataset import rl_rows

    return rl_rows(args, split)


def rows_to_forecast(args: Arguments, first: str | None, last: str | None, horizon: int = 1) -> list[dict[str, Any]]:
    """Rows of days, whether or not what came after is known; see `dataset.rows_to_forecast`."""
    from stonk_trainer.tasks.stocks import dataset

    return dataset.rows_to_forecast(args, first, last)


def check_row(args: Arguments, row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row with a prompt and facts, by which the evidence is checked."""
    from stonk_trainer.tasks.stocks import forecaster

    return forecaster.check_row(row, where)


def load_forecaster(args: Arguments, path: str, asking: Asking) -> Forecaster:
    """A language model that answers in text; see `forecaster.LanguageForecaster`."""
    from stonk_trainer.tasks.stocks.forecaster import LanguageForecaster

    return LanguageForecaster(args, path, asking)


def feature_table(args: Arguments, split: str) -> DataFrame:
    """Usable rows of one split with the numbers that classical models read; see `features.feature_table`."""
    from stonk_trainer.tasks.stocks import features

    return features.feature_table(args, split)


def closes(args: Arguments) -> DataFrame:
    """Closes, a row per day and a column per ticker; see `features.closes`."""
    from stonk_trainer.tasks.stocks import features

    return features.closes(args)


def reward_functions(args: Arguments) -> list[Callable[..., list[float]]]:
    """The reward functions named in `args.reward`, for TRL."""
    own = args.scorer.reward_functions([name for name in args.reward if not imports.is_imported(name)])
    return imports.merged(args.reward, own, args.imports)


def proper_scores(args: Arguments) -> list[str]:
    """`accuracy: calibrated` is one."""
    return [name for name in args.reward if name == "accuracy" and args.accuracy == "calibrated"]


def example_answers(args: Arguments, row: dict[str, Any]) -> dict[str, str]:
    """The right direction with evidence from the row's facts; the wrong one without a fact; nothing."""
    import random

    from stonk_trainer.tasks.stocks.facts import facts_from_json
    from stonk_trainer.tasks.stocks.warmup import write_answer

    wrong = "DOWN" if row["label"] == "UP" else "UP"
    return {
        "good": write_answer(facts_from_json(row["facts"]), row["label"], random.Random(args.sampling_seed)),
        "bad": f"<think>\nI have a feeling.\n</think>\nPrediction: {wrong}\nExpected move: 1.0%\nConfidence: 90%",
        "empty": "",
    }


def score(completion: str, row: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Each reward of one completion, its forecast and its evidence; see `rewards.score`."""
    from stonk_trainer.tasks.stocks import rewards

    return rewards.score(completion, row, **options)


def records(args: Arguments, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
    """Columns of the run log: the row's ticker, date, label, next_return; forecast and evidence of each completion."""
    from stonk_trainer.tasks.stocks.rewards import describe

    columns = {name: [row[name] for row in rows] for name in args.scorer.columns}
    nothing = {"direction": None, "confidence": None, "move": None}
    found = []
    for row, (answer, _) in zip(rows, args.scorer.check(completions, columns), strict=True):
        said = describe(answer)
        known = {name: row[name] for name in ("ticker", "date", "label", "next_return")}
        kept = {name: said[name] for name in ("grounded", "evidence", "invented")}
        found.append({**known, **(said["forecast"] or nothing), **kept})
    return found


def evaluate(args: Arguments, rows: Sequence[Row], completions: Sequence[str]) -> list[Row]:
    """One record per completion: what `records` says, and every reward of `args.reward`."""
    read = records(args, rows, completions)
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    answers = [[{"role": "assistant", "content": text}] for text in completions]
    ids = [text.split() for text in completions]  # words stand for tokens
    given = imports.as_trl_calls([row["prompt"] for row in rows], answers, ids, columns)
    earned = [function(**given) for function in reward_functions(args)]
    names = [imports.name_of(reward) for reward in args.reward]
    return [
        {**record, "base_rate_up": row["base_rate_up"], "rewards": dict(zip(names, values, strict=True))}
        for record, row, values in zip(read, rows, zip(*earned, strict=True), strict=True)
    ]


def run_log_name(args: Arguments) -> str:
    """Stage II runs on the natural distribution and keeps its own log."""
    return "stage2_training_log.jsonl" if args.natural_distribution else "training_log.jsonl"
