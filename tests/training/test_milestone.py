import json
import logging
import math

import pytest
from scored_answers import answer, hand_over
from transformers import TrainerControl, TrainerState

from stonk_trainer.recipe import GRPORun
from stonk_trainer.tasks.stocks import Stocks, StocksArguments
from stonk_trainer.training.milestone import Milestone

GOOD = [answer()] * 9 + [answer(direction="DOWN")]  # accuracy 0.9, reward 0.9, coherence 0.9


@pytest.fixture
def messages():
    """What the package says while a test runs."""

    class Keep(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())

    texts, keep, logger = [], Keep(), logging.getLogger("stonk_trainer")
    level = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    yield texts
    logger.removeHandler(keep)
    logger.setLevel(level)


def milestone(tmp_path, evaluations, losses=(0.01, 0.02), **keys):
    """A milestone after these training losses and evaluations, the run's end, and the control it was given."""
    thresholds = {key: keys.pop(key) for key in list(keys) if key in ("milestone_accuracy", "milestone_reward")}
    judge = Milestone(Stocks(StocksArguments(**thresholds)), GRPORun(**keys), tmp_path)
    control = TrainerControl()
    judge.on_train_begin(None, TrainerState(), control)
    for loss in losses:
        judge.on_log(None, TrainerState(), control, logs={"loss": loss})
    for number, records in enumerate(evaluations, start=1):
        hand_over(judge, [answer(total=0.0, direction="DOWN")] * 5, training=True)  # training is not judged
        hand_over(judge, records, training=False)
        judge.on_evaluate(None, TrainerState(global_step=10 * number), control)
    judge.on_train_end(None, TrainerState(), control)
    return judge, control


def test_two_good_evaluations_in_a_row_reach_the_milestone_and_leave_the_evidence(tmp_path, messages):
    judge, control = milestone(tmp_path, [GOOD, GOOD])
    assert judge.reached and control.should_training_stop is False
    evidence = json.loads((tmp_path / "milestone.json").read_text())
    assert evidence["step"] == 20
    assert evidence["thresholds"] == {"reward": 0.8, "accuracy": 0.8, "coherence": 0.7}
    assert [e["step"] for e in evidence["evaluations"]] == [10, 20]
    for evaluation in evidence["evaluations"]:
        assert evaluation["completions"] == 10
        assert [evaluation[k] for k in ("reward", "accuracy", "coherence")] == [pytest.approx(0.9)] * 3
    assert evidence["losses"] == [0.01, 0.02]
    assert any("milestone reached at step 20" in text for text in messages)
    assert not any("not reached" in text for text in messages)


def test_the_run_ends_at_the_milestone_when_asked_to(tmp_path):
    _, control = milestone(tmp_path, [GOOD, GOOD], stop_at_milestone=True)
    assert control.should_training_stop is True
    _, control = milestone(tmp_path, [GOOD], stop_at_milestone=True)
    assert control.should_training_stop is False


@pytest.mark.parametrize(
    "evaluations, losses, missing",
    [
        ([GOOD], (0.01,), "2 evaluations (there were 1)"),
        ([GOOD, [answer(total=0.8)] * 10], (0.01,), "reward above 0.8"),
        ([GOOD, GOOD[:4] + [answer(direction="DOWN")]], (0.01,), "accuracy above 0.8"),
        ([GOOD, [answer(direction=None)] * 5 + [answer()] * 5], (0.01,), "accuracy above 0.8"),
        ([GOOD, [answer(coherence=0.7)] * 10], (0.01,), "coherence above 0.7"),
        ([GOOD, GOOD], (-2.0, 2.0), "a steady loss"),
        ([GOOD, GOOD], (0.01, math.nan), "a steady loss"),
        ([GOOD, GOOD], (), "a steady loss"),
    ],
)
def test_a_milestone_that_is_not_reached_says_what_is_missing(tmp_path, messages, evaluations, losses, missing):
    judge, control = milestone(tmp_path, evaluations, losses, stop_at_milestone=True)
    assert not judge.reached and not control.should_training_stop
    assert not (tmp_path / "milestone.json").exists()
    assert "milestone not reached" in messages[-1] and missing in messages[-1].split("missing:")[1]


def test_a_coin_with_perfect_form_does_not_reach_it(tmp_path):
    """All it earns in Stage I is half of the accuracy, 0.3, and all of data usage and coherence, 0.4."""
    coin = [answer(total=1.0, coherence=1.0), answer(total=0.4, coherence=1.0, direction="DOWN")] * 64
    assert not milestone(tmp_path, [coin] * 10)[0].reached
    assert not milestone(tmp_path, [coin] * 10, milestone_accuracy=0.0)[0].reached  # its reward alone is too low


def test_the_good_evaluations_must_be_consecutive(tmp_path):
    bad = [answer(direction="DOWN", total=0.1)] * 10
    assert not milestone(tmp_path, [GOOD, bad, GOOD])[0].reached
    assert milestone(tmp_path, [bad, GOOD, GOOD])[0].reached


def test_thresholds_are_recipe_keys(tmp_path):
    assert not milestone(tmp_path, [GOOD, GOOD], milestone_accuracy=0.95)[0].reached
    assert milestone(tmp_path, [GOOD], milestone_evaluations=1)[0].reached
    assert milestone(tmp_path, [GOOD, GOOD], losses=(-2.0, 2.0), milestone_loss_std=3.0)[0].reached


def test_a_reward_the_recipe_leaves_out_is_not_asked_for(tmp_path):
    without = [{**record, "rewards": {"accuracy": 1.0}} for record in GOOD]
    assert milestone(tmp_path, [without, without])[0].reached


def test_a_run_without_evaluation_says_that_the_milestone_was_not_judged(tmp_path, messages):
    milestone(tmp_path, [])
    assert "not judged" in messages[-1]


def test_a_fresh_run_removes_the_milestone_of_an_earlier_one(tmp_path):
    milestone(tmp_path, [GOOD, GOOD])
    milestone(tmp_path, [GOOD])
    assert not (tmp_path / "milestone.json").exists()
