"""A language model as a forecaster: several answers to a row, and what they come to together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.models import generation, loading
from stonk_trainer.task import SamplingConfig, Task
from stonk_trainer.tasks.stocks.facts import check_facts
from stonk_trainer.tasks.stocks.rewards import read_answer


class LanguageForecaster:
    """Asks the model in a folder for `sampling.samples` answers to each row."""

    def __init__(self, task: Task, path: str, sampling: SamplingConfig):
        if sampling.horizon != 1:
            raise UserError(f"horizon: {sampling.horizon}: stocks are forecast for the next trading day: leave it out")
        tokenizer = loading.load_tokenizer(path)
        task.check_tokenizer(tokenizer, path)
        self.sampling, self._evidence = sampling, task.args.evidence
        self._generator = generation.TransformersGenerator(path, tokenizer, {"dtype": sampling.dtype})

    def forecasts(
        self, rows: Sequence[Mapping], on_token: Callable[[list[str]], None] | None = None
    ) -> list[dict[str, Any]]:
        """See `task.Forecaster`. Besides: answers, and one of them with its evidence."""
        prompts = [row["prompt"] for row in rows]
        seeds = [self.sampling.seed_of(prompt) for prompt in prompts]
        how = generation.Sampling(self.sampling.max_tokens, self.sampling.temperature, self.sampling.top_p)
        found = self._generator.samples(prompts, self.sampling.samples, how, seeds, on_token)
        return [
            combine(row, [answer.text for answer in answers], self._evidence)
            for row, answers in zip(rows, found, strict=True)
        ]


def combine(row: Mapping, texts: Sequence[str], evidence: str = "optional") -> dict[str, Any]:
    """What several answers to one row come to.

    The direction most readable answers give; of a tie the one whose stated probability is higher, then that of the
    base rate. `answer` is one that says the same: of these the one with the most grounded lines, then the fewest
    others. evidence: as the recipe's key.
    """
    answers = []
    for text in texts:
        read = read_answer(text, row["facts"], evidence)
        forecast = read["forecast"] or {"direction": None, "confidence": None, "move": None}
        told = {key: read[key] for key in ("problem", "remark", "grounded", "evidence", "invented")}
        answers.append({**forecast, **told, "completion": text})
    readable = [answer for answer in answers if answer["direction"]]
    nothing = dict.fromkeys(("direction", "confidence", "stated_confidence", "move"))
    if not readable:
        return {**nothing, "readable": 0, "answer": "", "evidence": [], "invented": [], "answers": answers}
    ups = sum(answer["direction"] == "UP" for answer in readable)
    stated = [
        answer["confidence"] if answer["direction"] == "UP" else 1 - answer["confidence"]
        for answer in readable
        if answer["confidence"] is not None
    ]
    stated_up = fmean(stated) if stated else None
    lean = 2 * ups - len(readable) or (stated_up or 0.5) - 0.5 or (row.get("base_rate_up") or 0.5) - 0.5
    direction = "UP" if lean >= 0 else "DOWN"
    agreeing = [answer for answer in readable if answer["direction"] == direction]
    shown = max(agreeing, key=_groundedness)
    moves = [answer["move"] for answer in agreeing if answer["move"] is not None]
    return {
        "direction": direction,
        "confidence": len(agreeing) / len(readable),
        "stated_confidence": None if stated_up is None else stated_up if direction == "UP" else 1 - stated_up,
        "move": fmean(moves) if moves else None,
        "readable": len(readable),
        "answer": shown["completion"],
        "evidence": shown["evidence"],
        "invented": shown["invented"],
        "answers": answers,
    }


def _groundedness(answer: Mapping) -> tuple[int, int]:
    grounded = sum(line["verdict"] == "grounded" for line in answer["evidence"])
    return grounded, grounded - len(answer["evidence"]) - len(answer["invented"])


def check_row(row: Mapping, where: str) -> dict[str, Any]:
    """`row` with its facts as JSON. UserError when it has no prompt that a chat model reads, or facts that are none."""
    prompt = row.get("prompt")
    if not isinstance(prompt, list) or not prompt or not all(map(_is_message, prompt)):
        raise UserError(
            f"{where}: prompt is not a list of messages (role, content): give rows as `stonk data rows` writes"
        )
    return {**row, "facts": check_facts(row.get("facts", []), where)}


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
