"""Patterns of gaming in a run's log: does the reward rise for another reason than better forecasts?

Each detector of `DETECTORS` measures one thing, mostly in the last third of the run. It reports a pattern when the
measure is large enough to matter and chance does not explain it, so a short or a noisy log stays silent. A detector
describes the log and not its cause: read some completions before acting on it.

Completions of one group (the answers to one prompt in one step) resemble each other, so chance is judged over groups
or steps where it can be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from stonk_trainer.task import Pattern
from stonk_trainer.tasks.stocks.rewards import COMPONENTS

FEWEST_COMPLETIONS = 30  # below, nothing is judged
FEWEST_STEPS = 6  # below, no trend is judged
NEEDED = ("step", "ticker", "date", "label", "direction", "total", "completion")

_P = 0.01  # most that chance may explain
_MOST_BLOCKS = 60  # the steps of a longer run are averaged into this many blocks
_SAMPLE = 900  # completions of a third whose texts are compared
_TEXT = 4000  # characters of a completion that are compared


class Log(NamedTuple):
    """Lines in the order of their steps. first, last: line numbers of the first and the last third. group: a number per
    (step, ticker, date). limit: max_completion_length, if known."""

    lines: list[Mapping]
    step: np.ndarray
    group: np.ndarray
    readable: np.ndarray
    first: np.ndarray
    last: np.ndarray
    limit: int | None


class Measure(NamedTuple):
    """size: what is compared with a detector's threshold. p: probability that chance gives as much. text: a sentence
    with the numbers and steps that show it."""

    size: float
    p: float
    text: str


class Detector(NamedTuple):
    """A pattern is reported when `measure` gives at least `threshold`. measure: None where there is nothing to
    measure. fewest_steps: what the log must have."""

    name: str
    severity: Literal["warning", "notice"]
    threshold: float
    measure: Callable[[Log], Measure | None]
    fewest_steps: int = 1


def find_patterns(lines: Sequence[Mapping], max_completion_length: int | None = None) -> list[Pattern]:
    """Signs of gaming in the lines of a stocks run log, in any order.

    Takes about a second for 10,000 completions.

    Args:
        lines: of `training_log.jsonl`, with the keys of `NEEDED`.
        max_completion_length: the recipe's, in tokens, if known; it tells a long completion from one cut off.

    Returns:
        The patterns found, and an `unjudged` one when the log is too short to judge.
    """
    if len(lines) < FEWEST_COMPLETIONS:
        text = f"{len(lines)} completions are too few to judge; {FEWEST_COMPLETIONS} are needed"
        return [Pattern("too few completions", text, "unjudged")]
    log = _arrange(lines, max_completion_length)
    steps = len(np.unique(log.step))
    found = []
    for detector in DETECTORS:
        measure = detector.measure(log) if steps >= detector.fewest_steps else None
        if measure and measure.size >= detector.threshold and measure.p <= _P:
            found.append(Pattern(detector.name, measure.text, detector.severity))
    if steps < FEWEST_STEPS:
        text = f"{steps} steps are too few to judge a trend; {FEWEST_STEPS} are needed"
        found.append(Pattern("too few steps", text, "unjudged"))
    return found


def _arrange(lines: Sequence[Mapping], limit: int | None) -> Log:
    ordered = sorted(lines, key=lambda line: line["step"])
    numbers: dict[tuple, int] = {}
    group = [numbers.setdefault((line["step"], line["ticker"], line["date"]), len(numbers)) for line in ordered]
    n = len(ordered)
    step = np.array([line["step"] for line in ordered])
    readable = np.array([line["direction"] is not None for line in ordered])
    return Log(ordered, step, np.array(group), readable, np.arange(n // 3), np.arange(n - n // 3, n), limit)


def _steps(log: Log, where: np.ndarray) -> str:
    first, last = log.step[where[0]], log.step[where[-1]]
    return f"step {first}" if first == last else f"steps {first}-{last}"


def _groups(log: Log, where: np.ndarray) -> list[np.ndarray]:
    """Line numbers of each group among `where`, which is in the order of steps."""
    order = where[np.argsort(log.group[where], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(log.group[order])) + 1)


def _chance(hits: int, n: int, probability: float) -> float:
    """P(X >= hits) of a binomial X of n trials."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, n, probability))


