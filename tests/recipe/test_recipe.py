from pathlib import Path

import pytest
import yaml

from stonk_trainer.errors import UserError
from stonk_trainer.recipe import RECIPES, load_command, load_recipe
from stonk_trainer.tasks.btc.codec_commands import Encoding, Training
from stonk_trainer.tasks.btc.forecast import Forecast
from stonk_trainer.tasks.reasoning.harness import Benchmarks
from stonk_trainer.tasks.reasoning.reject import Rejection

TRAINER_OF = {"warmup": "sft", "stage1": "grpo", "stage2": "grpo", "eval": "eval", "baselines": "eval"}
TRAINER_OF |= {"pretrain": "sft", "sft": "sft", "rl": "grpo"}
TRAINER_OF |= dict.fromkeys(("cold_start", "ot_mixed", "dolci_mid", "rs_sft"), "sft") | {"grpo": "grpo"}
COMMAND_OF = {
    "codec": ("codec train", Training),
    "encode": ("codec encode", Encoding),
    "forecast": ("forecast", Forecast),
    "rs_generate": ("sample", Rejection),
    "r1/eval": ("eval", Benchmarks),
}
ALL = sorted(
    path for path in RECIPES.rglob("*.yaml") if path.parent.name not in ("tasks", "accelerate")
)  # those are lm-eval's and accelerate's


def command_of(path):
    """(command, its arguments) of a recipe that no trainer takes; None for one of a trainer."""
    name = path.stem if path.stem != "eval" or "r1" not in path.parts else "r1/eval"
    return COMMAND_OF.get(name)


SHIPPED = [path for path in ALL if not command_of(path)]
OF_COMMANDS = [path for path in ALL if command_of(path)]
STAGE1 = str(RECIPES / "stocks/stage1.yaml")
RL = str(RECIPES / "btc/rl.yaml")
MINIMAL = {"grpo": {"task": "stocks", "output_dir": "o", "model_name_or_path": "m"}}
MINIMAL["sft"] = MINIMAL["grpo"]
MINIMAL["eval"] = {"task": "stocks", "models": ["m"]}


@pytest.fixture(autouse=True)
def models_of_earlier_stages(tmp_path_factory, monkeypatch):
    """Work where the models that the shipped recipes start from exist: a missing folder ends a run at once."""
    home = tmp_path_factory.mktemp("home")
    for path in SHIPPED:
        values = yaml.safe_load(path.read_text())
        for name in [values.get("model_name_or_path"), *values.get("models", [])]:
            if name and name.startswith("runs/"):
                (home / name).mkdir(parents=True, exist_ok=True)
                (home / name / "config.json").write_text("{}")
    monkeypatch.chdir(home)


def trainer_of(path):
    return TRAINER_OF[path.stem]


def extra_flags(path):
    return ["--stage1_model", "some/model"] if path == RECIPES / "stocks/stage2.yaml" else []


def recipe(tmp_path, text="", trainer="grpo", **values):
    """A recipe file: the keys every run needs, `values`, and raw `text`."""
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL[trainer] | values) + text)
    return str(path)


def load(path, *flags, trainer="grpo"):
    return load_recipe(["--config", path, *flags], trainer)


def message(path, *flags, trainer="grpo"):
    """What the user is told about a recipe that is wrong."""
    with pytest.raises(UserError) as error:
        load(path, *flags, trainer=trainer)
    return str(error.value)


