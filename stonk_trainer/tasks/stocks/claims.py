"""The fact ledger: which numbers in a reasoning are claims about the data, and which of them the data bear out.

A claim is a number with its unit inside a sentence. It is *grounded* when the words around it name a fact (or a
relation of facts: a change, a difference, a ratio, a mean) and the number equals it to the precision written, with the
right unit and sign. One pass: text → tokens → sentences → for each number the words before and after it, up to the next
number → what it can speak of → verdict.

What this simplifies: English only; a relation does not cross sentences; a number that no rule understands counts as not
grounded, so plain statements pay and clever ones do not. Time is linear: the words between two numbers are read at most
twice, and no pattern has nested repetition.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from stonk_trainer.tasks.stocks.facts import Fact


class Claim(NamedTuple):
    """One number of a reasoning; `text` is `reasoning[start:end]`.

    fact: name of the fact or relation it states ("close", "close vs sma_20"), None when not grounded.
    why: the verdict in words.
    direction: the evidence it gives: +1 bullish, -1 bearish, 0 none (levels, volume, volatility, not grounded).
    """

    text: str
    start: int
    end: int
    fact: str | None
    grounded: bool
    why: str
    direction: int


class _Token(NamedTuple):
    kind: str  # a key of _WORDS, or "financial"
    start: int
    end: int
    text: str


class _Quantity(NamedTuple):
    value: float  # magnitude
    tolerance: float  # half a unit of the last digit written
    unit: str  # usd, percent, ratio, or "" when none is written
    sign: int  # -1 or +1 when a sign is written, else 0


class _Reading(NamedTuple):
    """A number and the words it is read by."""

    quantity: _Quantity
    number: _Token
    words: list[_Token]  # before it
    right: list[_Token]  # after it
    when: _Token | None  # the span or day named nearest
    listed: bool  # one of several numbers that share their words
    stated: list[str]  # prices and averages the sentence has stated before it


class _Verdict(NamedTuple):
    fact: str | None
    why: str
    direction: int = 0


class _Book(NamedTuple):
    """The facts, indexed: numeric facts by name, and the names prices and financial items go by."""

    facts: dict[str, Fact]
    prices: tuple[str, ...]  # close, close_1d_ago, …, open: what "rose from … to …" can speak of
    financials: tuple[tuple[str, str], ...]  # (words, name), longest first
    headlines: tuple[tuple[str, frozenset[str]], ...]  # (name, its words and numbers)


_COUNTS = {
    word: n
    for n, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1)
}
_COUNTS |= {"a": 1, "fifteen": 15, "twenty": 20}
_N = rf"(?:\d{{1,2}}|{'|'.join(_COUNTS)})"
_DAYS = rf"{_N}[- ](?:trading |consecutive )?(?:days?|sessions?)"

# The words of each fact and each relation, in lower case; the first kind that matches at a place wins.
_WORDS = {
    "average": rf"{_N}[- ]day (?:simple |moving ){{0,2}}(?:averages?|sma|ma|mean)|(?:sma|ma)[-_ (]?\d{{1,2}}"
    rf"|moving average|(?:average|mean) of (?:the |its )?(?:last |past )?{_N} (?:days|closes|closing prices)",
    "volatility": rf"(?:{_N}[- ]day |daily )?volatility",
    "ago": rf"(?:{_DAYS}|{_N} weeks?) (?:ago|earlier|before|prior)|yesterday(?:'s close)?"
    r"|(?:previous|prior|last) (?:day's |session's )?clos(?:e|ing price)|(?:previous|prior) (?:day|session)",
    "span": rf"{_DAYS}|(?:{_N} )?weeks?|months?|today|daily|(?:the|this|last) (?:day|session)|day change",
    "volume": r"volume",
    "closes": r"closes|closing prices",
    "close": r"closed|close(?! to)|closing",
    "open": r"open(?:ed|s|ing)?",
    "price": r"prices?|trad(?:es|ed|ing)|reach(?:ed|es|ing)|hit",
    "above": r"above|(?:higher|more) than|exceeds|over(?= (?:its|the) [^ ]{1,9} (?:moving )?average)",
    "below": r"below|(?:lower|less) than|under",
    "of": r"of",
    "in": r"in",
    "change": r"changed?|moved?|returns?",
    "turn up": r"oversold|bounce|rebound|relief rally",
    "turn down": r"pull-?back|overbought|overextended|profit[- ]taking|correction",
    "turn": r"mean[- ]rever(?:sion|ts?|ting)|reversal|reverts?|overdone",
    "up": r"(?:rise|rising|gain|climb|jump|advanc|increas|rall(?:y|ie)|surg|grow)[a-z]{0,4}|rose|grew|up|higher",
    "down": r"(?:fall|drop|declin|slid|slip|decreas|tumbl|plung|dip)[a-z]{0,4}"
    r"|fell|loss|lost|losing|shed|sank|down|lower",
    "not": r"not(?! only)|never|no|without|unlikely|[a-z]{2,5}n't",
    "own": r"confiden[a-z]{1,4}|probability|chance|odds|expected move|i expect|predict[a-z]{0,4}|forecast|target",
    "from": r"from|since",
    "to": r"to",
    "at": r"at|by",
    "verb": r"is|was|are|were|has|had|have|shows?|stands|stood|remains|after|with|its|against|than",
    "and": r"and|but|while|although|versus|then",
}
_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "mn": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9, "b": 1e9}
_SCALES |= {"trillion": 1e12, "t": 1e12}
_UNIT_WORDS = {"%": "percent", "percent": "percent", "x": "ratio", "times": "ratio", "dollars": "usd", "usd": "usd"}
_NUMBER = (
    r"[+-]?\$?[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?!\d|,\d{3}|[-/:]\d|-[a-z])"
    rf"(?: ?(?:{'|'.join(_SCALES)})(?![a-z]))?(?: ?%| (?:percent|times|dollars|usd)(?![a-z])|x(?![a-z]))?"
)
# Each group is empty and stands behind its words: `lastgroup` still names the kind, and failing takes a third less.
_TOKEN = re.compile(
    r"[,;()](?P<comma>)|(?:[.!?](?=\s|\Z)|\n(?![a-z$]))(?P<end>)|(?<![\w$.-])(?:(?:"
    + "|".join(f"(?:{words})(?P<{kind.replace(' ', '_')}>)" for kind, words in _WORDS.items())
    + rf")(?![a-z0-9_])|(?:{_NUMBER})(?P<number>))",
    re.ASCII,
)
_QUANTITY = re.compile(r"([+-]?)(\$?)([+-]?)([\d,]+)(?:\.(\d+))? ?([a-z]*) ?([a-z%]*)", re.ASCII)
_LOWER = {
    code: code + 32 for code in range(ord("A"), ord("Z") + 1)
}  # str.lower() would change the length of some scripts

_MOVES = {"up", "down"}
_BREAKS = {"comma", "and", "to"}
_NOT_PRICE = {"volume", "volatility", "financial", "average"}
_LEVELS = _NOT_PRICE | {"close", "closes", "open", "ago"}
_NAMING = (
    _LEVELS | _MOVES | {"price", "above", "below", "change", "own"}
)  # a window with none of them has nothing of its own
_PROSE = _MOVES | {"above", "below", "of", "from", "to", "at", "verb", "not", "price"}
_UNITS = {"usd": ("usd", ""), "percent": ("percent",), "count": ("",), "ratio": ("ratio", "")}


def find_claims(reasoning: str, facts: Sequence[Fact]) -> list[Claim]:
    """Every number with a unit in `reasoning`, in order, with its verdict.

    Numbers that are no claim about the data are left out: years, bare counts ("3 of 5 days"), N in "20-day", and the
    writer's own forecast ("63% confidence"). A fact claimed twice appears twice; whoever counts must count names.
    """
    book = _book(tuple(facts))
    text = reasoning.lower() if reasoning.isascii() else reasoning.translate(_LOWER)
    claims: list[Claim] = []
    for sentence, tokens in _sentences(text, book):
        claims += _read_sentence(reasoning, text, sentence, tokens, book)
    return claims


@lru_cache(maxsize=256)
def _book(facts: tuple[Fact, ...]) -> _Book:
    numeric = {fact.name: fact for fact in facts if fact.unit in _UNITS and not isinstance(fact.value, str)}
    prices = [name for lag in range(61) if (name := _close(lag)) in numeric] + ["open"] * ("open" in numeric)
    financials = {}
    for name in numeric:
        if name.startswith("financials/"):
            # "NetIncomeLoss" → "net income loss"; also without a leading "total" or a trailing "loss", as people write
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name.removeprefix("financials/")).lower()
            short = words.removeprefix("total ").removesuffix(" loss")
            for alias in (
                words,
                short,
                short.replace("earnings per share", "eps"),
                short.replace("eps", "earnings per share"),
            ):
                financials.setdefault(alias, name)
    texts = [(fact.name, str(fact.value).lower()) for fact in facts if fact.name.startswith("headline")]
    headlines = tuple((name, frozenset(re.findall(r"[a-z]{4,}|[\d.]*\d", value, re.ASCII))) for name, value in texts)
    longest_first = sorted(financials.items(), key=lambda item: -len(item[0]))
    return _Book(numeric, tuple(prices), tuple(longest_first), headlines)


def _close(lag: int) -> str:
    return f"close_{lag}d_ago" if lag else "close"


@lru_cache(maxsize=1024)
def _age(name: str) -> float:
    """Which of two prices or averages is the older: days before the row's close; the open lies between two closes."""
    return 0.5 if name == "open" else float(re.sub(r"\D", "", name) or 0)


