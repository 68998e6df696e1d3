"""What a codec loses: its error beside k-means at equal bits per day, its codes, and moments before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.codec import Codec
from stonk_trainer.tasks.btc.codec_training import patch_error, usage
from stonk_trainer.tasks.btc.tokens import TokenSeries, range_of
from stonk_trainer.terminal import make_console, plain_table

PICTURE_DAYS = 250


def decoded_returns(codec: Codec, series: TokenSeries) -> np.ndarray:
    """(n, patch_size) log returns of all tokens, decoded in their order."""
    days = codec.decode(torch.from_numpy(series.tokens)[None])[0].double().numpy()
    return days.reshape(series.returns.shape) * series.scale


def inspect(codec: Codec, series: TokenSeries, split: str) -> dict[str, Any]:
    """Measures of the days of `split`, and how the codes are used.

    normalised_mse_kmeans: of k-means with as many centres, fit on the patches the codec was trained on. codes_used and
    perplexity are over all days it was trained on where the codec says so; the entropy is this series', training days.
    Raises UserError when there are too few days on either side.
    """
    config = codec.config
    first, end = range_of(series, codec, split)
    train_end = range_of(series, codec, "train")[1]
    if end - first < 2 or train_end < 2:
        raise UserError(f"split: {series.name} has {end - first} tokens in {split} and {train_end} in train: too few")
    before, after = series.returns[first:end], decoded_returns(codec, series)[first:end]
    variance = before.var()
    used, entropy = usage(series.tokens[:train_end], config.codebook_size)
    kmeans = None
    if config.kmeans_centres:
        scaled = (before / series.scale).astype(np.float32)
        error = patch_error(scaled, np.array(config.kmeans_centres, np.float32))
        kmeans = error * series.scale**2 / variance
    return {
        "series": series.name,
        "split": split,
        "days": before.size,
        "bits_per_day": config.bits_per_day,
        "normalised_mse": float(np.square(before - after).mean() / variance),
        "normalised_mse_kmeans": kmeans,
        "sign_agreement": float((np.sign(before) == np.sign(after)).mean()),
        "train_tokens": train_end,
        "codes": config.codebook_size,
        "codes_used": config.codes_used or used,
        "perplexity": config.perplexity or 2**entropy,
        "codes_used_here": used,
        "token_entropy_bits": entropy,
        "before": _moments(before.ravel()),
        "after": _moments(after.ravel()),
    }


def _moments(returns: np.ndarray) -> dict[str, float]:
    """sigma: daily standard deviation. kurtosis: in excess of a normal's. acf_abs_N: autocorrelation of |r| N days
    apart."""
    from scipy.stats import kurtosis

    size = np.abs(returns) - np.abs(returns).mean()
    spread = float(np.square(size).sum())
    acf = {
        f"acf_abs_{lag}": float((size[lag:] * size[:-lag]).sum() / spread) if spread and len(size) > lag else 0.0
        for lag in (1, 5, 20)
    }
    return {"sigma": float(returns.std()), "kurtosis": float(kurtosis(returns)), **acf}


def print_inspection(found: dict[str, Any]) -> None:
    """Print what `inspect` found as two tables."""
    kmeans, codes = found["normalised_mse_kmeans"], found["codes"]
    here = f"{found['codes_used_here']} codes in {found['train_tokens']} tokens"
    measures = {
        "squared error / variance": f"{found['normalised_mse']:.4f}",
        "k-means on the same data": "not known" if kmeans is None else f"{kmeans:.4f}",
        "same sign": f"{found['sign_agreement']:.1%} of days",
        "codes used in training": f"{found['codes_used']} of {codes} ({found['codes_used'] / codes:.0%})",
        "perplexity in training": f"{found['perplexity']:.1f} ({found['perplexity'] / codes:.2f} K)",
        f"of {found['series']}": f"{here}, {found['token_entropy_bits']:.2f} bits per token",
    }
    moments = {
        "sigma": "daily deviation, log return",
        "kurtosis": "excess kurtosis",
        "acf_abs_1": "autocorrelation of |r|, 1 day",
        "acf_abs_5": "autocorrelation of |r|, 5 days",
        "acf_abs_20": "autocorrelation of |r|, 20 days",
    }
    title = f"{found['series']}, {found['split']}: {found['days']} days at {found['bits_per_day']:g} bits per day"
    console = make_console()
    console.print(title)
    table = plain_table("", "", narrow=True)
    for name, text in measures.items():
        table.add_row(name, text)
    console.print(table)
    table = plain_table("", "before", "after", numbers=("before", "after"), narrow=True)
    for key, name in moments.items():
        table.add_row(name, f"{found['before'][key]:.4f}", f"{found['after'][key]:.4f}")
    console.print(table)


def draw(codec: Codec, series: TokenSeries, split: str, path: Path) -> None:
    """A picture of the last days of a split: daily returns in percent, and what is left of them after decoding."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, end = range_of(series, codec, split)
    first = max(first, end - PICTURE_DAYS // codec.config.patch_size)
    before = 100 * series.returns[first:end].ravel()
    after = 100 * decoded_returns(codec, series)[first:end].ravel()
    days = np.arange(-len(before) + 1, 1)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=(2, 1), layout="constrained")
    top.plot(days, before, color="0.55", linewidth=1.5, label="returns")
    top.plot(days, after, color="tab:blue", linewidth=0.9, label="decoded")
    top.set_ylabel("daily log return (%)")
    top.set_title(f"{series.name}, {split}: {codec.config.bits_per_day:g} bits per day", parse_math=False)
    top.legend(loc="upper left", ncols=2)
    bottom.plot(days, after - before, color="tab:red", linewidth=0.8)
    bottom.set(ylabel="error (points)", xlabel=f"trading days before {series.dates[end - 1]}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
