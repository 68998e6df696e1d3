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
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+")
_VALUE = re.compile(
    r"(?P<sign>[+\-\u2212]?)(?P<dollar>\$?)(?P<inner>[+\-\u2212]?)"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?: ?(?P<scale>{'|'.join(reversed(_SCALES))}))?(?: ?(?P<unit>%|pp))?",
    re.IGNORECASE | re.ASCII,  # neither look-alike letters nor the digits of other scripts
)

# What prose may write besides.
_SCALES_IN_PROSE = _SCALES | {"mn": 6, "bn": 9, "tn": 12}
_UNITS = {"%": "%", "\u066a": "%", "\u2030": "\u2030", "percent": "%", "per cent": "%", "pct": "%", "pp": "pp"}
_UNITS |= {"percentage point": "pp", "percentage points": "pp", "bp": "bp", "bps": "bp", "basis point": "bp"}
_UNITS |= {"basis points": "bp", "dollar": "$", "dollars": "$", "us$": "$", "usd": "$"}
_SIGNS = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Sc")  # $, €, £, …
_CODES = "USD EUR GBP JPY CNY RMB CHF CAD AUD NZD HKD SGD INR IDR KRW TWD THB MYR PHP VND BRL MXN CLP COP".split()
_CODES += "SEK NOK DKK PLN CZK HUF TRY RUB ILS SAR AED ZAR EGP NGN KES PKR BTC ETH".split()
_UNITS |= {sign: sign for sign in _SIGNS} | {code.lower(): code for code in _CODES if code not in ("USD", "TRY")}
_DIGITS = re.compile(r"\d+(?:,\d+)*(?:\.\d+)?")
_ASCII_DIGITS = re.compile(_DIGITS.pattern, re.ASCII)  # the same, and faster
_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(rf"(?:(?:{_DAY}\.{_MONTH}|{_MONTH}\.{_DAY})\.(?:\d{{4}}|\d\d)|\d{{4}}\.{_MONTH}\.{_DAY})(?!\d|\.\d)")
_EXPONENT = re.compile(r"[eE][+-]?\d+|\s?[\u00d7x]\s?10\s?\^?[+-]?\d*(?!\w)")
# A sign comes where a word may begin: a hyphen after a word, a number or a percent sign is not one.
_SIGN = r"(?:(?<![^\s(\[{=:~<>])[+\u2212-])?"
_CURRENCY = rf"(?:[A-Z]{{0,3}}[{_SIGNS}]\s?|(?=[A-Z])(?:{'|'.join(_CODES)})[\s:(]{{0,2}}[{_SIGNS}]?)?"
_BEFORE = re.compile(rf"({_SIGN})({_CURRENCY})([+\u2212-]?)\Z")
_MOST_BEFORE = 10  # characters: a sign, a code, two spaces, a currency sign, a sign
_MAY_END_BEFORE = frozenset(f"+\u2212-(:{_SIGNS}ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = re.compile(
    r"([\s\x00-\x1f)\]}\"'~_-]{0,3})(percentage\s+points?|basis\s+points?|per\s+cent|[^\W\d_]+"
    rf"|[%\u066a\u2030]|[{_SIGNS}](?!\s?\d))",
    re.IGNORECASE,
)
_UNSEEN = {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cf", "Mn", "Me")}
_UNSEEN |= dict.fromkeys(map(ord, "\\*`"))


class Quantity(NamedTuple):
    """A number as it is written.

    value: with its sign and scale, of a percentage the percent points; None when malformed ("9,9%", "1e5"). half: half
    a unit of the last digit written. unit: "%", "$", "pp", "" for a plain number, or another unit. signed: whether it
    has a plus or a minus. places: decimals written.
    """

    text: str
    value: Decimal | None
    half: Decimal
    unit: str
    signed: bool
    places: int

    def states(self, true: Decimal) -> bool:
        """Whether this is `true` to the digits written, ends included; a number of zeros states only zero."""
        return self.value is not None and abs(self.value - true) <= self.half and bool(self.value or not true)

    def states_size(self, true: Decimal) -> bool:
        """As `states`, but without a sign a minus may be missing: "fell 1.8%"."""
        return self.states(true) or (not self.signed and self.states(-true))


def read_value(text: str) -> Quantity | None:
    """The number that `text` is: sign, `$`, digits, scale, and `%` or `pp`. None when it is anything else."""
    return _read_value(text) if len(text) < 2 * LONGEST else None


@functools.lru_cache(maxsize=2**15)  # the answers of a group repeat each other's numbers
def _read_value(text: str) -> Quantity | None:
    match = _VALUE.fullmatch(text)
    if match is None:
        return None
    sign, dollar, inner, digits, scale, unit = match.groups()
    if (sign and inner) or (dollar and unit):
        return None
    shift = _SCALES[scale.lower()] if scale else 0
    return _quantity(text, digits, sign or inner, shift, dollar or (unit or "").lower())


def quantities_in(text: str) -> Iterator[Quantity]:
    """Each number of `text` that has a unit (%, a currency, pp, a scale) or a decimal point.

    Plain whole numbers, dates and lengths ("5-day") have neither, and are skipped. Markdown, backslashes and invisible
    characters (marks on letters, zero width) are ignored.
    """
    digits_in = _ASCII_DIGITS
    if not text.isascii():
        text, digits_in = unicodedata.normalize("NFKC", text.translate(_UNSEEN)), _DIGITS  # full-width digits and signs
    elif "\\" in text or "*" in text or "`" in text:
        text = text.translate(_UNSEEN)
    beyond = 0  # digits that begin before this belong to a date
    for match in digits_in.finditer(text):
        start, end = match.span()
        if start < beyond:
            continue
        digits = match[0]
        if "." in digits and (date := _DATE.match(text, start)) and _is_bare(text, start, date.end()):
            beyond = date.end()
            continue
        if text[start - 1 : start] == "." and "." not in digits and not text[start - 2 : start - 1].isdigit():  # ".5"
            start, digits = start - 1, f".{digits}"
        if exponent := _EXPONENT.match(text, end):
            beyond = end = exponent.end()
        end, shift, unit = _after(text, end)
        start, sign, currency = _before(text, start)
        if exponent or "." in digits or shift or unit or currency:
            both = unit if unit == "%" or currency == unit else currency + unit  # "$9.97\\%$" is a percentage
            yield _quantity(text[start:end], "" if exponent else digits, sign, shift, both)


def _is_bare(text: str, start: int, end: int) -> bool:
    """Whether what could be a date has no unit, scale or currency beside it."""
    return _after(text, end) == (end, 0, "") and not _before(text, start)[2]


def _after(text: str, end: int) -> tuple[int, int, str]:
    """(where a number whose digits end at `end` ends, the power of ten of its scale, its unit)."""
    shift, unit = 0, ""
    while word := _WORD.match(text, end):
        name = word[2].lower() if word[2].isalpha() else " ".join(word[2].lower().split())
        if not shift and name in _SCALES_IN_PROSE and not (len(name) == 1 and "-" in word[1]):  # not a 10-K
            shift = _SCALES_IN_PROSE[name]
        elif not unit and name in _UNITS:
            unit = _UNITS[name]
        else:
            break
        end = word.end()
    return end, shift, unit


def _before(text: str, start: int) -> tuple[int, str, str]:
    """(where a number whose digits begin at `start` begins, its sign, its currency)."""
    last = text[start - 1 : start]
    if last == "$" and text[start - 2 : start - 1] in ("", "("):
        return start - 1, "", "$"
    if (text[start - 2 : start - 1] if last == " " else last) not in _MAY_END_BEFORE:
        return start, "", ""
    found = _BEFORE.search(text, max(0, start - _MOST_BEFORE), start)
    if found is None:
        return start, "", ""
    sign, currency, inner = found.groups()
    if inner and not currency:
        return start, "", ""  # a hyphen
    written = currency.rstrip(" :(\t\n")
    return found.start(), sign or inner, _UNITS.get(written.lower(), written)


def _quantity(text: str, digits: str, sign: str, shift: int, unit: str) -> Quantity:
    """digits: empty where the number is written in a form that no fact has."""
    if not digits or len(digits) > LONGEST:
        return Quantity(text, None, Decimal(0), unit, bool(sign), 0)
    return _exact(text, digits, sign, shift, unit)


@functools.lru_cache(maxsize=2**15)
def _exact(text: str, digits: str, sign: str, shift: int, unit: str) -> Quantity:
    whole, _, decimals = digits.partition(".")
    places = len(decimals)
    half = Decimal((0, (5,), shift - places - 1))
    if "," in digits and not _GROUPED.fullmatch(whole):
        return Quantity(text, None, half, unit, bool(sign), places)
    value = Decimal(digits.replace(",", "")).scaleb(shift)
    return Quantity(text, -value if sign in ("-", "\u2212") else value, half, unit, bool(sign), places)
