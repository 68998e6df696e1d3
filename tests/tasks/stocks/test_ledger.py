"""The verdict on a line of evidence, by examples and by an oracle of plain lines; and the numbers of a thought."""

import re
import string
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.answer import parse
from stonk_trainer.tasks.stocks.facts import Fact, big_number, facts_to_json, usd
from stonk_trainer.tasks.stocks.ledger import Ledger, Verdict, ledger_of

FACTS = [
    Fact("company", "Apple", "text", "Apple"),
    Fact("description", "Apple makes 1.5 billion phones.", "text", "Apple makes 1.5 billion phones."),
    Fact("date", "2019-03-04", "date", "2019-03-04"),
    Fact("close_2d_ago", 42.0, "usd", "$42.00"),
    Fact("close_1d_ago", 42.28, "usd", "$42.28"),
    Fact("open", 42.4, "usd", "$42.40"),
    Fact("close", 42.49, "usd", "$42.49"),
    Fact("change_1d", 0.5, "percent", "+0.50%"),
    Fact("change_5d", -0.93, "percent", "-0.93%"),
    Fact("sma_20", 41.61, "usd", "$41.61"),
    Fact("volume", 53.2e6, "count", "53.20M"),
    Fact("financials/Revenue", 1.23e9, "usd", "$1.23B"),
    Fact("financials/Close", 7.0, "usd", "$7.00"),
    Fact("financials/PriceToBookRatio", 1.5, "ratio", "1.5"),
    Fact("headline_1", 'Apple "raises" full-year guidance by 5% | Reuters', "text", "see value"),
    Fact("headline_2", "Shares rise", "text", "Shares rise"),
]
FACTS[-2] = Fact(*[FACTS[-2].name, FACTS[-2].value, "text", FACTS[-2].value])


def verdicts(lines, facts=FACTS, **keys):
    text = "Evidence:\n" + "\n".join(lines) + "\nPrediction: UP"
    return [line.verdict for line in Ledger(facts).check(parse(text), **keys).evidence]


def verdict(name, value, side="UP", facts=FACTS):
    (found,) = verdicts([f"- {name} | {value} | {side}"], facts)
    return found


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("1-day change", "+0.50%", "grounded"),
        ("1-DAY Change", "0.5%", "grounded"),
        ("1-day change", "-0.5%", "wrong value"),
        ("1-day change", "$0.50", "wrong value"),
        ("1-day change", "0.50", "wrong value"),
        ("5-day change", "0.93%", "wrong value"),  # a minus may not be missing
        ("5-day change", "\u22121%", "grounded"),
        ("Close", "$42.49", "grounded"),
        ("Close", "$42.5", "grounded"),
        ("Close", "$42", "grounded"),
        ("Close", "$43", "wrong value"),
        ("Close", "about $42", "wrong value"),
        ("Close 1 day ago", "$42.28", "grounded"),
        ("Close 2 days ago", "$42.00", "grounded"),
        ("Close 3 days ago", "$42.00", "no such fact"),
        ("Volume", "53.2 million", "grounded"),
        ("Volume", "53,200,000", "grounded"),
        ("Volume", "$53.2M", "wrong value"),
        ("Revenue", "$1.2 billion", "grounded"),
        ("Close (financials)", "$7.00", "grounded"),
        ("PriceToBookRatio", "1.5", "grounded"),
        ("Date", "2019-03-04", "no such fact"),
        ("Company", "Apple", "no such fact"),
        ("Close vs 20-day average", "above", "grounded"),
        ("20-day average vs Close", "below", "grounded"),
        ("Close vs 20-day average", "below", "wrong value"),
        ("Close vs 20-day average", "2.1%", "grounded"),
        ("Close vs 20-day average", "-2.1%", "wrong value"),
        ("20-day average vs Close", "-2.07%", "grounded"),
        ("Close vs Open", "+$0.09", "grounded"),
        ("Close vs Close 2 days ago", "above", "grounded"),
        ("Close vs Close", "equal", "no such fact"),
        ("1-day change vs 5-day change", "above", "grounded"),
        ("1-day change vs 5-day change", "+1.43pp", "grounded"),
        ("1-day change vs 5-day change", "+1.43%", "wrong value"),
        ("Close vs 5-day change", "above", "no such fact"),
        ("Close vs Revenue", "below", "no such fact"),
        ("Headline 2", '"Shares rise"', "grounded"),
        ("Headline 2", '"shares RISE!"', "grounded"),
        ("Headline 2", '"Shares"', "wrong value"),  # all of one that has fewer than four words
        ("Headline 2", "Shares rise", "wrong value"),
        ("Headline 1", '"raises" full-year guidance by"', "grounded"),
        ("Headline 1", "\u201cfull-year guidance by 5%\u201d", "grounded"),
        ("Headline 1", '"guidance by 5% / Reuters"', "grounded"),  # as it is printed
        ("Headline 1", '"full-year guidance by 6%"', "wrong value"),
        ("Headline 1", '"full-year guidance by"', "wrong value"),
        ("Headline 1", '"guidance - by - 5%"', "wrong value"),
        ("Headline 1", '"- - - -"', "wrong value"),
        ("Headline 1", '"Shares rise"', "wrong value"),
        ("Headline 3", '"Shares rise"', "no such fact"),
    ],
)
def test_a_line_is_judged_by_its_name_and_value(name, value, expected):
    assert verdict(name, value) == expected


