"""From tokens to a model that was rewarded, through the commands as users type them, at sizes that take seconds."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow

CODES, GROUP = 16, 8
SMALL = ["--gpt_hidden_size", "16", "--gpt_layers", "1", "--gpt_heads", "2", "--gpt_positions", "96"]
WINDOW = ["--context-len", "32"]
RL = ["--steps", "2", "--batch-episodes", "2", "--context-len", "16", "--horizon", "4", "--logging_steps", "1"]
REWARDS = ["--reward", "token_acc", "crps", "--reward_weights", "1", "0.5"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(folder, key):
    return [line[key] for line in lines(folder / "metrics.jsonl") if key in line]


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def furthest_move(before, after):
    return max((a - b).abs().max().item() for a, b in zip(before.values(), after.values(), strict=True))


@pytest.fixture(scope="module")
def run_in_turn(tmp_path_factory, market_csv, random_codec):
    """The folder of all stages, each run from what the one before left: encode, pretrain, SFT, RL."""
    from stonk_trainer.cli import main

    home = tmp_path_factory.mktemp("stages")
    random_codec("vq", 1, CODES).save_pretrained(home / "codec")
    main(f"codec encode --codec {home}/codec --csv {market_csv} --out {home}/tokens.txt --mirrored true".split())
    pretrain = f"--epochs 1 --batch 4 --lr 5e-4 --data {home}/tokens.txt --codec {home}/codec --out {home}/pretrain"
    main(["sft", "--config", "recipes/btc/pretrain.yaml", *pretrain.split(), *SMALL, *WINDOW])
    sft = f"--in {home}/pretrain/best_model --out {home}/sft --csv {market_csv} --epochs 1 --batch 4 --lr 1e-5"
    main(["sft", "--config", "recipes/btc/sft.yaml", *sft.split(), *WINDOW])
    rl = f"--in {home}/sft/best_model --out {home}/rl --csv {market_csv}"
    main(["grpo", "--config", "recipes/btc/rl.yaml", *rl.split(), *RL, *REWARDS])
    return home


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


# ------------------------------------------------------------------------------------------------------- the stages


@pytest.mark.parametrize("stage", ["pretrain", "sft", "rl"])
def test_every_stage_leaves_a_model_that_can_forecast_on_its_own(run_in_turn, stage, random_codec):
    best = run_in_turn / stage / "best_model"
    from stonk_trainer.tasks.btc.codec import load_codec

    codec, original = load_codec(best / "codec"), random_codec("vq", 1, CODES)
    assert (codec.config.train_end, codec.config.codebook_size) == (original.config.train_end, CODES)
    returns = torch.linspace(-3, 3, 50)[None]
    assert torch.equal(codec.encode(returns), original.encode(returns))
    tokenizer = AutoTokenizer.from_pretrained(best)
    assert tokenizer("0 15 <pad> <eos>")["input_ids"] == [0, 15, 16, 18] and len(tokenizer) == CODES + 4
    generation = json.loads((best / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [16, 17, 18, 19]
    model = AutoModelForCausalLM.from_pretrained(best)
    sampled = model.generate(torch.tensor([[3, 4, 5]]), do_sample=True, max_new_tokens=40)
    assert sampled.shape == (1, 43) and sampled.max() < CODES
    assert {"recipe.yaml", "run.json", "training.log", "metrics.jsonl"} <= {
        path.name for path in (run_in_turn / stage).iterdir()
    }


def test_pretraining_starts_at_chance_over_the_whole_vocabulary(run_in_turn):
    losses = logged(run_in_turn / "pretrain", "eval_loss")
    assert losses and abs(losses[-1] - np.log(CODES + 4)) < 0.3
    recipe = yaml.safe_load((run_in_turn / "pretrain/recipe.yaml").read_text())
    assert (recipe["task"], recipe["model_name_or_path"], recipe["num_train_epochs"]) == ("btc", "new", 1)


def test_each_stage_goes_on_from_the_one_before(run_in_turn):
    pretrained, tuned, rewarded = (weights(run_in_turn / s / "best_model") for s in ("pretrain", "sft", "rl"))
    assert 0 < furthest_move(pretrained, tuned) < 1e-3  # a few steps at a rate of 1e-5
    rate = yaml.safe_load((run_in_turn / "rl/recipe.yaml").read_text())["learning_rate"]
    assert 0 < furthest_move(tuned, rewarded) < 2.1 * rate  # two steps of Adam


def test_pretraining_learns_what_is_there(tmp_path, stonk, random_codec):
    """Tokens that go round in a circle: after a few epochs the next one is known."""
    random_codec("vq", 1, CODES).save_pretrained(tmp_path / "codec")
    circle = " ".join(str(i % CODES) for i in range(400))
    (tmp_path / "tokens.txt").write_text(f"{circle}\n")
    flags = f"--epochs 8 --batch 4 --lr 1e-2 --data {tmp_path}/tokens.txt --codec {tmp_path}/codec --out {tmp_path}/run"
    out = stonk("sft", "--config", "btc/pretrain", *flags.split(), *SMALL, *WINDOW, "--warmup_steps", "0")
    losses = logged(tmp_path / "run", "eval_loss")
    assert losses[-1] < 1.0 < np.log(CODES) and "token accuracy" in out


def test_rl_logs_every_sample_with_its_rewards_and_the_move_it_says(run_in_turn):
    records = lines(run_in_turn / "rl/training_log.jsonl")
    assert [record["step"] for record in records] == [1] * 2 * GROUP + [2] * 2 * GROUP
    for record in records:
        assert {"ticker", "date", "label", "next_return", "direction", "move", "token_acc", "crps"} <= set(record)
        assert record["total"] == pytest.approx(record["token_acc"] + 0.5 * record["crps"], abs=2e-6)
        assert len(record["completion"].split()) == 4 and record["token_acc"] * 4 == int(record["token_acc"] * 4)
        assert record["date"] < "2021-06-30" and record["ticker"] == "COIN"
    assert "frac_reward_zero_std" in (run_in_turn / "rl/metrics.jsonl").read_text()
    assert all(norm > 0 for norm in logged(run_in_turn / "rl", "grad_norm"))
    assert "kl" not in (run_in_turn / "rl/metrics.jsonl").read_text()
    assert "milestone" not in (run_in_turn / "rl/training.log").read_text()


def test_a_check_shows_what_the_future_earns_and_what_another_does(run_in_turn, market_csv, stonk):
    flags = f"--in {run_in_turn}/sft/best_model --out {run_in_turn}/other --csv {market_csv} --reward token_acc"
    text = stonk("check", "btc/rl", *flags.split(), *RL)
    earned = {m[1]: float(m[2]) for m in re.finditer(r"^  (what came|one token|backwards) +([\d.]+)", text, re.M)}
    assert earned["what came"] == 1 > earned["one token"] and "no errors found" in text


def test_rl_raises_the_reward_it_is_given(run_in_turn, market_csv, tmp_path, stonk):
    """Always the same context: the tokens that follow it are learnt by reward alone."""
    flags = f"--in {run_in_turn}/sft/best_model --out {tmp_path}/run --csv {market_csv} --max_train_samples 1"
    steps = ["--steps", "60", "--batch-episodes", "1", "--num_generations", "64", "--lr", "1e-2", "--horizon", "2"]
    stonk("grpo", "--config", "btc/rl", *flags.split(), *RL, *steps)
    earned = logged(tmp_path / "run", "reward")
    assert np.mean(earned[:3]) < 0.2 and np.mean(earned[-3:]) > 0.8


def test_grpo_refers_its_kl_to_the_model_it_starts_from(run_in_turn, market_csv, tmp_path, stonk):
    flags = f"--in {run_in_turn}/sft/best_model --out {tmp_path}/run --csv {market_csv} --lr 1e-2"
    stonk("grpo", "--config", "btc/rl", *flags.split(), *RL, "--algorithm", "grpo", "--kl_coef", "0.05")
    first, second = logged(tmp_path / "run", "kl")
    assert abs(first) < 1e-7 and second > 1e-7
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["beta"] == 0.05


def test_the_saved_recipe_gives_the_same_model_again(run_in_turn, tmp_path, stonk):
    stonk("grpo", "--config", run_in_turn / "rl/recipe.yaml", "--out", tmp_path / "again")
    again = weights(tmp_path / "again/best_model")
    assert furthest_move(weights(run_in_turn / "rl/best_model"), again) == 0


# ------------------------------------------------------------------------------------------------ what cannot be run


@pytest.fixture
def other_codec(random_codec, tmp_path):
    random_codec("vq", 1, 8).save_pretrained(tmp_path / "other")
    return str(tmp_path / "other")


@pytest.fixture
def model_without_codec(tmp_path):
    from stonk_trainer.tasks.btc.gpt import new_gpt

    new_gpt(tmp_path / "bare", CODES, hidden_size=16, layers=1, heads=2, positions=96, seed=0)
    return str(tmp_path / "bare")


def test_a_codec_of_another_size_is_refused(run_in_turn, market_csv, other_codec, tmp_path, refused):
    model = ["--in", run_in_turn / "sft/best_model", "--out", tmp_path / "run"]
    for command, flags in [
        ("sft", ["--config", "btc/sft", *WINDOW, "--csv", market_csv]),
        ("grpo", ["--config", "btc/rl", *RL, "--csv", market_csv]),
    ]:
        said = refused(command, *flags, *model, "--codec", other_codec)
        assert "knows 16 market tokens and the codec has 8 codes" in said
    assert not (tmp_path / "run").exists()


def test_tokens_that_the_codec_does_not_have_are_refused(run_in_turn, other_codec, tmp_path, refused):
    flags = ["--data", run_in_turn / "tokens.txt", "--codec", other_codec, "--out", tmp_path / "run"]
    assert "is outside 0..7" in refused("sft", "--config", "btc/pretrain", *SMALL, *WINDOW, *flags)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_codec_is_refused_with_the_flag_to_give(model_without_codec, market_csv, tmp_path, refused):
    flags = ["--in", model_without_codec, "--csv", market_csv, "--out", tmp_path / "run"]
    assert "--codec" in refused("sft", "--config", "btc/sft", *WINDOW, *flags)
    assert "--codec" in refused("grpo", "--config", "btc/rl", *RL, *flags)
    assert "nowhere not found" in refused("grpo", "--config", "btc/rl", *RL, *flags, "--codec", "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_series_that_is_too_short_is_refused_with_the_count_and_what_to_change(
    run_in_turn, market_csv, tmp_path, refused, write_prices, heavy_tailed
):
    """40 days before the end of training hold no window of 64 and no context of 60 with a future of 4."""
    short = write_prices(tmp_path / "SHORT.csv", heavy_tailed(250), start="2021-05-20")
    flags = ["--in", run_in_turn / "sft/best_model", "--out", tmp_path / "run", "--csv", short]
    said = refused("sft", "--config", "btc/sft", *flags, "--context-len", "64")
    assert "0 training windows" in said and "--context-len" in said
    said = refused("grpo", "--config", "btc/rl", *flags, *RL, "--context-len", "60")
    assert "0 train contexts" in said and "--context-len" in said and "tokens at most" in said
    said = refused("grpo", "--config", "btc/rl", *flags, *RL, "--max_train_samples", "1", "--csv", market_csv)
    assert "do not fill one batch" in said
    assert not (tmp_path / "run").exists()


def test_dates_other_than_the_codecs_are_refused(run_in_turn, market_csv, tmp_path, refused):
    flags = ["--in", run_in_turn / "sft/best_model", "--out", tmp_path / "run", "--csv", market_csv]
    said = refused("grpo", "--config", "btc/rl", *flags, *RL, "--train_end", "2021-08-31")
    assert "2021-08-31 is not the 2021-06-30" in said
    assert not (tmp_path / "run").exists()


def test_rl_from_nothing_is_refused(market_csv, tmp_path, refused):
    said = refused("grpo", "--config", "btc/rl", "--in", "new", "--out", tmp_path / "run", "--csv", market_csv, *RL)
    assert "RL needs a trained model" in said
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_no_gpt_of_market_tokens_is_refused(
    tiny_model_folder, run_in_turn, market_csv, tmp_path, refused
):
    flags = [
        "--in",
        tiny_model_folder,
        "--codec",
        run_in_turn / "codec",
        "--csv",
        market_csv,
        "--out",
        tmp_path / "run",
    ]
    assert "market tokens" in refused("grpo", "--config", "btc/rl", *RL, *flags)
    assert not (tmp_path / "run").exists()


def test_one_sample_per_context_is_too_few_for_crps(run_in_turn, market_csv, tmp_path, refused):
    flags = ["--in", run_in_turn / "sft/best_model", "--out", tmp_path / "run", "--csv", market_csv, *REWARDS]
    validation = ["--eval_strategy", "steps", "--eval_steps", "1", "--num_generations_eval", "1"]
    said = refused("grpo", "--config", "btc/rl", *RL, *flags, *validation, "--per_device_eval_batch_size", "2")
    assert "num_generations_eval" in said


def test_a_dry_run_of_a_new_model_leaves_no_folder(run_in_turn, tmp_path, stonk):
    flags = ["--data", run_in_turn / "tokens.txt", "--codec", run_in_turn / "codec", "--out", tmp_path / "run"]
    stonk("sft", "--config", "btc/pretrain", *SMALL, *WINDOW, *flags, "--dry_run")
    assert not (tmp_path / "run").exists()


def test_stonk_eval_says_which_command_judges_a_gpt(run_in_turn, tmp_path, refused):
    model = run_in_turn / "rl/best_model"
    said = refused("eval", "--task", "btc", "--models", model, "--out", tmp_path / "run")
    assert "stonk forecast --evaluate" in said
