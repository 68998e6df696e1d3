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
        {"content": f"<think>\n\n</think>\n\n{ANSWER}", "reasoning_content": "Two and two."},
        {"content": ANSWER, "reasoning_content": "<think>\nTwo and two.\n</think>"},
        {"content": ANSWER, "reasoning_details": [{"type": "reasoning.text", "text": "Two and two."}]},
        {"content": ANSWER, "reasoning": {"summary": "Two and two."}},
        {"content": [{"type": "text", "text": "Two and two.", "thought": True}, {"type": "text", "text": ANSWER}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}]}, ANSWER]},
        {"content": [{"type": "output_text", "text": ANSWER, "thinking": None}], "cot": "Two and two."},
        {"content": f"[THINK]Two and two.[/THINK]{ANSWER}"},
        {"content": f"<Think time=3>Two and two.</Think>{ANSWER}"},
    ],
)
def test_a_thought_is_a_thought_under_any_of_its_names(answer):
    assert completion(QUESTION, {"role": "assistant", **answer}) == WHOLE
    assert completion(QUESTION, {"role": "assistant", **answer}, mode="answer_only") == ANSWER


def test_a_thought_may_be_a_message_or_a_field_of_the_row(write_jsonl):
    analysis = {"role": "assistant", "channel": "analysis", "content": "Two and two."}
    assert completion(QUESTION, analysis, {"role": "assistant", "channel": "final", "content": ANSWER}) == WHOLE
    row = {
        "messages": [QUESTION, {"role": "assistant", "content": ANSWER}],
        "reasoning": "Two and two.",
        "system": "Hi.",
    }
    (example,) = examples(Part("chat", write_jsonl("rows.jsonl", [row]), held_out=0.0), "train")
    assert example["completion"][0]["content"] == WHOLE
    assert example["prompt"][0]["content"] == f"{SYSTEM}\n\nHi."


@pytest.mark.parametrize(
    ("answer", "reason"),
    {
        "<think>\nTwo and": "the thought is cut off",
        "The tag <think> opens a thought.": "a tag of a thought in the middle of an answer",
        "Put it between <think> and </think> tags.": "a tag of a thought in the middle of an answer",
        "<think>Add.</think>Models write <think> first.": "a tag of a thought in the middle of an answer",
        "<think>Add.</think>": "no answer",
    }.items(),
)
def test_an_answer_whose_thought_is_unclear_is_left_out(answer, reason):
    assert chat_example([QUESTION, {"role": "assistant", "content": answer}], "cot") == reason


def test_messages_of_a_union_and_rows_without_messages_are_read(write_jsonl):
    union = [{"from": None, "value": None, **QUESTION}, {"role": "assistant", "content": WHOLE, "from": None}]
    rows = [{"messages": union}, {"messages": None}]
    read, dropped = examples(Part("chat", write_jsonl("rows.jsonl", rows), held_out=0.0), "train")
    assert read["completion"][0]["content"] == WHOLE and dropped["dropped"] == "no messages"


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
        ({"role": "user", "content": [{"type": "text"}]}, "a message without text"),
        ({"role": "user", "content": "Why\ud83d?"}, "half a character (a lone surrogate)"),
        ({"content": "Why?"}, "a message without a role"),
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
