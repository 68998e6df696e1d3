"""The tables that `stonk eval` prints: every forecaster on the same rows, with intervals, within 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stonk_trainer.evaluation.stats import interval_text
from stonk_trainer.task import Finding

TOO_FEW = "too few days"


def print_summary(summary: dict) -> None:
    """Print a summary as `evaluate.judge` makes it: answers, forecasts, differences, backtest."""
    console = Console(markup=False)  # a name may hold brackets
    models, baselines = summary["models"], summary.get("baselines", {})
    forecasters = {**models, **baselines}
    names = dict(zip(forecasters, short_names(list(models)) + list(baselines), strict=True))
    if any("reward_mean" in s for s in models.values()):
        console.print(_answers(models, names))
    if any("grounded" in s for s in models.values()):
        console.print(_evidence(models, names))
    if "buy_and_hold" not in summary:  # the answers are not forecasts
        console.print("\n95% intervals resample rows.", style="dim")
        return
    console.print(_forecasts(forecasters, names, summary["split"]))
    console.print("\n" + "\n".join(_differences(summary["differences"], names)))
    for name, recall in (summary.get("recall") or {}).items():
        console.print(
            f"{names[name]} with names and dates minus without: accuracy {100 * recall['difference']:+.1f} points "
            f"({interval_text(recall['ci95'], 100, missing=TOO_FEW)}); above 0 it remembers these days"
        )
    console.print(_backtests(forecasters, names, summary))
    console.print(
        "\n95% intervals resample days, with all rows of a day. Grounded: share of an answer's lines of evidence that "
        "its prompt bears out; lines and invented numbers are per answer. UP, DOWN: accuracy on the days that went "
        "there; an unreadable answer is wrong. majority and prior: always the direction more frequent in training. "
        "Brier: squared error of the stated probability of UP, 0.25 for a coin; ECE: its calibration error. Deflated: "
        f"probability that the true Sharpe ratio is above the best of {summary['costs']['trials']} strategies without "
        "skill. Turnover: times the capital per year. Daily directions are close to a coin.",
        style="dim",
    )


def short_names(names: list[str]) -> list[str]:
    """`runs/demo/stage1/best_model` → stage1, when that still tells the models apart."""
    short = []
    for name in names:
        parts = [part for part in Path(name).parts if part not in ("best_model", "best_adapter")]
        short.append(parts[-1] if parts else name)
    return short if len(set(short)) == len(names) else names


def _answers(models: dict[str, dict], names: dict[str, str]) -> Table:
    table = _table("Answers")
    components = list(next(s for s in models.values() if "reward_components" in s)["reward_components"])
    forecast = "parse_rate" in next(iter(models.values()))
    readable = ["readable"] if forecast else []
    _add_columns(table, *readable, *(c.replace("_", " ") for c in components), "total", "95% interval")
    for name, s in models.items():
        rewards = s.get("reward_components", {})
        texts = [_number(rewards.get(c), 3) for c in components]
        interval = interval_text(s.get("reward_mean_ci95"), 1, 3, missing=TOO_FEW)
        readable = [_percent(s["parse_rate"], 1)] if forecast else []
        table.add_row(names[name], *readable, *texts, _number(s.get("reward_mean"), 3), interval)
    return table


def _evidence(models: dict[str, dict], names: dict[str, str]) -> Table:
    table = _table("Evidence")
    _add_columns(table, "grounded", "95% interval", "lines", "invented numbers")
    for name, s in models.items():
        interval = interval_text(s.get("grounded_ci95"), 100, missing=TOO_FEW)
        counts = [_number(s.get(key), 2) for key in ("evidence_lines", "invented_numbers")]
        table.add_row(names[name], _percent(s.get("grounded"), 1), interval, *counts)
    return table


def _forecasts(forecasters: dict[str, dict], names: dict[str, str], split: str) -> Table:
    first = next(iter(forecasters.values()))
    table = _table(
        f"Forecasts: {first['n']:,} {split} rows on {first['dates']:,} days, {first['base_rate_up']:.1%} of them UP"
    )
    _add_columns(table, "accuracy", "95% interval", "UP", "DOWN", "says UP", "AUC", "Brier", "ECE")
    for name, s in forecasters.items():
        table.add_row(
            names[name],
            _percent(s["accuracy"], 1),
            interval_text(s["accuracy_ci95"], 100, missing=TOO_FEW),
            _percent(s["up_accuracy"]),
            _percent(s["down_accuracy"]),
            _percent(s["predicted_up_rate"]),
            _number(s["roc_auc"], 3),
            _number(s["brier"], 3),
            _number(s["ece"], 3),
        )
    return table


def _differences(differences: list[dict], names: dict[str, str]) -> list[str]:
    lines = []
    for pair in differences:
        accuracy = pair["accuracy"]
        lines.append(
            f"{names[pair['model']]} minus {names[pair['against']]}: "
            f"accuracy {100 * accuracy['difference']:+.1f} points "
            f"({interval_text(accuracy['ci95'], 100, missing=TOO_FEW)}), Brier {pair['brier']['difference']:+.3f} "
            f"({interval_text(pair['brier']['ci95'], 1, 3, missing=TOO_FEW)})"
        )
    return lines


def _backtests(forecasters: dict[str, dict], names: dict[str, str], summary: dict) -> Table:
    costs, days = summary["costs"], summary["buy_and_hold"]["dates"]
    kind = "UP is bought, DOWN is cash" if costs["long_only"] else "UP is bought, DOWN is sold short"
    table = _table(
        f"Backtest {days[0]} to {days[-1]}: {kind}, held from the next day{'' if costs['lag'] == 1 else ' but one'}, "
        f"{costs['cost_bps']:g} bp costs"
    )
    _add_columns(table, "per year", "Sharpe", "95% interval", "deflated", "drawdown", "turnover")
    rows = {names[name]: s["backtest"] for name, s in forecasters.items()} | {"buy & hold": summary["buy_and_hold"]}
    for name, b in rows.items():
        table.add_row(
            name,
            _percent(b["annual_return"], 1),
            _number(b["sharpe"], 2),
            interval_text(b["sharpe_ci95"], 1, 2, missing=TOO_FEW),
            "-" if name == "buy & hold" else _number(b["deflated_sharpe"], 2),
            _percent(b["max_drawdown"]),
            _number(b["turnover"], 0),
        )
    return table


def _table(title: str) -> Table:
    table = Table(title="\n" + title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    return table


def _add_columns(table: Table, *titles: str) -> None:
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)


def _percent(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def print_audit(findings: Sequence[Finding]) -> None:
    """A table of at most 80 columns, then one line that sums it up."""
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
