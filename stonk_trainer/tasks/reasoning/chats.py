"""Chats as people export them: one reading of roles, of content in parts, and of thoughts under their many names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stonk_trainer.tasks.reasoning import think_tags

# The instruction wherever a model is to think before it answers.
SYSTEM = (
    "Think first, between <think> and </think>. Then answer. "
    "If the question has one final result, state it as \\boxed{result}; of several choices, state the letter."
)
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant"}
_ROLES |= {name: name for name in ("system", "user", "assistant")} | {"developer": "system"}
# Fields, and types of parts, that hold a thought; in that order, since some exports give it twice.
THOUGHTS = (
    "reasoning_content", "reasoning", "thinking", "thinking_content", "thought", "thoughts", "chain_of_thought", "cot",
    "analysis", "reasoning_text", "reasoning_details",
)  # fmt: skip
_TEXTS = ("text", "input_text", "output_text")


class Unreadable(Exception):
    """Why a chat gives no example, in words."""


def chat_example(messages: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any] | str:
    """The example of a conversation, or why it has none: all before its last answer is the prompt.

    messages: with `role` and `content`, or `from` and `value`. Content is text or a list of parts; a thought is inside
    it in tags, a part, a message of its own (`channel: analysis`) or a field. mode: with the thought (cot) or without
    (answer_only).
    """
    try:
        turns = _turns(messages)
        if not turns or turns[-1][0] != "assistant":
            return "the chat does not end with an answer"
        if not any(role == "user" and text.strip() for role, _, text in turns):
            return "no question"
    except Unreadable as reason:
        return str(reason)
    _, thought, answer = turns[-1]
    if not answer:
        return "no answer"
    before = [{"role": role, "content": text} for role, _, text in turns[:-1]]
    if thought and mode == "cot":
        answer = think_tags.join(thought, answer)
    if thought or [role for role, _, _ in turns].count("system") > 1:
        before = with_instruction(before, thinks=bool(thought) and mode == "cot")
    return {"prompt": before, "completion": [{"role": "assistant", "content": answer}]}


def with_instruction(messages: Sequence[Mapping[str, str]], thinks: bool = True) -> list[dict[str, str]]:
    """The messages with ours as their one system message, and what others say below it.

    Those that speak of tags for the thought are left out: they describe another form than ours. thinks: whether the
    answer has a thought, for which there is an instruction.
    """
    own = [message["content"].removeprefix(SYSTEM).strip() for message in messages if message["role"] == "system"]
    texts = [SYSTEM] * thinks + [text for text in own if text and not think_tags.has_tags(text)]
    system = [{"role": "system", "content": "\n\n".join(texts)}] * bool(texts)
    return [*system, *(dict(message) for message in messages if message["role"] != "system")]


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(role, thought, text without it) of each message; a thought of its own belongs to the next answer."""
    turns, waiting = [], ""
    for message in messages:
        role = message.get("role") or message.get("from")
        if not isinstance(role, str):
            raise Unreadable("a message without a role")
        if role.lower() not in _ROLES:
            raise Unreadable(f"a message of the role {role}")
        role = _ROLES[role.lower()]
        content = message.get("content") if message.get("content") is not None else message.get("value")
        thoughts, text = _parts(content)
        if role == "assistant":
            thoughts = [thought for key in THOUGHTS if (thought := _text(message.get(key)).strip())][:1] + thoughts
            if message.get("channel") == "analysis":
                waiting += text
                continue
            thought, text = _split("\n".join([waiting] * bool(waiting) + thoughts), text)
            waiting = ""
        else:
            thought = ""
        try:
            f"{thought}{text}".encode()
        except UnicodeEncodeError:
            raise Unreadable("half a character (a lone surrogate)") from None
        turns.append((role, thought, text))
    return turns


def _parts(content: Any) -> tuple[list[str], str]:
    """(thoughts, text) of a message's content."""
    if isinstance(content, str):
        return [], content
    if not isinstance(content, Sequence):
        raise Unreadable("a message without text")
    thoughts: list[str] = []
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") or "text"
        if kind not in (*_TEXTS, *THOUGHTS):
            raise Unreadable(f"a message with a part of the type {kind}")
        is_thought = kind in THOUGHTS or part.get("thought") is True
        (thoughts if is_thought else texts).append(_text(part))
    thoughts, texts = ([text for text in found if text.strip()] for found in (thoughts, texts))
    if not thoughts and not texts:
        raise Unreadable("a message without text")
    return thoughts, "\n".join(texts)


def _text(value: Any) -> str:
    """The text of a field or a part: it is that, a list of such, or a mapping with one of the usual names."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return next((text for key in (*_TEXTS, *THOUGHTS, "summary", "content") if (text := _text(value.get(key)))), "")
    return "\n".join(filter(None, map(_text, value))) if isinstance(value, Sequence) else ""


def _split(thought: str, text: str) -> tuple[str, str]:
    """(thought, answer) of an assistant's text, with the thought that a field gave, if any; that one counts."""
    thought = think_tags.without_tags(thought).strip()
    if not think_tags.begins_with_thought(text):
        answer, own = text, ""
    else:
        found = think_tags.split(text)
        if found.answer is None and not think_tags.opens_again(text):
            raise Unreadable("the thought is cut off")
        answer, own = found.answer or "", found.thought or ""
    if think_tags.has_tags(answer) or think_tags.opens_again(text):
        raise Unreadable("a tag of a thought in the middle of an answer")
    return thought or own, answer.strip() if thought or own else answer
