"""Is an answer right? One verifier for rewards, rejection sampling and the validation on whole datasets.

    math      each statement equals the target by value (`values`; `math-verify` where it is not a number)
    choice    each statement names the target's letter

The rules are in docs/reasoning.md; what counts as a statement is in `statements`.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from stonk_trainer.task import text_of
from stonk_trainer.tasks.reasoning import think_tags, values
from stonk_trainer.tasks.reasoning.statements import LONGEST_ANSWER, Statement, boxed, statements, unwrapped

__all__ = ["KINDS", "boxed", "final_answer", "is_correct", "is_in_form", "reward_functions"]

KINDS = ("math", "choice")

_LETTER = re.compile(
    r"[(\[{\s]*([A-Ja-j])(?P<rest>[)\]}\s]*(?:$|[.:,;!)\]/&].*|\s+(?:because|since|as|for|which|or|and|also|[-–—(&/]).*))",
    re.S,
)
_OTHER_LETTER = re.compile(
    r"\s*[)\]}.:]*\s*(?:(?:or|and|also|[/&])\s*(?:or\s+)?[(\[]?[A-J]\b"
    r"|,\s*(?:or\s+|and\s+)?[(\[]?[A-J]\b[)\]]?+(?!\s+(?:being|is|was|would|cannot|can't|does)\b))"
)
# Expressions that would keep sympy busy: powers of powers, huge exponents and factorials.
_COSTLY = re.compile(r"\^[^\s^]*\^[^\s^]*\^|\^\s*\{?\s*[\d,]{5,}|\d{4,}\}?\s*!")
_FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan log ln exp max min gcd lcm det sqrt mod".split())


def is_correct(completion: str, target: str, kind: str) -> bool:
    """Whether `completion` states `target`, and nothing else, as its final answer.

    kind: one of `KINDS`; raises ValueError otherwise.
    """
    if kind not in KINDS:
        raise ValueError(f"no verifier {kind!r}: choose from {', '.join(KINDS)}")
    stated = statements(completion)
    same = _same_letter if kind == "choice" else _same_value
    return bool(stated) and all(same(one, target) for one in stated)


def final_answer(completion: str) -> str | None:
    """What `completion` states as its final answer; None where it states none, or two that differ."""
    stated = statements(completion)
    if not stated:
        return None
    first = stated[0].text
    return first if all(one.text == first or _same_value(one, first) for one in stated[1:]) else None


def _same_letter(stated: Statement, target: str) -> bool:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", stated.text).replace("$", "")
    text = unwrapped(re.sub(r"^\s*(?:option|choice|letter)\s+", "", text, flags=re.I))
    letter = _LETTER.fullmatch(text)
    if not letter or _OTHER_LETTER.match(letter["rest"]):
        return False
    return letter[1].upper() == target.strip().strip("()").upper()


def _same_value(stated: Statement, target: str) -> bool:
    given, wanted = values.read(stated.text, stated.in_prose), values.read(target)
    if given is not None and wanted is not None:
        return given.equals(wanted)
    one, other = (_expression(text) for text in (stated.text, target))
    if _plain(one) == _plain(other):
        return bool(_plain(one))
    if _COSTLY.search(one) or _depth(one) > 12 or not (_is_formula(one) and _is_formula(other)):
        return False
    return _math_verify(one, other)


def _depth(text: str) -> int:
    """How deep brackets are nested; `LONGEST_ANSWER` where they do not match."""
    depth = deepest = 0
    for letter in text:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        deepest = max(deepest, depth)
    return deepest if depth == 0 else LONGEST_ANSWER


def _expression(text: str) -> str:
    """LaTeX as math-verify parses it: functions with their backslash, roots with braces, no unit at the end."""
    text = values.plain_latex(text).rstrip(".").strip()
    text = re.sub(r"(?<![\\A-Za-z])(pi|sqrt|infty|theta|alpha|beta)(?![A-Za-z])", r"\\\1", text).replace("π", "\\pi ")
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text).replace("√", "\\sqrt ")
    return values.without_unit(text)


def _plain(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\s+|\$", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text[1:-1] if re.fullmatch(r"\([A-Za-z]\)", text) else text
    return text.lower() if re.fullmatch("[A-Za-z]{2,}", text) else text


def _is_formula(text: str) -> bool:
    """Whether all of a text is mathematics, of which math-verify would otherwise read a part."""
    if re.search(r"\\(?:text|mathrm|textbf|mathbf|ldots|dots|cdots|ldot)\b|\.\.\.|…|[:;_?!]\s*\d|\d\s*_", text):
        return False
    bare = re.sub(r"\\[A-Za-z]+", " ", text)
    return all(word.lower() in _FUNCTIONS for word in re.findall(r"[A-Za-z]{2,}", bare))


@lru_cache(maxsize=65_536)
def _math_verify(stated: str, target: str) -> bool:
    import math_verify

    on_main = threading.current_thread() is threading.main_thread()  # its time limits are signals
    for name in ("math_verify.parser", "math_verify.grader", "math_verify"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    limit, whole = 5 if on_main else None, [math_verify.LatexExtractionConfig()]
    parsed = [
        [found for found in math_verify.parse(f"${text}$", whole, parsing_timeout=limit) if not isinstance(found, str)]
        for text in (target, stated)
    ]  # what it cannot parse whole is left as text
    return all(parsed) and bool(math_verify.verify(*parsed, timeout_seconds=limit))


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
