"""Safeguards of a training run: a signal saves it, signs of trouble are reported once, a failure is one line."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from stonk_trainer.errors import UserError, explained, in_one_line
from stonk_trainer.models.loading import reading
from stonk_trainer.recipe import Arguments
from stonk_trainer.terminal import log
from stonk_trainer.training.callbacks import RunCallback
from stonk_trainer.training.checkpoints import checkpoints, step_of
from stonk_trainer.training.progress import cannot_end
from stonk_trainer.training.run_record import RunRecord
from stonk_trainer.training.trial import Trial

if TYPE_CHECKING:
    from transformers import PretrainedConfig, Trainer, TrainingArguments


def train(trainer: Trainer, resumed: str | None, args: Arguments, record: RunRecord) -> None:
    """`trainer.train()`, whose failures are one line.

    On SIGTERM or Ctrl-C the step is finished, a checkpoint written, and the process ends with 128 + the signal's number
    (143, 130), which a batch system can tell from a failure. record: finished in either case.
    """
    signals, trial, begun = StopSignals(), Trial(trainer), step_of(Path(resumed)) if resumed else 0
    trainer.add_callback(signals)
    if args.options.trial_pass:
        trainer.add_callback(trial)
    with signals:
        try:
            with reading(resumed or args.model.model_name_or_path):
                trainer.train(resume_from_checkpoint=resumed)
        except Exception as error:
            message = _explain(error, trainer, begun, args, trial)
            if message is None:
                raise
            raise UserError(message) from error
    record.finish(trainer)
    if signals.caught:
        name, step = signal.Signals(signals.caught).name, trainer.state.global_step
        log.info("stopped by %s at step %d; go on with --resume_from_checkpoint auto", name, step)
        sys.exit(128 + signals.caught)


def check_optimisation(train: TrainingArguments) -> None:
    """Raise UserError for an optimiser or a schedule that cannot be created from TRL's config `train`."""
    from transformers import Trainer, get_scheduler

    with explained(f"optim: {train.optim} cannot be used"):
        Trainer.get_optimizer_cls_and_kwargs(train)
    with explained(f"lr_scheduler_type: {train.lr_scheduler_type.value} cannot be used"):
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train.learning_rate)
        get_scheduler(train.lr_scheduler_type, optimiser, 1, 10, scheduler_specific_kwargs=train.lr_scheduler_kwargs)


def what_to_shrink(
    config: PretrainedConfig, args: Arguments, prompt: int, completion: int, processes: int = 1, device: str = "cpu"
) -> str:
    """A sentence with the settings that save memory, in the order to try them. Arguments as `memory.estimate`."""
    from stonk_trainer.training import memory

    settings = memory.advice(config, args, prompt, completion, processes, device)
    changes = [f"{setting} (about {_size(saved)} less)" for setting, saved in settings]
    return "set, in this order, " + "; ".join(changes) if changes else "take a smaller model, or a larger device"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _explain(error: Exception, trainer: Trainer, begun: int, args: Arguments, trial: Trial) -> str | None:
    """Why a run ended that was resumed after `begun` steps; None where the traceback is needed."""
    step, last = max(trainer.state.global_step, begun) + 1, next(iter(checkpoints(trainer.args.output_dir)), None)
    if isinstance(error, UserError):
        return None
    # PyTorch's allocator on a CPU has no error class of its own
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        advice = _advice(trainer, args, trial)
        if trial.under_way:
            return f"out of memory in a trial of the largest pass ({trial.what()}): {advice}"
        return f"out of memory in step {step}: {advice}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return (
            f"{error.filename or trainer.args.output_dir} cannot be written ({error.strerror}); the last checkpoint, "
            f"{last or 'none so far'}, is whole: go on with --resume_from_checkpoint auto"
        )
    if last is not None and step_of(last) > begun or os.environ.get("STONK_TRACEBACK"):
        return None  # it worked with these settings: a bug of ours
    if trial.under_way:
        return in_one_line("the trial of the largest pass failed (trial_pass: false leaves it out)", error)
    resumes = begun and trainer.state.global_step <= begun
    what = "resuming from the checkpoint failed; is it of this recipe and model?" if resumes else f"step {step} failed"
    return in_one_line(what, error)


