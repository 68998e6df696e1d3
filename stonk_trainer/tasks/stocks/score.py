"""The reward debugger: why one completion earned what it did, and whether a run's log shows gaming.

    stonk score --row rows.jsonl:3 --completion answer.txt
    stonk score --log runs/demo/stage1/training_log.jsonl --rebuild

A row is one line of the RL dataset. The first form needs neither a model nor torch and answers in one to two seconds;
`--from` and `--rebuild` read a recipe's dataset, which takes some more. The second form is in `rescore.py`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.files import read_jsonl, read_text
from stonk_trainer.imports import is_imported, name_of
from stonk_trainer.recipe import EvalRun, check_day, find_recipe, read_yaml, task_of_recipe
from stonk_trainer.recipe.parse import parse_file_value, strict_parser
from stonk_trainer.task import Row
from stonk_trainer.tasks.stocks import Stocks
from stonk_trainer.tasks.stocks.rescore import score_log
from stonk_trainer.tasks.stocks.rewards import COMPONENTS, EVIDENCE
from stonk_trainer.tasks.stocks.row import check_row
from stonk_trainer.tasks.stocks.shown import print_evidence
from stonk_trainer.terminal import make_console, plain_table, printable, styled

DEFAULT_RECIPE = "stocks/stage1"

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
--completion prints such a row of the recipe's dataset (some seconds). rows.jsonl:3 is the row in line 3 of a JSONL
file.

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


def stocks_of_recipe(recipe: str, evidence: str | None = None) -> tuple[Stocks, dict[str, float]]:
    """The stocks task of a recipe, and the weight of each reward by its name; 1 each where the recipe gives none.

    No reward of the user's own is imported here, only where it is called.

    Args:
        recipe: a file, or the name of a shipped recipe.
        evidence: instead of the recipe's.

    Raises:
        UserError: a recipe of another task, or with a wrong value.
    """
    path, values = str(find_recipe(recipe)), read_yaml(recipe)
    if values.get("task") != "stocks":
        raise UserError(f"{path}: task: {values.get('task')}: stonk score supports the task stocks only")
    try:
        task, _ = task_of_recipe(recipe, **({"evidence": evidence} if evidence else {}))
    except UserError as error:
        raise error if path in str(error) else UserError(f"{path}: {error}") from error
    parser = strict_parser((EvalRun,), "stonk score", "", "")
    weights, limit = (
        None if values.get(key) is None else parse_file_value(parser, path, key, values[key])
        for key in ("reward_weights", "max_completion_length")
    )
    names = task.reward_names
    if weights is None:
        weights = [1.0] * len(names)
    if len(weights) != len(names):
        raise UserError(f"{path}: reward_weights has {len(weights)} values for {len(names)} rewards: give one each")
    task.max_completion_length = limit
    assert isinstance(task, Stocks)
    return task, dict(zip(names, weights, strict=True))


# ------------------------------------------------------------------------------------------------------ the row


def read_row(name: str, needed: tuple[str, ...]) -> Row:
    """The row in a JSON file, or in line N (from 1) of a JSONL file named `FILE:N`. needed: see `check_row`."""
    match = re.fullmatch(r"(.+):(\d+)", name)
    if match and not Path(name).exists():
        path, number = match[1], int(match[2])
        rows = dict(read_jsonl(path))
        if number not in rows:
            raise UserError(f"{path} has no row in line {number}: its last row is in line {max(rows, default=0)}")
        return check_row(rows[number], name, needed)
    try:
        row = json.loads(read_text(name))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON: {error} (the first row of a JSONL file is {name}:1)") from error
    return check_row(row, name, needed)


def _row_of_day(recipe: str, ticker: str, day: str) -> Row:
    """The row of one company and day as the recipe renders it, whether or not the recipe's sample holds it."""
    from stonk_trainer.tasks.stocks.dataset import base_rate_up, split_of_day

    check_day("--date", day)
    task, _ = stocks_of_recipe(recipe)
    first, last = ((date.fromisoformat(day) + timedelta(days=days)).isoformat() for days in (-10, 10))
    of_company = task.replaced(tickers=[ticker], train_end="auto")  # auto: training days are no reason to warn here
    rows = of_company.rows_to_forecast(first, last)
    known = {row["date"]: row for row in rows if row["label"] is not None}
    if day not in known:
        near = ", ".join(sorted(sorted(known, key=lambda other: _days_between(other, day))[:3]))
        why = "no trading day, or an unchanged next close"
        raise UserError(f"{ticker} has no row on {day} in {recipe} ({why}); the nearest: {near}")
    return {**known[day], "base_rate_up": base_rate_up(task.args, split_of_day(task.args, day))}


