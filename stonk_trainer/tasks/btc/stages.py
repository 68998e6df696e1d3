"""What each stage has learnt of one asset: bits per token on held-out dates, and rewards on held-out contexts.

Every figure has a 95% interval that resamples blocks of origins (`evaluation.stats.DayBootstrap`), and stands beside
what it must beat: counting tokens (unigram), counting pairs (bigram), and the stage before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stonk_trainer.evaluation.stats import DayBootstrap, Estimate
from stonk_trainer.tasks.btc.forecaster import GPTForecaster
from stonk_trainer.tasks.btc.gpt import next_token_log_probs, sample_paths
from stonk_trainer.tasks.btc.rewards import decode_futures, reward_values
from stonk_trainer.tasks.btc.tokens import TokenSeries, contexts
from stonk_trainer.terminal import make_console, plain_table

PSEUDO_COUNT = 0.5  # of every token, so that none has probability 0 (Krichevsky & Trofimov 1981)
SAMPLES = 64  # per context, for rewards
AT_ONCE = 8  # contexts sampled together


@dataclass(frozen=True)
class Compared:
    """A mean, and its differences to what it stands beside; None where there is nothing to compare with."""

    name: str
    mean: Estimate
    minus_unigram: Estimate | None
    minus_before: Estimate | None


def counted_bits(tokens: np.ndarray, train_end: int, first: int, end: int, codes: int) -> dict[str, np.ndarray]:
    """Bits of tokens [first, end) under counts of tokens [0, train_end): `unigram` and `bigram`.

    The bigram's counts are smoothed towards the unigram with a weight chosen on the training tokens themselves, each
    left out of its own counts (Jelinek & Mercer 1980).
    """
    train = tokens[:train_end]
    unigram = (np.bincount(train, minlength=codes) + PSEUDO_COUNT) / (len(train) + PSEUDO_COUNT * codes)
    pairs = np.zeros((codes, codes))
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    before, after = train[:-1], train[1:]
    counts = pairs[before, after] - 1  # without the pair itself
    totals = np.maximum(pairs[before].sum(1) - 1, 0)
    own = np.divide(counts, totals, out=np.zeros(len(counts)), where=totals > 0)
    weight = max(np.linspace(0, 0.99, 100), key=lambda w: np.log(w * own + (1 - w) * unigram[after]).sum())
    rows = pairs.sum(1, keepdims=True)
    bigram = weight * np.divide(pairs, rows, out=np.tile(unigram, (codes, 1)), where=rows > 0) + (1 - weight) * unigram
    return {
        "unigram": -np.log2(unigram[tokens[first:end]]),
        "bigram": -np.log2(bigram[tokens[first - 1 : end - 1], tokens[first:end]]),
    }


def bits_per_token(
    forecasters: Sequence[GPTForecaster], series: TokenSeries, train_end: int, first: int, end: int, seed: int
) -> list[Compared]:
    """Unigram, bigram and each forecaster on tokens [first, end), counted on those before `train_end`: bits, lower is
    better. Every token is predicted from the forecaster's own context."""
    first = max(first, 1)
    codes = forecasters[0].codec.config.codebook_size
    bits = counted_bits(series.tokens, train_end, first, end, codes)
    places = np.arange(first, end)
    for forecaster in forecasters:
        log_probs = next_token_log_probs(forecaster.model, series.tokens, places.tolist(), forecaster.context_len)
        bits[forecaster.name] = -log_probs[np.arange(len(places)), series.tokens[first:end]].numpy() / np.log(2)
    return _compare(bits, DayBootstrap(range(len(places)), seed), [forecaster.name for forecaster in forecasters])


