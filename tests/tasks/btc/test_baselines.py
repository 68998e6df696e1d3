from types import SimpleNamespace

import numpy as np
import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.baselines import Ewma, GarchT, Historical, HistoricalWindow, baselines

KINDS = [GarchT, Ewma, Historical, HistoricalWindow]
FIT, DAYS = 2500, 2800
MU, OMEGA, ALPHA, BETA, NU = 0.0005, 4e-5, 0.1, 0.85, 5.0


def garch_t_returns(days, seed):
    """Daily log returns, as fractions, of the process that GarchT assumes; deviation 2.8%."""
    rng = np.random.default_rng(seed)
    z = rng.standard_t(NU, days) * np.sqrt((NU - 2) / NU)
    errors, variance = np.empty(days), OMEGA / (1 - ALPHA - BETA)
    for day in range(days):
        errors[day] = np.sqrt(variance) * z[day]
        variance = OMEGA + ALPHA * errors[day] ** 2 + BETA * variance
    return MU + errors


RETURNS = garch_t_returns(DAYS, seed=1)


def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def garch():
    return GarchT(RETURNS, FIT)


def test_all_baselines_have_a_name_of_their_own_and_the_reference_is_first():
    names = [forecaster.name for forecaster in baselines(RETURNS, FIT)]
    assert names == ["garch-t", "ewma", "historical", "historical-250"]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_shape_asked_for_and_one_day_is_the_first_day_of_a_path(kind):
    forecaster = kind(RETURNS, FIT)
    assert forecaster.one_day([FIT, FIT + 5, DAYS], 11, rng()).shape == (3, 11)
    assert forecaster.sample(DAYS, 4, 11, rng()).shape == (11, 4)
    assert np.array_equal(forecaster.one_day([FIT + 5], 11, rng())[0], forecaster.sample(FIT + 5, 1, 11, rng())[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_numbers(kind):
    first, second = kind(RETURNS, FIT), kind(RETURNS, FIT)
    assert np.array_equal(first.sample(FIT + 9, 5, 20, rng()), second.sample(FIT + 9, 5, 20, rng()))
    assert not np.array_equal(
        first.sample(FIT + 9, 5, 20, rng()), first.sample(FIT + 9, 5, 20, np.random.default_rng(8))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("origin", [FIT, FIT + 100])
def test_changing_returns_from_the_origin_on_changes_nothing(kind, origin):
    changed = RETURNS.copy()
    changed[origin:] = 50 * changed[origin:][::-1] + 1
    known, other, cut = kind(RETURNS, FIT), kind(changed, FIT), kind(RETURNS[:origin], FIT)
    for forecaster in (other, cut):
        assert np.array_equal(forecaster.sample(origin, 5, 50, rng()), known.sample(origin, 5, 50, rng()))
        origins = [FIT, (FIT + origin) // 2, origin]
        assert np.array_equal(forecaster.one_day(origins, 50, rng()), known.one_day(origins, 50, rng()))


@pytest.mark.parametrize("kind", [GarchT, Ewma, HistoricalWindow])
def test_what_follows_the_market_answers_to_the_last_day(kind):
    changed = RETURNS.copy()
    changed[FIT + 99] = 0.4
    before, after = kind(RETURNS, FIT), kind(changed, FIT)
    assert not np.array_equal(after.sample(FIT + 100, 1, 500, rng()), before.sample(FIT + 100, 1, 500, rng()))


def test_a_forecaster_keeps_its_own_copy_of_the_returns():
    returns = RETURNS.copy()
    forecaster = Historical(returns, FIT)
    expected = forecaster.sample(FIT, 3, 20, rng())
    returns[:] = 0
    assert np.array_equal(forecaster.sample(FIT, 3, 20, rng()), expected)


def test_garch_t_finds_the_parameters_of_a_simulated_series(garch):
    mu, omega, alpha, beta, nu = garch.parameters
    # about three standard errors of the maximum likelihood estimates at 2,500 days
    assert mu == pytest.approx(MU, abs=0.0015)
    assert alpha == pytest.approx(ALPHA, abs=0.06)
    assert alpha + beta == pytest.approx(ALPHA + BETA, abs=0.05)
    assert nu == pytest.approx(NU, abs=1.6)
    assert omega > 0


def test_garch_t_is_the_same_fit_for_an_asset_a_thousand_times_calmer(garch):
    calm = GarchT(RETURNS / 1000, FIT)
    assert calm.sample(FIT + 50, 5, 20, rng()) == pytest.approx(garch.sample(FIT + 50, 5, 20, rng()) / 1000, rel=1e-4)


@pytest.mark.parametrize(("flag", "mean"), [(8, 0.05), (0, 1e5)])
def test_a_garch_fit_that_fails_or_is_absurd_is_an_error(flag, mean, monkeypatch):
    from arch.univariate import ConstantMean

    found = SimpleNamespace(params=[mean, 0.4, 0.1, 0.85, 5.0], convergence_flag=flag)
    monkeypatch.setattr(ConstantMean, "fit", lambda self, **options: found)
    with pytest.raises(UserError, match="garch-t: no fit to 2500 daily returns: look for days on which the price"):
        GarchT(RETURNS, FIT)


def test_garch_t_filters_the_variance_that_arch_fits(garch):
    from arch import arch_model

    model = arch_model(100 * RETURNS[:FIT], mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    mu, omega, alpha, beta, nu = garch.parameters
    volatility = model.fix([100 * mu, 1e4 * omega, alpha, beta, nu]).conditional_volatility / 100
    assert garch.variance_D[:FIT] == pytest.approx(volatility**2, rel=1e-9)
    last = garch.variance_D[-2]
    assert len(garch.variance_D) == DAYS + 1
    assert garch.variance_D[-1] == pytest.approx(omega + alpha * (RETURNS[-1] - mu) ** 2 + beta * last)


def test_the_variance_of_garch_t_paths_returns_to_its_mean_as_the_formula_says(garch):
    mu, omega, alpha, beta, _ = garch.parameters
    calm = FIT + int(np.argmin(garch.variance_D[FIT:]))
    paths = garch.sample(calm, 15, 200_000, rng())
    persistence = alpha + beta
    mean = omega / (1 - persistence)
    expected = mean + persistence ** np.arange(15) * (garch.variance_D[calm] - mean)
    assert expected[-1] > 1.3 * expected[0]
    assert paths.mean(axis=0) == pytest.approx(np.full(15, mu), abs=0.0005)
    assert paths.var(axis=0) == pytest.approx(expected, rel=0.08)  # heavy tails: variances are noisy


def test_the_ewma_variance_is_that_of_riskmetrics():
    forecaster = Ewma(RETURNS, FIT)
    variance = (RETURNS[:FIT] ** 2).mean()
    for value in RETURNS[: FIT + 50]:
        variance = 0.94 * variance + 0.06 * value**2
    assert forecaster.variance_D[FIT + 50] == pytest.approx(variance)
    paths = forecaster.sample(FIT + 50, 4, 100_000, rng())
    assert paths.std(axis=0) == pytest.approx(np.full(4, np.sqrt(variance)), rel=0.02)
    assert paths.sum(axis=1).std() == pytest.approx(2 * np.sqrt(variance), rel=0.02)  # square root of 4 days


def test_historical_draws_days_before_the_test_and_its_window_the_last_250():
    everything = Historical(RETURNS, FIT).one_day([FIT + 200], 50_000, rng())
    assert set(everything.ravel()) == set(RETURNS[:FIT])
    window = HistoricalWindow(RETURNS, FIT).one_day([FIT, FIT + 200], 20_000, rng())
    assert set(window[0]) == set(RETURNS[FIT - 250 : FIT])
    assert set(window[1]) == set(RETURNS[FIT - 50 : FIT + 200])


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_days_to_fit_is_an_error_that_says_how_many_are_needed(kind):
    with pytest.raises(UserError, match=f"{kind.name}: 249 daily returns before the test are too few.* at least 250"):
        kind(RETURNS, 249)


@pytest.mark.parametrize("kind", KINDS)
def test_an_origin_that_the_fit_has_seen_or_beyond_the_series_is_an_error(kind):
    forecaster = kind(RETURNS, FIT)
    for origin in (FIT - 1, DAYS + 1, -1):
        with pytest.raises(ValueError, match=rf"origins must lie in \[{FIT}, {DAYS}\]"):
            forecaster.sample(origin, 1, 10, rng())
        with pytest.raises(ValueError, match="origins must lie in"):
            forecaster.one_day([FIT, origin], 10, rng())
