"""Sampling from a causal LM with each distinct prompt computed once, however many answers it gets.

What a row's answer is depends on the model, the row's prompt and its own uniform numbers, not on the other rows.

Shape suffixes: B rows, A of them that have not ended, U distinct prompts, P prompt tokens, C completion tokens, L all
tokens of a row so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why the answers of a prompt cannot share it in this model; None when they can."""
    config = model.config.get_text_config()
    if config is not model.config or config.is_encoder_decoder:
        return "only decoders of text are supported"
    if model._is_stateful:
        return "the model is recurrent: its state holds no tokens to attend to"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if kinds:
        return f"its cache does not keep every token ({', '.join(sorted(kinds))})"
    return None


def distinct(ids_BP: torch.Tensor, mask_BP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(index of each row's prompt among the distinct ones, the distinct prompts, their masks)."""
    both_U, rows_B = torch.unique(torch.cat([ids_BP, mask_BP], dim=1), dim=0, return_inverse=True)
    ids_UP, mask_UP = both_U.chunk(2, dim=1)
    return rows_B, ids_UP.contiguous(), mask_UP.contiguous()


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    draws_BC: torch.Tensor,
    together: bool = False,
    each_step: Callable[[torch.Tensor], None] | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Sampling or greedy search as Transformers does it, each distinct prompt computed once; for `custom_generate`.

    draws_BC: uniform numbers in [0, 1), one per token to sample. together: continue until all processes' rows have
    ended, as sharded weights need; otherwise rows that have ended leave the model's batch. each_step: called after each
    token with the B x C' tokens so far. Returns B x (P + C) tokens, padded after a row's end.
    """
    mask_BP = model_kwargs.get("attention_mask")
    mask_BP = torch.ones_like(input_ids) if mask_BP is None else mask_BP  # None: nothing is padded
    rows_B, prompts_UP, mask_UP = distinct(input_ids, mask_BP)
    positions_UP = (mask_UP.cumsum(1) - 1).clamp(min=0)
    known = {"attention_mask": mask_UP, "position_ids": positions_UP}
    output = model(input_ids=prompts_UP, **known, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_select_indices(rows_B)
    mask_AL, position_A1, logits_AV = mask_UP[rows_B], positions_UP[rows_B, -1:], output.logits[rows_B, -1]
    alive_A = torch.arange(len(input_ids), device=input_ids.device)
    going_A = torch.ones_like(alive_A, dtype=torch.bool)
    ends = torch.tensor(generation_config.eos_token_id, device=input_ids.device)
    length = input_ids.shape[1]
    found_BL = input_ids.new_full((len(input_ids), generation_config.max_length), generation_config.pad_token_id)
    found_BL[:, :length] = input_ids
    while True:
        # processors may keep a state for each row, so they see all of them
        logits_BV = logits_AV.new_zeros(len(input_ids), logits_AV.shape[1], dtype=torch.float32)
        logits_BV[alive_A] = logits_AV.float()
        scores_AV = logits_processor(found_BL[:, :length], logits_BV)[alive_A]
        if generation_config.do_sample:
            next_A1 = drawn(scores_AV.softmax(-1), draws_BC[alive_A, length - input_ids.shape[1]])
        else:
            next_A1 = scores_AV.argmax(-1, keepdim=True)
        next_A1[~going_A] = generation_config.pad_token_id  # rows that have ended, but stay in the batch
        found_BL[alive_A, length] = next_A1[:, 0]
        length += 1
        if each_step is not None:
            each_step(found_BL[:, input_ids.shape[1] : length])
        going_A = going = going_A & ~torch.isin(next_A1[:, 0], ends)
        if length == found_BL.shape[1] or not _anywhere(going.any(), together):
            return found_BL[:, :length]
        mask_AL = torch.cat([mask_AL, mask_AL[:, -1:]], 1)
        if not going.all() and not together:
            going_A = going[going]
            alive_A, mask_AL, position_A1 = alive_A[going], mask_AL[going], position_A1[going]
            next_A1 = next_A1[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        position_A1 = position_A1 + 1
        known = {
            "attention_mask": _token_mask(mask_AL, model),
            "position_ids": position_A1,
            "past_key_values": cache,
        }
        logits_AV = model(input_ids=next_A1, **known, use_cache=True, logits_to_keep=1).logits[:, -1]


def _token_mask(mask_AL: torch.Tensor, model: Any) -> torch.Tensor:
    """The mask for a decoding step.

    On a CPU in full, even if it hides nothing: without a mask, Transformers leaves the heads that share a key to
    torch's `enable_gqa`, which takes seven times as long for one token in bf16.
    """
    if mask_AL.device.type == "cpu" and model.config._attn_implementation.startswith("sdpa"):
        return mask_AL.bool()[:, None, None]
    return mask_AL


def drawn(probabilities_AV: torch.Tensor, draws_A: torch.Tensor) -> torch.Tensor:
    """A x 1 tokens by inversion: the first whose cumulated probability exceeds the draw."""
    cumulated_AV = probabilities_AV.cumsum(-1, dtype=torch.float64)
    found_A1 = torch.searchsorted(cumulated_AV, draws_A[:, None] * cumulated_AV[:, -1:], right=True)
    return found_A1.clamp(max=probabilities_AV.shape[1] - 1)


def _anywhere(here: torch.Tensor, together: bool) -> bool:
    if together:
        here = here.int()
        torch.distributed.all_reduce(here, op=torch.distributed.ReduceOp.MAX)
    return bool(here)
