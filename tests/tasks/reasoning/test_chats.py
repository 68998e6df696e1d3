"""Chats as people export them: thoughts under other names, other roles, content in parts."""

import json

import pytest

from stonk_trainer.tasks.reasoning.chats import SYSTEM, chat_example, with_instruction
from stonk_trainer.tasks.reasoning.sources import Part, examples

QUESTION = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = "The answer is \\boxed{4}."
WHOLE = f"<think>\nTwo and two.\n</think>\n\n{ANSWER}"


def completion(*messages, mode="cot"):
    return chat_example(messages, mode)["completion"][0]["content"]


@pytest.mark.parametrize(
    "answer",
    [
        {"content": WHOLE},
        *(
            {key: "Two and two.", "content": ANSWER}
            for key in ("reasoning_content", "reasoning", "thinking", "thought")
        ),
        *({"content": f"<{tag}>Two and two.</{tag}>{ANSWER}"} for tag in ("thinking", "thought", "reasoning")),
        {"content": [{"type": "text", "text": WHOLE}]},
        {"content": [{"type": "thinking", "thinking": "Two and two."}, {"type": "text", "text": ANSWER}]},
        {"content": [{"type": "reasoning", "text": "Two and two."}, {"type": "text", "text": ANSWER}]},
        {"content": WHOLE, "reasoning_content": "Two and two."},
        {"content": ANSWER, "reasoning_content": "Two and two.", "thinking": None},
    ],
)
def test_a_thought_is_a_thought_under_any_of_its_names(answer):
    assert completion(QUESTION, {"role": "assistant", **answer}) == WHOLE
    assert completion(QUESTION, {"role": "assistant", **answer}, mode="answer_only") == ANSWER


def test_content_in_parts_and_other_names_of_roles_are_read():
    parts = {"role": "human", "content": [{"type": "text", "text": "What is"}, "2 + 2?"]}
    example = chat_example([{"from": "developer", "value": "Be brief."}, parts, {"from": "gpt", "value": WHOLE}], "cot")
    assert example["prompt"] == [
        {"role": "system", "content": f"{SYSTEM}\n\nBe brief."},
        {"role": "user", "content": "What is\n2 + 2?"},
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "4"}, "a message of the role tool"),
        ({"role": "environment", "content": "4"}, "a message of the role environment"),
        ({"role": "user", "content": [{"type": "image", "image": "4.png"}]}, "a message with a part of the type image"),
        ({"role": "user", "content": [{"type": "text"}]}, "a message with a part of the type text"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "a message without text"),
        ({"role": "assistant", "tool_calls": [{}]}, "a message without text"),
    ],
)
def test_what_cannot_be_read_is_named(message, reason):
    assert chat_example([QUESTION, message, {"role": "assistant", "content": WHOLE}], "cot") == reason


def test_an_instruction_stays_unless_it_describes_another_form():
    def told(*texts):
        return with_instruction([*({"role": "system", "content": text} for text in texts), QUESTION])[0]["content"]

    assert told("Be brief.", "Be kind.") == f"{SYSTEM}\n\nBe brief.\n\nBe kind."
    assert told("Put thoughts in <|begin_of_thought|>.") == told() == told(SYSTEM) == SYSTEM
    assert told(f"{SYSTEM}\n\nBe brief.") == told("Be brief.")
    assert with_instruction([QUESTION], thinks=False) == [QUESTION]


def test_a_byte_order_mark_is_not_a_fault(tmp_path):
    row = {"messages": [QUESTION, {"role": "assistant", "content": WHOLE}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8-sig")
    (example,) = examples(Part("chat", str(tmp_path / "chats.jsonl"), held_out=0.0), "train")
    assert example["completion"][0]["content"] == WHOLE
