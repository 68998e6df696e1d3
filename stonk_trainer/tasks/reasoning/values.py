"""Numbers as they are written in answers, read exactly, with their units.

7    1,234    1 000    -0.5    3/4    \\frac{3}{4}    2 1/2    2\\frac{1}{2}    1.2e5    3 \\times 10^{4}    2^{-98}
1011_2    52_{8}    6 million    $18    5\\%    5\\text{ cm}
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize

_MULTIPLIERS = {
    **{"dozen": 12, "hundred": 100, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7},
    **{"billion": 10**9, "bn": 10**9, "trillion": 10**12, "quadrillion": 10**15},
}
_SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MULTIPLIED = re.compile(rf"\s*({'|'.join(_MULTIPLIERS)})s?(?![A-Za-z])|([kKmMBT])(?![A-Za-z])", re.I)

# What changes the number before it, so that it is neither a unit nor a noun: number words, constants and functions
# anywhere, operators right behind the number.
_NUMBER_WORD = re.compile(
    r"(?:zero|one|two|three|four|fif|five|six|seven|eigh|eight|nin|nine|ten|eleven|twelve|twelf|\w+teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)t(?:y|ie)|hundred|thousand|lakh|crore|[a-z]{0,6}illion)(?:s|es|ths?)?"
    r"|half|halves|thirds?|quarters?|dozens?|score|gross|mil|mln|mn|th|st|nd|rd",
    re.I,
)
_CONSTANTS = set("e i x y z pi phi tau infinity log ln exp sin cos tan sec cot csc sqrt root".split())
_OPERATORS = set(
    "plus minus times over divided multiplied squared cubed doubled tripled halved twice fold factorial mod modulo "
    "raised to by choose than equals or and is are was were".split()
)
_COMPARES = re.compile(r"\s*(?:less|more|fewer|greater|smaller|larger)(?:\s+than\b.*)?")
_ALTERNATIVE = re.compile(r"\bor\b|\band/or\b|\band\s+(?:an?|some)\b", re.I)
# Where the clause with the number ends, and what must not follow there.
_END = re.compile(
    r"\s+(?:because|since|as|so|which|where|given)\b|(?P<contrast>,?\s+(?:(?:and|but)\s+not|not|rather\s+than|instead\s+of)\b)"
    r"|\s*[;:(—–]|,\s+(?!or\b|and\b|\d)|\s-\s"
)
_GOES_ON = re.compile(r"\s*(?:or|and|plus|minus|times|mod|base)\b|(?<![(])\s*[-+]?\s*\\?[$€£]?\s*\d")

_UNITS = set(
    "mm cm dm m km in inch inches ft foot feet yd yard yards mile miles mi mg g kg t ton tons tonne tonnes lb lbs "
    "pound pounds oz ounce ounces ms s sec secs min mins minute minutes h hr hrs hour hours day days week weeks month "
    "months year years old ml mL l L gallon gallons quart quarts pint pints cup cups degree degrees deg rad radian "
    "radians celsius fahrenheit kelvin K dollar dollars cent cents euro euros usd eur percent percentage points point "
    "unit units square sq cubic mph kph kmh km/h m/s cm/s rpm mol per N J W V A Pa Hz kW kWh".split()
)
_METRIC = re.compile(
    r"(?:kilo|centi|milli|deci|micro|nano|mega|giga)?(?:met(?:er|re)|gram|lit(?:er|re)|second|watt|joule|newton|volt|mole)s?"
)
_DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|°|\\circ|\\degree)(?:\s*[CFK]\b)?")
_EXPONENT = re.compile(r"(?<=[A-Za-z])\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d)")
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d{0,2}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = re.compile(rf"({_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE]([-+]?\d{{1,5}})(?![\d.]))?")
_REPEATING = re.compile(r"(\d*)\.(\d{0,9})\\(?:overline|bar)\s*\{(\d{1,9})\}")
_TIMES_TEN = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,5})\s*\}|([-+]?\d{1,5}))")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|(\d))\s*(?:\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|(\d))"
)
_ADJECTIVES = {"binary": 2, "ternary": 3, "octal": 8, "decimal": 10, "hexadecimal": 16}
_NAMED_BASES = _ADJECTIVES | dict(
    zip("two three four five six seven eight nine ten eleven twelve".split(), range(2, 13), strict=True)
)
_NAME = rf"(\d{{1,2}}|{'|'.join(_NAMED_BASES)})"
_BASE = re.compile(
    rf"\(?(\d{{1,3}}(?:,\d{{3}})+|[\da-fA-F]*\d[\da-fA-F]*|[A-F]+|[a-f]{{2,}})\)?"
    rf"(?:\s*_\s*[{{(\s]*{_NAME}[\s)}}]*|\s*,?\s*\(?\s*(?:in\s+)?base[\s-]+{_NAME}\b\s*\)?|\s+in\s+({'|'.join(_ADJECTIVES)})\b)"
)
_POWER = re.compile(r"\s*\^\s*(?:\{\s*([-+]?\d{1,5})\s*\}|([-+]?\d{1,5}))")
_SIGN = re.compile(r"([-+]?)\s*(?:(?:US|CA|AU)?\\?[$€£¥₹]|USD\b|EUR\b|GBP\b)\s*|([-+])\s*")

_WRAPPER = r"\\(?:text(?:rm|bf|it|sf)?|math(?:rm|bf|it|sf)|[mh]box|operatorname|emph|underline|bf|rm)\s*"
TEXT = re.compile(_WRAPPER + r"\{([^{}]*)\}")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")


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
    text = re.sub("[⁰¹²³⁴-⁹⁻⁺ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda one: "\\frac{{{}}}{{{}}}".format(*normalize("NFKC", one[0]).split("⁄")), text)
    text = re.sub(r"(?<=\d)\\,(?=\d)", ",", text.replace("\\!", ""))
    text = re.sub(
        r"\\[,;: ]|\\q?quad\b|\\hspace\s*\{[^{}]*\}|\\(?:left|right|displaystyle|[Ll]arge|small)(?![A-Za-z])|\\$",
        " ",
        text,
    )
    text = re.sub(_WRAPPER + r"\{\s*([ie])\s*\}", r" \1", text)
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$(?!\s*\d[\d,.]*\s*(?:$|[A-Za-z]))", " ", text)
    while match := re.fullmatch(rf"\s*{_WRAPPER}\{{([^{{}}]*)\}}\s*\.?\s*", text):
        text = match[1]
    return re.sub(r"^\s*(?:\\approx(?![A-Za-z])|≈|=)", "", text).strip()


def without_stop(text: str) -> str:
    """The text without the full stop of its sentence; dots that leave something out stay."""
    return re.sub(r"(?<!\.)\.\s*$", "", text).strip()


@lru_cache(maxsize=65_536)
def read(text: str, in_prose: bool = False) -> Value | None:
    """The number that a text is, with its unit; None where it is not one number. in_prose: any noun may follow."""
    text = without_stop(TEXT.sub(r" \1 ", plain_latex(text)))
    sign, currency = 1, False
    while match := _SIGN.match(text):
        sign *= -1 if "-" in (match[1], match[2]) else 1
        currency |= match[2] is None
        text = text[match.end() :]
        if match[2] and re.match(r"[-+]", text):
            return None
    found = _unsigned(text)
    if found is None:
        return None
    value, rest = found
    while match := _MULTIPLIED.match(rest):
        suffix = match[2] or ""
        factor = _MULTIPLIERS[match[1].lower()] if match[1] else _SUFFIXES.get(suffix.upper() if currency else suffix)
        if factor is None:
            break
        value, rest = Value(value.number * factor), rest[match.end() :]
    if not (is_noun(rest) if in_prose else _is_unit(rest)):
        return None
    return value._replace(number=sign * value.number)


def _unsigned(text: str) -> tuple[Value, str] | None:
    """(the number that a text begins with, what follows it)."""
    if match := _BASE.match(text):
        name = next(group for group in match.groups()[1:] if group)
        base = _NAMED_BASES.get(name) or int(name)
        try:
            return Value(Fraction(int(match[1].replace(",", ""), base))), text[match.end() :]
        except ValueError:
            return None
    if match := _REPEATING.match(text):
        whole, start, again = match.groups()
        ninths = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(start))
        return Value(Fraction(f"{whole or 0}.{start or 0}") + ninths), text[match.end() :]
    if match := _FRACTION.match(text):
        return _quotient(match[1] or match[2] or "", match[3] or match[4] or "", text[match.end() :])
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
    if (
        value.number.denominator == 1
        and value.digits is None
        and (mixed := re.match(r"\s*(?=\\[dtc]?frac)|\s+(?:and\s+)?(?=\d+\s*/\s*\d)", rest))
    ):
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


def _is_unit(rest: str) -> bool:
    """Whether what follows a number is known units or nothing."""
    words = _tail(rest).split()
    return all(_known(part) for word in words for part in (word.strip("()."),))


def is_noun(rest: str) -> bool:
    """Whether what follows a number in a sentence leaves it as it is: nouns, units, and what ends the clause."""
    rest = _tail(rest)
    if end := _END.search(rest):
        if not end["contrast"] and _GOES_ON.match(rest, end.end()):
            return False
        rest = rest[: end.start()]
    words = rest.split()
    if len(words) > 8 or _COMPARES.fullmatch(rest) or _ALTERNATIVE.search(rest):
        return False
    if words and (words[0].lower() in _OPERATORS or (rest[0] != " " or words[0] == "a") and not _known(words[0])):
        return False
    return all(
        _known(word)
        or word == "a"
        or re.fullmatch(r"[A-Za-z][A-Za-z'’./-]+", word)
        and not (word.lower() in _CONSTANTS or _NUMBER_WORD.fullmatch(word))
        for word in words
    )


def _tail(rest: str) -> str:
    """What follows a number, without the signs of units and the exponents of words; a space where one parted them."""
    parted = rest[:1].isspace() or not rest[:1].isalnum()
    rest = re.sub(r"%|\\?[$€£]", " ", _EXPONENT.sub(" ", _DEGREES.sub(" ", rest)))
    return " " * parted + without_stop(rest)


def _known(word: str) -> bool:
    return word in _UNITS or word.lower() in _UNITS or _METRIC.fullmatch(word.lower()) is not None


def without_unit(text: str) -> str:
    """The text without a known unit at its end."""
    found = re.search(
        rf"(?:\s+|(?<=[\d}})]))(?:{_WRAPPER}\{{\s*([A-Za-z/ ]+?)\s*\}}|([A-Za-z]{{2,}}))(?:\^\{{?[23]\}}?)?$", text
    )
    if found and all(_known(word) for word in (found[1] or found[2]).split()):
        return text[: found.start()].strip()
    return re.sub(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|°)$", "", text)


def mathematics(text: str) -> str:
    """Of a statement in a sentence that is not one number, the expression; the text where more than nouns follow it."""
    found = re.fullmatch(r"(?:\$\$?([^$]+)\$\$?|\\\((.+?)\\\))(.*)", text, re.S)
    if found and is_noun(" " + found[3]):
        return found[1] or found[2]
    because = re.search(r",?\s+(?:because|since|which)\b", text)
    return text[: because.start()] if because else text
