"""Metrics of a set of forecasts, each beside what no skill would earn.

A record is what `task.evaluate` gives for one completion: label, date, direction, confidence, base_rate_up (share of
UP in training), rewards by name, grounded_claims.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np


def p_up(record: dict) -> float:
    """Stated probability of UP in [0, 1]; 0.5 for an unreadable answer or one without a confidence."""
    if record["direction"] is None or record["confidence"] is None:
        return 0.5
    return record["confidence"] if record["direction"] == "UP" else 1 - record["confidence"]


def date_bootstrap(
    values: Sequence[float], dates: Sequence[str], seed: int, repeats: int = 2000
) -> tuple[float, float] | None:
    """95% percentile interval of the mean of `values`, resampling whole dates: companies of one day move together.

    Cluster bootstrap (Cameron, Gelbach & Miller 2008, section 2): dates are drawn with replacement, all rows of each.
    None for a single date: it says nothing about other days.
    """
    _, day = np.unique(np.asarray(dates), return_inverse=True)
    sums, counts = np.bincount(day, np.asarray(values, dtype=float)), np.bincount(day)
    if len(sums) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(sums), size=(repeats, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def roc_auc(records: Sequence[dict]) -> float | None:
    """Area under the ROC curve of the stated probability of UP; None when only one direction occurred."""
    from sklearn.metrics import roc_auc_score

    labels = [record["label"] == "UP" for record in records]
    return float(roc_auc_score(labels, [p_up(r) for r in records])) if len(set(labels)) == 2 else None


def summarise(records: Sequence[dict], weights: dict[str, float], seed: int) -> dict:
    """All metrics of one model on one set of rows. An unreadable answer counts as wrong, and as p_up = 0.5.

    `majority_accuracy`: always forecasting the direction that was the more frequent in training. `base_rate_up`: share
    of UP in these rows. `brier`: mean squared error of p_up; a constant 0.5 earns 0.25. `reward_mean`: weighted total.
    """
    ups = [r for r in records if r["label"] == "UP"]
    downs = [r for r in records if r["label"] == "DOWN"]
    right = [float(r["direction"] == r["label"]) for r in records]
    majority = "UP" if records[0]["base_rate_up"] >= 0.5 else "DOWN"
    components = {name: statistics.fmean(r["rewards"][name] for r in records) for name in records[0]["rewards"]}
    readable = [r for r in records if r["direction"] is not None]
    return {
        "n": len(records),
        "dates": len({r["date"] for r in records}),
        "accuracy": statistics.fmean(right),
        "accuracy_ci95": date_bootstrap(right, [r["date"] for r in records], seed),
        "up_accuracy": _share(ups, lambda r: r["direction"] == "UP"),
        "down_accuracy": _share(downs, lambda r: r["direction"] == "DOWN"),
        "base_rate_up": len(ups) / len(records),
        "majority_accuracy": _share(records, lambda r: r["label"] == majority),
        "predicted_up_rate": _share(readable, lambda r: r["direction"] == "UP"),
        "roc_auc": roc_auc(records),
        "brier": statistics.fmean((p_up(r) - (r["label"] == "UP")) ** 2 for r in records),
        "parse_rate": len(readable) / len(records),
        "reward_mean": sum(weights[name] * value for name, value in components.items()),
        "reward_components": components,
        "grounded_claims": statistics.fmean(r["grounded_claims"] for r in records),
    }


def _share(records: Sequence[dict], condition) -> float | None:
    return sum(map(condition, records)) / len(records) if records else None
