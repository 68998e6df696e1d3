"""What a task gives a trainer. A task is a package whose module has these names; trainers use nothing else of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

Row = dict[str, Any]


def text_of(completion: Any) -> str:
    """The text of a completion: it is that, or a conversation that ends with the assistant's message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


@dataclass
class TaskArguments:
    """What every task's recipe keys have."""

    model: str | None = field(default=None, init=False)  # the model a training run starts from; None: a new one
    max_completion_length: int | None = field(default=None, init=False)  # tokens of an answer at most, in RL
    imports: ImportRules = field(default_factory=ImportRules, init=False, compare=False)  # of rewards


@dataclass(frozen=True)
class Asking:
    """How a model is asked for forecasts.

    samples: answers per row. temperature: above 0. top_p: in (0, 1]. max_tokens: of an answer in text. horizon: days
    ahead. seed: of the samples; those of a row depend on it and the row's prompt alone. dtype: of the weights.
    """

    samples: int
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    horizon: int = 1
    seed: int = 42
    dtype: str = "auto"

    def seed_of(self, prompt: Any) -> int:
        """The seed of a row's samples."""
        return int.from_bytes(hashlib.blake2b(f"{self.seed}/{prompt}".encode(), digest_size=7).digest())


class Forecaster(Protocol):
    """A model that forecasts rows of its task."""

    asking: Asking

    def forecasts(self, rows: Sequence[Row], hear: Callable[[list[str]], None] | None = None) -> list[Row]:
        """One forecast per row, all made together.

        direction ("UP", "DOWN"; None when no answer is readable), confidence (share of the readable answers that say
        so), stated_confidence (mean probability of that direction that they state; None when none does), move (expected
        absolute return, as a fraction; None likewise), readable (answers with a forecast), and what else the task has.
        hear: called with the answers so far, those of a row one after the other; where answers are text.
        """


def check_chat_template(tokenizer: Any, name: str) -> None:
    """Raise UserError unless the model's template renders a system message and a user's, with their text."""
    if tokenizer.chat_template is None:
        raise UserError(f"model {name} has no chat template: start from an instruct model, or add chat_template.jinja")
    messages = [{"role": "system", "content": "A forecaster."}, {"role": "user", "content": "Up or down?"}]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # whatever a template can do wrong
        raise UserError(f"model {name}: its chat template cannot be used: {error}") from error
    if any(message["content"] not in text for message in messages):
        raise UserError(f"model {name}: its chat template leaves out what it is given: take that of the model's origin")


class Task(Protocol):
    """The contract between a task and `sft.py`, `grpo.py` and `evaluation/`."""

    NOT_FOR: dict[str, str]  # commands that cannot do this task, each with what to run instead
    SAMPLES: int  # answers, or paths, that a forecast is made of unless said otherwise
    EVALUATION: str | None  # module whose `main` is `stonk eval` for this task; None: the judgement of forecasts
    Arguments: type[TaskArguments]  # the task's recipe keys; has `reward`, the names of the reward functions

    @staticmethod
    def settings_from(values: dict[str, Any], trainer: str) -> dict[str, Any]:
        """Keys of the trainer that follow from the task's keys in `values`."""

    @staticmethod
    def new_model(args: Any, folder: Path, seed: int) -> None:
        """Write a model with random weights and its tokenizer into `folder`. UserError where the task has no such."""

    @staticmethod
    def check_tokenizer(args: Any, tokenizer: Any, name: str) -> None:
        """Raise UserError when the model `name` with this tokenizer cannot do this task."""

    @staticmethod
    def add_to_model(args: Any, folder: Path) -> None:
        """Write what goes with a trained model beside it."""

    @staticmethod
    def sft_dataset(args: Any, split: str) -> Dataset:
        """Rows for SFTTrainer: `prompt` and `completion` as chat messages, or tokens as `input_ids` and `labels`.

        `split`: train, validation or test.
        """

    @staticmethod
    def rl_dataset(args: Any, split: str) -> Dataset:
        """Rows for GRPOTrainer: `prompt` as chat messages or text, and the columns the reward functions read."""

    @staticmethod
    def reward_functions(args: Any) -> list[Callable[..., list[float]]]:
        """TRL reward functions in the order of `args.reward`; `__name__` is the reward's name. Imports those that are
        named by import path, as `args.imports` allows."""

    @staticmethod
    def proper_scores(args: Any) -> list[str]:
        """Those of `args.reward` that an honest probability maximises."""

    @staticmethod
    def example_answers(args: Any, row: Row) -> dict[str, str]:
        """Answers to `row` by what they are; the first is a good one, and `stonk check` shows what each earns."""

    @staticmethod
    def records(args: Any, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """What each answer amounts to, by the same parser the rewards use: the columns of the run log.

        completions: texts, or conversations that end with the assistant's message; the list the rewards were given.
        """

    @staticmethod
    def evaluate(args: Any, rows: Sequence[Row], completions: Sequence[str]) -> list[Row]:
        """One record per completion: what `records` says, and each reward by name."""

    @staticmethod
    def feature_table(args: Any, split: str) -> DataFrame:
        """All rows of a split for classical models: ticker, date, label, next_return, features named `x_…`."""

    @staticmethod
    def closes(args: Any) -> DataFrame:
        """Prices for the backtest: a row per day, a column per ticker."""

    @staticmethod
    def rows_to_forecast(args: Any, first: str | None, last: str | None, horizon: int = 1) -> list[Row]:
        """Rows of the days from `first` to `last`, whether or not what came after is known; each series' last day when
        both are None. Columns as `rl_dataset`; label and next_return are None where they are not known."""

    @staticmethod
    def check_row(args: Any, row: Row, where: str) -> Row:
        """A row to forecast that was read from a file, or a UserError that begins with `where`."""

    @staticmethod
    def load_forecaster(args: Any, path: str, asking: Asking) -> Forecaster:
        """The model in the folder `path`. Raises UserError when it is none for this task."""

    @staticmethod
    def run_log_name(args: Any) -> str:
        """File name of the run's JSON-lines log."""
