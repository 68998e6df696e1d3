"""Sampling from a causal LM with each distinct prompt computed once, however many answers it gets.

What a row's answer is depends on the model, the row's prompt and its own uniform numbers, not on the other rows.

Shape suffixes: B rows, A of them that have not ended, U distinct prompts, P prompt tokens, C completion tokens, L all
tokens of a row so far, K those of one pass, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stonk_trainer.models.drafting import Drafter

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

# Processors that look at the scores of a token alone.
BY_ROW = {"TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper"}
BY_ROW |= {"SuppressTokensLogitsProcessor"}


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
    drafter: Drafter | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Sampling or greedy search as Transformers does it, each distinct prompt computed once; for `custom_generate`.

    draws_BC: uniform numbers in [0, 1), one per token to sample. together: continue until all processes' rows have
    ended, as sharded weights need; otherwise rows that have ended leave the model's batch. each_step: called after each
    pass with the B x C' tokens so far. drafter: drafts tokens, so that a pass may find several; what is found does not
    depend on it. Returns B x (P + C) tokens, padded after a row's end.
    """
    mask_BP = model_kwargs.get("attention_mask")
    mask_BP = torch.ones_like(input_ids) if mask_BP is None else mask_BP  # None: nothing is padded
    rows_B, prompts_UP, mask_UP = distinct(input_ids, mask_BP)
    positions_UP = (mask_UP.cumsum(1) - 1).clamp(min=0)
    known = {"attention_mask": mask_UP, "position_ids": positions_UP}
    output = model(input_ids=prompts_UP, **known, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_select_indices(rows_B)
    mask_AL, position_A1 = mask_UP[rows_B], positions_UP[rows_B, -1:]
    answers = _Answers(input_ids, logits_processor, generation_config, draws_BC)
    drafter = _ready(drafter, answers, model, cache, mask_AL, position_A1)
    if drafter is not None:
        drafter.begin([ids[mask.bool()].tolist() for ids, mask in zip(input_ids, mask_BP, strict=True)])
    none_AK, none_A = input_ids.new_empty(len(input_ids), 0), torch.zeros_like(answers.alive_A)
    is_new_AK = answers.take(output.logits[rows_B], none_AK, none_A, drafter)
    while True:
        if each_step is not None:
            each_step(answers.so_far()[:, input_ids.shape[1] :])
        going = answers.going_A
        if not _anywhere(going.any(), together):
            break
        position_A1 = position_A1 + is_new_AK.sum(1, keepdim=True)
        if not going.all() and not together:
            answers.keep(going)
            mask_AL, position_A1 = mask_AL[going], position_A1[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        drafts_AK, drafted_A = answers.drafts(drafter)
        tokens_AK = torch.cat([answers.last_A1, drafts_AK], 1)
        positions_AK = position_A1 + torch.arange(tokens_AK.shape[1], device=position_A1.device)
        logits_AKV = _passed(model, tokens_AK, positions_AK, mask_AL, cache)
        is_new_AK = answers.take(logits_AKV, drafts_AK, drafted_A, drafter)
        mask_AL = torch.cat([mask_AL, is_new_AK.to(mask_AL.dtype)], 1)
        if drafts_AK.shape[1]:
            mask_AL = _without_gaps(cache, mask_AL)
    if drafter is not None:
        drafter.end()
    return answers.so_far()


class _Answers:
    """The tokens found so far, B x (P + C), of which the rows `alive_A` are still in the model's batch.

    going_A: which of those have not ended. length_A: tokens of their answers. last_A1: the last of each.
    """

    def __init__(
        self,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        config: GenerationConfig,
        draws_BC: torch.Tensor,
    ):
        self.config, self.processors, self.draws_BC = config, processors, draws_BC
        self.by_row = all(type(processor).__name__ in BY_ROW for processor in processors)
        self.prompt = input_ids.shape[1]
        self.limit = config.max_length - self.prompt
        self.found_BL = input_ids.new_full((len(input_ids), config.max_length + 1), config.pad_token_id)
        self.found_BL[:, : self.prompt] = input_ids
        self.ends = torch.tensor(config.eos_token_id, device=input_ids.device)
        self.alive_A = torch.arange(len(input_ids), device=input_ids.device)
        self.going_A = torch.ones_like(self.alive_A, dtype=torch.bool)
        self.length_A = torch.zeros_like(self.alive_A)
        self.last_A1 = input_ids[:, -1:]
        self.longest = 0

    def so_far(self) -> torch.Tensor:
        return self.found_BL[:, : self.prompt + self.longest]

    def take(
        self, logits_AKV: torch.Tensor, drafts_AK: torch.Tensor, drafted_A: torch.Tensor, drafter: Drafter | None
    ) -> torch.Tensor:
        """Add the tokens that a pass over the last tokens and their drafts finds; A x (1 + K), which of it is new."""
        scores_AKV, drafted = self._scores(logits_AKV), logits_AKV.shape[1] > 1
        count_K = torch.arange(logits_AKV.shape[1], device=logits_AKV.device)
        place_AK = self.length_A[:, None] + count_K
        if self.config.do_sample:
            draws_AK = self.draws_BC[self.alive_A].gather(1, place_AK.clamp(max=self.limit - 1))
            tokens_AK = drawn(scores_AKV.softmax(-1).flatten(0, 1), draws_AK.flatten()).view_as(place_AK)
        else:
            tokens_AK = scores_AKV.argmax(-1)
        right_A, is_new_AK = drafted_A, self.going_A[:, None]
        if drafted:  # a draft is right as far as it says what is found, and up to the answer's end
            right_AK = (drafts_AK == tokens_AK[:, :-1]) & (count_K[:-1] < drafted_A[:, None])
            right_A = (right_AK & ~torch.isin(drafts_AK, self.ends)).cumprod(1).sum(1)
            is_new_AK = is_new_AK & (count_K <= right_A[:, None])
        # what is not new goes to the place after the last
        column_AK = torch.where(is_new_AK, place_AK, self.limit) + self.prompt
        self.found_BL[self.alive_A[:, None], column_AK] = tokens_AK
        self.last_A1 = tokens_AK.gather(1, right_A[:, None]) if drafted else tokens_AK
        self.length_A = self.length_A + is_new_AK.sum(1)
        self.longest = self.longest + 1 if drafter is None else max(self.longest, int(self.length_A.max()))
        self.going_A = self.going_A & ~torch.isin(self.last_A1[:, 0], self.ends) & (self.length_A < self.limit)
        if drafter is not None:
            found = zip(tokens_AK.tolist(), is_new_AK.sum(1).tolist(), strict=True)
            drafter.grow(self.alive_A.tolist(), [tokens[:new] for tokens, new in found])
            drafter.count(drafted_A.tolist(), right_A.tolist())
        return is_new_AK

    def _scores(self, logits_AKV: torch.Tensor) -> torch.Tensor:
        """The logits in fp32 as the processors leave them."""
        logits_NV = logits_AKV.flatten(0, 1).float()
        if self.by_row:
            return self.processors(self.found_BL[self.alive_A, :1], logits_NV).view_as(logits_AKV)
        # they may keep a state for each row, so they see all of them, which have one length
        logits_BV = logits_NV.new_zeros(len(self.found_BL), logits_NV.shape[1])
        logits_BV[self.alive_A] = logits_NV
        return self.processors(self.so_far(), logits_BV)[self.alive_A][:, None]

    def keep(self, going: torch.Tensor) -> None:
        """Leave the other rows out of the batch."""
        self.alive_A, self.going_A, self.length_A = self.alive_A[going], self.going_A[going], self.length_A[going]
        self.last_A1 = self.last_A1[going]

    def drafts(self, drafter: Drafter | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(A x K drafted tokens, padded; how many of each row are drafts)."""
        most = drafter.length() if drafter is not None else 0
        if drafter is None or not most:
            return self.last_A1[:, :0], torch.zeros_like(self.length_A)
        places = zip(
            self.alive_A.tolist(), (self.limit - 1 - self.length_A).tolist(), self.going_A.tolist(), strict=True
        )
        found = [drafter.draft(row, min(most, room)) if going else [] for row, room, going in places]
        drafted_A = torch.tensor([len(draft) for draft in found], device=self.alive_A.device)
        longest = int(drafted_A.max())
        padded = [draft + [self.config.pad_token_id] * (longest - len(draft)) for draft in found]
        return torch.tensor(padded, dtype=torch.long, device=drafted_A.device).view(len(found), longest), drafted_A


def _ready(
    drafter: Drafter | None,
    answers: _Answers,
    model: PreTrainedModel,
    cache: Any,
    mask_AL: torch.Tensor,
    position_A1: torch.Tensor,
) -> Drafter | None:
    """The drafter, where it can be used here; it knows then what a drafted token costs."""
    if drafter is None or drafter.is_off:
        return None
    if not answers.by_row:
        names = {type(processor).__name__ for processor in answers.processors} - BY_ROW
        drafter.switch_off(f"{', '.join(sorted(names))} looks at the tokens before")
        return None
    if drafter.tokens is None and drafter.cost is None:
        drafter.cost = _cost_of_token(model, cache, mask_AL, position_A1)
    return drafter


def _cost_of_token(model: PreTrainedModel, cache: Any, mask_AL: torch.Tensor, position_A1: torch.Tensor) -> float:
    """What each further token of a pass costs, as a share of a pass of one; the cache is left as it was."""
    further = 4
    seconds: dict[int, list[float]] = {1: [], 1 + further: []}
    for _ in range(4):  # the first warms up
        for count, times in seconds.items():
            positions_AK = position_A1 + torch.arange(count, device=position_A1.device)
            synchronise()
            started = time.perf_counter()
            _passed(model, torch.zeros_like(positions_AK), positions_AK, mask_AL, cache)
            synchronise()
            times.append(time.perf_counter() - started)
            cache.crop(-count)
    one, several = (min(times[1:]) for times in seconds.values())
    return max(0.0, several / one - 1) / further


def synchronise() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _passed(
    model: PreTrainedModel, tokens_AK: torch.Tensor, positions_AK: torch.Tensor, mask_AL: torch.Tensor, cache: Any
) -> torch.Tensor:
    """The logits A x K x V of further tokens of each row. mask_AL: what is seen of the cache."""
    known = {"position_ids": positions_AK, "past_key_values": cache, "use_cache": True}
    return model(input_ids=tokens_AK, attention_mask=_mask(mask_AL, tokens_AK.shape[1], model), **known).logits


def _mask(mask_AL: torch.Tensor, tokens: int, model: Any) -> torch.Tensor:
    """The mask for a decoding step of so many tokens.

    On a CPU in full, even if it hides nothing: without a mask, Transformers leaves the heads that share a key to
    torch's `enable_gqa`, which takes seven times as long for one token in bf16.
    """
    mask_AL = torch.cat([mask_AL, mask_AL.new_ones(len(mask_AL), tokens)], 1)
    if mask_AL.device.type == "cpu" and model.config._attn_implementation.startswith("sdpa"):
        mask_AKL = mask_AL.bool()[:, None].expand(-1, tokens, -1)
        return (mask_AKL.tril(mask_AL.shape[1] - tokens) if tokens > 1 else mask_AKL)[:, None]
    return mask_AL


def _without_gaps(cache: Any, mask_AL: torch.Tensor) -> torch.Tensor:
    """Take drafts that were wrong out of the cache once they are a quarter of it; the mask of what is left."""
    seen = int(mask_AL.sum(1).max())
    if mask_AL.shape[1] <= 1.25 * seen:
        return mask_AL
    order_AL = mask_AL.argsort(dim=1, stable=True)[:, -seen:]  # what is hidden comes first
    for layer in cache.layers:
        for name in ("keys", "values"):
            states = getattr(layer, name)
            index = order_AL[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            setattr(layer, name, states.gather(2, index))
    return mask_AL.gather(1, order_AL)


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
