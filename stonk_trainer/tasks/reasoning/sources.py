"""Where prompts and answers come from: each source in its exact upstream schema, by Hub name or from local files.

A source gives *examples*: the prompt and the completion as chat messages, and, where the answer can be checked, its
target and verifier. Upstream's train, validation and test splits stay what they are; training cannot reach a test
split. Where upstream has no validation split, a share of train, chosen by the text of the prompt, takes its place.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stonk_trainer.errors import UserError, did_you_mean, first_line, hub_error
from stonk_trainer.files import iter_jsonl
from stonk_trainer.tasks.reasoning import synthetic, think_tags
from stonk_trainer.tasks.reasoning.chats import SYSTEM, THOUGHTS, chat_example
from stonk_trainer.tasks.reasoning.statements import boxed
from stonk_trainer.tasks.reasoning.verify import KINDS

MODES = ("cot", "answer_only")
# The natural sciences among MMLU's 57 subjects.
SCIENCE = (
    "anatomy", "astronomy", "college_biology", "college_chemistry", "college_physics", "conceptual_physics",
    "high_school_biology", "high_school_chemistry", "high_school_physics", "medical_genetics", "virology",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A source as a part of a mixture, and how it is read.

    path: local file or folder; None: the Hub. stop: upstream rows read at most; -1: all. ratio: its share of the
    mixture; None: all its rows. mode: with reasoning (cot) or without. subjects: of MMLU; empty: all. prompt_field,
    answer_field: columns of a JSONL file that has no `messages`. held_out: the share of train that is validation where
    upstream has none.
    """

    source: str
    path: str | None = None
    stop: int = -1
    ratio: float | None = None
    mode: str = "cot"
    subjects: tuple[str, ...] = ()
    prompt_field: str | None = None
    answer_field: str | None = None
    held_out: float = 0.02

    @property
    def upstream(self) -> Source:
        """Raises UserError for an unknown source."""
        return source(self.source)


@dataclass(frozen=True)
class Source:
    """Where a source is, and how its rows are read.

    read: one upstream row → the example's fields, or why there is none. columns: sets of which a row must have one.
    hub, config: as `load_dataset` takes them; None: generated here, or local only. splits: our names (train,
    validation, test) → upstream's. verifier: of its answers; "" where they cannot be checked. streamed: too large to
    download whole. generate: makes the rows of a split.
    """

    read: Callable[[Row, Part], Row | str]
    columns: tuple[tuple[str, ...], ...]
    hub: str | None = None
    config: str | None = None
    splits: tuple[tuple[str, str], ...] = (("train", "train"), ("test", "test"))
    verifier: str = ""
    streamed: bool = False
    generate: Callable[[str], Iterator[Row]] | None = None
    subjects: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------- chats


def _read_chat(row: Row, part: Part) -> Row | str:
    """Of `messages`, OpenThoughts' `conversations` or its `metadata` configuration, or two named columns."""
    if row.get("messages") is not None:
        if isinstance(row["messages"], str):
            raise ValueError("messages is text, not a list")
        example = chat_example(_with_fields_of_the_row(row), part.mode)
        if isinstance(example, dict):  # `stonk sample` writes targets and verifiers too
            example |= {key: row[key] for key in ("target", "verifier") if isinstance(row.get(key), str)}
            if example.get("verifier", "") not in ("", *KINDS):
                raise ValueError(f"verifier {row['verifier']} is not one of {', '.join(KINDS)}")
        return example
    if row.get("conversations") is not None:
        return chat_example(row["conversations"], part.mode)
    if "messages" in row or "conversations" in row:
        return "no messages"
    if part.prompt_field and part.answer_field:
        question, answer = {"content": row[part.prompt_field]}, {"content": row[part.answer_field]}
    else:
        question = {"content": row["problem"]}
        answer = {"content": row["deepseek_solution"], "thinking": row["deepseek_reasoning"]}
    return chat_example([{"role": "user", **question}, {"role": "assistant", **answer}], part.mode)


