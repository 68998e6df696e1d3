"""What a row's prompt shows, as one table of everything that a number can truthfully state.

`book_of` is called once per row. Each fact, the changes between closes and the distances from averages stand in the
table under the number they are written with; `equal_to` looks up a number met in a text.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from stonk_trainer.tasks.stocks.facts import Fact
from stonk_trainer.tasks.stocks.words import SCALES, joins, role_of


class Entry(NamedTuple):
    """One thing that a number can truthfully state.

    value: its magnitude, in the unit of the table it stands in. sign: -1, 0 or +1. kind: "close", "open", "average",
    "volatility", "volume" or "financial" for a fact; "change" of the close over `days` until `until` days ago;
    "versus": the close (or the shorter average) against an average or the open. fact: its name, or the relation's.
    days: lag of a close, length of the rest. decimals: the most digits that can be known.
    """

    value: float
    sign: int
    kind: str
    fact: str
    days: int
    decimals: int
    until: int = 0


class Book(NamedTuple):
    """What a row's prompt shows, indexed. Prices without a positive value are left out."""

    facts: dict[str, Fact]  # numeric ones, by name
    values: dict[str, float]  # of these, as shown
    closes: dict[int, float]  # by lag in trading days; 0 is the row's close
    averages: dict[int, float]  # by length in trading days
    tables: dict[str, tuple[list[float], list[Entry]]]  # by the unit a number is written in: values ascending, entries
    phrases: dict[str, list[tuple[tuple[str, ...], str]]]  # of financial items, by first word
    headlines: tuple[tuple[str, frozenset[str]], ...]  # (name, its words and numbers)
    words: frozenset[str]  # of the texts: name, description, headlines
    company: tuple[str, ...]  # words of its name and ticker, and these without spaces


_WRITTEN_AS = {"usd": ("usd", ""), "percent": ("percent",), "count": ("",), "ratio": ("ratio", "")}


def book_of(facts: Sequence[Fact]) -> Book:
    numeric = {fact.name: fact for fact in facts if fact.unit in _WRITTEN_AS and not isinstance(fact.value, str)}
    numeric = {n: f for n, f in numeric.items() if float(f.value) > 0 or not n.startswith(("close", "sma_", "open"))}
    shown = {name: _shown(fact) for name, fact in numeric.items()}
    values = {name: value for name, (value, _) in shown.items()}
    closes = {days_in(name): value for name, value in values.items() if name.startswith("close")}
    averages = {days_in(name): value for name, value in values.items() if name.startswith("sma_")}
    texts = [(fact.name, str(fact.value).lower()) for fact in facts if fact.name not in numeric]
    tables: dict[str, list[Entry]] = {unit: [] for unit in ("usd", "percent", "ratio", "")}
    for unit, entry in _entries(numeric, shown, closes, averages):
        for written in _WRITTEN_AS[unit]:
            tables[written].append(entry)
        if unit == "ratio" and entry.kind == "financial":
            tables["percent"].append(entry._replace(value=100 * entry.value, decimals=max(0, entry.decimals - 2)))
    for entries in tables.values():
        entries.sort()
    return Book(
        facts=numeric,
        values=values,
        closes=closes,
        averages=averages,
        tables={unit: ([entry.value for entry in entries], entries) for unit, entries in tables.items()},
        phrases=_phrases(
            [name for name in numeric if name.startswith("financials/")],
            next((value for name, value in texts if name == "company"), ""),
        ),
        headlines=tuple(
            (name, frozenset(re.findall(r"[a-z]{4,}|[\d.]*\d", value, re.ASCII)))
            for name, value in texts
            if name.startswith("headline")
        ),
        words=frozenset(word for _, value in texts for word in re.findall(r"[a-z]+", value)),
        company=tuple(
            word
            for name, value in texts
            if name in ("company", "ticker")
            for word in (*re.findall(r"[a-z]+", value), re.sub(r"[^a-z]", "", value))
        ),
    )


def _shown(fact: Fact) -> tuple[float, int]:
    """(number as the prompt prints it, which is what a reader knows; its decimals). Large amounts end in a letter
    ("53.20M"), and any of their digits may be written."""
    plain = _SHOWN.fullmatch(fact.shown)
    decimals = len(plain[2]) if plain and plain[2] else 0
    if fact.unit == "count":
        return float(fact.value), 9
    if not plain or plain[3]:
        return float(fact.value), max(2, decimals)
    return float(fact.shown.translate(_BARE)), decimals


_SHOWN = re.compile(r"([+-]?\$?\d+)(?:\.(\d+))?%?([KMBT]?)")
_BARE = str.maketrans("", "", "$%")
_KINDS = {"sma": "average", "financials": "financial"}


