"""The answer: from a completion's text to a forecast with its evidence, or the reason why it cannot be read.

    <think> … </think>
    Evidence:
    - NAME | VALUE | SIDE
    Prediction: UP
    Expected move: 1.2%
    Confidence: 63%

One grammar reads this and three older dialects, which differ only in how they name the same fields:

    Model Prediction: UP / Confidence: 87% / Reasoning: …   (also on separate lines)
    <think>…</think><confidence>75%</confidence><answer>up 2.5%</answer>
    Day 1: [UP] 2.5% with 75% confidence, then Justification: …

The tags of the second become `name:` lines. Then each line outside the thought that starts with a field's name is a
field, and every other line is prose. Reading is strict where leniency could be exploited: an answer that is not exactly
one direction (a menu such as "UP or DOWN", a letter of another alphabet) makes the completion unreadable. Patterns are
anchored at the start of a line or at a literal and have no nested repetition, so time is linear in the length.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

LONGEST = 50_000  # characters; a longer completion is unreadable
_SHORT = 500  # characters; the reading of a shorter text is cached


class Evidence(NamedTuple):
    """One line of evidence and its verdict (see `ledger.Verdict`).

    name: of a malformed line the whole text. cites: the facts that a grounded line cites.
    """

    name: str
    value: str
    side: str
    verdict: str
    cites: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A completion as it was read.

    Attributes:
        direction: "UP" or "DOWN"; None when no forecast can be read, for the reason in `problem`.
        confidence: stated probability of that direction, in [0.5, 1]; None when not stated, or when it is outside that
            range, as `remark` then says.
        move: expected absolute return as a fraction (0.012 for 1.2%); None when not stated.
        thought: the thought, and prose outside evidence and fields.
        lines: of the evidence, without blank ones; None when there is no evidence, for the reason in `no_evidence`.
        evidence: the lines with their verdicts; this and what follows is empty until `ledger.Ledger.check`.
        grounded: the lines with the verdict grounded.
        numbers: how many numbers of the thought can be checked against the row.
        invented: those that neither the row nor the answer itself explains.
    """

    direction: str | None = None
    confidence: float | None = None
    move: float | None = None
    thought: str = ""
    lines: tuple[str, ...] | None = None
    no_evidence: str = ""
    problem: str | None = None
    remark: str | None = None
    evidence: tuple[Evidence, ...] = ()
    grounded: tuple[Evidence, ...] = ()
    numbers: int = 0
    invented: tuple[str, ...] = ()

    @property
    def share_grounded(self) -> float:
        """Grounded lines among all lines of the evidence; 0 when there is none."""
        return len(self.grounded) / len(self.evidence) if self.evidence else 0.0

    @property
    def share_invented(self) -> float:
        """Invented numbers among the numbers of the thought; 0 when there is none."""
        return len(self.invented) / self.numbers if self.numbers else 0.0


_FLAGS = re.IGNORECASE | re.ASCII  # ASCII: neither look-alike letters nor the digits of other scripts match
_THINK = re.compile(r"<(/?)think>", _FLAGS)
_TAG = re.compile(r"<(/?)(answer|confidence)>", _FLAGS)
_TAIL = 400  # characters in which special tokens are looked for
_SPECIAL_TOKENS = re.compile(r"(?:\s*(?:<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</s>|<eos>|<end_of_turn>))+\s*\Z")
# One for one, so that positions stay: full-width punctuation and the minus sign become plain, markdown spaces.
_PLAIN = str.maketrans("\uff1a\uff05\uff08\uff09\uff3b\uff3d\u2212\uff0b*`\r", ":%()[]-+   ")

_ANSWER_NAMES = r"(?:(?:model|final|my)[ \t]+)?prediction|answer|day[ \t]+1|expected[ \t]+move|confidence"
_NAME = rf"{_ANSWER_NAMES}|reasoning|justification"
_FIELD_OF = {"prediction": "answer", "answer": "answer", "1": "answer", "move": "move", "confidence": "confidence"}
_FIELD_OF |= {"reasoning": "prose", "justification": "prose"}  # by the last word of the name
_LINE = r"\n[ \t#>\u2022-]*(?:\(?\d{1,2}[.)][ \t]*)?"  # how a line may begin: as a quotation, a heading, in a list
_FIELD = re.compile(rf"{_LINE}(?P<name>{_NAME})[ \t]*:(?P<value>[^\n]*)", _FLAGS)
_ANSWER_FIELD = re.compile(rf"{_LINE}(?:{_ANSWER_NAMES})[ \t]*:", _FLAGS)
_EVIDENCE = re.compile(r"\n[ \t#]*evidence[ \t]*:[ \t]*(?=\n)", _FLAGS)
# Fields may share a line: "Model Prediction: UP / Confidence: 87% / Reasoning: the P/E ratio …"
_NEXT_FIELD = re.compile(rf"[/|,;][ \t]*(?P<name>{_NAME})[ \t]*:", _FLAGS)

