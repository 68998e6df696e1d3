"""The fact ledger: which statements in a reasoning are claims about the data, and which of them the data bear out.

A claim is a number with its unit inside a sentence, or a comparison in words ("above its 20-day average"). For each
number the words around it say which fact it states; the verdict is one of three:

    grounded   the words name a fact, or a relation of facts (a change, a difference, a ratio, a mean), and the number
               equals it to the precision written, with the right unit, sign and side
    false      the data say otherwise, or nothing shown has that number: it is invented
    unclear    the number is one that was shown, but the words do not say of what; it neither pays nor costs much

What this simplifies: English only; a relation does not cross sentences. Time is linear: a sentence's tokens are looked
at from each of its numbers over a bounded distance.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from stonk_trainer.tasks.stocks.facts import Fact
from stonk_trainer.tasks.stocks.words import LONG, SCALES, Sentence, Token, grammar_of, joins, role_of, sentences


class Claim(NamedTuple):
    """One statement about the data; `text` is `reasoning[start:end]`.

    fact: name of the fact or relation it states ("close", "close vs sma_20"), None when not grounded.
    false: the data contradict it. Neither grounded nor false: unclear.
    why: the verdict in words.
    direction: the evidence it gives: +1 bullish, -1 bearish, 0 none (levels, volume, volatility, not grounded).
    size: how far the price moved, in percent, where it is evidence of a move; 0 otherwise.
    about: what the evidence is about; two claims about the same are one piece of evidence.
    counts: whether it cites a number; a comparison in words is evidence, but no citation.
    sentence: which sentence of the reasoning it stands in.
    listed: the fact that a label outside any sentence gives it ("Close: $175.53"), which alone is no claim.
    """

    text: str
    start: int
    end: int
    fact: str | None
    grounded: bool
    false: bool
    why: str
    direction: int
    size: float
    about: str | None
    counts: bool
    sentence: int
    listed: str | None = None


class _Quantity(NamedTuple):
    value: float  # magnitude
    tolerance: float  # half a unit of the last digit written
    decimals: int
    unit: str  # usd, percent, ratio, or "" when none is written
    sign: int  # -1 or +1 when a sign is written, else 0


class _Verdict(NamedTuple):
    fact: str | None
    why: str
    false: bool = False
    direction: int = 0
    size: float = 0.0
    about: str | None = None  # what the evidence is about, where it is not the fact
    listed: str | None = None  # the fact that a label outside any sentence gives it ("Close: $175.53")
    item: str | None = None  # the price, average or other fact whose value it is, for comparisons


class Book(NamedTuple):
    """The facts, indexed."""

    facts: dict[str, Fact]  # numeric ones by name
    close: float  # NaN when it is not shown
    decimals: dict[str, int]  # with which each is shown
    prices: tuple[str, ...]  # close, close_1d_ago, …: newest first
    averages: tuple[str, ...]
    changes: tuple[str, ...]
    volatilities: tuple[str, ...]
    phrases: dict[str, list[tuple[str, str]]]  # of financial items, by first word
    headlines: tuple[tuple[str, frozenset[str]], ...]  # (name, its words and numbers)
    texts: str  # all text facts in lower case
    words: frozenset[str]  # of the texts
    read: dict[str, list[tuple[int, int, "_Verdict", bool]]]  # by sentence: what `_Reader.stated` gave for it
    values: tuple[tuple[float, str], ...]  # (magnitude, unit) of what is shown, and of the close against other prices


OTHERS = {"volume", "volatility", "financial", "other"}
NAMES = {"close", "open", "average", "volatility", "volume", "financial"}
_GLUE = {"of", "at", "to", "from", "colon", "bracket", "up", "down", "back up", "back down", "above", "below", "last",
         "ago", "span", "high", "low", "today", "positive", "negative"}  # fmt: skip
_DIRECTIONS = {"up": 1, "down": -1, "back up": 1, "back down": -1, "positive": 1, "negative": -1}
_MOVES = set(_DIRECTIONS)
_NAMES_OR_CHANGE = NAMES | {"change"}
_UNITS = {"usd": ("usd", ""), "percent": ("percent",), "count": ("",), "ratio": ("ratio", "", "percent")}
_UNIT_WORDS = {"%": "percent", "p": "percent", "d": "usd", "u": "usd", "x": "ratio", "t": "ratio"}
_UNIT_WORDS |= {"b": "percent", "c": "usd"}  # basis points and cents: hundredths
_QUANTITY = re.compile(r"([+-]?)([$\u20ac\u00a3\u00a5]?)([+-]?)([\d,]+)(?:\.(\d+))?[ -]?([a-z]*) ?(.?)", re.ASCII)
_PRICE_WORDS = set("share shares stock stocks price prices its close closed closing average".split())
_TIME_WORDS = set("day days week month session sessions today daily".split())
_SUBJECTS = {"it", "share", "shares", "stock"}
_FIRST_PERSON = {"i", "my", "we", "our"}
_PRONOUNS = {"it", "that", "this", "them", "both"}
_STATING = {"number", "above", "below", "span", "record", "high", "low", "superlative"}
_NO_FORECAST = set("call verdict answer think believe say due ahead am i'm next lean leaning leans bet".split())
_SHOWN = {"open", "average", "volatility"}  # the writer's outlook is of the close
_YEARS = {"year", "years", "decade", "decades"}
_TIMES = {"span", "ago", "today"}
_REACH = 40  # tokens looked at on either side of a number


def find_claims(reasoning: str, facts: Sequence[Fact]) -> list[Claim]:
    """Every statement about the data in `reasoning`, in order, with its verdict.

    Numbers that are no claim about the data are left out: years, bare counts ("3 of 5 days"), N in "20-day", and the
    writer's own forecast ("63% confidence"). A fact claimed twice appears twice; whoever counts must count names.
    """
    book = book_of(facts)
    return claims_of(reasoning, sentences(reasoning, book.phrases), book)


def _read(sentence: Sentence, book: Book) -> list[tuple[int, int, "_Verdict", bool]]:
    """What a sentence states; completions of one prompt share sentences, and reading one takes most of the time."""
    if len(sentence.text) > LONG:
        return _Reader(sentence, book).stated()
    if sentence.text not in book.read:
        if len(book.read) >= 256:
            book.read.clear()
        book.read[sentence.text] = _Reader(sentence, book).stated()
    return book.read[sentence.text]


def _claim(reasoning: str, place: int, which: int, start: int, end: int, verdict: "_Verdict", counts: bool) -> Claim:
    start, end = start + place, end + place
    return Claim(
        reasoning[start:end], start, end, verdict.fact, verdict.fact is not None, verdict.false, verdict.why,
        verdict.direction, verdict.size, verdict.about or verdict.fact, counts, which, verdict.listed,
    )  # fmt: skip


def claims_of(reasoning: str, parts: Sequence[Sentence], book: Book) -> list[Claim]:
    """The claims of a reasoning already split into sentences, in the order of the text."""
    claims: list[Claim] = []
    for which, sentence in enumerate(parts):
        if not sentence.kinds.isdisjoint(_STATING):
            claims += [_claim(reasoning, sentence.start, which, *found) for found in _read(sentence, book)]
    if any(claim.listed for claim in claims):
        # "Close: $175.53 … The close is above its average": what a sentence speaks of, it may have listed before
        spoken_of = {name for claim in claims if claim.grounded for name in claim.fact.split(" vs ")}
        for i, claim in enumerate(claims):
            if claim.listed in spoken_of:
                claims[i] = claim._replace(
                    fact=claim.listed, grounded=True, why=f"equals {claim.listed}, spoken of later"
                )
    return sorted(claims, key=lambda claim: claim.start)


# ---------------------------------------------------------------------------------------------------- the facts


_PRICES = ("close", "sma_", "open")  # without a positive value they are no price


def book_of(facts: Sequence[Fact]) -> Book:
    numeric = {fact.name: fact for fact in facts if fact.unit in _UNITS and not isinstance(fact.value, str)}
    numeric = {name: fact for name, fact in numeric.items() if fact.value > 0 or not name.startswith(_PRICES)}

    def named(*stems: str) -> tuple[str, ...]:
        return tuple(sorted((name for name in numeric if name.startswith(stems)), key=lambda name: age(name)))

    texts = [(fact.name, str(fact.value).lower()) for fact in facts if fact.name not in numeric]
    headlines = tuple(
        (name, frozenset(re.findall(r"[a-z]{4,}|[\d.]*\d", value, re.ASCII)))
        for name, value in texts
        if name.startswith("headline")
    )
    return Book(
        facts=numeric,
        close=numeric["close"].value if "close" in numeric else math.nan,
        decimals={name: _decimals(fact) for name, fact in numeric.items()},
        prices=named("close"),
        averages=named("sma_"),
        changes=named("change_"),
        volatilities=named("volatility_"),
        phrases=_phrases([name for name in numeric if name.startswith("financials/")]),
        headlines=headlines,
        texts=" ".join(value for _, value in texts),
        words=frozenset(word for _, value in texts for word in re.findall(r"[a-z]+", value)),
        read={},
        values=tuple(_values(numeric)),
    )


def _values(facts: Mapping[str, Fact]) -> Iterator[tuple[float, str]]:
    for fact in facts.values():
        yield abs(fact.value), fact.unit
    close = facts["close"].value if "close" in facts else 0
    for name, fact in facts.items():
        if close and fact.value and name.startswith(("close_", "sma_", "open")):
            yield abs(close - fact.value), "usd"
            yield 100 * abs(close / fact.value - 1), "percent"
            yield 100 * abs(fact.value / close - 1), "percent"
    for lag in range(60):  # day by day
        if _close(lag) in facts and _close(lag + 1) in facts and facts[_close(lag + 1)].value:
            new, old = facts[_close(lag)].value, facts[_close(lag + 1)].value
            yield abs(new - old), "usd"
            yield 100 * abs(new / old - 1), "percent"
    for volatility in (fact.value for name, fact in facts.items() if name.startswith("volatility_") and fact.value):
        for fact in (fact for name, fact in facts.items() if name.startswith("change_")):
            yield abs(fact.value) / volatility, "ratio"


@lru_cache(maxsize=1024)
def age(name: str) -> float:
    """Days before the row's close that a price, an average or a change looks back; the open lies between two closes."""
    return 0.5 if name == "open" else float(re.sub(r"\D", "", name) or 0)