@pytest.mark.parametrize(
    "line",
    [
        "5-day change | -0.93% | DOWN",
        "* 5-day change | -0.93% | DOWN",
        "-5-day change | -0.93% | DOWN",
        "- 5-day change | -0.93%",
        "- 5-day change|-0.93%|DOWN",
        "- 5-day change | -0.93% | down",
        "- 5-day change | -0.93% | DOWN.",
        "- 5-day change | -0.93% | UP or DOWN",
        "- 5-day change |  | DOWN",
        "- 5-day change \uff5c -0.93% \uff5c DOWN",
        "- name | value | UP, DOWN or NEUTRAL",
    ],
)
def test_a_line_of_another_form_is_malformed(line):
    assert verdicts([line]) == ["malformed"]


@pytest.mark.parametrize("name", ["5-d\u0430y change", "Cl\u043ese", "5-day\u00a0change", "\uff15-day change"])
def test_letters_and_spaces_that_look_alike_are_others(name):
    assert verdict(name, "-0.93%") == "no such fact"


def test_a_name_counts_once_and_nine_lines_are_one_too_many():
    pair, back = "- Close vs Open | above | UP", "- open vs close | below | DOWN"
    assert verdicts([pair, back, "- CLOSE VS OPEN | below | UP"]) == ["grounded", "repeated", "repeated"]
    assert verdicts(["- Close | $1 | UP", "- Close | $42.49 | UP"]) == ["wrong value", "repeated"]
    assert verdicts(["- Close | $42.49 | UP"] + ["- Close | $42.49 | UP"] * 9) == (
        ["grounded"] + ["repeated"] * 7 + ["too many"] * 2
    )


def test_a_name_with_vs_in_it_is_looked_up_whole_first():
    facts = [Fact("close", 10.0, "usd", "$10.00"), Fact("financials/Debt vs Equity", 0.5, "ratio", "0.5")]
    assert verdict("debt vs equity", "0.5", facts=facts) == "grounded"


def test_zero_is_stated_by_zeros_and_only_zero_is():
    facts = [Fact("change_1d", 0.0, "percent", "+0.00%"), Fact("change_5d", 0.3, "percent", "+0.30%")]
    assert verdict("1-day change", "0.0%", facts=facts) == "grounded"
    assert verdict("5-day change", "0%", facts=facts) == "wrong value"


def test_facts_that_are_no_facts_are_named():
    with pytest.raises(ValueError, match="facts"):
        ledger_of('[{"name": "close"}]')


