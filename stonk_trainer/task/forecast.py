"""`ForecastTask`: a task whose answers forecast UP or DOWN, to be judged against baselines and prices."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stonk_trainer.errors import UserError
from stonk_trainer.options import option
from stonk_trainer.task.base import Task, TaskArguments
from stonk_trainer.task.parts import Finding, Row

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class ForecastArguments(TaskArguments):
    """Recipe keys that every task of forecasts has."""

    milestone_reward: float = option(0.8, "Milestone: mean validation reward above this.")
    milestone_accuracy: float = option(0.8, "Milestone: validation accuracy above this.")


@dataclass(frozen=True)
class SamplingConfig:
    """How a model is asked for forecasts.

    samples: answers per row. temperature: above 0. top_p: in (0, 1]. max_tokens: of an answer in text. horizon: days
    ahead. seed: of the samples; those of a row depend on it and the row's prompt alone. dtype: of the weights.
    draft_tokens: as the key.
    """

    samples: int
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    horizon: int = 1
    seed: int = 42
    dtype: str = "auto"
    draft_tokens: str = "auto"

    def seed_of(self, prompt: Any) -> int:
        """The seed of a row's samples."""
        return int.from_bytes(hashlib.blake2b(f"{self.seed}/{prompt}".encode(), digest_size=7).digest())


class Forecaster(Protocol):
    """A model that forecasts rows of its task."""

    sampling: SamplingConfig

    def forecasts(self, rows: Sequence[Row], on_token: Callable[[list[str]], None] | None = None) -> list[Row]:
        """One forecast per row, all made together.

        direction ("UP", "DOWN"; None when no answer is readable), confidence (share of the readable answers that say
        so), stated_confidence (mean probability of that direction that they state; None when none does), move (expected
        absolute return, as a fraction; None likewise), readable (answers with a forecast), and what else the task has.
        on_token: called with the answers so far, those of a row one after the other; where answers are text.
        """


