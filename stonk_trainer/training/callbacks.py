"""What a run writes while it trains: logs, market statistics; and the controller of beta.

Those that need every scored completion are `CompletionCallback`s: `resumable.ScoredGRPOTrainer` hands completions over,
gathered from all ranks, through `on_completions`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback
from trl import GRPOTrainer

from stonk_trainer.errors import UserError
from stonk_trainer.files import Dropped, read_jsonl, write_json, write_whole
from stonk_trainer.task import market_statistics
from stonk_trainer.training.progress import Progress


class RunCallback(TrainerCallback):
    """A callback whose attributes `KEPT` (numbers, texts, lists and dicts of them) are saved in each checkpoint."""

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


def watch(trainer: Trainer) -> None:
    """Log to `metrics.jsonl`, and replace the printing callbacks of Transformers by `Progress`.

    Call it last: both then see what the other callbacks add to a log.
    """
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # another one in a notebook
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(MetricsLog(trainer.args.output_dir))
    trainer.add_callback(Progress(with_bar=sys.stderr.isatty() and not trainer.args.disable_tqdm))


class MetricsLog(TrainerCallback):
    """`metrics.jsonl`: one JSON line per log of the trainer: `step`, and TRL's own keys (of validation: `eval_…`).

    The last step is logged whatever `logging_steps` is, so that a short run has its metrics too.
    """

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / "metrics.jsonl"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            _keep_lines(self.path, state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= state.global_step >= state.max_steps
        return control

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
    write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))


def read_log(path: Path) -> list[dict]:
    """The lines of a run log. A last line cut off by a crash is left out; a broken one before it raises UserError."""
    dropped: list[Dropped] = []
    lines = [line for _, line in read_jsonl(path, dropped)]
    if dropped and not dropped[0].torn:
        raise UserError(f"{path}, line {dropped[0].number} is not JSON: the log was changed by something else")
    return lines


class MarketStatistics(CompletionCallback):
    """`market_stats.json`: `task.market_statistics` of all training completions, and of the last `window`."""

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
        if not training:
            return
        self.records += [{k: record[k] for k in ("label", "direction")} for record in records]
        recent = self.records[-self.window :]
        write_json(
            self.path,
            {
                "step": records[0]["step"],
                "overall": market_statistics(self.records),
                "window": {"size": self.window, **market_statistics(recent)},
            },
        )


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
