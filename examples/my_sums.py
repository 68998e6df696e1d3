"""Sums: a task of one's own in about thirty lines. `docs/tasks.md` walks through it.

stonk check my_sums.yaml
"""

import random
import re

from datasets import Dataset

from stonk_trainer.task import Task, text_of


def right(completions, target, **columns):
    """1 for an answer whose last boxed number is the sum, else 0."""
    stated = [re.findall(r"boxed\{(\d+)}", text_of(completion)) for completion in completions]
    return [float(found[-1:] == [sum_]) for found, sum_ in zip(stated, target, strict=True)]


class Sums(Task):
    REWARDS = ("right",)

    def rl_dataset(self, split):
        rng = random.Random(f"{self.args.sampling_seed}/{split}")
        pairs = [(rng.randint(5, 20), rng.randint(5, 20)) for _ in range(self.limit(split) or 40)]
        questions = [[{"role": "user", "content": f"What is {a} + {b}?"}] for a, b in pairs]
        return Dataset.from_dict({"prompt": questions, "target": [str(a + b) for a, b in pairs]})

    def sft_dataset(self, split):
        def answered(row):
            return {"completion": [{"role": "assistant", "content": f"The sum is \\boxed{{{row['target']}}}."}]}

        return self.rl_dataset(split).map(answered, remove_columns="target")

    def rewards(self, names):
        return [right]

    def read(self, rows, completions):
        return [{"target": row["target"]} for row in rows]

    def examples(self, row):
        return {"good": f"The sum is \\boxed{{{row['target']}}}.", "bad": "I do not know."}
