"""What a run and an evaluation leave on disk.

A file may be missing, and a crash may cut one off: `problems` says what is missing and how to make it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.files import Dropped, read_jsonl, read_text
from stonk_trainer.task import BUILT_IN, Task, load_task

RUN_LOG = "*training_log.jsonl"
RUN_FILES = ("run.json", "metrics.jsonl", "training.log")
EVALUATION_FILES = ("summary.json", "predictions.jsonl")
RUN_KEYS = tuple("command trainer task stage rewards model started ended data milestone environment".split())
SUMMARY_KEYS = ("command", "reward_weights", "split", "model", "models", "differences")


@dataclass
class Stage:
    """A training run as found on disk. What is missing is empty, and `problems` says so."""

    name: str
    folder: Path
    record: dict[str, Any] = field(default_factory=dict)  # run.json
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    run_log: str | None = None  # name of the run log's file
    lines: list[dict] = field(default_factory=list)
    metrics: list[dict] = field(default_factory=list)
    market: dict[str, Any] = field(default_factory=dict)  # market_stats.json
    milestone: dict[str, Any] = field(default_factory=dict)  # milestone.json: the evidence of one that was reached
    console: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def trainer(self) -> str:
        """sft or grpo; empty when run.json is missing."""
        return self.record.get("trainer", "")

    @property
    def forecasts(self) -> bool:
        """Whether its answers are forecasts: only their runs have market statistics."""
        return bool(self.market)


@dataclass
class Evaluation:
    """An evaluation as found on disk."""

    name: str
    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    problems: list[str] = field(default_factory=list)


def read_runs(run_dir: Path) -> tuple[list[Stage], list[Evaluation]]:
    """The runs in `run_dir` itself and in its folders, in order of the time they ended; and the evaluations.

    Raises UserError when the folder does not exist or holds none of the files of a run.
    """
    if not run_dir.exists():
        raise UserError(f"{run_dir} not found: give the folder of a run, such as runs/demo")
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file: give the folder of the run, such as {run_dir.parent}")
    folders = folders_of(run_dir)
    stages, evaluations = [], []
    for folder in folders:
        name = folder.resolve().name if folder == run_dir else folder.name
        if any((folder / file).is_file() for file in EVALUATION_FILES):
            evaluations.append(read_evaluation(name, folder))
        if any((folder / file).is_file() for file in RUN_FILES) or any(folder.glob(RUN_LOG)):
            stages.append(read_stage(name, folder))
    if not stages and not evaluations:
        looked_for = ", ".join((*RUN_FILES, RUN_LOG, *EVALUATION_FILES))
        raise UserError(f"{run_dir} holds no run: looked there and in its folders for {looked_for}")
    return sorted(stages, key=lambda stage: (_time(stage), stage.name)), evaluations


def _time(stage: Stage) -> str:
    return stage.record.get("ended") or stage.record.get("started") or ""


def read_stage(name: str, folder: Path) -> Stage:
    """All files of one run."""
    stage = Stage(name, folder)
    problems = stage.problems
    stage.record = _read_json(folder / "run.json", problems, RUN_KEYS)
    stage.market = _read_json(folder / "market_stats.json", problems, ("overall", "window"))
    stage.milestone = _read_json(folder / "milestone.json", problems, ("step", "thresholds", "evaluations"))
    stage.metrics = _read_lines(folder / "metrics.jsonl", problems)
    stage.run_log = next((path.name for path in sorted(folder.glob(RUN_LOG))), None)
    if stage.run_log:
        stage.lines = _read_lines(folder / stage.run_log, problems)
    if (folder / "training.log").is_file():
        stage.console = read_text(folder / "training.log").splitlines()
    if (folder / "summary.json").is_file():  # `stonk eval` writes a recipe.yaml of its own
        problems.append("recipe.yaml is that of an evaluation written into the same folder: the run's own is lost.")
    else:
        stage.recipe_text = _text_of(folder / "recipe.yaml")
        stage.recipe = _parsed(stage.recipe_text, problems)
    problems += _missing_files(stage)
    return stage


def _missing_files(stage: Stage) -> list[str]:
    command = stage.record.get("command")
    again = "the run writes it: start it again" + (f" with `{command}`" if command else "")
    missing = {
        "run.json": "is missing: which command made this run, on which data and versions, is not known.",
        "recipe.yaml": "is missing: the settings of this run are not known.",
        "metrics.jsonl": f"is missing, so there are no curves of loss, KL and lengths: {again}.",
    }
    problems = [f"{file} {text}" for file, text in missing.items() if not (stage.folder / file).is_file()]
    if (stage.folder / "metrics.jsonl").is_file() and not stage.metrics:
        problems.append("metrics.jsonl is empty: the run ended before its first logged step.")
    if stage.trainer != "sft" and not stage.run_log:
        problems.append(f"training_log.jsonl is missing, so there is nothing about single answers: {again}.")
    elif stage.run_log and not stage.lines:
        problems.append(f"{stage.run_log} is empty: the run ended before its first answers were scored.")
    return problems


def read_evaluation(name: str, folder: Path) -> Evaluation:
    """All files of one evaluation."""
    evaluation = Evaluation(name, folder, recipe_text=_text_of(folder / "recipe.yaml"))
    problems = evaluation.problems
    evaluation.recipe = _parsed(evaluation.recipe_text, problems)
    evaluation.summary = _read_json(folder / "summary.json", problems, SUMMARY_KEYS)
    evaluation.predictions = _read_lines(folder / "predictions.jsonl", problems)
    again = "`stonk eval` writes it when all answers are there: start it again"
    if not (folder / "summary.json").is_file():
        problems.append(f"summary.json is missing, so there is nothing to judge by: {again}.")
    if not (folder / "predictions.jsonl").is_file():
        problems.append(f"predictions.jsonl is missing, so no answers can be shown: {again}.")
    return evaluation


def folders_of(run_dir: Path) -> list[Path]:
    """The folder itself and those in it, without hidden ones."""
    return [run_dir, *sorted(f for f in run_dir.iterdir() if f.is_dir() and not f.name.startswith("."))]


def task_of(stage: Stage) -> type[Task] | None:
    """The task of a run; None where it is not one of ours: nothing is imported."""
    name = stage.record.get("task")
    return load_task(name) if name in BUILT_IN else None


def how_to_evaluate(run_dir: Path, stages: Sequence[Stage]) -> str:
    """What to run when there is no evaluation."""
    for task in filter(None, map(task_of, stages)):
        if elsewhere := task.UNSUPPORTED_COMMANDS.get("eval"):
            return elsewhere
    trained = [stage for stage in stages if (stage.folder / "best_model").is_dir()] or stages
    models = " ".join(str(stage.folder / "best_model") for stage in trained)
    return f"stonk eval --config RECIPE --models {models} --out {run_dir / 'eval'}"


# ------------------------------------------------------------------------------------------------- files


def _read_lines(path: Path, problems: list[str]) -> list[dict]:
    """The records of a file of JSON lines; none when it does not exist. Lines that are skipped go into `problems`."""
    if not path.is_file():
        return []
    dropped: list[Dropped] = []
    records = [record for _, record in read_jsonl(path, dropped)]
    if dropped and dropped[-1].torn:
        problems.append(f"The last line of {path.name} is cut off, as a crash leaves it; it is skipped.")
        dropped.pop()
    if dropped:
        problems.append(
            f"{path.name}: {len(dropped)} invalid lines are skipped, the first is line {dropped[0].number}."
        )
    return records


def _read_json(path: Path, problems: list[str], keys: Sequence[str]) -> dict[str, Any]:
    """A JSON file that must have `keys`; empty when it does not exist, or cannot be used: `problems` then says why."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        problems.append(f"{path.name} is not valid JSON ({error}): it is skipped.")
        return {}
    if missing := [key for key in keys if not isinstance(content, dict) or key not in content]:
        problems.append(f"{path.name} lacks {', '.join(missing)}: it is skipped.")
        return {}
    return content


def _text_of(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


def _parsed(recipe: str, problems: list[str]) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(recipe) or {}
    except yaml.YAMLError:
        values = None
    if isinstance(values, dict):
        return values
    problems.append("recipe.yaml is not a list of `key: value` lines: its settings are not used here.")
    return {}
