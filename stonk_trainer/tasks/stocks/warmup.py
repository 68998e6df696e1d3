"""Warm-up texts: well-formed, grounded answers written from the facts, whose direction is a coin toss.

They teach the form of the answer and to cite the data, and nothing about the outcome: the stated direction,
confidence and move are drawn without looking at the label. The changes cited then follow the stated direction.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json

if TYPE_CHECKING:
    from datasets import Dataset


def warmup_rows(rows: Iterable[Mapping[str, Any]], seed: int) -> Dataset:
    """RL rows → a Dataset of `prompt` and `completion` messages. The same seed and row give the same text."""
    from datasets import Dataset

    examples = []
    for row in rows:
        rng = random.Random(f"{seed}/{row['ticker']}/{row['date']}")
        text = write_answer(facts_from_json(row["facts"]), rng.choice(("UP", "DOWN")), rng)
        examples.append({"prompt": row["prompt"], "completion": [{"role": "assistant", "content": text}]})
    return Dataset.from_list(examples)


def write_answer(facts: Sequence[Fact], direction: str, rng: random.Random) -> str:
    """An answer that argues for `direction` from `facts`, in the form the prompt asks for."""
    by_name = {fact.name: fact for fact in facts}
    sentences = _evidence(by_name, direction, rng)
    volatility = float(by_name["volatility_20d"].value) if "volatility_20d" in by_name else 1.5
    move = max(0.1, volatility * rng.uniform(0.4, 1.2))
    return (
        f"<think>\n{' '.join(sentences)}\n</think>\n"
        f"Prediction: {direction}\nExpected move: {move:.1f}%\nConfidence: {rng.randint(51, 70)}%"
    )


def _evidence(by_name: dict[str, Fact], direction: str, rng: random.Random) -> list[str]:
    """Three sentences: one or two changes that speak for `direction`, or one read as overdone; the close beside an
    average and what that speaks for; the conclusion."""
    wanted = 1 if direction == "UP" else -1
    changes = [fact for name, fact in by_name.items() if name.startswith("change_") and fact.value]
    with_it = [fact for fact in changes if (float(fact.value) > 0) == (wanted > 0)]
    if with_it:
        cited = rng.sample(with_it, min(len(with_it), 2))
        first = " and ".join(map(_named, cited)) + f" {_speaks(direction, len(cited) > 1, rng)}."
    elif changes:
        first = f"{_named(rng.choice(changes))} may be overdone, which {_speaks(direction, False, rng)}."
    else:
        first = "No change that is shown speaks for either side."
    conclusion = rng.choice(("I expect", "So I expect", "On balance I expect"))
    level = _level(by_name, 0 if with_it else wanted, rng)
    return [first[0].upper() + first[1:], level, f"{conclusion} {direction}."]


def _named(fact: Fact) -> str:
    """`change_5d` of -2.1 → "the 5-day change of -2.10%"."""
    return f"the {fact.name.removeprefix('change_').removesuffix('d')}-day change of {fact.shown}"


def _speaks(direction: str, plural: bool, rng: random.Random) -> str:
    verbs = ("speak for", "argue for", "favour") if plural else ("speaks for", "argues for", "favours")
    return f"{rng.choice(verbs)} {direction}"


def _level(by_name: dict[str, Fact], wanted: int, rng: random.Random) -> str:
    """The close beside an average and what that speaks for, or where none is shown the close alone. wanted: the side it
    should speak for if one of the averages does, 0 for any."""
    close = by_name["close"]
    averages = [fact for name, fact in by_name.items() if name.startswith("sma_") and fact.value != close.value]
    fitting = [fact for fact in averages if (float(close.value) - float(fact.value)) * wanted > 0]
    if averages:
        average = rng.choice(fitting or averages)
        above = float(close.value) > float(average.value)
        side = rng.choice(("above", "over") if above else ("below", "under"))
        days = average.name.removeprefix("sma_")
        speaks = _speaks("UP" if above else "DOWN", False, rng)
        return f"The close of {close.shown} is {side} the {days}-day average of {average.shown}, which {speaks}."
    if "volatility_20d" in by_name:
        return f"The close is {close.shown}, and the 20-day volatility {by_name['volatility_20d'].shown}."
    return f"The close is {close.shown}."
