"""`stonk forecast`: paths a price may take, as quantiles, CSV and fan chart; with `--evaluate`, how good they were.

The last `context_len` tokens before the day of the forecast are read once, and `paths` futures are sampled from there.
`--evaluate` walks over the test dates and sets every model beside GARCH-t, EWMA and history (`judge.py`), and beside
the stage before it (`stages.py`). Several models are several stages, in the order given.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import check_day, load_command
from stonk_trainer.tasks.btc import QUANTILES, Btc, Market
from stonk_trainer.terminal import log, start_log

if TYPE_CHECKING:
    from stonk_trainer.tasks.btc.codec import Codec
    from stonk_trainer.tasks.btc.forecaster import GPTForecaster
    from stonk_trainer.tasks.btc.returns import Series


@dataclass
class Forecast(Market):
    """Forecast the paths a price may take, or judge forecasts on the test dates."""

    model: list[str] = field(default_factory=list, metadata={"help": "Folder of a GPT; with evaluate, of several."})
    dataset_name: str = field(
        default="embedded:BTC",
        metadata={"help": "Daily prices of one asset: a CSV file, or embedded:BTC.", "aliases": ["--csv"]},
    )
    codec: str | None = field(
        default=None, metadata={"help": "The codec; left out: the one in the (first) model's folder."}
    )
    output_dir: str = field(default="runs/btc/forecast", metadata={"help": "Folder for tables and pictures."})
    horizon: int = field(default=30, metadata={"help": "Days ahead."})
    paths: int = field(default=500, metadata={"help": "Sampled paths."})
    date: str | None = field(
        default=None, metadata={"help": "Last day the forecast knows, YYYY-MM-DD; left out: the last of the prices."}
    )
    context_len: int = field(default=256, metadata={"help": "Tokens read before a forecast."})
    temperature: float = field(default=1.0, metadata={"help": "1: as the model says; below: narrower."})
    seed: int = field(default=42, metadata={"help": "Seed of the samples."})
    evaluate: bool = field(default=False, metadata={"help": "Judge the model(s) on the test dates instead."})
    test_start: str | None = field(
        default=None, metadata={"help": "First day of the test; left out: the day after the codec's validation_end."}
    )
    test_end: str | None = field(default=None, metadata={"help": "Last day of the test; left out: of the prices."})
    horizons: list[int] = field(default_factory=lambda: [5, 20], metadata={"help": "evaluate: days ahead, besides 1."})
    step: int = field(default=5, metadata={"help": "evaluate: days from one path's origin to the next."})
    reward: list[str] = field(
        default_factory=lambda: ["token_acc", "crps"],
        metadata={"help": "evaluate: rewards to compare the stages by, on held-out contexts."},
    )
    reward_context_len: int = field(default=128, metadata={"help": "evaluate: tokens before a rewarded future."})
    reward_horizon: int = field(default=32, metadata={"help": "evaluate: tokens of a rewarded future."})
    cost_bps: float = field(default=5.0, metadata={"help": "pnl: cost of trading, in hundredths of a percent."})

    def __post_init__(self):
        super().__post_init__()
        if not self.model:
            raise UserError("no model: give its folder with --model, such as runs/btc/rl/best_model")
        if len(self.model) > 1 and not self.evaluate:
            raise UserError(
                f"model: {len(self.model)} models are compared with --evaluate true; give one for a forecast"
            )
        for name in ("horizon", "context_len", "step", "reward_context_len", "reward_horizon"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.paths < 100:
            raise UserError(f"paths: {self.paths} are too few for the ends of a 90% band: give at least 100")
        if not self.temperature > 0:
            raise UserError(f"temperature: {self.temperature} must be above 0")
        for name in ("date", "test_start", "test_end"):
            check_day(name, getattr(self, name))
        if Path(self.output_dir).is_file():
            raise UserError(f"output_dir: {self.output_dir} is a file: give a folder")
        for name in self.reward:
            if name not in Btc.REWARDS:
                raise UserError(f"reward: {name} is not one of {', '.join(Btc.REWARDS)}")


def main(argv: Sequence[str]) -> None:
    run = load_command(
        list(argv), "forecast", Forecast, "--model runs/btc/rl/best_model --csv BTC-USD.csv --horizon 30"
    )

    from stonk_trainer.tasks.btc.codec import load_codec
    from stonk_trainer.tasks.btc.dataset import series_of, with_dates
    from stonk_trainer.tasks.btc.forecaster import load_forecaster
    from stonk_trainer.tasks.btc.returns import scale_of

    start_log()
    all_series = series_of(run)
    if len(all_series) != 1:
        raise UserError(f"{run.dataset_name} has {len(all_series)} series: choose one with --tickers")
    series = all_series[0]
    where = run.codec or str(Path(run.model[0]) / "codec")
    codec = with_dates(load_codec(where), where, run.train_end, run.validation_end)
    scale = scale_of(series, codec.config.train_end)
    names = _short_names(run.model)
    forecasters = [
        load_forecaster(folder, codec, series.returns, scale, run.context_len, name)
        for folder, name in zip(run.model, names, strict=True)
    ]
    folder = make_folder(run.output_dir, "output_dir")
    if run.evaluate:
        _evaluate(run, codec, series, forecasters, folder)
    else:
        _forecast(run, series, forecasters[0], folder)


def _short_names(folders: Sequence[str]) -> list[str]:
    """What tells the folders apart: `sft` of runs/btc/sft/best_model."""
    parts = [[part for part in Path(folder).parts if part not in ("best_model", "/")] for folder in folders]
    names = [own[-1] if own else str(folder) for own, folder in zip(parts, folders, strict=True)]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


# ---------------------------------------------------------------------------------------------------- forecast


class Fan(NamedTuple):
    """Sampled paths of a price: `last`, the day they start from; `known` closes up to it; prices_NH, a row per path;
    `after`, the closes that came, as far as the horizon and the prices reach."""

    last: str
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
    return Fan(str(series.dates[origin - 1]), closes[:origin], prices_NH, closes[origin : origin + horizon])


def _forecast(run: Forecast, series: Series, forecaster: GPTForecaster, folder: Path) -> None:
    origin = len(series.returns)
    if run.date:
        origin = int(np.searchsorted(series.dates, np.datetime64(run.date), side="right"))
        if not origin:
            raise UserError(f"date: the prices start after {run.date}, on {series.dates[0]}")
    seen_until = forecaster.codec.config.train_end
    if str(series.dates[origin - 1]) < seen_until:
        log.warning("the model has learnt from days up to %s: this shows what it remembers, no forecast", seen_until)
    fan = sample_fan(series, forecaster, origin, run.horizon, run.paths, run.seed, run.temperature)
    print(f"{series.name} after {fan.last}, close {fan.known[-1]:,.6g}: {run.paths} paths of {run.horizon} days")
    print(quantile_table(fan.known[-1], fan.prices_NH))
    write_paths(folder / "paths.csv", fan.prices_NH, fan.last)
    (folder / "fan.png").write_bytes(draw_fan(series.name, fan))
    print(f"saved {folder}/paths.csv and fan.png")


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
    """One row per path, one column per day ahead; prices."""
    header = f"path,{','.join(f'day_{day}' for day in range(1, prices_NH.shape[1] + 1))}"
    rows = [f"{number},{','.join(f'{price:.8g}' for price in row)}" for number, row in enumerate(prices_NH, start=1)]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join([f"# prices after {last}", header, *rows]) + "\n")
    temporary.replace(path)


def draw_fan(name: str, fan: Fan) -> bytes:
    """A fan chart as PNG: the closes before, bands that hold 50% and 90% of the paths, and what came after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    paths, horizon = fan.prices_NH.shape
    known = fan.known[-3 * horizon :]
    days = np.arange(horizon + 1)
    with_now = np.concatenate([np.full((paths, 1), known[-1]), fan.prices_NH], axis=1)
    bands = np.quantile(with_now, QUANTILES, axis=0)
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.plot(np.arange(-len(known) + 1, 1), known, color="black", linewidth=1.2, label="close")
    axes.fill_between(days, bands[0], bands[-1], color="tab:blue", alpha=0.2, linewidth=0, label="90% of the paths")
    axes.fill_between(days, bands[1], bands[-2], color="tab:blue", alpha=0.35, linewidth=0, label="50% of the paths")
    axes.plot(days, bands[2], color="tab:blue", linewidth=1.2, label="median")
    if len(fan.after):
        axes.plot(
            np.arange(len(fan.after) + 1), [known[-1], *fan.after], color="tab:red", linewidth=1.2, label="what came"
        )
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel(f"days after {fan.last}")
    axes.set_ylabel("price")
    axes.set_title(f"{name}: {paths} paths of {horizon} days", parse_math=False)  # $ stands in tickers
    axes.legend(loc="best")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    return picture.getvalue()


