import json
import random
import re

import numpy as np
import pandas as pd
import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.stocks import Stocks, StocksArguments
from stonk_trainer.tasks.stocks.dataset import balance, draw, in_split, labelled_rows, split_dates
from stonk_trainer.tasks.stocks.prompt import mask_identity

SPLITS = ("train", "validation", "test")


def task(**options):
    """The stocks task with these arguments."""
    return Stocks(StocksArguments(**options))


def natural(source, split="train", **options):
    """Rows of a split as plain dicts, nothing balanced away."""
    return list(task(dataset_name=source, natural_distribution=True, **options).rl_dataset(split))


def everything(source, **options):
    """All rows that have a label, by (ticker, date): a train split that never ends."""
    rows = natural(source, train_end="2098-12-31", validation_end="2099-12-31", **options)
    return {(row["ticker"], row["date"]): row for row in rows}


def user_text(row):
    return row["prompt"][-1]["content"]


def data_part(row):
    """The prompt up to the question: what it says about the company."""
    text, question, _ = user_text(row).partition("\n\nWill the next trading day")
    assert question
    return text


def facts_of(row):
    return {fact["name"]: fact for fact in json.loads(row["facts"])}


def price(row):
    return row["company_info"]["price"]


def usable(source="embedded:sp500"):
    frame, _ = labelled_rows(source, "train")
    return frame, frame[frame["usable"]]


def rows_in(split, source="embedded:sp500"):
    frame, good = usable(source)
    return good[in_split(frame, StocksArguments(), split)[good.index]]


# ------------------------------------------------------------------------------------------------------- labels


