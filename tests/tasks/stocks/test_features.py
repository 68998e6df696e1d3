import numpy as np
import pandas as pd
import pytest

from stonk_trainer.tasks.stocks import Stocks, StocksArguments


def price_csv(folder, closes, name="prices.csv", **columns):
    """A CSV of one company, a row per business day from 2020-01-01."""
    days = pd.bdate_range("2020-01-01", periods=len(closes)).strftime("%Y-%m-%d")
    path = folder / name
    pd.DataFrame({"date": days, "close": closes, **columns}).to_csv(path, index=False)
    return str(path)


def walk(days, seed=0):
    return (100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, days)))).round(4)


def arguments(csv, **options):
    return StocksArguments(dataset_name=csv, train_end="2020-12-31", validation_end="2021-03-31", **options)


def test_features_are_fractions_of_the_past(tmp_path):
    prices = walk(400)
    csv = price_csv(tmp_path, prices, volume=np.arange(1, 401) * 10.0)
    table = Stocks(arguments(csv)).feature_table("test").set_index("date")
    day = pd.bdate_range("2020-01-01", periods=400).strftime("%Y-%m-%d")[350]
    row, past = table.loc[day], prices[:351]
    assert row["x_change_1d"] == pytest.approx(past[-1] / past[-2] - 1)
    assert row["x_change_20d"] == pytest.approx(past[-1] / past[-21] - 1)
    assert row["x_above_sma_5"] == pytest.approx(past[-1] / past[-5:].mean() - 1)
    assert row["x_volatility_20d"] == pytest.approx(np.std(past[-20:] / past[-21:-1] - 1, ddof=1))
    assert row["x_market_change_1d"] == pytest.approx(row["x_change_1d"])  # of one company
    assert row["x_volume"] == pytest.approx(3510 / np.mean(np.arange(332, 352) * 10) - 1)
    weekdays = [row[f"x_{day}"] for day in ("monday", "tuesday", "wednesday", "thursday", "friday")]
    assert sorted(weekdays) == [0, 0, 0, 0, 1]
    assert row["next_return"] == pytest.approx(prices[351] / prices[350] - 1)


def test_no_feature_looks_past_its_row(tmp_path):
    prices = walk(400)
    later = prices.copy()
    later[351:] *= 1.5
    tables = [
        Stocks(arguments(price_csv(tmp_path, values, name))).feature_table("test").set_index("date")
        for name, values in {"a.csv": prices, "b.csv": later}.items()
    ]
    until = pd.bdate_range("2020-01-01", periods=400).strftime("%Y-%m-%d")[350]
    features = [name for name in tables[0] if name.startswith("x_")]
    before, after = (table.loc[:until, features] for table in tables)
    pd.testing.assert_frame_equal(before, after)
    assert len(before) == 20


def test_one_company_does_not_reach_into_the_next():
    table = Stocks(StocksArguments()).feature_table("train")
    first = table.groupby("ticker").head(1)
    assert first["x_change_1d"].isna().all() and len(first) == 20


@pytest.mark.slow
def test_the_rows_are_those_of_the_prompts():
    args = StocksArguments(tickers=["AAPL", "KO"], natural_distribution=True)
    table = Stocks(args).feature_table("validation")
    rows = Stocks(args).rl_dataset("validation")
    keys = ["ticker", "date", "label", "next_return"]
    assert table[keys].to_dict("records") == [{key: row[key] for key in keys} for row in rows]


def test_without_volumes_there_is_no_volume_feature():
    assert "x_volume" not in Stocks(StocksArguments(tickers=["KO"])).feature_table("validation")


def test_closes_are_a_table_of_days_and_companies():
    prices = Stocks(StocksArguments(tickers=["KO", "AAPL"])).closes()
    assert list(prices) == ["AAPL", "KO"] and prices.index.is_monotonic_increasing
    assert prices.index[0] < pd.Timestamp("2004-01-01") and (prices > 0).all(axis=None)
