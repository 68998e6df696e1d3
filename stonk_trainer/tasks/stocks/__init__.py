"""Stocks: read a company's data, reason, and forecast the next trading day UP or DOWN with a confidence.

Methods import what they need when they are called, so that a wrong recipe is reported before pandas, datasets or a
model is loaded.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.task import Finding, Forecaster, ForecastTask, Pattern, Row, SamplingConfig
from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.rewards import COMPONENTS

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from stonk_trainer.forecasting.prediction import Predictor
    from stonk_trainer.tasks.stocks.rewards import Scorer


class Stocks(ForecastTask):
    """Forecasts of the next trading day by a language model that cites its evidence."""

    Arguments = StocksArguments
    REWARDS = COMPONENTS
    RECIPE = "stocks/demo/stage2"
    ABOUT = (
        "It reads a company's data of one day, reasons, and forecasts whether the next trading day's close is UP or "
        "DOWN, with a size and a confidence."
    )
    LIMITS = (
        "It knows nothing of what is not in its prompt: not today's news, not other markets.",
        "Some numbers in its reasons may be made up, and true reasons do not make a forecast right.",
        "A base model may remember days from its pretraining: judge it on days after that.",
    )
    args: StocksArguments

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Shared by the rewards and the run log, so that each answer is parsed once."""
        from stonk_trainer.tasks.stocks.rewards import Scorer

        return Scorer(self.args.accuracy, self.args.skew_aware, self.args.evidence)

    # ------------------------------------------------------------------------------------------- training

    def sft_dataset(self, split: str) -> Dataset:
        """Warm-up rows: `prompt` and `completion`, whose direction is random (`warmup.py`)."""
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
        """`accuracy`, where it is calibrated."""
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
            described = describe(answer)
            known = {name: row[name] for name in ("ticker", "date", "label", "next_return")}
            checked = {name: described[name] for name in ("grounded", "evidence", "invented")}
            found.append({**known, **(described["forecast"] or nothing), **checked})
        return found

    def metrics(self, records: Sequence[Row]) -> dict[str, float]:
        """Also the share of an answer's lines of evidence that agree with its row."""
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
        from stonk_trainer.tasks.stocks.gaming import NEEDED, find_patterns

        complete = [line for line in lines if all(key in line for key in NEEDED)]
        return find_patterns(complete, limit) if complete else []

    # ------------------------------------------------------------------------------------------- model card

    @classmethod
    def card_question(cls) -> tuple[list[dict[str, str]], int, str]:
        """A prompt in the form of the task."""
        from stonk_trainer.tasks.stocks.facts import Fact, change, usd
        from stonk_trainer.tasks.stocks.prompt import render

        facts = [
            Fact("company", "Example Inc.", "text", "Example Inc."),
            usd("close_1d_ago", 41.50),
            usd("close", 42.10),
            change("change_1d", 42.10, 41.50),
            usd("sma_20", 40.85),
        ]
        note = (
            "The prompt has the form that the model was trained on; `stonk eval` writes it from data. Its numbers here "
            "are made up."
        )
        return render(facts), 300, note

    @classmethod
    def card_dates(cls, recipe: Mapping[str, Any], model: Path) -> str:
        """The boundaries in the recipe."""
        ends = {"train_end": "at 70% of the days", "validation_end": "at 80%"}
        train, validation = (auto if recipe.get(key, "auto") == "auto" else recipe[key] for key, auto in ends.items())
        return (
            f"Training ends {train}, validation {validation}; the test is what comes after. "
            f"{recipe.get('embargo_days', cls.Arguments.embargo_days)} days are left out after each boundary."
        )

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
        """A row with a prompt of messages, and facts against which evidence is checked."""
        from stonk_trainer.tasks.stocks.row import check_row

        if not isinstance(row.get("prompt"), list):
            raise UserError(
                f"{where}: prompt is not a list of messages (role, content): give rows as `stonk data rows` writes"
            )
        return check_row(row, where, ["prompt"])

    def load_forecaster(self, path: str, sampling: SamplingConfig) -> Forecaster:
        """A language model that answers in text."""
        from stonk_trainer.tasks.stocks.forecaster import LanguageForecaster

        return LanguageForecaster(self, path, sampling)

    @classmethod
    def recognises(cls, model: Path) -> bool:
        """Any language model can do the task."""
        return True

    def without_identity(self) -> ForecastTask:
        return self.replaced(anonymise=not self.args.anonymise)

    def control_rows(self, path: Path, seed: int, shuffled: bool) -> dict[str, Any]:
        """The companies and days of the source, with prices whose next day a headline tells, or does not."""
        from stonk_trainer.tasks.stocks.planted import write_planted

        if not path.exists():
            write_planted(self.args, path, seed, shuffled)
        return {"dataset_name": str(path), "dataset_split": "train", "max_headlines": 1, "sampling_seed": seed}

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

    @classmethod
    def demo_tab(cls, models: Sequence[Predictor], max_rows: int) -> tuple[str, Callable[[], None]]:
        """Answers as they are written, their evidence and rewards."""
        from stonk_trainer.tasks.stocks.page import tab

        return tab(models, max_rows)
