"""`stonk forecast`: paths a price may take, as quantiles, CSV and fan chart; with `--evaluate`, how good they were.

The last `context_len` tokens before the day of the forecast are read once, and `paths` futures are sampled from there.
`--evaluate` walks over the test dates and sets every model beside GARCH-t, EWMA and history (`judge.py`), and beside
the stage before it (`stages.py`). Several models are several stages, in the order given.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.tables import short_names
from stonk_trainer.files import make_folder, whole, write_json, write_whole
from stonk_trainer.options import option
from stonk_trainer.recipe import check_day, check_ranges, load_command
from stonk_trainer.tasks.btc.arguments import QUANTILES, REWARDS, Market
from stonk_trainer.terminal import log, start_log
from stonk_trainer.training.checkpoints import PREVIOUS

if TYPE_CHECKING:
    from stonk_trainer.tasks.btc.codec import Codec
    from stonk_trainer.tasks.btc.forecaster import GPTForecaster
    from stonk_trainer.tasks.btc.returns import Series


@dataclass
class Forecast(Market):
    """Forecast the paths a price may take, or judge forecasts on the test dates."""

    model: list[str] = option([], "Folder of a GPT; with evaluate, of several.")
    dataset_name: str = option("embedded:BTC", "Daily prices of one asset: a CSV file, or embedded:BTC.", "--csv")
    codec: str | None = option(None, "The codec; left out: the one in the (first) model's folder.")
    output_dir: str = option("runs/btc/forecast", "Folder for tables and pictures.")
    horizon: int = option(30, "Days ahead.")
    paths: int = option(500, "Sampled paths.")
    date: str | None = option(None, "Last day the forecast knows, YYYY-MM-DD; left out: the last of the prices.")
    context_len: int = option(256, "Tokens read before a forecast.")
    temperature: float = option(1.0, "1: as the model says; below: narrower.")
    seed: int = option(42, "Seed of the samples.")
    evaluate: bool = option(False, "Judge the model(s) on the test dates instead.")
    test_start: str | None = option(None, "First day of the test; left out: the day after the codec's validation_end.")
    test_end: str | None = option(None, "Last day of the test; left out: of the prices.")
    horizons: list[int] = option([5, 20], "evaluate: days ahead, besides 1.")
    step: int = option(5, "evaluate: days from one path's origin to the next.")
    reward: list[str] = option(
        ["token_acc", "crps"], "evaluate: rewards to compare the stages by, on held-out contexts."
    )
    reward_context_len: int = option(128, "evaluate: tokens before a rewarded future.")
    reward_horizon: int = option(32, "evaluate: tokens of a rewarded future.")
    cost_bps: float = option(5.0, "pnl: cost of trading, in hundredths of a percent.")

    def __post_init__(self):
        super().__post_init__()
        if not self.model:
            raise UserError("no model: give its folder with --model, such as runs/btc/rl/best_model")
        if len(self.model) > 1 and not self.evaluate:
            raise UserError(f"model: --evaluate true compares {len(self.model)} models; give one for a forecast")
        lengths = "horizon context_len step reward_context_len reward_horizon"
        check_ranges(self, {"[1, inf)": lengths, "(0, inf)": "temperature", "[0, inf)": "cost_bps seed"})
        if self.paths < 100:
            raise UserError(f"paths: {self.paths} are too few for the ends of a 90% band: give at least 100")
        for name in ("date", "test_start", "test_end"):
            check_day(name, getattr(self, name))
        if Path(self.output_dir).is_file():
            raise UserError(f"output_dir: {self.output_dir} is a file: give a folder")
        for name in self.reward:
            if name not in REWARDS:
                raise UserError(f"reward: {name} is not one of {', '.join(REWARDS)}")


def main(argv: Sequence[str]) -> None:
    run = load_command(
        list(argv), "forecast", Forecast, "--model runs/btc/rl/best_model --csv BTC-USD.csv --horizon 30"
    )

    from stonk_trainer.tasks.btc.dataset import codec_of, series_of
    from stonk_trainer.tasks.btc.forecaster import load_forecaster
    from stonk_trainer.tasks.btc.returns import scale_of

    start_log()
    for folder in run.model:
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"model {folder} not found: give its folder, such as runs/btc/rl/best_model")
    all_series = series_of(run)
    if len(all_series) != 1:
        raise UserError(f"{run.dataset_name} has {len(all_series)} series: choose one with --tickers")
    series = all_series[0]
    codec = codec_of(run, run.codec, run.model[0])
    scale = scale_of(series, codec.config.train_end)
    forecasters = [
        load_forecaster(folder, codec, series.returns, scale, run.context_len, name)
        for folder, name in zip(run.model, short_names(run.model), strict=True)
    ]
    output = make_folder(run.output_dir, "output_dir")
    if run.evaluate:
        _evaluate(run, codec, series, forecasters, output)
    else:
        _forecast(run, series, forecasters[0], output)


# ---------------------------------------------------------------------------------------------------- forecast


class Fan(NamedTuple):
    """Sampled paths of a price: `last`, the day they start from; `days`, those of the known closes and the H after;
    `known` closes up to `last`; prices_NH, a row per path; `after`, the closes that came, as far as the horizon and the
    prices reach."""

    last: str
    days: np.ndarray
    known: np.ndarray
    prices_NH: np.ndarray
    after: np.ndarray


def sample_fan(
    series: Series,
    forecaster: GPTForecaster,
    origin: int,
    horizon: int,
    paths: int,
    seed: int,
    temperature: float = 1.0,
) -> Fan:
    """`paths` paths of the `horizon` days after the first `origin` returns of a series."""
    closes = series.first_close * np.exp(np.cumsum(series.returns))
    paths_NH = forecaster.sample(origin, horizon, paths, np.random.default_rng(seed), temperature)
    prices_NH = closes[origin - 1] * np.exp(np.cumsum(paths_NH, axis=1))
    days, after = with_days_after(series.dates, origin, horizon), closes[origin : origin + horizon]
    return Fan(str(series.dates[origin - 1]), days, closes[:origin], prices_NH, after)


def with_days_after(dates: np.ndarray, origin: int, horizon: int) -> np.ndarray:
    """The first `origin` days of a series and the `horizon` after them; those that are not known yet are the next days,
    or the next weekdays where the series has no weekends."""
    known = dates[: origin + horizon]
    missing = np.arange(1, origin + horizon - len(known) + 1)
    weekdays = np.is_busday(dates).all()
    further = np.busday_offset(known[-1], missing, roll="backward") if weekdays else known[-1] + missing
    return np.concatenate([known, further])


def _forecast(run: Forecast, series: Series, forecaster: GPTForecaster, folder: Path) -> None:
    from stonk_trainer.tasks.btc.dataset import warn_if_seen

    origin = len(series.returns)
    if run.date:
        origin = int(np.searchsorted(series.dates, np.datetime64(run.date), side="right"))
        if not origin:
            raise UserError(f"date: the prices start after {run.date}, on {series.dates[0]}")
    warn_if_seen(series, series.dates[origin - 1], forecaster.codec)
    fan = sample_fan(series, forecaster, origin, run.horizon, run.paths, run.seed, run.temperature)
    print(f"{series.name} after {fan.last}, close {fan.known[-1]:,.6g}: {run.paths} paths of {run.horizon} days")
    print(quantile_table(fan.known[-1], fan.prices_NH))
    picture = draw_fan(series.name, fan)
    _move_earlier(folder)
    write_paths(folder / "paths.csv", fan.prices_NH, fan.last)
    write_whole(folder / "fan.png", picture)
    print(f"saved {folder}/paths.csv and fan.png")


def _move_earlier(folder: Path) -> None:
    """Move an earlier forecast in the same folder away, as a run does with an earlier run."""
    if found := [folder / name for name in ("paths.csv", "fan.png") if (folder / name).exists()]:
        before = make_folder(folder / PREVIOUS, "output_dir")
        for path in found:
            path.replace(before / path.name)
        log.info("%s: an earlier forecast moved to %s", folder, before)


def quantile_table(now: float, prices_NH: np.ndarray) -> str:
    """Quantiles of the price over the paths, and the share of paths above the price now, for chosen days ahead."""
    horizon = prices_NH.shape[1]
    days = sorted({day for day in (1, 2, 5, 10, 20, 30, 60, 90, horizon) if day <= horizon})
    lines = ["day ahead" + "".join(f"{q:>12.0%}" for q in QUANTILES) + "  above now"]
    for day in days:
        prices_N = prices_NH[:, day - 1]
        quantiles = "".join(f"{value:>12,.6g}" for value in np.quantile(prices_N, QUANTILES))
        lines.append(f"{day:>9}{quantiles}{(prices_N > now).mean():>11.0%}")
    return "\n".join(lines)


def write_paths(path: Path, prices_NH: np.ndarray, last: str) -> None:
    """A CSV of prices: a comment with the last day known, then one row per path, one column per day ahead."""
    days = ",".join(f"day_{day}" for day in range(1, prices_NH.shape[1] + 1))
    numbered = np.column_stack([np.arange(1, len(prices_NH) + 1), prices_NH])
    with whole(path) as file:
        np.savetxt(file, numbered, "%.8g", ",", header=f"# prices after {last}\npath,{days}", comments="")


def draw_fan(name: str, fan: Fan) -> bytes:
    """A fan chart as PNG: the closes before, bands that hold 50% and 90% of the paths, and what came after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    paths, horizon = fan.prices_NH.shape
    known = fan.known[-3 * horizon :]
    before, days = fan.days[:-horizon][-len(known) :], fan.days[-horizon - 1 :]
    with_now = np.concatenate([np.full((paths, 1), known[-1]), fan.prices_NH], axis=1)
    bands = np.quantile(with_now, QUANTILES, axis=0)
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.plot(before, known, color="black", linewidth=1.2, label="close")
    axes.fill_between(days, bands[0], bands[-1], color="tab:blue", alpha=0.2, linewidth=0, label="90% of the paths")
    axes.fill_between(days, bands[1], bands[-2], color="tab:blue", alpha=0.35, linewidth=0, label="50% of the paths")
    axes.plot(days, bands[2], color="tab:blue", linewidth=1.2, label="median")
    if len(fan.after):
        after = [known[-1], *fan.after]
        axes.plot(days[: len(after)], after, color="tab:red", linewidth=1.2, label="what came")
    axes.axvline(days[0], color="0.6", linewidth=0.8)
    axes.set(xlabel=f"the forecast begins after {fan.last}", ylabel="price")
    axes.xaxis.set_major_locator(locator := AutoDateLocator(maxticks=9))
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_title(f"{name}: {paths} paths of {horizon} days", parse_math=False)  # a ticker may have a $
    axes.legend(loc="best")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    return picture.getvalue()


