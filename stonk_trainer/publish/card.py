"""The card of a model on the Hub: how it was made, how good it is beside baselines, how to use it, what it cannot do.

Everything comes from what runs and evaluations leave on disk and is put into `card.md`, which says what is missing.
Paths of this machine are cut to their last part.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.tables import find_model, short_names
from stonk_trainer.recipe import NEW_MODEL
from stonk_trainer.report import findings
from stonk_trainer.report.run_folder import Stage, read_evaluation, read_stage
from stonk_trainer.task import BUILT_IN, CardResults, ForecastTask, Table, Task, load_task

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

EMBEDDED_ON_HUB = {"embedded:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
LICENCES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "apache-2.0",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
}
# Of the recipe, what concerns the machine or its user and not the model; hub_token is a secret.
PRIVATE = (
    "output_dir logging_dir run_name project trackio_space_id hub_token hub_model_id push_to_hub "
    "resume_from_checkpoint vllm_server_host vllm_server_base_url vllm_server_port"
).split()
SOURCES = ("dataset_name", "data", "sources", "task_mix", "sft_recipe")  # keys that name the data; the first one set
METRICS = {"accuracy": "accuracy", "roc_auc": "roc_auc", "brier": "brier_score", "reward_mean": "reward"}
IN_BRIEF = ("algorithm", "learning_rate", "beta", "loss_type", "num_generations", "lora_r", "load_in_4bit")


@dataclass
class Origin:
    """Where a model comes from.

    stages: the runs that led to it, the last first. base: what the first started from, as the Hub names it; None when
    that is not known. new: from random weights. base_folder: where the base lies here.
    """

    stages: list[Stage] = field(default_factory=list)
    base: str | None = None
    new: bool = False
    base_folder: Path | None = None

    @property
    def record(self) -> dict[str, Any]:
        """run.json of the last stage."""
        return self.stages[0].record if self.stages else {}

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the last stage, without what is private."""
        return without_private(self.stages[0].recipe) if self.stages else {}

    @property
    def task(self) -> type[Task]:
        """The task of the last stage; what all tasks have in common for one that is not ours, which is not imported."""
        name = self.record.get("task")
        return load_task(name) if name in BUILT_IN else Task


def make_card(model: Path, repo_id: str, evaluation: Path | None = None) -> ModelCard:
    """The card of the model in folder `model`, as a `huggingface_hub.ModelCard`.

    evaluation: folder of an evaluation; None: one that judged this model is looked for beside it. Raises UserError when
    the evaluation given does not judge this model.
    """
    from huggingface_hub import ModelCard, ModelCardData

    origin, name = origin_of(model), repo_id.rpartition("/")[2]
    recipe, task = origin.recipe, origin.task
    results = results_of(model, task, evaluation)
    source = _source(recipe)
    trainers = dict.fromkeys(stage.trainer for stage in reversed(origin.stages))
    metadata = ModelCardData(
        base_model=origin.base,
        license=licence_of(origin),
        library_name="transformers",
        pipeline_tag=task.PIPELINE,
        tags=["stonk-trainer", *trainers, *([origin.record["task"]] if origin.record.get("task") in BUILT_IN else [])],
        datasets=[source] if _is_hub_name(source) else None,
        model_name=name,
        eval_results=_eval_results(results, task.PIPELINE) if results else None,
    )
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip()
    messages, tokens, note = task.card_question()
    return ModelCard.from_template(
        metadata,
        template_path=str(Path(__file__).with_name("card.md")),
        name=name,
        repo_id=repo_id,
        kind=json.loads((model / "config.json").read_text()).get("model_type", "language"),
        origin=origin,
        task=task,
        forecasts=issubclass(task, ForecastTask),
        results=results and "\n\n".join([" ".join(results.sentences), *map(_markdown, results.tables)]).strip(),
        usage=task.card_usage(repo_id),
        messages=[json.dumps(message, ensure_ascii=False) for message in messages],
        tokens=tokens,
        note=note,
        stages=[f"{_cell(stage.name)}: {_in_brief(stage)}" for stage in reversed(origin.stages)],
        source=source,
        dates=task.card_dates(recipe, model),
        data="\n\n".join(map(_markdown, findings.data_table(origin.record))),
        recipe=text,
        fence="`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0)),
        environment=origin.record.get("environment"),
    )


# ------------------------------------------------------------------------------------------------- where it comes from


def origin_of(model: Path) -> Origin:
    """Follow the models that runs started from, from run to run, back to the base model."""
    origin, seen = Origin(), set()
    while (run := _run_of(model)) and run.resolve() not in seen:
        seen.add(run.resolve())
        stage = read_stage(run.resolve().name, run)
        if not stage.record:
            break
        origin.stages.append(stage)
        started_from = stage.record["model"]
        if started_from == NEW_MODEL:
            return Origin(origin.stages, new=True)
        if (before := _folder_here(started_from, run)) is None:
            base = EMBEDDED_ON_HUB.get(started_from, started_from)
            return Origin(origin.stages, base if _is_hub_name(base) else None)
        model = before
    return Origin(origin.stages, base_folder=model) if origin.stages else origin


def _run_of(model: Path) -> Path | None:
    """The folder of the run that left a model; None when its run.json is not there."""
    return next((f for f in (model.resolve().parent, model) if (f / "run.json").is_file()), None)


