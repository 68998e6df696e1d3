"""A task of one's own, by import path: about thirty lines, and nothing of the package is edited."""

import json
import shutil
import textwrap
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT = ["--dtype", "float32", "--max_completion_length", "8"]
TRAINING = """
    task: my_sums:Sums
    max_steps: 2
    logging_steps: 1
    save_strategy: no
    eval_strategy: no
    report_to: none
    dtype: float32
    bf16: false
"""


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder with the example's task and three recipes, and nothing else."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "my_sums.py", tmp_path)
    shutil.copy(EXAMPLES / "my_sums.yaml", tmp_path / "grpo.yaml")
    (tmp_path / "sft.yaml").write_text(textwrap.dedent(TRAINING))
    (tmp_path / "eval.yaml").write_text("task: my_sums:Sums")
    return tmp_path


def test_a_task_of_ones_own_is_checked_trained_evaluated_and_reported(recipes, adding_model_folder, stonk):
    checked = stonk("check", "grpo.yaml", "--model", adding_model_folder, "--out", "runs/rl", *SHORT)
    assert "no errors found" in checked and "my_sums:Sums" in checked
    stonk("sft", "--config", "sft.yaml", "--model", adding_model_folder, "--out", "runs/sft")
    stonk("grpo", "--config", "grpo.yaml", "--model", "runs/sft/best_model", "--out", "runs/rl", *SHORT)
    line = json.loads((recipes / "runs/rl/training_log.jsonl").read_text().splitlines()[0])
    assert {"step", "target", "right", "total", "completion"} <= line.keys()
    models = ["runs/sft/best_model", "runs/rl/best_model"]
    table = stonk(
        "eval", "--config", "eval.yaml", "--models", *models, "--max_completion_length", "8", "--out", "runs/ev"
    )
    assert "right" in table and "95% intervals resample rows" in table
    summary = json.loads((recipes / "runs/ev/summary.json").read_text())
    for model in models:
        low, high = summary["models"][model]["reward_mean_ci95"]
        assert low <= summary["models"][model]["reward_mean"] <= high
    stonk("report", "runs")
    page = (recipes / "runs/report/report.html").read_text()
    assert "right" in page and "my_sums:Sums" in page


def test_what_is_wrong_with_a_task_of_ones_own_is_one_line(recipes, refused):
    for name, reason in {
        "no_such:Sums": "no module no_such",
        "my_sums:Nothing": "has no Nothing; it has",
        "my_sums:right": "is not a subclass of stonk_trainer.task.Task",
        "sums": "is not one of stocks, btc, reasoning, nor an import path",
    }.items():
        assert reason in refused("grpo", "--config", "grpo.yaml", "--task", name, "--model", "m", "--out", "runs/rl")
    assert "makes no forecasts" in refused("eval", "--config", "eval.yaml", "--models", "m", "--audit", "true")


def test_a_method_that_a_task_lacks_is_named(recipes, adding_model_folder, refused):
    text = (recipes / "my_sums.py").read_text()
    (recipes / "my_sums.py").write_text(text[: text.index("    def read(")])
    said = refused("grpo", "--config", "grpo.yaml", "--model", adding_model_folder, "--out", "runs/rl", *SHORT)
    assert "the task my_sums:Sums has no method examples: define it in its class" in said


def test_a_recipe_beside_a_model_does_not_import_its_task(recipes, adding_model_folder, refused, tmp_path):
    model = shutil.copytree(adding_model_folder, tmp_path / "model")
    shutil.copy("grpo.yaml", model / "recipe.yaml")
    (model / "my_sums.py").write_text("raise SystemExit('imported')")
    assert "is not imported" in refused("grpo", "--config", model / "recipe.yaml", "--model", model, "--out", "runs/rl")
