"""Warm-up texts: answers in the form the prompt asks for, true to the facts, with a random direction.

They teach the form and to cite the data, and nothing about the outcome: the stated direction, confidence and move are
drawn without looking at the label. The sides of the evidence follow the signs, or are all reversed under a thought that
calls the moves overdone, whichever gives the direction a majority.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json, labels
from stonk_trainer.tasks.stocks.ledger import SHORTEST_QUOTE

if TYPE_CHECKING:
    from datasets import Dataset

MOST_SIGNED = 3  # lines whose side follows a sign
FEWEST_WRITTEN, MOST_WRITTEN = 3, 4
QUOTED_WORDS = 8
OPPOSITE = {"UP": "DOWN", "DOWN": "UP", "NEUTRAL": "NEUTRAL"}


class Line(NamedTuple):
    """A line of evidence, the facts it cites, and the same in words where its side follows a sign."""

    name: str
    value: str
    side: str
    cites: tuple[str, ...]
    words: str = ""


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
    """An answer that argues for `direction` from three or four facts, in the form the prompt asks for."""
    signed = _signed_lines(facts, rng)
    lines = signed + _other_lines(facts, signed, rng)
    turned = bool(signed) and _majority(signed) != direction
    thought = _thought(signed, turned, direction, rng)
    if turned:
        lines = [line._replace(side=OPPOSITE[line.side]) for line in lines]
    elif not signed and lines:
        lines[0] = lines[0]._replace(side=direction)
    rng.shuffle(lines)
    volatility = next((float(fact.value) for fact in facts if fact.name == "volatility_20d"), 1.5)
    move = max(0.1, volatility * rng.uniform(0.4, 1.2))
    evidence = "".join(f"- {line.name} | {line.value} | {line.side}\n" for line in lines)
    return (
        f"<think>\n{thought}\n</think>\nEvidence:\n{evidence}"
        f"Prediction: {direction}\nExpected move: {move:.1f}%\nConfidence: {rng.randint(51, 70)}%"
    )


def _signed_lines(facts: Sequence[Fact], rng: random.Random) -> list[Line]:
    """Changes, and the close compared with averages and an earlier close: one to three, with a majority."""
    label, value = labels(facts), {fact.name: float(fact.value) for fact in facts if fact.is_number}
    found = []
    for fact in facts:
        if fact.name.startswith("change_") and fact.value:
            side, sign = ("UP", "positive") if value[fact.name] > 0 else ("DOWN", "negative")
            words = f"the {label[fact.name]} is {sign}"
            found.append(Line(label[fact.name], fact.printed, side, (fact.name,), words))
    averages = [name for name in value if name.startswith("sma_")]
    earlier = [name for name in value if name.endswith("d_ago")]
    for name in averages + rng.sample(earlier, min(1, len(earlier))):
        if value[name] == value.get("close", value[name]):
            continue
        side, relation = ("UP", "above") if value["close"] > value[name] else ("DOWN", "below")
        other = f"its {label[name]}" if name in averages else f"the {label[name].lower()}"
        words = f"the close is {relation} {other}"
        found.append(Line(f"{label['close']} vs {label[name]}", relation, side, ("close", name), words))
    chosen = rng.sample(found, min(MOST_SIGNED, len(found)))
    if len(chosen) == 2 and chosen[0].side != chosen[1].side:
        chosen[1] = chosen[1]._replace(side="NEUTRAL")
    return chosen


def _other_lines(facts: Sequence[Fact], signed: Sequence[Line], rng: random.Random) -> list[Line]:
    """Levels and headlines, which point to neither side, to complete the evidence: facts not cited yet come first,
    closes of earlier days last."""
    label, cited = labels(facts), {name for line in signed for name in line.cites}
    found = []
    for fact in facts:
        if fact.name in label and not (fact.name.startswith("change_") and fact.value):
            shown = _quote(fact.printed, rng) if fact.name.startswith("headline_") else fact.printed
            rank = (fact.name in cited, fact.name.endswith("d_ago"), rng.random())
            found.append((rank, Line(label[fact.name], shown, "NEUTRAL", (fact.name,))))
    wanted = rng.randint(FEWEST_WRITTEN, MOST_WRITTEN) - len(signed)
    return [line for _, line in sorted(found)[:wanted]]


def _quote(headline: str, rng: random.Random) -> str:
    """The first words of a headline, in quotation marks: four or more, if it has them, not counting punctuation."""
    words, wanted = [], rng.randint(SHORTEST_QUOTE, QUOTED_WORDS)
    for word in headline.split():
        if wanted:
            words.append(word)
            wanted -= any(map(str.isalnum, word))
    return f'"{" ".join(words)}"'


def _thought(signed: Sequence[Line], turned: bool, direction: str, rng: random.Random) -> str:
    """A few words about the signs, and the conclusion."""
    if not signed:
        return f"Nothing in the data points clearly to one side, so this is close to a coin. I lean {direction}."
    majority = _majority(signed)
    leading = _listed([line.words for line in signed if line.side == majority])
    against = _listed([line.words for line in signed if line.side != majority])
    text = leading[0].upper() + leading[1:]
    if against:
        text += f", {rng.choice(('but', 'although', 'while'))} {against}"
    if turned:
        end = rng.choice(("These moves look overdone, so I expect", "That looks overdone and should turn, which means"))
    else:
        end = rng.choice(
            ("On balance I expect", "I expect this to go on, which means", "Taken together this points to")
        )
    return f"{text}. {end} {direction}."


def _majority(signed: Sequence[Line]) -> str:
    ups = sum(line.side == "UP" for line in signed)
    return "UP" if ups > sum(line.side == "DOWN" for line in signed) else "DOWN"


def _listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