_LONGEST_VALUE = 200  # characters of a field
_NUMBER = r"[+-]?\d{1,4}(?:\.\d{1,9})?"


def _percent(group: str) -> str:
    return rf"(?P<{group}>{_NUMBER})[ \t]?(?:%|percent\b)"


_OPENING, _CLOSING = r"[ \t\[\"'(]*", r"[\]\"') \t.!]*"
_STATED = rf"(?:confidence[ \t]*:?[ \t]*{_percent('before')}|{_percent('after')}[ \t]+confiden(?:ce|t))"
_ANSWER_VALUE = re.compile(
    rf"{_OPENING}(?P<direction>up|down)[\]\"')]*"
    rf"(?:[ \t,]+(?:by[ \t]+)?~?{_percent('move')})?"
    rf"(?:[ \t,(\[]+(?:with[ \t]+)?{_STATED})?{_CLOSING}",
    _FLAGS,
)
_OPENING_OF_A_NUMBER = rf"{_OPENING}(?:about[ \t]+|~)?"
_MOVE_VALUE = re.compile(rf"{_OPENING_OF_A_NUMBER}{_percent('move')}{_CLOSING}", _FLAGS)
_CONFIDENCE_VALUE = re.compile(
    rf"{_OPENING_OF_A_NUMBER}(?P<confidence>{_NUMBER})[ \t]?(?P<percent>%|percent\b)?{_CLOSING}", _FLAGS
)


def parse(text: str) -> Answer:
    """Read the one final answer of a completion, and its evidence.

    text: the assistant's text; it may start inside the thought (the chat template opened `<think>`), and special
    tokens left at its end are ignored. Never raises; linear time.
    """
    if len(text) > LONGEST:
        return Answer(problem=f"longer than {LONGEST:,} characters")
    if text.rstrip().endswith(">"):
        text = text[:-_TAIL] + _SPECIAL_TOKENS.sub("", text[-_TAIL:])
    tags = list(_THINK.finditer(text))
    opened, closed = [tag for tag in tags if not tag[1]], [tag for tag in tags if tag[1]]
    if len(opened) > len(closed):
        return Answer(problem="unclosed <think>")
    if len(closed) > 1:
        return Answer(problem="more than one thought")
    before, thought, after = "", "", text
    if closed:
        start, inside = opened[0].span() if opened else (0, 0)
        if start > closed[0].start():
            return Answer(problem="unclosed <think>")
        before, thought, after = text[:start], text[inside : closed[0].start()], text[closed[0].end() :]

    after, lines, why = _take_evidence(_untagged(after))
    read = _read_outside if len(after) + len(before) < _SHORT else _read_outside.__wrapped__
    forecast, early, late = read(_untagged(before), after)
    if forecast.problem:
        return forecast
    if lines is None and not why and _EVIDENCE.search(f"\n{thought}\n"):
        why = "the evidence is inside the thought"
    prose = "\n".join(filter(None, (early, thought.strip(), late)))
    return forecast._replace(thought=prose, lines=lines, no_evidence=why)


def _untagged(text: str) -> str:
    """With the tags of the second dialect as lines, and a line end before the first line."""
    if "<" in text:
        text = _TAG.sub(lambda tag: "\n" if tag[1] else f"\n{tag[2]}:", text)
    return f"\n{text}"


@functools.lru_cache(maxsize=2**12)  # many answers end alike
def _read_outside(before: str, after: str) -> tuple[Answer, str, str]:
    """(the forecast, prose before the thought, prose after it) of the text before and after the thought."""
    early, final = _read_fields(before), _read_fields(after)
    if not final["answer"]:
        problem = "the answer comes before the thought" if early["answer"] else "no final answer"
        return Answer(problem=problem), "", ""
    forecast = _read_forecast({key: early[key] + final[key] for key in ("answer", "move", "confidence")})
    return forecast, "\n".join(early["prose"]).strip(), "\n".join(final["prose"]).strip()


