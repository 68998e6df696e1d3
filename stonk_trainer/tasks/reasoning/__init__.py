"""Reasoning, R1 style: cold start → GRPO on verifiable tasks → rejection sampling → SFT on what was kept → evaluation.

This module is the task object of `tasks/base.py`; what it needs is imported when called. Training reads train and
validation splits only; `stonk eval` measures on the test splits of public benchmarks through lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer import imports
from stonk_trainer.errors import UserError
from stonk_trainer.task import Row, TaskArguments, check_chat_template, text_of

if TYPE_CHECKING:
    from datasets import Dataset

    from stonk_trainer.tasks.reasoning.mixture import Part
    from stonk_trainer.tasks.reasoning.sources import Options

NOT_FOR: dict[str, str] = {"predict": "stonk predict is for forecasts: see `stonk sample` and `stonk eval`"}
SAMPLES = 1
EVALUATION = "stonk_trainer.tasks.reasoning.harness"


@dataclass
class Arguments(TaskArguments):
    """Recipe keys of the reasoning task."""

    sft_recipe: Literal["default", "r1_ot", "r1_ot_mixed", "dolci_mid", "r1_rs_sft"] | None = field(
        default=None, metadata={"help": "SFT: a named mixture of sources."}
    )
    sources: list[str] | None = field(
        default=None,
        metadata={
            "help": "SFT: a mixture of your own, NAME[:path=…,stop=…,ratio=…,mode=cot|answer_only,subjects=a+b] each."
        },
    )
    source_paths: list[str] = field(
        default_factory=list,
        metadata={"help": "Local files instead of the Hub: NAME=PATH each (.parquet, .jsonl, or a folder of them)."},
    )
    ot_stop: int | None = field(default=None, metadata={"help": "Rows of OpenThoughts read at most; -1: all."})
    ot_mode: Literal["cot", "answer_only"] | None = field(
        default=None, metadata={"help": "OpenThoughts with its thoughts, or the answers alone."}
    )
    dolci_stop: int | None = field(default=None, metadata={"help": "Rows of Dolci read at most; -1: all."})
    chat_ratio: float | None = field(default=None, metadata={"help": "Share of SmolTalk in the mixture, 0 to 1."})
    rs_data: str | None = field(default=None, metadata={"help": "r1_rs_sft: the JSONL file that stonk sample wrote."})
    prompt_field: str | None = field(
        default=None, metadata={"help": "Column of the prompt in a JSONL file without `messages`."}
    )
    answer_field: str | None = field(default=None, metadata={"help": "Column of the answer there."})
    task_mix: str | None = field(
        default=None, metadata={"help": "GRPO: sources and their shares, such as gsm8k:0.4,mmlu_science:0.3,math:0.3."}
    )
    reward: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={
            "help": "Reward functions: accuracy, format, overlong, or an import path such as my_rewards:brevity; weigh "
            "them with reward_weights."
        },
    )
    overlong_buffer: int = field(
        default=64, metadata={"help": "overlong: tokens below max_completion_length from which length is punished."}
    )
    held_out: float = field(
        default=0.02, metadata={"help": "Share of train that is validation, of sources whose upstream has none."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Training rows, drawn at random."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validation rows, drawn at random."})
    sampling_seed: int = field(default=42, metadata={"help": "Seed of drawing and shuffling rows."})

    def __post_init__(self):
        imports.check_names(self.reward, ("accuracy", "format", "overlong"))
        for name in ("max_train_samples", "max_eval_samples", "overlong_buffer"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out: {self.held_out:g} must lie in [0, 1)")
        if self.chat_ratio is not None and not 0 <= self.chat_ratio < 1:
            raise UserError(f"chat_ratio: {self.chat_ratio:g} must lie in [0, 1)")
        if (self.prompt_field is None) != (self.answer_field is None):
            raise UserError("prompt_field and answer_field go together: give both")
        if self.sft_recipe and self.sources:
            raise UserError("sft_recipe and sources both name a mixture: keep one")
        if self.sft_recipe or self.sources:
            sft_parts(self)
        if self.task_mix:
            rl_parts(self)


def _options(args: Arguments) -> Options:
    from stonk_trainer.tasks.reasoning.sources import Options

    return Options(prompt_field=args.prompt_field, answer_field=args.answer_field, held_out=args.held_out)


def sft_parts(args: Arguments) -> list[Part]:
    """The parts of the SFT mixture, with the keys that change one. Raises UserError for what is no mixture."""
    from stonk_trainer.tasks.reasoning import mixture

    named = args.sources or (mixture.MIXTURES[args.sft_recipe] if args.sft_recipe else ())
    if not named:
        raise UserError(f"no mixture: set sft_recipe (one of {', '.join(mixture.MIXTURES)}) or sources")
    parts = [mixture.parse_part(text, _options(args)) for text in named]
    parts = _with_paths(args, parts)
    changes: dict[str, tuple[tuple[str, ...], Callable[[Part, Any], Part]]] = {
        "ot_stop": (("openthoughts", "openthoughts3"), lambda part, value: replace(part, stop=value)),
        "ot_mode": (
            ("openthoughts", "openthoughts3"),
            lambda part, value: replace(part, options=replace(part.options, mode=value)),
        ),
        "dolci_stop": (("dolci",), lambda part, value: replace(part, stop=value)),
        "chat_ratio": (("smoltalk",), lambda part, value: replace(part, ratio=value, stop=-1)),
        "rs_data": (("chat",), lambda part, value: replace(part, path=value)),
    }
    for key, (names, change) in changes.items():
        value = getattr(args, key)
        if value is not None:
            if not {part.source for part in parts} & set(names):
                raise UserError(f"{key}: this mixture has no {names[-1]}: it is {', '.join(p.source for p in parts)}")
            parts = [change(part, value) if part.source in names else part for part in parts]
    mixture.check_parts(parts, "sources" if args.sources else "sft_recipe")
    return parts


def rl_parts(args: Arguments) -> list[Part]:
    """The parts of the GRPO mixture."""
    from stonk_trainer.tasks.reasoning import mixture

    if not args.task_mix:
        raise UserError("no task_mix: name sources and shares, such as gsm8k:0.4,mmlu_science:0.3,math:0.3")
    return _with_paths(args, mixture.parse_mix(args.task_mix, _options(args)))


def _with_paths(args: Arguments, parts: Sequence[Part]) -> list[Part]:
    from stonk_trainer.tasks.reasoning import sources

    paths = {}
    for item in args.source_paths:
        name, equals, path = item.partition("=")
        if not equals:
            raise UserError(f"source_paths: {item} is not NAME=PATH")
        sources.source(name)
        sources.local_files(path)
        paths[name] = path
    return [replace(part, path=part.path or paths.get(part.source)) for part in parts]


def settings_from(values: dict[str, Any], trainer: str) -> dict[str, Any]:
    return {}


def new_model(args: Arguments, folder: Path, seed: int) -> None:
    raise UserError("model_name_or_path: new: the reasoning task starts from an instruct model: give one")


def check_tokenizer(args: Arguments, tokenizer: Any, name: str) -> None:
    check_chat_template(tokenizer, name)


def add_to_model(args: Arguments, folder: Path) -> None:
    """A language model needs nothing beside it."""


def sft_dataset(args: Arguments, split: str) -> Dataset:
    """Rows `prompt`, `completion` (messages) and `source` of the mixture."""
    from stonk_trainer.tasks.reasoning import mixture

    limit = args.max_train_samples if split == "train" else args.max_eval_samples
    return mixture.sft_rows(sft_parts(args), split, args.sampling_seed, limit)


def rl_dataset(args: Arguments, split: str) -> Dataset:
    """Rows `prompt` (messages), `target`, `verifier`, `source` and `id` of the task mix."""
    from stonk_trainer.tasks.reasoning import mixture

    limit = args.max_train_samples if split == "train" else args.max_eval_samples
    return mixture.rl_rows(rl_parts(args), split, args.sampling_seed, limit)


def reward_functions(args: Arguments) -> list[Callable[..., list[float]]]:
    """The reward functions named in `args.reward`, for TRL."""
    from stonk_trainer.tasks.reasoning import verify

    built_in = [name for name in args.reward if not imports.is_imported(name)]
    own = verify.reward_functions(built_in, args.max_completion_length, args.overlong_buffer)
    return imports.merged(args.reward, own, args.imports)


def proper_scores(args: Arguments) -> list[str]:
    """None: an answer is right or wrong."""
    return []


def example_answers(args: Arguments, row: dict[str, Any]) -> dict[str, str]:
    """The gold answer in form; another one; the gold answer without a thought; nothing."""
    from stonk_trainer.tasks.reasoning import think_tags

    def stated(answer: str) -> str:
        return f"The answer is \\boxed{{{answer}}}."

    other = next(letter for letter in "AB" if letter != row["target"])
    return {
        "good": think_tags.join("This follows from the question.", stated(row["target"])),
        "wrong": think_tags.join("This follows from the question.", stated(other)),
        "without a thought": stated(row["target"]),
        "empty": "",
    }


def records(args: Arguments, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
    """Columns of the run log: the row, what was stated as the final answer, and whether it is right."""
    return [_record(row, text_of(completion)) for row, completion in zip(rows, completions, strict=True)]


def _record(row: Row, text: str) -> Row:
    from stonk_trainer.tasks.reasoning import verify

    known = {name: row[name] for name in ("source", "id", "target")}
    right = verify.is_correct(text, row["target"], row["verifier"])
    return {**known, "answer": verify.final_answer(text), "correct": right}


def run_log_name(args: Arguments) -> str:
    return "training_log.jsonl"
