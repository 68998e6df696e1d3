"""How often a forecaster was right when it was as sure as this: a probability that its earlier days bear out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.metrics import p_up

LEAST = 50  # judged forecasts that two numbers can be fitted to


class Calibration:
    """Platt scaling (Platt 1999): P(UP) = 1 / (1 + exp(-(a + b · logit p))), a and b fitted by logistic regression to
    the forecasts of days before the one asked about, so that no outcome of that day or later enters.

    records: forecasts with date, label, direction and confidence, such as the lines of `predictions.jsonl`. Those
    without a readable direction or a label are left out.
    """

    def __init__(self, records: Sequence[Mapping]):
        judged = [one for one in records if one.get("label") in ("UP", "DOWN") and one.get("direction")]
        judged.sort(key=lambda one: one["date"])
        self._dates = np.array([one["date"] for one in judged], dtype=str)
        self._logits = np.array([_logit(p_up(one)) for one in judged])
        self._up = np.array([one["label"] == "UP" for one in judged])
        self._fitted: dict[int, tuple[float, float] | None] = {}

    def p_up(self, record: Mapping) -> float | None:
        """P(UP) of a forecast; None for an unreadable one, and where fewer than 50 earlier ones are known."""
        if not record["direction"]:
            return None
        fitted = self._fit(int(np.searchsorted(self._dates, record["date"])))
        if fitted is None:
            return None
        intercept, slope = fitted
        return float(1 / (1 + np.exp(-(intercept + slope * _logit(p_up(record))))))

    def _fit(self, count: int) -> tuple[float, float] | None:
        if count not in self._fitted:
            logits, up = self._logits[:count], self._up[:count]
            if count < LEAST or up.all() or not up.any():
                self._fitted[count] = None
            else:
                from sklearn.linear_model import LogisticRegression

                model = LogisticRegression().fit(logits[:, None], up)
                self._fitted[count] = float(model.intercept_[0]), float(model.coef_[0, 0])
        return self._fitted[count]


def _logit(p: float) -> float:
    p = min(max(p, 0.02), 0.98)  # a few answers that agree are no certainty
    return float(np.log(p / (1 - p)))


def read_calibration(path: str, model: str) -> Calibration:
    """The forecasts of `model` in a file that `stonk eval` or `stonk predict` wrote; all, where it holds one model.

    Raises UserError for a file that cannot be read, or that holds several models and this is none of them.
    """
    try:
        lines = [json.loads(line) for line in Path(path).expanduser().read_text().splitlines() if line.strip()]
        records = [{"confidence": None, **line} for line in lines if {"date", "direction"} <= line.keys()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"calibration: {path} cannot be read as JSON lines: {error}") from error
    names = {str(record.get("model", "")) for record in records}
    own = [record for record in records if len(names) == 1 or record.get("model") == model]
    if not own:
        found = ", ".join(sorted(map(str, names))) or "no forecast (date, direction, label)"
        raise UserError(f"calibration: {path} holds no forecast of {model}: it has {found}")
    try:
        return Calibration(own)
    except (ValueError, TypeError) as error:
        raise UserError(f"calibration: {path}: a date is no text or a confidence no number: {error}") from error
