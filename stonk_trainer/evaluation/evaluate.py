"""Judge forecasts on held-out rows: `stonk eval --config stocks/demo/eval --models runs/demo/stage2/best_model`.

The forecasts are those of models, asked now, or of a file of saved ones; all answer the same rows, and so do the
baselines, which are fit on training dates. Writes `predictions.jsonl` and `summary.json`, whose top level is the last
model named and whose `models` and `baselines` hold each forecaster, and prints tables. `--audit` looks for leaks as
well, and ends with exit status 1 when it finds one.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.imports import name_of
from stonk_trainer.recipe import Arguments, load_recipe, task_of
from stonk_trainer.task import Task
from stonk_trainer.terminal import log, start_log

if TYPE_CHECKING:
    from pandas import DataFrame


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    if own := task_of(argv).EVALUATION:  # a task whose answers other figures judge
        return importlib.import_module(own).main(list(sys.argv[1:] if argv is None else argv))
    task, args = load_recipe(argv, trainer="eval")
    run = args.run
    rewards = task.reward_functions(args.task)

    from stonk_trainer import example_answers
    from stonk_trainer.evaluation import predictions, tables
    from stonk_trainer.evaluation.baselines import NAMES as BASELINES
    from stonk_trainer.tasks.stocks import audit

    start_log()
    if run.audit_rows:
        findings = audit.audit_folder(run.audit_rows, run.audit_prices)
        args.save(run.output_dir)
        write_json(Path(run.output_dir) / "audit.json", [dataclasses.asdict(finding) for finding in findings])
        audit.print_audit(findings)
        return audit.exit_on_failure(findings)
    if taken := set(run.models) & set(BASELINES):
        raise UserError(f"models: {', '.join(sorted(taken))} is the name of a baseline: give another path to the model")
    findings = audit.audit_dataset(args.task) if run.audit else []
    if run.audit:
        audit.print_audit(findings)  # before models are asked, which can take long
    if run.predictions:
        rows, records = predictions.saved_records(run.predictions, task, args)
    else:
        rows = list(task.rl_dataset(args.task, run.split))
        example_answers.earned(task, args.task, rows[0], rewards)  # a reward of the user's that fails ends here
        records = model_records(task, args, rows)
    recall = recall_of_outcomes(task, args, rows, records) if run.audit and not run.predictions else {}
    summary = judge(args, rows, records, task_baselines(task, args, rows), judged_closes(task, args, rows))
    summary |= {"audit": [dataclasses.asdict(finding) for finding in findings], "recall": recall}

    args.save(run.output_dir)
    predictions.save(Path(run.output_dir) / "predictions.jsonl", records)
    write_json(Path(run.output_dir) / "summary.json", summary)
    tables.print_summary(summary)
    log.info("saved %s", Path(run.output_dir) / "summary.json")
    audit.exit_on_failure(findings)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def model_records(task: Task, args: Arguments, rows: list[dict]) -> dict[str, list[dict]]:
    """What each model of the recipe answers to `rows`, as records that keep the completion."""
    from transformers import set_seed

    from stonk_trainer.models import loading

    run = args.run
    located = {
        name: loading.locate_model(name, Path(run.output_dir) / f"model_{i}", args.model.model_revision)
        for i, name in enumerate(run.models, start=1)
    }
    records = {}
    for name, path in located.items():
        set_seed(run.seed)
        completions = generate(task, path, [row["prompt"] for row in rows], args, label=name)
        read = task.evaluate(args.task, rows, completions)
        records[name] = [{**r, "completion": text} for r, text in zip(read, completions, strict=True)]
    return records


def task_baselines(task: Task, args: Arguments, rows: list[dict]) -> dict[str, list[dict]]:
    """Records of every baseline on `rows`, fit on the training split; none when `rows` are training rows."""
    from stonk_trainer.evaluation.baselines import baseline_records

    if args.run.split == "train":
        log.warning("no baselines: they are fit on the training split, which is what is judged here")
        return {}
    table = task.feature_table(args.task, args.run.split).set_index(["ticker", "date"])
    judged = table.loc[[(row["ticker"], row["date"]) for row in rows]].reset_index()
    return baseline_records(task.feature_table(args.task, "train"), judged, args.run.seed)


def judge(
    args: Arguments,
    rows: Sequence[Mapping],
    records: dict[str, list[dict]],
    baselines: dict[str, list[dict]],
    closes: DataFrame,
) -> dict:
    """The summary: metrics, backtest and paired differences of every forecaster, on one set of resampled days."""
    from stonk_trainer.evaluation import metrics
    from stonk_trainer.evaluation.backtest import backtest, buy_and_hold, performance, signals_of

    run = args.run
    names = list(map(name_of, args.task.reward))
    weights = dict(zip(names, run.reward_weights or [1.0] * len(names), strict=True))
    bootstrap = metrics.DayBootstrap([row["date"] for row in rows], run.seed)
    forecasters = {**records, **baselines}
    trials = run.trials or max(1, len(forecasters))
    summaries = {}
    for name, its in forecasters.items():
        summaries[name] = metrics.summarise(its, weights, bootstrap)
        daily = backtest(signals_of(its, run.long_only), closes, run.cost_bps, run.lag)
        summaries[name]["backtest"] = performance(daily, trials, run.seed)
    pairs = list(zip(list(records)[1:], records, strict=False))  # each model against the one named before it
    pairs += [(name, "majority") for name in records if "majority" in baselines]
    differences = [
        {"model": a, "against": b, **metrics.difference(forecasters[a], forecasters[b], bootstrap)} for a, b in pairs
    ]
    top = list(records)[-1] if records else None
    return {
        "split": run.split,
        "model": top,
        **(summaries[top] if top else {}),
        "models": {name: summaries[name] for name in records},
        "baselines": {name: summaries[name] for name in baselines},
        "differences": differences,
        "buy_and_hold": performance(buy_and_hold(closes, run.cost_bps), 1, run.seed),
        "costs": {"cost_bps": run.cost_bps, "lag": run.lag, "long_only": run.long_only, "trials": trials},
    }


def judged_closes(task: Task, args: Arguments, rows: list[dict]) -> DataFrame:
    """Closes of the companies of `rows`, from the first row's day to the last day on which its forecast is held."""
    closes = task.closes(args.task)[sorted({row["ticker"] for row in rows})]
    first, last = closes.index.searchsorted([min(row["date"] for row in rows), max(row["date"] for row in rows)])
    return closes.iloc[first : last + args.run.lag + 1]


