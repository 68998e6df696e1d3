"""`stonk data`: fetch prices, print and sample rows, and validate the verifiers of answers.

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
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.files import write_whole
from stonk_trainer.recipe import check_day, task_of_recipe

if TYPE_CHECKING:
    from pandas import DataFrame

REQUEST_SECONDS = 10  # for one request
FETCH_SECONDS = 60  # for all of them: yfinance makes up to a dozen, and repeats some
PRICES = ["Open", "High", "Low", "Close"]


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["dolci"]:  # its flags are keys of a recipe
        from stonk_trainer.tasks.reasoning import dolci

        return dolci.main(argv[1:])
    parser = argparse.ArgumentParser(prog="stonk data", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Callable, help: str, example: str) -> Callable:
        """A subcommand named after the function it runs; returns the method that adds its arguments."""
        name, description = run.__name__, (run.__doc__ or "").partition("\n")[0]
        added = commands.add_parser(
            name, help=help, description=description, epilog=f"example: stonk data {name} {example}"
        )
        added.set_defaults(run=run)
        return added.add_argument

    add = command(fetch, "daily prices of a ticker, from Yahoo Finance", "BTC-USD --out BTC-USD.csv --start 2014-09-17")
    add("ticker", metavar="TICKER", help="as Yahoo names it: BTC-USD, AAPL, ^GSPC")
    add("--out", metavar="FILE", help="file to write or replace (default: TICKER.csv)")
    add("--start", metavar="YYYY-MM-DD", help="first day (default: as far back as there is)")
    add("--end", metavar="YYYY-MM-DD", help="last day (default: yesterday, the last whole day)")

    example = "mmlu --path mmlu_validation.parquet --split validation"
    add = command(verify, "check that a source's verifier accepts its gold answers and rejects others", example)
    add("source", metavar="SOURCE", nargs="?", help="gsm8k, math, mmlu, mmlu_science, arc_easy, …")
    add("--path", metavar="PATH", help="local file or folder (default: the Hub)")
    add("--split", help="split, in upstream's name (default: the one the files hold, or train)")
    add("--cases", metavar="FILE", help="judge these cases instead: JSON lines with text, target, kind and right")

    add = command(
        rows, "the rows of a recipe, as JSON lines", "stocks/demo/stage2 --split test --max_rows 100 > rows.jsonl"
    )
    add("recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
    add("--split", choices=("train", "validation", "test"), default="test", help="default: test")
    add("--max_rows", metavar="N", type=int, help="so many, drawn at random over the dates")
    add("--model", metavar="FOLDER", help="the model whose rows they are (btc: its codec makes the tokens)")

    commands.add_parser("dolci", help="draw a stratified sample of Dolci-Think-SFT")  # for the list of commands
    args = vars(parser.parse_args(argv))
    del args["command"]
    args.pop("run")(**args)


def verify(source: str | None, path: str | None, split: str | None, cases: str | None = None) -> None:
    """Verify every gold answer of a source, and shifted ones; exit status 1 when the verifier decides wrongly."""
    from stonk_trainer.tasks.reasoning import sources, validate_verifier

    if (source is None) == (cases is None):
        raise UserError("give a source, such as gsm8k, or --cases FILE.jsonl")
    if cases is not None or source is None:
        if not validate_verifier.count_right(str(cases)):
            sys.exit(1)
        return
    upstream = {of_upstream: ours for ours, of_upstream in sources.source(source).splits}
    if path and not split:
        there = sources.local_files(path)
        split = next((known for known in upstream if known in there), next(iter(there)))
    split = split or next(iter(upstream))
    if split not in upstream:
        raise UserError(f"--split: {source} has {', '.join(upstream)}, not {split}")
    found = validate_verifier.validate(sources.Part(source, path, held_out=0.0), upstream[split])
    validate_verifier.print_validation(found, f"{source} {split}")
    if not found.passed:
        sys.exit(1)


def rows(recipe: str, split: str, max_rows: int | None = None, model: str | None = None) -> None:
    """Print the rows that the RL stage of a recipe reads, as JSON lines: for `stonk predict --rows`, `stonk score`.

    Raises UserError for a recipe without rows, or max_rows below 1.
    """
    if max_rows is not None and max_rows < 1:
        raise UserError(f"--max_rows: {max_rows} must be at least 1")
    limits = {} if max_rows is None else {"max_train_samples": max_rows, "max_eval_samples": max_rows}
    task, _ = task_of_recipe(recipe, model, **limits)
    for row in task.rl_dataset(split):
        print(json.dumps(row))


def fetch(ticker: str, out: str | None = None, start: str | None = None, end: str | None = None) -> Path:
    """Write the daily prices of one ticker, from Yahoo Finance, adjusted for splits and dividends, as a CSV file.

    Columns Date, Open, High, Low, Close, Volume; prices in the asset's currency. A price that Yahoo does not know (0 or
    none) is left empty, a day without a close skipped, and today (UTC), whose close is not known yet, never included.

    out: file to write; None: TICKER.csv. start, end: first and last day (YYYY-MM-DD), both included. Returns the path.
    Raises UserError without yfinance or the network, for a ticker without prices, and for an invalid day.
    """
    if not ticker or any(letter.isspace() or letter in ",/\\" for letter in ticker):
        raise UserError(f"{ticker!r} is not one ticker: give one as Yahoo names it, such as BTC-USD")
    path = Path(out or f"{ticker}.csv").expanduser()
    if path.is_dir():
        raise UserError(f"--out: {path} is a folder: give a file")
    check_day("--start", start)
    check_day("--end", end)
    first, last = date.fromisoformat(start) if start else None, datetime.now(UTC).date() - timedelta(days=1)
    if end:
        last = min(date.fromisoformat(end), last)
    if first and first > last:
        raise UserError(f"--start: {first} is after the last day, {last}")

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
    skipped = f" ({(~known).sum()} without a close skipped)" if not known.all() else ""
    print(f"{path}: {len(table)} days, {table.index[0]} to {table.index[-1]}{skipped}")
    return path


def _download(ticker: str, first: date | None, last: date) -> DataFrame:
    """yfinance's frame by day, with plain column names. What it logs becomes the reason of a single error."""
    try:
        import yfinance
    except ImportError as error:
        raise UserError("stonk data fetch needs yfinance: pip install 'stonk-trainer[fetch]'") from error
    options: dict[str, Any] = {"start": first.isoformat()} if first else {"period": "max"}
    options["end"] = (last + timedelta(days=1)).isoformat()  # yfinance excludes the end
    options |= {"auto_adjust": True, "progress": False, "threads": False, "timeout": REQUEST_SECONDS}
    logger, log, result = logging.getLogger("yfinance"), BufferingHandler(10_000), []

    def work() -> None:
        try:
            result.append(yfinance.download(ticker, **options))
        except Exception as error:  # of yfinance, the HTTP library or pandas: all mean that nothing came
            logger.error(str(error) or type(error).__name__)

    propagate, logger.propagate = logger.propagate, False
    handlers, logger.handlers = logger.handlers, [log]
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
        reason = log.buffer[-1].getMessage().strip()[:200] if log.buffer else "no prices"
        raise UserError(f"{ticker} could not be fetched from Yahoo ({reason}): check the ticker and the network")
    frame = result[0]
    return frame.droplevel("Ticker", axis=1) if frame.columns.nlevels == 2 else frame