def _days_between(day: str, other: str) -> int:
    return abs((date.fromisoformat(day) - date.fromisoformat(other)).days)


# ------------------------------------------------------------------------------------------------------ its score


def _score_log(options: argparse.Namespace) -> None:
    beside_log, notes = Path(options.log).with_name("recipe.yaml"), []
    recipe = options.recipe or (str(beside_log) if beside_log.is_file() else None)
    if recipe is None:
        recipe = DEFAULT_RECIPE
        notes.append(f"no recipe.yaml beside the log: taken as a run of {recipe}; give --recipe if it is not")
    if options.rebuild and not beside_log.is_file():
        raise UserError(
            f"--rebuild needs {beside_log}, which a run leaves beside its log; or give the rows with --rows"
        )
    task, weights = stocks_of_recipe(recipe, options.evidence)
    rebuild_from = stocks_of_recipe(str(beside_log))[0] if options.rebuild else None
    settings = _settings(recipe, task, weights)
    score_log(options.log, task, settings, notes, options.rows, rebuild_from, as_json=options.json)


def _score_row(options: argparse.Namespace) -> None:
    recipe = options.recipe or options.source or DEFAULT_RECIPE
    task, weights = stocks_of_recipe(recipe, options.evidence)
    if options.source:
        row = _row_of_day(options.source, options.ticker, options.date)
        if not options.completion:
            print(json.dumps(row))
            return
    else:
        row = read_row(options.row, task.scorer.columns)
    completion, settings = read_text(options.completion), _settings(recipe, task, weights)
    result = score_row(completion, row, task, weights)
    if options.json:
        known = {key: row[key] for key in ("ticker", "date", "label", "next_return") if key in row}
        print(json.dumps({**known, "scoring": settings, **result}, indent=2))
    else:
        print_score(completion, row, result, settings)


def _settings(recipe: str, task: Stocks, weights: dict[str, float]) -> dict[str, Any]:
    """How is scored, as reported."""
    settings = {name: getattr(task.args, name) for name in ("accuracy", "skew_aware", "evidence")}
    return {"recipe": recipe, **settings, "weights": weights, "max_completion_length": task.max_completion_length}


def score_row(completion: str, row: Row, task: Stocks, weights: Mapping[str, float]) -> dict[str, Any]:
    """As `rewards.score`, and with the recipe's own imported rewards."""
    built_in = {name: weight for name, weight in weights.items() if name in COMPONENTS}
    result = task.scorer.explain(completion, row, built_in)
    if imported := [name_of(path) for path in task.args.reward if is_imported(path)]:
        (earned,) = task.earned([{"prompt": [], **row}], [completion])
        for name in imported:
            result[name] = earned[name] or 0.0
            result["total"] += weights[name] * result[name]
            result["reasons"][name] = "no value for this answer" if earned[name] is None else "an imported reward"
    return result


def print_score(completion: str, row: Row, result: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """The completion, then its evidence with verdicts, the rewards and the total.

    settings: recipe, weights by reward, accuracy, skew_aware and evidence.
    """
    console = make_console()

    def show(value: object) -> str:
        return printable(str(value), console)

    title = " ".join(show(row[key]) for key in ("ticker", "date") if key in row)
    console.print(f"{title or 'row'}: {row['label']}, next return {row['next_return']:+.2%}\n")
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
    for name, reason in result["reasons"].items():
        weight = settings["weights"].get(name)
        weighted = ("", "") if weight is None else (f"{weight:g}", f"{weight * result[name]:.3f}")
        table.add_row(name, f"{result[name]:.3f}", *weighted, show(reason), style="dim" if weight is None else None)
    table.add_section()
    table.add_row("total", "", "", f"{result['total']:.3f}", "", style="bold")
    console.print(table)
    skew_aware = ", skew-aware" if settings["skew_aware"] else ""
    source = f"weights and {settings['accuracy']} accuracy{skew_aware} of {settings['recipe']}"
    console.print(f"{source}; evidence {settings['evidence']}", style="dim", soft_wrap=True)


if __name__ == "__main__":
    main()