class ForecastTask(Task):
    """A task whose answers forecast a direction, UP or DOWN, of a series over days.

    Its rows have ticker, date (ISO), label ("UP" or "DOWN") and next_return (fraction); what `read` gives has these and
    direction ("UP", "DOWN" or None), confidence (of that direction, in [0.5, 1], or None) and move (fraction or None).
    """

    Arguments: ClassVar[type[TaskArguments]] = ForecastArguments
    SAMPLES: ClassVar[int] = 4  # answers, or paths, that a forecast is made of by default
    RECIPE: ClassVar[str] = ""  # the shipped recipe that makes the prompts of a model without one of its own

    def feature_table(self, split: str) -> DataFrame:
        """All rows of a split for classical models: ticker, date, label, next_return, features named `x_…`,
        `x_change_1d` (the last change, a fraction) among them."""
        raise self.lacks("feature_table")

    def closes(self) -> DataFrame:
        """Prices for the backtest: a row per day, a column per ticker."""
        raise self.lacks("closes")

    def rows_to_forecast(self, first: str | None, last: str | None, horizon: int = 1) -> list[Row]:
        """Rows of the days from `first` to `last` (ISO), whether or not what came after is known; each series' last
        day when both are None. Columns as `rl_dataset`; label and next_return are None where they are not known."""
        raise self.lacks("rows_to_forecast")

    def check_row(self, row: Row, where: str) -> Row:
        """A row to forecast that was read from a file, or a UserError that begins with `where`."""
        raise self.lacks("check_row")

    def load_forecaster(self, path: str, sampling: SamplingConfig) -> Forecaster:
        """The model in the folder `path`. Raises UserError when it cannot do this task."""
        raise self.lacks("load_forecaster")

    # ------------------------------------------------------------------------------------------- hooks

    @classmethod
    def recognises(cls, model: Path) -> bool:
        """Whether a model without a recipe beside it is one of this task."""
        return False

    @classmethod
    def arguments_of_model(cls, model: Path) -> dict[str, Any]:
        """Arguments that a model's folder decides, whatever the recipe says."""
        return {}

    def without_identity(self) -> ForecastTask | None:
        """The task with company and calendar hidden if they are shown, and shown if hidden; None: it cannot."""
        return None

    def control_rows(self, path: Path, seed: int, shuffled: bool) -> dict[str, Any]:
        """Write rows like the recipe's to `path`, unless they are there, and give the keys of the task that read them.

        UP and DOWN are a fair coin's that nothing in a row tells but a planted signal; shuffled: nor does that. For
        `stonk controls`.
        """
        raise UserError(f"stonk controls: the task {self.name} has no controls")

    def audit(self) -> list[Finding]:
        """What looks like a leak in the rows of every split."""
        raise UserError(f"audit: the task {self.name} has no audit")

    def audit_folder(self, folder: str, prices: str | None) -> list[Finding]:
        """The same of rows built elsewhere: `{train,validation,test}.jsonl`. prices: a CSV to check them against."""
        raise UserError(f"audit_rows: the task {self.name} has no audit")

    def print_details(self, forecast: Row) -> None:
        """Print what a forecast has beside its numbers, below the table of `stonk predict`."""

    @classmethod
    def demo_tab(cls, models: Sequence[Any], max_rows: int) -> tuple[str, Callable[[], None]]:
        """The task's tab on the page of `stonk demo`: its title, and the function that fills it with Gradio's parts.

        models: those of this task. max_rows: rows to choose from, where there are rows.
        """
        raise UserError(f"stonk demo has no page for the task {models[0].task.name}")

    # ------------------------------------------------------------------------------------------- for all of them

    def metrics(self, records: Sequence[Row]) -> dict[str, float]:
        """Shares in [0, 1]: readable answers; UP among them; right ones among all."""
        if not records:
            return {}
        market = market_statistics(records)
        found = {"forecast/readable": 1 - market["predictions"]["unreadable"] / len(records)}
        found["forecast/accuracy"] = market["accuracy"]
        if market["predicted_up_rate"] is not None:
            found["forecast/up_share"] = market["predicted_up_rate"]
            found["forecast/adaptation_gap"] = market["gap"]
        return found

    def evaluate(self, rows: Sequence[Row], answers: Sequence[str]) -> list[Row]:
        """Also the base rate of each row."""
        found = zip(super().evaluate(rows, answers), rows, strict=True)
        return [{**record, "base_rate_up": row["base_rate_up"]} for record, row in found]

    def milestone(self, records: Sequence[Row]) -> dict[str, float]:
        """The weighted total, and the share of right directions."""
        return {
            "reward": statistics.fmean(record["total"] for record in records),
            "accuracy": statistics.fmean(record["direction"] == record["label"] for record in records),
        }


def market_statistics(records: Sequence[Row]) -> dict[str, Any]:
    """How forecasts meet the market: counts and accuracies by direction, predicted and actual share of UP, their gap.

    Accuracies count an unreadable answer as wrong; `predicted_up_rate` is the share among readable ones. The gap
    (predicted minus actual) shows market adaptation: near 0 when the model forecasts UP as often as the market rises.
    """
    examples = {d: sum(r["label"] == d for r in records) for d in ("UP", "DOWN")}
    predictions = {d: sum(r["direction"] == d for r in records) for d in ("UP", "DOWN")}
    correct = {d: sum(r["label"] == d == r["direction"] for r in records) for d in ("UP", "DOWN")}
    n, readable = len(records), sum(predictions.values())
    actual = examples["UP"] / n if n else None
    predicted = predictions["UP"] / readable if readable else None
    return {
        "examples": {"total": n, "up": examples["UP"], "down": examples["DOWN"]},
        "predictions": {"up": predictions["UP"], "down": predictions["DOWN"], "unreadable": n - readable},
        "correct": {"up": correct["UP"], "down": correct["DOWN"]},
        "accuracy": sum(correct.values()) / n if n else None,
        "up_accuracy": correct["UP"] / examples["UP"] if examples["UP"] else None,
        "down_accuracy": correct["DOWN"] / examples["DOWN"] if examples["DOWN"] else None,
        "actual_up_rate": actual,
        "predicted_up_rate": predicted,
        "gap": predicted - actual if predicted is not None and actual is not None else None,
    }
