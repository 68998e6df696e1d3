"""How often a forecaster was right when it was as sure as this: a probability fitted to its earlier forecasts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.metrics import p_up
from stonk_trainer.files import read_jsonl

MIN_FORECASTS = 50  # judged ones that two numbers can be fitted to


class Calibration:
    """Platt scaling (Platt 1999): P(UP) = 1 / (1 + exp(-(a + b · logit p))), with a and b from a logistic regression on
    the forecasts of days before the one to forecast, so that no outcome of that day or later enters.

    records: forecasts with date, label, direction and confidence, such as the lines of `predictions.jsonl`. Those
    without a readable direction or a label are skipped.
    """

    def __init__(self, records: Sequence[Mapping]):
        judged = [one for one in records if one.get("label") in ("UP", "DOWN") and one.get("direction")]
        judged.sort(key=lambda one: one["date"])
        self._dates = np.array([one["date"] for one in judged], dtype=str)
        self._logits = np.array([_logit(p_up(one)) for one in judged])
        self._up = np.array([one["label"] == "UP" for one in judged])
        self._fit = functools.cache(self._fit_to)

    def p_up(self, record: Mapping) -> float | None:
        """P(UP) of a forecast; None for an unreadable one, and where fewer than 50 earlier ones are known."""
        fitted = self._fit(int(np.searchsorted(self._dates, record["date"]))) if record["direction"] else None
        if fitted is None:
            return None
        intercept, slope = fitted
        return float(1 / (1 + np.exp(-(intercept + slope * _logit(p_up(record))))))

    def _fit_to(self, count: int) -> tuple[float, float] | None:
        """(a, b) for the first `count` forecasts."""
        logits, up = self._logits[:count], self._up[:count]
        if count < MIN_FORECASTS or up.all() or not up.any():
            return None
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression().fit(logits[:, None], up)
        return float(model.intercept_[0]), float(model.coef_[0, 0])


def _logit(p: float) -> float:
    p = min(max(p, 0.02), 0.98)  # a few answers that agree are no certainty
    return float(np.log(p / (1 - p)))


def read_calibration(path: str, model: str) -> Calibration:
    """The forecasts of `model` in a file that `stonk eval` or `stonk predict` wrote; all, where it holds one model.

    Raises UserError for a file that cannot be read, or that has forecasts of several other models.
    """
    lines = [{"confidence": None, "model": "", **line} for _, line in read_jsonl(path)]
    records = [line for line in lines if {"date", "direction"} <= line.keys()]
    names = {str(record["model"]) for record in records}
    own = [record for record in records if len(names) == 1 or record["model"] == model]
    if not own:
        found = ", ".join(sorted(names)) or "no forecast (date, direction, label)"
        raise UserError(f"calibration: {path} has no forecast of {model}: it has {found}")
    try:
        return Calibration(own)
    except (ValueError, TypeError) as error:
        raise UserError(f"calibration: {path}: a date is not text or a confidence is not a number: {error}") from error
