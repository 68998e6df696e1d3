"""Generated arithmetic in the schemas of GSM8K and MMLU: enough to try every phase without a download.

The text of a question decides its split, so that no question is in two.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

QUESTIONS = 6000  # generated for all splits together: 80% train, 10% validation, 10% test

_NAMES = (
    "Ann Ben Carla David Emma Frank Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Rosa Sam Tina Victor".split()
)
_THINGS = "apples books coins cards shells stamps pencils marbles eggs tickets".split()


def arithmetic(split: str) -> Iterator[dict[str, Any]]:
    """Rows `question`, `answer` (steps, then `#### n`) of sums in two steps with results from 0 to 200."""
    seen = set()
    for i in range(QUESTIONS):
        row = _question(random.Random(f"arithmetic/{i}"))
        if row["question"] not in seen and _split_of(row["question"]) == split:
            seen.add(row["question"])
            yield row


def arithmetic_choice(split: str) -> Iterator[dict[str, Any]]:
    """The same questions with four choices: rows `question`, `choices`, `answer` (index), `subject`."""
    for row in arithmetic(split):
        right = int(row["answer"].rpartition("#### ")[2])
        rng = random.Random(f"choice/{row['question']}")
        wrong = rng.sample([n for n in range(max(0, right - 9), right + 10) if n != right], 3)
        choices = rng.sample([right, *wrong], 4)
        texts, answer = [str(choice) for choice in choices], choices.index(right)
        yield {"question": row["question"], "choices": texts, "answer": answer, "subject": "arithmetic"}


def _question(rng: random.Random) -> dict[str, str]:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    kind = rng.randrange(3)
    if kind == 0:
        total, c = a + b, rng.randint(1, a + b)
        question = f"{name} has {a} {things}, gets {b} more and gives {c} away. How many {things} are left?"
        steps = [(f"{a} + {b}", total), (f"{total} - {c}", total - c)]
    elif kind == 1:
        b, c = rng.randint(2, 9), rng.randint(1, 20)
        question = f"{name} buys {b} boxes of {a} {things} and finds {c} more. How many {things} does {name} have?"
        steps = [(f"{b} * {a}", a * b), (f"{a * b} + {c}", a * b + c)]
    else:
        c = rng.randint(1, 20)
        question = f"{name} counts {a} {things} on Monday, {b} on Tuesday and {c} on Friday. How many is that?"
        steps = [(f"{a} + {b}", a + b), (f"{a + b} + {c}", a + b + c)]
    answer = "\n".join(f"{term} = <<{term.replace(' ', '')}={value}>>{value}" for term, value in steps)
    return {"question": question, "answer": f"{answer}\n#### {steps[-1][1]}"}


def _split_of(question: str) -> str:
    place = hashlib.blake2b(question.encode(), digest_size=2).digest()[0] / 256
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"
