"""The reward debugger: why one completion earned what it did, and whether a run's log shows gaming.

    stonk score --row rows.jsonl:3 --completion answer.txt
    stonk score --log runs/demo/stage1/training_log.jsonl --rebuild

A row is one line of the RL dataset. The first form needs neither a model nor TRL and answers in under a second;
`--from` and `--rebuild` read a recipe in full and its dataset, which takes some seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.imports import ImportRules, Reward, as_trl_calls, check_names, is_imported, load_reward, name_of
from stonk_trainer.recipe import find_recipe, import_rules, read_yaml
from stonk_trainer.task import Pattern, Task
from stonk_trainer.tasks.stocks import StocksArguments
from stonk_trainer.tasks.stocks.facts import check_facts
from stonk_trainer.tasks.stocks.gaming import NEEDED, find_patterns
from stonk_trainer.tasks.stocks.rewards import ACCURACIES, COMPONENTS, EVIDENCE, score
from stonk_trainer.tasks.stocks.shown import print_evidence
from stonk_trainer.terminal import make_console, plain_table, printable, styled

DEFAULT_RECIPE = "stocks/stage1"
TOLERANCE = 1e-4  # the log keeps six decimals of 32-bit floats

HELP = """\
Say why a completion earned what it did, line by line of its evidence; or score a run's log again and look for
gaming."""

EXAMPLES = """\
examples:
  stonk score --from stocks/demo/stage1 --ticker AAPL --date 2019-03-04 > row.json
  stonk score --row row.json --completion answer.txt
  echo "Prediction: UP" | stonk score --row rows.jsonl:3 --completion - --recipe stocks/stage2
  stonk score --log runs/demo/stage1/training_log.jsonl --rebuild

A row is JSON with the keys label ("UP" or "DOWN"), next_return (fraction), facts (a list of name, value, unit and
shown, or that list as a string) and, for skew_aware, base_rate_up; ticker and date are shown. --from RECIPE without
--completion prints such a row of a GRPO recipe's dataset (some seconds). Rows one per line are a JSONL file, whose
third row is rows.jsonl:3.

Weights, accuracy, skew_aware and evidence come from --recipe. Without it they are those of the recipe given with
--from, of recipe.yaml beside the log, or of stocks/stage1. Exit status: 0, also when patterns are found; 2 for input
that cannot be read."""


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    if options.log:
        _score_log(options)
    else:
        _score_row(options)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (stonk score --help)")


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="stonk score",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--row", metavar="FILE[:N]", help="the row: a JSON file, or line N (from 1) of a JSONL file")
    what.add_argument("--from", metavar="RECIPE", dest="source", help="take the row from this recipe's dataset")
    what.add_argument("--log", metavar="FILE", help="a run's training_log.jsonl: score it again, look for gaming")
    parser.add_argument("--completion", metavar="FILE", help="the completion's text; - reads standard input")
    parser.add_argument("--ticker", help="with --from: the company")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="with --from: the day")
    parser.add_argument("--rows", metavar="FILE", help="with --log: the rows, as JSONL, to score the evidence again")
    parser.add_argument(
        "--rebuild", action="store_true", help="with --log: rebuild the rows from recipe.yaml beside it"
    )
    parser.add_argument("--recipe", metavar="RECIPE", help="whose weights, accuracy, skew_aware and evidence to use")
    parser.add_argument(
        "--evidence",
        choices=EVIDENCE,
        help="required: only lines of evidence count; optional: without any, the numbers of the reasoning do",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    belongs = {"completion": ("row", "source"), "ticker": ("source",), "date": ("source",)}
    belongs |= {"rows": ("log",), "rebuild": ("log",)}
    for name, with_ in belongs.items():
        if getattr(options, name) and not any(getattr(options, other) for other in with_):
            flags = " or ".join("--from" if other == "source" else f"--{other}" for other in with_)
            parser.error(f"--{name} goes with {flags}")
    if options.row and not options.completion:
        parser.error("--row needs --completion FILE, or - for standard input")
    if options.source and not (options.ticker and options.date):
        parser.error("--from needs --ticker and --date")
    if options.rows and options.rebuild:
        parser.error("--rows and --rebuild both give the rows: keep one")
    return options


# ------------------------------------------------------------------------------------------------------ the stage


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How a recipe scores: its kind of accuracy, what counts as evidence, the weight of each reward by name. imported:
    rewards of the user's; left_out: those that only a recipe which the user names may import."""

    recipe: str
    accuracy: str
    skew_aware: bool
    evidence: str
    weights: dict[str, float]
    max_completion_length: int | None
    imported: dict[str, Reward] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"imported": list(self.imported)}


