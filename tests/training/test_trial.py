"""The largest pass, tried before step one: a run that does not fit ends there, and one that fits is as without it."""

import json
import re
import resource
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SHORT = "--dtype float32 --indicators change_1d --max_steps 3 --logging_steps 1 --max_train_samples 24".split()
SHORT += "--save_strategy no --eval_strategy no --load_best_model_at_end false".split()
GRPO = ["grpo", "--config", "stocks/demo/stage1", *SHORT, "--max_completion_length", "6"]
SFT = ["sft", "--config", "stocks/demo/warmup", *SHORT]
TRIAL = re.compile(r"a trial of the largest pass, (\d+) rows of (\d+) \+ (\d+) tokens, took")


@pytest.fixture
def room_for_another_gibibyte():
    """The address space of the process as it is, and a gibibyte."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "command",
    [
        [*GRPO, "--lora_dropout", "0.2", "--use_adaptive_entropy", "true", "--entropy_coef", "0.01"],
        [*GRPO, "--skip_zero_variance", "true", "--num_iterations", "2"],
        [*GRPO, "--shared_prefix", "false", "--loss_type", "dapo"],
        [*SFT, "--lora_dropout", "0.2"],
        [*SFT, "--use_peft", "false"],
    ],
)
def test_a_run_learns_and_logs_the_same_with_and_without_the_trial(command, tiny_model_folder, tmp_path, stonk):
    found = {}
    for trial in ("true", "false"):
        run = tmp_path / trial
        out = stonk(*command, "--trial_pass", trial, "--model", tiny_model_folder, "--out", run)
        assert bool(TRIAL.search(out)) == (trial == "true")
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        timed = ("_runtime", "_per_second", "step_time", "elapsed", "eta", "time")
        logs = [{key: value for key, value in line.items() if not key.endswith(timed)} for line in metrics]
        found[trial] = load_file(run / "best_model/model.safetensors"), logs
    (weights, logs), (plain_weights, plain_logs) = found.values()
    differing = [key for line, plain in zip(logs, plain_logs, strict=True) for key in plain if line[key] != plain[key]]
    assert differing == []
    assert all(weights[name].equal(plain_weights[name]) for name in plain_weights)


def test_what_is_tried_is_the_longest_prompt_with_a_full_answer(tiny_model_folder, tmp_path, stonk):
    model = ["--model", tiny_model_folder, "--out", tmp_path / "run"]
    rows, prompt, completion = TRIAL.search(stonk(*GRPO, *model)).groups()
    (longest,) = re.findall(r"longest (?:prompt )?(\d+)", stonk("check", *GRPO[1:], *model))[:1]
    assert (rows, prompt, completion) == ("4", longest, "6")


def test_a_run_whose_longest_answers_do_not_fit_ends_before_step_one(
    tiny_model_folder, tmp_path, refused, room_for_another_gibibyte
):
    long = "--max_completion_length", "30000"
    line = refused(*GRPO, *long, "--model", tiny_model_folder, "--out", tmp_path / "run")
    assert re.search(r"out of memory in a trial of the largest pass \(4 rows of \d+ \+ 30000 tokens\): set,", line)
    assert (tmp_path / "run/training_log.jsonl").read_text() == ""


def test_without_the_trial_the_same_run_goes_on_until_an_answer_is_long(
    tiny_model_folder, tmp_path, stonk, room_for_another_gibibyte
):
    long = "--max_completion_length", "30000", "--trial_pass", "false"
    stonk(*GRPO, *long, "--model", tiny_model_folder, "--out", tmp_path / "run")
    assert (tmp_path / "run/best_model").is_dir()