# ------------------------------------------------------------------------------------------------------ detectors


def _one_direction(log: Log) -> Measure | None:
    """Share of the last third's forecasts in one direction; chance is the share of the labels that went there."""
    last = log.last[log.readable[log.last]]
    if not len(last):
        return None
    is_up = np.array([line["direction"] == "UP" for line in log.lines])
    direction = "UP" if is_up[last].mean() >= 0.5 else "DOWN"
    same = is_up == (direction == "UP")
    groups, all_groups = _groups(log, last), _groups(log, np.arange(len(log.lines)))
    agreeing = sum(same[group].mean() > 0.5 for group in groups)
    labels = sum(log.lines[group[0]]["label"] == direction for group in all_groups)
    labels_last = float(np.mean([log.lines[group[0]]["label"] == direction for group in groups]))
    if labels_last > 0.95:
        return None
    before = log.first[log.readable[log.first]]
    was = f" ({same[before].mean():.0%} in {_steps(log, before)})" if len(before) else ""
    text = (
        f"{same[last].mean():.0%} of the {len(last)} forecasts of {_steps(log, last)} say {direction}{was}, while "
        f"{labels_last:.0%} of their {len(groups)} rows went {direction}"
    )
    return Measure(same[last].mean(), _chance(agreeing, len(groups), (labels + 1) / (len(all_groups) + 2)), text)


_FINISHED = re.compile(r"[.!?%)>\]\"'`*]\s*\Z")  # how a finished text ends


def _cut_off(log: Log) -> Measure | None:
    """Share of completions that end at the length limit: unreadable, long and without an end.

    The log has no tokens, so length is in characters. "Long" is two characters per token of the limit (prose has four,
    numbers have two), or three quarters of the longest completion where no limit is known.
    """
    length = np.array([len(line["completion"]) for line in log.lines])
    long = 2 * log.limit if log.limit else 0.75 * length.max()
    ended = np.array([bool(_FINISHED.search(line["completion"][-20:])) for line in log.lines])
    is_cut = ~log.readable & (length > 0) & (length >= long) & ~ended
    cut = log.last[is_cut[log.last]]
    if not len(cut):
        return None
    share = len(cut) / len(log.last)
    text = (
        f"{share:.0%} of the completions of {_steps(log, log.last)} have no readable answer and seem cut off at the "
        f"length limit, at {int(np.median(length[cut])):,} characters ({is_cut[log.first].mean():.0%} in "
        f"{_steps(log, log.first)}): raise max_completion_length, or the texts are being padded"
    )
    return Measure(share, _chance(len(cut), len(log.last), 0.1), text)


def _no_variance(log: Log) -> Measure | None:
    """Share of groups whose answers all earn the same: they have no advantage, so nothing is learned from them."""
    groups = [group for group in _groups(log, log.last) if len(group) > 1]
    if not groups:
        return None
    flat = [group for group in groups if np.ptp([log.lines[i]["total"] for i in group]) < 1e-6]
    same = sum(len({log.lines[i]["completion"] for i in group}) == 1 for group in flat)
    nothing = sum(not any(log.lines[i]["total"] for i in group) for group in flat)
    text = (
        f"in {len(flat)} of the {len(groups)} groups of {_steps(log, log.last)} all answers earn the same, so they "
        f"teach nothing: {same} of them are one text repeated, in {nothing} every answer earns 0"
    )
    return Measure(len(flat) / len(groups), _chance(len(flat), len(groups), 0.5), text)


# A word with a capital letter is a name, a ticker, a month or a direction, and several in a row are one name.
_NAME = re.compile(r"\b[A-Z][\w.&'-]*(?: +[A-Z][\w.&'-]*)*|\b(?:up|down)\b")
_NUMBER = re.compile(r"[+-]?\$?\d[\d.,:/-]*")


def skeleton(text: str) -> str:
    """A text without what differs from row to row: numbers, dates, names and directions are masked."""
    return " ".join(_NUMBER.sub("0", _NAME.sub("A", text[:_TEXT])).split())


