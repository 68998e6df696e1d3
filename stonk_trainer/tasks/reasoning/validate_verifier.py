"""The proof that a verifier fits a source: it accepts every gold answer, and rejects the gold answers of other rows.

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

LEAST_REJECTED = 0.999  # of shifted golds


@dataclass
class Proof:
    """Counts over one source. accepted, of `rows` golds; rejected, of `shifted` ones. wrong: the first few failures, in
    words. left_out: rows without an example, by reason."""

    rows: int = 0
    accepted: int = 0
    shifted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        return self.accepted == self.rows > 0 and self.rejected >= LEAST_REJECTED * self.shifted


def prove(name: str, path: str | None, split: str, options: sources.Options) -> Proof:
    """Verify every gold answer of a split against its own target, and against two that are not: the next row's, and
    the number or letter after it. Rows of a file that `stonk sample` wrote carry theirs. Raises UserError where nothing
    says what a right answer is."""
    started, proof, golds = time.monotonic(), Proof(), []
    for example in sources.examples(name, path, split, options):
        if example["dropped"]:
            proof.left_out[example["dropped"]] += 1
            continue
        if not example["verifier"]:
            raise UserError(f"{name}: row {example['id']} has no verifier: nothing says what a right answer to it is")
        golds.append((example["completion"][-1]["content"], example["target"], example["verifier"], example["id"]))
    for text, target, kind, identity in golds:
        proof.rows += 1
        if is_correct(text, target, kind) and is_correct(target, target, kind):
            proof.accepted += 1
        else:
            _note(proof, f"row {identity}: its own answer is rejected: {target}")
    for (text, target, kind, identity), (_, other, _, _) in pairwise([*golds, *golds[:1]]):
        for wrong in {other, _after(target, kind)} - {target, None}:
            proof.shifted += 1
            if not is_correct(text, wrong, kind):
                proof.rejected += 1
            else:
                _note(proof, f"row {identity}: {target} passes for {wrong}")
    proof.seconds = time.monotonic() - started
    return proof


def _after(target: str, kind: str) -> str | None:
    if kind == "choice":
        return {"A": "B", "B": "C", "C": "D", "D": "E", "E": "A"}.get(target)
    number = target.replace(",", "")
    return str(int(number) + 1) if re.fullmatch(r"-?\d+", number) else None


def _note(proof: Proof, text: str) -> None:
    if len(proof.wrong) < 10:
        proof.wrong.append(text)


def print_proof(proof: Proof, title: str) -> None:
    print(
        f"{title}: {proof.accepted} of {proof.rows} gold answers accepted, {proof.rejected} of {proof.shifted} shifted "
        f"ones rejected, in {proof.seconds:.1f} s"
    )
    for reason, count in proof.left_out.items():
        print(f"  {count} rows left out: {reason}")
    for text in proof.wrong:
        print(f"  {text}")
