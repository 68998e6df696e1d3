"""The figures of a report, each drawn from lines of a run log, lines of metrics.jsonl, or summaries of an evaluation.

A function returns None when its data are not there. Lines and bars differ in style as well as in colour (the palette of
Okabe & Ito 2008), so that a figure reads in grayscale and without colour vision. Six inches wide with eleven-point
text: readable at the width of a telephone and of a page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np
from numpy.typing import ArrayLike

from stonk_trainer.report.run_folder import interval, listed, number
from stonk_trainer.tasks.stocks.ledger import VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Chart = tuple[Figure, str, str, str]  # the figure, and `name`, `alt` and `caption` of what is `Drawn`

P = ParamSpec("P")

BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#111111", "#777777",
)  # fmt: skip
STYLES = [  # colour, line, marker of the first, second, … model
    (BLUE, "-", "o"),
    (ORANGE, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "D"),
    (SKY, (0, (5, 1, 1, 1, 1, 1)), "v"),
]
_VERDICT_COLOURS = (GREEN, ORANGE, PURPLE, SKY, GREY, BLACK)  # in the order of VERDICTS
_VERDICT_HATCHES = ("", "///", "xxx", "...", "\\\\\\", "")
WIDTH, DPI = 6.0, 160
Z95 = 1.959964


class Drawn(NamedTuple):
    """A figure: `name` is its file without .png; `alt` says what is shown; `caption` says how to read it."""

    name: str
    alt: str
    caption: str
    png: bytes
    size: tuple[int, int]  # width and height in pixels


# ------------------------------------------------------------------------------------------------- numbers


def column(lines: Sequence[dict], key: str) -> np.ndarray:
    """One value per line, (N,); NaN where it is missing."""
    return np.array([number(line.get(key)) for line in lines], dtype=float)


def series(metrics: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (S,) of one logged metric, where it was logged; the last value of a step that was run twice."""
    pairs = {number(line.get("step")): number(line.get(key)) for line in metrics if key in line}
    kept = sorted((step, value) for step, value in pairs.items() if not math.isnan(step + value))
    steps, values = zip(*kept, strict=True) if kept else ((), ())
    return np.array(steps), np.array(values)


