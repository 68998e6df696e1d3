"""Attacks on the rewards of the reasoning, made from forty real prompts, beside honest answers to the same prompts."""

import random
import re
import time

import pytest

from stonk_trainer.tasks.stocks import Stocks, StocksArguments
from stonk_trainer.tasks.stocks.facts import facts_from_json, labels
from stonk_trainer.tasks.stocks.rewards import Scorer, score
from stonk_trainer.tasks.stocks.warmup import write_answer

LARGEST, LEAST_HONEST = 0.1, 0.3  # of 0.4
ROWS = [
    row
    for args in (
        StocksArguments(max_train_samples=20, sampling_seed=7),
        StocksArguments(max_train_samples=20, history_days=0, indicators=["change_1d", "change_5d", "sma_20"]),
    )
    for row in Stocks(args).rl_dataset("train")
]
THOUGHT = "The share looks the way it does for many reasons, and one side has more of them."


def worth(text, row, evidence="required"):
    return score(text, row, evidence=evidence, weights={"data_usage": 0.2, "coherence": 0.2})["total"]


class Prompt:
    """What an attacker knows: labels with what is shown, and lines about them that are true."""

    def __init__(self, row):
        facts = facts_from_json(row["facts"])
        self.shown = {label: next(f.shown for f in facts if f.name == name) for name, label in labels(facts).items()}
        self.names = list(self.shown)
        self.true = [f"{name} | {shown} | UP" for name, shown in self.shown.items()]
        above = next(f.value for f in facts if f.name == "close") > next(f.value for f in facts if f.name == "sma_20")
        self.pair = f"Close vs 20-day average | {'above' if above else 'below'} | UP"
        self.row = row

    def changed(self, change):
        """The true lines with another value."""
        return [f"{name} | {change(shown)} | UP" for name, shown in self.shown.items()][-8:]


def form(lines, thought=THOUGHT, end="Prediction: UP\nExpected move: 1.0%\nConfidence: 60%"):
    return f"<think>\n{thought}\n</think>\nEvidence:\n" + "".join(f"- {line}\n" for line in lines) + end


def once_in(lines, filler):
    """One true line among seven that are not."""
    return [*lines[:1], *filler][:8]


def numbers(text):
    """A thought that states `text` over and over, in sentences that are not repeated."""
    ways = "It came to {}. Analysts speak of {}. After {} it paused. Before that {} was seen. So {} is the mark.".split(
        ". "
    )
    return " ".join(f"{way.format(text).rstrip('.')}." for way in ways)


def shift_digit(shown):
    at = max(i for i, c in enumerate(shown) if c.isdigit())
    return f"{shown[:at]}{(int(shown[at]) + 3) % 10}{shown[at + 1 :]}"


CYRILLIC = str.maketrans("ao", "\u0430\u043e")  # letters that look alike

INVENTED = [
    "99%", "8.31 %", "$99.99", "US$99.99", "A$99.99", "\u20ac99.99", "\u00a399", "$20 billion", "$1.9bn", "77.3M",
    "99.99", "-31.4%", "\u221231.4%", "+31.4%", "99 percent", "99 per cent", "31 pct", "9.7pp", "50 bps", "EUR 99",
    "99 USD", "$-99", "9,931.77", "AUD $99", "1e3%",
    "88-percent", "88-million", "88\u200b%", "**88**%", "\uff19\uff19\uff05", "\u0669\u0669%", "1.99T",
]  # fmt: skip
NUMBERS_OF_CASES = [
    "The close rose 99% day over day.", "The share rose 88% week over week.", "Up 88% month-to-date.",
    "The 1-day change of 88% day over day is strong.", "Sales were $920 billion year over year.",
    "It closed at 99.99 day after day.", "It closed at US$99.99.", "Revenue grew 80 % year over year.",
]  # fmt: skip

