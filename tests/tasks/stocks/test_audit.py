import copy
import datetime
import json
import random
import re

import numpy as np
import pandas as pd
import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation import evaluate
from stonk_trainer.evaluation.tables import print_audit
from stonk_trainer.task import Finding
from stonk_trainer.tasks.stocks import StocksArguments, dataset
from stonk_trainer.tasks.stocks.audit import audit_dataset, audit_rows, read_splits
from stonk_trainer.tasks.stocks.audit.rules import interval
from stonk_trainer.tasks.stocks.audit.source import source_prices
from stonk_trainer.tasks.stocks.dataset import rl_rows
from stonk_trainer.tasks.stocks.facts import facts_from_json
from stonk_trainer.tasks.stocks.prompt import render
from stonk_trainer.tasks.stocks.source import read_source

pytestmark = pytest.mark.slow

SPLITS = ("train", "validation", "test")
TICKERS = ["BAC", "KO", "XOM"]
DEMO = {"history_days": 0, "indicators": ["change_1d", "change_5d", "sma_20"]}
ITEMS = "margins output staff stores prices orders freight energy taxes patents".split()


@pytest.fixture(scope="module")
def real_days():
    """Rows of the deepstock schema from real closes: three companies, 350 days, headlines and last year's figures."""
    prices = read_source("embedded:sp500")
    prices = prices[prices["ticker"].isin(TICKERS) & (prices["date"] >= "2012-01-03")].sort_values(["ticker", "date"])
    rows = []
    for ticker, group in prices.groupby("ticker"):
        rng = random.Random(ticker)
        days, closes = group["date"].dt.strftime("%Y-%m-%d").tolist(), group["close"].round(2).tolist()
        for i in range(1, 351):
            target = closes[i] * rng.uniform(0.9, 1.1)
            headlines = [
                f"{ticker} and its {' and '.join(rng.sample(ITEMS, 3))}, analysts at ${target + k:.2f}"
                for k in range(3)
            ]
            price = {
                "open": round(closes[i - 1] * rng.uniform(0.99, 1.01), 2),
                "close": closes[i],
                "open_previous": closes[i - 1],
                "close_previous": closes[i - 1],
                "price_date": days[i],
                "previous_date": days[i - 1],
            }
            info = {
                "ticker": ticker,
                "current_date": days[i],
                "company_info": {"name": f"{ticker} Inc.", "description": f"{ticker} Inc. makes things."},
                "news": {"news_headlines": headlines, "news_date": days[i]},
                "financials": {
                    "year": str(int(days[i][:4]) - 1),
                    "financials": json.dumps({"Revenues": 10**9 + int(days[i][:4]), "EPS": 1.5}),
                },
                "price": price,
            }
            rows.append({"ticker": ticker, "company_info": info, "user_prompt": f"close {closes[i]}"})
    return rows


def days_of(rows, first, count):
    """Some consecutive days of every company."""
    picked = []
    for ticker in TICKERS:
        picked += [row for row in rows if row["ticker"] == ticker][first : first + count]
    return picked


def split_rows(rows, folder):
    """Rows of the three splits of those days, as a user would have saved them, and their prices."""
    path = folder / "days.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = StocksArguments(dataset_name=str(path), natural_distribution=True)
    return {split: list(rl_rows(args, split)[0]) for split in SPLITS}, source_prices(read_source(str(path)))


