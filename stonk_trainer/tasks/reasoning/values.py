"""Numbers as they are written in answers, read exactly, with their units.

7    1,234    1 000    -0.5    3/4    \\frac{3}{4}    2 1/2    2\\frac{1}{2}    1.2e5    3 \\times 10^{4}    2^{-98}
1011_2    52_{8}    6 million    $18    5\\%    5\\text{ cm}
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

_MULTIPLIERS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "bn": 10**9, "T": 10**12}
_MULTIPLIED = re.compile(rf"\s*({'|'.join(_MULTIPLIERS)})s?(?![A-Za-z])|({'|'.join(_SUFFIXES)})(?![A-Za-z])", re.I)
# What changes the number before it, so that it is neither a unit nor a noun.
_NOT_A_NOUN = set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety half halves third thirds quarter quarters "
    "fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth "
    "hundredths thousandth thousandths hundred thousand million billion trillion dozen pair score "
    "plus minus times over divided multiplied squared cubed factorial mod modulo sqrt root raised to power less more "
    "fewer than equals choose or and by of x y z e i pi phi tau infinity log ln sin cos tan".split()
)
_UNITS = set(
    "mm cm dm m km in inch inches ft foot feet yd yard yards mile miles mi mg g kg t ton tons tonne tonnes lb lbs "
    "pound pounds oz ounce ounces ms s sec secs second seconds min mins minute minutes h hr hrs hour hours day days "
    "week weeks month months year years ml mL l L liter liters litre litres gallon gallons quart quarts pint pints "
    "cup cups degree degrees deg rad radian radians dollar dollars cent cents euro euros usd eur percent percentage "
    "points point unit units square sq cubic mph kph kmh km/h m/s cm/s per N J W V A Pa Hz kW kWh".split()
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = re.compile(rf"({_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE]([-+]?\d{{1,5}})(?![\d.]))?")
_TIMES_TEN = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,5})\s*\}|([-+]?\d{1,5}))")
_FRACTION = re.compile(
    r"\\[dt]?frac\s*(?:\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|(\d))\s*(?:\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|(\d))"
)
_BASE = re.compile(r"([\dA-Fa-f]+)\s*_\s*(?:\{\s*(?:\\text\{)?\s*(\d{1,2})\s*\}?\s*\}|(\d{1,2}))")
_POWER = re.compile(r"\s*\^\s*(?:\{\s*([-+]?\d{1,5})\s*\}|([-+]?\d{1,5}))")

_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}")


class Value(NamedTuple):
    """A number, exactly. digits: significant digits of a plain decimal that is written with a point, else None."""

    number: Fraction
    digits: int | None = None
    last: Fraction = Fraction(0)  # what the last digit of such a decimal stands for

    def equals(self, other: Value) -> bool:
        """By value; a decimal of six significant digits and more also equals a fraction that it rounds to."""
        if self.number == other.number:
            return True
        for one, exact in ((self, other), (other, self)):
            rounds = one.digits is not None and one.digits >= 6 and (exact.digits is None or exact.digits > one.digits)
            if rounds and 2 * abs(one.number - exact.number) <= one.last:
                return True
        return False


def plain_latex(text: str) -> str:
    """The text without what LaTeX needs for looks: spaces, sizes, wrappers of one text."""
    text = text.replace("−", "-").replace("–", "-").replace("\\%", "%").replace("~", " ").replace("{,}", ",")
    text = re.sub(r"(?<=\d)\\,(?=\d)", ",", text)
    text = re.sub(r"\\[!,;: ]|\\q?quad\b|\\(?:left|right|displaystyle)(?![A-Za-z])", " ", text)
    text = re.sub(r"\\(?:mathrm|operatorname|mathit|text)\s*\{\s*([ie])\s*\}", r" \1", text)
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$(?!\s*\d[\d,.]*\s*(?:$|[A-Za-z]))", " ", text)
    while match := re.fullmatch(r"\s*\\(?:text|textbf|mathrm|mathbf|mathit)\s*\{([^{}]*)\}\s*\.?\s*", text):
        text = match[1]
    return text.strip()


@lru_cache(maxsize=65_536)
def read(text: str, in_prose: bool = False) -> Value | None:
    """The number that a text is, with its unit; None where it is not one number. in_prose: any noun may follow."""
    text = _TEXT.sub(r" \1 ", plain_latex(text)).rstrip(". ").strip()
    sign = 1
    while match := re.match(r"([-+]?)\s*\\?[$€£¥]\s*|([-+])\s*", text):
        sign *= -1 if "-" in (match[1], match[2]) else 1
        text = text[match.end() :]
        if match[2] and re.match(r"[-+]", text):
            return None
    found = _unsigned(text)
    if found is None:
        return None
    value, rest = found
    while match := _MULTIPLIED.match(rest):
        word = match[1].lower() if match[1] else match[2]
        factor = _MULTIPLIERS[word] if match[1] else _SUFFIXES.get(word)
        if factor is None:
            break
        value, rest = Value(value.number * factor), rest[match.end() :]
    if not _is_unit(rest, in_prose):
        return None
    return value._replace(number=sign * value.number)


def _unsigned(text: str) -> tuple[Value, str] | None:
    """(the number that a text begins with, what follows it)."""
    if match := _BASE.match(text):
        base = int(match[2] or match[3])
        try:
            return Value(Fraction(int(match[1], base) if 2 <= base <= 36 else int(""))), text[match.end() :]
        except ValueError:
            return None
    if match := _FRACTION.match(text):
        return _quotient(*(match[1] or match[2], match[3] or match[4]), text[match.end() :])
    match = _DECIMAL.match(text)
    if not match:
        return None
    value, rest = _decimal(match[1], match[2]), text[match.end() :]
    if times := _TIMES_TEN.match(rest):
        value, rest = Value(value.number * Fraction(10) ** int(times[1] or times[2])), rest[times.end() :]
    elif power := _POWER.match(rest):
        exponent = int(power[1] or power[2])
        if not value.number and exponent < 0 or abs(exponent) > 20_000 or value.number > 10**6:
            return None
        value, rest = Value(value.number**exponent), rest[power.end() :]
    whole = value.number.denominator == 1 and value.digits is None
    if whole and (mixed := re.match(r"\s*(?=\\[dt]?frac)|\s+(?=\d+\s*/\s*\d)", rest)):
        part = _unsigned(rest[mixed.end() :])
        if part is None or not 0 < part[0].number < 1:
            return None
        return Value(value.number + part[0].number), part[1]
    if over := re.match(r"\s*/\s*(\d+(?:\.\d+)?)", rest):
        return _divided(value, _decimal(over[1], None), rest[over.end() :])
    return value, rest


def _decimal(digits: str, exponent: str | None) -> Value:
    digits = digits.replace(",", "").replace(" ", "")
    scale = Fraction(10) ** int(exponent or 0)
    places = len(digits.partition(".")[2])
    significant = len(digits.replace(".", "").lstrip("0")) if places else None
    return Value(Fraction(digits) * scale, significant, Fraction(1, 10**places) * scale)


def _quotient(above: str, below: str, rest: str) -> tuple[Value, str] | None:
    one, other = read(above), read(below)
    return None if one is None or other is None else _divided(one, other, rest)


def _divided(one: Value, other: Value, rest: str) -> tuple[Value, str] | None:
    return (Value(one.number / other.number), rest) if other.number else None


def _is_unit(rest: str, in_prose: bool) -> bool:
    """Whether what follows a number is a unit or nothing; in prose also a noun, and what ends its clause."""
    if in_prose:
        rest = rest if not (end := _first_end(rest)) else rest[: end[0]]
    rest = re.sub(r"\^\s*\{?\s*(?:\\circ|[23])\s*\}?|[°%²³$€£]|\\circ|\\degree", " ", rest).strip().rstrip(".")
    words = rest.split()
    if any(word.lower() in _NOT_A_NOUN and word not in _UNITS for word in words):
        return False
    if in_prose:
        return (
            len(words) <= 8
            and all(re.fullmatch(r"[A-Za-z][A-Za-z'./²³-]+|[A-Za-z]", word) for word in words)
            and all(len(word) > 1 or word in _UNITS for word in words[:1])
        )
    return all(part in _UNITS or part.lower() in _UNITS for word in words for part in (word.strip("()."),))


def _first_end(rest: str) -> tuple[int, int] | None:
    found = re.search(
        r"\s+(?:because|since|as|so|which|if|when|after|for|where)\b|\s*[;:(!?—–]|,\s+(?!or\b|and\b|\d)|\s-\s", rest
    )
    return found.span() if found else None


def without_unit(text: str) -> str:
    """The text without a known unit at its end."""
    found = re.search(
        r"(?:\s+|(?<=[\d})]))(?:\\(?:text|mathrm)\s*\{\s*([A-Za-z/ ]+?)\s*\}|([A-Za-z]{2,}))(?:\^\{?[23]\}?)?$", text
    )
    if found and all(word in _UNITS for word in (found[1] or found[2]).split()):
        return text[: found.start()].strip()
    return re.sub(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|°)$", "", text)
