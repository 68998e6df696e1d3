"""What all figures of a report share: numbers by training step, sheets without pyplot, and styles.

Lines and bars differ in style as well as in colour (the palette of Okabe & Ito 2008), so that a figure reads in
grayscale and without colour vision. Six inches wide with eleven-point text: readable at the width of a telephone and of
a page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np

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
WIDTH, DPI = 6.0, 160
SETTINGS: Any = {
    "font.family": "DejaVu Sans", "font.size": 11, "figure.titlesize": 12, "axes.titlesize": 11, "axes.labelsize": 10.5,
    "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": 10, "legend.frameon": False,
    "text.parse_math": False, "axes.unicode_minus": True,
}  # fmt: skip


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
    return np.array([line.get(key) for line in lines], dtype=float)


def series(metrics: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values (S,) of one logged metric; the last value of a step that was run twice."""
    values = {line["step"]: line[key] for line in metrics if line.get(key) is not None}
    kept = sorted((step, value) for step, value in values.items() if math.isfinite(value))
    return np.array([step for step, _ in kept]), np.array([value for _, value in kept])


def step_bins(step_N: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the steps into at most `most` bins of consecutive steps: bin of each line (N,), middle step of each bin."""
    steps, at_N = np.unique(step_N, return_inverse=True)
    count = min(most, len(steps))
    bin_of_step = np.arange(len(steps)) * count // max(len(steps), 1)
    middle = np.bincount(bin_of_step, steps) / np.bincount(bin_of_step)
    return bin_of_step[at_N], middle


def per_bin(step_N: np.ndarray, middle: np.ndarray) -> str:
    """What a point of a binned figure stands for."""
    steps = len(np.unique(step_N))
    return "each step" if steps <= len(middle) else f"about {round(steps / len(middle))} steps at a time"


def ends(values: np.ndarray, form: str) -> str:
    """`from 0.40 at the start to 0.55 at the end`, without NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return "without values"
    if len(values) == 1:
        return f"at {form.format(values[0])}, one point"
    return f"from {form.format(values[0])} at the start to {form.format(values[-1])} at the end"


def clip(name: str, most: int = 26) -> str:
    """The end of a name that is too long for a legend."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


# ------------------------------------------------------------------------------------------------- sheets


def grid(title: str, rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure without pyplot's global state, and its axes as an array of shape (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def over_steps(title: str, height: float, *labels: str) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel over training steps for each label of a vertical axis, side by side."""
    figure, axes = grid(title, 1, len(labels), height)
    for ax, label in zip(axes[0], labels, strict=True):
        ax.set_ylabel(label)
        step_axis(ax)
    return figure, axes[0]


def as_png(draw: Callable[P, Chart | None]) -> Callable[P, Drawn | None]:
    """Draw under the report's own settings: names are plain text, never TeX, and no style of the user's leaks in."""

    def drawn(*args: P.args, **kwargs: P.kwargs) -> Drawn | None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # but the backend: the canvas below is Agg
            matplotlib.rcParams.update(SETTINGS)
            result = draw(*args, **kwargs)
            if result is None:
                return None
            figure, name, alt, caption = result
            agg = FigureCanvasAgg(figure)
            agg.draw()
            image = Image.fromarray(np.asarray(agg.buffer_rgba())[:, :, :3])
            buffer = io.BytesIO()
            # 256 colours are more than a chart has, and make a third of the bytes.
            image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
            return Drawn(name, alt, caption, buffer.getvalue(), image.size)

    drawn.__doc__ = draw.__doc__
    return drawn


def style(which: int, points: int = 1000) -> dict[str, Any]:
    """How line `which` of a figure looks; with markers when it has few points."""
    colour, line, marker = STYLES[which % len(STYLES)]
    return {
        "color": colour, "linestyle": line, "marker": marker if points <= 25 else "", "markersize": 4, "linewidth": 1.6,
    }  # fmt: skip


def percent(ax: Axes, label: str | None = None) -> None:
    """Shares from 0 to 100% on the vertical axis."""
    from matplotlib.ticker import PercentFormatter

    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_ylim(-0.03, 1.03)
    if label:
        ax.set_ylabel(label)


def step_axis(ax: Axes) -> None:
    """A horizontal axis of training steps."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("training step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def legend_above(ax: Axes, columns: int) -> None:
    """A legend between the title and the panel."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=3)