# ------------------------------------------------------------------------------------------------------ the oracle


SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12, "thousand": 10**3, "million": 10**6, "billion": 10**9}


def oracle_number(text, unit):
    """(value, half a unit of the last digit) of a number in `unit`, or None."""
    match = re.fullmatch(r"([-+\u2212]?)(\$?)([-+\u2212]?)([\d,]*\.?\d+) ?([A-Za-z]*?)( ?%| ?pp)?", text)
    if not match or match[1] and match[3] or match[2] + (match[6] or "").strip() != unit or match[5] not in SCALE:
        return None
    if "," in match[4] and not re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", match[4]):
        return None
    digits, scale = match[4].replace(",", ""), SCALE[match[5]]
    sign = -1 if (match[1] or match[3]) in ("-", "\u2212") else 1
    return sign * Fraction(digits) * scale, Fraction(scale, 2 * 10 ** len(digits.partition(".")[2]))


def oracle_states(text, unit, true):
    read = oracle_number(text, unit)
    return read is not None and abs(read[0] - true) <= read[1] and (read[0] != 0 or true == 0)


def oracle_true(entry, text, by_label):
    """Whether `text` is a right VALUE of a label, or of a pair of them."""
    if isinstance(entry, str):
        kind, value = by_label[entry]
        if kind == "headline":
            if not re.fullmatch('".*"|\u201c.*\u201d', text):
                return False
            quoted, words = (
                [w.strip(string.punctuation) for w in t.lower().split() if w.strip(string.punctuation)]
                for t in (text[1:-1], value)
            )
            runs = [words[at : at + len(quoted)] for at in range(len(words))]
            return len(quoted) >= min(4, len(words)) and quoted in runs
        return oracle_states(text, {"price": "$", "money": "$", "change": "%", "count": ""}[kind], Fraction(str(value)))
    (kind, a), (_, b) = (by_label[label] for label in entry)
    a, b = Fraction(str(a)), Fraction(str(b))
    if text in ("above", "below", "equal"):
        return text == ("above" if a > b else "below" if a < b else "equal")
    if kind == "change":
        return oracle_states(text, "pp", a - b)
    return oracle_states(text, "$", a - b) or oracle_states(text, "%", (a - b) / b * 100)


def oracle(lines, by_label):
    """The verdicts by the rules as they are written, on lines as a model writes them."""
    verdicts, seen = [], []
    for place, line in enumerate(lines):
        parts = re.fullmatch(r"- (.*)", line.strip(" \t"))
        name, _, rest = parts[1].partition(" | ") if parts else ("", "", "")
        value, _, side = rest.rpartition(" | ")
        name, value, side = name.strip().lower(), value.strip(), side.strip()
        entry = name if name in by_label else tuple(part.strip() for part in name.split(" vs ", 1))
        kinds = [by_label.get(label, ("none",))[0] for label in ([entry] if isinstance(entry, str) else entry)]
        exists = isinstance(entry, str) or (
            len(entry) == 2 and entry[0] != entry[1] and kinds in (["price"] * 2, ["change"] * 2)
        )
        key = entry if isinstance(entry, str) else tuple(sorted(entry))
        if place >= 8:
            verdicts.append("too many")
        elif not (name and value and side in ("UP", "DOWN", "NEUTRAL")):
            verdicts.append("malformed")
        elif not exists:
            verdicts.append("no such fact")
        elif key in seen:
            verdicts.append("repeated")
        else:
            verdicts.append("grounded" if oracle_true(entry, value, by_label) else "wrong value")
        if place < 8 and exists and verdicts[-1] != "malformed":
            seen.append(key)
    return verdicts


PRICE = st.integers(50, 999_999).map(lambda cents: cents / 100)
CHANGE = st.integers(-3000, 3000).map(lambda points: points / 100)
WORDS = st.lists(
    st.sampled_from("shares rise, on Strong 5% guidance as (big) bank's - cuts".split()), min_size=1, max_size=9
)


