"""Rewards of the stocks task: pure functions of an answer that was checked against its row, in one table.

    accuracy     the direction is right, or the stated probability is (a proper score)
    magnitude    the expected move is near the real one, in units of the ticker's recent volatility
    data_usage   the evidence is what the prompt shows, and the thought invents no numbers
    coherence    the evidence points to the answer, and the thought ends where the answer does

Each returns a value in [0, 1] and the reason for it. A completion without a readable answer earns 0 in all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from stonk_trainer.task import text_of
from stonk_trainer.tasks.stocks.answer import Answer, parse
from stonk_trainer.tasks.stocks.ledger import ledger_of

Row = Mapping[str, Any]
Reward = Callable[[Answer, Row], tuple[float, str]]

ACCURACIES = ("direction", "calibrated")
EVIDENCE = ("required", "optional")

DEFAULT_VOLATILITY = 0.02  # daily, as a fraction: about that of a large US share; used when the row shows none
ENOUGH_FACTS = 3  # distinct facts to cite for full data_usage
NO_EVIDENCE = "no evidence: lines `- NAME | VALUE | SIDE` count, and numbers where it is optional; words do not"
LEAST_WORDS = 8  # a shorter thought has no substance

# ------------------------------------------------------------------------------------------------------ the rewards


def direction(answer: Answer, row: Row) -> tuple[float, str]:
    """1 when the direction is right, else 0."""
    return float(answer.direction == row["label"]), f"predicted {answer.direction}, was {row['label']}"


def calibrated(answer: Answer, row: Row) -> tuple[float, str]:
    """1 - (p_up - y)², the Brier score as a reward: proper. No confidence counts as 0.5."""
    confidence = 0.5 if answer.confidence is None else answer.confidence
    p_up = confidence if answer.direction == "UP" else 1 - confidence
    return 1 - (p_up - (row["label"] == "UP")) ** 2, f"stated P(UP) = {p_up:.2f}, was {row['label']}"


def weighted_by_base_rate(reward: Reward) -> Reward:
    """`reward` times min(b, 1 - b) / b_label: b is the base rate of UP, b_label that of the row's label.

    That is 0.5 / b_label, scaled by one constant so that no reward exceeds 1. Always UP then earns
    b · min(b, 1 - b) / b = min(b, 1 - b) on average, and always DOWN the same: following the majority pays nothing.
    With `calibrated` the reward stays proper for a world in which both directions are equally likely: the best p_up has
    the odds of the true probability divided by the odds of b. That is a statement relative to the base rate, not a
    probability to bet on; to recover one, multiply the odds by b / (1 - b).
    """

    def weighted(answer: Answer, row: Row) -> tuple[float, str]:
        value, reason = reward(answer, row)
        base_rate_up = min(max(row["base_rate_up"], 0.01), 0.99)  # at 0 or 1 every weight would be 0
        of_label = base_rate_up if row["label"] == "UP" else 1 - base_rate_up
        weight = min(base_rate_up, 1 - base_rate_up) / of_label
        return value * weight, f"{reason}; weighted {weight:.2f} for the base rate of {row['label']}"

    return weighted


def magnitude(answer: Answer, row: Row) -> tuple[float, str]:
    """1 when the expected move is exact, 0 when off by two daily volatilities or more, or in the wrong direction."""
    if answer.move is None:
        return 0.0, "no expected move stated"
    if answer.direction != row["label"]:
        return 0.0, "the direction is wrong"
    volatility = ledger_of(row["facts"]).volatility or DEFAULT_VOLATILITY
    actual = abs(row["next_return"])
    value = max(0.0, 1 - abs(answer.move - actual) / (2 * volatility))
    return value, f"expected {answer.move:.2%}, was {actual:.2%}, daily volatility {volatility:.2%}"


def data_usage(answer: Answer, row: Row) -> tuple[float, str]:
    """g/n × min(1, f / min(3, citable facts)) × (1 - i).

    g: grounded lines, n: all lines, f: distinct facts that grounded lines cite, i: share of the thought's numbers that
    are invented.
    """
    if not answer.evidence:
        return 0.0, answer.no_evidence or NO_EVIDENCE
    cited = len({fact for line in answer.grounded for fact in line.cites})
    enough = min(ENOUGH_FACTS, ledger_of(row["facts"]).citable)
    value = answer.share_grounded * min(1.0, cited / max(1, enough)) * (1 - answer.share_invented)
    facts = _count(cited, "fact") if cited >= enough else f"{cited} of {enough} facts needed"
    return value, f"{_grounded(answer)}, citing {facts}{_invented(answer)}"


def coherence(answer: Answer, row: Row) -> tuple[float, str]:
    """0 unless more grounded lines point to the answer than against it; else (0.5 + 0.5 for a sound thought) × g/n ×
    (1 - i), with g, n and i as in `data_usage`.

    A sound thought has 8 words or more, repeats no sentence, and its last UP or DOWN in capitals, if any, is the
    answer.
    """
    if not answer.evidence:
        return 0.0, answer.no_evidence or NO_EVIDENCE
    agree = sum(line.side == answer.direction for line in answer.grounded)
    against = sum(line.side not in (answer.direction, "NEUTRAL") for line in answer.grounded)
    sides = f"{_grounded(answer)}, {agree} for {answer.direction} and {against} against"
    if agree <= against:
        return 0.0, f"the evidence does not point to {answer.direction}: {sides}"
    fault = _fault(answer)
    value = (0.5 if fault else 1.0) * answer.share_grounded * (1 - answer.share_invented)
    return value, f"{sides}{_invented(answer)}{f'; half, because the thought {fault}' if fault else ''}"


REWARDS: dict[str, Reward] = {
    "accuracy": direction, "magnitude": magnitude, "data_usage": data_usage, "coherence": coherence,
}  # fmt: skip
COMPONENTS = tuple(REWARDS)


def _fault(answer: Answer) -> str | None:
    """What is wrong with a thought, if anything."""
    thought = answer.thought
    if sum(1 for _ in islice(_WORD.finditer(thought), LEAST_WORDS)) < LEAST_WORDS:
        return f"has fewer than {LEAST_WORDS} words"
    text = thought.lower().replace("\n", ". ").replace("! ", ". ").replace("? ", ". ")
    sentences = [sentence for part in text.split(". ") if (sentence := part.strip(" .!?")).count(" ") > 1]
    if len(set(sentences)) < len(sentences):
        return "repeats a sentence"
    directions = _DIRECTION.findall(thought) if "UP" in thought or "DOWN" in thought else []
    return f"ends with {directions[-1]}" if directions and directions[-1] != answer.direction else None


_WORD = re.compile(r"[^\W_]+")
_DIRECTION = re.compile(r"\b(?:UP|DOWN)\b")


def _grounded(answer: Answer) -> str:
    return f"{len(answer.grounded)} of {_count(len(answer.evidence), 'line')} grounded"


def _invented(answer: Answer) -> str:
    if not answer.invented:
        return ""
    return f"; {len(answer.invented)} of {_count(answer.numbers, 'number')} in the thought invented"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


# ------------------------------------------------------------------------------------------------------ scoring


class Scorer:
    """Scores batches of answers; a batch is parsed and checked once for all rewards.

    accuracy: "direction" or "calibrated". skew_aware: weigh it by the base rate. evidence: "required", or "optional":
    an answer without evidence is judged by the numbers of its reasoning. Raises ValueError for another value.
    """

    def __init__(self, accuracy: str = "direction", skew_aware: bool = False, evidence: str = "optional"):
        for name, value, known in (("accuracy", accuracy, ACCURACIES), ("evidence", evidence, EVIDENCE)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(known)}")
        kind = direction if accuracy == "direction" else calibrated
        self.rewards: dict[str, Reward] = REWARDS | {"accuracy": weighted_by_base_rate(kind) if skew_aware else kind}
        self.columns = ("label", "next_return", "facts", *(("base_rate_up",) if skew_aware else ()))
        self._evidence = evidence
        self._batch: tuple[list, list[list]] = ([], [])
        self._checked: list[tuple[Answer, Row]] = []

    def check(self, completions: Sequence[Any], columns: Mapping[str, Sequence]) -> list[tuple[Answer, Row]]:
        """Each completion, checked against its row, and the row.

        completions: texts, or conversations that end with the assistant's message. columns: `self.columns` of the rows.
        TRL calls one reward function after another with the same lists: the last batch is remembered.
        """
        if missing := [name for name in self.columns if name not in columns]:
            raise ValueError(f"the row has no {', '.join(missing)}")
        batch = (list(completions), [list(columns[name]) for name in self.columns])
        if not self._checked or batch != self._batch:  # the same objects, so that comparing them takes no time
            rows: list[Row] = [dict(zip(self.columns, values, strict=True)) for values in zip(*batch[1], strict=True)]
            checked = [(self._check(text, row), row) for text, row in zip(batch[0], rows, strict=True)]
            self._batch, self._checked = batch, checked
        return self._checked

    def _check(self, completion: Any, row: Row) -> Answer:
        _check_row(row)
        return ledger_of(row["facts"]).check(parse(text_of(completion)), self._evidence)

    def reward_functions(self, names: Sequence[str]) -> list[Callable[..., list[float]]]:
        """TRL reward functions for `names`, in that order; each `__name__` is its reward's name.

        Called as f(completions, label=…, next_return=…, facts=…, **kwargs) -> list[float], the columns lists as long as
        completions. Raises ValueError for an unknown name.
        """
        self._check_names(names)
        return [self._reward_function(name) for name in names]

    def _check_names(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self.rewards]:
            raise ValueError(f"unknown reward {unknown[0]!r}; choose from {', '.join(self.rewards)}")

    def _reward_function(self, name: str) -> Callable[..., list[float]]:
        def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
            return [self.value(name, answer, row)[0] for answer, row in self.check(completions, columns)]

        reward.__name__ = name
        return reward

    def value(self, name: str, answer: Answer, row: Row) -> tuple[float, str]:
        """The reward `name` of one answer, and the reason for it."""
        if answer.direction is None:
            return 0.0, f"no readable answer: {answer.problem}"
        return self.rewards[name](answer, row)

    def explain(self, completion: str, row: Row, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Score one completion and say why; see `score`."""
        weights = dict.fromkeys(COMPONENTS, 1 / len(COMPONENTS)) if weights is None else weights
        self._check_names(list(weights))
        ((answer, _),) = self.check([completion], {name: [value] for name, value in row.items()})
        values = {name: self.value(name, answer, row) for name in self.rewards}
        return {
            **{name: value for name, (value, _) in values.items()},
            "total": sum(weight * values[name][0] for name, weight in weights.items()),
            **describe(answer),
            "reasons": {name: reason for name, (_, reason) in values.items()},
        }


