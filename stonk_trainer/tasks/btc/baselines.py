"""What a forecast of a price path must beat: four forecasters of daily log returns with nothing learnt by a network.

garch-t         GARCH(1,1) with Student-t errors and a constant mean, by maximum likelihood
ewma            normal returns of mean zero, variance an exponentially weighted mean of squares (RiskMetrics)
historical      the days before the test, drawn with replacement, each day on its own
historical-250  the same with the last 250 days before the origin

Each is given a whole series and the day its test starts, and fits on nothing after that day, once. An **origin** is an
index into the series: a forecast from origin o knows returns[:o] and is a forecast of returns[o], returns[o + 1], ...
Parameters do not change during the test; variances follow the returns up to each origin.

Returns are natural logarithms of ratios of daily closes, as fractions (0.01 is about 1%), oldest first.
Suffixes: D days of the series, O origins, N samples, H days ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from stonk_trainer.errors import UserError

MIN_FIT_DAYS = 250  # below, the likelihood of GARCH often has its maximum on the border


class Baseline:
    """A forecaster of daily log returns, fit on returns[:fit_until]. Raises UserError for fewer than 250 of them."""

    name: str

    def __init__(self, returns: ArrayLike, fit_until: int):
        self.returns_D = np.array(returns, dtype=float)  # a copy: it stays as it was fit
        self.fit_until = fit_until
        if fit_until < MIN_FIT_DAYS:
            raise UserError(
                f"{self.name}: {fit_until} daily returns before the test are too few to fit: give at least "
                f"{MIN_FIT_DAYS}, by a longer series or a later start of the test"
            )
        self._fit()

    def one_day(self, origins: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ON: `count` sampled returns of the day at each origin. Raises ValueError as `sample`."""
        return self._draw(self._checked(origins), 1, count, rng)[:, :, 0]

    def sample(self, origin: int, horizon: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """paths_NH: `count` sampled paths of the returns of `horizon` days, the first of them the day at `origin`.

        Raises ValueError for an origin before the end of the fit, whose outcome the parameters have seen, or after
        the day that follows the series.
        """
        return self._draw(self._checked([origin]), horizon, count, rng)[0]

    def _checked(self, origins: Sequence[int]) -> np.ndarray:
        origins_O = np.asarray(origins, dtype=int)
        if min(origins_O) < self.fit_until or max(origins_O) > len(self.returns_D):
            raise ValueError(f"{self.name}: origins must lie in [{self.fit_until}, {len(self.returns_D)}]")
        return origins_O

    def _fit(self) -> None:
        """Estimate what is needed from returns_D[:fit_until]; what is filtered forward may look at no later day."""

    def _draw(self, origins_O: np.ndarray, horizon: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ONH for checked origins."""
        raise NotImplementedError


class GarchT(Baseline):
    """GARCH(1,1) with standardised Student-t errors and a constant mean (Bollerslev 1986, 1987).

    r[t] = mu + e[t],  e[t] = sqrt(h[t]) z[t],  h[t] = omega + alpha e[t-1]^2 + beta h[t-1],
    where z is Student-t with nu > 2 degrees of freedom, scaled to variance 1.

    Fit by `arch` to returns scaled to deviation 3, about that of bitcoin in percent: its optimiser is well conditioned
    there, and not in percent for calmer assets. `parameters` (mu, omega, alpha, beta, nu) and variance_D are of
    unscaled returns. Raises UserError when the optimiser finds no maximum, or one with a mean beyond all returns, as it
    does for prices that stand still on many days.
    """

    name = "garch-t"

    def _fit(self) -> None:
        from arch import arch_model

        known_D = self.returns_D[: self.fit_until]
        for deviation in (3, 1):  # the line search stalls now and then at one scale, and then not at another
            scale = float(known_D.std()) / deviation
            model = arch_model(known_D / scale, mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
            result = model.fit(disp="off", show_warning=False, options={"maxiter": 1000})
            if result.convergence_flag == 0:
                break
        mu, omega, alpha, beta, nu = (float(value) for value in result.params)
        mu, omega = scale * mu, scale**2 * omega
        if result.convergence_flag != 0 or not known_D.min() < mu < known_D.max():
            raise UserError(
                f"{self.name}: no fit to {self.fit_until} daily returns: look for days on which the price does "
                "not move, or fit on a longer period"
            )
        self.parameters = mu, omega, alpha, beta, nu
        # Filtered here and not by arch, whose bounds on the variance use the largest residual of the whole series.
        first = (scale * float(result.conditional_volatility[0])) ** 2
        self.variance_D = _filtered(omega + alpha * (self.returns_D - mu) ** 2, beta, first)

    def _draw(self, origins_O, horizon, count, rng):
        mu, omega, alpha, beta, nu = self.parameters
        samples_ONH = np.empty((len(origins_O), count, horizon))
        variance_ON = np.repeat(self.variance_D[origins_O][:, None], count, axis=1)
        for day in range(horizon):
            z_ON = rng.standard_t(nu, size=variance_ON.shape) * np.sqrt((nu - 2) / nu)
            error_ON = np.sqrt(variance_ON) * z_ON
            samples_ONH[:, :, day] = mu + error_ON
            variance_ON = omega + alpha * error_ON**2 + beta * variance_ON  # each path has its own variance
        return samples_ONH


class Ewma(Baseline):
    """RiskMetrics: normal, mean zero, h[t] = 0.94 h[t-1] + 0.06 r[t-1]^2 (J.P. Morgan/Reuters 1996, section 5.2).

    The variance of a path stays that of its first day, which is their rule of the square root of time. Nothing is
    estimated but the first variance, the mean square of the period of the fit, forgotten after a few months.
    """

    name = "ewma"
    decay = 0.94

    def _fit(self) -> None:
        first = float((self.returns_D[: self.fit_until] ** 2).mean())
        self.variance_D = _filtered((1 - self.decay) * self.returns_D**2, self.decay, first)

    def _draw(self, origins_O, horizon, count, rng):
        deviation_O = np.sqrt(self.variance_D[origins_O])
        return deviation_O[:, None, None] * rng.standard_normal((len(origins_O), count, horizon))


class Historical(Baseline):
    """Days of returns[:fit_until], drawn with replacement, each on its own: the same forecast on every day."""

    name = "historical"

    def _draw(self, origins_O, horizon, count, rng):
        return self.returns_D[rng.integers(self.fit_until, size=(len(origins_O), count, horizon))]


class HistoricalWindow(Baseline):
    """The 250 days before the origin, drawn with replacement, each on its own."""

    name = "historical-250"
    window = 250

    def _draw(self, origins_O, horizon, count, rng):
        back_ONH = rng.integers(1, self.window + 1, size=(len(origins_O), count, horizon))
        return self.returns_D[origins_O[:, None, None] - back_ONH]


def baselines(returns: ArrayLike, fit_until: int) -> list[Baseline]:
    """All baselines, fit on returns[:fit_until]; the reference of `judge` first. Raises UserError as they do."""
    return [kind(returns, fit_until) for kind in (GarchT, Ewma, Historical, HistoricalWindow)]


def _filtered(input_D: np.ndarray, decay: float, first: float) -> np.ndarray:
    """variance_D, one longer than its input: v[0] = first, v[t] = input[t-1] + decay v[t-1]."""
    from scipy.signal import lfilter

    later, _ = lfilter([1.0], [1.0, -decay], input_D, zi=[decay * first])
    return np.concatenate([[first], later])
