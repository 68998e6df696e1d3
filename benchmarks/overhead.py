"""What this package costs beside TRL's own scripts, on the same recipe and rows, with shared prompts off.

    python benchmarks/overhead.py --model embedded:smollm2-135m --steps 6 --rounds 3

Runs `stonk sft` and `python -m trl.scripts.sft`, and both for GRPO, in turns, and prints: seconds from the start of the
process to the end of the first step, seconds per step after it, peak memory, each as a ratio (ours over TRL's), and
whether the losses are identical, which they must be for the rest to mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from stonk_trainer.models import loading
from stonk_trainer.tasks import reasoning

COMMON = {
    "use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target_modules": ["all-linear"],
    "dtype": "bfloat16", "bf16": False, "gradient_checkpointing": False, "learning_rate": 1e-4, "logging_steps": 1,
    "lr_scheduler_type": "constant", "eval_strategy": "no", "save_strategy": "steps", "report_to": "none", "seed": 42,
    "use_cpu": True, "gradient_accumulation_steps": 1,
}  # fmt: skip
OF = {
    "sft": {"per_device_train_batch_size": 8, "max_length": 256, "completion_only_loss": True},
    "grpo": {
        "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 48, "beta": 0.02,
        "loss_type": "dr_grpo", "scale_rewards": "group", "mask_truncated_completions": False,
    },
}  # fmt: skip
REWARD = """\
from stonk_trainer.tasks.reasoning.verify import reward_functions
accuracy, form = reward_functions(["accuracy", "format"], None, 1)
form.__name__ = "format"
"""


def prepare(folder: Path, model: str, steps: int) -> dict[str, dict[str, list[str]]]:
    """{trainer: {whose: command}}: the same recipe, rows and model for both."""
    task = reasoning.Arguments(sources=["arithmetic:stop=200"], task_mix="arithmetic:1", max_train_samples=160)
    (folder / "bench_rewards.py").write_text(REWARD)
    commands = {}
    for trainer, dataset in (("sft", reasoning.sft_dataset), ("grpo", reasoning.rl_dataset)):
        rows = folder / f"{trainer}_rows"
        rows.mkdir()
        dataset(task, "train").to_json(rows / "train.jsonl")
        recipe = {**COMMON, **OF[trainer], "model_name_or_path": model, "max_steps": steps, "save_steps": steps}
        own = {"task": "reasoning", "max_train_samples": 160}
        own |= {"sources": ["arithmetic:stop=200"]} if trainer == "sft" else {}
        if trainer == "grpo":
            own |= {"task_mix": "arithmetic:1", "reward": ["accuracy", "format"], "shared_prefix": "false"}
            own |= {"milestone_evaluations": 0}
        theirs = {"dataset_name": str(rows)}
        theirs |= {"reward_funcs": ["bench_rewards.accuracy", "bench_rewards.form"]} if trainer == "grpo" else {}
        for name, extra in (("ours", own), ("trl", theirs)):
            (folder / f"{trainer}_{name}.yaml").write_text(yaml.safe_dump({**recipe, **extra}))
        commands[trainer] = {
            "ours": [
                sys.executable,
                "-m",
                f"stonk_trainer.{trainer}",
                "--config",
                str(folder / f"{trainer}_ours.yaml"),
            ],
            "trl": [sys.executable, "-m", f"trl.scripts.{trainer}", "--config", str(folder / f"{trainer}_trl.yaml")],
        }
    return commands


def run(command: list[str], folder: Path, steps: int) -> dict:
    """Times and memory of one run, and its losses."""
    output = Path(tempfile.mkdtemp(dir=folder))
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--output_dir", str(output)], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    at, said = [], []
    for line in process.stdout:
        said.append(line)
        if "'loss'" in line or "  loss " in line:
            at.append(time.perf_counter() - started)
    _, status, usage = os.wait4(process.pid, 0)
    if status or len(at) < steps:
        raise SystemExit("".join(said[-30:]))
    history = json.loads((output / f"checkpoint-{steps}" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    per_step = (at[steps - 1] - at[0]) / (steps - 1)
    return {"first": at[0], "step": per_step, "mib": usage.ru_maxrss / 1024, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = loading.locate_model(options.model, folder)
        for trainer, commands in prepare(folder, path, options.steps).items():
            runs: dict[str, list[dict]] = {whose: [] for whose in commands}
            for turn in range(options.rounds):
                for whose in sorted(commands, reverse=bool(turn % 2)):
                    runs[whose].append(run(commands[whose], folder, options.steps))
            same = all(a["losses"] == b["losses"] for a, b in zip(runs["ours"], runs["trl"], strict=True))
            ratios = {
                key: [a[key] / b[key] for a, b in zip(runs["ours"], runs["trl"], strict=True)]
                for key in ("first", "step", "mib")
            }
            results[trainer] = {"identical_losses": same, "ratios": ratios, "runs": runs}
            print(f"{trainer}: losses {'identical' if same else 'DIFFER'}")
            for key, label in (("first", "time to first step"), ("step", "step"), ("mib", "peak memory")):
                found = ratios[key]
                ours, theirs = (statistics.median(r[key] for r in runs[whose]) for whose in ("ours", "trl"))
                print(
                    f"  {label:<20}{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
                    f"   ours {ours:.2f}, TRL {theirs:.2f}"
                )
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
