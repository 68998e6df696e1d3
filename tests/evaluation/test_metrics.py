import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from stonk_trainer.evaluation import metrics
from stonk_trainer.evaluation.metrics import difference, p_up
from stonk_trainer.evaluation.stats import DayBootstrap

WEIGHTS = {"accuracy": 0.6, "coherence": 0.4}


def record(
    label, direction, confidence=None, date="2020-01-02", accuracy=0.0, coherence=0.0, base_rate_up=0.55, grounded=0.0
):
    return {
        "ticker": "A",
        "label": label,
        "direction": direction,
        "confidence": confidence,
        "date": date,
        "base_rate_up": base_rate_up,
        "rewards": {"accuracy": accuracy, "coherence": coherence},
        "grounded": grounded,
        "evidence": [{}, {}],
        "invented": ["8%"],
    }


# p_up of these: 0.8, 0.4, 0.5 (no confidence), 0.5 (unreadable), 0.7, 0.1
RECORDS = [
    record("UP", "UP", 0.8, "2020-01-02", accuracy=1.0, coherence=1.0, grounded=1.0),
    record("UP", "DOWN", 0.6, "2020-01-02", coherence=0.5, grounded=0.5),
    record("UP", "UP", None, "2020-01-03", accuracy=1.0),
    record("UP", None, None, "2020-01-03"),
    record("DOWN", "UP", 0.7, "2020-01-03", coherence=0.5),
    record("DOWN", "DOWN", 0.9, "2020-01-06", accuracy=1.0, coherence=1.0, grounded=0.75),
]


def summarise(records):
    return metrics.summarise(records, WEIGHTS, DayBootstrap([r["date"] for r in records], seed=0))


def spread_over_days(records):
    return [{**r, "date": f"2020-01-{day:02d}"} for day, r in enumerate(records, start=1)]


def test_the_stated_probability_of_up():
    assert [p_up(r) for r in RECORDS] == pytest.approx([0.8, 0.4, 0.5, 0.5, 0.7, 0.1])


def test_a_summary_of_hand_computed_records():
    summary = summarise(RECORDS)
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
        "grounded": (1 + 0.5 + 0.75) / 6,
        "evidence_lines": 2,
        "invented_numbers": 1,
        "up_rate_gap": 3 / 5 - 3 / 5,
        # bins of p_up: 0.1 (DOWN), 0.4 (UP), 0.5 (UP, UP), 0.7 (DOWN), 0.8 (UP)
        "ece": (0.1 + 0.6 + 2 * 0.5 + 0.7 + 0.2) / 6,
    }
    assert {key: summary[key] for key in expected} == {key: pytest.approx(value) for key, value in expected.items()}
    assert [(b["p_up"], b["up"], b["n"]) for b in summary["calibration"]] == [
        (pytest.approx(p), up, n) for p, up, n in [(0.1, 0, 1), (0.4, 1, 1), (0.5, 1, 2), (0.7, 0, 1), (0.8, 1, 1)]
    ]
    assert summary["market_adaptation"] == [
        {"period": "2020Q1", "n": 6, "predicted_up_rate": 3 / 5, "actual_up_rate": 4 / 6}
    ]
    assert summary["roc"]["false_positive_rate"][0] == 0 and summary["roc"]["true_positive_rate"][-1] == 1


def test_few_days_give_no_interval():
    summary = summarise(RECORDS)
    assert set(summary.pop("reward_components_ci95").values()) == {None}
    assert [key for key, value in summary.items() if key.endswith("_ci95") and value is not None] == []


def test_a_forecaster_without_rewards_has_no_reward_keys():
    bare = summarise([{k: v for k, v in r.items() if k not in ("rewards", "grounded")} for r in RECORDS])
    assert not {"reward_mean", "reward_components", "grounded"} & set(bare)
    assert bare["accuracy"] == 0.5


def test_the_majority_is_the_one_of_training():
    down = [{**r, "base_rate_up": 0.45} for r in RECORDS]
    assert summarise(down)["majority_accuracy"] == pytest.approx(2 / 6)


