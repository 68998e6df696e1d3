"""What a run and an evaluation leave on disk, read as far as it can be.

Any file may be missing, cut off by a crash, or hold values of the wrong kind: what cannot be read is left out, and
`problems` says so and how to make it. The helpers at the end read single values of such files.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stonk_trainer.errors import UserError

RUN_LOGS = ("training_log.jsonl", "stage2_training_log.jsonl")
RUN_FILES = (*RUN_LOGS, "metrics.jsonl", "market_stats.json", "milestone.json", "training.log")
EVALUATION_FILES = ("summary.json", "predictions.jsonl")


@dataclass
class Stage:
    """A training run as found on disk. What is missing or broken is empty, and `problems` says so."""

    name: str
    folder: Path
    trainer: str = ""  # sft or grpo; "" when the recipe does not say
    recipe: dict = field(default_factory=dict)
    recipe_text: str = ""
    environment: dict = field(default_factory=dict)
    run_log: str | None = None  # name of the run log's file
    lines: list[dict] = field(default_factory=list)
    metrics: list[dict] = field(default_factory=list)
    market: dict = field(default_factory=dict)
    milestone: dict = field(default_factory=dict)
    console: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class Evaluation:
    """An evaluation as found on disk."""

    name: str
    folder: Path
    summary: dict = field(default_factory=dict)
    predictions: list[dict] = field(default_factory=list)
    recipe: dict = field(default_factory=dict)
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
    folders = [run_dir, *sorted(f for f in run_dir.iterdir() if f.is_dir() and not f.name.startswith("."))]
    stages, evaluations = [], []
    for folder in folders:
        name = folder.resolve().name if folder == run_dir else folder.name
        found = {file for file in (*RUN_FILES, *EVALUATION_FILES, "recipe.yaml") if (folder / file).is_file()}
        evaluated = not found.isdisjoint(EVALUATION_FILES) or _trainer(folder) == "eval"
        if evaluated:
            evaluations.append(read_evaluation(name, folder))
        # A run may be evaluated into its own folder; a recipe alone is a run that ended before it wrote anything.
        if not found.isdisjoint(RUN_FILES) or ("recipe.yaml" in found and not evaluated):
            stages.append(read_stage(name, folder))
    if not stages and not evaluations:
        raise UserError(
            f"{run_dir} holds no run: looked there and in its folders for recipe.yaml, "
            f"{', '.join((*RUN_FILES, *EVALUATION_FILES))}"
        )
    return sorted(stages, key=_ended), evaluations


def _trainer(folder: Path) -> str:
    """Which command wrote `recipe.yaml`: its first line says so ("# stonk grpo, as resolved from: …")."""
    path = folder / "recipe.yaml"
    match = re.match(r"# stonk (sft|grpo|eval)\b", _text(path)) if path.is_file() else None
    return match[1] if match else ""


def _ended(stage: Stage) -> tuple[str, str]:
    """When a run last wrote: the last time stamp of training.log, which survives copying; else the newest file."""
    for line in reversed(stage.console):
        if stamp := re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line):
            return stamp[0], stage.name
    files = [stage.folder / file for file in (*RUN_FILES, "recipe.yaml")]
    newest = max(file.stat().st_mtime for file in files if file.is_file())
    return f"{datetime.datetime.fromtimestamp(newest):%Y-%m-%d %H:%M:%S}", stage.name


def read_stage(name: str, folder: Path) -> Stage:
    """All files of one run."""
    stage = Stage(name, folder, _trainer(folder))
    problems = stage.problems
    if stage.trainer == "eval":
        stage.trainer = ""
        problems.append("recipe.yaml is that of an evaluation written into the same folder: the run's own is lost.")
    else:
        stage.recipe, stage.recipe_text = _read_recipe(folder, problems)
    stage.environment = _read_json(folder / "environment.json", problems)
    stage.market = _read_json(folder / "market_stats.json", problems)
    stage.milestone = _read_json(folder / "milestone.json", problems)
    stage.metrics = read_jsonl(folder / "metrics.jsonl", problems)
    stage.run_log = next((file for file in RUN_LOGS if (folder / file).is_file()), None)
    if stage.run_log:
        stage.lines = read_jsonl(folder / stage.run_log, problems)
    if (folder / "training.log").is_file():
        stage.console = _text(folder / "training.log").splitlines()
    again = "the run writes it: start it again" + (f" with `{command}`" if (command := command_of(stage)) else "")
    if not (folder / "recipe.yaml").is_file():
        problems.append("recipe.yaml is missing: which command and which settings made this run is not known.")
    if not (folder / "metrics.jsonl").is_file():
        problems.append(f"metrics.jsonl is missing, so there are no curves of loss, KL and lengths: {again}.")
    elif not stage.metrics:
        problems.append("metrics.jsonl is empty: the run ended before its first logged step.")
    if stage.trainer != "sft":
        if not stage.run_log:
            problems.append(f"{RUN_LOGS[0]} is missing, so there is nothing about single answers: {again}.")
        elif not stage.lines:
            problems.append(f"{stage.run_log} is empty: the run ended before its first answers were scored.")
    if not stage.environment:
        problems.append("environment.json is missing: the versions this run was made with are not known.")
    return stage


def read_evaluation(name: str, folder: Path) -> Evaluation:
    """All files of one evaluation."""
    evaluation = Evaluation(name, folder)
    problems = evaluation.problems
    evaluation.recipe, evaluation.recipe_text = _read_recipe(folder, problems)
    evaluation.summary = _read_json(folder / "summary.json", problems)
    evaluation.predictions = read_jsonl(folder / "predictions.jsonl", problems)
    again = "`stonk eval` writes it when all answers are there: start it again"
    if not (folder / "summary.json").is_file():
        problems.append(f"summary.json is missing, so there is nothing to judge by: {again}.")
    if not (folder / "predictions.jsonl").is_file():
        problems.append(f"predictions.jsonl is missing, so no answers can be shown: {again}.")
    return evaluation


def read_jsonl(path: Path, problems: list[str]) -> list[dict]:
    """The records of a file of JSON lines; none when it does not exist. Lines that are none are told in `problems`."""
    if not path.is_file():
        return []
    texts = _text(path).split("\n")
    records, broken = [], []
    for which, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            broken.append(which)
    if broken and broken[-1] == len(texts):  # no line end after it
        problems.append(f"The last line of {path.name} is cut off, as a crash leaves it; it is left out.")
        broken.pop()
    if broken:
        lines = f"line {broken[0]}" if len(broken) == 1 else f"{len(broken)} lines, the first is line {broken[0]},"
        problems.append(f"{path.name}: {lines} cannot be read and {'is' if len(broken) == 1 else 'are'} left out.")
    return records


def _read_json(path: Path, problems: list[str]) -> dict:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.name} is not valid JSON ({error}): it is left out.")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} does not hold named values: it is left out.")
        return {}
    return content


def _read_recipe(folder: Path, problems: list[str]) -> tuple[dict, str]:
    import yaml

    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}, ""
    text = _text(path)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        problems.append("recipe.yaml is not a list of `key: value` lines: its settings are not used here.")
        values = {}
    return values, text


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def command_of(stage: Stage | Evaluation) -> str | None:
    """The command that made a run, from the first line of its recipe."""
    match = re.match(r"# stonk \w+, as resolved from: (.+)", stage.recipe_text)
    return match[1].strip() if match else None


def how_to_evaluate(run_dir: Path, stages: Sequence[Stage]) -> str:
    """What to run when there is no evaluation."""
    trained = [stage for stage in stages if (stage.folder / "best_model").is_dir()] or stages
    models = " ".join(str(stage.folder / "best_model") for stage in trained)
    return f"stonk eval --config RECIPE --models {models} --out {run_dir / 'eval'}"


# ------------------------------------------------------------------------------------------------- values


def number(value: object) -> float:
    """A finite number as float; NaN for everything else (None, text, true, infinity), which is then not drawn."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return math.nan


def interval(value: object) -> tuple[float, float] | None:
    """(low, high) of an interval read from JSON; None when it is missing or no pair of numbers."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if math.isnan(low + high) else (low, high)


def listed(summary: dict, key: str) -> list[dict]:
    """The records under `key` of a summary; none when the key is missing or no list of records."""
    value = summary.get(key)
    return [record for record in value if isinstance(record, dict)] if isinstance(value, list) else []


def mapping(record: dict, key: str) -> dict:
    """The named values under `key`; none when the key is missing or holds something else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}
