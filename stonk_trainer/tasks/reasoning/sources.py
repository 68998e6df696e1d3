"""Where prompts and answers come from: each source in its exact upstream schema, by Hub name or from local files.

A source gives *examples*: the prompt and the completion as chat messages, and, where the answer can be checked, its
target and verifier. What upstream calls train, validation and test stays that; a test split cannot be reached from
training. Where upstream has no validation split, a share of train, chosen by the text of the prompt, takes its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stonk_trainer.errors import UserError, hub_error
from stonk_trainer.tasks.reasoning import synthetic, think_tags
from stonk_trainer.tasks.reasoning.verify import KINDS, boxed

# What a model is asked to do wherever it is to think.
SYSTEM = (
    "Think first, between <think> and </think>. Then answer. "
    "If the question has one final result, state it as \\boxed{result}; of several choices, state the letter."
)
MODES = ("cot", "answer_only")
# The natural sciences among MMLU's 57 subjects.
SCIENCE = (
    "anatomy", "astronomy", "college_biology", "college_chemistry", "college_physics", "conceptual_physics",
    "high_school_biology", "high_school_chemistry", "high_school_physics", "medical_genetics", "virology",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How a source is read. mode: with thoughts (cot) or without. subjects: of MMLU; empty: all. prompt_field,
    answer_field: columns of a JSONL file that has no `messages`. held_out: the share of train that is validation
    where upstream has none."""

    mode: str = "cot"
    subjects: tuple[str, ...] = ()
    prompt_field: str | None = None
    answer_field: str | None = None
    held_out: float = 0.02


@dataclass(frozen=True)
class Source:
    """hub, config: as `load_dataset` takes them; None: made here, or local only. columns: sets of which a row must have
    one. read: one upstream row → the example's fields, or why there is none. splits: what we call train, validation
    and test → what upstream calls it. streamed: too large to download whole."""

    read: Callable[[Row, Options], Row | str]
    columns: tuple[tuple[str, ...], ...]
    hub: str | None = None
    config: str | None = None
    splits: tuple[tuple[str, str], ...] = (("train", "train"), ("test", "test"))
    verifier: str = ""
    streamed: bool = False
    make: Callable[[str], Iterator[Row]] | None = None
    subjects: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------- chat with thoughts

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def chat_example(turns: Sequence[tuple[str, str]], mode: str) -> Row | str:
    """The example of a conversation: all before its last answer is the prompt. turns: (role, text)."""
    named = [(_ROLES[role], text) for role, text in turns if role in _ROLES and isinstance(text, str)]
    if not named or len(named) < len(turns) or named[-1][0] != "assistant":
        return "no chat that ends with an answer"
    if not any(role == "user" and text.strip() for role, text in named):
        return "no question"
    inside, answer = think_tags.split(named[-1][1])
    if answer is None:
        return "the thought is cut off"
    if not answer:
        return "no answer"
    thinks = mode == "cot" and bool(inside)
    before = [{"role": role, "content": _without_thought(role, text)} for role, text in named[:-1]]
    if thinks:  # upstream's own system prompts describe tags that are not ours
        before = [{"role": "system", "content": SYSTEM}, *(m for m in before if m["role"] != "system")]
    elif inside:
        before = [m for m in before if m["role"] != "system"]
    text = think_tags.join(inside, answer) if thinks and inside else answer
    return {"prompt": before, "completion": [{"role": "assistant", "content": text}]}


def _without_thought(role: str, text: str) -> str:
    return (think_tags.split(text).answer or text) if role == "assistant" else text


def _read_openthoughts(row: Row, options: Options) -> Row | str:
    if row.get("conversations") is None:  # the `metadata` configuration
        solution = f"<think>{row['deepseek_reasoning']}</think>{row['deepseek_solution']}"
        example = chat_example([("user", row["problem"]), ("assistant", solution)], options.mode)
    else:
        turns = [(turn["from"], turn["value"]) for turn in row["conversations"]]
        example = chat_example(turns, options.mode)
    return example