_EMPTY_WORDS = {"total", "net", "of", "and", "loss", "current", "gross", "from", "the", "reported", "common", "basic"}
_ALSO = {
    "revenues": "revenue", "revenue": "sales", "eps": "earnings per share", "earnings per share": "eps",
    "net income": "net profit", "pe": "p/e", "price earnings": "p/e", "price to earnings": "p/e",
    "roe": "return on equity",
}  # fmt: skip


def _phrases(names: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """What people call the line items: any run of an item's words that no other item shares ("revenue" for
    TotalRevenue when no other item has revenue), and common other names of it."""
    owners: dict[str, set[str]] = {}
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_()-]", " ", name.removeprefix("financials/"))
        words = words.lower().split()
        runs = {
            tuple(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1) if j - i <= 6
        }  # names are short
        bare = tuple(word for word in words if word not in _EMPTY_WORDS)
        spoken = {" ".join(run) for run in (*runs, bare) if run and is_name(run)}
        for known, other in _ALSO.items():
            spoken |= {re.sub(rf"\b{known}\b", other, text) for text in tuple(spoken)}
        for text in spoken:
            owners.setdefault(text, set()).add(name)
            if text == " ".join(bare) or text == " ".join(words):
                owners[text].add("exactly " + name)
    phrases: dict[str, list[tuple[str, str]]] = {}
    for text in sorted(owners, key=len, reverse=True):
        exact = [owner.removeprefix("exactly ") for owner in owners[text] if owner.startswith("exactly ")]
        all_owners = {owner for owner in owners[text] if not owner.startswith("exactly ")}
        chosen = exact if len(exact) == 1 else list(all_owners)
        if len(chosen) == 1:
            for form in (text + "s", text):
                phrases.setdefault(form.split()[0], []).append((form, chosen[0]))
    return phrases


_COMMON = set("per share shares value ratio term long short rate other stock income number amount".split())


def is_name(run: Sequence[str]) -> bool:
    """Whether a run of an item's words can stand for it: neither "to equity" nor "ratio" nor "close"."""
    if len(run) == 1 and run[0] in _COMMON | _EMPTY_WORDS:
        return False
    return all(not joins(word) for word in (run[0], run[-1])) and (len(run) > 1 or role_of(run[0]) in (None, "other"))


