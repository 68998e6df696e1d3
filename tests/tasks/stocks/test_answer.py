import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.answer import LONGEST, parse

FORM = """<think>
The week was weak.
</think>
Evidence:
- 5-day change | -1.77% | DOWN
- Headline 2 | "raises guidance" | UP

Prediction: DOWN
Expected move: 0.9%
Confidence: 62%"""


def test_the_form_is_read_with_its_thought_and_evidence():
    answer = parse(FORM)
    assert (answer.direction, answer.confidence, answer.move) == ("DOWN", 0.62, pytest.approx(0.009))
    assert answer.thought == "The week was weak."
    assert answer.lines == ("- 5-day change | -1.77% | DOWN", '- Headline 2 | "raises guidance" | UP')


@pytest.mark.parametrize(
    "text, direction, confidence, move, thought",
    [
        (
            "Model Prediction: DOWN\nConfidence: 87%\nReasoning: It fell.\nA lot.",
            "DOWN",
            0.87,
            None,
            "It fell.\nA lot.",
        ),
        ("Model Prediction: UP / Confidence: 87% / Reasoning: P/E of 28.4", "UP", 0.87, None, "P/E of 28.4"),
        ("<think>It rose.</think><confidence>75%</confidence><answer>up 2.5%</answer>", "UP", 0.75, 0.025, "It rose."),
        ("Day 1: [UP] 2.5% with 75% confidence\nJustification: It rose.", "UP", 0.75, 0.025, "It rose."),
    ],
)
def test_each_older_dialect_is_read(text, direction, confidence, move, thought):
    answer = parse(text)
    assert (answer.direction, answer.confidence, answer.move) == (direction, confidence, move)
    assert answer.thought == thought and answer.lines is None


@pytest.mark.parametrize(
    "text",
    [
        FORM.replace("Evidence:", "Facts:"),
        FORM.replace("Evidence:\n", "Evidence: as follows\n"),
        FORM.replace("Evidence:", "Evidence:\nEvidence:"),
        FORM.replace("Evidence:", "Evidence:\n- Close | $1 | UP\nEVIDENCE:"),
        FORM.replace("</think>\nEvidence:", "Evidence:").replace("\nPrediction", "\n</think>\nPrediction"),
        "Prediction: UP\nEvidence:\n- Close | $1 | UP",
        "Confidence: 60%\nEvidence:\n- Close | $1 | UP\nPrediction: UP",
    ],
)
def test_evidence_is_what_lies_between_its_one_heading_and_the_first_field_of_the_answer(text):
    answer = parse(text)
    assert answer.direction and answer.lines is None


def test_evidence_may_be_empty_and_stands_in_every_dialect():
    assert parse("Evidence:\nPrediction: UP").lines == ()
    tags = "<think>It rose.</think>\n**Evidence:**\n- Close | $1 | UP\n<confidence>75%</confidence><answer>up</answer>"
    assert parse(tags).lines == ("- Close | $1 | UP",)
    assert parse(tags).thought == "It rose."


def test_prose_outside_evidence_and_fields_belongs_to_the_thought():
    text = "First.\n" + FORM.replace("Evidence:", "Before it.\nEvidence:") + "\nReasoning: after it."
    assert parse(text).thought == "First.\nThe week was weak.\nBefore it.\n after it."


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
        ("Prediction: UP\n<think>It rose.</think>", "comes before the thought"),
        ("<think>It rose.\nPrediction: UP", "unclosed <think>"),
        ("<think>a</think>Prediction: UP<think>", "unclosed <think>"),
        ("</think>Prediction: UP<think>", "unclosed <think>"),
        ("<think>a</think><think>b</think>Prediction: UP", "more than one thought"),
        ("Prediction: UP\nExpected move: \u22121.2%", "contradicts"),
        ("x" * (LONGEST + 1) + "\nPrediction: UP", "longer than 50,000 characters"),
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
    assert answer.direction is None
    assert reason in answer.problem


@pytest.mark.parametrize(
    "text, confidence, move",
    [
        ("Prediction: DOWN\nExpected move: \u22121.2%\nConfidence: 63%", 0.63, 0.012),
        ("Prediction: DOWN\nExpected move: -1.2%", None, 0.012),
        ("Prediction: DOWN\nExpected move: 1.2 percent\nConfidence: 63 percent", 0.63, 0.012),
        ("1. Prediction: DOWN\n2) Expected move: 1.2%\n(3) Confidence: 63%", 0.63, 0.012),
        ("\u2022 Prediction: DOWN\n\u2022 Confidence: 63%", 0.63, None),
        ("Prediction\uff1aDOWN\nConfidence\uff1a63\uff05", 0.63, None),
        ("Prediction: DOWN (63% confidence)", 0.63, None),
        ("Prediction: DOWN (confidence: 63%)", 0.63, None),
        ("Prediction: DOWN, 63 % confident", 0.63, None),
        ("Prediction: [DOWN]\nExpected move: (1.2%)\nConfidence: [63%]", 0.63, 0.012),
        ("Prediction: DOWN\nConfidence: 63%<|im_end|>", 0.63, None),
        ("Prediction: DOWN\nConfidence: 63%\n<|eot_id|></s>", 0.63, None),
        ("Prediction: DOWN\nConfidence: 0.63", 0.63, None),
        ("Prediction: DOWN\nConfidence: 63", 0.63, None),
    ],
)
def test_other_spellings_are_read(text, confidence, move):
    assert parse(text)[:3] == ("DOWN", confidence, move)


@pytest.mark.parametrize("stated", ["8", "0.63%", "49%", "101%", "-1%", "0.2"])
@pytest.mark.parametrize("form", ["Prediction: UP\nConfidence: {}", "<confidence>{}</confidence><answer>up</answer>"])
def test_a_confidence_outside_50_to_100_percent_is_not_taken(stated, form):
    answer = parse(form.format(stated))
    assert answer.direction == "UP" and answer.confidence is None
    assert "not between 50% and 100%" in answer.remark


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
def test_hostile_text_is_read_in_linear_time(unit):
    for length in (LONGEST - 20, 1_000_000):
        for text in (unit * (length // len(unit)), "Prediction: UP" + unit * (length // len(unit))):
            start = time.process_time()
            parse(text)
            assert time.process_time() - start < 1


@given(st.text(alphabet="<>/think answer:UPDOWNpredictionconfidence 0123.%\n-+[]|Evd", max_size=200))
def test_any_text_gives_a_forecast_in_range_or_a_reason(text):
    answer = parse(text)
    if answer.direction:
        assert answer.direction in ("UP", "DOWN") and answer.problem is None
        assert answer.confidence is None or 0.5 <= answer.confidence <= 1
        assert answer.move is None or answer.move >= 0
    else:
        assert answer.problem
