"""Answers of a language model to many prompts: with Transformers, or with vLLM where that is installed and a GPU there.

A batch's answers depend on the model, its prompts and its seed alone, so that work can be done again, or go on, batch
by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.models import decoding, loading

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedTokenizerBase

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

    def __init__(self, path: str, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]):
        import torch
        from transformers import AutoModelForCausalLM

        self.tokenizer = tokenizer
        accelerated = torch.accelerator.is_available()
        self.device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
        with loading.reading(path):
            self.model = AutoModelForCausalLM.from_pretrained(
                path, **options, trust_remote_code=False, device_map={"": self.device}
            )

    def answers(self, prompts: Sequence[Messages], sampling: Sampling, seed: int | None = None) -> list[Answer]:
        """One answer to each prompt, generated together. seed: of the sampling; None: goes on where it stands."""
        import torch
        from transformers import set_seed

        if seed is not None:
            set_seed(seed)
        inputs = self._inputs(prompts)
        with torch.inference_mode():
            output_BT = self.model.generate(**inputs, **_how(sampling))
        return self._answers(output_BT[:, inputs["input_ids"].shape[1] :])

    def samples(
        self,
        prompts: Sequence[Messages],
        count: int,
        sampling: Sampling,
        seeds: Sequence[int],
        on_token: Callable[[list[str]], None] | None = None,
    ) -> list[list[Answer]]:
        """`count` answers to each prompt, all together; each prompt is read once where the model allows it.

        seeds: one per prompt, and all that its answers depend on beside model and prompt, up to the rounding of other
        batches. on_token: called after each token with the answers so far, those of a prompt one after the other.
        """
        import torch
        from transformers import set_seed

        inputs = self._inputs([prompt for prompt in prompts for _ in range(count)])
        how = _how(sampling)
        if decoding.unsupported_reason(self.model) is None:
            rows = [[seed, number] for seed in seeds for number in range(count)]
            drawn_BC = np.array([np.random.default_rng(row).random(sampling.max_tokens) for row in rows])
            to_text = partial(self.tokenizer.batch_decode, skip_special_tokens=True)
            each_step = None if on_token is None else lambda tokens_BC: on_token(to_text(tokens_BC))
            draws_BC = torch.from_numpy(drawn_BC).to(self.device)
            how["custom_generate"] = partial(decoding.decode, draws_BC=draws_BC, each_step=each_step)
        set_seed(seeds[0] % 2**32)
        with torch.inference_mode():
            output_BT = self.model.generate(**inputs, **how)
        answers = self._answers(output_BT[:, inputs["input_ids"].shape[1] :])
        return [answers[start : start + count] for start in range(0, len(answers), count)]

    def _inputs(self, prompts: Sequence[Messages]) -> BatchEncoding:
        texts = self.tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
        return self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)

    def _answers(self, tokens_BC: torch.Tensor) -> list[Answer]:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        answers = []
        for ids in tokens_BC.tolist():
            length = next((at + 1 for at, token in enumerate(ids) if token in ends), None)
            ids = ids[:length]
            answers.append(Answer(self.tokenizer.decode(ids, skip_special_tokens=True), len(ids), length is not None))
        return answers


def _how(sampling: Sampling) -> dict[str, Any]:
    """In full, because a model's own generation_config may ask for top-k, top-p and a repetition penalty."""
    how = {"max_new_tokens": sampling.max_tokens, "repetition_penalty": 1.0, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        how |= {"temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
    return how


class VLLMGenerator:
    """A model in vLLM, which batches by itself."""

    def __init__(self, path: str, tokenizer: PreTrainedTokenizerBase, dtype: str | None):
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


def load_generator(
    path: str, tokenizer: PreTrainedTokenizerBase, engine: str, options: dict[str, Any]
) -> TransformersGenerator | VLLMGenerator:
    """engine: transformers, vllm, or auto: vLLM where it can run. options: `from_pretrained` arguments."""
    import torch

    possible = find_spec("vllm") is not None and torch.cuda.is_available()
    if engine == "vllm" and not possible:
        raise UserError("engine: vllm needs the package vllm and a GPU: use engine: transformers")
    if engine == "vllm" or (engine == "auto" and possible and options.get("quantization_config") is None):
        return VLLMGenerator(path, tokenizer, options.get("dtype"))
    return TransformersGenerator(path, tokenizer, options)


def batches_by_length(prompts: Sequence[Messages], tokenizer: PreTrainedTokenizerBase, size: int) -> list[list[int]]:
    """Indices of the prompts in batches of `size` and of like length, the longest first."""
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    return [order[start : start + size] for start in range(0, len(order), size)]