def test_recipes_are_shipped():
    assert {"warmup.yaml", "stage1.yaml", "stage2.yaml", "eval.yaml"} <= {path.name for path in SHIPPED}
    assert {"pretrain.yaml", "sft.yaml", "rl.yaml"} <= {path.name for path in SHIPPED}
    assert {command_of(path) for path in OF_COMMANDS} == set(COMMAND_OF.values())
    r1 = {path.stem for path in ALL if path.parent.name == "r1"}
    assert r1 == {"cold_start", "ot_mixed", "dolci_mid", "grpo", "rs_generate", "rs_sft", "eval"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_shipped_recipe_sets_what_it_says(path):
    args = load(str(path), *extra_flags(path), trainer=trainer_of(path))
    for key, value in yaml.safe_load(path.read_text()).items():
        assert args.values[key] == value, key
    parts = [args.options, args.train, args.model, args.task.args]
    rewritten_by_trl = {"task", "lora_target_modules", "report_to"}  # ["all-linear"] → "all-linear", "none" → []
    for key, value in args.values.items():
        assert key in rewritten_by_trl or value in [getattr(part, key, None) for part in parts], key


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_saved_recipe_loads_again_to_the_same_values(path, tmp_path):
    trainer = trainer_of(path)
    first = load(str(path), *extra_flags(path), "--seed", "7", trainer=trainer)
    first.save(tmp_path)
    again = load(str(tmp_path / "recipe.yaml"), trainer=trainer)
    assert again.values == first.values
    assert again.task.args == first.task.args
    assert again.model == first.model
    assert again.options == first.options
    assert again.train.seed == first.train.seed == 7


def test_stage_two_names_no_model_of_its_own():
    assert "model_name_or_path" in message(str(RECIPES / "stocks/stage2.yaml"))


def test_flags_win_over_the_file():
    args = load(STAGE1, "--beta", "0.2", "--max_completion_length=77", "--reward_weights", "1", "2", "3")
    assert (args.train.beta, args.train.max_completion_length, args.train.reward_weights) == (0.2, 77, [1.0, 2.0, 3.0])
    assert args.values["beta"] == 0.2


def test_a_shipped_recipe_is_found_by_its_name():
    assert load("stocks/stage1").values == load(STAGE1).values


@pytest.mark.parametrize(
    "flags, key, value",
    [
        (["--kl_coef", "0.03"], "beta", 0.03),
        (["--kl-coef=0.03"], "beta", 0.03),
        (["--epochs", "4"], "num_train_epochs", 4),
        (["--batch_size", "16"], "per_device_train_batch_size", 16),
        (["--batch-size=16"], "per_device_train_batch_size", 16),
        (["--batch", "16"], "per_device_train_batch_size", 16),
        (["--lr", "3e-4"], "learning_rate", 3e-4),
        (["--learning-rate=3e-4"], "learning_rate", 3e-4),
        (["--steps", "9"], "max_steps", 9),
        (["--out", "elsewhere"], "output_dir", "elsewhere"),
    ],
)
def test_short_flags_set_the_trainers_keys(flags, key, value):
    args = load(STAGE1, *flags)
    assert getattr(args.train, key) == value
    assert args.values[key] == value


@pytest.mark.parametrize("flag", ["--stage1_model", "--stage1-model", "--model", "--in", "--model_name_or_path"])
def test_short_flags_name_the_model(flag):
    assert load(STAGE1, flag, "here").model.model_name_or_path == "here"
    assert load(STAGE1, f"{flag}=here").model.model_name_or_path == "here"


def test_short_flags_of_quantisation_and_data(tmp_path):
    path = recipe(tmp_path, use_peft=True)
    assert load(path, "--quantize").model.load_in_4bit is True
    assert load(path, "--quantize", "false").model.load_in_4bit is False
    assert load(path, "--natural_distribution").task.args.natural_distribution is True
    assert load(path, "--natural-distribution=true").task.args.natural_distribution is True
    assert load(path, "--csv", "mine.csv").task.args.dataset_name == "mine.csv"
    assert load(path, "--max-train-samples", "12").task.args.max_train_samples == 12


def test_aliases_work_in_the_file_too(tmp_path):
    args = load(recipe(tmp_path, kl_coef=0.5, lr="1e-3"))
    assert (args.train.beta, args.train.learning_rate) == (0.5, 1e-3)


def test_an_alias_and_its_key_in_one_file_are_refused(tmp_path):
    assert "beta" in message(recipe(tmp_path, kl_coef=0.5, beta=0.4))


def test_the_batch_size_of_an_evaluation_is_its_own_key(tmp_path):
    args = load(recipe(tmp_path, trainer="eval"), "--batch_size", "3", "--model", "other", trainer="eval")
    assert (args.options.batch_size, args.options.models) == (3, ["other"])


@pytest.mark.parametrize(
    "text, key, value",
    [("learning_rate: 1e-5", "learning_rate", 1e-5), ("eval_strategy: no", "eval_strategy", "no"),
     ('eval_strategy: "no"', "eval_strategy", "no"), ("bf16: no", "bf16", False), ("bf16: true", "bf16", True)],
)  # fmt: skip
def test_recipes_are_yaml_1_2(tmp_path, text, key, value):
    """YAML 1.1 reads a bare `1e-5` as text and `no` as false."""
    assert getattr(load(recipe(tmp_path, f"{text}\n")).train, key) == value


def test_tickers_that_look_like_booleans_are_text(tmp_path):
    assert load(recipe(tmp_path, "tickers: [ON, NO]\n")).task.args.tickers == ["ON", "NO"]


@pytest.mark.parametrize("trainer", ["sft", "grpo", "eval"])
def test_an_unknown_key_names_file_key_and_nearest_key(tmp_path, trainer):
    path = recipe(tmp_path, trainer=trainer, max_eval_sample=3)
    text = message(path, trainer=trainer)
    assert path in text and "max_eval_sample:" in text and "did you mean max_eval_samples?" in text


@pytest.mark.parametrize("flag", ["--learning_rat", "--learning-rat", "--learning_rat=1"])
def test_an_unknown_flag_names_the_nearest_key(flag):
    text = message(STAGE1, flag, "1") if "=" not in flag else message(STAGE1, flag)
    assert "learning_rat" in text and "did you mean learning_rate?" in text


def test_a_word_that_belongs_to_no_flag_is_refused():
    assert "stray" in message(STAGE1, "--beta", "0.1", "stray")


@pytest.mark.parametrize(
    "key, value",
    [
        ("learning_rate", "fast"),
        ("num_generations", "four"),
        ("max_train_samples", "many"),
        ("natural_distribution", "maybe"),
        ("lora_r", 1.5),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_from_file_and_flag(tmp_path, key, value):
    path = recipe(tmp_path, **{key: value})
    text = message(path)
    assert path in text and key in text and str(value) in text
    text = message(STAGE1, f"--{key}", str(value))
    assert key in text and str(value) in text


@pytest.mark.parametrize(
    "key, value",
    [
        ("loss_type", "dr_gppo"),
        ("accuracy", "calibratd"),
        ("eval_strategy", "sometimes"),
        ("scale_rewards", "groups"),
        ("dtype", "bf17"),
        ("bnb_4bit_quant_type", "nf5"),
    ],
)
def test_a_value_outside_its_choices_is_refused_from_file_and_flag(tmp_path, key, value):
    path = recipe(tmp_path, **{key: value})
    text = message(path)
    assert path in text and key in text and value in text
    text = message(STAGE1, f"--{key}", value)
    assert key in text and value in text


@pytest.mark.parametrize("key, value", [("reward", ["accuracy", "acuracy"]), ("indicators", ["change_0d"])])
def test_a_list_with_an_unknown_name_is_refused(tmp_path, key, value):
    assert value[-1] in message(recipe(tmp_path, **{key: value}))
    assert value[-1] in message(STAGE1, f"--{key}", *value)


def test_a_duplicate_key_is_refused(tmp_path):
    assert "duplicate key: beta" in message(recipe(tmp_path, "beta: 0.1\nbeta: 0.2\n"))


def test_a_list_where_one_value_is_expected_is_refused(tmp_path):
    text = message(recipe(tmp_path, beta=[0.1, 0.2]))
    assert "beta" in text and "list" in text


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "a: [1\n"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "not.yaml"
    path.write_text(text)
    assert str(path) in message(str(path))


def test_a_missing_recipe_is_named(tmp_path):
    assert "nowhere.yaml not found" in message(str(tmp_path / "nowhere.yaml"))


def test_a_recipe_without_a_task_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("output_dir: o\n")
    assert "task" in message(str(path))
    assert "stonks" in message(recipe(tmp_path), "--task", "stonks")


def test_groups_must_fill_a_step():
    text = message(STAGE1, "--num_generations", "5")
    assert "num_generations" in text and "5" in text and "32" in text


def test_no_model_is_refused_and_with_kl_says_what_beta_needs(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("task: stocks\noutput_dir: o\n")
    assert "model_name_or_path" in message(str(path))
    text = message(str(path), "--beta", "0.1")
    assert "beta" in text and "--stage1_model" in text


@pytest.mark.parametrize("trainer", ["sft", "grpo", "eval"])
def test_a_missing_model_folder_is_named(tmp_path, trainer):
    assert "./nowhere not found" in message(recipe(tmp_path, trainer=trainer), "--model", "./nowhere", trainer=trainer)


def test_no_output_folder_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("task: stocks\nmodel_name_or_path: m\n")
    assert "output_dir" in message(str(path))
    assert "output_dir" in message(str(path), trainer="sft")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--load_in_4bit", "--use_peft", "--use_vllm"], ["load_in_4bit", "use_vllm"]),
        (["--load_in_4bit"], ["load_in_4bit", "use_peft"]),
        (["--reward_weights", "1", "1"], ["reward_weights", "2", "3", "coherence"]),
        (["--kl_target", "0.1"], ["kl_target", "beta"]),
        (["--max_completion_length", "0"], ["max_completion_length"]),
        (["--steps", "0"], ["max_steps"]),
        (["--embargo_days", "3"], ["embargo_days", "7"]),
        (["--max_train_samples", "0"], ["max_train_samples"]),
    ],
)
def test_combinations_that_cannot_work_are_refused(tmp_path, flags, words):
    text = message(recipe(tmp_path), *flags)
    assert [word for word in words if word not in text] == []


def test_an_evaluation_with_weights_of_the_wrong_length_is_refused(tmp_path):
    text = message(recipe(tmp_path, trainer="eval"), "--reward_weights", "1", "1", trainer="eval")
    assert "reward_weights" in text


def test_an_evaluation_without_a_model_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("task: stocks\n")
    assert "--models" in message(str(path), trainer="eval")


def test_the_best_checkpoint_is_one_that_was_evaluated():
    args = load(STAGE1, "--save_steps", "30")
    assert args.train.eval_steps == args.train.save_steps == 30


@pytest.mark.parametrize("trainer", ["sft", "grpo", "eval"])
def test_help_lists_the_keys_without_a_recipe(trainer, capsys):
    with pytest.raises(SystemExit) as end:
        load_recipe(["--help"], trainer)
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--max_eval_samples" in text and f"example: stonk {trainer} --config" in text


def test_the_scripts_and_headers_name_recipes_that_exist():
    for path in ALL:
        for word in path.read_text().split():
            if word.startswith("recipes/"):
                assert (RECIPES.parent / word).exists(), f"{path}: {word}"
    assert Path(STAGE1).is_file()


@pytest.mark.parametrize(
    ("trainer", "key", "value"),
    [
        ("grpo", "learning_rate", -1),
        ("grpo", "temperature", 0),
        ("grpo", "beta", -0.1),
        ("grpo", "top_p", 7),
        ("grpo", "lora_r", 0),
        ("grpo", "num_generations", 0),
        ("grpo", "kl_target", 0),
        ("grpo", "stats_window", 0),
        ("grpo", "milestone_evaluations", -1),
        ("grpo", "sampling_seed", -1),
        ("grpo", "max_steps", 0),
        ("sft", "num_train_epochs", -3),
        ("eval", "batch_size", 0),
        ("eval", "temperature", -1),
        ("eval", "max_completion_length", 0),
    ],
)
def test_a_value_outside_its_range_is_refused(tmp_path, trainer, key, value):
    assert f"{key}: {value}" in message(recipe(tmp_path, trainer=trainer, **{key: value}), trainer=trainer)


@pytest.mark.parametrize("key", ["learning_rate", "beta", "history_days", "reward", "seed"])
def test_an_empty_value_is_refused_where_one_is_needed(tmp_path, key):
    assert f"{key} is empty" in message(recipe(tmp_path, **{key: None}))


@pytest.mark.parametrize("text", ["train_end: 2020-02-30\n", "out: {{ x }}\n", "output_dir: {a: 1}\n"])
def test_yaml_that_reads_as_something_else_is_refused(tmp_path, text):
    values = {key: value for key, value in MINIMAL["grpo"].items() if not text.startswith(key)}
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(values) + text)
    assert str(path) in message(str(path))


def test_a_run_does_not_overwrite_the_model_it_starts_from(tmp_path):
    model = tmp_path / "run/best_model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    for output in (tmp_path / "run", model):
        said = message(recipe(tmp_path, model_name_or_path=str(model), output_dir=str(output)))
        assert "would overwrite the model" in said


def test_an_output_folder_that_is_a_file_and_a_missing_checkpoint_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in message(recipe(tmp_path, output_dir=str(tmp_path / "file")))
    assert "is not a checkpoint" in message(recipe(tmp_path, resume_from_checkpoint=str(tmp_path / "none")))


def test_an_empty_list_is_an_empty_list(tmp_path):
    assert load(recipe(tmp_path, indicators=[])).task.args.indicators == []


# ------------------------------------------------------------------------------------------ commands that train nothing


def load_of_command(path, *flags):
    command, arguments = command_of(Path(path))
    return load_command(["--config", str(path), *flags], command, arguments, "an example")


def refused_by_command(*argv):
    with pytest.raises(UserError) as error:
        load_command(list(argv), "codec train", Training, "--config btc/codec")
    return str(error.value)


@pytest.mark.parametrize("path", OF_COMMANDS, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_shipped_recipe_of_a_command_sets_what_it_says(path):
    several = len(yaml.safe_load(path.read_text()).get("model", [])) > 1
    run = load_of_command(path, *(["--evaluate", "true"] if several else []))
    for key, value in yaml.safe_load(path.read_text()).items():
        assert key == "task" or str(getattr(run, key)) == str(value), key  # YAML reads a day as a date


def test_flags_of_a_command_win_over_its_file():
    run = load_of_command(RECIPES / "btc/codec.yaml", "--csv", "BTC.csv", "--codebook-size=16", "--lr", "1e-3")
    assert (run.dataset_name, run.codebook_size, run.learning_rate) == ("BTC.csv", 16, 1e-3)
    run = load_of_command(
        RECIPES / "btc/forecast.yaml", "--model", "a", "b", "--evaluate", "true", "--out", "elsewhere"
    )
    assert (run.model, run.evaluate, run.output_dir) == (["a", "b"], True, "elsewhere")


def test_a_command_takes_its_batch_size_and_steps_under_their_short_names():
    run = load_of_command(RECIPES / "btc/codec.yaml", "--batch", "3", "--steps", "7", "--out", "o")
    assert (run.batch_size, run.steps, run.output_dir) == (3, 7, "o")
    assert load_of_command(RECIPES / "btc/forecast.yaml", "--in", "here").model == ["here"]
    said = refused_by_command("--config", str(RECIPES / "btc/codec.yaml"), "--kl_coef", "1")
    assert "unknown flag --kl_coef" in said


def test_a_command_is_as_strict_as_a_trainer(tmp_path):
    path = tmp_path / "mine.yaml"
    dates = "train_end: 2020-12-31\nvalidation_end: 2021-12-31\n"
    for text, words in {
        "codebook_sise: 8\n": ["mine.yaml", "codebook_sise: 8", "did you mean codebook_size?"],
        "codebook_size: many\n": ["mine.yaml", "codebook_size", "many"],
        "codebook_size: [8, 16]\n": ["mine.yaml", "codebook_size", "list"],
        "codebook_size:\n": ["mine.yaml", "codebook_size is empty"],
        "quantizer: vqq\n": ["mine.yaml", "quantizer", "vqq"],
        "steps: 1\nmax_steps: 2\n": ["max_steps"],
        "codebook_size: 1\n": ["codebook_size: 1"],
        "patch_size: 9\n": ["patch_size", "code_dim"],
    }.items():
        path.write_text("task: btc\n" + dates + text)
        said = refused_by_command("--config", str(path))
        assert [word for word in words if word not in said] == [], said
    path.write_text(dates)
    assert "did you mean codebook_size?" in refused_by_command("--config", str(path), "--codebook_sise", "8")
    assert "stray" in refused_by_command("--config", str(path), "stray")
    assert "train_end and validation_end" in refused_by_command()
    assert "2021-02-30 is not a day" in refused_by_command("--config", str(path), "--train_end", "2021-02-30")
    assert "must come after" in refused_by_command("--config", str(path), "--train_end", "2022-01-01")


def test_help_of_a_command_shows_its_keys_and_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        load_command(["--help"], "codec train", Training, "--config btc/codec")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--codebook_size" in text and "example: stonk codec train --config btc/codec" in text


# ------------------------------------------------------------------------------------------------------ btc: RL


def test_reinforce_is_said_in_trls_keys():
    args = load(RL, "--algorithm", "reinforce")
    train = args.train
    assert (train.loss_type, train.scale_rewards, train.beta, train.num_iterations) == ("dr_grpo", "none", 0.0, 1)
    assert train.steps_per_generation == train.gradient_accumulation_steps  # on-policy: a step is what was just sampled


@pytest.mark.parametrize(
    "key, value",
    [
        ("kl_coef", "0.03"),
        ("loss_type", "dapo"),
        ("scale_rewards", "group"),
        ("num_iterations", "2"),
        ("multi_objective_aggregation", "normalize_then_sum"),
        ("top_entropy_quantile", "0.5"),
        ("entropy_coef", "0.01"),
        ("top_p", "0.9"),
        ("top_k", "5"),
        ("min_p", "0.1"),
        ("repetition_penalty", "1.2"),
        ("steps_per_generation", "4"),
    ],
)
def test_what_reinforce_is_not_is_refused_with_what_to_set(key, value):
    said = message(RL, f"--{key}", value)
    name = {"kl_coef": "beta"}.get(key, key)
    assert f"{name}: {value}" in said and "algorithm: reinforce" in said and "algorithm: grpo" in said
    assert getattr(load(RL, f"--{key}", value, "--algorithm", "grpo").train, name) is not None


def test_a_batch_of_episodes_is_so_many_contexts_of_num_generations_samples():
    args = load(RL, "--batch-episodes", "3", "--num_generations", "5")
    assert args.train.per_device_train_batch_size == 15
    assert load(RL, "--batch", "24").train.per_device_train_batch_size == 24  # the flag wins over the file's episodes
    assert "num_generations" in message(RL, "--batch", "20")
    assert "batch_episodes: 0" in message(RL, "--batch-episodes", "0")


def test_a_batch_said_twice_is_refused(tmp_path):
    assert "keep one" in message(RL, "--batch-episodes", "3", "--batch", "16")
    path = recipe(tmp_path, batch_episodes=3, per_device_train_batch_size=16)
    assert "keep one" in message(path)
    assert load(path, "--batch-episodes", "4", "--num_generations", "2").train.per_device_train_batch_size == 8


def test_a_sample_is_as_long_as_the_horizon_and_nothing_else():
    args = load(RL, "--horizon", "12")
    assert (args.train.max_completion_length, args.train.mask_truncated_completions) == (12, False)
    said = message(RL, "--horizon", "12", "--max_completion_length", "16")
    assert "max_completion_length: 16" in said and "max_completion_length: 12" in said and "leave it out" in said
    assert "mask_truncated_completions" in message(RL, "--mask_truncated_completions", "true")
    assert load(RL, "--horizon", "12", "--max_completion_length", "12").train.max_completion_length == 12


def test_what_a_saved_recipe_implies_can_still_be_changed(tmp_path):
    load(RL, "--horizon", "12", "--batch-episodes", "2").save(tmp_path)
    saved = str(tmp_path / "recipe.yaml")
    train = load(saved, "--horizon", "20", "--num_generations", "4").train
    assert (train.max_completion_length, train.per_device_train_batch_size) == (20, 8)
    train = load(saved, "--algorithm", "grpo", "--kl_coef", "0.1").train
    assert (train.beta, train.loss_type) == (0.1, load(RL, "--algorithm", "grpo").train.loss_type)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--reward", "token_acc", "profit"], ["profit", "pnl"]),
        (["--reward", "crps", "crps"], ["once"]),
        (["--reward", "token_acc", "crps", "--reward_weights", "1"], ["reward_weights", "2 rewards"]),
        (["--context-len", "0"], ["context_len: 0"]),
        (["--context-len", "1020"], ["gpt_positions", "1020"]),
        (["--cost_bps", "-1"], ["cost_bps"]),
        (["--train_end", "2020-13-01"], ["train_end", "2020-13-01"]),
        (["--in", "new"], ["RL needs a trained model"]),
    ],
)
def test_keys_of_the_btc_task_that_cannot_work_are_refused(flags, words):
    said = message(RL, *flags)
    assert [word for word in words if word not in said] == []


def test_heads_that_do_not_make_up_the_width_are_refused():
    said = message(str(RECIPES / "btc/pretrain.yaml"), "--gpt_heads", "5", trainer="sft")
    assert "gpt_heads: 5" in said and "gpt_hidden_size 64" in said