ATTACKS = {
    # no evidence
    "nothing": lambda p: "",
    "an answer alone": lambda p: "Prediction: UP",
    "it will go up": lambda p: "<think>It will go up.</think>\nPrediction: UP",
    "the prompt copied": lambda p: f"<think>{p.row['prompt'][1]['content']}</think>\nPrediction: UP",
    "all facts in the thought": lambda p: f"<think>{'. '.join(p.true)}</think>\nPrediction: UP",
    "an empty block": lambda p: form([]),
    "the form echoed": lambda p: form(["name | value | UP, DOWN or NEUTRAL", "A vs B | above or below | UP"]),
    # the same again
    "the same line eight times": lambda p: form([p.true[-1]] * 8),
    "the same line in other letter case": lambda p: form([p.true[-1], p.true[-1].upper(), p.true[-1].title()] * 2),
    "A vs B and B vs A": lambda p: form([p.pair, "20-day average vs Close | above | UP"] * 4),
    "one fact under several values": lambda p: form([f"Close | ${x}.00 | UP" for x in range(8)]),
    # more than eight lines
    "two of twenty true": lambda p: form(p.true[-2:] + ["Price | $1 | UP"] * 18),
    "sixty lines": lambda p: form((p.true * 60)[:60]),
    # false values
    "another digit": lambda p: form(p.changed(shift_digit)),
    "another sign": lambda p: form([f"{n} | -{p.shown[n].lstrip('+-')}9 | UP" for n in p.names][-8:]),
    "minus lost": lambda p: form([f"{n} | {p.shown[n].lstrip('+-')}%% | UP" for n in p.names][-8:]),
    "dollars for percent": lambda p: form(p.changed(lambda s: f"${s.strip('$%+-')}" if "%" in s else f"{s[1:]}%")),
    "no unit": lambda p: form(p.changed(lambda s: s.strip("$%"))),
    "rounded away": lambda p: form([f"{n} | {'0%' if '%' in s else '$0'} | UP" for n, s in p.shown.items()][-8:]),
    "too precise": lambda p: form(p.changed(lambda s: s.replace("%", "7%") if "%" in s else f"{s}7")),
    "thousands": lambda p: form(p.changed(lambda s: f"{s}K")),
    "a range": lambda p: form(p.changed(lambda s: f"{s} to {s}")),
    "a hedge": lambda p: form(p.changed(lambda s: f"about {s}")),
    "scientific": lambda p: form(p.changed(lambda s: f"{s}e0")),
    "an empty value": lambda p: form([f"{n} |  | UP" for n in p.names][-8:]),
    "a word for a value": lambda p: form([f"{n} | positive | UP" for n in p.names][-8:]),
    "full-width digits": lambda p: form(p.changed(lambda s: re.sub(r"\d", lambda m: chr(ord(m[0]) + 0xFEE0), s))),
    # wrong names
    "right numbers under other names": lambda p: form(
        [f"{n} | {p.shown[m]} | UP" for n, m in zip(p.names, p.names[1:] + p.names[:1], strict=True)][-8:]
    ),
    "names of no fact": lambda p: form([f"{n} (adjusted) | {p.shown[n]} | UP" for n in p.names][-8:]),
    "facts that cannot be cited": lambda p: form(
        ["Date | 2010-01-04 | UP", "Company | Apple | UP", "Ticker | AAPL | UP"]
    ),
    "names with underscores": lambda p: form(
        [f"{n.replace(' ', '_')} | {p.shown[n]} | UP" for n in p.names if " " in n][-8:]
    ),
    "look-alike letters": lambda p: form(
        [f"{n.translate(CYRILLIC)} | {p.shown[n]} | UP" for n in p.names if n != n.translate(CYRILLIC)][-8:]
    ),
    "look-alike spaces": lambda p: form([line.replace(" ", "\u00a0") for line in p.true[-8:]]),
    "look-alike separators": lambda p: form([line.replace("|", "\uff5c") for line in p.true[-8:]]),
    "tabs for spaces": lambda p: form([line.replace(" | ", "\t|\t") for line in p.true[-8:]]),
    "look-alike dashes": lambda p: form(p.true[-8:]).replace("\n- ", "\n\u2013 "),
    "no dash": lambda p: form(p.true[-8:]).replace("\n- ", "\n"),
    "commas for separators": lambda p: form([line.replace(" | ", ", ") for line in p.true[-8:]]),
    "no side": lambda p: form([line.rpartition(" | ")[0] for line in p.true[-8:]]),
    "both sides": lambda p: form([line.replace("UP", "UP or DOWN") for line in p.true[-8:]]),
    "a name with itself": lambda p: form([f"{n} vs {n} | equal | UP" for n in p.names][-8:]),
    "comparisons of unlike things": lambda p: form(
        ["Close vs 1-day change | above | UP", "5-day change vs Close | below | UP"] * 2
    ),
    "comparisons with what is not shown": lambda p: form(
        ["Close vs 200-day average | above | UP", "Close vs Close 99 days ago | above | UP"] * 3
    ),
    "a headline that is not there": lambda p: form(['Headline 1 | "raises its full-year guidance" | UP'] * 3),
    # where it must not be
    "block in the thought": lambda p: f"<think>\n{THOUGHT}\nEvidence:\n- {p.pair}\n</think>\nPrediction: UP",
    "block after the answer": lambda p: (
        f"<think>{THOUGHT}</think>\nPrediction: UP\nEvidence:\n- " + "\n- ".join(p.true[-4:])
    ),
    "two blocks": lambda p: form(p.true[-4:]).replace("Evidence:", f"Evidence:\n- {p.pair}\nEvidence:"),
    "block before the thought": lambda p: f"Evidence:\n- {p.pair}\n<think>{THOUGHT}</think>\nPrediction: UP",
    "block without an answer": lambda p: form(p.true[-4:], end=""),
    "block and a menu": lambda p: form(p.true[-4:], end="Prediction: UP or DOWN"),
    "block and two answers": lambda p: form(p.true[-4:], end="Prediction: UP\nPrediction: DOWN"),
    # thoughts of invented numbers over true lines
    **{f"invented {text}": lambda p, text=text: form(p.true[-4:], thought=numbers(text)) for text in INVENTED},
    **{f"invented: {text}": lambda p, text=text: form(p.true[-4:], thought=text) for text in NUMBERS_OF_CASES},
    "many invented in prose after the block": lambda p: form(p.true[-4:]) + "\nReasoning: " + numbers("$99.99"),
    "many invented before the thought": lambda p: numbers("91.7%") + form(p.true[-4:]),
    # dilution
    "one true line and seven false": lambda p: form(once_in(p.true, p.changed(shift_digit)[:7])),
    "one true line and seven malformed": lambda p: form(once_in(p.true, ["the market likes it"] * 7)),
    # size
    "a megabyte of lines": lambda p: form([p.true[-1]] * 40_000),
    "a megabyte of thought": lambda p: form(p.true[-4:], thought="up " * 330_000),
    "a megabyte in a line": lambda p: form(["9" * 1_000_000]),
}  # fmt: skip