def _sentences(text: str, book: _Book) -> Iterator[tuple[str, list[_Token]]]:
    """(sentence, its tokens) for each sentence; token positions count from the start of `text`."""
    tokens = [_Token(match.lastgroup, *match.span(), match.group()) for match in _TOKEN.finditer(text)]
    financial = _financial_tokens(text, book)
    if financial:
        inside = {at for token in financial for at in range(token.start, token.end)}
        tokens = sorted(
            [token for token in tokens if token.start not in inside] + financial, key=lambda token: token.start
        )
    start, sentence = 0, []
    for token in tokens:
        if token.kind == "end":
            yield text[start : token.start], sentence
            start, sentence = token.end, []
        else:
            sentence.append(token)
    yield text[start:], sentence


def _financial_tokens(text: str, book: _Book) -> list[_Token]:
    tokens, taken = [], set()
    for words, name in book.financials:
        start = text.find(words)
        while start >= 0:
            end = start + len(words)
            rest = text[end : end + 2].removeprefix("s")  # "revenues"
            if start not in taken and not text[start - 1 : start].isalnum() and not rest[:1].isalnum():
                taken.update(range(start, end))
                tokens.append(_Token("financial", start, end, name))
            start = text.find(words, end)
    return tokens


def _read_sentence(reasoning: str, text: str, sentence: str, tokens: list[_Token], book: _Book) -> list[Claim]:
    numbers = [
        (at, quantity)
        for at, token in enumerate(tokens)
        if token[0] == "number" and (quantity := _quantity(token, text))
    ]
    if not numbers:
        return []
    # Prose has words that join its numbers; "Close: $175.53, Open: $174.00", as the prompt writes it, has labels only.
    prose = sum(token.kind in _PROSE or token.text in ("closed", "opened") for token in tokens)
    labelled = sum(
        text[max(0, tokens[at].start - 2) : tokens[at].start].rstrip()[-1:] in (":", "=", "|") for at, _ in numbers
    )
    is_prose = len(sentence.split()) >= 4 and prose >= max(1, len(numbers) / 2, 2 * labelled)
    turn = (
        None
        if any(token.kind == "not" for token in tokens)
        else next((t for t in tokens if t.kind.startswith("turn")), None)
    )

    claims: list[Claim] = []
    stated: list[str] = []  # prices and averages this sentence has stated so far
    lead: list[_Token] = []  # the words that the previous number was read by
    left = tokens[: numbers[0][0]]
    for which, (at, quantity) in enumerate(numbers):
        number, until = tokens[at], numbers[which + 1][0] if which + 1 < len(numbers) else len(tokens)
        gap = tokens[at + 1 : until]
        # Words between two numbers belong to the first up to a comma, "and" or "to"; without one they belong to both.
        cut = next((i for i, token in enumerate(gap) if token.kind in _BREAKS), None)
        right = gap[:cut]
        # "closes of $150.00, $153.50 and $156.20": a number without words of its own is read by those before
        own = left + [token for token in right if token.kind != "span"][:1]
        continued = not any(token.kind in _NAMING for token in own)
        listed = continued or (cut == 0 and until < len(tokens) and all(token.kind in _BREAKS for token in gap))
        left = lead + left if continued else left
        if is_prose:
            verdict = _judge(quantity, number, left, right, listed, stated, book)
            if verdict and verdict.fact is None:
                verdict = _in_headline(number, sentence, book) or verdict
        else:
            verdict = _Verdict(None, "a list of numbers, not a sentence")
        lead, left = left[-8:], gap[cut or 0 :]  # 8: a list of any length stays linear
        if verdict is None:
            continue
        if verdict.fact in book.prices or (verdict.fact or "").startswith("sma_"):
            stated.append(verdict.fact)
        direction = verdict.direction
        if turn:  # "oversold after a fall of 2.3%" reads a fall as bullish, and leaves a rise as it is
            direction = {"turn_up": abs(direction), "turn_down": -abs(direction), "turn": -direction}[turn.kind]
        text_span = (number.start, number.end)
        claims.append(
            Claim(
                reasoning[slice(*text_span)], *text_span, verdict.fact, verdict.fact is not None, verdict.why, direction
            )
        )
    return claims


