"""Training a codec: k-means first, then the network around it, kept only where validation dates are coded better."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.codec import Codec, CodecConfig
from stonk_trainer.terminal import log

EXAMPLE_DAYS = 256
KMEANS_PATCHES = 60_000  # at most; more change the centres little and take long
CHECKS = 12  # comparisons with the best so far


def train_codec(
    config: CodecConfig,
    train: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Codec:
    """A codec for these series of scaled returns (float arrays of days), the best on `validation`.

    It starts as the k-means quantiser; `steps` of AdamW on the squared error and the commitment loss follow (van den
    Oord et al. 2017). Codes are moving averages of what they stand for; unused ones are revived. With
    `quantizer: kmeans`, or 0 steps, it stays k-means. Raises UserError when there is less data than codes, or none to
    validate on.
    """
    torch.manual_seed(seed)
    patches = all_patches(train, config.patch_size)
    if len(patches) < 2 * config.codebook_size:
        raise UserError(
            f"codebook_size: {config.codebook_size} codes need at least {2 * config.codebook_size} patches of "
            f"{config.patch_size} days before train_end, there are {len(patches)}: give more data, or set fewer codes"
        )
    learns = config.quantizer != "kmeans" and steps > 0
    if learns and max(map(len, validation), default=0) < config.patch_size:
        raise UserError(
            f"validation_end: no series has the {config.patch_size} days of one patch after train_end and up to it, to "
            "choose the best codec by: set a later one, or an earlier train_end"
        )
    codec = Codec(config)
    codec.start_as_identity()
    examples = training_examples(train, config.patch_size)
    per_batch = batch_size * examples.shape[1] / config.patch_size
    centres = kmeans_centres(patches, config.codebook_size, seed)
    if config.quantizer != "fsq":
        codes = F.pad(torch.from_numpy(centres), (0, config.code_dim - config.patch_size))
        nearest = torch.cdist(torch.from_numpy(patches), torch.from_numpy(centres)).argmin(1)
        uses = torch.bincount(nearest, minlength=config.codebook_size) * (per_batch / len(patches))
        codec.set_codebook(codes, uses.clamp(min=1e-3))
        # revived: a code met less than once in two passes over the data
        codec.quantizer._codebook.threshold_ema_dead_code = 0.5 * per_batch / len(patches)
        codec.quantizer._codebook.has_dead_code_replacement = True
    if learns:
        codec = _fit(codec, examples, validation, steps, learning_rate, batch_size)
    codec.config.kmeans_centres = centres.tolist()
    whole = [returns[len(returns) % config.patch_size :].astype(np.float32) for returns in train]
    tokens = [codec.encode(torch.from_numpy(returns)[None])[0].numpy() for returns in whole]
    codec.config.codes_used, entropy = usage(np.concatenate(tokens), config.codebook_size)
    codec.config.perplexity = 2**entropy
    return codec.eval()


def usage(tokens: np.ndarray, codebook_size: int) -> tuple[int, float]:
    """(how many codes occur, entropy in bits per token); 2 to the entropy is the perplexity."""
    counts = np.bincount(tokens, minlength=codebook_size)
    shares = counts[counts > 0] / counts.sum()
    return int((counts > 0).sum()), float(-(shares * np.log2(shares)).sum())


def _fit(
    codec: Codec, examples: Tensor, validation: Sequence[np.ndarray], steps: int, learning_rate: float, batch_size: int
) -> Codec:
    best, best_error = copy.deepcopy(codec), coding_error(codec, validation)
    log.info("as k-means: validation error %.4f of the variance", best_error)
    if codec.config.quantizer == "fsq":
        best_error = math.inf  # its grid is not k-means: it has to be trained
    optimizer = torch.optim.AdamW(codec.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        codec.train()
        chosen = examples[torch.randint(len(examples), (batch_size,))]
        batch = chosen * (2.0 * torch.randint(0, 2, (batch_size, 1)) - 1)  # up or down: the same shapes
        reconstruction, _, commitment = codec(batch)
        loss = F.mse_loss(reconstruction, batch) + commitment
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % math.ceil(steps / CHECKS) == 0 or step == steps:
            error = coding_error(codec, validation)
            log.info("step %d/%d  loss %.4f  validation error %.4f of the variance", step, steps, loss.item(), error)
            if error < best_error:
                best, best_error = copy.deepcopy(codec), error
    log.info("kept: validation error %.4f of the variance", best_error)
    return best.eval()


def training_examples(series: Sequence[np.ndarray], patch_size: int) -> Tensor:
    """(N, T) overlapping spans of the series, from every day a patch may start at; T, at most 256, is a multiple of a
    patch, and no longer than the longest series."""
    days = min(EXAMPLE_DAYS, max(map(len, series))) // patch_size * patch_size
    step = max(1, days // 4)
    step += (step % patch_size == 0) * (patch_size > 1)  # so that patches start at every phase
    cut = [returns[start : start + days] for returns in series for start in range(0, len(returns) - days + 1, step)]
    return torch.from_numpy(np.stack(cut).astype(np.float32))


def all_patches(series: Sequence[np.ndarray], patch_size: int) -> np.ndarray:
    """(N, patch_size) float32: every run of `patch_size` days of every series."""
    long_enough = [returns for returns in series if len(returns) >= patch_size]
    runs = [np.lib.stride_tricks.sliding_window_view(returns, patch_size) for returns in long_enough]
    return np.concatenate([np.empty((0, patch_size)), *runs]).astype(np.float32)


def kmeans_centres(patches: np.ndarray, codebook_size: int, seed: int) -> np.ndarray:
    """(codebook_size, patch_size) centres: scikit-learn's k-means, the best of three starts."""
    from sklearn.cluster import KMeans

    if len(patches) > KMEANS_PATCHES:
        patches = patches[np.random.default_rng(seed).permutation(len(patches))[:KMEANS_PATCHES]]
    return KMeans(codebook_size, n_init=3, random_state=seed).fit(patches).cluster_centers_.astype(np.float32)


def patch_error(patches: np.ndarray, centres: np.ndarray) -> float:
    """Mean squared error of each patch's nearest centre."""
    distances = torch.cdist(torch.from_numpy(patches), torch.from_numpy(centres)).amin(1)
    return float(distances.square().sum()) / patches.size


def coding_error(codec: Codec, series: Sequence[np.ndarray]) -> float:
    """Squared error of decoded returns as a share of their variance, over every phase of the patches and both signs.

    Infinite when the series hold no patch.
    """
    patch = codec.config.patch_size
    wrong = total = 0.0
    for returns in series:
        for phase in range(min(patch, len(returns) - patch + 1)):
            days = returns[phase : phase + (len(returns) - phase) // patch * patch]
            both = torch.from_numpy(np.stack([days, -days]).astype(np.float32))
            wrong += float((codec.decode(codec.encode(both)) - both).square().sum())
            total += float(both.square().sum())
    return wrong / total if total else math.inf
