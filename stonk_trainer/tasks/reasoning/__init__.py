"""Reasoning, R1 style: cold start → GRPO on verifiable tasks → rejection sampling → SFT on what was kept → evaluation.

What a method needs is imported when it is called. Training reads train and validation splits only; `stonk eval`
measures on the test splits of public benchmarks through lm-eval.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.imports import Reward
from stonk_trainer.task import CardResults, Row, Table, Task, text_of
from stonk_trainer.tasks.reasoning.arguments import ReasoningArguments

if TYPE_CHECKING:
    from datasets import Dataset


class Reasoning(Task):
    """Questions with one right answer, thought about between `<think>` and `</think>`."""

    Arguments = ReasoningArguments
    REWARDS = ("accuracy", "format", "overlong")
    UNSUPPORTED_COMMANDS = {"predict": "stonk predict is for forecasts: see `stonk sample` and `stonk eval`"}
    EVALUATE = "stonk_trainer.tasks.reasoning.harness:main"
    ABOUT = "It thinks between `<think>` and `</think>`, then answers questions that have one right answer."
    args: ReasoningArguments

    def check(self) -> None:
        """Also the mixtures that are named."""
        from stonk_trainer.tasks.reasoning.mixture import rl_parts, sft_parts

        super().check()
        if self.args.sft_recipe or self.args.sources:
            sft_parts(self.args)
        if self.args.task_mix:
            rl_parts(self.args)

    def sft_dataset(self, split: str) -> Dataset:
        """Rows `prompt`, `completion` (messages) and `source` of the mixture."""
        from stonk_trainer.tasks.reasoning.mixture import sft_parts, sft_rows

        rows, self.data[split] = sft_rows(sft_parts(self.args), split, self.args.sampling_seed, self.limit(split))
        return rows

    def rl_dataset(self, split: str) -> Dataset:
        """Rows `prompt` (messages), `target`, `verifier`, `source` and `id` of the task mix."""
        from stonk_trainer.tasks.reasoning.mixture import rl_parts, rl_rows

        rows, self.data[split] = rl_rows(rl_parts(self.args), split, self.args.sampling_seed, self.limit(split))
        return rows

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

    @classmethod
    def card_question(cls) -> tuple[list[dict[str, str]], int, str]:
        """The question that any model may be asked, under the system prompt of the task."""
        from stonk_trainer.tasks.reasoning.chats import SYSTEM

        messages, _, note = super().card_question()
        return [{"role": "system", "content": SYSTEM}, *messages], 1024, note

    @classmethod
    def card_results(cls, folder: Path, model: Path) -> CardResults | None:
        """Benchmarks that `stonk eval` ran through lm-eval (results.json), of this model and those judged with it."""
        from stonk_trainer.evaluation.tables import find_model, short_names

        path = folder / "results.json"
        found = json.loads(path.read_text()) if path.is_file() else {}
        key = find_model(found, model)
        if key is None:
            return None
        names = [key, *(name for name in found if name != key)]
        rows, metrics = [], []
        for name, short in zip(names, short_names(names), strict=True):
            for task, values in found[name].items():
                for metric in (m for m in values if m != "questions" and not m.endswith("_stderr")):
                    error = values.get(f"{metric}_stderr")
                    text = f"{100 * values[metric]:.1f}" + (f" ± {100 * error:.1f}" if isinstance(error, float) else "")
                    rows.append([short, task, metric, text, str(values.get("questions", "–"))])
                    metrics += [(task, metric, values[metric])] * (name == key)
        caption = "Benchmarks through lm-eval, in percent ± the standard error over questions; this model first."
        return CardResults([Table(caption, ["", "benchmark", "metric", "%", "questions"], rows)], metrics)
