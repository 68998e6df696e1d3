"""Price series from CSV files, read strictly: a bad row is named by its line."""

from __future__ import annotations

import csv
import math
from datetime import date
from pathlib import Path

import pandas as pd

from stonk_trainer.errors import UserError

_COLUMNS = {name: name for name in ("date", "close", "open", "volume", "ticker")} | {"symbol": "ticker"}


def read_price_csv(path: str | Path) -> pd.DataFrame:
    """Read daily prices: columns `date` (ISO) and `close`, and `open`, `volume`, `ticker` where present.

    Header names may be in any case; other columns are ignored; rows may be in any order. Without a ticker column the
    file's name is the ticker. Returns columns ticker, date (datetime64), close, open, volume (NaN where absent).

    Raises UserError for a missing column, and for bad rows with their line numbers: an unreadable date, a price that
    is not a positive number, a day that stands twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not lines:
        raise UserError(f"{path} is empty")
    header = [_COLUMNS.get(name.strip().lower()) for name in next(csv.reader(lines[:1]))]
    missing = [name for name in ("date", "close") if name not in header]
    if missing:
        raise UserError(f"{path} has no column {' and '.join(missing)} (found: {lines[0][:80]})")
    rows, bad, seen = [], [], {}
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        cell = {name: value.strip() for name, value in zip(header, cells, strict=False) if name}
        try:
            row = _row(cell, default_ticker=path.stem)
        except ValueError as error:
            bad.append(f"line {number}: {error}")
            continue
        key = (row["ticker"], row["date"])
        if key in seen:
            bad.append(f"line {number}: {row['date']} stands already on line {seen[key]}")
            continue
        seen[key] = number
        rows.append(row)
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise UserError(f"{path}: {'; '.join(bad[:5])}{more}: mend or remove these rows")
    if not rows:
        raise UserError(f"{path} has a header and no rows")
    frame = pd.DataFrame(rows)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


def _row(cell: dict[str, str], default_ticker: str) -> dict:
    if "date" not in cell or "close" not in cell:
        raise ValueError("too few columns")
    try:
        day = date.fromisoformat(cell["date"][:10])
    except ValueError:
        raise ValueError(f"date {cell['date']!r} is not YYYY-MM-DD") from None
    return {
        "ticker": cell.get("ticker") or default_ticker,
        "date": day,
        "close": _positive("close", cell["close"]),
        "open": _positive("open", cell["open"]) if cell.get("open") else math.nan,
        "volume": _positive("volume", cell["volume"], zero=True) if cell.get("volume") else math.nan,
    }


def _positive(name: str, text: str, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} {text} is not a positive number")
    return value
