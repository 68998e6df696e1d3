"""The GPT over market tokens: a stock Transformers decoder at small size; sampling of many paths from one context.

There is no modelling code here: `Qwen3Config` gives rotary positions, QK-norm and RMSNorm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.models.decoding import drawn
from stonk_trainer.models.loading import reading
from stonk_trainer.tasks.btc.tokens import SPECIALS, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def new_gpt(
    folder: Path, codebook_size: int, hidden_size: int, layers: int, heads: int, positions: int, seed: int
) -> None:
    """Write a GPT with random weights and its tokenizer into `folder`; the same seed gives the same weights.

    It never generates a special token: `suppress_tokens` in its generation_config keeps every sample to market tokens.
    """
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer(codebook_size)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,  # one for all heads: the cache of many paths is small, and sampling fast
        head_dim=hidden_size // heads,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        **ids,
    )
    model = Qwen3ForCausalLM(config)
    special = list(range(codebook_size, codebook_size + len(SPECIALS)))
    model.generation_config = GenerationConfig(suppress_tokens=special, **ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_gpt(folder: str | Path) -> PreTrainedModel:
    """A trained GPT, ready to sample. Raises UserError when it cannot be read."""
    from transformers import AutoModelForCausalLM

    try:
        with reading(folder):
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {folder} cannot be read: {str(error).partition(chr(10))[0]}") from error


@torch.inference_mode()
def sample_paths(
    model: PreTrainedModel,
    contexts_BC: torch.Tensor,
    horizon: int,
    paths: int,
    codebook_size: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    draws_BNH: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, paths, horizon) sampled market tokens. Each context is read once; its cache then serves all its paths.

    draws_BNH: uniform numbers in [0, 1) to sample by instead of the generator: a path then depends on its own alone.
    """
    out = model(contexts_BC, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    logits_NK = out.logits[:, -1, :codebook_size].repeat_interleave(paths, dim=0)
    sampled: list[torch.Tensor] = []
    for day in range(horizon):
        if day == 1:
            cache.batch_repeat_interleave(paths)
        if day:
            logits_NK = model(sampled[-1], past_key_values=cache, use_cache=True).logits[:, -1, :codebook_size]
        probabilities_NK = (logits_NK.float() / temperature).softmax(-1)
        if draws_BNH is None:
            sampled.append(torch.multinomial(probabilities_NK, 1, generator=generator))
        else:
            sampled.append(drawn(probabilities_NK, draws_BNH[:, :, day].flatten()))
    return torch.cat(sampled, dim=1).view(len(contexts_BC), paths, horizon)


@torch.inference_mode()
def next_token_log_probs(
    model: PreTrainedModel, tokens: np.ndarray, origins: Sequence[int], context_len: int, batch_size: int = 64
) -> torch.Tensor:
    """(O, vocabulary) natural log-probabilities of the token at each origin, from the `context_len` tokens before it.

    Origins with fewer tokens before them see those there are; an origin must have one at least.
    """
    series = torch.from_numpy(np.ascontiguousarray(tokens))
    rows: dict[int, torch.Tensor] = {}
    by_length: dict[int, list[int]] = {}
    for origin in origins:
        by_length.setdefault(min(origin, context_len), []).append(origin)
    for length, same in by_length.items():
        for start in range(0, len(same), batch_size):
            batch = same[start : start + batch_size]
            contexts_BC = torch.stack([series[origin - length : origin] for origin in batch])
            log_probs = model(contexts_BC, logits_to_keep=1).logits[:, -1].float().log_softmax(-1)
            rows.update(zip(batch, log_probs, strict=True))
    return torch.stack([rows[origin] for origin in origins])