def read_scoring(recipe: str, evidence: str | None = None, named: bool = False) -> Scoring:
    """The scoring of a stocks recipe (a file, or a shipped one's name), from its YAML alone.

    evidence: instead of the recipe's. named: whether the user names this recipe, so that it may import rewards. Keys
    left out have the task's defaults; weights left out are 1. Raises UserError for a recipe of another task.
    """
    values = read_yaml(recipe)
    path = find_recipe(recipe)
    if values.get("task") != "stocks":
        raise UserError(f"{path}: task: {values.get('task')}: stonk score knows the rewards of the task stocks")
    default = StocksArguments()
    rewards = values.get("reward", default.reward)
    rewards = [rewards] if isinstance(rewards, str) else rewards
    if not isinstance(rewards, list) or not all(isinstance(name, str) for name in rewards):
        raise UserError(f"{path}: reward: {rewards} is not a list of {', '.join(COMPONENTS)}")
    try:
        check_names(rewards, COMPONENTS)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    weights = values.get("reward_weights")
    if weights is None:
        weights = [1.0] * len(rewards)
    if not isinstance(weights, list) or len(weights) != len(rewards) or not all(map(_is_number, weights)):
        raise UserError(f"{path}: reward_weights: {weights} must be one number for each of {', '.join(rewards)}")
    accuracy, skew_aware = values.get("accuracy", default.accuracy), values.get("skew_aware", default.skew_aware)
    if accuracy not in ACCURACIES or not isinstance(skew_aware, bool):
        raise UserError(f"{path}: accuracy must be one of {', '.join(ACCURACIES)}, and skew_aware true or false")
    evidence = evidence or values.get("evidence", default.evidence)
    if evidence not in EVIDENCE:
        raise UserError(f"{path}: evidence: {evidence} is not one of {', '.join(EVIDENCE)}")
    length = values.get("max_completion_length")
    length = length if isinstance(length, int) and length > 0 else None
    paths = [reward for reward in rewards if is_imported(reward)]
    rules = import_rules(recipe, named_by_flag=False, trusted=False) if named else ImportRules()
    imported = {name_of(reward): load_reward(reward, rules) for reward in paths} if named else {}
    left_out = () if named else tuple(paths)
    kept = {name_of(r): float(weight) for r, weight in zip(rewards, weights, strict=True) if r not in left_out}
    return Scoring(recipe, accuracy, skew_aware, evidence, kept, length, imported, left_out)


