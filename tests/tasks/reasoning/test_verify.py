import time

import pytest

from stonk_trainer.tasks.reasoning.verify import boxed, final_answer, is_correct, is_in_form, reward_functions

RIGHT_MATH = [
    ("42", "42"),
    (r"\boxed{42}", "42"),
    ("The answer is 42.", "42"),
    ("The answer is $42$ dollars.", "42"),
    ("#### 1,234", "1234"),
    (r"\boxed{1,234}", "1234"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{42\text{ km}}", "42"),
    (r"\boxed{\frac{84}{2}}", "42"),
    (r"\boxed{0.5}", r"\frac{1}{2}"),
    (r"\boxed{-3}", "-3"),
    ("The answer is −3", "-3"),
    ("so 3+4=7.\nAnswer: 7 apples", "7"),
    ("<answer>7</answer>", "7"),
    ("The answer is $18,000.00.", "18000"),
    ("Final answer: x = 5", "5"),
    (r"The answer is $\boxed{5}$.", "5"),
    ("the answer is 3.5", "3.5"),
    ("the answer is 5%", "5"),
    (r"The answer: \frac{3}{4}", "3/4"),
    ("Answer:\n42", "42"),
    ("**Answer:** 42", "42"),
    ("**Final Answer**\n\n\\boxed{42}", "42"),
    (r"\boxed{\sqrt{18}}", r"3\sqrt{2}"),
    (r"\boxed{1+x^2}", "x^2+1"),
    (r"\boxed{(1, 2)}", "(1,2)"),
    (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"),
    ("<think>\\boxed{1}, or perhaps \\boxed{2}</think>\n\\boxed{42}", "42"),
    ("<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>\\boxed{42}<|end_of_solution|>", "42"),
]
WRONG_MATH = [
    ("", "42"),
    ("<think>\\boxed{42}", "42"),
    ("<think>\\boxed{42}</think>", "42"),
    ("<think>it is \\boxed{42}</think> I do not know", "42"),
    ("42 or 43", "42"),
    (r"\boxed{42, 43}", "42"),
    (r"\boxed{42} or \boxed{43}", "42"),
    ("the answer is 42 or 43", "42"),
    (r"\boxed{-3}", "3"),
    (r"\boxed{42.5}", "42"),
    (r"\boxed{420}", "42"),
    ("The answer is 4", "42"),
    ("first 42, and then some other words that go on", "42"),
    ("the answer is 1/2", "1"),
    ("the answer is 3 to 4", "3"),
    ("Answer: 1 2 3", "1"),
    ("<|begin_of_solution|>\\boxed{42}", "42"),
]
RIGHT_CHOICE = [
    "B",
    "(b)",
    "B.",
    "Answer: B",
    "**Answer: B**",
    "Answer: **B**",
    "The answer is (B).",
    "The correct answer is B) Paris",
    "The final answer is: B. Paris",
    "The answer is B, because of it",
    "The answer is B because A is wrong",
    "The correct option is B",
    r"\boxed{B}",
    r"$\boxed{\text{B}}$",
    r"\boxed{\text{(B)}}",
    "<think>A is wrong. The answer is C? No.</think>\n\n\\boxed{B}",
    "<answer>B</answer>",
]
WRONG_CHOICE = [  # none of these says A
    "a stray a here, the answer is unknown",
    "The answer is a mystery",
    "A or B",
    "The answer is A or B",
    "Answer: A, B, C, D",
    "Answer: A B C D",
    "A cat sat on a mat",
    r"\boxed{A} \boxed{B}",
    "The answer is B. No wait, the answer is A.",
    "The answer is D because A is wrong",
    "<think>\\boxed{A}</think> I do not know",
    "Answers vary",
    "",
]


@pytest.mark.parametrize("text, target", RIGHT_MATH)
def test_a_right_number_or_expression_is_accepted_in_every_form_of_a_final_answer(text, target):
    assert is_correct(text, target, "math")


@pytest.mark.parametrize("text, target", WRONG_MATH)
def test_a_wrong_unsure_or_unstated_result_is_rejected(text, target):
    assert not is_correct(text, target, "math")


@pytest.mark.parametrize("text", RIGHT_CHOICE)
def test_a_letter_stated_as_the_final_answer_is_read(text):
    assert is_correct(text, "B", "choice")
    assert not any(is_correct(text, other, "choice") for other in "ACDE")


@pytest.mark.parametrize("text", WRONG_CHOICE)
def test_a_stray_letter_is_no_answer(text):
    assert not is_correct(text, "A", "choice")


def test_boxes_are_read_with_their_braces_and_only_the_outer_of_two():
    assert boxed(r"\boxed{\frac{1}{2}} and \boxed{\text{a \boxed{3}}}, \boxed{open") == [
        r"\frac{1}{2}",
        r"\text{a \boxed{3}}",
    ]


def test_two_equal_answers_are_one():
    assert final_answer(r"\boxed{7}. So \boxed{7}.") == "7"


@pytest.mark.parametrize(
    "text, good",
    [
        ("<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}", True),
        ("<think></think>\n\\boxed{2}", False),
        ("\\boxed{2}", False),
        ("so <think>1</think>\\boxed{2}", False),
        ("<think>1</think><think>2</think>\\boxed{2}", False),
        ("<think>1</think>", False),
        ("<think>1</think>I know it.", True),  # one short line is an answer
        ("<think>1</think>I know it, but I will not tell you what it is, ever.", False),
    ],
)
def test_the_form_is_one_thought_then_one_final_answer(text, good):
    assert is_in_form(text) == good


def test_rewards_are_those_asked_for_in_their_order():
    rewards = reward_functions(["format", "accuracy", "overlong"], 10, 4)
    assert [reward.__name__ for reward in rewards] == ["format", "accuracy", "overlong"]
    completions = [[{"role": "assistant", "content": "<think>2+2</think>\n\\boxed{4}"}], "\\boxed{4}", "\\boxed{5}"]
    columns = {"target": ["4"] * 3, "verifier": ["math"] * 3, "completion_ids": [[0] * 6, [0] * 8, [0] * 11]}
    assert [reward(completions, **columns) for reward in rewards] == [[1, 0, 0], [1, 1, 0], [0, -0.5, -1]]


def test_an_unknown_verifier_is_an_error():
    with pytest.raises(ValueError, match="no verifier 'maths'"):
        is_correct("4", "4", "maths")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 150_000,
        "answer is " * 100_000,
        "<answer>" * 130_000,
        "####\n" * 200_000,
        "(" * 1_000_000,
        "<think>" * 150_000,
        r"\boxed{9^{9^{9^{9^9}}}}",
        r"\boxed{2^{99999999}}",
        r"\boxed{99999999!}",
        "\\boxed{" + "(" * 390 + "}",
        "\\boxed{" + "(" * 150 + "1" + ")" * 150 + "}",
    ],
)
def test_hostile_text_costs_no_time(text):
    started = time.process_time()
    assert not is_correct(text, "42", "math") and not is_correct(text, "A", "choice")
    assert time.process_time() - started < 2
