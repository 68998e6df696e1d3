"""`Task`: what trainers and commands need to know of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from stonk_trainer import imports
from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules, Reward
from stonk_trainer.models import chat
from stonk_trainer.options import option
from stonk_trainer.task.parts import CardResults, DataSummary, Pattern, Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

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

    reward: list[str] = option([], "Reward functions, by name or by an import path such as my_rewards:humility.")
    max_train_samples: int | None = option(None, "Training rows, drawn at random.")
    max_eval_samples: int | None = option(None, "Validation or test rows, drawn at random.")
    sampling_seed: int = option(42, "Seed of everything random about the rows.")

    def __post_init__(self):
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1; leave it out for all rows")
        if self.sampling_seed < 0:
            raise UserError(f"sampling_seed: {self.sampling_seed} must not be negative")


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
    # Of the model card:
    ABOUT: ClassVar[str] = ""  # a sentence about what a model of this task does
    LIMITS: ClassVar[tuple[str, ...]] = ("Its answers may be wrong, also where they sound sure: check them.",)
    PIPELINE: ClassVar[str] = "text-generation"  # the Hub's name for such models

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
        self.check()

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
        raise self.lacks("rewards")

    def read(self, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """What each answer amounts to, as columns of the run log and of predictions.jsonl; read as the rewards do.

        completions: texts, or conversations that end with the assistant's message; the list the rewards were given.
        """
        raise self.lacks("read")

    def examples(self, row: Row) -> dict[str, str]:
        """Answers to `row` by what they are, a good one first; `stonk check` shows what each earns."""
        raise self.lacks("examples")

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

    @classmethod
    def card_question(cls) -> tuple[list[dict[str, str]], int, str]:
        """For the code in a model card: (messages to ask a chat pipeline, tokens of an answer, a note before it)."""
        return [{"role": "user", "content": "A train runs 60 km in 45 minutes. How fast is it in km/h?"}], 300, ""

    @classmethod
    def card_usage(cls, repo_id: str) -> str:
        """A model card's "How to use it" in Markdown, where that is not to ask a chat pipeline."""
        return ""

    @classmethod
    def card_dates(cls, recipe: Mapping[str, Any], model: Path) -> str:
        """A sentence for a model card about how dates split the data."""
        return ""

    @classmethod
    def card_results(cls, folder: Path, model: Path) -> CardResults | None:
        """What an evaluation in `folder` found of `model`, where it is not that of `stonk eval` (summary.json)."""
        return None

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

    def check(self) -> None:
        """Raise UserError for arguments that cannot work. An empty `args.reward` becomes all of `REWARDS`."""
        self.args.reward = self.args.reward or list(self.REWARDS)
        imports.check_names(self.args.reward, self.REWARDS)

    def lacks(self, method: str) -> UserError:
        """The error of a task that does not define a method that is needed."""
        return UserError(f"the task {self.name} has no method {method}: define it in its class")

    def reward_functions(self) -> list[Reward]:
        """The functions of `args.reward`, in its order: the task's, and those named by an import path."""
        own = iter(self.rewards([name for name in self.args.reward if not imports.is_imported(name)]))
        return [
            imports.load_reward(name, self.imports) if imports.is_imported(name) else imports.named(next(own), name)
            for name in self.args.reward
        ]

    def limit(self, split: str) -> int | None:
        """Rows of a split at most: max_train_samples or max_eval_samples; None: all."""
        return self.args.max_train_samples if split == "train" else self.args.max_eval_samples

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
        """What each answer to its row earns, by reward, outside a run. Without a tokenizer words count as tokens.

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


def text_of(completion: Any) -> str:
    """The text of a completion: it is that, or a conversation that ends with the assistant's message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def check_chat_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raise UserError unless the model's template renders a system message and a user's, with their text."""
    if tokenizer.chat_template is None:
        raise UserError(f"model {model} has no chat template: start from an instruct model, or add chat_template.jinja")
    if problem := chat.template_problem(tokenizer):
        raise UserError(f"model {model}: {problem}")
