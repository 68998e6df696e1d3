"""Patterns of gaming in a run's log: does the reward rise for another reason than better forecasts?

Each detector compares the run with itself: its last third with its first, its trend with the trends that shuffling its
steps gives. A pattern is told only when it is large enough to matter and not explained by chance, so a short or a noisy
log is silent. A detector says what a log looks like, not why: read some completions before acting on it.

Completions of one group (the answers to one prompt in one step) resemble each other, so chance is judged over groups
and steps, never over completions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stonk_trainer.task import Pattern
from stonk_trainer.tasks.stocks.rewards import COMPONENTS

FEWEST_COMPLETIONS = 30  # below, nothing is judged
FEWEST_STEPS = 6  # below, no trend is judged: 6 steps have 720 orders
NEEDED = ("step", "ticker", "date", "label", "direction", "total", "completion")

_SHUFFLES = 299  # the smallest p-value is 1/300
_P = 0.01  # most that chance may explain
_MOST_BLOCKS = 60  # a longer run's steps are averaged into so many blocks
_SAMPLE = 900  # completions of a third that are compared as texts
_TEXT = 4000  # characters of a completion that are read
_WORDS = 200  # words of a completion that count for diversity
_SEED = 0


@dataclass(frozen=True)
class _Log:
    """Lines in the order of their steps. `group`: 0, 1, … per (step, ticker, date); `first`, `last`: thirds."""

    lines: list[Mapping]
    step: np.ndarray
    group: np.ndarray
    readable: np.ndarray
    first: np.ndarray
    last: np.ndarray


def find_patterns(lines: Sequence[Mapping], max_completion_length: int | None = None) -> list[Pattern]:
    """What looks like gaming in `lines`, the lines of a stocks run log (`callbacks.RunLog`), in any order.

    max_completion_length: the recipe's, in tokens, when known; it tells a long completion from one cut off.
    Returns an empty list when nothing was found, and a single `unjudged` pattern when the log is too short to say.
    Takes about a second for 10,000 completions. Raises ValueError when a line lacks a key of `NEEDED`.
    """
    for line in lines:
        if missing := [key for key in NEEDED if key not in line]:
            raise ValueError(f"not a line of a stocks run log: no {', '.join(missing)}")
    if len(lines) < FEWEST_COMPLETIONS:
        text = f"{len(lines)} completions are too few to judge; {FEWEST_COMPLETIONS} are needed"
        return [Pattern("too few completions", text, "unjudged")]
    log = _arrange(lines)
    found = [_one_direction(log), _cut_off(log, max_completion_length), _no_variance(log), _one_template(log)]
    steps = len(np.unique(log.step))
    if steps < FEWEST_STEPS:
        text = f"{steps} steps are too few to judge a trend; {FEWEST_STEPS} are needed"
        found.append(Pattern("too few steps", text, "unjudged"))
    else:
        found += [_rising_without_accuracy(log), _less_diverse(log)]
    return [pattern for pattern in found if pattern]


def _arrange(lines: Sequence[Mapping]) -> _Log:
    ordered = sorted(lines, key=lambda line: line["step"])
    numbers: dict[tuple, int] = {}
    group = [numbers.setdefault((line["step"], line["ticker"], line["date"]), len(numbers)) for line in ordered]
    n = len(ordered)
    return _Log(
        lines=ordered,
        step=np.array([line["step"] for line in ordered]),
        group=np.array(group),
        readable=np.array([line["direction"] is not None for line in ordered]),
        first=np.arange(n // 3),
        last=np.arange(n - n // 3, n),
    )


def _steps(log: _Log, where: np.ndarray) -> str:
    first, last = log.step[where[0]], log.step[where[-1]]
    return f"step {first}" if first == last else f"steps {first}-{last}"


# ------------------------------------------------------------------------------------------------------ chance


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) of a binomial X, n trials with probability 0 < p < 1."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    return min(1.0, sum(map(math.exp, logs)))


def _trend(values_B: np.ndarray) -> tuple[float, float]:
    """(rise of the least-squares line over the run, share of shuffles of the blocks that rise as much)."""
    x_B = np.linspace(-0.5, 0.5, len(values_B))
    x_B = x_B / (x_B @ x_B)
    rng = np.random.default_rng(_SEED)
    shuffled_SB = rng.permuted(np.tile(values_B, (1999, 1)), axis=1)
    rise = float(x_B @ values_B)
    return rise, (1 + int((shuffled_SB @ x_B >= rise - 1e-12).sum())) / 2000


def _shuffle_p(log: _Log, sample: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], float]) -> float:
    """Share of shuffles in which `statistic(first, last)` is at least what it is.

    sample: line numbers, half of them of each third. A shuffle deals whole groups to the thirds anew. The statistic is
    given two arrays of positions in `sample`.
    """
    half = len(sample) // 2
    observed = statistic(np.arange(half), np.arange(half, 2 * half))
    rng = np.random.default_rng(_SEED)
    names, group = np.unique(log.group[sample], return_inverse=True)
    hits = 0
    for _ in range(_SHUFFLES):
        order = np.argsort(rng.permutation(len(names))[group], kind="stable")
        hits += statistic(order[:half], order[half:]) >= observed - 1e-12
    return (1 + hits) / (1 + _SHUFFLES)


# ------------------------------------------------------------------------------------------------------ rewards


def _rising_without_accuracy(log: _Log) -> Pattern | None:
    """The other rewards rise, accuracy does not, and surely by less than half as much.

    Readable answers only: learning the form raises all rewards.
    """
    names = [name for name in COMPONENTS if name != "accuracy" and all(name in line for line in log.lines)]
    where = np.flatnonzero(log.readable)
    steps = np.unique(log.step[where])
    if not names or len(steps) < FEWEST_STEPS:
        return None
    other = np.array([np.mean([float(log.lines[i][name]) for name in names]) for i in where])
    correct = np.array([float(log.lines[i].get("accuracy", _is_right(log.lines[i]))) for i in where])
    block = np.searchsorted(steps, log.step[where]) * min(_MOST_BLOCKS, len(steps)) // len(steps)
    count_B = np.bincount(block)
    other_B, accuracy_B = np.bincount(block, other) / count_B, np.bincount(block, correct) / count_B
    rise, p = _trend(other_B)
    accuracy_rise, accuracy_p = _trend(accuracy_B)
    _, gap_p = _trend(other_B / 2 - accuracy_B)
    if rise < 0.1 or p > _P or accuracy_p < 0.1 or gap_p > 0.05:
        return None
    third = max(1, len(other_B) // 3)
    text = (
        f"{' and '.join(names) if len(names) < 3 else 'the other rewards'} went from {other_B[:third].mean():.2f} to "
        f"{other_B[-third:].mean():.2f} over {_steps(log, where)} (p {p:.3f}) while accuracy went from "
        f"{accuracy_B[:third].mean():.2f} to {accuracy_B[-third:].mean():.2f} (trend {accuracy_rise:+.2f}, "
        f"p {accuracy_p:.2f}): the model learns to write, not to forecast"
    )
    return Pattern("rising reward, flat accuracy", text, "notice")


def _is_right(line: Mapping) -> bool:
    return line["direction"] == line["label"]


def _no_variance(log: _Log) -> Pattern | None:
    """Groups whose answers all earn the same: they have no advantage, so nothing is learned from them."""
    last = log.last
    groups = [members for members in _members(log, last) if len(members) > 1]
    if not groups:
        return None
    flat = [g for g in groups if np.ptp([log.lines[i]["total"] for i in g]) < 1e-6]
    if len(flat) <= 0.6 * len(groups) or _at_least(len(flat), len(groups), 0.5) > _P:
        return None
    same = sum(len({log.lines[i]["completion"] for i in g}) == 1 for g in flat)
    nothing = sum(not any(log.lines[i]["total"] for i in g) for g in flat)
    text = (
        f"in {len(flat)} of the {len(groups)} groups of {_steps(log, last)} all answers earn the same, so they teach "
        f"nothing: {same} of them are one text repeated, in {nothing} every answer earns 0"
    )
    return Pattern("no variance within groups", text, "warning")


def _members(log: _Log, where: np.ndarray) -> list[np.ndarray]:
    """Line numbers of each group among `where`, which is in order of steps."""
    order = where[np.argsort(log.group[where], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(log.group[order])) + 1)


def _one_direction(log: _Log) -> Pattern | None:
    """Nearly all forecasts of the last third name one direction, more often than the labels would by chance."""
    last = log.last[log.readable[log.last]]
    if not len(last):
        return None
    says_up = np.array([line["direction"] == "UP" for line in log.lines])
    direction = "UP" if says_up[last].mean() >= 0.5 else "DOWN"
    says = says_up == (direction == "UP")
    if says[last].mean() <= 0.95:
        return None
    groups = _members(log, last)
    agreeing = sum(says[g].mean() > 0.5 for g in groups)
    every = _members(log, np.arange(len(log.lines)))
    labels = sum(log.lines[g[0]]["label"] == direction for g in every)
    labels_last = float(np.mean([log.lines[g[0]]["label"] == direction for g in groups]))
    if labels_last > 0.95 or _at_least(agreeing, len(groups), (labels + 1) / (len(every) + 2)) > _P:
        return None
    before = log.first[log.readable[log.first]]
    was = f" ({says[before].mean():.0%} in {_steps(log, before)})" if len(before) else ""
    text = (
        f"{says[last].mean():.0%} of the {len(last)} forecasts of {_steps(log, last)} say {direction}{was}, while "
        f"{labels_last:.0%} of their {len(groups)} rows went {direction}"
    )
    return Pattern("one direction only", text, "warning")


# ------------------------------------------------------------------------------------------------------ length

_FINISHED = re.compile(r"[.!?%)>\]\"'`*]\s*\Z")  # how a finished text ends
_ENDS_IN_A_WORD = re.compile(r"[a-z,]\Z")


def _cut_off(log: _Log, max_completion_length: int | None) -> Pattern | None:
    """Completions that end at the length limit: unreadable, long and without an end, or as long as any and mid-word.

    The log has no tokens, so length is in characters. "Long" is three quarters of the longest, or two characters per
    token of the limit: prose has four, numbers have two.
    """
    length = np.array([len(line["completion"]) for line in log.lines])
    long = 2 * max_completion_length if max_completion_length else 0.75 * length.max()

    def is_cut(i: int) -> bool:
        end = log.lines[i]["completion"][-20:]
        if log.readable[i]:
            return length[i] >= 0.98 * length.max() and _ENDS_IN_A_WORD.search(end) is not None
        return length[i] > 0 and length[i] >= long and not _FINISHED.search(end)

    cut = [i for i in log.last if is_cut(i)]
    share = len(cut) / len(log.last)
    if share < 0.2 or _at_least(len(cut), len(log.last), 0.1) > _P:
        return None
    before = sum(map(is_cut, log.first)) / len(log.first)
    unreadable = sum(not log.readable[i] for i in cut)
    text = (
        f"{share:.0%} of the completions of {_steps(log, log.last)} seem cut off at the length limit, at "
        f"{int(np.median(length[cut])):,} characters ({before:.0%} in {_steps(log, log.first)}); {unreadable} of these "
        f"{len(cut)} have no readable answer: raise max_completion_length, or the texts are being padded"
    )
    return Pattern("length at the limit", text, "warning")


# ------------------------------------------------------------------------------------------------------ texts

# A word with a capital letter is a name, a ticker, a month or a direction, and several in a row are one name.
_NAME = re.compile(r"\b[A-Z][\w.&'-]*(?: +[A-Z][\w.&'-]*)*|\b(?:up|down)\b")
_NUMBER = re.compile(r"[+-]?\$?\d[\d.,:/-]*")


def skeleton(text: str) -> str:
    """A text without what differs from row to row: numbers, dates, names and directions are masked."""
    return " ".join(_NUMBER.sub("0", _NAME.sub("A", text[:_TEXT])).split())


def _sample(log: _Log, where: np.ndarray, count: int) -> np.ndarray:
    """`count` line numbers of `where` at random, in order."""
    return np.sort(np.random.default_rng(_SEED).choice(where, count, replace=False))


def _halves(log: _Log, most: int) -> np.ndarray:
    """As many line numbers of the first third as of the last, one after the other."""
    count = min(most, len(log.first))
    return np.concatenate([_sample(log, log.first, count), _sample(log, log.last, count)])


def _one_template(log: _Log) -> Pattern | None:
    """One skeleton makes up half of the last third; or half of it equals an answer for another row, and more than
    before."""
    sample = _halves(log, _SAMPLE)
    half = len(sample) // 2
    texts: dict[str, int] = {}
    rows: dict[tuple, int] = {}
    text = np.array([texts.setdefault(skeleton(log.lines[i]["completion"]), len(texts)) for i in sample])
    row = np.array([rows.setdefault((log.lines[i]["ticker"], log.lines[i]["date"]), len(rows)) for i in sample])
    is_text = np.array([len(words.split()) >= 3 for words in texts])[text]  # an empty answer is no template

    def repeated(positions: np.ndarray) -> float:
        distinct = np.unique(text[positions] * len(rows) + row[positions])
        rows_of_text = np.bincount(distinct // len(rows), minlength=len(texts))
        return float((is_text[positions] & (rows_of_text[text[positions]] > 1)).mean())

    first, last = np.arange(half), np.arange(half, 2 * half)
    before, after = repeated(first), repeated(last)
    top = np.bincount(text[last]).argmax()
    is_top = text[last] == top
    share, top_rows = float((is_top & is_text[last]).mean()), len(np.unique(row[last][is_top]))
    spreads = after >= 0.5 and after - before >= 0.3
    if not (share >= 0.5 and top_rows >= 3) and not (
        spreads and _shuffle_p(log, sample, lambda first, last: repeated(last) - repeated(first)) <= _P
    ):
        return None
    told = (
        f"once numbers, names and directions are masked, {after:.0%} of the completions of {_steps(log, log.last)} "
        f"equal an answer for another row ({before:.0%} in {_steps(log, log.first)}), and {share:.0%} are one text, "
        f"over {top_rows} rows: {_excerpt(list(texts)[top])}"
    )
    return Pattern("one template repeated", told, "warning")


def _excerpt(text: str) -> str:
    return f'"{text[:100]}…"' if len(text) > 100 else f'"{text}"'


def _less_diverse(log: _Log) -> Pattern | None:
    """Distinct three-word sequences among as many sequences of the last third as of the first."""
    sample = _halves(log, 150)
    vocabulary: dict[str, int] = {}
    sequences = []
    for i in sample:
        words = re.findall(r"\w+", skeleton(log.lines[i]["completion"]).lower())[:_WORDS]
        at = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int64)
        sequences.append((at[:-2] << 42) + (at[1:-1] << 21) + at[2:])

    def distinct(half: np.ndarray, most: int) -> float:
        return len(np.unique(np.concatenate([sequences[i] for i in half])[:most])) / most

    def fall(first: np.ndarray, last: np.ndarray) -> float:
        most = min(sum(len(sequences[i]) for i in half) for half in (first, last))
        return distinct(first, most) - distinct(last, most) if most else 0.0

    half = len(sample) // 2
    first, last = np.arange(half), np.arange(half, 2 * half)
    most = min(sum(len(sequences[i]) for i in positions) for positions in (first, last))
    if most < 200 or distinct(last, most) > 0.7 * distinct(first, most) or _shuffle_p(log, sample, fall) > _P:
        return None
    text = (
        f"{distinct(first, most):.0%} of the three-word sequences of {_steps(log, log.first)} are distinct, "
        f"{distinct(last, most):.0%} of those of {_steps(log, log.last)} ({most:,} compared in each)"
    )
    return Pattern("falling diversity", text, "notice")
