"""Prompts that give the outcome away: by the next close, the label's day, or a word or number that predicts it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

from stonk_trainer.task import Finding
from stonk_trainer.tasks.stocks.audit.rows import FRACTION, FUTURE, PAST, PERCENT, PLAIN, PRICE, Numbers, Rows


def next_close(rows: Rows, numbers: Numbers) -> list[Finding]:
    """Prices (or their digits alone) that equal one of the next two closes, and percents that equal the next return.

    Chance is how often the same numbers match closes that moved as on other days (`_moves`): such moves are on the same
    ticks and of the same size as the move tested, whatever the price level.
    """
    close = rows.past[:, :1]
    moves = _moves(rows, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = 100 * np.abs(moves / close)
        cents = np.round(close[close >= 1] * 100)
    unit = np.where(close[:, 0] >= 1, 0.01, 0.0001)
    # Round values are frequent in headlines and prices alike: they do not count where most prices are not round.
    fine = not len(cents) or np.mean(cents % 5 != 0) > 0.5
    prices, percents = _prices_shown(rows, numbers, unit), _percents_shown(rows, numbers)
    returns = np.where(returns >= 0.1, returns, np.nan)
    tests = {
        "the next trading day's close": _coincidences(rows, numbers, *prices, close + moves, unit, fine),
        "the close of the day after next": _coincidences(rows, numbers, *prices, close + _moves(rows, 2), unit, fine),
        "the next trading day's return": _coincidences(
            rows, numbers, *percents, returns, np.full(len(unit), 0.01), True
        ),
    }
    findings = []
    for code, split in enumerate(rows.splits):
        here = rows.of(split)
        n = int((here & ~np.isnan(rows.future[:, 0])).sum())
        if n < 10:
            message = f"{n} of {here.sum():,} rows checkable: the next close of the others is not known"
            findings.append(Finding("next close", split, None, message))
            continue
        found = []
        for what, (counts, draws) in tests.items():
            for slot, (hits, *others) in zip(numbers.slots, counts[:, code].T, strict=False):
                if draws[code] and _beyond_chance(hits, sum(others), draws[code], 1e-5):
                    found.append((hits - sum(others) / draws[code], what, slot, hits))
        if found:
            excess, what, slot, hits = max(found)
            message = (
                f"{what} is in the prompt of {hits:,} of {n:,} rows ({hits / n:.1%}; chance "
                f"{(hits - excess) / n:.1%}), under “{slot}”: remove what is known only after the close"
            )
            findings.append(Finding("next close", split, False, message))
        else:
            counts, draws = tests["the next trading day's close"]
            hits, *others = counts[:, code, -1]
            chance = f"; chance {sum(others) / draws[code] / n:.2%}" if draws[code] else ""
            message = f"coincides with a number shown in {hits / n:.2%} of rows{chance}"
            findings.append(Finding("next close", split, True, message))
    return findings


def _moves(rows: Rows, days: int) -> np.ndarray:
    """Dollar moves over so many days, (N, 1 + placebos): from t on, then of the days about t.

    The others end by t-5 or begin at t+5 or later, so that no average over a few days shown at t contains them. Where
    they are not known, the relative moves of other rows replace them, rounded as prices are.
    """
    line = np.c_[rows.past[:, ::-1], rows.future]
    start = np.array([0, *range(-5 - days, -15 - days, -1), *range(5, FUTURE - days + 1)]) + PAST - 1
    moves = line[:, start + days] - line[:, start]
    index = np.flatnonzero(~np.isnan(moves[:, 0]))
    close = line[index, PAST - 1]
    cents = np.where(close >= 1, 100, 10_000)
    for j in range(1, moves.shape[1] if len(index) > 1 else 0):
        relative = np.roll(moves[index, 0] / close, 1 + j % (len(index) - 1))
        unknown = np.isnan(moves[index, j])
        moves[index[unknown], j] = (np.round(relative * close * cents) / cents)[unknown]
    return moves


def _prices_shown(rows: Rows, numbers: Numbers, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the numbers as prices, and which of them are prices that the past does not explain.

    Digits without cents are read at the power of ten that comes nearest to the close: 4113 cents, $41.13M.
    """
    size = np.abs(numbers.value)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = size * 10.0 ** np.round(np.log10(rows.past[numbers.row, 0] / size))
    value = np.where(numbers.kind == PLAIN, scaled, numbers.value)
    return value, _unexplained(numbers, (PRICE, PLAIN), value, rows.past, unit)


