"""The card of a model: where it comes from, how good it is, how to use it."""

import json
import re
import shutil

import pytest
import yaml

from stonk_trainer.errors import UserError
from stonk_trainer.publish import card

pytestmark = pytest.mark.slow


def write_record(folder, **values):
    known = {"command": "stonk sft", "trainer": "sft", "task": "stocks", "stage": "training", "model": "new"}
    known |= {"started": "2026-11-25 10:00:00", "ended": None, "data": {}, "environment": {"packages": {}}}
    known |= {"rewards": [], "milestone": None}
    (folder / "run.json").write_text(json.dumps(known | values))


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_where_the_model_comes_from_and_under_which_licence(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    found = metadata(text)
    (measured,) = found.pop("model-index")
    assert measured["name"] == "stage2"
    (result,) = measured["results"]
    assert result["dataset"] == {"name": "embedded:sp500 test", "type": "embedded-sp500-test"}
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy", "roc_auc", "brier_score", "reward"]
    assert found == {
        "base_model": "Qwen/Qwen2.5-1.5B-Instruct",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["stonk-trainer", "grpo", "stocks"],
    }
    for words in ("close to chance", "investment advice", "1. stage1: reinforcement", "2. stage2: reinforcement"):
        assert words in text
    versions = json.loads((runs / "stage2/run.json").read_text())["environment"]["packages"]
    assert f"trl {versions['trl']}" in text and f"transformers {versions['transformers']}" in text
    assert "Training ends 2016-12-31" in text
    assert "| train | 9,000 | 8,100 | 256 | 2003-02-03 | 2016-12-30 | 52.1% | 3 without news |" in text


def test_the_card_tells_the_results_beside_baselines_with_intervals(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    summary = json.loads((runs / "eval/summary.json").read_text())
    own = summary["models"][str(runs / "stage2/best_model")]
    low, high = own["accuracy_ci95"]
    assert f"| stage2 | {own['accuracy']:.0%} [{100 * low:.0f} to {100 * high:.0f}] |" in text
    for name in ("majority", "prior", "persistence", "logistic", "lightgbm"):
        assert f"| {name} (baseline) | {summary['baselines'][name]['accuracy']:.0%}" in text
    assert "| stage2 − majority | accuracy |" in text and "| stage2 − stage1 | accuracy |" in text
    assert "2 models were judged" in text
    given = str(card.make_card(runs / "stage2/best_model", "me/stage2", runs / "eval"))
    assert given == text


def test_no_path_of_this_machine_and_no_secret_stands_in_the_card(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    assert str(runs) not in text and str(runs.parent) not in text and "hf_secret" not in text
    assert "model_name_or_path: best_model" in text
    recipe = {"source_paths": ["gsm8k=/home/me/gsm8k.parquet"], "data": "~/x/tokens.txt", "codec": "../../y/codec"}
    assert card.without_private(recipe) == {
        "source_paths": ["gsm8k=gsm8k.parquet"], "data": "tokens.txt", "codec": "codec",
    }  # fmt: skip


def test_the_code_of_the_card_runs_and_the_model_answers(runs, capsys):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'model="me/stage2"' in code
    exec(code.replace("me/stage2", str(runs / "stage2/best_model")), {})
    assert "Prediction: " in capsys.readouterr().out


def test_a_model_without_results_or_recipe_says_so(tiny_model_folder, tmp_path, runs):
    alone = shutil.copytree(tiny_model_folder, tmp_path / "a/b/model")
    text = str(card.make_card(alone, "me/alone"))
    assert "nothing is known of how good it is" in text and "not recorded" in text
    assert "No licence is stated here" in text and "license" not in metadata(text)
    with pytest.raises(UserError, match="does not judge"):
        card.make_card(alone, "me/alone", runs / "eval")
    with pytest.raises(UserError, match="is not a folder"):
        card.make_card(alone, "me/alone", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "files, licence",
    [
        ({"README.md": "---\nlicense: llama3.2\n---\nx"}, "llama3.2"),
        ({"LICENSE": "Apache License\nVersion 2.0, January 2004"}, "apache-2.0"),
        ({"README.md": "no metadata", "LICENSE": "All rights reserved."}, None),
        ({"README.md": "---\nlicense: [\n---\n"}, None),
    ],
)
def test_the_licence_of_a_local_base_is_read_from_its_folder(tiny_model_folder, tmp_path, files, licence):
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    for name, text in files.items():
        (base / name).write_text(text)
    model = shutil.copytree(tiny_model_folder, tmp_path / "run/best_model")
    write_record(tmp_path / "run", model=str(base))
    assert card.licence_of(card.origin_of(model)) == licence


def test_the_results_of_the_other_tasks_are_told_with_their_errors(tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "runs/rl/best_model")
    write_record(model.parent, task="reasoning")
    told = {"gsm8k": {"questions": 100, "exact_match": 0.5, "exact_match_stderr": 0.05}}
    (tmp_path / "runs/eval").mkdir()
    (tmp_path / "runs/eval/results.json").write_text(json.dumps({"runs/rl/best_model": told}))
    assert "| rl | gsm8k | exact_match | 50.0 ± 5.0 | 100 |" in str(card.make_card(model, "me/rl"))

    score = {"value": 1.9, "ci95": [1.8, 2.0]}
    scores = {"garch-t": {"crps": score, "difference": None, "coverage": {"90": {"value": 0.88, "ci95": None}}}}
    scores |= {"rl": scores["garch-t"] | {"difference": {"value": 0.05, "ci95": [-0.01, 0.1]}}}
    judged = {"reference": "garch-t", "horizons": [{"days": 1, "origins": 381, "scores": scores}]}
    content = {"series": "BTC", "models": {"rl": "runs/rl/best_model"}, "judgement": judged}
    (tmp_path / "runs/eval/results.json").unlink()
    (tmp_path / "runs/eval/evaluation.json").write_text(json.dumps(content))
    write_record(model.parent, task="btc")
    text = str(card.make_card(model, "me/rl"))
    assert "| rl | 1.900 [1.800 to 2.000] | 0.050 [-0.010 to 0.100] | 0.88 |" in text
    assert "stonk forecast --model rl" in text and metadata(text)["pipeline_tag"] == "time-series-forecasting"