def test_a_label_is_the_next_trading_days_close_of_the_same_ticker(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL", "MSFT"), days=40)
    closes = {(row["ticker"], price(row)["price_date"]): price(row)["close"] for row in rows}
    days = sorted({day for _, day in closes})
    labelled = everything(write_rows(rows))
    assert {ticker for ticker, _ in labelled} == {"AAPL", "MSFT"}
    for (ticker, day), row in labelled.items():
        change = closes[ticker, days[days.index(day) + 1]] / closes[ticker, day] - 1
        assert row["next_return"] == pytest.approx(change)
        assert row["label"] == ("UP" if change > 0 else "DOWN")


def test_labels_are_joined_before_anything_is_filtered(write_csv):
    """The day before an unchanged day has that day as its next, although the unchanged day itself is dropped."""
    days = pd.bdate_range("2020-01-01", periods=20).strftime("%Y-%m-%d")
    closes = [100.0 + i for i in range(20)]
    closes[5] = closes[4]  # row 4 is dropped: its next close is unchanged
    frame, dropped = labelled_rows(write_csv(zip(["A"] * 20, days, closes, strict=True)), "train")
    assert dropped["unchanged next close"] == 1
    assert list(frame.index[~frame["usable"]]) == [4, 19]
    assert frame["next_return"][3] == pytest.approx(104 / 103 - 1)
    assert frame["next_date"][3] == frame["date"][4]


def test_a_row_without_a_next_day_within_7_days_is_dropped_and_counted(write_csv):
    days = ["2020-01-02", "2020-01-03", "2020-01-10", "2020-01-13", "2020-01-21", "2020-01-22"]
    source = write_csv([("A", day, 10 + i) for i, day in enumerate(days)])
    frame, dropped = labelled_rows(source, "train")
    # 3 → 10 January is 7 days and holds; 13 → 21 January is 8 days; the 22nd has no next day
    assert list(frame["date"][~frame["usable"]].dt.strftime("%Y-%m-%d")) == ["2020-01-13", "2020-01-22"]
    assert dropped["no next day within 7 days"] == 2


def test_a_label_never_comes_from_another_ticker(write_csv):
    source = write_csv(
        [("A", "2020-01-02", 10), ("A", "2020-01-03", 11), ("B", "2020-01-06", 500), ("B", "2020-01-07", 400)]
    )
    frame, _ = labelled_rows(source, "train")
    assert list(frame["up"][frame["usable"]]) == [True, False]


def test_only_the_tickers_asked_for_are_kept(deepstock_rows, write_rows):
    source = write_rows(deepstock_rows(("AAPL", "MSFT", "KO"), days=30))
    assert {row["ticker"] for row in natural(source, tickers=["KO", "AAPL"])} == {"KO", "AAPL"}
    with pytest.raises(UserError, match="NOPE"):
        natural(source, tickers=["KO", "NOPE"])


# ------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("ends", [{}, {"train_end": "2015-06-30", "validation_end": "2017-12-29", "embargo_days": 30}])
def test_splits_are_disjoint_ordered_and_no_label_crosses_a_boundary(ends):
    frame, good = usable()
    args = StocksArguments(**ends)
    train_end, validation_end = split_dates(frame, args)
    parts = [good[in_split(frame, args, split)[good.index]] for split in SPLITS]
    train, validation, test = parts
    assert min(len(part) for part in parts) > 1000
    assert train["next_date"].max() <= train_end < validation["date"].min()
    assert validation["next_date"].max() <= validation_end < test["date"].min()
    for earlier, later in zip(parts, parts[1:], strict=False):
        gap = later["date"].min() - earlier["next_date"].max()
        assert gap > pd.Timedelta(days=args.embargo_days)


def test_split_days_in_the_wrong_order_or_unreadable_are_refused(deepstock_rows, write_rows):
    source = write_rows(deepstock_rows(days=30))
    with pytest.raises(UserError, match="train_end"):
        natural(source, train_end="2019-02-01", validation_end="2019-01-20")
    with pytest.raises(UserError, match=r"train_end: 2098-12-31 must lie before validation_end: .* \(auto\): set both"):
        natural(source, train_end="2098-12-31")
    with pytest.raises(UserError, match="validation_end"):
        natural(source, train_end="2019-01-20", validation_end="soon")


def test_an_empty_split_says_where_the_data_lies(deepstock_rows, write_rows):
    source = write_rows(deepstock_rows(days=30))
    with pytest.raises(UserError, match=r"train split is empty.*2019-01-02.*train_end"):
        natural(source, train_end="1999-01-01", validation_end="2019-01-20")
    with pytest.raises(UserError, match="test split is empty"):
        natural(source, "test", train_end="2019-01-20", validation_end="2030-01-01")


# ------------------------------------------------------------------------------------------------- no look ahead

T = "2019-02-20"


def with_another_future(rows, seed):
    """The same rows up to and including T, everything after it replaced."""
    rng, changed = random.Random(seed), json.loads(json.dumps(rows))
    for row in changed:
        info, quote = row["company_info"], price(row)
        if quote["price_date"] > T:
            quote["close"], quote["open"] = round(rng.uniform(5, 900), 2), round(rng.uniform(5, 900), 2)
            info["news"]["news_headlines"] = [f"Something else {rng.random()}"]
            info["financials"] = {
                "year": str(rng.randint(2010, 2018)),
                "financials": json.dumps({"Revenues": rng.randint(1, 10**9)}),
            }
            info["company_info"] = {"name": "Renamed Corp", "description": f"Now makes {rng.random()}."}
        if quote["previous_date"] > T:
            quote["close_previous"] = quote["open_previous"] = round(rng.uniform(5, 900), 2)
    return changed


@pytest.mark.parametrize("anonymise", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_changing_all_data_after_a_day_changes_no_prompt_at_or_before_it(deepstock_rows, write_rows, seed, anonymise):
    rows = deepstock_rows(days=60)
    before = everything(write_rows(rows), anonymise=anonymise)
    after = everything(write_rows(with_another_future(rows, seed)), anonymise=anonymise)
    past = {key for key in before if key[1] <= T}
    assert len(past) > 40 and past == {key for key in after if key[1] <= T}
    for key in past:
        assert before[key]["prompt"] == after[key]["prompt"], key
        assert before[key]["facts"] == after[key]["facts"], key
    # the change was seen: later prompts differ
    assert any(before[key]["prompt"] != after[key]["prompt"] for key in before.keys() & after.keys() - past)


def test_changing_later_closes_changes_no_earlier_prompt_of_a_price_csv(write_csv, trading_days):
    rng = random.Random(0)
    days = [day.isoformat() for day in trading_days(120)]
    rows = [(ticker, day, round(rng.uniform(50, 150), 2)) for ticker in "AB" for day in days]
    other = [(ticker, day, close if day <= days[70] else round(rng.uniform(50, 150), 2)) for ticker, day, close in rows]
    before, after = everything(write_csv(rows)), everything(write_csv(other))
    past = {key for key in before if key[1] <= days[70]}
    assert len(past) > 100
    assert all(before[key]["prompt"] == after[key]["prompt"] for key in past)


def test_no_prompt_shows_the_label_day(deepstock_rows, write_rows):
    """All closes of the sample differ, so the next close in a prompt could only be the answer itself."""
    rows = deepstock_rows(days=60)
    days = sorted({price(row)["price_date"] for row in rows})
    closes = {(row["ticker"], price(row)["price_date"]): price(row)["close"] for row in rows}
    checked = 0
    for (ticker, day), row in everything(write_rows(rows)).items():
        next_day = days[days.index(day) + 1]
        earlier = {close for (t, d), close in closes.items() if t == ticker and d <= day}
        assert next_day not in user_text(row)
        if closes[ticker, next_day] not in earlier:
            assert f"{closes[ticker, next_day]:.2f}" not in user_text(row)
            checked += 1
    assert checked > 50


def test_the_upstream_prompt_is_never_used(deepstock_rows, write_rows):
    assert not any("UPSTREAM" in str(row) for row in everything(write_rows(deepstock_rows(days=40))).values())


def with_info(rows, day, **changes):
    """Rows in which the part of `company_info` named in `changes` is updated on one day."""
    rows = json.loads(json.dumps(rows))
    for row in rows:
        if price(row)["price_date"] == day:
            for part, values in changes.items():
                row["company_info"][part].update(values)
    return rows


@pytest.mark.parametrize(
    "year, shown", [("2018", True), ("2019", False), ("2020", False), ("", False), ("soon", False)]
)
def test_financials_of_a_year_that_has_not_ended_are_dropped(deepstock_rows, write_rows, year, shown):
    day = "2019-01-10"
    rows = with_info(deepstock_rows(("AAPL",), days=30), day, financials={"year": year})
    row = everything(write_rows(rows))["AAPL", day]
    assert ("Financials" in user_text(row)) is shown
    assert any(name.startswith("financials/") for name in facts_of(row)) is shown


@pytest.mark.parametrize("year, shown", [(2018, True), (2019, False), (None, False)])
def test_the_year_of_the_financials_may_be_a_number_or_missing(deepstock_rows, write_rows, year, shown):
    rows = deepstock_rows(("AAPL",), days=30)
    for row in rows:
        row["company_info"]["financials"]["year"] = 2018
    row = everything(write_rows(with_info(rows, "2019-01-10", financials={"year": year})))["AAPL", "2019-01-10"]
    assert ("Financials of 2018" in user_text(row)) is shown


@pytest.mark.parametrize("text", [None, "", "not JSON", "[1, 2]", '{"Note": "none"}'])
def test_financials_that_hold_no_figures_show_no_heading(deepstock_rows, write_rows, text):
    rows = with_info(deepstock_rows(("AAPL",), days=30), "2019-01-10", financials={"financials": text})
    assert "Financials" not in user_text(everything(write_rows(rows))["AAPL", "2019-01-10"])


@pytest.mark.parametrize("news_date, shown", [("2019-01-09", True), ("2019-01-10", True), ("2019-01-11", False)])
def test_headlines_of_a_later_day_are_dropped(deepstock_rows, write_rows, news_date, shown):
    rows = with_info(deepstock_rows(("AAPL",), days=30), "2019-01-10", news={"news_date": news_date})
    assert ("Headline 1:" in user_text(everything(write_rows(rows))["AAPL", "2019-01-10"])) is shown


def test_a_price_of_a_later_day_than_the_rows_own_is_dropped(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=30)
    price(rows[10])["close"] = 12345.67
    rows[10]["company_info"]["current_date"] = price(rows[9])["price_date"]
    frame, counts = labelled_rows(write_rows(rows), "train")
    assert counts["no price"] == 1
    assert 12345.67 not in list(frame["close"])


@pytest.mark.parametrize("days_back", [1, 7])
def test_a_previous_close_that_only_the_row_knows_is_put_in_its_place(deepstock_rows, write_rows, days_back):
    """Upstream, the rows of a company have gaps, and `previous` may lie up to 7 days back."""
    rows = deepstock_rows(("AAPL",), days=40)
    row, removed = rows[15], rows[14]
    if days_back == 1:
        rows.remove(removed)
        expected = [price(rows[13])["close"], price(removed)["close"]]
    else:  # an older previous close than the row before, which stands in the data: nothing to add
        price(row)["previous_date"], price(row)["close_previous"] = price(rows[10])["price_date"], 77.77
        expected = [price(rows[13])["close"], price(removed)["close"]]
    facts = facts_of(everything(write_rows(rows))["AAPL", price(row)["price_date"]])
    assert [facts["close_2d_ago"]["value"], facts["close_1d_ago"]["value"]] == expected
    change = (price(row)["close"] / expected[1] - 1) * 100
    assert facts["change_1d"]["value"] == pytest.approx(change, abs=0.0051)


def test_a_gap_in_the_history_leaves_out_the_indicators_that_would_span_it(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=200)
    last = price(rows[150])["price_date"]
    with_gap = rows[:40] + rows[140:]  # 100 trading days are missing
    facts = facts_of(everything(write_rows(with_gap))["AAPL", last])
    assert "change_5d" in facts and "change_20d" not in facts and "sma_20" not in facts


# ------------------------------------------------------------------------------------------------ order of the source


@pytest.mark.slow
def test_the_order_of_the_source_changes_nothing(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL", "MSFT", "KO"), days=80)
    by_date = sorted(rows, key=lambda row: (price(row)["price_date"], row["ticker"]))
    shuffled = random.Random(0).sample(rows, len(rows))
    for options in ({}, {"max_train_samples": 20}, {"natural_distribution": True, "max_train_samples": 20}):
        results = [
            list(task(dataset_name=write_rows(x), **options).rl_dataset("train")) for x in (rows, by_date, shuffled)
        ]
        assert len(results[0]) >= 20
        assert results[0] == results[1] == results[2]


def test_which_of_two_rows_of_one_day_is_kept_does_not_depend_on_their_order(deepstock_rows, write_rows):
    """Upstream a day can stand twice, with other news: the source's order must not decide."""
    rows = deepstock_rows(("AAPL",), days=30)
    double = json.loads(json.dumps(rows[10]))
    double["company_info"]["news"]["news_headlines"] = ["Another headline"]
    price(double)["close"] += 1
    first, second = (everything(write_rows(x)) for x in ([*rows, double], [double, *rows]))
    assert first == second


# ----------------------------------------------------------------------------------------------------- balancing


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_balancing_no_trivial_rule_earns_more_than_a_coin(seed, split):
    frame, _ = usable()
    rows = balance(rows_in(split), seed)
    assert len(rows) > 3000
    up = rows["up"]
    by_month = up.groupby([rows["ticker"], rows["date"].dt.strftime("%Y-%m")])
    assert (by_month.sum() * 2 == by_month.count()).all()

    last_change = frame.groupby("ticker")["close"].diff()[rows.index]
    moved = last_change != 0
    same_as_last = ((last_change > 0) == up)[moved].mean()
    of_weekday = up.groupby(rows["date"].dt.day_of_week).mean()
    best_per_weekday = np.maximum(of_weekday, 1 - of_weekday).mean()
    for accuracy in (up.mean(), same_as_last, 1 - same_as_last, best_per_weekday):
        assert 0.47 <= accuracy <= 0.53


@pytest.mark.slow
def test_balancing_only_drops_rows_and_keeps_most():
    rows = rows_in("train")
    kept = balance(rows, 0)
    assert kept.index.is_unique and kept.index.isin(rows.index).all()
    assert 0.6 < len(kept) / len(rows) < 1
    assert not kept.index.equals(balance(rows, 1).index)
    assert kept.index.equals(balance(rows, 0).index)


@pytest.mark.slow
def test_stage_one_rows_are_balanced_and_say_so():
    rows = task(max_train_samples=300).rl_dataset("train")
    assert rows["label"].count("UP") == 150
    assert set(rows["base_rate_up"]) == {0.5}


def test_the_test_split_is_never_balanced(deepstock_rows, write_rows):
    source = write_rows(deepstock_rows(days=200))
    options = {"dataset_name": source, "history_days": 0, "indicators": ["change_1d"]}
    stage1, stage2 = (list(task(**options, natural_distribution=x).rl_dataset("test")) for x in (False, True))
    assert [row["date"] for row in stage1] == [row["date"] for row in stage2]
    assert {row["base_rate_up"] for row in stage1} == {row["base_rate_up"] for row in stage2} != {0.5}


@pytest.mark.slow
def test_the_natural_distribution_keeps_the_markets_base_rate():
    share = rows_in("train")["up"].mean()
    assert share > 0.505  # shares rise on more days than they fall
    rows = task(natural_distribution=True, max_train_samples=1000).rl_dataset("train")
    assert set(rows["base_rate_up"]) == {float(share)}
    assert rows["label"].count("UP") / 1000 == pytest.approx(share, abs=0.04)
    validation = task(natural_distribution=True, max_eval_samples=20).rl_dataset("validation")
    assert set(validation["base_rate_up"]) == {float(share)}  # of training, wherever the row lies


# ------------------------------------------------------------------------------------------------------ drawing


@pytest.mark.parametrize("balanced", [False, True])
def test_drawn_rows_come_from_many_tickers_and_years(balanced):
    rows = rows_in("train")
    drawn = draw(rows, 400, seed=3, balanced=balanced)
    assert len(drawn) == 400 and drawn.index.is_unique
    assert drawn["ticker"].nunique() >= 18
    assert drawn["date"].dt.year.nunique() >= 13
    assert max(drawn["ticker"].value_counts()) < 60
    if balanced:
        assert drawn["up"].sum() == 200


@pytest.mark.slow
def test_max_train_samples_holds_for_training_only_and_max_eval_samples_for_the_rest():
    args = StocksArguments(max_train_samples=30, max_eval_samples=20, history_days=0, indicators=["change_1d"])
    sizes = [len(Stocks(args).rl_dataset(split)) for split in SPLITS]
    assert sizes == [30, 20, 20]
    rows = Stocks(args).rl_dataset("train")
    assert len(set(rows["ticker"])) >= 8 and len({day[:4] for day in rows["date"]}) >= 6


@pytest.mark.slow
def test_another_seed_draws_other_rows():
    keys = []
    for seed in (1, 1, 2):
        rows = task(max_train_samples=30, sampling_seed=seed, history_days=0).rl_dataset("train")
        keys.append(list(zip(rows["ticker"], rows["date"], strict=True)))
    assert keys[0] == keys[1] != keys[2]


# ------------------------------------------------------------------------------------------------------- sources


def test_parquet_jsonl_and_a_folder_give_the_same_rows(deepstock_rows, write_rows):
    rows = deepstock_rows(days=40)
    results = [natural(write_rows(rows, suffix)) for suffix in (".parquet", ".jsonl", "")]
    assert len(results[0]) > 40
    assert results[0] == results[1] == results[2]


def test_a_price_csv_is_a_source(write_csv, trading_days):
    rows = [(day, 10 + (i % 7), 1000 + i) for i, day in enumerate(trading_days(60))]
    result = natural(write_csv(rows, "Date,Close,Volume"))
    assert len(result) > 30
    assert facts_of(result[30])["volume"]["shown"] == "1.03K"
    assert set(result[0]) == {"prompt", "label", "next_return", "facts", "base_rate_up", "ticker", "date"}


def test_the_open_headlines_and_financials_of_a_row_are_in_its_prompt(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=30)
    text = user_text(everything(write_rows(rows))["AAPL", price(rows[5])["price_date"]])
    for part in (
        f"Open: ${price(rows[5])['open']:.2f}",
        f"Close: ${price(rows[5])['close']:.2f}",
        "Aapl Inc. (AAPL)",
        "Financials of 2018:\nRevenues: $1.00B\nNetIncomeLoss: -$12.34M\nEPS: $1.50",
        "Headline 1: Analysts see item 5.0 at Aapl Inc.",
    ):
        assert part in text


def test_a_source_without_a_needed_column_is_refused(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=30)
    for row in rows:
        del row["company_info"]["price"]["close"]
    with pytest.raises(UserError, match=r"company_info\.price\.close"):
        natural(write_rows(rows))


@pytest.mark.parametrize("name", ["nowhere.parquet", "./nowhere", "embedded:nyse", "nowhere.csv"])
def test_a_source_that_does_not_exist_is_refused(name):
    with pytest.raises(UserError, match=re.escape(name)):
        natural(name)


def test_optional_columns_may_be_missing(deepstock_rows, write_rows):
    rows = [
        {"ticker": row["ticker"], "company_info": {"price": {k: price(row)[k] for k in ("price_date", "close")}}}
        for row in deepstock_rows(days=40)
    ]
    result = natural(write_rows(rows))
    assert len(result) > 30
    assert "Company: AAPL\n" in user_text(result[0])


# ------------------------------------------------------------------------------------------------------- prompts


def anonymised(deepstock_rows, write_rows, headlines):
    """The data part of anonymised prompts of Apple Inc. (AAPL), each with these headlines, and the facts."""
    rows = deepstock_rows(("AAPL",), days=40)
    for row in rows:
        row["company_info"]["company_info"]["name"] = "Apple Inc."
        row["company_info"]["news"]["news_headlines"] = headlines
    result = everything(write_rows(rows), anonymise=True).values()
    assert len(result) > 30
    return [data_part(row) + "\n" + row["facts"] for row in result]


def test_anonymised_prompts_hide_name_and_ticker(deepstock_rows, write_rows):
    headlines = [
        "Apple Inc. beats estimates",
        "Why Apple shares rise",
        "Apple's new phone",
        "AAPL: what next?",
        "On $AAPL",
    ]
    for text in anonymised(deepstock_rows, write_rows, headlines):
        assert "apple" not in text.lower() and "aapl" not in text.lower(), text[:400]


def test_anonymised_prompts_hide_the_calendar(deepstock_rows, write_rows):
    headlines = [
        "Due in March 2019",
        "What to watch on January 10, 2019",
        "Jan. 9 news",
        "On 2019-01-10",
        "Seen 1/10/2019",
    ]
    for text in anonymised(deepstock_rows, write_rows, headlines):
        lines = text.splitlines()
        shown = [line.partition(": ")[2] for line in lines if line.startswith("Headline ")]
        assert len(shown) == len(headlines)
        assert not any(re.search(r"\d|march|jan", line, re.IGNORECASE) for line in shown), shown
        assert not any(word in text for word in ("2018", "2019"))


def test_anonymising_leaves_words_that_only_look_like_months(deepstock_rows, write_rows):
    for text in anonymised(deepstock_rows, write_rows, ["Shares may rise", "Bulls march on", "A second decade"]):
        assert "Headline 1: Shares may rise\nHeadline 2: Bulls march on\nHeadline 3: A second decade" in text


def test_a_prompt_that_is_not_anonymised_names_company_and_day(deepstock_rows, write_rows):
    for row in natural(write_rows(deepstock_rows(("AAPL",), days=30))):
        assert "Aapl Inc. (AAPL)" in user_text(row) and f"Date: {row['date']}" in user_text(row)


def assert_every_number_is_a_fact(row):
    shown = [fact["shown"] for fact in json.loads(row["facts"])]
    known = {number for text in shown for number in re.findall(r"\d[\d.,]*\d|\d", text)}
    for line in re.sub(r"\d+ days? ago", "", data_part(row)).splitlines():
        label = re.match(r"(?:\d+-day (?:change|average|volatility)|Financials of \d{4}|Headline \d|[A-Za-z ]+):", line)
        for number in re.findall(r"\d[\d.,]*\d|\d", line[label.end() :] if label else line):
            assert number in known, line
    for text in shown:
        assert text in user_text(row)


@pytest.mark.slow
def test_every_number_in_the_data_is_shown_by_a_fact(deepstock_rows, write_rows):
    for row in natural(write_rows(deepstock_rows(days=60))):
        assert_every_number_is_a_fact(row)
    for row in task(max_train_samples=100).rl_dataset("train"):
        assert_every_number_is_a_fact(row)


def test_limits_on_history_headlines_and_financials_hold(deepstock_rows, write_rows):
    rows = natural(write_rows(deepstock_rows(days=60)), history_days=4, max_headlines=2, max_financials=1)
    names = list(facts_of(rows[-1]))
    assert [name for name in names if name.endswith("_ago")] == [f"close_{i}d_ago" for i in (4, 3, 2, 1)]
    assert [name for name in names if name.startswith("headline")] == ["headline_1", "headline_2"]
    assert [name for name in names if name.startswith("financials")] == ["financials/Revenues"]
    bare = natural(
        write_rows(deepstock_rows(days=60)), history_days=0, max_headlines=0, max_financials=0, indicators=[]
    )
    assert list(facts_of(bare[-1])) == ["company", "ticker", "description", "date", "open", "close"]


# ------------------------------------------------------------------------------------------- what upstream may hold


def test_a_day_without_a_price_leaves_the_day_before_it_without_a_label(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=40)
    rows[20]["company_info"]["price"]["close"] = None
    frame, counts = labelled_rows(write_rows(rows), "train")
    assert list(frame.index[~frame["usable"]]) == [19, 20, 39]
    assert counts["no price"] == 1


def test_the_splits_are_the_same_whichever_tickers_a_recipe_selects(deepstock_rows, write_rows):
    """A company of shorter history alone would move the 70% of the days, and so train on another stage's test days."""
    rows = deepstock_rows(("OLD",), days=400, start="2018-01-02") + deepstock_rows(
        ("NEW",), days=200, start="2019-01-02"
    )
    source = write_rows(rows)
    test_days = {row["date"] for row in task(dataset_name=source).rl_dataset("test")}
    for split in ("train", "validation"):
        some = task(dataset_name=source, tickers=["NEW"], natural_distribution=True).rl_dataset(split)
        assert {row["ticker"] for row in some} == {"NEW"}
        assert not test_days & {row["date"] for row in some}


@pytest.mark.parametrize(
    ("news_date", "current_date", "shown"),
    [
        ("same day", "same day", True),
        (None, "same day", True),
        ("Dec 31, 2030", "same day", False),  # a date that cannot be read may be any day
        (None, "next day", False),  # the row says it was written after the price
    ],
)
def test_headlines_are_shown_only_when_they_were_known(deepstock_rows, write_rows, news_date, current_date, shown):
    rows = deepstock_rows(("AAPL",), days=150)
    for row in rows:
        info, day = row["company_info"], row["company_info"]["price"]["price_date"]
        info["news"]["news_date"] = day if news_date == "same day" else news_date
        later = (pd.Timestamp(day) + pd.Timedelta(days=1)).date().isoformat()
        info["current_date"] = day if current_date == "same day" else later
    prompts = [data_part(row) for row in task(dataset_name=write_rows(rows, ".jsonl")).rl_dataset("train")]
    assert all(("Analysts see item" in prompt) == shown for prompt in prompts)


@pytest.mark.slow
def test_financials_count_from_the_end_of_their_year_and_the_lag_after_it(deepstock_rows, write_rows):
    def shown(year, lag=0):
        rows = deepstock_rows(("AAPL",), days=150, start="2020-06-01")
        for row in rows:
            row["company_info"]["financials"]["year"] = year
        args = StocksArguments(dataset_name=write_rows(rows), financials_lag_days=lag, natural_distribution=True)
        dates = [row["date"] for row in Stocks(args).rl_dataset("train") if "Revenues" in data_part(row)]
        return min(dates, default=None)

    assert shown("2019") == shown("2020-03-31") == "2020-06-01"
    assert shown("2019", lag=180) == "2020-06-29"  # 180 days after 2019-12-31
    assert shown("2020") is None
    assert shown("2020-Q1") is None  # which day a quarter ends would be a guess


def test_rows_with_missing_keys_and_whole_number_closes_are_read(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=150)
    for i, row in enumerate(rows):
        price(row)["close"] = round(price(row)["close"])
        if i % 2:
            del row["company_info"]["news"], row["company_info"]["company_info"]["description"]
        row["company_info"]["financials"]["financials"] = {"Revenues": 1_000_000}
    written = task(dataset_name=write_rows(rows, ".jsonl"), natural_distribution=True).rl_dataset("train")
    assert any("Revenues: $1.00M" in data_part(row) for row in written)


def test_a_source_without_one_usable_row_shows_what_its_first_row_looks_like(deepstock_rows, write_rows):
    rows = deepstock_rows(("AAPL",), days=30)
    for row in rows:
        price(row)["price_date"] = "01/02/2020"
    with pytest.raises(UserError, match=r"YYYY-MM-DD.*01/02/2020"):
        task(dataset_name=write_rows(rows)).rl_dataset("train")


def test_a_masked_ticker_that_is_a_word_leaves_the_word():
    masked = mask_identity("Bets on ON as The Home Depot, Inc. and Home Depot rally $on", "The Home Depot, Inc.", "ON")
    assert masked == "Bets on the company as the company and the company rally the company"
