"""Quantities: numbers as people write them, with their unit and how precisely they are written.

`read_value` reads the VALUE of an evidence line, which must be a number and nothing else; `quantities_in` finds the
numbers of prose that state something measurable. Both are exact decimals, and linear in the length of the text.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

LONGEST = 24  # characters of a number; no fact has as many

_SCALES = {"k": 3, "m": 6, "b": 9, "t": 12, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_VALUE = re.compile(
    r"(?P<sign>[+\-\u2212]?)(?P<dollar>\$?)(?P<inner>[+\-\u2212]?)"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?: ?(?P<scale>{'|'.join(reversed(_SCALES))}))?(?: ?(?P<unit>%|pp))?",
    re.IGNORECASE | re.ASCII,  # neither look-alike letters nor the digits of other scripts
)

# What prose may write besides.
_SCALES_IN_PROSE = _SCALES | {"mn": 6, "bn": 9, "tn": 12}
_UNITS = {"%": "%", "\u066a": "%", "\u2030": "\u2030", "percent": "%", "pct": "%", "pp": "pp", "percentage": "pp"}
_UNITS |= {"bp": "bp", "bps": "bp", "basis": "bp", "dollar": "$", "dollars": "$", "us$": "$", "usd": "$"}
_SIGNS = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Sc")  # $, €, £, …
_CODES = "USD EUR GBP JPY CNY CHF CAD AUD NZD HKD SGD INR KRW TWD BRL MXN SEK NOK DKK PLN ZAR RUB BTC ETH".split()
_UNITS |= {sign: sign for sign in _SIGNS} | {code.lower(): code for code in _CODES if code != "USD"}
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+")
_DIGITS = re.compile(r"\d+(?:,\d+)*(?:\.\d+)?")
_ASCII_DIGITS = re.compile(_DIGITS.pattern, re.ASCII)  # the same, and faster
_DATE = re.compile(r"(?:\d{1,2}\.\d{1,2}\.(?:\d{4}|\d\d)|\d{4}\.\d{1,2}\.\d{1,2})(?![\d%])")
_MINUSES = "\u2212\u2013-"
_BEFORE = re.compile(
    rf"((?<!\d)[+{_MINUSES}])?([A-Z]{{0,3}}[{_SIGNS}]\s?|(?=[A-Z])(?:{'|'.join(_CODES)})\s?)?((?<!\d)[+{_MINUSES}])?\Z"
)
_MOST_BEFORE = 8  # characters: a sign, three letters, a currency sign, a space, a sign
_MAY_END_BEFORE = frozenset(f"+{_MINUSES}{_SIGNS}ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = re.compile(rf"\s{{0,2}}([^\W\d_]+|[%\u066a\u2030]|[{_SIGNS}](?!\s?\d))")


class Quantity(NamedTuple):
    """A number as it is written.

    value: with its sign and scale, of a percentage the percent points; None when it is not a number ("9,9%").
    half: half a unit of the last digit written. unit: "%", "$", "pp", "" for a plain number, or another unit.
    signed: whether it has a plus or a minus. places: decimals written.
    """

    text: str
    value: Decimal | None
    half: Decimal
    unit: str
    signed: bool
    places: int

    def states(self, true: Decimal) -> bool:
        """Whether this is `true` as far as it is written, ends included; a number of zeros states only zero."""
        return self.value is not None and abs(self.value - true) <= self.half and bool(self.value or not true)

    def states_size(self, true: Decimal) -> bool:
        """As `states`, but without a sign a minus may be missing: "fell 1.8%"."""
        return self.states(true) or (not self.signed and self.states(-true))


@functools.lru_cache(maxsize=2**15)
def read_value(text: str) -> Quantity | None:
    """The number that `text` is: sign, `$`, digits, scale, and `%` or `pp`. None when it is anything else."""
    match = _VALUE.fullmatch(text) if len(text) < 2 * LONGEST else None
    if match is None:
        return None
    sign, dollar, inner, digits, scale, unit = match.groups()
    if (sign and inner) or (dollar and unit):
        return None
    shift = _SCALES[scale.lower()] if scale else 0
    return _quantity(text, digits, sign or inner, shift, dollar or (unit or "").lower())


def quantities_in(text: str) -> Iterator[Quantity]:
    """Each number of `text` that has a unit (%, a currency, pp, a scale) or a decimal point.

    Plain whole numbers, dates and lengths ("5-day") have neither, and are left out.
    """
    digits_in = _ASCII_DIGITS
    if not text.isascii():
        text, digits_in = unicodedata.normalize("NFKC", text), _DIGITS  # full-width digits and signs, wide spaces
    beyond = 0  # digits that begin before this are part of a date or of a number such as "1.2.3"
    for match in digits_in.finditer(text):
        start, end = match.span()
        if start < beyond:
            continue
        digits = match[0]
        if "." in digits and (date := _DATE.match(text, start)):
            beyond = date.end()
            continue
        beyond = end + 2 if text[end : end + 1] in (".", ",") else end
        if text[start - 1 : start] == "." and "." not in digits:  # ".5"
            start, digits = start - 1, f".{digits}"
        end, shift, unit = _after(text, end)
        start, sign, currency = _before(text, start)
        if "." in digits or shift or unit or currency:
            both = unit + currency if unit != currency else unit
            yield _quantity(text[start:end], digits, sign, shift, both)


def _after(text: str, end: int) -> tuple[int, int, str]:
    """(where a number whose digits end at `end` ends, the power of ten of its scale, its unit)."""
    shift, unit = 0, ""
    word = _WORD.match(text, end)
    if word and (power := _SCALES_IN_PROSE.get(word[1].lower())):
        shift, end = power, word.end()
        word = _WORD.match(text, end)
    if word and (known := _UNITS.get(word[1].lower())):
        unit, end = known, word.end()
    elif word and text.startswith("per cent", word.start(1)):
        unit, end = "%", word.start(1) + len("per cent")
    return end, shift, unit


def _before(text: str, start: int) -> tuple[int, str, str]:
    """(where a number whose digits begin at `start` begins, its sign, its currency)."""
    last = text[start - 1 : start]
    if last == "$" and text[start - 2 : start - 1] in ("", " ", "("):
        return start - 1, "", "$"
    if (text[start - 2 : start - 1] if last == " " else last) not in _MAY_END_BEFORE:
        return start, "", ""
    found = _BEFORE.search(text, max(0, start - _MOST_BEFORE), start)
    if found is None:
        return start, "", ""
    sign, currency, inner = found.groups()
    written = (currency or "").strip()
    return found.start(), sign or inner or "", _UNITS.get(written.lower(), written)


@functools.lru_cache(maxsize=2**15)  # the answers of a group repeat each other's numbers
def _quantity(text: str, digits: str, sign: str, shift: int, unit: str) -> Quantity:
    whole, _, decimals = digits.partition(".")
    places = len(decimals)
    half = Decimal((0, (5,), shift - places - 1))
    if len(digits) > LONGEST or ("," in digits and not _GROUPED.fullmatch(whole)):
        return Quantity(text, None, half, unit, bool(sign), places)
    value = Decimal(digits.replace(",", "")).scaleb(shift)
    return Quantity(text, -value if sign and sign in _MINUSES else value, half, unit, bool(sign), places)
