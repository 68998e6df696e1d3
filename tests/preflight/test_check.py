"""`stonk check`: what it reports about runs that can work, and that it finds the errors of those that cannot."""

import json
import re
import shutil

import pytest

from stonk_trainer import recipe

TRAINED = [str(path.relative_to(recipe.RECIPES)) for path in sorted(recipe.RECIPES.rglob("*.yaml"))]
TRAINED = [
    name
    for name in TRAINED
    if re.search(r"^(lr_scheduler_type|max_grad_norm):", (recipe.RECIPES / name).read_text(), re.M)
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """The models that shipped recipes start from are not there."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_no_shipped_recipe_has_an_error(name, stonk):
    """Without a network and without the models of earlier stages: that is reported, and is not an error."""
    model = ["--stage1_model", "Qwen/Qwen2.5-1.5B-Instruct"] if name == "stocks/stage2.yaml" else []
    text = stonk("check", name, *model)
    assert "no errors found" in text and "\nerror: " not in text


@pytest.fixture
def check_stage1(stonk, tiny_model_folder):
    def check(*flags):
        return stonk("check", "stocks/demo/stage1", "--model", tiny_model_folder, "--max_train_samples", "40", *flags)

    return check


@pytest.mark.slow
def test_everything_about_a_grpo_run_is_reported(check_stage1):
    text = check_stage1("--max_steps", "7")
    assert "rewards: accuracy x 0.4, data_usage x 0.3, coherence x 0.3" in text
    assert "qwen2, 2 layers, " in text  # the model, from its config
    assert "20 no next day within 7 days" in text and "train: 40 rows" in text
    assert re.search(r"prompt tokens: median \d+, 95% below \d+, longest \d+; answers of at most 192", text)
    assert "<|im_start|>system" in text  # the prompt as the model sees it
    earned = {
        line.split()[0]: float(line.split()[-1])
        for line in text.splitlines()
        if re.match(r"  (good|bad|empty) +[\d.]+ ", line)
    }
    assert earned["good"] > 0.9 and earned["bad"] == earned["empty"] == 0
    assert "1 device x 4 x accumulation 2 = 8 answers, 2 prompts of 4 answers each" in text
    assert "20 steps an epoch; 7 steps in all" in text
    assert "GiB at its peak" in text and "disk: " in text


@pytest.mark.slow
def test_the_loss_mask_of_an_sft_row_is_shown(stonk, tiny_model_folder):
    text = stonk(
        "check", "stocks/demo/warmup", "--model", tiny_model_folder, "--max_train_samples", "8", "--max_length", "1024"
    )
    learnt = text[text.index("⟦") + 1 : text.index("⟧")]
    assert learnt.startswith("<think>") and "Confidence:" in learnt and "Company:" not in learnt
    share = re.search(r"(\d+) of (\d+) tokens are trained on", text)
    assert 0 < int(share[1]) < int(share[2])


@pytest.mark.slow
def test_the_mask_that_is_shown_is_the_one_that_trains(tiny_model_folder, stonk, monkeypatch, tmp_path):
    """Against the labels TRL's collator makes of the same row."""
    from stonk_trainer import sft
    from stonk_trainer.models import loading
    from stonk_trainer.preflight import sections
    from stonk_trainer.training import resumable

    seen = []

    def training_step(self, model, inputs, num_items_in_batch=None):
        seen.append({name: inputs[name].clone() for name in ("input_ids", "labels")})
        return plain(self, model, inputs, num_items_in_batch)

    plain = resumable.ResumableTrainer.training_step
    monkeypatch.setattr(resumable.ResumableTrainer, "training_step", training_step)
    flags = [
        "--config",
        "stocks/demo/warmup",
        "--model",
        str(tiny_model_folder),
        "--max_train_samples",
        "1",
        "--batch",
        "1",
    ]
    flags += ["--max_steps", "1", "--max_length", "1024", "--dtype", "float32"]
    sft.main([*flags, "--out", str(tmp_path / "run")])
    args = recipe.load_recipe([*flags, "--out", str(tmp_path / "other")], "sft")
    row = args.task.sft_dataset("train")[0]
    ids, mask = sections.learnt(args.train, row, loading.load_tokenizer(str(tiny_model_folder)))
    assert seen[0]["input_ids"][0].tolist() == ids
    assert (seen[0]["labels"][0] != -100).tolist() == mask


@pytest.mark.slow
def test_warnings_are_not_errors(check_stage1):
    flags = "--max_steps 3 --save_steps 50 --warmup_steps 9 --stop_at_milestone true --eval_strategy no"
    text = check_stage1(*flags.split(), "--load_best_model_at_end", "false")
    assert "warning: save_steps 50 of 3 steps" in text and "the learning rate is never reached" in text
    assert "stop_at_milestone needs evaluations" in text and "no errors found" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, said",
    [
        ("--scale_rewards group", "scale_rewards: group divides it by its spread in the group"),
        ("--gradient_accumulation_steps 2", "scale_rewards: batch over 2 prompts still pays for overconfidence"),
        ("--multi_objective_aggregation normalize_then_sum", "normalize_then_sum divides it"),
        ("", None),
        ("--scale_rewards none --gradient_accumulation_steps 1", None),
        ("--scale_rewards group --accuracy direction", None),
        ("--scale_rewards group --reward data_usage --reward_weights 1", None),
    ],
)
def test_a_proper_score_that_is_scaled_by_its_group_is_warned_of(flags, said, stonk, tiny_model_folder):
    text = stonk("check", "stocks/demo/stage2", "--stage1_model", tiny_model_folder, *flags.split())
    assert ("pays for overconfidence" in text) == (said is not None)
    assert said is None or f"accuracy is a proper score, and {said}" in text


