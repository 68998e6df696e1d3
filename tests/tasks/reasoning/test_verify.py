import json
import time

import pytest

from stonk_trainer.tasks.reasoning import values
from stonk_trainer.tasks.reasoning.statements import boxed
from stonk_trainer.tasks.reasoning.validate_verifier import lookalikes
from stonk_trainer.tasks.reasoning.verify import final_answer, is_correct, is_in_form, reward_functions

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


# Kinds of faults that people report of verifiers, several of each.
RIGHT_MATH += [
    ("The answer is 7 the answer is 7", "7"),
    ("Answer: 7 Answer: 7", "7"),
    ("\\boxed{\\frac{1}{2^{61}}}", "2^{-61}"),
    ("\\boxed{3^{100}}", "3^{100}"),
    ("\\boxed{1, 2, \\ldots, n}", "1,2,\\ldots,n"),
    ("### Final Answer\n\n15", "15"),
    ("**Final answer:**\n\n**15**", "15"),
    ("# Answer\n15", "15"),
    ("Final Answer:\n$$15$$", "15"),
    ("✅ **Answer:** 15", "15"),
    ("> **Answer:** `15`", "15"),
    ("__Answer__: 15", "15"),
    ("*The answer is* *15*", "15"),
    ("The **final answer** is **15**.", "15"),
    ("**The answer is 15**", "15"),
    ("**The answer is 15.**", "15"),
    ('The answer is "15".', "15"),
    ("The answer is '15'", "15"),
    ("The answer is ***15*** apples.", "15"),
    ("The answer is: **15 apples**", "15"),
    ("\\boxed{3sqrt(5)}", "3\\sqrt{5}"),
    ("\\boxed{sqrt(2)/2}", "\\frac{\\sqrt{2}}{2}"),
    ("\\boxed{3*pi}", "3\\pi"),
    ("\\boxed{2\\pi/3}", "\\frac{2\\pi}{3}"),
    ("\\boxed{7\\text{ dozen}}", "84"),
    ("\\boxed{4+\\mathrm{i}}", "4+i"),
    ("\\boxed{3-2i}", "3-2i"),
    ("The answer is 6 million", "6000000"),
    ("The answer is 6 million dollars.", "6000000"),
    ("The answer is $6 million", "6,000,000"),
    ("\\boxed{2.5\\text{ million}}", "2500000"),
    ("The answer is 5k", "5000"),
    ("The answer is $3.2 billion.", "3200000000"),
    ("\\boxed{3 \\text{ hundred}}", "300"),
    ("The answer is 3 hundred thousand", "300000"),
    ("\\boxed{7} and so \\boxed{7.00}", "7"),
    ("\\boxed{\\frac12} = \\boxed{0.5}", "1/2"),
    ("The answer is 7. Hence the answer is 7.0.", "7"),
    ("\\boxed{31_{5}}", "31_5"),
    ("\\boxed{16}", "31_5"),
    ("\\boxed{1101_2}", "13"),
    ("\\boxed{2A_{16}}", "42"),
    ("The answer must be 9.", "9"),
    ("The answer will be 9", "9"),
    ("The answer would be 9 cm.", "9"),
    ("The answer equals 9", "9"),
    ("The answer to the problem is 9.", "9"),
    ("The answer = 9", "9"),
    ("Final answer - 9", "9"),
    ("Final Answer – 9", "9"),
    ("We need the answer in feet.\nThe answer is 9 feet.", "9"),
    ("The answer is 9.\nTo verify the answer, substitute x.", "9"),
    ("Answer: 9\nNote: this answer assumes no friction.", "9"),
    ("\\boxed{\\$1{,}250.50}", "1250.5"),
    ("\\boxed{25\\%}", "25"),
    ("The answer is 25 percent.", "25"),
    ("\\boxed{0.333333}", "\\frac13"),
    ("\\boxed{0.666667}", "2/3"),
    ("\\boxed{0.142857}", "1/7"),
    ("\\boxed{3\\frac{1}{4}}", "3.25"),
    ("\\boxed{3 1/4}", "13/4"),
    ("\\boxed{-2\\frac{1}{2}}", "-2.5"),
    ("\\boxed{1.2e3}", "1200"),
    ("\\boxed{1.2 \\cdot 10^{3}}", "1200"),
    ("\\boxed{6.02\\times10^{23}}", "6.02e23"),
    ("\\boxed{(2,3)}", "(2,3)"),
    ("\\boxed{\\{1,2\\}}", "\\{2,1\\}"),
    ("\\boxed{x=3}", "3"),
    ("\\boxed{3}", "x=3"),
    ("\\boxed{x\\in(0,1)}", "(0,1)"),
    ("\\boxed{x+1}", "1+x"),
    ("\\boxed{\\text{no}}", "\\text{No}"),
    ("\\boxed{10:30}", "10:30"),
    ("The answer is 12 red marbles per box.", "12"),
    ("The answer is 30 miles per hour", "30"),
    ("The answer is 8 because 3 + 5 = 8.", "8"),
    ("The answer is 8, since 3 + 5 = 8", "8"),
    ("The answer is 8 (eight).", "8"),
    ("<answer>The answer is 8</answer>", "8"),
    ("<answer>8 cm</answer>", "8"),
    ("#### 8 eggs", "8"),
    ("#### $8", "8"),
    ("#### 8.0", "8"),
    ("\\boxed{8\\text{ cm}^2}", "8"),
    ("\\boxed{8 \\text{ m/s}}", "8"),
    ("\\boxed{45^\\circ}", "45"),
    ("\\boxed{45°}", "45"),
    ("\\boxed{8 \\mathrm{~kg}}", "8"),
    ("\\boxed{3\\sqrt{2}\\text{ cm}}", "3\\sqrt{2}"),
    ("Answer： 15", "15"),
    ("The answer is １５", "15"),
]
WRONG_MATH += [
    (r"\boxed{00 {-3}! }", "1½"),
    (r"\boxed{\frac{}{2}}", "0"),
    (r"\boxed{on}", "no"),
    (r"\boxed{12:00}", "1:00"),
    (r"\boxed{3 5/4}", "4.25"),
    ("\\boxed{2^{-60}}", "2^{-61}"),
    ("\\boxed{10^{50}}", "10^{51}"),
    ("\\boxed{3^{100}+1}", "3^{100}"),
    ("\\boxed{\\frac{1}{3^{40}}}", "\\frac{1}{3^{41}}"),
    ("\\boxed{1.5\\times10^{-12}}", "1.5\\times 10^{-11}"),
    ("\\boxed{1, 2, 4, \\ldots, 2^n}", "1, 2, \\ldots, n"),
    ("\\boxed{1,2,\\dots}", "1,2"),
    ("\\boxed{3\\sqrt(5)}", "3"),
    ("\\boxed{3 \\text{ hours and } 15 \\text{ minutes}}", "3"),
    ("\\boxed{2\\text{ ft }6\\text{ in}}", "2"),
    ("\\boxed{7 x}", "7"),
    ("\\boxed{7 quarter}", "7"),
    ("\\boxed{7\\text{ dozen}}", "7"),
    ("The answer is 7 halves", "7"),
    ("The answer is 7 more than x", "7"),
    ("The answer is 7 times as many", "7"),
    ("The answer is 7 squared", "7"),
    ("The answer is 7 cos", "7"),
    ("\\boxed{3e}", "3"),
    ("\\boxed{3 i}", "3"),
    ("\\boxed{4+\\mathrm{i}}", "4"),
    ("The answer is 6 million", "6"),
    ("\\boxed{7}, \\boxed{8}", "7"),
    ("The answer is 7. So the final answer is 8", "7"),
    ("The answer is 7, no, the answer is 8.", "8"),
    ("Answer: 7; Answer: 8", "7"),
    ("\\boxed{31_5}", "31_6"),
    ("\\boxed{1101_2}", "1101"),
    ("The answer is 52_8", "52"),
    ("The answer may be 9", "9"),
    ("I think my answer of 9 needs a check by someone who has the time for it.", "9"),
    ("Answering: 9 is what many people would say here, but not all of them", "9"),
    ("\\boxed{25\\%}", "0.25"),
    ("\\boxed{0.25}", "25\\%"),
    ("\\boxed{0.3333}", "\\frac13"),
    ("\\boxed{0.14286}", "1/7"),
    ("\\boxed{0.333334}", "1/3"),
    ("\\boxed{3 5/4}", "3"),
    ("\\boxed{(2,3]}", "[2,3]"),
    ("\\boxed{2x}", "2"),
    ("\\boxed{10:30}", "9:30"),
    ("The answer is between 8 and 9", "8"),
    ("The answer is 8 and 9", "8"),
    ("The answer is 8 to 9", "8"),
    ("The answer is 8, 9", "8"),
    ("The answer is 8-9", "8"),
    ("The answer is 8/9", "8"),
    ("<answer>8</answer> <answer>9</answer>", "8"),
    ("\\boxed{\\text{eight}}", "8"),
    ("答案：15", "15"),
]
LETTERS = [
    ("Answer：B", "B"),
    ("Answer: Ｂ", "B"),
    ("The answer is （B）。", "B"),
    ("The answer is F.", "F"),
    ("\\boxed{G}", "G"),
    ("Answer: H) none", "H"),
    ("The answer is J", "J"),
    ("The answer is ‘B’.", "B"),
    ("The answer is “B”", "B"),
    ("The answer is B!", "B"),
    ("**B**", "B"),
    ("The answer is **(B)**.", "B"),
    ("The answer is `B`", "B"),
    ("\\boxed{B. \\text{both C and D}}", "B"),
    ("Answer: B) A or C", "B"),
    ("The answer is B: A and C", "B"),
    ("The answer is B, A being false", "B"),
    ("The answer is (B); (A) is wrong", "B"),
    ("The answer is B\nExplanation: the answer C is wrong.", "B"),
    ("The answer is B.\n\nOther answer options are wrong.", "B"),
    ("Answer: B\n\nThe answer is not C.", "B"),
    ("The answer is option B", "B"),
    ("The answer is Option (B)", "B"),
    ("The correct answer is choice B.", "B"),
    ("The correct option is: B", "B"),
    ("Answer choice: B", "B"),
    ("Answer: B (Paris)", "B"),
    ("Answer: B - Paris", "B"),
    ("Answer: B — Paris", "B"),
    ("Answer: b", "B"),
    ("### Answer\n\nB", "B"),
    ("Answer:\n(B)", "B"),
    ("Final Answer: \\textbf{B}", "B"),
    ("Final Answer: $\\text{B}$", "B"),
    ("The answer is B because A and C are wrong", "B"),
]
NO_LETTERS = [
    ("The answer is B and C", "B"),
    ("The answer is B & C", "B"),
    ("The answer is B/C", "B"),
    ("The answer is B, C", "B"),
    ("The answer is (B) or (C)", "B"),
    ("B, C and D", "B"),
    ("The answer is B. The answer is C.", "B"),
    ("Answer: Plan B", "B"),
    ("The answer is Hepatitis B", "B"),
    ("I'd go with B", "B"),
    ("The answer is neither A nor B", "A"),
    ("The answer is A or B", "A"),
    ("Answer: all of A, B and C", "A"),
]