def _read_messages(row: Row, options: Options) -> Row | str:
    messages = row.get("messages")
    if messages is None:
        if options.prompt_field is None or options.answer_field is None:
            raise KeyError("messages")
        prompt, answer = row[options.prompt_field], row[options.answer_field]
        return chat_example([("user", prompt), ("assistant", answer)], options.mode)
    example = chat_example([(turn["role"], turn["content"]) for turn in messages], options.mode)
    if isinstance(example, dict):  # what `stonk sample` writes carries its target
        example |= {key: row[key] for key in ("target", "verifier") if isinstance(row.get(key), str)}
        if example.get("verifier", "") not in ("", *KINDS):
            raise ValueError(f"verifier {row['verifier']} is not one of {', '.join(KINDS)}")
    return example


# ------------------------------------------------------------------------------------------------- results


def question(text: str, steps: str, stated: str, target: str) -> Row:
    """An example whose result can be checked; steps: the thought, empty where upstream has none."""
    answer = f"The answer is \\boxed{{{stated}}}."
    return {
        "prompt": [{"role": "system", "content": SYSTEM}] * bool(steps) + [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": think_tags.join(steps, answer) if steps else answer}],
        "target": target,
    }


def _read_gsm8k(row: Row, options: Options) -> Row | str:
    steps, mark, target = row["answer"].rpartition("####")
    if not mark or not target.strip():
        return "no answer after ####"
    steps = re.sub(r"<<[^<>]*>>", "", steps).strip()  # the calculator's notes
    return question(row["question"], steps if options.mode == "cot" else "", target.strip(), target.strip())


def _read_math(row: Row, options: Options) -> Row | str:
    found = boxed(row["solution"])
    if not found:
        return "no answer in a box"
    return question(row["problem"], row["solution"] if options.mode == "cot" else "", found[-1], found[-1])


def _choices(text: str, choices: Sequence[str], right: int) -> Row | str:
    if not 0 <= right < len(choices) or not 2 <= len(choices) <= 5:
        return "no right choice"
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCDE", choices, strict=False))
    return question(f"{text}\n{options}", "", "ABCDE"[right], "ABCDE"[right])


def _read_mmlu(row: Row, options: Options) -> Row | str:
    if options.subjects:
        if not (row.get("subject") or "").strip():
            raise UserError(
                "mmlu: a row has a blank subject (upstream's auxiliary_train has none), so that subjects cannot be "
                "chosen there: take another split, or leave subjects out"
            )
        if row["subject"] not in options.subjects:
            return OTHER_SUBJECT
    return _choices(row["question"], row["choices"], int(row["answer"]))


def _read_arc(row: Row, options: Options) -> Row | str:
    labels, choices = row["choices"]["label"], row["choices"]["text"]  # labels are A to E, or 1 to 5
    key = row["answerKey"]
    return _choices(row["question"], choices, labels.index(key) if key in labels else -1)


OTHER_SUBJECT, OTHER_SPLIT = "of another subject", "of another split"
NOT_ASKED_FOR = (OTHER_SUBJECT, OTHER_SPLIT)  # reasons that nobody needs to be told
_CHAT = (("messages",),)
_TRAIN_ONLY = (("train", "train"),)
_ALL = (("train", "train"), ("validation", "validation"), ("test", "test"))
# MMLU's train split, auxiliary_train, has no subjects: its slices are trained on what upstream calls validation.
_MMLU = (("train", "auxiliary_train"), ("validation", "validation"), ("test", "test"))
_MMLU_SLICE = (("train", "validation"), ("validation", "dev"), ("test", "test"))
_MMLU_COLUMNS = (("question", "choices", "answer", "subject"),)

SOURCES = {
    "openthoughts": Source(
        _read_openthoughts, (("conversations",), ("problem", "deepseek_reasoning", "deepseek_solution")),
        "open-thoughts/OpenThoughts-114k", splits=_TRAIN_ONLY, streamed=True,
    ),
    "openthoughts3": Source(
        _read_openthoughts, (("conversations",),), "open-thoughts/OpenThoughts3-1.2M", splits=_TRAIN_ONLY, streamed=True
    ),
    "dolci": Source(_read_messages, _CHAT, "allenai/Dolci-Think-SFT-7B", splits=_TRAIN_ONLY, streamed=True),
    "smoltalk": Source(_read_messages, _CHAT, "HuggingFaceTB/smoltalk", "all", streamed=True),
    "gsm8k": Source(_read_gsm8k, (("question", "answer"),), "openai/gsm8k", "main", verifier="math"),
    "math": Source(_read_math, (("problem", "solution"),), "DigitalLearningGmbH/MATH-lighteval", verifier="math"),
    "mmlu": Source(_read_mmlu, _MMLU_COLUMNS, "cais/mmlu", "all", _MMLU, "choice"),
    "mmlu_science": Source(_read_mmlu, _MMLU_COLUMNS, "cais/mmlu", "all", _MMLU_SLICE, "choice", subjects=SCIENCE),
    "arc_easy": Source(
        _read_arc, (("question", "choices", "answerKey"),), "allenai/ai2_arc", "ARC-Easy", _ALL, "choice"
    ),
    "arc_challenge": Source(
        _read_arc, (("question", "choices", "answerKey"),), "allenai/ai2_arc", "ARC-Challenge", _ALL, "choice"
    ),
    "chat": Source(_read_messages, _CHAT, splits=_ALL),
    "arithmetic": Source(
        _read_gsm8k, (("question", "answer"),), splits=_ALL, verifier="math", make=synthetic.arithmetic
    ),
    "arithmetic_choice": Source(
        _read_mmlu, _MMLU_COLUMNS, splits=_ALL, verifier="choice", make=synthetic.arithmetic_choice
    ),
}  # fmt: skip


def source(name: str) -> Source:
    """The source of that name. Raises UserError, naming the nearest, for an unknown one."""
    if name not in SOURCES:
        import difflib

        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the sources are {', '.join(SOURCES)}"
        raise UserError(f"source {name} is unknown: {hint}")
    return SOURCES[name]


# ------------------------------------------------------------------------------------------------- examples of a source


def examples(
    name: str, path: str | None, split: str, options: Options, stop: int = -1, draw: tuple[int, int] | None = None
) -> Iterator[Row]:
    """The examples of a split, in upstream's order; of one that is left out only `source`, `id` and `dropped`, why.

    Each has `prompt` and `completion` (messages), `target`, `verifier` ("" where the answer cannot be checked),
    `source`, `id` (upstream's, or the number of its row) and `dropped` (""). path: local file or folder; None: the Hub.
    stop: upstream rows that are read at most; -1: all. draw: (number of examples, seed), from a shuffled stream of the
    Hub. Raises UserError for wrong columns, broken files, and when the split is not there.
    """
    of = source(name)
    options = Options(**{**vars(options), "subjects": options.subjects or of.subjects})
    has_validation, rows = _open(name, of, path, split, draw and draw[1])
    given = 0
    for number, row in enumerate(rows):
        if number == stop or (draw and given == draw[0]):
            return
        if number == 0:
            check_columns(name, of, row, options, path)
        identity = str(row.get("id") or row.get("problem_id") or number)
        example = read_row(name, row, number, options, path)
        if isinstance(example, str):
            yield _dropped(name, identity, example)
        elif has_validation or _is_held_out(example, options.held_out) == (split == "validation"):
            given += 1
            yield {"target": "", "verifier": of.verifier, **example, "source": name, "id": identity, "dropped": ""}
        else:
            yield _dropped(name, identity, OTHER_SPLIT)


def read_row(name: str, row: Row, number: int, options: Options, path: str | None) -> Row | str:
    """The example of upstream row `number`, or why there is none. Raises UserError for a row of another schema."""
    of = source(name)
    try:
        return of.read(row, options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{name}: row {number + 1} of {path or of.hub} does not have the upstream schema: "
            f"{type(error).__name__}: {error}"
        ) from error


def _dropped(name: str, identity: str, why: str) -> Row:
    return {
        "prompt": [],
        "completion": [],
        "target": "",
        "verifier": "",
        "source": name,
        "id": identity,
        "dropped": why,
    }


def _is_held_out(example: Row, share: float) -> bool:
    text = example["prompt"][-1]["content"]
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) < share * 2**32


