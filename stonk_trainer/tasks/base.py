"""What a task gives a trainer. A task is a package whose module has these names; trainers use nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

Row = dict[str, Any]


class Task(Protocol):
    """The contract between a task and `sft.py`, `grpo.py` and `evaluation/`."""

    Arguments: type  # dataclass of the task's recipe keys; has `reward`, the names of the reward functions

    @staticmethod
    def sft_dataset(args: Any, split: str) -> Dataset:
        """Rows for SFTTrainer: `prompt` and `completion` as chat messages. `split`: train, validation or test."""

    @staticmethod
    def rl_dataset(args: Any, split: str) -> Dataset:
        """Rows for GRPOTrainer: `prompt` as chat messages, and the columns the reward functions read."""

    @staticmethod
    def reward_functions(args: Any) -> list[Callable[..., list[float]]]:
        """TRL reward functions in the order of `args.reward`; `__name__` is the reward's name."""

    @staticmethod
    def record(args: Any, row: Row, completion: str) -> Row:
        """What one answer to `row` amounts to, by the same parser the rewards use: the columns of the run log."""

    @staticmethod
    def evaluate(args: Any, rows: Sequence[Row], completions: Sequence[str]) -> list[Row]:
        """One record per completion: what `record` says, and each reward by name."""

    @staticmethod
    def feature_table(args: Any, split: str) -> DataFrame:
        """All rows of a split for classical models: ticker, date, label, next_return, features named `x_…`."""

    @staticmethod
    def closes(args: Any) -> DataFrame:
        """Prices for the backtest: a row per day, a column per ticker."""

    @staticmethod
    def run_log_name(args: Any) -> str:
        """File name of the run's JSON-lines log."""