def rewards(
    forecasters: Sequence[GPTForecaster],
    series: TokenSeries,
    first: int,
    end: int,
    names: Sequence[str],
    context_len: int,
    horizon: int,
    step: int,
    cost_bps: float,
    seed: int,
) -> dict[str, list[Compared]]:
    """By reward, what each forecaster earns on average, higher is better; for crps what it is to raise, minus the CRPS.

    64 samples of `horizon` tokens follow each context of `context_len` tokens, every `step` tokens, where the whole
    future lies in [first, end). Empty when no context fits. Every forecaster meets the same random numbers.
    """
    origins = contexts(first, end, context_len, horizon, step)
    if not len(origins):
        return {}
    contexts_OC = np.stack([series.tokens[origin - context_len : origin] for origin in origins])
    earned: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for forecaster in forecasters:
        generator = torch.Generator().manual_seed(seed)
        values: dict[str, list[float]] = {name: [] for name in names}
        for start in range(0, len(origins), AT_ONCE):
            contexts_BC = contexts_OC[start : start + AT_ONCE]
            codes = forecaster.codec.config.codebook_size
            sampled_BNH = sample_paths(
                forecaster.model, torch.from_numpy(contexts_BC), horizon, SAMPLES, codes, generator=generator
            ).numpy()
            for origin, context_C, samples_NH in zip(origins[start:], contexts_BC, sampled_BNH, strict=False):
                found = _rewards(forecaster, series, origin, context_C, samples_NH, names, cost_bps)
                for name in names:
                    values[name].append(float(found[name].mean()))
        for name in names:
            earned[name][forecaster.name] = np.array(values[name])
    bootstrap = DayBootstrap(range(len(origins)), seed, overlap=(horizon - 1) // step)
    stages = [forecaster.name for forecaster in forecasters]
    return {name: _compare(values, bootstrap, stages) for name, values in earned.items()}


def _rewards(
    forecaster: GPTForecaster,
    series: TokenSeries,
    origin: int,
    context_C: np.ndarray,
    samples_NH: np.ndarray,
    names: Sequence[str],
    cost_bps: float,
) -> dict[str, np.ndarray]:
    """By reward, (N,) what samples after one context earn."""
    count, horizon = samples_NH.shape
    paths_ND = decode_futures(
        forecaster.codec, np.tile(context_C, (count, 1)), samples_NH, np.full(count, series.scale)
    )
    true_NH = np.tile(series.tokens[origin : origin + horizon], (count, 1))
    true_ND = np.tile(series.returns[origin : origin + horizon].ravel(), (count, 1))
    return reward_values(names, samples_NH, true_NH, paths_ND, true_ND, [""] * count, cost_bps, spread=0.5)


def _compare(values: Mapping[str, np.ndarray], bootstrap: DayBootstrap, stages: Sequence[str]) -> list[Compared]:
    """values: by name, (O,) one per origin."""
    found = []
    for name, own in values.items():
        beside = {"unigram": values.get("unigram") if name != "unigram" else None, "before": None}
        if name in stages[1:]:
            beside["before"] = values[stages[stages.index(name) - 1]]
        differences = {key: None if other is None else bootstrap.estimate(own - other) for key, other in beside.items()}
        found.append(Compared(name, bootstrap.estimate(own), differences["unigram"], differences["before"]))
    return found


def print_bits(found: Sequence[Compared], heading: str) -> None:
    rows = [(one.name, one.mean, one.minus_unigram, one.minus_before) for one in found]
    _print(heading + "; bits per token, lower is better", ("bits", "minus unigram", "minus stage before"), rows, 3)


def print_rewards(found: Mapping[str, Sequence[Compared]], heading: str) -> None:
    rows = [(f"{name}: {one.name}", one.mean, one.minus_before) for name, stages in found.items() for one in stages]
    _print(heading + "; rewards, higher is better", ("mean", "minus stage before"), rows, 5)


def _print(heading: str, titles: Sequence[str], rows: Sequence[tuple], digits: int) -> None:
    """Within 80 columns; each figure with its 95% interval in brackets."""
    console = make_console()
    console.print(f"\n{heading}", style="bold")
    table = plain_table("", *titles, numbers=titles, narrow=True)
    for name, mean, *differences in rows:
        table.add_row(name, _cell(mean, digits), *(_cell(difference, digits, "+") for difference in differences))
    console.print(table)


def _cell(estimate: Estimate | None, digits: int, sign: str = "") -> str:
    if estimate is None:
        return "-"
    form = f"{sign}.{digits}f"
    interval = ", ".join(f"{end:{form}}" for end in estimate.ci95) if estimate.ci95 else "too few"
    return f"{estimate.value:{form}} ({interval})"