def test_what_has_no_denominator_is_none():
    only_up = summarise([record("UP", None), record("UP", "UP", 0.6, accuracy=1.0)])
    assert (only_up["down_accuracy"], only_up["roc_auc"]) == (None, None)
    unreadable = summarise([record("UP", None), record("DOWN", None)])
    assert (unreadable["predicted_up_rate"], unreadable["parse_rate"], unreadable["accuracy"]) == (None, 0, 0)
    assert unreadable["brier"] == 0.25


def test_auc_is_1_for_a_perfect_order_and_0_for_the_reverse():
    perfect = [
        record("UP", "UP", 0.9),
        record("UP", "UP", 0.6),
        record("DOWN", "UP", 0.55),
        record("DOWN", "DOWN", 0.8),
    ]
    assert summarise(perfect)["roc_auc"] == 1
    swap = {"UP": "DOWN", "DOWN": "UP"}
    assert summarise([{**r, "label": swap[r["label"]]} for r in perfect])["roc_auc"] == 0


def test_quarters_are_those_of_the_calendar():
    records = [record("UP", "UP", date=date) for date in ("2019-12-31", "2020-01-02", "2020-03-31", "2020-04-01")]
    quarters = summarise(records)["market_adaptation"]
    assert [(q["period"], q["n"]) for q in quarters] == [("2019Q4", 1), ("2020Q1", 2), ("2020Q2", 1)]


# ---------------------------------------------------------------------------------------------------- differences


def test_a_difference_is_paired_row_by_row():
    labels = ["UP", "DOWN"] * 20
    good = spread_over_days([record(label, label, 0.8, accuracy=1.0) for label in labels[:28]])
    poor = [{**r, "direction": "UP", "rewards": {"accuracy": 0.0, "coherence": 0.5}} for r in good]
    result = difference(good, poor, DayBootstrap([r["date"] for r in good], seed=0))
    assert result["accuracy"]["difference"] == 0.5
    low, high = result["accuracy"]["ci95"]
    assert 0.2 < low < 0.5 < high < 0.8
    assert result["brier"]["difference"] == pytest.approx((0.2**2 - 0.8**2) / 2)
    assert result["reward: coherence"] == {"difference": -0.5, "ci95": (-0.5, -0.5)}


def test_a_difference_of_two_that_err_together_is_surer_than_each_of_them():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(300) < 0.5, "UP", "DOWN")
    dates = [f"{2000 + i}" for i in range(300)]
    first = [record(label, rng.choice(["UP", "DOWN"]), 0.6, date) for label, date in zip(labels, dates, strict=True)]
    second = [{**r, "direction": r["label"]} if i % 30 == 0 else r for i, r in enumerate(first)]
    bootstrap = DayBootstrap(dates, seed=0)
    low, high = difference(second, first, bootstrap)["accuracy"]["ci95"]
    alone = bootstrap.share([r["direction"] == r["label"] for r in first])
    assert (high - low) < (alone[1] - alone[0]) / 2


def test_forecasts_of_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="same rows"):
        difference(RECORDS, RECORDS[::-1], DayBootstrap([r["date"] for r in RECORDS], seed=0))


# ---------------------------------------------------------------------------------------------------- intervals


def correlated_days(rng, days, companies, shared, persistent=0.0):
    """Hits (0 or 1) that are right with probability 0.52; `shared`: how far the companies of a day go together."""
    common, past = np.empty(days), rng.standard_normal()
    for day in range(days):
        past = persistent * past + np.sqrt(1 - persistent**2) * rng.standard_normal()
        common[day] = past
    own = rng.standard_normal((days, companies))
    hits = np.sqrt(shared) * common[:, None] + np.sqrt(1 - shared) * own < norm.ppf(0.52)
    return hits.ravel().astype(float), np.repeat([f"{day:04d}" for day in range(days)], companies)


@pytest.mark.slow
@pytest.mark.parametrize(
    "days, companies, shared, persistent", [(60, 10, 0.3, 0.0), (250, 10, 0.3, 0.0), (250, 5, 0.5, 0.2)]
)
def test_the_interval_covers_the_truth_19_times_in_20_when_companies_move_together(days, companies, shared, persistent):
    rng = np.random.default_rng(0)
    covered, naive, repeats = 0, 0, 500
    for seed in range(repeats):
        hits, dates = correlated_days(rng, days, companies, shared, persistent)
        low, high = DayBootstrap(dates, seed, repeats=500).share(hits)
        covered += low <= 0.52 <= high
        naive += abs(hits.mean() - 0.52) <= 1.96 * hits.std() / np.sqrt(len(hits))
    assert 0.93 <= covered / repeats <= 0.97
    assert naive / repeats < 0.9  # what ignoring the days would give: the simulation is one that needs them