def _with_fields_of_the_row(row: Row) -> list[Row]:
    """The messages, with a system text and a thought of the answer that stand beside them."""
    messages = list(row["messages"])
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": row["system"]})
    thoughts = {key: row[key] for key in THOUGHTS if row.get(key)}
    return [*messages[:-1], {**thoughts, **messages[-1]}] if messages and thoughts else messages


# ------------------------------------------------------------------------------------------------- checkable answers


def question(text: str, steps: str, stated: str, target: str) -> Row:
    """An example whose answer can be checked. steps: the reasoning, empty where upstream has none."""
    answer = f"The answer is \\boxed{{{stated}}}."
    return {
        "prompt": [{"role": "system", "content": SYSTEM}] * bool(steps) + [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": think_tags.join(steps, answer) if steps else answer}],
        "target": target,
    }


def _read_gsm8k(row: Row, part: Part) -> Row | str:
    steps, mark, target = row["answer"].rpartition("####")
    if not mark or not target.strip():
        return "no answer after ####"
    steps = re.sub(r"<<[^<>]*>>", "", steps).strip()  # calculator annotations
    return question(row["question"], steps if part.mode == "cot" else "", target.strip(), target.strip())


def _read_math(row: Row, part: Part) -> Row | str:
    found = boxed(row["solution"])
    if not found:
        return "no answer in a box"
    return question(row["problem"], row["solution"] if part.mode == "cot" else "", found[-1], found[-1])


def _choices(text: str, choices: Sequence[str], right: int) -> Row | str:
    if not 0 <= right < len(choices) or not 2 <= len(choices) <= 5:
        return "no valid choice"
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCDE", choices, strict=False))
    return question(f"{text}\n{options}", "", "ABCDE"[right], "ABCDE"[right])


def _read_mmlu(row: Row, part: Part) -> Row | str:
    if part.subjects:
        if not (row.get("subject") or "").strip():
            raise UserError(
                "mmlu: a row has a blank subject (all rows of upstream's auxiliary_train do), so its rows cannot be "
                "chosen by subject: take another split, or leave subjects out"
            )
        if row["subject"] not in part.subjects:
            return OTHER_SUBJECT
    return _choices(row["question"], row["choices"], int(row["answer"]))


def _read_arc(row: Row, part: Part) -> Row | str:
    labels, choices = row["choices"]["label"], row["choices"]["text"]  # labels are A to E, or 1 to 5
    key = row["answerKey"]
    return _choices(row["question"], choices, labels.index(key) if key in labels else -1)


OTHER_SUBJECT, OTHER_SPLIT = "of another subject", "of another split"
NOT_REQUESTED = (OTHER_SUBJECT, OTHER_SPLIT)  # reasons that need no log line
_MESSAGES, _CONVERSATIONS = ("messages",), ("conversations",)
_METADATA = ("problem", "deepseek_reasoning", "deepseek_solution")
_TRAIN_ONLY = (("train", "train"),)
_ALL = (("train", "train"), ("validation", "validation"), ("test", "test"))
# MMLU's train split, auxiliary_train, has no subjects: its slices train on upstream's validation split.
_MMLU = (("train", "auxiliary_train"), ("validation", "validation"), ("test", "test"))
_MMLU_SLICE = (("train", "validation"), ("validation", "dev"), ("test", "test"))
_QUESTION = (("question", "answer"),)
_MMLU_COLUMNS = (("question", "choices", "answer", "subject"),)
_ARC_COLUMNS = (("question", "choices", "answerKey"),)

SOURCES = {
    "openthoughts": Source(
        _read_chat, (_CONVERSATIONS, _METADATA), "open-thoughts/OpenThoughts-114k", None, _TRAIN_ONLY, streamed=True
    ),
    "openthoughts3": Source(
        _read_chat, (_CONVERSATIONS,), "open-thoughts/OpenThoughts3-1.2M", None, _TRAIN_ONLY, streamed=True
    ),
    "dolci": Source(_read_chat, (_MESSAGES,), "allenai/Dolci-Think-SFT-7B", None, _TRAIN_ONLY, streamed=True),
    "smoltalk": Source(_read_chat, (_MESSAGES,), "HuggingFaceTB/smoltalk", "all", streamed=True),
    "gsm8k": Source(_read_gsm8k, _QUESTION, "openai/gsm8k", "main", verifier="math"),
    "math": Source(_read_math, (("problem", "solution"),), "DigitalLearningGmbH/MATH-lighteval", verifier="math"),
    "mmlu": Source(_read_mmlu, _MMLU_COLUMNS, "cais/mmlu", "all", _MMLU, "choice"),
    "mmlu_science": Source(_read_mmlu, _MMLU_COLUMNS, "cais/mmlu", "all", _MMLU_SLICE, "choice", subjects=SCIENCE),
    "arc_easy": Source(_read_arc, _ARC_COLUMNS, "allenai/ai2_arc", "ARC-Easy", _ALL, "choice"),
    "arc_challenge": Source(_read_arc, _ARC_COLUMNS, "allenai/ai2_arc", "ARC-Challenge", _ALL, "choice"),
    "chat": Source(_read_chat, (_MESSAGES, _CONVERSATIONS), splits=_ALL),
    "arithmetic": Source(_read_gsm8k, _QUESTION, splits=_ALL, verifier="math", generate=synthetic.arithmetic),
    "arithmetic_choice": Source(
        _read_mmlu, _MMLU_COLUMNS, splits=_ALL, verifier="choice", generate=synthetic.arithmetic_choice
    ),
}


def source(name: str) -> Source:
    """The source called `name`. Raises UserError, which suggests the nearest, for an unknown one."""
    if name not in SOURCES:
        hint = did_you_mean(name, SOURCES) or f": the sources are {', '.join(SOURCES)}"
        raise UserError(f"source {name} is unknown{hint}")
    return SOURCES[name]


# ------------------------------------------------------------------------------------------------- examples of a source


def examples(part: Part, split: str, draw: tuple[int, int] | None = None) -> Iterator[Row]:
    """The examples of a split, in upstream's order.

    Each has `prompt` and `completion` (messages), `target`, `verifier` ("" where the answer cannot be checked),
    `source`, `id` (upstream's, or the number of its row) and `dropped`: "", or why the row gives no example, and then
    the others but `source` and `id` are empty.

    draw: (number of examples, seed), from a shuffled stream of the Hub. Raises UserError for wrong columns, a broken
    file, and a split that does not exist.
    """
    part = replace(part, subjects=part.subjects or part.upstream.subjects)
    has_validation, rows = _open(part, split, draw and draw[1])
    given = 0
    for number, row in enumerate(rows):
        if number == part.stop or (draw and given == draw[0]):
            return
        if number == 0:
            check_columns(part, row)
        example = read_row(part, row, number)
        if isinstance(example, dict):
            if has_validation or _is_held_out(example, part.held_out) == (split == "validation"):
                given += 1
            else:
                example = OTHER_SPLIT
        identity = str(row.get("id") or row.get("problem_id") or number)
        empty = {"prompt": [], "completion": [], "target": "", "verifier": "", "source": part.source, "id": identity}
        if isinstance(example, str):
            yield {**empty, "dropped": example}
        else:
            yield {**empty, "verifier": part.upstream.verifier, "dropped": "", **example}


def read_row(part: Part, row: Row, number: int) -> Row | str:
    """The example of upstream row `number`, or why there is none. Raises UserError for a row of another schema."""
    try:
        return part.upstream.read(row, part)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{part.source}: row {number + 1} of {part.path or part.upstream.hub} does not have the upstream schema: "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_held_out(example: Row, share: float) -> bool:
    text = example["prompt"][-1]["content"]
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) < share * 2**32


