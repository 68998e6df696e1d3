"""The tasks, by name. A new task is a new folder and one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError

if TYPE_CHECKING:
    from stonk_trainer.task import Task

TASKS = {name: f"stonk_trainer.tasks.{name}" for name in ("stocks", "btc", "reasoning")}


def load(name: str) -> Task:
    """The task's package, which offers what `tasks/base.py` says. Raises UserError for an unknown name."""
    if name not in TASKS:
        raise UserError(f"task: {name} is not one of {', '.join(TASKS)}")
    task: Any = importlib.import_module(TASKS[name])
    return task
