"""The two trainers through their real entry points: the demo recipes with a tiny random model, two steps each."""

import json
import re
import shutil

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from stonk_trainer import grpo, sft
from stonk_trainer.task import market_statistics

pytestmark = pytest.mark.slow

SMALL = ["--dtype", "float32", "--max_steps", "2", "--logging_steps", "1", "--max_train_samples", "24"]
SMALL += ["--max_eval_samples", "4", "--indicators", "change_1d", "sma_20", "--warmup_steps", "0"]
BATCH = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2", "--num_generations", "8"]
ROLLOUT = [*SMALL, *BATCH, "--max_completion_length", "6", "--save_steps", "1"]
STAGE1 = ["--config", "stocks/demo/stage1", *ROLLOUT, "--learning_rate", "1e-3"]
STAGE2 = ["--config", "stocks/demo/stage2", *ROLLOUT]
WARMUP = ["--config", "stocks/demo/warmup", *SMALL, "--max_length", "1024"]
STEPS, GROUP, ANSWERS = 2, 8, 16  # two prompts per step


def run_stage1(model, out, *flags):
    grpo.main([*STAGE1, "--model", str(model), "--out", str(out), *flags])
    return out


def run_stage2(model, out, *flags):
    grpo.main([*STAGE2, "--stage1_model", str(model), "--out", str(out), *flags])
    return out


def run_warmup(model, out, *flags):
    sft.main([*WARMUP, "--model", str(model), "--out", str(out), *flags])
    return out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(out, step, key):
    """What the trainer logged as `key` at `step`, from the state of the last checkpoint."""
    history = json.loads((out / f"checkpoint-{STEPS}/trainer_state.json").read_text())["log_history"]
    (value,) = [entry[key] for entry in history if entry["step"] == step and key in entry]
    return value


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(model):
    with torch.inference_mode():
        return model.eval()(torch.arange(5, 45).unsqueeze(0)).logits


