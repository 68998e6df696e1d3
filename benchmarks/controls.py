"""Does GRPO learn what is there, and only that? Two controls on synthetic prices, at most 30 minutes on two cores.

    .venv/bin/python benchmarks/controls.py

Positive: a headline in the prompt says which way the next day goes. Held-out accuracy must rise from about 50% to
above 80%, and the milestone must be recorded with its evidence. Null: rows drawn in the same way (not the same rows),
each company's headlines in random order, so that labels and prompts have nothing to do with each other. Trained as
long, the 95% interval of held-out accuracy must contain 50%, and the milestone stays unreached.

The positive control was tuned until it passed: headline, learning rate, LoRA targets, warm-up, steps and evaluation
interval were changed over six attempts on seed 1. It shows that the trainer can learn, not how often it does. The null
was run to its end once, with the final settings. Other seeds were not tried.

Simplified: answers are one line without reasoning, so that enough updates fit in the time; the only reward is
accuracy. Everything else is the product: the dataset from a parquet file in the deepstock schema, `stonk grpo` with
its milestone (`benchmarks/controls.yaml`), `stonk eval`. Exit status 1 when a control fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from stonk_trainer import grpo
from stonk_trainer.evaluation import evaluate
from stonk_trainer.recipe import load_recipe

HEADLINES = {True: "Insider: tomorrow the share goes UP", False: "Insider: tomorrow the share goes DOWN"}
RECIPE = ["--config", str(Path(__file__).with_suffix(".yaml"))]
EVAL = ["--task", "stocks", "--history_days", "0", "--indicators", "volume", "--anonymise", "--reward", "accuracy"]
EVAL += ["--max_eval_samples", "256", "--batch_size", "64", "--max_completion_length", "8", "--temperature", "1.0"]
EVAL += ["--dtype", "bfloat16"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/controls"))
    parser.add_argument("--steps", type=int, default=40, help="GRPO steps at most; the milestone ends a run before")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    positive = run_control("positive", args.output, args.steps, args.seed)
    as_long = positive["milestone"]["step"] if positive["milestone"] else args.steps
    outcomes = [positive, run_control("null", args.output, as_long, args.seed)]
    print(f"\n{'control':<10}{'before':>8}{'after':>8}  {'95% interval':<16}{'milestone':<13}verdict")
    for o in outcomes:
        low, high = o["interval"]
        milestone = f"step {o['milestone']['step']}" if o["milestone"] else "not reached"
        verdict = "pass" if o["passed"] else "FAILED"
        print(
            f"{o['name']:<10}{o['before']:>8.1%}{o['after']:>8.1%}  {low:.1%} to {high:.1%}  {milestone:<13}{verdict}"
        )
    print(f"{outcomes[0]['rows']} held-out rows each; {(time.monotonic() - started) / 60:.0f} minutes")
    return 0 if all(o["passed"] for o in outcomes) else 1


def run_control(name: str, output: Path, steps: int, seed: int) -> dict:
    """Plant (or shuffle), teach the form, train, judge."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "prices.parquet"
    planted_rows(seed, shuffled=name == "null").to_parquet(data)
    source = ["--dataset_name", str(data), "--sampling_seed", str(seed)]
    warm = teach_form(folder / "warmup", source, seed)
    grpo.main([*RECIPE, *source, "--in", str(warm), "--out", str(folder / "grpo"), "--steps", str(steps)])
    trained = folder / "grpo" / "best_model"
    evaluate.main([*EVAL, *source, "--models", str(warm), str(trained), "--out", str(folder / "eval")])
    summary = json.loads((folder / "eval" / "summary.json").read_text())
    before, after = (summary["models"][str(model)] for model in (warm, trained))
    evidence = folder / "grpo" / "milestone.json"
    milestone = json.loads(evidence.read_text()) if evidence.exists() else None
    low, high = after["accuracy_ci95"]
    passed = (after["accuracy"] > 0.8 and milestone) if name == "positive" else (low <= 0.5 <= high and not milestone)
    return {
        "name": name,
        "rows": after["n"],
        "before": before["accuracy"],
        "after": after["accuracy"],
        "interval": (low, high),
        "milestone": milestone,
        "passed": bool(passed),
    }


def planted_rows(seed: int, shuffled: bool, companies: int = 8, days: int = 500) -> pd.DataFrame:
    """Random walks whose next direction the headline tells; when `shuffled`, the headlines are in random order."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2020-01-01", periods=days).strftime("%Y-%m-%d")
    rows = []
    for number in range(companies):
        up = rng.random(days) < 0.5  # up[t]: whether the day after t closes higher
        moves = np.where(up, 1, -1) * rng.uniform(0.002, 0.03, days)
        closes = np.round(100 * np.cumprod(1 + np.r_[0, moves[:-1]]), 2)
        told = rng.permutation(up) if shuffled else up
        ticker = f"SYN{number}"
        rows += [
            {
                "ticker": ticker,
                "company_info": {
                    "ticker": ticker,
                    "current_date": dates[t],
                    "company_info": {"name": f"Company {number}", "description": ""},
                    "news": {"news_headlines": [HEADLINES[bool(told[t])]], "news_date": dates[t]},
                    "financials": {"year": "", "financials": "{}"},
                    "price": {"close": float(closes[t]), "price_date": dates[t]},
                },
                "user_prompt": "",
            }
            for t in range(days)
        ]
    return pd.DataFrame(rows)


def teach_form(folder: Path, source: list[str], seed: int) -> Path:
    """A warm-up to one-line answers whose direction is a coin toss, by TRL's SFTTrainer."""
    args = load_recipe([*RECIPE, *source, "--in", "embedded:smollm2-135m", "--out", str(folder)], "grpo")

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from stonk_trainer.models import loading
    from stonk_trainer.terminal import start_log
    from stonk_trainer.training.callbacks import watch

    start_log()
    rng = np.random.default_rng(seed)
    rows = args.task.rl_dataset("train").select(range(144))
    completions = [[{"role": "assistant", "content": f"Prediction: {rng.choice(['UP', 'DOWN'])}"}] for _ in rows]
    trainer = SFTTrainer(
        model=loading.locate_model(args.model.model_name_or_path, folder),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=36,
            per_device_train_batch_size=4,
            learning_rate=5e-4,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=args.train.use_cpu,
            model_init_kwargs={"dtype": "bfloat16"},
            report_to="none",
            save_strategy="no",
            logging_steps=12,
            seed=seed,
        ),
        train_dataset=Dataset.from_dict({"prompt": list(rows["prompt"]), "completion": completions}),
        **loading.training_form(args.model),
    )
    watch(trainer)
    trainer.train()
    return loading.save_best(trainer)


if __name__ == "__main__":
    sys.exit(main())
