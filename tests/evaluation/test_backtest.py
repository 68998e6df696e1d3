import numpy as np
import pandas as pd
import pytest

from stonk_trainer.evaluation.backtest import (
    backtest,
    best_by_luck,
    buy_and_hold,
    deflated_sharpe,
    performance,
    probability_of_skill,
    signals_of,
)

DAYS = pd.to_datetime(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08"])
CLOSES = pd.DataFrame({"A": [100.0, 110.0, 99.0, 99.0, 108.9], "B": [50.0, 50.0, 55.0, 44.0, 44.0]}, index=DAYS)


def frame(columns, days=DAYS):
    return pd.DataFrame(columns, index=days[: len(next(iter(columns.values())))], dtype=float)


def test_one_company_matches_the_calculation_by_hand():
    """Long from the first close, short from the third, at 10 bp: days earn +10%, -10%, 0, -10%."""
    daily = backtest(frame({"A": [1, 1, -1, -1, 1]}), CLOSES, cost_bps=10)
    expected = [0, 0.10 - 0.001, -0.10, -0.0 - 2 * 0.001, -0.10]
    assert daily["net"].to_numpy() == pytest.approx(expected, abs=1e-10)
    assert daily["equity"].to_numpy() == pytest.approx(np.cumprod(1 + np.array(expected)), abs=1e-10)
    assert daily["turnover"].tolist() == [0, 1, 0, 2, 0]


def test_two_companies_share_the_capital_of_a_day():
    """Day 1: both long at 1/2. Day 2: only B has a signal and holds all of it, short."""
    daily = backtest(frame({"A": [1, np.nan], "B": [1, -1]}), CLOSES, cost_bps=20)
    first = 0.5 * 0.10 + 0.5 * 0.0 - 1.0 * 0.002
    second = -1.0 * 0.10 - (0.5 + 1.5) * 0.002
    third = 0.0 - 1.0 * 0.002  # no signal on the third day: out of the market, which is a trade
    assert daily["net"].tolist()[:4] == pytest.approx([0, first, second, third], abs=1e-10)


def test_a_signal_earns_nothing_of_its_own_day():
    jump = frame({"A": [0, 1, 0, 0, 0]})  # signalled at the close of the day that rose by 10%
    daily = backtest(jump, CLOSES, cost_bps=0)
    assert daily["net"].loc["2020-01-03"] == 0
    assert daily["net"].loc["2020-01-06"] == pytest.approx(-0.10, abs=1e-10)


@pytest.mark.parametrize("lag", [0, -1, 0.5])
def test_a_signal_cannot_be_used_on_its_own_day(lag):
    with pytest.raises(ValueError, match="lag"):
        backtest(frame({"A": [1, 1]}), CLOSES, lag=lag)


def test_a_lag_of_two_earns_one_day_later():
    daily = backtest(frame({"A": [1, 0, 0, 0, 0]}), CLOSES, cost_bps=0, lag=2)
    assert daily["net"].tolist() == pytest.approx([0, 0, -0.10, 0, 0], abs=1e-10)


def test_what_happens_after_the_last_signal_day_changes_nothing_before():
    later = CLOSES.copy()
    later.iloc[3:] *= 3
    before = backtest(frame({"A": [1, -1, 1], "B": [1, 1, 1]}), CLOSES)["net"]
    after = backtest(frame({"A": [1, -1, 1], "B": [1, 1, 1]}), later)["net"]
    assert before.iloc[:3].tolist() == after.iloc[:3].tolist() and before.iloc[3] != after.iloc[3]


@pytest.mark.parametrize(
    "signals, words",
    [
        (frame({"A": [2, 0]}), r"\[-1, 1\]"),
        (frame({"C": [1, 0]}), "without prices: C"),
        (frame({"A": [1]}, pd.to_datetime(["2020-01-04"])), "days without prices"),
        (frame({"A": [1, 1]}, DAYS[[1, 0]]), "sorted"),
        (frame({"A": [1, 1]}).iloc[:0], "no signals"),
    ],
)
def test_signals_that_cannot_be_traded_are_refused(signals, words):
    with pytest.raises(ValueError, match=words):
        backtest(signals, CLOSES)


def test_a_signal_on_a_day_without_a_price_is_refused():
    """It would be filled at the price of before, and so earn the return of its own day."""
    closes = CLOSES.copy()
    closes.loc[DAYS[1], "A"] = np.nan
    with pytest.raises(ValueError, match="A on 2020-01-03, where it has no price"):
        backtest(frame({"A": [1, 1]}), closes)


def test_what_has_lost_everything_stays_at_nothing():
    closes = pd.DataFrame({"A": [1.0, 3.0, 1.0]}, index=DAYS[:3])
    assert backtest(frame({"A": [-1, -1, -1]}), closes)["equity"].tolist() == [1, 0, 0]


def test_a_missing_price_moves_nothing_until_the_next_one():
    closes = CLOSES.copy()
    closes.loc[DAYS[1], "A"] = np.nan
    daily = backtest(frame({"A": [1, np.nan, 0, 0, 0], "B": [0, 1, 0, 0, 0]}), closes, cost_bps=0)
    assert daily["net"].tolist() == pytest.approx([0, 0, 0.10, 0, 0], abs=1e-10)
    held = backtest(frame({"A": [1, 1, 0, 0, 0]}).drop(DAYS[1]), closes, cost_bps=0, lag=2)
    assert held["net"].tolist() == pytest.approx([0, 0, -0.01, 0, 0], abs=1e-10)


def test_buy_and_hold_lets_its_positions_drift():
    daily = buy_and_hold(CLOSES, cost_bps=10)
    growth = (CLOSES / CLOSES.iloc[0]).mean(axis=1)
    assert daily["equity"].iloc[-1] == pytest.approx(growth.iloc[-1] * (1 - 0.001 / (growth.iloc[1])), abs=1e-10)
    assert daily["turnover"].sum() == 1


def test_figures_of_a_known_series():
    daily = backtest(frame({"A": [1, 1, 1, 1, 1]}), CLOSES, cost_bps=0)
    figures = performance(daily, trials=1, seed=0)
    assert figures["total_return"] == pytest.approx(0.089, abs=1e-10)
    assert figures["max_drawdown"] == pytest.approx(-0.10)
    assert figures["exposure"] == 1
    assert figures["dates"][0] == "2020-01-02" and figures["equity"][0] == 1


def test_a_few_days_have_no_figures_per_year():
    figures = performance(backtest(frame({"A": [1, 1, 1, 1, 1]}), CLOSES), trials=1, seed=0)
    yearly = ("annual_return", "annual_volatility", "sharpe", "sharpe_ci95", "deflated_sharpe", "turnover")
    assert [figures[name] for name in yearly] == [None] * 6


@pytest.mark.parametrize(("every", "periods"), [("B", 261), ("D", 365.25), ("W", 52.2), ("MS", 12)])
def test_a_year_has_as_many_periods_as_the_days_say(every, periods):
    days = pd.date_range("2015-01-01", "2020-01-01", freq=every)
    net = np.random.default_rng(0).normal(0.001, 0.01, len(days) - 1)
    closes = pd.DataFrame({"A": 100 * np.cumprod(np.r_[1, 1 + net])}, index=days)
    figures = performance(backtest(closes * 0 + 1, closes, cost_bps=0), trials=1, seed=0)
    growth = np.prod(1 + net)
    assert figures["annual_return"] == pytest.approx(growth ** (periods / len(net)) - 1, rel=0.01)
    assert figures["sharpe"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(periods), rel=0.01)
    assert figures["annual_volatility"] == pytest.approx(net.std(ddof=1) * np.sqrt(periods), rel=0.01)
    assert figures["turnover"] == pytest.approx(periods / len(net), rel=0.01)


def test_without_a_position_there_is_no_ratio():
    figures = performance(backtest(frame({"A": [0, 0, 0, 0, 0]}), CLOSES), trials=3, seed=0)
    assert (figures["sharpe"], figures["deflated_sharpe"], figures["total_return"]) == (None, None, 0)


def test_the_deflated_ratio_of_the_papers_example():
    """Bailey & López de Prado 2014: 2.5 a year over 1250 days of 250 a year, skewness -3, kurtosis 10, the best of 100
    trials whose yearly ratios vary by 1/2."""
    luck = best_by_luck(100, 0.5 / 250)
    assert luck == pytest.approx(0.1132, abs=1e-4)
    assert probability_of_skill(2.5 / np.sqrt(250), 1250, -3, 10, luck) == pytest.approx(0.9004, abs=1e-3)


def test_more_trials_deflate_more():
    net = np.random.default_rng(0).normal(0.001, 0.01, 1250)
    one, hundred, thousand = (deflated_sharpe(net, trials) for trials in (1, 100, 1000))
    assert 1 > one > hundred > thousand > 0
    with pytest.raises(ValueError, match="trials"):
        deflated_sharpe(net, 0)


@pytest.mark.slow
def test_the_best_of_many_strategies_without_skill_is_seen_through():
    """Of 50 random strategies the best looks good alone; given the 50 trials, the ratio exceeds 0.95 rarely."""
    rng = np.random.default_rng(1)
    alone, deflated = 0, 0
    for _ in range(200):
        best = max((rng.normal(0, 0.01, 250) for _ in range(50)), key=lambda net: net.mean() / net.std())
        alone += deflated_sharpe(best, 1) > 0.95
        deflated += deflated_sharpe(best, 50) > 0.95
    assert alone / 200 > 0.8 and deflated / 200 < 0.1


def test_signals_come_from_directions():
    rows = [("A", "2020-01-02", "UP"), ("A", "2020-01-03", None), ("B", "2020-01-02", "DOWN")]
    records = [{"ticker": t, "date": d, "direction": direction} for t, d, direction in rows]
    signals = signals_of(records, long_only=False)
    assert signals.loc["2020-01-02"].to_dict() == {"A": 1, "B": -1}
    assert signals.loc["2020-01-03"].isna().all()
    assert signals_of(records, long_only=True).loc["2020-01-02", "B"] == 0
