"""`stonk predict`: what a trained model forecasts, for days whose outcome may be known or not.

    stonk predict --model runs/demo/stage2/best_model --csv AAPL.csv
    stonk predict --model runs/btc/sft/best_model --csv BTC-USD.csv --horizon 5 --samples 500
    stonk data rows stocks/demo/stage2 --split test | stonk predict --model runs/demo/stage2/best_model --rows -

Each row gets several sampled answers; the forecast is the direction most of them give, and the share that does is its
confidence. As a Python function: `from stonk_trainer import predict`.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.files import Dropped, make_folder, read_jsonl, write_whole
from stonk_trainer.models import drafting
from stonk_trainer.options import option
from stonk_trainer.recipe import check_day, check_ranges, load_command, task_of_recipe
from stonk_trainer.task import BUILT_IN, ForecastTask, Row, SamplingConfig, load_task
from stonk_trainer.terminal import log, make_console, plain_table, printable, start_log, with_progress

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN_WHOLE = 5  # forecasts whose reasoning is printed below the table
CSV_COLUMNS: tuple[str, ...] = ("ticker", "date", "direction", "confidence", "stated_confidence")
CSV_COLUMNS += ("calibrated_confidence", "move", "base_rate_up", "samples", "readable", "label", "next_return", "model")


@dataclass
class Predict:
    """Forecast with a trained model, each row from several sampled answers."""

    model: str = option("", "Folder of a model or of an adapter, or a name on the Hub.")
    dataset_name: str | None = option(
        None,
        "What to forecast, as the recipe's dataset_name: a CSV of prices, a file in the deepstock schema, "
        "embedded:sp500; left out: the recipe's own. Of each company the last day, or as date, start and end "
        "say.",
        "--csv",
    )
    rows: str | None = option(
        None, "Rows instead, as JSON lines (`stonk data rows` writes them); - reads standard input."
    )
    tickers: list[str] | None = option(None, "Only these companies or series.")
    date: str | None = option(None, "Last day the forecasts know, YYYY-MM-DD.")
    start: str | None = option(None, "All days from this one on, YYYY-MM-DD.")
    end: str | None = option(None, "All days up to this one, YYYY-MM-DD.")
    horizon: int = option(1, "btc: days ahead, default 1. The stocks task forecasts the next day.")
    samples: int | None = option(
        None, "Answers, or paths, sampled for each row; left out: 4 of a language model, 200 of a GPT."
    )
    temperature: float = option(1.0, "Of sampling, above 0; 1, the default: as the model says.")
    top_p: float = option(1.0, "Nucleus sampling: probability mass, in (0, 1]; default 1.")
    max_completion_length: int | None = option(None, "Longest answer, in tokens; left out: the recipe's, or 512.")
    batch_size: int = option(32, "Rows answered together; default 32.")
    out: str | None = option(None, "File to write, .jsonl or .csv.", "--output")
    resume: bool = option(False, "Go on in `out`, a .jsonl file, after its last whole line.")
    format: Literal["table", "jsonl", "csv"] = option("table", "What is printed; jsonl and csv are for pipes.")
    calibration: str | None = option(
        None, "Judged forecasts (predictions.jsonl) by which the confidence is calibrated, as Platt does."
    )
    recipe: str | None = option(None, "Recipe whose keys make the prompt; left out: recipe.yaml beside the model.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        "auto", "Precision of the model; auto: as it was saved."
    )
    draft_tokens: str = option("auto", drafting.HELP)
    seed: int = option(42, "Seed of the samples; a row's depend on it and its prompt alone.")

    def __post_init__(self):
        for name in ("date", "start", "end"):
            check_day(name, getattr(self, name))
            if self.rows and getattr(self, name):
                raise UserError(f"{name} chooses days of a dataset, and rows are given: leave it out")
        suffix = Path(self.out or "").suffix.lower()
        faults = {
            "no model: give its folder with --model, such as runs/demo/stage2/best_model": not self.model,
            "rows and dataset_name (--csv) both say what to forecast: keep one": self.rows and self.dataset_name,
            "date is one day, start and end a range: keep one of them": self.date and (self.start or self.end),
            f"start: {self.start} is after end {self.end}": self.start and self.end and self.start > self.end,
            "resume goes on in a .jsonl file: give --out FILE.jsonl": self.resume and suffix != ".jsonl",
        }
        for message, wrong in faults.items():
            if wrong:
                raise UserError(message)
        drafting.tokens_of(self.draft_tokens)
        counts = "samples horizon batch_size max_completion_length"
        check_ranges(self, {"[1, inf)": counts, "(0, inf)": "temperature", "(0, 1]": "top_p"})
        if self.out:
            self._check_out(Path(self.out).expanduser())

    def _check_out(self, out: Path) -> None:
        if out.suffix.lower() not in (".jsonl", ".csv"):
            raise UserError(f"out: {out}: name it .jsonl or .csv")
        if out.is_dir():
            raise UserError(f"out: {out} is a folder: give the name of a file")
        for name in ("rows", "dataset_name", "calibration", "recipe"):
            given = getattr(self, name)
            if given and out.resolve() == Path(given).expanduser().resolve():
                raise UserError(f"out: {out} is the file that {name} reads: give another")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    run = load_command(argv, "predict", Predict, "--model runs/demo/stage2/best_model --csv AAPL.csv")
    start_log(sys.stderr)
    with Predictor(run.model, run) as predictor:
        rows = predictor.rows(run)
        done = _done(run, rows, predictor.forecaster.sampling.samples) if run.resume else []
        batches = with_progress(_batches(rows[len(done) :], run.batch_size), "rows")
        forecasts: Iterator[Row] = (one for batch in batches for one in predictor.forecasts(batch))
        if run.out:
            forecasts = _written(run.out, done, forecasts)
        forecasts = itertools.chain(done, forecasts)
        if run.format == "table":
            print_forecasts(list(forecasts), predictor)
        else:
            collections.deque(_printed(sys.stdout, f".{run.format}", forecasts), maxlen=0)
    if run.out:
        log.info("saved %s", run.out)


def predict(
    model: str | Path, data: str | Path | DataFrame | Sequence[Row] | None = None, **keys: Any
) -> list[dict[str, Any]]:
    """Forecasts of a trained model, one per row, as `stonk predict` makes them.

    model: folder of a model or an adapter, or a name on the Hub. data: a CSV of prices or another dataset_name (each
    company's last day, unless `date`, `start` or `end` say otherwise), or rows as `rl_dataset` has them; a DataFrame of
    either; left out: the dataset of the model's recipe. keys: those of `Predict`, such as samples=8, tickers=["AAPL"].

    Each forecast has model, ticker, date, direction (UP, DOWN; None when no answer could be read), confidence (share
    of the readable samples that say so), stated_confidence, move (expected absolute return, a fraction), base_rate_up,
    samples, readable, label and next_return (None where not known; None and 0 where the close did not change); of a
    language model also answers, and one of them as answer with its evidence; of a GPT quantiles of the return. Raises
    UserError for what cannot be done.
    """
    with tempfile.TemporaryDirectory(prefix="stonk-") as folder:
        given = _rows_or_file(data, Path(folder)) if hasattr(data, "to_dict") else data
        if isinstance(given, (str, Path)):
            keys["dataset_name"] = str(given)
        run = Predict(model=str(model), **keys)
        with Predictor(run.model, run) as predictor:
            if given is None or isinstance(given, (str, Path)):
                rows = predictor.rows(run)
            else:
                rows = [predictor.checked(row, f"row {number}") for number, row in enumerate(given, start=1)]
            return [one for batch in _batches(rows, run.batch_size) for one in predictor.forecasts(batch)]


def _rows_or_file(frame: DataFrame, folder: Path) -> list[Row] | Path:
    """Rows of a DataFrame that has prompts; else a file of its prices, or of its deepstock schema, in `folder`."""
    if "prompt" in frame:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return [row | {"prompt": list(row["prompt"])} for row in rows]  # an array, where it was read from parquet
    if "company_info" in frame:
        frame.to_parquet(folder / "rows.parquet")
        return folder / "rows.parquet"
    if "date" not in (str(column).lower() for column in frame.columns):
        frame = frame.rename_axis("date").reset_index()
    frame.to_csv(folder / "prices.csv", index=False)
    return folder / "prices.csv"


def _batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


# ------------------------------------------------------------------------------------------------------ a model


class Predictor:
    """A model with the recipe it was trained by, ready to forecast; a context manager, for a merged adapter's sake.

    run: its recipe, dataset_name, tickers, calibration and what `SamplingConfig` holds are read.
    """

    def __init__(self, model: str, run: Predict):
        from stonk_trainer.models import loading

        self.name, self._merged = model, tempfile.TemporaryDirectory(prefix="stonk-")
        loading.check_folder(model)
        self.recipe = run.recipe or _recipe_of(model)
        chosen: dict[str, Any] = {"tickers": run.tickers} if run.tickers else {}
        if run.dataset_name:
            chosen = {"dataset_name": run.dataset_name, "tickers": run.tickers}
        task, values = task_of_recipe(self.recipe, **chosen)
        self.reward_weights = values.get("reward_weights") or [1.0] * len(task.args.reward)
        if "predict" in task.UNSUPPORTED_COMMANDS:
            raise UserError(task.UNSUPPORTED_COMMANDS["predict"])
        if not isinstance(task, ForecastTask):
            raise UserError(f"stonk predict is for forecasts; the task {task.name} makes none")
        own = task.arguments_of_model(Path(model).expanduser())
        self.task: ForecastTask = task.replaced(**own) if own else task
        self.task.model = self.path = loading.locate_model(model, self._merged.name)
        sampling = SamplingConfig(
            samples=run.samples or self.task.SAMPLES,
            temperature=run.temperature,
            top_p=run.top_p,
            max_tokens=run.max_completion_length or values.get("max_completion_length") or SamplingConfig.max_tokens,
            horizon=run.horizon,
            seed=run.seed,
            dtype=run.dtype,
            draft_tokens=run.draft_tokens,
        )
        self.forecaster: Any = self.task.load_forecaster(self.path, sampling)  # a task's own may do more
        self._calibration = None
        if run.calibration:
            from stonk_trainer.forecasting.calibration import read_calibration

            self._calibration = read_calibration(run.calibration, model)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self._merged.cleanup()

    def sample_with(self, **changes: Any) -> None:
        """Sample otherwise from now on: fields of `SamplingConfig`."""
        self.forecaster.sampling = dataclasses.replace(self.forecaster.sampling, **changes)

    def rows(self, run: Predict) -> list[Row]:
        """The rows that `run` names: of its file, or of the days of its dataset."""
        if run.rows:
            return self._rows_of_file(run.rows)
        first, last = run.date or run.start, run.date or run.end
        return self.task.rows_to_forecast(first, last, run.horizon)

    def _rows_of_file(self, name: str) -> list[Row]:
        where = "standard input" if name == "-" else name
        rows = [self.checked(row, f"rows: {where}, line {number}") for number, row in read_jsonl(name)]
        if not rows:
            raise UserError(f"rows: {where} has none")
        return rows

    def checked(self, row: Any, where: str) -> Row:
        """A row that came from elsewhere, or a UserError that begins with `where`."""
        if not isinstance(row, dict):
            raise UserError(f"{where}: a row is a JSON object, this is {type(row).__name__}")
        for key in ("ticker", "date", "label"):
            if not isinstance(row.get(key), str | None):
                raise UserError(f"{where}: {key}: {row[key]!r} is not text")
        for key in ("next_return", "base_rate_up"):
            value = row.get(key)
            if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise UserError(f"{where}: {key}: {value!r} is not a number")
        return self.task.check_row(row, where)

    def forecasts(
        self, rows: Sequence[Row], on_token: Callable[[list[str]], None] | None = None
    ) -> list[dict[str, Any]]:
        """One forecast per row, all made together; on_token: see `task.Forecaster`."""
        found = []
        for row, forecast in zip(rows, self.forecaster.forecasts(rows, on_token), strict=True):
            known = {key: row.get(key) for key in ("ticker", "date", "label", "next_return", "base_rate_up")}
            one = {"model": self.name, **known, "samples": self.forecaster.sampling.samples, **forecast}
            if self._calibration is not None:
                up = self._calibration.p_up(one)
                one["calibrated_confidence"] = None if up is None else up if one["direction"] == "UP" else 1 - up
            found.append(one)
        return found


def _recipe_of(model: str) -> str:
    """The recipe of the run that made a model; a shipped one of its task where there is none."""
    folder = Path(model).expanduser()
    for home in (folder, folder.parent):
        if folder.is_dir() and (home / "recipe.yaml").is_file():
            return str(home / "recipe.yaml")
    tasks = [task for task in map(load_task, BUILT_IN) if issubclass(task, ForecastTask) and task.recognises(folder)]
    recipe = tasks[-1].RECIPE  # the first one takes any language model
    log.info("no recipe.yaml beside %s: prompts as of %s; give --recipe if it was trained by another", model, recipe)
    return recipe


# ------------------------------------------------------------------------------------------------------ a file


def _written(out: str, done: Sequence[Mapping], forecasts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass the forecasts on and write each to `out` at once, so that a killed run can go on."""
    path = Path(out).expanduser()
    make_folder(path.parent, "out")
    try:
        file = path.open("a" if done else "w", newline="")
    except OSError as error:
        raise UserError(f"out: {out} cannot be written: {error.strerror}") from error
    with file:
        yield from _printed(file, path.suffix.lower(), forecasts)


def _printed(file: TextIO, suffix: str, forecasts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass the forecasts on and write each to an open file, as a line of a .csv or a .jsonl file."""
    writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    if suffix == ".csv":
        writer.writeheader()
    for forecast in forecasts:
        if suffix == ".csv":
            writer.writerow(forecast)
        else:
            file.write(json.dumps(forecast) + "\n")
        file.flush()
        yield forecast


def _done(run: Predict, rows: Sequence[Row], samples: int) -> list[dict[str, Any]]:
    """The forecasts that `out` has already; a torn last line is removed from it.

    Raises UserError when they are of another model, other rows or another number of samples.
    """
    path = Path(run.out or "").expanduser()
    if not path.is_file():
        return []
    dropped: list[Dropped] = []
    done = [line for _, line in read_jsonl(path, dropped)]
    same = len(done) <= len(rows) and all(
        (one.get("model"), one.get("samples"), one.get("ticker"), one.get("date"))
        == (run.model, samples, row.get("ticker"), row.get("date"))
        for one, row in zip(done, rows, strict=False)
    )
    if not same or any(not line.torn for line in dropped):
        raise UserError(
            f"out: {path} has forecasts of other rows, another model or another number of samples: give another --out"
        )
    write_whole(path, "".join(json.dumps(one) + "\n" for one in done))
    log.info("%d of %d rows are done already", len(done), len(rows))
    return done


# ------------------------------------------------------------------------------------------------------ a table


def print_forecasts(forecasts: Sequence[Row], predictor: Predictor) -> None:
    """A table, and below it what the task has to show of the first rows."""
    console = make_console()
    numbers = ("samples", "stated", "calibrated", "move", "base rate", "outcome")
    columns = ["row", "forecast", *numbers]
    optional = {"calibrated": "calibrated_confidence", "outcome": "next_return", "stated": "stated_confidence"}
    for name, key in optional.items():
        if all(one.get(key) is None for one in forecasts):
            columns.remove(name)
    table = plain_table(*columns, numbers=numbers)
    table.columns[0].no_wrap = True
    for one in forecasts:
        cells = _cells(one)
        table.add_row(*(printable(cells[name], console) for name in columns))
    console.print(printable(f"{predictor.name}: {len(forecasts)} rows", console))
    console.print(table)
    note = "samples: share of them that agrees; base rate: how often it rose until then"
    if "calibrated" in columns:
        note += "; calibrated, below 50%: earlier days point to the other direction"
    console.print(note, style="dim", soft_wrap=True)
    if unread := sum(one["direction"] is None for one in forecasts):
        advice = "cut off by --max_completion_length, or see `problem` with --format jsonl"
        console.print(f"{unread} of {len(forecasts)} rows have no answer that can be read: {advice}", soft_wrap=True)
    console.print()
    for one in forecasts[:SHOWN_WHOLE]:
        predictor.task.print_details(one)


def _cells(one: Mapping) -> dict[str, str]:
    def percent(value: float | None, form: str = ".0%") -> str:
        return "" if value is None else f"{value:{form}}"

    agree = "" if one["confidence"] is None else f"{one['confidence']:.0%} of {one['readable']}"
    sign = {"UP": "+", "DOWN": "-"}.get(one["direction"] or "", "")
    return {
        "row": f"{one['ticker'] or ''} {one['date'] or ''}".strip(),
        "forecast": one["direction"] or "not readable",
        "samples": agree,
        "stated": percent(one["stated_confidence"]),
        "calibrated": percent(one.get("calibrated_confidence")),
        "move": "" if one["move"] is None else f"{sign}{one['move']:.2%}",
        "base rate": percent(one["base_rate_up"], ".1%"),
        "outcome": "unchanged" if one["next_return"] == 0 else percent(one["next_return"], "+.2%"),
    }


if __name__ == "__main__":
    main()
