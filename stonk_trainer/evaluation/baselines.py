"""What a forecast must beat: rules without skill, and classical models, fit on the training dates only.

majority      always the direction that was the more frequent in training
prior         the same direction, stating the training share of UP as its probability
persistence   the direction of the last change; its probability is how often that was right in training
logistic      logistic regression on the numbers of `task.feature_table`
lightgbm      gradient-boosted trees on the same numbers
"""

from __future__ import annotations

import numpy as np
import pandas as pd

NAMES = ("majority", "prior", "persistence", "logistic", "lightgbm")


def baseline_records(train: pd.DataFrame, judged: pd.DataFrame, seed: int) -> dict[str, list[dict]]:
    """Forecasts of every baseline for the rows of `judged`, as records of `metrics`, in the order of its rows.

    train, judged: tables of `task.feature_table`. Raises ValueError unless all dates of `train` come first: a baseline
    must not have seen the dates it is judged on.
    """
    if train["date"].max() >= judged["date"].min() and len(judged):
        raise ValueError(f"baselines fit to {train['date'].max()} cannot be judged from {judged['date'].min()}")
    up = (train["label"] == "UP").to_numpy()
    prior = float(up.mean())
    inputs = [name for name in train if name.startswith("x_")]
    return {
        "majority": _records(judged, np.full(len(judged), float(prior >= 0.5)), prior, stated=False),
        "prior": _records(judged, np.full(len(judged), prior), prior),
        "persistence": _records(judged, _persistence(train, judged, up, prior), prior),
        "logistic": _records(judged, _logistic(train[inputs], up, judged[inputs]), prior),
        "lightgbm": _records(judged, _lightgbm(train[inputs], up, judged[inputs], seed), prior),
    }


def _records(judged: pd.DataFrame, p_up: np.ndarray, prior: float, stated: bool = True) -> list[dict]:
    columns = zip(judged["ticker"], judged["date"], judged["label"], judged["next_return"], p_up, strict=True)
    return [
        {
            "ticker": ticker,
            "date": date,
            "label": label,
            "next_return": next_return,
            "direction": "UP" if p >= 0.5 else "DOWN",
            "confidence": float(max(p, 1 - p)) if stated else None,
            "move": None,
            "base_rate_up": prior,
        }
        for ticker, date, label, next_return, p in columns
    ]


def _persistence(train: pd.DataFrame, judged: pd.DataFrame, up: np.ndarray, prior: float) -> np.ndarray:
    """P(UP) after a rise and after a fall: the training share of repeats, never below one half for the repeat.

    Persistence is a fixed rule: where repeats were rarer than reversals it still repeats, and states 50%.
    """
    last = np.sign(train["x_change_1d"].to_numpy())
    repeated = (last > 0) == up
    repeats = max(0.5 + 1e-9, float(repeated[last != 0].mean()))
    now = np.sign(judged["x_change_1d"].to_numpy())
    return np.where(now > 0, repeats, np.where(now < 0, 1 - repeats, prior))


def _logistic(train: pd.DataFrame, up: np.ndarray, judged: pd.DataFrame) -> np.ndarray:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)
    )
    return model.fit(train, up).predict_proba(judged)[:, 1]


def _lightgbm(train: pd.DataFrame, up: np.ndarray, judged: pd.DataFrame, seed: int) -> np.ndarray:
    """Few and small trees with a low learning rate: daily returns are nearly noise, and the defaults overfit it."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(
        n_estimators=200,
        learning_rate=0.02,
        num_leaves=15,
        min_child_samples=max(20, len(train) // 100),
        subsample=0.7,
        subsample_freq=1,
        colsample_bytree=0.7,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,
        verbose=-1,
    )
    return np.asarray(model.fit(train, up).predict_proba(judged))[:, 1]
