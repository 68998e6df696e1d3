"""`stonk data`: get data from elsewhere into files that every command reads, and prove that answers can be checked.

stonk data fetch BTC-USD --out BTC-USD.csv --start 2014-09-17
stonk data verify gsm8k --path gsm8k_train.parquet
stonk data rows stocks/demo/stage2 --split test > rows.jsonl
stonk data dolci --output data/dolci.jsonl --target_rows 800000 --max_tokens 1500
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError
from stonk_trainer.files import write_whole

if TYPE_CHECKING:
    from pandas import DataFrame

REQUEST_SECONDS = 10  # for one request
FETCH_SECONDS = 60  # for all of them: yfinance makes up to a dozen, and tries some again
PRICES = ["Open", "High", "Low", "Close"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="stonk data", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fetch_parser = commands.add_parser(
        "fetch",
        help="daily prices of a ticker, from Yahoo Finance",
        description="Daily prices of one ticker from Yahoo Finance, adjusted for splits and dividends, as a CSV file.",
        epilog="example: stonk data fetch BTC-USD --out BTC-USD.csv --start 2014-09-17",
    )
    fetch_parser.add_argument("ticker", metavar="TICKER", help="as Yahoo names it: BTC-USD, AAPL, ^GSPC")
    fetch_parser.add_argument("--out", metavar="FILE", help="file to write or replace (default: TICKER.csv)")
    fetch_parser.add_argument("--start", metavar="YYYY-MM-DD", help="first day (default: as far back as there is)")
    fetch_parser.add_argument("--end", metavar="YYYY-MM-DD", help="last day (default: yesterday, the last whole day)")
    fetch_parser.set_defaults(run=lambda args: fetch(args.ticker, args.out, args.start, args.end))

    verify_parser = commands.add_parser(
        "verify",
        help="prove that a source's verifier accepts its gold answers and rejects others",
        description="Verify every gold answer of a source, and shifted ones; exit status 1 when the proof fails.",
        epilog="example: stonk data verify mmlu --path mmlu_validation.parquet --split validation",
    )
    verify_parser.add_argument("source", metavar="SOURCE", help="gsm8k, math, mmlu, mmlu_science, arc_easy, …")
    verify_parser.add_argument("--path", metavar="PATH", help="local file or folder (default: the Hub)")
    verify_parser.add_argument("--split", help="split, in upstream's name (default: the one the files hold, or train)")
    verify_parser.set_defaults(run=lambda args: verify(args.source, args.path, args.split))

    rows_parser = commands.add_parser(
        "rows",
        help="the rows of a recipe, as JSON lines",
        description="Print the rows a recipe's stage reads, as JSON lines: for `stonk predict --rows`, `stonk score`.",
        epilog="example: stonk data rows stocks/demo/stage2 --split test --max_rows 100 > rows.jsonl",
    )
    rows_parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
    rows_parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="default: test")
    rows_parser.add_argument("--max_rows", metavar="N", type=int, help="so many, drawn at random over the dates")
    rows_parser.add_argument("--model", metavar="FOLDER", help="btc: the model whose codec makes the tokens")
    rows_parser.set_defaults(run=lambda args: rows(args.recipe, args.split, args.max_rows, args.model))

    commands.add_parser("dolci", help="draw a stratified sample of Dolci-Think-SFT")  # for the list of commands
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["dolci"]:  # its flags are keys of a recipe
        from stonk_trainer.tasks.reasoning import dolci

        return dolci.main(argv[1:])
    args = parser.parse_args(argv)
    args.run(args)


def verify(name: str, path: str | None, split: str | None) -> None:
    """Print the proof of a source's verifier; exit status 1 when it fails."""
    from stonk_trainer.tasks.reasoning import sources, validate_verifier

    upstream = {of_upstream: ours for ours, of_upstream in sources.source(name).splits}
    if path and not split:
        held = sources.local_files(path)
        split = next((known for known in upstream if known in held), next(iter(held)))
    split = split or next(iter(upstream))
    if split not in upstream:
        raise UserError(f"--split: {name} has {', '.join(upstream)}, not {split}")
    found = validate_verifier.prove(name, path, upstream[split], sources.Options(held_out=0.0))
    validate_verifier.print_proof(found, f"{name} {split}")
    if not found.holds:
        sys.exit(1)