def _is_number(value: Any) -> bool:
    """A finite number; not a boolean, nor an integer that no float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < sys.float_info.max  # False for NaN


# ------------------------------------------------------------------------------------------------------ reading


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_row(name: str, skew_aware: bool = False) -> dict:
    """The row in a JSON file, or in line N (from 1) of a JSONL file named `FILE:N`; see `check_row`."""
    match = re.fullmatch(r"(.+):(\d+)", name)
    if match and not Path(name).exists():
        lines = _lines(_read_text(match[1]))
        number = int(match[2])
        if not 1 <= number <= len(lines):
            raise UserError(f"{match[1]} has no line {number}: it has {len(lines)}")
        return check_row(_parse(lines[number - 1], name), name, skew_aware)
    text = _read_text(name)
    lines = [line for line in _lines(text) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines):
        raise UserError(f"{name} has {len(lines)} rows: say which, as {name}:1")
    return check_row(_parse(text, name), name, skew_aware)


def _lines(text: str) -> list[str]:
    """Lines as JSONL has them: `splitlines` would also cut at separators that JSON strings may hold."""
    return text.removesuffix("\n").split("\n") if text else []


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{name} is not a row: it is nested too deeply") from error


def check_row(row: Any, name: str, skew_aware: bool = False) -> dict:
    """`row` with its facts as a JSON string; a UserError that names `name` and the key when it cannot be scored."""
    if not isinstance(row, dict):
        raise UserError(f"{name}: a row is a JSON object, this is {type(row).__name__}")
    needed = ["label", "next_return", "facts", *(["base_rate_up"] if skew_aware else [])]
    if missing := [key for key in needed if key not in row]:
        raise UserError(f"{name}: the row lacks {', '.join(missing)}")
    if row["label"] not in ("UP", "DOWN"):
        raise UserError(f"{name}: label: {row['label']!r} is neither UP nor DOWN")
    if not _is_number(row["next_return"]):
        raise UserError(f"{name}: next_return: {row['next_return']!r} is not a number (a fraction: 0.012 is 1.2%)")
    if skew_aware and not (_is_number(row["base_rate_up"]) and 0 <= row["base_rate_up"] <= 1):
        raise UserError(f"{name}: base_rate_up: {row['base_rate_up']!r} is not between 0 and 1")
    return {**row, "facts": check_facts(row["facts"], name)}


def _read_rows(path: str, skew_aware: bool) -> dict[tuple[str, str], dict]:
    """Rows of a JSONL file by (ticker, date)."""
    rows = {}
    for number, line in enumerate(_lines(_read_text(path)), start=1):
        if line.strip():
            row = check_row(_parse(line, f"{path}:{number}"), f"{path}:{number}", skew_aware)
            if not isinstance(row.get("ticker"), str) or not isinstance(row.get("date"), str):
                raise UserError(f"{path}:{number}: the row lacks ticker or date, by which it is found")
            rows[row["ticker"], row["date"]] = row
    return rows


def read_log(path: str) -> tuple[list[dict], list[str]]:
    """(lines, notes) of a stocks run log. A last line cut off by a crash is left out, and a note says so.

    Raises UserError for an empty log, for a log of another task, and for a broken line, by its number.
    """
    texts, lines, notes = _read_text(path).split("\n"), [], []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = _parse(text, f"{path}: line {number}")
        except UserError:
            if number < len(texts):
                raise
            notes.append(f"line {number} is cut off and left out")
            continue
        lines.append(_check_line(line, f"{path}: line {number}"))
    if not lines:
        raise UserError(f"{path} holds no completion{': ' + notes[0] if notes else ''}")
    return lines, notes


def _check_line(line: Any, where: str) -> dict:
    if not isinstance(line, dict) or (missing := [key for key in NEEDED if key not in line]):
        what = f"lacks {', '.join(missing)}" if isinstance(line, dict) else "is no JSON object"
        raise UserError(f"{where} {what}: not a line of a stocks run's training_log.jsonl")
    fits = {
        "step": isinstance(line["step"], int) and not isinstance(line["step"], bool),
        "ticker": isinstance(line["ticker"], str),
        "date": isinstance(line["date"], str),
        "label": line["label"] in ("UP", "DOWN"),
        "direction": line["direction"] in ("UP", "DOWN", None),
        "completion": isinstance(line["completion"], str),
        **{name: _is_number(line[name]) for name in (*COMPONENTS, "total", "next_return") if name in line},
    }
    for key, fit in fits.items():
        if not fit:
            raise UserError(f"{where}: {key}: {str(line[key])[:80]!r} is not what a stocks run logs")
    return line


# ------------------------------------------------------------------------------------------------------ datasets


def _load(recipe: str) -> Task:
    """The task from a GRPO recipe, checked in full. Imports TRL (about 6 s on two cores)."""
    from stonk_trainer.recipe import load_recipe

    try:
        # Rows need no model: the one the recipe names may not have been trained yet, or be gone.
        return load_recipe(["--config", recipe, "--model_name_or_path", "no-model"], trainer="grpo").task
    except UserError as error:
        raise UserError(f"no rows from {recipe}, as a recipe of stonk grpo: {error}") from error


def _row_from_dataset(recipe: str, ticker: str, date: str) -> dict:
    """The row of one company and day as the recipe renders it, whether or not the recipe's sample holds it."""
    task = _load(recipe)
    one = task.replaced(tickers=[ticker], natural_distribution=True, max_train_samples=None, max_eval_samples=None)
    days, problem = [], None
    for split in ("train", "validation", "test"):
        try:
            rows = one.rl_dataset(split)
        except UserError as error:  # this company may have no row in one of the splits
            problem = error
            continue
        days += rows["date"]
        if date in rows["date"]:
            row = rows[rows["date"].index(date)]
            # The base rate is that of all the recipe's companies, which one row of its own dataset tells.
            few = task.replaced(max_train_samples=1, max_eval_samples=1)
            return {**row, "base_rate_up": few.rl_dataset(split)[0]["base_rate_up"]}
    if not days and problem:
        raise problem
    near = ", ".join(sorted(sorted(days, key=lambda day: _apart(day, date))[:3]))
    raise UserError(
        f"{ticker} has no row on {date} in {recipe} (no trading day, an unchanged next close, or between two splits); "
        f"the nearest: {near}"
    )