def _value(name: str, book: Book) -> tuple[float, str] | None:
    """(value, unit) of a fact, or of an average that the shown closes allow to compute; None when unknown."""
    if name in book.facts:
        return book.facts[name].value, book.facts[name].unit
    if name.startswith("sma_"):
        closes = [_close(lag) for lag in range(int(age(name)))]
        if closes and all(close in book.facts for close in closes):
            return sum(book.facts[close].value for close in closes) / len(closes), "usd"
    return None


def _close(lag: int) -> str:
    return f"close_{lag}d_ago" if lag else "close"


def _moved(days: int, book: Book) -> float | None:
    """Percent change of the close over `days`, as shown or computed from two closes; None when unknown."""
    if f"change_{days}d" in book.facts:
        return book.facts[f"change_{days}d"].value
    before = book.facts.get(_close(days)) if days else None
    return 100 * (book.close / before.value - 1) if before and "close" in book.facts else None


def _pair(one: str, other: str) -> str:
    """The name of the relation of two facts. A close against the close N days ago is the N-day change."""
    newer, older = sorted((one, other), key=age)
    if newer == "close" and older.startswith("close_"):
        return f"change_{int(age(older))}d"
    first, second = (other, one) if one.startswith("sma_") and not other.startswith("sma_") else (one, other)
    return f"{first} vs {second}"


def _evidence(one: str, other: str, book: Book) -> int:
    """+1 when the newer of two prices or averages is the higher, -1 when it is the lower; 0 for anything else."""
    if not all(name in ("close", "open") or name.startswith(("close_", "sma_")) for name in (one, other)):
        return 0
    newer, older = (_value(name, book)[0] for name in sorted((one, other), key=age))
    return (newer > older) - (newer < older)


# ---------------------------------------------------------------------------------------------------- numbers


def _quantity(token: Token) -> _Quantity:
    return _read_quantity(token.text)


@lru_cache(maxsize=4096)
def _read_quantity(text: str) -> _Quantity:
    sign, dollar, sign_after, digits, decimals, scale, unit = _QUANTITY.match(text).groups()
    if scale not in SCALES:
        scale, unit = "", scale or unit
    factor = SCALES.get(scale, 1.0) * (0.01 if unit[:1] in ("b", "c") else 1)
    value = float(f"{digits.replace(',', '')}.{decimals or 0}") * factor
    signs = (sign + sign_after)[:1]
    return _Quantity(
        value,
        0.5 * factor * 10.0 ** -len(decimals or ""),
        len(decimals or "") + 2 * (factor == 0.01),
        "usd" if dollar == "$" else "foreign" if dollar else _UNIT_WORDS[unit[0]] if unit else "",
        {"-": -1, "+": 1, "": 0}[signs],
    )


def _equals(quantity: _Quantity, value: float, decimals: int = 2, bound: int = 0) -> bool:
    """Equal in magnitude to the precision written, which may not be finer than the precision shown.

    Rounding away a third of the value ("1%" of 0.7%) states nothing. bound: +1 for "just above", -1 for "nearly".
    """
    error = abs(value) - quantity.value
    slack = 1e-9 * max(1.0, abs(value))
    if quantity.decimals > decimals or abs(error) > abs(value) / 3 + slack:
        return False
    near = abs(error) <= quantity.tolerance + slack
    return near or (bound * error > 0 and abs(error) <= 2 * quantity.tolerance + slack)


def _decimals(fact: Fact) -> int:
    shown = re.search(r"\.(\d+)", fact.shown)
    return len(shown[1]) if shown else 0


# ---------------------------------------------------------------------------------------------------- sentences

_CLAUSE = {"so", "as", "contrast", "comma"}
_BREAK = {"comma", "and", "to", "from", "contrast", "so", "than", "colon"}
_HEDGES = {"above": 1, "over": 1, "than": 1, "nearly": -1, "almost": -1, "under": -1, "below": -1}