def recall_of_outcomes(
    task: Task, args: Arguments, rows: list[dict], records: dict[str, list[dict]]
) -> dict[str, dict]:
    """Accuracy of each model with and without the company's name and the calendar, on the same rows.

    A model that has read about these days while it was pretrained is right more often when it is told which day it is:
    `difference` is named minus anonymised, with its paired interval; above 0, the accuracy is partly memory.
    """
    from stonk_trainer.evaluation.metrics import DayBootstrap, difference

    if not records:
        return {}
    hidden = dataclasses.replace(args, task=dataclasses.replace(args.task, anonymise=not args.task.anonymise))
    hidden.task.imports = args.task.imports  # `replace` leaves out what the recipe's parser sets
    other_rows = list(task.rl_dataset(hidden.task, args.run.split))
    bootstrap = DayBootstrap([row["date"] for row in rows], args.run.seed)
    found = {}
    for name, other in model_records(task, hidden, other_rows).items():
        named, anonymised = (other, records[name]) if args.task.anonymise else (records[name], other)
        found[name] = difference(named, anonymised, bootstrap)["accuracy"]
    return found


def generate(task: Task, path: str, prompts: list, args: Arguments, label: str) -> list[str]:
    """One completion per prompt (chat messages), in batches of equal work; longest prompts first."""
    from trl import get_quantization_config

    from stonk_trainer.models import generation, loading

    run = args.run
    tokenizer = loading.load_tokenizer(path, args.model.model_revision)
    task.check_tokenizer(args.task, tokenizer, label)
    options = loading.loading_options(args.model) | {"quantization_config": get_quantization_config(args.model)}
    generator = generation.TransformersGenerator(path, tokenizer, options)
    how = generation.Sampling(run.max_completion_length, run.temperature)
    completions = [""] * len(prompts)
    batches = generation.batches_by_length(prompts, tokenizer, run.batch_size)
    for batch in generation.with_progress(batches, label):
        for i, answer in zip(batch, generator.answers([prompts[i] for i in batch], how), strict=True):
            completions[i] = answer.text
    return completions


if __name__ == "__main__":
    main()