# ---------------------------------------------------------------------------------------------------- evaluation


def _evaluate(run: Forecast, codec: Codec, series: Series, forecasters: list[GPTForecaster], folder: Path) -> None:
    from stonk_trainer.tasks.btc import judge, stages
    from stonk_trainer.tasks.btc.baselines import baselines
    from stonk_trainer.tasks.btc.dataset import range_of
    from stonk_trainer.tasks.btc.tokens import tokenise

    config = codec.config
    if run.test_start and run.test_start <= config.validation_end:
        raise UserError(f"test_start: {run.test_start} is not after {config.validation_end}, where validation ends")
    until = np.searchsorted(series.dates, np.datetime64(run.test_end or series.dates[-1]), side="right")
    start = np.datetime64(run.test_start) if run.test_start else np.datetime64(config.validation_end) + 1
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
    ends = np.searchsorted(tokenised.dates, [start, series.dates[until - 1] + 1])
    ranges = {"validation": range_of(tokenised, codec, "validation"), "test": (int(ends[0]), int(ends[1]))}
    for split, (first, end) in ranges.items():
        if end - first < 30:
            log.warning("%s has %d tokens: too few to judge the stages on it", split, end - first)
            continue
        bits = stages.bits_per_token(forecasters, tokenised, train_end, first, end, run.seed)
        days = f"{tokenised.dates[first]} to {tokenised.dates[end - 1]}"
        stages.print_bits(bits, f"{series.name}, {split}, {days}")
        summary[f"bits_{split}"] = [asdict(one) for one in bits]
    earned = stages.rewards(
        forecasters, tokenised, train_end, int(ends[1]), run.reward, run.reward_context_len, run.reward_horizon,
        run.step, run.cost_bps, run.seed,
    )  # fmt: skip
    stages.print_rewards(earned, f"{series.name}, {run.reward_horizon} tokens after held-out contexts")
    summary["rewards"] = {name: [asdict(one) for one in found] for name, found in earned.items()}
    log.info("judging %d days from %s on", len(returns) - test_from, start)
    judged = judge.judge(
        [*baselines(returns, test_from), *forecasters], returns, test_from, run.horizons, run.step,
        samples=max(run.paths, 100), seed=run.seed,
    )  # fmt: skip
    judge.print_judgement(judged, f"{series.name}, test, {start} to {series.dates[until - 1]}")
    summary["judgement"] = judge.as_dict(judged)
    (folder / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\nsaved {folder}/evaluation.json")