def _open(part: Part, split: str, seed: int | None) -> tuple[bool, Iterator[Row]]:
    """(whether upstream has train and validation apart, the split's rows); if not, train's rows for either.

    seed: of the order in which a stream of the Hub is read; None: upstream's.
    """
    name, path, of = part.source, part.path, part.upstream
    splits = dict(of.splits)
    if of.generate:
        if path:
            raise UserError(f"source {name} is generated, not read: leave its path out")
        return True, of.generate(splits[split])
    if path is None and of.hub is None:
        raise UserError(f"source {name} needs a file: give {name}:path=FILE.jsonl")
    files = local_files(path, of.config) if path else {}
    if "dev" in files and "dev" not in splits.values():
        files.setdefault("validation", files.pop("dev"))
    there = set(files) if path else set(splits.values())
    wanted = splits.get(split)
    read = splits["train"] if split == "validation" and wanted not in there else wanted
    if read in there:
        apart = read == wanted and (split != "train" or splits.get("validation") in there)
        return apart, records(files[read]) if path else from_hub(of, read, seed)
    if not path:
        raise UserError(f"{name}: upstream has no {split} split")
    raise UserError(
        f"{name}: {path} holds {' and '.join(files)}, and {split} is upstream's {wanted or splits['train']}: "
        "give the files of that split"
    )


_SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "dev",
                "test": "test", "auxiliary": "auxiliary_train"}  # fmt: skip


def local_files(path: str, config: str | None = None) -> dict[str, list[Path]]:
    """Files (.parquet, .jsonl) of a file or folder, by split: the last split word in the name, else "train".

    Where a folder has one named after the configuration `config`, that is read. Raises UserError when there is no file.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{path} does not exist: give a .parquet or .jsonl file, or a folder of them")
    if config and (root / config).is_dir():
        root = root / config
    found: dict[str, list[Path]] = {}
    for file in [root] if root.is_file() else sorted(root.rglob("*")):
        if file.suffix in (".parquet", ".jsonl"):
            name = file.name if root.is_file() else str(file.relative_to(root))
            words = [_SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _SPLIT_WORDS]
            split = "auxiliary_train" if "auxiliary_train" in words else words[-1] if words else "train"
            found.setdefault(split, []).append(file)
    if not found:
        raise UserError(f"{path} has no .parquet or .jsonl file")
    return found


def records(files: Sequence[Path]) -> Iterator[Row]:
    """The rows of .parquet and .jsonl files, one after the other, in bounded memory."""
    for file in files:
        if file.suffix == ".jsonl":
            yield from (row for _, row in iter_jsonl(file))
        else:
            yield from _read_parquet(file)


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error


SHUFFLE_BUFFER = 10_000  # rows of a stream that are shuffled together, on top of the order of its files


def from_hub(of: Source, split: str, seed: int | None = None, skip: int = 0) -> Iterator[Row]:
    """The rows of a split on the Hub. seed: of a stream's order, None: upstream's. skip: rows of a stream left out."""
    from datasets import load_dataset

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every retry; the error below is enough
    try:
        rows = load_dataset(of.hub, of.config, split=split, streaming=of.streamed)
        rows = rows if seed is None else rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        yield from rows.skip(skip) if skip else rows
    except Exception as error:  # of the Hub client, the HTTP library or datasets: all mean that nothing came
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise hub_error(f"{of.hub} ({split}) could not be read from the Hub: {reason}", error) from error


def check_columns(part: Part, row: Row) -> None:
    """Raise UserError unless the first row has one of the sets of columns that the source is read by."""
    needed = part.upstream.columns
    if part.prompt_field and part.answer_field:
        needed = (*needed, (part.prompt_field, part.answer_field))
    if not any(all(row.get(column) is not None for column in columns) for columns in needed):
        wanted = " or ".join(", ".join(columns) for columns in needed)
        where = part.path or part.upstream.hub
        raise UserError(f"{part.source}: {where} has the columns {', '.join(row)}; it needs {wanted}")
