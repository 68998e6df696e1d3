"""Rows of all splits in one table: their texts, the numbers and dates in them, and the closes around each row."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.stocks.dataset import HORIZON_DAYS
from stonk_trainer.tasks.stocks.prompt import FORM
from stonk_trainer.tasks.stocks.row import check_row

PAST, FUTURE = 62, 16  # closes looked at per row: t back to t-61 (all a prompt may show), t+1 to t+16
_NEEDED = ("prompt", "label", "ticker", "date")
_Closes = dict[str, tuple[np.ndarray, np.ndarray]]  # by ticker: closes and their days, oldest first


class Rows:
    """Rows of all splits in one table, their texts and facts, and the closes and days around each row.

    Attributes:
        table: split, ticker, date, up, next_return (fraction or NaN), base_rate_up (or NaN).
        texts: prompts without what nearly all share, and without dates.
        dates_shown: the dates in the prompts; columns row, year (0: not shown), month, day.
        facts: of each row, as mappings of name, value, unit and shown.
        past: (N, 62) closes of t, t-1, …; NaN where there is no price.
        future: (N, 16) closes of t+1, …; likewise.
        future_days: (N, 16) their days; NaT where not known.
        outcome_days: (N,) the first of these; the next weekday where it is not known.
        from_facts: whether the closes are those of the rows' facts, for want of prices.
    """

    def __init__(self, splits: Mapping[str, Sequence[Mapping[str, Any]]], prices: pd.DataFrame | None):
        self.splits = [split for split in splits if len(splits[split])]
        if not self.splits:
            raise UserError("audit: there are no rows")
        split_of, checked = [], []
        for split in self.splits:
            for number, row in enumerate(splits[split], start=1):
                checked.append(check_row(row, f"audit: row {number} ({split})", _NEEDED))
                split_of.append(split)
        dates = [str(row["date"])[:10] for row in checked]
        self.table = pd.DataFrame(
            {
                "split": split_of,
                "ticker": [row["ticker"] for row in checked],
                "date": pd.to_datetime(dates, errors="coerce", format="%Y-%m-%d"),
                "up": [row["label"] == "UP" for row in checked],
                "next_return": np.array([row.get("next_return") for row in checked], dtype=float),
                "base_rate_up": np.array([row.get("base_rate_up") for row in checked], dtype=float),
            }
        )
        if self.table["date"].isna().any():
            raise UserError("audit: a row's date is not YYYY-MM-DD")
        self.facts = [json.loads(row["facts"]) for row in checked]
        prompts = _without_template([_text_of(row["prompt"]) for row in checked])
        self.texts, self.dates_shown = _without_dates(prompts)
        self.from_facts = prices is None
        closes = _closes_of_facts(self.table, self.facts) if prices is None else _closes_of_prices(prices)
        self.past, self.future, self.future_days = _around(self.table, closes)
        if prices is not None and np.isnan(self.past[:, 0]).all():
            raise UserError(
                f"audit: the prices ({', '.join(list(closes)[:3])}) hold no ticker and day of the rows "
                f"({', '.join(self.table['ticker'].unique()[:3])}): check their ticker column and their dates"
            )
        self.days = self.table["date"].to_numpy().astype("datetime64[D]")
        with np.errstate(invalid="ignore"):
            gap = (self.future_days[:, 0] - self.days) / np.timedelta64(1, "D")
        self.across_a_gap = gap > HORIZON_DAYS
        self.future[self.across_a_gap] = np.nan
        next_weekday = np.busday_offset(self.days, 1, roll="backward")
        self.outcome_days = np.where(np.isnat(self.future_days[:, 0]), next_weekday, self.future_days[:, 0])

    def of(self, split: str) -> np.ndarray:
        """(N,) which rows belong to a split."""
        return (self.table["split"] == split).to_numpy()

    def name(self, index: int) -> str:
        """What a message calls a row: its ticker and day."""
        return f"{self.table['ticker'][index]} {self.days[index]}"


def _text_of(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def _closes_of_prices(prices: pd.DataFrame) -> _Closes:
    """Closes of a price frame, which lists every trading day."""
    missing = {"ticker", "date", "close"} - set(prices)
    if missing:
        raise UserError(f"audit: the prices lack the column {', '.join(sorted(missing))}")
    prices = prices.assign(date=pd.to_datetime(prices["date"]), ticker=prices["ticker"].astype(str))
    prices = prices.sort_values(["ticker", "date"]).drop_duplicates(["ticker", "date"])
    return {
        ticker: (group["close"].to_numpy(float), group["date"].to_numpy().astype("datetime64[D]"))
        for ticker, group in prices.groupby("ticker", sort=False)
    }


def _closes_of_facts(table: pd.DataFrame, facts: list[list[dict]]) -> _Closes:
    """Closes as far as rows show them: a row's close, and its `close_Nd_ago`."""
    shown: defaultdict[str, dict[np.datetime64, list[float]]] = defaultdict(dict)
    for i, (ticker, day) in enumerate(zip(table["ticker"], table["date"], strict=True)):
        values = {fact["name"]: fact["value"] for fact in facts[i] if fact["unit"] == "usd"}
        if "close" in values:
            closes = [values["close"]]
            while (name := f"close_{len(closes)}d_ago") in values:
                closes.append(values[name])
            shown[ticker][np.datetime64(day, "D")] = closes
    return {ticker: _chain(closes_of) for ticker, closes_of in shown.items()}


