"""Rows of all splits in one table: their texts, the numbers and dates in them, and the prices around each row."""

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

PAST, FUTURE = 62, 16  # closes looked at per row: t back to t-61 (all a prompt may show), t+1 to t+16
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may hold half of a pair, which cannot be written
_COLUMNS = ("prompt", "label", "ticker", "date")


class Rows:
    """Rows of all splits in one table, their texts and facts, and the closes and days around each row.

    table: split, ticker, date, up, next_return (fraction or NaN), base_rate_up. texts: prompts without
    what nearly all share, and without the dates in them, which are in `dates_said`: columns row, year (0: not said),
    month, day. `past` (N, 62): closes of t, t-1, …;
    `future` (N, 16): closes of t+1, …; `future_days` alike (NaT where not known). NaN where there is no price.
    """

    def __init__(self, splits: Mapping[str, Sequence[Mapping[str, Any]]], prices: pd.DataFrame | None):
        flat = [(split, row) for split, rows in splits.items() for row in rows]
        self.splits = [split for split in splits if len(splits[split])]
        if not flat:
            raise UserError("audit: there are no rows")
        made, prompts, self.facts = [], [], []
        for number, (split, row) in enumerate(flat):
            try:
                made.append({"split": split, **_columns_of(row)})
                prompts.append(_text_of(row["prompt"]))
                self.facts.append(_facts_of(row.get("facts")))
            except _BadRow as wrong:
                raise UserError(f"audit: row {number + 1} ({split}) {wrong}") from wrong
        self.table = pd.DataFrame(made)
        self.table["date"] = pd.to_datetime(self.table["date"], errors="coerce", format="%Y-%m-%d")
        if self.table["date"].isna().any():
            raise UserError("audit: a row's date is not YYYY-MM-DD")
        self.texts, self.dates_said = _without_dates(_without_template(prompts))
        self.from_facts = prices is None
        lines = _closes_of_facts(self.table, self.facts) if prices is None else _closes_of_prices(prices)
        self.past, self.future, self.future_days = _around(self.table, lines)
        if prices is not None and np.isnan(self.past[:, 0]).all():
            raise UserError(
                f"audit: the prices ({', '.join(list(lines)[:3])}) hold no ticker and day of the rows "
                f"({', '.join(self.table['ticker'].unique()[:3])}): check their ticker column and their dates"
            )
        self.days = self.table["date"].to_numpy().astype("datetime64[D]")
        with np.errstate(invalid="ignore"):
            gap = (self.future_days[:, 0] - self.days) / np.timedelta64(1, "D")
        self.across_a_hole = gap > HORIZON_DAYS
        self.future[self.across_a_hole] = np.nan
        # The outcome's day where prices give it; the next weekday otherwise.
        guess = np.busday_offset(self.days, 1, roll="backward")
        self.outcome_days = np.where(np.isnat(self.future_days[:, 0]), guess, self.future_days[:, 0])

    def of(self, split: str) -> np.ndarray:
        return (self.table["split"] == split).to_numpy()

    def name(self, index: int) -> str:
        return f"{self.table['ticker'][index]} {self.days[index]}"


class _BadRow(ValueError):
    """What is wrong with a row, to follow "row 3 (train)"."""


def _columns_of(row: object) -> dict:
    if not isinstance(row, Mapping):
        raise _BadRow("is not an object with columns")
    missing = [column for column in _COLUMNS if row.get(column) is None]
    if missing:
        raise _BadRow(f"lacks {', '.join(missing)}")
    if row["label"] not in ("UP", "DOWN"):
        raise _BadRow(f"has the label {row['label']!r}, not UP or DOWN")
    ticker = str(row["ticker"])
    if _SURROGATE.search(ticker):
        raise _BadRow("has a ticker that is not valid text")
    numbers = {}
    for column in ("next_return", "base_rate_up"):
        try:
            numbers[column] = math.nan if row.get(column) is None else float(row[column])
        except (TypeError, ValueError, OverflowError) as error:
            raise _BadRow(f"has the {column} {row[column]!r}, not a number") from error
    return {"ticker": ticker, "date": str(row["date"])[:10], "up": row["label"] == "UP", **numbers}