# ---------------------------------------------------------------------------------------------------- evaluation


def _evaluate(run: Forecast, codec: Codec, series: Series, forecasters: list[GPTForecaster], folder: Path) -> None:
    from stonk_trainer.tasks.btc import judge, stages
    from stonk_trainer.tasks.btc.baselines import baselines
    from stonk_trainer.tasks.btc.tokens import range_of, tokenise

    ends = codec.config.validation_end
    if run.test_start and run.test_start <= ends:
        raise UserError(f"test_start: {run.test_start} is not after {ends}, where validation ends")
    until = np.searchsorted(series.dates, np.datetime64(run.test_end or series.dates[-1]), side="right")
    start = np.datetime64(run.test_start) if run.test_start else np.datetime64(ends) + 1
    test_from = int(np.searchsorted(series.dates[:until], start))
    returns = series.returns[:until]
    if len(returns) - test_from < 30:
        raise UserError(
            f"{series.name} has {len(returns) - test_from} days from {start} to {series.dates[until - 1]}: give prices "
            "with at least 30 days of test"
        )
    tokenised = tokenise(series, codec)
    summary: dict = {"series": series.name, "models": dict(zip((f.name for f in forecasters), run.model, strict=True))}
    train_end = range_of(tokenised, codec, "train")[1]
    test = np.searchsorted(tokenised.dates, [start, series.dates[until - 1] + 1]).tolist()
    for split, (first, end) in {"validation": range_of(tokenised, codec, "validation"), "test": test}.items():
        if end - first < 30:
            log.warning("%s has %d tokens: too few to judge the stages on it", split, end - first)
            continue
        bits = stages.bits_per_token(forecasters, tokenised, train_end, first, end, run.seed)
        days = f"{tokenised.dates[first]} to {tokenised.dates[end - 1]}"
        stages.print_bits(bits, f"{series.name}, {split}, {days}")
        summary[f"bits_{split}"] = [asdict(one) for one in bits]
    earned = stages.rewards(
        forecasters, tokenised, train_end, test[1], run.reward, run.reward_context_len, run.reward_horizon,
        run.step, run.cost_bps, run.seed,
    )  # fmt: skip
    stages.print_rewards(earned, f"{series.name}, {run.reward_horizon} tokens after held-out contexts")
    summary["rewards"] = {name: [asdict(one) for one in found] for name, found in earned.items()}
    log.info("judging %d days from %s on", len(returns) - test_from, start)
    judged = judge.judge(
        [*baselines(returns, test_from), *forecasters], returns, test_from, run.horizons, run.step, run.paths,
        seed=run.seed,
    )  # fmt: skip
    judge.print_judgement(judged, f"{series.name}, test, {start} to {series.dates[until - 1]}")
    summary["judgement"] = asdict(judged)
    write_json(folder / "evaluation.json", summary)
    print(f"\nsaved {folder}/evaluation.json")
