"""Figures of a training run, drawn from lines of its run log and of metrics.jsonl; None where it has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stonk_trainer.evaluation.stats import wilson
from stonk_trainer.report import canvas
from stonk_trainer.report.canvas import BLACK, BLUE, ORANGE, column, ends, percent, series, step_bins, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stonk_trainer.report.canvas import Chart

BINS = 40  # points of a line over steps, at most
# Colour and hatch of grounded lines, and of the other verdicts.
_COLOURS = (canvas.GREEN, ORANGE, canvas.PURPLE, canvas.SKY, canvas.GREY, BLACK)
_HATCHES = ("", "///", "xxx", "...", "\\\\\\", "")


@canvas.as_png
def rewards(lines: Sequence[dict], metrics: Sequence[dict], names: Sequence[str]) -> Chart | None:
    """Mean of each reward in `names` and of the total over steps; validation means where they were logged."""
    if not lines:
        return None
    panels = [*names, "total"]
    step_N = column(lines, "step")
    bin_N, middle = step_bins(step_N, BINS)
    rows = math.ceil(len(panels) / 2) if len(panels) > 1 else 1
    title, columns = "Rewards of the training answers", min(len(panels), 2)
    figure, axes = canvas.grid(title, rows, columns, 0.7 + 1.75 * rows, sharex=True)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    texts, validated = [], False
    for which, (ax, name) in enumerate(zip(axes.flat, panels, strict=False)):
        by_bin = pd.Series(column(lines, name)).groupby(bin_N)
        mean, error = by_bin.mean().to_numpy(), by_bin.sem().to_numpy()
        ax.fill_between(middle, mean - error, mean + error, color=BLUE, alpha=0.22, linewidth=0)
        ax.plot(middle, mean, **style(0, len(middle)))
        eval_steps, eval_means = series(metrics, "eval_reward" if name == "total" else f"eval_rewards/{name}/mean")
        if len(eval_steps):
            validated = True
            ax.plot(eval_steps, eval_means, "s", color=BLACK, markerfacecolor="white", markersize=5, zorder=4)
        known = mean[~np.isnan(mean)]  # a reward may have nothing to say of any answer
        ax.set_ylim(min(known.min(initial=0), 0) - 0.03, max(known.max(initial=1), 1) + 0.03)
        ax.set_title("total (weighted)" if name == "total" else name)
        if which + axes.shape[1] >= len(panels):  # the lowest of its column
            canvas.step_axis(ax)
            ax.tick_params(labelbottom=True)
        texts.append(f"{name} {ends(mean, '{:.2f}')}")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean reward")
    caption = (
        f"Mean over the answers of {canvas.per_bin(step_N, middle)}; the band is ± one standard error over answers. "
        "Answers to one prompt are alike, so the truth is less certain than the band."
    )
    if validated:
        caption += " Squares: the same reward on validation rows."
    return figure, "rewards", "Line charts of mean reward over training steps: " + "; ".join(texts) + ".", caption


def evidence_of(line: dict) -> list[dict]:
    """The lines of evidence of an answer: name, value, side and verdict; empty for a task whose answers have none."""
    lines = line.get("evidence")
    if not isinstance(lines, list):
        return []
    return [one for one in lines if isinstance(one, dict) and {"name", "value", "side", "verdict"} <= one.keys()]


@canvas.as_png
def evidence(lines: Sequence[dict]) -> Chart | None:
    """Share of the lines of evidence with each verdict over steps, one above the other."""
    bin_N, middle = step_bins(column(lines, "step"), BINS)
    found = [(at, one["verdict"]) for at, line in zip(bin_N, lines, strict=True) for one in evidence_of(line)]
    if not found:
        return None
    bins, verdicts = zip(*found, strict=True)
    share = pd.crosstab(pd.Series(bins), pd.Series(verdicts), normalize="index")
    share = share.reindex(range(len(middle)))  # NaN where no answer has a line
    figure, (ax,) = canvas.over_steps("Lines of evidence, by what the data say of them", 3.0, "share of lines")
    width = 0.9 * (np.diff(middle).min() if len(middle) > 1 else 1.0)
    bottom = np.zeros(len(middle))
    names = sorted(share.columns, key=lambda name: (name != "grounded", name))
    for which, name in enumerate(names):
        colour, hatch = _COLOURS[which % len(_COLOURS)], _HATCHES[which % len(_HATCHES)]
        height = share[name].fillna(0)
        ax.bar(middle, height, width, bottom, label=name, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3)
        bottom += height
    percent(ax)
    ax.set_ylim(0, 1)
    canvas.legend_above(ax, 3)
    steps = canvas.per_bin(column(lines, "step"), middle)
    grounded = share["grounded"].to_numpy() if "grounded" in share else np.zeros(len(middle))
    alt = f"Stacked bars over training steps; share of grounded lines {ends(grounded, '{:.0%}')}."
    return figure, "evidence", alt, f"All lines of the answers of {steps}. Only grounded lines earn anything."


@canvas.as_png
def sft_loss(metrics: Sequence[dict]) -> Chart | None:
    """Loss of supervised fine-tuning, and the share of tokens predicted right, over steps."""
    steps, loss = series(metrics, "loss")
    if not len(steps):
        return None
    eval_steps, eval_loss = series(metrics, "eval_loss")
    accuracy_steps, accuracy = series(metrics, "mean_token_accuracy")
    labels = ["cross-entropy (nats per token)", "tokens predicted right"][: 2 if len(accuracy) else 1]
    figure, axes = canvas.over_steps("Loss of the supervised training", 2.6, *labels)
    axes[0].plot(steps, loss, **style(0, len(steps)), label="training")
    if len(eval_steps):
        axes[0].plot(eval_steps, eval_loss, **style(1, len(eval_steps)), label="validation")
        axes[0].legend()
    axes[0].set_ylim(bottom=min(0.0, loss.min()))
    alt = f"Line chart of the loss over training steps, {ends(loss, '{:.2f}')}"
    if len(accuracy):
        axes[1].plot(accuracy_steps, accuracy, **style(2, len(accuracy)))
        percent(axes[1])
        alt += f"; share of tokens predicted right {ends(accuracy, '{:.0%}')}"
    caption = "Low loss means the form of the answers is learnt. It says nothing about how good the answers are."
    return figure, "loss", alt + ".", caption


@canvas.as_png
def kl(metrics: Sequence[dict], target: float | None = None) -> Chart | None:
    """KL divergence to the reference model over steps, in nats per token; `target` of the adaptive controller."""
    steps, values = series(metrics, "kl")
    if not values.any():
        return None
    figure, (ax,) = canvas.over_steps("Distance from the model the run started with", 2.5, "KL (nats per token)")
    ax.plot(steps, values, **style(0, len(steps)), label="KL")
    _mark(ax, target, "target")
    ax.set_ylim(bottom=min(0.0, values.min()))
    caption = "KL divergence of the policy from its reference model. A sudden climb means that the policy runs away."
    return figure, "kl", f"Line chart of the KL divergence over training steps, {ends(values, '{:.3f}')}.", caption


@canvas.as_png
def lengths(metrics: Sequence[dict], limit: int | None = None) -> Chart | None:
    """Length of the answers in tokens and the share cut off at the limit, over steps."""
    steps, mean = series(metrics, "completions/mean_length")
    if not len(steps):
        return None
    (_, shortest), (_, longest) = (series(metrics, f"completions/{end}_length") for end in ("min", "max"))
    cut_steps, cut = series(metrics, "completions/clipped_ratio")
    figure, axes = canvas.over_steps("Length of the answers", 2.5, "length (tokens)", "answers cut off")
    axes[0].fill_between(steps, shortest, longest, color=BLUE, alpha=0.18, linewidth=0)
    axes[0].plot(steps, mean, **style(0, len(steps)), label="mean")
    _mark(axes[0], limit, "limit")
    axes[0].set_ylim(bottom=0)
    axes[1].plot(cut_steps, cut, **style(1, len(cut_steps)))
    percent(axes[1])
    alt = f"Line chart of the mean length of answers over training steps, {ends(mean, '{:.0f} tokens')}"
    alt += f"; share of answers cut off {ends(cut, '{:.0%}')}."
    caption = "The band runs from the shortest to the longest answer. One cut off at the limit lacks what would follow."
    return figure, "length", alt, caption


def _mark(ax: Axes, value: float | None, name: str) -> None:
    """A level line with its value, where the recipe sets one."""
    if value is not None:
        ax.axhline(value, color=BLACK, linestyle="--", linewidth=1, label=f"{name} {value:g}")
        ax.legend(loc="best")


@canvas.as_png
def variance(metrics: Sequence[dict]) -> Chart | None:
    """Share of groups whose answers all earned the same, over steps: they give no gradient."""
    steps, share = series(metrics, "frac_reward_zero_std")
    if not len(steps):
        return None
    figure, (ax,) = canvas.over_steps("Groups whose answers all earned the same", 2.3, "share of groups")
    ax.plot(steps, share, **style(0, len(steps)))
    percent(ax)
    caption = "GRPO learns from differences within a group: a group without any teaches nothing."
    alt = f"Line chart of the share of groups without variance over training steps, {ends(share, '{:.0%}')}."
    return figure, "variance", alt, caption


# ------------------------------------------------------------------------------------------------- forecasts


def _directions(lines: Sequence[dict]) -> pd.DataFrame:
    """The lines of forecasts in order of their steps: step, whether each went UP, was forecast UP, is readable."""
    frame = pd.DataFrame(lines, columns=["step", "label", "direction"]).sort_values("step", kind="stable")
    up, readable = frame["direction"] == "UP", frame["direction"].notna()
    return pd.DataFrame({"step": frame["step"], "went_up": frame["label"] == "UP", "up": up, "readable": readable})


@canvas.as_png
def direction_balance(lines: Sequence[dict], window: int) -> Chart | None:
    """Share of UP among the forecasts and among the outcomes, over a sliding window of completions."""
    found = _directions(lines)
    if not found["readable"].any():
        return None
    # A short run has no full window; a long one would be all noise with it.
    window = max(1, min(max(window, len(found) // 20), max(len(found) // 4, 8), len(found)))
    sums = found[["went_up", "up", "readable"]].rolling(window).sum().assign(step=found["step"]).dropna()
    sums = sums.groupby("step").last()  # whole steps
    sums = sums.iloc[np.unique(np.linspace(0, len(sums) - 1, 300).astype(int))]
    share, actual = (sums["up"] / sums["readable"]).to_numpy(), (sums["went_up"] / window).to_numpy()
    low, high = wilson(share, sums["readable"])
    figure, (ax,) = canvas.over_steps("How often UP is forecast, and how often it happens", 2.8, "share of UP")
    ax.fill_between(sums.index, low, high, color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(sums.index, share, **style(0, len(sums)), label="forecast UP")
    ax.plot(sums.index, actual, **style(1, len(sums)), label="went UP")
    canvas.legend_above(ax, 2)
    percent(ax)
    caption = (
        f"Over the last {window} answers at each point; forecasts among the readable ones, with their 95% interval. "
        "The lines meet when the model forecasts UP as often as the market rises."
    )
    alt = (
        f"Line chart over training steps: share of UP among forecasts, {ends(share, '{:.0%}')}, beside the share of "
        f"days that went up, {ends(actual, '{:.0%}')}."
    )
    return figure, "balance", alt, caption


@canvas.as_png
def direction_accuracy(lines: Sequence[dict]) -> Chart | None:
    """Share of right forecasts on UP days and on DOWN days over steps. An unreadable answer counts as wrong."""
    if not lines:
        return None
    found = _directions(lines)
    bin_N, middle = step_bins(found["step"].to_numpy(), max(1, min(25, len(found) // 30)))
    figure, (ax,) = canvas.over_steps("Right forecasts on UP days and on DOWN days", 2.8, "share right")
    texts = []
    for name, label, colour, line, marker in (("UP", True, BLUE, "-", "^"), ("DOWN", False, ORANGE, "--", "v")):
        right = found["readable"] & (found["up"] == label)
        of_days = right[found["went_up"] == label].groupby(bin_N[found["went_up"] == label])
        share = of_days.mean().reindex(range(len(middle))).to_numpy()
        low, high = wilson(share, of_days.size().reindex(range(len(middle)), fill_value=0))
        if len(middle) > 1:
            ax.fill_between(middle, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            ax.vlines(middle, low, high, color=colour)
        ax.plot(middle, share, color=colour, linestyle=line, marker=marker, markersize=5, label=f"on {name} days")
        texts.append(f"on {name} days {ends(share, '{:.0%}')}")
    ax.axhline(0.5, color=BLACK, linewidth=1, linestyle=":", label="chance")
    canvas.legend_above(ax, 3)
    percent(ax)
    caption = (
        f"Each point stands for about {len(found) // len(middle)} answers; "
        "bands are 95% intervals, too narrow in that answers to one prompt are alike. Always saying UP is right on all "
        "UP days and on no DOWN day: only both lines above chance would be skill."
    )
    return figure, "accuracy", "Line chart of the share of right forecasts: " + "; ".join(texts) + ".", caption