def _apart(day: str, other: str) -> int:
    from datetime import date

    return abs((date.fromisoformat(day) - date.fromisoformat(other)).days)


def _rebuilt_rows(log: str) -> dict[tuple[str, str], dict]:
    recipe = Path(log).with_name("recipe.yaml")
    if not recipe.is_file():
        raise UserError(f"--rebuild needs {recipe}, which a run leaves beside its log; or give the rows with --rows")
    return {(row["ticker"], row["date"]): row for row in _load(str(recipe)).rl_dataset("train")}


# ------------------------------------------------------------------------------------------------------ one row


def _score_row(options: argparse.Namespace) -> None:
    scoring = read_scoring(options.recipe or options.source or DEFAULT_RECIPE, options.evidence, named=True)
    if options.source:
        try:
            _apart(options.date, options.date)
        except ValueError:
            raise UserError(f"--date: {options.date} is not a day, YYYY-MM-DD") from None
        row = _row_from_dataset(options.source, options.ticker, options.date)
        if not options.completion:
            print(json.dumps(row))
            return
    else:
        row = read_row(options.row, scoring.skew_aware)
    completion = _read_completion(options.completion)
    result = _scored(completion, row, scoring)
    if options.json:
        known = {key: row[key] for key in ("ticker", "date", "label", "next_return") if key in row}
        print(json.dumps({**known, "scoring": scoring.to_json(), **result}, indent=2))
    else:
        print_score(completion, row, result, scoring)


def _scored(completion: str, row: Mapping, scoring: Scoring) -> dict[str, Any]:
    """As `rewards.score`, and with the imported rewards of the recipe."""
    of_task = {name: weight for name, weight in scoring.weights.items() if name not in scoring.imported}
    keys: dict[str, Any] = {key: getattr(scoring, key) for key in ("accuracy", "skew_aware", "evidence")}
    result = score(completion, row, **keys, weights=of_task)
    if scoring.imported:
        columns = {name: [value] for name, value in row.items() if name != "prompt"}
        answer = [{"role": "assistant", "content": completion}]
        given = as_trl_calls([row.get("prompt")], [answer], [completion.split()], columns)
        for name, reward in scoring.imported.items():
            (value,) = reward(**given)
            result[name] = 0.0 if value is None else value
            result["total"] += scoring.weights[name] * result[name]
            result["reasons"][name] = "no value for this answer" if value is None else "a reward of the recipe's own"
    return result


def _read_completion(name: str) -> str:
    if name != "-":
        return _read_text(name)
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UserError("standard input is not text in UTF-8") from error


