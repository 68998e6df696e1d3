"""Metrics of a set of forecasts, each with an interval that respects that companies of one day move together.

A record is what `task.evaluate` gives for one completion, or a baseline for one row: label, date, direction,
confidence, base_rate_up (share of UP in training), and for completions rewards by name, grounded (share of the lines of
evidence) and evidence.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float] | None

BINS = 10  # equal-width bins of the stated probability, for calibration


def p_up(record: Mapping) -> float:
    """Stated probability of UP in [0, 1]; 0.5 for an unreadable answer or one without a confidence."""
    if record["direction"] is None or record["confidence"] is None:
        return 0.5
    return record["confidence"] if record["direction"] == "UP" else 1 - record["confidence"]


# ---------------------------------------------------------------------------------------------------- intervals


class DayBootstrap:
    """95% intervals for statistics of rows, by resampling blocks of consecutive days with all rows of each day.

    Circular block bootstrap (Politis & Romano 1992): the days are put on a circle and drawn in blocks of `block` days
    with replacement, so that what the rows of a day, and of days near each other, have in common stays together. Block
    length: the cube root of the number of days, the order that is best for a variance (Lahiri 2003, section 5.2).
    Percentiles are taken a little outside 2.5% and 97.5%, as much wider as Student's t with one degree of freedom per
    block is than the normal (the expanded percentile interval of Hesterberg 2015, section 4.2), because few blocks vary
    less than the population; days of many rows count for more of them (Kish's effective number). All statistics of one
    object share their draws: a difference of two is a paired one.

    dates: ISO days, one per row. Fewer than 5 blocks say nothing: every interval is None then.
    """

    def __init__(self, dates: Sequence[str], seed: int, repeats: int = 2000, block: int | None = None):
        self.days, self._day = np.unique(np.asarray(dates), return_inverse=True)
        count = len(self.days)
        self._block = block or max(1, round(count ** (1 / 3)))
        self._too_few = count / self._block < 5
        if self._too_few:
            return
        starts = np.random.default_rng(seed).integers(count, size=(repeats, -(-count // self._block)))
        drawn = ((starts[:, :, None] + np.arange(self._block)) % count).reshape(repeats, -1)[:, :count]
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
        n = min(rows_D.sum(), share * (1 - share) / variance) if variance > 1e-12 else _effective(rows_D)
        if n * min(share, 1 - share) >= 10:
            return _interval(shares_R, self._blocks(rows_D))
        z = float(t.ppf(0.975, self._blocks(rows_D)))
        centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)
        low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
        return max(0.0, float(low)), min(1.0, float(high))

    def _means(self, values: ArrayLike, of: ArrayLike | None) -> tuple[np.ndarray | None, np.ndarray, float]:
        """(mean of `values` over the rows `of` per resample, such rows per day, the mean itself)."""
        chosen = np.ones(len(self._day)) if of is None else np.asarray(of, dtype=float)
        sums_D, rows_D = self._per_day(np.asarray(values, dtype=float) * chosen), self._per_day(chosen)
        if self._too_few or not rows_D.any():
            return None, rows_D, float("nan")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.counts_RD @ sums_D) / (self.counts_RD @ rows_D), rows_D, sums_D.sum() / rows_D.sum()

    def of_days(self, statistic: Callable[..., np.ndarray], *values: ArrayLike) -> Interval:
        """Interval of a function of means: `statistic` gets the mean of each of `values` (one per row) per resample."""
        if self._too_few:
            return None
        rows_D = self._per_day(np.ones(len(self._day)))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(self.counts_RD @ self._per_day(v)) / (self.counts_RD @ rows_D) for v in values]
            return _interval(statistic(*means), self._blocks(rows_D))

    def roc_auc(self, scores: ArrayLike, labels: ArrayLike) -> Interval:
        """Interval of the area under the ROC curve of `scores` for `labels` (one each per row); ties count half."""
        from scipy.sparse import csr_array

        if self._too_few:
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
        return max(2.0, min(len(self.days) / self._block, _effective(rows_D)))

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


# ---------------------------------------------------------------------------------------------------- summaries


def summarise(records: Sequence[Mapping], weights: Mapping[str, float], bootstrap: DayBootstrap) -> dict:
    """All metrics of one forecaster on one set of rows. An unreadable answer counts as wrong, and as p_up = 0.5.

    `base_rate_up`: share of UP in these rows. `majority_accuracy`: always forecasting the direction that was the more
    frequent in training. `up_rate_gap`: forecasts of UP among the readable, minus the share of UP in the same rows; 0
    when the forecaster has adapted to the market. `brier`: mean squared error of p_up; a constant 0.5 earns 0.25.
    `ece`: expected calibration error over 10 equal-width bins of p_up (Naeini et al. 2015). `reward_mean`: weighted
    total. `grounded`: share of an answer's lines of evidence that the row bears out, 0 without any, averaged. The keys
    of rewards and evidence are there only when the records have them. Intervals end in `_ci95`.
    """
    up = np.array([r["label"] == "UP" for r in records])
    said_up = np.array([r["direction"] == "UP" for r in records])
    readable = np.array([r["direction"] is not None for r in records])
    right = np.array([r["direction"] == r["label"] for r in records], dtype=float)
    stated = np.array([p_up(r) for r in records])
    majority_up = records[0]["base_rate_up"] >= 0.5
    gap, squared = np.where(readable, said_up.astype(float) - up, 0.0), (stated - up) ** 2
    calibration = calibration_curve(stated, up, bootstrap)
    summary = {
        "n": len(records),
        "dates": len(bootstrap.days),
        "accuracy": float(right.mean()),
        "accuracy_ci95": bootstrap.share(right),
        "up_accuracy": _mean(right[up]),
        "up_accuracy_ci95": bootstrap.share(right, of=up),
        "down_accuracy": _mean(right[~up]),
        "down_accuracy_ci95": bootstrap.share(right, of=~up),
        "base_rate_up": float(up.mean()),
        "majority_accuracy": float((up == majority_up).mean()),
        "predicted_up_rate": _mean(said_up[readable]),
        "up_rate_gap": _mean(gap[readable]),
        "up_rate_gap_ci95": bootstrap.mean(gap, of=readable),
        "roc_auc": roc_auc(stated, up),
        "roc_auc_ci95": bootstrap.roc_auc(stated, up),
        "brier": float(squared.mean()),
        "brier_ci95": bootstrap.mean(squared),
        "ece": sum(bin_["n"] * abs(bin_["p_up"] - bin_["up"]) for bin_ in calibration) / len(records),
        "parse_rate": float(readable.mean()),
    }
    if records[0].get("rewards"):
        components = {name: statistics.fmean(r["rewards"][name] for r in records) for name in records[0]["rewards"]}
        summary["reward_mean"] = sum(weights[name] * value for name, value in components.items())
        summary["reward_components"] = components
        summary["grounded"] = statistics.fmean(r["grounded"] for r in records)
        summary["grounded_ci95"] = bootstrap.mean([r["grounded"] for r in records])
        summary["evidence_lines"] = statistics.fmean(len(r["evidence"]) for r in records)
        summary["invented_numbers"] = statistics.fmean(len(r["invented"]) for r in records)
    summary["calibration"] = calibration
    summary["roc"] = roc_curve(stated, up)
    summary["market_adaptation"] = market_adaptation(records)
    return summary


def difference(of: Sequence[Mapping], against: Sequence[Mapping], bootstrap: DayBootstrap) -> dict:
    """Paired differences, `of` minus `against`, of two forecasters on the same rows in the same order.

    Accuracy (positive: `of` is right more often), Brier score (negative: `of` states better probabilities), and where
    both have them each reward and the share of grounded evidence. Raises ValueError when the rows differ.
    """
    if [(r["ticker"], r["date"]) for r in of] != [(r["ticker"], r["date"]) for r in against]:
        raise ValueError("a paired difference needs the same rows in the same order")

    def paired(value: Callable[[Mapping], float]) -> dict:
        differences = np.array([value(a) - value(b) for a, b in zip(of, against, strict=True)], dtype=float)
        return {"difference": float(differences.mean()), "ci95": bootstrap.mean(differences)}

    result = {
        "accuracy": paired(lambda r: float(r["direction"] == r["label"])),
        "brier": paired(lambda r: (p_up(r) - (r["label"] == "UP")) ** 2),
    }
    if of[0].get("rewards") and against[0].get("rewards"):
        for name in of[0]["rewards"]:
            result[f"reward: {name}"] = paired(functools.partial(_reward, name=name))
        result["grounded"] = paired(lambda r: r["grounded"])
    return result


def _reward(record: Mapping, name: str) -> float:
    return record["rewards"][name]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


# ---------------------------------------------------------------------------------------------------- curves


def roc_auc(stated: np.ndarray, up: np.ndarray) -> float | None:
    """Area under the ROC curve of the stated probability of UP; None when only one direction occurred."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(up, stated)) if 0 < up.sum() < len(up) else None


def roc_curve(stated: np.ndarray, up: np.ndarray, points: int = 200) -> dict[str, list[float]] | None:
    """The ROC curve in at most `points` points, false and true positive rates rising from 0 to 1; None as above."""
    from sklearn.metrics import roc_curve as curve

    if not 0 < up.sum() < len(up):
        return None
    false_positive, true_positive, _ = curve(up, stated)
    kept = np.unique(np.linspace(0, len(false_positive) - 1, points).round().astype(int))
    return {
        "false_positive_rate": false_positive[kept].round(5).tolist(),
        "true_positive_rate": true_positive[kept].round(5).tolist(),
    }


def calibration_curve(stated: np.ndarray, up: np.ndarray, bootstrap: DayBootstrap) -> list[dict]:
    """Per filled bin of p_up: its mean, the share of UP with its interval, and the number of rows."""
    which = np.minimum((stated * BINS).astype(int), BINS - 1)
    return [
        {
            "p_up": float(stated[inside].mean()),
            "up": float(up[inside].mean()),
            "n": int(inside.sum()),
            "ci95": bootstrap.share(up, of=inside),
        }
        for inside in (which == bin_ for bin_ in np.unique(which))
    ]


def market_adaptation(records: Sequence[Mapping]) -> list[dict]:
    """Share of UP by calendar quarter: among the readable forecasts, and in the market on the same rows."""
    quarters: dict[str, list[Mapping]] = {}
    for record in records:
        year, month = record["date"][:4], int(record["date"][5:7])
        quarters.setdefault(f"{year}Q{(month + 2) // 3}", []).append(record)
    shares = []
    for period, rows in sorted(quarters.items()):
        readable = [r for r in rows if r["direction"] is not None]
        shares.append(
            {
                "period": period,
                "n": len(rows),
                "predicted_up_rate": statistics.fmean(r["direction"] == "UP" for r in readable) if readable else None,
                "actual_up_rate": statistics.fmean(r["label"] == "UP" for r in rows),
            }
        )
    return shares
