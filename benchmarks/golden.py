"""Golden runs: ten steps of each trainer on each task, to show that a change of the code changed no number.

    python benchmarks/golden.py golden.json            # record: losses, rewards, and a checksum of the weights
    python benchmarks/golden.py golden.json --compare  # run again, and compare to the last digit

Record before the change, compare after it, on the same machine. About two minutes in all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parent)}
TEN_STEPS = "--max_steps 10 --logging_steps 1 --save_strategy no --eval_strategy no --report_to none --seed 7".split()
FLOAT32 = "--dtype float32".split()
FEW_ROWS = "--max_train_samples 64 --max_eval_samples 4 --warmup_steps 0".split()
GROUPS = "--per_device_train_batch_size 8 --gradient_accumulation_steps 2 --num_generations 8".split()


def make_inputs(folder: Path) -> None:
    """The tiny models and prices of the tests."""
    import numpy as np
    import pandas as pd
    import torch

    sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
    from speaking_models import SPOKEN, speaking_tokenizer, write_speaking_model

    write_speaking_model(folder / "stocks", speaking_tokenizer(SPOKEN.values()), SPOKEN.values())
    sums = [f"<think>\nIt adds up to {n}.\n</think>\n\nThe answer is \\boxed{{{n}}}." for n in range(10, 41)]
    write_speaking_model(folder / "reasoning", speaking_tokenizer(sums), sums)
    torch.manual_seed(0)
    returns = 0.02 * np.random.default_rng(0).standard_t(4, 700)
    days = pd.date_range("2020-01-01", periods=700).strftime("%Y-%m-%d")
    prices = pd.DataFrame({"date": days, "close": 100 * np.exp(np.cumsum(returns))})
    prices.to_csv(folder / "COIN.csv", index=False)


def commands(inputs: Path, out: Path) -> dict[str, list[str]]:
    """The command line of each run, by its name; each BTC run needs what the one before it wrote."""
    codec = f"--codebook_size 16 --hidden_size 8 --code_dim 4 --num_blocks 1 --kernel_size 3 --csv {inputs}/COIN.csv"
    dates = "--train_end 2021-06-30 --validation_end 2021-09-30"
    gpt = "--gpt_hidden_size 16 --gpt_layers 1 --gpt_heads 2 --gpt_positions 96 --context_len 32"
    return {
        "stocks sft": ["sft", "--config", "stocks/demo/warmup", "--model", f"{inputs}/stocks", *FLOAT32, *FEW_ROWS],
        "stocks grpo": ["grpo", "--config", "stocks/demo/stage1", "--model", f"{inputs}/stocks", *FLOAT32, *FEW_ROWS,
                        *GROUPS, "--max_completion_length", "6", "--learning_rate", "1e-3"],
        "stocks stage2": ["grpo", "--config", "stocks/demo/stage2", "--stage1_model", f"{out}/stocks grpo/best_model",
                          *FLOAT32, *FEW_ROWS, *GROUPS, "--max_completion_length", "6"],
        "btc codec": ["codec", "train", "--config", "btc/demo/codec", *codec.split(), *dates.split(), "--steps", "20"],
        "btc sft": ["sft", "--config", "btc/sft", "--model", "new", "--codec", f"{out}/btc codec", "--csv",
                    f"{inputs}/COIN.csv", *gpt.split(), "--batch_size", "4"],
        "btc grpo": ["grpo", "--config", "btc/rl", "--model", f"{out}/btc sft/best_model", "--csv",
                     f"{inputs}/COIN.csv", "--batch_episodes", "2", "--context_len", "16", "--horizon", "4",
                     "--reward", "token_acc", "crps", "--reward_weights", "1", "0.5"],
        "reasoning sft": ["sft", "--config", "r1/demo/cold_start", "--model", f"{inputs}/reasoning", *FLOAT32,
                          "--max_length", "512", "--batch_size", "4"],
        "reasoning grpo": ["grpo", "--config", "r1/demo/grpo", "--model", f"{inputs}/reasoning", *FLOAT32,
                           "--num_generations", "4", "--batch_size", "8", "--max_completion_length", "8",
                           "--max_train_samples", "40"],
    }  # fmt: skip


def run(command: list[str], folder: Path) -> dict[str, list[float] | str]:
    """What a run logged at each step, and a checksum of the model it left."""
    trains = command[0] in ("sft", "grpo")
    argv = [sys.executable, "-m", "stonk_trainer.cli", *command, "--out", str(folder), *(TEN_STEPS if trains else [])]
    done = subprocess.run(argv, env=ONE_THREAD, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    files = sorted((folder / "best_model" if trains else folder).glob("*.safetensors"))
    found: dict[str, list[float] | str] = {
        "weights": hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    }
    if trains:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for key in ("loss", "reward", "kl", "grad_norm"):
            if any(key in line for line in lines):
                found[key] = [line[key] for line in lines if key in line]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        inputs, out = Path(scratch, "inputs"), Path(scratch, "runs")
        inputs.mkdir()
        make_inputs(inputs)
        found = {name: run(command, out / name) for name, command in commands(inputs, out).items()}
    if not options.compare:
        options.file.write_text(json.dumps(found, indent=1))
        return
    recorded = json.loads(options.file.read_text())
    for name in recorded:
        print(f"{name}: {'the same' if found[name] == recorded[name] else 'CHANGED'}")
    sys.exit(found != recorded)


if __name__ == "__main__":
    main()