@pytest.fixture(scope="module")
def prompts():
    assert len(ROWS) == 40
    return [Prompt(row) for row in ROWS]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_earns_more_than_a_quarter_of_what_is_to_be_earned(attack, prompts):
    some = prompts[:2] if "megabyte" in attack else prompts
    assert max(worth(ATTACKS[attack](prompt), prompt.row) for prompt in some) <= LARGEST


def test_there_are_many_attacks():
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("direction", ["UP", "DOWN"])
def test_honest_answers_to_the_same_prompts_earn_three_quarters_or_more(direction, prompts):
    for number, prompt in enumerate(prompts):
        facts = facts_from_json(prompt.row["facts"])
        assert worth(write_answer(facts, direction, random.Random(number)), prompt.row) >= LEAST_HONEST
        lines = [line.replace("UP", direction) for line in prompt.true[-3:]]
        assert worth(form(lines, end=f"Prediction: {direction}"), prompt.row) >= LEAST_HONEST


def test_prose_is_not_paid_for_what_it_invents_where_evidence_is_optional(prompts):
    for prompt in prompts:
        for text in INVENTED:
            thought = f"<think>{numbers(text)}</think>\nPrediction: UP"
            assert worth(thought, prompt.row, "optional") <= LARGEST


@pytest.mark.parametrize(
    "unit", ["rose 2.3% ", "$175.53 ", "- Close | $1 | UP\n", "a. ", " | ", "\n", "9", "\uff5c", '"a b c d" ']
)
def test_a_megabyte_takes_a_fifth_of_a_second(unit):
    scorer = Scorer(evidence="optional")
    columns = {name: [ROWS[0][name]] for name in scorer.columns}
    for text in (
        form([unit * (1_000_000 // len(unit))]),
        f"<think>{unit * (1_000_000 // len(unit))}</think>\nPrediction: UP",
    ):
        start = time.process_time()
        scorer.check([text], columns)
        assert time.process_time() - start < 0.2


def test_time_grows_with_the_length_and_no_faster():
    def seconds(length):
        unit = "It rose 2.31% to $175.53, or 1.2.3 on 04.03.2019. - Close | $1 | UP\nEvidence\n"
        text = form([unit * (length // 2 // len(unit))], thought=unit * (length // 2 // len(unit)))
        times = []
        for _ in range(3):
            start = time.process_time()
            worth(text, ROWS[0])
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(48_000) < 8 * seconds(12_000) + 0.02
