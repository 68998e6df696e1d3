"""Is an answer right? One verifier for rewards, rejection sampling and the validation on whole datasets.

    math      the stated number or expression equals the target (`math-verify` where digits do not settle it)
    choice    the stated letter is the target's

Only a *final answer* is read, after the thought, in a form that marks it as one: \\boxed{…}, <answer>…</answer>,
`#### …`, "The answer is …", "Answer: …", or a text that is nothing else. Two that differ count as none.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from stonk_trainer.task import text_of
from stonk_trainer.tasks.reasoning import think_tags

KINDS = ("math", "choice")
LONGEST_ANSWER = 400  # characters of a final answer; longer ones would cost time to parse
LONGEST_TEXT = 20_000  # characters after the thought that are read, from the end

_TAGGED = re.compile(r"<answer>(.{0,400}?)</answer>", re.S)
_HASHES = re.compile(r"^\s*####[ \t]*(\S.*?)\s*$", re.M)
_STATED = re.compile(
    r"\b(?:answer|correct (?:choice|option))(?:\s+is)?\s*[:=]?\s*(?<=[:=s\s])(?!\s*(?:is|:))([^\n]{1,400})", re.I
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
_UNIT = re.compile(
    r"(?:\\?%|°|\\?[$€£]|\s*\\text\{[^{}\d]{1,30}\}|\s+[A-Za-z][A-Za-z.²³/]*(?:\s+[A-Za-z][A-Za-z.²³/]*){0,2})"
)
_LETTER = re.compile(
    r"[(\[{\s*_\"']*([A-Ea-e])(?:[*_\"'\s]*|[*_\"']*[)\]}.:,*].*|\s+(?:because|since|as|for|which|[-–—(]).*)", re.S
)
# Expressions that would keep sympy busy: powers of powers, huge exponents and factorials.
_COSTLY = re.compile(r"\^[^\s^]*\^[^\s^]*\^|\^\s*\{?\s*[\d,]{5,}|\d{4,}\}?\s*!")


def is_correct(completion: str, target: str, kind: str) -> bool:
    """Whether `completion` states `target` as its final answer. kind: one of `KINDS`; raises ValueError otherwise."""
    if kind not in KINDS:
        raise ValueError(f"no verifier {kind!r}: choose from {', '.join(KINDS)}")
    stated = final_answer(completion)
    if stated is None:
        return False
    return (_same_letter if kind == "choice" else _same_value)(stated, target)


def final_answer(completion: str) -> str | None:
    """What `completion` states as its final answer; None where it states none, or two that differ."""
    answer = think_tags.split(completion).answer
    if answer is None:
        return None
    answer = answer[-LONGEST_TEXT:]
    for found in (boxed(answer), _TAGGED.findall(answer), _HASHES.findall(answer)):
        if found:
            return _one_of(found)
    if stated := _STATED.findall(answer):
        return _one_of([_first_sentence(text) for text in stated])
    answer = answer.strip()
    return answer if "\n" not in answer and 0 < len(answer) <= 40 else None


def _one_of(found: Sequence[str]) -> str | None:
    inner = [(boxed(text) or [text])[-1].strip() for text in found]
    return inner[0] if len(set(inner)) == 1 and 0 < len(inner[0]) <= LONGEST_ANSWER else None


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[^\d\s])[.;]\s|(?<=\d)\.\s|[.;]$", text.strip())[0].strip()


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


def _same_letter(stated: str, target: str) -> bool:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", stated)
    letter = _LETTER.fullmatch(re.sub(r"^\s*(?:option|choice)\s+", "", text, flags=re.I).replace("$", ""))
    if not letter or _other_letter(text, letter[1]):
        return False
    return letter[1].upper() == target.strip().upper()


def _other_letter(text: str, letter: str) -> bool:
    """Whether another option is named too ("A or B", "A, C")."""
    return any(
        match[1].upper() != letter.upper()
        for match in re.finditer(r"(?:\b(?:or|and|also)|[,/&])\s*[(\[]?([A-E])\b[)\]]?(?!')", text)
    )


def _same_value(stated: str, target: str) -> bool:
    given, wanted = _number(stated), _number(target)
    if given is not None and wanted is not None:
        return given == wanted
    if _plain(stated) == _plain(target):
        return bool(_plain(stated))
    if _COSTLY.search(stated) or _depth(stated) > 12:
        return False
    return _math_verify(_in_latex(stated), _in_latex(target))


def _depth(text: str) -> int:
    """How deep brackets are nested; `LONGEST_ANSWER` where they do not match."""
    depth = deepest = 0
    for letter in re.sub(r"\\left|\\right", "", text):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        deepest = max(deepest, depth)
    return deepest if depth == 0 else LONGEST_ANSWER


@lru_cache(maxsize=65_536)
def _number(text: str) -> Decimal | None:
    """The value of `text` if it is one number, with or without a currency before it or a unit after it."""
    text = re.sub(r"\\[!,;: ]|\{,\}", lambda m: "," if m[0] == "{,}" else "", text).replace("−", "-")
    text = text.strip().strip("$").strip().rstrip(".")
    text = re.sub(r"^([-+]?)\s*\\?[$€£]\s*", r"\1", text)
    match = _NUMBER.match(text)
    if not match or not re.search(r"\d", match[0]):
        return None
    rest = text[match.end() :]
    if rest and not _UNIT.fullmatch(rest) or re.search(r"\b(?:or|and|to|x|y|over|by|of|plus|minus|times)\b", rest):
        return None
    return Decimal(match[0].replace(",", ""))


def _plain(text: str) -> str:
    return re.sub(r"\s+|\\[!,;: ]|\\left|\\right|\$", "", text).rstrip(".")


def _in_latex(text: str) -> str:
    text = text.replace("−", "-").strip()
    return text if text.startswith("$") or text.startswith("\\(") else f"${text}$"


@lru_cache(maxsize=65_536)
def _math_verify(stated: str, target: str) -> bool:
    import math_verify

    on_main = threading.current_thread() is threading.main_thread()  # its time limits are signals
    for name in ("math_verify.parser", "math_verify.grader", "math_verify"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    limit = 5 if on_main else None
    wanted = math_verify.parse(target, parsing_timeout=limit)
    given = math_verify.parse(stated, parsing_timeout=limit)
    return bool(wanted and given and math_verify.verify(wanted, given, timeout_seconds=limit))


# ------------------------------------------------------------------------------------------------- rewards


def reward_functions(names: Sequence[str], max_completion_length: int | None, overlong_buffer: int) -> list[Callable]:
    """TRL reward functions, in the order of `names`; they read the columns `target` and `verifier` of the rows.

    accuracy: 1 if right, else 0. format: 1 for one thought in its tags and a final answer after it, else 0.
    overlong: TRL's soft punishment (DAPO, arXiv:2503.14476, eq. 13), from 0 at `overlong_buffer` tokens below
    `max_completion_length` to -1 there.
    """

    def accuracy(completions: Sequence, target: Sequence[str], verifier: Sequence[str], **_: Any) -> list[float]:
        return [float(is_correct(*row)) for row in zip(map(text_of, completions), target, verifier, strict=True)]

    def format(completions: Sequence, **_: Any) -> list[float]:
        return [float(is_in_form(text_of(completion))) for completion in completions]

    def overlong(completions: Sequence, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        from trl.rewards import get_soft_overlong_punishment

        return get_soft_overlong_punishment(max_completion_length, overlong_buffer)(completion_ids=completion_ids)

    known: dict[str, Callable] = {"accuracy": accuracy, "format": format, "overlong": overlong}
    return [known[name] for name in names]


def is_in_form(text: str) -> bool:
    """Whether one thought in `<think>` tags comes first, then an answer that states one final answer."""
    return think_tags.is_well_formed(text) and final_answer(text) is not None