def score(
    completion: str,
    row: Row,
    *,
    accuracy: str = "direction",
    skew_aware: bool = False,
    evidence: str = "optional",
    weights: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Score one completion and say why.

    Args:
        completion: the assistant's text.
        row: label ("UP"/"DOWN"), next_return (fraction), facts (JSON of `facts_to_json`), and for skew_aware
            base_rate_up (in [0, 1]).
        accuracy, skew_aware, evidence: as in a recipe; see `Scorer`.
        weights: by reward; those left out weigh 0. None: `total` is the mean of the four.

    Returns:
        Each reward, total (the weighted sum), reasons (one text per reward), and what `describe` returns.

    Raises:
        ValueError: an unknown setting or reward, or a row without a column or with a malformed value.
    """
    return Scorer(accuracy, skew_aware, evidence).explain(completion, row, weights)


def describe(answer: Answer) -> dict[str, Any]:
    """An answer as plain values.

    forecast (direction, confidence, move; None when unreadable), problem (why it is unreadable), remark (on a
    confidence that does not count), evidence (name, value, side, verdict), invented (numbers of the thought), grounded
    (share of the evidence, in [0, 1]).
    """
    readable = answer.direction is not None
    return {
        "forecast": {key: getattr(answer, key) for key in ("direction", "confidence", "move")} if readable else None,
        "problem": answer.problem,
        "remark": answer.remark,
        "evidence": [
            {"name": line.name, "value": line.value, "side": line.side, "verdict": line.verdict}
            for line in answer.evidence
        ],
        "invented": list(answer.invented),
        "grounded": answer.share_grounded,
    }


def read_answer(completion: str, facts: str, evidence: str = "optional") -> dict[str, Any]:
    """One completion as `describe` returns it; needs no label. Raises ValueError for malformed facts."""
    return describe(ledger_of(facts).check(parse(completion), evidence))


def _check_row(row: Row) -> None:
    if row["label"] not in ("UP", "DOWN"):
        raise ValueError(f"label: {row['label']!r} is neither UP nor DOWN")
    for key in ("next_return", "base_rate_up"):
        if key in row and not (isinstance(row[key], (int, float)) and math.isfinite(row[key])):
            raise ValueError(f"{key}: {row[key]!r} is not a number")
