"""The memory that training a recipe needs, from the model's config alone: by part, for each phase of a run.

Weights, gradients, optimiser states and the KV cache are counted; activations are measured on fake tensors
(`fake_passes`). Sizes are bytes on one device. Sharding (FSDP, DeepSpeed), vLLM and a large dataset are not counted.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from stonk_trainer.errors import UserError, first_line
from stonk_trainer.training.fake_passes import (
    empty_model,
    forward_peak,
    head_peak,
    packed_weights,
    training_pass,
    weight_dtype,
    with_lora,
)

MIB = 2**20
# Memory of a process outside its tensors: libraries, their data, and buffers they keep (cuda: the context).
PROCESS = {"cpu": 650 * MIB, "cuda": 600 * MIB}
# Overhead of the allocator (fragmentation, kernel workspaces), as a share of the memory that is allocated and freed.
OVERHEAD = {"cpu": 0.25, "cuda": 0.1}
# Both: cpu as measured on 11 runs (benchmarks/memory.py, glibc, 2 cores, 2026-11-26); cuda is a guess, not measured.


def estimate(
    config: PretrainedConfig, args: Any, prompt: int, completion: int, processes: int = 1, device: str = "cpu"
) -> dict[str, dict[str, int]]:
    """{phase: {part: bytes}} of one device that trains the recipe `args` (`recipe.Arguments` of sft or grpo).

    The parts of a phase are in memory together, so the device needs the largest phase: see `peak` and `total`. Phases:
    "rollout" (GRPO), "loss" (forward pass and LM head), "backward" (through the layers), "step" (optimiser),
    "evaluation", "saving" (merging LoRA, on a CPU).

    prompt, completion: tokens of the longest row. processes: how many train together. device: "cpu", or any other for a
    GPU. Raises UserError for a model that does not run on fake tensors, because its shapes depend on numbers, say.
    """
    device = "cpu" if device == "cpu" else "cuda"
    try:
        return _phases(config.get_text_config(), args, prompt, completion, processes, device)
    except RuntimeError as error:
        reason = first_line(error)
        raise UserError(f"the memory of a {config.model_type} model cannot be estimated: {reason}") from error


def peak(phases: dict[str, dict[str, int]]) -> str:
    """The phase that needs most."""
    return max(phases, key=lambda phase: sum(phases[phase].values()))


def total(phases: dict[str, dict[str, int]]) -> int:
    """Bytes that the device must have: those of the largest phase."""
    return sum(phases[peak(phases)].values())


def advice(
    config: PretrainedConfig, args: Any, prompt: int, completion: int, processes: int = 1, device: str = "cpu"
) -> list[tuple[str, int]]:
    """For a device that is too small: up to three (settings, bytes they save), each alone, in the order to try them.

    First what gives the same gradient, then what changes the weights that train, then what shortens the texts. Settings
    that save less than a hundredth of what the run takes beside the libraries are skipped. Arguments as `estimate`.
    """
    train, gpu, tokens = args.train, device != "cpu", prompt + completion
    candidates: list[dict[str, Any]] = [{"gradient_checkpointing": True}]
    if train.per_device_train_batch_size % 2 == 0:
        rows, steps = train.per_device_train_batch_size // 2, train.gradient_accumulation_steps * 2
        candidates.append({"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps})
    candidates.append({"use_peft": True})
    if gpu and not getattr(train, "use_vllm", False):
        candidates.append({"load_in_4bit": True, "use_peft": True})
    if gpu:
        candidates.append({"optim": "adamw_8bit"})
    shorter = {"max_completion_length": completion // 2} if args.trainer == "grpo" else {"max_length": tokens // 2}
    candidates.append(shorter)

    before = total(estimate(config, args, prompt, completion, processes, device))
    least = (before - PROCESS["cuda" if gpu else "cpu"]) / 100
    found: list[tuple[str, int]] = []
    for settings in candidates:
        longest = settings.get("max_length", tokens)
        answer = max(1, min(settings.get("max_completion_length", completion), longest - 1))
        question = max(1, min(prompt, longest - answer))
        saved = before - total(estimate(config, _with(args, settings), question, answer, processes, device))
        if saved > least:
            found.append((", ".join(f"{key}: {str(value).lower()}" for key, value in settings.items()), saved))
        if len(found) == 3:
            break
    return found


def _with(args: Any, settings: dict[str, Any]) -> Any:
    """The recipe with other settings; what TRL derives from them is derived anew."""
    args = copy.copy(args)
    args.train, args.model = copy.copy(args.train), copy.copy(args.model)
    before = args.train.gradient_accumulation_steps
    for key, value in settings.items():
        setattr(args.model if hasattr(args.model, key) else args.train, key, value)
    if args.trainer == "grpo":  # a rollout is as large as before: fewer rows in more steps
        args.train.steps_per_generation *= args.train.gradient_accumulation_steps // before
    return args


# --------------------------------------------------------------------------------------------------- phases


def _phases(
    config: PretrainedConfig, args: Any, prompt: int, completion: int, processes: int, device: str
) -> dict[str, dict[str, int]]:
    from stonk_trainer.training.grouped import unsupported_reason

    train, model, grpo = args.train, args.model, args.trainer == "grpo"
    shares = grpo and args.options.shared_prefix != "false"
    shares = shares and unsupported_reason(empty_model(config, model, 1), train) is None
    standing, gradients = standing_bytes(config, args, processes, device)
    tape, working = training_pass(config, args, prompt, completion, shares)
    scored = train.per_device_train_batch_size * _scored(args, prompt, completion, shares, device)
    logits = head_peak(config, args, scored, device, training=True)
    # With one micro-batch per step, gradients appear as the tape is consumed: first the LM head's, at the end all.
    accumulated = gradients if train.gradient_accumulation_steps > 1 else 0
    head_weights = 0 if model.use_peft else config.vocab_size * config.hidden_size
    first = accumulated or head_weights * weight_dtype(config, model).itemsize

    def phase(gradients: int, **passing: int) -> dict[str, int]:
        """passing: parts that are allocated and freed within the phase."""
        overhead = round(OVERHEAD[device] * sum(passing.values()))
        return standing | {"gradients": gradients} | passing | {"allocator": overhead}

    found = {}
    if grpo and not (train.use_vllm and train.vllm_mode == "server"):
        found["rollout"] = phase(0, **_rollout(config, args, prompt, completion, shares))
    found["loss"] = phase(accumulated, activations=tape, logits=logits)
    found["backward"] = phase(first, activations=tape + working)
    found["step"] = phase(gradients)
    if train.eval_strategy != "no":
        rows = train.per_device_eval_batch_size
        forward = forward_peak(config, args, rows, prompt + completion)
        head = head_peak(config, args, rows * _scored(args, prompt, completion, shares, device), device)
        found["evaluation"] = phase(0, **{"working memory": max(forward, head)})
    if model.use_peft and device == "cpu":
        # The base is read again, in fp32, from a file that is mapped meanwhile; glibc still holds the tape's memory.
        weights = sum(p.numel() for p in empty_model(config, model).parameters())
        stored = 0 if config.dtype == torch.float32 else 2 * weights
        found["saving"] = phase(0, **{"merged model": 4 * weights + stored, "activations, freed": tape})
    return found


def standing_bytes(
    config: PretrainedConfig, args: Any, processes: int = 1, device: str = "cpu"
) -> tuple[dict[str, int], int]:
    """({part: bytes} of what is in memory from the first step to the last, bytes of the gradients)."""
    model = empty_model(config, args.model)
    weights = weight_bytes(model, args.model)
    trained = [p for p in with_lora(model, args.model).parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained)
    parts = {"process": PROCESS[device], **weights}
    if args.model.use_peft:
        parts["LoRA"] = gradients
    parts["optimiser"] = sum(optimiser_bytes(p, args.train.optim) for p in trained)
    if args.trainer == "grpo" and args.train.beta and not args.model.use_peft:
        parts["reference model"] = sum(weights.values())  # TRL loads the path again
    if processes > 1:
        parts["gradient buckets"] = gradients  # DistributedDataParallel's copy, in which they are reduced
    return parts, gradients


def weight_bytes(model: PreTrainedModel, args: Any) -> dict[str, int]:
    """{"weights, bfloat16": bytes, …} of a model without LoRA, as it is loaded.

    4 bit (Dettmers et al. 2023, arXiv:2305.14314, section 3): two weights a byte, and for each 64 of them a scale, of
    4 bytes, or with double quantisation of 1 and 4 bytes for each 256 scales: 4.127 bits a weight; bitsandbytes adds
    tables of 16 and 256 fp32 numbers and an offset to each matrix. 8 bit: a byte a weight and 4 a row. Bitsandbytes
    leaves embeddings, norms and LM head in `dtype`.
    """
    found: Counter[str] = Counter()
    packed = set(packed_weights(model, args))
    for parameter in model.parameters():
        if parameter not in packed:
            found[f"weights, {str(parameter.dtype).removeprefix('torch.')}"] += parameter.nbytes
        elif args.load_in_8bit:
            found["weights, 8 bit"] += parameter.numel() + 4 * parameter.shape[0]
        else:
            scales, table = math.ceil(parameter.numel() / 64), 4 * 16
            nested = scales + 4 * math.ceil(scales / 256) + 4 * 256 + 4
            scale_bytes = nested if args.use_bnb_nested_quant else 4 * scales
            found["weights, 4 bit"] += math.ceil(parameter.numel() / 2) + table + scale_bytes
    return dict(found)


def saved_bytes(config: PretrainedConfig, args: Any) -> int:
    """What a run of the recipe `args` leaves as models: `best_model`, and with LoRA its adapter.

    An adapter is merged into its base in bf16, whatever the base was loaded in; where the run starts from an adapter,
    that one is merged first, into `merged_model`.
    """
    config, model = config.get_text_config(), args.model
    whole = empty_model(config, model)
    if not model.use_peft:
        return sum(p.nbytes for p in whole.parameters())
    merged = 2 * sum(p.numel() for p in whole.parameters())
    adapter = sum(p.nbytes for p in with_lora(whole, model).parameters() if p.requires_grad)
    starts_from_adapter = Path(model.model_name_or_path, "adapter_config.json").is_file()
    return merged * (1 + starts_from_adapter) + adapter


def optimiser_bytes(parameter: torch.Tensor, name: str) -> int:
    """What an optimiser of Transformers' `optim` keeps for a parameter after its first step.

    torch's AdamW: two moments in the parameter's own precision and a counter of 4 bytes. 8 bit: a byte for each moment
    of each weight and a scale of 4 bytes for each 256; parameters below 4,096 weights, and the 32-bit optimisers of
    bitsandbytes, fp32 (Dettmers et al. 2021, arXiv:2110.02861). Adafactor: a row and a column of second moments
    (Shazeer & Stern 2018, arXiv:1804.04235). An optimiser not named here is taken to be AdamW.
    """
    count = parameter.numel()
    if name == "sgd":
        return 0
    if name == "adafactor":
        rows_and_columns = count if parameter.ndim < 2 else count // parameter.shape[-1] + count // parameter.shape[-2]
        return 4 * rows_and_columns + 4
    moments = 1 if "lion" in name or "rmsprop" in name else 2
    if "8bit" in name and count >= 4096:
        return moments * (count + 4 * math.ceil(count / 256))
    if any(word in name for word in ("8bit", "32bit", "paged", "bnb")):
        return moments * 4 * count
    return moments * parameter.nbytes + 4


def _rows(args: Any) -> tuple[int, int]:
    """(rows of a rollout, distinct prompts among them), on one device; of the larger of training and evaluation."""
    train = args.train
    rows, evaluated = train.per_device_train_batch_size * train.steps_per_generation, 0
    if train.eval_strategy != "no":
        evaluated = train.per_device_eval_batch_size
    groups = math.ceil(evaluated / (train.num_generations_eval or train.num_generations))
    return max((rows, math.ceil(rows / train.num_generations)), (evaluated, groups))


def _rollout(config: PretrainedConfig, args: Any, prompt: int, completion: int, shares: bool) -> dict[str, int]:
    """Parts of the rollout: the cache of all rows at their longest, and what comes and goes beside it.

    Cache: 2 (keys, values) · layers · key-value heads · head dimension · bytes of dtype · B · (P + C), and one more
    layer while a token is added, because Transformers' DynamicCache makes a layer's keys and values anew. Beside it
    stands the larger of the prefill and the logits as sampled from: once in dtype, three times in fp32.
    """
    rows, prompts = _rows(args)
    dtype = weight_dtype(config, args.model)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layer = 2 * config.num_key_value_heads * width * dtype.itemsize * rows * (prompt + completion)
    logits = rows * config.vocab_size * (dtype.itemsize + 12)
    prefill = forward_peak(config, args, prompts if shares else rows, prompt)
    return {"KV cache": (config.num_hidden_layers + 1) * layer, "working memory": max(prefill, logits)}


def _scored(args: Any, prompt: int, completion: int, shared: bool, device: str) -> int:
    """Positions of a row that go through the LM head. On a CPU, TRL projects all where the prompt is not shared."""
    learns_prompt = args.trainer == "sft" and args.train.completion_only_loss is False
    return prompt + completion - 1 if learns_prompt or device == "cpu" and not shared else completion
