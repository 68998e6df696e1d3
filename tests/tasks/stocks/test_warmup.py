import json
import statistics

import pytest

from stonk_trainer.tasks.stocks import Stocks, StocksArguments
from stonk_trainer.tasks.stocks.answer import parse
from stonk_trainer.tasks.stocks.rewards import score
from stonk_trainer.tasks.stocks.warmup import warmup_rows

pytestmark = pytest.mark.slow

# The default prompt, and the short one of the demo recipes.
PROMPTS = {
    "full": StocksArguments(max_train_samples=2500),
    "short": StocksArguments(max_train_samples=2500, history_days=0, indicators=["change_1d", "change_5d", "sma_20"]),
}
BARE = StocksArguments(max_train_samples=20, history_days=0, indicators=[])  # nothing but a close


def task(**options):
    """The stocks task with these arguments."""
    return Stocks(StocksArguments(**options))


@pytest.fixture(scope="module", params=PROMPTS)
def rows(request):
    return list(Stocks(PROMPTS[request.param]).rl_dataset("train"))


@pytest.fixture(scope="module")
def texts(rows):
    return texts_of(rows)


def texts_of(rows, seed=42):
    return [row["completion"][0]["content"] for row in warmup_rows(rows, seed)]


def direction(text):
    return parse(text).direction


def test_every_text_is_a_complete_forecast(texts):
    for text in texts:
        answer = parse(text)
        assert answer.direction in ("UP", "DOWN"), text
        assert 0.5 < answer.confidence <= 0.7 and answer.move > 0
        assert text.startswith("<think>\n") and answer.thought and answer.lines


def test_every_text_earns_everything_by_our_own_rewards(rows, texts):
    for text, row in zip(texts, rows, strict=True):
        result = score(text, row, evidence="required")
        assert (result["data_usage"], result["coherence"], result["invented"]) == (1, 1, []), text


def test_the_texts_are_three_or_four_lines_from_both_sides(texts):
    lines = [parse(text).lines for text in texts]
    assert {len(found) for found in lines} <= {2, 3, 4}  # 2 where the prompt shows no more
    assert statistics.fmean(len(found) > 2 for found in lines) > 0.99
    sides = [{line.rpartition(" | ")[2] for line in found} for found in lines]
    assert statistics.fmean({"UP", "DOWN"} <= found for found in sides) > 0.2


def test_sides_follow_the_signs_or_all_turn_round_under_a_thought_that_says_so(texts):
    for text in texts:
        changes = [line for line in parse(text).lines if "change |" in line and "+0.00%" not in line]
        follows = {(" | +" in line) == line.endswith("UP") for line in changes if not line.endswith("NEUTRAL")}
        assert len(follows) <= 1, text
        assert follows <= {"overdone" not in text}, text


def test_headlines_are_quoted(write_rows, deepstock_rows):
    rows = list(task(dataset_name=write_rows(deepstock_rows(days=120)), history_days=0).rl_dataset("train"))
    texts = texts_of(rows)
    assert any('| "Analysts see item' in text for text in texts)
    assert all(score(text, row, evidence="required")["grounded"] == 1 for text, row in zip(texts, rows, strict=True))


def test_the_direction_says_nothing_about_the_outcome(rows, texts):
    """2500 fair coins agree with anything in 50% ± 3% of the cases (three standard errors)."""
    directions = [direction(text) for text in texts]
    agreement = statistics.fmean(d == row["label"] for d, row in zip(directions, rows, strict=True))
    assert len(rows) == 2500 and agreement == pytest.approx(0.5, abs=0.03)
    assert statistics.fmean(d == "UP" for d in directions) == pytest.approx(0.5, abs=0.03)


def test_the_direction_says_nothing_about_the_last_change(rows, texts):
    changes = [next((f["value"] for f in json.loads(row["facts"]) if f["name"] == "change_1d"), 0) for row in rows]
    agreement = [(direction(text) == "UP") == (c > 0) for text, c in zip(texts, changes, strict=True) if c]
    assert statistics.fmean(agreement) == pytest.approx(0.5, abs=0.035)


def test_flipped_labels_give_the_same_texts(rows, texts):
    flipped = [
        {**row, "label": "UP" if row["label"] == "DOWN" else "DOWN", "next_return": -10 * row["next_return"]}
        for row in rows
    ]
    assert texts_of(flipped) == texts


def test_the_confidence_and_the_move_say_nothing_about_the_outcome(rows, texts):
    confidence = [parse(text).confidence for text in texts]
    right = [direction(text) == row["label"] for text, row in zip(texts, rows, strict=True)]
    assert abs(statistics.correlation(confidence, [float(r) for r in right])) < 0.06  # 3 / sqrt(2500)


def test_texts_vary_and_depend_on_the_seed_only(rows, texts):
    some = rows[:200]
    assert texts_of(some) == texts[:200]
    assert sum(a != b for a, b in zip(texts_of(some, seed=1), texts, strict=False)) > 150
    assert texts_of(some[::-1]) == texts[:200][::-1]


def test_a_row_with_nothing_but_a_close_still_gets_an_answer_that_earns_everything():
    rows = list(Stocks(BARE).rl_dataset("train"))
    for text, row in zip(texts_of(rows), rows, strict=True):
        result = score(text, row, evidence="required")
        assert (result["data_usage"], result["coherence"]) == (1, 1)


def test_the_dataset_of_the_task_is_these_texts():
    args = StocksArguments(max_train_samples=20)
    data = Stocks(args).sft_dataset("train")
    assert set(data.column_names) == {"prompt", "completion"}
    assert [c[0]["content"] for c in data["completion"]] == texts_of(list(Stocks(args).rl_dataset("train")))
    assert data[0]["completion"][0]["role"] == "assistant"
