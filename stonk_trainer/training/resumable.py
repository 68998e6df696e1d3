"""TRL's trainers, unchanged in what they compute, that can be resumed exactly.

`ResumableTrainer` writes checkpoints that are whole or not there, keeps in them what TRL does not (completions that
further steps still learn from, half-filled means of a log, the place in the data, the state of our callbacks), and
stops on a loss or gradient that is not finite, with the batch saved.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.utils import RepeatSampler

from stonk_trainer.errors import UserError
from stonk_trainer.models import chat
from stonk_trainer.task import Task, text_of
from stonk_trainer.training import checkpoints
from stonk_trainer.training.callbacks import CompletionCallback, RunCallback


class ResumableTrainer(Trainer):
    """A mixin, placed before a trainer of TRL: whole checkpoints, exact resumption, no step with NaN."""

    _writing: Path | None = None  # folder of the checkpoint that is being written

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.fp16:  # TRL puts LoRA over quantised weights into bf16, which loss scaling cannot handle
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        self._resumed: str | None = None
        self._inputs: dict[str, Any] = {}
        self.callback_handler.callbacks.insert(0, _Restore(self))  # before the callbacks whose state it brings back

    # --------------------------------------------------------------------------------------------- checkpoints

    def _get_output_dir(self, trial):
        return str(self._writing or super()._get_output_dir(trial))

    def _save_checkpoint(self, model, trial):
        """As Transformers', in a folder of its own that gets its name when every rank has written its part."""
        run, step = Path(self.args.output_dir), self.state.global_step
        checkpoint, main = run / f"checkpoint-{step}", self.accelerator.is_main_process
        self._writing = run / checkpoints.UNFINISHED
        folder = self._writing / checkpoint.name
        try:
            if main:
                shutil.rmtree(self._writing, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            torch.save(self.extra_state(), folder / f"extra_state_{self.args.process_index}.pt")
            if self.state.best_model_checkpoint == str(folder):
                self.state.best_model_checkpoint = str(checkpoint)
            self.accelerator.wait_for_everyone()
            if main:
                self.state.save_to_json(str(folder / "trainer_state.json"))
                checkpoints.publish(folder, checkpoint)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(_not_saved(run, step, error)) from error
        finally:
            if main:
                shutil.rmtree(self._writing, ignore_errors=True)
            self._writing = None
        if main:
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        self._resumed = checkpoint

    def _run_epoch(self, *args, **kwargs):
        """As Transformers', which makes one step too many when it is resumed from the last."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def extra_state(self) -> dict:
        """The state of this rank that Transformers does not save: numbers, texts, tensors, and lists of these."""
        return {
            "metrics": {
                mode: {key: [float(value) for value in values] for key, values in metrics.items()}
                for mode, metrics in self._metrics.items()
            },
            "loss": self._tr_loss.item(),
            "last_logged": self._globalstep_last_logged,
            "tokens": self._total_train_tokens,
            "callbacks": {
                type(callback).__name__: {name: getattr(callback, name) for name in callback.KEPT}
                for callback in self.callback_handler.callbacks
                if isinstance(callback, RunCallback)
            },
        }

    def load_extra_state(self, state: dict) -> None:
        """Restore what `extra_state` returned."""
        for mode, metrics in state["metrics"].items():
            for key, values in metrics.items():
                self._metrics[mode][key] = values
        self._tr_loss = torch.tensor(state["loss"], device=self.args.device)
        self._globalstep_last_logged, self._total_train_tokens = state["last_logged"], state["tokens"]
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, RunCallback):
                kept = state["callbacks"].get(type(callback).__name__, {})
                for name in callback.KEPT:
                    setattr(callback, name, kept.get(name, getattr(callback, name)))

    # --------------------------------------------------------------------------------------------- finite numbers

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._inputs = inputs
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            self._stop_at("loss", loss.item())
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        scaled = self.accelerator.scaler is not None  # fp16: the scaler skips such a step and lowers its scale
        if not scaled and not math.isfinite(float(grad_norm)):
            self._stop_at("gradient", float(grad_norm))
        return grad_norm

    def _stop_at(self, what: str, value: float) -> None:
        step, rank = self.state.global_step + 1, self.args.process_index
        batch = self._last_batch()
        ids = batch.get("completion_ids", batch.get("input_ids"))
        path = Path(self.args.output_dir) / f"batch_not_finite_{rank}.pt"
        tensors = {key: item.detach().cpu() for key, item in batch.items() if isinstance(item, torch.Tensor)}
        texts = self.processing_class.batch_decode(ids) if ids is not None else []
        torch.save({"step": step, what: value, "texts": texts, "batch": tensors}, path)
        last = next(iter(checkpoints.checkpoints(self.args.output_dir)), None)
        if not self.state.global_step and what == "loss":
            raise UserError(
                f"step {step}: the loss is {value} before anything was learnt: check the model's weights and the "
                f"settings of the loss; the batch is saved in {path} (torch.load)"
            )
        raise UserError(
            f"step {step}: the {what} is {value}; nothing after the last checkpoint ({last or 'there is none'}) is "
            f"kept, and the batch is saved in {path} (torch.load). Lower learning_rate "
            f"({self.args.learning_rate:g}) or max_grad_norm ({self.args.max_grad_norm:g}), raise warmup_steps, or set "
            "dtype: float32"
        )

    def _last_batch(self) -> dict:
        return self._inputs


class _Restore(TrainerCallback):
    """Restores a resumed trainer's extra state once Transformers has restored its own."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer._resumed is None:
            return
        path = Path(self.trainer._resumed) / f"extra_state_{args.process_index}.pt"
        if path.is_file():  # not in a checkpoint of TRL alone, or of fewer processes
            self.trainer.load_extra_state(torch.load(path, weights_only=True, map_location=args.device))


def _not_saved(run: Path, step: int, error: Exception) -> str:
    """PyTorch's error for a full disk does not say so: what is left there does."""
    free = shutil.disk_usage(run).free / 2**20
    reason = "no space is left there" if free < 1 else f"{' '.join(str(error).split())[:200]}; {free:.0f} MiB are free"
    kept = checkpoints.checkpoints(run)
    return (
        f"checkpoint {step} could not be written to {run}: {reason}. Free some space, or lower save_total_limit, and "
        f"continue with --resume_from_checkpoint auto (whole: {kept[0].name if kept else 'none yet'})"
    )


# ------------------------------------------------------------------------------------------------- supervised


class SupervisedTrainer(ResumableTrainer, SFTTrainer):
    """TRL's SFTTrainer, resumable."""


class SmallVocabularySFTTrainer(SupervisedTrainer):
    """TRL's SFTTrainer with the model's own loss, which is the same one.

    TRL computes logits in tiles, to save memory where the vocabulary is large, and their entropy; over a few hundred
    market tokens that is a tenth of the time of a step (`benchmarks/btc.py`).
    """

    LARGEST = 4096

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = {**inputs, "use_cache": False}
        loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items_in_batch)
        with torch.no_grad():
            labels = inputs["labels"][:, 1:]
            right = (outputs.logits[:, :-1].argmax(-1) == labels).sum() / (labels != -100).sum()
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["mean_token_accuracy"].append(self.accelerator.gather(right).mean().item())
        return (loss, outputs) if return_outputs else loss


