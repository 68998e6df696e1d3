"""The ledger: checks the evidence lines of an answer, and the numbers of its thought, against the facts of a row.

    - 5-day change | -1.77% | DOWN
    - Close vs 20-day average | below | DOWN
    - Headline 2 | "raises full-year guidance" | UP

A line is checked exactly: its name must be a label of the prompt or a comparison of two, and its value must be the
fact's to the digits written. The side is the writer's own reading, and no word of the thought decides a verdict. A
number of the thought is *known* when it is a fact or follows from two of them in one of a few ways; otherwise it is
*invented*.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from stonk_trainer.tasks.stocks.answer import Answer, Evidence
from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json, labels
from stonk_trainer.tasks.stocks.quantity import Quantity, quantities_in, read_value

Verdict = Literal["too many", "malformed", "no such fact", "repeated", "wrong value", "grounded"]
SIDES = ("UP", "DOWN", "NEUTRAL")
MOST_LINES = 8
LONGEST_KEPT = 300  # characters of a line whose reading is kept
SHORTEST_QUOTE = 4  # words of a headline; all of one that has fewer
DECIMALS_OF_DERIVED = 2  # of a number that counts as evidence by itself though the prompt does not show it

_UNITS = {"usd": "$", "percent": "%"}  # how a number of such a fact is written; others are plain
_SPACES = " \t\r"
_PUNCTUATION = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c).startswith("P"))


class Known(NamedTuple):
    """A number that a row explains. name: of its fact or facts. derived: it is not in the prompt but follows from two
    facts. side: of a change, by its sign; else NEUTRAL."""

    name: str
    value: Decimal
    derived: bool
    side: str


@functools.lru_cache(maxsize=1024)
def ledger_of(facts: str) -> Ledger:
    """The ledger of a row. facts: JSON of `facts_to_json`. Raises ValueError when it is something else."""
    try:
        return Ledger(facts_from_json(facts))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"facts: not what facts_to_json writes: {error}") from error


class Ledger:
    """The facts of a row, indexed to check many answers against."""

    def __init__(self, facts: Sequence[Fact]):
        self._facts = {fact.name: fact for fact in facts}
        self._labels = labels(facts)
        self._names = {label.lower(): name for name, label in self._labels.items()}
        self._values = {fact.name: Decimal(repr(fact.value)) for fact in facts if fact.is_number}
        self._prices = {name for name in self._values if _PRICE.fullmatch(name)}
        self._changes = {name for name in self._values if name.startswith("change_")}
        self._line = functools.lru_cache(maxsize=1024)(self._read_line)  # the answers of a group repeat lines
        self._headlines = {name: _words(fact.printed) for name, fact in self._facts.items() if _is_headline(name)}

    @property
    def citable(self) -> int:
        """How many facts evidence may cite."""
        return len(self._names)

    @functools.cached_property
    def volatility(self) -> float | None:
        """The share's daily volatility as a fraction, where the prompt shows it."""
        shown = next((value for name, value in self._values.items() if name.startswith("volatility_")), 0)
        return float(shown) / 100 if shown > 0 else None

    def check(self, answer: Answer, evidence: str = "required") -> Answer:
        """The answer with a verdict on each line of its evidence, and the invented numbers of its thought.

        evidence: "required", or "optional": in an answer without any each number of the thought is a line.
        """
        numbers = [(number, self._known(number, answer)) for number in quantities_in(answer.thought)]
        if answer.lines is None and evidence == "optional":
            lines = tuple(self._judge_numbers(numbers))
        else:
            lines = tuple(self._judge_lines(answer.lines or ()))
        return answer._replace(
            evidence=lines,
            grounded=tuple([line for line in lines if line.verdict == "grounded"]),
            numbers=len(numbers),
            invented=tuple([number.text for number, known in numbers if known is None]),
        )

    # ------------------------------------------------------------------------------------------------ lines

    def _judge_lines(self, lines: Sequence[str]) -> Iterator[Evidence]:
        seen: set[tuple[str, ...]] = set()
        for place, text in enumerate(lines):
            line = self._line(text) if len(text) < LONGEST_KEPT else self._read_line(text)
            if place >= MOST_LINES:
                line = line._replace(verdict="too many", cites=())
            elif line.cites:
                if line.cites in seen:
                    line = line._replace(verdict="repeated")
                seen.add(line.cites)
                seen.add(line.cites[::-1])
                if line.verdict != "grounded":
                    line = line._replace(cites=())
            yield line

    def _read_line(self, text: str) -> Evidence:
        """One line as if it were the first. `cites` holds the facts it names even when the value is wrong."""
        parts = _split(text)
        if parts is None:
            return Evidence(text.strip(_SPACES).removeprefix("- "), "", "", "malformed")
        name, value, side = parts
        cites = self._cited(name)
        if not cites:
            return Evidence(name, value, side, "no such fact")
        return Evidence(name, value, side, "grounded" if self._agrees(cites, value) else "wrong value", cites)

    def _cited(self, name: str) -> tuple[str, ...]:
        """The fact of this label, or the two that `A vs B` compares; empty when it is neither."""
        label = name.lower()
        if label in self._names:
            return (self._names[label],)
        first, versus, second = label.partition(" vs ")
        if not versus:
            return ()
        pair = self._names.get(first.strip(_SPACES), ""), self._names.get(second.strip(_SPACES), "")
        comparable = self._prices.issuperset(pair) or self._changes.issuperset(pair)
        return pair if comparable and pair[0] != pair[1] else ()

    def _agrees(self, cites: tuple[str, ...], value: str) -> bool:
        if len(cites) == 2:
            a, b = (self._values[name] for name in cites)
            return _compares(a, b, value, prices=cites[0] in self._prices)
        name = cites[0]
        if name in self._headlines:
            return _quotes(value, self._headlines[name])
        number = read_value(value)
        unit = _UNITS.get(self._facts[name].unit, "")
        return number is not None and number.unit == unit and number.states(self._values[name])

    # ------------------------------------------------------------------------------------------------ numbers

    def _judge_numbers(self, numbers: Sequence[tuple[Quantity, Known | None]]) -> Iterator[Evidence]:
        """Each number of a thought as a line of its own, without the answer's own move and confidence."""
        lines = [(number, known) for number, known in numbers if known is None or known.name]
        seen: set[str] = set()
        for place, (number, known) in enumerate(lines):
            verdict: Verdict = "grounded"
            if place >= MOST_LINES:
                verdict = "too many"
            elif known is None or (known.derived and number.places < DECIMALS_OF_DERIVED):
                verdict = "no such fact"
            elif known.name in seen:
                verdict = "repeated"
            name, side = (known.name, known.side) if known else ("", "NEUTRAL")
            seen.add(name)
            yield Evidence(name, number.text, side, verdict, (name,) if verdict == "grounded" else ())

    def _known(self, number: Quantity, answer: Answer) -> Known | None:
        """The number of the row, or of the answer itself, that `number` is; None when it is invented."""
        if number.value is None:
            return None
        sizes, known = self._known_numbers.get(number.unit, ((), ()))
        size = abs(number.value)
        near = range(bisect_left(sizes, size - number.half), bisect_right(sizes, size + number.half))
        found = [known[at] for at in near if number.states_size(known[at].value)]
        if found:
            return min(found, key=lambda one: (one.derived, abs(abs(one.value) - size)))
        return Known("", number.value, False, "NEUTRAL") if _is_own(number, answer) else None

    @functools.cached_property
    def _known_numbers(self) -> dict[str, tuple[list[Decimal], list[Known]]]:
        """By unit, (sizes, numbers) in order of size: facts, numbers in texts, changes between closes, distances of the
        close. The unit "" holds all that the prompt shows, for numbers without a unit."""
        by_unit: dict[str, list[Known]] = {"": []}
        for name, value in self._values.items():
            side = _side(value) if name in self._changes else "NEUTRAL"
            known = Known(self._labels[name], value, False, side)
            by_unit[""].append(known)
            if unit := _UNITS.get(self._facts[name].unit):
                by_unit.setdefault(unit, []).append(known)
        for name in (*self._headlines, "description"):
            for number in quantities_in(self._facts[name].shown if name in self._facts else ""):
                if number.value is not None:
                    known = Known(self._labels.get(name, name), number.value, False, "NEUTRAL")
                    for unit in {"", number.unit}:
                        by_unit.setdefault(unit, []).append(known)
        for now, before in self._distances():
            a, b = self._values[now], self._values[before]
            name, side = f"{self._labels[now]} vs {self._labels[before]}", _side(a - b)
            by_unit.setdefault("$", []).append(Known(name, a - b, True, side))
            if b:
                by_unit.setdefault("%", []).append(Known(name, (a - b) / b * 100, True, side))
        ordered = {unit: sorted(found, key=lambda one: abs(one.value)) for unit, found in by_unit.items()}
        return {unit: ([abs(one.value) for one in found], found) for unit, found in ordered.items()}

    def _distances(self) -> list[tuple[str, str]]:
        """Pairs of prices whose distance is known: neighbouring closes, and the close and every other price."""
        closes = {days: name for name in self._prices if (days := _days_ago(name)) is not None}
        neighbours = [(name, closes[days + 1]) for days, name in closes.items() if days and days + 1 in closes]
        others = [("close", name) for name in self._prices if name != "close" and "close" in self._prices]
        return neighbours + others


