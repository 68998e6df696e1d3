"""Labels and splits: are trivial rules too often right, are labels those of the next day, are splits apart?"""

from __future__ import annotations

import itertools

import numpy as np

from stonk_trainer.evaluation.stats import wilson
from stonk_trainer.task import SPLITS, Finding
from stonk_trainer.tasks.stocks.audit.rows import Rows
from stonk_trainer.tasks.stocks.dataset import HORIZON_DAYS

_Z999 = 3.29  # two-sided 99.9% quantile of the normal distribution


def interval(right: np.ndarray, days: np.ndarray) -> tuple[float, float]:
    """99.9% interval of the mean of a 0/1 array whose entries of one day move together.

    Wilson's score interval with the effective number of rows that the between-day variance implies: the linearised
    variance of a ratio over clusters (Cameron & Miller 2015, equation 11).
    """
    share, n = float(np.mean(right)), len(right)
    _, day = np.unique(days, return_inverse=True)
    sums = np.bincount(day, right - share)
    count = len(sums)
    variance = float((sums**2).sum()) / n**2 * count / max(count - 1, 1)
    effective = min(n, share * (1 - share) / variance) if variance > 0 else count
    low, high = wilson(share, effective, _Z999)
    return float(low), float(high)


def trivial_rules(rows: Rows, balanced: set[str]) -> list[Finding]:
    """How often rules without skill are right. balanced: the splits that should hold as many UP as DOWN rows."""
    up = rows.table["up"].to_numpy()
    with np.errstate(invalid="ignore"):
        last = np.nan_to_num(np.sign(rows.past[:, 0] - rows.past[:, 1]))
    unknown = np.isnan(rows.past[:, 0] - rows.past[:, 1])
    shown = np.array([next((f["value"] for f in facts if f["name"] == "change_1d"), 0.0) for facts in rows.facts])
    last = np.where(unknown, np.sign(shown), last)
    weekday = rows.table["date"].dt.day_of_week.to_numpy()
    month = rows.table["date"].dt.month.to_numpy()
    findings = []
    for split in rows.splits:
        here = rows.of(split)
        results = []
        for name, signs in (
            ("always UP", np.ones(len(up))),
            ("same as last change", last),
            ("opposite of last change", -last),
            ("weekday", _majority(rows, weekday, up, split)),
            ("month", _majority(rows, month, up, split)),
        ):
            judged = here & (signs != 0)
            if judged.sum() >= 10:
                right = (signs[judged] > 0) == up[judged]
                results.append((name, float(right.mean()), *interval(right, rows.days[judged])))
        if not results:
            findings.append(Finding("trivial rules", split, None, "fewer than 10 rows"))
            continue
        found = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy, _, _ in results)
        if split in balanced:
            # Below 50% only a fixed rule can be reversed; a fitted one that loses is no sign of anything.
            fixed = ("always UP", "same as last change", "opposite of last change")
            high = [r for r in results if r[1] > 0.53 and r[2] > 0.5]
            alarms = high + [r for r in results if r[0] in fixed and r[1] < 0.47 and r[3] < 0.5]
            should = "balanced rows must give each 50 ± 3%: balance within ticker, month and last change"
        else:
            alarms = [r for r in results if r[1] > 0.6 and r[2] > 0.55]
            should = "few markets do that: look for labels or prices from another day"
        if alarms:
            worst = max(alarms, key=lambda r: abs(r[1] - 0.5))
            message = (
                f"the rule “{worst[0]}” is right in {worst[1]:.1%} (99.9% interval {worst[2]:.1%} to {worst[3]:.1%}) "
                f"of {here.sum():,} rows; {should}. All: {found}"
            )
            findings.append(Finding("trivial rules", split, False, message))
        else:
            kind = "balanced" if split in balanced else f"majority {max(up[here].mean(), 1 - up[here].mean()):.1%}"
            findings.append(Finding("trivial rules", split, True, f"{kind}; {found}"))
    return findings


def _majority(rows: Rows, key: np.ndarray, up: np.ndarray, split: str) -> np.ndarray:
    """Sign of the majority of each row's `key`, fitted on train; on train itself on the first half of its days.

    On the rows that it was fitted to, a rule beats chance on pure noise. 0 where nothing was fitted.
    """
    fit = rows.of("train")
    signs = np.zeros(len(key))
    if not fit.any():
        return signs
    if split == "train":
        fit = fit & (rows.days <= np.median(rows.days[fit].astype(int)).astype("datetime64[D]"))
    lean = np.bincount(key[fit], np.where(up[fit], 1, -1), minlength=13)
    signs = np.sign(lean[key])
    signs[fit] = 0
    return signs


def _rounding(price: np.ndarray) -> np.ndarray:
    """How far a return may be off when both closes are rounded as prompts round them (cents; 0.0001 below $1)."""
    return np.where(price >= 1, 0.0101, 0.000101) / price


