"""Price series from CSV files, read strictly: a bad row is named by its line."""

from __future__ import annotations

import csv
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.files import read_text

_COLUMNS = {name: name for name in ("date", "close", "open", "volume", "ticker")} | {"symbol": "ticker"}


def read_price_csv(path: str | Path) -> pd.DataFrame:
    """Read daily prices: columns `date` (ISO) and `close`, and `open`, `volume`, `ticker` where present.

    Header names may be in any case; other columns are ignored; rows may be in any order; a time of day after the date
    is ignored. Comments may come before the header (`# ...`, or a line with an address, as CryptoDataDownload writes).
    The two or three header rows of yfinance are read too, and name the ticker; where nothing does, the file's name is
    the ticker.

    Returns:
        Columns ticker, date (datetime64), close, open, volume (NaN where absent).

    Raises:
        UserError: a missing column, or bad rows with their line numbers: an unreadable date, a price that is not a
            positive number, a duplicate day.
    """
    path = Path(path)
    header, ticker, lines = _split_header(_read_lines(path), path)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    seen: dict[tuple[str, str], int] = {}  # line of each ticker and day
    for number, cells in lines:
        cell = {name: value for name, value in zip(header, cells, strict=False) if name}
        try:
            row = _row(cell, default_ticker=ticker)
        except ValueError as error:
            bad.append(f"line {number}: {error}")
            continue
        key = (row["ticker"], row["date"])
        if key in seen:
            bad.append(f"line {number}: {row['date']} is a duplicate of line {seen[key]} (one row per day)")
            continue
        seen[key] = number
        rows.append(row)
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise UserError(f"{path}: {'; '.join(bad[:5])}{more}: correct or remove these rows")
    if not rows:
        raise UserError(f"{path} has a header and no rows")
    frame = pd.DataFrame(rows)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


_Lines = list[tuple[int, list[str]]]  # line number in the file, cells


def _read_lines(path: Path) -> _Lines:
    """The lines that are not blank."""
    reader = csv.reader(read_text(path).split("\n"))
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def _split_header(lines: _Lines, path: Path) -> tuple[list[str | None], str, _Lines]:
    """What each column is (None: not needed), the ticker of rows that name none, and the lines after the header.

    yfinance writes `Price,Close,Open,...`, then `Ticker,BTC-USD,BTC-USD,...`, then `Date,,,...`; the first two also
    come in the other order, the third may be missing, and `Ticker` may be empty.
    """
    while len(lines) > 1 and _is_comment(lines[0][1]):
        lines = lines[1:]
    names: list[str] = []
    first, ticker, used = lines[0][1], None, 0
    for _, cells in lines[:3]:
        corner, *rest = cells
        if not names and "close" in _lower(cells):
            names = _lower(cells)
        elif not ticker and _names_ticker(corner.lower(), rest) and (names or corner):
            ticker = rest[0]
        elif names and corner.lower() == "date" and not any(rest):
            names[0] = "date"
        else:
            break
        used += 1
    names = names or _lower(first)
    if ticker and names[0] in ("price", ""):
        names[0] = "date"
    header = [_COLUMNS.get(name) for name in names]
    duplicate = next((name for name in header if name and header.count(name) > 1), None)
    if duplicate:
        raise UserError(
            f"{path} has {header.count(duplicate)} columns {duplicate}: keep one (several tickers: one row per day and "
            "ticker with a column ticker, or a file each)"
        )
    missing = [name for name in ("date", "close") if name not in header]
    if missing:
        raise UserError(f"{path} has no column {' and '.join(missing)} (found: {','.join(first)[:80]})")
    return header, ticker or path.stem, lines[used:]


def _lower(cells: list[str]) -> list[str]:
    return [cell.lower() for cell in cells]


def _is_comment(cells: list[str]) -> bool:
    return "close" not in _lower(cells) and (cells[0].startswith("#") or any("://" in cell for cell in cells))


def _names_ticker(corner: str, rest: list[str]) -> bool:
    """Whether a line is yfinance's row of tickers, all the same; without the word Ticker, a row of numbers is not."""
    if corner == "ticker":
        return len(set(rest)) == 1
    return corner == "" and len(rest) > 1 and len(set(rest)) == 1 and not _is_number(rest[0])


def _row(cell: dict[str, str], default_ticker: str) -> dict:
    if "date" not in cell or "close" not in cell:
        raise ValueError("too few columns")
    try:
        day = datetime.fromisoformat(cell["date"]).date()
    except ValueError:
        raise ValueError(f"date {cell['date']!r} is not YYYY-MM-DD") from None
    return {
        "ticker": cell.get("ticker") or default_ticker,
        "date": day,
        "close": _positive("close", cell["close"]),
        "open": _positive("open", cell["open"]) if cell.get("open") else math.nan,
        "volume": _positive("volume", cell["volume"], zero=True) if cell.get("volume") else math.nan,
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _positive(name: str, text: str, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} {text} is not a positive number")
    return value