@st.composite
def rows(draw):
    """(facts, what the labels stand for), with prices of cents, changes of hundredths, volume, revenue, a headline."""
    facts, by_label = [], {}

    def add(fact, label, kind):
        facts.append(fact)
        by_label[label.lower()] = (kind, fact.value)

    for name, label in (("close_2d_ago", "Close 2 days ago"), ("close_1d_ago", "Close 1 day ago"), ("open", "Open")):
        add(usd(name, draw(PRICE)), label, "price")
    add(usd("close", draw(PRICE | st.just(facts[0].value))), "Close", "price")
    add(usd("sma_20", draw(PRICE)), "20-day average", "price")
    for n in (1, 5):
        value = draw(CHANGE)
        add(Fact(f"change_{n}d", value, "percent", f"{value:+.2f}%"), f"{n}-day change", "change")
    add(big_number("volume", draw(st.integers(0, 10**10)), "count"), "Volume", "count")
    add(big_number("financials/Revenue", draw(st.integers(-(10**12), 10**12)), "usd"), "Revenue", "money")
    headline = " ".join(draw(WORDS))
    add(Fact("headline_1", headline, "text", headline), "Headline 1", "headline")
    return facts, by_label


@st.composite
def lines_of(draw, facts, by_label):
    """A line about a row: true, rounded, of another fact, broken, in any spacing."""
    labels = [*by_label, "Date", "company", "10-day change"]
    name = draw(st.sampled_from(labels))
    if draw(st.booleans()):
        prices = [label for label, (kind, _) in by_label.items() if kind in ("price", "change")]
        name = f"{draw(st.sampled_from(prices))} vs {draw(st.sampled_from(prices + ['volume']))}"
    shown = [fact.shown for fact in facts if fact.unit != "text"]
    own = next(
        (fact.shown for fact in facts for label in [name] if by_label.get(label, ("", None))[1] == fact.value), "5"
    )
    values = [
        own,
        draw(st.sampled_from(shown)),
        draw(st.sampled_from(["above", "below", "equal", "Above", "1 thousand"])),
    ]
    numbers = [float(value) for kind, value in by_label.values() if kind in ("price", "change")]
    a, b = draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers))
    places = draw(st.integers(0, 3))
    values += [
        f"{a:.{places}f}%",
        f"${a:.{places}f}",
        f"{(a - b) / (b or 1) * 100:.{places}f}%",
        f"{a - b:+.{places}f}pp",
    ]
    values += [f"-${abs(a - b):.{places}f}", f"{abs(a - b):,.2f}", f'"{" ".join(draw(WORDS))}"']
    if "headline 1" in name:
        words = by_label["headline 1"][1].split()
        start = draw(st.integers(0, len(words)))
        values.append(f'"{" ".join(words[start : start + draw(st.integers(1, 6))])}"')
    value, side = draw(st.sampled_from(values)), draw(st.sampled_from(["UP", "DOWN", "NEUTRAL", "UP", "up", ""]))
    if draw(st.integers(0, 4)) == 0 and value:  # one character is lost, doubled, or another
        at = draw(st.integers(0, len(value) - 1))
        value = value[:at] + draw(st.sampled_from(["", "-", "%", "$", "1", "9", " ", value[at] * 2])) + value[at + 1 :]
    name = draw(st.sampled_from([name, name.upper(), name.title()]))
    separator = draw(st.sampled_from([" | "] * 6 + ["  |  ", "|", " |", " / "]))
    start = draw(st.sampled_from(["- "] * 6 + ["-  ", "  - ", "-", "* ", ""]))
    return f"{start}{name}{separator}{value}{separator}{side}{draw(st.sampled_from(['', '', '  ', '.']))}"


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data())
def test_the_verdict_is_the_oracles_in_every_order_and_spacing(data):
    facts, by_label = data.draw(rows())
    lines = data.draw(st.lists(lines_of(facts, by_label), min_size=1, max_size=11))
    if data.draw(st.booleans()):
        lines = data.draw(st.permutations(lines + lines[:2]))
    lines = [line for line in lines if line.strip()]
    found = ledger_of(facts_to_json(facts)).check(parse("Evidence:\n" + "\n\n".join(lines) + "\nPrediction: UP"))
    assert [line.verdict for line in found.evidence] == oracle(lines, by_label)
    assert {line.verdict for line in found.evidence} <= set(get_args(Verdict))


