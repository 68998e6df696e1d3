"""Answers of a language model to many prompts: with Transformers, or with vLLM if it is installed and there is a GPU.

A batch's answers depend on the model, its prompts and its seed alone, so work can be repeated or resumed by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.models import chat, decoding, drafting, loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]


class Answer(NamedTuple):
    """text: without special tokens. tokens: number generated. ended: whether the model ended it, not a limit."""

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
    """A model in this process, on the accelerator if there is one.

    options: of `from_pretrained`. draft_tokens: as the key. token_cost: `Drafter.cost`, once it is known.
    """

    def __init__(
        self, path: str, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], draft_tokens: str = "auto"
    ):
        import torch
        from transformers import AutoModelForCausalLM

        self.tokenizer, self._draft_tokens = tokenizer, drafting.tokens_of(draft_tokens)
        self.token_cost: float | None = None
        accelerated = torch.accelerator.is_available()
        self.device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
        with loading.reading(path):
            self.model = AutoModelForCausalLM.from_pretrained(
                path, **options, trust_remote_code=False, device_map={"": self.device}
            )
        if self.model.dtype == torch.bfloat16 and loading.lacks_bfloat16():
            self.model.half()

    def answers(self, prompts: Sequence[Messages], sampling: Sampling, seed: int | None = None) -> list[Answer]:
        """One answer to each prompt, generated together. seed: of the sampling; None: the random state as it is."""
        import torch
        from transformers import set_seed

        if seed is None:
            draws_BC = torch.rand(len(prompts), sampling.max_tokens, dtype=torch.float64)
        else:
            set_seed(seed)
            draws_BC = _draws([[seed, number] for number in range(len(prompts))], sampling.max_tokens)
        return self._generate(prompts, sampling, draws_BC)

    def samples(
        self,
        prompts: Sequence[Messages],
        count: int,
        sampling: Sampling,
        seeds: Sequence[int],
        on_token: Callable[[list[str]], None] | None = None,
    ) -> list[list[Answer]]:
        """`count` answers to each prompt, all together; each prompt is computed once where the model allows it.

        seeds: one per prompt, on which its answers depend beside model and prompt, up to rounding in other batches.
        on_token: called after each token with the answers so far, those of a prompt one after the other.
        """
        from transformers import set_seed

        set_seed(seeds[0] % 2**32)
        draws_BC = _draws([[seed, number] for seed in seeds for number in range(count)], sampling.max_tokens)
        repeated = [prompt for prompt in prompts for _ in range(count)]
        answers = self._generate(repeated, sampling, draws_BC, on_token)
        return [answers[start : start + count] for start in range(0, len(answers), count)]

    def _texts(self, before: Sequence[str], tokens_BC: torch.Tensor) -> list[str]:
        texts = self.tokenizer.batch_decode(tokens_BC, skip_special_tokens=True)
        return list(map(chat.whole_answer, before, texts))

    def _generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        draws_BC: torch.Tensor,
        on_token: Callable[[list[str]], None] | None = None,
    ) -> list[Answer]:
        """draws_BC: for models whose prompts can be shared; others sample from the random state."""
        import torch

        texts, options = chat.prompts(prompts, self.tokenizer), sampling_options(sampling)
        drafter = drafting.Drafter(self._draft_tokens)  # of this batch alone, whose answers do not depend on others
        drafter.cost = self.token_cost
        if decoding.unsupported_reason(self.model) is None:
            options["custom_generate"] = partial(
                decoding.decode,
                draws_BC=draws_BC.to(self.device),
                each_step=None if on_token is None else lambda tokens_BC: on_token(self._texts(texts, tokens_BC)),
                drafter=drafter,
            )
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        stops = chat.stop_tokens(self.model.generation_config, self.tokenizer)
        with torch.inference_mode():
            output_BL = self.model.generate(
                **inputs, **options, eos_token_id=stops, pad_token_id=self.tokenizer.pad_token_id
            )
        self.token_cost = drafter.cost
        ends = set(stops if isinstance(stops, list) else [stops])
        answers = []
        for prompt, ids in zip(texts, output_BL[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((at + 1 for at, token in enumerate(ids) if token in ends), None)
            text = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
            answers.append(Answer(chat.whole_answer(prompt, text), len(ids[:length]), length is not None))
        return answers


def _draws(seeds: Sequence[Sequence[int]], count: int) -> torch.Tensor:
    """B x C uniform numbers, those of each row from its own seed."""
    import torch

    return torch.from_numpy(np.array([np.random.default_rng(seed).random(count) for seed in seeds]))


def sampling_options(sampling: Sampling) -> dict[str, Any]:
    """Arguments of `generate`, in full: a model's own generation_config may set top-k and a repetition penalty."""
    options = {"max_new_tokens": sampling.max_tokens, "repetition_penalty": 1.0, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
    return options


class VLLMGenerator:
    """A model in vLLM, which batches by itself."""

    token_cost: float | None = None  # it drafts in its own ways

    def __init__(self, path: str, tokenizer: PreTrainedTokenizerBase, dtype: str | None):
        from vllm import LLM

        self.tokenizer = tokenizer
        self.model = LLM(model=path, dtype=dtype or "auto")

    def answers(self, prompts: Sequence[Messages], sampling: Sampling, seed: int | None = None) -> list[Answer]:
        """As `TransformersGenerator.answers`; each prompt has its own seed, derived from `seed`."""
        from vllm import SamplingParams

        texts = chat.prompts(prompts, self.tokenizer)
        options = [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop_token_ids=[self.tokenizer.eos_token_id],
                seed=None if seed is None else seed * 100_003 + number,
            )
            for number in range(len(texts))
        ]
        outputs = self.model.generate(texts, options, use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        return [
            Answer(chat.whole_answer(prompt, one.text), len(one.token_ids), one.finish_reason == "stop")
            for prompt, one in zip(texts, first, strict=True)
        ]


def load_generator(
    path: str, tokenizer: PreTrainedTokenizerBase, engine: str, options: dict[str, Any], draft_tokens: str = "auto"
) -> TransformersGenerator | VLLMGenerator:
    """The model at `path`. engine: transformers, vllm, or auto: vLLM if it can run. options: of `from_pretrained`.

    draft_tokens: as the key, for Transformers.
    """
    import torch

    possible = find_spec("vllm") is not None and torch.cuda.is_available()
    if engine == "vllm" and not possible:
        raise UserError("engine: vllm needs the package vllm and a GPU: use engine: transformers")
    if engine == "vllm" or (engine == "auto" and possible and options.get("quantization_config") is None):
        return VLLMGenerator(path, tokenizer, options.get("dtype"))
    return TransformersGenerator(path, tokenizer, options, draft_tokens)


def batches_by_length(prompts: Sequence[Messages], tokenizer: PreTrainedTokenizerBase, size: int) -> list[list[int]]:
    """Indices of the prompts in batches of `size` and of similar length, the longest first."""
    texts = chat.prompts(prompts, tokenizer)
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    return [order[start : start + size] for start in range(0, len(order), size)]
