import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.book import book_of
from stonk_trainer.tasks.stocks.claims import claims_of
from stonk_trainer.tasks.stocks.facts import Fact
from stonk_trainer.tasks.stocks.words import read

FACTS = (
    Fact("company", "Apple Inc.", "text", "Apple Inc."),
    Fact("close_5d_ago", 168.61, "usd", "$168.61"),
    Fact("close_2d_ago", 172.4, "usd", "$172.40"),
    Fact("close_1d_ago", 171.58, "usd", "$171.58"),
    Fact("open", 174.0, "usd", "$174.00"),
    Fact("close", 175.53, "usd", "$175.53"),
    Fact("change_1d", 2.3, "percent", "+2.30%"),
    Fact("change_5d", 4.1, "percent", "+4.10%"),
    Fact("change_10d", -1.2, "percent", "-1.20%"),
    Fact("change_20d", -5.4, "percent", "-5.40%"),
    Fact("sma_5", 170.4, "usd", "$170.40"),
    Fact("sma_20", 171.8, "usd", "$171.80"),
    Fact("volatility_20d", 1.53, "percent", "1.53%"),
    Fact("volume", 53.2e6, "count", "53.20M"),
    Fact("financials/Total Revenue", 394.33e9, "usd", "$394.33B"),
    Fact("financials/NetIncomeLoss", 99.8e9, "usd", "$99.80B"),
    Fact("financials/Diluted EPS", 6.11, "usd", "$6.11"),
    Fact(
        "headline_1",
        "Apple beats estimates by 5% on iPhone sales",
        "text",
        "Apple beats estimates by 5% on iPhone sales",
    ),
)


def find_claims(text, facts):
    book = book_of(facts)
    return claims_of(text, read(text, book.phrases), book)


def grounded(text):
    return [claim.fact for claim in find_claims(text, FACTS) if claim.counts]


@pytest.mark.parametrize(
    "text, facts",
    [
        ("The share closed at $175.53 on this day.", ["close"]),
        ("The share closed at $175.5 on this day.", ["close"]),
        ("The share closed at 176 dollars today.", ["close"]),
        ("It opened at $174.00 and closed at $175.53.", ["open", "close"]),
        ("Two days ago it closed at $172.40, and yesterday at $171.58.", ["close_2d_ago", "close_1d_ago"]),
        ("Its 20-day average of $171.80 lies below the close.", ["sma_20"]),
        ("The close is $3.73 above its 20-day average.", ["close vs sma_20"]),
        ("The close is 2.2% above its 20-day average of $171.80.", ["close vs sma_20", "sma_20"]),
        ("The close is above the 20-day SMA by $3.73.", ["close vs sma_20"]),
        ("The share rose 2.3% on high hopes.", ["change_1d"]),
        ("The share rose 2.3% over the last day and 4.1% over 5 days.", ["change_1d", "change_5d"]),
        ("Over the past week, the share rose 4.1% in total.", ["change_5d"]),
        ("The share fell 5.4% over 20 days.", ["change_20d"]),
        ("The 10-day change is -1.2% for the share.", ["change_10d"]),
        ("The share rose from $171.58 to $175.53, a gain of 2.3%.", ["close_1d_ago", "close", "change_1d"]),
        ("The share gained $3.95 from yesterday's close.", ["change_1d"]),
        ("The share is up 0.9% from the open.", ["close vs open"]),
        ("The closes of $172.40, $171.58 and $175.53 show a turn.", ["close_2d_ago", "close_1d_ago", "close"]),
        ("Daily volatility is 1.5%, and the volume was 53.2 million.", ["volatility_20d", "volume"]),
        ("With volatility low, the share rose 2.3% today.", ["change_1d"]),
        (
            "It had revenue of $394B and net income of $99.8 billion.",
            ["financials/Total Revenue", "financials/NetIncomeLoss"],
        ),
        ("Earnings are strong at an EPS of $6.11 for the year.", ["financials/Diluted EPS"]),
        ("Its diluted earnings per share was $6.11 for the year.", ["financials/Diluted EPS"]),
        ("Net income is 25% of revenue here.", ["financials/NetIncomeLoss vs financials/Total Revenue"]),
        ("Apple beats estimates by 5% thanks to iPhone demand.", ["headline_1"]),
        ("The 5-day is $170.40 and the 20-day is $171.80.", ["sma_5", "sma_20"]),
        ("The share rose 2.3% in one day and 4.1% in five.", ["change_1d", "change_5d"]),
        ("The 1-day and 5-day changes are +2.3% and +4.1% in turn.", ["change_1d", "change_5d"]),
        ("Its averages, which stand at $170.40 and $171.80, lie below.", ["sma_5", "sma_20"]),
        ("The share lost $0.82 and then gained $3.95 on the next day.", ["close_1d_ago vs close_2d_ago", "change_1d"]),
        ("It rose 4.1% in five days, or about 0.8% per day.", ["change_5d", "change_5d"]),
        ("The gain of 2.3% is larger than its volatility of 1.53%.", ["change_1d", "volatility_20d"]),
        ("The gap between the close and the 20-day average is $3.73.", ["close vs sma_20"]),
        ("The mean of its last three closes is $173.17 by now.", ["sma_3"]),
        (
            "The average of the closes $172.40, $171.58 and $175.53 is about $173.17 for the share.",
            ["close_2d_ago", "close_1d_ago", "close", "sma_3"],
        ),
        ("The closes shown range from $168.61 to $175.53 in all.", ["close_5d_ago", "close"]),
        ("It moved between $175.53 and $168.61 in this time.", ["close", "close_5d_ago"]),
        ("At $168.61 five days ago was the low of the period.", ["close_5d_ago"]),
        ("On a typical day it moves about 1.53% or so.", ["volatility_20d"]),
        ("The change of 4.1% is smaller than the 20-day move of -5.4% here.", ["change_5d", "change_20d"]),
    ],
)
def test_a_plain_statement_of_a_fact_is_grounded_in_it(text, facts):
    assert grounded(text) == facts