# More of each kind, in both directions.
RIGHT_MATH += [
    ("\\boxed{\\left(\\frac{1}{3}\\right)^{50}}", "\\frac{1}{3^{50}}"),
    ("\\boxed{\\binom{7}{3}}", "35"),
    ("\\boxed{0.25\\pi}", "\\frac{\\pi}{4}"),
    ("\\boxed{(0.2, 0.4)}", "(1/5, 2/5)"),
    ("\\boxed{2.236068}", "\\sqrt{5}"),
    ("\\boxed{0.\\overline{27}}", "\\frac{3}{11}"),
    ("\\boxed{2½}", "2.5"),
    ("\\boxed{3 and 1/8}", "25/8"),
    ("\\boxed{4.5×10⁶}", "4500000"),
    ("\\boxed{12,\\!500}", "12500"),
    ("\\boxed{\\log_3 81}", "4"),
    ("\\boxed{7sin(x)}", "7\\sin x"),
    ("\\boxed{3<x<8}", "(3,8)"),
    ("\\boxed{\\varnothing}", "\\emptyset"),
    ("\\boxed{x=3 \\text{ or } x=4}", "3,4"),
    ("\\boxed{1,2,\\dots,k}", "1,2,\\ldots,k"),
    ("\\boxed{9 + 5 = 14}", "14"),
    ("\\boxed{f(3) = 14}", "14"),
    ("\\boxed{14\\text{ meters}}", "14"),
    ("\\boxed{14\\ \\textrm{kilograms}}", "14"),
    ("\\boxed{14^\\circ\\text{C}}", "14"),
    ("\\boxed{\\underline{14}}", "14"),
    ("\\boxed{110_{\\text{two}}}", "6"),
    ("\\boxed{(110)_2}", "110_2"),
    ("The answer is 110 in base 2.", "6"),
    ("The answer is 110 in binary.", "6"),
    ("The answer is $4\\sqrt{7}$ cm.", "4\\sqrt{7}"),
    ("The answer is $\\frac{3}{8}$ of the pizza.", "3/8"),
    ("The answer is 14 pairs of gloves.", "14"),
    ("The answer is 14 more stickers.", "14"),
    ("The answer is 14 **blue** pens.", "14"),
    ("The answer is **14** pens", "14"),
    ("The answer is 14 boys and girls.", "14"),
    ("The answer is 14% of the pupils.", "14"),
    ("The answer is USD 14.", "14"),
    ("The answer is about 14.", "14"),
    ("The answer is clearly 14.", "14"),
    ("The answer is 14 rather than 15", "14"),
    ("The answer is 14, not 15.", "14"),
    ("The answer is 9 + 5 = 14 pens.", "14"),
    ("The answer, then, is 14.", "14"),
    ("The answer turns out to be 14.", "14"),
    ("The answer in litres is 14.", "14"),
    ("The answer is Yes, because 14 is even.", "\\text{yes}"),
    ("Final Answer: The final answer is $14$. I hope it is correct.", "14"),
    ("**Final Answer**\n---\n14", "14"),
    ("**Final Answer**\n\nThe final answer is 14.", "14"),
    ("Final Answer:\n\\[\n14\n\\]", "14"),
    ("Answer: 14 ✅", "14"),
]
WRONG_MATH += [
    ("\\boxed{\\left(\\frac{1}{3}\\right)^{50}}", "\\left(\\frac{1}{3}\\right)^{51}"),
    ("\\boxed{1-3^{-60}}", "1-3^{-61}"),
    ("\\boxed{\\frac{\\pi}{3^{60}}}", "\\frac{\\pi}{3^{61}}"),
    ("\\boxed{(0, 3^{-60})}", "(0, 3^{-61})"),
    ("\\boxed{(0, 3^{-600})}", "(0, 3^{-601})"),
    ("\\boxed{e^{-70}}", "e^{-71}"),
    ("\\boxed{\\frac{1}{60!}}", "\\frac{1}{61!}"),
    ("\\boxed{3^{300}+1}", "3^{300}"),
    ("\\boxed{2.236}", "\\sqrt{5}"),
    ("\\boxed{0.3333\\ldots}", "0.3333"),
    ("\\boxed{0.3333...}", "0.3333"),
    ("\\boxed{0,123}", "123"),
    ("\\boxed{1 2}", "12"),
    ("\\boxed{14²}", "14"),
    ("\\boxed{14'}", "14"),
    ("\\boxed{14 \\bmod 20}", "14"),
    ("\\boxed{14 \\pmod{20}}", "14"),
    ("\\boxed{14 = 15}", "15"),
    ("\\boxed{14 = 15}", "14"),
    ("\\boxed{9 + 5 = 15}", "15"),
    ("\\boxed{x=3 \\text{ or } x=4}", "4"),
    ("\\boxed{x=3, y=4}", "4"),
    ("\\boxed{\\frac{14}{}}", "14"),
    ("The answer is 14; 15", "14"),
    ("The answer is 14:15", "14"),
    ("The answer is 14 - 15", "14"),
    ("The answer is 14 (or 15)", "14"),
    ("The answer is 14 — 15", "14"),
    ("The answer is 14. or 15.", "14"),
    ("The answer is 14 twelfths", "14"),
    ("The answer is 14 millionths.", "14"),
    ("The answer is 14 bn", "14"),
    ("The answer is 14 crore", "14"),
    ("The answer is 14 feet and a half", "14"),
    ("The answer is 14 fewer than that", "14"),
    ("The answer is 14 boxes or more", "14"),
    ("The answer is 14th", "14"),
    ("The answer is 14 when n is even and 15 otherwise", "14"),
    ("The answer is 2 ft. 6 in.", "2"),
    ("The answer is 14 (base 6)", "14"),
    ("The answer is $14ab$", "14"),
    ("The answer is $4!$.", "4"),
    ("The answer is probably 14", "14"),
    ("The answer is > 14", "14"),
    ("Is 14 right? 14?", "14"),
    ("14?", "14"),
]
LETTERS += [
    ("The answer is \\(B\\)", "B"),
    ("The answer is 「B」", "B"),
    ("Answer: 【B】", "B"),
    ("The answer\u00a0is B", "B"),
    ("The answer is clearly B.", "B"),
    ("The answer is B rather than C", "B"),
    ("The answer is B, not C.", "B"),
    ("The answer is B, C and D are wrong", "B"),
    ("The answer is B (C is wrong)", "B"),
    ("The answer is B, I think.", "B"),
    ("The answer is B, a river", "B"),
    ("The answer is B (both C and D)", "B"),
    ("The answer is B i.e. Lyon", "B"),
    ("The best option is B.", "B"),
    ("\\boxed{\\textbf{(B)}\\ 40}", "B"),
    ("Answer: B", "\\text{(B)}"),
    ("Answer: B", "B."),
]
NO_LETTERS += [
    ("**B** or **C**", "B"),
    ("The answer is `B` and `C`", "B"),
    ("The answer is B; C", "B"),
    ("The answer is B or maybe C", "B"),
    ("The answer is B or possibly C", "B"),
    ("The answer is B (or C)", "B"),
    ("The answer is B. or C.", "B"),
    ("The answer is B as well as C", "B"),
    ("The answer is B, and C is right as well", "B"),
    ("The answer is B and C are correct", "B"),
    ("The answer is B.C.D", "B"),
    ("(B) (C) (D)", "B"),
    ("B) C)", "B"),
    ("The answer is b or c", "B"),
    ("The answer is B?", "B"),
    ("The answer is B-flat", "B"),
    ("The answer is B+", "B"),
    ("The answer is B minus", "B"),
    ("\\boxed{B = 4}", "B"),
]


