"""Runs and their evaluation, as the tests of the card and of the upload need them."""

import json
import shutil

import pytest

from stonk_trainer.recipe import load_recipe
from stonk_trainer.task import DataSummary
from stonk_trainer.training import run_record


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_model_folder):
    """Two stages from Qwen2.5-1.5B-Instruct and an evaluation: real recipes, a real `stonk eval`, a tiny model."""
    from stonk_trainer.evaluation import evaluate

    root = tmp_path_factory.mktemp("home") / "runs"
    stage1, stage2 = root / "stage1", root / "stage2"
    started_from = {stage1: "Qwen/Qwen2.5-1.5B-Instruct", stage2: str(stage1 / "best_model")}
    for number, (folder, model) in enumerate(started_from.items(), start=1):
        flags = ["--model", model, "--out", str(folder), "--hub_token", "hf_secret", "--train_end", "2016-12-31"]
        args = load_recipe(["--config", f"stocks/demo/stage{number}", *flags], "grpo", model_must_exist=False)
        args.task.data["train"] = DataSummary(9000, 256, 8100, "2003-02-03", "2016-12-30", 0.521, {"without news": 3})
        run_record.RunRecord(args, resumed=None)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | {"steps": 10, "ended": f"2026-11-25 1{number}:00:00"}))
        shutil.copytree(tiny_model_folder, folder / "best_model")
        (folder / "checkpoint-10").mkdir()
        (folder / "checkpoint-10/optimizer.pt").write_bytes(b"states")
    few = ["--max_eval_samples", "24", "--max_completion_length", "6", "--dtype", "float32", "--batch_size", "24"]
    models = [str(folder / "best_model") for folder in started_from]
    evaluate.main(["--config", "stocks/demo/eval", "--models", *models, "--out", str(root / "eval"), *few])
    for name in ("training_args.bin", "optimizer.pt", "notes.log"):
        (stage2 / "best_model" / name).write_bytes(b"not for others")
    return root
