"""The card of a model on the Hub: how it was made, how good it is beside baselines, how to use it, what it cannot do.

Everything comes from what runs and evaluations leave on disk; what is not there is said to be missing. Paths of this
machine are cut to their last part.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation.tables import short_names
from stonk_trainer.recipe import NEW_MODEL
from stonk_trainer.report import findings
from stonk_trainer.report.run_folder import Stage, interval, listed, mapping, number, read_stage

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

EMBEDDED_ON_HUB = {"embedded:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
LICENCES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "apache-2.0",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
}
ABOUT = {
    "stocks": "It reads a company's data of one day, reasons, and forecasts whether the next trading day's close is UP "
    "or DOWN, with a size and a confidence.",
    "btc": "It continues a series of market tokens; the codec in `codec/` turns daily returns into these and back.",
    "reasoning": "It thinks between `<think>` and `</think>`, then answers questions that have one right answer.",
}
COIN = (
    "**The direction of a price on the next day is close to a coin. Nothing here is investment advice**, and no result "
    "below promises anything about other days."
)
# Of the recipe, what concerns the machine or its user and not the model; hub_token is a secret.
PRIVATE = (
    "output_dir logging_dir run_name project trackio_space_id hub_token hub_model_id push_to_hub "
    "resume_from_checkpoint vllm_server_host vllm_server_base_url vllm_server_port"
).split()
EVALUATIONS = ("summary.json", "results.json", "evaluation.json")  # of stocks, reasoning, btc


@dataclass
class Origin:
    """stages: the runs that led to the model, the last first. base: what the first started from, as the Hub names it;
    None when that is not known. new: from random weights. base_folder: where the base lies here."""

    stages: list[Stage] = field(default_factory=list)
    base: str | None = None
    new: bool = False
    base_folder: Path | None = None

    @property
    def recipe(self) -> dict:
        return self.stages[0].recipe if self.stages else {}

    @property
    def task(self) -> str | None:
        return self.recipe.get("task")


def make_card(model: Path, repo_id: str, evaluation: Path | None = None) -> ModelCard:
    """The card of the model in folder `model`, as a `huggingface_hub.ModelCard`.

    evaluation: folder of an evaluation; None: one that judged this model is looked for beside it. Raises UserError when
    the evaluation given does not speak of this model.
    """
    from huggingface_hub import ModelCard, ModelCardData

    origin = origin_of(model)
    licence = licence_of(origin)
    dataset = str(origin.recipe.get("dataset_name") or "")
    forecasts = origin.task in ("stocks", "btc")
    data = ModelCardData(
        base_model=origin.base,
        license=licence,
        library_name="transformers",
        pipeline_tag="time-series-forecasting" if origin.task == "btc" else "text-generation",
        tags=["stonk-trainer", *dict.fromkeys(s.trainer for s in reversed(origin.stages) if s.trainer)]
        + ([origin.task] if origin.task else []),
        datasets=[dataset] if _is_hub_name(dataset) else None,
    )
    parts = [
        f"# {repo_id.rpartition('/')[2]}",
        _opening(model, origin, licence),
        *([COIN] if forecasts else []),
        "## Results\n\n" + results(model, evaluation),
        "## How to use it\n\n" + usage(repo_id, origin.task),
        "## How it was trained\n\n" + training(model, origin),
        "## Limits\n\n" + limits(origin),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


# ------------------------------------------------------------------------------------------------- where it comes from


def origin_of(model: Path) -> Origin:
    """Follow `model_name_or_path` from run to run, back to the base model."""
    origin, seen = Origin(), set()
    while (run := _run_of(model)) and run.resolve() not in seen:
        seen.add(run.resolve())
        stage = read_stage(run.resolve().name, run)
        origin.stages.append(stage)
        started_from = str(stage.recipe.get("model_name_or_path") or "")
        if started_from == NEW_MODEL:
            return Origin(origin.stages, new=True)
        if (before := _folder_here(started_from, run)) is None:
            base = EMBEDDED_ON_HUB.get(started_from, started_from)
            return Origin(origin.stages, base if _is_hub_name(base) else None)
        model = before
    return Origin(origin.stages, base_folder=model) if origin.stages else origin


def _run_of(model: Path) -> Path | None:
    """The folder of the run that left a model; None when its recipe is not there."""
    return next((f for f in (model.resolve().parent, model) if (f / "recipe.yaml").is_file()), None)


def _folder_here(name: str, run: Path) -> Path | None:
    """A model a recipe names by a path: as it was written, or beside the run when all runs were moved together."""
    path = Path(name).expanduser()
    beside = run.resolve().parent.joinpath(*path.parts[-2:])
    return next((p for p in (path, beside) if name and (p / "config.json").is_file()), None)


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
    files = {}
    for name in ("README.md", "LICENSE"):
        cached = try_to_load_from_cache(origin.base, name) if origin.base else None
        path = origin.base_folder / name if origin.base_folder else Path(cached) if isinstance(cached, str) else None
        if path and path.is_file():
            files[name] = path
    if "README.md" in files:
        try:
            stated = (metadata_load(files["README.md"]) or {}).get("license")
        except (ValueError, yaml.YAMLError):
            stated = None
        if isinstance(stated, str):
            return stated
    text = files["LICENSE"].read_text(errors="replace") if "LICENSE" in files else ""
    if "Apache License" in text and "Version 2.0" in text:
        return "apache-2.0"
    return "mit" if "Permission is hereby granted, free of charge" in text else None


def _opening(model: Path, origin: Origin, licence: str | None) -> str:
    if origin.new:
        start = "from random weights"
    elif origin.base:
        start = f"from [{origin.base}](https://huggingface.co/{origin.base})"
    elif origin.base_folder:
        start = f"from a model in a local folder, `{origin.base_folder.name}`, whose origin is not recorded"
    else:
        start = "from a model that is not recorded: no recipe lies beside it"
    kind = json.loads((model / "config.json").read_text()).get("model_type", "language")
    said = [f"A {kind} model, trained with stonk_trainer {start}.", ABOUT.get(origin.task or "", "")]
    if licence is None and not origin.new:
        said.append("No licence is stated here because that of the base model is not known: ask before you use it.")
    return " ".join(filter(None, said))


# ------------------------------------------------------------------------------------------------- results


def results(model: Path, evaluation: Path | None) -> str:
    """What an evaluation says of this model beside its baselines; or that there is none."""
    if evaluation:
        if not evaluation.is_dir():
            raise UserError(f"--eval: {evaluation} is no folder: give that of an evaluation, such as runs/eval")
        if text := _results_in(evaluation, model):
            return text
        raise UserError(f"--eval: {evaluation} judges no model {model}: judge it with `stonk eval --models {model}`")
    run = _run_of(model)
    beside = sorted(run.resolve().parent.iterdir()) if run else []
    near = ([run] if run else []) + [f for f in beside if f.is_dir() and not f.name.startswith(".")]
    for folder in near:
        if text := _results_in(folder, model):
            return text
    return (
        "**None: no evaluation of this model lies beside it, so nothing is known of how good it is.** `stonk eval` (or "
        "`stonk forecast --evaluate true`) judges it beside baselines."
    )


def _results_in(folder: Path, model: Path) -> str:
    """The results of this model in an evaluation's folder; empty when it has none."""
    for file, tell in zip(EVALUATIONS, (_of_stocks, _of_benchmarks, _of_prices), strict=True):
        try:
            content = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and (text := tell(content, model)):
            return text
    return ""


