"""What a run writes and watches: progress lines, logs, market statistics, the milestone, adaptive KL.

The last three need every scored completion. `trainers.ScoredGRPOTrainer` hands them over, gathered from all ranks,
through `on_completions`; the callbacks here that listen are `CompletionCallback`s.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import GRPOTrainer

from stonk_trainer import __version__
from stonk_trainer.errors import UserError
from stonk_trainer.recipe import Arguments, GRPORun, make_folder
from stonk_trainer.terminal import log, log_to
from stonk_trainer.training.checkpoints import make_way

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


class RunCallback(TrainerCallback):
    """A callback whose attributes `KEPT` (numbers, texts, lists and dicts of them) a checkpoint holds."""

    KEPT: tuple[str, ...] = ()


class CompletionCallback(RunCallback):
    """A callback that also receives the scored completions of each generation, on the main process."""

    def on_completions(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        records: list[dict],
        training: bool,
    ) -> None:
        """`records`: one per completion, with the task's columns, `step`, `rewards` by name, `total`, `completion`."""


# ------------------------------------------------------------------------------------------------- progress


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


def watch(trainer: Trainer) -> None:
    """Log to `metrics.jsonl`, and replace the printing callbacks of Transformers by `Progress`.

    Call it last: both then see what the other callbacks add to a log.
    """
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # another one in a notebook
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(MetricsLog(trainer.args.output_dir))
    trainer.add_callback(Progress(with_bar=sys.stderr.isatty() and not trainer.args.disable_tqdm))


def open_run(args: Arguments, resumed: str | None = None) -> None:
    """Once nothing the user gave can be wrong any more: the run's folder, with recipe, environment and training.log.

    What an earlier run left there is moved away, all of it or, when resumed from a checkpoint, what came after it.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    folder = Path(args.train.output_dir)
    try:
        make_folder(folder, "output_dir")
        make_way(folder, resumed)
        args.save(folder)
        write_environment(folder, args.train.seed)
        log_to(folder / "training.log")
    except OSError as error:
        raise UserError(
            f"output_dir: {folder} cannot be written ({error.strerror}): give another with --out"
        ) from error


def write_environment(output_dir: str | Path, seed: int) -> None:
    """`environment.json`: versions, commit, seed, machine."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"stonk_trainer": __version__, **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
        "seed": seed,
        "device": str(device),
        "device_count": torch.accelerator.device_count() if torch.accelerator.is_available() else 0,
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }
    _write_json(Path(output_dir) / "environment.json", environment)