def print_score(completion: str, row: Mapping, result: Mapping, scoring: Scoring) -> None:
    """The completion, then its evidence with verdicts, the rewards and the total."""
    console = make_console()

    def show(value: object) -> str:
        return printable(str(value), console)

    what = " ".join(show(row[key]) for key in ("ticker", "date") if key in row)
    console.print(f"{what or 'row'}: {row['label']}, next return {row['next_return']:+.2%}")
    console.print()
    if completion.strip():
        console.print(styled(show(completion.rstrip())), soft_wrap=True)
    else:
        console.print("(empty completion)", style="dim")
    console.print()
    forecast = result["forecast"]
    if forecast is None:
        console.print(f"forecast: none, {show(result['problem'])}", style="red")
    else:
        stated = [f"{key} {forecast[key]:.4g}" for key in ("confidence", "move") if forecast[key] is not None]
        console.print(f"forecast: {', '.join([forecast['direction'], *stated])}")
    if result["remark"]:
        console.print(f"note: {show(result['remark'])}", style="yellow", soft_wrap=True)
    console.print()
    print_evidence(result["evidence"], result["invented"], console)
    table = plain_table("reward", "value", "weight", "adds", "why", numbers=("value", "weight", "adds"))
    for name in (*COMPONENTS, *scoring.imported):
        weight = scoring.weights.get(name)
        told = ("", "") if weight is None else (f"{weight:g}", f"{weight * result[name]:.3f}")
        style = None if weight is not None else "dim"
        table.add_row(name, f"{result[name]:.3f}", *told, show(result["reasons"][name]), style=style)
    table.add_section()
    table.add_row("total", "", "", f"{result['total']:.3f}", "", style="bold")
    console.print(table)
    aware = ", skew-aware" if scoring.skew_aware else ""
    said = f"weights and {scoring.accuracy} accuracy{aware} of {scoring.recipe}; evidence {scoring.evidence}"
    console.print(said, style="dim", soft_wrap=True)


# ------------------------------------------------------------------------------------------------------ a log


def _score_log(options: argparse.Namespace) -> None:
    lines, notes = read_log(options.log)
    beside = Path(options.log).with_name("recipe.yaml")
    recipe = options.recipe or (str(beside) if beside.is_file() else DEFAULT_RECIPE)
    scoring = read_scoring(recipe, options.evidence, named=bool(options.recipe))
    notes += [f"{path} is not scored again: a recipe beside a log imports nothing" for path in scoring.left_out]
    if any("claims" in line for line in lines):
        notes.append("the log is of an older version, which read claims from prose: they are left out")
    if recipe == DEFAULT_RECIPE and not options.recipe:
        notes.append(f"no recipe.yaml beside the log: taken as a run of {DEFAULT_RECIPE}; give --recipe if it is not")
    rows = None
    if options.rows:
        rows = _read_rows(options.rows, scoring.skew_aware)
    elif options.rebuild:
        rows = _rebuilt_rows(options.log)
    checks, more = rescore(lines, scoring, rows)
    notes += more
    patterns = find_patterns(lines, scoring.max_completion_length)
    if options.json:
        report = {"log": options.log, "completions": len(lines), "scoring": scoring.to_json()}
        found = [dataclasses.asdict(pattern) for pattern in patterns]
        report |= {"notes": notes, "rescored": checks, "patterns": found}
        print(json.dumps(report, indent=2))
    else:
        print_log(options.log, lines, scoring, notes, checks, patterns)


