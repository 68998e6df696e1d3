import numpy as np
import pytest

from stonk_trainer.evaluation.metrics import date_bootstrap, p_up, roc_auc, summarise

WEIGHTS = {"accuracy": 0.6, "coherence": 0.4}


def record(
    label, direction, confidence=None, date="2020-01-02", accuracy=0.0, coherence=0.0, base_rate_up=0.55, claims=0
):
    return {
        "label": label,
        "direction": direction,
        "confidence": confidence,
        "date": date,
        "base_rate_up": base_rate_up,
        "rewards": {"accuracy": accuracy, "coherence": coherence},
        "grounded_claims": claims,
    }


# p_up of these: 0.8, 0.4, 0.5 (no confidence), 0.5 (unreadable), 0.7, 0.1
RECORDS = [
    record("UP", "UP", 0.8, "2020-01-02", accuracy=1.0, coherence=1.0, claims=3),
    record("UP", "DOWN", 0.6, "2020-01-02", coherence=0.5, claims=1),
    record("UP", "UP", None, "2020-01-03", accuracy=1.0),
    record("UP", None, None, "2020-01-03"),
    record("DOWN", "UP", 0.7, "2020-01-03", coherence=0.5),
    record("DOWN", "DOWN", 0.9, "2020-01-06", accuracy=1.0, coherence=1.0, claims=2),
]


def test_the_stated_probability_of_up():
    assert [p_up(r) for r in RECORDS] == pytest.approx([0.8, 0.4, 0.5, 0.5, 0.7, 0.1])


def test_a_summary_of_hand_computed_records():
    summary = summarise(RECORDS, WEIGHTS, seed=0)
    expected = {
        "n": 6,
        "dates": 3,
        "accuracy": 3 / 6,
        "up_accuracy": 2 / 4,
        "down_accuracy": 1 / 2,
        "base_rate_up": 4 / 6,
        "majority_accuracy": 4 / 6,
        "predicted_up_rate": 3 / 5,
        # pairs of an UP row and a DOWN row, ties count half: of 0.8, 0.4, 0.5, 0.5 above 0.7: 1; above 0.1: 4
        "roc_auc": 5 / 8,
        "brier": (0.2**2 + 0.6**2 + 0.5**2 + 0.5**2 + 0.7**2 + 0.1**2) / 6,
        "parse_rate": 5 / 6,
        "reward_mean": 0.6 * 0.5 + 0.4 * 0.5,
        "reward_components": {"accuracy": 0.5, "coherence": 0.5},
        "grounded_claims": 1.0,
    }
    low, high = summary.pop("accuracy_ci95")
    assert 0 <= low < 0.5 < high <= 1
    assert summary == {key: pytest.approx(value) for key, value in expected.items()}


def test_the_majority_is_the_one_of_training():
    down = [{**r, "base_rate_up": 0.45} for r in RECORDS]
    assert summarise(down, WEIGHTS, 0)["majority_accuracy"] == pytest.approx(2 / 6)


def test_what_has_no_denominator_is_none():
    only_up = summarise([record("UP", None), record("UP", "UP", 0.6, accuracy=1.0)], WEIGHTS, 0)
    assert (only_up["down_accuracy"], only_up["roc_auc"]) == (None, None)
    unreadable = summarise([record("UP", None), record("DOWN", None)], WEIGHTS, 0)
    assert (unreadable["predicted_up_rate"], unreadable["parse_rate"], unreadable["accuracy"]) == (None, 0, 0)
    assert unreadable["brier"] == 0.25


def test_auc_is_1_for_a_perfect_order_and_0_for_the_reverse():
    perfect = [
        record("UP", "UP", 0.9),
        record("UP", "UP", 0.6),
        record("DOWN", "UP", 0.55),
        record("DOWN", "DOWN", 0.8),
    ]
    assert roc_auc(perfect) == 1
    swap = {"UP": "DOWN", "DOWN": "UP"}
    assert roc_auc([{**r, "label": swap[r["label"]]} for r in perfect]) == 0


def correlated_days(rng, days=60, companies=10):
    """Hits (0 or 1) with mean 0.5, whose chance is shared by all companies of a day."""
    chance = np.repeat(rng.beta(2, 2, size=days), companies)
    return (rng.random(days * companies) < chance).astype(float), np.repeat(np.arange(days).astype(str), companies)


def test_the_interval_covers_the_truth_when_companies_of_a_day_move_together():
    rng = np.random.default_rng(0)
    covered, naive, repeats = 0, 0, 200
    for _ in range(repeats):
        hits, dates = correlated_days(rng)
        low, high = date_bootstrap(hits, dates, seed=int(rng.integers(2**31)), repeats=400)
        covered += low <= 0.5 <= high
        low, high = date_bootstrap(hits, np.arange(len(hits)).astype(str), seed=0, repeats=400)
        naive += low <= 0.5 <= high
    assert covered / repeats >= 0.88
    assert naive / repeats < 0.85  # what ignoring the days would give: the simulation is one that needs them


def test_the_interval_depends_on_the_seed_only_and_not_on_the_order():
    hits, dates = correlated_days(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(hits))
    first = date_bootstrap(hits, dates, seed=5)
    assert first == date_bootstrap(list(hits), list(dates), seed=5)
    assert first == pytest.approx(date_bootstrap(hits[order], dates[order], seed=5))
    assert first != date_bootstrap(hits, dates, seed=6)


def test_days_with_more_rows_weigh_more():
    hits, dates = [1.0] * 90 + [0.0] * 10, ["a"] * 90 + [f"b{i}" for i in range(10)]
    low, high = date_bootstrap(hits, dates, seed=0)
    assert low == 0 and high > 0.9  # the one large day is drawn, or it is not