@pytest.mark.parametrize("text, target", LETTERS)
def test_a_letter_is_read_in_the_spellings_people_use(text, target):
    assert is_correct(text, target, "choice")


@pytest.mark.parametrize("text, target", NO_LETTERS)
def test_several_letters_and_letters_of_other_words_are_no_answer(text, target):
    assert not is_correct(text, target, "choice")


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


def test_every_lookalike_of_a_gold_is_rejected():
    for target in ("7", "42", "-3", "1,234", "0"):
        made = lookalikes(target, "math")
        assert len(made) >= 4 and not any(is_correct(text, wrong, "math") for text, wrong in made)
    assert not any(is_correct(text, wrong, "choice") for text, wrong in lookalikes("B", "choice"))
    assert lookalikes(r"\frac{1}{2}", "math") == []


def test_a_verifier_that_reads_less_than_what_is_stated_fails_its_proof(tmp_path, monkeypatch, stonk):
    """Of "42 million" and "42_9" the first number alone."""
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "\\boxed{42}"}]
    row = {"messages": turns, "source": "x", "id": "1", "target": "42", "verifier": "math"}
    rows.write_text("".join(json.dumps({**row, "id": str(i)}) + "\n" for i in range(3)))
    assert "3 of 3 gold answers accepted, 30 of 30 shifted ones rejected" in stonk(
        "data", "verify", "chat", "--path", rows
    )
    monkeypatch.setattr(values, "_is_unit", lambda rest: True)
    monkeypatch.setattr(values, "is_noun", lambda rest: True)
    values.read.cache_clear()
    with pytest.raises(SystemExit) as end:
        stonk("data", "verify", "chat", "--path", rows)
    values.read.cache_clear()
    assert end.value.code == 1


