"""A run's log scored again, line by line, and searched for gaming: `stonk score --log`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.files import Dropped, read_jsonl
from stonk_trainer.imports import is_imported
from stonk_trainer.task import Pattern, Row
from stonk_trainer.tasks.stocks import Stocks
from stonk_trainer.tasks.stocks.gaming import NEEDED, find_patterns
from stonk_trainer.tasks.stocks.rewards import COMPONENTS, Scorer
from stonk_trainer.tasks.stocks.row import check_row, is_number
from stonk_trainer.terminal import make_console, plain_table, printable, styled

Rows = dict[tuple[str, str], Row]  # by ticker and date

TOLERANCE = 1e-4  # the log keeps six decimals of 32-bit floats
_FORECAST = ("direction", "confidence", "move")


def score_log(
    path: str,
    task: Stocks,
    settings: Mapping[str, Any],
    notes: list[str],
    rows: str | None = None,
    rebuild_from: Stocks | None = None,
    as_json: bool = False,
) -> None:
    """Score a log again, look for patterns of gaming, and print both.

    Args:
        path: the run's training_log.jsonl.
        task: the recipe that is scored by; its imported rewards are not scored again.
        settings: recipe, weights by reward, accuracy, skew_aware and evidence, as reported.
        notes: printed before the results; more are added.
        rows: a JSONL file of the rows, to check the evidence against.
        rebuild_from: the task that the rows are built with instead.
        as_json: print JSON.
    """
    lines = read_log(path, notes)
    known_rows = None
    if rows:
        known_rows = read_rows(rows, task.scorer.columns)
    elif rebuild_from:
        known_rows = {(row["ticker"], row["date"]): row for row in rebuild_from.rl_dataset("train")}
    if imported := [reward for reward in task.args.reward if is_imported(reward)]:
        notes.append(f"imported rewards are not scored again: {', '.join(imported)}")
    checks = rescore(lines, task, settings["weights"], known_rows, notes)
    patterns = find_patterns(lines, task.max_completion_length)
    if as_json:
        report = {"log": path, "completions": len(lines), "scoring": settings, "notes": notes}
        report["rescored"] = {name: dataclasses.asdict(check) for name, check in checks.items()}
        report["patterns"] = [dataclasses.asdict(pattern) for pattern in patterns]
        print(json.dumps(report, indent=2))
    else:
        print_log(path, settings["recipe"], lines, notes, checks, patterns)


# ------------------------------------------------------------------------------------------------------ reading


def read_log(path: str, notes: list[str]) -> list[Row]:
    """The lines of a stocks run log. A last line that a crash cut off is skipped, with a note.

    Raises UserError for an empty log, for a log of another task, and for a broken line, by its number.
    """
    dropped: list[Dropped] = []
    lines = [_check_line(line, f"{path}: line {number}") for number, line in read_jsonl(path, dropped)]
    for number, torn in dropped:
        if not torn:
            raise UserError(f"{path}: line {number} is not a JSON object")
        notes.append(f"line {number} is cut off and skipped")
    if not lines:
        raise UserError(f"{path} holds no completion{': ' + notes[-1] if dropped else ''}")
    return lines


def _check_line(line: Row, where: str) -> Row:
    if missing := [key for key in NEEDED if key not in line]:
        raise UserError(f"{where} lacks {', '.join(missing)}: not a line of a stocks run's training_log.jsonl")
    valid = {
        "step": isinstance(line["step"], int) and not isinstance(line["step"], bool),
        "label": line["label"] in ("UP", "DOWN"),
        "direction": line["direction"] in ("UP", "DOWN", None),
        **{name: isinstance(line[name], str) for name in ("ticker", "date", "completion")},
        **{name: is_number(line[name]) for name in (*COMPONENTS, "total", "next_return") if name in line},
    }
    for key, is_valid in valid.items():
        if not is_valid:
            raise UserError(f"{where}: {key}: {str(line[key])[:80]!r} is not what a stocks run logs")
    return line


def read_rows(path: str, columns: Sequence[str]) -> Rows:
    """Rows of a JSONL file, which must have these columns, ticker and date."""
    needed = ("ticker", "date", *columns)
    rows = [check_row(row, f"{path}:{number}", needed) for number, row in read_jsonl(path)]
    return {(row["ticker"], row["date"]): row for row in rows}


# ------------------------------------------------------------------------------------------------------ scoring


@dataclasses.dataclass
class Check:
    """Logged values compared with those scored again: how many, how many differ, the largest absolute difference, and
    the number (from 1) of the completion that has it."""

    compared: int = 0
    differ: int = 0
    largest: float = 0.0
    line: int | None = None

    def add(self, number: int, difference: float) -> None:
        self.compared += 1
        if difference > TOLERANCE:
            self.differ += 1
            if difference > self.largest:
                self.largest, self.line = round(difference, 6), number


def rescore(
    lines: Sequence[Row], task: Stocks, weights: Mapping[str, float], rows: Rows | None, notes: list[str]
) -> dict[str, Check]:
    """Score every line again and compare, by reward; explain in `notes` what could not be compared.

    Also compared: `forecast` (direction, confidence and move as read again), and `total`, the weighted sum of the
    logged rewards. Without `rows` the facts are unknown, so that magnitude, data_usage and coherence are left out, as
    is accuracy when it is skew-aware.
    """
    logged = [name for name in (*COMPONENTS, *(set(weights) - set(COMPONENTS))) if name in lines[0]]
    compared = [name for name in logged if name in COMPONENTS]
    if rows is None:
        left_out = [name for name in compared if name != "accuracy" or task.args.skew_aware]
        compared = [name for name in compared if name not in left_out]
        if left_out:
            reason = "not scored again without the rows' facts; give --rows FILE or --rebuild"
            notes.append(f"{', '.join(left_out)}: {reason}")
    has_total = set(logged) == set(weights)
    if not has_total:
        notes.append(f"total: not checked, the log's rewards ({', '.join(logged) or 'none'}) are not the recipe's")
    checks = {name: Check() for name in ("forecast", *compared, *(["total"] if has_total else []))}
    without_facts = Scorer(task.args.accuracy, evidence=task.args.evidence)
    unknown = changed = 0
    for number, line in enumerate(lines, start=1):
        row = rows.get((line["ticker"], line["date"])) if rows else None
        if row is None:
            unknown += rows is not None
            row_of_log = {"label": line["label"], "next_return": line.get("next_return", 0.0), "facts": "[]"}
            result = without_facts.explain(line["completion"], row_of_log)
        else:
            changed += any(row[key] != line[key] for key in ("label", "next_return") if key in line)
            result = task.scorer.explain(line["completion"], row)
        forecast = result["forecast"] or dict.fromkeys(_FORECAST)
        checks["forecast"].add(number, float(any(_differ(line[k], forecast[k]) for k in _FORECAST if k in line)))
        if row is not None or rows is None:
            for name in [name for name in compared if name in line]:
                checks[name].add(number, abs(line[name] - result[name]))
        if has_total and all(name in line for name in logged):
            total = sum(weight * (line[name] or 0.0) for name, weight in weights.items())
            checks["total"].add(number, abs(line["total"] - total))
    if unknown:
        notes.append(f"{unknown} completions are of rows that are not among the {len(rows or ())} given")
    if changed:
        notes.append(f"{changed} completions have another label or return in the rows than in the log")
    return checks


def _differ(logged: Any, read: Any) -> bool:
    if is_number(logged) and is_number(read):
        return abs(logged - read) > TOLERANCE
    return logged != read


# ------------------------------------------------------------------------------------------------------ printing


def print_log(
    path: str,
    recipe: str,
    lines: Sequence[Row],
    notes: Sequence[str],
    checks: Mapping[str, Check],
    patterns: Sequence[Pattern],
) -> None:
    """Print what the log holds, the notes, a table of what was scored again, and the patterns found."""
    console = make_console()
    steps = [line["step"] for line in lines]
    rows = len({(line["ticker"], line["date"]) for line in lines})
    summary = f"{len(lines):,} completions for {rows:,} rows, steps {min(steps)}-{max(steps)}, scored as {recipe}"
    console.print(printable(f"{path}: {summary}", console), soft_wrap=True)
    for note in notes:
        console.print(printable(f"note: {note}", console), style="dim", soft_wrap=True)
    table = plain_table("scored again", "compared", "differ", "largest difference", numbers=("compared", "differ"))
    for name, check in checks.items():
        largest = ""
        if check.differ:
            largest = f"completion {check.line}"
            if name != "forecast":
                largest = f"{check.largest:.4g} ({largest})"
        style = "yellow" if check.differ else None
        table.add_row(name, f"{check.compared:,}", f"{check.differ:,}", largest, style=style)
    console.print(table)
    if not patterns:
        console.print("no pattern of gaming found", style="green")
    for pattern in patterns:
        style = {"warning": "red", "notice": "yellow", "unjudged": "dim"}[pattern.severity]
        line = styled(f"{pattern.severity}: {pattern.name}. ", style)
        console.print(line.append(printable(pattern.text, console), "default"), soft_wrap=True)
