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
from stonk_trainer.tasks.reasoning.statements import LONGEST_ANSWER, Statement, statements, unwrapped

KINDS = ("math", "choice")

_LETTER = re.compile(
    r"[(\[{\s]*([A-Za-z])(?P<rest>[)\]}\s]*(?:$|[.:,;!)\]/&].*|\s+(?:because|since|as|for|which|that|given|though"
    r"|although|namely|i\.e|e\.g|or|and(?:/or)?|also|but|not|rather|instead|[-–—(&/]).*))",
    re.S,
)
_JOINS = r"(?:or|and|as\s+well\s+as|along\s+with|[/&,;]|\((?=or\b|and\b))"
_ONE = (
    r"[(\[]?(?:[B-HJ](?!\.[a-z])|[AI](?!\s+(?!or\b|and\b|is\b|are\b|because\b|since\b)[a-z]|\.[a-z]))(?![\w'’])[)\]]*+"
)
_OTHER_LETTER = re.compile(
    rf"\s*[)\]}}.:!]*\s*(?:{_JOINS}\s*)+(?:(?:also|else|even|maybe|perhaps|possibly|probably|then|option|choice)\s+)*{_ONE}"
    rf"(?!(?:(?:[\s,]*(?:and|or))?[\s,]*{_ONE})*\s+(?:being|is|isn't|are|was|were|would|cannot|can't|does|doesn't|fails?)\b"
    r"(?!\s+(?:also\s+|both\s+)?(?:right|correct|true|possible)))|\.[A-J](?![A-Za-z])"
    r"|\s*[)\].:]*\s*(?:[(\[]?[A-J][)\].]+\s*)+$",
    re.I,
)
# Expressions that would keep sympy busy: powers of powers, huge exponents, factorials and binomials.
_COSTLY = re.compile(
    r"\^[^\s^]*\^[^\s^]*\^|\^\s*\{?\s*[\d,]{5,}|\([^()]*\^[^()]*\)\s*\^\s*\{?\s*-?\d{3}|e\s*\^[^^]*\^"
    r"|(?<![\\A-Za-z])[A-Za-z][^()]*\)\s*\^\s*\{?\s*-?\d{3}|\d{4,}\}?\s*!|!\s*[)}]*\s*!|binom\s*\{\s*\d{5,}"
)
_FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan log ln exp max min gcd lcm det sqrt".split())
_COMMANDS = _FUNCTIONS | set(
    "frac dfrac tfrac cfrac binom dbinom tbinom times cdot div pm mp pi theta alpha beta gamma delta epsilon lambda mu "
    "omega phi sigma rho tau infty in cup cap setminus emptyset le leq leqslant ge geq geqslant lt gt ne neq lfloor "
    "rfloor lceil rceil begin end circ sinh cosh tanh overline vec langle rangle".split()
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{[pbBvV]?matrix\}")


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
    return _letter(stated.text) == (_letter(target) or "no letter")


def _letter(text: str) -> str | None:
    """The letter that a text names, with or without the text of the option; None for several letters or none."""
    text = values.TEXT.sub(r"\1", values.plain_latex(text)).replace("$", "")
    text = unwrapped(re.sub(r"^\s*(?:option|choice|letter)\s+", "", unwrapped(text), flags=re.I))
    found = _LETTER.fullmatch(text)
    return found[1].upper() if found and not _OTHER_LETTER.match(found["rest"]) else None


def _same_value(stated: Statement, target: str) -> bool:
    given, wanted = values.read(stated.text, stated.in_prose), values.read(target)
    if given is not None and wanted is not None:
        return given.equals(wanted)
    if given is None and stated.in_prose:
        stated = stated._replace(text=values.mathematics(stated.text))
    if "=" in stated.text and "=" not in target and (chain := _chain(stated.text)):
        return all(_same_value(Statement(one, False), target) for one in chain[:-1]) and _same_value(
            Statement(chain[-1], stated.in_prose), target
        )
    one, other = (_expression(text) for text in (stated.text, target))
    if _plain(one) == _plain(other):
        return bool(_plain(one))
    if one.count(",") != other.count(",") and max(one.count(","), other.count(",")) > 9:
        return False  # long lists of unequal length
    if any(_COSTLY.search(text) or _depth(text) > 12 or not _is_formula(text) for text in (one, other)):
        return False
    try:
        return _rounds(given, other) or _rounds(wanted, one) or _math_verify(one, other)
    except (ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError):
        return False  # of sympy, for what it cannot evaluate: (-3)!, say


def _chain(text: str) -> list[str]:
    """What an equation states one value by: 3 + 5 and 8 of `x = 3 + 5 = 8`; nothing for a list or a relation."""
    members = re.split(r"(?<![<>!:])=", values.plain_latex(text))
    if not 2 <= len(members) <= 5 or re.search(r"[,;<>]|\\(?:in|ne|neq|le|ge|leq|geq)\b|\bor\b|\band\b", text):
        return []
    names = [bool(re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", member))) for member in members[:-1]]
    if any(names[1:]) or not members[-1].strip():
        return []
    return [member for member, name in zip(members, [*names, False], strict=True) if not name]


def _depth(text: str) -> int:
    """How deep brackets are nested; `LONGEST_ANSWER` where they do not match."""
    depth = deepest = 0
    for letter in text:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        deepest = max(deepest, depth)
    return deepest if depth == 0 else LONGEST_ANSWER


def _expression(text: str) -> str:
    """LaTeX as math-verify parses it: functions with their backslash, roots with braces, no unit at the end; lists with
    commas, decimals as fractions, since sympy rounds them.
    """
    text = values.without_stop(values.plain_latex(text)).replace("\\varnothing", "\\emptyset")
    text = re.sub(
        r"(?<![\\A-Za-z])(pi|sqrt|infty|theta|alpha|beta|sin|cos|tan|log|ln)(?![A-Za-z])", r"\\\1", text
    ).replace("π", "\\pi ")
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text).replace("√", "\\sqrt ")
    text = re.sub(r"\s*,?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\s(?:and|or)\s)\s*", ", ", text)
    text = _ENVIRONMENT.sub(r"\\\1{pmatrix}", text)
    return values.without_unit(text)


def _plain(text: str) -> str:
    text = values.TEXT.sub(r"\1", text)
    text = re.sub(r"\$|(?<!\d)\s+|\s+(?!\d)", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\[lc]?dots[cb]?(?![A-Za-z])|\.\.\.|…", "\\\\ldots", text)
    text = text[1:-1] if re.fullmatch(r"\([A-Za-z]\)", text) else text
    return text.lower() if re.fullmatch("[A-Za-z]{2,}", text) else text


def _is_formula(text: str) -> bool:
    """Whether all of a text is mathematics, of which math-verify would otherwise read a part."""
    if re.search(r"\.\.\.|[^\w\s\\{}()\[\]^+\-*/=<>|.,&!]|!\s*\d|\d\s*_", text):
        return False
    text = _ENVIRONMENT.sub(" ", text)
    commands, words = re.findall(r"\\([A-Za-z]+)", text), re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", " ", text))
    return _COMMANDS.issuperset(commands) and all(word.lower() in _FUNCTIONS for word in words)


@lru_cache(maxsize=65_536)
def _parsed(text: str) -> list[Any]:
    """What math-verify makes of a whole text; nothing where it cannot parse it."""
    import math_verify

    for name in ("math_verify.parser", "math_verify.grader", "math_verify"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    text = re.sub(r"(\d*)\.(\d+)", lambda found: f"\\frac{{{found[1]}{found[2]}}}{{{10 ** len(found[2])}}}", text)
    found = math_verify.parse(f"${text}$", [math_verify.LatexExtractionConfig()], parsing_timeout=_time_limit())
    return [one for one in found if not isinstance(one, str)]


def _time_limit() -> int | None:
    return 5 if threading.current_thread() is threading.main_thread() else None  # math-verify's are signals


@lru_cache(maxsize=65_536)
def _math_verify(stated: str, target: str) -> bool:
    import math_verify

    given, wanted = _parsed(stated), _parsed(target)
    if not (given and wanted):
        return False
    if _is_number(given[0]) and _is_number(wanted[0]):
        return _same_number(given[0], wanted[0])
    precise = {"float_rounding": 2000, "numeric_precision": 2000}  # tiny numbers differ by less
    return bool(
        math_verify.verify(wanted, given, allow_set_relation_comp=True, timeout_seconds=_time_limit(), **precise)
    )


def _is_number(found: Any) -> bool:
    return bool(getattr(found, "is_number", False) and found.evalf(15).is_finite)


def _same_number(one: Any, other: Any) -> bool:
    """To 50 digits of their own size, as differences of tiny numbers are tiny; fractions exactly."""
    first, second = one.evalf(60), other.evalf(60)
    size = max(abs(first), abs(second))
    if not abs(first - second) <= size / 10**50:
        return size < 1e-40 and bool((one - other).equals(0))
    if not 1e-2000 < size < 10**2000:
        return True
    first, second = one.doit(), other.doit()
    return first == second if first.is_Rational and second.is_Rational else True


def _rounds(decimal: values.Value | None, text: str) -> bool:
    """Whether a decimal of six significant digits or more rounds an expression such as a root."""
    if decimal is None or decimal.digits is None or decimal.digits < 6:
        return False
    found = _parsed(text)
    if not found or not _is_number(found[0]):
        return False
    exact = found[0].evalf(60)
    return bool(exact.is_real and 2 * abs(exact - decimal.number) <= decimal.last)


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
