import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from scoringrules import crps_ensemble, crps_normal

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.stats import DayBootstrap
from stonk_trainer.tasks.btc import judge as judging
from stonk_trainer.tasks.btc.baselines import GarchT, Historical, baselines
from stonk_trainer.tasks.btc.judge import crps, diebold_mariano, judge, print_judgement

pytestmark = pytest.mark.slow

FIT, DAYS = 2000, 3000
DAY = 0.02  # standard deviation of a day in the normal series


class Normal:
    """Days that are normal with mean zero, whatever came before."""

    def __init__(self, name, deviation=DAY, mean=0.0):
        self.name, self.deviation, self.mean = name, deviation, mean

    def one_day(self, origins, count, rng):
        return rng.normal(self.mean, self.deviation, (len(origins), count))

    def sample(self, origin, horizon, count, rng):
        return rng.normal(self.mean, self.deviation, (count, horizon))


class Oracle:
    """Knows what comes."""

    name = "oracle"

    def __init__(self, returns):
        self.returns = returns

    def one_day(self, origins, count, rng):
        return np.repeat(self.returns[list(origins)][:, None], count, axis=1)

    def sample(self, origin, horizon, count, rng):
        return np.repeat(self.returns[origin : origin + horizon][None], count, axis=0)


def normal_returns(days, seed=0):
    return np.random.default_rng(seed).normal(0, DAY, days)


@pytest.fixture(scope="module")
def garch_t_returns():
    """Volatile and calm months, as GARCH(1,1) makes them: alpha 0.15, beta 0.83, 5 degrees of freedom."""
    rng = np.random.default_rng(3)
    z = rng.standard_t(5, DAYS) * np.sqrt(3 / 5)
    percent, variance = np.empty(DAYS), 8.0
    for day in range(DAYS):
        percent[day] = np.sqrt(variance) * z[day]
        variance = 0.16 + 0.15 * percent[day] ** 2 + 0.83 * variance
    return percent / 100


@pytest.fixture(scope="module")
def garch_judgement(garch_t_returns):
    return judge(baselines(garch_t_returns, FIT), garch_t_returns, FIT, baseline_samples=1000)


# ------------------------------------------------------------------------------------------------------------- scores


def test_crps_of_samples_is_that_of_the_normal_they_are_drawn_from():
    rng = np.random.default_rng(0)
    outcomes = np.linspace(-4, 4, 40)
    samples = rng.normal(0.5, 1.5, (40, 40_000))
    assert crps(samples, outcomes) == pytest.approx(crps_normal(outcomes, 0.5, 1.5), abs=0.03)


def test_crps_is_unbiased_with_few_samples():
    rng = np.random.default_rng(0)
    scores = crps(rng.normal(0, 1, (200_000, 4)), np.full(200_000, 0.7))
    assert scores.mean() == pytest.approx(crps_normal(0.7, 0, 1), abs=4 * scores.std() / np.sqrt(200_000))


def test_crps_is_the_fair_estimator():
    rng = np.random.default_rng(0)
    samples, outcomes = rng.standard_t(3, (30, 50)), rng.normal(size=30)
    assert crps(samples, outcomes) == pytest.approx(crps_ensemble(outcomes, samples, estimator="fair"))


def test_the_probability_integral_transform_of_ranks_and_ties():
    rng = np.random.default_rng(0)
    samples = np.tile([1.0, 2.0, 2.0, 3.0], (5000, 1))
    for outcome, low, high in ((0.5, 0, 1 / 5), (1.5, 1 / 5, 2 / 5), (2.0, 1 / 5, 4 / 5), (9.0, 4 / 5, 1)):
        drawn = judging.pit(samples, np.full(5000, outcome), rng)
        assert low <= drawn.min() < low + 0.01 and high - 0.01 < drawn.max() <= high


