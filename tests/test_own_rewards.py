"""Rewards by import path through the real commands: where their name is shown, and what may import them."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

FLAGS = ["--dtype", "float32", "--max_steps", "2", "--logging_steps", "1", "--max_train_samples", "24"]
FLAGS += ["--max_eval_samples", "4", "--indicators", "change_1d", "sma_20", "--max_completion_length", "6"]
FLAGS += ["--per_device_train_batch_size", "4", "--num_generations", "4", "--save_steps", "2"]
REWARDS = ["--reward", "accuracy", "data_usage", "my_rewards:humility", "--reward_weights", "0.6", "0.2", "0.2"]
EXAMPLE = Path(__file__).parent.parent / "examples" / "my_rewards.py"


@pytest.fixture(autouse=True)
def in_a_folder_with_the_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)


@pytest.fixture
def grpo(stonk, tiny_model_folder):
    def run(*flags, out="run"):
        return stonk(
            "grpo", "--config", "stocks/demo/stage1", "--model", tiny_model_folder, "--out", out, *FLAGS, *flags
        )

    return run


@pytest.mark.slow
def test_the_example_is_trained_on_and_its_name_is_in_progress_logs_tables_and_report(grpo, stonk, tmp_path):
    said = grpo(*REWARDS)
    assert "  humility 0." in next(line for line in said.splitlines() if line.startswith("step 2/2"))
    records = [json.loads(line) for line in (tmp_path / "run/training_log.jsonl").read_text().splitlines()]
    for record in records:
        earned = 0.0 if record["confidence"] is None else min(1.0, (1 - record["confidence"]) / 0.4)
        assert record["humility"] == pytest.approx(earned, abs=1e-6)
        weighted = 0.6 * record["accuracy"] + 0.2 * record["data_usage"] + 0.2 * record["humility"]
        assert record["total"] == pytest.approx(weighted, abs=1e-6)
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert any("rewards/humility/mean" in line for line in metrics)
    table = stonk(
        "eval",
        "--config",
        "stocks/demo/eval",
        "--models",
        "run/best_model",
        *REWARDS,
        "--dtype",
        "float32",
        "--max_eval_samples",
        "8",
        "--max_completion_length",
        "6",
        "--out",
        "run/eval",
    )
    assert "humility" in table
    summary = json.loads((tmp_path / "run/eval/summary.json").read_text())
    assert 0 < summary["reward_components"]["humility"] <= 1
    stonk("report", "run")
    page = (tmp_path / "run/report/report.html").read_text()
    assert "humility" in page and "my_rewards:humility" in page  # in figures' texts, and in the recipe


@pytest.mark.slow
def test_an_evaluation_tries_it_before_a_model_is_asked_and_an_audit_uses_it_again(grpo, stonk, refused, tmp_path):
    small = ["--dtype", "float32", "--max_eval_samples", "4", "--max_completion_length", "6", "--out", "out"]
    grpo()
    (tmp_path / "faulty.py").write_text("def f(completions, **columns): return ['high'] * len(completions)\n")
    own = ["--reward", "accuracy", "faulty:f", "--reward_weights", "1", "1"]
    said = refused("eval", "--config", "stocks/demo/eval", "--models", "run/best_model", *small, *own)
    assert "reward: faulty:f returned 'high'" in said
    text = stonk(
        "eval", "--config", "stocks/demo/eval", "--models", "run/best_model", *small, *REWARDS, "--audit", "true"
    )
    assert "with names and dates minus without" in text


@pytest.mark.slow
def test_check_shows_what_it_gives_for_the_example_answers(stonk, tiny_model_folder):
    said = stonk("check", "stocks/demo/stage1", "--model", tiny_model_folder, "--max_train_samples", "24", *REWARDS)
    header, good, bad, empty = said[said.index("  what is earned") :].splitlines()[:4]
    assert header.split()[-2:] == ["humility", "total"]
    assert (
        float(good.split()[3]) > 0.7 and float(bad.split()[3]) == pytest.approx(0.25) and float(empty.split()[3]) == 0
    )


WRONG = {
    "no_such_file:humility": "no module no_such_file in ",
    "my_rewards:pride": "my_rewards.py has no pride; it has humility",
    "broken:f": "broken cannot be imported: SyntaxError",
    "faulty:narrow": "faulty:narrow: got an unexpected keyword argument",
    "faulty:short": "returned 1 values for 3 completions",
    "faulty:words": "returned 'a lot', which is not a finite number",
    "faulty:raises": "faulty:raises failed: KeyError: 'volume' (faulty.py, line 4)",
}
FAULTY = """
def narrow(completions): return [0.0] * len(completions)
def short(completions, **columns): return [0.0]
def raises(completions, **columns): return columns["volume"]
def words(completions, **columns): return ["a lot"] * len(completions)
""".lstrip("\n")


@pytest.mark.slow
@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_path_or_function_is_one_line_before_a_model_is_loaded(path, refused, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded"))
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "faulty.py").write_text("\n" + FAULTY.replace("\n\n", "\n"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    said = refused(
        "grpo",
        "--config",
        "stocks/demo/stage1",
        "--model",
        model,
        "--out",
        "run",
        *FLAGS,
        "--reward",
        "accuracy",
        path,
        "--reward_weights",
        "0.5",
        "0.5",
    )
    assert f"reward: {path}" in said and WRONG[path] in said
    assert not (tmp_path / "run").exists()


@pytest.fixture
def model_with_a_recipe_that_imports(tmp_path, tiny_model_folder):
    """A model's folder as it may be downloaded: its recipe names a module, which lies beside it and in the folder."""
    model = tmp_path / "downloaded"
    shutil.copytree(tiny_model_folder, model)
    recipe = {"task": "stocks", "dataset_name": "embedded:sp500", "history_days": 0, "indicators": ["change_1d"]}
    recipe |= {"reward": ["accuracy", "intruder:f"], "reward_weights": [0.5, 0.5], "model_name_or_path": str(model)}
    recipe |= {"trust_remote_code": True}  # it vouches for itself, which counts for nothing
    recipe |= {"output_dir": "out", "max_eval_samples": 4, "max_train_samples": 8}
    (model / "recipe.yaml").write_text("# stonk grpo\n" + yaml.safe_dump(recipe))
    (model / "run.json").write_text("{}")
    for folder in (model, tmp_path):
        (folder / "intruder.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(completions, **columns): return [0.0] * len(completions)\n"
        )
    return model