# ------------------------------------------------------------------------------------------------- GRPO


class ScoredGRPOTrainer(ResumableTrainer, GRPOTrainer):
    """TRL's GRPOTrainer, resumable, that tells its `CompletionCallback`s what was generated and what it earned.

    task: it reads the answers. `_calculate_rewards` is the one place in TRL where rows, completions and the rewards of
    all ranks are together.
    """

    def __init__(self, *args: Any, task: Task, **kwargs: Any):
        self._task = task
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if not isinstance(prompts[0], str):  # an answer begins where the thought does, also if the prompt opened it
            before = chat.prompts(prompts, self._tokenizer, **self.chat_template_kwargs)
            completions = [
                [{**message, "content": chat.whole_answer(prompt, message["content"])}, *others]
                for prompt, (message, *others) in zip(before, completions, strict=True)
            ]
        rewards_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        read = zip(self._task.read(inputs, completions), map(text_of, completions), strict=True)
        records = gather_object([{**record, "completion": text} for record, text in read])  # in rank order, as TRL's
        mode = "train" if self.model.training else "eval"
        for name, value in self._task.metrics(records).items():
            self._metrics[mode][name].append(value)
        if self.accelerator.is_main_process:
            training = self.model.training
            totals_B = (rewards_BF.cpu() * self.reward_weights.cpu()).nansum(dim=1).tolist()
            for record, rewards, total in zip(records, rewards_BF.tolist(), totals_B, strict=True):
                record["step"] = self.state.global_step + int(training)  # the step these completions train
                named = zip(self.reward_func_names, rewards, strict=True)
                record["rewards"] = {name: None if math.isnan(r) else round(r, 6) for name, r in named}
                record["total"] = round(total, 6)
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, CompletionCallback):
                    callback.on_completions(self.args, self.state, self.control, records, training)
        return rewards_BF

    def _get_train_sampler(self, dataset=None):
        """TRL's sampler, whose order in an epoch follows from the epoch's number alone, so that it can be resumed."""
        plain = super()._get_train_sampler(dataset)
        return _EpochSampler(self, plain) if type(plain) is RepeatSampler else plain

    def extra_state(self):
        """Also the completions that the next steps still learn from, where a generation lasts longer than a step."""
        every = self.args.steps_per_generation * self.num_iterations
        under_way = self._step % every != 0
        return super().extra_state() | {"step": self._step, "buffered": self._buffered_inputs if under_way else None}

    def load_extra_state(self, state):
        super().load_extra_state(state)
        self._step, self._buffered_inputs = state["step"], state["buffered"]

    def _last_batch(self):
        return self._buffered_inputs[(self._step - 1) % self.args.steps_per_generation] if self._buffered_inputs else {}


class _EpochSampler(RepeatSampler):
    """The order TRL's RepeatSampler has in the epoch the trainer is in, whichever epochs were run before."""

    def __init__(self, trainer: GRPOTrainer, plain: RepeatSampler):
        self.__dict__ |= plain.__dict__
        self.trainer = trainer

    def __iter__(self):
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(int(self.trainer.state.epoch or 0)):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()