def test_an_oracle_has_no_error_at_any_horizon_and_all_bands_hold():
    returns = normal_returns(200)
    judgement = judge([Normal("plain"), Oracle(returns)], returns, 100, (3, 10), step=2, reference="plain")
    for horizon in judgement.horizons:
        score = horizon.scores["oracle"]
        assert score.crps.value == pytest.approx(0, abs=1e-9)
        assert score.difference.ci95[1] < 0
        assert score.p_value < 0.001


def test_every_test_day_is_an_origin_and_every_step_th_one_of_paths_where_the_horizon_fits():
    returns = normal_returns(161)
    judgement = judge([Normal("plain")], returns, 100, (2, 7, 21), step=4, reference="plain")
    assert [h.days for h in judgement.horizons] == [1, 2, 7, 21]
    assert judgement.test_days == 61
    assert [h.origins for h in judgement.horizons] == [61, 15, 14, 11]
    # no, no, one and five neighbours share days with an origin: on top of the cube root, and of Newey and West's rule
    assert [h.block for h in judgement.horizons] == [4, 2, 2 + 1, 2 + 5]
    assert [h.lags for h in judgement.horizons] == [3, 2, 2 + 1, 2 + 5]


@pytest.mark.parametrize("samples", [100, 999])
def test_bands_of_the_true_distribution_hold_as_often_as_they_say_at_any_number_of_samples(samples):
    returns = normal_returns(20_000)
    judgement = judge([Normal("true")], returns, 0, (), samples=samples, reference="true")
    score = judgement.horizons[0].scores["true"]
    assert score.coverage["90"].value == pytest.approx(0.9, abs=0.007)
    assert score.coverage["50"].value == pytest.approx(0.5, abs=0.012)
    assert score.width["90"].value == pytest.approx(100 * DAY * 2 * 1.645, rel=0.03)
    assert score.crps.value == pytest.approx(100 * DAY / np.sqrt(np.pi), rel=0.02)
    assert sum(score.pit) == 20_000
    assert np.array(score.pit) == pytest.approx(np.full(10, 2000), abs=160)


def test_the_sum_of_independent_days_is_judged_at_the_longer_horizon():
    returns = normal_returns(6000)
    horizon = judge([Normal("true")], returns, 0, (9,), step=3, reference="true").horizons[1]
    score = horizon.scores["true"]
    assert score.crps.value == pytest.approx(3 * 100 * DAY / np.sqrt(np.pi), rel=0.06)
    assert score.coverage["90"].ci95[0] < 0.9 < score.coverage["90"].ci95[1]


def test_a_forecast_that_is_too_narrow_shows_it_in_coverage_and_at_the_ends_of_the_histogram():
    returns = normal_returns(1000)
    score = judge([Normal("narrow", DAY / 2)], returns, 0, (), reference="narrow").horizons[0].scores["narrow"]
    assert score.coverage["90"].ci95[1] < 0.75
    assert score.pit[0] > 200 < score.pit[-1]


# ---------------------------------------------------------------------------------------------------------- baselines


def test_on_garch_returns_garch_t_holds_its_bands_and_beats_history(garch_judgement):
    day = garch_judgement.horizons[0].scores
    for band, share in (("50", 0.5), ("90", 0.9)):
        low, high = day["garch-t"].coverage[band].ci95
        assert low < share < high
    assert day["historical"].difference.ci95[0] > 0
    assert day["historical"].p_value < 0.01
    assert day["garch-t"].difference is None and day["garch-t"].p_value is None


def test_the_reference_may_be_any_forecaster(garch_t_returns, garch_judgement):
    forecasters = [GarchT(garch_t_returns, FIT), Historical(garch_t_returns, FIT)]
    other = judge(forecasters, garch_t_returns, FIT, baseline_samples=1000, reference="historical")
    there, here = other.horizons[0].scores["garch-t"], garch_judgement.horizons[0].scores["historical"]
    assert there.difference.value == pytest.approx(-here.difference.value)
    assert there.p_value == pytest.approx(here.p_value)


