"""Whether a verifier fits a source: it must accept every gold answer, and reject the gold answers of other rows.

stonk data verify gsm8k --path gsm8k_train.parquet
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.reasoning import sources
from stonk_trainer.tasks.reasoning.verify import is_correct

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
    number or letter. Raises UserError for a row without a verifier; rows of `stonk sample` have theirs."""
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
        for wrong in {other, _after(target, kind)} - {target, None}:
            found.shifted += 1
            if not is_correct(text, wrong, kind):
                found.rejected += 1
            else:
                found.failures.append(f"row {identity}: {target} is accepted for {wrong}")
    found.seconds = time.monotonic() - started
    return found


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