def _commit() -> str | None:
    """The commit of the checkout this package runs from; None when it is installed without one."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------- logs


class MetricsLog(TrainerCallback):
    """`metrics.jsonl`: one JSON line per log of the trainer: `step`, and TRL's own keys (of validation: `eval_…`)."""

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / "metrics.jsonl"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            _keep_lines(self.path, state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class RunLog(CompletionCallback):
    """One JSON line per training completion: step, the row, the forecast read, each reward, total, completion."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            _keep_lines(self.path, state.global_step)

    def on_completions(self, args, state, control, records, training):
        if not training:
            return
        with self.path.open("a") as file:
            for record in records:
                line = {"step": record["step"]}
                line |= {k: v for k, v in record.items() if k not in ("step", "rewards", "total", "completion")}
                line |= record["rewards"]
                line |= {"total": record["total"], "completion": record["completion"]}
                file.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, until_step: int) -> None:
    """A fresh run (step 0) starts a fresh log; a resumed one keeps the lines of the steps it keeps."""
    kept = []
    if until_step and path.exists():
        kept = [line for line in read_log(path) if line["step"] <= until_step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def read_log(path: Path) -> list[dict]:
    """The lines of a run log. A last line cut off by a crash is left out; one in the middle raises ValueError."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for i, line in enumerate(lines) if line.endswith("\n") or i < len(lines) - 1]


# ------------------------------------------------------------------------------------------------- market statistics


def market_statistics(records: list[dict]) -> dict:
    """How forecasts meet the market: counts and accuracies by direction, predicted and actual share of UP, their gap.

    Accuracies count an unreadable answer as wrong; `predicted_up_rate` is the share among readable ones. The gap
    (predicted minus actual) shows market adaptation: near 0 when the model forecasts UP as often as the market rises.
    """
    examples = {d: sum(r["label"] == d for r in records) for d in ("UP", "DOWN")}
    predictions = {d: sum(r["direction"] == d for r in records) for d in ("UP", "DOWN")}
    correct = {d: sum(r["label"] == d == r["direction"] for r in records) for d in ("UP", "DOWN")}
    n, readable = len(records), sum(predictions.values())
    actual = examples["UP"] / n if n else None
    predicted = predictions["UP"] / readable if readable else None
    return {
        "examples": {"total": n, "up": examples["UP"], "down": examples["DOWN"]},
        "predictions": {"up": predictions["UP"], "down": predictions["DOWN"], "unreadable": n - readable},
        "correct": {"up": correct["UP"], "down": correct["DOWN"]},
        "accuracy": sum(correct.values()) / n if n else None,
        "up_accuracy": correct["UP"] / examples["UP"] if examples["UP"] else None,
        "down_accuracy": correct["DOWN"] / examples["DOWN"] if examples["DOWN"] else None,
        "actual_up_rate": actual,
        "predicted_up_rate": predicted,
        "gap": predicted - actual if predicted is not None and actual is not None else None,
    }


def forecast_metrics(records: list[dict]) -> dict[str, float]:
    """How a batch of forecasts looks, as the trainer logs it (`report_to`, `metrics.jsonl`); empty for other answers.

    Shares in [0, 1]: readable answers; UP among them; right ones among all; lines of an answer's evidence that the row
    bears out.
    """
    if not records or "direction" not in records[0]:
        return {}
    market = market_statistics(records)
    found = {"forecast/readable": 1 - market["predictions"]["unreadable"] / len(records)}
    found["forecast/accuracy"] = market["accuracy"]
    if market["predicted_up_rate"] is not None:
        found["forecast/up_share"] = market["predicted_up_rate"]
        found["forecast/adaptation_gap"] = market["gap"]
    if "grounded" in records[0]:
        found["forecast/grounded"] = statistics.fmean(record["grounded"] for record in records)
    return found


class MarketStatistics(CompletionCallback):
    """`market_stats.json`: the statistics of all training completions, and of the last `window`."""

    def __init__(self, run_log: str | Path, window: int):
        self.run_log = Path(run_log)
        self.path = self.run_log.with_name("market_stats.json")
        self.window = window
        self.records: list[dict] = []

    def on_train_begin(self, args, state, control, **kwargs):
        """A resumed run takes up the completions its log has kept (RunLog comes first)."""
        if state.global_step and state.is_world_process_zero:
            self.records = [{k: line[k] for k in ("label", "direction")} for line in read_log(self.run_log)]

    def on_completions(self, args, state, control, records, training):
        if not training or any("direction" not in record for record in records):
            return
        self.records += [{k: record[k] for k in ("label", "direction")} for record in records]
        recent = self.records[-self.window :]
        _write_json(
            self.path,
            {
                "step": records[0]["step"],
                "overall": market_statistics(self.records),
                "window": {"size": self.window, **market_statistics(recent)},
            },
        )


# ------------------------------------------------------------------------------------------------- milestone


class Milestone(CompletionCallback):
    """The milestone that ends Stage I, judged on validation completions only, over consecutive evaluations.

    Reached when each of the last `milestone_evaluations` evaluations has mean total reward, accuracy and coherence
    above their thresholds, and the recent training losses are finite and steady. Then `milestone.json` holds the
    evidence, and `stop_at_milestone` ends the run. When it is not reached, the run's last line says what was missing.
    """

    KEPT = ("evaluations", "losses", "reached")

    def __init__(self, run: GRPORun, output_dir: str | Path):
        self.run = run
        self.path = Path(output_dir) / "milestone.json"
        self.records: list[dict] = []
        self.evaluations: list[dict] = []
        self.losses: list[float] = []
        self.reached = False

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and not state.global_step:
            self.path.unlink(missing_ok=True)

    def on_completions(self, args, state, control, records, training):
        if not training:
            self.records += records

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.losses = [*self.losses, float(logs["loss"])][-10:]

    def on_evaluate(self, args, state, control, eval_dataloader=None, **kwargs):
        if state.is_world_process_zero:
            if eval_dataloader is not None:  # several processes fill the last batch up with rows already seen
                answers = args.num_generations_eval or args.num_generations
                del self.records[len(eval_dataloader.dataset) * answers :]
            self._judge(state)
        if self.run.stop_at_milestone:
            (reached,) = broadcast_object_list([self.reached])  # all ranks stop together
            control.should_training_stop |= reached
        return control

    def _judge(self, state: TrainerState) -> None:
        """Take the evaluation just done into account; write the evidence when the milestone is reached."""
        records, self.records = self.records, []
        if not records or "direction" not in records[0]:
            return
        self.evaluations.append({"step": state.global_step, "completions": len(records), **_means(records)})
        recent = self.evaluations[-self.run.milestone_evaluations :]
        if self.reached or len(recent) < self.run.milestone_evaluations or self._missing(recent):
            return
        self.reached = True
        evidence = {
            "step": state.global_step,
            "thresholds": self._thresholds(),
            "evaluations": recent,
            "losses": self.losses,
            "loss_std": self._loss_std(),
        }
        _write_json(self.path, evidence)
        log.info("milestone reached at step %d: %s", state.global_step, _sentence(recent[-1]))

    def on_train_end(self, args, state, control, **kwargs):
        if not state.is_world_process_zero or self.reached:
            return
        if not self.evaluations:
            log.info("milestone not judged: the run had no evaluation (eval_strategy)")
            return
        recent = self.evaluations[-self.run.milestone_evaluations :]
        missing = self._missing(recent)
        if len(recent) < self.run.milestone_evaluations:
            missing.append(f"{self.run.milestone_evaluations} evaluations (there were {len(recent)})")
        log.info("milestone not reached: %s; missing: %s", _sentence(recent[-1]), ", ".join(missing))

    def _thresholds(self) -> dict[str, float]:
        return {name: getattr(self.run, f"milestone_{name}") for name in ("reward", "accuracy", "coherence")}

    def _missing(self, recent: list[dict]) -> list[str]:
        """What keeps these evaluations from the milestone; a reward that the recipe leaves out is not asked for."""
        missing = [
            f"{name} above {threshold:g}"
            for name, threshold in self._thresholds().items()
            if not all(e.get(name) is None or e[name] > threshold for e in recent)
        ]
        if not self._loss_std() < self.run.milestone_loss_std:
            missing.append(f"a steady loss (standard deviation below {self.run.milestone_loss_std:g})")
        return missing

    def _loss_std(self) -> float:
        if not all(map(math.isfinite, self.losses)):
            return math.inf
        return statistics.pstdev(self.losses) if self.losses else math.inf


def _means(records: list[dict]) -> dict[str, float | None]:
    coherence = [r["rewards"]["coherence"] for r in records if "coherence" in r["rewards"]]
    return {
        "reward": statistics.fmean(r["total"] for r in records),
        "accuracy": statistics.fmean(r["direction"] == r["label"] for r in records),
        "coherence": statistics.fmean(coherence) if coherence else None,
    }


def _sentence(evaluation: dict) -> str:
    means = {name: evaluation[name] for name in ("reward", "accuracy", "coherence")}
    told = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items() if mean is not None)
    return f"validation {told} over {evaluation['completions']} completions"


# ------------------------------------------------------------------------------------------------- adaptive KL


class AdaptiveKL(RunCallback):
    """Steers `beta` so that the logged KL stays near `target` (nats per token).

    The proportional controller of Ziegler et al. 2019 (arXiv:1909.08593, section 2.2): beta is multiplied by
    1 + 0.1 · clip(kl / target − 1, −0.2, 0.2) at each log.
    """

    KEPT = ("beta",)

    def __init__(self, trainer: GRPOTrainer, target: float):
        self.trainer = trainer
        self.target = target
        self.beta = trainer.beta

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.beta = self.beta  # a resumed run goes on where its checkpoint was

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and logs.get("kl") is not None:
            error = max(-0.2, min(0.2, logs["kl"] / self.target - 1))
            self.trainer.beta = self.beta = self.beta * (1 + 0.1 * error)
            logs["beta"] = state.log_history[-1]["beta"] = self.beta  # the history has its own copy already
