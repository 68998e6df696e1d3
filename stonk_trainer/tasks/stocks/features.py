"""The features of classical models: numbers per company and day, from the same past that the prompts show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.dataset import in_split, labelled_rows

CHANGES = (1, 2, 3, 5, 10, 20)  # trading days
AVERAGES = (5, 20)
VOLATILITIES = (5, 20)


def feature_table(args: StocksArguments, split: str) -> pd.DataFrame:
    """All usable rows of `split`, at the market's own distribution, sorted by ticker and date.

    Columns: ticker, date (ISO), label ("UP"/"DOWN"), next_return (fraction), and features, whose names start with `x_`
    (float64, NaN where the history is too short): changes over 1 to 20 days, distance from the 5- and 20-day average,
    volatility over 5 and 20 days, the change of the day averaged over all companies, volume against its 20-day average
    where there is volume, and the weekday. Fractions throughout. Nothing looks past the row's date.
    """
    frame, _ = labelled_rows(args.dataset_name, args.dataset_split)
    chosen = frame["usable"] & in_split(frame, args, split)
    if args.tickers:
        chosen &= frame["ticker"].isin(args.tickers)
    close = frame.groupby("ticker", sort=False)["close"]
    features = {f"x_change_{n}d": frame["close"] / close.shift(n) - 1 for n in CHANGES}
    for n in AVERAGES:
        mean = close.rolling(n).mean().reset_index(level=0, drop=True)
        features[f"x_above_sma_{n}"] = frame["close"] / mean - 1
    daily = features["x_change_1d"].groupby(frame["ticker"], sort=False)
    for n in VOLATILITIES:
        features[f"x_volatility_{n}d"] = daily.rolling(n).std().reset_index(level=0, drop=True)
    features["x_market_change_1d"] = features["x_change_1d"].groupby(frame["date"]).transform("mean")
    if frame["volume"].notna().any():
        usual = frame.groupby("ticker", sort=False)["volume"].rolling(20).mean().reset_index(level=0, drop=True)
        features["x_volume"] = frame["volume"] / usual - 1
    for number, day in enumerate(("monday", "tuesday", "wednesday", "thursday", "friday")):
        features[f"x_{day}"] = (frame["date"].dt.day_of_week == number).astype(float)
    table = pd.DataFrame(features)[chosen].replace([np.inf, -np.inf], np.nan)
    rows = frame[chosen]
    table.insert(0, "ticker", rows["ticker"])
    table.insert(1, "date", rows["date"].dt.strftime("%Y-%m-%d"))
    table.insert(2, "label", np.where(rows["up"], "UP", "DOWN"))
    table.insert(3, "next_return", rows["next_return"])
    return table.reset_index(drop=True)


def closes(args: StocksArguments) -> pd.DataFrame:
    """Closes of the companies of `args`: a row per day (DatetimeIndex), a column per ticker, NaN without a price."""
    frame, _ = labelled_rows(args.dataset_name, args.dataset_split)
    if args.tickers:
        frame = frame[frame["ticker"].isin(args.tickers)]
    return frame.pivot(index="date", columns="ticker", values="close")