def test_a_seed_gives_the_same_judgement_whoever_else_is_judged():
    returns = normal_returns(300)
    a, b = Normal("a"), Normal("b", 2 * DAY)
    alone = judge([a], returns, 100, reference="a")
    both = judge([b, a], returns, 100, reference="a")
    assert [h.scores["a"] for h in alone.horizons] == [h.scores["a"] for h in both.horizons]
    assert judge([b, a], returns, 100, reference="a") == both
    assert judge([b, a], returns, 100, reference="a", seed=1) != both


def test_baselines_are_asked_for_their_own_number_of_samples(monkeypatch, garch_t_returns):
    counts = {}
    measure = judging._measure

    def counting(name, samples, outcomes, rng):
        counts.setdefault(name, set()).add(samples.shape[1])
        return measure(name, samples, outcomes, rng)

    monkeypatch.setattr(judging, "_measure", counting)
    forecasters = [Normal("model"), Historical(garch_t_returns, FIT)]
    judge(forecasters, garch_t_returns, FIT, (5,), samples=150, baseline_samples=400, reference="historical")
    assert counts == {"model": {150}, "historical": {400}}


# ---------------------------------------------------------------------------------------------- differences, intervals


def equal_losses(n, repeats, seed):
    """CRPS differences of two forecasters equally wrong on opposite sides of a normal market."""
    outcomes = np.random.default_rng(seed).normal(size=(repeats, n))
    return crps_normal(outcomes, 0.5, 1.0) - crps_normal(outcomes, -0.5, 1.0)


def test_the_diebold_mariano_p_value_of_equal_forecasters_is_uniform():
    p = np.array([diebold_mariano(difference, lags=5) for difference in equal_losses(250, 1000, seed=0)])
    assert 0.03 < (p < 0.05).mean() < 0.08  # a little above: the lags are estimated
    assert stats.kstest(p, "uniform").statistic < 0.06


def test_it_stays_about_uniform_when_horizons_overlap():
    daily = equal_losses(404, 600, seed=1)
    overlapping = np.stack([np.convolve(d, np.ones(5), "valid") for d in daily])
    p = np.array([diebold_mariano(difference, lags=4 + 5) for difference in overlapping])
    assert 0.02 < (p < 0.05).mean() < 0.10
    naive = np.array([diebold_mariano(difference, lags=0) for difference in overlapping])
    assert (naive < 0.05).mean() > 0.25


def test_it_is_small_when_one_forecaster_is_plainly_worse():
    outcomes = np.random.default_rng(0).normal(size=400)
    difference = crps_normal(outcomes, 0.0, 2.5) - crps_normal(outcomes, 0.0, 1.0)
    assert diebold_mariano(difference, lags=5) < 1e-6


def test_without_lags_it_is_the_t_test_and_with_lags_newey_and_west():
    from statsmodels.api import OLS

    difference = 0.1 + np.convolve(np.random.default_rng(0).normal(size=90), [1, 0.5], "valid")
    n, h = len(difference), 4
    assert diebold_mariano(difference, 0) == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    error = OLS(difference, np.ones(n)).fit(cov_type="HAC", cov_kwds={"maxlags": h - 1}).bse[0]
    statistic = difference.mean() / error * np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert diebold_mariano(difference, h - 1) == pytest.approx(2 * stats.t.sf(abs(statistic), n - 1))


def test_forecasts_that_are_the_same_do_not_differ():
    assert diebold_mariano(np.zeros(50), 3) == 1.0
    assert diebold_mariano(np.full(50, 0.3), 3) == 0.0


@pytest.mark.parametrize("overlap", [0, 4])
def test_the_interval_of_a_difference_holds_the_truth_19_times_in_20(overlap):
    daily = 0.2 + equal_losses(300 + overlap, 600, seed=2)
    kernel = np.ones(overlap + 1) / (overlap + 1)
    bootstrap = DayBootstrap(range(300), seed=0, overlap=overlap)
    intervals = [bootstrap.mean(np.convolve(d, kernel, "valid")) for d in daily]
    assert 0.91 < np.mean([low <= 0.2 <= high for low, high in intervals]) < 0.985


