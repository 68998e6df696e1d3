import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.answer import Forecast, Unreadable, parse


@pytest.mark.parametrize(
    "text, direction, confidence, move, reasoning",
    [
        (
            "<think>\nIt rose.\n</think>\nPrediction: UP\nExpected move: 1.2%\nConfidence: 63%",
            "UP",
            0.63,
            0.012,
            "It rose.",
        ),
        (
            "Model Prediction: DOWN\nConfidence: 87%\nReasoning: It fell.\nA lot.",
            "DOWN",
            0.87,
            None,
            " It fell.\nA lot.",
        ),
        ("Model Prediction: UP / Confidence: 87% / Reasoning: P/E of 28.4", "UP", 0.87, None, "P/E of 28.4"),
        ("<think>It rose.</think><confidence>75%</confidence><answer>up 2.5%</answer>", "UP", 0.75, 0.025, "It rose."),
        ("Day 1: [UP] 2.5% with 75% confidence\nJustification: It rose.", "UP", 0.75, 0.025, "It rose."),
    ],
)
def test_each_dialect_is_read(text, direction, confidence, move, reasoning):
    forecast = parse(text)
    assert isinstance(forecast, Forecast)
    assert (forecast.direction, forecast.reasoning) == (direction, reasoning.strip())
    assert forecast.confidence == confidence
    assert forecast.move == move


@pytest.mark.parametrize(
    "text",
    [
        "**Prediction:** up",
        "### PREDICTION : Up.",
        "- prediction: `UP`",
        "\r\n Prediction: **UP**\r\n",
        "Prediction:\nUP",
        "It rose.</think>\nPrediction: UP",
        "Prediction: UP\nExpected move: +1.0%",
        "Prediction: UP\nFinal prediction: UP",
        "<answer>\n  UP\n</answer>",
    ],
)
def test_case_whitespace_and_markdown_do_not_matter(text):
    assert isinstance(parse(text), Forecast)
    assert parse(text).direction == "UP"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no final answer"),
        ("It will go up.", "no final answer"),
        ("Prediction: UP\nPrediction: DOWN", "two answers that disagree"),
        ("Prediction: UP\n<answer>down 1%</answer>", "two answers that disagree"),
        ("Prediction: DOWN\n<think>It rose.</think>\nPrediction: UP", "two answers that disagree"),
        ("Prediction: UP or DOWN\nExpected move: 1%\nConfidence: 60%", "not exactly one"),
        ("Prediction: UP/DOWN", "not exactly one"),
        ("<answer>up or down</answer>", "not exactly one"),
        ("Prediction: UP, or maybe not", "not exactly one"),
        ("Prediction: UP is unlikely", "not exactly one"),
        ("Prediction:", "not exactly one"),
        ("<think>Prediction: UP</think>", "no final answer"),
        ("Prediction: UP\n<think>It rose.</think>", "before the thought"),
        ("<think>It rose.\nPrediction: UP", "unclosed <think>"),
        ("<think>a</think>Prediction: UP<think>", "unclosed <think>"),
        ("</think>Prediction: UP<think>", "unclosed <think>"),
        ("<think>a</think><think>b</think>Prediction: UP", "more than one thought"),
        ("Prediction: UP\nConfidence: 101%", "outside"),
        ("Prediction: UP\nConfidence: -1%", "outside"),
        ("Prediction: UP\nConfidence: high", "not a number"),
        ("Prediction: UP\nConfidence: 60%\nConfidence: 70%", "two confidences"),
        ("Prediction: UP\nExpected move: -1.2%", "contradicts"),
        ("<answer>down +2%</answer>", "contradicts"),
        ("Prediction: UP\nExpected move: 1%\nExpected move: 2%", "two expected moves"),
        ("Prediction: UP\nExpected move: $1", "not a percentage"),
        ("Prediction: U\u0420", "not exactly one"),  # Cyrillic Er
        ("\u0420rediction: UP", "no final answer"),
        ("Prediction: UP\nConfidence: \uff16\uff13%", "not a number"),  # full-width digits
    ],
)
def test_anything_but_one_final_answer_is_unreadable(text, reason):
    answer = parse(text)
    assert isinstance(answer, Unreadable)
    assert reason in answer.reason


def test_a_number_without_a_percent_sign_is_a_probability_up_to_one_and_a_percentage_above():
    assert parse("Prediction: UP\nConfidence: 0.63").confidence == pytest.approx(0.63)
    assert parse("Prediction: UP\nConfidence: 63").confidence == pytest.approx(0.63)


def test_the_size_of_a_signed_move_that_agrees_is_its_magnitude():
    assert parse("Prediction: DOWN\nExpected move: -1.2%").move == pytest.approx(0.012)


@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        " ",
        "<think>",
        "</think>",
        "<answer>",
        "Prediction: ",
        "\nPrediction: UP",
        "/ Confidence:",
        "/ ",
        "my ",
        "9",
        "up ",
        "*",
        "\u0410",
    ],
)
def test_a_megabyte_of_hostile_text_takes_less_than_a_second(unit):
    for text in (unit * (1_000_000 // len(unit)), "Prediction: UP" + unit * (1_000_000 // len(unit))):
        start = time.process_time()
        parse(text)
        assert time.process_time() - start < 1


@given(st.text(alphabet="<>/think answer:UPDOWNpredictionconfidence 0123.%\n-+[]", max_size=200))
def test_any_text_gives_a_forecast_in_range_or_a_reason(text):
    answer = parse(text)
    if isinstance(answer, Forecast):
        assert answer.direction in ("UP", "DOWN")
        assert answer.confidence is None or 0 <= answer.confidence <= 1
        assert answer.move is None or answer.move >= 0
    else:
        assert answer.reason
