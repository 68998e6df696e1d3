import json
import logging
import math
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from stonk_trainer.recipe import GRPORun
from stonk_trainer.training.callbacks import AdaptiveKL, MarketStatistics, Milestone, RunLog, market_statistics


def answer(label="UP", direction="UP", step=1, total=0.9, coherence=0.9, **columns):
    """One scored completion, as `ScoredGRPOTrainer` hands it over."""
    forecast = {"label": label, "direction": direction, "confidence": 0.6, "move": None, "next_return": 0.01}
    rewards = {"accuracy": float(label == direction), "coherence": coherence}
    return {
        "step": step,
        "ticker": "A",
        **forecast,
        **columns,
        "rewards": rewards,
        "total": total,
        "completion": "text",
    }


def hand_over(callback, records, step=0, training=True):
    callback.on_completions(None, TrainerState(global_step=step), TrainerControl(), records, training)


# ---------------------------------------------------------------------------------------------- market statistics

HAND_MADE = (
    [answer("UP", "UP")] * 3
    + [answer("UP", "DOWN")] * 2
    + [answer("UP", None)]
    + [answer("DOWN", "UP")] * 1
    + [answer("DOWN", "DOWN")] * 2
    + [answer("DOWN", None)]
)


def test_market_statistics_of_hand_made_answers():
    assert market_statistics(HAND_MADE) == {
        "examples": {"total": 10, "up": 6, "down": 4},
        "predictions": {"up": 4, "down": 4, "unreadable": 2},
        "correct": {"up": 3, "down": 2},
        "accuracy": 0.5,
        "up_accuracy": 0.5,
        "down_accuracy": 0.5,
        "actual_up_rate": 0.6,
        "predicted_up_rate": 0.5,
        "gap": pytest.approx(-0.1),
    }


@pytest.mark.parametrize("records", [[], [answer("UP", None)], [answer("DOWN", "UP")]])
def test_market_statistics_have_no_rate_without_a_denominator(records):
    result = market_statistics(records)
    assert (result["accuracy"] is None) is (not records)
    assert (result["up_accuracy"] is None) is (result["examples"]["up"] == 0)
    assert (result["down_accuracy"] is None) is (result["examples"]["down"] == 0)
    readable = result["predictions"]["up"] + result["predictions"]["down"]
    assert (result["gap"] is None) is (result["predicted_up_rate"] is None) is (readable == 0)
    json.dumps(result)


def test_market_stats_json_holds_all_answers_and_the_last_of_them(tmp_path):
    statistics = MarketStatistics(tmp_path / "training_log.jsonl", window=4)
    hand_over(statistics, HAND_MADE[:6])
    hand_over(statistics, [{**record, "step": 2} for record in HAND_MADE[6:]])
    hand_over(statistics, [answer()] * 50, training=False)  # validation does not count
    stats = json.loads((tmp_path / "market_stats.json").read_text())
    assert stats["step"] == 2
    assert stats["overall"] == json.loads(json.dumps(market_statistics(HAND_MADE)))
    assert stats["window"] == {"size": 4, **json.loads(json.dumps(market_statistics(HAND_MADE[-4:])))}


# -------------------------------------------------------------------------------------------------------- run log


def test_a_line_holds_the_row_the_forecast_each_reward_and_the_text(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.on_train_begin(None, TrainerState(), TrainerControl())
    hand_over(log, [answer(step=1), answer(step=1, direction=None)])
    hand_over(log, [answer(step=1)], training=False)
    first, second = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert first == {
        "step": 1,
        "ticker": "A",
        "label": "UP",
        "direction": "UP",
        "confidence": 0.6,
        "move": None,
        "next_return": 0.01,
        "accuracy": 1.0,
        "coherence": 0.9,
        "total": 0.9,
        "completion": "text",
    }
    assert second["direction"] is None


def written_log(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.on_train_begin(None, TrainerState(), TrainerControl())
    for step in (1, 2, 3, 4):
        hand_over(log, [answer(step=step, direction="UP" if step < 4 else "DOWN")] * 2)
    return log


def test_a_resumed_run_drops_the_lines_after_its_checkpoint_and_goes_on(tmp_path):
    log = written_log(tmp_path)
    RunLog(log.path).on_train_begin(None, TrainerState(global_step=2), TrainerControl())
    hand_over(log, [answer(step=3)])
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 1, 2, 2, 3]


def test_a_fresh_run_starts_a_fresh_log(tmp_path):
    log = written_log(tmp_path)
    log.on_train_begin(None, TrainerState(), TrainerControl())
    assert log.path.read_text() == ""


def test_a_resumed_run_takes_up_the_statistics_of_the_lines_it_keeps(tmp_path):
    log = written_log(tmp_path)
    state = TrainerState(global_step=3)
    statistics = MarketStatistics(log.path, window=100)
    for callback in (RunLog(log.path), statistics):
        callback.on_train_begin(None, state, TrainerControl())
    hand_over(statistics, [answer(step=4, direction="DOWN")])
    overall = json.loads((tmp_path / "market_stats.json").read_text())["overall"]
    assert overall["predictions"] == {"up": 6, "down": 1, "unreadable": 0}


# ------------------------------------------------------------------------------------------------------ milestone

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
    judge = Milestone(GRPORun(**keys), tmp_path)
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


# ----------------------------------------------------------------------------------------------------- adaptive KL


@pytest.mark.parametrize(
    "kl, factor",
    [(0.1, 1.0), (0.11, 1.01), (0.09, 0.99), (0.12, 1.02), (5.0, 1.02), (0.0, 0.98)],
)
def test_beta_follows_the_proportional_controller(kl, factor):
    """Ziegler et al. 2019, section 2.2: beta times 1 + 0.1 clip(kl / target - 1, -0.2, 0.2)."""
    trainer, logs = SimpleNamespace(beta=0.05), {"kl": kl}
    state = TrainerState(log_history=[dict(logs)])  # the trainer keeps a log before it tells of it
    AdaptiveKL(trainer, target=0.1).on_log(None, state, TrainerControl(), logs=logs)
    assert trainer.beta == pytest.approx(0.05 * factor)
    assert logs["beta"] == trainer.beta


@pytest.mark.parametrize("logs", [None, {}, {"loss": 1.0}, {"kl": None}])
def test_beta_stays_when_no_kl_was_logged(logs):
    trainer = SimpleNamespace(beta=0.05)
    AdaptiveKL(trainer, target=0.1).on_log(None, TrainerState(), TrainerControl(), logs=logs)
    assert trainer.beta == 0.05
