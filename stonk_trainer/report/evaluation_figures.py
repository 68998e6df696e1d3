"""Figures of an evaluation of forecasts, drawn from the summaries of its models and baselines by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stonk_trainer.evaluation.stats import interval_text, wilson
from stonk_trainer.report import canvas
from stonk_trainer.report.canvas import BLACK, BLUE, GREY, clip, column, ends, percent, style

if TYPE_CHECKING:
    from stonk_trainer.report.canvas import Chart

ABREAST = 3  # reliability diagrams that are readable beside each other
_GREY_LINES = {"logistic": "-", "lightgbm": "--"}  # baselines whose probabilities have a ROC curve worth showing


@canvas.as_png
def reliability(models: dict[str, dict]) -> Chart:
    """Stated probability of UP against the share of days that went up, per bin, with the number of rows below."""
    shown = list(models.items())[-ABREAST:]  # the last are the latest stages
    title = "Stated probability against what happened"
    figure, axes = canvas.grid(title, 2, len(shown), 3.6, sharex=True, sharey="row", height_ratios=[3, 1])
    texts = []
    for at, (name, summary) in enumerate(shown):
        bins = summary["calibration"]
        stated, happened, n = (column(bins, key) for key in ("p_up", "up", "n"))
        low, high = np.array([bin_["ci95"] or (math.nan, math.nan) for bin_ in bins]).T
        ax, counts = axes[:, at]
        ax.plot([0, 1], [0, 1], color=BLACK, linestyle=":", linewidth=1)
        ax.vlines(stated, low, high, color=BLUE, linewidth=1.2)
        ax.plot(stated, happened, "o", color=BLUE, markersize=4.5)
        ax.set_xlim(-0.03, 1.03)
        ax.set_title(clip(name, 18))
        counts.bar(stated, n, width=0.06, color=GREY, edgecolor=BLACK, linewidth=0.5)
        counts.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        texts.append(f"{name}: {len(bins)} bins, stated {stated.min():.0%} to {stated.max():.0%}")
    percent(axes[0, 0], "days that went UP")
    axes[1, 0].set_ylabel("rows")
    axes[1, len(shown) // 2].set_xlabel("stated probability of UP")
    caption = (
        "Points on the dotted diagonal mean honest probabilities; vertical lines are 95% intervals, bars count rows. "
        "Points along a level line mean that the stated probability carries no information."
    )
    if len(models) > len(shown):
        caption += f" The last {len(shown)} of {len(models)} models."
    return figure, "reliability", "Reliability diagrams with row counts. " + "; ".join(texts) + ".", caption


@canvas.as_png
def roc(models: dict[str, dict], baselines: dict[str, dict]) -> Chart | None:
    """ROC curves of the stated probability of UP, with the diagonal of chance; None where all days went one way."""

    def points(summary: dict) -> tuple[list[float], list[float]]:
        return summary["roc"]["false_positive_rate"], summary["roc"]["true_positive_rate"]

    curves = {name: points(summary) for name, summary in models.items() if summary["roc"]}
    if not curves:
        return None
    figure, axes = canvas.grid("Telling UP days from DOWN days (ROC)", 1, 1, 4.6)
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], color=BLACK, linestyle=":", linewidth=1, label="chance")
    for name, line in _GREY_LINES.items():
        if name in baselines and name not in models:
            label = f"{name} (baseline)"
            ax.plot(*points(baselines[name]), color="#999999", linestyle=line, linewidth=1, label=label)
    texts = []
    for which, (name, curve) in enumerate(curves.items()):
        between = interval_text(models[name]["roc_auc_ci95"], 1, 2, missing="")
        area = f"{models[name]['roc_auc']:.2f}" + (f" [{between}]" if between else "")
        ax.plot(*curve, **style(which), label=f"{clip(name)} {area}")
        texts.append(f"{name} has an area of {area}")
    ax.set_aspect("equal")
    percent(ax, "UP days called UP")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="DOWN days called UP")
    ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
    ax.legend(loc="lower right")
    caption = "Numbers are the area under the curve with its 95% interval; 0.50, the dotted diagonal, is chance."
    return figure, "roc", "ROC curves with the diagonal of chance. " + "; ".join(texts) + ".", caption


@canvas.as_png
def equity(models: dict[str, dict], buy_and_hold: dict, cost_bps: float) -> Chart:
    """Value of one unit traded on the forecasts, against buy-and-hold; a log axis when values span more than 3 to 1."""
    figure, axes = canvas.grid("One unit traded on the forecasts", 1, 1, 3.4)
    ax = axes[0, 0]
    texts, everything = [], []
    looks = [
        {"color": BLACK, "linestyle": (0, (6, 2)), "linewidth": 1.2},
        *(style(i) for i in range(len(models))),
    ]
    backtests = {"buy and hold": buy_and_hold} | {name: summary["backtest"] for name, summary in models.items()}
    for (name, backtest), look in zip(backtests.items(), looks, strict=True):
        ax.plot(np.array(backtest["dates"], dtype="datetime64[D]"), backtest["equity"], **look, label=clip(name))
        texts.append(f"{name} ends at {backtest['equity'][-1]:.2f}")
        everything += backtest["equity"]
    ax.axhline(1, color=GREY, linewidth=0.8)
    log_axis = min(everything) > 0 and max(everything) / min(everything) > 3
    if log_axis:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_ylabel("value (start = 1)" + (", log axis" if log_axis else ""))
    ax.set_xlabel("date")
    figure.autofmt_xdate(rotation=30)
    ax.legend(loc="best")
    caption = f"Costs of {cost_bps:g} basis points of what is traded are taken off."
    caption += " The axis is logarithmic." if log_axis else ""
    caption += " One path through one period: the table has the intervals."
    return figure, "equity", "Line chart of equity over time: " + "; ".join(texts) + ".", caption


@canvas.as_png
def market_adaptation(models: dict[str, dict]) -> Chart:
    """Share of UP among forecasts and outcomes per quarter, and the number of rows."""
    quarters = next(iter(models.values()))["market_adaptation"]  # all models answer the same rows
    names = [quarter["period"] for quarter in quarters]
    at, actual, n = np.arange(len(names)), column(quarters, "actual_up_rate"), column(quarters, "n")
    figure, axes = canvas.grid("Does the forecast follow the market?", 2, 1, 3.9, sharex=True, height_ratios=[3, 1])
    ax, counts = axes[:, 0]
    low, high = wilson(actual, n)
    ax.fill_between(at, low, high, color=BLACK, alpha=0.10, linewidth=0)
    ax.plot(at, actual, color=BLACK, linewidth=1.6, label="went UP")
    for which, (name, summary) in enumerate(models.items()):
        predicted = column(summary["market_adaptation"], "predicted_up_rate")
        ax.plot(at, predicted, **style(which, len(at)), label=f"{clip(name)} forecast UP")
    canvas.legend_above(ax, 2)
    percent(ax, "share of UP")
    counts.bar(at, n, color=GREY, edgecolor=BLACK, linewidth=0.5)
    counts.set_ylabel("rows")
    every = math.ceil(len(names) / 16)
    counts.set_xticks(at[::every], names[::every], rotation=60, ha="right")
    counts.set_xlabel("period")
    caption = "The grey band is the 95% interval of the market's own share of UP: with few rows a quarter says little."
    alt = (
        f"Line chart over {len(names)} periods from {names[0]} to {names[-1]}: share of days that went up "
        f"{ends(actual, '{:.0%}')}, beside the share of UP forecasts of {', '.join(models)}."
    )
    return figure, "adaptation", alt, caption
