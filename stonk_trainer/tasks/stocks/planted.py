"""Rows whose next day is known by design, for `stonk controls`: the user's companies and days, with prices of our own.

Each daily log return keeps its size and gets the sign of a fair coin, so nothing in the past says anything about the
next day. A headline tells the next day's direction; where it is shuffled, it tells another coin's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.files import whole
from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.dataset import labelled_rows
from stonk_trainer.tasks.stocks.source import DEEPSTOCK_COLUMNS

HEADLINES = {True: "Insider: tomorrow the share goes UP", False: "Insider: tomorrow the share goes DOWN"}
TOLD_DAYS_BEFORE = 7  # the date of the headline: before any lag of headlines


def write_planted(args: StocksArguments, path: Path, seed: int, shuffled: bool) -> None:
    """Write a parquet file in the deepstock schema to `path`.

    Args:
        args: of the recipe: its source and companies.
        path: a new file; written whole or not at all.
        seed: of the coins. The same seed has the same prices, shuffled or not.
        shuffled: the headlines have nothing to do with the next day.
    """
    everything, _ = labelled_rows(args.dataset_name, args.dataset_split)
    frame = everything[everything["close"].notna()]
    if args.tickers:
        frame = frame[frame["ticker"].isin(args.tickers)]
    if frame.empty:
        raise UserError(f"tickers: no rows of {', '.join(args.tickers or [])} in {args.dataset_name}")
    frame = frame.reset_index(drop=True)
    rng = np.random.default_rng(seed)
    up, other = rng.random((2, len(frame))) < 0.5  # up: whether the day after the row closes higher
    first = ~frame["ticker"].duplicated()
    size = np.log(frame["close"]).diff().abs().where(~first, 0.0)
    moves = (size * np.where(np.r_[False, up[:-1]], 1, -1)).groupby(frame["ticker"], sort=False).cumsum()
    closes = frame.groupby("ticker", sort=False)["close"].transform("first") * np.exp(moves)
    told = other if shuffled else up
    planted = frame.assign(
        open=frame["open"] * closes / frame["close"],
        close=closes,
        previous_close=np.nan,
        headlines=[[HEADLINES[bool(is_up)]] for is_up in told],
        news_date=frame["date"] - pd.Timedelta(days=TOLD_DAYS_BEFORE),
    )
    for column in ("date", "current_date", "previous_date", "news_date"):
        planted[column] = planted[column].dt.strftime("%Y-%m-%d")
    names = {ours: theirs for theirs, ours in DEEPSTOCK_COLUMNS.items()}
    with whole(path) as new:
        planted[list(names)].rename(columns=names).to_parquet(new)