def weights_moved(before, after):
    return max(
        (a - b).abs().max() for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def warmup(tiny_model_folder, tmp_path_factory):
    return run_warmup(tiny_model_folder, tmp_path_factory.mktemp("runs") / "warmup")


@pytest.fixture(scope="module")
def stage1(tiny_model_folder, tmp_path_factory):
    return run_stage1(tiny_model_folder, tmp_path_factory.mktemp("runs") / "stage1")


@pytest.fixture(scope="module")
def stage2(tiny_adapter_folder, tmp_path_factory):
    """Stage II from a Stage I adapter whose weights differ from its base, at a rate that moves the model."""
    out = tmp_path_factory.mktemp("runs") / "stage2"
    return run_stage2(tiny_adapter_folder, out, "--learning_rate", "1e-2")


# -------------------------------------------------------------------------------------------------------- warm-up


def test_the_warmup_leaves_a_full_model_recipe_environment_and_log(warmup, tiny_model_folder, tiny_tokenizer):
    assert {"best_model", "best_adapter", "recipe.yaml", "run.json", "training.log"} <= {
        path.name for path in warmup.iterdir()
    }
    assert weights_moved(load(tiny_model_folder), load(warmup / "best_model")) > 0
    assert AutoTokenizer.from_pretrained(warmup / "best_model").chat_template == tiny_tokenizer.chat_template
    recipe = yaml.safe_load((warmup / "recipe.yaml").read_text())
    assert (recipe["task"], recipe["max_steps"], recipe["max_length"]) == ("stocks", 2, 1024)
    environment = json.loads((warmup / "run.json").read_text())["environment"]
    assert environment["seed"] == 42 and environment["packages"]["trl"] and "commit" in environment
    assert [line["step"] for line in lines(warmup / "metrics.jsonl") if "loss" in line][-1] == 2
    log = (warmup / "training.log").read_text()
    assert "24 drawn" in log and "step 2/2  loss" in log and "saved" in log


def test_the_warmup_learns(tiny_model_folder, tmp_path):
    """The loss on the answers falls."""
    out = run_warmup(tiny_model_folder, tmp_path / "run", "--steps", "12", "--lr", "1e-2", "--use_peft", "false")
    losses = [
        float(line.split("loss ")[1].split()[0])
        for line in (out / "training.log").read_text().splitlines()
        if "  loss " in line
    ]
    assert len(losses) == 12 and losses[-1] < 0.7 * losses[0]


def test_rows_longer_than_max_length_are_left_out_and_counted(tiny_model_folder, tmp_path):
    """Cut, they would teach an answer without its end."""
    out = run_warmup(tiny_model_folder, tmp_path / "run", "--max_length", "550")
    log = (out / "training.log").read_text()
    counts = re.search(r"left out: (\d+) of (\d+) training rows longer than max_length 550", log)
    assert counts and 0 < int(counts[1]) < int(counts[2])
    longest = re.search(r"training rows of at most (\d+) tokens", log)
    assert int(longest[1]) <= 550


# ---------------------------------------------------------------------------------------------------------- Stage I


def test_stage_one_logs_every_completion_with_all_its_columns(stage1):
    records = lines(stage1 / "training_log.jsonl")
    assert [record["step"] for record in records] == [1] * ANSWERS + [2] * ANSWERS
    columns = ["step", "ticker", "date", "label", "next_return", "direction", "confidence", "move"]
    columns += ["grounded", "evidence", "invented", "accuracy", "data_usage", "coherence", "total", "completion"]
    for record in records:
        assert set(columns) <= set(record)
        assert record["label"] == ("UP" if record["next_return"] > 0 else "DOWN")
        assert record["accuracy"] == float(record["direction"] == record["label"])
        weighted = 0.4 * record["accuracy"] + 0.3 * record["data_usage"] + 0.3 * record["coherence"]
        assert record["total"] == pytest.approx(weighted, abs=1e-6)
        if record["direction"]:
            assert f"Prediction: {record['direction']}" in record["completion"]
    groups = [records[i : i + GROUP] for i in range(0, len(records), GROUP)]
    assert all(len({(r["ticker"], r["date"]) for r in group}) == 1 for group in groups)
    assert {record["direction"] for record in records} >= {"UP", "DOWN"}  # the tiny model says both


def test_market_stats_add_up_to_the_log(stage1):
    stats = json.loads((stage1 / "market_stats.json").read_text())
    records = lines(stage1 / "training_log.jsonl")
    assert stats["step"] == STEPS
    assert stats["overall"] == json.loads(json.dumps(market_statistics(records)))
    assert stats["overall"]["examples"]["total"] == STEPS * ANSWERS
    assert sum(stats["overall"]["predictions"].values()) == STEPS * ANSWERS
    assert stats["window"]["examples"]["total"] == STEPS * ANSWERS  # shorter than the window


def test_the_trainer_reports_the_rewards_of_the_log(stage1):
    for step in (1, 2):
        totals = [record["total"] for record in lines(stage1 / "training_log.jsonl") if record["step"] == step]
        assert logged(stage1, step, "reward") == pytest.approx(sum(totals) / len(totals), abs=1e-5)


def test_every_log_of_the_trainer_is_a_line_of_the_metrics(stage1):
    logged_lines = lines(stage1 / "metrics.jsonl")
    training = [line for line in logged_lines if "reward" in line]
    assert [line["step"] for line in training] == [1, 2]
    assert {"loss", "grad_norm", "frac_reward_zero_std", "completions/mean_length"} <= set(training[0])
    assert training[1]["reward"] == pytest.approx(logged(stage1, 2, "reward"))
    assert [line["step"] for line in logged_lines if "eval_reward" in line] == [1, 2]


def test_stage_one_trains_and_leaves_all_files(stage1, tiny_model_folder):
    assert {"best_model", "best_adapter", "recipe.yaml", "run.json", "training.log"} <= {
        path.name for path in stage1.iterdir()
    }
    assert logged(stage1, 1, "grad_norm") > 0 and logged(stage1, 2, "grad_norm") > 0
    assert not (stage1 / "milestone.json").exists()
    assert "milestone not reached" in (stage1 / "training.log").read_text()


def test_validation_answers_are_judged_but_not_logged_as_training(stage1):
    assert "eval_reward" in (stage1 / f"checkpoint-{STEPS}/trainer_state.json").read_text()
    assert "validation at 2/2" in (stage1 / "training.log").read_text()
    assert len(lines(stage1 / "training_log.jsonl")) == STEPS * ANSWERS


def test_a_resumed_run_ends_with_the_weights_and_the_log_of_an_uninterrupted_one(stage1, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stage1, run)
    shutil.rmtree(run / "checkpoint-2")
    shutil.rmtree(run / "best_model")
    model = yaml.safe_load((stage1 / "recipe.yaml").read_text())["model_name_or_path"]
    run_stage1(model, run, "--resume_from_checkpoint", str(run / "checkpoint-1"))
    assert weights_moved(load(stage1 / "best_model"), load(run / "best_model")) == 0
    assert lines(run / "training_log.jsonl") == lines(stage1 / "training_log.jsonl")
    assert json.loads((run / "market_stats.json").read_text()) == json.loads((stage1 / "market_stats.json").read_text())


def test_reinforcement_moves_the_model_to_the_answer_that_is_rewarded(
    tiny_model_folder, tmp_path, write_csv, trading_days
):
    """A share that always rises: UP is always right, and the model comes to say it."""
    days = [day.isoformat() for day in trading_days(200)]
    source = write_csv([("A", day, 100 + i) for i, day in enumerate(days)])
    flags = ["--csv", source, "--natural_distribution", "--steps", "26", "--lr", "4e-3", "--use_peft", "false"]
    flags += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    out = run_stage1(tiny_model_folder, tmp_path / "run", *flags, "--max_train_samples", "96")
    records = lines(out / "stage2_training_log.jsonl")
    said_up = [record["direction"] == "UP" for record in records]
    assert sum(said_up[:16]) < 14
    assert sum(said_up[-24:]) >= 22


# --------------------------------------------------------------------------------------------------------- Stage II


def test_stage_two_starts_at_the_model_its_kl_refers_to_and_then_leaves_it(stage2):
    assert abs(logged(stage2, 1, "kl")) < 1e-6
    assert logged(stage2, 2, "kl") > 1e-6


def test_stage_two_starts_from_the_adapter_merged_and_not_from_its_base(
    tiny_adapter_folder, tiny_model_folder, tmp_path
):
    from peft import PeftModel

    out = run_stage2(tiny_adapter_folder, tmp_path / "run", "--learning_rate", "1e-9")
    base = logits(load(tiny_model_folder))
    adapter = logits(PeftModel.from_pretrained(load(tiny_model_folder), tiny_adapter_folder))
    trained = logits(load(out / "best_model"))
    assert (trained - adapter).abs().mean() < 0.05 * (base - adapter).abs().mean()
    assert [abs(logged(out, step, "kl")) < 1e-6 for step in (1, 2)] == [True, True]


def test_stage_two_writes_its_own_log_with_the_rewards_of_its_recipe(stage2):
    assert not (stage2 / "training_log.jsonl").exists()
    records = lines(stage2 / "stage2_training_log.jsonl")
    assert len(records) == STEPS * ANSWERS
    for record in records:
        if record["direction"] is None:
            assert record["total"] == 0
            continue
        p_up = record["confidence"] if record["direction"] == "UP" else 1 - record["confidence"]
        assert record["accuracy"] == pytest.approx(1 - (p_up - (record["label"] == "UP")) ** 2, abs=1e-6)
        assert (record["magnitude"] == 0) or record["direction"] == record["label"]
    assert any(record["direction"] for record in records)
    overall = json.loads((stage2 / "market_stats.json").read_text())["overall"]
    assert overall == json.loads(json.dumps(market_statistics(records)))


def test_stage_two_from_a_full_model_starts_at_no_kl(stage1, tmp_path):
    out = run_stage2(stage1 / "best_model", tmp_path / "run", "--kl_coef", "0.03")
    assert abs(logged(out, 1, "kl")) < 1e-6
    assert yaml.safe_load((out / "recipe.yaml").read_text())["beta"] == 0.03
    assert not (out / "merged_model").exists()


def test_full_fine_tuning_refers_its_kl_to_the_model_it_starts_from(tiny_model_folder, tmp_path):
    out = run_stage2(tiny_model_folder, tmp_path / "run", "--use_peft", "false", "--learning_rate", "1e-2")
    assert abs(logged(out, 1, "kl")) < 1e-6 and logged(out, 2, "kl") > 1e-6
    assert not (out / "best_adapter").exists()
    assert weights_moved(load(tiny_model_folder), load(out / "best_model")) > 0


def test_beta_is_steered_towards_the_kl_target_and_what_it_was_is_kept(tiny_model_folder, tmp_path):
    out = run_stage2(tiny_model_folder, tmp_path / "run", "--kl_target", "0.5")
    history = json.loads((out / f"checkpoint-{STEPS}/trainer_state.json").read_text())["log_history"]
    betas = [entry["beta"] for entry in history if "beta" in entry]
    assert betas == pytest.approx([0.05 * 0.98, 0.05 * 0.98**2])  # far below the target: beta falls
    assert [line["beta"] for line in lines(out / "metrics.jsonl") if "beta" in line] == pytest.approx(betas)


# ------------------------------------------------------------------------------------------------------------ 4 bit

FOUR_BIT = ["--quantize", "true", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant", "true", "--max_steps", "1"]


def test_a_step_of_warmup_trains_four_bit_weights_through_lora(tiny_model_folder, tmp_path):
    out = run_warmup(tiny_model_folder, tmp_path / "run", *FOUR_BIT, "--lr", "1e-2")
    assert weights_moved(load(tiny_model_folder), load(out / "best_model")) > 0
    assert "4-bit weights on a CPU" in (out / "training.log").read_text() or torch.accelerator.is_available()


def test_a_step_of_stage_two_trains_four_bit_weights_through_lora(tiny_adapter_folder, tmp_path):
    out = run_stage2(
        tiny_adapter_folder, tmp_path / "run", *FOUR_BIT, "--eval_strategy", "no", "--load_best_model_at_end", "false"
    )
    history = json.loads((out / "checkpoint-1/trainer_state.json").read_text())["log_history"]
    assert abs(history[0]["kl"]) < 1e-6
    assert len(lines(out / "stage2_training_log.jsonl")) == ANSWERS
    assert not load(out / "best_model").config.to_dict().get("quantization_config")


# ------------------------------------------------------------------------------------------ what cannot be trained

EMPTY = ["--train_end", "1990-01-01", "--validation_end", "1991-01-01"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (EMPTY, "train split is empty"),
        (["--num_generations", "3"], "num_generations"),
        (["--max_train_samples", "1"], "do not fill one batch"),
        (["--csv", "nowhere.csv"], "nowhere.csv"),
    ],
    ids=["empty split", "group size", "too few rows", "no data"],
)
@pytest.mark.parametrize("start", ["tiny_model_folder", "tiny_adapter_folder"])
def test_a_run_that_cannot_train_ends_with_one_line_and_leaves_no_folder(
    start, flags, words, request, tmp_path, capsys
):
    with pytest.raises(SystemExit) as end:
        run_stage2(request.getfixturevalue(start), tmp_path / "run", *flags)
    assert end.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("error: ")] == error[-1:] and words in error[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags, words", [(EMPTY, "empty"), (["--max_length", "20"], "max_length")])
def test_a_warmup_that_cannot_train_leaves_no_folder(flags, words, tiny_model_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_warmup(tiny_model_folder, tmp_path / "run", *flags)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_checks_everything_and_writes_nothing(tiny_adapter_folder, tiny_model_folder, tmp_path):
    run_stage2(tiny_adapter_folder, tmp_path / "run", "--dry_run")
    run_warmup(tiny_model_folder, tmp_path / "run", "--dry_run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit):
        run_stage2(tiny_adapter_folder, tmp_path / "run", "--dry_run", *EMPTY)
