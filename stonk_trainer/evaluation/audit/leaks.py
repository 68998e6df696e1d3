"""Prompts that give the outcome away: the next close, the label day, a word or a number that goes with the label."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from stonk_trainer.evaluation.audit.rows import (
    FRACTION,
    PERCENT,
    PRICE,
    Finding,
    Numbers,
    Rows,
)

_FAR = range(6, 16)  # days ahead that stand for "no leak" when a prompt shows coming closes


def _tick(closes: np.ndarray) -> float:
    """The step prices are quoted in, in dollars: the largest of these that nearly all closes are multiples of."""
    cents = closes[closes >= 1] * 100
    for tick in (1000, 500, 100, 50, 25, 10, 5):
        if len(cents) and (np.abs(cents / tick - np.round(cents / tick)) * tick < 0.01).mean() > 0.99:
            return tick / 100
    return 0.01


def next_close(rows: Rows, numbers: Numbers) -> list[Finding]:
    known = ~np.isnan(rows.future[:, 0])
    findings = []
    closes = np.c_[rows.past, rows.future]
    tick = _tick(closes[~np.isnan(closes)])
    step = np.where(rows.past[:, 0] >= 1, tick, 0.0001)
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = (rows.future / np.c_[rows.past[:, 0], rows.future[:, :-1]] - 1) * 100
        past_moves = (rows.past[:, :11] / rows.past[:, 1:12] - 1) * 100
    prices = _coincidences(numbers, PRICE, rows.past, rows.future, step, "cent" if tick == 0.01 else "other")
    percent = replace(numbers, value=np.abs(np.where(numbers.kind == FRACTION, numbers.value * 100, numbers.value)))
    percent.kind = np.where(numbers.kind == FRACTION, PERCENT, numbers.kind)
    large = np.where(np.abs(moves) >= 0.1, np.abs(moves), np.nan)
    returns = _coincidences(percent, PERCENT, np.abs(past_moves), large, np.full(len(step), 0.01), "cent")
    for split in rows.splits:
        here = rows.of(split) & known
        if here.sum() < 10:
            message = (
                f"{here.sum()} of {rows.of(split).sum():,} rows checkable: the next close of the others is not known"
            )
            findings.append(Finding("next close", split, None, message))
            continue
        found = []
        for what, (hits, shifted, far, far_shifted) in (("close", prices), ("return", returns)):
            for code, slot in enumerate(numbers.slots):
                mine = [_rows_hit(h, numbers, code, here) for h in hits]
                chance = [_rows_hit(h, numbers, code, here) for h in shifted]
                h, expected = mine[0], float(np.mean(chance))
                if not _beyond_chance(h, sum(chance), len(chance), 1e-5):
                    continue
                days_after = [_rows_hit(f, numbers, code, here) for f in far]
                their_chance = sum(_rows_hit(f, numbers, code, here) for f in far_shifted)
                only_next = _beyond_chance(h, sum(days_after), len(days_after), 1e-3)
                if only_next or _beyond_chance(days_after[0], their_chance, len(far_shifted), 1e-5):
                    found.append((h - expected, what, slot, h, expected))
        if found:
            _, what, slot, h, expected = max(found)
            n = int(here.sum())
            message = (
                f"the next trading day's {what} stands in the prompt of {h:,} of {n:,} rows ({h / n:.1%}; chance "
                f"{expected / n:.1%}), under “{slot}”: remove what is known only after the close"
            )
            findings.append(Finding("next close", split, False, message))
        else:
            total = _rows_hit(prices[0][0], numbers, None, here)
            expected = np.mean([_rows_hit(h, numbers, None, here) for h in prices[1]])
            message = f"coincides with a number shown in {total / here.sum():.2%} of rows; prices a few cents off in "
            findings.append(Finding("next close", split, True, message + f"{expected / here.sum():.2%}"))
    return findings


def _coincidences(numbers: Numbers, kind: int, past, future, step, rounding: str):
    """Which numbers equal the next value; that value shifted by up to ten steps; the values of days t+6 to t+15; and
    the value of day t+6 shifted.

    Numbers that equal a value of the past are honest and left out. Round values are left out where prices have
    cents: headlines prefer round numbers, and so do prices.
    """
    row, value = numbers.row, numbers.value
    usable = numbers.kind == kind
    near = step[row] * 0.501
    width = np.where(near > 0.005, 0.00501, near)
    with np.errstate(invalid="ignore"):
        for k in range(past.shape[1]):
            usable &= ~(np.abs(value - past[row, k]) <= width)

        def equal(target: np.ndarray) -> np.ndarray:
            cents = np.round(target / np.where(step < 0.01, 0.0001, 0.01))
            fine = (cents % 5 != 0) if rounding == "cent" else np.ones(len(target), bool)
            return usable & (np.abs(value - target[row]) <= width) & fine[row]

        def shifted(target: np.ndarray) -> list[np.ndarray]:
            return [equal(target + sign * k * step) for k in range(1, 11) for sign in (-1, 1)]

        next_, far = future[:, 0], [future[:, k - 1] for k in _FAR]
        return [equal(next_)], shifted(next_), [equal(f) for f in far], shifted(far[0])


def _rows_hit(hit: np.ndarray, numbers: Numbers, slot: int | None, here: np.ndarray) -> int:
    chosen = hit & here[numbers.row]
    if slot is not None:
        chosen = chosen & (numbers.slot == slot)
    return len(np.unique(numbers.row[chosen]))


def _beyond_chance(hits: int, placebo_hits: int, placebos: int, level: float) -> bool:
    """Whether `hits` exceed what `placebos` equally likely draws gave: the conditional test of two Poisson rates."""
    from scipy.stats import binom

    if hits < 3 or hits < 1.5 * placebo_hits / placebos:
        return False
    return binom.sf(hits - 1, hits + placebo_hits, 1 / (placebos + 1)) < level


def label_day(rows: Rows) -> list[Finding]:
    """Prompts that name the next trading day, beside those that name one of the five days after it.

    A coming day may be named honestly (results are announced ahead), so the next day must stand out.
    """
    row, year, month, day = rows.dates_said.T
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
        hits, *others = (int((who & here).sum()) for who in named)
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
    """One or two neighbouring words (signs and digits too) whose presence gives the label away.

    A word counts when at least 90% of the rows that hold it have one label (or 75%, at a stricter level), more than
    chance gives the luckiest of all words tried: a binomial test over days, times the number of words (Bonferroni).
    """
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", min_df=12)
        held = vectorizer.fit_transform(rows.texts).tocsc()
    except ValueError:  # every prompt is the same text, or no word stands in 12 of them
        return [Finding("answer words", "all", None, "no word stands in 12 prompts, beyond what all share")]
    words = vectorizer.get_feature_names_out()
    up = rows.table["up"].to_numpy()
    findings = []
    for pool in ["all", *rows.splits]:
        here = np.ones(len(up), bool) if pool == "all" else rows.of(pool)
        support = np.asarray(held.T @ here.astype(float))
        ups = np.asarray(held.T @ (here & up).astype(float))
        tried = support >= 12
        purity = np.maximum(ups, support - ups) / np.maximum(support, 1)
        worst = None
        for i in np.flatnonzero(tried & (purity >= 0.75)):
            index = held.indices[held.indptr[i] : held.indptr[i + 1]]
            index = index[here[index]]
            says_up = ups[i] * 2 > support[i]
            p = _p_over_days(up[index] == says_up, rows.days[index], np.mean(up[here] == says_up)) * tried.sum()
            if p < (1e-3 if purity[i] >= 0.9 else 1e-6) and (worst is None or p < worst[0]):
                worst = (p, words[i], "UP" if says_up else "DOWN", index, says_up)
        if worst:
            _, word, label, index, says_up = worst
            right = up[index] == says_up
            held_out = (rows.table["split"] != "train").to_numpy()[index]
            later = f", {right[held_out].mean():.0%} outside train" if held_out.any() else ""
            message = (
                f"“{word}” stands in {len(index):,} prompts, and {right.mean():.0%} of them are {label}{later}: "
                "the text tells the outcome; remove it, or what was written after it"
            )
            findings.append(Finding("answer words", pool, False, message))
            if pool == "all":
                break
    if not findings:
        message = f"{len(words):,} words and pairs of words tried, none gives the label away"
        findings.append(Finding("answer words", "all", True, message))
    return findings


def _p_over_days(right: np.ndarray, days: np.ndarray, base: float) -> float:
    """Chance that a label of share `base` is right that often, when all rows of one day are a single draw."""
    from scipy.stats import binom

    _, day = np.unique(days, return_inverse=True)
    share = np.bincount(day, right) / np.bincount(day)
    return float(binom.sf(math.floor(share.sum() + 1e-9) - 1, len(share), min(base, 1 - 1e-9)))


def answer_numbers(rows: Rows, numbers: Numbers) -> list[Finding]:
    """Whether the size of one number (a price: against the close) ranks UP before DOWN days better than chance.

    ROC-AUC of the first number under each label of the prompt; what a market gives lies within 0.5 ± 0.05. The
    standard error is that of as many rows as there are days.
    """
    from scipy.stats import rankdata

    up = rows.table["up"].to_numpy()
    findings = []
    firsts = {}
    kinds = {PERCENT: "percent", PRICE: "price"}
    for code, kind in itertools.product(range(len(numbers.slots)), kinds):
        index = np.flatnonzero((numbers.slot == code) & (numbers.kind == kind))
        row, first = np.unique(numbers.row[index], return_index=True)
        value = numbers.value[index[first]] / (rows.past[row, 0] if kind == PRICE else 1)
        firsts[code, kind] = row[~np.isnan(value)], value[~np.isnan(value)]
    for split in rows.splits:
        here = rows.of(split)
        worst, tried = None, 0
        for (code, kind), (row, value) in firsts.items():
            chosen = here[row]
            index, values = row[chosen], value[chosen]
            days, ups = len(np.unique(rows.days[index])), int(up[index].sum())
            if days < 15 or not 5 <= ups <= len(index) - 5:
                continue
            tried += 1
            downs = len(index) - ups
            auc = (rankdata(values)[up[index]].sum() - ups * (ups + 1) / 2) / (ups * downs)
            error = math.sqrt((1 / ups + 1 / downs) / 12 * len(index) / days)
            if abs(auc - 0.5) > max(0.12, 5 * error) and (worst is None or abs(auc - 0.5) > abs(worst[1] - 0.5)):
                worst = f"{numbers.slots[code]}” ({kinds[kind]})", auc, len(index)
        if worst:
            slot, auc, n = worst
            message = (
                f"the first number under “{slot} tells UP from DOWN in {max(auc, 1 - auc):.0%} of pairs ({n:,} rows; "
                "chance 50%): it holds the outcome; remove what is known only after the close"
            )
            findings.append(Finding("answer numbers", split, False, message))
        else:
            passed = True if tried else None
            message = f"{tried} numbers tried, none tells UP from DOWN" if tried else "too few days to tell"
            findings.append(Finding("answer numbers", split, passed, message))
    return findings
