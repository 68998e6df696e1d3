"""Benchmarks through lm-eval: `stonk eval --config r1/eval`. Task names, few-shot examples, limits and local task
folders are lm-eval's own; `results.json` and a table with standard errors are what it leaves."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder, write_json
from stonk_trainer.recipe import RECIPES, load_command
from stonk_trainer.terminal import log, start_log

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

RUNS_CODE = ("humaneval", "mbpp")  # benchmarks that execute what a model writes


@dataclass
class Benchmarks:
    """Measure models on public benchmarks through lm-eval."""

    models: list[str] = field(
        default_factory=list, metadata={"help": "Models (folder or name), measured one after the other."}
    )
    benchmarks: list[str] = field(
        default_factory=list, metadata={"help": "lm-eval task names: gsm8k, arc_challenge, mmlu, bbh, …"}
    )
    output_dir: str = field(default="runs/eval", metadata={"help": "Folder for results.json.", "aliases": ["--out"]})
    include_path: str | None = field(
        default=None, metadata={"help": "Folder with tasks of your own, in lm-eval's YAML."}
    )
    num_fewshot: int | None = field(
        default=None, metadata={"help": "Examples before each question; the task's own if out."}
    )
    limit: int | None = field(
        default=None, metadata={"help": "Questions per task, for a quick look; all when left out."}
    )
    batch_size: str = field(default="auto", metadata={"help": "Requests run together: a number, or auto."})
    apply_chat_template: bool = field(default=True, metadata={"help": "Ask as a chat, as the model was trained."})
    system_instruction: str | None = field(
        default=None, metadata={"help": "System message. reasoning: the one the reasoning task trains with."}
    )
    max_gen_toks: int | None = field(default=None, metadata={"help": "Longest generated answer, in tokens."})
    run_code: bool = field(default=False, metadata={"help": "Allow benchmarks that execute what a model writes."})
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "Precision of the models."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of few-shot examples and sampling."})

    def __post_init__(self):
        for name in ("limit", "max_gen_toks"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise UserError(f"num_fewshot: {self.num_fewshot} must be 0 or more")
        if self.batch_size != "auto" and not (self.batch_size.isdigit() and int(self.batch_size)):
            raise UserError(f"batch_size: {self.batch_size} is neither a number above 0 nor auto")
        if not self.models or not self.benchmarks:
            raise UserError("models and benchmarks: name at least one of each")
        code = [name for name in self.benchmarks if name.startswith(RUNS_CODE)]
        if code and not self.run_code:
            raise UserError(f"benchmarks: {', '.join(code)} execute what a model writes: --run_code true allows it")
        if self.include_path and not self.task_folder().is_dir():
            raise UserError(f"include_path: {self.include_path} is no folder")

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
        write_json(output / "results.json", results)  # one that fails costs no other
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
        import difflib

        near = difflib.get_close_matches(unknown[0], tasks.all_tasks, n=3)
        raise UserError(
            f"benchmarks: lm-eval has no task {unknown[0]}" + (f"; near: {', '.join(near)}" if near else "")
        )
    return tasks


def measure(run: Benchmarks, path: str, tasks: TaskManager, name: str) -> dict[str, dict[str, Any]]:
    """{task: {metric: value, metric_stderr: its standard error, questions: how many}} of one model."""
    import lm_eval
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    system = run.system_instruction
    if system == "reasoning":
        from stonk_trainer.tasks.reasoning.sources import SYSTEM as system
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
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"benchmarks: their data could not be read: {reason}: check the network") from error
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
    rows = []
    for model, of_tasks in results.items():
        for task, values in of_tasks.items():
            for metric, value in values.items():
                if metric == "questions" or metric.endswith("_stderr"):
                    continue
                error = values.get(f"{metric}_stderr")
                told = f"{100 * error:.1f}" if isinstance(error, float) else "-"
                rows.append((model, task, metric, f"{100 * value:.1f}", told, str(values.get("questions", ""))))
    header = ("model", "benchmark", "metric", "%", "± s.e.", "questions")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
