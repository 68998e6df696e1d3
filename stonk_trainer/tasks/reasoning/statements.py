"""What a completion states as its final answer.

Read is what follows the thought, in a form that marks an answer: \\boxed{…}, <answer>…</answer>, `#### …`, "The answer
is …", "Answer: …", a heading "Answer" with the answer below, or a text of one short line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stonk_trainer.tasks.reasoning import think_tags

LONGEST_ANSWER = 400  # characters of a final answer; longer ones would cost time to parse
LONGEST_TEXT = 20_000  # characters after the thought that are read, from the end

# Full-width ASCII, and the spaces and punctuation of other scripts.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    {"\u3000": " ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "。": ". ", "、": ","}
    | dict(zip("「」『』【】", "“”“”[]", strict=True))
)
_SYMBOLS = re.compile("[\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]")  # ✅ and the like
_TAGGED = re.compile(r"<answer>(.{0,400}?)</answer>", re.S)
_HASHES = re.compile(r"^\s*####[ \t]*(\S.*?)\s*$", re.M)
_MARKS = "*_`\"'“”‘’«»"
_STATES = re.compile(
    rf"""(?<![A-Za-z])(?:(?:the|my|our)\ )?(?:(?:final|correct|right|best)\ )*
    (?:answers?|(?:(?<=correct\ )|(?<=right\ )|(?<=best\ ))(?:choice|option))(?:\ (?:choice|option))?
    (?![A-Za-z])[{_MARKS}]*
    (?:\ (?:to|for|of|in|as)\ [^.:=\n]{{1,60}}?|,[^,.:=\n]{{1,30}},)?
    (?:\ ?[:=] | \ [—–-](?=\ ) | \ (?:is|are|was|equals|amounts\ to|(?:should|must|will|would)\ be
    |(?:comes|works|turns)\ (?:out\ )?to(?:\ be)?)\b)
    (?:[{_MARKS}]+(?=\s))?\ *[:=]?""",
    re.I | re.X,
)
_HEADING = re.compile(rf"^[{_MARKS}#\s\W]*(?:the\ )?(?:final\ |correct\ )?answer[{_MARKS}\s:]*$", re.I | re.X)
_NO_VALUE = re.compile(r"(?:not|wrong|incorrect|correct|right|unknown|unclear)\b", re.I)
_UNSURE = "(?:possib|probab|presumab|supposed|potential|like|hard|near)ly"
_FILLER = re.compile(
    rf"\A(?:(?:(?!{_UNSURE})[a-z]+ly|just|therefore|thus|then|hence|indeed|about|around|equal to)\s+)+", re.I
)
_WRAPPED = re.compile(r"(\*{1,3}|_{1,3}|`{1,3}|\")(.+?)\1|[“‘«](.+?)[”’»]|'(.+?)'(?!\w)", re.S)
_EMPHASIS = re.compile(r"(?<![\w)}\\])(\*{1,3}|_{1,3}|`{1,3}|\")(?=\S)([^*_`\"\n]+)(?<=\S)\1(?![\w({])")
_SENTENCE_END = re.compile(r"(?<=[^\d\s])[.!]\s+(?![a-z\d])|(?<=\d)\.\s+(?!or\b|and\b)|[.;!]$")


class Statement(NamedTuple):
    """text: what is stated. in_prose: whether in a sentence, where any noun may follow a number."""

    text: str
    in_prose: bool


def statements(completion: str) -> list[Statement]:
    """All that a completion states as its final answer, in the form that marks it most clearly."""
    answer = think_tags.split(completion).answer
    if answer is None:
        return []
    answer = _SYMBOLS.sub(" ", answer[-LONGEST_TEXT:].translate(_WIDE))
    marked = [(boxed(answer), False), (_TAGGED.findall(answer), False), (_HASHES.findall(answer), True)]
    for found, in_prose in marked:
        if found:
            return _short([one for text in found for one in _inner(text, in_prose)])
    if sentences := _sentences(answer):
        return _short([one for text in sentences for one in _inner(text, True)])
    answer = answer.strip()
    return [Statement(unwrapped(answer), True)] if "\n" not in answer and 0 < len(answer) <= 40 else []


def _short(found: list[Statement]) -> list[Statement]:
    return found if all(0 < len(one.text) <= LONGEST_ANSWER for one in found) else []


def _inner(text: str, in_prose: bool) -> list[Statement]:
    """What a marked text states: a box in it, a sentence in it, or all of it."""
    if inside := boxed(text):
        return [Statement(unwrapped(inside[-1]), False)]
    sentences = [] if in_prose else _sentences(text)
    return [Statement(unwrapped(one), True) for one in sentences] or [Statement(unwrapped(text), in_prose)]


def _sentences(answer: str) -> list[str]:
    """What follows each "the answer is" up to the next, to the end of the sentence; or the line below a heading."""
    found, lines = [], [line.strip() for line in answer.splitlines()]
    for number, line in enumerate(lines):
        starts = list(_STATES.finditer(line))
        ends = [*(match.start() for match in starts), len(line)][1:]
        texts = [_first_sentence(line[match.end() : end]) for match, end in zip(starts, ends, strict=True)]
        if "".join(texts).strip(_MARKS) == "" and len(texts) == 1 or not texts and _HEADING.match(line):
            below = next((below for below in lines[number + 1 :] if re.search(r"[^\W_]", below)), "")
            texts = [] if _STATES.search(below) else [_first_sentence(re.sub(r"^[•>]\s+", "", below))]
        found += [text for text in texts if text and not _NO_VALUE.match(text)]
    return found


def _first_sentence(text: str) -> str:
    text = _FILLER.sub("", text.strip())
    return _SENTENCE_END.split(text)[0].strip()


def unwrapped(text: str) -> str:
    """The text without marks of emphasis, code or quotation around it or its words."""
    text = _EMPHASIS.sub(r"\2", text).strip()
    while match := _WRAPPED.match(text):
        inner = next(part for part in match.groups()[1:] if part)
        text = (inner + text[match.end() :]).strip()
    return text.strip(_MARKS.replace("'", "")).strip()


def boxed(text: str) -> list[str]:
    """The contents of every \\boxed{…} and \\fbox{…}, braces balanced; one that never closes is skipped."""
    found, ends = [], 0
    for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text):
        if match.start() < ends:
            continue  # inside another
        depth = 1
        for at in range(match.end(), min(len(text), match.end() + 2 * LONGEST_ANSWER)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if not depth:
                found.append(text[match.end() : at])
                ends = at
                break
    return found