class _Reader:
    """Reads one sentence: first its numbers, from left to right, then its comparisons in words."""

    def __init__(self, sentence: Sentence, book: Book):
        self.sentence, self.book = sentence, book
        self.tokens = sentence.tokens
        self.at = [i for i, token in enumerate(self.tokens) if token.kind == "number"]
        self.verdicts: dict[int, _Verdict] = {}  # by position of the number in tokens
        self.read_by: dict[int, tuple[Token | None, int]] = {}  # the name each number was read by, its place in a list
        self.prices: list[str] = []  # prices stated so far
        self.move: Token | None = None  # the direction word of the last change read
        self.used: set[int] = set()  # indices of the words that say what a number is
        # "analysts expect 12%" and "historically a 73% chance" are claims, if no prompt shows them
        self.theirs = "others" in sentence.kinds or "historically" in sentence.words
        words = len(sentence.words) - sum(map(sentence.words.count, ",()"))
        self.is_prose = bool(self.at) and (
            words >= max(3, 2.25 * len(self.at))
            and 2 * sentence.unknown <= words
            and grammar_of(sentence.words) >= max(1, len(self.at) / 2)
        )

    def stated(self) -> list[tuple[int, int, _Verdict, bool]]:
        """(start and end in the sentence, verdict, whether it is a number) of each statement."""
        found, book = [], self.book
        for which, at in enumerate(self.at):
            verdict = self._number(which, at, _quantity(self.tokens[at]))
            if verdict:
                self.verdicts[at] = verdict
                if verdict.item in book.prices:
                    self.prices.append(verdict.item)
                found.append((self.tokens[at].start, self.tokens[at].end, verdict, True))
        if self.is_prose or not self.at:
            kinds, stated = self.sentence.kinds, []
            if "above" in kinds or "below" in kinds:
                stated += self._comparisons()
            if "span" in kinds:
                stated += self._moves()
            if not kinds.isdisjoint(("record", "high", "low", "superlative")):
                stated += self._superlatives()
            found += [(start, end, verdict, False) for start, end, verdict in stated]
        return found

    # ------------------------------------------------------------------------------------------------ one number

    def _number(self, which: int, at: int, quantity: _Quantity) -> _Verdict | None:
        """The verdict on one number; None when it speaks of the writer's own forecast."""
        tokens = self.tokens
        first = self.at[which - 1] + 1 if which else 0
        until = self.at[which + 1] if which + 1 < len(self.at) else len(tokens)
        left, right = tokens[max(first, at - _REACH) : at], tokens[at + 1 : min(until, at + _REACH)]
        # Words between two numbers belong to the first up to a comma, "and" or "to"; without one they belong to both.
        if which:
            cut = _find(left, _BREAK)
            left = left[cut:] if cut < len(left) else left
        right = right[: _find(right, _BREAK)]
        number = tokens[at]

        kinds = set()
        for token in reversed(left):
            if token.kind in _CLAUSE and token.text != "that":
                break
            if token.text not in _NO_FORECAST:
                kinds.add(token.kind)
        after = right[0] if right and right[0].index - number.index <= 2 else None
        theirs = self.theirs
        mine = "target" in kinds and _FIRST_PERSON.intersection(self.sentence.words)
        own = kinds & {"own", "firm", "weak"} and left[-1].kind != "from" and not _last(left[-3:], _SHOWN)
        if not theirs and (mine or own or (after and (after.kind == "own" or after.text in ("tomorrow", "next")))):
            return None
        if "not" in kinds and self.is_prose:
            return _Verdict(None, "the words deny it", false="true" in self.sentence.words)
        verdict = self._relation(at, quantity, left, right) or self._change(which, at, quantity, left, right)
        verdict = verdict or self._level(which, at, quantity, left, right)
        if verdict.fact is None:
            verdict = self._in_headline(number) or verdict._replace(false=verdict.false or theirs)
        if not self.is_prose:
            listed = self._unplaced(quantity, "a list of numbers, not a sentence")
            return listed if verdict.fact is None else listed._replace(listed=verdict.fact)
        return verdict

    def _unplaced(self, quantity: _Quantity, why: str) -> _Verdict:
        """Words that do not say what a number is of: unclear when it is shown or follows from that, else invented."""
        unit = quantity.unit
        for value, kind in self.book.values:
            if unit in _UNITS[kind] and abs(quantity.value - value) <= quantity.tolerance * 1.001:
                return _Verdict(None, why)
        return _Verdict(None, f"{why}, and nothing shown has this number", false=True)

    def _in_headline(self, number: Token) -> _Verdict | None:
        """A number of a headline, in a sentence that shares at least two of the headline's words."""
        digits = re.search(r"\d[\d.]*", number.text).group()
        for name, words in self.book.headlines:
            if (
                digits in words
                and len(words.intersection(" ".join(self.sentence.words).replace("-", " ").split())) >= 2
            ):
                return _Verdict(name, f"quotes {name}")
        return None

    # ------------------------------------------------------------------------------------------------ relations

    def _names_of(self, token: Token, window: Sequence[Token]) -> list[str]:
        """Facts that a token can speak of; `window`: the tokens around it, searched for the day it speaks of."""
        book = self.book
        if token.kind == "financial":
            return [token.text]
        if token.kind == "average":
            return [f"sma_{n}" for n in token.n] if token.n else list(book.averages)
        if token.kind == "volatility":
            return [f"volatility_{n}d" for n in token.n] if token.n else list(book.volatilities)
        if token.kind in ("close", "ago"):
            ago = token if token.kind == "ago" else _nearest(token, window, "ago", 6)
            return [_close(n) for n in ago.n] if ago else ["close"]
        return [token.kind]

    def _item(self, position: int, window: Sequence[Token]) -> list[str]:
        """Facts that the token at `position` stands for: those it names, or the one its number was found to equal."""
        token = self.tokens[position]
        if token.kind != "number":
            return self._names_of(token, window)
        verdict = self.verdicts.get(position)
        if verdict:
            return [verdict.item] if verdict.item else []
        quantity = _quantity(token)  # not read yet: a price or an average that it equals
        names = (*self.book.averages, *self.book.prices, "open")
        known = [(name, value) for name in names if (value := _value(name, self.book))]
        return [name for name, (value, unit) in known if quantity.unit in _UNITS[unit] and _equals(quantity, value)]

    def _reference(self, start: int, reach: int = 8) -> tuple[int, list[str]]:
        """(position, names) of the first thing named after `start`; position -1 when there is none near."""
        for position in range(start + 1, min(len(self.tokens), start + reach)):
            token = self.tokens[position]
            if token.index - self.tokens[start].index > reach or token.kind in ("so", "contrast"):
                break
            is_price = token.kind == "number" and _quantity(token).unit in ("usd", "")
            if token.kind in NAMES or token.kind == "ago" or is_price:
                return position, self._item(position, self.tokens[start : position + 4])
        return -1, []

    def _subject(self, before: int) -> list[str]:
        """Names of the price, average or financial item last spoken of before position `before`; else the close."""
        for position in range(before - 1, max(-1, before - _REACH), -1):
            token = self.tokens[position]
            if _SUBJECTS.intersection(self.sentence.words[token.index + 1 : self.tokens[before].index]):
                break  # "from $28.13, and it ended above its average"
            if token.kind in ("close", "open", "average", "financial", "volume", "volatility"):
                return self._item(position, self.tokens[max(0, position - 4) : position + 3])
            if token.kind == "number" and (verdict := self.verdicts.get(position)) and verdict.item:
                return [verdict.item]
            if token.kind == "price" or token.kind == "so":
                break
        return ["close"]

    def _relation(self, at: int, quantity: _Quantity, left: list[Token], right: list[Token]) -> _Verdict | None:
        """ "$3.73 above its 20-day average", "above its average by 2.2%", "25% of revenue", "1.02 times its open"."""
        number, book = self.tokens[at], self.book
        near = right[0] if right and right[0].index - number.index <= 2 else None
        kind = near.kind if near else ""
        if kind == "of":
            position = self._reference(at + 1, 4)[0]
            kind = "of" if quantity.unit == "percent" and self.tokens[position].kind == "financial" else ""
        start = at + 1
        if quantity.unit == "ratio" and kind != "of" and self._reference(at, 4)[0] > 0:
            kind, start = "of", at
        elif kind not in ("above", "below", "of"):
            by = left and left[-1].text == "by" and _last(self.tokens[max(0, at - 12) : at], {"above", "below"})
            if not by:
                return None
            kind, start = by.kind, self.tokens.index(by, max(0, at - 12))
        position, references = self._reference(start)
        if position < 0 and self._word_after(start) in _PRONOUNS:
            references = list(book.averages)  # "2.2% above it"
        elif position < 0:
            return None if quantity.unit in ("usd", "") else self._unplaced(quantity, "compared with nothing shown")
        for other in references:  # "2% higher than five days ago"
            change = _moved(int(age(other)), book) if other.startswith("close_") else None
            if quantity.unit == "percent" and change is not None and _equals(quantity, change):
                if (change > 0) != (kind == "above"):
                    return _Verdict(None, f"close is not {kind} {other}", false=True)
                return _Verdict(_pair("close", other), f"equals {other}", False, 1 if change > 0 else -1, abs(change))
        for one in self._subject(min(at, start)):
            for other in references:
                (a, unit), (b, other_unit) = _value(one, book) or (0, ""), _value(other, book) or (0, "")
                if one == other or not a or not b or unit != other_unit:
                    continue
                difference = a - b if quantity.unit == "usd" else 100 * (a / b - 1)
                stated = a / b * (100 if quantity.unit == "percent" else 1) if kind == "of" else difference
                if not _equals(quantity, stated):
                    continue
                self.used.add(self.tokens[start].index)
                if kind != "of" and (difference > 0) != (kind == "above"):
                    return _Verdict(None, f"{one} is not {kind} {other}", false=True)
                size = 100 * abs(a / b - 1)
                return _Verdict(
                    _pair(one, other), f"follows from {one} and {other}", False, _evidence(one, other, book), size
                )
        if quantity.unit in ("usd", "") and not (start == at + 1 and quantity.value < book.close / 2):
            return None  # "closed at $175.53, above its average" states a level
        if quantity.unit == "ratio":
            return self._unplaced(quantity, "does not follow from the facts compared")
        return _Verdict(None, "does not follow from the facts compared", false=True)

    def _word_after(self, position: int) -> str:
        index = self.tokens[position].index + 1
        return self.sentence.words[index] if index < len(self.sentence.words) else ""

    def _is_of_other(self, number: Token, left: list[Token], right: list[Token], move: Token | None) -> bool:
        """Whether another thing moved: "revenue grew 2.3%", "a 2.3% rise in volume"."""
        words = self.sentence.words
        if right and right[0].kind in OTHERS and right[0].index - number.index <= 2:
            return True  # "2% volatility"
        for token in right:
            if token.kind in OTHERS and {"in", "of", "for"}.intersection(words[max(0, token.index - 3) : token.index]):
                return True
        for token in reversed(left):
            if token.kind in OTHERS:
                return move is None or move.index < token.index or move.index - token.index <= 3
            if token.kind in ("comma", "so", "as", "contrast", "and") and token is not (left[0] if left else None):
                return False
        return False

    def _change(
        self, which: int, at: int, quantity: _Quantity, left: list[Token], right: list[Token]
    ) -> _Verdict | None:
        """ "rose 2.3% over the last 5 days", "a gain of $3.73", "a 2.3% daily drop"; None if the price is not meant."""
        number, book = self.tokens[at], self.book
        if quantity.unit != "percent" and (
            quantity.unit not in ("usd", "") or not (_last(left[-2:], _MOVES) or _last(right[:2], _MOVES))
        ):
            return None
        noun = _first(right[: min(3, _find(right, _CLAUSE))], _MOVES)
        if noun and noun.index - number.index > (2 if noun.text in ("up", "down") else 3):
            noun = None
        if noun and noun.kind in ("positive", "negative") and noun.index - number.index > 1:
            noun = None
        named = _last(left, _NAMES_OR_CHANGE)
        move = noun or _last_move(left)
        owner = named if named and named.kind != "change" else None
        if owner and move and any(t.kind == "comma" and owner.index <= t.index < move.index for t in left):
            owner = None  # "with volatility low, the share rose 2.3%"
        if which and not left[1:] and self.read_by.get(self.at[which - 1]):
            owner = self.read_by[self.at[which - 1]][0]
        if (
            not noun
            and owner
            and owner.kind in ("volume", "volatility", "financial", "average")
            and quantity.unit == "percent"
        ):
            return None
        if quantity.unit == "percent":
            if self._is_of_other(number, left, right, move if move is not noun else None):
                return None
        else:
            verb = next((t for t in reversed(left[-2:]) if t.kind != "of" and t.text != "by"), None)
            moved = noun and noun.index - number.index <= 2
            if not moved and not (
                verb and verb.kind in _DIRECTIONS and number.index - verb.index <= 2 and verb is move
            ):
                return None  # "rose to $175.53" is a level
            if not moved and not quantity.unit and not quantity.sign and not quantity.decimals:
                return None

        before, when = _last(left, _TIMES), _first(right, _TIMES)
        if before and (
            not when or (number.index - before.index <= 2 and left[-1].kind in _GLUE)
        ):  # "5-day change of", "a good week (+2.3%)"
            when = before
        place = 0
        if which and _joins_only(left):  # "changes of 2.3% and 4.1%": read by the words before
            previous, place = self.read_by.get(self.at[which - 1], (None, 0))
            place += 1
            when = when or (previous if previous and previous.kind in ("span", "today") else None)
            move = move or self.move
        self.read_by[at] = (when, place)
        self.move = move
        placed = move or when or (quantity.sign and not (_PRICE_WORDS | _TIME_WORDS).isdisjoint(self.sentence.words))
        if not (placed or (named and named.kind == "change") or _first(right, {"change"})):
            return None if quantity.unit != "percent" else self._unplaced(quantity, "the words name no fact")
        near = move is not None and abs(move.index - number.index) <= 3
        if move and quantity.sign == -_DIRECTIONS[move.kind]:
            if near:
                return _Verdict(None, "the sign contradicts the words", false=True)
            move = None
        sign = _DIRECTIONS[move.kind] if move else quantity.sign or (1 if named and named.kind == "change" else 0)
        if move:
            self.used.add(move.index)

        kinds = self.sentence.kinds
        opened = "open" in kinds and (
            _last(left, {"open"}) or _first(right, {"open"}) or (right == [] and self._next_is(at, "open"))
        )
        names, pairs = [], []
        if opened and not when:
            pairs = [("open", "close"), (_close(1), "open")]
        elif when and when.kind != "today":
            days = when.n[place : place + 1] if len(when.n) > 1 else when.n
            for n in days:
                names.append(f"change_{n}d")
                pairs += [(_close(n), "close"), ("open", "close")][: 1 + (n == 1)]
                if f"change_{n}d" not in book.facts and _close(n) not in book.facts:
                    pairs.append((_close(n - 1), "close"))  # "over the past three days", of three closes
            if when.text.startswith("yesterday"):
                pairs.append((_close(2), _close(1)))
        elif when:
            names, pairs = ["change_1d"], [(_close(1), "close"), ("open", "close")]
        else:
            names = list(book.changes)
            stated = self.prices
            if quantity.unit != "percent":
                pairs = [(name, "close") for name in book.prices]
            pairs += [(_close(1), "close"), *((stated[i], stated[-1]) for i in (0, -2) if len(stated) > 1)]
        average = "average" in kinds and _last(self.tokens[max(0, at - 8) : at], {"average"})
        if average and quantity.unit == "percent" and move:  # "compared with its 20-day average, it is 4% higher"
            pairs += [(name, "close") for name in self._names_of(average, ())]
        values = [(name, book.facts[name].value) for name in names if name in book.facts and quantity.unit == "percent"]
        for old, new in pairs:
            if old in book.facts and new in book.facts and old != new:
                a, b = book.facts[old].value, book.facts[new].value
                values.append((_pair(new, old), b - a if quantity.unit != "percent" else 100 * (b / a - 1)))
        equal = [(name, value) for name, value in values if _equals(quantity, value, bound=self._bound(left))]
        if before and when is before and when.kind == "ago" and move:
            return self._unplaced(quantity, "told backwards in time")  # "five days ago it was 2% lower"
        if equal and not sign:
            return _Verdict(None, "the words do not say whether up or down")
        for name, value in equal:
            if value * sign > 0 or value == 0:
                size = abs(value) if quantity.unit == "percent" else 100 * abs(value) / book.close
                return _Verdict(name, f"equals {name}", False, (value > 0) - (value < 0), size)
        if equal:
            decided = not move or near or number.index - move.index <= 6
            return _Verdict(None, f"{equal[0][0]} has the opposite sign", false=decided)
        why = "no change of the price over that time equals it"
        told = move or _last(left[-4:], {"change"})
        if told and when and abs(when.index - number.index) <= 6 and not self._is_derived(quantity, near):
            return _Verdict(None, why, false=True)
        return self._unplaced(quantity, why)

    def _is_derived(self, quantity: _Quantity, near: bool) -> bool:
        """Whether a percentage is that of the close against an average, told as a move: "4% higher"."""
        return (
            near
            and "average" in self.sentence.kinds
            and any(
                _equals(quantity, 100 * (self.book.close / self.book.facts[name].value - 1))
                for name in self.book.averages
            )
        )

    def _next_is(self, at: int, kind: str, reach: int = 3) -> bool:
        return any(token.kind == kind for token in self.tokens[at + 1 : at + 1 + reach])

    def _bound(self, left: list[Token]) -> int:
        """+1 after "more than", "just above"; -1 after "nearly", "just under"; else 0."""
        return _HEDGES.get(left[-1].text, 0) if left else 0

    # ------------------------------------------------------------------------------------------------ levels

    def _level(self, which: int, at: int, quantity: _Quantity, left: list[Token], right: list[Token]) -> _Verdict:
        """ "closed at $175.53", "its 20-day average of $171.80", "rose from $171.80 to $175.53", "volume of 53.2M"."""
        book = self.book
        name, strong, place = self._attached(which, at, left, right)
        self.read_by[at] = (name, place)
        joined = left[-1].kind if left else ""
        ago = _first(right, {"ago"}) or _last(left, {"ago"})
        extreme = _last(left[-4:], {"high", "low"})
        kind = name.kind if name else ""
        if kind == "average" or kind == "volatility":
            names = self._names_of(name, ())
            names = names[place : place + 1] if len(names) > 1 and place < len(names) and name.n else names
        elif kind in ("volume", "financial", "open"):
            names = self._names_of(name, ())
        elif _last(left[-6:], {"other"}) and kind in ("", "change", "price"):
            return self._unplaced(quantity, "the words name no fact that is shown")._replace(false=True)
        elif extreme and extreme.kind in ("high", "low") and not _last(left[-4:], {"volume", "volatility"}):
            names, strong = list(book.prices), True
        elif ago and kind in ("close", "price", "", "ago"):
            strong = strong or kind == "close" or (ago in right[:1] and ago.index - self.tokens[at].index <= 2)
            names = [_close(n) for n in ago.n]
        elif kind == "close" and not (joined in ("from", "to") or place or self._in_list(at)):
            names = list(book.prices) if name.text == "closes" else ["close"]
        elif kind == "close" or joined in ("from", "to") or place:
            names = list(book.prices)
        elif kind == "price" or _last_move(left):
            is_list = kind == "price" and (name.text == "prices" or self._in_list(at))
            names = list(book.prices) if is_list else ["close"]
            strong = kind == "price" and not is_list and joined in ("of", "at") and left[-2:-1] == [name]
        elif quantity.unit == "usd" and joined == "at":
            names, strong = ["close"], False  # "it stands at $175.53"
        elif quantity.unit == "usd" and (
            not _PRICE_WORDS.isdisjoint(self.sentence.words)
            or "above" in self.sentence.kinds
            or "below" in self.sentence.kinds
        ):
            names = list(book.prices) if self._in_list(at) else ["close", *book.averages]
            strong = False  # "the share ($175.53) stands above $171.80"
        else:
            return self._unplaced(quantity, "the words name no fact")

        bound = self._bound(left)
        for one in names:
            value, unit = _value(one, book) or (None, "")
            if value is None or quantity.unit not in _UNITS[unit]:
                continue
            decimals = book.decimals.get(one, 2)
            if unit == "ratio" and quantity.unit == "percent":
                value, decimals = 100 * value, max(0, decimals - 2)
            if not _equals(
                quantity,
                value,
                9 if unit == "count" else max(2, decimals) if unit == "usd" and value > 1e3 else decimals,
                bound,
            ):
                continue
            if (value < 0) != (quantity.sign < 0) and not (
                value < 0 and (_last(left, {"down"}) or "loss" in self.sentence.words)
            ):
                return _Verdict(None, f"{one} has the opposite sign", false=True)
            return self._told_truly(one, quantity, at, left, extreme)
        if len(names) == 1 and names[0] in book.facts:
            why = f"{names[0]} is {book.facts[names[0]].shown}"
        else:
            why = "no such fact is shown"
        return _Verdict(None, why, false=True) if strong else self._unplaced(quantity, why)

    def _in_list(self, at: int) -> bool:
        """Whether another number follows at once: "closed at $150.00, $153.50 and $156.20"."""
        rest = self.tokens[at + 1 : at + 4]
        position = next((i for i, token in enumerate(rest) if token.kind not in ("comma", "and", "to")), len(rest))
        return 0 < position < len(rest) and rest[position].kind == "number"

    def _attached(self, which: int, at: int, left: list[Token], right: list[Token]) -> tuple[Token | None, bool, int]:
        """(the name a number is read by, whether right beside it, place in a list of numbers that share it)."""
        number = self.tokens[at]
        strong = True
        right_of_it = self.tokens[at + 1 : at + 2]
        compared = (
            right_of_it and right_of_it[0].kind in ("above", "below", "than") and self._next_is(at + 1, "number", 1)
        )
        for token in reversed(left):
            if compared and token.kind in ("bracket", "colon"):
                return None, False, 0  # "price > average ($175.53 > $171.80)"
            if token.kind in NAMES or token.kind == "price":
                near = strong and number.index - token.index <= 6
                if not near and (after := self._name_after(at, right)):
                    return after, True, 0
                return token, near and token.kind != "price", 0
            if token.kind in ("so", "contrast") and left[-1].kind in ("from", "to"):
                break  # "the average may cap it, so I expect a fall from $175.53"
            strong = strong and token.kind in _GLUE
        if after := self._name_after(at, right):
            return after, True, 0
        if which and not _last(left, {"change", "own", "so"}) and self.at[which - 1] in self.read_by:
            name, place = self.read_by[self.at[which - 1]]
            if _joins_only(left) or (left and left[-1].kind in ("to", "from")):
                return name, False, place + 1
        return next((t for t in right if t.kind in NAMES and not self._of_next(t, at)), None), False, 0

    def _name_after(self, at: int, right: list[Token]) -> Token | None:
        """ "the $171.80 20-day average", "$171.80 (20-day average)", not "$175.53 volume of 53.2M"."""
        number = self.tokens[at]
        named = next((t for t in right[:2] if t.kind != "bracket"), None)
        if not named or named.kind not in NAMES or named.index - number.index > (4 if named.n else 2):
            return None
        return None if self._of_next(named, at) else named

    def _of_next(self, name: Token, at: int) -> bool:
        """Whether a name between two numbers is that of the second: "volume of 53.2M", "average ($171.80)"."""
        for token in self.tokens[self.tokens.index(name, at) + 1 :]:
            if token.kind == "number":
                return True
            if token.kind not in ("of", "at", "colon", "bracket", "above", "below"):
                return False
        return False

    def _told_truly(
        self, name: str, quantity: _Quantity, at: int, left: list[Token], extreme: Token | None
    ) -> _Verdict:
        """A number equal to the fact `name`, against the words that tell how it came about: "rose to", "a low of"."""
        book = self.book
        move, joined = _last_move(left), left[-1].kind if left else ""
        value = _value(name, book)[0]
        if extreme and name in book.prices:
            shown = [book.facts[price].value for price in book.prices]
            if value != (max(shown) if extreme.kind == "high" else min(shown)) or len(shown) < 2:
                return _Verdict(None, f"{name} is not the {extreme.text} of the closes shown", false=True)
        before = self.prices
        if name in book.prices and joined in ("to", "at") and (before or move) and not extreme:
            dated = _first(self.tokens[at + 1 : at + 4], {"ago"})
            if before and joined == "to" and not dated and age(before[-1]) <= age(name) and before[-1] != name:
                return _Verdict(None, f"{name} came before {before[-1]}", false=True)
            move = move or self._any_move(at)
            old = (
                _value(before[-1], book) if before and before[-1] != name else _value(_close(int(age(name)) + 1), book)
            )
            change = value - old[0] if old else _moved(1, book) if name == "close" else None
            span = _first(self.tokens[at + 1 : at + 4], {"span"}) or _last(left, {"span"})
            if span and not before and name == "close":
                change = _moved(span.n[0], book)
            if move and change is not None and joined in ("to", "at"):
                self.used.add(move.index)
                if joined == "to" and change * _DIRECTIONS[move.kind] <= 0:
                    return _Verdict(None, f"it did not come {move.text} to {name}", false=True, item=name)
                if joined == "to" and before and before[-1] != name:
                    sign, size = (change > 0) - (change < 0), 100 * abs(change / old[0])
                    return _Verdict(name, f"equals {name}", False, sign, size, _pair(name, before[-1]), item=name)
        place = self.read_by[at][1]
        if name in book.prices and 1 < place <= len(before) and before[-place] != name and not self._in_list(at):
            # "closes of $150.00, $153.50 and $156.20": a list tells of the move from its first to its last
            newer, older = sorted((name, before[-place]), key=age)
            change = _value(newer, book)[0] - _value(older, book)[0]
            size = 100 * abs(change / _value(older, book)[0])
            return _Verdict(
                name, f"equals {name}", False, (change > 0) - (change < 0), size, _pair(newer, older), item=name
            )
        return _Verdict(name, f"equals {name}", item=name)

    def _any_move(self, at: int) -> Token | None:
        return next((t for t in reversed(self.tokens[max(0, at - _REACH) : at]) if t.kind in _DIRECTIONS), None)

    # ------------------------------------------------------------------------------------------------ words only

    def _comparisons(self):
        """ "closed above its 20-day average", "$175.53 is higher than the open of $174.00", "$175.53 > $171.80"."""
        subject: list[str] = []
        last_reference = -1
        for position, token in enumerate(self.tokens):
            if token.kind not in ("above", "below") or token.index in self.used:
                continue
            previous = self.tokens[position - 1] if position else None
            if previous and previous.kind == "number" and token.index - previous.index <= 2:
                quantity = _quantity(previous)
                if quantity.unit == "percent" or (
                    position - 1 in self.verdicts and not self.verdicts[position - 1].item
                ):
                    continue
            where, references = self._reference(position)
            if where < 0 or not references:
                continue
            again = 0 <= last_reference > position - 12 and all(
                t.kind in ("contrast", "and", "comma", "bracket", "not", "number", "at", "of", "colon")
                for t in self.tokens[last_reference + 1 : position]
            )
            subject = subject if again and subject else self._subject(position)
            last_reference = where
            clause = self.tokens[max(0, position - 6) : position]
            kinds = [t.kind for t in clause if t.index > token.index - 8]
            if any(kind in ("firm", "weak", "own", "to") for kind in kinds):
                continue  # "expect it to close above", "a move to above"
            denied = "not" in kinds
            if len(subject) != 1 or (denied and "and" in kinds):
                continue
            for other in references:
                one = subject[0]
                a, b = _value(one, self.book), _value(other, self.book)
                if one == other or not a or not b or a[1] != b[1]:
                    continue
                holds = (a[0] > b[0]) == (token.kind == "above") and a[0] != b[0]
                start, end = token.start, max(token.end, self.tokens[where].end)
                if holds != denied:
                    why, size = f"{one} and {other} compare so", 100 * abs(a[0] / b[0] - 1) if b[0] else 0.0
                    verdict = _Verdict(_pair(one, other), why, False, _evidence(one, other, self.book), size)
                else:
                    verdict = _Verdict(None, f"{one} is on the other side of {other}", false=True)
                yield start, end, verdict

    def _moves(self):
        """ "has fallen over the last 5 days", "the 20-day change is negative", "up for the third day in a row"."""
        for position, token in enumerate(self.tokens):
            if token.kind != "span" or len(token.n) != 1:
                continue
            near = self.tokens[max(0, position - 4) : position + 4]
            kinds = {t.kind for t in near}
            streak = "streak" in kinds
            if near[0].kind == "of" or (position and self.tokens[position - 1].kind == "of"):
                continue
            if "number" in kinds or kinds & {"firm", "weak", "own", "not", "end"}:
                continue
            if any(t.kind in NAMES - {"close"} for t in self.tokens[max(0, position - 8) : position + 6]):
                continue
            move = next((t for t in near if t.kind in _DIRECTIONS and abs(t.index - token.index) <= 6), None)
            if move and any(
                move.index < t.index < token.index or token.index < t.index < move.index
                for t in near
                if t.kind == "comma"
            ):
                continue
            if (
                not move
                or move.index in self.used
                or move.text.startswith("add")
                or sum(t.kind in _DIRECTIONS for t in near) > 1
            ):
                continue
            if streak:
                sign = _DIRECTIONS[move.kind]
                steps = [_moved_between(n, self.book) for n in range(token.n[0])]
                known = [step for step in (*steps, _moved(token.n[0], self.book)) if step is not None]
                change = -sign if any(step * sign <= 0 for step in known) else None if None in steps else sign
            else:
                change = _moved(token.n[0], self.book)
            if not change:
                continue
            sign = 1 if change > 0 else -1
            start, end = min(token.start, move.start), max(token.end, move.end)
            if sign == _DIRECTIONS[move.kind]:
                yield start, end, _Verdict(f"change_{token.n[0]}d", "the closes bear it out", False, sign, abs(change))
            else:
                yield start, end, _Verdict(None, "the price went the other way over that time", false=True)

    def _superlatives(self):
        """ "a record high", "its 52-week low": nothing shown can say so, unless a headline does."""
        for position, token in enumerate(self.tokens):
            near = self.tokens[max(0, position - 3) : position + 4]
            extremes = [t for t in near if t.kind in ("high", "low", "superlative") and abs(t.index - token.index) <= 6]
            is_year = (
                token.text in _YEARS
                or (token.kind == "bare" and token.text[:2] in ("19", "20") and len(token.text) == 4)
                or (token.kind == "span" and token.n[0] > 60)
            )
            if is_year and not extremes:
                continue
            if token.kind in ("high", "low") and self.sentence.words[max(0, token.index - 2) : token.index] == [
                "all",
                "time",
            ]:
                yield token.start, token.end, _Verdict(None, "nothing shown says so", false=True)
            if (token.kind == "record" or is_year) and not self._quotes(token):
                yield token.start, token.end, _Verdict(None, "nothing shown says so", false=True)

    def _quotes(self, token: Token) -> bool:
        return self.sentence.text[token.start : token.end] in self.book.texts


