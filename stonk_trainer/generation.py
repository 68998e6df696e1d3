"""Answers of a language model to many prompts: with Transformers, or with vLLM where that is installed and a GPU there.

A batch's answers depend on the model, its prompts and its seed alone, so that work can be done again, or go on, batch
by batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from stonk_trainer import models
from stonk_trainer.errors import UserError
from stonk_trainer.terminal import log

Messages = list[dict[str, str]]


class Answer(NamedTuple):
    """text: without special tokens. tokens: how many were generated. ended: whether the model ended it itself."""

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Sampling:
    """max_tokens: of an answer. temperature: 0 takes the most probable token. top_p: in (0, 1]."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


class TransformersGenerator:
    """A model in this process, on the accelerator if there is one."""

    def __init__(self, path: str, tokenizer, loading: dict[str, Any]):
        import torch
        from transformers import AutoModelForCausalLM

        self.tokenizer = tokenizer
        accelerated = torch.accelerator.is_available()
        self.device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
        with models.reading(path):
            self.model = AutoModelForCausalLM.from_pretrained(
                path, **loading, trust_remote_code=False, device_map={"": self.device}
            )

    def answers(self, prompts: Sequence[Messages], sampling: Sampling, seed: int | None = None) -> list[Answer]:
        """One answer to each prompt, generated together. seed: of the sampling; None: goes on where it stands."""
        import torch
        from transformers import set_seed

        if seed is not None:
            set_seed(seed)
        texts = self.tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        # Said in full, because a model's own generation_config may ask for top-k, top-p and a repetition penalty.
        how = {"repetition_penalty": 1.0, "do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            how |= {"temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        with torch.inference_mode():
            output_BT = self.model.generate(**inputs, max_new_tokens=sampling.max_tokens, **how)
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        answers = []
        for ids in output_BT[:, inputs["input_ids"].shape[1] :].tolist():
            length = next((at + 1 for at, token in enumerate(ids) if token in ends), None)
            ids = ids[:length]
            answers.append(Answer(self.tokenizer.decode(ids, skip_special_tokens=True), len(ids), length is not None))
        return answers


class VLLMGenerator:
    """A model in vLLM, which batches by itself."""

    def __init__(self, path: str, tokenizer, dtype: str | None):
        from vllm import LLM

        self.tokenizer = tokenizer
        self.model = LLM(model=path, dtype=dtype or "auto")

    def answers(self, prompts: Sequence[Messages], sampling: Sampling, seed: int | None = None) -> list[Answer]:
        """As `TransformersGenerator.answers`; each prompt has a seed of its own, made of `seed`."""
        from vllm import SamplingParams

        texts = self.tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
        how = [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=None if seed is None else seed * 100_003 + number,
            )
            for number in range(len(texts))
        ]
        outputs = self.model.generate(texts, how, use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        return [Answer(one.text, len(one.token_ids), one.finish_reason == "stop") for one in first]


def load_generator(path: str, tokenizer, engine: str, loading: dict[str, Any]):
    """engine: transformers, vllm, or auto: vLLM where it can run. loading: `from_pretrained` arguments."""
    import torch

    possible = find_spec("vllm") is not None and torch.cuda.is_available()
    if engine == "vllm" and not possible:
        raise UserError("engine: vllm needs the package vllm and a GPU: use engine: transformers")
    if engine == "vllm" or (engine == "auto" and possible and loading.get("quantization_config") is None):
        return VLLMGenerator(path, tokenizer, loading.get("dtype"))
    return TransformersGenerator(path, tokenizer, loading)


def batches_by_length(prompts: Sequence[Messages], tokenizer, size: int) -> list[list[int]]:
    """Indices of the prompts in batches of `size` and of like length, the longest first."""
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def with_progress(batches: Sequence[list[int]], label: str) -> Iterator[list[int]]:
    """The batches, one by one; after each a line with how much is done, the rate and the time left."""
    total, done, started = sum(map(len, batches)), 0, time.monotonic()
    for batch in batches:
        yield batch
        done += len(batch)
        seconds = time.monotonic() - started
        left = seconds / done * (total - done)
        log.info("%s: %d/%d answers, %.1f per second, %.0f s left", label, done, total, done / seconds, left)
