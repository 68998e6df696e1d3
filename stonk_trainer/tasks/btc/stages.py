"""What each stage has learnt of one asset: bits per token on held-out dates, and rewards on held-out contexts.

Every figure has a 95% interval by the stationary bootstrap over origins (`judge.Resamples`), and stands beside what it
must beat: counting tokens (unigram), counting pairs (bigram), and the stage before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.forecaster import GPTForecaster
from stonk_trainer.tasks.btc.gpt import next_token_log_probs, sample_paths
from stonk_trainer.tasks.btc.judge import Estimate, Resamples
from stonk_trainer.tasks.btc.rewards import crps, decode_futures, reward_values
from stonk_trainer.tasks.btc.tokens import TokenSeries, contexts

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
    better. Every token is predicted from the forecaster's own context. Raises UserError for fewer than 30 tokens."""
    if end - first < 30:
        raise UserError(f"{series.name}: {end - first} tokens to judge on are too few: give at least 30")
    first = max(first, 1)
    codes = forecasters[0].codec.config.codebook_size
    bits = counted_bits(series.tokens, train_end, first, end, codes)
    places = np.arange(first, end)
    for forecaster in forecasters:
        log_probs = next_token_log_probs(forecaster.model, series.tokens, places.tolist(), forecaster.context_len)
        bits[forecaster.name] = -log_probs[np.arange(len(places)), series.tokens[first:end]].numpy() / np.log(2)
    return _compare(bits, Resamples(len(places), 0, seed), stages=[forecaster.name for forecaster in forecasters])


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
    future lies in [first, end). Empty when no context fits.
    """
    origins = contexts(first, end, context_len, horizon, step)
    if not len(origins):
        return {}
    earned = [_rewards(f, series, origins, names, context_len, horizon, cost_bps, seed) for f in forecasters]
    stages = [forecaster.name for forecaster in forecasters]
    resamples = Resamples(len(origins), (horizon - 1) // step, seed)
    return {
        name: _compare(dict(zip(stages, (values[name] for values in earned), strict=True)), resamples, stages)
        for name in names
    }


def _compare(values: dict[str, np.ndarray], resamples: Resamples, stages: list[str]) -> list[Compared]:
    found = []
    for name, own in values.items():
        at = stages.index(name) if name in stages else 0
        beside = values.get("unigram") if name != "unigram" else None
        found.append(
            Compared(
                name,
                resamples.mean(own),
                resamples.mean(own - beside) if beside is not None else None,
                resamples.mean(own - values[stages[at - 1]]) if at else None,
            )
        )
    return found


def _rewards(
    forecaster: GPTForecaster,
    series: TokenSeries,
    origins: range,
    names: Sequence[str],
    context_len: int,
    horizon: int,
    cost_bps: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """By reward: (O,) the mean over samples at each origin. Every forecaster meets the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    earned: dict[str, list[float]] = {name: [] for name in names}
    codec = forecaster.codec
    contexts_OC = np.stack([series.tokens[origin - context_len : origin] for origin in origins])
    for start in range(0, len(origins), AT_ONCE):
        some_BC = contexts_OC[start : start + AT_ONCE]
        sampled_BNH = sample_paths(
            forecaster.model, torch.from_numpy(some_BC), horizon, SAMPLES, codec.config.codebook_size,
            generator=generator,
        ).numpy()  # fmt: skip
        for origin, context, samples_NH in zip(origins[start:], some_BC, sampled_BNH, strict=False):
            paths = decode_futures(codec, np.tile(context, (SAMPLES, 1)), samples_NH, np.full(SAMPLES, series.scale))
            future_tokens = np.tile(series.tokens[origin : origin + horizon], (SAMPLES, 1))
            future = np.tile(series.returns[origin : origin + horizon].ravel(), (SAMPLES, 1))
            one_group = [""] * SAMPLES
            values = reward_values(names, samples_NH, future_tokens, paths, future, one_group, cost_bps)
            if "crps" in names:
                values["crps"] = crps(paths, future, one_group, spread=0.5)
            for name in names:
                earned[name].append(float(values[name].mean()))
    return {name: np.array(values) for name, values in earned.items()}


# ---------------------------------------------------------------------------------------------------- table


def print_bits(found: Sequence[Compared], heading: str) -> None:
    rows = [(one.name, one.mean, one.minus_unigram, one.minus_before) for one in found]
    _print(heading + "; bits per token, lower is better", ("", "bits", "minus unigram", "minus stage before"), rows, 3)


def print_rewards(found: dict[str, list[Compared]], heading: str) -> None:
    rows = [(f"{name}: {one.name}", one.mean, one.minus_before) for name, all_ in found.items() for one in all_]
    _print(heading + "; rewards, higher is better", ("", "mean", "minus stage before"), rows, 5)


def _print(heading: str, titles: Sequence[str], rows: Sequence[tuple], digits: int) -> None:
    """Within 80 columns; each figure with its 95% interval in brackets."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # a name may hold brackets
    console.print(f"\n{heading}", style="bold", highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=bool(title))
    for name, mean, *differences in rows:
        cells = [_cell(mean, digits)] + [_cell(difference, digits, "+") for difference in differences]
        table.add_row(name, *cells)
    console.print(table)


def _cell(estimate: Estimate | None, digits: int, sign: str = "") -> str:
    if estimate is None:
        return "-"
    if estimate.ci95 is None:
        return f"{estimate.value:{sign}.{digits}f} (too few)"
    low, high = estimate.ci95
    return f"{estimate.value:{sign}.{digits}f} ({low:{sign}.{digits}f}, {high:{sign}.{digits}f})"
