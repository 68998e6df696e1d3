"""What a task is. Trainers and commands know a task by these classes alone; `stonk_trainer/tasks/` holds three.

A task of your own is a subclass of `Task` with five methods, named in a recipe by its import path:
`task: my_package.module:MyTask`. A task whose answers forecast UP or DOWN is a `ForecastTask`: it is judged against
baselines and prices, and `stonk predict` works with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from stonk_trainer import imports
from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules, Reward

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")
BUILT_IN = {
    "stocks": "stonk_trainer.tasks.stocks:Stocks",
    "btc": "stonk_trainer.tasks.btc:Btc",
    "reasoning": "stonk_trainer.tasks.reasoning:Reasoning",
}


def load_task(name: str, rules: ImportRules | None = None) -> type[Task]:
    """The class of a task: one of `BUILT_IN`, or one named by its import path as `rules` allow.

    Raises UserError for an unknown name, and for a path that cannot be imported or is not a Task.
    """
    if imports.is_imported(name):
        found = imports.import_object("task", name, rules or ImportRules())
        if not (isinstance(found, type) and issubclass(found, Task)):
            raise UserError(f"task: {name} is not a subclass of stonk_trainer.task.Task")
        return found
    if name not in BUILT_IN:
        raise UserError(f"task: {name} is not one of {', '.join(BUILT_IN)}, nor an import path (module:Class)")
    module, _, cls = BUILT_IN[name].partition(":")
    return getattr(__import__(module, fromlist=[cls]), cls)


@dataclass
class TaskArguments:
    """Recipe keys that every task has."""

    reward: list[str] = field(
        default_factory=list,
        metadata={"help": "Reward functions, by name or by an import path such as my_rewards:humility."},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Training rows, drawn at random."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validation or test rows, drawn at random."})
    sampling_seed: int = field(default=42, metadata={"help": "Seed of everything random about the rows."})

    def __post_init__(self):
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1; leave it out for all rows")
        if self.sampling_seed < 0:
            raise UserError(f"sampling_seed: {self.sampling_seed} must not be negative")


@dataclass
class ForecastArguments(TaskArguments):
    """Recipe keys that every task of forecasts has."""

    milestone_reward: float = field(default=0.8, metadata={"help": "Milestone: mean validation reward above this."})
    milestone_accuracy: float = field(default=0.8, metadata={"help": "Milestone: validation accuracy above this."})


class Task:
    """One task with its arguments.

    A subclass defines the five methods `sft_dataset`, `rl_dataset`, `rewards`, `read` and `examples`; everything below
    them has a default.

    args: the recipe's keys, an instance of `Arguments`. model: the model a run starts from (a folder or a name on the
    Hub; None: a new one). max_completion_length: tokens of an answer at most, in RL. imports: from where rewards may be
    imported. data: by split, what was read to make its rows; for run.json.
    """

    Arguments: ClassVar[type[TaskArguments]] = TaskArguments
    REWARDS: ClassVar[tuple[str, ...]] = ()  # the names of the rewards the task has
    UNSUPPORTED_COMMANDS: ClassVar[dict[str, str]] = {}  # command: why not, and what to run instead
    EVALUATE: ClassVar[str | None] = None  # `module:function` that is `stonk eval` for this task, if not the usual one

    def __init__(
        self,
        args: Any,
        *,
        model: str | None = None,
        max_completion_length: int | None = None,
        imports: ImportRules | None = None,
    ):
        self.args = args
        self.model = model
        self.max_completion_length = max_completion_length
        self.imports = imports or ImportRules()
        self.data: dict[str, DataSummary] = {}
        self.check_rewards()

    # ------------------------------------------------------------------------------------------- the five

    def sft_dataset(self, split: str) -> Dataset:
        """Rows for SFTTrainer: `prompt` and `completion` as chat messages, or tokens as `input_ids` and `labels`.

        split: train, validation or test.
        """
        raise UserError(f"the task {self.name} has no data for stonk sft")

    def rl_dataset(self, split: str) -> Dataset:
        """Rows for GRPOTrainer: `prompt` as chat messages or text, and the columns that the rewards read."""
        raise UserError(f"the task {self.name} has no data for stonk grpo")

    def rewards(self, names: Sequence[str]) -> list[Reward]:
        """The task's rewards of these names (of `REWARDS`), in this order, as functions that TRL calls:
        f(prompts, completions, completion_ids, **columns) -> list of float, or None where there is nothing to say."""
        raise NotImplementedError

    def read(self, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """What each answer amounts to, as columns of the run log and of predictions.jsonl; read as the rewards do.

        completions: texts, or conversations that end with the assistant's message; the list the rewards were given.
        """
        raise NotImplementedError

    def examples(self, row: Row) -> dict[str, str]:
        """Answers to `row` by what they are, a good one first; `stonk check` shows what each earns."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- hooks

    def proper_scores(self) -> list[str]:
        """Those of `args.reward` that an honest probability maximises."""
        return []

    def trainer_settings(self, trainer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of the trainer ("sft" or "grpo") that follow from the task's; a recipe cannot set them otherwise.

        values: the recipe's keys.
        """
        return {}

    def new_model(self, folder: Path, seed: int) -> None:
        """Write a model with random weights and its tokenizer into `folder`."""
        raise UserError(
            f"model_name_or_path: new: the task {self.name} starts from an instruct model: give one with --model"
        )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
        """Raise UserError when `model`, which has this tokenizer, cannot do the task. Prompts of messages need a
        chat template."""
        check_chat_template(tokenizer, model)

    def add_to_model(self, folder: Path) -> None:
        """Write what belongs to a trained model into its folder."""

    def run_log_name(self) -> str:
        """File name of the run's JSON-lines log."""
        return "training_log.jsonl"

    def stage(self, trainer: str) -> str:
        """What a run of `trainer` is called in reports and cards."""
        return {"sft": "supervised training", "grpo": "reinforcement learning (GRPO)"}[trainer]

    def metrics(self, records: Sequence[Row]) -> dict[str, float]:
        """Means over answers, as the trainer logs them. records: what `read` gives."""
        return {}

    def milestone(self, records: Sequence[Row]) -> dict[str, float]:
        """Validation means that the milestone is judged by; the argument milestone_NAME holds each threshold.

        records: what `read` gives, with `rewards` by name and `total`. Empty: there is no milestone.
        """
        return {}

    def find_patterns(self, lines: Sequence[Row], limit: int | None) -> list[Pattern]:
        """Signs of gaming in the lines of a run log. limit: max_completion_length."""
        return []

    # ------------------------------------------------------------------------------------------- for everyone

    @property
    def name(self) -> str:
        """The name or import path by which a recipe names the task."""
        path = f"{type(self).__module__}:{type(self).__qualname__}"
        return next((name for name, known in BUILT_IN.items() if known == path), path)

    @property
    def reward_names(self) -> list[str]:
        """What the rewards of `args.reward` are called in logs and tables."""
        return list(map(imports.name_of, self.args.reward))

    def check_rewards(self) -> None:
        """Set `args.reward` to all of `REWARDS` where it is empty. Raises UserError for a name that is not known."""
        self.args.reward = self.args.reward or list(self.REWARDS)
        imports.check_names(self.args.reward, self.REWARDS)

    def reward_functions(self) -> list[Reward]:
        """The functions of `args.reward`, in its order: the task's, and those named by an import path."""
        own = iter(self.rewards([name for name in self.args.reward if not imports.is_imported(name)]))
        return [
            imports.load_reward(name, self.imports) if imports.is_imported(name) else next(own)
            for name in self.args.reward
        ]

    def replaced(self, **changes: Any) -> Self:
        """The same task with other arguments."""
        return type(self)(
            dataclasses.replace(self.args, **changes),
            model=self.model,
            max_completion_length=self.max_completion_length,
            imports=self.imports,
        )

    def earned(
        self, rows: Sequence[Row], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> list[dict[str, float | None]]:
        """What each answer to its row earns, by reward, outside a run. Without a tokenizer words stand for tokens.

        Raises UserError for a reward of the user's that fails or returns something else than a number per answer.
        """
        chat = not isinstance(rows[0]["prompt"], str)
        completions = [[{"role": "assistant", "content": text}] if chat else text for text in answers]
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        ids = [tokenizer(text)["input_ids"] if tokenizer else text.split() for text in answers]
        given = imports.as_trl_calls([row["prompt"] for row in rows], completions, ids, columns)
        columns_of = [reward(**given) for reward in self.reward_functions()]
        return [dict(zip(self.reward_names, values, strict=True)) for values in zip(*columns_of, strict=True)]

    def try_rewards(self, row: Row) -> None:
        """Call every reward with the example answers, so that one that fails does so before a model is loaded."""
        examples = list(self.examples(row).values())
        self.earned([row] * len(examples), examples)

    def evaluate(self, rows: Sequence[Row], answers: Sequence[str]) -> list[Row]:
        """One record per answer: what `read` says, each reward by name, and the answer as `completion`."""
        earned = self.earned(rows, answers)
        read = self.read(rows, answers)
        return [
            {**record, "rewards": rewards, "completion": text}
            for record, rewards, text in zip(read, earned, answers, strict=True)
        ]


class ForecastTask(Task):
    """A task whose answers forecast a direction, UP or DOWN, of a series over days.

    Its rows have ticker, date (ISO), label ("UP" or "DOWN") and next_return (fraction); what `read` gives has these and
    direction ("UP", "DOWN" or None), confidence (of that direction, in [0.5, 1], or None) and move (fraction or None).
    """

    Arguments: ClassVar[type[TaskArguments]] = ForecastArguments
    SAMPLES: ClassVar[int] = 4  # answers, or paths, that a forecast is made of unless said otherwise
    RECIPE: ClassVar[str] = ""  # the shipped recipe that makes the prompts of a model without one of its own

    def feature_table(self, split: str) -> DataFrame:
        """All rows of a split for classical models: ticker, date, label, next_return, features named `x_…`."""
        raise NotImplementedError

    def closes(self) -> DataFrame:
        """Prices for the backtest: a row per day, a column per ticker."""
        raise NotImplementedError

    def rows_to_forecast(self, first: str | None, last: str | None, horizon: int = 1) -> list[Row]:
        """Rows of the days from `first` to `last` (ISO), whether or not what came after is known; each series' last
        day when both are None. Columns as `rl_dataset`; label and next_return are None where they are not known."""
        raise NotImplementedError

    def check_row(self, row: Row, where: str) -> Row:
        """A row to forecast that was read from a file, or a UserError that begins with `where`."""
        raise NotImplementedError

    def load_forecaster(self, path: str, sampling: SamplingConfig) -> Forecaster:
        """The model in the folder `path`. Raises UserError when it cannot do this task."""
        raise NotImplementedError

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

    def audit(self) -> list[Finding]:
        """What looks like a leak in the rows of every split."""
        raise UserError(f"audit: the task {self.name} has no audit")

    def audit_folder(self, folder: str, prices: str | None) -> list[Finding]:
        """The same of rows built elsewhere: `{train,validation,test}.jsonl`. prices: a CSV to check them against."""
        raise UserError(f"audit_rows: the task {self.name} has no audit")

    def print_details(self, forecast: Row) -> None:
        """Print what a forecast has beside its numbers, below the table of `stonk predict`."""

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


# ------------------------------------------------------------------------------------------------- what tasks hand over


@dataclass
class DataSummary:
    """What was read to make the rows of a split, for run.json.

    rows_in_split: usable rows of the split's dates. rows_after_balancing: None where nothing is balanced. rows_drawn:
    the rows of the run. first, last: their days. share_up: of the rows drawn. dropped: rows of the source by why they
    are not usable. None where a task has no such thing.
    """

    rows_in_split: int
    rows_drawn: int
    rows_after_balancing: int | None = None
    first: str | None = None
    last: str | None = None
    share_up: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.rows_in_split:,} rows in the split"]
        if self.rows_after_balancing is not None:
            parts.append(f"{self.rows_after_balancing:,} after balancing")
        drawn = f"{self.rows_drawn:,} drawn"
        if self.first:
            drawn += f" ({self.first} to {self.last}" + (f", {self.share_up:.1%} UP)" if self.share_up else ")")
        dropped = ", ".join(f"{count:,} {why}" for why, count in self.dropped.items() if count)
        return ", ".join([*parts, drawn]) + (f"; not usable in the source: {dropped}" if dropped else "")


@dataclass(frozen=True)
class Pattern:
    """A sign of gaming in a run log; `text` is a sentence with the numbers and steps that show it.

    severity: warning (the reward is being earned the wrong way, or not at all), notice (an honest run can look like
    this too), unjudged (too little to say).
    """

    name: str
    text: str
    severity: Literal["warning", "notice", "unjudged"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one check of an audit on one split, or on "all". passed: None where it could not be checked."""

    check: str
    split: str
    passed: bool | None
    message: str


@dataclass(frozen=True)
class SamplingConfig:
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

    sampling: SamplingConfig

    def forecasts(self, rows: Sequence[Row], on_token: Callable[[list[str]], None] | None = None) -> list[Row]:
        """One forecast per row, all made together.

        direction ("UP", "DOWN"; None when no answer is readable), confidence (share of the readable answers that say
        so), stated_confidence (mean probability of that direction that they state; None when none does), move (expected
        absolute return, as a fraction; None likewise), readable (answers with a forecast), and what else the task has.
        on_token: called with the answers so far, those of a row one after the other; where answers are text.
        """


def text_of(completion: Any) -> str:
    """The text of a completion: it is that, or a conversation that ends with the assistant's message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def check_chat_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raise UserError unless the model's template renders a system message and a user's, with their text."""
    if tokenizer.chat_template is None:
        raise UserError(f"model {model} has no chat template: start from an instruct model, or add chat_template.jinja")
    messages = [{"role": "system", "content": "A forecaster."}, {"role": "user", "content": "Up or down?"}]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # whatever a template can do wrong
        raise UserError(f"model {model}: its chat template cannot be used: {error}") from error
    if any(message["content"] not in text for message in messages):
        raise UserError(f"model {model}: its chat template leaves out what it is given: take the original's")
