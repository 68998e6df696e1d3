"""Rejection sampling: `stonk sample --config r1/rs_generate`.

K answers to each prompt; the verifier keeps the right ones that ended by themselves, in the required form; duplicates
go, and of the rest at most a few per prompt stay. The result is a JSONL file of chats that SFT reads (`r1_rs_sft`).

Every batch of answers is appended to a journal beside the output as one line. An interrupted run drops a torn last
line, samples the missing batches with their own seeds, and ends with the file of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.files import Dropped, make_folder, read_jsonl, write_whole
from stonk_trainer.models import drafting
from stonk_trainer.options import option
from stonk_trainer.recipe import load_command
from stonk_trainer.terminal import log, start_log, with_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Rejection:
    """Sample answers to verifiable prompts and keep the right ones, as a JSONL file of chats."""

    model_name_or_path: str | None = option(None, "Model that answers (folder or name).")
    task_mix: str | None = option(None, "Sources of the prompts and their shares, such as gsm8k:0.6,math:0.4.")
    output: str = option("runs/r1/rs_data.jsonl", "JSONL file to write.", "--out")
    source_paths: list[str] = option([], "Local files instead of the Hub: NAME=PATH each.")
    max_prompts: int | None = option(None, "Prompts, drawn at random; left out: all there are.")
    num_generations: int = option(8, "Answers to each prompt.")
    batch_size: int = option(64, "Answers generated together; holds whole groups.")
    max_completion_length: int = option(1024, "Longest answer, in tokens.")
    temperature: float = option(1.0, "Sampling temperature, above 0.")
    top_p: float = option(1.0, "Nucleus sampling: probability mass, in (0, 1].")
    keep_per_prompt: int = option(1, "Right answers kept of each prompt, at most.")
    prefer: Literal["shortest", "random"] = option("shortest", "Right answers to keep of a prompt that has more.")
    any_form: bool = option(False, "Keep right answers without a thought in its tags too.")
    engine: Literal["auto", "transformers", "vllm"] = option("auto", "auto: vLLM if installed, on a GPU.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option("auto", "Precision of the model.")
    draft_tokens: str = option("auto", drafting.HELP)
    seed: int = option(42, "Seed of the prompts drawn and of the answers.")

    def __post_init__(self):
        for name in ("model_name_or_path", "task_mix"):
            if not getattr(self, name):
                raise UserError(f"{name} is missing: set it in the recipe, or give --{name}")
        for name in ("num_generations", "batch_size", "max_completion_length", "keep_per_prompt", "max_prompts"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.batch_size % self.num_generations:
            raise UserError(
                f"batch_size: {self.batch_size} must be a multiple of num_generations, {self.num_generations}"
            )
        drafting.tokens_of(self.draft_tokens)
        if not self.temperature > 0:
            raise UserError(f"temperature: {self.temperature:g} must be above 0, or all answers would be equal")
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
    journal = output.with_name(f".{output.name}.journal")
    answers = sample(run, prompts, path, tokenizer, journal)
    rows = keep(run, prompts, answers)
    if not rows:
        raise UserError(
            "no answer was right, so there is nothing to train on: the model must solve some prompts first; sample "
            "more of each, easier prompts, or --any_form true"
        )
    write_whole(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    journal.unlink()
    _print_kept(run, prompts, answers, rows)


# ------------------------------------------------------------------------------------------------- sampling


def sample(
    run: Rejection, prompts: list[dict], path: str, tokenizer: PreTrainedTokenizerBase, journal: Path
) -> list[list[dict]]:
    """`num_generations` answers to each prompt (text, tokens, ended); those in the journal are taken from there."""
    from stonk_trainer.models import generation

    messages = [row["prompt"] for row in prompts]
    batches = generation.batches_by_length(messages, tokenizer, run.batch_size // run.num_generations)
    done, token_cost = _open_journal(journal, _settings(run, path, messages))
    missing = [number for number in range(len(batches)) if number not in done]
    if done:
        log.info("resuming: %d of %d batches are done", len(done), len(batches))
    if missing:
        generator = generation.load_generator(path, tokenizer, run.engine, {"dtype": run.dtype}, run.draft_tokens)
        generator.token_cost = token_cost  # in 16 bit a sample depends, now and then, on how many tokens a pass has
        sampling = generation.Sampling(run.max_completion_length, run.temperature, run.top_p)
        todo = [[i for i in batches[number] for _ in range(run.num_generations)] for number in missing]
        with journal.open("a") as file:
            for number, repeated in zip(missing, with_progress(todo, "sample"), strict=True):
                found = generator.answers([messages[i] for i in repeated], sampling, seed=_seed_of(run.seed, number))
                done[number] = [answer._asdict() for answer in found]
                line = {"batch": number, "answers": done[number], "token_cost": generator.token_cost}
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
    group, answers = run.num_generations, dict[int, list[dict]]()
    for number, batch in enumerate(batches):
        answers |= {i: done[number][place * group : (place + 1) * group] for place, i in enumerate(batch)}
    return [answers[i] for i in range(len(prompts))]


def _seed_of(seed: int, batch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{batch}".encode(), digest_size=4).digest())


def _settings(run: Rejection, path: str, messages: list) -> str:
    """A fingerprint of what the answers depend on; how they are selected may change between two runs."""
    keys = "num_generations batch_size max_completion_length temperature top_p engine dtype draft_tokens seed".split()
    config = Path(path) / "config.json"
    stamp = config.stat().st_mtime_ns if config.is_file() else 0
    state = [path, stamp, *(getattr(run, key) for key in keys), messages]
    return hashlib.blake2b(json.dumps(state).encode(), digest_size=16).hexdigest()


def _open_journal(journal: Path, settings: str) -> tuple[dict[int, list[dict]], float | None]:
    """(the answers of the batches that are done, the generator's `token_cost`).

    A torn last line is dropped; a new journal begins with its settings.
    Raises UserError when the journal is of other settings, whose answers would be lost.
    """
    dropped: list[Dropped] = []
    lines = [line for _, line in read_jsonl(journal, dropped)] if journal.exists() else []
    if not all(line.torn for line in dropped):
        raise UserError(f"{journal} is not a journal of stonk sample: remove it to start again")
    first = {"settings": settings}
    if lines[:1] not in ([], [first]):
        raise UserError(
            f"{journal} holds answers that were sampled with other settings or another model: go on with those, give "
            "another --out, or remove it"
        )
    write_whole(journal, "".join(json.dumps(line) + "\n" for line in lines or [first]))
    costs = [line["token_cost"] for line in lines[1:]] or [None]
    return {line["batch"]: line["answers"] for line in lines[1:]}, costs[-1]


# ------------------------------------------------------------------------------------------------- keeping


def keep(run: Rejection, prompts: list[dict], answers: list[list[dict]]) -> list[dict[str, Any]]:
    """The rows to train on: of each prompt at most `keep_per_prompt` right answers, each once, the preferred first."""
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
                    **{name: row[name] for name in ("source", "id", "target", "verifier")},
                    "reward": 1.0,
                    "tokens": right[text]["tokens"],
                }
            )
    return rows


def _at_random(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()


def _print_kept(run: Rejection, prompts: list[dict], answers: list[list[dict]], rows: list[dict]) -> None:
    solved = len({(row["source"], row["id"]) for row in rows})
    ended = sum(answer["ended"] for group in answers for answer in group)
    tokens = sum(row["tokens"] for row in rows) / len(rows)
    print(
        f"{len(rows)} rows kept in {run.output}: {solved} of {len(prompts)} prompts have a right answer; "
        f"{ended} of {len(prompts) * run.num_generations} answers ended; {tokens:.0f} tokens on average"
    )
