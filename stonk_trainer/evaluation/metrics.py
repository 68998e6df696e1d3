"""Metrics of a set of forecasts, each with an interval that allows for companies of one day moving together.

A record is one completion as `Task.evaluate` returns it, or a baseline's forecast of one row: label, date, direction,
confidence, base_rate_up (share of UP in training), and for completions rewards by name, grounded (share of the lines of
evidence) and evidence.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stonk_trainer.evaluation.stats import DayBootstrap

BINS = 10  # equal-width bins of the stated probability, for calibration


def p_up(record: Mapping) -> float:
    """Stated probability of UP in [0, 1]; 0.5 for an unreadable answer or one without a confidence."""
    if record["direction"] is None or record["confidence"] is None:
        return 0.5
    return record["confidence"] if record["direction"] == "UP" else 1 - record["confidence"]


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
    forecast_up = np.array([r["direction"] == "UP" for r in records])
    readable = np.array([r["direction"] is not None for r in records])
    right = np.array([r["direction"] == r["label"] for r in records], dtype=float)
    stated = np.array([p_up(r) for r in records])
    majority_up = records[0]["base_rate_up"] >= 0.5
    calibration = calibration_curve(stated, up, bootstrap)

    def mean(name: str, values: np.ndarray, of: np.ndarray | None = None, is_share: bool = False) -> dict:
        """The mean of `values` over the rows `of`, and its interval."""
        interval = bootstrap.share if is_share else bootstrap.mean
        return {name: _mean(values if of is None else values[of]), f"{name}_ci95": interval(values, of=of)}

    summary = {
        "n": len(records),
        "dates": len(bootstrap.days),
        **mean("accuracy", right, is_share=True),
        **mean("up_accuracy", right, of=up, is_share=True),
        **mean("down_accuracy", right, of=~up, is_share=True),
        "base_rate_up": float(up.mean()),
        "majority_accuracy": float((up == majority_up).mean()),
        "predicted_up_rate": _mean(forecast_up[readable]),
        **mean("up_rate_gap", np.where(readable, forecast_up.astype(float) - up, 0.0), of=readable),
        "roc_auc": roc_auc(stated, up),
        "roc_auc_ci95": bootstrap.roc_auc(stated, up),
        **mean("brier", (stated - up) ** 2),
        "ece": sum(bin_["n"] * abs(bin_["p_up"] - bin_["up"]) for bin_ in calibration) / len(records),
        "parse_rate": float(readable.mean()),
    }
    if records[0].get("rewards"):
        summary |= _rewards(records, weights, bootstrap)
    if "grounded" in records[0]:
        summary |= mean("grounded", np.array([r["grounded"] for r in records], dtype=float))
        summary["evidence_lines"] = statistics.fmean(len(r["evidence"]) for r in records)
        summary["invented_numbers"] = statistics.fmean(len(r["invented"]) for r in records)
    summary["calibration"] = calibration
    summary["roc"] = roc_curve(stated, up)
    summary["market_adaptation"] = market_adaptation(records)
    return summary


def difference(of: Sequence[Mapping], against: Sequence[Mapping], bootstrap: DayBootstrap) -> dict:
    """Paired differences, `of` minus `against`, of two forecasters on the same rows in the same order.

    Of accuracy (positive: `of` is right more often), of the Brier score (negative: `of` states better probabilities),
    and where both have them of each reward and of the share of grounded evidence. Raises ValueError when the rows
    differ.
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
        result |= answer_difference(of, against, bootstrap)
    if "grounded" in of[0] and "grounded" in against[0]:
        result["grounded"] = paired(lambda r: r["grounded"])
    return result


def summarise_answers(records: Sequence[Mapping], weights: Mapping[str, float], bootstrap: DayBootstrap) -> dict:
    """Mean rewards of answers that are not forecasts. bootstrap: over rows."""
    return {"n": len(records), **_rewards(records, weights, bootstrap)}


def answer_difference(of: Sequence[Mapping], against: Sequence[Mapping], bootstrap: DayBootstrap) -> dict:
    """Paired differences of each reward, `of` minus `against`, on the same rows in the same order."""
    found = {}
    for name in of[0]["rewards"]:
        differences = _of_reward(of, name) - _of_reward(against, name)
        found[f"reward: {name}"] = {"difference": float(differences.mean()), "ci95": bootstrap.mean(differences)}
    return found


def _rewards(records: Sequence[Mapping], weights: Mapping[str, float], bootstrap: DayBootstrap) -> dict:
    columns = {name: _of_reward(records, name) for name in records[0]["rewards"]}
    total = sum(weights[name] * values for name, values in columns.items())
    return {
        "reward_mean": float(np.mean(total)),
        "reward_mean_ci95": bootstrap.mean(total),
        "reward_components": {name: float(values.mean()) for name, values in columns.items()},
        "reward_components_ci95": {name: bootstrap.mean(values) for name, values in columns.items()},
    }


def _of_reward(records: Sequence[Mapping], name: str) -> np.ndarray:
    """One reward of each record; 0 where it is None."""
    return np.array([record["rewards"][name] or 0.0 for record in records])


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