def test_cases_of_ones_own_are_judged_and_the_wrong_ones_shown(tmp_path, stonk, refused, capsys):
    cases = tmp_path / "cases.jsonl"
    right = {"text": "\\boxed{6}", "target": "6", "kind": "math", "right": True}
    cases.write_text(json.dumps(right) + "\n" + json.dumps({**right, "right": False}) + "\n")
    with pytest.raises(SystemExit) as end:
        stonk("data", "verify", "--cases", cases)
    assert end.value.code == 1
    assert capsys.readouterr().out == "line 2: '\\\\boxed{6}' is accepted for '6'\n1 of 2 right\n"
    cases.write_text(json.dumps(right) + "\n")
    assert stonk("data", "verify", "--cases", cases) == "1 of 1 right\n"
    cases.write_text(json.dumps({**right, "kind": "maths"}) + "\n")
    assert "line 1: a case has text and target" in refused("data", "verify", "--cases", cases)
    cases.write_text("")
    assert "holds no cases" in refused("data", "verify", "--cases", cases)
    assert "give a source" in refused("data", "verify")
    assert "give a source" in refused("data", "verify", "gsm8k", "--cases", cases)


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
        r"\boxed{(9^{9999})^{9999}}",
        r"\boxed{(x+1)^{9999}}",
        r"\boxed{((99!)!)!}",
        r"\boxed{e^{e^{9}}}",
        r"\boxed{\binom{99999}{50000}}",
        "\\boxed{" + ",".join(map(str, range(90))) + "}",
        "\\boxed{" + "(" * 390 + "}",
        "\\boxed{" + "(" * 150 + "1" + ")" * 150 + "}",
    ],
)
def test_hostile_text_costs_no_time(text):
    started = time.process_time()
    assert not is_correct(text, "42", "math") and not is_correct(text, "A", "choice")
    assert time.process_time() - started < 2
