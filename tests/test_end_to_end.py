"""The demo on the real embedded model, with a step or two per stage: the one slow test."""

import json

import pytest

from stonk_trainer import grpo, sft
from stonk_trainer.evaluation import evaluate

pytestmark = pytest.mark.slow

# float32, since a CPU without instructions for bfloat16 takes half an hour for a step in it.
SMALL = ["--dtype", "float32", "--per_device_train_batch_size", "2"]
STEP = [*SMALL, "--num_generations", "2", "--gradient_accumulation_steps", "1", "--max_steps", "1"]
STEP += ["--max_completion_length", "12", "--max_eval_samples", "2", "--save_steps", "1"]


def test_the_demo_runs_from_the_embedded_model_to_a_summary(tmp_path):
    stages = {name: str(tmp_path / name) for name in ("warmup", "stage1", "stage2")}
    best = {name: f"{folder}/best_model" for name, folder in stages.items()}
    sft.main(["--config", "stocks/demo/warmup", "--out", stages["warmup"], *SMALL, "--max_steps", "2"])
    grpo.main(["--config", "stocks/demo/stage1", "--in", best["warmup"], "--out", stages["stage1"], *STEP])
    grpo.main(["--config", "stocks/demo/stage2", "--in", best["stage1"], "--out", stages["stage2"], *STEP])
    few = ["--dtype", "float32", "--max_eval_samples", "4", "--max_completion_length", "12"]
    evaluate.main(["--config", "stocks/demo/eval", "--models", *best.values(), "--out", str(tmp_path / "eval"), *few])
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    assert summary["n"] == 4
    assert list(summary["models"]) == list(best.values())
    state = json.loads((tmp_path / "stage2/checkpoint-1/trainer_state.json").read_text())
    assert abs(next(entry["kl"] for entry in state["log_history"] if "kl" in entry)) < 1e-6
