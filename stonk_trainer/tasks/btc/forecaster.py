"""A GPT with its codec as a forecaster of daily log returns: what `judge.py` judges and `stonk forecast` draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.task import SamplingConfig
from stonk_trainer.tasks.btc.arguments import QUANTILES
from stonk_trainer.tasks.btc.codec import Codec
from stonk_trainer.tasks.btc.dataset import check_codec_of_model, outcome
from stonk_trainer.tasks.btc.gpt import load_gpt, next_token_log_probs, sample_paths
from stonk_trainer.tasks.btc.returns import Series, scale_before
from stonk_trainer.tasks.btc.rewards import decode_futures
from stonk_trainer.tasks.btc.tokens import Contexts, from_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AT_ONCE = 8192  # sequences decoded together


class GPTForecaster:
    """Samples of what follows, given the last `context_len` tokens before an origin.

    An **origin** is an index into `returns`: a forecast from origin o knows returns[:o].
    """

    def __init__(
        self, name: str, model: PreTrainedModel, codec: Codec, returns: np.ndarray, scale: float, context_len: int
    ):
        self.name, self.model, self.codec = name, model, codec
        self.scale, self.context_len = scale, context_len
        self.contexts = Contexts(codec, returns, scale, context_len)

    def tokens_before(self, origin: int) -> np.ndarray:
        """(n,) the tokens of returns[:origin], at most `context_len`. Raises UserError when there is none."""
        tokens = self.contexts.before(origin)
        if not len(tokens):
            patch = self.codec.config.patch_size
            raise UserError(f"{self.name}: {origin} days come before the first forecast, and one token needs {patch}")
        return tokens

    def one_day(self, origins: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ON: `count` sampled returns of the day at each origin."""
        codes, patch = self.codec.config.codebook_size, self.codec.config.patch_size
        days_OK = self._first_days(origins)
        samples_ON = np.empty((len(origins), count))
        for phase in sorted({origin % patch for origin in origins}):
            rows = [i for i, origin in enumerate(origins) if origin % patch == phase]
            places = [origins[i] // patch for i in rows]
            log_probs = next_token_log_probs(self.model, self.contexts.by_phase[phase], places, self.context_len)
            shares_OK = log_probs[:, :codes].softmax(-1).double().numpy()
            for row, shares in zip(rows, shares_OK, strict=True):
                samples_ON[row] = days_OK[row, rng.choice(codes, count, p=shares / shares.sum())]
        return samples_ON

    def _first_days(self, origins: Sequence[int]) -> np.ndarray:
        """days_OK: the return of the day at each origin, were the next token k."""
        codes, patch = self.codec.config.codebook_size, self.codec.config.patch_size
        before = [self.tokens_before(origin)[-self.codec.config.lead_in :] for origin in origins]
        at_once = max(1, AT_ONCE // codes)
        days_OK = np.empty((len(origins), codes))
        for length in {len(tokens) for tokens in before}:  # those with as many tokens before them are decoded together
            same = [i for i, tokens in enumerate(before) if len(tokens) == length]
            for start in range(0, len(same), at_once):
                batch = same[start : start + at_once]
                contexts = np.repeat(np.stack([before[i] for i in batch]), codes, axis=0)
                samples = np.tile(np.arange(codes)[:, None], (len(batch), 1))
                decoded = decode_futures(self.codec, contexts, samples, np.full(len(samples), self.scale))
                days_OK[batch] = decoded[:, -patch].reshape(len(batch), codes)
        return days_OK

    def sample(
        self, origin: int, horizon: int, count: int, rng: np.random.Generator, temperature: float = 1.0
    ) -> np.ndarray:
        """paths_NH: `count` sampled paths of the returns of the `horizon` days from the day at `origin` on."""
        context = self.tokens_before(origin)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        ahead, codes = -(-horizon // self.codec.config.patch_size), self.codec.config.codebook_size
        context_1C = torch.from_numpy(context.copy())[None]
        tokens = sample_paths(self.model, context_1C, ahead, count, codes, temperature, generator)[0].numpy()
        contexts_NC = np.tile(context, (count, 1))
        return decode_futures(self.codec, contexts_NC, tokens, np.full(count, self.scale))[:, :horizon]


class RowForecaster:
    """A GPT as `task.Forecaster`: what many sampled paths after a row's tokens come to."""

    def __init__(self, path: str | Path, codec: Codec, context_len: int, sampling: SamplingConfig):
        if sampling.top_p != 1:
            raise UserError(f"top_p: {sampling.top_p} is for language models: a GPT's paths keep all their spread")
        self.model = _load_model(path, codec)
        self.codec, self.context_len, self.sampling = codec, context_len, sampling

    def forecasts(self, rows: Sequence[Mapping], on_token: Callable | None = None) -> list[dict[str, Any]]:
        """See `task.Forecaster`; over the return from the row's day to `horizon` days on. No path states a
        confidence. Besides: quantiles of that return, by probability."""
        contexts = [from_text(row["prompt"]) for row in rows]
        found: list[dict[str, Any]] = [{} for _ in rows]
        for length in sorted(set(map(len, contexts))):
            same = [i for i, context in enumerate(contexts) if len(context) == length]
            returns_BN = self._returns(np.array([contexts[i] for i in same]), [rows[i] for i in same])
            for i, returns_N in zip(same, returns_BN, strict=True):
                found[i] = _summary(returns_N)
                if "future_returns" in rows[i]:  # of the RL dataset, which has the outcome of another horizon
                    found[i] |= outcome(rows[i]["future_returns"], self.sampling.horizon)
        return found

    def on(self, series: Series, origin: int) -> GPTForecaster:
        """The same model as a forecaster of one series, from `origin` on."""
        scale = scale_before(series, str(self.codec.config.train_end), origin - 1)
        return GPTForecaster(series.name, self.model, self.codec, series.returns, scale, self.context_len)

    def _returns(self, contexts_BC: np.ndarray, rows: Sequence[Mapping]) -> np.ndarray:
        """(B, samples) simple returns over the horizon."""
        sampling, codes = self.sampling, self.codec.config.codebook_size
        tokens = -(-sampling.horizon // self.codec.config.patch_size)
        longest = self.model.config.max_position_embeddings
        if contexts_BC.shape[1] + tokens > longest:
            raise UserError(
                f"a row of {contexts_BC.shape[1]} tokens and {tokens} to come do not fit in the {longest} that the "
                "model can read: give a shorter --horizon, or rows of fewer tokens"
            )
        count = sampling.samples
        draws = [np.random.default_rng(sampling.seed_of(row["prompt"])).random((count, tokens)) for row in rows]
        draws_BNH, contexts = torch.from_numpy(np.stack(draws)), torch.from_numpy(contexts_BC)
        sampled_BNH = sample_paths(
            self.model, contexts, tokens, count, codes, sampling.temperature, draws_BNH=draws_BNH
        )
        # Few tokens have few futures: each is decoded once for the paths that share it.
        row_of = np.repeat(np.arange(len(rows)), count)[:, None]
        paths = np.concatenate([row_of, sampled_BNH.flatten(0, 1).numpy()], axis=1)
        distinct, which = np.unique(paths, axis=0, return_inverse=True)
        scales = np.array([row["scale"] for row in rows])[distinct[:, 0]]
        days = decode_futures(self.codec, contexts_BC[distinct[:, 0]], distinct[:, 1:], scales)
        returns = np.expm1(days[:, : sampling.horizon].sum(axis=1))
        return returns[which.reshape(-1)].reshape(len(rows), count)


def _summary(returns_N: np.ndarray) -> dict[str, Any]:
    """The direction of most paths, and the median of the return; a tie goes by the median's sign."""
    share_up = float((returns_N > 0).mean())
    median = float(np.median(returns_N))
    up = share_up > 0.5 or share_up == 0.5 and median >= 0
    return {
        "direction": "UP" if up else "DOWN",
        "confidence": share_up if up else 1 - share_up,
        "stated_confidence": None,
        "move": abs(median),
        "readable": len(returns_N),
        "quantiles": {f"{q:g}": float(np.quantile(returns_N, q)) for q in QUANTILES},
    }


def load_forecaster(
    folder: str | Path, codec: Codec, returns: np.ndarray, scale: float, context_len: int, name: str | None = None
) -> GPTForecaster:
    """The GPT in `folder`. Raises UserError when its tokens are not the codec's."""
    model = _load_model(folder, codec)
    longest = model.config.max_position_embeddings
    if context_len >= longest:
        raise UserError(f"context_len: {context_len} tokens leave no room in the {longest} that {folder} can read")
    return GPTForecaster(name or str(folder), model, codec, returns, scale, context_len)


def _load_model(folder: str | Path, codec: Codec) -> PreTrainedModel:
    from stonk_trainer.models.loading import load_tokenizer

    model = load_gpt(folder)
    check_codec_of_model(codec, load_tokenizer(str(folder)), str(folder))
    return model
