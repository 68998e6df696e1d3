"""What a task is. Trainers and commands know a task by these classes alone; `stonk_trainer/tasks/` holds three.

A task of your own is a subclass of `Task` with five methods, named in a recipe by its import path:
`task: my_package.module:MyTask`. A task whose answers forecast UP or DOWN is a `ForecastTask`: it is judged against
baselines and prices, and `stonk predict` works with it.
"""

from stonk_trainer.task.base import BUILT_IN, SPLITS, Task, TaskArguments, check_chat_template, load_task, text_of
from stonk_trainer.task.forecast import (
    ForecastArguments,
    Forecaster,
    ForecastTask,
    SamplingConfig,
    market_statistics,
)
from stonk_trainer.task.parts import CardResults, DataSummary, Finding, Pattern, Row, Table

__all__ = [
    "BUILT_IN", "SPLITS", "CardResults", "DataSummary", "Finding", "ForecastArguments", "ForecastTask", "Forecaster",
    "Pattern", "Row", "SamplingConfig", "Table", "Task", "TaskArguments", "check_chat_template", "load_task",
    "market_statistics", "text_of",
]  # fmt: skip
