"""From a source to training rows: label, split by date, balance or not, draw, render.

The order matters. Labels are joined before anything is filtered, so that "the next trading day" is the market's and
not the next row that happened to survive. Rows are sorted by ticker and date before anything random is drawn, so the
order of the source changes nothing. A row's prompt is made from that row and earlier ones only.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stonk_trainer.errors import UserError, did_you_mean
from stonk_trainer.task import SPLITS, DataSummary
from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.facts import Fact, facts_to_json, financial_facts, history_facts, indicator_facts, usd
from stonk_trainer.tasks.stocks.prompt import mask_identity, render
from stonk_trainer.tasks.stocks.source import read_source

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

HORIZON_DAYS = 7  # a next trading day further away than this is a hole in the data, not a next day
KEPT_DAYS = 61  # closes of the past kept per row: enough for the longest indicator
_SHARES = (0.7, 0.8)  # of the days: where train and validation end when the recipe says auto
_NEVER = "2262-01-01"

# ---------------------------------------------------------------------------------------------------- labels


@functools.lru_cache(maxsize=2)
def labelled_rows(name: str, split: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """All days of a source, sorted by ticker and date, with labels; and how many are not usable, by reason.

    Adds `next_date`, `next_return` (fraction, next trading day's close against the row's), `up` (bool), `last_sign`
    (direction of the last change) and `usable`. A day without a price keeps its place, so that the row before it has
    no label rather than that of two days later. Raises UserError when no row can be used.
    """
    return label_rows(read_source(name, split), name)


def label_rows(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """`labelled_rows` of a frame that was read already, with the columns of `read_source`; `frame` is left as it is."""
    frame = frame.copy()
    counts = {"read": len(frame)}
    raw = frame[["date", "close"]].head(1).astype(str).to_dict("records")
    news_is_dated = frame["news_date"].notna()
    for column in ("date", "current_date", "previous_date", "news_date"):
        frame[column] = pd.to_datetime(frame[column].astype("string").str[:10], errors="coerce", format="%Y-%m-%d")
    for column in ("close", "open", "previous_close", "volume"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    frame["ticker"] = frame["ticker"].astype("string").str.strip().replace("", pd.NA).astype(object)
    frame["current_date"] = frame["current_date"].fillna(frame["date"])
    # Headlines without a date are taken to be of the row's current date; with an unreadable date they are not used.
    frame["news_date"] = frame["news_date"].fillna(frame["current_date"].where(~news_is_dated, pd.Timestamp(_NEVER)))
    # A price of a later day than the row's own is future information.
    priced = (frame["close"] > 0) & np.isfinite(frame["close"]) & (frame["date"] <= frame["current_date"])
    frame["close"] = frame["close"].where(priced)

    placed = frame["date"].notna() & frame["ticker"].notna()
    counts["no date or ticker"] = int((~placed).sum())
    frame = frame[placed].assign(text=frame["headlines"].astype(str) + frame["financials"].astype(str))
    # Beyond ticker and date only to break ties: which of two rows of one day is kept must not depend on the source.
    ties = ["current_date", "close", "open", "previous_close", "news_date", "text"]
    frame = frame.sort_values(["ticker", "date", *ties], kind="stable").drop(columns="text")
    duplicate = frame.duplicated(["ticker", "date"])
    counts["duplicate day"] = int(duplicate.sum())
    frame = frame[~duplicate].reset_index(drop=True)
    if not frame["close"].notna().any():
        raise UserError(f"{name}: no row has a date (YYYY-MM-DD) and a positive close; the first: {raw}")

    following = frame.groupby("ticker", sort=False)[["date", "close"]].shift(-1)
    frame["next_date"] = following["date"]
    frame["next_return"] = following["close"] / frame["close"] - 1
    frame["up"] = frame["next_return"] > 0
    frame["last_sign"] = np.sign(frame["close"] / _previous_close(frame) - 1).fillna(0)
    no_price = frame["close"].isna()
    far = ~((frame["next_date"] - frame["date"]).dt.days <= HORIZON_DAYS)
    no_next = ~no_price & (far | following["close"].isna())
    unchanged = following["close"] == frame["close"]
    counts["no price"] = int(no_price.sum())
    counts["no next day within 7 days"] = int(no_next.sum())
    counts["unchanged next close"] = int((unchanged & ~no_next).sum())
    frame["usable"] = ~(no_price | no_next | unchanged)
    return frame, counts


def _previous_close(frame: pd.DataFrame) -> pd.Series:
    """The close before the row's own: that of the row before, or the row's `previous_close` where that is newer."""
    before = frame.groupby("ticker", sort=False)[["date", "close"]].shift(1)
    known_until = before["date"].where(before["close"].notna())
    own_is_newer = (frame["previous_date"] < frame["date"]) & ~(known_until >= frame["previous_date"])
    return before["close"].where(~own_is_newer, frame["previous_close"])


# ---------------------------------------------------------------------------------------------------- splits


def split_dates(frame: pd.DataFrame, args: StocksArguments) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Where train and validation end: the recipe's days, or for `auto` 70% and 80% of the source's days.

    `frame` holds all companies, whichever a recipe selects: stages that select differently still split alike.
    """
    days = np.sort(frame["date"].unique())
    ends = []
    for key, share in zip(("train_end", "validation_end"), _SHARES, strict=True):
        value = getattr(args, key)
        if value == "auto":
            ends.append(pd.Timestamp(days[max(0, round(share * len(days)) - 1)]))
            continue
        try:
            ends.append(pd.Timestamp(pd.to_datetime(value, format="%Y-%m-%d")))
        except ValueError:
            raise UserError(f"{key}: {value} is neither a day (YYYY-MM-DD) nor auto") from None
    if ends[0] >= ends[1]:
        train, validation = (
            f"{key}: {end:%Y-%m-%d}" + " (auto)" * (getattr(args, key) == "auto")
            for key, end in zip(("train_end", "validation_end"), ends, strict=True)
        )
        raise UserError(f"{train} must lie before {validation}: set both")
    return ends[0], ends[1]