def _quantity(token: _Token, text: str) -> _Quantity | None:
    """The number a token states, or None when it is no claim: a year, a bare count."""
    sign, dollar, sign_after, digits, decimals, scale, unit = _QUANTITY.match(token.text).groups()
    if scale not in _SCALES:
        scale, unit = "", scale or unit
    if not (dollar or unit or decimals or scale or "," in digits):
        is_year = len(digits) == 4 and digits[:2] in ("19", "20")
        if is_year or not (len(digits) > 4 or text.endswith((" at ", " of "), 0, token.start)):
            return None
    factor = _SCALES.get(scale, 1.0)
    value = float(f"{digits.replace(',', '')}.{decimals or 0}") * factor
    tolerance = 0.5 * factor * 10.0 ** -len(decimals or "")
    signs = (sign + sign_after)[:1]
    return _Quantity(value, tolerance, "usd" if dollar else _UNIT_WORDS.get(unit, ""), {"-": -1, "+": 1, "": 0}[signs])


def _equals(quantity: _Quantity, value: float) -> bool:
    """Equal in magnitude to the precision written; rounding away a third of the value ("0%" of 0.4%) states nothing."""
    error = abs(quantity.value - abs(value))
    return error <= quantity.tolerance + 1e-9 * max(1.0, abs(value)) and error <= abs(value) / 3