def _percents_shown(rows: Rows, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the numbers in percent, and which of them are percents that are not a change between past closes."""
    value = np.abs(np.where(numbers.kind == FRACTION, numbers.value * 100, numbers.value))
    with np.errstate(invalid="ignore", divide="ignore"):
        changes = np.c_[rows.past[:, :1] / rows.past[:, 1:], rows.past[:, 1:-1] / rows.past[:, 2:]] - 1
    unit = np.full(len(changes), 0.01)
    return value, _unexplained(numbers, (PERCENT, FRACTION), value, 100 * np.abs(changes), unit)


def _unexplained(
    numbers: Numbers, kinds: tuple[int, ...], value: np.ndarray, honest: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    unexplained = np.isin(numbers.kind, kinds)
    index = np.flatnonzero(unexplained)
    row, values = numbers.row[index], value[index]
    for column in honest.T:
        unexplained[index] &= ~(np.abs(values - column[row]) <= 0.501 * unit[row])
    return unexplained


def _coincidences(
    rows: Rows,
    numbers: Numbers,
    value: np.ndarray,
    usable: np.ndarray,
    targets: np.ndarray,
    unit: np.ndarray,
    fine: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """How many rows show their target: (1 + placebos, splits, slots + 1), the last slot being any; placebos per row.

    `targets` (N, 1 + placebos) in the units of `value`; NaN where not known, and `placebos per row` counts the known.
    """
    index = np.flatnonzero(usable)
    row, slot, values = numbers.row[index], numbers.slot[index], value[index]
    targets = np.where(np.isnan(targets[:, :1]), np.nan, targets)
    split = pd.Categorical(rows.table["split"], categories=rows.splits).codes
    slots = len(numbers.slots)
    counts = np.zeros((targets.shape[1], len(rows.splits), slots + 1), int)
    for j, target in enumerate(targets.T):
        with np.errstate(invalid="ignore"):
            hit = np.abs(values - target[row]) <= 0.501 * unit[row]
        if fine:
            hit &= np.round(target[row] / unit[row]) % 5 != 0
        shown = np.unique(row[hit] * slots + slot[hit])
        np.add.at(counts[j], (split[shown // slots], shown % slots), 1)
        np.add.at(counts[j, :, slots], split[np.unique(row[hit])], 1)
    known = np.array([(~np.isnan(targets[split == code])).sum(axis=0) for code in range(len(rows.splits))])
    return counts, known[:, 1:].sum(axis=1) / np.maximum(known[:, 0], 1)


def _beyond_chance(hits: int, placebo_hits: int, placebos: float, level: float) -> bool:
    """Whether `hits` exceed those of so many placebo draws: the conditional test of two Poisson rates."""
    from scipy.stats import binom

    if hits < 3 or hits < 1.5 * placebo_hits / placebos:
        return False
    return binom.sf(hits - 1, hits + placebo_hits, 1 / (placebos + 1)) < level


def label_day(rows: Rows) -> list[Finding]:
    """Prompts that name the next trading day, compared with those that name one of the five days after it.

    A future day may be named honestly (results are announced in advance), so the next day must stand out.
    """
    row, year, month, day = rows.dates_shown.T
    named = []
    for k in range(6):
        expected = np.busday_offset(rows.days, k + 1, roll="backward")
        target = np.where(np.isnat(rows.future_days[:, k]), expected, rows.future_days[:, k])[row]
        y, m = target.astype("datetime64[Y]").astype(int) + 1970, target.astype("datetime64[M]").astype(int) % 12 + 1
        d = (target - target.astype("datetime64[M]")).astype(int) + 1
        named.append(np.isin(np.arange(len(rows.days)), row[(d == day) & (m == month) & ((y == year) | (year == 0))]))
    findings = []
    for split in rows.splits:
        here = rows.of(split)
        hits, *others = (int((naming & here).sum()) for naming in named)
        n = int(here.sum())
        stands_out = hits >= 3 * max(others) and hits - max(others) >= 0.01 * n
        failed = stands_out and _beyond_chance(hits, sum(others), len(others), 1e-5)
        message = (
            f"{hits / n:.2%} of {n:,} prompts name the next trading day, {max(others) / n:.2%} a later one of five"
        )
        if failed:
            first = rows.name(int(np.flatnonzero(named[0] & here)[0]))
            message += f" (first {first}): the text may be of the label day; use only what was written before it"
        findings.append(Finding("label day", split, not failed, message))
    return findings


def answer_words(rows: Rows) -> list[Finding]:
    """One or two neighbouring words (or signs, but no digits) that predict the label.

    A word counts when at least 90% of the rows that contain it have one label (or 75%, or 60%, at stricter levels), and
    chance does not explain it: a binomial test over days, times the number of words (Bonferroni). Chance is the label's
    share among the same companies, so that the name of one that rises is not a leak.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"[^\W\d]+|[^\w\s]", min_df=12)
        held = vectorizer.fit_transform(rows.texts).tocsc()
    except ValueError:  # every prompt is the same text, or no word is in 12 of them
        return [Finding("answer words", "all", None, "no word is in 12 prompts, apart from what all share")]
    words = vectorizer.get_feature_names_out()
    up = rows.table["up"].to_numpy()
    findings = []
    ticker = pd.factorize(rows.table["ticker"])[0]
    for pool in ["all", *rows.splits]:
        here = np.ones(len(up), bool) if pool == "all" else rows.of(pool)
        # Shrunk to the share of all by 20 rows: a company's own share is uncertain when it has few rows.
        base_up = (np.bincount(ticker[here], up[here], ticker.max() + 1) + 20 * up[here].mean()) / (
            np.bincount(ticker[here], minlength=ticker.max() + 1) + 20
        )
        support = np.asarray(held.T @ here.astype(float))
        ups = np.asarray(held.T @ (here & up).astype(float))
        tried = support >= 12
        purity = np.maximum(ups, support - ups) / np.maximum(support, 1)
        worst = None
        for i in np.flatnonzero(tried & (purity >= 0.6)):
            index = held.indices[held.indptr[i] : held.indptr[i + 1]]
            index = index[here[index]]
            means_up = ups[i] * 2 > support[i]
            base = base_up[ticker[index]].mean()
            p = _p_over_days(up[index] == means_up, rows.days[index], base if means_up else 1 - base) * tried.sum()
            level = 1e-4 if purity[i] >= 0.9 else 1e-6 if purity[i] >= 0.75 else 1e-9
            if p < level and (worst is None or p < worst[0]):
                worst = (p, words[i], "UP" if means_up else "DOWN", index, means_up)
        if worst:
            _, word, label, index, means_up = worst
            right = up[index] == means_up
            held_out = (rows.table["split"] != "train").to_numpy()[index]
            later = f", {right[held_out].mean():.0%} outside train" if held_out.any() else ""
            message = (
                f"“{word}” is in {len(index):,} prompts, and {right.mean():.0%} of them are {label}{later}: "
                "the text gives the outcome away; remove it, or what was written after the outcome"
            )
            findings.append(Finding("answer words", pool, False, message))
            if pool == "all":
                break
    if not findings:
        message = f"{len(words):,} words and pairs of words tried, none predicts the label"
        findings.append(Finding("answer words", "all", True, message))
    return findings


