"""Rejection sampling: `stonk sample --config r1/rs_generate`.

K answers to each prompt; the verifier keeps the right ones that ended by themselves, in the form asked for; doubles go,
and of the rest at most a few per prompt stay. What is kept is a JSONL file of chats that SFT reads (`r1_rs_sft`).

Every batch of answers is appended to a journal beside the output as one line. An interrupted run drops a torn last
line, does the missing batches with their own seeds, and ends with the file of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import load_command
from stonk_trainer.terminal import log, start_log, with_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Rejection:
    """Sample answers to verifiable prompts and keep the right ones, as a JSONL file of chats."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Model that answers (folder or name)."})
    task_mix: str | None = field(
        default=None, metadata={"help": "Sources of the prompts and their shares, such as gsm8k:0.6,math:0.4."}
    )
    output: str = field(
        default="runs/r1/rs_data.jsonl", metadata={"help": "JSONL file to write.", "aliases": ["--out"]}
    )
    source_paths: list[str] = field(
        default_factory=list, metadata={"help": "Local files instead of the Hub: NAME=PATH each."}
    )
    max_prompts: int | None = field(
        default=None, metadata={"help": "Prompts, drawn at random; left out: all there are."}
    )
    num_generations: int = field(default=8, metadata={"help": "Answers to each prompt."})
    batch_size: int = field(default=64, metadata={"help": "Answers generated together; holds whole groups."})
    max_completion_length: int = field(default=1024, metadata={"help": "Longest answer, in tokens."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature, above 0."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling: probability mass, in (0, 1]."})
    keep_per_prompt: int = field(default=1, metadata={"help": "Right answers kept of each prompt, at most."})
    prefer: Literal["shortest", "random"] = field(
        default="shortest", metadata={"help": "Which right answers are kept of a prompt that has more."}
    )
    any_form: bool = field(default=False, metadata={"help": "Keep right answers without a thought in its tags too."})
    engine: Literal["auto", "transformers", "vllm"] = field(
        default="auto", metadata={"help": "auto: vLLM where it is installed and a GPU is there."}
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "Precision of the model."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the prompts drawn and of the answers."})

    def __post_init__(self):
        for name in ("model_name_or_path", "task_mix"):
            if not getattr(self, name):
                raise UserError(f"{name} is missing: set it in the recipe, or give --{name}")
        for name in ("num_generations", "batch_size", "max_completion_length", "keep_per_prompt", "max_prompts"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.batch_size % self.num_generations:
            raise UserError(
                f"batch_size: {self.batch_size} answers hold no whole groups of num_generations {self.num_generations}"
            )
        if not self.temperature > 0:
            raise UserError(f"temperature: {self.temperature:g} must be above 0: equal answers would be sampled")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: {self.top_p:g} must be above 0 and at most 1")


def main(argv: list[str]) -> None:
    run = load_command(argv, "sample", Rejection, "--config r1/rs_generate")

    from stonk_trainer.models import loading
    from stonk_trainer.tasks.reasoning import Reasoning, ReasoningArguments

    start_log()
    loading.check_folder(run.model_name_or_path)
    output = Path(run.output)
    if output.is_dir():
        raise UserError(f"output: {run.output} is a folder: give the name of a file")
    keys = {"task_mix": run.task_mix, "source_paths": run.source_paths, "sampling_seed": run.seed}
    task = Reasoning(ReasoningArguments(**keys, max_train_samples=run.max_prompts))
    prompts = list(task.rl_dataset("train"))
    make_folder(output.parent, "output")
    path = loading.locate_model(run.model_name_or_path, output.parent)
    tokenizer = loading.load_tokenizer(path)
    task.check_tokenizer(tokenizer, run.model_name_or_path)
    answers = sample(run, prompts, path, tokenizer, _journal(output))
    rows = keep(run, prompts, answers)
    write_whole(output, rows)
    _journal(output).unlink()
    _print_kept(run, prompts, answers, rows)


# ------------------------------------------------------------------------------------------------- sampling


def _journal(output: Path) -> Path:
    return output.with_name(f".{output.name}.journal")


def sample(
    run: Rejection, prompts: list[dict], path: str, tokenizer: PreTrainedTokenizerBase, journal: Path
) -> list[list[dict]]:
    """`num_generations` answers to each prompt (text, tokens, ended), those in the journal taken from there."""
    from stonk_trainer.models import generation

    asked = [row["prompt"] for row in prompts]
    batches = generation.batches_by_length(asked, tokenizer, run.batch_size // run.num_generations)
    done = _read_journal(journal, _settings(run, path, asked))
    answers: list[list[dict]] = [[] for _ in prompts]
    for number, batch in enumerate(batches):
        if number in done:
            _share_out(answers, batch, done[number])
    missing = [number for number in range(len(batches)) if number not in done]
    if done:
        log.info("going on: %d of %d batches are done", len(done), len(batches))
    if not missing:
        return answers
    generator = generation.load_generator(path, tokenizer, run.engine, {"dtype": run.dtype})
    how = generation.Sampling(run.max_completion_length, run.temperature, run.top_p)
    todo = [[i for i in batches[number] for _ in range(run.num_generations)] for number in missing]
    with journal.open("a") as file:
        for number, repeated in zip(missing, with_progress(todo, "sample"), strict=True):
            found = generator.answers([asked[i] for i in repeated], how, seed=_seed_of(run.seed, number))
            line = [answer._asdict() for answer in found]
            file.write(json.dumps({"batch": number, "answers": line}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            _share_out(answers, batches[number], line)
    return answers


def _share_out(answers: list[list[dict]], batch: list[int], line: list[dict]) -> None:
    """Give the answers of a batch, group after group, to its prompts."""
    group = len(line) // len(batch)
    for place, i in enumerate(batch):
        answers[i] = line[place * group : (place + 1) * group]


def _seed_of(seed: int, batch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{batch}".encode(), digest_size=4).digest())


def _settings(run: Rejection, path: str, asked: list) -> str:
    """What the answers depend on, as a fingerprint; which are kept may be changed between two runs."""
    keys = ("num_generations", "batch_size", "max_completion_length", "temperature", "top_p", "engine", "dtype", "seed")
    config = Path(path) / "config.json"
    stamp = config.stat().st_mtime_ns if config.is_file() else 0
    state = [path, stamp, *(getattr(run, key) for key in keys), asked]
    return hashlib.blake2b(json.dumps(state).encode(), digest_size=16).hexdigest()


def _read_journal(journal: Path, settings: str) -> dict[int, list[dict]]:
    """The answers of the batches that are done. A torn last line is cut off, a new journal begun with its settings.

    Raises UserError when the journal is of other settings, whose answers would be lost.
    """
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if not whole:
        journal.write_text(json.dumps({"settings": settings}) + "\n")
        return {}
    try:
        begun, *read = [json.loads(line) for line in whole]
    except ValueError as error:
        raise UserError(f"{journal} cannot be read as a journal ({error}): remove it to begin anew") from error
    if begun.get("settings") != settings:
        raise UserError(
            f"{journal} holds answers that were sampled with other settings or another model: go on with those, give "
            "another --out, or remove it"
        )
    if len(whole) < len(lines):
        with journal.open("r+b") as file:
            file.truncate(sum(map(len, whole)))
    return {line["batch"]: line["answers"] for line in read}


# ------------------------------------------------------------------------------------------------- keeping


def keep(run: Rejection, prompts: list[dict], answers: list[list[dict]]) -> list[dict[str, Any]]:
    """The rows to train on: of each prompt the right answers, each once, the preferred first, at most so many."""
    from stonk_trainer.tasks.reasoning.verify import is_correct, is_in_form

    rows = []
    for row, group in zip(prompts, answers, strict=True):
        right: dict[str, dict] = {}
        for answer in group:
            text = answer["text"].strip()
            fits = answer["ended"] and text not in right and (run.any_form or is_in_form(text))
            if fits and is_correct(text, row["target"], row["verifier"]):
                right[text] = answer
        order = sorted(
            right,
            key=lambda text: (right[text]["tokens"] if run.prefer == "shortest" else 0, _at_random(run.seed, text)),
        )
        for text in order[: run.keep_per_prompt]:
            rows.append(
                {
                    "messages": [*row["prompt"], {"role": "assistant", "content": text}],
                    "source": row["source"],
                    "id": row["id"],
                    "target": row["target"],
                    "verifier": row["verifier"],
                    "reward": 1.0,
                    "tokens": right[text]["tokens"],
                }
            )
    return rows


def _at_random(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()


def write_whole(output: Path, rows: list[dict]) -> None:
    """Write beside `output`, then rename: a torn file is never seen. Raises UserError when nothing was kept."""
    if not rows:
        raise UserError(
            "no answer was right, so there is nothing to train on: the model must solve some prompts first; sample "
            "more of each, easier prompts, or --any_form true"
        )
    temporary = output.with_name(f".{output.name}.part")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    os.replace(temporary, output)


def _print_kept(run: Rejection, prompts: list[dict], answers: list[list[dict]], rows: list[dict]) -> None:
    solved = len({(row["source"], row["id"]) for row in rows})
    ended = sum(answer["ended"] for group in answers for answer in group)
    tokens = sum(row["tokens"] for row in rows) / len(rows)
    print(
        f"{len(rows)} rows kept in {run.output}: {solved} of {len(prompts)} prompts have a right answer; "
        f"{ended} of {len(prompts) * run.num_generations} answers ended; {tokens:.0f} tokens on average"
    )
