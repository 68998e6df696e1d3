"""The source that a recipe reads: its prices, copied days, and whether rows depend on the future."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from stonk_trainer.task import SPLITS, Finding
from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.audit.duplicates import headline_tokens, information
from stonk_trainer.tasks.stocks.dataset import in_split, label_rows, records, split_dates


def source_prices(raw: pd.DataFrame) -> pd.DataFrame:
    """Ticker, date and close of a source as read, one row per day. An uncertain close is NaN, its day is kept.

    Uncertain: not a positive number, a price of a later day than the row's own, a duplicate day with another close.
    """
    day = pd.to_datetime(raw["date"].astype("string").str[:10], errors="coerce", format="%Y-%m-%d")
    current = pd.to_datetime(raw["current_date"].astype("string").str[:10], errors="coerce", format="%Y-%m-%d")
    close = pd.to_numeric(raw["close"], errors="coerce").astype("float64")
    ticker = raw["ticker"].astype("string").str.strip()
    known = (close > 0) & np.isfinite(close) & ~(day > current)
    prices = pd.DataFrame({"ticker": ticker.astype(object), "date": day, "close": close.where(known)})
    prices = prices[prices["date"].notna() & ticker.notna() & (ticker != "")]
    days = prices.groupby(["ticker", "date"], sort=True)["close"]
    return days.first().where(days.nunique() == 1).reset_index()


def copied_days(everything: pd.DataFrame, args: StocksArguments) -> list[Finding]:
    """Days of the source whose headlines and close, or whose closes over five days, are repeated in another split."""
    usable = everything[everything["usable"]]
    split = pd.Series("", index=usable.index)
    for name in SPLITS:
        split[in_split(everything, args, name)[usable.index]] = name
    frame = usable.assign(split=split)[split != ""]
    if args.tickers:
        frame = frame[frame["ticker"].isin(args.tickers)]
    copies = [*_copied_headlines(frame), *_copied_closes(frame)]
    n = len(frame)
    if not copies:
        return [Finding("copied days", "across", True, f"none among {n:,} days of the source")]
    named = "; ".join(copies[:3]) + ("; …" if len(copies) > 3 else "")
    message = f"{len(copies):,} days of the source are repeated in another split: {named}. Remove the copies"
    return [Finding("copied days", "across", False, message)]


def _copied_headlines(frame: pd.DataFrame) -> list[str]:
    """Days in two splits with the same headlines and close.

    A day's headlines may honestly be repeated on the following days (there are no newer ones), and a headline may come
    back. So a copy must hold more information than chance gives the most alike of all pairs of days, and one of its
    days must be the only one in a row with these headlines: of two that each stay for weeks, closes meet by chance.
    """
    shown = frame[frame["news_date"] <= frame["date"]]
    lines = shown["headlines"].map(_lines)
    shown = shown.assign(lines=lines)[lines.map(len) > 0]
    if shown.empty:
        return []
    tokens = headline_tokens(shown["lines"].tolist(), shown["ticker"], shown["date"].to_numpy())
    bits = information(tokens)
    shown = shown.assign(text=shown["lines"].map("\n".join), close=shown["close"].round(4))
    run = (shown["text"] != shown.groupby("ticker")["text"].shift()).cumsum()  # days in a row with the same headlines
    shown = shown.assign(days_in_a_row=run.groupby(run).transform("size"))
    close_bits = np.log2(len(shown) / shown.groupby("close")["close"].transform("size"))
    worth = close_bits + [sum(map(bits.__getitem__, held)) for held in tokens]
    shown = shown[worth >= 10 + math.log2(len(shown) ** 2 / 2)]
    return [
        _named(days, "the same headlines and close")
        for _, days in shown.groupby(["text", "close"])
        if days["split"].nunique() > 1 and days["days_in_a_row"].min() == 1
    ]


def _lines(headlines: Any) -> list[str]:
    if headlines is None or isinstance(headlines, float):
        return []
    return headlines.split("\n") if isinstance(headlines, str) else list(map(str, headlines))


def _named(days: pd.DataFrame, what: str) -> str:
    """The first of the days, and the first of them in another split."""
    pair = days.iloc[0], days[days["split"] != days.iloc[0]["split"]].iloc[0]
    return " and ".join(f"{day['ticker']} {day['date']:%Y-%m-%d} ({day['split']})" for day in pair) + f", {what}"


def _copied_closes(frame: pd.DataFrame) -> list[str]:
    """Windows of five days or more with the same closes in two splits.

    A window counts when the information of its first close and its moves (-log2 of the share of days with the same)
    exceeds that of picking one pair of windows by 10 bits: where prices are coarse, it takes more days.
    """
    ticker = frame["ticker"].to_numpy()
    close = frame["close"].round(4).to_numpy()
    if len(close) < 5:
        return []
    moves = pd.Series(np.diff(close).round(4))
    moves[ticker[1:] != ticker[:-1]] = np.nan
    if moves.isna().all():
        return []
    move_bits = np.log2(moves.notna().sum() / moves.groupby(moves).transform("size")).to_numpy()
    level_bits = np.log2(len(close) / pd.Series(close).groupby(close).transform("size")).to_numpy()
    needed = 10 + math.log2(len(close) ** 2 / 2)
    days = max(5, 1 + math.ceil((needed - level_bits.mean()) / max(np.nanmean(move_bits), 1)))
    if len(close) < days:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(close, days)
    worth = np.lib.stride_tricks.sliding_window_view(move_bits, days - 1).sum(axis=1)  # NaN across two companies
    worth = worth + level_bits[: len(worth)]
    start = np.flatnonzero(worth >= needed)
    keys = pd.DataFrame(windows[start])
    repeated = keys.duplicated(keep=False).to_numpy()
    groups = [frame.iloc[start[group.index] + days - 1] for _, group in keys[repeated].groupby(list(keys.columns))]
    return [
        _named(rows, f"the same {days} closes")
        for rows in groups
        if rows["split"].nunique() > 1 and rows["date"].nunique() > 1
    ]


def previous_closes(everything: pd.DataFrame) -> Finding:
    """Each row's own previous close against the close of that company at `previous_date`."""
    name = "source prices"
    frame = everything[["ticker", "date", "close", "previous_close", "previous_date"]]
    by_company = frame.groupby("ticker", sort=False)["close"]
    frame = frame.assign(day_before=by_company.shift(1), day_after=by_company.shift(-1))
    at = frame[["ticker", "date", "close", "day_before", "day_after"]].rename(columns={"date": "previous_date"})
    given = frame[(frame["previous_close"] > 0) & (frame["previous_date"] < frame["date"])]
    joined = given[["ticker", "previous_date", "previous_close"]].merge(at, on=["ticker", "previous_date"])
    joined = joined[joined["close"].notna()]
    if len(joined) < 20:
        return Finding(name, "source", None, "the source gives no previous closes to compare with")
    agree = {
        column: float((np.abs(joined[column] / joined["previous_close"] - 1) < 0.001).mean())
        for column in ("close", "day_before", "day_after")
    }
    message = f"{agree['close']:.1%} of {len(joined):,} previous closes equal the close of their day"
    if agree["close"] >= 0.95:
        return Finding(name, "source", True, message)
    if agree["day_before"] > max(0.5, agree["close"]):
        message += f", {agree['day_before']:.1%} that of the day before it: the close column runs one day ahead"
    elif agree["day_after"] > max(0.5, agree["close"]):
        message += f", {agree['day_after']:.1%} that of the day after it: the close column lags by one day"
    return Finding(name, "source", False, message + "; put each price on its own day")


