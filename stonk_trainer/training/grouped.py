"""GRPO with each prompt computed once for its whole group, and with groups that teach nothing left out.

TRL computes a prompt of P tokens once per sample: G samples of C tokens cost G (P + C) token passes, in the rollout and
for each set of log-probabilities, and each is padded to the longest. Here the rollout computes a prompt's keys and
values once, and log-probabilities are those of a packed row (`packed`): P + the tokens of the answers, the same
numbers. The loss, the LM head and the samplers stay TRL's and Transformers' own.

Shape suffixes: B rows, U distinct prompts, P prompt tokens, C completion tokens, L all tokens of a row, F rewards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad, split_tensor_dict

from stonk_trainer.errors import UserError
from stonk_trainer.models import decoding
from stonk_trainer.models.decoding import decode
from stonk_trainer.models.drafting import Drafter
from stonk_trainer.terminal import log
from stonk_trainer.training import packed
from stonk_trainer.training.resumable import ScoredGRPOTrainer


def unsupported_reason(model: PreTrainedModel, args: TrainingArguments) -> str | None:
    """Why prompts cannot be shared with this model and these arguments; None when they can."""
    if args.use_vllm or args.use_transformers_continuous_batching:
        return "another engine samples (use_vllm, use_transformers_continuous_batching)"
    if reason := decoding.unsupported_reason(model) or packed.unsupported_reason(model):
        return reason
    if is_deepspeed_zero3_enabled():
        return "DeepSpeed ZeRO 3 holds the weights in shards"
    if args.cache_implementation not in (None, "dynamic"):
        return f"cache_implementation is {args.cache_implementation}"
    return None


class SharedPrefixGRPOTrainer(ScoredGRPOTrainer):
    """ScoredGRPOTrainer whose rollout and log-probabilities share the prompt of a group.

    shared_prefix: "auto" shares where it can and says why where it cannot; "true" is an error there; "false" is TRL's
    way. skip_zero_variance: rows of groups whose rewards are all equal stay out of the gradient pass: their policy
    loss is zero; so is their share of the KL, which is not taken. resample_groups: for such groups further prompts are
    drawn, up to that many times a batch (DAPO, arXiv:2503.14476, section 3.2). packed_tokens: distinct tokens of a
    packed row at most; the loss is that of the whole micro-batch. draft_tokens: as of `Drafter`.
    """

    def __init__(
        self,
        *args: Any,
        shared_prefix: str = "auto",
        skip_zero_variance: bool = False,
        resample_groups: int = 0,
        packed_tokens: int | None = None,
        draft_tokens: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.drafter = Drafter(draft_tokens, lasting=True)
        self.packed_tokens = packed_tokens
        self.skip_zero_variance = skip_zero_variance
        self.resample_groups = resample_groups
        model = self.accelerator.unwrap_model(self.model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        reason = unsupported_reason(base, self.args)
        if reason and shared_prefix == "true":
            raise UserError(f"shared_prefix: true cannot be done here: {reason}; set it to auto")
        self.shares = shared_prefix != "false" and reason is None
        if reason and shared_prefix == "auto":
            log.info("prompts are not shared: %s", reason)
        if self.shares:
            packed.accept_packed(base)
            if self.ref_model is not None:
                packed.accept_packed(self.accelerator.unwrap_model(self.ref_model))
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if resample_groups and rows % self.num_generations:
            raise UserError(
                "resample_groups needs whole groups of num_generations on each process: raise "
                "per_device_train_batch_size or gradient_accumulation_steps"
            )
        self._rollouts = {"train": 0, "eval": 0}  # generations so far
        self._further = 0  # prompts drawn so far for groups that taught nothing

    # --------------------------------------------------------------------------------------------- log-probabilities

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **inputs,
    ):
        """As TRL's, on packed rows. Rows of a group may be anywhere in the batch."""
        if not self.shares or compute_aux_loss or any(value is not None for value in inputs.values()):
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **inputs,
            )
        size, how = batch_size or len(input_ids), {"most": self.packed_tokens, "sharded": self.is_fsdp_enabled}
        with self.accelerator.autocast():
            found = [
                packed.log_probabilities(model, ids, mask, logits_to_keep, **how)
                for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        logps, entropies = zip(*found, strict=True)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    # --------------------------------------------------------------------------------------------- rollout

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """As TRL's regular path, each distinct prompt prefilled once; rows that have ended leave the batch.

        Dropout is off, so that a sample does not depend on which passes found it.
        """
        if not self.shares or images is not None or min(map(len, prompt_ids)) < 2:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        rows = [torch.tensor(ids) for ids in prompt_ids]
        pad_id = self._tokenizer.pad_token_id
        ids_BP = pad(rows, padding_value=pad_id, padding_side="left").to(self.accelerator.device)
        mask_BP = pad([torch.ones_like(ids) for ids in rows], padding_value=0, padding_side="left").to(ids_BP.device)
        draws_BC = self._draws(len(prompt_ids))
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            _evaluating(model),
        ):
            output_BL = model.generate(
                input_ids=ids_BP,
                attention_mask=mask_BP,
                generation_config=self.generation_config,
                custom_generate=partial(
                    decode,
                    draws_BC=draws_BC,
                    together=self.is_fsdp_enabled,
                    drafter=self.drafter,
                ),
            )
        ends = set(self.eos_token_ids)
        completions = []
        for ids in output_BL[:, ids_BP.shape[1] :].tolist():
            length = next((at + 1 for at, token in enumerate(ids) if token in ends), len(ids))
            completions.append(ids[:length])
        return completions, None

    def _draws(self, rows: int) -> torch.Tensor:
        """B x C uniform numbers for a rollout, from the seed, its number and the row's place over all processes.

        So the samples are the same however the rows of a batch are spread over processes and accumulation.
        """
        mode = "train" if self.model.training else "eval"
        first, length = self.accelerator.process_index * rows, self.generation_config.max_new_tokens
        seeds = [[self.args.seed, mode == "train", self._rollouts[mode], first + row] for row in range(rows)]
        self._rollouts[mode] += 1
        draws_BC = np.array([np.random.default_rng(seed).random(length) for seed in seeds])
        return torch.from_numpy(draws_BC).to(self.accelerator.device)

    # --------------------------------------------------------------------------------------------- batches of groups

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        """As TRL's, but rows are shuffled by whole groups, so that a micro-batch splits none where it need not."""
        if not self.shares or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(_shuffled(batch, self.num_generations), steps)
        return self._buffered_inputs[self._step % steps]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            self._teaches = self._has_spread(rewards_BF)[len(inputs) * self.accelerator.process_index :][: len(inputs)]
        return rewards_BF

    def _has_spread(self, rewards_BF: torch.Tensor) -> torch.Tensor:
        """Which rows belong to a group whose rewards differ, to TRL's precision: a mean of equal numbers is rounded, so
        that advantages are not exactly zero."""
        if self.multi_objective_aggregation == "sum_then_normalize":
            rewards_BF = (rewards_BF * self.reward_weights.to(rewards_BF.device)).nansum(1, keepdim=True)
        groups = rewards_BF.nan_to_num().view(-1, self.num_generations, rewards_BF.shape[1])
        equal = torch.isclose(groups.std(1), groups.new_zeros(())).all(1)
        return (~equal).repeat_interleave(self.num_generations)

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        batch["useful"] = self._teaches
        if self.resample_groups:
            batch = self._resampled(batch, inputs)
        tokens_B = batch["completion_mask"].sum(1)
        counts = self.accelerator.gather(torch.stack([(tokens_B * batch["useful"]).sum(), tokens_B.sum()])[None]).sum(0)
        self._metrics["train"]["completions/useful_token_share"].append((counts[0] / counts[1].clamp(min=1)).item())
        return batch

    def _resampled(self, batch: dict[str, Any], inputs: list[dict]) -> dict[str, Any]:
        """Put groups of further prompts in the place of those that taught nothing, up to `resample_groups` times."""
        group = self.num_generations
        for _ in range(self.resample_groups):
            missing = (~batch["useful"]).view(-1, group)[:, 0].nonzero()[:, 0].tolist()
            if not self.accelerator.gather(torch.tensor([len(missing)], device=self.accelerator.device)).sum():
                break  # no process lacks a group
            other = super()._generate_and_score_completions(self._further_inputs(len(inputs) // group))
            other["useful"] = self._teaches
            found = other["useful"].view(-1, group)[:, 0].nonzero()[:, 0].tolist()
            batch = _with_groups(
                batch, other, dict(zip(missing, found, strict=False)), group, self._tokenizer.pad_token_id
            )
            batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        return batch

    def _further_inputs(self, prompts: int) -> list[dict]:
        """Rows of the training data in an order of their own, each `num_generations` times."""
        rows, size = [], len(self.train_dataset)
        for drawn in range(self._further, self._further + prompts):
            seed = [self.args.seed, self.accelerator.process_index, drawn // size]
            order = np.random.default_rng(seed).permutation(size)
            rows.append(self.train_dataset[int(order[drawn % size])])
        self._further += prompts
        return [copy.copy(row) for row in rows for _ in range(self.num_generations)]

    def extra_state(self):
        own = {"further": self._further, "rollouts": self._rollouts, "drafter": self.drafter.state()}
        return super().extra_state() | own

    def load_extra_state(self, state):
        super().load_extra_state(state)
        self._further, self._rollouts = state["further"], state["rollouts"]
        self.drafter.load_state(state["drafter"])

    def _compute_loss(self, model, inputs):
        """TRL's loss, over the rows that have a gradient when others are skipped; their zeros count in its means."""
        if not (self.skip_zero_variance and self.model.training):
            return super()._compute_loss(model, inputs)
        useful_B, nothing = inputs["useful"], not inputs["useful"].any()
        if nothing:  # one row still runs, so that every process has a backward pass; its loss is taken times 0
            useful_B = torch.arange(len(useful_B), device=useful_B.device) == 0
        kept = {
            key: value[useful_B] if isinstance(value, torch.Tensor) and value.ndim else value
            for key, value in inputs.items()
        }
        loss = super()._compute_loss(model, kept)
        return loss * (0.0 if nothing else _share(self.loss_type, inputs, kept, useful_B))


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """As between `eval()` and `train()`, but for quantised layers.

    In evaluation mode on a CPU, bitsandbytes packs their weights, and they cannot be trained any more.
    """
    switched = [m for m in model.modules() if m.training and not type(m).__module__.startswith("bitsandbytes.")]
    for module in switched:
        module.training = False
    try:
        yield
    finally:
        for module in switched:
            module.training = True


def _share(loss_type: str, inputs: dict, kept: dict, useful_B: torch.Tensor) -> torch.Tensor | float:
    """What the loss over the kept rows is to be multiplied by to be the loss over all: means are over fewer rows."""
    if loss_type == "bnpo":
        return kept["completion_mask"].sum() / inputs["completion_mask"].sum().clamp(min=1)
    if loss_type in ("grpo", "dr_grpo", "sapo", "luspo"):
        return useful_B.float().mean()
    return 1.0  # divided by the tokens of the whole batch already


def _shuffled(batch: dict[str, Any], group: int) -> dict[str, Any]:
    """Rows in a random order of their groups."""
    rows = len(batch["advantages"])
    size = group if rows % group == 0 else 1
    order = torch.randperm(rows // size).repeat_interleave(size) * size + torch.arange(rows) % size
    return {k: v[order.to(v.device)] if isinstance(v, torch.Tensor) and v.ndim else v for k, v in batch.items()}


_LEFT_PADDED = ("prompt_ids", "prompt_mask")


def _with_groups(
    batch: dict[str, Any], other: dict[str, Any], places: dict[int, int], group: int, pad_id: int
) -> dict[str, Any]:
    """`batch` with its groups `places` taken by groups of `other`. Both are padded to the longer."""
    if not places:
        return batch
    merged = dict(batch)
    for key, value in batch.items():
        if not isinstance(value, torch.Tensor) or not value.ndim:
            continue
        one, two = value, other[key]
        if value.ndim > 1:
            length = max(one.shape[1], two.shape[1])
            fill = pad_id if key.endswith("_ids") else 0
            one, two = (_padded(rows, length, fill, key in _LEFT_PADDED) for rows in (one, two))
        one = one.clone()
        for place, source in places.items():
            one[place * group : (place + 1) * group] = two[source * group : (source + 1) * group]
        merged[key] = one
    return merged


def _padded(rows_BL: torch.Tensor, length: int, fill: int, left: bool) -> torch.Tensor:
    missing = length - rows_BL.shape[1]
    return torch.nn.functional.pad(rows_BL, (missing, 0) if left else (0, missing), value=fill)