def _judged(names: list[str], model: Path) -> str | None:
    """Which of the models that an evaluation names is this one: the same folder, or one of the same last two names."""
    same = [name for name in names if Path(name).expanduser().resolve() == model.resolve()]
    same += [name for name in names if Path(name).parts[-2:] == model.resolve().parts[-2:]]
    return same[0] if same else None


def _of_stocks(summary: dict, model: Path) -> str:
    models = mapping(summary, "models")
    key = _judged(list(models), model)
    if key is None or not isinstance(models[key], dict):
        return ""
    _, baselines = findings.forecasters(summary)
    name = short_names([key])[0]
    own = {name: models[key]}
    differences = [d for d in listed(summary, "differences") if d.get("model") == key]
    differences = [d | {"model": name, "against": short_names([str(d.get("against"))])[0]} for d in differences]
    about_it = summary | {"models": own, "differences": differences, "model": name}
    said = findings.evaluation_statements(about_it, name, own, baselines)
    if len(models) > 1:
        said.append(f"{len(models)} models were judged on the same rows: the best of several looks better than it is.")
    if quarters := [str(quarter.get("period")) for quarter in listed(models[key], "market_adaptation")]:
        said.append(f"The rows are of {quarters[0]} to {quarters[-1]}.")
    tables = [findings.forecaster_table(own, baselines), *findings.difference_table(about_it)]
    return "\n\n".join([" ".join(said), *map(_markdown, tables)])


