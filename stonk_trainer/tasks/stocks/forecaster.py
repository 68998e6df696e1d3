"""A language model as a forecaster: several answers to a row, and the forecast they make together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.models import generation, loading
from stonk_trainer.task import SamplingConfig, Task
from stonk_trainer.tasks.stocks.rewards import read_answer


class LanguageForecaster:
    """Samples `sampling.samples` answers to each row from the model in a folder."""

    def __init__(self, task: Task, path: str, sampling: SamplingConfig):
        if sampling.horizon != 1:
            raise UserError(f"horizon: {sampling.horizon}: stocks are forecast one trading day ahead: leave it out")
        tokenizer = loading.load_tokenizer(path)
        task.check_tokenizer(tokenizer, path)
        self.sampling, self._evidence = sampling, task.args.evidence
        self._generator = generation.TransformersGenerator(
            path, tokenizer, {"dtype": sampling.dtype}, sampling.draft_tokens
        )

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
    """The forecast that several answers to one row make together.

    Its direction is that of most readable answers; in a tie the one with the higher stated probability, then that of
    the base rate. `answer` is the answer shown: of those with this direction the one with the most grounded lines, then
    the fewest others. evidence: as the recipe's key.
    """
    answers = []
    for text in texts:
        read = read_answer(text, row["facts"], evidence)
        forecast = read["forecast"] or {"direction": None, "confidence": None, "move": None}
        checked = {key: read[key] for key in ("problem", "remark", "grounded", "evidence", "invented")}
        answers.append({**forecast, **checked, "completion": text})
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