def _entries(
    facts: Mapping[str, Fact],
    values: Mapping[str, tuple[float, int]],
    closes: Mapping[int, float],
    averages: Mapping[int, float],
) -> Iterator[tuple[str, Entry]]:
    """(unit, entry) of everything that can be stated."""
    changes, volatilities = [], []
    for name, (value, decimals) in values.items():
        kind = name.partition("/")[0].partition("_")[0]
        kind = _KINDS.get(kind, kind)
        days = days_in(name)
        size = abs(value) if kind == "change" else 0.0
        yield (facts[name].unit, Entry(abs(value), sign_of(value), kind, name, days, decimals))
        if kind == "change":
            changes.append((name, size))
            if days > 1:
                yield ("percent", Entry(size / days, sign_of(value), "pace", name, days, 2))
                if (
                    1 not in closes and values.get("change_1d", (-100.0, 0))[0] > -100
                ):  # what it had moved until the day before
                    before = 100 * ((1 + value / 100) / (1 + values["change_1d"][0] / 100) - 1)
                    step = f"close_1d_ago vs close_{days}d_ago"
                    yield ("percent", Entry(abs(before), sign_of(before), "change", step, days - 1, 1, until=1))
        elif kind == "volatility" and value > 0:
            volatilities.append((name, value))
    for volatility, value in volatilities:
        for name, size in changes:
            yield ("ratio", Entry(size / value, 0, "multiple", f"{name} vs {volatility}", 0, 2))
    close = closes.get(0, 0.0)
    for lag, before in closes.items() if close else ():
        if lag:
            name = f"change_{lag}d"
            moved = moved_from_to(before, close, "change", name, lag)
            yield from moved if name not in facts else moved[1:]
            if lag + 1 in closes:  # day by day
                step = f"close_{lag}d_ago vs close_{lag + 1}d_ago"
                yield from moved_from_to(closes[lag + 1], before, "change", step, 1, until=lag)
    others = [(f"sma_{days}", days, value) for days, value in averages.items()]
    if "open" in values:
        others.append(("open", 0, values["open"][0]))
        if 1 in closes:
            yield from moved_from_to(closes[1], values["open"][0], "versus", "open vs close_1d_ago", 0)
    for name, days, value in others if close else ():
        yield from moved_from_to(value, close, "versus", f"close vs {name}", days)
        back = 100 * (value / close - 1)
        yield ("percent", Entry(abs(back), -sign_of(back), "versus", f"close vs {name}", days, 2))
        yield "ratio", Entry(close / value, 0, "versus", f"close vs {name}", days, 3)
    for short, long in pairwise(sorted(averages)):
        yield from moved_from_to(averages[long], averages[short], "versus", f"sma_{short} vs sma_{long}", long)


def moved_from_to(old: float, new: float, kind: str, fact: str, days: int, until: int = 0) -> list[tuple[str, Entry]]:
    """The move from one price to another, in percent and in dollars."""
    sign = sign_of(new - old)
    percent = 100 * abs(new / old - 1)
    decimals = 4 if old < 1 or new < 1 else 2
    return [
        ("percent", Entry(percent, sign, kind, fact, days, 2, until)),
        ("usd", Entry(abs(new - old), sign, kind, fact, days, decimals, until)),
    ]


def mean_of(book: Book, days: int) -> float | None:
    """The average of the last `days` closes, as shown or from the closes; None when they are not all shown."""
    if days in book.averages:
        return book.averages[days]
    lags = range(min(days, 60))
    closes = [book.closes[lag] for lag in lags if lag in book.closes]
    return sum(closes) / days if closes and len(closes) == len(lags) else None


def sign_of(value: float) -> int:
    return (value > 0) - (value < 0)


@lru_cache(maxsize=1024)
def days_in(name: str) -> int:
    """Trading days in a fact's name: 5 of "change_5d", 0 of "close"."""
    return int(re.sub(r"\D", "", name) or 0) if not name.startswith("financials/") else 0


_EMPTY_WORDS = {"total", "net", "of", "and", "loss", "current", "gross", "from", "the", "reported", "common", "basic"}
_ALSO = {
    "revenues": "revenue", "revenue": "sales", "eps": "earnings per share", "earnings per share": "eps",
    "net income": "net profit", "pe": "p/e", "price earnings": "p/e", "price to earnings": "p/e",
    "roe": "return on equity",
}  # fmt: skip


