"""The one check of a row that was read from a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.task import Row


def check_row(row: object, where: str, needed: Sequence[str]) -> Row:
    """The row, with its facts as `facts_to_json` writes them ("[]" where it has none).

    A column of `_PROBLEMS` is checked wherever it has a value, others are left as they are.

    Args:
        row: a line of a file in the form of `Stocks.rl_dataset`; its facts may be a list or that list as a JSON string.
        where: the row's place, such as "rows.jsonl:3".
        needed: columns that must have a value.

    Raises:
        UserError: begins with `where` and names the column.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, this is {type(row).__name__}")
    if missing := [column for column in needed if row.get(column) is None]:
        raise UserError(f"{where}: the row lacks {', '.join(missing)}")
    for column, (is_valid, problem) in _PROBLEMS.items():
        value = row.get(column)
        if value is not None and not is_valid(value):
            raise UserError(f"{where}: {column}: {ascii(value)[:80]} {problem}")
    facts = row.get("facts")
    return {**row, "facts": "[]" if facts is None else check_facts(facts, where)}


def check_facts(facts: object, where: str) -> str:
    """Facts that were read from a file, as `facts_to_json` writes them.

    facts: a list of name, value, unit and shown, or that list as a JSON string. Raises UserError, which begins with
    `where`, when it is neither.
    """
    if isinstance(facts, str):
        try:
            facts = json.loads(facts)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: facts is not JSON: {error}") from error
    if not isinstance(facts, list):
        raise UserError(f"{where}: facts is not a list of facts but {type(facts).__name__}")
    names: set[str] = set()
    for number, fact in enumerate(facts, start=1):
        which = f"{where}: fact {number}"
        if not isinstance(fact, dict) or set(fact) != {"name", "value", "unit", "shown"}:
            raise UserError(f"{which} must have exactly the keys name, value, unit and shown")
        if not all(isinstance(fact[key], str) for key in ("name", "unit", "shown")):
            raise UserError(f"{which}: name, unit and shown must be text")
        if not (isinstance(fact["value"], str) or is_number(fact["value"])):
            raise UserError(f"{which}: value: {fact['value']!r} is neither a number nor text")
        if fact["name"] in names:
            raise UserError(f"{which}: duplicate name: {fact['name']}")
        names.add(fact["name"])
    return json.dumps(facts)


def is_number(value: object) -> bool:
    """Whether it is a finite number: not a boolean, nor an integer too large for a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def _is_text(value: object) -> bool:
    """Whether it is text that can be written: JSON may hold half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_prompt(prompt: object) -> bool:
    if not isinstance(prompt, list):
        return _is_text(prompt)
    return bool(prompt) and all(
        isinstance(message, Mapping) and all(_is_text(message.get(key)) for key in ("role", "content"))
        for message in prompt
    )


# column: (whether a value is valid, what is wrong with one that is not)
_PROBLEMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (_is_prompt, "is neither text nor a list of messages (role, content): see `stonk data rows`"),
    "ticker": (_is_text, "is not text"),
    "label": (lambda label: label in ("UP", "DOWN"), "is neither UP nor DOWN"),
    "next_return": (is_number, "is not a number (a fraction: 0.012 is 1.2%)"),
    "base_rate_up": (lambda share: is_number(share) and 0 <= share <= 1, "is not between 0 and 1"),
}