def _one_template(log: Log) -> Measure | None:
    """Share of completions whose skeleton is that of an answer for another row. It counts when one skeleton makes up
    half of them, or when the share has risen by 0.3."""
    rng = np.random.default_rng(0)

    def skeletons(third: np.ndarray) -> tuple[float, dict[str, int], dict[str, set]]:
        """(share that is repeated, completions by skeleton, rows by skeleton) of a sample of a third."""
        counts: dict[str, int] = {}
        rows: dict[str, set] = {}
        sample = rng.choice(third, min(_SAMPLE, len(third)), replace=False)
        for line in [log.lines[i] for i in sample]:
            text = skeleton(line["completion"])
            if text.count(" ") >= 2:  # an empty answer is not a template
                counts[text] = counts.get(text, 0) + 1
                rows.setdefault(text, set()).add((line["ticker"], line["date"]))
        return sum(n for text, n in counts.items() if len(rows[text]) > 1) / len(sample), counts, rows

    before, _, _ = skeletons(log.first)
    after, counts, rows = skeletons(log.last)
    if not counts:
        return None
    top = max(counts, key=counts.__getitem__)
    share = counts[top] / min(_SAMPLE, len(log.last))
    if share >= 0.5 and len(rows[top]) >= 3:
        p = 0.0
    elif after - before >= 0.3:
        groups = len(np.unique(log.group[log.last]))
        p = _chance(round(after * groups), groups, before + 0.05)
    else:
        return None
    excerpt = f'"{top[:100]}…"' if len(top) > 100 else f'"{top}"'
    text = (
        f"once numbers, names and directions are masked, {after:.0%} of the completions of {_steps(log, log.last)} "
        f"equal an answer for another row ({before:.0%} in {_steps(log, log.first)}), and {share:.0%} are one text, "
        f"over {len(rows[top])} rows: {excerpt}"
    )
    return Measure(after, p, text)


def _rising_without_accuracy(log: Log) -> Measure | None:
    """By how much the other rewards rise over the run while accuracy does not rise, and surely by less than half as
    much. Readable answers only: learning the form raises all rewards."""
    from scipy.stats import linregress

    names = [name for name in COMPONENTS if name != "accuracy" and all(name in line for line in log.lines)]
    where = np.flatnonzero(log.readable)
    steps = np.unique(log.step[where])
    if not names or len(steps) < FEWEST_STEPS:
        return None
    lines = [log.lines[i] for i in where]
    block = np.searchsorted(steps, log.step[where]) * min(_MOST_BLOCKS, len(steps)) // len(steps)
    other_B = _means(block, [np.mean([line[name] for name in names]) for line in lines])
    accuracy_B = _means(block, [line.get("accuracy", line["direction"] == line["label"]) for line in lines])
    time_B = np.linspace(0, 1, len(other_B))
    rise, accuracy, gap = (
        linregress(time_B, values, alternative="greater") for values in (other_B, accuracy_B, other_B / 2 - accuracy_B)
    )
    if accuracy.pvalue < 0.1 or gap.pvalue > 0.05:
        return None
    third = max(1, len(other_B) // 3)
    text = (
        f"{' and '.join(names) if len(names) < 3 else 'the other rewards'} went from {other_B[:third].mean():.2f} to "
        f"{other_B[-third:].mean():.2f} over {_steps(log, where)} (p {rise.pvalue:.3f}) while accuracy went from "
        f"{accuracy_B[:third].mean():.2f} to {accuracy_B[-third:].mean():.2f} (trend {accuracy.slope:+.2f}, "
        f"p {accuracy.pvalue:.2f}): the model learns to write, not to forecast"
    )
    return Measure(rise.slope, rise.pvalue, text)


def _means(block: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """The mean of the values of each block."""
    return np.bincount(block, np.asarray(values, dtype=float)) / np.bincount(block)


DETECTORS = (
    Detector("one direction only", "warning", 0.95, _one_direction),
    Detector("length at the limit", "warning", 0.2, _cut_off),
    Detector("no variance within groups", "warning", 0.6, _no_variance),
    Detector("one template repeated", "warning", 0.5, _one_template),
    Detector("rising reward, flat accuracy", "notice", 0.1, _rising_without_accuracy, FEWEST_STEPS),
)
