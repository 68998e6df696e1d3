"""Stocks: read a company's data, reason, and forecast the next trading day UP or DOWN with a confidence.

What a method needs is imported when it is called, so that a wrong recipe ends before pandas, datasets or a model is
loaded.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.task import Finding, ForecastArguments, Forecaster, ForecastTask, Pattern, Row, SamplingConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from stonk_trainer.tasks.stocks.rewards import Scorer

_INDICATOR = r"volume|change_([1-9]|[1-5]\d)d|sma_([2-9]|[1-5]\d)|volatility_([5-9]|[1-5]\d)d"


@dataclass
class StocksArguments(ForecastArguments):
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
    milestone_coherence: float = field(default=0.7, metadata={"help": "Milestone: validation coherence above this."})

    def __post_init__(self):
        import re

        super().__post_init__()
        for name in ("history_days", "max_headlines", "max_financials", "financials_lag_days"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        if self.history_days > 60:
            raise UserError(f"history_days: {self.history_days} is more than the 60 days kept")
        if self.embargo_days < 7:
            raise UserError(f"embargo_days: {self.embargo_days} is shorter than the horizon of 7 days")
        for name in self.indicators:
            if not re.fullmatch(_INDICATOR, name):
                raise UserError(f"indicators: {name} is not volume, change_Nd, sma_N or volatility_Nd (N below 60)")


class Stocks(ForecastTask):
    """Forecasts of the next trading day by a language model that cites its evidence."""

    Arguments = StocksArguments
    REWARDS = ("accuracy", "magnitude", "data_usage", "coherence")
    RECIPE = "stocks/demo/stage2"
    args: StocksArguments

    @functools.cached_property
    def scorer(self) -> Scorer:
        """One for the rewards and the run log, which share what it has parsed."""
        from stonk_trainer.tasks.stocks.rewards import Scorer

        return Scorer(self.args.accuracy, self.args.skew_aware, self.args.evidence)

    # ------------------------------------------------------------------------------------------- training

    def sft_dataset(self, split: str) -> Dataset:
        """Warm-up rows: `prompt` and `completion`; the stated direction is drawn at random (`warmup.py`)."""
        from stonk_trainer.tasks.stocks.warmup import warmup_rows

        return warmup_rows(self.rl_dataset(split), seed=self.args.sampling_seed)

    def rl_dataset(self, split: str) -> Dataset:
        """Rows of one split: `prompt`, `label`, `next_return`, `facts`, `base_rate_up`, `ticker`, `date`."""
        from stonk_trainer.tasks.stocks.dataset import rl_rows

        rows, self.data[split] = rl_rows(self.args, split)
        return rows

    def rewards(self, names: Sequence[str]) -> list[Reward]:
        return self.scorer.reward_functions(names)

    def proper_scores(self) -> list[str]:
        """`accuracy: calibrated` is one."""
        return [name for name in self.args.reward if name == "accuracy" and self.args.accuracy == "calibrated"]

    def examples(self, row: Row) -> dict[str, str]:
        """The right direction with evidence from the row's facts; the wrong one without a fact; nothing."""
        import random

        from stonk_trainer.tasks.stocks.facts import facts_from_json
        from stonk_trainer.tasks.stocks.warmup import write_answer

        wrong = "DOWN" if row["label"] == "UP" else "UP"
        return {
            "good": write_answer(facts_from_json(row["facts"]), row["label"], random.Random(self.args.sampling_seed)),
            "bad": f"<think>\nI have a feeling.\n</think>\nPrediction: {wrong}\nExpected move: 1.0%\nConfidence: 90%",
            "empty": "",
        }

    def read(self, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """The row's ticker, date, label and next_return; forecast and evidence of each completion."""
        from stonk_trainer.tasks.stocks.rewards import describe

        columns = {name: [row[name] for row in rows] for name in self.scorer.columns}
        nothing = {"direction": None, "confidence": None, "move": None}
        found = []
        for row, (answer, _) in zip(rows, self.scorer.check(completions, columns), strict=True):
            said = describe(answer)
            known = {name: row[name] for name in ("ticker", "date", "label", "next_return")}
            kept = {name: said[name] for name in ("grounded", "evidence", "invented")}
            found.append({**known, **(said["forecast"] or nothing), **kept})
        return found

    def metrics(self, records: Sequence[Row]) -> dict[str, float]:
        """Also the share of an answer's lines of evidence that its row bears out."""
        found = super().metrics(records)
        if found:
            found["forecast/grounded"] = statistics.fmean(record["grounded"] for record in records)
        return found

    def milestone(self, records: Sequence[Row]) -> dict[str, float]:
        """Also coherence, where it is rewarded."""
        means = super().milestone(records)
        if "coherence" in records[0]["rewards"]:
            means["coherence"] = statistics.fmean(record["rewards"]["coherence"] for record in records)
        return means

    def run_log_name(self) -> str:
        """Stage II runs on the natural distribution and keeps its own log."""
        return "stage2_training_log.jsonl" if self.args.natural_distribution else "training_log.jsonl"

    def stage(self, trainer: str) -> str:
        rows = "the market as it is" if self.args.natural_distribution else "balanced rows"
        return super().stage(trainer) + (f" on {rows}" if trainer == "grpo" else "")

    def find_patterns(self, lines: Sequence[Row], limit: int | None) -> list[Pattern]:
        from stonk_trainer.tasks.stocks.gaming import find_patterns

        return find_patterns(lines, limit)

    # ------------------------------------------------------------------------------------------- forecasts

    def feature_table(self, split: str) -> DataFrame:
        from stonk_trainer.tasks.stocks.features import feature_table

        return feature_table(self.args, split)

    def closes(self) -> DataFrame:
        from stonk_trainer.tasks.stocks.features import closes

        return closes(self.args)

    def rows_to_forecast(self, first: str | None, last: str | None, horizon: int = 1) -> list[Row]:
        from stonk_trainer.tasks.stocks.dataset import rows_to_forecast

        return rows_to_forecast(self.args, first, last)

    def check_row(self, row: Row, where: str) -> Row:
        """A row with a prompt and facts, by which the evidence is checked."""
        from stonk_trainer.tasks.stocks.forecaster import check_row

        return check_row(row, where)

    def load_forecaster(self, path: str, sampling: SamplingConfig) -> Forecaster:
        """A language model that answers in text."""
        from stonk_trainer.tasks.stocks.forecaster import LanguageForecaster

        return LanguageForecaster(self, path, sampling)

    @classmethod
    def recognises(cls, model: Path) -> bool:
        """Any language model may do it."""
        return True

    def without_identity(self) -> ForecastTask:
        return self.replaced(anonymise=not self.args.anonymise)

    def audit(self) -> list[Finding]:
        from stonk_trainer.tasks.stocks.audit import audit_dataset

        return audit_dataset(self.args)

    def audit_folder(self, folder: str, prices: str | None) -> list[Finding]:
        from stonk_trainer.tasks.stocks.audit import audit_folder

        return audit_folder(folder, prices)

    def print_details(self, forecast: Row) -> None:
        """One of its answers, with the verdict on each line of its evidence."""
        from stonk_trainer.tasks.stocks.shown import print_answer

        print_answer(forecast)