@pytest.mark.parametrize(
    "text",
    [
        "The share closed at $181.20 on this day.",  # invented
        "The share closed at $175.54 on this day.",  # more precise than true
        "The share closed at $177 on this day.",
        "The share changed by 0% over 10 days.",  # rounded to nothing
        "The 20-day average of $175.53 is a support.",  # the close on the wrong fact
        "The 5-day average is at $171.80 and holds.",
        "The share opened at $175.53 on this day.",
        "The share closed at $172.40 on this day.",  # of two days before
        "Two days ago it closed at $175.53 on volume.",
        "The share rose 2.3% over the last 5 days.",  # the right change over the wrong time
        "The share rose 5.4% over 20 days.",  # sign flipped
        "The share fell 2.3% today on news.",
        "The share rose -2.3% today on news.",
        "The 20-day change is 5.4% for the share.",
        "The close is $3.73 below its 20-day average.",
        "The close is below its 20-day average of $171.80.",
        "Its 20-day average of $171.80 lies above the close.",
        "The share fell to $175.53 on this day.",
        "The volatility is $1.53 for this share.",  # unit swapped
        "The share closed at 175.53% on this day.",
        "The share rose $2.3 on this day.",
        "Revenue grew 2.3% and did very well.",  # the price's change on another fact
        "The volume rose 4.1% over 5 days.",
        "Volume was $53.2 million on this day.",
        "It did not rise 2.3% on this day.",
        "The RSI of 71.5 is at a high level.",
        "The price target was raised 12% by analysts.",
        "$175.53, $174.00, 2.3%, $171.80",
        "175.53 174.00 171.80 2.3",
        "Close: $175.53",
        "Open: $174.00\nClose: $175.53\n1-day change: +2.30%\n5-day average: $170.40\nVolume: 53.20M",
        "Earlier closes: $168.61, $172.40, $171.58",
        "Total Revenue: $394.33B\nDiluted EPS: $6.11",
        "Confidence: 50% to 100%",
        "It closed at \uff11\uff17\uff15.53 dollars on this day.",
        "The share rose 4.1% over the last quarter.",  # a span that is not shown
        "The share rose 4.1% since the start of the year.",
        "The gain of 1.2% is larger than the volatility of 1.53%.",
        "It rose 4.1% in five days, or about 2.3% per day.",
        "The share moved from $175.53 to $171.80 in a week.",
        "It is $3.95 above its 20-day average of $171.80.",  # the gain of the day, as a distance
        "The mean of its last three closes is $174.10 by now.",
        "The average of the last two closes is $173.17 by now.",  # of three
        "The closes shown range from $171.58 to $172.40 in all.",
        "It moved between $171.58 and $175.53 in this time.",
        "At $171.58 the day before was the low of the period.",
        "The closes shown reached their high with the close of $171.58 the day before.",
        "The change of 4.1% is larger than the 20-day move of -5.4% here.",
    ],
)
def test_a_false_or_wordless_number_is_not_grounded(text):
    claims = find_claims(text, FACTS)
    assert any(claim.false for claim in claims) or not any(claim.grounded for claim in claims)