def rows(recipe: str, split: str, count: int | None = None, model: str | None = None) -> None:
    """Print the RL rows of a recipe as JSON lines. Raises UserError for a recipe without rows, or a count below 1."""
    from stonk_trainer.recipe import task_of_recipe

    if count is not None and count < 1:
        raise UserError(f"--max_rows: {count} must be at least 1")
    chosen = {} if count is None else {"max_train_samples": count, "max_eval_samples": count}
    task, _ = task_of_recipe(recipe, model, **chosen)
    for row in task.rl_dataset(split):
        print(json.dumps(row))


def fetch(ticker: str, out: str | None = None, start: str | None = None, end: str | None = None) -> Path:
    """Write the daily prices of `ticker` from `start` to `end`, both included, to `out`; return its path.

    Columns Date, Open, High, Low, Close, Volume; prices in the asset's currency, adjusted for splits and dividends; a
    price that Yahoo does not know (0 or none) is left empty, and a day without a close left out. Today (UTC) is never
    included: its close is not known yet. The file appears whole or not at all.

    Raises UserError without yfinance, without the network, for a ticker without prices, and for days that are none.
    """
    if not ticker or any(letter.isspace() or letter in ",/\\" for letter in ticker):
        raise UserError(f"{ticker!r} is not one ticker: give one as Yahoo names it, such as BTC-USD")
    path = Path(out or f"{ticker}.csv").expanduser()
    if path.is_dir():
        raise UserError(f"--out: {path} is a folder: give a file")
    first = _day("--start", start) if start else None
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    last = min(_day("--end", end), yesterday) if end else yesterday
    if first and first > last:
        raise UserError(f"--start: {first} lies after the last day, {last}")

    frame = _download(ticker, first, last)
    prices = frame[PRICES].where(frame[PRICES] > 0)
    known = prices["Close"].notna()
    table = prices.assign(Volume=frame["Volume"])[known]
    if table.empty:
        raise UserError(f"{ticker}: Yahoo has no close between {first or 'its first day'} and {last}")
    table.index = table.index.strftime("%Y-%m-%d")
    try:
        write_whole(path, table.to_csv(index_label="Date", lineterminator="\n"))
    except OSError as error:
        raise UserError(f"--out: {path} cannot be written: {error.strerror}") from error
    left_out = f" ({(~known).sum()} without a close left out)" if not known.all() else ""
    print(f"{path}: {len(table)} days, {table.index[0]} to {table.index[-1]}{left_out}")
    return path


def _download(ticker: str, first: date | None, last: date) -> DataFrame:
    """yfinance's frame by day, with plain column names; its many lines of complaint become the reason of one error."""
    try:
        import yfinance
    except ImportError as error:
        raise UserError("stonk data fetch needs yfinance: pip install 'stonk-trainer[fetch]'") from error
    bounds = {"start": first.isoformat()} if first else {"period": "max"}
    bounds["end"] = (last + timedelta(days=1)).isoformat()  # yfinance leaves the end out
    result, complaints = [], _Lines()
    logger = logging.getLogger("yfinance")

    def work() -> None:
        try:
            result.append(
                yfinance.download(
                    ticker, **bounds, auto_adjust=True, progress=False, threads=False, timeout=REQUEST_SECONDS
                )
            )
        except Exception as error:  # yfinance's own, the HTTP library's and pandas': all mean that nothing came
            complaints.lines.append(str(error) or type(error).__name__)

    propagate, logger.propagate = logger.propagate, False
    handlers, logger.handlers = logger.handlers, [complaints]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(FETCH_SECONDS)
    finally:
        logger.propagate, logger.handlers = propagate, handlers
    if thread.is_alive():
        raise UserError(f"{ticker}: no answer from Yahoo within {FETCH_SECONDS} seconds: try again later")
    if not result or result[0] is None or result[0].empty:
        reason = complaints.lines[-1][:200] if complaints.lines else "no prices"
        raise UserError(f"{ticker} could not be fetched from Yahoo ({reason}): check the ticker and the network")
    frame = result[0]
    return frame.droplevel("Ticker", axis=1) if frame.columns.nlevels == 2 else frame


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().strip())


def _day(flag: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{flag}: {text} is not a day (YYYY-MM-DD)") from None
