"""What a forecast would have earned: positions from the next day on, with costs, and buy-and-hold for comparison.

A signal is formed from the close of day t and held from then on, so the first return it earns is that of day t + 1
(close t to close t + 1); `lag=2` trades one day later. A signal cannot earn the return of its own day: positions are
shifted inside, and a lag below 1 is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from stonk_trainer.evaluation.stats import DayBootstrap

FEWEST = 20  # returns that a figure per year is made of; from fewer it would be an extrapolation


def backtest(signals: pd.DataFrame, closes: pd.DataFrame, cost_bps: float = 5.0, lag: int = 1) -> pd.DataFrame:
    """Daily results of trading `signals` on `closes`.

    signals: a row per day of the signal, a column per ticker, in [-1, 1]; NaN: no forecast, and no position.
    closes: prices > 0, a row per trading day, a column per ticker; days and tickers of `signals` must be among them.
    Each day's capital is divided equally among that day's signals, so weights w sum to at most 1 in magnitude:

        w[t, i]    = signal[t, i] / (number of signals on day t)
        gross[t]   = sum_i w[t - lag, i] · (close[t, i] / close[t-1, i] - 1)       a missing price moves nothing
        turnover[t]= sum_i |w[t - lag, i] - w[t - lag - 1, i]|                      weights before the first are 0
        net[t]     = gross[t] - turnover[t] · cost_bps / 10000
        equity[t]  = equity[t-1] · (1 + max(net[t], -1)),  equity on the first day = 1

    Returns a row per trading day from the first signal to the last close, with columns gross, net, turnover, exposure
    (sum of |w| held) and equity. The drift of weights within a day's holding is ignored, and the last position is
    marked to market but not sold. Equity that reaches 0 stays there. Raises ValueError for a lag below 1, costs below
    0, signals outside [-1, 1], signals on a day without a price (they would trade at an earlier price, and earn their
    own day), unknown days or tickers, unsorted or duplicate days, and no signals.
    """
    if lag < 1 or lag != int(lag):
        raise ValueError(f"lag: {lag}: a signal formed from a day's close can be held from the next day on: 1 or more")
    if not cost_bps >= 0:
        raise ValueError(f"cost_bps: {cost_bps} must be 0 or more")
    if signals.empty:
        raise ValueError("there are no signals")
    if not (signals.index.is_monotonic_increasing and closes.index.is_monotonic_increasing):
        raise ValueError("the days of signals and closes must be sorted")
    if not (signals.index.is_unique and closes.index.is_unique):
        raise ValueError("duplicate day in the signals or the closes")
    if unknown := set(signals.columns) - set(closes.columns):
        raise ValueError(f"signals without prices: {', '.join(map(str, sorted(unknown)))}")
    if len(unknown := signals.index.difference(closes.index)):
        raise ValueError(f"signals on days without prices: {unknown[0]}")
    if (signals.abs() > 1).any(axis=None):
        raise ValueError("signals must lie in [-1, 1]")
    unpriced = signals.notna() & closes.loc[signals.index, signals.columns].isna()
    if unpriced.any(axis=None):
        day, ticker = unpriced.stack().idxmax()
        raise ValueError(f"a signal for {ticker} on {day:%Y-%m-%d}, where it has no price")
    prices = closes.loc[signals.index[0] :, signals.columns]
    weights = signals.div(signals.notna().sum(axis=1).replace(0, 1), axis=0).reindex(prices.index).fillna(0.0)
    held = weights.shift(int(lag), fill_value=0.0)
    returns = prices.ffill().pct_change(fill_method=None).fillna(0.0)
    gross = (held * returns).sum(axis=1)
    turnover = (held - held.shift(1, fill_value=0.0)).abs().sum(axis=1)
    net = (gross - turnover * cost_bps / 1e4).clip(lower=-1.0)
    return pd.DataFrame(
        {
            "gross": gross,
            "net": net,
            "turnover": turnover,
            "exposure": held.abs().sum(axis=1),
            "equity": (1 + net).cumprod(),
        }
    )


def buy_and_hold(closes: pd.DataFrame, cost_bps: float = 5.0) -> pd.DataFrame:
    """Equal amounts of every ticker bought at the first close and held; same columns as `backtest`.

    closes: as in `backtest`; a ticker without a price on the first day is bought at its first price, and cash until
    then.
    """
    prices = closes.ffill()
    equity = (prices / prices.bfill().iloc[0]).fillna(1.0).mean(axis=1)
    turnover = pd.Series(0.0, closes.index)
    turnover.iloc[1 if len(turnover) > 1 else 0] = 1.0
    gross = equity.pct_change().fillna(0.0)
    net = gross - turnover * cost_bps / 1e4
    exposure = (turnover.cumsum() > 0).astype(float)
    columns = {"gross": gross, "net": net, "turnover": turnover, "exposure": exposure, "equity": (1 + net).cumprod()}
    return pd.DataFrame(columns)


def performance(daily: pd.DataFrame, trials: int, seed: int) -> dict:
    """Figures of a result of `backtest`: returns as fractions, the Sharpe ratio per year at no risk-free rate.

    A year has as many periods as the days of the result say (`periods_per_year`). Figures per year (annual_return,
    annual_volatility, sharpe, turnover) are None for fewer than 20 returns.
    `sharpe_ci95` resamples blocks of days. `deflated_sharpe` is the probability that the true Sharpe ratio is above
    what the best of `trials` strategies without skill would show by luck (Bailey & López de Prado 2014, equations 1 and
    2, with the variance of the Sharpe ratio across trials taken as that of a ratio that is truly 0, 1 / (days - 1)).
    Ratios are None where there is nothing to measure: no position at all.
    """
    net = daily["net"].to_numpy()[1:]  # on the first day nothing is held yet
    equity = daily["equity"].to_numpy()
    year = periods_per_year(daily.index) if len(net) >= FEWEST else None
    spread = float(net.std(ddof=1)) if year else 0.0
    ratio = float(net.mean()) / spread if spread > 1e-12 else None
    return {
        "total_return": float(equity[-1] - 1),
        "annual_return": float(equity[-1] ** (year / len(net)) - 1) if year and equity[-1] > 0 else None,
        "annual_volatility": spread * math.sqrt(year) if year else None,
        "sharpe": ratio * math.sqrt(year) if year and ratio is not None else None,
        "sharpe_ci95": _sharpe_interval(net, daily.index[1:], seed, year) if year and ratio is not None else None,
        "deflated_sharpe": None if ratio is None else deflated_sharpe(net, trials),
        "trials": trials,
        "max_drawdown": float((equity / np.maximum.accumulate(equity) - 1).min()),
        "turnover": float(daily["turnover"].sum() / len(net) * year) if year else None,
        "exposure": float(daily["exposure"].iloc[1:].mean()) if len(net) else 0.0,
        "dates": [f"{day:%Y-%m-%d}" for day in daily.index],
        "equity": equity.round(6).tolist(),
    }


def periods_per_year(days: pd.DatetimeIndex) -> float:
    """How many of these periods a year has, by the time from the first day to the last: about 252 of shares, 365 of
    coins, 52 of weekly prices."""
    return (len(days) - 1) * 365.25 / (days[-1] - days[0]).days


def _sharpe_interval(net: np.ndarray, days: pd.Index, seed: int, year: float) -> tuple[float, float] | None:
    bootstrap = DayBootstrap([f"{day:%Y-%m-%d}" for day in days], seed)
    return bootstrap.of_days(lambda mean, square: mean / np.sqrt(square - mean**2) * math.sqrt(year), net, net**2)


def deflated_sharpe(net: ArrayLike, trials: int) -> float:
    """The deflated Sharpe ratio of daily returns `net`, a probability in [0, 1]; see `performance`.

    Raises ValueError for fewer than 1 trial.
    """
    from scipy.stats import kurtosis, skew

    if trials < 1:
        raise ValueError(f"trials: {trials} must be at least 1")
    returns = np.asarray(net, dtype=float)
    ratio = float(returns.mean() / returns.std(ddof=1))
    shape = float(skew(returns)), float(kurtosis(returns, fisher=False))
    return probability_of_skill(ratio, len(returns), *shape, best_by_luck(trials, 1 / (len(returns) - 1)))


def best_by_luck(trials: int, variance: float) -> float:
    """Expected maximum of `trials` Sharpe ratios that are truly 0 and vary by `variance` (equation 1 of the paper)."""
    from scipy.stats import norm

    if trials == 1:
        return 0.0
    quantiles = norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return math.sqrt(variance) * float(np.dot([1 - np.euler_gamma, np.euler_gamma], quantiles))


def probability_of_skill(ratio: float, days: int, skewness: float, kurtosis: float, benchmark: float) -> float:
    """P(true Sharpe ratio > benchmark), both per day (equation 2); `kurtosis` is 3 for a normal distribution."""
    from scipy.stats import norm

    scale = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    return float(norm.cdf((ratio - benchmark) * math.sqrt(days - 1) / math.sqrt(scale)))


def signals_of(records: Sequence[dict], long_only: bool) -> pd.DataFrame:
    """Signals of a forecaster's records: UP is +1, DOWN is -1 (0 when `long_only`), an unreadable answer is NaN."""
    down = 0.0 if long_only else -1.0
    values = {"UP": 1.0, "DOWN": down, None: np.nan}
    frame = pd.DataFrame({"date": [r["date"] for r in records], "ticker": [r["ticker"] for r in records]})
    frame["signal"] = [values[r["direction"]] for r in records]
    frame["date"] = pd.to_datetime(frame["date"])
    return frame.pivot(index="date", columns="ticker", values="signal").sort_index()