_PRICE = re.compile(r"close|open|close_\d+d_ago|sma_\d+")


def _is_headline(name: str) -> bool:
    return name.startswith("headline_")


def _days_ago(name: str) -> int | None:
    """0 for `close`, 2 for `close_2d_ago`, None for other facts."""
    found = re.fullmatch(r"close_(\d+)d_ago", name)
    return int(found[1]) if found else 0 if name == "close" else None


def _is_own(number: Quantity, answer: Answer) -> bool:
    """Whether `number` is the move that the answer states or its confidence, in percent or as a fraction."""
    if number.value is None or number.unit not in ("%", ""):
        return False
    own = [100 * answer.move if answer.direction == "UP" else -100 * answer.move] if answer.move is not None else []
    if answer.confidence is not None:
        own += [100 * answer.confidence, answer.confidence]
    value, half = float(number.value), float(number.half) * (1 + 1e-9)
    return any(abs(value - one) <= half or (not number.signed and abs(value + one) <= half) for one in own)


def _side(change: Decimal) -> str:
    return "UP" if change > 0 else "DOWN" if change < 0 else "NEUTRAL"


def _split(line: str) -> tuple[str, str, str] | None:
    """NAME, VALUE and SIDE of `- NAME | VALUE | SIDE`; None for a line of another form."""
    text = line.strip(_SPACES)
    name, _, rest = text[2:].partition(" | ")
    value, _, side = rest.rpartition(" | ")
    name, value, side = name.strip(_SPACES), value.strip(_SPACES), side.strip(_SPACES)
    return (name, value, side) if text.startswith("- ") and name and value and side in SIDES else None


def _words(text: str) -> list[str]:
    """Words split at spaces, in lower case and without punctuation at their edges."""
    return [word for part in text.lower().split() if (word := part.strip(_PUNCTUATION))]


def _compares(a: Decimal, b: Decimal, value: str, prices: bool) -> bool:
    """Whether `value` is how a compares to b: above, below or equal, or the signed distance."""
    if value in ("above", "below", "equal"):
        return value == ("above" if a > b else "below" if a < b else "equal")
    number = read_value(value)
    if number is None:
        return False
    if number.unit == "%":
        return prices and b != 0 and number.states((a - b) / b * 100)
    return number.unit == ("$" if prices else "pp") and number.states(a - b)


def _quotes(value: str, headline: list[str]) -> bool:
    """Whether `value` is, in quotation marks, enough words of the headline in a row."""
    if len(value) < 2 or value[0] + value[-1] not in ('""', "\u201c\u201d"):
        return False
    words = _words(value[1:-1])
    count = len(words)
    if not count or count < min(SHORTEST_QUOTE, len(headline)):
        return False
    return any(headline[at : at + count] == words for at in range(len(headline) - count + 1))