def _folder_here(name: str, run: Path) -> Path | None:
    """A model that a run names by a path: as it was written, or beside the run when all runs were moved together."""
    path = Path(name).expanduser()
    beside = run.resolve().parent.joinpath(*path.parts[-2:])
    return next((p for p in (path, beside) if (p / "config.json").is_file()), None)


def _is_hub_name(name: str) -> bool:
    """Whether a recipe's name is owner/name on the Hub; not a path to a run or a file, even one that is gone."""
    path = Path(name)
    local = path.exists() or path.suffix in (".csv", ".parquet", ".json", ".jsonl", ".txt", ".pt")
    local |= path.name in ("best_model", "best_adapter", "merged_model")
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not local


def licence_of(origin: Origin) -> str | None:
    """The base model's licence as the Hub names it: of a known base, or from its card or LICENSE here; else None."""
    from huggingface_hub import metadata_load, try_to_load_from_cache

    if origin.base in LICENCES:
        return LICENCES[origin.base]
    card, licence = Path("README.md"), Path("LICENSE")
    if origin.base_folder:
        card, licence = origin.base_folder / card, origin.base_folder / licence
    elif origin.base:
        card, licence = (Path(str(try_to_load_from_cache(origin.base, str(path)))) for path in (card, licence))
    else:
        return None
    try:
        stated = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError):
        stated = None
    if isinstance(stated, str):
        return stated
    text = licence.read_text(errors="replace") if licence.is_file() else ""
    if "Apache License" in text and "Version 2.0" in text:
        return "apache-2.0"
    return "mit" if "Permission is hereby granted, free of charge" in text else None


# ------------------------------------------------------------------------------------------------- results


def results_of(model: Path, task: type[Task], evaluation: Path | None) -> CardResults | None:
    """What an evaluation found of this model beside its baselines; None when none lies beside it."""
    if evaluation:
        if not evaluation.is_dir():
            raise UserError(f"--eval: {evaluation} is not a folder: give that of an evaluation, such as runs/eval")
        if found := _results_in(evaluation, model, task):
            return found
        raise UserError(f"--eval: {evaluation} does not judge {model}: judge it with `stonk eval --models {model}`")
    run = _run_of(model)
    beside = sorted(run.resolve().parent.iterdir()) if run else []
    folders = ([run] if run else []) + [f for f in beside if f.is_dir() and not f.name.startswith(".")]
    return next((found for folder in folders if (found := _results_in(folder, model, task))), None)


def _results_in(folder: Path, model: Path, task: type[Task]) -> CardResults | None:
    evaluation = read_evaluation(folder.name, folder)
    summary = evaluation.summary
    key = find_model(summary.get("models", ()), model)
    if key is None:
        return task.card_results(folder, model)
    others = {name: short_names([name])[0] for name in summary["models"] if name != key}
    (name,) = short_names([key])
    summary = findings.renamed(summary, others | {key: name})
    own = summary["models"][name]
    differences = [pair for pair in summary["differences"] if pair["model"] == name]
    about_it = summary | {"models": {name: own}, "differences": differences}
    if "buy_and_hold" in summary:
        quarters = own["market_adaptation"]
        sentences = findings.evaluation_statements(summary, name)
        sentences.append(f"The rows are from {quarters[0]['period']} to {quarters[-1]['period']}.")
        tables = [findings.forecaster_table(about_it)]
    else:
        sentences, tables = findings.answer_statements(summary, name), findings.reward_table(about_it)
    data = f"{_source(without_private(evaluation.recipe))} {summary['split']}".strip()
    metrics = [(data, metric, own[key]) for key, metric in METRICS.items() if own.get(key) is not None]
    return CardResults([*tables, *findings.difference_table(about_it)], metrics, sentences)


def _eval_results(results: CardResults, pipeline: str) -> list[EvalResult]:
    """The metrics for the card's metadata; names of data as the Hub allows them."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=pipeline,
            dataset_type=re.sub(r"[^\w.-]+", "-", data),
            dataset_name=data,
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for data, metric, value in results.metrics
    ]


def _markdown(table: Table) -> str:
    """A table in Markdown; what would end a cell or start HTML is made harmless."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([_cell(table.caption), "", *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


# ------------------------------------------------------------------------------------------------- how it was trained


def _in_brief(stage: Stage) -> str:
    recipe = stage.recipe
    parts = [f"{stage.record['steps']} steps"] if stage.record.get("steps") else []
    parts += [f"{key} {recipe[key]}" for key in IN_BRIEF if recipe.get(key) not in (None, False)]
    if rewards := stage.record.get("rewards"):
        parts.append("rewards " + ", ".join(rewards))
    return stage.record["stage"] + (f" ({'; '.join(parts)})" if parts else "")


def _source(recipe: dict[str, Any]) -> str:
    """What a recipe names as its data; empty where it names none."""
    given = next((recipe[key] for key in SOURCES if recipe.get(key)), "")
    return given if isinstance(given, str) else ", ".join(map(str, given))


def without_private(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without what is the user's own: secrets, hosts, output folders; paths cut to their last part."""
    return {key: _cut_paths(value) for key, value in recipe.items() if key not in PRIVATE and value is not None}


def _cut_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~")) or ".." in Path(value).parts:
        return Path(value).name
    return re.sub(r"(?<=[=:,\s])(?:/(?!/)|~)[^,\s]*/([^,/\s]+)", r"\1", value)  # gsm8k=/home/me/gsm8k.parquet
