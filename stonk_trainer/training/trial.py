"""The largest pass of a run, tried before its first step: what does not fit fails in the first minute.

The longest rows may be drawn hours into a run, and long answers come as the model learns to give them.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import pyarrow.compute
import torch
from transformers import Trainer, TrainerCallback
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.utils import pad

from stonk_trainer.terminal import log
from stonk_trainer.training import memory


class Trial(TrainerCallback):
    """One forward and backward pass of the largest micro-batch, after which the trainer is as it was.

    In memory beside it is what later steps keep: the optimiser's state, and with accumulation the gradients. Not under
    DeepSpeed, whose engine takes each backward pass as part of a step.

    tokens: (of the prompt, of the completion) of the rows that are tried; None before. under_way: whether it has begun
    and not passed.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.tokens: tuple[int, int] | None = None
        self.under_way = False

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.is_deepspeed_enabled or state.global_step >= state.max_steps:
            return
        self.under_way = True
        started, trainer, model = time.monotonic(), self.trainer, self.trainer.model_wrapped
        before = vars(trainer) | {"_metrics": copy.deepcopy(trainer._metrics)}
        devices = [] if args.device.type == "cpu" else [args.device]
        with torch.random.fork_rng(devices, device_type=args.device.type if devices else "cuda"):
            trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
            batch, self.tokens = (_answers if isinstance(trainer, GRPOTrainer) else _rows)(trainer)
            kept = torch.empty(self._kept_bytes(), dtype=torch.uint8, device=args.device)
            model.train()
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, batch, num_items_in_batch=batch["num_items_in_batch"])
            trainer.accelerator.backward(loss)
            model.zero_grad()
            del kept, loss
        vars(trainer).update(before)
        self.under_way = False
        log.info("a trial of the largest pass, %s, took %.1f s", self.what(), time.monotonic() - started)

    def what(self) -> str:
        """The rows that are tried, in words."""
        prompt, completion = self.tokens or (0, 0)
        rows = self.trainer.args.per_device_train_batch_size
        return f"{rows} rows of {prompt} + {completion} tokens" if prompt else f"{rows} rows of {completion} tokens"

    def _kept_bytes(self) -> int:
        """What this process will have in memory beside a pass and does not have yet."""
        args = self.trainer.args
        own = [getattr(p, "_local_tensor", p) for p in self.trainer.model.parameters() if p.requires_grad]
        gradients = sum(p.nbytes for p in own) if args.gradient_accumulation_steps > 1 else 0
        resumed = bool(self.trainer.optimizer.state)
        return gradients + (0 if resumed else sum(memory.optimiser_bytes(p, args.optim) for p in own))


def _rows(trainer: SFTTrainer) -> tuple[dict[str, Any], tuple[int, int]]:
    """(a micro-batch of the longest row, its tokens)."""
    ids = trainer.train_dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    lengths = pyarrow.compute.list_value_length(ids).to_numpy()
    row = trainer.train_dataset[int(lengths.argmax())]
    batch = trainer._prepare_inputs(trainer.data_collator([row] * trainer.args.per_device_train_batch_size))
    learnt = (batch["labels"] != -100).sum(1)
    batch["num_items_in_batch"] = learnt.sum()
    return batch, (int(lengths.max() - learnt[0]), int(learnt[0]))


def _answers(trainer: GRPOTrainer) -> tuple[dict[str, Any], tuple[int, int]]:
    """(a micro-batch of the longest prompts, each with a group of answers that have nothing in common, its tokens).

    The longest by their characters, which need not be those of most tokens.
    """
    rows, group, device = trainer.args.per_device_train_batch_size, trainer.num_generations, trainer.args.device
    texts = trainer.train_dataset["prompt"]
    lengths = [len(text) if isinstance(text, str) else sum(len(m["content"]) for m in text) for text in texts]
    longest = sorted(range(len(lengths)), key=lambda number: -lengths[number])[: math.ceil(rows / group)]
    prompts = [torch.tensor(ids) for ids in trainer._tokenize_prompts([texts[number] for number in longest])[0]]
    of_rows = [prompts[row // group % len(prompts)] for row in range(rows)]
    shape = rows, trainer.max_completion_length
    zeros_BC, ones_BC = torch.zeros(shape, device=device), torch.ones(shape, device=device)
    batch = {
        "prompt_ids": pad(of_rows, padding_value=trainer._tokenizer.pad_token_id, padding_side="left").to(device),
        "prompt_mask": pad([torch.ones_like(ids) for ids in of_rows], padding_value=0, padding_side="left").to(device),
        "completion_ids": torch.randint(trainer.model.config.get_text_config().vocab_size, shape, device=device),
        "completion_mask": ones_BC.long(),
        "advantages": ones_BC[:, 0],
        "old_per_token_logps": zeros_BC,
        "ref_per_token_logps": zeros_BC,
        "importance_sampling_ratio": ones_BC,
        "num_items_in_batch": ones_BC.sum(),
        "useful": ones_BC[:, 0].bool(),
    }
    return batch, (max(map(len, prompts)), shape[1])
