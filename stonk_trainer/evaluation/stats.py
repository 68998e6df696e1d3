"""Uncertainty, for every command: one bootstrap, one interval of a share, one way to print them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval; None where there are too few days for one."""

    value: float
    ci95: Interval


def wilson(share: ArrayLike, n: ArrayLike, z: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a share of `n` (of any shape; n need not be whole); NaN where n is 0.

    z: the quantile to use instead of the normal's 1.96.
    """
    from scipy.stats import norm
    from statsmodels.stats.proportion import proportion_confint

    of = np.asarray(n, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = 0.05 if z is None else 2 * norm.sf(z)
        return proportion_confint(np.asarray(share) * of, of, alpha, method="wilson")


def interval_text(ends: Interval, factor: float = 1, digits: int = 1, sign: str = "", missing: str = "-") -> str:
    """`0.512 to 0.547` of an interval times `factor`; `missing` where there is none."""
    if ends is None:
        return missing
    return " to ".join(f"{factor * end:{sign}.{digits}f}" for end in ends)


class DayBootstrap:
    """95% intervals for statistics of rows, by resampling blocks of consecutive days with all rows of each day.

    Circular block bootstrap (Politis & Romano 1992): the days are put on a circle and drawn in blocks of `block` days
    with replacement, so that what the rows of a day, and of days near each other, have in common stays together. Block
    length: the cube root of the number of days, the order that is best for a variance (Lahiri 2003, section 5.2).
    Percentiles are taken a little outside 2.5% and 97.5%, as much wider as Student's t with one degree of freedom per
    block is than the normal (the expanded percentile interval of Hesterberg 2015, section 4.2), because few blocks vary
    less than the population; days of many rows count for more of them (Kish's effective number). All statistics of one
    object share their draws: a difference of two is a paired one.

    dates: ISO days, or other labels that sort in time, one per row. block: its length in days, if not the above.
    overlap: neighbours on one side with which a day shares outcomes (horizons longer than a day); blocks are longer by
    as many. `too_few`: fewer than 5 blocks say nothing, and every interval is None.
    """

    def __init__(self, dates: ArrayLike, seed: int, repeats: int = 2000, block: int | None = None, overlap: int = 0):
        self.days, self._day = np.unique(np.asarray(dates), return_inverse=True)
        count = len(self.days)
        self.block = block or max(1, round(count ** (1 / 3)) + overlap)
        self._overlap = overlap
        self.too_few = count / self.block < 5
        if self.too_few:
            return
        starts = np.random.default_rng(seed).integers(count, size=(repeats, -(-count // self.block)))
        drawn = ((starts[:, :, None] + np.arange(self.block)) % count).reshape(repeats, -1)[:, :count]
        flat = drawn + count * np.arange(repeats)[:, None]
        # how often each resample holds each day
        self.counts_RD = np.bincount(flat.ravel(), minlength=repeats * count).reshape(repeats, count).astype(float)

    def mean(self, values: ArrayLike, of: ArrayLike | None = None) -> Interval:
        """Interval of the mean of `values` (one per row), over the rows where `of` is true (all when None)."""
        means_R, rows_D, _ = self._means(values, of)
        return None if means_R is None else _interval(means_R, self._blocks(rows_D))

    def share(self, hits: ArrayLike, of: ArrayLike | None = None) -> Interval:
        """Interval of the share of rows with a hit; as `mean`, but right near 0 and 1 as well.

        There percentiles of resamples cannot leave the data (30 hits of 30 would give 1 to 1), so where fewer than 10
        independent rows are on the rarer side it is Wilson's score interval with Student's t, for the number of
        independent rows that the bootstrap's variance implies, or of effective days when nothing varied.
        """
        from scipy.stats import t

        shares_R, rows_D, share = self._means(hits, of)
        if shares_R is None:
            return None
        variance = float(np.nanvar(shares_R))
        n = (
            min(rows_D.sum(), share * (1 - share) / variance)
            if variance > 1e-12
            else _effective(rows_D) / (1 + self._overlap)
        )
        if n * min(share, 1 - share) >= 10:
            return _interval(shares_R, self._blocks(rows_D))
        low, high = wilson(share, n, float(t.ppf(0.975, self._blocks(rows_D))))
        return float(low), float(high)

    def estimate(self, values: ArrayLike, share: bool = False) -> Estimate:
        """The mean of `values` with its interval; share: they are hits."""
        return Estimate(
            float(np.mean(np.asarray(values, dtype=float))), self.share(values) if share else self.mean(values)
        )

    def _means(self, values: ArrayLike, of: ArrayLike | None) -> tuple[np.ndarray | None, np.ndarray, float]:
        """(mean of `values` over the rows `of` per resample, such rows per day, the mean itself)."""
        chosen = np.ones(len(self._day)) if of is None else np.asarray(of, dtype=float)
        sums_D, rows_D = self._per_day(np.asarray(values, dtype=float) * chosen), self._per_day(chosen)
        if self.too_few or not rows_D.any():
            return None, rows_D, float("nan")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.counts_RD @ sums_D) / (self.counts_RD @ rows_D), rows_D, sums_D.sum() / rows_D.sum()

    def of_days(self, statistic: Callable[..., np.ndarray], *values: ArrayLike) -> Interval:
        """Interval of a function of means: `statistic` gets the mean of each of `values` (one per row) per resample."""
        if self.too_few:
            return None
        rows_D = self._per_day(np.ones(len(self._day)))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(self.counts_RD @ self._per_day(v)) / (self.counts_RD @ rows_D) for v in values]
            return _interval(statistic(*means), self._blocks(rows_D))

    def roc_auc(self, scores: ArrayLike, labels: ArrayLike) -> Interval:
        """Interval of the area under the ROC curve of `scores` for `labels` (one each per row); ties count half."""
        from scipy.sparse import csr_array

        if self.too_few:
            return None
        _, rank = np.unique(np.asarray(scores, dtype=float), return_inverse=True)
        up = np.asarray(labels, dtype=float)
        shape = len(self.days), int(rank.max()) + 1
        ups_DK, downs_DK = (csr_array((weight, (self._day, rank)), shape=shape) for weight in (up, 1 - up))
        areas = []
        for counts in np.array_split(self.counts_RD, max(1, len(self.counts_RD) * shape[1] // 2_000_000)):
            ups, downs = counts @ ups_DK, counts @ downs_DK
            below = np.cumsum(downs, axis=1) - downs / 2
            with np.errstate(invalid="ignore"):
                areas.append((ups * below).sum(axis=1) / (ups.sum(axis=1) * downs.sum(axis=1)))
        return _interval(np.concatenate(areas), self._blocks(self._per_day(np.ones(len(up)))))

    def _blocks(self, rows_D: np.ndarray) -> float:
        """Independent pieces that the draws are made of: blocks, or fewer where few days hold most of the rows."""
        return max(2.0, min(len(self.days) / self.block, _effective(rows_D)))

    def _per_day(self, values: ArrayLike) -> np.ndarray:
        return np.bincount(self._day, np.asarray(values, dtype=float), minlength=len(self.days))


def _effective(rows_D: np.ndarray) -> float:
    """Kish's effective number of days: as many equally large days would give a mean the same variance."""
    return float(rows_D.sum() ** 2 / (rows_D**2).sum())


def _interval(statistics_R: np.ndarray, blocks: float) -> Interval:
    """The interval of a statistic from its value in each resample; None when too few resamples define it."""
    defined = statistics_R[np.isfinite(statistics_R)]
    if len(defined) < 0.9 * len(statistics_R):
        return None
    tail = 100 * _expanded_tail(round(blocks, 3))
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


@functools.lru_cache
def _expanded_tail(blocks: float) -> float:
    from scipy.stats import norm, t

    return float(norm.cdf(np.sqrt(blocks / (blocks - 1)) * t.ppf(0.025, blocks - 1)))