def _judge(
    quantity: _Quantity,
    number: _Token,
    left: list[_Token],
    right: list[_Token],
    listed: bool,
    stated: list[str],
    book: _Book,
) -> _Verdict | None:
    """What one number states, given the tokens around it; None when it speaks of the writer's own forecast."""
    if _last(left, {"own"}) or (right and right[0].kind == "own" and right[0].start - number.end < 12):
        return None
    if _last(left, {"not"}):
        return _Verdict(None, "the words deny it")
    # "With volatility low, the share rose 2.3%": the words after the comma count, if they name something
    clause = next((i for i in range(len(left), 0, -1) if left[i - 1].kind in ("comma", "and")), 0)
    words = left[clause:] if any(token.kind in _NAMING for token in left[clause:]) else left
    when = _first(right, {"span", "ago"}) or _last(left, {"span", "ago"})
    reading = _Reading(quantity, number, words, right, when, listed, stated)
    return _relation(reading, book) or _change(reading, book) or _level(reading, book)


def _last(tokens: Sequence[_Token], kinds: set[str]) -> _Token | None:
    for token in reversed(tokens):  # loops, not generators: these two take most of the time
        if token.kind in kinds:
            return token
    return None


def _first(tokens: Sequence[_Token], kinds: set[str]) -> _Token | None:
    for token in tokens:
        if token.kind in kinds:
            return token
    return None


def _days(token: _Token) -> int | None:
    """Trading days named: "five days ago" 5, "two weeks" 10, "month" 20, "today" 1; None for "moving average"."""
    match = re.search(r"\d+", token.text)
    named = next((_COUNTS[word] for word in re.split(r"[ -]", token.text) if word in _COUNTS), None)
    count = int(match.group()) if match else named
    if token.kind in ("average", "volatility"):
        return count
    return (count or 1) * (5 if "week" in token.text else 20 if "month" in token.text else 1)


def _names(token: _Token, window: Sequence[_Token], book: _Book) -> list[str]:
    """Facts a token can speak of, given the other words in its window."""
    if token.kind == "financial":
        return [token.text]
    if token.kind in ("average", "volatility"):
        stem, ending = ("sma_", "") if token.kind == "average" else ("volatility_", "d")
        count = _days(token)
        return [f"{stem}{count}{ending}"] if count else [name for name in book.facts if name.startswith(stem)]
    if token.kind == "closes":
        return list(book.prices)
    ago = token if token.kind == "ago" else _first(window, {"ago"})
    if token.kind in ("close", "ago"):
        return [_close(_days(ago) if ago else 0)]
    return [] if ago and token.kind == "open" else [token.kind]


