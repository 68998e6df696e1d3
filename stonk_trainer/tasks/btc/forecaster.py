"""A GPT with its codec as a forecaster of daily log returns: what `judge.py` judges and `stonk forecast` draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.codec import Codec
from stonk_trainer.tasks.btc.dataset import check_same_codec, check_tokenizer
from stonk_trainer.tasks.btc.gpt import load_gpt, next_token_log_probs, sample_paths
from stonk_trainer.tasks.btc.rewards import decode_futures

AT_ONCE = 8192  # sequences decoded together


class GPTForecaster:
    """Samples of what follows, given the last `context_len` tokens before an origin.

    An **origin** is an index into `returns`: a forecast from origin o knows returns[:o]. Patches are cut backwards from
    each origin, so that its last token ends on the day before it, whatever the patch size.
    """

    def __init__(self, name: str, model, codec: Codec, returns: np.ndarray, scale: float, context_len: int):
        self.name = name
        self.model, self.codec = model, codec
        self.scale, self.context_len = scale, context_len
        scaled = torch.from_numpy((np.asarray(returns, float) / scale).astype(np.float32))
        patch = codec.config.patch_size
        # by phase: the tokens of all whole patches that end on a day with index = phase - 1 modulo the patch
        self._tokens = []
        for phase in range(min(patch, len(scaled) - patch + 1)):
            whole = (len(scaled) - phase) // patch * patch
            self._tokens.append(codec.encode(scaled[None, phase : phase + whole])[0].numpy())

    def tokens_before(self, origin: int) -> np.ndarray:
        """(n,) the tokens of returns[:origin], at most `context_len`. Raises UserError when there is none."""
        patch = self.codec.config.patch_size
        count = origin // patch
        if not count:
            raise UserError(f"{self.name}: {origin} days come before the first forecast, and one token needs {patch}")
        return self._tokens[origin % patch][max(0, count - self.context_len) : count]

    def one_day(self, origins: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """samples_ON: `count` sampled returns of the day at each origin."""
        codes = self.codec.config.codebook_size
        patch = self.codec.config.patch_size
        days_OK = self._first_days(origins)
        samples_ON = np.empty((len(origins), count))
        for phase in sorted({origin % patch for origin in origins}):
            rows = [i for i, origin in enumerate(origins) if origin % patch == phase]
            places = [origins[i] // patch for i in rows]
            log_probs = next_token_log_probs(self.model, self._tokens[phase], places, self.context_len)
            shares_OK = log_probs[:, :codes].softmax(-1).double().numpy()
            for row, shares in zip(rows, shares_OK, strict=True):
                samples_ON[row] = days_OK[row, rng.choice(codes, count, p=shares / shares.sum())]
        return samples_ON

    def _first_days(self, origins: Sequence[int]) -> np.ndarray:
        """days_OK: the return of the day at each origin, were the next token k."""
        codes, patch = self.codec.config.codebook_size, self.codec.config.patch_size
        every_code = np.arange(codes)[:, None]
        step = max(1, AT_ONCE // codes)
        days = []
        for origin in origins:  # origins with the same number of tokens before them are decoded together
            days.append(self.tokens_before(origin)[-self.codec.config.lead_in :])
        days_OK = np.empty((len(origins), codes))
        for length in {len(tokens) for tokens in days}:
            same = [i for i, tokens in enumerate(days) if len(tokens) == length]
            for start in range(0, len(same), step):
                batch = same[start : start + step]
                contexts = np.repeat(np.stack([days[i] for i in batch]), codes, axis=0)
                samples = np.tile(every_code, (len(batch), 1))
                decoded = decode_futures(self.codec, contexts, samples, np.full(len(samples), self.scale))
                days_OK[batch] = decoded[:, -patch].reshape(len(batch), codes)
        return days_OK

    def sample(
        self, origin: int, horizon: int, count: int, rng: np.random.Generator, temperature: float = 1.0
    ) -> np.ndarray:
        """paths_NH: `count` sampled paths of the returns of the `horizon` days from the day at `origin` on."""
        context = self.tokens_before(origin)
        patch = self.codec.config.patch_size
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        tokens = sample_paths(
            self.model,
            torch.from_numpy(context.copy())[None],
            -(-horizon // patch),
            count,
            self.codec.config.codebook_size,
            temperature,
            generator,
        )[0].numpy()
        contexts_NC = np.tile(context, (count, 1))
        return decode_futures(self.codec, contexts_NC, tokens, np.full(count, self.scale))[:, :horizon]


def load_forecaster(
    folder: str | Path, codec: Codec, returns: np.ndarray, scale: float, context_len: int, name: str | None = None
) -> GPTForecaster:
    """The GPT in `folder`. Raises UserError when its tokens are not the codec's."""
    from stonk_trainer.models import load_tokenizer

    model = load_gpt(folder)
    check_tokenizer(codec, load_tokenizer(str(folder)), str(folder))
    check_same_codec(codec, folder)
    longest = model.config.max_position_embeddings
    if context_len >= longest:
        raise UserError(f"context_len: {context_len} tokens leave no room in the {longest} that {folder} can read")
    return GPTForecaster(name or str(folder), model, codec, returns, scale, context_len)