def _advice(trainer: Trainer, args: Arguments, trial: Trial) -> str:
    """For the longest rows: those of the trial or, without one, those that the recipe allows."""
    answer = getattr(trainer.args, "max_completion_length", None) or 1
    prompt, completion = trial.tokens or (512 if args.trainer == "grpo" else trainer.args.max_length or 1024, answer)
    device = trainer.args.device.type
    config = trainer.accelerator.unwrap_model(trainer.model).config
    try:
        return what_to_shrink(config, args, prompt, completion, trainer.args.world_size, device)
    except UserError as error:  # a model that cannot be estimated
        return f"lower per_device_train_batch_size and the lengths ({error})"


class StopSignals(TrainerCallback):
    """The first SIGTERM or Ctrl-C ends the run after its step, with a checkpoint; the second ends it at once.

    Ranks stop together: a scheduler's signal need not reach all of them, nor in the same step.
    """

    def __init__(self):
        self.caught = 0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.caught = number
        log.warning("%s: saving after this step; a second signal ends the run at once", signal.Signals(number).name)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            caught = torch.tensor(self.caught, device=args.device)
            torch.distributed.all_reduce(caught, op=torch.distributed.ReduceOp.MAX)
            self.caught = int(caught)
        if self.caught:
            control.should_save = control.should_training_stop = True
        return control


class Warnings(RunCallback):
    """Reports each sign of trouble once, after `PATIENCE` logs in a row show it: what it means and what to try."""

    PATIENCE = 5
    KEPT = ("reported", "seen", "first_entropy")

    # name: (whether a log shows it, the warning)
    SIGNS = {
        "no reward": (
            lambda logs: logs.get("reward") == 0 and not logs.get("reward_std"),
            "every reward is 0: the model learns nothing. Look at completions in the run log (`stonk score --log`): "
            "unreadable answers need a longer warm-up (stonk sft) or a larger max_completion_length",
        ),
        "no variance": (
            lambda logs: logs.get("frac_reward_zero_std", 0) >= 0.95 and logs.get("reward") != 0,
            "in nearly every group all rewards are equal, so there is nothing to learn. Raise num_generations or "
            "temperature, or set resample_groups",
        ),
        "collapse": (
            lambda logs: 0 <= logs.get("entropy_share", 1) < 0.1,
            "the entropy is below a tenth of what it was: the model gives one answer to everything. Lower "
            "learning_rate, raise beta or temperature, and go back to an earlier checkpoint",
        ),
        "cut off": (
            lambda logs: logs.get("completions/clipped_ratio", 0) > 0.5,
            "more than half of the answers are cut off at max_completion_length: raise it, or add a reward that "
            "punishes length",
        ),
        "far away": (
            lambda logs: (logs.get("kl") or 0) > 1,
            "the KL to the reference is above 1 nat per token: the model has left what it knew. Raise beta or set "
            "kl_target, lower learning_rate",
        ),
    }

    def __init__(self):
        self.reported: list[str] = []
        self.seen: dict[str, int] = {}
        self.first_entropy: float | None = None

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        logs = dict(logs)
        if logs.get("entropy") is not None:
            self.first_entropy = self.first_entropy or logs["entropy"]
            logs["entropy_share"] = logs["entropy"] / self.first_entropy if self.first_entropy > 0 else 1
        if cannot_end(model):
            logs["completions/clipped_ratio"] = 0  # a fixed horizon: every sample has all its tokens
        for name, (shows, text) in self.SIGNS.items():
            self.seen[name] = self.seen.get(name, 0) + 1 if shows(logs) else 0
            if self.seen[name] == self.PATIENCE and name not in self.reported:
                self.reported.append(name)
                log.warning("warning at step %d: %s", state.global_step, text)
