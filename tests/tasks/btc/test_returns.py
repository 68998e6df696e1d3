import logging

import numpy as np
import pandas as pd
import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.returns import load_series, returns_between, scale_of


def days(count, start="2020-01-01", freq="D"):
    return pd.date_range(start, periods=count, freq=freq).strftime("%Y-%m-%d")


def closes(count, seed=0):
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, count)))


def write(folder, dates, prices=None, name="BTC.csv", ticker=None):
    frame = pd.DataFrame({"date": dates, "close": closes(len(dates)) if prices is None else prices})
    if ticker is not None:
        frame["ticker"] = ticker
    frame.to_csv(folder / name, index=False)
    return str(folder / name)


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as error:
        load_series(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def one(tmp_path, count=100, prices=None):
    (series,) = load_series(write(tmp_path, days(count), prices))
    return series


# ---------------------------------------------------------------------------------------------------- sources


def test_the_embedded_markets_are_23_series_without_a_gap(caplog):
    series = {s.name: s for s in load_series("embedded:markets")}
    assert len(series) == 23 and {"AAPL", "XOM", "BTC", "ETH", "LTC"} <= set(series)
    assert caplog.records == []
    for s in series.values():
        assert s.dates.dtype == "datetime64[D]" and (np.diff(s.dates).astype(int) > 0).all()
        assert s.returns.dtype == np.float64 and len(s.returns) == len(s.dates)
        assert np.isfinite(s.returns).all() and np.abs(s.returns).max() < 1 and s.first_close > 0
        assert (s.returns == 0).mean() < 0.05


def test_the_embedded_coins_have_every_day_and_the_closes_of_their_file():
    series = {s.name: s for s in load_series("embedded:markets", ["BTC", "ETH", "LTC"])}
    spans = {name: (str(s.dates[0]), str(s.dates[-1]), len(s.dates)) for name, s in series.items()}
    assert spans == {
        "BTC": ("2015-01-13", "2020-01-16", 1830),
        "ETH": ("2017-11-10", "2019-03-18", 494),
        "LTC": ("2017-06-26", "2019-03-18", 631),
    }
    assert all((np.diff(s.dates).astype(int) == 1).all() for s in series.values())
    bitcoin = series["BTC"]
    prices = dict(zip(bitcoin.dates.astype(str), bitcoin.first_close * np.exp(np.cumsum(bitcoin.returns)), strict=True))
    assert bitcoin.first_close == 268.16
    assert prices["2019-03-18"] == pytest.approx(3969.59) and prices["2019-03-31"] == pytest.approx(4094.99)
    assert prices["2020-01-16"] == pytest.approx(8710.15)


def test_prices_come_back_from_the_first_close_and_the_returns(tmp_path):
    prices = closes(50)
    series = one(tmp_path, 50, prices)
    assert series.name == "BTC" and series.first_close == prices[0]
    assert list(series.dates.astype(str)) == list(days(50)[1:])
    assert series.first_close * np.exp(np.cumsum(series.returns)) == pytest.approx(prices[1:], rel=1e-12)


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    forward, backward = days(50), days(50)[::-1]
    (a,) = load_series(write(tmp_path, forward, closes(50)))
    (b,) = load_series(write(tmp_path, backward, closes(50)[::-1]))
    assert (a.returns == b.returns).all() and (a.dates == b.dates).all()


def test_one_file_may_hold_several_tickers(tmp_path):
    path = write(tmp_path, [*days(40), *days(50)], ticker=["B"] * 40 + ["A"] * 50)
    assert [(s.name, len(s.returns)) for s in load_series(path)] == [("B", 39), ("A", 49)]
    assert [s.name for s in load_series(path, ["A"])] == ["A"]
    assert [s.name for s in load_series(path, ["A", "B"])] == ["A", "B"]
    assert [s.name for s in load_series(path, [])] == ["B", "A"]


def test_a_folder_gives_the_series_of_its_csv_files(tmp_path):
    for name in ("ETH.csv", "BTC.CSV", ".hidden.csv", "notes.txt"):
        write(tmp_path, days(40), name=name)
    assert [s.name for s in load_series(str(tmp_path))] == ["BTC", "ETH"]


def test_a_ticker_in_two_files_of_a_folder_is_refused(tmp_path):
    write(tmp_path, days(40), name="a.csv", ticker="BTC")
    write(tmp_path, days(40), name="b.csv", ticker="BTC")
    text = refusal(str(tmp_path))
    assert "BTC is in a.csv and in b.csv" in text


@pytest.mark.parametrize("asked, nearest", [("btc", "BTC"), ("MSTF", "MSFT"), ("APPL", "AAPL")])
def test_an_unknown_ticker_is_refused_with_the_known_ones_nearest_first(asked, nearest):
    text = refusal("embedded:markets", [asked])
    assert f"no ticker {asked}; it has {nearest}, " in text and "and 13 more" in text


@pytest.mark.parametrize("source", ["nowhere.csv", "embedded:sp500", "BTC"])
def test_a_source_that_is_not_there_is_refused(source):
    assert f"{source} not found: give a CSV file, a folder" in refusal(source)


def test_a_folder_without_csv_files_is_refused(tmp_path):
    assert "no CSV file" in refusal(str(tmp_path))


def test_a_single_close_is_refused(tmp_path):
    assert "BTC has one close (2020-01-01)" in refusal(write(tmp_path, days(1)))


def test_a_bad_row_is_named_by_file_and_line(tmp_path):
    assert "BTC.csv: line 3: close 0 is not a positive number" in refusal(write(tmp_path, days(2), [1, 0]))


# ---------------------------------------------------------------------------------------------------- gaps


def test_a_missing_day_of_an_asset_that_trades_every_day_is_one_warning(tmp_path, caplog):
    dates = days(100).delete([40, 41, 70])
    prices = closes(97)
    (series,) = load_series(write(tmp_path, dates, prices))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "BTC: 2 gaps without a close, the first from 2020-02-09 to 2020-02-12; "
        "the return across a gap counts as one step"
    )
    assert len(series.returns) == 96
    assert series.returns[39] == pytest.approx(np.log(prices[40] / prices[39]))