def _of_benchmarks(found: dict, model: Path) -> str:
    """lm-eval's metrics of this model and of those measured with it, each with its standard error."""
    key = _judged(list(found), model)
    if key is None:
        return ""
    names = [key, *(name for name in found if name != key)]
    rows = []
    for name, short in zip(names, short_names(names), strict=True):
        for task, values in mapping(found, name).items():
            for metric, value in values.items() if isinstance(values, dict) else ():
                if metric == "questions" or metric.endswith("_stderr") or math.isnan(number(value)):
                    continue
                error = number(values.get(f"{metric}_stderr"))
                told = f"{100 * value:.1f}" + ("" if math.isnan(error) else f" ± {100 * error:.1f}")
                rows.append([short, task, metric, told, str(values.get("questions", "–"))])
    caption = "Benchmarks through lm-eval, in percent ± the standard error over questions; this model first."
    return _markdown(findings.Table(caption, ["", "benchmark", "metric", "%", "questions"], rows)) if rows else ""


def _of_prices(found: dict, model: Path) -> str:
    """CRPS of this model's forecasts beside GARCH-t and history, and coverage of the 90% band."""
    folders = {str(folder): name for name, folder in mapping(found, "models").items()}
    key = _judged(list(folders), model)
    if key is None:
        return ""
    judged, others, tables = mapping(found, "judgement"), set(folders.values()) - {folders[key]}, []
    for horizon in listed(judged, "horizons"):
        rows = []
        for name, score in mapping(horizon, "scores").items():
            if name in others or not isinstance(score, dict):
                continue
            cells = [mapping(score, "crps"), mapping(score, "difference"), mapping(mapping(score, "coverage"), "90")]
            rows.append([name, *(_estimate(cell, 3) for cell in cells[:2]), _estimate(cells[2], 2)])
        caption = (
            f"{found.get('series')}, {horizon.get('days')} day(s) ahead, from {horizon.get('origins')} days of test. "
        )
        caption += "CRPS in % points of log return, lower is better; share of outcomes in the 90% band."
        header = ["", "CRPS", f"minus {judged.get('reference')}", "in the 90% band"]
        tables.append(findings.Table(caption, header, rows))
    return "\n\n".join(map(_markdown, tables))


def _estimate(cell: dict, digits: int) -> str:
    return findings.figure_of(cell.get("value"), interval(cell.get("ci95")), digits)


def _markdown(table: findings.Table) -> str:
    """A table in Markdown; what would end a cell or start HTML is made harmless."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([_cell(table.caption), "", *lines])


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


# ------------------------------------------------------------------------------------------------- how to use it


def usage(repo_id: str, task: str | None) -> str:
    if task == "btc":
        folder = repo_id.rpartition("/")[2]
        return (
            "With stonk_trainer and a CSV of daily prices (`date,close`):\n\n```bash\n"
            f"hf download {repo_id} --local-dir {folder}\n"
            f"stonk forecast --model {folder} --csv PRICES.csv --horizon 30 --paths 500\n```"
        )
    messages, note, tokens = _example(task)
    shown = ",\n".join(f"    {json.dumps(message, ensure_ascii=False)}" for message in messages)
    return (
        f"{note}```python\nfrom transformers import pipeline\n\nmessages = [\n{shown},\n]\n"
        f'ask = pipeline("text-generation", model="{repo_id}", dtype="auto")\n'
        f'print(ask(messages, max_new_tokens={tokens}, do_sample=False)[0]["generated_text"][-1]["content"])\n```'
    )


def _example(task: str | None) -> tuple[list[dict[str, str]], str, int]:
    """(messages to ask, a note before them, tokens of an answer)."""
    if task == "stocks":
        from stonk_trainer.tasks.stocks.facts import Fact, change, usd
        from stonk_trainer.tasks.stocks.prompt import render

        facts = [
            Fact("company", "Example Inc.", "text", "Example Inc."),
            usd("close_1d_ago", 41.50),
            usd("close", 42.10),
            change("change_1d", 42.10, 41.50),
            usd("sma_20", 40.85),
        ]
        note = (
            "The prompt has the form that the model was trained on; `stonk eval` writes it from data. Its numbers here "
        )
        return render(facts), note + "are made up.\n\n", 300
    question = {"role": "user", "content": "A train runs 60 km in 45 minutes. How fast is it in km/h?"}
    if task == "reasoning":
        from stonk_trainer.tasks.reasoning.sources import SYSTEM

        return [{"role": "system", "content": SYSTEM}, question], "", 1024
    return [question], "", 300


# ------------------------------------------------------------------------------------------------- how it was trained


def training(model: Path, origin: Origin) -> str:
    """The stages, the data and its dates, the last stage's recipe and versions."""
    if not origin.stages:
        return "No recipe lies beside the model: how it was trained is not recorded."
    last, recipe = origin.stages[0], without_private(origin.recipe)
    said = []
    for place, stage in enumerate(reversed(origin.stages), start=1):
        said.append(f"{place}. {_cell(stage.name)}: {_in_brief(stage)}")
    parts = ["\n".join(said), "**Data.** " + data_and_dates(model, origin)]
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip()
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    parts.append(f"The recipe of the last stage (paths are cut to their last part):\n\n{fence}yaml\n{text}\n{fence}")
    packages = mapping(last.environment, "packages")
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        commit = last.environment.get("commit")
        parts.append(
            f"**Versions.** Python {last.environment.get('python')}, {versions}"
            + (f"; commit {commit}" if commit else "")
            + f"; seed {last.environment.get('seed')}; device {last.environment.get('device')}."
        )
    else:
        parts.append("environment.json is missing: the versions are not known.")
    return "\n\n".join(parts)


