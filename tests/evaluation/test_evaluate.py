import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stonk_trainer.evaluation import evaluate
from stonk_trainer.evaluation.metrics import summarise
from stonk_trainer.evaluation.stats import DayBootstrap

pytestmark = pytest.mark.slow

REQUIRED = [
    "n",
    "accuracy",
    "accuracy_ci95",
    "up_accuracy",
    "down_accuracy",
    "base_rate_up",
    "majority_accuracy",
    "roc_auc",
]
REQUIRED += ["brier", "parse_rate", "reward_mean", "reward_components"]
SMALL = ["--dtype", "float32", "--max_eval_samples", "24", "--batch_size", "10", "--max_completion_length", "6"]


def run(models, out, *flags):
    named = ["--models", *map(str, models)] if models else []
    evaluate.main(["--config", "stocks/demo/eval", *named, "--out", str(out), *SMALL, *flags])
    return json.loads((out / "summary.json").read_text())


def predictions(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def judged(tiny_model_folder, tiny_adapter_folder, tmp_path_factory):
    """Two models on the same rows: the adapter (merged on the way) and its base, whose summary is the top level."""
    out = tmp_path_factory.mktemp("eval") / "out"
    return run([tiny_adapter_folder, tiny_model_folder], out), out


def test_the_summary_has_every_key_and_agrees_with_the_predictions(judged, tiny_model_folder):
    summary, out = judged
    assert [key for key in REQUIRED if key not in summary] == []
    assert summary["model"] == str(tiny_model_folder) and summary["split"] == "test"
    records = [record for record in predictions(out) if record["model"] == str(tiny_model_folder)]
    assert len(records) == summary["n"] == 24
    weights = {"accuracy": 0.35, "magnitude": 0.15, "data_usage": 0.3, "coherence": 0.2}
    bootstrap = DayBootstrap([record["date"] for record in records], seed=42)
    recomputed = json.loads(json.dumps(summarise(records, weights, bootstrap)))
    assert {key: summary[key] for key in recomputed} == recomputed
    low, high = summary["accuracy_ci95"]
    assert low <= summary["accuracy"] <= high


def test_the_answers_of_the_model_are_read(judged):
    summary, out = judged
    assert summary["parse_rate"] > 0.8  # the tiny model gives readable answers
    assert {record["direction"] for record in predictions(out)} >= {"UP", "DOWN"}
    for record in predictions(out):
        if record["direction"]:
            assert f"Prediction: {record['direction']}" in record["completion"]
            assert "<|im_end|>" not in record["completion"]


def test_all_models_answer_the_same_rows(judged, tiny_adapter_folder, tiny_model_folder):
    summary, out = judged
    assert list(summary["models"]) == [str(tiny_adapter_folder), str(tiny_model_folder)]
    rows = {
        name: [(r["ticker"], r["date"], r["label"]) for r in predictions(out) if r["model"] == name]
        for name in summary["models"]
    }
    first, second = rows.values()
    assert first == second and len(set(first)) == 24


def test_the_table_shows_the_model_beside_what_needs_no_skill(tiny_model_folder, tmp_path, capsys):
    run([tiny_model_folder], tmp_path / "out", "--temperature", "0")
    text = capsys.readouterr().out
    for words in ("readable", "95% interval", "Brier", "0.250", "majority", "persistence", "lightgbm", "buy & hold"):
        assert words in text


def test_greedy_answers_do_not_depend_on_the_batch_or_on_the_seed(tiny_model_folder, tmp_path):
    answers = []
    for name, flags in {"a": ["--batch_size", "24"], "b": ["--batch_size", "5", "--seed", "7"]}.items():
        run([tiny_model_folder], tmp_path / name, "--temperature", "0", *flags)
        answers.append([(r["ticker"], r["date"], r["completion"]) for r in predictions(tmp_path / name)])
    assert answers[0] == answers[1]


def test_the_recipe_of_an_evaluation_is_kept(judged):
    assert "max_eval_samples: 24" in (judged[1] / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--reward_weights", "1", "1"], "reward_weights"),
        (["--csv", "nowhere.csv"], "nowhere.csv"),
        (["--train_end", "2098-01-01", "--validation_end", "2099-01-01"], "test split is empty"),
    ],
)
def test_wrong_input_ends_with_one_line_and_leaves_no_folder(tiny_model_folder, tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as end:
        run([tiny_model_folder], tmp_path / "out", *flags)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(["./nowhere"], tmp_path / "out")
    assert end.value.code == 2
    assert "./nowhere not found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_adapters_and_their_base_are_three_models(tiny_adapter_folder, tiny_model_folder, tmp_path):
    """Each adapter is merged into a folder of its own: the second must not replace the first."""
    for seed in (5, 6):
        shutil.copytree(tiny_adapter_folder, tmp_path / f"adapter{seed}")
        file = tmp_path / f"adapter{seed}/adapter_model.safetensors"
        generator = torch.Generator().manual_seed(seed)
        weights = {
            name: torch.randn(w.shape, generator=generator) if "lora_B" in name else w
            for name, w in load_file(file).items()
        }
        save_file(weights, file)
    models = [str(tmp_path / "adapter5"), str(tmp_path / "adapter6"), str(tiny_model_folder)]
    run(models, tmp_path / "out")
    answers = {name: [r["completion"] for r in predictions(tmp_path / "out") if r["model"] == name] for name in models}
    first, second, base = answers.values()
    assert first != base and second != base
    assert first != second


def test_every_forecaster_is_judged_on_the_same_rows_with_its_interval(judged, tiny_adapter_folder, tiny_model_folder):
    summary, _ = judged
    forecasters = summary["models"] | summary["baselines"]
    assert list(summary["baselines"]) == ["majority", "prior", "persistence", "logistic", "lightgbm"]
    assert {s["n"] for s in forecasters.values()} == {24}
    for s in forecasters.values():
        assert s["accuracy_ci95"][0] <= s["accuracy"] <= s["accuracy_ci95"][1]
        assert s["backtest"]["dates"] == summary["buy_and_hold"]["dates"] == summary["always_up"]["dates"]
    assert summary["baselines"]["majority"]["accuracy"] == summary["majority_accuracy"]


def test_models_are_compared_in_pairs_and_with_the_majority(judged, tiny_adapter_folder, tiny_model_folder):
    summary, _ = judged
    adapter, base = str(tiny_adapter_folder), str(tiny_model_folder)
    pairs = [(pair["model"], pair["against"]) for pair in summary["differences"]]
    assert pairs == [(base, adapter), (adapter, "majority"), (base, "majority")]
    for pair in summary["differences"]:
        values = [
            ({**summary["models"], **summary["baselines"]})[pair[key]]["accuracy"] for key in ("model", "against")
        ]
        assert pair["accuracy"]["difference"] == pytest.approx(values[0] - values[1])
    assert "reward: coherence" in summary["differences"][0] and "reward: coherence" not in summary["differences"][1]


def test_saved_answers_are_judged_as_they_were_when_fresh(judged, tmp_path):
    fresh, out = judged
    again = run([], tmp_path / "again", "--predictions", str(out / "predictions.jsonl"))
    assert again["models"] == fresh["models"] and again["differences"] == fresh["differences"]


def test_baselines_alone_are_judged_on_every_row(tmp_path, capsys):
    flags = ["--config", "stocks/baselines", "--tickers", "KO", "--out", str(tmp_path), "--trials", "20"]
    evaluate.main(flags)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["models"] == {} and summary["model"] is None
    assert summary["baselines"]["logistic"]["n"] > 900
    assert "best of 20 strategies" in " ".join(capsys.readouterr().out.split())


def test_the_backtest_ends_with_the_last_outcome(judged):
    summary, out = judged
    last = max(record["date"] for record in predictions(out))
    assert summary["buy_and_hold"]["dates"][-2] == last  # its outcome is known the trading day after


@pytest.mark.parametrize("flags", [["--lag", "0"], ["--cost_bps", "-1"], ["--cost_bps", "nan"], ["--trials", "0"]])
def test_a_backtest_that_cannot_be_is_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--config", "stocks/baselines", "--out", str(tmp_path / "out"), *flags])
    assert end.value.code == 2 and flags[0].strip("-") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_on_training_rows_there_are_no_baselines(tiny_model_folder, tmp_path, capsys):
    flags = ["--split", "train", "--max_train_samples", "8"]
    assert run([tiny_model_folder], tmp_path / "model", *flags)["baselines"] == {}
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--config", "stocks/baselines", "--split", "train", "--out", str(tmp_path / "alone")])
    assert end.value.code == 2 and "nothing to judge" in capsys.readouterr().err


def test_an_audit_goes_with_the_judgement_and_each_model_answers_again_without_names(
    tiny_model_folder, tmp_path, capsys
):
    flags = ["--audit", "true", "--tickers", "KO", "XOM", "--temperature", "0"]
    summary = run([tiny_model_folder], tmp_path / "out", *flags)
    assert {finding["check"] for finding in summary["audit"]} >= {"label join", "next close", "future data"}
    assert not [finding for finding in summary["audit"] if finding["passed"] is False]
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.index("audit passed") < printed.index("24/24,")  # before the model answers
    assert "with names and dates minus without: accuracy" in printed
    hidden = run(
        [tiny_model_folder], tmp_path / "hidden", "--tickers", "KO", "XOM", "--temperature", "0", "--anonymise"
    )
    recall = summary["recall"][str(tiny_model_folder)]
    assert recall["difference"] == pytest.approx(summary["accuracy"] - hidden["accuracy"])
    low, high = recall["ci95"]
    assert low <= recall["difference"] <= high


@pytest.mark.parametrize(
    "flags, words",
    [(["--models", "majority"], "name of a baseline"), (["--audit_prices", "p.csv", "--models", "m"], "audit_rows")],
)
def test_options_that_cannot_mean_anything_are_refused(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("majority", "m"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--config", "stocks/demo/eval", *flags, "--out", "out"])
    assert end.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
