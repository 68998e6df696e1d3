"""Benchmarks through lm-eval: `stonk eval --config r1/eval`.

Task names, few-shot examples, limits and local task folders are lm-eval's own; the output is `results.json` and a table
with standard errors.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError, did_you_mean, first_line
from stonk_trainer.files import make_folder, write_json
from stonk_trainer.options import option
from stonk_trainer.recipe import RECIPES, load_command
from stonk_trainer.terminal import log, make_console, plain_table, start_log

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

RUNS_CODE = ("humaneval", "mbpp")  # benchmarks that execute what a model writes


@dataclass
class Benchmarks:
    """Measure models on public benchmarks through lm-eval."""

    models: list[str] = option([], "Models (folder or name), measured one after the other.")
    benchmarks: list[str] = option([], "lm-eval task names: gsm8k, arc_challenge, mmlu, bbh, …")
    output_dir: str = option("runs/eval", "Folder for results.json.", "--out")
    include_path: str | None = option(None, "Folder with tasks of your own, in lm-eval's YAML.")
    num_fewshot: int | None = option(None, "Examples before each question; left out: the task's own number.")
    limit: int | None = option(None, "Questions per task, for a quick look; left out: all.")
    batch_size: str = option("auto", "Requests run together: a number, or auto.")
    apply_chat_template: bool = option(True, "Ask as a chat, as the model was trained.")
    system_instruction: str | None = option(
        None, "System message. reasoning: the one that the reasoning task trains with."
    )
    max_gen_toks: int | None = option(None, "Longest generated answer, in tokens.")
    run_code: bool = option(False, "Allow benchmarks that execute what a model writes.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option("auto", "Precision of the models.")
    seed: int = option(42, "Seed of few-shot examples and sampling.")

    def __post_init__(self):
        for name in ("limit", "max_gen_toks"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise UserError(f"num_fewshot: {self.num_fewshot} must be 0 or more")
        if self.batch_size != "auto" and not (self.batch_size.isdigit() and int(self.batch_size)):
            raise UserError(f"batch_size: {self.batch_size} must be a number above 0, or auto")
        if not self.models or not self.benchmarks:
            raise UserError("models and benchmarks: name at least one of each")
        code = [name for name in self.benchmarks if name.startswith(RUNS_CODE)]
        if code and not self.run_code:
            raise UserError(f"benchmarks: {', '.join(code)} execute what a model writes: --run_code true allows it")
        if self.include_path and not self.task_folder().is_dir():
            raise UserError(f"include_path: {self.include_path} is not a folder")

    def task_folder(self) -> Path:
        """`include_path`, or the shipped folder of that name."""
        own, shipped = Path(self.include_path or ""), RECIPES / (self.include_path or "")
        return own if own.is_dir() else shipped


def main(argv: list[str]) -> None:
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bars; tqdm reads this when it is first imported
    run = load_command(argv, "eval", Benchmarks, "--config r1/eval --models runs/r1/rs_sft/best_model")

    from stonk_trainer.models import loading

    start_log()
    for name in run.models:  # before lm-eval is imported, which takes seconds
        loading.locate_model(name, run.output_dir, merge=False)
    tasks = _task_manager(run)
    output = make_folder(run.output_dir, "output_dir")
    paths = {name: loading.locate_model(name, output / f"model_{i}") for i, name in enumerate(run.models, start=1)}
    results = {}
    for name, path in paths.items():
        results[name] = measure(run, path, tasks, name)
        write_json(output / "results.json", results)  # so that a later failure loses nothing
    print_results(results)
    log.info("saved %s", output / "results.json")


def _task_manager(run: Benchmarks) -> TaskManager:
    """lm-eval's index of tasks. Raises UserError for a benchmark that is not in it."""
    if run.run_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(f"benchmarks need lm-eval: pip install 'stonk-trainer[reasoning]' ({error})") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks = TaskManager(include_path=str(run.task_folder()) if run.include_path else None)
    if unknown := [name for name in run.benchmarks if not tasks.match_tasks([name])]:
        raise UserError(f"benchmarks: lm-eval has no task {unknown[0]}{did_you_mean(unknown[0], tasks.all_tasks, 3)}")
    return tasks


def measure(run: Benchmarks, path: str, tasks: TaskManager, name: str) -> dict[str, dict[str, Any]]:
    """{task: {metric: value, metric_stderr: its standard error, questions: how many}} of one model."""
    import lm_eval
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    system = run.system_instruction
    if system == "reasoning":
        from stonk_trainer.tasks.reasoning.chats import SYSTEM as system
    log.info("%s: %s", name, ", ".join(run.benchmarks))
    try:
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": path, "dtype": run.dtype},
            tasks=run.benchmarks,
            task_manager=tasks,
            num_fewshot=run.num_fewshot,
            limit=run.limit,
            device=str(device),
            batch_size=run.batch_size if run.batch_size == "auto" else int(run.batch_size),
            apply_chat_template=run.apply_chat_template,
            system_instruction=system,
            gen_kwargs={"max_gen_toks": run.max_gen_toks} if run.max_gen_toks else None,
            confirm_run_unsafe_code=run.run_code,
            log_samples=False,
            random_seed=run.seed,
            numpy_random_seed=run.seed,
            torch_random_seed=run.seed,
            fewshot_random_seed=run.seed,
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(f"benchmarks: their data could not be read: {first_line(error)}: check the network") from error
    counts = found.get("n-samples", {})
    return {task: _metrics(values, counts.get(task)) for task, values in found["results"].items()}


def _metrics(values: dict[str, Any], counts: dict[str, int] | None) -> dict[str, Any]:
    """lm-eval's `acc,none` and `acc_stderr,none` as `acc` and `acc_stderr`; of several filters the first."""
    kept: dict[str, Any] = {"questions": counts["effective"]} if counts else {}
    for key, value in values.items():
        metric = key.partition(",")[0]
        if isinstance(value, (int, float)) and "," in key:
            kept.setdefault(metric, value)
    return kept


def print_results(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """A line for each model, task and metric, with its standard error."""
    numbers = ("%", "± s.e.", "questions")
    table = plain_table("model", "benchmark", "metric", *numbers, numbers=numbers)
    for model, of_tasks in results.items():
        for task, values in of_tasks.items():
            for metric in values:
                if metric == "questions" or metric.endswith("_stderr"):
                    continue
                error = values.get(f"{metric}_stderr")
                shown = f"{100 * error:.1f}" if isinstance(error, float) else "-"
                share, questions = f"{100 * values[metric]:.1f}", str(values.get("questions", ""))
                table.add_row(model, task, metric, share, shown, questions)
    make_console().print(table)
