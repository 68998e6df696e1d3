import numpy as np
import pandas as pd
import pytest

from stonk_trainer.evaluation.baselines import NAMES, baseline_records


def table(rows, seed, start, signal=0.0, drift=0.0):
    """Rows of one company whose next direction follows `x_change_1d` with strength `signal`; `drift` adds UP."""
    rng = np.random.default_rng(seed)
    change, noise = rng.standard_normal(rows) / 100, rng.standard_normal((rows, 2))
    outcome = signal * change * 100 + rng.standard_normal(rows) + drift
    return pd.DataFrame(
        {
            "ticker": "A",
            "date": pd.bdate_range(start, periods=rows).strftime("%Y-%m-%d"),
            "label": np.where(outcome > 0, "UP", "DOWN"),
            "next_return": outcome / 100,
            "x_change_1d": change,
            "x_noise": noise[:, 0],
            "x_rare": np.where(noise[:, 1] > 1, noise[:, 1], np.nan),
        }
    )


def accuracy(records):
    return np.mean([r["direction"] == r["label"] for r in records])


def test_classical_models_find_a_signal_and_rules_do_not():
    train, test = table(2000, 0, "2000-01-03", signal=-2), table(1000, 1, "2010-01-01", signal=-2)
    found = {name: accuracy(records) for name, records in baseline_records(train, test, seed=0).items()}
    assert list(found) == list(NAMES)
    assert found["logistic"] > 0.8 and found["lightgbm"] > 0.8
    assert found["persistence"] < 0.25 and 0.45 < found["majority"] < 0.55


def test_on_noise_no_baseline_is_better_than_a_coin():
    train, test = table(2000, 2, "2000-01-03"), table(2000, 3, "2010-01-01")
    for records in baseline_records(train, test, seed=0).values():
        assert 0.46 < accuracy(records) < 0.54


def test_majority_and_prior_follow_training_and_not_the_rows_judged():
    train, test = table(1000, 4, "2000-01-03", drift=-0.5), table(300, 5, "2010-01-01", drift=2)
    records = baseline_records(train, test, seed=0)
    up = (train["label"] == "UP").mean()
    assert {r["direction"] for r in records["majority"] + records["prior"]} == {"DOWN"}
    assert {r["confidence"] for r in records["majority"]} == {None}
    assert records["prior"][0]["confidence"] == pytest.approx(1 - up)
    assert records["majority"][0]["base_rate_up"] == pytest.approx(up)


def test_persistence_repeats_the_last_change():
    train, test = table(500, 6, "2000-01-03", signal=2), table(100, 7, "2010-01-01")
    records = baseline_records(train, test, seed=0)["persistence"]
    assert [r["direction"] == "UP" for r in records] == (test["x_change_1d"] > 0).tolist()
    repeats = ((train["x_change_1d"] > 0) == (train["label"] == "UP")).mean()
    assert {round(r["confidence"], 9) for r in records} == {round(repeats, 9)}


def test_what_happened_on_the_days_judged_does_not_change_a_forecast():
    train, test = table(500, 8, "2000-01-03", signal=1), table(100, 9, "2010-01-01", signal=1)
    other = test.assign(label=np.where(test["label"] == "UP", "DOWN", "UP"), next_return=-test["next_return"])
    for name, records in baseline_records(train, test, seed=0).items():
        forecasts = [(r["direction"], r["confidence"]) for r in records]
        assert forecasts == [(r["direction"], r["confidence"]) for r in baseline_records(train, other, seed=0)[name]]


def test_a_baseline_that_has_seen_the_days_is_refused():
    train = table(500, 10, "2000-01-03")
    with pytest.raises(ValueError, match="cannot be judged"):
        baseline_records(train, train.tail(100), seed=0)