def _value(name: str, book: _Book) -> tuple[float, str] | None:
    """(value, unit) of a fact, or of an average that the shown closes allow to compute; None when unknown."""
    if name in book.facts:
        return book.facts[name].value, book.facts[name].unit
    closes = [_close(lag) for lag in range(int(_age(name)))] if name.startswith("sma_") else []
    if closes and all(close in book.facts for close in closes):
        return sum(book.facts[close].value for close in closes) / len(closes), "usd"
    return None


def _evidence(one: str, other: str, book: _Book) -> int:
    """+1 when the newer of two prices or averages is the higher, -1 when it is the lower; 0 for anything else."""
    known = [name for name in (one, other) if name in book.prices or name.startswith("sma_")]
    if len(known) < 2:
        return 0
    newer, older = (_value(name, book)[0] for name in sorted(known, key=_age))
    return (newer > older) - (newer < older)


def _relation(reading: _Reading, book: _Book) -> _Verdict | None:
    """ "$3.73 above its 20-day average", "above its average by 2.2%", "25% of revenue", "1.02 times its open"."""
    quantity, number, left, right, *_ = reading
    near = right[0] if right and right[0].start - number.end <= 12 else None
    if near and (near.kind in ("above", "below") or (near.kind == "of" and quantity.unit == "percent")):
        kind, reference, subject = near.kind, _first(right[1:], _LEVELS), _last(left, _LEVELS)
    elif quantity.unit == "ratio" and _first(right, _LEVELS):
        kind, reference, subject = "of", _first(right, _LEVELS), _last(left, _LEVELS)
    elif left and left[-1].text == "by" and (relation := _last(left, {"above", "below"})):
        at = left.index(relation)
        kind, reference, subject = relation.kind, _first(left[at:], _LEVELS), _last(left[:at], _LEVELS)
    else:
        return None
    if reference is None:
        return _Verdict(None, "compared with nothing that is shown")
    for one in _names(subject, (), book) if subject else ["close"]:
        for other in _names(reference, (*left, *right), book):
            (a, unit), (b, other_unit) = _value(one, book) or (0, ""), _value(other, book) or (0, "")
            if one == other or not b or unit != other_unit:
                continue
            difference = a - b if quantity.unit == "usd" else 100 * (a / b - 1)
            stated = a / b * (100 if quantity.unit == "percent" else 1) if kind == "of" else difference
            if quantity.unit in ("usd" if unit == "usd" else "percent", "percent", "ratio") and _equals(
                quantity, stated
            ):
                if kind != "of" and (difference > 0) != (kind == "above"):
                    return _Verdict(None, f"{one} is not {kind} {other}")
                return _Verdict(f"{one} vs {other}", f"follows from {one} and {other}", _evidence(one, other, book))
    if quantity.unit == "usd":
        return None  # "closed at $175.53, above its average" states a level
    return _Verdict(None, "does not follow from the facts compared")


def _change(reading: _Reading, book: _Book) -> _Verdict | None:
    """ "rose 2.3% over the last 5 days", "a gain of $3.73", "a 2.3% daily drop"; None for no change of the price."""
    quantity, number, words, right, when, _, stated = reading
    after = [token for token in right if token.kind != "span"][:1]
    noun = next(
        (t for t in after if t.kind in _MOVES and t.text not in ("up", "down") and t.start - number.end <= 14), None
    )
    move = noun or _last(words, _MOVES) or _first(right, _MOVES)
    owner = _first(right, {"in"})  # "a 2.3% rise in volume"
    about = words + (right[right.index(owner) :] if owner else [] if _last(words, _MOVES) else right)
    if _last(about, _NOT_PRICE):
        return None
    if quantity.unit == "usd":
        verb = [token for token in words[-2:] if token.text not in ("of", "by")][-1:]
        if not noun and not (verb and verb[0].kind in _MOVES):
            return None  # "rose to $175.53" is a level
    elif quantity.unit != "percent":
        return None
    if not (move or when or quantity.sign or _last(words, {"change"}) or _first(right, {"change"})):
        return _Verdict(None, "the words name no fact")
    sign = (1 if move.kind == "up" else -1) if move else quantity.sign or 1
    if quantity.sign == -sign:
        return _Verdict(None, "the sign contradicts the words")

    if when:
        lag = _days(when)
        names, pairs = [f"change_{lag}d"], [(_close(lag), "close")]
        if when.text.startswith("yesterday"):
            pairs.append((_close(2), _close(1)))
    elif _last(words, {"open"}) or _first(right, {"open"}):
        names, pairs = [], [("open", "close"), (_close(1), "open")]
    else:
        names = [name for name in book.facts if name.startswith("change_")]
        closes = [name for name in stated if name in book.prices]
        pairs = [(_close(1), "close"), *((closes[i], closes[-1]) for i in (0, -2) if len(closes) > 1)]
    values = [(name, book.facts[name].value) for name in names if name in book.facts and quantity.unit == "percent"]
    for old, new in pairs:
        if old in book.facts and new in book.facts and book.facts[old].value:
            a, b = book.facts[old].value, book.facts[new].value
            values.append((f"{new} vs {old}", b - a if quantity.unit == "usd" else 100 * (b / a - 1)))
    equal = [(name, value) for name, value in values if _equals(quantity, value)]
    for name, value in equal:
        if value * sign > 0 or value == 0:
            return _Verdict(name, f"equals {name}", (value > 0) - (value < 0))
    return _Verdict(None, f"{equal[0][0]} has the opposite sign" if equal else "no change of the price equals it")


