"""Warnings of a run while it trains, and how it ends when it fails."""

import json
import logging
import re
from types import SimpleNamespace

import pytest
import torch

from stonk_trainer.training import resumable
from stonk_trainer.training.guards import Warnings

pytestmark = pytest.mark.slow

STAGE1 = "--config stocks/demo/stage1 --dtype float32 --indicators change_1d --max_eval_samples 4 --max_steps 7".split()
STAGE1 += "--max_completion_length 6 --logging_steps 1 --max_train_samples 40 --save_strategy no".split()
STAGE1 += "--eval_strategy no --load_best_model_at_end false".split()


class Lines(logging.Handler):
    """What is logged, line by line."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def reported():
    """The warnings of the callback for a list of logs."""

    def report(logs, callback=None):
        callback, handler = callback or Warnings(), Lines()
        logger = logging.getLogger("stonk_trainer")
        logger.handlers = [handler]
        for step, values in enumerate(logs):
            state = SimpleNamespace(is_world_process_zero=True, global_step=step + 1)
            callback.on_log(None, state, None, logs={"loss": 0.0, **values})
        return handler.lines

    return report


SIGNS = {
    "every reward is 0": ({"reward": 0.0, "reward_std": 0.0}, {"reward": 0.4, "reward_std": 0.1}),
    "all rewards are equal": ({"frac_reward_zero_std": 1.0}, {"frac_reward_zero_std": 0.5}),
    "cut off": ({"completions/clipped_ratio": 0.9}, {"completions/clipped_ratio": 0.1}),
    "KL": ({"kl": 3.0}, {"kl": 0.02}),
}


@pytest.mark.parametrize("text", SIGNS)
def test_trouble_that_lasts_is_reported_once_with_what_to_do(text, reported):
    bad, good = SIGNS[text]
    lines = reported([bad] * 30)
    assert len(lines) == 1 and text in lines[0] and re.search("[Rr]aise|[Ll]ower|longer", lines[0])
    assert reported([bad] * 4 + [good] + [bad] * 4) == []  # it passed
    assert reported([good] * 30) == []


def test_entropy_is_judged_by_where_it_started(reported):
    assert reported([{"entropy": 0.02}] * 20) == []
    assert "entropy is below a tenth" in reported([{"entropy": 1.0}] + [{"entropy": 0.05}] * 5)[0]


def test_a_resumed_run_does_not_report_it_again(reported):
    first = Warnings()
    reported([{"kl": 3.0}] * 5, first)
    resumed = Warnings()
    for name in Warnings.KEPT:
        setattr(resumed, name, getattr(first, name))
    assert reported([{"kl": 3.0}] * 20, resumed) == []


def test_a_run_whose_answers_earn_nothing_warns_about_it(tiny_model_folder, tmp_path, stonk):
    """Through the real trainer: answers of one token cannot be read."""
    nothing = "--max_completion_length 1 --reward data_usage --reward_weights 1".split()
    out = stonk("grpo", *STAGE1, *nothing, "--model", tiny_model_folder, "--out", tmp_path / "run")
    assert out.count("every reward is 0: the model learns nothing") == 1


def test_running_out_of_memory_is_one_line_with_settings_and_what_each_saves(
    tiny_model_folder, tmp_path, refused, monkeypatch
):
    """The allocator's own error, from a tensor that no machine holds."""

    def too_much(self, *args, **kwargs):
        torch.empty(2**50)

    monkeypatch.setattr(resumable.GRPOTrainer, "training_step", too_much)
    line = refused(
        "grpo", *STAGE1, "--max_completion_length", 300, "--model", tiny_model_folder, "--out", tmp_path / "run"
    )
    assert "out of memory in step 1: set, in this order, gradient_checkpointing: true (about" in line
    assert len(re.findall(r"\(about [\d.]+ MiB less\)", line)) >= 2


def test_the_forecasts_of_a_batch_are_measured_under_clear_names(tiny_model_folder, tmp_path, stonk):
    stonk("grpo", *STAGE1, "--model", tiny_model_folder, "--out", tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    log = [json.loads(line) for line in (tmp_path / "run/training_log.jsonl").read_text().splitlines()]
    for line in metrics:
        answers = [answer for answer in log if answer["step"] == line["step"]]
        up = [answer["direction"] == "UP" for answer in answers if answer["direction"]]
        assert line["forecast/up_share"] == pytest.approx(sum(up) / len(up))
        assert line["forecast/readable"] == pytest.approx(len(up) / len(answers))
        assert line["forecast/accuracy"] == pytest.approx(
            sum(answer["direction"] == answer["label"] for answer in answers) / len(answers)
        )
        assert {"forecast/adaptation_gap", "completions/useful_token_share"} <= set(line)


def test_tensorboard_shows_what_the_trainer_and_the_forecasts_measure(tiny_model_folder, tmp_path, stonk):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    stonk("grpo", *STAGE1, "--model", tiny_model_folder, "--out", run, "--report_to", "tensorboard", "--max_steps", "2")
    (events,) = run.rglob("events.out.tfevents*")
    board = EventAccumulator(str(events.parent))
    board.Reload()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("reward", "forecast/up_share", "forecast/accuracy", "completions/useful_token_share"):
        shown = [event.value for event in board.Scalars(f"train/{name}")]
        assert shown == pytest.approx([line[name] for line in metrics if name in line])


@pytest.mark.parametrize(("steps", "logged"), [(1, [1]), (7, [5, 7]), (5, [5])])
def test_the_last_steps_are_logged_though_logging_steps_does_not_divide_them(
    steps, logged, tiny_model_folder, tmp_path, stonk
):
    few = ["--max_steps", steps, "--logging_steps", 5]
    stonk("grpo", *STAGE1, *few, "--model", tiny_model_folder, "--out", tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "loss" in line] == logged
