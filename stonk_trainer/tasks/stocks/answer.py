"""The answer: from a completion's text to a forecast, or to the reason why there is none.

One grammar reads all four dialects, because they differ only in how they name the same fields:

    1. <think>…</think>, then lines Prediction: UP, Expected move: 1.2%, Confidence: 63%
    2. Model Prediction: UP / Confidence: 87% / Reasoning: …   (also on separate lines)
    3. <think>…</think><confidence>75%</confidence><answer>up 2.5%</answer>
    4. Day 1: [UP] 2.5% with 75% confidence, then Justification: …

The tags of the third become `name:` lines; then each line outside the thought that starts with a field's name is read,
and every other line is reasoning. Reading is strict where leniency could be exploited: an answer that is not exactly
one direction (a menu such as "UP or DOWN", a letter of another alphabet) makes the completion unreadable. Patterns are
anchored at the start of a line or at a literal and have no nested repetition, so time is linear in the length.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """What a completion forecasts for the next trading day.

    direction: "UP" or "DOWN". confidence: stated probability of that direction in [0, 1], None when not stated.
    move: expected absolute return as a fraction (0.012 for 1.2 %), None when not stated.
    reasoning: the text that is not part of the answer: the thought, and prose outside it.
    """

    direction: str
    confidence: float | None
    move: float | None
    reasoning: str


@dataclass(frozen=True)
class Unreadable:
    """A completion without exactly one well-formed final answer; `reason` says why in a few words."""

    reason: str


_FLAGS = re.IGNORECASE | re.ASCII  # ASCII: neither look-alike letters nor the digits of other scripts match
_OPEN, _CLOSE = re.compile(r"<think>", _FLAGS), re.compile(r"</think>", _FLAGS)
_TAG = re.compile(r"<(answer|confidence)>", _FLAGS)
_END_TAG = re.compile(r"</(?:answer|confidence)>", _FLAGS)
_MARKDOWN = str.maketrans("", "", "*`\r")

_NAMES = {
    "answer": r"(?:(?:model|final|my)[ \t]+)?prediction|answer|day[ \t]+1",
    "move": r"expected[ \t]+move",
    "confidence": r"confidence",
    "prose": r"reasoning|justification",
}
_ANY_NAME = "|".join(_NAMES.values())
_FIELD = re.compile(
    r"[ \t#>-]*(?:" + "|".join(f"(?P<{key}>{names})" for key, names in _NAMES.items()) + r")[ \t]*:(?P<value>.*)",
    _FLAGS,
)
# Fields may share a line: "Model Prediction: UP / Confidence: 87% / Reasoning: the P/E ratio …"
_BETWEEN_FIELDS = re.compile(rf"[/|,;](?=[ \t]*(?:{_ANY_NAME})[ \t]*:)", _FLAGS)

_PERCENT = r"(?P<{0}>[+-]?\d{{1,4}}(?:\.\d{{1,9}})?)[ \t]?%"
_ANSWER_VALUE = re.compile(
    r"[ \t\[\"'(]*(?P<direction>up|down)[\]\"')]*"
    rf"(?:[ \t,]+(?:by[ \t]+)?~?{_PERCENT.format('move')})?"
    rf"(?:[ \t,]+with[ \t]+{_PERCENT.format('confidence')}[ \t]+confidence)?[ \t.!]*",
    _FLAGS,
)
_MOVE_VALUE = re.compile(rf"[ \t]*(?:about[ \t]+|~)?{_PERCENT.format('move')}[ \t.]*", _FLAGS)
_CONFIDENCE_VALUE = re.compile(r"[ \t]*(?P<confidence>[+-]?\d{1,4}(?:\.\d{1,9})?)[ \t]?(?P<percent>%?)[ \t.]*", _FLAGS)


def parse(text: str) -> Forecast | Unreadable:
    """Read the one final answer of a completion.

    text: the assistant's text, of any length; it may start inside the thought (the chat template opened `<think>`).
    Never raises; linear time.
    """
    opened, closed = list(_OPEN.finditer(text)), list(_CLOSE.finditer(text))
    if len(opened) > len(closed):
        return Unreadable("unclosed <think>")
    if len(closed) > 1:
        return Unreadable("more than one thought")
    before, thought, after = "", "", text
    if closed:
        start, inside = opened[0].span() if opened else (0, 0)
        if start > closed[0].start():
            return Unreadable("unclosed <think>")
        before, thought, after = text[:start], text[inside : closed[0].start()], text[closed[0].end() :]

    early, final = _read_fields(before), _read_fields(after)
    if not final["answer"]:
        return Unreadable("the answer stands before the thought" if early["answer"] else "no final answer")
    answers = _matches(_ANSWER_VALUE, early["answer"] + final["answer"])
    if answers is None:
        return Unreadable("the answer is not exactly one of UP and DOWN")
    moves = _matches(_MOVE_VALUE, early["move"] + final["move"])
    confidences = _matches(_CONFIDENCE_VALUE, early["confidence"] + final["confidence"])
    if moves is None:
        return Unreadable("the expected move is not a percentage")
    if confidences is None:
        return Unreadable("the confidence is not a number")
    return _one_forecast(
        answers, moves, confidences, "\n".join(filter(None, (*early["prose"], thought, *final["prose"])))
    )


def _matches(form: re.Pattern[str], values: list[str]) -> list[re.Match[str]] | None:
    """Each value as `form` reads it; None when one is not of that form."""
    found = [match for value in values if (match := form.fullmatch(value))]
    return found if len(found) == len(values) else None


def _read_fields(text: str) -> dict[str, list[str]]:
    """Values of each field of `_NAMES` in order; lines that belong to no field are "prose"."""
    fields: dict[str, list[str]] = {key: [] for key in _NAMES}
    if not text:
        return fields
    text = _END_TAG.sub("\n", _TAG.sub(r"\n\1:", text)).translate(_MARKDOWN)
    waiting = None  # a field whose value stands on the next line
    for line in filter(str.strip, text.split("\n")):
        parts = _BETWEEN_FIELDS.split(line) if _FIELD.match(line) else [line]
        for part in parts:
            match = _FIELD.match(part)
            if match:
                key, value = next(key for key in _NAMES if match[key]), match["value"]
            else:
                key, value = waiting or "prose", part
            waiting = key if not value.strip() else None
            if value.strip():
                fields[key].append(value)
    if waiting in ("answer", "move", "confidence"):
        fields[waiting].append("")  # named, never given: refused like any other malformed value
    return fields


def _one_forecast(
    answers: list[re.Match[str]], moves: list[re.Match[str]], confidences: list[re.Match[str]], reasoning: str
) -> Forecast | Unreadable:
    directions = {match["direction"].upper() for match in answers}
    stated_moves = {match["move"] for match in answers + moves if match["move"]}
    percentages = {float(match["confidence"]) for match in answers if match["confidence"]}
    for match in confidences:
        value = float(match["confidence"])
        # "0.63" without a percent sign is a probability, "63" a percentage
        percentages.add(value if match["percent"] or value > 1 else 100 * value)
    if len(directions) > 1:
        return Unreadable("two answers that disagree")
    if len(percentages) > 1:
        return Unreadable("two confidences that disagree")
    if any(not 0 <= value <= 100 for value in percentages):
        return Unreadable("the confidence is outside 0-100 %")
    direction = directions.pop()
    if any(move.startswith("-" if direction == "UP" else "+") and float(move) != 0 for move in stated_moves):
        return Unreadable("the sign of the expected move contradicts the direction")
    sizes = {abs(float(move)) for move in stated_moves}
    if len(sizes) > 1:
        return Unreadable("two expected moves that disagree")
    return Forecast(
        direction=direction,
        confidence=percentages.pop() / 100 if percentages else None,
        move=sizes.pop() / 100 if sizes else None,
        reasoning=reasoning.strip(),
    )
