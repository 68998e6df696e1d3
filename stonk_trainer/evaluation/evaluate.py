"""Judge models on held-out rows: `stonk eval --config stocks/demo/eval --models runs/demo/stage2/best_model`.

The answers are generated now, or are forecasts saved in a file. All models are judged on the same rows, and so are the
baselines of a forecast, which are fit on training dates. Writes `predictions.jsonl` and `summary.json` and prints
tables. In the summary `models` and `baselines` hold the figures of each; those of the last model are also at the top
level. `--audit` looks for leaks as well, and ends with exit status 1 when it finds one.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.files import make_folder, write_json
from stonk_trainer.recipe import Arguments, load_recipe, task_class_of
from stonk_trainer.task import Finding, ForecastTask, Task
from stonk_trainer.terminal import log, with_progress

if TYPE_CHECKING:
    from pandas import DataFrame


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if own := task_class_of(argv).EVALUATE:  # a task with an evaluation of its own
        module, _, function = own.partition(":")
        return getattr(importlib.import_module(module), function)(argv)
    args = load_recipe(argv, trainer="eval")
    task, run = args.task, args.options

    from stonk_trainer.evaluation import predictions, tables

    args.start_log()
    if run.audit_rows:
        return _audit_only(args)
    findings = _forecasts(args, "audit").audit() if run.audit else []
    if run.audit:
        tables.print_audit(findings)  # before models answer, which can take long
    if run.predictions:
        rows, records = predictions.saved_records(run.predictions, _forecasts(args, "predictions"), args)
    else:
        rows = list(task.rl_dataset(run.split))
        task.try_rewards(rows[0])  # a user's reward that fails does so before a model is loaded
        records = model_records(args, task, rows)
    if isinstance(task, ForecastTask):
        summary = judge(args, rows, records, task_baselines(args, task, rows), judged_closes(args, task, rows))
        recall = recall_of_outcomes(args, task, rows, records) if run.audit and not run.predictions else {}
        summary |= {"audit": [dataclasses.asdict(finding) for finding in findings], "recall": recall}
    else:
        summary = judge_answers(args, records)
    summary |= {"command": args.command, "reward_weights": reward_weights(args)}
    folder = make_folder(run.output_dir, "output_dir")
    args.save(folder)
    predictions.save(folder / "predictions.jsonl", records)
    write_json(folder / "summary.json", summary)
    tables.print_summary(summary)
    log.info("saved %s", folder / "summary.json")
    _exit_on_failure(findings)


def _audit_only(args: Arguments) -> None:
    from stonk_trainer.evaluation import tables

    run = args.options
    findings = _forecasts(args, "audit_rows").audit_folder(run.audit_rows, run.audit_prices)
    args.save(run.output_dir)
    write_json(Path(run.output_dir) / "audit.json", [dataclasses.asdict(finding) for finding in findings])
    tables.print_audit(findings)
    _exit_on_failure(findings)


def _exit_on_failure(findings: Sequence[Finding]) -> None:
    if any(finding.passed is False for finding in findings):
        sys.exit(1)


def _forecasts(args: Arguments, key: str) -> ForecastTask:
    """The task, if it makes forecasts; else a UserError about the recipe's `key`."""
    if not isinstance(args.task, ForecastTask):
        raise UserError(f"{key}: the task {args.task.name} makes no forecasts: leave it out")
    return args.task


def model_records(args: Arguments, task: Task, rows: list[dict]) -> dict[str, list[dict]]:
    """The answers of each model of the recipe to `rows`, by model, as records of `Task.evaluate`.

    Raises UserError for a model that cannot be found or has the name of a baseline.
    """
    from transformers import set_seed

    from stonk_trainer.evaluation.baselines import NAMES
    from stonk_trainer.models import loading

    run = args.options
    if taken := set(run.models) & set(NAMES):
        raise UserError(f"models: {', '.join(sorted(taken))} is the name of a baseline: give another path to the model")
    located = {
        name: loading.locate_model(name, Path(run.output_dir) / f"model_{i}", args.model.model_revision)
        for i, name in enumerate(run.models, start=1)
    }
    records = {}
    for name, path in located.items():
        set_seed(run.seed)
        answers = generate(args, task, path, [row["prompt"] for row in rows], label=name)
        records[name] = task.evaluate(rows, answers)
    return records