def in_split(frame: pd.DataFrame, args: StocksArguments, split: str) -> pd.Series:
    """Which rows belong to `split`. A row belongs where its outcome is known, so no label crosses a boundary."""
    train_end, validation_end = split_dates(frame, args)
    embargo = pd.Timedelta(days=args.embargo_days)
    if split == "train":
        return frame["next_date"] <= train_end
    if split == "validation":
        return (frame["date"] > train_end + embargo) & (frame["next_date"] <= validation_end)
    if split == "test":
        return frame["date"] > validation_end + embargo
    raise ValueError(f"split {split!r} is not one of {SPLITS}")


# ---------------------------------------------------------------------------------------------------- sampling


def balance(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Stage I: as many UP as DOWN rows within each ticker × month, by dropping rows of the majority at random.

    Dropping at random within the month alone would plant a rule: of n balanced days the day after an UP day is DOWN
    with probability n / (2(n-1)), 53% for a month. So the balance holds within ticker × month × direction of the last
    change, and rows are dropped first where their weekday leans the same way, so that no weekday gives it away.
    """
    rng = np.random.default_rng(seed)
    weekday = frame["date"].dt.day_of_week.to_numpy()
    up = frame["up"].to_numpy()
    lean = np.bincount(weekday, np.where(up, 1, -1), minlength=7)  # UP minus DOWN rows left, per weekday
    keep = np.ones(len(frame), dtype=bool)
    month = frame["date"].dt.to_period("M").astype(str)
    cells = list(frame.groupby([frame["ticker"], month, frame["last_sign"]], sort=True).indices.values())
    for cell in (cells[i] for i in rng.permutation(len(cells))):
        ups = int(up[cell].sum())
        surplus = 2 * ups - len(cell)
        majority = rng.permutation(cell[up[cell] == (surplus > 0)])
        sign = 1 if surplus > 0 else -1
        for _ in range(abs(surplus)):
            worst = np.argmax(sign * lean[weekday[majority]])
            row = majority[worst]
            majority = np.delete(majority, worst)
            keep[row] = False
            lean[weekday[row]] -= sign
    return frame[keep]


def draw(frame: pd.DataFrame, count: int | None, seed: int, balanced: bool) -> pd.DataFrame:
    """`count` rows at random over tickers and dates (all when None); when `balanced`, half of them UP."""
    if count is None or count >= len(frame):
        return frame
    rng = np.random.default_rng(seed)
    if not balanced:
        return frame.iloc[np.sort(rng.choice(len(frame), count, replace=False))]
    ups, downs = np.flatnonzero(frame["up"]), np.flatnonzero(~frame["up"])
    wanted_up = min(count // 2 + int(rng.integers(2)) * (count % 2), len(ups))
    chosen = [rng.choice(ups, wanted_up, replace=False), rng.choice(downs, count - wanted_up, replace=False)]
    return frame.iloc[np.sort(np.concatenate(chosen))]


# ---------------------------------------------------------------------------------------------------- rows


def rl_rows(args: StocksArguments, split: str) -> tuple[Dataset, DataSummary]:
    """(the rows of `split`, what was kept and dropped), which also goes to the log.

    Columns: prompt (messages), label ("UP"/"DOWN"), next_return (fraction), facts (JSON list), base_rate_up (share of
    UP in the training rows of this distribution), ticker, date (ISO). Stage I balances train and validation; test is
    always the natural distribution. Raises UserError for an empty split.
    """
    from datasets import Dataset

    everything, counts = labelled_rows(args.dataset_name, args.dataset_split)
    train_end, validation_end = split_dates(everything, args)
    usable = _of_tickers(everything[everything["usable"]], args)
    rows = usable[in_split(everything, args, split)[usable.index]]
    if rows.empty:
        auto = "auto" in (args.train_end, args.validation_end)
        raise UserError(
            f"the {split} split is empty: {len(usable)} usable rows run from {_day(usable['date'].min())} to "
            f"{_day(usable['date'].max())}, train_end is {_day(train_end)}, validation_end {_day(validation_end)}: "
            + (
                "auto needs about 100 days; give more, or set the days"
                if auto
                else "set them within that range, or auto"
            )
        )
    balanced = _is_balanced(args, split)
    rows_in_split, after_balancing = len(rows), None
    if balanced:
        rows = balance(rows, args.sampling_seed)
        after_balancing = len(rows)
        if rows.empty:
            raise UserError(
                f"the {split} split is empty after balancing: give more rows, or natural_distribution: true"
            )
    wanted = args.max_train_samples if split == "train" else args.max_eval_samples
    rows = draw(rows, wanted, args.sampling_seed, balanced)
    days = _day(rows["date"].min()), _day(rows["date"].max())
    dropped = {reason: count for reason, count in counts.items() if count and reason != "read"}
    summary = DataSummary(rows_in_split, len(rows), after_balancing, *days, float(rows["up"].mean()), dropped)
    log.info("%s: %s", split, summary)
    return Dataset.from_list(records(everything, rows, args, base_rate_up(args, split))), summary


def base_rate_up(args: StocksArguments, split: str) -> float:
    """Share of UP in the training rows, distributed as those of `split` are: 0.5 where these are balanced."""
    everything, _ = labelled_rows(args.dataset_name, args.dataset_split)
    usable = _of_tickers(everything[everything["usable"]], args)
    train = usable[in_split(everything, args, "train")[usable.index]]
    return 0.5 if _is_balanced(args, split) or train.empty else float(train["up"].mean())


def split_of_day(args: StocksArguments, day: str) -> str:
    """The split whose distribution a day has: test after `validation_end`, else train."""
    everything, _ = labelled_rows(args.dataset_name, args.dataset_split)
    return "test" if pd.Timestamp(day) > split_dates(everything, args)[1] else "train"


def _is_balanced(args: StocksArguments, split: str) -> bool:
    return not args.natural_distribution and split != "test"


def rows_to_forecast(args: StocksArguments, first: str | None, last: str | None) -> list[dict]:
    """Rows with the columns of `rl_rows`, whether or not it is known what came after: label and next_return are None
    where it is not; where the close did not change, label is None and next_return 0.

    Every priced day from `first` to `last` (ISO days, None: no bound); each company's last day when both are None.
    base_rate_up: share of UP among the company's days whose outcome was known at that day's close; 0.5 before any was.
    Raises UserError when there is no such row.
    """
    everything, _ = labelled_rows(args.dataset_name, args.dataset_split)
    priced = _of_tickers(everything[everything["close"].notna()], args)
    if first is None and last is None:
        rows = priced.groupby("ticker").tail(1)
    else:
        day = priced["date"]
        rows = priced[(day >= pd.Timestamp(first or "1677-09-22")) & (day <= pd.Timestamp(last or _NEVER))]
    if rows.empty:
        days = f"{_day(priced['date'].min())} to {_day(priced['date'].max())}"
        before = priced["date"][priced["date"] <= pd.Timestamp(last or _NEVER)].max()
        near = "" if pd.isna(before) else f"; the last day with prices before is {_day(before)}"
        raise UserError(
            f"no day to forecast from {first or 'the first'} to {last or 'the last'}: {days} has prices{near}"
        )
    if args.train_end != "auto" and _day(rows["date"].min()) <= args.train_end:
        log.warning("days up to %s may be training days: the model may have learnt their outcomes", args.train_end)
    outcome = everything["up"].astype(float).where(everything["usable"])
    of_company = pd.DataFrame({"ups": outcome.fillna(0), "known": outcome.notna()}).groupby(everything["ticker"])
    ups, known = (of_company[name].transform(lambda days: days.cumsum().shift(1)) for name in ("ups", "known"))
    return records(everything, rows, args, (ups / known.where(known > 0)).fillna(0.5))


def records(
    everything: pd.DataFrame, rows: pd.DataFrame, args: StocksArguments, base_rate: float | pd.Series
) -> list[dict]:
    """The columns of `rl_rows` for `rows`, a selection (by index) of the labelled frame `everything`.

    base_rate: of UP, one for all rows or by index. label and next_return are None where a row's outcome is not usable;
    of an unchanged close next_return is 0.
    """
    histories = _History(everything)
    made = []
    for index, row in zip(rows.index, rows.to_dict("records"), strict=True):
        facts, year = row_facts(row, *histories.until(index), args)
        known = row["usable"]
        is_unchanged = row["next_return"] == 0 and (row["next_date"] - row["date"]).days <= HORIZON_DAYS
        made.append(
            {
                "prompt": render(facts, year),
                "label": ("UP" if row["up"] else "DOWN") if known else None,
                "next_return": float(row["next_return"]) if known or is_unchanged else None,
                "facts": facts_to_json(facts),
                "base_rate_up": base_rate if isinstance(base_rate, float) else float(base_rate[index]),
                "ticker": row["ticker"],
                "date": _day(row["date"]),
            }
        )
    return made


def _of_tickers(rows: pd.DataFrame, args: StocksArguments) -> pd.DataFrame:
    if not args.tickers:
        return rows
    unknown = set(args.tickers) - set(rows["ticker"])
    if unknown:
        hint = did_you_mean(min(unknown), set(rows["ticker"]))
        raise UserError(f"tickers: {', '.join(sorted(unknown))} not in {args.dataset_name}{hint}")
    return rows[rows["ticker"].isin(args.tickers)]


def _day(timestamp: pd.Timestamp) -> str:
    return f"{timestamp:%Y-%m-%d}" if not pd.isna(timestamp) else "(none)"


class _History:
    """Days and closes of a row's company up to and including that row."""

    def __init__(self, frame: pd.DataFrame):
        self._days = frame["date"].to_numpy()
        self._closes = frame["close"].to_numpy()
        self._previous = frame["previous_close"].to_numpy(), frame["previous_date"].to_numpy()
        ticker = frame["ticker"].to_numpy()
        starts = np.r_[True, ticker[1:] != ticker[:-1]]
        self._first = np.maximum.accumulate(np.where(starts, np.arange(len(frame)), 0))

    def until(self, index: int) -> tuple[list, list]:
        """(days, closes), oldest first. A previous close that only the row itself knows is put in its place."""
        start = max(self._first[index], index + 1 - KEPT_DAYS)
        closes = self._closes[start : index + 1]
        priced = ~np.isnan(closes)
        days, closes = list(self._days[start : index + 1][priced]), list(closes[priced])
        close, day = self._previous[0][index], self._previous[1][index]
        known_until = days[-2] if len(days) > 1 else np.datetime64("0001-01-01")
        if close > 0 and known_until < day < days[-1]:
            days.insert(-1, day)
            closes.insert(-1, close)
        return days, closes


def row_facts(row: dict, days: list, closes: list, args: StocksArguments) -> tuple[list[Fact], str | None]:
    """The facts of one row, in prompt order, and the year of its financials if any are shown.

    `days`, `closes`: the company's past up to the row, oldest first. What is later than the row's date is skipped:
    financials of a year that has not ended, headlines of a later day.
    """
    names = [_text(row["name"]), _text(row["ticker"])]
    company = "a listed company" if args.anonymise else names[0] or names[1]
    facts = [Fact("company", company, "text", company)]
    if not args.anonymise:
        if names[0]:
            facts.append(Fact("ticker", names[1], "text", names[1]))
        if description := _text(row["description"]):
            facts.append(Fact("description", description, "text", description))
        facts.append(Fact("date", _day(row["date"]), "date", _day(row["date"])))
    facts += history_facts(closes, args.history_days)
    if row["open"] > 0:
        facts.append(usd("open", row["open"]))
    facts.append(usd("close", row["close"]))
    facts += indicator_facts(args.indicators, days, closes, row["volume"])

    year = _text(row["financial_year"]).removesuffix(".0")
    shown_year = None
    if args.max_financials and year and _known_from(year, args.financials_lag_days) <= row["date"]:
        financials = financial_facts(_line_items(row["financials"]), args.max_financials)
        facts += financials
        shown_year = year if financials and not args.anonymise else None
    if args.max_headlines and row["news_date"] <= row["date"]:
        texts = _headlines(row["headlines"])[: args.max_headlines]
        if args.anonymise:
            texts = [mask_identity(text, *names) for text in texts]
        facts += [Fact(f"headline_{i}", text, "text", text) for i, text in enumerate(texts, start=1)]
    return facts, shown_year


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)) else str(value)


def _known_from(year: str, lag_days: int) -> pd.Timestamp:
    """First day on which figures of `year` are known: `lag_days` after that day, or after the end of a bare year.

    Anything else ("2020-Q2") is never known, because the day it ends would be a guess.
    """
    form = r"\d{4}-\d{2}-\d{2}([ T].*)?"
    ends = f"{year}-12-31" if re.fullmatch(r"\d{4}", year) else year[:10] if re.fullmatch(form, year) else _NEVER
    known = pd.to_datetime(ends, errors="coerce")
    return pd.Timestamp(_NEVER) if pd.isna(known) else known + pd.Timedelta(days=lag_days)


def _line_items(items: object) -> dict:
    """The line items, which upstream keeps as a JSON string; none where they are neither that nor a mapping."""
    if isinstance(items, dict):
        return items
    try:
        items = json.loads(_text(items) or "{}")
    except json.JSONDecodeError:
        return {}
    return items if isinstance(items, dict) else {}


def _headlines(value: Any) -> list[str]:
    """Headlines as single lines; a lone string is one headline."""
    if value is None or isinstance(value, float):
        return []
    texts = [value] if isinstance(value, str) else value
    return [" ".join(str(text).split()) for text in texts if text and str(text).strip()]
