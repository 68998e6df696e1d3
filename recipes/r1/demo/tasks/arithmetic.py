"""The rows and the judge of `arithmetic.yaml`."""

from datasets import Dataset

from stonk_trainer.tasks.reasoning.synthetic import arithmetic
from stonk_trainer.tasks.reasoning.verify import is_correct, is_in_form


def rows(**_: object) -> dict[str, Dataset]:
    made = [{"question": row["question"], "target": row["answer"].split("#### ")[1]} for row in arithmetic("test")]
    return {"test": Dataset.from_list(made)}


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    (text,) = results
    return {"accuracy": float(is_correct(text, doc["target"], "math")), "in_form": float(is_in_form(text))}
