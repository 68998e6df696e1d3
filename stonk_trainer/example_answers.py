"""What rewards give for answers whose worth a task knows: `stonk check` shows it, and a run tries it first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stonk_trainer.imports import as_trl_calls

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stonk_trainer.task import Row, Task


def earned(
    task: Task, args: Any, row: Row, rewards: Sequence[Callable], tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[dict[str, str], list[list[float | None]]]:
    """(the task's example answers to `row`, what each reward gives for each of them).

    Rewards are called as TRL calls them; without a tokenizer words stand for tokens. Raises UserError for a reward of
    the user's that cannot be called so, or that returns something else than a number per answer.
    """
    answers = task.example_answers(args, row)
    completions: list[Any] = list(answers.values())
    if not isinstance(row["prompt"], str):
        completions = [[{"role": "assistant", "content": answer}] for answer in completions]
    columns = {key: [value] * len(answers) for key, value in row.items() if key != "prompt"}
    ids = [tokenizer(answer)["input_ids"] if tokenizer else answer.split() for answer in answers.values()]
    given = as_trl_calls([row["prompt"]] * len(answers), completions, ids, columns)
    return answers, [reward(**given) for reward in rewards]
