"""Facts: every number and text a prompt shows about a company, each under one name and one label.

The prompt is rendered from facts, and the rewards check an answer against the same facts, so they cannot disagree
about what the model was shown. Nothing here looks past the row's own date: the caller passes the past only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fact:
    """One thing shown in the prompt. `value` is the number exactly as `shown` prints it, already rounded.

    Units: usd (dollars), percent (percent points), count, ratio (plain number), date (ISO string), text.
    """

    name: str
    value: float | str
    unit: str
    shown: str

    @property
    def is_number(self) -> bool:
        """Whether `value` is a number an answer can cite."""
        return self.unit not in ("text", "date") and isinstance(self.value, (int, float)) and math.isfinite(self.value)

    @property
    def is_citable(self) -> bool:
        """Whether evidence may cite it: numbers and headlines, but not company, ticker, description or date."""
        return self.is_number or self.name.startswith("headline_")

    @property
    def printed(self) -> str:
        """`shown` as the prompt prints it: `|` separates the parts of an evidence line, so it becomes `/`."""
        return self.shown.replace("|", "/")


def label(fact: Fact) -> str:
    """What the prompt and an evidence line call a fact: `change_5d` → "5-day change", `headline_2` → "Headline 2"."""
    name = fact.name
    if name in ("open", "close", "volume"):
        return name.capitalize()
    if match := re.fullmatch(r"close_(\d+)d_ago", name):
        return f"Close {match[1]} day{'' if match[1] == '1' else 's'} ago"
    if match := re.fullmatch(r"(change|sma|volatility)_(\d+)d?", name):
        return f"{match[2]}-day {'average' if match[1] == 'sma' else match[1]}"
    if match := re.fullmatch(r"headline_(\d+)", name):
        return f"Headline {match[1]}"
    return " ".join(name.removeprefix("financials/").replace("|", "/").split())


def labels(facts: Iterable[Fact]) -> dict[str, str]:
    """Label of each citable fact by the fact's name. Labels are unique even without letter case: a line item with the
    label of something else gets " (financials)"."""
    facts = [fact for fact in facts if fact.is_citable]
    found: dict[str, str] = {}
    taken = {"", "company", "date"}  # the prompt's other lines
    for fact in sorted(facts, key=lambda fact: fact.name.startswith("financials/")):
        text = label(fact)
        while text.lower() in taken:
            text = f"{text} (financials)".strip()
        taken.add(text.lower())
        found[fact.name] = text
    return found


def facts_to_json(facts: Sequence[Fact]) -> str:
    return json.dumps([vars(fact) for fact in facts])


def facts_from_json(text: str) -> tuple[Fact, ...]:
    return tuple(Fact(**entry) for entry in json.loads(text))


def usd(name: str, value: float) -> Fact:
    """A price: cents from one dollar up, four decimals below."""
    shown = f"{value:.{2 if abs(value) >= 1 else 4}f}"
    return Fact(name, float(shown), "usd", f"${shown}")


def change(name: str, now: float, before: float) -> Fact:
    """Simple change in percent, signed, to two decimals."""
    value = float(f"{(now / before - 1) * 100:.2f}") + 0.0  # + 0.0: no "-0.00"
    return Fact(name, value, "percent", f"{value:+.2f}%")


def big_number(name: str, value: float, unit: str) -> Fact:
    """A large amount, to two decimals of thousands, millions, billions or trillions; `value` is the rounded amount."""
    scale, letter = next(
        ((s, x) for s, x in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")) if abs(value) >= s), (1.0, "")
    )
    rounded = float(f"{value / scale:.2f}")
    dollar = "$" if unit == "usd" else ""
    sign = "-" if rounded < 0 else ""
    return Fact(name, round(rounded * scale, 2), unit, f"{sign}{dollar}{abs(rounded):.2f}{letter}")


def indicator_facts(
    names: Sequence[str], days: Sequence[np.datetime64], closes: Sequence[float], volume: float
) -> list[Fact]:
    """The indicators asked for, from closes up to and including the row's own, where the history suffices.

    `days` and `closes` are aligned, oldest first. Names: change_N and sma_N over N trading days, volatility_N (sample
    standard deviation of daily simple returns over N days, in percent per day), volume.
    """
    facts = []
    for name in names:
        kind, _, window = name.partition("_")
        n = int(window.rstrip("d") or 0)
        if kind == "volume":
            if math.isfinite(volume):
                facts.append(big_number("volume", volume, "count"))
            continue
        needed = n if kind == "sma" else n + 1
        if len(closes) < needed or _too_long(days[-needed], days[-1], needed):
            continue
        recent = np.asarray(closes[-needed:], dtype=float)
        if kind == "change":
            facts.append(change(name, recent[-1], recent[0]))
        elif kind == "sma":
            facts.append(usd(name, float(recent.mean())))
        else:
            shown = f"{np.std(recent[1:] / recent[:-1] - 1, ddof=1) * 100:.2f}"
            facts.append(Fact(name, float(shown), "percent", f"{shown}%"))
    return facts


def _too_long(first: np.datetime64, last: np.datetime64, trading_days: int) -> bool:
    """Whether the span is too long for that many trading days in a row: rows are missing in between."""
    calendar_days = (last - first) / np.timedelta64(1, "D")
    return bool(calendar_days > trading_days * 1.5 + 5)


def history_facts(closes: Sequence[float], count: int) -> list[Fact]:
    """Closes of up to `count` trading days before the row, oldest first: close_3d_ago, close_2d_ago, close_1d_ago."""
    past = list(closes[:-1])[-count:] if count else []
    return [usd(f"close_{len(past) - i}d_ago", value) for i, value in enumerate(past)]


def financial_facts(line_items: Mapping[str, Any], limit: int) -> list[Fact]:
    """Reported figures under their upstream names, as `financials/<line item>`; other values are skipped."""
    facts: list[Fact] = []
    for name, value in line_items.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number) and len(facts) < limit:
            facts.append(_financial_fact(f"financials/{name}", number))
    return facts


def _financial_fact(name: str, number: float) -> Fact:
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    if words & {"ratio", "margin", "rate", "yield", "roe", "roa", "beta", "turnover"}:
        return Fact(name, round(number, 4), "ratio", f"{number:.4f}".rstrip("0").rstrip("."))
    if words & {"eps", "per"}:
        return usd(name, number)
    return big_number(name, number, "count" if words & {"shares", "number", "employees"} else "usd")
