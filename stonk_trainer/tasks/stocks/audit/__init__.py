"""Audit rows for leaks and shortcuts: what would let a model look skilled without forecasting.

`audit_dataset` builds the rows of a recipe and audits them and their source; `audit_rows` audits rows built elsewhere.
Every check compares with chance on the same rows, so that clean data raises no alarm: days and not rows are the
independent units, and coincidences count only beyond those with shifted prices. Prices are joined by code of the audit
alone, not by that which made the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.files import read_jsonl
from stonk_trainer.task import SPLITS, Finding, Row
from stonk_trainer.tasks.prices import read_price_csv
from stonk_trainer.tasks.stocks.arguments import StocksArguments
from stonk_trainer.tasks.stocks.audit import duplicates, leaks, rules, source
from stonk_trainer.tasks.stocks.audit.rows import Rows, read_numbers
from stonk_trainer.tasks.stocks.dataset import HORIZON_DAYS, labelled_rows, rl_rows
from stonk_trainer.tasks.stocks.source import read_source

ROWS_PER_SPLIT = 5000


def audit_dataset(args: StocksArguments, rows_per_split: int = ROWS_PER_SPLIT) -> list[Finding]:
    """Audit the rows that the stocks recipe `args` builds, and the source it reads.

    At most `rows_per_split` rows per split, drawn at random (`sampling_seed`); the source is read as a whole.
    """
    args = replace(args, max_train_samples=rows_per_split, max_eval_samples=rows_per_split)
    splits = {split: list(rl_rows(args, split)[0]) for split in SPLITS}
    raw = read_source(args.dataset_name, args.dataset_split)
    everything, _ = labelled_rows(args.dataset_name, args.dataset_split)
    if args.tickers:
        raw = raw[raw["ticker"].astype("string").str.strip().isin(args.tickers)]
    balanced = [] if args.natural_distribution else ["train", "validation"]
    findings = audit_rows(splits, source.source_prices(raw), embargo_days=args.embargo_days, balanced=balanced)
    findings += [
        *source.copied_days(everything, args),
        source.previous_closes(everything),
        *source.future_perturbation(raw, everything, args, min(400, rows_per_split // 2)),
    ]
    return findings


def audit_rows(
    splits: Mapping[str, Sequence[Row]],
    prices: pd.DataFrame | None = None,
    embargo_days: int = HORIZON_DAYS,
    balanced: Iterable[str] | None = None,
) -> list[Finding]:
    """Audit rows in the form of `rl_rows`.

    Args:
        splits: rows by split name (train, validation, test).
        prices: columns ticker, date, close, one row per ticker and trading day. None: closes are taken from the rows'
            own facts as far as they go.
        embargo_days: calendar days that must lie between two splits.
        balanced: the splits that should hold as many UP as DOWN rows. None: those whose `base_rate_up` is always 0.5.

    Raises:
        UserError: a row without prompt, label, ticker or date or with a value of the wrong kind, or prices that hold
            none of the rows' days.
    """
    rows = Rows(splits, prices)
    numbers = read_numbers(rows)
    if balanced is None:
        balanced = [split for split in rows.splits if (rows.table.loc[rows.of(split), "base_rate_up"] == 0.5).all()]
    return [
        *rules.trivial_rules(rows, set(balanced)),
        *rules.label_join(rows),
        *leaks.next_close(rows, numbers),
        *leaks.label_day(rows),
        *leaks.answer_words(rows),
        *leaks.answer_numbers(rows, numbers),
        *duplicates.duplicates(rows, numbers),
        *rules.order_of_splits(rows, embargo_days),
    ]


def audit_folder(folder: str | Path, prices_csv: str | Path | None = None) -> list[Finding]:
    """Audit the rows in a folder (`read_splits`), against a CSV of prices when one is given."""
    return audit_rows(read_splits(folder), read_price_csv(Path(prices_csv)) if prices_csv else None)


def read_splits(folder: str | Path) -> dict[str, list[Row]]:
    """Rows of those of train.jsonl, validation.jsonl and test.jsonl that are in `folder`; UserError when none is."""
    files = {split: Path(folder) / f"{split}.jsonl" for split in SPLITS}
    splits = {split: [row for _, row in read_jsonl(path)] for split, path in files.items() if path.is_file()}
    if not splits:
        raise UserError(f"{folder} has no rows: it must hold train.jsonl, validation.jsonl or test.jsonl")
    return splits
