"""The sides a reasoning names in capitals: what each claim is said to speak for, and what it ends with."""

import pytest

from stonk_trainer.tasks.stocks.book import book_of
from stonk_trainer.tasks.stocks.claims import claims_of
from stonk_trainer.tasks.stocks.facts import Fact
from stonk_trainer.tasks.stocks.stances import read_stances
from stonk_trainer.tasks.stocks.words import read

BOOK = book_of(
    [
        Fact("close", 175.53, "usd", "$175.53"),
        Fact("close_1d_ago", 171.58, "usd", "$171.58"),
        Fact("change_1d", 2.30, "percent", "+2.30%"),
        Fact("change_5d", -4.10, "percent", "-4.10%"),
        Fact("sma_20", 171.80, "usd", "$171.80"),
    ]
)


def stances(text):
    cut = read(text, BOOK.phrases)
    claims = claims_of(text, cut, BOOK)
    found = read_stances(cut, claims)
    return found, {claims[index].fact: side for index, side in found.sides.items()}


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("The 1-day change of +2.30% speaks for UP.", {"change_1d": 1}),
        ("The 1-day change of +2.30% speaks for UP, the 5-day change of -4.10% for DOWN.",
         {"change_1d": 1, "change_5d": -1}),
        ("In favour of UP there is the 1-day change of +2.30%.", {"change_1d": 1}),
        ("For DOWN stands the 5-day change of -4.10%.", {"change_5d": -1}),
        ("- UP: the 1-day change of +2.30%.", {"change_1d": 1}),
        ("The 1-day change is +2.30%. That speaks for UP.", {"change_1d": 1}),
        ("The 5-day change of -4.10% is a drop, but the 1-day change of +2.30% argues for UP.", {"change_1d": 1}),
        ("The 1-day change of +2.30% does not speak for UP.", {}),
        ("The 1-day change is UP 2.30% in all.", {}),
    ],
)  # fmt: skip
def test_a_claim_speaks_for_the_side_named_beside_it(text, sides):
    assert stances(text)[1] == sides


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The change of +2.30% on the day speaks for UP. I expect UP.", 1),
        ("The change of +2.30% on the day speaks for UP. Still, DOWN is what I expect.", -1),
        ("The change of +2.30% on the day speaks for UP, but on balance I lean DOWN.", -1),
        ("The gains may go on for one more session: UP.", 1),
        ("All of this makes DOWN likelier.", -1),
        ("I expect UP. No, after a second look I expect DOWN.", -1),
        ("The change of +2.30% on the day speaks for UP.", 0),
        ("The outcome could be UP.", 0),
        ("I do not expect UP.", 0),
        ("I expect it to go up.", 0),
    ],
)
def test_the_verdict_is_the_side_it_ends_with(text, verdict):
    assert stances(text)[0].verdict == verdict


def test_a_reasoning_that_decides_twice_is_found():
    assert stances("I expect UP. No, after a second look I expect DOWN.")[0].both
    assert not stances("For a while I expect UP, and so I expect UP.")[0].both


def test_evidence_on_the_other_side_needs_a_reason():
    assert stances("The 5-day change of -4.10% speaks for UP.")[0].unreasoned.fact == "change_5d"
    assert stances("The 5-day change of -4.10% is a steep fall, which speaks for UP.")[0].unreasoned is None
    assert stances("The 5-day change of -4.10% speaks for DOWN.")[0].unreasoned is None


def test_what_may_speak_for_a_side_is_conceded():
    found, sides = stances("The 5-day change of -4.10% could also speak for DOWN.")
    assert sides == {"change_5d": -1} and found.conceded == set(found.sides)


def test_a_reason_in_the_last_sentence_is_none_for_the_first():
    assert stances("This speaks for UP. A steep fall came before.")[0].argued == set()


def test_a_share_that_lost_all_its_value_is_read_like_any_other():
    facts = [Fact("close", 0.01, "usd", "$0.01"), Fact("change_1d", -100.0, "percent", "-100.00%")]
    assert book_of([*facts, Fact("change_5d", -100.0, "percent", "-100.00%")]).values["change_5d"] == -100.0