def _moved_between(lag: int, book: Book) -> float | None:
    """Change of the close from lag + 1 to lag days ago, in percent; None when unknown."""
    if lag == 0:
        return _moved(1, book)
    new, old = book.facts.get(_close(lag)), book.facts.get(_close(lag + 1))
    return 100 * (new.value / old.value - 1) if new and old else None


def _find(tokens: Sequence[Token], kinds: set[str]) -> int:
    """Position of the first token of these kinds; past the end when there is none."""
    for position, token in enumerate(tokens):  # loops, not generators: these take much of the time
        if token.kind in kinds:
            return position
    return len(tokens)


def _last(tokens: Sequence[Token], kinds: set[str]) -> Token | None:
    for token in reversed(tokens):
        if token.kind in kinds:
            return token
    return None


def _first(tokens: Sequence[Token], kinds: set[str]) -> Token | None:
    for token in tokens:
        if token.kind in kinds:
            return token
    return None


def _nearest(token: Token, window: Sequence[Token], kind: str, reach: int) -> Token | None:
    near = [t for t in window if t.kind == kind and abs(t.index - token.index) <= reach]
    return min(near, key=lambda t: abs(t.index - token.index), default=None)


def _last_move(left: Sequence[Token]) -> Token | None:
    """The direction word that tells of a number after it: the last, unless a name or a change came between."""
    for token in reversed(left):
        if token.kind in _DIRECTIONS:
            return token
        if token.kind in NAMES or token.kind == "change":
            at = left.index(token)
            before = (
                left[at - 2] if at > 1 and left[at - 1].kind in ("span", "today") else left[at - 1] if at else token
            )
            if before.kind in ("positive", "negative") and token.index - before.index <= 4:
                return before  # "a negative 5-day change of"
            return _last(left[at + 1 :], _MOVES)
    return None


def _joins_only(left: Sequence[Token]) -> bool:
    return all(token.kind in ("comma", "and", "to", "bracket", "at", "contrast") for token in left)
