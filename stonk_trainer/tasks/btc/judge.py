"""Judge sampled forecasts of daily log returns against baselines, walking forward through a test period.

Every forecaster gives samples from the same origins (see `baselines.py`): one day ahead from each test day, and paths
of several days from every `step`-th. Judged is the sum of log returns over the horizon; each number has an interval:

- CRPS, the continuous ranked probability score, in percent points of log return; lower is better.
- its difference from the reference on the same origins, and the p-value of Diebold and Mariano for no difference.
- how often the central 50% and 90% bands hold the outcome, and how wide they are.

Overlapping horizons and clustered volatility make neighbouring origins alike. The intervals are from a stationary
bootstrap over origins (`Resamples`); those of the bands' coverage are Wilson's for as many independent origins as that
bootstrap implies. One set of resamples per horizon serves all forecasters, so that differences are paired.

Intervals and p-values contain the noise of sampling, which is not small: with 1,000 samples another seed moves the
one-day CRPS of bitcoin by about 0.003 points, a third of the standard error of a difference. Baselines cost next to
nothing, so they are asked for more samples.

Suffixes: O origins, N samples, H days ahead, R resamples.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.baselines import Baseline

if TYPE_CHECKING:
    from rich.table import Table

BANDS = {"50": 0.5, "90": 0.9}  # central share of the forecast's probability
PIT_BINS = 10
MIN_TEST_DAYS = 30
MIN_SAMPLES = 100  # the 5% and 95% quantiles of fewer are mostly noise
MIN_BLOCKS = 5  # fewer blocks say nothing of how much a mean varies

Interval = tuple[float, float]


class Forecaster(Protocol):
    """What is judged: samples of daily log returns, as fractions, from origins that know only returns[:origin]."""

    name: str

    def one_day(self, origins: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ON of the return of the day at each origin: the batched form of `sample` with horizon 1."""

    def sample(self, origin: int, horizon: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """paths_NH of the returns of the day at `origin` and those after it."""


@dataclass(frozen=True)
class Estimate:
    """A mean over origins and its 95% interval; None for the interval when there are too few origins for one."""

    value: float
    ci95: Interval | None


@dataclass(frozen=True)
class Score:
    """One forecaster at one horizon. CRPS, differences and widths in percent points of log return, coverage in [0, 1].

    coverage, width: by band, "50" and "90". difference: CRPS minus that of the reference, below 0 is better than it.
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

    block: mean length of the bootstrap's blocks, in origins. lags: of the Diebold-Mariano variance, in origins.
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

    Raises UserError for fewer than 30 test days, a horizon longer than the test, settings out of range, names that
    stand twice, a reference that is not among the forecasters, and samples that are not finite numbers.
    """
    returns_D = np.asarray(returns, dtype=float)
    _check(forecasters, len(returns_D) - test_from, test_from, horizons, step, reference)
    for number in (samples, baseline_samples):
        if number < MIN_SAMPLES:
            raise UserError(f"samples: {number} are too few for the ends of a 90% band: give at least {MIN_SAMPLES}")
    outcomes = {1: returns_D[test_from:]}
    origins = range(test_from, len(returns_D), step)
    for days in sorted(set(horizons)):
        outcomes[days] = np.array([returns_D[o : o + days].sum() for o in origins if o + days <= len(returns_D)])

    measured: dict[int, dict[str, dict]] = {days: {} for days in outcomes}
    for forecaster in forecasters:
        rng = np.random.default_rng([seed, zlib.crc32(forecaster.name.encode())])
        count = baseline_samples if isinstance(forecaster, Baseline) else samples
        one_day_ON = forecaster.one_day(range(test_from, len(returns_D)), count, rng)
        measured[1][forecaster.name] = _measure(forecaster.name, one_day_ON, outcomes[1], count, rng)
        for days, sums_ON in _cumulated(forecaster, origins, outcomes, count, rng).items():
            measured[days][forecaster.name] = _measure(forecaster.name, sums_ON, outcomes[days], count, rng)
    return Judgement(
        reference=reference,
        test_days=len(outcomes[1]),
        samples=samples,
        baseline_samples=baseline_samples,
        seed=seed,
        horizons=[_horizon(days, 1 if days == 1 else step, measured[days], reference, seed) for days in outcomes],
    )


def as_dict(judgement: Judgement) -> dict:
    """The judgement as dicts, lists, strings and numbers."""
    return asdict(judgement)


def _check(
    forecasters: Sequence[Forecaster],
    test_days: int,
    test_from: int,
    horizons: Sequence[int],
    step: int,
    reference: str,
) -> None:
    names = [forecaster.name for forecaster in forecasters]
    if test_from < 0 or test_days < MIN_TEST_DAYS:
        raise UserError(
            f"the test has {max(0, test_days)} days and needs at least {MIN_TEST_DAYS}: start it earlier, or give "
            "a longer series"
        )
    if len(set(names)) != len(names):
        raise UserError(f"forecasters: {', '.join(names)}: give each another name")
    if reference not in names:
        raise UserError(f"reference: {reference} is not among the forecasters: choose one of {', '.join(names)}")
    for days in horizons:
        if days < 2:
            raise UserError(f"horizons: {days} is below 2; one day ahead is always judged: leave it out")
        if days > test_days:
            raise UserError(f"horizons: {days} days do not fit into a test of {test_days}: give a shorter horizon")
    if step < 1:
        raise UserError(f"step: {step} must be at least 1 day")


def _cumulated(
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
        paths_NH = forecaster.sample(origin, max(complete), count, rng)
        if paths_NH.shape != (count, max(complete)):
            raise ValueError(f"{forecaster.name}: paths of shape {paths_NH.shape}, not {(count, max(complete))}")
        cumulated_NH = np.cumsum(paths_NH, axis=1, dtype=float)
        for days in complete:
            sums[days].append(cumulated_NH[:, days - 1])
    return {days: np.stack(columns) for days, columns in sums.items()}


# ------------------------------------------------------------------------------------------------- measures per origin


def _measure(
    name: str, samples_ON: np.ndarray, outcome_O: np.ndarray, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What is averaged later, per origin: crps, pit, and of each band whether it holds the outcome and its width."""
    if samples_ON.shape != (len(outcome_O), count):
        raise ValueError(f"{name}: samples of shape {samples_ON.shape}, not {(len(outcome_O), count)}")
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
    resamples = Resamples(origins, overlap, seed)
    lags = overlap + int(4 * (origins / 100) ** (2 / 9))
    scores = {}
    for name, measures in measured.items():
        against_O = measures["crps"] - measured[reference]["crps"]
        is_reference = name == reference
        scores[name] = Score(
            crps=resamples.mean(measures["crps"]),
            difference=None if is_reference else resamples.mean(against_O),
            p_value=None if is_reference or resamples.too_few else diebold_mariano(against_O, lags),
            coverage={band: resamples.share(measures["holds" + band]) for band in BANDS},
            width={band: resamples.mean(measures["width" + band]) for band in BANDS},
            pit=np.histogram(measures["pit"], PIT_BINS, range=(0, 1))[0].tolist(),
        )
    return Horizon(days, step, origins, resamples.block, lags, scores)


class Resamples:
    """Means over origins with 95% intervals, by the stationary bootstrap (Politis & Romano 1994) of `arch`.

    Blocks of consecutive origins, of geometric length with mean `block`, are drawn with replacement. `block` is the
    cube root of the number of origins, the order that is best for a variance (Lahiri 2003, section 5.2), plus the
    number of neighbours that overlap an origin. Percentiles are taken a little outside 2.5% and 97.5%, as Student's t
    with one degree of freedom per block is wider than the normal (Hesterberg 2015, section 4.2). `too_few`: fewer than
    5 blocks; every interval is None then.
    """

    def __init__(self, origins: int, overlap: int, seed: int, repeats: int = 2000):
        self.block = round(origins ** (1 / 3)) + overlap
        self.blocks = origins / self.block
        self.too_few = self.blocks < MIN_BLOCKS
        self._independent = origins / (overlap + 1)
        if self.too_few:
            return
        from arch.bootstrap import StationaryBootstrap

        bootstrap = StationaryBootstrap(self.block, np.arange(origins), seed=np.random.default_rng(seed))
        # how often each resample holds each origin
        self.counts_RO = bootstrap.apply(functools.partial(np.bincount, minlength=origins), repeats).astype(float)

    def mean(self, values_O: np.ndarray) -> Estimate:
        """The mean and its percentile interval."""
        value = float(values_O.mean())
        if self.too_few:
            return Estimate(value, None)
        from scipy.stats import norm, t

        tail = norm.cdf(np.sqrt(self.blocks / (self.blocks - 1)) * t.ppf(0.025, self.blocks - 1))
        low, high = np.quantile(self.counts_RO @ values_O / len(values_O), [tail, 1 - tail])
        return Estimate(value, (float(low), float(high)))

    def share(self, hits_O: np.ndarray) -> Estimate:
        """A share and Wilson's score interval (1927), with Student's t, for the number of independent origins n.

        n makes the binomial variance that of the bootstrap, and is at most the number of origins; when all or no
        outcomes were hits, which leaves nothing to resample, it is the number of origins that do not overlap.
        """
        share = float(hits_O.mean())
        if self.too_few:
            return Estimate(share, None)
        from scipy.stats import t

        variance = float((self.counts_RO @ hits_O / len(hits_O)).var())
        n = min(len(hits_O), share * (1 - share) / variance) if variance > 1e-12 else self._independent
        z = float(t.ppf(0.975, self.blocks - 1))
        centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)
        return Estimate(share, (float((centre - half) / (1 + z**2 / n)), float((centre + half) / (1 + z**2 / n))))


def diebold_mariano(difference_O: np.ndarray, lags: int) -> float:
    """Two-sided p-value for a mean of zero of the differences of two forecasters' losses (Diebold & Mariano 1995).

    The mean over its standard error from autocovariances up to `lags` with Bartlett weights, which keep the variance
    positive (Newey & West 1987); the statistic times sqrt((n + 1 - 2h + h(h-1)/n) / n) with h = lags + 1, against
    Student's t with n - 1 degrees of freedom (Harvey, Leybourne & Newbold 1997). `judge` takes lags = the
    overlapping neighbours, which the theory asks for, plus floor(4 (n / 100)^(2/9)), because the losses of forecasters
    that follow volatility differently are correlated beyond it (bandwidth as in Newey & West 1994).

    Differences that are all alike have no variance: the p-value is 1 when they are 0, and otherwise 0.
    """
    from scipy.stats import t

    n, h = len(difference_O), lags + 1
    mean = float(difference_O.mean())
    centred_O = difference_O - mean
    autocovariance = [float(centred_O[k:] @ centred_O[: n - k]) / n for k in range(h)]
    variance = autocovariance[0] + 2 * sum((1 - k / h) * autocovariance[k] for k in range(1, h))
    if variance <= 1e-24 * max(1.0, mean**2):
        return 1.0 if mean == 0 else 0.0
    correction = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    return float(2 * t.sf(abs(mean / np.sqrt(variance / n) * correction), n - 1))


# ---------------------------------------------------------------------------------------------------------------- table


def print_judgement(judgement: Judgement, heading: str = "") -> None:
    """Print the judgement within 80 columns; `heading` says what series and which days."""
    from rich.console import Console

    console = Console(markup=False)  # a name may hold brackets
    if heading:
        console.print(f"\n{heading}: {judgement.test_days:,} test days", style="bold", highlight=False)
    for horizon in judgement.horizons:
        ahead = f"{horizon.days} day{'s' * (horizon.days > 1)} ahead, from {horizon.origins:,} days"
        if horizon.days > 1:
            ahead += f", every {horizon.step}"
        if next(iter(horizon.scores.values())).crps.ci95 is None:
            console.print(f"\n{ahead}: too few for an interval, so nothing is said", highlight=False)
            continue
        console.print(f"\n{ahead}; CRPS and widths in % points of log return", style="bold", highlight=False)
        console.print(_errors(horizon, judgement.reference))
        console.print()
        console.print(_bands(horizon, BANDS if horizon.days == 1 else ["90"]))
    blocks = ", ".join(f"{horizon.block} ({horizon.days}-day)" for horizon in judgement.horizons)
    console.print(
        "\nCRPS: lower is better. p: Diebold-Mariano, two-sided, of one comparison; among several a small one is "
        f"little. 95% intervals: stationary bootstrap in blocks of {blocks} origins on average; of coverage Wilson, "
        "for the number of independent origins that it implies. Bands should hold as much as their name says. Samples "
        f"per origin: {judgement.samples:,}, of baselines {judgement.baseline_samples:,}; intervals contain their "
        "noise.",
        style="dim",
        highlight=False,
    )


def _errors(horizon: Horizon, reference: str) -> Table:
    table = _table("CRPS", "95% interval", f"minus {reference}", "95% interval", "p")
    for name, score in horizon.scores.items():
        cells = ["-", "-", "-"]
        if score.difference and score.p_value is not None:
            p = "<0.001" if score.p_value < 0.001 else f"{score.p_value:.3f}"
            cells = [f"{score.difference.value:+.3f}", _interval(score.difference.ci95, 1, 3, "+"), p]
        table.add_row(name, f"{score.crps.value:.3f}", _interval(score.crps.ci95, 1, 3), *cells)
    return table


def _bands(horizon: Horizon, bands: Iterable[str]) -> Table:
    table = _table("band", "holds", "95% interval", "mean width", "95% interval")
    for name, score in horizon.scores.items():
        for band in bands:
            holds, width = score.coverage[band], score.width[band]
            cells = [f"{band}%", f"{holds.value:.1%}", _interval(holds.ci95, 100, 1)]
            table.add_row(name, *cells, f"{width.value:.2f}", _interval(width.ci95, 1, 2))
    return table


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _interval(interval: Interval | None, factor: float, digits: int, sign: str = "") -> str:
    if interval is None:
        return "-"
    return f"{factor * interval[0]:{sign}.{digits}f} to {factor * interval[1]:{sign}.{digits}f}"
