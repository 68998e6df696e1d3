import json
from types import SimpleNamespace

import pytest
from scored_answers import answer, hand_over
from transformers import TrainerControl, TrainerState

from stonk_trainer.task import market_statistics
from stonk_trainer.training.callbacks import AdaptiveKL, MarketStatistics, RunLog

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
