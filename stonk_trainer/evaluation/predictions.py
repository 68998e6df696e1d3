"""Forecasts saved in a file: `stonk eval` writes them, and judges them again without a model."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.baselines import NAMES as BASELINES
from stonk_trainer.files import read_jsonl, read_text, write_whole
from stonk_trainer.recipe import Arguments
from stonk_trainer.task import ForecastTask
from stonk_trainer.terminal import log


def save(path: Path, records: Mapping[str, list[dict]]) -> None:
    """One JSON line per forecast: its model, and the record."""
    lines = [json.dumps({"model": name, **record}) for name, of_model in records.items() for record in of_model]
    write_whole(path, "".join(line + "\n" for line in lines))


def saved_records(name: str, task: ForecastTask, args: Arguments) -> tuple[list[dict], dict[str, list[dict]]]:
    """The rows of the split that a file forecasts, and the records of each of its models on them, in one order.

    The file is JSON lines or a CSV with `ticker` and `date` (the day of the row, YYYY-MM-DD), optionally `model` (else
    the file's name), and either `completion`, which is read and scored as a new answer would be, or `direction` (UP,
    DOWN or empty) with optional `confidence` (of that direction, in [0, 1]) and `move` (fraction). Forecasts outside
    the split are skipped, and so are rows for which one of several models has none.

    Raises:
        UserError: a malformed line; a model with forecasts of both kinds, or the name of a baseline; a duplicate
            forecast; no row of the split for which every model has a forecast.
    """
    path = Path(name).expanduser()
    forecasts: dict[str, dict[tuple[str, str], dict]] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if not line.get("ticker") or not line.get("date"):
            raise UserError(f"{where}: a forecast needs ticker and date")
        model, key = str(line.get("model") or path.stem), (str(line["ticker"]).strip(), str(line["date"]).strip()[:10])
        if model in BASELINES:
            raise UserError(f"{where}: {model} is the name of a baseline: give the model another (`model`)")
        of_model = forecasts.setdefault(model, {})
        if key in of_model:
            raise UserError(f"{where}: duplicate forecast for {key[0]} on {key[1]}: keep one")
        of_model[key] = _checked(line, where)
        if ("completion" in of_model[key]) != ("completion" in next(iter(of_model.values()))):
            raise UserError(f"{where}: {model} has completions in some lines and directions in others: keep one kind")
    split = args.options.split
    rows = [
        row
        for row in task.replaced(max_train_samples=None, max_eval_samples=None).rl_dataset(split)
        if all((row["ticker"], row["date"]) in of_model for of_model in forecasts.values())
    ]
    if not rows:
        raise UserError(f"predictions: {path} has no row of the {split} split for every model in it")
    for model, of_model in forecasts.items():
        if len(of_model) > len(rows):
            log.warning("%s: %d of %d forecasts are judged", model, len(rows), len(of_model))
    return rows, {model: _records(task, rows, of_model) for model, of_model in forecasts.items()}


def _lines(path: Path) -> list[tuple[int, dict]]:
    """(line number, fields) of each line of a JSONL or CSV file; empty CSV fields are None."""
    if not path.is_file():
        raise UserError(f"predictions: {path} not found")
    try:
        numbered = list(_csv_lines(path)) if path.suffix.lower() == ".csv" else read_jsonl(path)
    except csv.Error as error:
        raise UserError(f"predictions: {path} cannot be read as CSV: {error}") from error
    if not numbered:
        raise UserError(f"predictions: {path} is empty")
    return numbered


def _csv_lines(path: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restkey="")
    if reader.fieldnames and not {"ticker", "date"} <= set(reader.fieldnames):
        raise UserError(f"{path}: the columns ticker and date are needed (found: {', '.join(reader.fieldnames)})")
    for line in reader:
        if "" in line:
            raise UserError(f"{path}:{reader.line_num}: more cells than the header (a comma inside a number or text?)")
        yield reader.line_num, {key: value or None for key, value in line.items()}


def _checked(line: dict, where: str) -> dict:
    """The line's completion; or its direction, confidence and move. Raises UserError for a malformed value."""
    if line.get("completion") is not None:
        if not isinstance(line["completion"], str):
            raise UserError(f"{where}: completion is {type(line['completion']).__name__}, not text")
        return {"completion": line["completion"]}
    if "direction" not in line:
        raise UserError(f"{where}: a forecast needs a completion, or a direction (UP, DOWN)")
    direction = line["direction"] and str(line["direction"]).strip().upper()
    if direction not in ("UP", "DOWN", None):
        raise UserError(f"{where}: direction {line['direction']} is not UP, DOWN or empty")
    try:
        confidence, move = (None if line.get(k) is None else float(line[k]) for k in ("confidence", "move"))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: confidence and move must be numbers") from None
    if confidence is not None and not 0 <= confidence <= 1:
        raise UserError(f"{where}: confidence {confidence} is outside [0, 1]")
    if move is not None and not math.isfinite(move):
        raise UserError(f"{where}: move {move} is not finite")
    return {"direction": direction, "confidence": confidence, "move": move}


def _records(task: ForecastTask, rows: list[dict], forecasts: dict[tuple[str, str], dict]) -> list[dict]:
    """Records of one model on `rows`: its completions read and scored, or its directions as they are."""
    lines = [forecasts[row["ticker"], row["date"]] for row in rows]
    if "completion" in lines[0]:
        return task.evaluate(rows, [line["completion"] for line in lines])
    known = ("ticker", "date", "label", "next_return", "base_rate_up")
    return [{**{key: row[key] for key in known}, **line} for row, line in zip(rows, lines, strict=True)]