def future_perturbation(
    raw: pd.DataFrame, everything: pd.DataFrame, args: StocksArguments, count: int
) -> list[Finding]:
    """Replace all data after a day t in the middle of each split, and rebuild the rows up to t: nothing may differ.

    The row of t itself may change its label, because its outcome lies after t. At most 40 companies, and per split
    `count` rows: half of them the last before t, half drawn from the rest.
    """
    name = "future data"
    rng = np.random.default_rng(args.sampling_seed)
    usable = everything[everything["usable"]]
    tickers = np.sort((usable[usable["ticker"].isin(args.tickers)] if args.tickers else usable)["ticker"].unique())
    tickers = rng.choice(tickers, min(40, len(tickers)), replace=False)
    raw = raw[raw["ticker"].astype("string").str.strip().isin(tickers)]
    before, _ = label_rows(raw, args.dataset_name)
    train_end, validation_end = (f"{day:%Y-%m-%d}" for day in split_dates(everything, args))
    fixed = replace(args, train_end=train_end, validation_end=validation_end)
    findings = []
    for split in SPLITS:
        days = before["date"][before["usable"] & in_split(before, fixed, split)]
        if days.empty:
            findings.append(Finding(name, split, None, "the companies drawn have no rows in it"))
            continue
        t = pd.Timestamp(np.sort(days.unique())[days.nunique() // 2])
        after, _ = label_rows(_with_another_future(raw, t, rng), args.dataset_name)
        past = before[before["usable"] & (before["date"] <= t)].sort_values("date", kind="stable")
        half = count // 2
        recent, older = past.iloc[-half:], past.iloc[:-half]
        chosen = pd.concat([recent, older.sample(min(half, len(older)), random_state=args.sampling_seed)])
        n, changed = len(chosen), _changed(before, chosen, after, t, fixed)
        if changed:
            message = (
                f"{len(changed):,} of {n:,} rows up to {t:%Y-%m-%d} changed with the data after that day, the first "
                f"{changed[0]}: rows must be built from their own past only"
            )
            findings.append(Finding(name, split, False, message))
        else:
            message = f"{n:,} rows up to {t:%Y-%m-%d} stay the same when all data after that day is replaced"
            findings.append(Finding(name, split, True, message))
    return findings


def _changed(
    before: pd.DataFrame, chosen: pd.DataFrame, after: pd.DataFrame, t: pd.Timestamp, args: StocksArguments
) -> list[str]:
    """Which of the rows `chosen` of `before` differ in `after`, and in what; those whose outcome is after day `t` may
    have another label."""
    index_after = after.reset_index().set_index(["ticker", "date"])["index"]
    counterpart = index_after.reindex(pd.MultiIndex.from_frame(chosen[["ticker", "date"]])).to_numpy()
    gone = np.isnan(counterpart)
    changed = [f"{row.ticker} {row.date:%Y-%m-%d}: dropped" for row in chosen[gone].itertuples()]
    chosen, counterparts = chosen[~gone], after.loc[counterpart[~gone].astype(int)]
    for one, other, is_decided, is_usable in zip(
        records(before, chosen, args, 0.5),
        records(after, counterparts, args, 0.5),
        (chosen["next_date"] <= t).tolist(),
        counterparts["usable"].tolist(),
        strict=True,
    ):
        columns = ("prompt", "facts", "label", "next_return") if is_decided else ("prompt", "facts")
        different = [column for column in columns if one[column] != other[column]]
        different += ["dropped"] if is_decided and not is_usable else []
        if different:
            changed.append(f"{one['ticker']} {one['date']}: {', '.join(different)}")
    return changed


def _with_another_future(raw: pd.DataFrame, t: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """The source with prices, volume, headlines, texts and figures of all rows after day `t` replaced."""
    raw = raw.copy()
    later = (pd.to_datetime(raw["date"].astype("string").str[:10], errors="coerce", format="%Y-%m-%d") > t).to_numpy()
    n = int(later.sum())
    for column in ("close", "open", "previous_close", "volume"):
        values = pd.to_numeric(raw[column], errors="coerce").astype("float64")
        values[later] *= rng.uniform(0.5, 2.0, n)
        raw[column] = values
    texts = [f"Another future {number}" for number in rng.integers(1_000_000, size=n)]
    for column, values in (
        ("headlines", [[text] for text in texts]),
        ("financials", [json.dumps({"Revenues": int(number)}) for number in rng.integers(1, 10**9, n)]),
        ("name", texts),
        ("description", texts),
    ):
        replaced = raw[column].astype(object)
        replaced[later] = pd.Series(values, index=raw.index[later], dtype=object)
        raw[column] = replaced
    return raw