def _level(reading: _Reading, book: _Book) -> _Verdict:
    """ "closed at $175.53", "its 20-day average of $171.80", "rose from $171.80 to $175.53", "volume of 53.2M"."""
    quantity, _, words, right, _, listed, _ = reading
    named = _last(words, _LEVELS)
    ago = _first(right, {"ago"})
    last = words[-1].kind if words else ""
    if last == "from" or (listed and (named is None or named.kind in ("close", "closes"))):
        names = _names(ago, (), book) if ago else list(book.prices)
    elif named:
        names = _names(named, [*reversed(words), *right] if named.kind == "close" else (), book)
    elif ago:
        names = _names(ago, (), book)
    elif last == "to" or _last(words, _MOVES):
        names = list(book.prices)
    elif _last(words, {"price"}):
        names = ["close", "open"]
    elif following := _first(right, _LEVELS):
        names = _names(following, right, book)
    else:
        return _Verdict(None, "the words name no fact")

    for name in names:
        value, unit = _value(name, book) or (None, "")
        if value is None or quantity.unit not in _UNITS[unit] or not _equals(quantity, value):
            continue
        if (value < 0) != (quantity.sign < 0) and not (value < 0 and _last(words, {"down"})):
            continue
        return _told_truly(name, value, reading, book)
    shown = (
        f"{names[0]} is {book.facts[names[0]].shown}" if len(names) == 1 and names[0] in book.facts else "no such fact"
    )
    return _Verdict(None, shown)


def _told_truly(name: str, value: float, reading: _Reading, book: _Book) -> _Verdict:
    """A number equal to the fact `name`, against the words that compare it: "above its average of", "rose to"."""
    words, right, stated = reading.words, reading.right, reading.stated
    side, move = _last(words, {"above", "below"}), _last(words, _MOVES)
    beyond = right[1:] if right and right[0].kind == "verb" else right  # "$171.80 is below the close"
    if beyond and beyond[0].kind in ("above", "below") and (reference := _first(beyond, _LEVELS)):
        other, lower = _names(reference, right, book), beyond[0].kind == "above"
    elif side:
        subject = _last(words[: words.index(side)], _LEVELS)
        other, lower = _names(subject, (), book) if subject else stated[-1:] or ["close"], side.kind == "below"
    elif move and words[-1].kind in ("to", "at") and name in book.prices:
        before = [price for price in stated if price in book.prices][-1:]
        other, lower = before or [_close(int(_age(name)) + 1)], move.kind == "up"
        if before and _age(before[0]) < _age(name):
            return _Verdict(None, f"{name} came before {before[0]}")
    else:
        return _Verdict(name, f"equals {name}")
    known = _value(other[0], book) if other and other[0] != name else None
    if known is None:
        return _Verdict(name, f"equals {name}")
    if known[0] == value or (known[0] < value) != lower:
        return _Verdict(None, f"equals {name}, but {other[0]} is on its other side")
    return _Verdict(name, f"equals {name}", _evidence(name, other[0], book))


def _in_headline(number: _Token, sentence: str, book: _Book) -> _Verdict | None:
    """A number of a headline, in a sentence that shares at least two of the headline's words."""
    digits = re.search(r"\d[\d.]*", number.text).group()
    for name, words in book.headlines:
        if digits in words and sum(word.strip(".,;:'\"()") in words for word in set(sentence.split())) >= 2:
            return _Verdict(name, f"quotes {name}")
    return None