def model_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The models to compare: each with the one named before it, and the last with the first."""
    pairs = list(zip(names[1:], names, strict=False))
    return pairs + [(names[-1], names[0])] if len(names) > 2 else pairs


def judge_answers(args: Arguments, records: dict[str, list[dict]]) -> dict:
    """The summary of a task whose answers are not forecasts: mean rewards of each model, and their differences to
    those of others (`model_pairs`), with intervals over rows.

    records: by model; see `model_records`.
    """
    from stonk_trainer.evaluation.metrics import answer_difference, summarise_answers
    from stonk_trainer.evaluation.stats import DayBootstrap

    count = len(next(iter(records.values())))
    groups = min(count, 1000)  # rows are independent: resampling groups of them is the same, and takes less memory
    bootstrap = DayBootstrap([row * groups // count for row in range(count)], args.options.seed, block=1)
    weights = reward_weights(args)
    return {
        "split": args.options.split,
        "model": list(records)[-1],
        "models": {name: summarise_answers(of_model, weights, bootstrap) for name, of_model in records.items()},
        "differences": [
            {"model": a, "against": b, **answer_difference(records[a], records[b], bootstrap)}
            for a, b in model_pairs(list(records))
        ],
    }


def reward_weights(args: Arguments) -> dict[str, float]:
    """The weight of each reward, by its name."""
    names = args.task.reward_names
    return dict(zip(names, args.options.reward_weights or [1.0] * len(names), strict=True))


def task_baselines(args: Arguments, task: ForecastTask, rows: list[dict]) -> dict[str, list[dict]]:
    """Records of every baseline on `rows`, fit on the training split; none where that is the split judged."""
    from stonk_trainer.evaluation.baselines import baseline_records

    if args.options.split == "train":
        log.warning("no baselines: they are fit on the training split, which is the one judged here")
        return {}
    table = task.feature_table(args.options.split).set_index(["ticker", "date"])
    judged = table.loc[[(row["ticker"], row["date"]) for row in rows]].reset_index()
    return baseline_records(task.feature_table("train"), judged, args.options.seed)


def judge(
    args: Arguments,
    rows: Sequence[Mapping],
    records: dict[str, list[dict]],
    baselines: dict[str, list[dict]],
    closes: DataFrame,
) -> dict:
    """The summary: metrics, backtest and paired differences of every forecaster, on one set of resampled days.

    Args:
        args: the resolved recipe.
        rows: the rows judged.
        records: of each model on `rows`, in their order.
        baselines: the same of each baseline.
        closes: prices of the rows' companies for the backtest; see `judged_closes`.
    """
    from stonk_trainer.evaluation import metrics
    from stonk_trainer.evaluation.backtest import backtest, buy_and_hold, performance, signals_of
    from stonk_trainer.evaluation.stats import DayBootstrap

    run = args.options
    weights = reward_weights(args)
    bootstrap = DayBootstrap([row["date"] for row in rows], run.seed)
    forecasters = {**records, **baselines}
    trials = run.trials or max(1, len(forecasters))
    summaries = {}
    for name, of_forecaster in forecasters.items():
        summaries[name] = metrics.summarise(of_forecaster, weights, bootstrap)
        daily = backtest(signals_of(of_forecaster, run.long_only), closes, run.cost_bps, run.lag)
        summaries[name]["backtest"] = performance(daily, trials, run.seed)
    everywhere = signals_of([{**row, "direction": "UP"} for row in rows], run.long_only)
    pairs = model_pairs(list(records)) + [(name, "majority") for name in records if "majority" in baselines]
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
        "always_up": performance(backtest(everywhere, closes, run.cost_bps, run.lag), 1, run.seed),
        "buy_and_hold": performance(buy_and_hold(closes, run.cost_bps), 1, run.seed),
        "costs": {"cost_bps": run.cost_bps, "lag": run.lag, "long_only": run.long_only, "trials": trials},
    }


def judged_closes(args: Arguments, task: ForecastTask, rows: list[dict]) -> DataFrame:
    """Closes of the companies of `rows`, from the first row's day to the last day on which its forecast is held."""
    closes = task.closes()[sorted({row["ticker"] for row in rows})]
    first, last = closes.index.searchsorted([min(row["date"] for row in rows), max(row["date"] for row in rows)])
    return closes.iloc[first : last + args.options.lag + 1]


def recall_of_outcomes(
    args: Arguments, task: ForecastTask, rows: list[dict], records: dict[str, list[dict]]
) -> dict[str, dict]:
    """Accuracy of each model with and without the company's name and the calendar, on the same rows.

    A model whose pretraining covered these days is right more often when the prompt shows which day it is. By model:
    `difference` is named minus anonymised, `ci95` its paired interval; above 0, the accuracy is partly memory.
    """
    from stonk_trainer.evaluation.metrics import difference
    from stonk_trainer.evaluation.stats import DayBootstrap

    other_task = task.without_identity()
    if not records or other_task is None:
        return {}
    other_rows = list(other_task.rl_dataset(args.options.split))
    bootstrap = DayBootstrap([row["date"] for row in rows], args.options.seed)
    found = {}
    for name, other in model_records(args, other_task, other_rows).items():
        named, anonymised = (other, records[name]) if task.args.anonymise else (records[name], other)
        found[name] = difference(named, anonymised, bootstrap)["accuracy"]
    return found


def generate(args: Arguments, task: Task, path: str, prompts: list, label: str) -> list[str]:
    """One completion per prompt (chat messages), in the order of `prompts`; batched by length, longest first.

    path: the model's folder. label: what progress lines and errors call it.
    """
    from trl import get_quantization_config

    from stonk_trainer.models import generation, loading

    run = args.options
    tokenizer = loading.load_tokenizer(path, args.model.model_revision)
    task.check_tokenizer(tokenizer, label)
    options = loading.loading_options(args.model) | {"quantization_config": get_quantization_config(args.model)}
    generator = generation.TransformersGenerator(path, tokenizer, options, run.draft_tokens)
    how = generation.Sampling(run.max_completion_length, run.temperature)
    completions = [""] * len(prompts)
    batches = generation.batches_by_length(prompts, tokenizer, run.batch_size)
    for batch in with_progress(batches, label):
        for i, answer in zip(batch, generator.answers([prompts[i] for i in batch], how), strict=True):
            completions[i] = answer.text
    return completions


if __name__ == "__main__":
    main()