@pytest.mark.slow
def test_crps_is_a_proper_score_too(stonk, small_gpt_folder):
    flags = ["--model", small_gpt_folder, "--reward", "crps", "--horizon", "8", "--context_len", "32"]
    assert "crps is a proper score" not in stonk("check", "btc/demo/rl", *flags)  # reinforce does not scale
    text = stonk("check", "btc/demo/rl", *flags, "--algorithm", "grpo", "--scale_rewards", "group")
    assert "crps is a proper score, and scale_rewards: group" in text


WRONG = {
    "a mistyped key": (["--learning_rat", "1"], "did you mean learning_rate"),
    "a value of the wrong type": (["--lr", "fast"], "learning_rate"),
    "no such reward": (["--reward", "profit"], "reward: profit is not one of"),
    "weights for other rewards": (["--reward_weights", "1", "2"], "reward_weights has 2 values for 3 rewards"),
    "nothing rewarded": (["--reward_weights", "0", "0", "0"], "reward_weights are all 0"),
    "a group that does not fit": (["--num_generations", "5"], "num_generations: 5 does not divide"),
    "too few rows": (["--max_train_samples", "2", "--batch", "16"], "do not fill one batch"),
    "no such ticker": (["--tickers", "NOPE"], "NOPE"),
    "no such file": (["--dataset_name", "none.parquet"], "none.parquet"),
    "dates the wrong way": (["--train_end", "2015-01-01", "--validation_end", "2014-01-01"], "validation_end"),
    "an answer longer than the model": (["--max_completion_length", "4000"], "positions"),
    "a reporter that is not there": (["--report_to", "comet_ml"], "report_to"),
    "a checkpoint that is none": (["--resume_from_checkpoint", "nowhere"], "resume_from_checkpoint"),
    "LoRA that would not train": (["--lora_target_modules", "q_proj", "lm_head"], "lm_head would not be trained"),
    "memory": (
        ["--batch", "65536", "--max_train_samples", "40000", "--max_completion_length", "1500"],
        "GiB are needed",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line_and_status_2(wrong, refused, tiny_model_folder):
    flags, said = WRONG[wrong]
    base = ["check", "stocks/demo/stage1", "--model", tiny_model_folder, "--max_train_samples", "40"]
    assert said in refused(*base, *flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--lr", "1"], "which recipe"),
        (["no/such"], "recipe no/such not found"),
        (["btc/codec"], "which do not know codebook_size, patch_size, quantizer"),
        (["stocks/demo/eval"], "is for recipes of stonk sft and stonk grpo"),
        (["stocks/demo/stage1", "--trainer", "dpo"], "--trainer: dpo"),
        (["stocks/demo/stage1", "--model", "runs/my/mistyped"], "model runs/my/mistyped not found"),
    ],
)
def test_a_recipe_that_cannot_be_checked_is_one_line(argv, said, refused):
    assert said in refused("check", *argv)


@pytest.mark.slow
@pytest.mark.parametrize("last, warned", [("2017-06-30", True), ("2016-06-30", False), (None, False)])
def test_a_model_that_was_trained_on_validation_days_is_warned_of(last, warned, stonk, tiny_model_folder, tmp_path):
    """run.json of the earlier stage says up to which day it read."""
    model = shutil.copytree(tiny_model_folder, tmp_path / "stage1/best_model")
    record = {"stage": "reinforcement learning", "steps": 7, "data": {"train": {"last": last}}}
    (tmp_path / "stage1/run.json").write_text(json.dumps(record))
    text = stonk("check", "stocks/demo/stage1", "--model", model, "--max_train_samples", "40")
    assert "from reinforcement learning, 7 steps" in text
    assert (f"warning: the model was trained on days up to {last}, and validation begins on 2017" in text) == warned


def test_nothing_is_written(check_stage1, tmp_path):
    check_stage1()
    assert list(tmp_path.iterdir()) == []


def test_all_errors_are_reported_at_once(stonk, tiny_model_folder, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_folder, broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(SystemExit):
        stonk("check", "stocks/demo/stage1", "--model", broken, "--tickers", "NOPE")
    said = capsys.readouterr()
    assert "\nerror: " in said.out and said.err.startswith("error: ")
    assert "NOPE" in said.out + said.err and "tokenizer" in said.out + said.err


@pytest.mark.slow
def test_a_run_whose_model_cannot_be_read_is_checked_otherwise(tmp_path, tiny_model_folder, stonk, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_folder, broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(SystemExit):
        stonk("check", "stocks/demo/stage1", "--model", broken, "--max_train_samples", "40")
    said = capsys.readouterr()
    assert "broken" in said.err and "train: 40 rows" in said.out and "what is earned" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "--num_iterations 2", "--steps_per_generation 4"])
def test_the_steps_that_are_said_are_those_that_are_made(more, check_stage1, tiny_model_folder, tmp_path, stonk):
    flags = f"--max_steps -1 --num_train_epochs 1 --max_train_samples 9 --max_completion_length 6 {more}".split()
    said = re.search(r"(\d+) steps in all", check_stage1(*flags))[1]
    quick = "--dtype float32 --eval_strategy no --load_best_model_at_end false --save_strategy no".split()
    out = stonk(
        "grpo",
        "--config",
        "stocks/demo/stage1",
        "--model",
        tiny_model_folder,
        *flags,
        *quick,
        "--out",
        tmp_path / "run",
    )
    assert f"training: {said} steps" in out


@pytest.mark.slow
def test_a_model_whose_files_hold_other_weights_is_refused_before_anything_is_made(
    tiny_model_folder, tmp_path, refused
):
    """Transformers fills in at random what it does not find, and leaves out what it has no place for."""
    for number, change in enumerate([("num_hidden_layers", 3), ("num_hidden_layers", 1), ("model_type", "llama")]):
        model = tmp_path / f"model{number}"
        shutil.copytree(tiny_model_folder, model)
        config = json.loads((model / "config.json").read_text())
        config.update([change], layer_types=None, architectures=None)
        (model / "config.json").write_text(json.dumps(config))
        flags = ["stocks/demo/stage1", "--model", model, "--max_train_samples", "40"]
        assert "config.json describes other weights than" in refused("check", *flags)
        out = tmp_path / "run"
        assert "config.json describes other weights than" in refused("grpo", "--config", *flags, "--out", out)
        assert not out.exists() or not list(out.iterdir())


@pytest.mark.slow
def test_a_run_that_cannot_start_leaves_the_finished_one_in_its_folder_alone(
    tiny_model_folder, tmp_path, refused, stonk
):
    flags = ["--config", "stocks/demo/warmup", "--dtype", "float32", "--max_train_samples", "8", "--max_length", "1024"]
    flags += ["--max_steps", "1", "--model", tiny_model_folder, "--out", tmp_path / "run"]
    stonk("sft", *flags)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for wrong in (
        ["--lora_target_modules", "nosuch"],
        ["--optim", "lomo"],
        ["--lr_scheduler_type", "cosine_with_min_lr"],
    ):
        assert refused("sft", *flags, *wrong)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
