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
_ROLES = {"human": "user", "gpt": "assistant", "developer": "system"}
_READ = ("system", "user", "assistant")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thinking_content", "thought", "chain_of_thought")


def chat_example(messages: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any] | str:
    """The example of a conversation, or why it has none: all before its last answer is the prompt.

    messages: with `role` and `content`, or `from` and `value`. Content is text or a list of parts; a thought is inside
    it in tags, a part, or a field of its own. mode: with the thought (cot) or without (answer_only).
    """
    turns = []
    for message in messages:
        turn = _turn(message)
        if isinstance(turn, str):
            return turn
        turns.append(turn)
    if not turns or turns[-1][0] != "assistant":
        return "the chat does not end with an answer"
    if not any(role == "user" and text.strip() for role, text in turns):
        return "no question"
    thought, answer = think_tags.split(turns[-1][1])
    if answer is None:
        return "the thought is cut off"
    if not answer:
        return "no answer"
    before = [{"role": role, "content": _without_thought(role, text)} for role, text in turns[:-1]]
    if thought and mode == "cot":
        answer = think_tags.join(thought, answer)
    if thought:
        before = with_instruction(before, thinks=mode == "cot")
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


def _turn(message: Mapping[str, Any]) -> tuple[str, str] | str:
    """(role, text with its thought in tags) of a message, or why it cannot be read."""
    role = message["from"] if "from" in message else message["role"]
    role = _ROLES.get(role, role)
    if role not in _READ:
        return f"a message of the role {role}"
    content = message.get("value" if "from" in message else "content")
    thoughts = [message[key] for key in _THOUGHTS if isinstance(message.get(key), str) and message[key].strip()][:1]
    if isinstance(content, list):
        texts: list[str] = []
        for part in content:
            kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
            text = part if isinstance(part, str) else part.get("text") or part.get(kind)
            if kind not in ("text", *_THOUGHTS) or not isinstance(text, str):
                return f"a message with a part of the type {kind}"
            (texts if kind == "text" else thoughts).append(text)
        content = "\n".join(texts)
    if not isinstance(content, str):
        return "a message without text"
    if thoughts and think_tags.split(content).thought is None:  # not the same thought twice
        content = think_tags.join("\n".join(thoughts), content)
    return role, content


def _without_thought(role: str, text: str) -> str:
    return (think_tags.split(text).answer or text) if role == "assistant" else text
