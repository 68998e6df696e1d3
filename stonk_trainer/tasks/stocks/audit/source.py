"""The source a recipe reads: its prices, days that were copied, and whether rows depend on the future."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from stonk_trainer.task import SPLITS, Finding
from stonk_trainer.tasks.stocks import StocksArguments
from stonk_trainer.tasks.stocks.audit.duplicates import headline_tokens, information
from stonk_trainer.tasks.stocks.dataset import in_split, label_rows, records, split_dates


def source_prices(raw: pd.DataFrame) -> pd.DataFrame:
    """Ticker, date, close of a source as read, one row per day. A close that is not certain is NaN, its day stays.

    Not certain: no positive number, a price of a later day than the row's own, a day given twice with two closes.
    """
    day = pd.to_datetime(raw["date"].astype("string").str[:10], errors="coerce", format="%Y-%m-%d")
    said = pd.to_datetime(raw["current_date"].astype("string").str[:10], errors="coerce", format="%Y-%m-%d")
    close = pd.to_numeric(raw["close"], errors="coerce").astype("float64")
    ticker = raw["ticker"].astype("string").str.strip()
    known = (close > 0) & np.isfinite(close) & ~(day > said)
    prices = pd.DataFrame({"ticker": ticker.astype(object), "date": day, "close": close.where(known)})
    prices = prices[prices["date"].notna() & ticker.notna() & (ticker != "")]
    days = prices.groupby(["ticker", "date"], sort=True)["close"]
    return days.first().where(days.nunique() == 1).reset_index()


def copied_days(everything: pd.DataFrame, args: StocksArguments) -> list[Finding]:
    """Days of the source whose headlines, or whose closes over five days, stand again in another split.

    A day's headlines may honestly stand again on the following days (no newer ones), and a headline may come back;
    so it takes all headlines of the day, more information than chance gives the most alike of all pairs of days, and
    the same close, or three headlines with others between.
    """
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
    named = "; ".join(f"{a} and {b}, {what}" for a, b, what in copies[:3])
    more = "; …" if len(copies) > 3 else ""
    message = f"{len(copies):,} days of the source stand again in another split: {named}{more}. Remove the copies"
    return [Finding("copied days", "across", False, message)]


def _copied_headlines(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    shown = frame[frame["news_date"] <= frame["date"]]
    lines = shown["headlines"].map(_lines)
    shown = shown.assign(lines=lines)[lines.map(len) > 0]
    if shown.empty:
        return []
    tokens = headline_tokens(shown["lines"].tolist(), shown["ticker"], shown["date"].to_numpy())
    bits = information(tokens)
    closes = shown["close"].round(4)
    shown = shown.assign(
        text=shown["lines"].map("\n".join),
        bits=[sum(map(bits.__getitem__, held)) for held in tokens],
        close_bits=np.log2(len(shown) / closes.groupby(closes).transform("size")),
    )
    needed = 10 + math.log2(len(shown) ** 2 / 2)
    run = (shown["text"] != shown.groupby("ticker")["text"].shift()).cumsum()  # days in a row with the same headlines
    shown = shown.assign(run=run, length=run.groupby(run).transform("size"))[shown["text"].duplicated(keep=False)]
    same = shown.groupby("text")["split"]
    shown = shown[(same.transform("nunique") > 1) & (shown["bits"] + shown["close_bits"] >= needed)]
    copies = []
    for text, group in shown.groupby("text"):
        rows = group.iloc[:20].to_dict("records")
        for a, b in itertools.combinations(rows, 2):
            apart = abs((a["date"] - b["date"]).days)
            elsewhere = a["run"] != b["run"] and apart > 30 and text.count("\n") >= 2 and a["bits"] >= needed
            # Two headlines that each stay the newest for weeks give many pairs of days, and closes meet by chance.
            same_close = a["close"] == b["close"] and min(a["length"], b["length"]) == 1
            if a["split"] != b["split"] and apart and (same_close or elsewhere):
                what = "same headlines and close" if same_close else "same headlines"
                copies.append((_where(a), _where(b), what))
    return copies


def _lines(headlines: Any) -> list[str]:
    if headlines is None or isinstance(headlines, float):
        return []
    return headlines.split("\n") if isinstance(headlines, str) else list(map(str, headlines))


def _where(row: Mapping[Any, Any]) -> str:
    return f"{row['ticker']} {row['date']:%Y-%m-%d} ({row['split']})"


def _copied_closes(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Closes over five days or more that stand in two splits.

    A window counts when its first close and its moves are worth more bits (-log2 of the share of days with the same)
    than picking one pair of windows, by 10: where prices are coarse, it takes more days.
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
    twice = keys.duplicated(keep=False).to_numpy()
    copies = []
    for _, group in keys[twice].groupby(list(keys.columns)):
        rows = frame.iloc[start[group.index] + days - 1]
        if rows["split"].nunique() > 1 and rows["date"].nunique() > 1:
            a, b = rows.iloc[0], rows[rows["split"] != rows.iloc[0]["split"]].iloc[0]
            copies.append((_where(a), _where(b), f"the same {days} closes"))
    return copies


def previous_closes(everything: pd.DataFrame) -> Finding:
    """Each row's own previous close against the close of that company at `previous_date`."""
    name = "source prices"
    frame = everything[["ticker", "date", "close", "previous_close", "previous_date"]]
    by_company = frame.groupby("ticker", sort=False)["close"]
    frame = frame.assign(day_before=by_company.shift(1), day_after=by_company.shift(-1))
    at = frame[["ticker", "date", "close", "day_before", "day_after"]].rename(columns={"date": "previous_date"})
    said = frame[(frame["previous_close"] > 0) & (frame["previous_date"] < frame["date"])]
    joined = said[["ticker", "previous_date", "previous_close"]].merge(at, on=["ticker", "previous_date"])
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
        n = len(chosen)
        place = after.reset_index().set_index(["ticker", "date"])["index"]
        same_place = place.reindex(pd.MultiIndex.from_frame(chosen[["ticker", "date"]])).to_numpy()
        changed = []
        gone = np.isnan(same_place)
        changed += [f"{row.ticker} {row.date:%Y-%m-%d}: dropped" for row in chosen[gone].itertuples()]
        chosen, counterparts = chosen[~gone], after.loc[same_place[~gone].astype(int)]
        pairs = zip(
            records(before, chosen, fixed, 0.5),
            records(after, counterparts, fixed, 0.5),
            (chosen["next_date"] <= t).tolist(),
            counterparts["usable"].tolist(),
            strict=True,
        )
        for one, other, decided, still in pairs:
            columns = ("prompt", "facts", "label", "next_return") if decided else ("prompt", "facts")
            different = [column for column in columns if one[column] != other[column]]
            different += ["dropped"] if decided and not still else []
            if different:
                changed.append(f"{one['ticker']} {one['date']}: {', '.join(different)}")
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
