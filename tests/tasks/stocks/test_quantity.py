"""Numbers as people write them."""

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.quantity import quantities_in, read_value


@pytest.mark.parametrize(
    "text, value, unit",
    [
        ("-1.77%", "-1.77", "%"),
        ("+0.5 %", "0.5", "%"),
        ("\u22121.77%", "-1.77", "%"),
        ("$79.02", "79.02", "$"),
        ("-$5", "-5", "$"),
        ("$-5", "-5", "$"),
        ("$1,234.50", "1234.5", "$"),
        ("$1.2B", "1.2e9", "$"),
        ("1.2 billion", "1.2e9", ""),
        ("53.20M", "53.2e6", ""),
        ("5k", "5e3", ""),
        ("-0.43pp", "-0.43", "pp"),
        (".5", "0.5", ""),
    ],
)
def test_a_value_is_a_sign_a_number_a_scale_and_a_unit(text, value, unit):
    read = read_value(text)
    assert (read.value, read.unit) == (Decimal(value), unit)


@pytest.mark.parametrize(
    "text", ["", "about 5%", "5% up", "1,23", "1,2345", "+-5", "-$-5", "$5%", "five", "1e5", "5.", "5 5", "\uff15%"]
)
def test_anything_else_is_no_value(text):
    assert read_value(text) is None


@pytest.mark.parametrize(
    "written, true, states",
    [
        ("1.8%", "1.77", True),
        ("2%", "1.77", True),
        ("1.7%", "1.77", False),
        ("2.4%", "2.45", True),  # both ends of half a unit
        ("2.5%", "2.45", True),
        ("2.50%", "2.45", False),
        ("0%", "0.4", False),  # zeros state zero only
        ("0.00%", "0", True),
        ("-0%", "0", True),
        ("1.77%", "-1.77", False),
        ("$1.2B", "1234567890", True),
        ("$1.23B", "1234567890", True),
        ("$1.24B", "1234567890", False),
        ("$1,235M", "1234567890", True),
    ],
)
def test_a_number_states_what_it_rounds_to(written, true, states):
    assert read_value(written).states(Decimal(true)) == states


@given(st.decimals(-(10**6), 10**6, places=4), st.integers(0, 4))
def test_a_number_states_whatever_rounds_to_it_and_nothing_a_unit_away(true, places):
    rounded = round(true, places)
    written = read_value(f"{rounded:f}")
    assert written.states(true) == bool(rounded or not true)
    assert not written.states(true + Decimal(11).scaleb(-places - 1))


@pytest.mark.parametrize(
    "text, found",
    [
        ("The close of $42.49 is 2.1% above it.", ["$42.49", "2.1%"]),
        (
            "It rose 8 % to US$99.99, A$5 or EUR 5, 5 \u20ac, 5 USD.",
            ["8 %", "US$99.99", "A$5", "EUR 5", "5 \u20ac", "5 USD"],
        ),
        ("$20 billion, 1.2bn, 20k, 3 T", ["$20 billion", "1.2bn", "20k", "3 T"]),
        ("99 percent, 9 per cent, 3 pct, 2pp, 50 bps", ["99 percent", "9 per cent", "3 pct", "2pp", "50 bps"]),
        ("99.99 and .5 and ...8%", ["99.99", ".5", ".8%"]),
        ("(+2.33%), -$5, $-5, \u22121%", ["+2.33%", "-$5", "$-5", "\u22121%"]),
        ("8-10% or 10\u201312%", ["10%", "12%"]),
        ("rose8%", ["8%"]),
        ("\uff19\uff19\uff05 or \u0669\u0669%", ["99%", "\u0669\u0669%"]),
        ("9,9% and 1e3% and 3.75e9 and 8.8\u00d710^3", ["9,9%", "1e3%", "3.75e9", "8.8\u00d710^3"]),
        ("3.75,88.88, [3.75,77.77] and 3.75.88%", ["3.75", "88.88", "3.75", "77.77", "3.75", "88%"]),
        ("88.77.66 and 12.34.56 dollars and 01.02.88 percent", ["88.77", "12.34", "56 dollars", "01.02", "88 percent"]),
        ("88\u200b%, 88\u00ad%, 8\u03018%, **88**%, `88`%, (88)%, 88\\%", ["88%"] * 5 + ["88)%", "88%"]),
        ("an 88-percent gain of 88-million, not a 10-K", ["88-percent", "88-million"]),
        ("AUD $3.75, $3.75 AUD, USD: 88, 3.75$ million", ["AUD $3.75", "$3.75 AUD", "USD: 88", "3.75$ million"]),
        ("the average\u20133.56\u2013is, close-3.56, 9.97%-9.65%", ["3.56", "3.56", "9.97%", "9.65%"]),
        ("$9.97\\%$ and $-1.83\\%$", ["$9.97%", "$-1.83%"]),
        ("5 days, a 20-day average, SMA20, Q3, the S&P 500, in 2019, two of 5", []),
        ("on 2019-03-04, 04.03.2019, 3/4/2019 or 2019.03.04", []),
    ],
)
def test_numbers_of_prose_are_those_with_a_unit_or_a_decimal_point(text, found):
    assert [number.text for number in quantities_in(text)] == found


def test_a_number_of_prose_that_is_none_states_nothing():
    for text in ("9,9%", "1e3%", "9" * 30 + "%"):
        (number,) = quantities_in(text)
        assert number.value is None and not any(map(number.states, map(Decimal, ("99", "9.9", "1000", "0"))))


@given(st.text(alphabet="0123456789.,%$+-\u2212 kMbpUSDeE\u20ac\uff05dayper cent", max_size=80))
def test_any_text_gives_finite_numbers_that_stand_in_it(text):
    for number in quantities_in(text):
        assert number.value is None or (number.value.is_finite() and number.half > 0)


def test_numbers_are_found_whatever_stands_around_them():
    rng = random.Random(0)
    for _ in range(300):
        numbers = [f"{rng.choice(['', '-', '+'])}{rng.uniform(0, 99):.2f}%" for _ in range(4)]
        words = ["rose", "by", "(", ");", "over", "5", "days,", "\u2026", "/", "=", "\u2014"]
        text = " ".join(word for number in numbers for word in (rng.choice(words), number))
        assert [number.text for number in quantities_in(text)] == numbers