@pytest.fixture(scope="module")
def clean(year, tmp_path_factory):
    return split_rows(year, tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def year(real_days):
    return days_of(real_days, 0, 180)


def by_check(findings):
    return {name: [f for f in findings if f.check == name] for name in {f.check for f in findings}}


def failed(findings):
    return {finding.check: finding.message for finding in findings if finding.passed is False}


def planted(splits, change, share=1.0, seed=0):
    """Copies of the rows in which `change(row, facts, i)` altered a share of them; the prompt follows the facts."""
    rng = random.Random(seed)
    changed = {}
    for split, rows in splits.items():
        changed[split] = []
        for row in rows:
            row = dict(row)
            if rng.random() < share:
                facts = [dict(fact) for fact in json.loads(row["facts"])]
                change(row, facts)
                row["facts"] = json.dumps(facts)
                row["prompt"] = render(facts_from_json(row["facts"]), "2011")
            changed[split].append(row)
    return changed


def next_close_of(prices):
    """(ticker, day) → the next close, its day, and those of the day after it."""
    after = {}
    for ticker, group in prices.groupby("ticker"):
        days, closes = group["date"].dt.strftime("%Y-%m-%d").tolist(), group["close"].tolist()
        for i in range(1, len(days) - 2):
            after[ticker, days[i]] = {
                "closes": closes[i - 1 : i + 3],
                "day": datetime.date.fromisoformat(days[i + 1]),
            }
    return after


def add_headline(facts, text):
    headline = next(fact for fact in facts if fact["name"] == "headline_2")
    headline["value"] = headline["shown"] = text


# ------------------------------------------------------------------------------------------------------- clean data


@pytest.mark.parametrize(
    "options",
    [
        {**DEMO, "sampling_seed": 0},
        {**DEMO, "natural_distribution": True, "sampling_seed": 1},
        {"sampling_seed": 1},
        {"natural_distribution": True, "sampling_seed": 2},
        {"history_days": 60, "indicators": ["change_1d"], "anonymise": True, "sampling_seed": 2},
    ],
)
def test_embedded_data_raises_no_alarm(options):
    findings = audit_dataset(StocksArguments(tickers=["AAPL", "AMD", "KO", "XOM"], **options), rows_per_split=100)
    assert failed(findings) == {}
    unchecked = [finding.check for finding in findings if finding.passed is None]
    assert unchecked == ["source prices"]  # closes alone: there is no previous close to compare with


def test_a_price_csv_raises_no_alarm(write_csv):
    prices = read_source("embedded:sp500")
    prices = prices[prices["ticker"].isin(["GE", "PG"]) & (prices["date"] >= "2018")].sort_values("date")
    source = write_csv(prices[["ticker", "date", "close"]].itertuples(index=False))
    assert failed(audit_dataset(StocksArguments(dataset_name=source), rows_per_split=100)) == {}


def test_days_with_headlines_and_figures_raise_no_alarm(year, clean, write_rows):
    args = StocksArguments(dataset_name=write_rows(year, ".jsonl"), natural_distribution=True)
    findings = audit_dataset(args, rows_per_split=150)
    assert failed(findings) == {}
    assert {finding.check for finding in findings if not finding.passed} <= {"answer numbers"}  # 18 validation days
    splits, prices = clean
    assert failed(audit_rows(splits, prices)) == {}


def test_random_walks_raise_no_alarm(deepstock_rows, write_rows):
    for seed in range(2):
        source = write_rows(deepstock_rows(("AAPL", "MSFT"), days=150, seed=seed), ".jsonl")
        args = StocksArguments(dataset_name=source, natural_distribution=True)
        splits = {split: list(rl_rows(args, split)[0]) for split in SPLITS}
        assert failed(audit_rows(splits, source_prices(read_source(source)))) == {}


def walk(rng, days, start, volatility, decimals=2):
    return np.maximum(np.round(start * np.exp(np.cumsum(rng.normal(0, volatility, days))), decimals), 10.0**-decimals)


def csv_of(write_csv, trading_days, series):
    days = [day.isoformat() for day in trading_days(len(series[0]))]
    return write_csv([(f"AB{t}", *pair) for t, closes in enumerate(series) for pair in zip(days, closes, strict=True)])


def test_closes_that_move_by_few_ticks_are_no_copied_days(write_csv, trading_days):
    rng = np.random.default_rng(1)
    source = csv_of(write_csv, trading_days, [walk(rng, 400, 0.5, 0.03) for _ in range(3)])
    assert (
        failed(audit_dataset(StocksArguments(dataset_name=source, natural_distribution=True), rows_per_split=50)) == {}
    )


def test_returns_of_few_ticks_are_no_leak(write_csv, trading_days):
    rng = np.random.default_rng(1)
    source = csv_of(write_csv, trading_days, [walk(rng, 500, 15, 0.004) for _ in range(4)])
    args = StocksArguments(dataset_name=source, natural_distribution=True, max_train_samples=1200)
    assert failed(audit_rows({"train": list(rl_rows(args, "train")[0])}, source_prices(read_source(source)))) == {}


def test_numbers_tell_no_outcome_where_the_past_closes_tell_it_too(write_csv, trading_days):
    closes = np.round(1 + np.random.default_rng(1).normal(0, 0.001, 500), 4)
    findings = audit_dataset(
        StocksArguments(dataset_name=csv_of(write_csv, trading_days, [closes])), rows_per_split=400
    )
    assert set(failed(findings)) <= {"trivial rules"}


@pytest.mark.parametrize("templates, per_day", [(None, 3), (16, 3)])
def test_headlines_that_keep_coming_back_raise_no_alarm(year, write_rows, templates, per_day):
    rng = random.Random(0)
    rows = json.loads(json.dumps(year))
    for i, row in enumerate(rows):
        ticker, news = row["ticker"], row["company_info"]["news"]
        news["news_headlines"] = rng.sample(
            [f"{ticker} and its {ITEMS[k % 10]} as seen by {ITEMS[k // 2]} owners" for k in range(templates or 16)],
            per_day,
        )
        if templates is None and i % 25:
            news["news_headlines"] = [f"{ticker} story {rng.randrange(10**6)}"]
        elif templates is None:
            news["news_headlines"] = [
                f"{ticker} Inc reports results for the quarter",
                f"{ticker} Inc declares its quarterly cash dividend",
                f"{ticker} Inc to host an earnings conference call",
            ]
    args = StocksArguments(dataset_name=write_rows(rows, ".jsonl"), natural_distribution=True)
    assert failed(audit_dataset(args, rows_per_split=120)) == {}


def test_without_prices_the_rows_own_closes_do(clean):
    splits, _ = clean
    findings = audit_rows(splits)
    assert failed(findings) == {}
    join = by_check(findings)["label join"]
    assert [finding.split for finding in join if finding.passed] == list(SPLITS)
    checked = re.search(r"known: (\d+) of (\d+) rows", join[0].message)
    assert int(checked[1]) > 0.95 * int(checked[2])


def test_what_cannot_be_checked_is_said(clean):
    splits, _ = clean
    bare = [{k: v for k, v in row.items() if k not in ("facts", "next_return")} for row in splits["train"][:40]]
    findings = by_check(audit_rows({"train": bare}))
    for name in ("label join", "next close", "duplicates", "order of splits"):
        assert findings[name][0].passed is None
        assert findings[name][0].message


# ------------------------------------------------------------------------------------ next close and label day, rows


@pytest.mark.parametrize("form", ["{:.2f}", "${:.2f}", "at {:.2f}, then", "{:,.2f}", "short"])
def test_a_next_close_in_a_headline_is_named(clean, form):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        close = after[row["ticker"], row["date"]]["closes"][2] if (row["ticker"], row["date"]) in after else 1
        add_headline(facts, f"Shares seen {f'{close:g}' if form == 'short' else form.format(close)} by some")

    alarms = failed(audit_rows(planted({"train": splits["train"][:150]}, change, share=0.1), prices))
    assert set(alarms) == {"next close"}
    assert "close is in the prompt" in alarms["next close"] and "headline" in alarms["next close"]


@pytest.mark.parametrize(
    "line, check",
    [
        (lambda after, now: f"Level: {after * 100:.0f}", "next close"),
        (lambda after, now: f"Revenues: ${after:.2f}M", "next close"),
        (lambda after, now: f"Level: {after:.2f} EUR".replace(".", ","), "next close"),
        (lambda after, now: f"Alpha: {1e4 * (after / now - 1):+.0f} bps", "answer numbers"),
        (lambda after, now: f"Class: {int(after > now)}", "answer numbers"),
    ],
)
def test_a_next_close_in_another_notation_is_named(clean, line, check):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        closes = after.get((row["ticker"], row["date"]), {"closes": [1, 1, 1]})["closes"]
        add_headline(facts, "see\n" + line(closes[2], closes[1]))

    alarms = failed(audit_rows(planted({"train": splits["train"]}, change), prices))
    assert f"“{line(1, 1).partition(':')[0]}”" in alarms[check]


def test_the_close_after_the_next_in_one_row_of_ten_is_named(clean):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        if (row["ticker"], row["date"]) in after:
            add_headline(facts, f"Target: ${after[row['ticker'], row['date']]['closes'][3]:.2f}")

    assert "day after next" in failed(audit_rows(planted(splits, change, share=0.1), prices))["next close"]


def test_one_leaking_row_in_fifty_is_enough(real_days, tmp_path):
    splits, prices = split_rows(real_days, tmp_path)
    after = next_close_of(prices)
    rows = {"train": [row for split in SPLITS for row in splits[split]]}
    rows["train"] = [row for row in rows["train"] if (row["ticker"], row["date"]) in after]
    assert 900 < len(rows["train"]) < 1100

    def change(row, facts):
        add_headline(facts, f"Seen at {after[row['ticker'], row['date']]['closes'][2]:,.2f}")

    assert "next close" in failed(audit_rows(planted(rows, change, share=0.02), prices))


def test_a_next_close_over_a_thousand_dollars_is_read(clean):
    splits, prices = clean
    prices = prices.assign(close=prices["close"] * 31)
    after = next_close_of(prices)

    def change(row, facts):
        for fact in facts:
            if fact["unit"] == "usd" and "/" not in fact["name"]:
                fact["value"] = round(fact["value"] * 31, 2)
                fact["shown"] = f"${fact['value']:.2f}"
        if (row["ticker"], row["date"]) in after and int(row["date"][-2:]) % 7 == 0:
            add_headline(facts, f"Seen at ${after[row['ticker'], row['date']]['closes'][2]:,.2f} by some")

    assert "next close" in failed(audit_rows(planted(splits, change), prices))


def test_a_next_close_as_the_open_or_the_next_return_as_a_percent_is_named(clean):
    splits, prices = clean
    after = next_close_of(prices)

    def as_open(row, facts):
        fact = next(fact for fact in facts if fact["name"] == "open")
        fact["value"] = round(after[row["ticker"], row["date"]]["closes"][2], 2)
        fact["shown"] = f"${fact['value']:.2f}"

    known = {s: [r for r in rows if (r["ticker"], r["date"]) in after] for s, rows in splits.items()}
    alarms = failed(audit_rows(planted(known, as_open), prices))
    assert "“Open”" in alarms["next close"] and "“Open”" in alarms["answer numbers"]

    def as_percent(row, facts):
        add_headline(facts, f"Shares moved {100 * row['next_return']:+.2f}% in late trade")

    assert "return" in failed(audit_rows(planted(known, as_percent, share=0.1), prices))["next close"]


@pytest.mark.parametrize(
    "form", ["{d:%Y-%m-%d}", "{d:%m/%d/%Y}", "{d:%d/%m/%Y}", "{d:%B} {d.day}, {d.year}", "{d:%b} {d.day}"]
)
def test_the_label_day_in_a_headline_is_named(clean, form):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        if (row["ticker"], row["date"]) in after:
            add_headline(facts, f"News of {form.format(d=after[row['ticker'], row['date']]['day'])}: calm")

    some = {"train": splits["train"][:150]}
    assert set(failed(audit_rows(planted(some, change, share=0.2), prices))) == {"label day"}


def test_days_ahead_that_are_known_in_advance_raise_no_alarm(clean):
    splits, prices = clean

    def change(row, facts):
        day = datetime.date.fromisoformat(row["date"]) + datetime.timedelta(days=random.Random(str(row)).randint(1, 9))
        add_headline(facts, f"Results due {day:%B} {day.day}")

    assert failed(audit_rows(planted(splits, change), prices)) == {}


# --------------------------------------------------------------------------------------------------- labels, rows


@pytest.mark.parametrize("shift, words", [(1, "one day late"), (-1, "one day early")])
@pytest.mark.parametrize("with_prices", [True, False])
def test_labels_joined_off_by_one_day_are_named(clean, shift, words, with_prices):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        if (row["ticker"], row["date"]) in after:
            closes = after[row["ticker"], row["date"]]["closes"]
            row["next_return"] = closes[2 + shift] / closes[1 + shift] - 1
            row["label"] = "UP" if row["next_return"] > 0 else "DOWN"

    alarms = failed(audit_rows(planted(splits, change), prices if with_prices else None))
    assert words in alarms["label join"]


def test_labels_off_by_one_day_are_named_even_where_the_return_is_right(clean):
    splits, prices = clean
    after = next_close_of(prices)

    def change(row, facts):
        if (row["ticker"], row["date"]) in after:
            closes = after[row["ticker"], row["date"]]["closes"]
            row["label"] = "UP" if closes[3] > closes[2] else "DOWN"

    assert "one day late" in failed(audit_rows(planted(splits, change), prices))["label join"]


def test_flipped_labels_are_named(clean):
    splits, prices = clean

    def change(row, facts):
        row["label"] = {"UP": "DOWN", "DOWN": "UP"}[row["label"]]

    assert "flipped" in failed(audit_rows(planted(splits, change), prices))["label join"]
    message = failed(audit_rows(planted(splits, change, share=0.02), prices))["label join"]
    assert "labels disagree" in message and "next_return is right" in message


# -------------------------------------------------------------------------------------------- answer words and rules


@pytest.mark.parametrize(
    "texts",
    [
        ("analysts say buy", "analysts say sell"),
        ("tomorrow the share goes UP", "tomorrow the share goes DOWN"),
        ("signal +", "signal -"),
    ],
)
def test_words_that_tell_the_answer_are_named(clean, texts):
    splits, prices = clean

    def change(row, facts):
        add_headline(facts, texts[row["label"] == "DOWN"])

    alarms = failed(audit_rows(planted(splits, change, share=0.2), prices))
    assert set(alarms) == {"answer words"}
    assert any(
        f"“{word}" in alarms["answer words"]
        for word in ("buy", "say", "sell", "goes", "up", "down", "signal", "+", "-")
    )


def test_words_that_are_right_in_seven_of_ten_rows_are_named(write_csv, trading_days):
    closes = walk(np.random.default_rng(2), 1500, 50, 0.02)
    source = csv_of(write_csv, trading_days, [closes])
    args = StocksArguments(dataset_name=source, natural_distribution=True, max_train_samples=2000, **DEMO)
    rows, rng = list(rl_rows(args, "train")[0]), random.Random(0)
    assert failed(audit_rows({"train": rows})) == {}
    for row in rows:
        signal = "buy" if (row["label"] == "UP") == (rng.random() < 0.7) else "sell"
        row["prompt"] = row["prompt"][-1]["content"] + f"\nSignal: {signal}"
    assert set(failed(audit_rows({"train": rows}))) == {"answer words"}


def test_a_rule_that_wins_on_balanced_rows_is_named(clean):
    splits, prices = clean
    leaning = {split: [dict(row, base_rate_up=0.5) for row in rows] for split, rows in splits.items()}
    leaning["train"] = [r for i, r in enumerate(leaning["train"]) if r["label"] == "UP" or i % 2]
    alarms = failed(audit_rows(leaning, prices))
    assert "always UP" in alarms["trivial rules"]
    assert set(alarms) == {"trivial rules"}


def test_persistence_that_no_market_has_is_named_on_natural_rows(trading_days):
    days = [day.isoformat() for day in trading_days(300)]
    moves = np.sign(np.sin(np.arange(300) / 3)) * 0.01
    closes = np.round(100 * np.cumprod(1 + moves), 4)
    prices = pd.DataFrame({"ticker": "A", "date": days, "close": closes})
    rows = [
        {"prompt": "Close", "ticker": "A", "date": days[i], "label": "UP" if moves[i + 1] > 0 else "DOWN"}
        for i in range(1, 299)
    ]
    assert "same as last change" in failed(audit_rows({"train": rows}, prices))["trivial rules"]


def test_a_number_that_ranks_the_outcomes_is_named(clean):
    splits, prices = clean
    rng = random.Random(0)

    def change(row, facts):
        fact = next((fact for fact in facts if fact["name"] == "change_5d"), {})
        fact["value"] = round(100 * row["next_return"] + rng.gauss(0, 1), 2)
        fact["shown"] = f"{fact['value']:+.2f}%"

    assert "“5-day change” (percent)" in failed(audit_rows(planted(splits, change), prices))["answer numbers"]


def test_the_interval_counts_days_and_not_rows():
    right = np.repeat(np.arange(40) % 2 == 0, 25)
    low, high = interval(right, np.repeat(np.arange(40), 25))
    alone = interval(right, np.arange(1000))
    assert low < alone[0] < 0.5 < alone[1] < high
    assert high - low > 4 * (alone[1] - alone[0])
    assert interval(np.ones(5, bool), np.arange(5))[0] < 0.5  # five right in a row are no proof


# ----------------------------------------------------------------------------------------------- duplicates and order


def test_one_copied_row_across_splits_is_named(clean):
    splits, prices = clean
    copied = {split: list(rows) for split, rows in splits.items()}
    original = splits["test"][30]
    date = splits["train"][100]["date"]
    prompt = json.loads(json.dumps(original["prompt"]).replace(original["date"], date))
    copied["train"][100] = dict(
        original, date=date, prompt=prompt, facts=original["facts"].replace(original["date"], date)
    )
    message = failed(audit_rows(copied, prices))["duplicates"]
    assert f"{original['ticker']} {date} (train)" in message and f"{original['date']} (test)" in message

    near = copy.deepcopy(copied)
    user = near["train"][100]["prompt"][-1]
    user["content"] = user["content"].replace("5-day average: $", "5-day average: $1")
    assert "nearly the same" in failed(audit_rows(near, prices))["duplicates"]


def test_a_copied_row_is_named_in_short_prompts_too():
    args = StocksArguments(
        tickers=TICKERS, natural_distribution=True, max_train_samples=300, max_eval_samples=100, **DEMO
    )
    splits = {split: list(rl_rows(args, split)[0]) for split in SPLITS}
    assert failed(audit_rows(splits)) == {}
    original, date = splits["test"][9], splits["train"][200]["date"]
    splits["train"][200] = json.loads(json.dumps(original).replace(original["date"], date))
    message = failed(audit_rows(splits))["duplicates"]
    assert f"{original['ticker']} {date} (train)" in message and f"{original['date']} (test)" in message


def test_copied_rows_with_three_numbers_are_named_without_prices(write_csv, trading_days):
    source = csv_of(write_csv, trading_days, [walk(np.random.default_rng(t), 900, 50, 0.02) for t in range(2)])
    options = {"history_days": 0, "indicators": ["change_1d", "sma_20"], "natural_distribution": True}
    args = StocksArguments(dataset_name=source, max_train_samples=900, max_eval_samples=200, **options)
    splits = {split: list(rl_rows(args, split)[0]) for split in SPLITS}
    assert failed(audit_rows(splits)) == {}
    for i in range(5):
        original, date = splits["test"][9 * i], splits["train"][100 * i]["date"]
        splits["train"][100 * i] = json.loads(json.dumps(original).replace(original["date"], date))
    assert "5 same text" in failed(audit_rows(splits))["duplicates"]


def test_a_copied_row_with_other_headlines_is_named(clean):
    splits, prices = clean
    original, date = splits["test"][30], splits["train"][100]["date"]
    copied = json.loads(json.dumps(original).replace(original["date"], date))
    copied["prompt"][-1]["content"] = re.sub(r"(?m)^- .*", "- quite another story", copied["prompt"][-1]["content"])
    train = [*splits["train"][:100], copied, *splits["train"][101:]]
    assert "nearly the same" in failed(audit_rows({**splits, "train": train}, prices))["duplicates"]


def test_headlines_of_a_test_day_on_a_train_day_are_named(clean):
    splits, prices = clean
    twice = [(splits[split][i]["ticker"], splits[split][i]["date"]) for split, i in (("train", 100), ("test", 30))]
    texts = ["Quarterly dividend rises", "Regulator opens inquiry into lending", "Chairman retires after two decades"]

    def change(row, facts):
        if (row["ticker"], row["date"]) in twice:
            for fact in facts:
                if fact["name"].startswith("headline"):
                    fact["shown"] = texts[int(fact["name"][-1]) - 1]

    assert "same headlines" in failed(audit_rows(planted(splits, change), prices))["duplicates"]


def test_the_same_day_in_two_splits_is_named(clean):
    splits, prices = clean
    row = splits["test"][7]
    alarms = failed(audit_rows({**splits, "train": [*splits["train"], row]}, prices))
    assert f"{row['ticker']} {row['date']} (test)" in alarms["duplicates"]
    assert "reach into" in alarms["order of splits"]


def test_copies_within_a_split_are_an_alarm_above_one_percent(clean):
    splits, prices = clean
    one = {**splits, "train": [*splits["train"], splits["train"][3]]}
    findings = audit_rows(one, prices)
    assert failed(findings) == {}
    assert "1 of" in next(f.message for f in findings if f.check == "duplicates" and f.split == "train")
    many = {**splits, "train": [*splits["train"], *splits["train"][:30]]}
    assert set(failed(audit_rows(many, prices))) == {"duplicates"}


def test_overlapping_splits_and_a_short_embargo_are_named(clean):
    splits, prices = clean
    all_rows = sorted((row for split in SPLITS for row in splits[split]), key=lambda row: row["date"])
    shuffled = random.Random(0).sample(all_rows, len(all_rows))
    overlapping = {"train": shuffled[:300], "validation": shuffled[300:350], "test": shuffled[350:]}
    assert "split by date" in failed(audit_rows(overlapping, prices))["order of splits"]
    day = all_rows[300]["date"]
    adjacent = {
        "train": [row for row in all_rows if row["date"] < day],
        "test": [row for row in all_rows if row["date"] > day],
    }
    assert "days apart" in failed(audit_rows(adjacent, prices))["order of splits"]


# ------------------------------------------------------------------------------------------------------ source level


def leaking(rows, change, every=1):
    """Copies of the source's rows, altered by `change(info, next row's info)`, every so many rows of a company."""
    rows = json.loads(json.dumps(rows))
    for i, (row, after) in enumerate(zip(rows, rows[1:], strict=False)):
        if row["ticker"] == after["ticker"] and i % every == 0:
            change(row["company_info"], after["company_info"])
    return rows


def close_in_headline(info, after):
    info["news"]["news_headlines"][0] = f"{info['ticker']} changed hands at {after['price']['close']:.2f}"


def close_as_open(info, after):
    info["price"]["open"] = after["price"]["close"]


def day_in_headline(info, after):
    day = datetime.date.fromisoformat(after["price"]["price_date"])
    info["news"]["news_headlines"][0] = f"{info['ticker']} on {day:%B} {day.day}, {day.year}"


def close_of_next_day(info, after):
    info["price"]["close"] = after["price"]["close"]


def verdict(info, after):
    risen = after["price"]["close"] > info["price"]["close"]
    info["news"]["news_headlines"][0] = f"{info['ticker']} is a {'buy' if risen else 'sell'}"


@pytest.mark.parametrize(
    "change, every, check, words",
    [
        (close_in_headline, 10, "next close", "headline"),
        (close_as_open, 1, "next close", "“Open”"),
        (day_in_headline, 10, "label day", "next trading day"),
        (verdict, 3, "answer words", "ell"),
        (close_of_next_day, 1, "source prices", "runs one day ahead"),
    ],
)
def test_a_leak_in_the_source_is_named(year, write_rows, change, every, check, words):
    if change is verdict:
        words = "”"
    source = write_rows(leaking(year, change, every), ".jsonl")
    alarms = failed(audit_dataset(StocksArguments(dataset_name=source, natural_distribution=True), rows_per_split=150))
    assert words in alarms[check]


def test_a_test_day_copied_to_a_train_day_of_the_source_is_named(year, write_rows):
    rows = json.loads(json.dumps(year))
    train, test = rows[100]["company_info"], rows[170]["company_info"]
    for part in ("news", "financials"):
        train[part] = dict(test[part], **({"news_date": train["price"]["price_date"]} if part == "news" else {}))
    train["price"]["close"], train["price"]["open"] = test["price"]["close"], test["price"]["open"]
    args = StocksArguments(dataset_name=write_rows(rows, ".jsonl"), natural_distribution=True)
    message = failed(audit_dataset(args, rows_per_split=50))["copied days"]
    assert train["price"]["price_date"] in message and test["price"]["price_date"] in message


def test_closes_of_a_test_week_in_a_train_week_are_named(real_days, write_csv):
    rows = [
        (r["ticker"], r["company_info"]["price"]["price_date"], r["company_info"]["price"]["close"]) for r in real_days
    ]
    rows = [row for row in rows if row[0] == "KO"]
    rows[50:57] = [(*rows[i][:2], rows[i + 270][2]) for i in range(50, 57)]
    alarms = failed(
        audit_dataset(StocksArguments(dataset_name=write_csv(rows), natural_distribution=True), rows_per_split=50)
    )
    assert "the same 5 closes" in alarms["copied days"]


def test_rows_built_from_the_future_are_named(monkeypatch):
    """Plant the bug itself: a history that reaches one day past its row."""
    honest = dataset._History.until

    def peeking(self, index):
        days, closes = honest(self, index)
        return days, [*closes[1:-1], self._closes[index + 1], closes[-1]] if len(closes) > 1 else closes

    args = StocksArguments(tickers=["KO"], natural_distribution=True)
    monkeypatch.setattr(dataset._History, "until", peeking)
    alarms = failed(audit_dataset(args, rows_per_split=150))
    assert "prompt" in alarms["future data"] and "their own past" in alarms["future data"]
    assert "next close" in alarms


# -------------------------------------------------------------------------------------------------- files and output


def test_a_folder_of_rows_is_audited_and_its_findings_written(clean, tmp_path, write_csv, capsys):
    splits, prices = clean
    for split, rows in splits.items():
        # a byte order mark, and a character that str.splitlines takes for the end of a line
        lines = [json.dumps({**row, "note": "\u2028"}, ensure_ascii=False) for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\ufeff" + "".join(line + "\n" for line in lines))
    assert read_splits(tmp_path) == {
        split: [{**row, "note": "\u2028"} for row in rows] for split, rows in splits.items()
    }
    csv = write_csv(prices[["ticker", "date", "close"]].itertuples(index=False))
    flags = ["--task", "stocks", "--audit_rows", str(tmp_path), "--audit_prices", str(csv)]
    evaluate.main([*flags, "--out", str(tmp_path / "out")])
    findings = [Finding(**entry) for entry in json.loads((tmp_path / "out" / "audit.json").read_text())]
    assert failed(findings) == {} and len(findings) > 10
    assert "audit passed" in capsys.readouterr().out
    flipped = [{**row, "label": "DOWN" if row["label"] == "UP" else "UP"} for row in splits["test"]]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in flipped))
    with pytest.raises(SystemExit) as end:
        evaluate.main([*flags, "--out", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "audit failed: label join" in capsys.readouterr().out


def test_the_table_fits_80_columns_and_names_what_failed(capsys):
    print_audit(
        [
            Finding("label join", "train", False, "labels joined one day late " * 6),
            Finding("next close", "validation", None, "no prices"),
            Finding("order of splits", "all", True, "fine"),
        ]
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(sign in out for sign in "✓✗–")
    assert "audit failed: label join; 1 check could not be made" in out


def test_unusable_rows_are_refused_in_one_line(tmp_path, clean):
    with pytest.raises(UserError, match="has no rows"):
        read_splits(tmp_path)
    (tmp_path / "train.jsonl").write_text("{not json\n")
    with pytest.raises(UserError, match="is not JSON"):
        read_splits(tmp_path)
    row = clean[0]["train"][0]
    with pytest.raises(UserError, match="'maybe'"):
        audit_rows({"train": [dict(row, label="maybe")]})
    with pytest.raises(UserError, match="lacks prompt"):
        audit_rows({"train": [{k: v for k, v in row.items() if k != "prompt"}]})
    for column, value in (
        ("prompt", 5),
        ("prompt", [{"role": "user"}]),
        ("prompt", [{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
        ("prompt", "\ud800"),
        ("facts", "{oops"),
        ("facts", 3),
        ("facts", [1]),
        ("facts", [{"name": "close", "unit": "usd", "value": None, "shown": ""}]),
        ("ticker", "\ud800"),
        ("next_return", "one %"),
        ("base_rate_up", [1]),
    ):
        with pytest.raises(UserError, match=rf"row 2 \(train\): .*{column.rstrip('s')}"):
            audit_rows({"train": [row, dict(row, **{column: value})]})
    with pytest.raises(UserError, match=r"row 1 \(train\): a row must be a JSON object"):
        audit_rows({"train": [None]})
    (tmp_path / "train.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not JSON"):
        read_splits(tmp_path)
    elsewhere = pd.DataFrame({"ticker": ["p2"], "date": [row["date"]], "close": [5.0]})
    with pytest.raises(UserError, match=r"the prices \(p2\) hold no ticker and day"):
        audit_rows({"train": [row]}, elsewhere)
    with pytest.raises(UserError, match="lack the column close"):
        audit_rows({"train": [row]}, pd.DataFrame({"ticker": ["A"], "date": ["2020-01-02"]}))