@pytest.mark.slow
def test_the_recipe_beside_a_model_runs_no_code(model_with_a_recipe_that_imports, stonk, refused, tmp_path):
    model = model_with_a_recipe_that_imports
    small = ["--dtype", "float32", "--max_completion_length", "6"]
    stonk("predict", "--model", model, "--csv", "embedded:sp500", "--tickers", "AAPL", "--samples", "1", *small)
    stonk("eval", "--config", "stocks/demo/eval", "--models", model, "--max_eval_samples", "4", *small)
    stonk("check", "stocks/demo/stage1", "--model", model, "--max_train_samples", "24")
    stonk("report", model)
    itself = (model / "recipe.yaml").read_text()
    for command in (["check", "--trainer", "grpo"], ["grpo"], ["eval", "--models", model]):
        if command[0] == "eval":  # which knows no such key
            (model / "recipe.yaml").write_text(itself.replace("trust_remote_code: true\n", ""))
        said = refused(*command, "--config", model / "recipe.yaml", "--out", "out")
        assert "intruder:f is not imported" in said and "lies beside a model" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_trust_remote_code_lets_it(model_with_a_recipe_that_imports, stonk, tmp_path):
    stonk(
        "check",
        "--config",
        model_with_a_recipe_that_imports / "recipe.yaml",
        "--trainer",
        "grpo",
        "--trust_remote_code",
        "true",
    )
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe, flags", [("btc/demo/rl", ["--horizon", "8", "--context_len", "32"]), ("r1/demo/grpo", [])]
)
def test_the_other_tasks_take_them_too(recipe, flags, stonk, tmp_path, small_gpt_folder, adding_model_folder):
    (tmp_path / "length_rewards.py").write_text(
        "def brevity(completion_ids, **columns):\n    return [1 / (1 + len(ids)) for ids in completion_ids]\n"
    )
    model = small_gpt_folder if recipe.startswith("btc") else adding_model_folder
    small = ["--dtype", "float32", "--max_steps", "1", "--logging_steps", "1", "--max_train_samples", "8"]
    small += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    said = stonk(
        "grpo",
        "--config",
        recipe,
        "--model",
        model,
        "--out",
        "run",
        *small,
        *flags,
        "--reward",
        "length_rewards:brevity",
        "--reward_weights",
        "1",
    )
    assert "  brevity 0." in next(line for line in said.splitlines() if line.startswith("step 1/1"))
