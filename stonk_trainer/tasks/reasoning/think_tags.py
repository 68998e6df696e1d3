"""Thought and answer of a text: `<think>…</think>` and what follows, in the tags of either upstream style.

<think>…</think> answer       (also <thinking>, <thought>, <reasoning>, [THINK])  R1, OpenThoughts3, Dolci
<|begin_of_thought|>…<|end_of_thought|> <|begin_of_solution|>…<|end_of_solution|>        OpenThoughts-114k
"""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = r"(?:(?:seed:)?think(?:ing)?|thoughts?|reasoning)"
_OPENS = re.compile(rf"<{_WORD}(?: [^<>]*)?>|\[THINK\]|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSES = re.compile(rf"</{_WORD}>|\[/THINK\]|<\|end_of_thought\|>", re.IGNORECASE)
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")


class Thought(NamedTuple):
    """thought: None when there is none. answer: the text after it; None when the thought or a solution is cut off."""

    thought: str | None
    answer: str | None


def split(text: str) -> Thought:
    """The thought and the answer of `text`. Several thoughts count as one, up to the last end.

    A thought may begin without its tag: some templates write it into the prompt.
    """
    opens, ends = list(_OPENS.finditer(text)), list(_CLOSES.finditer(text))
    if opens and (not ends or opens[-1].start() > ends[-1].start()):
        last = opens[-1] if ends else opens[0]
        return Thought(text[last.end() :].strip(), None)
    if not ends:
        return Thought(None, _solution(text))
    start = opens[0].end() if opens else 0
    return Thought(text[start : ends[-1].start()].strip(), _solution(text[ends[-1].end() :]))


def _solution(text: str) -> str | None:
    marks = _SOLUTION.findall(text)
    if marks and marks[-1] == "<|begin_of_solution|>":
        return None
    return _SOLUTION.sub("", text).strip()


def has_tags(text: str) -> bool:
    """Whether a tag for a thought is in the text."""
    return bool(_OPENS.search(text) or _CLOSES.search(text))


def begins_with_thought(text: str) -> bool:
    """Whether the text starts with a thought, whose opening tag may be missing: some templates put it in the prompt."""
    first, end = _OPENS.search(text), _CLOSES.search(text)
    if first is None:
        return end is not None or _SOLUTION.search(text) is not None
    return not text[: first.start()].strip() or end is not None and end.start() < first.start()


def opens_again(text: str) -> bool:
    """Whether a thought begins after one has ended."""
    end = _CLOSES.search(text)
    return end is not None and _OPENS.search(text, end.end()) is not None


def without_tags(text: str) -> str:
    return _CLOSES.sub("", _OPENS.sub("", text))


def join(thought: str, answer: str) -> str:
    """The form that models are trained on: the thought in tags, a blank line, the answer."""
    return f"<think>\n{thought.strip()}\n</think>\n\n{answer.strip()}"


def is_well_formed(text: str) -> bool:
    """Whether the text starts with its only thought, in `<think>` tags and not empty, and an answer follows."""
    body = text.strip()
    if body.count("<think>") != 1 or body.count("</think>") != 1 or not body.startswith("<think>"):
        return False
    thought, answer = split(body)
    return bool(thought and answer and not has_tags(answer))