def _open(name: str, of: Source, path: str | None, split: str, seed: int | None) -> tuple[bool, Iterator[Row]]:
    """(whether the split stands apart upstream, its rows); else the rows of train, of which a share is validation.
    seed: of the order in which a stream of the Hub is read; None: upstream's."""
    upstream = dict(of.splits)
    if of.make:
        if path:
            raise UserError(f"source {name} is made, not read: leave its path out")
        return True, of.make(upstream[split])
    if path is None and of.hub is None:
        raise UserError(f"source {name} needs a file: give {name}:path=FILE.jsonl")
    if path is not None:
        files = local_files(path, of.config)
        if "dev" in files and "dev" not in upstream.values():
            files.setdefault("validation", files.pop("dev"))
        wanted = upstream.get(split)
        if wanted in files:
            return split != "train" or upstream.get("validation") in files, records(files[wanted])
        if split in ("train", "validation") and upstream["train"] in files:
            return False, records(files[upstream["train"]])
        raise UserError(
            f"{name}: {path} holds {' and '.join(files)}, and {split} is upstream's {wanted or upstream['train']}: "
            "give the files of that split"
        )
    if split in upstream:
        return split != "train" or "validation" in upstream, from_hub(of, upstream[split], seed)
    if split == "validation":
        return False, from_hub(of, upstream["train"], seed)
    raise UserError(f"{name}: upstream has no {split} split")


_SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "dev",
                "test": "test", "auxiliary": "auxiliary_train"}  # fmt: skip


def local_files(path: str, config: str | None = None) -> dict[str, list[Path]]:
    """Files (.parquet, .jsonl) of a file or folder, by split: the last split word in the name, else "train".

    A folder with a folder of the configuration's name inside is read from there. Raises UserError when there is none.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{path} is not there: give a .parquet or .jsonl file, or a folder of them")
    if config and (root / config).is_dir():
        root = root / config
    inside = [root] if root.is_file() else sorted(root.rglob("*"))
    found: dict[str, list[Path]] = {}
    for file in inside:
        if file.suffix in (".parquet", ".jsonl"):
            name = file.name if root.is_file() else str(file.relative_to(root))
            words = [_SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _SPLIT_WORDS]
            split = "auxiliary_train" if "auxiliary_train" in words else words[-1] if words else "train"
            found.setdefault(split, []).append(file)
    if not found:
        raise UserError(f"{path} holds no .parquet or .jsonl file")
    return found


def records(files: Sequence[Path]) -> Iterator[Row]:
    """The rows of .parquet and .jsonl files, one after the other, in bounded memory."""
    for file in files:
        yield from read_jsonl(file) if file.suffix == ".jsonl" else _read_parquet(file)


def read_jsonl(file: Path) -> Iterator[Row]:
    """The objects of a JSONL file, one at a time. Raises UserError with file and line for one that is none."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number}: a line must be an object, this is {type(row).__name__}")
            yield row


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error


SHUFFLED_TOGETHER = 10_000  # rows of a stream that are shuffled at a time, beside the order of its files


def from_hub(of: Source, split: str, seed: int | None = None, skip: int = 0) -> Iterator[Row]:
    """The rows of a split on the Hub. seed: of a stream's order, None: upstream's. skip: rows of a stream left out."""
    from datasets import load_dataset

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it says every retry; the error below says enough
    try:
        rows = load_dataset(of.hub, of.config, split=split, streaming=of.streamed)
        rows = rows if seed is None else rows.shuffle(seed=seed, buffer_size=SHUFFLED_TOGETHER)
        yield from rows.skip(skip) if skip else rows
    except Exception as error:  # the Hub client's, the HTTP library's and datasets' own: all mean that nothing came
        reason = " ".join(str(error).split())[:200]
        raise hub_error(
            f"{of.hub} ({split}) could not be read from the Hub: {type(error).__name__}: {reason}", error
        ) from error


def check_columns(name: str, of: Source, row: Row, options: Options, path: str | None) -> None:
    needed = of.columns
    if options.prompt_field or options.answer_field:
        needed = (*needed, (options.prompt_field or "prompt", options.answer_field or "answer"))
    if not any(all(row.get(column) is not None for column in columns) for columns in needed):
        wanted = " or ".join(", ".join(columns) for columns in needed)
        raise UserError(f"{name}: {path or of.hub} has the columns {', '.join(row)}; it needs {wanted}")