@pytest.mark.parametrize("overlap", [0, 4])
def test_the_interval_of_coverage_holds_the_truth_19_times_in_20(overlap):
    rng = np.random.default_rng(0)
    kernel = np.ones(overlap + 1) / np.sqrt(overlap + 1)
    bootstrap = DayBootstrap(range(300), seed=0, overlap=overlap)
    sums = [np.convolve(rng.normal(size=300 + overlap), kernel, "valid") for _ in range(600)]
    intervals = [bootstrap.share(np.abs(s) < stats.norm.ppf(0.95)) for s in sums]
    assert 0.91 < np.mean([low <= 0.9 <= high for low, high in intervals]) < 0.99


def test_when_every_outcome_is_inside_the_band_the_interval_still_has_a_width():
    inside, overlapping = (DayBootstrap(range(100), 0, overlap=overlap) for overlap in (0, 4))
    estimate = inside.estimate(np.ones(100, dtype=bool), share=True)
    assert estimate.value == 1.0
    assert 0.9 < estimate.ci95[0] < 0.98 and estimate.ci95[1] == pytest.approx(1.0)
    assert overlapping.share(np.ones(100, dtype=bool))[0] < estimate.ci95[0]


# ------------------------------------------------------------------------------------------------------- what is shown


def test_the_judgement_survives_json(garch_judgement):
    there = json.loads(json.dumps(asdict(garch_judgement)))
    score = there["horizons"][0]["scores"]["historical"]
    assert there["reference"] == "garch-t"
    assert score["difference"]["ci95"] == list(garch_judgement.horizons[0].scores["historical"].difference.ci95)
    assert len(score["pit"]) == 10


def test_the_tables_fit_80_columns_and_show_every_interval(garch_judgement, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_judgement(garch_judgement, "SIM day 2000 to day 2999")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in printed
    assert "SIM day 2000 to day 2999: 1,000 test days" in printed
    assert "1 day ahead, from 1,000 days; CRPS and widths in % points of log return" in printed
    assert "20 days ahead, from 197 days, every 5; CRPS" in printed
    rows = [line for line in lines if line.startswith(("garch-t ", "ewma ", "historical"))]
    assert len(rows) == 4 + 8 + 2 * (4 + 4)
    # CRPS and its difference, or coverage and width; the reference has no difference from itself
    assert all(row.count(" to ") == (1 if row.rstrip().endswith("-") else 2) for row in rows)


def test_a_horizon_with_too_few_origins_for_an_interval_shows_no_number(capsys):
    returns = normal_returns(60)
    judgement = judge([Normal("a"), Normal("b", 2 * DAY)], returns, 30, reference="a")
    week = judgement.horizons[1].scores["b"]
    assert week.crps.ci95 is None and week.coverage["90"].ci95 is None and week.p_value is None
    print_judgement(judgement)
    printed = capsys.readouterr().out
    assert "5 days ahead, from 6 days, every 5: too few for an interval" in printed
    assert f"{week.crps.value:.3f}" not in printed


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forecasters": [Normal("a"), Normal("a")]}, "a, a: two forecasters have the same name"),
        ({"horizons": (1, 5)}, "1 is below 2; one day ahead is always judged"),
        ({"horizons": (5, 101)}, "101 days do not fit into the test"),
        ({"forecasters": [Normal("a", np.nan)]}, "a: some sampled returns are not finite"),
    ],
)
def test_settings_that_cannot_be_judged_are_errors_of_one_line(changes, message):
    settings = {
        "forecasters": [Normal("a"), Normal("b")],
        "returns": normal_returns(200),
        "test_from": 100,
        "reference": "a",
    }
    with pytest.raises(UserError, match=message) as caught:
        judge(**{**settings, **changes})
    assert "\n" not in str(caught.value)