def wilson(successes: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of a share, any shape (Wilson 1927); NaN where n is 0."""
    k, of = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / of
        centre = (share + Z95**2 / (2 * of)) / (1 + Z95**2 / of)
        half = Z95 / (1 + Z95**2 / of) * np.sqrt(share * (1 - share) / of + Z95**2 / (4 * of**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def step_bins(step_N: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the steps into at most `most` bins of consecutive steps: bin of each line (N,), middle step of each bin."""
    steps, at_N = np.unique(step_N, return_inverse=True)
    count = min(most, len(steps))
    bin_of_step = np.arange(len(steps)) * count // max(len(steps), 1)
    middle = np.bincount(bin_of_step, steps) / np.bincount(bin_of_step)
    return bin_of_step[at_N], middle


def _mean_and_error(value_N: np.ndarray, bin_N: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error per bin, without NaN; the error is NaN for fewer than two values."""
    there = ~np.isnan(value_N)
    value, at = value_N[there], bin_N[there]
    n = np.bincount(at, minlength=bins).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(at, value, minlength=bins) / n
        variance = np.bincount(at, (value - mean[at]) ** 2, minlength=bins) / (n - 1)
        return mean, np.where(n > 1, np.sqrt(variance / n), np.nan)


# ------------------------------------------------------------------------------------------------- canvas


def _canvas(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure without pyplot's global state, and its axes as an array of shape (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def _png(draw: Callable[P, Chart | None]) -> Callable[P, Drawn | None]:
    """Draw under the report's own settings: names are plain text, never TeX, and no style of the user's leaks in."""

    def drawn(*args: P.args, **kwargs: P.kwargs) -> Drawn | None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        settings = {
            **matplotlib.rcParamsDefault,
            "font.family": "DejaVu Sans",
            "font.size": 11,
            "figure.titlesize": 12,
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "text.parse_math": False,
            "axes.unicode_minus": True,
        }
        del settings["backend"]  # the canvas below is Agg; the user's backend stays as it is
        with matplotlib.rc_context(settings):
            result = draw(*args, **kwargs)
            if result is None:
                return None
            figure, name, alt, caption = result
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
            buffer = io.BytesIO()
            # 256 colours are more than a chart has, and make a third of the bytes.
            image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
            return Drawn(name, alt, caption, buffer.getvalue(), image.size)

    drawn.__doc__ = draw.__doc__
    return drawn


def _style(which: int, points: int) -> dict:
    colour, line, marker = STYLES[which % len(STYLES)]
    return {
        "color": colour, "linestyle": line, "marker": marker if points <= 25 else "", "markersize": 4, "linewidth": 1.6,
    }  # fmt: skip


def _percent_axis(ax: Axes, label: str, whole: bool = True) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if whole else None))
    ax.set_ylabel(label)
    if whole:
        ax.set_ylim(-0.03, 1.03)


def _step_axis(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("training step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _legend_above(ax: Axes, columns: int) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=3)


def _ends(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if not len(values):
        return "without values"
    if len(values) == 1:
        return f"at {form.format(values[0])}, one point"
    return f"from {form.format(values[0])} at the start to {form.format(values[-1])} at the end"


def _clip(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


# ------------------------------------------------------------------------------------------------- training


@_png
def rewards(lines: Sequence[dict], metrics: Sequence[dict], names: Sequence[str]) -> Chart | None:
    """Mean of each reward in `names` and of the total over steps; validation means where they were logged."""
    step_N = column(lines, "step")
    lines, step_N = [line for line, s in zip(lines, step_N, strict=True) if s == s], step_N[~np.isnan(step_N)]
    panels = [name for name in (*names, "total") if not np.isnan(column(lines, name)).all()]
    if not len(step_N) or not panels:
        return None
    bin_N, middle = step_bins(step_N, 40)
    rows = math.ceil(len(panels) / 2) if len(panels) > 1 else 1
    figure, axes = _canvas(rows, min(len(panels), 2), 0.7 + 1.75 * rows, sharex=True)
    figure.suptitle("Rewards of the training answers")
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    told, validated = [], False
    for ax, name in zip(axes.flat, panels, strict=False):
        mean, error = _mean_and_error(column(lines, name), bin_N, len(middle))
        ax.fill_between(middle, mean - error, mean + error, color=BLUE, alpha=0.22, linewidth=0)
        ax.plot(middle, mean, **_style(0, len(middle)))
        eval_key = "eval_reward" if name == "total" else f"eval_rewards/{name}/mean"
        eval_steps, eval_means = series(metrics, eval_key)
        if len(eval_steps):
            validated = True
            ax.plot(eval_steps, eval_means, "s", color=BLACK, markerfacecolor="white", markersize=5, zorder=4)
        low = min(0.0, np.nanmin(mean))
        ax.set_ylim(low - 0.03, max(1.0, np.nanmax(mean)) + 0.03)
        ax.set_title("total (weighted)" if name == "total" else name)
        told.append(f"{name} {_ends(mean, '{:.2f}')}")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean reward")
    for which, ax in enumerate(axes.flat[: len(panels)]):
        if which + axes.shape[1] >= len(panels):  # the lowest of its column
            _step_axis(ax)
            ax.tick_params(labelbottom=True)
    caption = (
        f"Mean over the answers of {_per_bin(step_N, middle)}; the band is ± one standard error over answers. Answers "
        "to one prompt are alike, so the truth is less certain than the band."
    )
    if validated:
        caption += " Squares: the same reward on validation rows."
    return figure, "rewards", "Line charts of mean reward over training steps: " + "; ".join(told) + ".", caption


def _per_bin(step_N: np.ndarray, middle: np.ndarray) -> str:
    steps = len(np.unique(step_N))
    return "each step" if steps <= len(middle) else f"about {round(steps / len(middle))} steps at a time"


@_png
def evidence(lines: Sequence[dict]) -> Chart | None:
    """Share of the lines of evidence with each verdict over steps, one above the other."""
    judged = [
        line for line in lines if isinstance(line.get("evidence"), list) and not math.isnan(number(line.get("step")))
    ]
    if not judged:
        return None
    step_N = column(judged, "step")
    verdicts_N = [[one.get("verdict") for one in line["evidence"] if isinstance(one, dict)] for line in judged]
    bin_N, middle = step_bins(step_N, 40)
    count_VB = np.array(
        [np.bincount(bin_N, [found.count(name) for found in verdicts_N], len(middle)) for name in VERDICTS]
    )
    if not count_VB.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        share_VB = count_VB / count_VB.sum(axis=0)
    shown = [at for at in range(len(VERDICTS)) if count_VB[at].any()]
    figure, axes = _canvas(1, 1, 3.0)
    ax = axes[0, 0]
    figure.suptitle("Lines of evidence, by what the data say of them")
    width = 0.9 * (np.diff(middle).min() if len(middle) > 1 else 1.0)
    bottom = np.zeros(len(middle))
    for at in shown:
        share = np.nan_to_num(share_VB[at])
        look = {"color": _VERDICT_COLOURS[at], "hatch": _VERDICT_HATCHES[at], "edgecolor": "white", "linewidth": 0.3}
        ax.bar(middle, share, width, bottom=bottom, label=VERDICTS[at], **look)
        bottom += share
    _percent_axis(ax, "share of lines")
    ax.set_ylim(0, 1)
    _step_axis(ax)
    _legend_above(ax, 3)
    caption = f"All lines of the answers of {_per_bin(step_N, middle)}. Only grounded lines earn anything."
    alt = f"Stacked bars over training steps; share of grounded lines {_ends(share_VB[0], '{:.0%}')}."
    return figure, "evidence", alt, caption


@_png
def sft_loss(metrics: Sequence[dict]) -> Chart | None:
    """Loss of supervised fine-tuning, and the share of tokens predicted right, over steps."""
    steps, loss = series(metrics, "loss")
    if not len(steps):
        return None
    eval_steps, eval_loss = series(metrics, "eval_loss")
    acc_steps, accuracy = series(metrics, "mean_token_accuracy")
    figure, axes = _canvas(1, 2 if len(acc_steps) else 1, 2.6)
    figure.suptitle("Loss of the supervised training")
    ax = axes[0, 0]
    ax.plot(steps, loss, **_style(0, len(steps)), label="training")
    if len(eval_steps):
        ax.plot(eval_steps, eval_loss, **_style(1, len(eval_steps)), label="validation")
        ax.legend()
    ax.set_ylim(bottom=min(0.0, loss.min()))
    ax.set_ylabel("cross-entropy (nats per token)")
    _step_axis(ax)
    alt = f"Line chart of the loss over training steps, {_ends(loss, '{:.2f}')}"
    if len(acc_steps):
        axes[0, 1].plot(acc_steps, accuracy, **_style(2, len(acc_steps)))
        _percent_axis(axes[0, 1], "tokens predicted right")
        _step_axis(axes[0, 1])
        alt += f"; share of tokens predicted right {_ends(accuracy, '{:.0%}')}"
    caption = "Low loss means the form of the answers is learnt. It says nothing about the market."
    return figure, "loss", alt + ".", caption


@_png
def kl(metrics: Sequence[dict], target: float | None = None) -> Chart | None:
    """KL divergence to the reference model over steps, in nats per token; `target` of the adaptive controller."""
    steps, values = series(metrics, "kl")
    if not len(steps) or not values.any():
        return None
    figure, axes = _canvas(1, 1, 2.5)
    ax = axes[0, 0]
    ax.set_title("Distance from the model the run started with", fontsize=12)
    ax.plot(steps, values, **_style(0, len(steps)), label="KL")
    if target is not None:
        ax.axhline(target, color=BLACK, linestyle="--", linewidth=1, label=f"target {target:g}")
        ax.legend()
    ax.set_ylim(bottom=min(0.0, values.min()))
    ax.set_ylabel("KL (nats per token)")
    _step_axis(ax)
    caption = "KL divergence of the policy from its reference model. A sudden climb means that the policy runs away."
    return figure, "kl", f"Line chart of the KL divergence over training steps, {_ends(values, '{:.3f}')}.", caption


@_png
def lengths(metrics: Sequence[dict], limit: float | None = None) -> Chart | None:
    """Length of the answers in tokens and the share cut off at the limit, over steps."""
    steps, mean = series(metrics, "completions/mean_length")
    if not len(steps):
        return None
    cut_steps, cut = series(metrics, "completions/clipped_ratio")
    figure, axes = _canvas(1, 2 if len(cut_steps) else 1, 2.5)
    figure.suptitle("Length of the answers")
    ax = axes[0, 0]
    low, high = series(metrics, "completions/min_length"), series(metrics, "completions/max_length")
    banded = len(low[0]) == len(high[0]) == len(steps)
    if banded:
        ax.fill_between(steps, low[1], high[1], color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(steps, mean, **_style(0, len(steps)), label="mean")
    if limit is not None:
        ax.axhline(limit, color=BLACK, linestyle="--", linewidth=1, label=f"limit {limit:g}")
        ax.legend(loc="best")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("length (tokens)")
    _step_axis(ax)
    alt = f"Line chart of the mean length of answers over training steps, {_ends(mean, '{:.0f} tokens')}"
    if len(cut_steps):
        axes[0, 1].plot(cut_steps, cut, **_style(1, len(cut_steps)))
        _percent_axis(axes[0, 1], "answers cut off")
        _step_axis(axes[0, 1])
        alt += f"; share of answers cut off {_ends(cut, '{:.0%}')}"
    caption = "An answer cut off at the limit has no readable forecast and earns nothing."
    if banded:
        caption = "The band runs from the shortest to the longest answer. " + caption
    return figure, "length", alt + ".", caption


@_png
def variance(metrics: Sequence[dict]) -> Chart | None:
    """Share of groups whose answers all earned the same, over steps: they give no gradient."""
    steps, share = series(metrics, "frac_reward_zero_std")
    if not len(steps):
        return None
    figure, axes = _canvas(1, 1, 2.3)
    ax = axes[0, 0]
    ax.set_title("Groups whose answers all earned the same", fontsize=12)
    ax.plot(steps, share, **_style(0, len(steps)))
    _percent_axis(ax, "share of groups")
    _step_axis(ax)
    caption = "GRPO learns from differences within a group: a group without any teaches nothing."
    alt = f"Line chart of the share of groups without variance over training steps, {_ends(share, '{:.0%}')}."
    return figure, "variance", alt, caption


def _directions(lines: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the lines with a step and a label, in order: step, label is UP, forecast is UP, is readable; each (N,)."""
    known = [line for line in lines if line.get("label") in ("UP", "DOWN") and not math.isnan(number(line.get("step")))]
    step_N = column(known, "step")
    order = np.argsort(step_N, kind="stable")
    label = np.array([line["label"] == "UP" for line in known], dtype=bool)
    up = np.array([line.get("direction") == "UP" for line in known], dtype=bool)
    readable = np.array([line.get("direction") in ("UP", "DOWN") for line in known], dtype=bool)
    return step_N[order], label[order], up[order], readable[order]


@_png
def direction_balance(lines: Sequence[dict], window: int) -> Chart | None:
    """Share of UP among the forecasts and among the outcomes, over a sliding window of completions."""
    step_N, label_N, up_N, readable_N = _directions(lines)
    if not len(step_N) or not readable_N.any():
        return None
    # A short run has no full window; a long one would be all noise with it.
    window = max(1, min(max(window, len(step_N) // 20), max(len(step_N) // 4, 8), len(step_N)))
    ends = np.flatnonzero(np.diff(step_N, append=np.inf)) + 1  # whole steps
    ends = ends[ends >= window]
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, 300).astype(int))]

    def in_window(flag_N):
        total = np.concatenate([[0], np.cumsum(flag_N)])
        return total[ends] - total[ends - window]

    said, readable, actual = in_window(up_N), in_window(readable_N), in_window(label_N) / window
    with np.errstate(invalid="ignore", divide="ignore"):
        share = said / readable
    low, high = wilson(said, readable)
    step = step_N[ends - 1]
    figure, axes = _canvas(1, 1, 2.8)
    ax = axes[0, 0]
    figure.suptitle("How often UP is forecast, and how often it happens")
    ax.fill_between(step, low, high, color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(step, share, **_style(0, len(step)), label="forecast UP")
    ax.plot(step, actual, **_style(1, len(step)), label="went UP")
    _legend_above(ax, 2)
    _percent_axis(ax, "share of UP")
    _step_axis(ax)
    caption = (
        f"Over the last {window} answers at each point; forecasts among the readable ones, with their 95% interval. "
        "The lines meet when the model forecasts UP as often as the market rises."
    )
    alt = (
        f"Line chart over training steps: share of UP among forecasts, {_ends(share, '{:.0%}')}, beside the share of "
        f"days that went up, {_ends(actual, '{:.0%}')}."
    )
    return figure, "balance", alt, caption


@_png
def direction_accuracy(lines: Sequence[dict]) -> Chart | None:
    """Share of right forecasts on UP days and on DOWN days over steps. An unreadable answer counts as wrong."""
    step_N, label_N, up_N, readable_N = _directions(lines)
    if not len(step_N):
        return None
    bin_N, middle = step_bins(step_N, max(1, min(25, len(step_N) // 30)))
    figure, axes = _canvas(1, 1, 2.8)
    ax = axes[0, 0]
    figure.suptitle("Right forecasts on UP days and on DOWN days")
    told = []
    days = (("UP", label_N, up_N, BLUE, "-", "^"), ("DOWN", ~label_N, readable_N & ~up_N, ORANGE, "--", "v"))
    for name, mask, right, colour, line, marker in days:
        n = np.bincount(bin_N[mask], minlength=len(middle))
        k = np.bincount(bin_N[mask & right], minlength=len(middle))
        low, high = wilson(k, n)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = k / n
        if len(middle) > 1:
            ax.fill_between(middle, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            ax.vlines(middle, low, high, color=colour)
        ax.plot(middle, share, color=colour, linestyle=line, marker=marker, markersize=5, label=f"on {name} days")
        told.append(f"on {name} days {_ends(share, '{:.0%}')}")
    ax.axhline(0.5, color=BLACK, linewidth=1, linestyle=":", label="coin")
    _legend_above(ax, 3)
    _percent_axis(ax, "share right")
    _step_axis(ax)
    caption = (
        f"Each point stands for about {len(step_N) // len(middle)} answers; "
        "bands are 95% intervals, too narrow in that answers to one prompt are alike. Always saying UP is right on all "
        "UP days and on no DOWN day: only both lines above the coin would be skill."
    )
    return figure, "accuracy", "Line chart of the share of right forecasts: " + "; ".join(told) + ".", caption


# ------------------------------------------------------------------------------------------------- evaluation


@_png
def reliability(models: dict[str, dict]) -> Chart | None:
    """Stated probability of UP against the share of days that went up, per bin, with the number of rows below."""
    bins = {name: listed(summary, "calibration") for name, summary in models.items()}
    bins = {name: b for name, b in bins.items() if not np.isnan(column(b, "p_up") + column(b, "up")).all()}
    if not bins:
        return None
    shown = list(bins.items())[-3:]  # three abreast are readable; the last are the latest stages
    figure, axes = _canvas(2, len(shown), 3.6, sharex=True, sharey="row", gridspec_kw={"height_ratios": [3, 1]})
    figure.suptitle("Stated probability against what happened")
    told = []
    for at, (name, records) in enumerate(shown):
        stated, happened, n = (column(records, key) for key in ("p_up", "up", "n"))
        low, high = np.array([interval(record.get("ci95")) or (math.nan, math.nan) for record in records]).T
        ax, counts = axes[:, at]
        ax.plot([0, 1], [0, 1], color=BLACK, linestyle=":", linewidth=1)
        ax.vlines(stated, low, high, color=BLUE, linewidth=1.2)
        ax.plot(stated, happened, "o", color=BLUE, markersize=4.5)
        ax.set_xlim(-0.03, 1.03)
        ax.set_title(_clip(name, 18))
        counts.bar(stated, n, width=0.06, color=GREY, edgecolor=BLACK, linewidth=0.5)
        counts.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        told.append(f"{name}: {len(records)} bins, stated {np.nanmin(stated):.0%} to {np.nanmax(stated):.0%}")
    _percent_axis(axes[0, 0], "days that went UP")
    axes[1, 0].set_ylabel("rows")
    axes[1, len(shown) // 2].set_xlabel("stated probability of UP")
    caption = (
        "Points on the dotted diagonal mean honest probabilities; vertical lines are 95% intervals, bars count rows. "
        "Points along a level line mean that the stated probability carries no information."
    )
    if len(bins) > len(shown):
        caption += f" The last {len(shown)} of {len(bins)} models."
    alt = "Reliability diagrams with row counts. " + "; ".join(told) + "."
    return figure, "reliability", alt, caption


@_png
def roc(models: dict[str, dict], baselines: dict[str, dict]) -> Chart | None:
    """ROC curves of the stated probability of UP, with the diagonal of a coin."""

    def points(summary):
        curve = summary.get("roc")
        curve = curve if isinstance(curve, dict) else {}
        false, true = curve.get("false_positive_rate"), curve.get("true_positive_rate")
        if not isinstance(false, list) or not isinstance(true, list) or len(false) != len(true) or not false:
            return None
        return np.array([[number(value) for value in rate] for rate in (false, true)])

    curves = {name: found for name, s in models.items() if (found := points(s)) is not None}
    if not curves:
        return None
    figure, axes = _canvas(1, 1, 4.6)
    ax = axes[0, 0]
    ax.set_title("Telling UP days from DOWN days (ROC)", fontsize=12)
    ax.plot([0, 1], [0, 1], color=BLACK, linestyle=":", linewidth=1, label="coin")
    for name, line in (("logistic", "-"), ("lightgbm", "--")):
        found = points(baselines.get(name, {}))
        if found is not None:
            ax.plot(*found, color="#999999", linestyle=line, linewidth=1, label=f"{name} (baseline)")
    told = []
    for which, (name, curve) in enumerate(curves.items()):
        area, ends = number(models[name].get("roc_auc")), interval(models[name].get("roc_auc_ci95"))
        text = "" if math.isnan(area) else f" {area:.2f}"
        if text and ends:
            text += f" [{ends[0]:.2f}, {ends[1]:.2f}]"
        ax.plot(*curve, **_style(which, 1000), label=f"{_clip(name)}{text}")
        told.append(f"{name} has an area of{text}" if text else name)
    ax.set_aspect("equal")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _percent_axis(ax, "UP days called UP")
    ax.set_xlabel("DOWN days called UP")
    ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
    ax.legend(loc="lower right")
    caption = "Numbers are the area under the curve with its 95% interval; 0.50 is a coin, the dotted diagonal."
    return figure, "roc", "ROC curves with the diagonal of a coin. " + "; ".join(told) + ".", caption


@_png
def equity(models: dict[str, dict], buy_and_hold: dict | None, cost_bps: float | None) -> Chart | None:
    """Value of one unit traded on the forecasts, against buy-and-hold; a log axis when values span more than 3 to 1."""

    def path(backtest):
        if not isinstance(backtest, dict) or not isinstance(backtest.get("equity"), list):
            return None
        value = np.array([number(v) for v in backtest["equity"]])
        dates = backtest.get("dates")
        try:
            days = np.array(dates, dtype="datetime64[D]") if isinstance(dates, list) else np.array([])
        except (ValueError, TypeError):
            days = np.array([])
        if len(value) == 0 or len(days) != len(value) or np.isnan(value).all():
            return None
        return days, value

    paths = {name: found for name, s in models.items() if (found := path(s.get("backtest")))}
    if not paths:
        return None
    held = path(buy_and_hold)
    figure, axes = _canvas(1, 1, 3.4)
    ax = axes[0, 0]
    figure.suptitle("One unit traded on the forecasts")
    told = []
    if held:
        ax.plot(*held, color=BLACK, linestyle=(0, (6, 2)), linewidth=1.2, label="buy and hold")
        told.append(f"buy and hold ends at {held[1][-1]:.2f}")
    for which, (name, (days, value)) in enumerate(paths.items()):
        ax.plot(days, value, **_style(which, 1000), label=_clip(name))
        told.append(f"{name} ends at {value[-1]:.2f}")
    ax.axhline(1, color=GREY, linewidth=0.8)
    everything = np.concatenate([value for _, value in (*paths.values(), *([held] if held else []))])
    low, high = np.nanmin(everything), np.nanmax(everything)
    log_axis = bool(low > 0 and high / low > 3)
    if log_axis:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_ylabel("value (start = 1)" + (", log axis" if log_axis else ""))
    ax.set_xlabel("date")
    figure.autofmt_xdate(rotation=30)
    ax.legend(loc="best")
    stated = (
        "The summary does not say which costs were taken off."
        if cost_bps is None
        else f"Costs of {cost_bps:g} basis points of what is traded are taken off."
    )
    caption = stated + (" The axis is logarithmic." if log_axis else "")
    caption += " One path through one period: the table has the intervals."
    return figure, "equity", "Line chart of equity over time: " + "; ".join(told) + ".", caption


@_png
def market_adaptation(models: dict[str, dict]) -> Chart | None:
    """Share of UP among forecasts and outcomes per quarter, and the number of rows."""
    periods = {name: listed(summary, "market_adaptation") for name, summary in models.items()}
    periods = {name: p for name, p in periods.items() if p and not np.isnan(column(p, "actual_up_rate")).all()}
    if not periods:
        return None
    reference = list(periods.values())[-1]
    names = [str(record.get("period")) for record in reference]
    at, actual, n = np.arange(len(names)), column(reference, "actual_up_rate"), column(reference, "n")
    figure, axes = _canvas(2, 1, 3.9, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    ax, counts = axes[:, 0]
    figure.suptitle("Does the forecast follow the market?")
    low, high = wilson(actual * n, n)
    ax.fill_between(at, low, high, color=BLACK, alpha=0.10, linewidth=0)
    ax.plot(at, actual, color=BLACK, linewidth=1.6, label="went UP")
    for which, (name, records) in enumerate(periods.items()):
        by_period = {str(record.get("period")): number(record.get("predicted_up_rate")) for record in records}
        predicted = np.array([by_period.get(period, math.nan) for period in names])
        ax.plot(at, predicted, **_style(which, len(at)), label=f"{_clip(name)} forecast UP")
    _legend_above(ax, 2)
    _percent_axis(ax, "share of UP")
    counts.bar(at, n, color=GREY, edgecolor=BLACK, linewidth=0.5)
    counts.set_ylabel("rows")
    every = math.ceil(len(names) / 16)
    counts.set_xticks(at[::every], names[::every], rotation=60, ha="right")
    counts.set_xlabel("period")
    caption = "The grey band is the 95% interval of the market's own share of UP: with few rows a quarter says little."
    alt = (
        f"Line chart over {len(names)} periods from {names[0]} to {names[-1]}: share of days that went up "
        f"{_ends(actual, '{:.0%}')}, beside the share of UP forecasts of {', '.join(periods)}."
    )
    return figure, "adaptation", alt, caption