# ------------------------------------------------------------------------------------------------------ the thought


def invented(thought, facts=FACTS):
    text = f"<think>{thought}</think>\nPrediction: DOWN\nExpected move: 1.2%\nConfidence: 58%"
    return list(Ledger(facts).check(parse(text)).invented)


@pytest.mark.parametrize(
    "thought",
    [
        "It closed at $42.49, or 42.49, or US$42.5, or 42.49 USD.",
        "Over 5 days it fell 0.93% (-0.93%), over one it rose 0.5%.",
        "From $42.00 to $42.28 it rose 0.67%, then by $0.21 or 0.50%.",  # the changes between neighbouring closes
        "The close is 2.1% above the 20-day average, $0.88 above it, and 0.2% above the open.",
        "Over two days it gained 1.17%.",  # the close beside an earlier one
        "Volume was 53.2 million, revenue $1.23 billion.",
        "I expect -1.2%, a move of 1.2%, at 58% or 0.58.",  # the answer's own numbers
        "Guidance goes up by 5%, and there are 1.5 billion phones.",  # what headlines and description say
        "The 20-day average, in 2019, on March 4, two of the last five days.",
    ],
)
def test_facts_and_what_follows_from_neighbours_is_known(thought):
    assert invented(thought) == []


@pytest.mark.parametrize(
    "thought, numbers",
    [
        ("It closed at $42.48.", ["$42.48"]),
        ("It closed at A$42.49.", ["A$42.49"]),
        ("It rose 0.93% in 5 days (+0.93%).", ["+0.93%"]),
        ("The mean of the two changes is -0.22%.", ["-0.22%"]),
        ("The open was 0.95% above the close two days before.", ["0.95%"]),  # two prices without the close
        ("It rose 8% week over week, to $20 billion.", ["8%", "$20 billion"]),
        ("The expected move is 3.3%.", ["3.3%"]),
        ("The changes are 1.43pp apart.", ["1.43pp"]),
        ("It was flat at 0%.", ["0%"]),
        ("It fell 9,3%.", ["9,3%"]),
    ],
)
def test_every_other_number_is_invented_whatever_stands_around_it(thought, numbers):
    assert invented(thought) == numbers


def test_the_numbers_of_evidence_and_fields_are_not_those_of_the_thought():
    answer = parse("Evidence:\n- Close | $99.99 | UP\nPrediction: UP\nExpected move: 7.7%\nReasoning: it rose 9%.")
    checked = Ledger(FACTS).check(answer)
    assert (checked.numbers, checked.invented) == (1, ("9%",))


def test_without_evidence_the_numbers_of_the_reasoning_are_the_lines_where_that_is_optional():
    text = "Reasoning: it fell 0.93%, rose 0.67% and then 0.7%, to $42.49; 8% more, $42.49 again.\nPrediction: DOWN"
    assert Ledger(FACTS).check(parse(text), "required").evidence == ()
    lines = Ledger(FACTS).check(parse(text), "optional").evidence
    assert [(line.value, line.side, line.verdict) for line in lines] == [
        ("0.93%", "DOWN", "grounded"),  # the sign of a change is its side
        ("0.67%", "UP", "grounded"),
        ("0.7%", "UP", "no such fact"),  # a derived number needs two decimals
        ("$42.49", "NEUTRAL", "grounded"),
        ("8%", "NEUTRAL", "no such fact"),
        ("$42.49", "NEUTRAL", "repeated"),
    ]
