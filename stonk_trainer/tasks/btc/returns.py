"""Close-to-close log returns of one or many assets, their scale, and parts of them by date.

A return belongs to the day of its close: whatever is dated up to a day was known at that day's close.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.prices import read_price_csv

log = logging.getLogger(__name__)

EMBEDDED = "embedded:markets"
_ASSETS = ("sp500_closes.csv.gz", "crypto_closes.csv.gz")

# Days from one close to the next: beyond the first number a gap gives a warning, beyond the second an error. Markets
# with weekends close for 5 days over holidays now and then, for 7 after 11 September 2001, for 11 at most (New Year in
# Shanghai, the golden week of 2019 in Tokyo).
_GAPS_EVERY_DAY = (1, 10)
_GAPS_WITH_WEEKENDS = (5, 14)
_MIN_RETURNS = 30  # for a standard deviation: its error is then 13%


@dataclass(frozen=True)
class Series:
    """Log returns of one asset; its prices are `first_close * exp(cumsum(returns))`."""

    name: str
    dates: np.ndarray  # (n,) datetime64[D], ascending: the day of each return's close
    returns: np.ndarray  # (n,) float64, ln(close / close before)
    first_close: float  # the close before the first return


def load_series(source: str, tickers: list[str] | None = None) -> list[Series]:
    """The series of `source`: all, or those of `tickers` in that order when any are given.

    `source` is `embedded:markets` (20 S&P 500 companies, BTC, ETH and LTC), a CSV file as `read_price_csv` reads it (of
    one ticker or several), or a folder of such files. Missing days are reported in one warning per series; the return
    across a gap counts as one step. Raises UserError for what cannot be read, a ticker that is missing or is in two
    files, a series of a single close, and a gap too long to be one step.
    """
    closes = _embedded_closes() if source == EMBEDDED else _closes_of_files(source)
    if tickers:
        unknown = next((ticker for ticker in tickers if ticker not in closes), None)
        if unknown is not None:
            raise UserError(f"{source} has no ticker {unknown}; it has {_nearest_first(unknown, list(closes))}")
        closes = {ticker: closes[ticker] for ticker in tickers}
    return [_series(name, days, source) for name, days in closes.items()]


def _embedded_closes() -> dict[str, pd.Series]:
    closes: dict[str, pd.Series] = {}
    for asset in _ASSETS:
        with resources.as_file(resources.files("stonk_trainer") / "assets" / asset) as path:
            wide = pd.read_csv(path, parse_dates=["Date"], index_col="Date")
        closes |= {name: wide[name].dropna() for name in wide}
    return closes


def _closes_of_files(source: str) -> dict[str, pd.Series]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith("."))
        if not files:
            raise UserError(f"{source} has no CSV file")
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"{source} not found: give a CSV file, a folder of CSV files, or {EMBEDDED}")
    closes: dict[str, pd.Series] = {}
    home: dict[str, Path] = {}  # the file of each
    for file in files:
        for name, frame in read_price_csv(file).groupby("ticker", sort=False):
            if name in closes:
                raise UserError(f"{source}: {name} is in {home[name].name} and in {file.name}: keep one of them")
            closes[name], home[name] = frame.set_index("date")["close"].sort_index(), file
    return closes


def _nearest_first(ticker: str, known: list[str]) -> str:
    nearest = sorted(known, key=lambda name: -difflib.SequenceMatcher(None, ticker.lower(), name.lower()).ratio())
    return ", ".join(nearest[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")


def _series(name: str, closes: pd.Series, source: str) -> Series:
    """`closes` by day, ascending, positive."""
    if len(closes) < 2:
        raise UserError(f"{source}: {name} has one close ({closes.index[0]:%Y-%m-%d}): a return needs two")
    days = closes.index.to_numpy().astype("datetime64[D]")
    _check_gaps(name, days, source)
    prices = closes.to_numpy(dtype=np.float64)
    return Series(name=name, dates=days[1:], returns=np.diff(np.log(prices)), first_close=float(prices[0]))


def _check_gaps(name: str, days: np.ndarray, source: str) -> None:
    steps = np.diff(days).astype(int)
    at_weekends = np.mean(~np.is_busday(days))  # 2/7 when every day is traded, 1/6 from Sunday to Friday
    usual, longest = _GAPS_EVERY_DAY if at_weekends > 0.25 else _GAPS_WITH_WEEKENDS
    worst = int(np.argmax(steps))
    if steps[worst] > longest:
        raise UserError(
            f"{source}: {name} has no close between {days[worst]} and {days[worst + 1]}, {steps[worst]} days apart: "
            "fill in what is missing, or cut the file there and keep one part"
        )
    gaps = np.flatnonzero(steps > usual)
    if gaps.size:
        first, after = days[gaps[0]], days[gaps[0] + 1]
        found = f"{gaps.size} gap{'s' * (gaps.size > 1)} without a close, the first from {first} to {after}"
        log.warning("%s: %s; the return across a gap counts as one step", name, found)


def returns_between(series: Series, after: str | None = None, until: str | np.datetime64 | None = None) -> np.ndarray:
    """The returns dated in (`after`, `until`], possibly none; None: no bound."""
    low = 0 if after is None else np.searchsorted(series.dates, np.datetime64(after), side="right")
    high = len(series.dates) if until is None else np.searchsorted(series.dates, np.datetime64(until), side="right")
    return series.returns[low:high]


def scale_of(series: Series, train_end: str | np.datetime64) -> float:
    """Sample standard deviation of the returns dated up to `train_end`: nothing later enters the normalisation.

    Raises UserError when these are fewer than 30, or never change.
    """
    returns = returns_between(series, until=train_end)
    if len(returns) < _MIN_RETURNS:
        raise UserError(
            f"{series.name} has {len(returns)} returns up to {train_end} (it runs from {series.dates[0]} to "
            f"{series.dates[-1]}), and its scale needs {_MIN_RETURNS}: give earlier prices, a later end of training, "
            "or leave it out"
        )
    scale = float(np.std(returns, ddof=1))
    if not scale > 1e-12:  # equal returns differ by rounding
        raise UserError(
            f"{series.name} never moves up to {train_end} (its returns are all {returns[0]:g}): leave it out"
        )
    return scale


def scale_before(series: Series, train_end: str, day: int) -> float:
    """`scale_of` the training days; of the days up to the one at index `day` where a series has too few of those."""
    enough = len(returns_between(series, until=train_end)) >= _MIN_RETURNS
    return scale_of(series, train_end if enough else series.dates[day])
