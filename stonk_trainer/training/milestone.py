"""The milestone that ends a stage of training."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import TrainerState

from stonk_trainer.files import write_json
from stonk_trainer.recipe import GRPORun
from stonk_trainer.task import Task
from stonk_trainer.terminal import log
from stonk_trainer.training.callbacks import CompletionCallback


class Milestone(CompletionCallback):
    """The milestone that ends Stage I, judged on validation completions only, over consecutive evaluations.

    Reached when in each of the last `milestone_evaluations` evaluations the means that `task.milestone` names are above
    their thresholds, and the recent training losses are finite and steady. Then `milestone.json` holds the evidence,
    and `stop_at_milestone` ends the run. When it is not reached, the run's last line says what was missing. `outcome`
    is what run.json says of it.
    """

    KEPT = ("evaluations", "losses", "reached")

    def __init__(self, task: Task, run: GRPORun, output_dir: str | Path):
        self.task = task
        self.run = run
        self.path = Path(output_dir) / "milestone.json"
        self.records: list[dict] = []
        self.evaluations: list[dict] = []
        self.losses: list[float] = []
        self.reached = False
        self.outcome: dict = {}

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
        means = self.task.milestone(records) if records else {}
        if not means:
            return
        self.evaluations.append({"step": state.global_step, "completions": len(records), **means})
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
        write_json(self.path, evidence)
        self.outcome = {"reached": True, "step": state.global_step}
        log.info("milestone reached at step %d: %s", state.global_step, _sentence(recent[-1]))

    def on_train_end(self, args, state, control, **kwargs):
        if not state.is_world_process_zero or self.reached:
            return
        if not self.evaluations:
            self.outcome = {"reached": False, "reason": "not judged: the run had no evaluation (eval_strategy)"}
        else:
            recent = self.evaluations[-self.run.milestone_evaluations :]
            missing = self._missing(recent)
            if len(recent) < self.run.milestone_evaluations:
                missing.append(f"{self.run.milestone_evaluations} evaluations (there were {len(recent)})")
            reason = f"not reached: {_sentence(recent[-1])}; missing: {', '.join(missing)}"
            self.outcome = {"reached": False, "reason": reason}
        log.info("milestone %s", self.outcome["reason"])

    def _thresholds(self) -> dict[str, float]:
        return {name: getattr(self.task.args, f"milestone_{name}") for name in _means(self.evaluations[-1])}

    def _missing(self, recent: list[dict]) -> list[str]:
        """What keeps these evaluations from the milestone."""
        missing = [
            f"{name} above {threshold:g}"
            for name, threshold in self._thresholds().items()
            if not all(evaluation[name] > threshold for evaluation in recent)
        ]
        if not self._loss_std() < self.run.milestone_loss_std:
            missing.append(f"a steady loss (standard deviation below {self.run.milestone_loss_std:g})")
        return missing

    def _loss_std(self) -> float:
        if not all(map(math.isfinite, self.losses)):
            return math.inf
        return statistics.pstdev(self.losses) if self.losses else math.inf


def _means(evaluation: dict) -> dict[str, float]:
    return {name: value for name, value in evaluation.items() if name not in ("step", "completions")}


def _sentence(evaluation: dict) -> str:
    means = ", ".join(f"{name} {mean:.2f}" for name, mean in _means(evaluation).items())
    return f"validation {means} over {evaluation['completions']} completions"