def _plain(text: str) -> str:
    """The same text, position by position, without markdown and full-width punctuation."""
    is_plain = text.isascii() and "*" not in text and "`" not in text and "\r" not in text
    return text if is_plain else text.translate(_PLAIN)


def _read_fields(text: str) -> dict[str, list[str]]:
    """Values of each field in order; other text is "prose"."""
    fields: dict[str, list[str]] = {"answer": [], "move": [], "confidence": [], "prose": []}
    plain = _plain(text)
    waiting, at = "", 0  # a field whose value is expected on the next line; where that line begins
    for match in _FIELD.finditer(plain):
        _read_prose(plain[at : match.start()], waiting, fields)
        at = match.end()
        name, value = match["name"], match["value"]
        while following := _NEXT_FIELD.search(value):
            fields[_key(name)].append(value[: following.start()])
            name, value = following["name"], value[following.end() :]
        waiting = "" if value.strip() else _key(name)
        if not waiting:
            fields[_key(name)].append(value)
    _read_prose(plain[at:] or "\n", waiting, fields)
    return fields


def _key(name: str) -> str:
    return _FIELD_OF[name.split()[-1].lower()]


def _read_prose(text: str, waiting: str, fields: dict[str, list[str]]) -> None:
    """Lines that begin with no field are prose; the first is the value of a field that is waiting for one."""
    lines = [line for line in text.split("\n") if line.strip()]
    if waiting and text:
        fields[waiting].append(lines.pop(0) if lines else "")  # a field without a value is malformed
    if lines:
        fields["prose"].append("\n".join(lines))


def _take_evidence(text: str) -> tuple[str, tuple[str, ...] | None, str]:
    """(the text without its evidence, the lines of that, why there are none): from the one line `Evidence:` to the
    first field of the answer."""
    plain = _plain(text)
    heads = list(_EVIDENCE.finditer(plain))
    first = _ANSWER_FIELD.search(plain) if heads else None
    if first is None:
        return text, None, ""
    before = [head for head in heads if head.start() < first.start()]
    if len(before) != 1:
        return text, None, "more than one line `Evidence:`" if before else "the evidence comes after the forecast"
    start, end = before[0].end(), first.start()
    lines = tuple([line for line in text[start:end].split("\n") if line.strip()])
    return text[: before[0].start()] + text[end:], lines, "" if lines else "the evidence has no lines"


def _read_forecast(fields: dict[str, list[str]]) -> Answer:
    """Direction, confidence and move of the answer's fields; or the problem that they are not exactly one forecast."""
    answers = _matches(_ANSWER_VALUE, fields["answer"])
    moves = _matches(_MOVE_VALUE, fields["move"])
    confidences = _matches(_CONFIDENCE_VALUE, fields["confidence"])
    for found, problem in (
        (answers, "the answer is not exactly one of UP and DOWN"),
        (moves, "the expected move is not a percentage"),
        (confidences, "the confidence is not a number"),
    ):
        if None in found:
            return Answer(problem=problem)
    directions = {match["direction"].upper() for match in answers if match}
    written = {match["move"] for match in answers + moves if match and match["move"]}
    stated = {float(value) for match in answers if match and (value := match["before"] or match["after"])}
    stated |= {_percentage(match) for match in confidences if match}
    sizes = {abs(float(move)) for move in written}
    for values, what in ((directions, "answers"), (stated, "confidences"), (sizes, "expected moves")):
        if len(values) > 1:
            return Answer(problem=f"two {what} that disagree")
    direction = directions.pop()
    if any(move[0] == ("-" if direction == "UP" else "+") and float(move) for move in written):
        return Answer(problem="the sign of the expected move contradicts the direction")
    move = sizes.pop() / 100 if sizes else None
    confidence = stated.pop() if stated else None
    if confidence is None or 50 <= confidence <= 100:
        return Answer(direction, None if confidence is None else confidence / 100, move)
    remark = f"the stated confidence of {confidence:g}% is not between 50% and 100%, so it counts as not stated"
    return Answer(direction, None, move, remark=remark)


def _matches(form: re.Pattern[str], values: list[str]) -> list[re.Match[str] | None]:
    return [form.fullmatch(value) if len(value) < _LONGEST_VALUE else None for value in values]


def _percentage(match: re.Match[str]) -> float:
    """A confidence in percent: without a percent sign "0.63" is a probability, and "63" a percentage."""
    value = float(match["confidence"])
    return value if match["percent"] or value > 1 else 100 * value