def _chain(closes_of: dict[np.datetime64, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """(closes, their days) of one company. closes_of: by day the closes that its row shows, newest first.

    Rows are joined where it is certain how many trading days lie between them; elsewhere lies a gap of NaN. Days are
    NaT where no row is of that day.
    """
    every_day = any(np.is_busday(day, weekmask="Sat Sun") for day in closes_of)
    closes: list[float] = []
    days: list[np.datetime64] = []
    before = None
    for day, shown in sorted(closes_of.items()):
        step = None
        if before is not None:
            apart = (day - before) / np.timedelta64(1, "D") if every_day else np.busday_count(before, day)
            step = _trading_days(closes_of[before], shown, int(apart))
        new = shown[:step] if step else [*shown, *[math.nan] * PAST]
        closes += new[::-1]
        days += [np.datetime64("NaT")] * (len(new) - 1) + [day]
        before = day
    return np.array(closes), np.array(days, dtype="datetime64[D]")


def _trading_days(earlier: list[float], later: list[float], apart: int) -> int | None:
    """Trading days between two rows `apart` weekdays apart, of which up to four may be holidays; None: not certain.

    It is certain when the closes of both, newest first, match for three days at one distance only.
    """
    if len(later) == 1:
        return 1 if apart == 1 else None
    fits = []
    for step in range(max(1, apart - 4), apart + 1):
        overlap = list(zip(later[step:], earlier, strict=False))
        if (len(overlap) >= 3 or apart == 1) and all(a == b for a, b in overlap):
            fits.append(step)
    return fits[0] if len(fits) == 1 else None


def _around(table: pd.DataFrame, closes_of: _Closes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closes before and after each row (N, 62) and (N, 16), and the days of the latter."""
    past = np.full((len(table), PAST), np.nan)
    future = np.full((len(table), FUTURE), np.nan)
    future_days = np.full((len(table), FUTURE), np.datetime64("NaT"), dtype="datetime64[D]")
    all_days = table["date"].to_numpy().astype("datetime64[D]")
    for ticker, index in table.groupby("ticker").indices.items():
        if ticker not in closes_of:
            continue
        closes, days = closes_of[ticker]
        padded = np.r_[np.full(PAST, np.nan), closes, np.full(FUTURE, np.nan)]
        nat = np.datetime64("NaT")
        padded_days = np.r_[np.full(PAST, nat), days, np.full(FUTURE, nat)].astype("datetime64[D]")
        where = np.flatnonzero(~np.isnat(days))
        at = np.searchsorted(days[where], all_days[index])
        found = at < len(where)
        found[found] = days[where[at[found]]] == all_days[index][found]
        position = where[at[found]] + PAST
        past[index[found]] = padded[position[:, None] - np.arange(PAST)]
        future[index[found]] = padded[position[:, None] + 1 + np.arange(FUTURE)]
        future_days[index[found]] = padded_days[position[:, None] + 1 + np.arange(FUTURE)]
    return past, future, future_days


_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = rf"({'|'.join([*_MONTHS, *(m[:3] for m in _MONTHS), 'sept'])})\.?"
_DATES = (  # each with the order of year, month, day in it
    (re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)"), "ymd"),
    (re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?!\d)"), "ymd"),
    (re.compile(r"(?<![\d.])(\d{1,2})\s?[-/.]\s?(\d{1,2})\s?[-/.]\s?(\d{4}|\d{2})(?![\d.]*\d)"), "mdy"),
    (re.compile(rf"\b{_MONTH}\s(\d{{1,2}})(?:st|nd|rd|th)?\b(?:\s?,?\s(\d{{4}})\b)?", re.I), "mdy"),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\sof\s{_MONTH}(?:\s?,?\s(\d{{4}})\b)?", re.I), "dmy"),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?[\s-]{_MONTH}(?:[\s,-]{{1,2}}(\d{{4}})\b)?", re.I), "dmy"),
)
_ANY_MONTH = re.compile(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.I)
_NUMBER = re.compile(
    r"(?<![\d.,])([-+−]?)(\$\s?)?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+|,\d\d(?![\d,]))?(?![\d]|,\d{3})"
    r"(\s?(?:%|percent\b|per cent\b|[KMBTkm]\b|bn\b|thousand\b|million\b|billion\b|trillion\b))?"
)
PERCENT, PRICE, FRACTION, PLAIN = range(4)


def prompt_lines(text: str) -> Iterable[tuple[str, str]]:
    """(slot, line): what a line of the prompt is about: its label, "headline", or "text" for a line without one."""
    for line in text.splitlines():
        label, colon, text = line.partition(":")
        if line.startswith(("- ", "* ", "• ")):
            yield "headline", line
        elif colon and re.fullmatch(r"Headline \d+", label):
            yield "headline", text
        else:
            yield (label if colon and len(label) <= 40 else "text"), line


def _without_template(texts: list[str]) -> list[str]:
    """Texts without the lines that nearly all of them share, such as the form of the answer."""
    shared = set(FORM.splitlines())
    if len(texts) >= 40:
        counts = Counter(line for text in texts for line in set(text.splitlines()))
        shared |= {line for line, count in counts.items() if count >= 0.95 * len(texts)}
    return ["\n".join(line for line in text.splitlines() if line not in shared) for text in texts]


def _without_dates(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Texts with each date replaced by "[date]", and the dates: (row, year, month, day); 3/5 is read both ways."""
    found, masked = [], []

    def take(match: re.Match, order: str, row: int) -> str:
        part = dict(zip(order, match.groups(), strict=True))
        year = int(part["y"] or 0)
        year += 2000 if 0 < year < 100 else 0
        month, day = (_month(part[key]) if key == "m" else int(part[key]) for key in "md")
        readings = [(month, day), (day, month)] if order == "mdy" and part["m"].isdigit() else [(month, day)]
        valid = [(row, year, m, d) for m, d in readings if 1 <= m <= 12 and 1 <= d <= 31]
        found.extend(valid)
        return "[date]" if valid else match[0]

    for row, text in enumerate(texts):
        for form, order in _DATES if _ANY_MONTH.search(text) else _DATES[:3]:
            text = form.sub(partial(take, order=order, row=row), text)
        masked.append(text)
    return masked, np.array(found, dtype=int).reshape(-1, 4)


def _month(text: str) -> int:
    return int(text) if text.isdigit() else next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(text.lower()[:3]))


@dataclass
class Numbers:
    """Every number of the prompts: its row, slot (an index into `slots`), kind (PERCENT, …) and value."""

    row: np.ndarray
    slot: np.ndarray
    kind: np.ndarray
    value: np.ndarray
    slots: list[str]


def read_numbers(rows: Rows) -> Numbers:
    """The numbers of all prompts. A slot of few numbers is counted as "text"."""
    row, slot, kind, value = [], [], [], []
    for i, text in enumerate(rows.texts):
        for name, line in prompt_lines(text):
            for sign, dollar, whole, decimals, unit in _NUMBER.findall(line):
                unit = unit.strip().lower()
                number = float(whole.replace(",", "") + decimals.replace(",", "."))
                number = -number if sign in ("-", "−") else number
                if unit.startswith(("%", "per")):
                    number_kind = PERCENT
                elif unit or not (decimals or dollar):
                    number_kind = PLAIN
                elif len(decimals) >= 5 and abs(number) < 1 and not dollar:
                    number_kind = FRACTION
                else:
                    number_kind = PRICE
                row.append(i)
                slot.append(name)
                kind.append(number_kind)
                value.append(number)
    counts = Counter(slot)
    common = {name for name, count in counts.items() if count >= max(5, 0.01 * len(rows.texts))}
    slots = sorted(common | {"text"})
    code = {name: i for i, name in enumerate(slots)}
    coded = np.array([code.get(name, code["text"]) for name in slot], dtype=int)
    return Numbers(np.array(row, int), coded, np.array(kind, int), np.array(value, float), slots)
