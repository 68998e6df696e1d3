"""Audit rows for leaks and shortcuts: what would let a model look skilled without forecasting.

`audit_dataset` builds the rows of a recipe and audits them and their source; `audit_rows` audits rows that someone
else built. Every check compares with what chance gives on the same rows, so that clean data raises no alarm: days and
not rows are the independent units, and a coincidence counts only beyond what shifted prices coincide by.
Prices are joined here by the auditor's own code, not by the code that made the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stonk_trainer.errors import UserError
from stonk_trainer.task import SPLITS, Finding
from stonk_trainer.tasks.stocks import StocksArguments
from stonk_trainer.tasks.stocks.audit import duplicates, leaks, rules, source
from stonk_trainer.tasks.stocks.audit.rows import Rows, read_numbers
from stonk_trainer.tasks.stocks.dataset import HORIZON_DAYS, labelled_rows, read_source, rl_rows

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
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    prices: pd.DataFrame | None = None,
    embargo_days: int = HORIZON_DAYS,
    balanced: Iterable[str] | None = None,
) -> list[Finding]:
    """Audit rows in the form of `rl_rows`, by split name (train, validation, test).

    `prices`: columns ticker, date, close, one row per ticker and trading day; without them closes are taken from the
    rows' own facts as far as they go. `balanced`: the splits that claim to hold as many UP as DOWN rows; when None,
    those whose `base_rate_up` is 0.5 throughout. Raises UserError for a row without prompt, label, ticker or date or
    with a value of the wrong kind, and for prices that hold none of the rows' days.
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
    from stonk_trainer.tasks.prices import read_price_csv

    return audit_rows(read_splits(folder), read_price_csv(Path(prices_csv)) if prices_csv else None)


def read_splits(folder: str | Path) -> dict[str, list[dict]]:
    """Rows of train, validation and test (.jsonl or .parquet) in `folder`; UserError when there are none."""
    splits = {}
    for split in SPLITS:
        files = [path for suffix in (".jsonl", ".parquet") if (path := Path(folder) / f"{split}{suffix}").is_file()]
        if len(files) > 1:
            raise UserError(f"{folder} has both {files[0].name} and {files[1].name}; keep one")
        for path in files:
            try:
                if path.suffix == ".parquet":
                    import pyarrow.parquet

                    splits[split] = pyarrow.parquet.read_table(path).to_pylist()
                else:
                    # Not splitlines: JSON may hold U+2028 and others that it counts as ends of lines.
                    lines = path.read_text(encoding="utf-8-sig").split("\n")
                    splits[split] = [json.loads(line) for line in lines if line.strip()]
            except (OSError, ValueError, RecursionError) as error:  # pyarrow's and json's errors are ValueErrors
                raise UserError(f"{path} cannot be read: {error}") from error
    if not splits:
        raise UserError(f"{folder} has no rows: it must hold train, validation or test as .jsonl or .parquet")
    return splits