def _p_over_days(right: np.ndarray, days: np.ndarray, base: float) -> float:
    """Probability that a label of share `base` is right that often, when all rows of one day are a single draw."""
    from scipy.stats import binom

    _, day = np.unique(days, return_inverse=True)
    share = np.bincount(day, right) / np.bincount(day)
    return float(binom.sf(math.floor(share.sum() + 1e-9) - 1, len(share), min(base, 1 - 1e-9)))


def answer_numbers(rows: Rows, numbers: Numbers) -> list[Finding]:
    """Whether one number (a price: relative to the close; a plain one: both ways) ranks UP before DOWN days.

    ROC-AUC of the first number in each slot of the prompt; honest numbers stay within 0.5 ± 0.05. The standard error
    counts days instead of rows. A number must predict more than the past closes do (`_auc_of_the_past`): where prices
    return to their mean, honest averages predict the direction.
    """
    up = rows.table["up"].to_numpy()
    findings = []
    firsts = {}
    readings = ((PERCENT, "percent"), (PRICE, "against the close"), (PLAIN, "plain"), (PLAIN, "against the close"))
    for code, (kind, reading) in itertools.product(range(len(numbers.slots)), readings):
        index = np.flatnonzero((numbers.slot == code) & (numbers.kind == kind))
        row, first = np.unique(numbers.row[index], return_index=True)
        value = numbers.value[index[first]] / (rows.past[row, 0] if reading == "against the close" else 1)
        firsts[code, reading, kind] = row[~np.isnan(value)], value[~np.isnan(value)]
    for split in rows.splits:
        here = rows.of(split)
        worst, tried = None, 0
        for (code, reading, _), (row, value) in firsts.items():
            chosen = here[row]
            index, values = row[chosen], value[chosen]
            days, ups = len(np.unique(rows.days[index])), int(up[index].sum())
            if days < 15 or not 5 <= ups <= len(index) - 5:
                continue
            tried += 1
            auc = _auc(values, up[index])
            error = math.sqrt((1 / ups + 1 / (len(index) - ups)) / 12 * len(index) / days)
            if (
                abs(auc - 0.5) > max(0.12, 5 * error, 0.0 if worst is None else abs(worst[1] - 0.5))
                and abs(auc - 0.5) > _auc_of_the_past(rows, index) + 2 * error
            ):
                worst = f"{numbers.slots[code]}” ({reading})", auc, len(index)
        if worst:
            slot, auc, n = worst
            message = (
                f"the first number under “{slot} tells UP from DOWN in {max(auc, 1 - auc):.0%} of pairs ({n:,} rows; "
                "chance 50%): it contains the outcome; remove what is known only after the close"
            )
            findings.append(Finding("answer numbers", split, False, message))
        else:
            passed = True if tried else None
            message = f"{tried} numbers tried, none tells UP from DOWN" if tried else "too few days to tell"
            findings.append(Finding("answer numbers", split, passed, message))
    return findings


def _auc(values: np.ndarray, up: np.ndarray) -> float:
    """Share of pairs of an UP and a DOWN row in which UP has the larger value (Mann-Whitney U over its maximum)."""
    from scipy.stats import rankdata

    ups = int(up.sum())
    return (rankdata(values)[up].sum() - ups * (ups + 1) / 2) / (ups * (len(up) - ups))


def _auc_of_the_past(rows: Rows, index: np.ndarray) -> float:
    """Largest distance from 0.5 of the AUC of the close relative to each of 20 earlier closes, or a mean of closes."""
    past = rows.past[index]
    before = np.c_[past[:, 1:21], past[:, :5].mean(axis=1), past[:, :20].mean(axis=1)]
    up = rows.table["up"].to_numpy()[index]
    best = 0.0
    for column in (past[:, :1] / before).T:
        known = ~np.isnan(column)
        if 5 <= up[known].sum() <= known.sum() - 5:
            best = max(best, abs(_auc(column[known], up[known]) - 0.5))
    return best