@pytest.mark.parametrize("closed, warnings", [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_weekends_and_holidays_up_to_five_days_are_no_gap_of_a_market_with_weekends(tmp_path, caplog, closed, warnings):
    dates = days(100, freq="B")
    friday = 12
    assert dates[friday] == "2020-01-17"
    dates = dates.delete(list(range(friday, friday + closed)))
    load_series(write(tmp_path, dates))
    assert len(caplog.records) == warnings


def test_the_days_after_11_september_2001_are_a_gap_of_a_market_with_weekends_and_no_error(tmp_path, caplog):
    dates = pd.bdate_range("2001-08-01", "2001-10-31")
    open_days = dates[(dates < "2001-09-11") | (dates > "2001-09-14")].strftime("%Y-%m-%d")
    load_series(write(tmp_path, open_days, name="SPX.csv"))
    assert "SPX: 1 gap without a close, the first from 2001-09-10 to 2001-09-17" in caplog.text


@pytest.mark.parametrize("freq, missing, refused", [("D", 9, False), ("D", 10, True), ("B", 9, False), ("B", 10, True)])
def test_a_long_gap_is_refused_with_the_days_around_it(tmp_path, freq, missing, refused):
    dates = days(100, freq=freq)  # the last before the gap is a Friday in either case
    path = write(tmp_path, dates.delete(list(range(33, 33 + missing))))
    if not refused:
        load_series(path)
        return
    text = refusal(path)
    assert f"BTC has no close between {dates[32]} and {dates[33 + missing]}" in text
    assert "fill in what is missing, or cut the file there" in text and "BTC.csv" in text


# ---------------------------------------------------------------------------------------------------- by date


def test_the_scale_is_the_sample_deviation_of_the_returns_up_to_the_end_of_training(tmp_path):
    series = one(tmp_path)
    end = series.dates[59]
    assert scale_of(series, str(end)) == pytest.approx(pd.Series(series.returns[:60]).std())
    assert scale_of(series, end) == scale_of(series, str(end))


def test_no_return_after_the_end_of_training_changes_the_scale(tmp_path):
    prices = closes(100)
    before = scale_of(one(tmp_path, 100, prices), "2020-03-01")
    prices[61:] *= np.exp(np.random.default_rng(1).normal(0, 1, 39))  # 2020-03-01 is day 60
    assert scale_of(one(tmp_path, 100, prices), "2020-03-01") == before


def test_fewer_than_30_returns_have_no_scale(tmp_path):
    series = one(tmp_path)
    assert scale_of(series, "2020-01-31") > 0
    with pytest.raises(
        UserError, match=r"BTC has 29 returns up to 2020-01-30 \(it runs from 2020-01-02 to 2020-04-09\)"
    ):
        scale_of(series, "2020-01-30")


@pytest.mark.parametrize("prices", [np.full(100, 7.0), 1.01 ** np.arange(100)], ids=["constant", "steady growth"])
def test_returns_that_are_all_the_same_have_no_scale(tmp_path, prices):
    with pytest.raises(UserError, match="BTC never moves up to 2020-04-01"):
        scale_of(one(tmp_path, 100, prices), "2020-04-01")


def test_returns_between_days_share_none_and_may_be_none(tmp_path):
    series = one(tmp_path, 100)
    train, test = returns_between(series, until="2020-02-15"), returns_between(series, after="2020-02-15")
    assert np.array_equal(np.concatenate([train, test]), series.returns)
    assert len(train) == (series.dates <= np.datetime64("2020-02-15")).sum()
    assert len(returns_between(series, after="2021-01-01")) == 0
