import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.stocks.answer import parse
from stonk_trainer.tasks.stocks.facts import (
    Fact,
    big_number,
    change,
    facts_from_json,
    facts_to_json,
    financial_facts,
    history_facts,
    indicator_facts,
    labels,
    usd,
)
from stonk_trainer.tasks.stocks.prompt import FORM, render
from stonk_trainer.tasks.stocks.row import check_facts

SCALE = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
PRICES = st.floats(0.01, 1e6)
AMOUNTS = st.floats(-1e15, 1e15)


def number_shown(fact):
    """The number as a reader of the prompt understands it."""
    match = re.fullmatch(r"([+-]?)\$?([+-]?)(\d+(?:\.\d+)?)([KMBT]?)%?", fact.shown)
    assert match, fact.shown
    sign = -1 if "-" in match[1] + match[2] else 1
    return sign * float(match[3]) * SCALE[match[4]]


def assert_shown_is_value(fact):
    assert number_shown(fact) == pytest.approx(fact.value, rel=1e-12, abs=1e-12), fact


@given(PRICES)
def test_a_price_is_worth_what_it_shows(value):
    fact = usd("close", value)
    assert_shown_is_value(fact)
    assert fact.shown.startswith("$") and fact.value == pytest.approx(value, abs=0.005000001)


@given(PRICES, PRICES)
def test_a_change_is_worth_what_it_shows(now, before):
    fact = change("change_1d", now, before)
    assert_shown_is_value(fact)
    assert fact.shown[0] in "+-" and fact.shown != "-0.00%"


@given(AMOUNTS, st.sampled_from(["usd", "count"]))
def test_a_large_amount_is_worth_what_it_shows(value, unit):
    fact = big_number("volume", value, unit)
    assert_shown_is_value(fact)
    assert ("$" in fact.shown) is (unit == "usd")
    assert fact.value == pytest.approx(value, rel=0.0051, abs=0.0051)


@given(st.sampled_from(["Revenues", "Gross Margin", "EffectiveTaxRate", "EPS", "Shares Outstanding"]), AMOUNTS)
def test_a_reported_figure_is_worth_what_it_shows(name, value):
    (fact,) = financial_facts({name: value}, 12)
    assert_shown_is_value(fact)


def test_reported_figures_have_the_units_of_their_names():
    items = {
        "Revenues": "394328000000",
        "NetIncomeLoss": -99_803_000_000,
        "Current Ratio": 1.0734,
        "Diluted EPS": 6.11,
        "WeightedAverageNumberOfSharesOutstandingBasic": 15_908_118_000,
        "Auditor": "someone",
        "Restated": None,
        "Infinite": math.inf,
    }
    facts = {fact.name.removeprefix("financials/"): (fact.unit, fact.shown) for fact in financial_facts(items, 12)}
    assert facts == {
        "Revenues": ("usd", "$394.33B"),
        "NetIncomeLoss": ("usd", "-$99.80B"),
        "Current Ratio": ("ratio", "1.0734"),
        "Diluted EPS": ("usd", "$6.11"),
        "WeightedAverageNumberOfSharesOutstandingBasic": ("count", "15.91B"),
    }


def days(count):
    """Weekdays, oldest first."""
    return list(np.busday_offset("2020-01-01", np.arange(count), roll="forward"))


def indicators(names, closes, dates=None, volume=math.nan):
    return {fact.name: fact.value for fact in indicator_facts(names, dates or days(len(closes)), closes, volume)}


def test_indicators_are_what_their_names_say():
    closes = [100.0, 110.0, 99.0, 103.0, 101.0, 106.0]
    facts = indicators(
        ["change_1d", "change_5d", "sma_2", "sma_5", "volatility_5d", "volume"], closes, volume=1_234_567
    )
    returns = [b / a - 1 for a, b in zip(closes, closes[1:], strict=False)]
    mean = sum(returns) / 5
    assert facts == {
        "change_1d": 4.95,
        "change_5d": 6.0,
        "sma_2": 103.5,
        "sma_5": 103.8,
        "volatility_5d": round(100 * math.sqrt(sum((r - mean) ** 2 for r in returns) / 4), 2),
        "volume": 1_230_000,
    }


def test_indicators_without_enough_history_are_left_out():
    closes = [100.0, 101.0, 102.0, 103.0, 104.0]
    assert list(indicators(["change_4d", "change_5d", "sma_5", "sma_6", "volume"], closes)) == ["change_4d", "sma_5"]
    assert indicators(["change_1d", "sma_2"], [100.0]) == {}


def test_indicators_that_span_a_hole_are_left_out():
    dates = days(10)
    dates = [d - np.timedelta64(60, "D") for d in dates[:5]] + dates[5:]
    assert list(indicators(["change_4d", "change_6d", "sma_5", "sma_7"], [100.0] * 10, dates)) == ["change_4d", "sma_5"]


@given(st.lists(PRICES, min_size=30, max_size=40))
def test_every_indicator_is_worth_what_it_shows(closes):
    names = ["change_1d", "change_20d", "sma_5", "sma_20", "volatility_20d"]
    facts = indicator_facts(names, days(len(closes)), closes, math.nan)
    assert [fact.name for fact in facts] == names
    for fact in facts:
        assert_shown_is_value(fact)


