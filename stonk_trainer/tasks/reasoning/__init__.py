"""Reasoning, R1 style: cold start → GRPO on verifiable tasks → rejection sampling → SFT on what was kept → evaluation.

What a method needs is imported when it is called. Training reads train and validation splits only; `stonk eval`
measures on the test splits of public benchmarks through lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.task import Row, Task, TaskArguments, text_of

if TYPE_CHECKING:
    from datasets import Dataset

    from stonk_trainer.tasks.reasoning.mixture import Part
    from stonk_trainer.tasks.reasoning.sources import Options


@dataclass
class ReasoningArguments(TaskArguments):
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

    def __post_init__(self):
        super().__post_init__()
        if self.overlong_buffer < 1:
            raise UserError(f"overlong_buffer: {self.overlong_buffer} must be at least 1")
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


def _options(args: ReasoningArguments) -> Options:
    from stonk_trainer.tasks.reasoning.sources import Options

    return Options(prompt_field=args.prompt_field, answer_field=args.answer_field, held_out=args.held_out)


def sft_parts(args: ReasoningArguments) -> list[Part]:
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


def rl_parts(args: ReasoningArguments) -> list[Part]:
    """The parts of the GRPO mixture."""
    from stonk_trainer.tasks.reasoning import mixture

    if not args.task_mix:
        raise UserError("no task_mix: name sources and shares, such as gsm8k:0.4,mmlu_science:0.3,math:0.3")
    return _with_paths(args, mixture.parse_mix(args.task_mix, _options(args)))


def _with_paths(args: ReasoningArguments, parts: Sequence[Part]) -> list[Part]:
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


class Reasoning(Task):
    """Questions with one right answer, thought about between `<think>` and `</think>`."""

    Arguments = ReasoningArguments
    REWARDS = ("accuracy", "format", "overlong")
    UNSUPPORTED_COMMANDS = {"predict": "stonk predict is for forecasts: see `stonk sample` and `stonk eval`"}
    EVALUATE = "stonk_trainer.tasks.reasoning.harness:main"
    args: ReasoningArguments

    def sft_dataset(self, split: str) -> Dataset:
        """Rows `prompt`, `completion` (messages) and `source` of the mixture."""
        from stonk_trainer.tasks.reasoning.mixture import sft_rows

        rows, self.data[split] = sft_rows(sft_parts(self.args), split, self.args.sampling_seed, self._limit(split))
        return rows

    def rl_dataset(self, split: str) -> Dataset:
        """Rows `prompt` (messages), `target`, `verifier`, `source` and `id` of the task mix."""
        from stonk_trainer.tasks.reasoning.mixture import rl_rows

        rows, self.data[split] = rl_rows(rl_parts(self.args), split, self.args.sampling_seed, self._limit(split))
        return rows

    def _limit(self, split: str) -> int | None:
        return self.args.max_train_samples if split == "train" else self.args.max_eval_samples

    def rewards(self, names: Sequence[str]) -> list[Reward]:
        from stonk_trainer.tasks.reasoning.verify import reward_functions

        return reward_functions(names, self.max_completion_length, self.args.overlong_buffer)

    def examples(self, row: Row) -> dict[str, str]:
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

    def read(self, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """The row's source, id and target; what was stated as the final answer, and whether it is right."""
        from stonk_trainer.tasks.reasoning import verify

        return [
            {
                **{name: row[name] for name in ("source", "id", "target")},
                "answer": verify.final_answer(text),
                "correct": verify.is_correct(text, row["target"], row["verifier"]),
            }
            for row, text in zip(rows, map(text_of, completions), strict=True)
        ]