def rescore(
    lines: Sequence[Mapping], scoring: Scoring, rows: Mapping[tuple[str, str], Mapping] | None
) -> tuple[dict[str, dict], list[str]]:
    """Score every line again and compare: (by reward: compared, differ, largest, line), and notes.

    `largest` is the largest absolute difference and `line` the number of the completion that has it, from 1. Also
    compared: `forecast` (direction, confidence and move as read again), and `total`, the weighted sum of the logged
    rewards. Without `rows` (by ticker and date) the facts are unknown, so that magnitude, data_usage and coherence are
    left out, as is accuracy when it is skew-aware.
    """
    logged = [name for name in COMPONENTS if name in lines[0]]
    checkable = [name for name in logged if rows is not None or (name == "accuracy" and not scoring.skew_aware)]
    notes = []
    if left_out := [name for name in logged if name not in checkable]:
        notes.append(f"{', '.join(left_out)}: not scored again without the rows' facts; give --rows FILE or --rebuild")
    sums = set(logged) == set(scoring.weights)
    if not sums:
        notes.append(f"total: not checked, the log's rewards ({', '.join(logged) or 'none'}) are not the recipe's")
    checks = {name: _Check() for name in ("forecast", *checkable, *(["total"] if sums else []))}
    unknown, changed = 0, 0
    for number, line in enumerate(lines, start=1):
        row = None if rows is None else rows.get((line["ticker"], line["date"]))
        unknown += rows is not None and row is None
        known = {"label": line["label"], "next_return": line.get("next_return", 0.0), "facts": "[]"}
        if row is not None:
            changed += any(row[key] != line[key] for key in ("label", "next_return") if key in line)
        skew_aware = scoring.skew_aware and row is not None
        known_row = row or {**known, "base_rate_up": 0.5}
        keys: dict[str, Any] = {"skew_aware": skew_aware, "evidence": scoring.evidence}
        result = score(line["completion"], known_row, accuracy=scoring.accuracy, **keys)
        forecast = result["forecast"] or dict.fromkeys(("direction", "confidence", "move"))
        checks["forecast"].add(number, float(any(_differs(line.get(k), v) for k, v in forecast.items() if k in line)))
        for name in checkable:
            if (row is not None or rows is None) and name in line:
                checks[name].add(number, abs(line[name] - result[name]))
        if sums and all(name in line for name in logged):
            total = sum(weight * line[name] for name, weight in scoring.weights.items())
            checks["total"].add(number, abs(line["total"] - total))
    if unknown:
        notes.append(f"{unknown} completions are of rows that are not among the {len(rows or ())} given")
    if changed:
        notes.append(f"{changed} completions have another label or return in the rows than in the log")
    return {name: dataclasses.asdict(check) for name, check in checks.items()}, notes


@dataclasses.dataclass
class _Check:
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


def _differs(logged: Any, read: Any) -> bool:
    if _is_number(logged) and _is_number(read):
        return abs(logged - read) > TOLERANCE
    return logged != read


def print_log(
    path: str,
    lines: Sequence[Mapping],
    scoring: Scoring,
    notes: Sequence[str],
    checks: Mapping[str, Mapping],
    patterns: Sequence[Pattern],
) -> None:
    console = make_console()
    steps = [line["step"] for line in lines]
    rows = len({(line["ticker"], line["date"]) for line in lines})
    told = f"{len(lines):,} completions for {rows:,} rows, steps {min(steps)}-{max(steps)}, scored as {scoring.recipe}"
    console.print(printable(f"{path}: {told}", console), soft_wrap=True)
    for note in notes:
        console.print(printable(f"note: {note}", console), style="dim", soft_wrap=True)
    table = plain_table("scored again", "compared", "differ", "largest difference", numbers=("compared", "differ"))
    for name, check in checks.items():
        where = f" (completion {check['line']})"
        largest = (
            ""
            if not check["differ"]
            else where.strip(" ()")
            if name == "forecast"
            else f"{check['largest']:.4g}{where}"
        )
        style = "yellow" if check["differ"] else None
        table.add_row(name, f"{check['compared']:,}", f"{check['differ']:,}", largest, style=style)
    console.print(table)
    if not patterns:
        console.print("no pattern of gaming found", style="green")
    for pattern in patterns:
        style = {"warning": "red", "notice": "yellow", "unjudged": "dim"}[pattern.severity]
        line = styled(f"{pattern.severity}: {pattern.name}. ", style).append(
            printable(pattern.text, console), "default"
        )
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