def test_history_is_the_closes_before_the_row_oldest_first():
    facts = history_facts([1.0, 2.0, 3.0, 4.0], 2)
    assert [(fact.name, fact.shown) for fact in facts] == [("close_2d_ago", "$2.00"), ("close_1d_ago", "$3.00")]
    assert history_facts([1.0, 2.0], 0) == [] == history_facts([1.0], 15)
    assert len(history_facts([1.0, 2.0, 3.0], 15)) == 2


def test_facts_survive_json():
    facts = (
        usd("close", 12.5),
        big_number("volume", 1e9, "count"),
        Fact("headline_1", "„Größe“ 5%", "text", "„Größe“ 5%"),
    )
    assert facts_from_json(facts_to_json(facts)) == facts
    assert json.loads(facts_to_json(facts))[0] == {"name": "close", "value": 12.5, "unit": "usd", "shown": "$12.50"}


FACTS = [
    Fact("company", "Apple", "text", "Apple"),
    Fact("ticker", "AAPL", "text", "AAPL"),
    Fact("date", "2020-01-02", "date", "2020-01-02"),
    Fact("close_2d_ago", 9.0, "usd", "$9.00"),
    Fact("close_1d_ago", 11.0, "usd", "$11.00"),
    Fact("close", 10.0, "usd", "$10.00"),
    Fact("change_5d", -3.9, "percent", "-3.90%"),
    Fact("sma_20", 9.5, "usd", "$9.50"),
    Fact("volume", 1e6, "count", "1.00M"),
    Fact("financials/Revenues", 1e9, "usd", "$1.00B"),
    Fact("headline_1", "Shares rise", "text", "Shares rise"),
]


def test_a_prompt_is_its_facts_and_the_question():
    system, user = render(FACTS, "2019")
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].startswith(
        "Company: Apple (AAPL)\nDate: 2020-01-02\nEarlier closes: 2 days ago $9.00, 1 day ago $11.00\nClose: $10.00\n"
        "5-day change: -3.90%\n20-day average: $9.50\nVolume: 1.00M\nFinancials of 2019:\nRevenues: $1.00B\n"
        "Headline 1: Shares rise\n\n"
    )
    assert user["content"].endswith(FORM)


@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact.name != "close"], ids=lambda fact: fact.name)
def test_every_fact_but_the_close_can_be_left_out(fact):
    assert fact.shown in render(FACTS)[1]["content"]
    assert fact.shown not in render([other for other in FACTS if other is not fact])[1]["content"]


def test_a_model_that_echoes_the_form_gives_no_answer():
    assert parse(FORM).direction is None


def test_the_value_of_a_fact_is_what_is_shown():
    """Rounding twice would differ where half a cent is at stake: 33.135 is 33.13 in one way and 33.14 in the other."""
    for price in np.arange(1.005, 60, 0.01):
        fact = usd("close", price)
        assert f"${fact.value:.2f}" == fact.shown
        moved = change("change_1d", price, 31.7)
        assert f"{moved.value:+.2f}%" == moved.shown.replace("-0.00", "+0.00")


def test_every_citable_fact_is_printed_with_a_label_of_its_own():
    assert labels(FACTS) == {
        "close_2d_ago": "Close 2 days ago",
        "close_1d_ago": "Close 1 day ago",
        "close": "Close",
        "change_5d": "5-day change",
        "sma_20": "20-day average",
        "volume": "Volume",
        "financials/Revenues": "Revenues",
        "headline_1": "Headline 1",
    }


def test_labels_are_unique_letter_case_aside():
    items = ("close", "Headline 1", "EPS", "eps", "Date", "5-DAY  change", "a | b", "a / b", "Close (financials)")
    facts = [*(Fact(f"financials/{item}", 1.0, "ratio", "1") for item in items), *FACTS]
    found = labels(facts)
    assert len({label.lower() for label in found.values()}) == len(found) == len(items) + 8
    assert found["close"] == "Close" and found["headline_1"] == "Headline 1"
    assert found["financials/close"] == "close (financials)"
    assert found["financials/Close (financials)"] == "Close (financials) (financials)"
    assert found["financials/a | b"] == "a / b" and found["financials/a / b"] == "a / b (financials)"
    content = render(facts)[1]["content"]
    assert all(f"\n{label}: " in content for name, label in found.items() if not name.endswith("_ago"))


def test_a_bar_is_printed_as_a_slash_since_bars_separate_the_parts_of_a_line():
    facts = [*FACTS[:-1], Fact("headline_1", "Up | Down", "text", "Up | Down")]
    content = render(facts)[1]["content"]
    assert "Headline 1: Up / Down" in content and "|" not in content.partition("Will the next")[0]


def test_the_prompt_asks_to_quote_headlines_only_where_it_shows_some():
    assert "headline" in render(FACTS)[1]["content"].partition("Will the next")[2]
    assert "headline" not in render(FACTS[:-1])[1]["content"]


def test_facts_of_a_file_have_names_of_their_own():
    entry = {"name": "close", "value": 1.0, "unit": "usd", "shown": "$1.00"}
    with pytest.raises(UserError, match="row 1: fact 2: duplicate name: close"):
        check_facts([entry, entry], "row 1")
