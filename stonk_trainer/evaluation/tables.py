"""The tables that `stonk eval` prints: every forecaster on the same rows, with intervals, within 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stonk_trainer.evaluation.stats import interval_text
from stonk_trainer.task import Finding

TOO_FEW = "too few days"
PAIRS_ABREAST = 2  # columns of differences within 80 characters
SHARES = ("accuracy", "grounded")  # differences of shares are in points

Rows = list[tuple[str, dict]]  # the name of a forecaster, and its figures
Cell = Callable[[dict], str]  # from figures to what a column shows of them


def print_summary(summary: dict) -> None:
    """Print a summary of `evaluate.judge` (answers, forecasts, differences, backtest) or of `evaluate.judge_answers`
    (answers, differences)."""
    console = Console(markup=False)  # a name may hold brackets
    models, baselines = summary["models"], summary.get("baselines", {})
    names = dict(zip([*models, *baselines], short_names(list(models)) + list(baselines), strict=True))
    rows = [(names[name], of_model) for name, of_model in models.items()]
    is_forecast = "buy_and_hold" in summary
    if any("reward_mean" in of_model for of_model in models.values()):
        console.print(_answers(rows, "" if is_forecast else f" to {{n:,}} {summary['split']} rows"))
    if any("grounded" in of_model for of_model in models.values()):
        console.print(_evidence(rows))
    if not is_forecast:
        console.print("\n" + "\n".join(_reward_differences(summary["differences"], names)))
        console.print("\n95% intervals resample rows.", style="dim")
        return
    rows += [(names[name], of_baseline) for name, of_baseline in baselines.items()]
    console.print(_forecasts(rows, summary["split"]))
    between = [pair for pair in summary["differences"] if pair["against"] in models]
    for first in range(0, len(between), PAIRS_ABREAST):
        console.print(_differences(between[first : first + PAIRS_ABREAST], names))
    against = [pair for pair in summary["differences"] if pair["against"] not in models]
    console.print("\n" + "\n".join(_baseline_differences(against, names)))
    for name, recall in (summary.get("recall") or {}).items():
        console.print(
            f"{names[name]} with names and dates minus without: accuracy {100 * recall['difference']:+.1f} points "
            f"({interval_text(recall['ci95'], 100, missing=TOO_FEW)}); above 0 it remembers these days"
        )
    console.print(_backtests(rows, summary))
    console.print(
        "\n95% intervals resample days, with all rows of a day. Grounded: share of an answer's lines of evidence that "
        "agree with its prompt; lines and invented numbers are per answer. UP, DOWN: accuracy on the days that went "
        "there; an unreadable answer counts as wrong. majority and prior: always the direction more frequent in "
        "training. Brier: squared error of the stated probability of UP, 0.25 at a constant 50%; ECE: its calibration "
        "error. Deflated: probability that the true Sharpe ratio is above the best of "
        f"{summary['costs']['trials']} strategies without skill. Traded: times the capital per year; held: share of "
        "it in the market, on average. Compare with always UP, which is in the market on the same rows; buy & hold is "
        "there every day. Expect directional accuracy near chance: daily directions are close to random.",
        style="dim",
    )


def short_names(names: list[str]) -> list[str]:
    """`runs/demo/stage1/best_model` → stage1, when that still tells the models apart."""
    short = []
    for name in names:
        parts = [part for part in Path(name).parts if part not in ("best_model", "best_adapter")]
        short.append(parts[-1] if parts else name)
    return short if len(set(short)) == len(names) else names


def find_model(names: Iterable[str], model: Path) -> str | None:
    """Which of the models that an evaluation names is in the folder `model`: the same folder, or one of the same last
    two names (runs may have been moved); None: it is not among them."""
    named = {name: Path(name).expanduser() for name in names}
    same = [name for name, path in named.items() if path.resolve() == model.resolve()]
    same += [name for name, path in named.items() if path.parts[-2:] == model.resolve().parts[-2:]]
    return same[0] if same else None


def _reward_differences(differences: list[dict], names: dict[str, str]) -> list[str]:
    """Of answers that are not forecasts: each reward of a model minus that of the model before it."""
    return [
        f"{names[pair['model']]} minus {names[pair['against']]}: {key.removeprefix('reward: ').replace('_', ' ')} "
        f"{one['difference']:+.3f} ({interval_text(one['ci95'], 1, 3, missing=TOO_FEW)})"
        for pair in differences
        for key, one in pair.items()
        if key.startswith("reward: ")
    ]


def _baseline_differences(differences: list[dict], names: dict[str, str]) -> list[str]:
    return [
        f"{names[pair['model']]} minus {names[pair['against']]}: "
        f"accuracy {100 * pair['accuracy']['difference']:+.1f} points "
        f"({interval_text(pair['accuracy']['ci95'], 100, missing=TOO_FEW)}), Brier {pair['brier']['difference']:+.3f} "
        f"({interval_text(pair['brier']['ci95'], 1, 3, missing=TOO_FEW)})"
        for pair in differences
    ]


# ---------------------------------------------------------------------------------------------------- tables


def _differences(pairs: list[dict], names: dict[str, str]) -> Table:
    """A column per pair of models, a row per figure that they are compared by."""
    figures = dict.fromkeys(key for pair in pairs for key in pair if key not in ("model", "against"))
    rows = []
    for figure in figures:
        heading = figure.replace("_", " ").replace("brier", "Brier") + (", points" if figure in SHARES else "")
        rows.append((heading, {"figure": figure}))
    columns = {f"{names[pair['model']]} - {names[pair['against']]}": _difference_in(pair) for pair in pairs}
    return _table("Differences on the same rows (95% interval)", rows, columns)


def _difference_in(pair: dict) -> Cell:
    def shown(row: dict) -> str:
        found, (factor, digits) = pair.get(row["figure"]), (100, 1) if row["figure"] in SHARES else (1, 3)
        if found is None:
            return "-"
        ends = interval_text(found["ci95"], factor, digits, "+", missing=TOO_FEW)
        return f"{factor * found['difference']:+.{digits}f} ({ends})"

    return shown


def _answers(rows: Rows, title: str) -> Table:
    rewards = list(next(s for _, s in rows if "reward_components" in s)["reward_components"])
    columns: dict[str, Cell] = {"readable": _percent("parse_rate", 1)} if "parse_rate" in rows[0][1] else {}
    columns |= {name.replace("_", " "): _reward(name) for name in rewards}
    columns |= {"total": _number("reward_mean", 3), "95% interval": _interval("reward_mean_ci95", 1, 3)}
    return _table("Answers" + title.format(n=rows[0][1]["n"]), rows, columns, gap=1)


def _evidence(rows: Rows) -> Table:
    columns = {"grounded": _percent("grounded", 1), "95% interval": _interval("grounded_ci95", 100)}
    columns |= {"lines": _number("evidence_lines", 2), "invented numbers": _number("invented_numbers", 2)}
    return _table("Evidence", rows, columns)


def _forecasts(rows: Rows, split: str) -> Table:
    first = rows[0][1]
    title = f"Forecasts: {first['n']:,} {split} rows on {first['dates']:,} days, {first['base_rate_up']:.1%} of them UP"
    columns = {
        "accuracy": _percent("accuracy", 1),
        "95% interval": _interval("accuracy_ci95", 100),
        "UP": _percent("up_accuracy"),
        "DOWN": _percent("down_accuracy"),
        "says UP": _percent("predicted_up_rate"),
        "AUC": _number("roc_auc", 3),
        "Brier": _number("brier", 3),
        "ECE": _number("ece", 3),
    }
    return _table(title, rows, columns)


def _backtests(rows: Rows, summary: dict) -> Table:
    costs, days = summary["costs"], summary["buy_and_hold"]["dates"]
    positions = "UP is bought, DOWN is cash" if costs["long_only"] else "UP is bought, DOWN is sold short"
    start = "from the next day" if costs["lag"] == 1 else f"from {costs['lag']} days later"
    title = f"Backtest {days[0]} to {days[-1]}: {positions}, held {start}, {costs['cost_bps']:g} bp costs"
    results = [(name, s["backtest"]) for name, s in rows]
    results.append(("always UP", summary["always_up"] | {"deflated_sharpe": None}))
    results.append(("buy & hold", summary["buy_and_hold"] | {"deflated_sharpe": None}))
    columns = {
        "a year": _percent("annual_return", 1),
        "Sharpe": _number("sharpe", 2),
        "95% interval": _interval("sharpe_ci95", 1, 2),
        "deflated": _number("deflated_sharpe", 2),
        "drawdown": _percent("max_drawdown"),
        "traded": _number("turnover", 0),
        "held": _percent("exposure"),
    }
    return _table(title, results, columns)


def _table(title: str, rows: Rows, columns: Mapping[str, Cell], gap: int = 2) -> Table:
    table = Table(title="\n" + title, title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in rows:
        table.add_row(name, *(cell(figures) for cell in columns.values()))
    return table


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(key: str, digits: int = 0) -> Cell:
    return lambda figures: _text(figures.get(key), f".{digits}%")


def _number(key: str, digits: int) -> Cell:
    return lambda figures: _text(figures.get(key), f".{digits}f")


def _reward(name: str) -> Cell:
    return lambda figures: _text(figures.get("reward_components", {}).get(name), ".3f")


def _interval(key: str, factor: float, digits: int = 1) -> Cell:
    return lambda figures: interval_text(figures.get(key), factor, digits, missing=TOO_FEW)


# ---------------------------------------------------------------------------------------------------- the audit


def print_audit(findings: Sequence[Finding]) -> None:
    """Print a table of at most 80 columns, then the outcome in one line."""
    signs = {True: Text("✓", "green"), False: Text("✗", "bold red"), None: Text("–", "dim")}
    table = Table(box=SIMPLE, pad_edge=False, width=80)
    table.add_column("", width=1)
    table.add_column("check", max_width=17)
    table.add_column("split", max_width=10, no_wrap=True)
    table.add_column("finding", ratio=1)
    shown = None
    for (check, passed, message), group in itertools.groupby(findings, lambda f: (f.check, f.passed, f.message)):
        style = "bold red" if passed is False else "dim" if passed is None else ""
        splits = "\n".join(finding.split for finding in group)
        table.add_row(signs[passed], "" if check == shown else check, splits, Text(message, style))
        shown = check
    console = Console(width=80)
    console.print(table)
    failed = sorted({finding.check for finding in findings if finding.passed is False})
    unchecked = sum(finding.passed is None for finding in findings)
    console.print(
        (f"audit failed: {', '.join(failed)}" if failed else "audit passed: no leak found")
        + (f"; {unchecked} {'check' if unchecked == 1 else 'checks'} could not be made" if unchecked else ""),
        style="bold red" if failed else "bold green",
        highlight=False,
    )