def _phrases(names: Sequence[str], company: str) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """The company's name, which says nothing by its words ("Advanced"), under the fact "", and what people call the
    line items: any run of an item's words that no other item shares ("revenue" for
    TotalRevenue when no other item has revenue), and common other names of it. By first word, longest first."""
    owners: dict[str, set[str]] = {}
    whole: dict[str, set[str]] = {}  # by a text that is all of a name, or all but its empty words
    for name in names:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_()-]", " ", name.removeprefix("financials/"))
        words = spaced.lower().split()
        runs = [words[i:j] for i in range(len(words)) for j in range(i + 1, min(len(words), i + 6) + 1)]
        bare = [word for word in words if word not in _EMPTY_WORDS]
        spoken = {" ".join(run) for run in (*runs, bare) if run and _is_name(run)}
        for known, other in _ALSO.items():
            spoken |= {re.sub(rf"\b{known}\b", other, text) for text in tuple(spoken)}
        for text in spoken:
            owners.setdefault(text, set()).add(name)
            if text in (" ".join(bare), " ".join(words)):
                whole.setdefault(text, set()).add(name)
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    spelled = tuple(re.findall(r"[a-z]+", company))
    if len(spelled) > 1:
        phrases[spelled[0]] = [(spelled, "")]
    for text in sorted(owners, key=len, reverse=True):
        chosen = whole.get(text, set()) if len(whole.get(text, ())) == 1 else owners[text]
        if len(chosen) == 1:
            (name,) = chosen
            for form in (text + "s", text):
                phrases.setdefault(form.split()[0], []).append((tuple(form.split()), name))
    return phrases


_COMMON = set("per share shares value ratio term long short rate other stock income number amount".split())


def _is_name(run: Sequence[str]) -> bool:
    """Whether a run of an item's words can stand for it: neither "to equity" nor "ratio" nor "close"."""
    if len(run) == 1 and run[0] in _COMMON | _EMPTY_WORDS:
        return False
    return not joins(run[0]) and not joins(run[-1]) and (len(run) > 1 or role_of(run[0]) in (None, "other", "event"))


def close_name(lag: int) -> str:
    return f"close_{lag}d_ago" if lag else "close"


def pair_name(new: int, old: int) -> str:
    """The name of the change between two closes; against the row's own it is the N-day change."""
    return f"{close_name(new)} vs {close_name(old)}" if new else f"change_{old}d"


# ---------------------------------------------------------------------------------------------------- numbers


class Quantity(NamedTuple):
    value: float  # magnitude
    tolerance: float  # half a unit of the last digit written
    decimals: int
    unit: str  # usd, percent, ratio, foreign, or "" when none is written
    sign: int  # -1 or +1 when a sign is written, else 0


_QUANTITY = re.compile(r"([+-]?)([$\u20ac\u00a3\u00a5]?)([+-]?)([\d,]+)(?:\.(\d+))?[ -]?([a-z]*) ?(.?)", re.ASCII)
# By the first letter of the unit written; basis points and cents are hundredths.
_UNITS = {
    "%": "percent",
    "p": "percent",
    "d": "usd",
    "u": "usd",
    "x": "ratio",
    "t": "ratio",
    "b": "percent",
    "c": "usd",
}


@lru_cache(maxsize=4096)
def quantity_of(text: str) -> Quantity:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no number")
    sign, currency, sign_after, digits, decimals, scale, unit = match.groups()
    factor = 1.0
    if scale in SCALES:
        factor = SCALES[scale]
    else:
        unit = scale or unit
    if unit[:1] in ("b", "c"):
        factor *= 0.01
    written = len(decimals) if decimals else 0
    return Quantity(
        float(f"{digits.replace(',', '')}.{decimals or 0}") * factor,
        0.5 * factor * 10.0**-written,
        written + 2 * (factor == 0.01),
        "usd" if currency == "$" else "foreign" if currency else _UNITS[unit[0]] if unit else "",
        -1 if "-" in (sign, sign_after) else 1 if "+" in (sign, sign_after) else 0,
    )


def equal_to(quantity: Quantity, book: Book, bound: int) -> list[Entry]:
    """Everything the number equals to the precision written, which may not be finer than the precision shown.

    Rounding away a third of the value ("1%" of 0.7%) states nothing. bound: +1 for "just above", -1 for "nearly".
    """
    value, tolerance, decimals, unit, _ = quantity
    if unit not in book.tables:
        return []
    values, entries = book.tables[unit]
    slack = tolerance + 1e-9 * max(1.0, value)
    low = bisect_left(values, value - (2 * slack if bound < 0 else slack))
    high = bisect_right(values, value + (2 * slack if bound > 0 else slack))
    return [
        entry
        for entry in entries[low:high]
        if decimals <= entry.decimals and abs(entry.value - value) <= entry.value / 3 + 1e-6 * slack
    ]
