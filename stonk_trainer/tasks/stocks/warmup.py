"""Warm-up texts: well-formed, grounded answers written from the facts, whose direction is a coin toss.

They teach the form of the answer and to cite the data, and nothing about the outcome: the stated direction,
confidence and move are drawn without looking at the label. The evidence cited then follows the stated direction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json

if TYPE_CHECKING:
    from datasets import Dataset

_RISE = ("rose", "gained", "climbed")
_FALL = ("fell", "lost", "dropped")


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
    wanted = 1 if direction == "UP" else -1
    sentences = _evidence(by_name, wanted, rng)
    volatility = float(by_name["volatility_20d"].value) if "volatility_20d" in by_name else 1.5
    move = max(0.1, volatility * rng.uniform(0.4, 1.2))
    return (
        f"<think>\n{' '.join(sentences)}\n</think>\n"
        f"Prediction: {direction}\nExpected move: {move:.1f}%\nConfidence: {rng.randint(51, 70)}%"
    )


def _evidence(by_name: dict[str, Fact], wanted: int, rng: random.Random) -> list[str]:
    """Two sentences: one or two facts that point the way wanted (or a fact read as overdone), then the close."""
    changes = [fact for name, fact in by_name.items() if name.startswith("change_") and fact.value]
    with_it = [fact for fact in changes if (float(fact.value) > 0) == (wanted > 0)]
    against = [fact for fact in changes if fact not in with_it]
    if with_it:
        cited = rng.sample(with_it, min(len(with_it), 2))
        first = "The share " + " and ".join(_moved(fact, rng) for fact in cited) + "."
    elif against:
        fact = rng.choice(against)
        turn = "a pullback" if wanted < 0 else "a rebound"
        first = f"The share {_moved(fact, rng)}, so {turn} is likely."
    else:
        first = "The data shows no clear trend for the share."
    return [first, _level(by_name, wanted, rng)]


def _moved(fact: Fact, rng: random.Random) -> str:
    """`change_5d` of -2.1 → "fell 2.10% over 5 days"."""
    days = int(re.sub(r"\D", "", fact.name))
    verb = rng.choice(_RISE if float(fact.value) > 0 else _FALL)
    return f"{verb} {fact.shown.lstrip('+-')} {'over the last day' if days == 1 else f'over {days} days'}"


def _level(by_name: dict[str, Fact], wanted: int, rng: random.Random) -> str:
    """The close beside an average: as evidence when it lies on the side wanted, else as two plain levels."""
    close = by_name["close"]
    averages = [fact for name, fact in by_name.items() if name.startswith("sma_")]
    fitting = [a for a in averages if (float(close.value) - float(a.value)) * wanted > 0]
    if averages:
        average = rng.choice(fitting or averages)
        named = f"its {average.name.removeprefix('sma_')}-day average of {average.shown}"
        if fitting:
            return f"Its close of {close.shown} is {'above' if wanted > 0 else 'below'} {named}."
        return f"It closed at {close.shown}, with {named}."
    if "volatility_20d" in by_name:
        return f"It closed at {close.shown} with a 20-day volatility of {by_name['volatility_20d'].shown}."
    return f"It closed at {close.shown}."