@pytest.mark.parametrize(
    "text, true",
    [
        ("The close is the highest of the last two days.", True),
        ("The close is the lowest of all closes shown.", False),
        ("It closed higher on 1 of the last 2 days.", True),
        ("It closed higher on 2 of the last 2 days.", False),
        ("The longer average is below the close.", True),
        ("It trades above its 3-day average.", True),
        ("It trades below its 3-day average.", False),
        ("That was the second straight gain for the share.", False),
        ("It closed higher on each of the last two days.", False),
        ("It fell two sessions in a row.", False),
        ("The last session left the price unchanged.", False),
        ("It closed higher on 3 of the last 5 days.", False),  # not all of them are shown
        ("Its insiders were buying all week.", False),  # no headline tells of it
        ("Apple beats estimates, as the headline has it.", True),
    ],
)
def test_statements_without_a_number_are_checked_too(text, true):
    claims = find_claims(text, FACTS)
    assert not any(claim.counts for claim in claims)
    assert not any(claim.false for claim in claims) if true else any(claim.false for claim in claims)


def test_a_move_told_backwards_in_time_is_not_grounded():
    assert grounded("The share fell from $175.53 to $171.58.") == [None, None]


@pytest.mark.parametrize(
    "text, direction",
    [
        ("The share rose 2.3% today on news.", 1),
        ("The share fell 5.4% over 20 days.", -1),
        ("The close is $3.73 above its 20-day average.", 1),
        ("Its 5-day average of $170.40 is below the close.", 1),
        ("The volatility is 1.53% for this share.", 0),
        ("The share closed at $175.53 on this day.", 0),
    ],
)
def test_evidence_points_where_the_fact_does(text, direction):
    claims = find_claims(text, FACTS)
    assert all(claim.grounded for claim in claims)
    assert {claim.direction for claim in claims} - {0} == ({direction} - {0})


def test_numbers_that_are_no_claim_about_the_data_are_left_out():
    text = "In 2023 it had 3 shops in 5 towns. I expect 1.2% with 63% confidence. The S&P 500 on 2023-05-01 was calm."
    assert find_claims(text, FACTS) == []


def test_spans_point_into_the_reasoning_even_where_lowercasing_would_change_lengths():
    text = "\u0130\u0130 closed at $175.53 today, UP 2.3% on the day."
    claims = find_claims(text, FACTS)
    assert [claim.fact for claim in claims] == ["close", "change_1d"]
    assert all(text[claim.start : claim.end] == claim.text for claim in claims)


@pytest.mark.parametrize(
    "unit", ["$1 ", "1,111,", "close 175.53 ", "rose 2.3% ", "of " * 9, "20-day ", "\n", "revenue ", "1." * 9, "to "]
)
def test_time_grows_linearly_on_hostile_text(unit):
    start = time.process_time()
    find_claims(unit * (50_000 // len(unit)), FACTS)
    assert time.process_time() - start < 2


@given(st.text(alphabet="$%.,0123456789 abcdefilmnorsuvy-\n", max_size=300))
def test_any_text_gives_claims_with_valid_spans(text):
    for claim in find_claims(text, FACTS):
        assert text[claim.start : claim.end] == claim.text
        assert claim.grounded == (claim.fact is not None)
        assert claim.grounded or claim.direction == 0


@given(st.floats(1, 5000).map(lambda value: round(value, 2)), st.integers(0, 2))
def test_a_close_written_to_fewer_digits_matches_and_one_step_beside_it_does_not(value, digits):
    facts = [Fact("close", value, "usd", f"${value:.2f}")]
    step = 10.0**-digits
    if value < 3 * step:
        return
    right, wrong = find_claims(
        f"It closed at ${value:.{digits}f} today. It closed at ${value + 1.6 * step:.{digits}f} today.", facts
    )
    assert right.grounded
    assert not wrong.grounded