@pytest.mark.slow
def test_the_interval_of_a_difference_of_two_forecasters_covers_zero_19_times_in_20():
    rng = np.random.default_rng(1)
    covered, repeats = 0, 500
    for seed in range(repeats):
        (first, dates), (second, _) = (correlated_days(rng, 120, 5, 0.4) for _ in range(2))
        low, high = DayBootstrap(dates, seed, repeats=500).mean(first - second)
        covered += low <= 0 <= high
    assert 0.93 <= covered / repeats <= 0.97


def test_the_interval_of_the_area_under_the_curve_holds_its_value_and_narrows_with_more_days():
    rng = np.random.default_rng(2)
    widths = []
    for days in (50, 400):
        up = rng.random(days * 4) < 0.5
        scores = np.round(up * 0.5 + rng.standard_normal(len(up)), 1)  # rounded: ties
        bootstrap = DayBootstrap(np.repeat(np.arange(days).astype(str), 4), seed=0)
        low, high = bootstrap.roc_auc(scores, up)
        assert low < metrics.roc_auc(scores, up) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_every_resample_of_the_area_under_the_curve_is_that_of_its_rows():
    rng = np.random.default_rng(3)
    days = np.repeat([f"{i:02d}" for i in range(20)], 3)
    up, scores = rng.random(60) < 0.5, rng.integers(0, 5, size=60)
    bootstrap = DayBootstrap(days, seed=0, repeats=1)
    rows = np.repeat(np.arange(60), bootstrap.counts_RD[0].astype(int)[np.repeat(np.arange(20), 3)])
    low, high = bootstrap.roc_auc(scores, up)
    assert low == high == pytest.approx(roc_auc_score(up[rows], scores[rows]))


def test_the_interval_depends_on_the_seed_only_and_not_on_the_order():
    hits, dates = correlated_days(np.random.default_rng(1), 60, 10, 0.3)
    order = np.random.default_rng(2).permutation(len(hits))
    first = DayBootstrap(dates, seed=5).mean(hits)
    assert first == DayBootstrap(list(dates), seed=5).mean(list(hits))
    assert first == pytest.approx(DayBootstrap(dates[order], seed=5).mean(hits[order]))
    assert first != DayBootstrap(dates, seed=6).mean(hits)


def test_days_with_more_rows_weigh_more():
    values, dates = [2.0] * 90 + [0.0] * 10, ["a"] * 90 + [f"b{i}" for i in range(10)]
    low, high = DayBootstrap(dates, seed=0, block=1).mean(values)
    assert low == 0 and high > 1.8  # the one large day is drawn, or it is not


def test_a_share_that_never_failed_has_an_interval_too():
    dates = [f"{i:02d}" for i in range(30)]
    low, high = DayBootstrap(dates, seed=0).share([True] * 30)
    assert 0.8 < low < 0.95 and high == 1


@pytest.mark.parametrize("days, companies, right", [(20, 1, 0.9), (40, 1, 0.97), (60, 5, 0.9)])
def test_the_interval_of_a_share_near_one_covers_it(days, companies, right):
    rng, covered, dates = np.random.default_rng(4), 0, np.repeat([f"{day:03d}" for day in range(days)], companies)
    for seed in range(300):
        low, high = DayBootstrap(dates, seed, repeats=300).share(rng.random(len(dates)) < right)
        covered += low <= right <= high
    assert covered / 300 >= 0.93


def test_neighbouring_days_are_drawn_together():
    bootstrap = DayBootstrap([f"{i:03d}" for i in range(100)], seed=0, repeats=300, block=10)
    assert (bootstrap.counts_RD.sum(axis=1) == 100).all()
    neighbours = np.corrcoef(bootstrap.counts_RD[:, 49], bootstrap.counts_RD[:, 50])[0, 1]
    apart = np.corrcoef(bootstrap.counts_RD[:, 20], bootstrap.counts_RD[:, 70])[0, 1]
    assert neighbours > 0.7 > 0.3 > apart
