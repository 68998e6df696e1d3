"""Judge models on held-out rows: `stonk eval --config stocks/eval --models runs/stage2/best_model`.

All models answer the same rows. Writes `predictions.jsonl` and `summary.json`, whose top level is the last model named
and whose `models` holds each, and prints a table.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from stonk_trainer.errors import exits_cleanly
from stonk_trainer.recipe import load_recipe
from stonk_trainer.terminal import log, start_log


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    task, args = load_recipe(argv, trainer="eval")
    run = args.run

    from transformers import set_seed

    from stonk_trainer import models
    from stonk_trainer.evaluation.metrics import summarise

    start_log()
    rows = list(task.rl_dataset(args.task, run.split))
    located = {
        name: models.locate_model(name, Path(run.output_dir) / f"model_{i}", args.model.model_revision)
        for i, name in enumerate(run.models, start=1)
    }
    weights = dict(zip(args.task.reward, run.reward_weights or [1.0] * len(args.task.reward), strict=True))

    args.save(run.output_dir)
    summaries = {}
    with (Path(run.output_dir) / "predictions.jsonl").open("w") as file:
        for name, path in located.items():
            set_seed(run.seed)
            completions = generate(path, [row["prompt"] for row in rows], args, label=name)
            records = task.evaluate(args.task, rows, completions)
            for record, completion in zip(records, completions, strict=True):
                file.write(json.dumps({"model": name, **record, "completion": completion}) + "\n")
            summaries[name] = summarise(records, weights, run.seed)
    last = summaries[run.models[-1]]
    summary = {"split": run.split, "model": run.models[-1], **last, "models": summaries}
    (Path(run.output_dir) / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_table(summaries, run.split)
    log.info("saved %s", Path(run.output_dir) / "summary.json")


def generate(path: str, prompts: list, args, label: str) -> list[str]:
    """One completion per prompt (chat messages), in batches of equal work; longest prompts first."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    from stonk_trainer import models

    run = args.run
    tokenizer = models.load_tokenizer(path, args.model.model_revision)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = AutoModelForCausalLM.from_pretrained(
        path,
        **models.loading_options(args.model),
        quantization_config=get_quantization_config(args.model),
        device_map={"": device},
    )
    texts = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    # Said in full, because a model's own generation_config may ask for top-k, top-p and a repetition penalty.
    sampling = {"repetition_penalty": 1.0, "do_sample": run.temperature > 0}
    if run.temperature > 0:
        sampling |= {"temperature": run.temperature, "top_k": 0, "top_p": 1.0}
    completions = [""] * len(texts)
    started = time.monotonic()
    for start in range(0, len(order), run.batch_size):
        batch = order[start : start + run.batch_size]
        inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True, add_special_tokens=False).to(
            device
        )
        with torch.inference_mode():
            output_BT = model.generate(**inputs, max_new_tokens=run.max_completion_length, **sampling)
        answers = tokenizer.batch_decode(output_BT[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, answer in zip(batch, answers, strict=True):
            completions[i] = answer
        done, seconds = start + len(batch), time.monotonic() - started
        left = seconds / done * (len(order) - done)
        log.info("%s: %d/%d answers, %.1f per second, %.0f s left", label, done, len(order), done / seconds, left)
    return completions


def print_table(summaries: dict[str, dict], split: str) -> None:
    """One column per model, one row per metric, at most 80 columns for three models; no skill stands beside."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    all_ = list(summaries.values())
    first = all_[0]
    title = f"{first['n']} {split} rows on {first['dates']} days, {first['base_rate_up']:.1%} of them UP"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in summaries:
        table.add_column(_short(name, list(summaries)), justify="right")
    table.add_column("without skill", justify="right", style="dim")
    table.add_row("readable answers", *(f"{s['parse_rate']:.1%}" for s in all_), "")
    table.add_row("grounded claims", *(f"{s['grounded_claims']:.2f}" for s in all_), "")
    for name in first["reward_components"]:
        table.add_row(f"reward: {name}", *(f"{s['reward_components'][name]:.3f}" for s in all_), "")
    table.add_row("reward: total", *(f"{s['reward_mean']:.3f}" for s in all_), "", end_section=True)
    table.add_row("accuracy", *(f"{s['accuracy']:.1%}" for s in all_), f"{first['majority_accuracy']:.1%} majority")
    table.add_row("  95% interval", *map(_interval, all_), "")
    table.add_row("  on UP days", *(_percent(s["up_accuracy"]) for s in all_), "")
    table.add_row("  on DOWN days", *(_percent(s["down_accuracy"]) for s in all_), "")
    table.add_row("UP forecasts", *(_percent(s["predicted_up_rate"]) for s in all_), "")
    table.add_row("ROC-AUC", *("-" if s["roc_auc"] is None else f"{s['roc_auc']:.3f}" for s in all_), "0.500")
    table.add_row("Brier score", *(f"{s['brier']:.3f}" for s in all_), "0.250")
    console = Console()
    console.print(table)
    console.print(
        "grounded claims: distinct facts an answer cites rightly. majority: always the direction more frequent in "
        "training. An unreadable answer counts as wrong. The interval resamples days. Brier: squared error of the "
        "stated probability of UP; lower is better.",
        style="dim",
    )


def _short(name: str, names: list[str]) -> str:
    """`runs/demo/stage1/best_model` → stage1, when that still tells the models apart."""

    def short(path: str) -> str:
        parts = [part for part in Path(path).parts if part not in ("best_model", "best_adapter")]
        return parts[-1] if parts else path

    return short(name) if len({short(n) for n in names}) == len(names) else name


def _interval(summary: dict) -> str:
    return "-" if summary["accuracy_ci95"] is None else "{:.0%} to {:.0%}".format(*summary["accuracy_ci95"])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main()
