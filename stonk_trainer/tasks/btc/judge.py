"""Judge sampled forecasts of daily log returns against baselines, walking forward through a test period.

Every forecaster samples from the same origins (see `baselines.py`): one day ahead from each test day, and paths of
several days from every `step`-th. Judged is the sum of log returns over the horizon, by

- CRPS, the continuous ranked probability score, in percentage points of log return; lower is better;
- its difference from the reference on the same origins, with the p-value of Diebold and Mariano for no difference;
- how often the central 50% and 90% bands hold the outcome, and how wide they are.

Overlapping horizons and clustered volatility make neighbouring origins alike, so the 95% intervals resample blocks of
origins (`evaluation.stats.DayBootstrap`). All forecasters share the draws of a horizon: differences are paired.

Intervals and p-values contain the noise of sampling, which is not small: with 1,000 samples another seed moves the
one-day CRPS of bitcoin by about 0.003 points, a third of the standard error of a difference. Baselines are cheap, so
they give more samples.

Suffixes: O origins, N samples, H days ahead.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.stats import DayBootstrap, Estimate, interval_text
from stonk_trainer.tasks.btc.baselines import Baseline
from stonk_trainer.terminal import log, make_console, plain_table

if TYPE_CHECKING:
    from rich.table import Table

BANDS = {"50": 0.5, "90": 0.9}  # central share of the forecast's probability
PIT_BINS = 10


class Forecaster(Protocol):
    """What is judged: samples of daily log returns, as fractions, from origins that know only returns[:origin]."""

    name: str

    def one_day(self, origins: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ON of the return of the day at each origin: the batched form of `sample` with horizon 1."""

    def sample(self, origin: int, horizon: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """paths_NH of the returns of the day at `origin` and those after it."""


@dataclass(frozen=True)
class Score:
    """One forecaster at one horizon; CRPS, differences and widths in percentage points of log return.

    coverage (in [0, 1]), width: by band, "50" and "90". difference: CRPS minus the reference's, below 0 is better.
    p_value: two-sided, of `diebold_mariano`. Both are None for the reference itself. pit: how many outcomes fell into
    each tenth of the forecast's distribution; flat when calibrated, heavy at both ends when too narrow.
    """

    crps: Estimate
    difference: Estimate | None
    p_value: float | None
    coverage: dict[str, Estimate]
    width: dict[str, Estimate]
    pit: list[int]


@dataclass(frozen=True)
class Horizon:
    """All forecasters at one horizon of `days`, from `origins` origins that are `step` days apart.

    block: length of the bootstrap's blocks, in origins. lags: of the Diebold-Mariano variance, in origins.
    """

    days: int
    step: int
    origins: int
    block: int
    lags: int
    scores: dict[str, Score]


@dataclass(frozen=True)
class Judgement:
    """horizons: one day ahead first. samples: per origin, of each baseline and of every other forecaster."""

    reference: str
    test_days: int
    samples: int
    baseline_samples: int
    seed: int
    horizons: list[Horizon]


def judge(
    forecasters: Sequence[Forecaster],
    returns: ArrayLike,
    test_from: int,
    horizons: Sequence[int] = (5, 20),
    step: int = 5,
    samples: int = 1000,
    baseline_samples: int = 4000,
    reference: str = "garch-t",
    seed: int = 0,
) -> Judgement:
    """Judge forecasters on returns[test_from:], the series that they were given.

    Every day of the test is an origin one day ahead; every `step`-th is one of paths, where the whole horizon lies in
    the series. `samples` are drawn per origin, `baseline_samples` where the forecaster is a `Baseline`: the estimators
    are unbiased at any number. A forecaster's random numbers depend on `seed` and its name, not on who else is judged.

    Args:
        samples, baseline_samples: at least 100: the 5% and 95% quantiles of fewer are mostly noise.
        reference: the name of one of the forecasters.

    Raises:
        UserError: a horizon of one day, or longer than the test; duplicate names; samples that are not finite numbers.
    """
    returns_D = np.asarray(returns, dtype=float)
    names = [forecaster.name for forecaster in forecasters]
    if len(set(names)) != len(names):
        raise UserError(f"model: {', '.join(names)}: two forecasters have the same name: rename a folder")
    for days in horizons:
        if days < 2:
            raise UserError(f"horizons: {days} is below 2; one day ahead is always judged: leave it out")
        if days > len(returns_D) - test_from:
            raise UserError(f"horizons: {days} days do not fit into the test: give a shorter horizon")
    outcomes = {1: returns_D[test_from:]}
    origins = range(test_from, len(returns_D), step)
    for days in sorted(set(horizons)):
        outcomes[days] = np.array([returns_D[o : o + days].sum() for o in origins if o + days <= len(returns_D)])

    measured: dict[int, dict[str, dict]] = {days: {} for days in outcomes}
    for number, forecaster in enumerate(forecasters, start=1):
        log.info("judging %s (%d of %d)", forecaster.name, number, len(forecasters))
        rng = np.random.default_rng([seed, zlib.crc32(forecaster.name.encode())])
        count = baseline_samples if isinstance(forecaster, Baseline) else samples
        one_day_ON = forecaster.one_day(range(test_from, len(returns_D)), count, rng)
        measured[1][forecaster.name] = _measure(forecaster.name, one_day_ON, outcomes[1], rng)
        for days, sums_ON in _path_sums(forecaster, origins, outcomes, count, rng).items():
            measured[days][forecaster.name] = _measure(forecaster.name, sums_ON, outcomes[days], rng)
    judged = [_horizon(days, 1 if days == 1 else step, measured[days], reference, seed) for days in outcomes]
    return Judgement(reference, len(outcomes[1]), samples, baseline_samples, seed, judged)


def _path_sums(
    forecaster: Forecaster,
    origins: Sequence[int],
    outcomes: Mapping[int, np.ndarray],
    count: int,
    rng: np.random.Generator,
) -> dict[int, np.ndarray]:
    """samples_ON of the sum over each horizon beyond one day, read off the same paths."""
    sums: dict[int, list[np.ndarray]] = {days: [] for days in outcomes if days > 1}
    for index, origin in enumerate(origins):
        complete = [days for days in sums if index < len(outcomes[days])]
        if not complete:
            break
        cumulated_NH = np.cumsum(forecaster.sample(origin, max(complete), count, rng), axis=1, dtype=float)
        for days in complete:
            sums[days].append(cumulated_NH[:, days - 1])
    return {days: np.stack(columns) for days, columns in sums.items()}


# ------------------------------------------------------------------------------------------------- measures per origin


def _measure(name: str, samples_ON: np.ndarray, outcome_O: np.ndarray, rng: np.random.Generator) -> dict:
    """What is averaged later, per origin: crps, pit, and of each band whether it holds the outcome and its width."""
    if not np.isfinite(samples_ON).all():
        raise UserError(f"{name}: some sampled returns are not finite numbers: check the model")
    percent_ON = np.sort(100 * np.asarray(samples_ON, dtype=float), axis=1)
    percent_O = 100 * outcome_O
    measures = {"crps": crps(percent_ON, percent_O), "pit": pit(percent_ON, percent_O, rng)}
    for band, share in BANDS.items():
        # The p-quantile as order statistic p (N + 1): an outcome from the same distribution lies below it with
        # probability p exactly, at any N. NumPy's default would make honest bands look too narrow.
        low_O, high_O = np.quantile(percent_ON, [(1 - share) / 2, (1 + share) / 2], axis=1, method="weibull")
        measures["holds" + band] = (low_O <= percent_O) & (percent_O <= high_O)
        measures["width" + band] = high_O - low_O
    return measures


def crps(samples_ON: np.ndarray, outcome_O: np.ndarray) -> np.ndarray:
    """crps_O of samples in the unit of the outcome, unbiased for the distribution that they are drawn from.

    E|X - y| - E|X - X'| / 2 with the mean of the second term over distinct pairs: the fair estimator (Ferro 2014), here
    in the form of probability weighted moments, equal to it (Zamo & Naveau 2018), without its N x N table.
    """
    from scoringrules import crps_ensemble

    return crps_ensemble(outcome_O, samples_ON, estimator="pwm", backend="numpy")


def pit(samples_ON: np.ndarray, outcome_O: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """pit_O: probability integral transform of the outcomes in [0, 1], uniform when the forecasts are calibrated.

    An outcome that exceeds k of N samples lies anywhere between k / (N + 1) and (k + 1) / (N + 1); where is drawn at
    random, and so is its rank among samples equal to it (Hamill 2001): bins of N + 1 ranks are never of equal size.
    """
    below_O = (samples_ON < outcome_O[:, None]).sum(axis=1)
    equal_O = (samples_ON == outcome_O[:, None]).sum(axis=1)
    return (below_O + rng.random(len(outcome_O)) * (equal_O + 1)) / (samples_ON.shape[1] + 1)


# ------------------------------------------------------------------------------------------------- means with intervals


def _horizon(days: int, step: int, measured: dict[str, dict], reference: str, seed: int) -> Horizon:
    origins = len(measured[reference]["crps"])
    overlap = -(-days // step) - 1  # neighbours, on one side, that share days with an origin
    bootstrap = DayBootstrap(range(origins), seed, overlap=overlap)
    lags = overlap + int(4 * (origins / 100) ** (2 / 9))
    scores = {}
    for name, measures in measured.items():
        against_O = measures["crps"] - measured[reference]["crps"]
        is_reference = name == reference
        scores[name] = Score(
            crps=bootstrap.estimate(measures["crps"]),
            difference=None if is_reference else bootstrap.estimate(against_O),
            p_value=None if is_reference or bootstrap.too_few else diebold_mariano(against_O, lags),
            coverage={band: bootstrap.estimate(measures["holds" + band], share=True) for band in BANDS},
            width={band: bootstrap.estimate(measures["width" + band]) for band in BANDS},
            pit=np.histogram(measures["pit"], PIT_BINS, range=(0, 1))[0].tolist(),
        )
    return Horizon(days, step, origins, bootstrap.block, lags, scores)


def diebold_mariano(difference_O: np.ndarray, lags: int) -> float:
    """Two-sided p-value for a mean of zero of the differences of two forecasters' losses (Diebold & Mariano 1995).

    The mean over its standard error with autocovariances up to `lags` (Newey & West 1987), times
    sqrt((n + 1 - 2h + h(h-1)/n) / n) with h = lags + 1, against Student's t with n - 1 degrees of freedom (Harvey,
    Leybourne & Newbold 1997). `judge` takes lags = the overlapping neighbours, which the theory asks for, plus
    floor(4 (n / 100)^(2/9)), because the losses of forecasters that follow volatility differently are correlated
    beyond it (bandwidth as in Newey & West 1994).

    Differences that are all alike have no variance: the p-value is 1 when they are 0, and otherwise 0.
    """
    from scipy.stats import t
    from statsmodels.regression.linear_model import OLS

    n, h = len(difference_O), lags + 1
    if np.allclose(difference_O, difference_O[0], rtol=1e-12, atol=1e-15):
        return float(difference_O[0] == 0)
    fit = OLS(difference_O, np.ones(n)).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
    correction = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    return float(2 * t.sf(abs(fit.tvalues[0] * correction), n - 1))


# ---------------------------------------------------------------------------------------------------------------- table


def print_judgement(judgement: Judgement, heading: str = "") -> None:
    """Print the judgement within 80 columns; `heading` says what series and which days."""
    console = make_console()
    if heading:
        console.print(f"\n{heading}: {judgement.test_days:,} test days", style="bold")
    for horizon in judgement.horizons:
        ahead = f"{horizon.days} day{'s' * (horizon.days > 1)} ahead, from {horizon.origins:,} days"
        if horizon.days > 1:
            ahead += f", every {horizon.step}"
        if next(iter(horizon.scores.values())).crps.ci95 is None:
            console.print(f"\n{ahead}: too few for an interval")
            continue
        console.print(f"\n{ahead}; CRPS and widths in % points of log return", style="bold")
        console.print(_errors(horizon, judgement.reference))
        console.print()
        console.print(_bands(horizon, BANDS if horizon.days == 1 else ["90"]))
    blocks = ", ".join(f"{horizon.block} ({horizon.days}-day)" for horizon in judgement.horizons)
    console.print(
        "\nCRPS: lower is better. p: Diebold-Mariano, two-sided, of one comparison; among several a small one is "
        f"weak evidence. 95% intervals: circular block bootstrap in blocks of {blocks} origins. Bands should hold as "
        f"much as their name says. Samples per origin: {judgement.samples:,}, of baselines "
        f"{judgement.baseline_samples:,}; intervals contain their noise.",
        style="dim",
    )


def _errors(horizon: Horizon, reference: str) -> Table:
    table = _table("CRPS", "95% interval", f"minus {reference}", "95% interval", "p")
    for name, score in horizon.scores.items():
        cells = ["-", "-", "-"]
        if score.difference and score.p_value is not None:
            p = "<0.001" if score.p_value < 0.001 else f"{score.p_value:.3f}"
            cells = [f"{score.difference.value:+.3f}", interval_text(score.difference.ci95, 1, 3, "+"), p]
        table.add_row(name, f"{score.crps.value:.3f}", interval_text(score.crps.ci95, 1, 3), *cells)
    return table


def _bands(horizon: Horizon, bands: Iterable[str]) -> Table:
    table = _table("band", "holds", "95% interval", "mean width", "95% interval")
    for name, score in horizon.scores.items():
        for band in bands:
            holds, width = score.coverage[band], score.width[band]
            cells = [f"{band}%", f"{holds.value:.1%}", interval_text(holds.ci95, 100, 1)]
            table.add_row(name, *cells, f"{width.value:.2f}", interval_text(width.ci95, 1, 2))
    return table


def _table(*titles: str) -> Table:
    return plain_table("", *titles, numbers=titles, narrow=True)