def label_join(rows: Rows) -> list[Finding]:
    """Labels and returns against the next trading day's close; if they disagree, the day they were taken from."""
    findings = []
    known = ~np.isnan(rows.future[:, 0] / rows.past[:, 0])
    for split in rows.splits:
        here = rows.of(split)
        n = int((here & known).sum())
        if n < 10:
            why = "too few rows whose next close is known; give the prices" if rows.from_facts else "no prices for them"
            findings.append(Finding("label join", split, None, f"{n} of {here.sum():,} rows checkable: {why}"))
            continue
        problems = _wrong_labels(rows, here & known)
        gaps = int((here & rows.across_a_gap).sum())
        if gaps > 0.005 * n:
            problems.append(f"{gaps:,} labels reach across a gap of more than {HORIZON_DAYS} days")
        if problems:
            advice = "join the next trading day's close of the same ticker, then label"
            findings.append(Finding("label join", split, False, f"{'; '.join(problems)}. To fix it: {advice}"))
            continue
        share = "" if n == here.sum() else f" where it is known: {n:,} of {here.sum():,} rows"
        message = f"all labels and returns agree with the next close{share}"
        findings.append(Finding("label join", split, True, message))
    return findings


def _wrong_labels(rows: Rows, known: np.ndarray) -> list[str]:
    """What is wrong with the labels and returns of the rows `known`, whose next close is known."""
    returns, up = rows.table["next_return"].to_numpy(), rows.table["up"].to_numpy()
    right, tolerance = rows.future[:, 0] / rows.past[:, 0] - 1, _rounding(rows.past[:, 0])
    with np.errstate(invalid="ignore"):
        has_return = known & ~np.isnan(returns)
        wrong_return = has_return & (np.abs(returns - right) > tolerance)
        moved = known & (np.abs(right) > tolerance)
        wrong_label = moved & (up != (right > 0))
        contradicts_return = wrong_label & (up != (returns > 0))
    allowed = max(2, 0.005 * known.sum()) if rows.from_facts else 0
    if wrong_return.sum() > allowed:
        return [_explain(rows, wrong_return, has_return, returns)]
    if wrong_label.sum() <= allowed:
        return []
    if wrong_label.sum() > 0.9 * moved.sum():
        return [f"labels are flipped: {_of(wrong_label, moved)} labels are the opposite of the next close's direction"]
    return_is_right = "; next_return is right" if contradicts_return.sum() == wrong_label.sum() else ""
    return [_explain(rows, wrong_label, moved, None) + return_is_right]


def _explain(rows: Rows, wrong: np.ndarray, of: np.ndarray, returns: np.ndarray | None) -> str:
    """The day whose return the wrong rows agree with, if one explains nine in ten of them.

    wrong: rows whose return (label, where `returns` is None) disagrees with the next close, among the rows `of`.
    """
    t, before, next_1, next_2 = rows.past[:, 0], rows.past[:, 1], rows.future[:, 0], rows.future[:, 1]
    up, tolerance = rows.table["up"].to_numpy(), _rounding(t)
    what = "labels" if returns is None else "next_return"
    for name, other in {
        "joined one day late: they equal the return of the day after next": next_2 / next_1 - 1,
        "joined one day early: they equal the change of the row's own day, which the prompt shows": t / before - 1,
        "joined two days ahead: they equal the return over the next two days": next_2 / t - 1,
    }.items():
        with np.errstate(invalid="ignore"):
            same = up == (other > 0) if returns is None else np.abs(returns - other) <= tolerance * 1.5
            compared = wrong & ~np.isnan(other)
        # The sign alone agrees by chance half of the time, so that takes more rows.
        if compared.sum() >= (15 if returns is None else 1) and (compared & same).sum() >= 0.9 * compared.sum():
            return f"labels {name} ({(of & same).sum() / of.sum():.0%} of {of.sum():,} {what})"
    first = int(np.flatnonzero(wrong)[0])
    return f"{_of(wrong, of)} {what} disagree with the next trading day's close, the first {rows.name(first)}"


def _of(some: np.ndarray, all_: np.ndarray) -> str:
    return f"{some.sum():,} of {all_.sum():,} ({some.sum() / max(all_.sum(), 1):.1%})"


def order_of_splits(rows: Rows, embargo_days: int) -> list[Finding]:
    """Whether each split's outcomes end `embargo_days` before the next split begins."""
    findings = []
    present = [split for split in SPLITS if split in rows.splits]
    for earlier, later in itertools.pairwise(present):
        outcomes, days = rows.outcome_days[rows.of(earlier)], rows.days[rows.of(later)]
        gap = int((days.min() - outcomes.max()) / np.timedelta64(1, "D"))
        where = f"{earlier} outcomes end {outcomes.max()}, {later} begins {days.min()}"
        crossing = int((outcomes >= days.min()).sum())
        if crossing:
            message = (
                f"{where}: {crossing:,} {earlier} rows lie in or reach into {later} "
                f"({len(np.intersect1d(rows.days[rows.of(earlier)], days)):,} days in both): split by date"
            )
            findings.append(Finding("order of splits", later, False, message))
        elif gap < embargo_days:
            message = f"{where}: {gap} days apart, at least {embargo_days} are needed; drop the rows between"
            findings.append(Finding("order of splits", later, False, message))
        else:
            findings.append(Finding("order of splits", later, True, f"{where}, {gap} days apart"))
    if len(present) < 2:
        findings.append(Finding("order of splits", "all", None, "there is one split only"))
    return findings