def _in_brief(stage: Stage) -> str:
    kind = {"sft": "supervised fine-tuning", "grpo": "reinforcement learning (GRPO)"}.get(stage.trainer, "training")
    recipe = stage.recipe
    keys = ("algorithm", "learning_rate", "beta", "loss_type", "num_generations", "lora_r", "load_in_4bit")
    told = [f"{key} {recipe[key]}" for key in keys if recipe.get(key) not in (None, False)]
    steps = max((line["step"] for line in stage.metrics if isinstance(line.get("step"), int)), default=None)
    if steps:
        told.insert(0, f"{steps} steps")
    rewards = recipe.get("reward") if stage.trainer == "grpo" else None
    if isinstance(rewards, list):
        told.append("rewards " + ", ".join(map(str, rewards)))
    return kind + (f" ({'; '.join(told)})" if told else "")


def data_and_dates(model: Path, origin: Origin) -> str:
    """What it learnt from and up to which day."""
    recipe = without_private(origin.recipe)
    source = recipe.get("dataset_name") or recipe.get("data") or recipe.get("sources") or recipe.get("task_mix")
    source = source or recipe.get("sft_recipe")
    said = [f"`{source if isinstance(source, str) else ', '.join(map(str, source))}`." if source else "Not recorded."]
    if origin.task == "stocks":
        ends = {"train_end": "at 70% of the days", "validation_end": "at 80%"}
        ends = {key: auto if recipe.get(key, "auto") == "auto" else recipe[key] for key, auto in ends.items()}
        said.append(
            f"Training ends {ends['train_end']}, validation {ends['validation_end']}; the test is what comes after."
        )
        said.append(f"{recipe.get('embargo_days', 7)} days are left out after each boundary.")
        drawn = re.compile(r"INFO ((?:train|validation): .* rows drawn .*? UP\)[^;]*)")
        said += [f"{match[1]}." for line in origin.stages[0].console if (match := drawn.search(line))]
    if origin.task == "btc":
        codec = _json(model / "codec" / "config.json")
        if codec.get("train_end"):
            said.append(
                f"Training ends {codec['train_end']}, validation {codec.get('validation_end')}; the test is what comes "
                "after. The codec's days end there too."
            )
    return " ".join(said)


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def without_private(recipe: dict) -> dict:
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
    return re.sub(r"(?<=[=,\s])(?:/|~)[^,\s]*/([^,/\s]+)", r"\1", value)  # gsm8k=/home/me/gsm8k.parquet


# ------------------------------------------------------------------------------------------------- limits


def limits(origin: Origin) -> str:
    said = ["It was trained and judged on what is said above and on nothing else."]
    if origin.task == "stocks":
        said += [
            "It knows nothing of what is not in its prompt: not today's news, not other markets.",
            "Some numbers in its reasons may be made up, and true reasons do not make a forecast right.",
            "A base model may remember days from its pretraining: judge it on days after that.",
        ]
    elif origin.task == "btc":
        said += [
            "It knows past returns of one series and nothing else, and its codec rounds them.",
            "It can draw no larger move than its codec's largest code.",
        ]
    else:
        said.append("Its answers may be wrong, also where they sound sure: check them.")
    return "\n".join(f"- {sentence}" for sentence in said)
