"""What a run shows while it trains: one readable line per log, and a bar on a terminal."""

from __future__ import annotations

import time

from transformers import PreTrainedModel
from transformers.trainer_callback import ProgressCallback

from stonk_trainer.terminal import log


class Progress(ProgressCallback):
    """One readable line per log: step, what was measured, seconds per step, time left; a bar on a terminal as well."""

    # What TRL logs → its name in the line, in this order.
    SHOWN = {
        "loss": "loss",
        "reward": "reward",
        "frac_reward_zero_std": "groups without variance",
        "completions/useful_token_share": "useful tokens",
        "kl": "kl",
        "grad_norm": "grad",
        "mean_token_accuracy": "token accuracy",
        "completions/mean_length": "tokens",
        "completions/clipped_ratio": "cut off",
    }

    def __init__(self, with_bar: bool):
        super().__init__()
        self.with_bar = with_bar
        self._started: float | None = None
        self._first_step = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._started, self._first_step = time.monotonic(), state.global_step
        if self.with_bar:
            super().on_train_begin(args, state, control, **kwargs)
        left = state.max_steps - state.global_step
        if state.is_world_process_zero and left > 0:
            log.info("training: %d steps", left)
        elif state.is_world_process_zero:
            log.info("nothing left to train: this run has made its %d steps", state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        if self.with_bar:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args, state, control, **kwargs):
        if self.with_bar:
            super().on_prediction_step(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        if self.with_bar:
            super().on_train_end(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        evaluation = any(key.startswith("eval_") for key in logs)
        values = {key.removeprefix("eval_"): value for key, value in logs.items()}
        parts = [f"{'validation at' if evaluation else 'step'} {state.global_step}/{state.max_steps}"]
        for key, label in self.SHOWN.items():
            if evaluation and key in ("loss", "frac_reward_zero_std") and "reward" in values:
                continue  # one answer per prompt: no group, no loss
            if key == "completions/clipped_ratio" and cannot_end(kwargs.get("model")):
                continue  # a fixed horizon: every sample has all its tokens
            if isinstance(values.get(key), (int, float)):
                parts.append(f"{label} {values[key]:.3g}")
            if key == "reward":
                parts += [
                    f"{name.split('/')[1]} {value:.3g}"
                    for name, value in values.items()
                    if name.startswith("rewards/") and name.endswith("/mean") and value is not None
                ]
        done = state.global_step - self._first_step
        if done and not evaluation and self._started is not None:
            per_step = (time.monotonic() - self._started) / done
            left = per_step * (state.max_steps - state.global_step)
            parts.append(f"{per_step:.1f} s/step, {_duration(left)} left")
        log.info("  ".join(parts))


def cannot_end(model: PreTrainedModel) -> bool:
    """Whether the model never generates an end: its generation config suppresses it."""
    config = getattr(model, "generation_config", None)
    return config is not None and config.eos_token_id in (config.suppress_tokens or ())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{seconds:02d}s"