def _text_of(prompt: object) -> str:
    if isinstance(prompt, str):
        text = prompt
    elif isinstance(prompt, list) and all(isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in prompt):
        text = "\n".join(message["content"] for message in prompt)
    else:
        raise _BadRow("has a prompt that is neither a text nor a list of messages with a text as content")
    if _SURROGATE.search(text):
        raise _BadRow("has a prompt that is not valid text")
    return text


def _facts_of(facts: Any) -> list[dict]:
    try:
        facts = [] if facts is None else json.loads(facts) if isinstance(facts, str) else list(facts)
    except (TypeError, ValueError, RecursionError) as error:
        raise _BadRow("has facts that are no JSON list") from error
    if not isinstance(facts, list) or not all(isinstance(fact, Mapping) and _is_fact(fact) for fact in facts):
        raise _BadRow("has facts that are no list of objects with name, value (a number for usd) and unit")
    return facts


def _is_fact(fact: Mapping) -> bool:
    name, value, unit = fact.get("name"), fact.get("value"), fact.get("unit")
    return isinstance(name, str) and isinstance(value, str if unit in ("text", "date") else (int, float))


def _closes_of_prices(prices: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Closes and days of each ticker in the order of days; a price frame lists every trading day."""
    missing = {"ticker", "date", "close"} - set(prices)
    if missing:
        raise UserError(f"audit: the prices lack the column {', '.join(sorted(missing))}")
    prices = prices.assign(date=pd.to_datetime(prices["date"]), ticker=prices["ticker"].astype(str))
    prices = prices.sort_values(["ticker", "date"]).drop_duplicates(["ticker", "date"])
    return {
        ticker: (group["close"].to_numpy(float), group["date"].to_numpy().astype("datetime64[D]"))
        for ticker, group in prices.groupby("ticker", sort=False)
    }


def _closes_of_facts(table: pd.DataFrame, facts: list[list[dict]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Closes and days of each ticker as far as rows show them: a row's close, and its `close_Nd_ago`.

    Two rows are chained when the later row's history holds the earlier row's close as many trading days back as
    weekdays lie between them, less up to four holidays. Between chains lies a gap of NaN.
    """
    shown: defaultdict[str, dict[np.datetime64, tuple[float, list[float]]]] = defaultdict(dict)
    for i, (ticker, day) in enumerate(zip(table["ticker"], table["date"], strict=True)):
        values = {fact["name"]: fact["value"] for fact in facts[i] if fact["unit"] == "usd"}
        if "close" in values:
            history: list[float] = []
            while f"close_{len(history) + 1}d_ago" in values:
                history.append(values[f"close_{len(history) + 1}d_ago"])
            shown[ticker][np.datetime64(day, "D")] = (values["close"], history)
    return {ticker: _chain(days) for ticker, days in shown.items()}


def _chain(rows: dict[np.datetime64, tuple[float, list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    days = sorted(rows)
    seven_days = any(np.is_busday(day, weekmask="Sat Sun") for day in days)
    closes: dict[int, float] = {}
    dated: dict[int, np.datetime64] = {}
    position, before = PAST, None
    for day in days:
        close, history = rows[day]
        if before is not None:
            step = _steps_between(rows[before], history, before, day, seven_days)
            position += step or (PAST + FUTURE + len(history))
        for back, value in enumerate(history, start=1):
            closes.setdefault(position - back, value)
        closes[position], dated[position] = close, day
        before = day
    line = np.full(position + 1, np.nan)
    line_days = np.full(position + 1, np.datetime64("NaT"), dtype="datetime64[D]")
    line[list(closes)] = list(closes.values())
    line_days[list(dated)] = list(dated.values())
    return line, line_days


def _steps_between(
    before_row: tuple[float, list[float]],
    history: list[float],
    before: np.datetime64,
    day: np.datetime64,
    seven_days: bool,
) -> int | None:
    """Trading days from `before` to `day`, when the later row's history leaves no doubt: three closes that match."""
    close, earlier = before_row
    between = int((day - before) / np.timedelta64(1, "D")) if seven_days else int(np.busday_count(before, day))
    if not history:
        return 1 if between == 1 else None
    fits = []
    for step in range(max(1, between - 4), between + 1):
        overlap = list(zip(history[step - 1 :], [close, *earlier], strict=False))
        if (len(overlap) >= 3 or between == 1) and all(a == b for a, b in overlap):
            fits.append(step)
    return fits[0] if len(fits) == 1 else None


def _around(
    table: pd.DataFrame, lines: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closes before and after each row (N, 62) and (N, 16), and the days of the latter."""
    past = np.full((len(table), PAST), np.nan)
    future = np.full((len(table), FUTURE), np.nan)
    future_days = np.full((len(table), FUTURE), np.datetime64("NaT"), dtype="datetime64[D]")
    all_days = table["date"].to_numpy().astype("datetime64[D]")
    for ticker, index in table.groupby("ticker").indices.items():
        if ticker not in lines:
            continue
        closes, days = lines[ticker]
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
    """Texts without the lines that nearly all of them share, such as the form of the answer: these tell nothing."""
    shared = set(FORM.splitlines())
    if len(texts) >= 40:
        counts = Counter(line for text in texts for line in set(text.splitlines()))
        shared |= {line for line, count in counts.items() if count >= 0.95 * len(texts)}
    return ["\n".join(line for line in text.splitlines() if line not in shared) for text in texts]


def _without_dates(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Texts with each date replaced by "[date]", and the dates: (row, year, month, day); 3/5 is read both ways."""
    said, masked = [], []

    def take(match: re.Match, order: str, row: int) -> str:
        part = dict(zip(order, match.groups(), strict=True))
        year = int(part["y"] or 0)
        year += 2000 if 0 < year < 100 else 0
        month, day = (_month(part[key]) if key == "m" else int(part[key]) for key in "md")
        readings = [(month, day), (day, month)] if order == "mdy" and part["m"].isdigit() else [(month, day)]
        valid = [(row, year, m, d) for m, d in readings if 1 <= m <= 12 and 1 <= d <= 31]
        said.extend(valid)
        return "[date]" if valid else match[0]

    for row, text in enumerate(texts):
        for form, order in _DATES if _ANY_MONTH.search(text) else _DATES[:3]:
            text = form.sub(partial(take, order=order, row=row), text)
        masked.append(text)
    return masked, np.array(said, dtype=int).reshape(-1, 4)


def _month(text: str) -> int:
    return int(text) if text.isdigit() else next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(text.lower()[:3]))


@dataclass
class Numbers:
    """Every number of the prompts: its row, slot, kind, value, and whether it is written without decimals."""

    row: np.ndarray
    slot: np.ndarray
    kind: np.ndarray
    value: np.ndarray
    slots: list[str]


def read_numbers(rows: Rows) -> Numbers:
    row, slot, kind, value = [], [], [], []
    for i, text in enumerate(rows.texts):
        for name, line in prompt_lines(text):
            for sign, dollar, whole, decimals, unit in _NUMBER.findall(line):
                unit = unit.strip().lower()
                number = float(whole.replace(",", "") + decimals.replace(",", "."))
                number = -number if sign in ("-", "−") else number
                if unit.startswith(("%", "per")):
                    what = PERCENT
                elif unit or not (decimals or dollar):
                    what = PLAIN
                elif len(decimals) >= 5 and abs(number) < 1 and not dollar:
                    what = FRACTION
                else:
                    what = PRICE
                row.append(i)
                slot.append(name)
                kind.append(what)
                value.append(number)
    counts = Counter(slot)
    common = {name for name, count in counts.items() if count >= max(5, 0.01 * len(rows.texts))}
    slots = sorted(common | {"text"})
    code = {name: i for i, name in enumerate(slots)}
    coded = np.array([code.get(name, code["text"]) for name in slot], dtype=int)
    return Numbers(np.array(row, int), coded, np.array(kind, int), np.array(value, float), slots)
