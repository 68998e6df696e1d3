"""The tables that `stonk eval` prints: every forecaster on the same rows, with intervals, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


def print_summary(summary: dict) -> None:
    """Print a summary as `evaluate.judge` makes it: answers, forecasts, differences, backtest."""
    console = Console(markup=False)  # a name may hold brackets
    models, forecasters = summary["models"], {**summary["models"], **summary["baselines"]}
    names = dict(zip(forecasters, short_names(list(models)) + list(summary["baselines"]), strict=True))
    if any("reward_mean" in s for s in models.values()):
        console.print(_answers(models, names))
        console.print(_evidence(models, names))
    console.print(_forecasts(forecasters, names, summary["split"]))
    console.print("\n" + "\n".join(_differences(summary["differences"], names)))
    for name, recall in (summary.get("recall") or {}).items():
        console.print(
            f"{names[name]} with names and dates minus without: accuracy {100 * recall['difference']:+.1f} points "
            f"({_interval(recall['ci95'], 100)}); above 0 it remembers these days"
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
    _add_columns(table, "readable", *(c.replace("_", " ") for c in components), "total")
    for name, s in models.items():
        rewards = s.get("reward_components", {})
        texts = [_number(rewards.get(c), 3) for c in components]
        table.add_row(names[name], _percent(s["parse_rate"], 1), *texts, _number(s.get("reward_mean"), 3))
    return table


def _evidence(models: dict[str, dict], names: dict[str, str]) -> Table:
    table = _table("Evidence")
    _add_columns(table, "grounded", "95% interval", "lines", "invented numbers")
    for name, s in models.items():
        interval = _interval(s.get("grounded_ci95"), 100)
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
            _interval(s["accuracy_ci95"], 100),
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
            f"({_interval(accuracy['ci95'], 100)}), Brier {pair['brier']['difference']:+.3f} "
            f"({_interval(pair['brier']['ci95'], 1, 3)})"
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
            _interval(b["sharpe_ci95"], 1, 2),
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


def _interval(interval: Sequence[float] | None, factor: float, digits: int = 1) -> str:
    if interval is None:
        return "too few days"
    return f"{factor * interval[0]:.{digits}f} to {factor * interval[1]:.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
