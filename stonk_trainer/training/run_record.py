"""`run.json`: what a run did, written when it begins and again when it ends; check, report and card read it.

command, trainer, task, stage (in words), rewards (names; none in SFT), model (that it started from), resumed_from,
started and ended (local time; null while it runs), steps (made), data (by split, `task.DataSummary`), milestone
(reached, and at which step or why not; null where none is judged), environment (versions, commit, seed, machine).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder, write_json
from stonk_trainer.recipe import Arguments
from stonk_trainer.terminal import log_to
from stonk_trainer.training.checkpoints import archive_previous_run
from stonk_trainer.training.milestone import Milestone
from stonk_trainer.version import __version__

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


class RunRecord:
    """The record of one run. On ranks other than 0 it does nothing."""

    def __init__(self, args: Arguments, resumed: str | None):
        """Once nothing the user gave can be wrong any more: set up the run's folder, with recipe.yaml, run.json and
        training.log. What an earlier run left there is moved away: all of it or, when resumed from a checkpoint, what
        came after it. Raises UserError when the folder cannot be written."""
        self.folder = Path(args.train.output_dir)
        self.content: dict[str, Any] = {
            "command": args.command,
            "trainer": args.trainer,
            "task": args.task.name,
            "stage": args.task.stage(args.trainer),
            "rewards": args.task.reward_names if args.trainer == "grpo" else [],
            "model": args.model.model_name_or_path,
            "resumed_from": resumed,
            "started": _now(),
            "ended": None,
            "steps": None,
            "data": {split: asdict(summary) for split, summary in args.task.data.items()},
            "milestone": None,
            "environment": environment(args.train.seed),
        }
        if os.environ.get("RANK", "0") != "0":
            return
        try:
            make_folder(self.folder, "output_dir")
            archive_previous_run(self.folder, resumed)
            args.save(self.folder)
            self._write()
            log_to(self.folder / "training.log")
        except OSError as error:
            raise UserError(
                f"output_dir: {self.folder} cannot be written ({error.strerror}): give another with --out"
            ) from error

    def finish(self, trainer: Trainer) -> None:
        """Add the steps made, the milestone's outcome and the time."""
        milestones = [one for one in trainer.callback_handler.callbacks if isinstance(one, Milestone)]
        self.content |= {"ended": _now(), "steps": trainer.state.global_step}
        self.content["milestone"] = milestones[0].outcome if milestones else None
        if trainer.is_world_process_zero():
            self._write()

    def _write(self) -> None:
        write_json(self.folder / "run.json", self.content)


def record_of_model(model: str) -> dict[str, Any]:
    """run.json of the run that left a model's folder; empty where there is none that can be read."""
    try:
        record = json.loads((Path(model).expanduser().parent / "run.json").read_text())
        return {"stage": str(record["stage"]), "steps": record["steps"], "data": dict(record["data"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _now() -> str:
    return f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"


def environment(seed: int) -> dict[str, Any]:
    """Versions, commit, seed, machine."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"stonk_trainer": __version__, **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
        "seed": seed,
        "device": str(device),
        "device_count": torch.accelerator.device_count() if torch.accelerator.is_available() else 0,
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _commit() -> str | None:
    """The commit of the checkout this package runs from; None when it is installed without one."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None
