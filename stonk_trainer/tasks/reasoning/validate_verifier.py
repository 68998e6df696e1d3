"""Whether a verifier fits a source: it must accept every gold answer, and reject others, made to look like it.

stonk data verify gsm8k --path gsm8k_train.parquet
stonk data verify --cases cases.jsonl
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from stonk_trainer.errors import UserError
from stonk_trainer.files import read_jsonl
from stonk_trainer.tasks.reasoning import sources
from stonk_trainer.tasks.reasoning.verify import KINDS, is_correct

LEAST_REJECTED = 0.999  # of wrong targets


@dataclass
class Validation:
    """What a verifier decided about a source.

    accepted: of `rows` gold answers. rejected: of `shifted` wrong targets. failures: the first few, in words. dropped:
    rows without an example, by reason.
    """

    rows: int = 0
    accepted: int = 0
    shifted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        return self.accepted == self.rows > 0 and self.rejected >= LEAST_REJECTED * self.shifted


def validate(part: sources.Part, split: str) -> Validation:
    """Verify every gold answer of a split against its own target and two wrong ones: that of the next row, and the next
    number or letter; and its target against statements that only look like it (`lookalikes`).

    Raises UserError for a row without a verifier; rows of `stonk sample` have theirs.
    """
    started, found, golds = time.monotonic(), Validation(), []
    for example in sources.examples(part, split):
        if example["dropped"]:
            found.dropped[example["dropped"]] += 1
            continue
        if not example["verifier"]:
            raise UserError(f"{part.source}: row {example['id']} has no verifier, so its answers cannot be checked")
        golds.append((example["completion"][-1]["content"], example["target"], example["verifier"], example["id"]))
    for (text, target, kind, identity), (_, other, _, _) in pairwise([*golds, *golds[:1]]):
        found.rows += 1
        if is_correct(text, target, kind) and is_correct(target, target, kind):
            found.accepted += 1
        else:
            found.failures.append(f"row {identity}: its own answer is rejected: {target}")
        shifted = [(text, wrong) for wrong in {other, _after(target, kind)} - {target, None}]
        for stated, wrong in shifted + lookalikes(target, kind):
            found.shifted += 1
            if not is_correct(stated, wrong, kind):
                found.rejected += 1
            else:
                shown = target if stated is text else stated
                found.failures.append(f"row {identity}: {shown} is accepted for {wrong}")
    found.seconds = time.monotonic() - started
    return found


def lookalikes(target: str, kind: str) -> list[tuple[str, str]]:
    """(a statement, a target that it does not state), made from a target that is a letter or a whole number.

    A number with a multiplier, in another base, as a part of a whole; one of two statements; a fraction's neighbour.
    """
    other, number = _after(target, kind), target.replace(",", "")
    if other is None:
        return []
    both = [f"The answer is {target}. No, the answer is {other}.", f"The answer is {target} or {other}."]
    found = [(text, target) for text in both]
    if kind == "choice":
        return found
    found.append((f"\\boxed{{{number}}}, \\boxed{{{other}}}", target))
    if number.lstrip("-0"):
        alike = [
            f"The answer is {number} million.",
            f"\\boxed{{{number}\\text{{ thousand}}}}",
            f"The answer is {number} thirds.",
        ]
        found += [(text, target) for text in [*alike, f"\\boxed{{{number}\\pi}}"]]
    if len(number.lstrip("-0")) > 1:
        found.append((f"\\boxed{{{number}_{{9}}}}", target))
    power = 40 + abs(int(number)) % 60
    found.append((f"\\boxed{{\\frac{{1}}{{2^{{{power}}}}}}}", f"\\frac{{1}}{{2^{{{power + 1}}}}}"))
    return found


def count_right(path: str) -> bool:
    """Judge the cases of a JSONL file (text, target, kind, right), print each wrong one; whether all are right.

    Raises UserError for a file without cases, and for a row with other fields.
    """
    rows = read_jsonl(path)
    for number, row in rows:
        strings = all(isinstance(row.get(key), str) for key in ("text", "target", "kind"))
        if not strings or not isinstance(row.get("right"), bool) or row["kind"] not in KINDS:
            raise UserError(
                f"{path}, line {number}: a case has text and target, kind ({' or '.join(KINDS)}), and right (true or "
                "false)"
            )
    if not rows:
        raise UserError(f"{path} holds no cases")
    wrong = [
        (number, row) for number, row in rows if is_correct(row["text"], row["target"], row["kind"]) != row["right"]
    ]
    for number, row in wrong:
        said = "is refused for" if row["right"] else "is accepted for"
        print(f"line {number}: {row['text'][:100]!r} {said} {row['target']!r}")
    print(f"{len(rows) - len(wrong)} of {len(rows)} right")
    return not wrong


def _after(target: str, kind: str) -> str | None:
    if kind == "choice":
        return {"A": "B", "B": "C", "C": "D", "D": "E", "E": "A"}.get(target)
    number = target.replace(",", "")
    return str(int(number) + 1) if re.fullmatch(r"-?\d+", number) else None


def print_validation(found: Validation, title: str) -> None:
    print(
        f"{title}: {found.accepted} of {found.rows} gold answers accepted, {found.rejected} of {found.shifted} shifted "
        f"ones rejected, in {found.seconds:.1f} s"
    )
    for reason, count in found.dropped.items():
        print(f"  {count} rows left out: {reason}")
    for text in found.failures[:10]:
        print(f"  {text}")
