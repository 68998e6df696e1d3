"""The memory that training a recipe needs, from the model's config alone: by part, for each phase of a run.

Weights, gradients, optimiser and cache are counted. What a forward and a backward pass keep is not put into a formula:
the model's own code runs on torch's fake tensors, which have shapes and no storage, and the bytes they would take are
added up as they come and go (`_Live`). So activations are those of this model with its LoRA, autocast, attention and
checkpointing, where Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) count 34 sbh + 5 as²b bytes a layer by
hand, for a GPT in 16 bit. Two layers are run; the others are like the second.

All sizes are bytes on one device. Sharding (FSDP, DeepSpeed), vLLM and a large dataset are not counted.

Shape suffixes: B rows, U distinct prompts, P prompt tokens, C completion tokens, L all tokens of a row, N positions
that go through the LM head, D width, V vocabulary.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from stonk_trainer.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel

MIB = 2**20
# What a process takes that is no tensor of ours: libraries, their data, and buffers they keep (cuda: the context).
PROCESS = {"cpu": 650 * MIB, "cuda": 600 * MIB}
# Of what comes and goes, the share by which an allocator's holes and the kernels' own buffers raise it.
HOLES = {"cpu": 0.25, "cuda": 0.1}
# Both: cpu as measured on 11 runs (benchmarks/memory.py, glibc, 2 cores, 2026-11-26); cuda is a guess, not measured.


def estimate(
    config: PretrainedConfig,
    args: Any,
    prompt_tokens: int,
    completion_tokens: int,
    processes: int = 1,
    device: str = "cpu",
) -> dict[str, dict[str, int]]:
    """{phase: {part: bytes}} of one device that trains the recipe `args` (recipe.Arguments of sft or grpo).

    prompt_tokens, completion_tokens: of the longest row. Parts of one phase are in memory at the same time, so the
    device needs `total`, the largest phase, which `peak` names. Phases: "rollout" (GRPO), "loss" (forward pass and LM
    head), "backward" (through the layers), "step" (optimiser), "evaluation", "saving" (merging LoRA, on a CPU).
    device: "cpu", or any other for a GPU. Raises UserError for a model whose code does not run on fake tensors, such as
    one where shapes depend on numbers.
    """
    device = "cpu" if device == "cpu" else "cuda"
    try:
        return _estimate(config.get_text_config(), args, prompt_tokens, completion_tokens, processes, device)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the memory of a {config.model_type} model cannot be estimated: {reason}") from error


def peak(phases: dict[str, dict[str, int]]) -> str:
    """The phase that needs most."""
    return max(phases, key=lambda phase: sum(phases[phase].values()))


def total(phases: dict[str, dict[str, int]]) -> int:
    """Bytes that the device must have: those of the largest phase."""
    return sum(phases[peak(phases)].values())


def advice(
    config: PretrainedConfig,
    args: Any,
    prompt_tokens: int,
    completion_tokens: int,
    processes: int = 1,
    device: str = "cpu",
) -> list[tuple[str, int]]:
    """For a device that is too small: up to three (settings, bytes they save), each alone, in the order to try them.

    First what gives the same gradient, then what changes the weights that train, then what shortens the texts. Only
    what applies and saves a hundredth at least of what the run takes beside the libraries.
    """
    device = "cpu" if device == "cpu" else "cuda"
    everything = total(estimate(config, args, prompt_tokens, completion_tokens, processes, device))
    found = []
    for settings in _settings(args, completion_tokens, prompt_tokens + completion_tokens, device):
        changed = _with(args, settings)
        completion = min(completion_tokens, settings.get("max_completion_length", completion_tokens))
        prompt = min(prompt_tokens, settings.get("max_length", math.inf) - completion)
        if prompt < 1:  # the texts are shorter on both sides
            prompt, completion = 1, settings["max_length"] - 1
        saved = everything - total(estimate(config, changed, prompt, completion, processes, device))
        if saved > (everything - PROCESS[device]) / 100:
            found.append((", ".join(f"{key}: {_yaml(value)}" for key, value in settings.items()), saved))
        if len(found) == 3:
            break
    return found


def _settings(args: Any, completion_tokens: int, tokens: int, device: str) -> list[dict[str, Any]]:
    """What can be changed in this recipe to save memory, in the order to try it."""
    train, model, grpo = args.train, args.model, args.trainer == "grpo"
    found: list[dict[str, Any]] = []
    if not train.gradient_checkpointing:
        found.append({"gradient_checkpointing": True})
    if train.per_device_train_batch_size % 2 == 0:
        rows, steps = train.per_device_train_batch_size // 2, train.gradient_accumulation_steps * 2
        found.append({"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps})
    if not model.use_peft:
        found.append({"use_peft": True})
    if device == "cuda" and not (model.load_in_4bit or model.load_in_8bit or grpo and train.use_vllm):
        found.append({"load_in_4bit": True, "use_peft": True})
    if device == "cuda" and not model.use_peft and "8bit" not in _optimiser(train):
        found.append({"optim": "adamw_8bit"})
    if grpo and completion_tokens > 1:
        found.append({"max_completion_length": completion_tokens // 2})
    if not grpo and tokens > 1:
        found.append({"max_length": tokens // 2})
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


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --------------------------------------------------------------------------------------------------- phases


def _estimate(
    config: PretrainedConfig, args: Any, prompt: int, completion: int, processes: int, device: str
) -> dict[str, dict[str, int]]:
    train, grpo = args.train, args.trainer == "grpo"
    standing, gradients = standing_bytes(config, args, processes, device)
    shares = grpo and _shares(config, args)
    shared = shares and not train.gradient_checkpointing  # in the gradient pass: checkpointing keeps no cache
    rows, evaluated = train.per_device_train_batch_size, train.per_device_eval_batch_size
    tape, working = _passes(config, args, prompt, completion, shared)
    head = _head(config, args, rows, _scored(args, prompt, completion, shared, device), device, training=True)
    # With one micro-batch a step, gradients come as the tape goes: first that of the head, at the end all of them.
    accumulated = gradients if train.gradient_accumulation_steps > 1 else 0
    first = accumulated or (0 if args.model.use_peft else _head_weight(config, args))
    passing = {}  # {phase: {part: bytes of what comes and goes}}
    if grpo and not (train.use_vllm and train.vllm_mode == "server"):
        passing["rollout"] = _rollout(config, args, prompt, completion, shares)
    passing["loss"] = {"activations": tape, "logits": head}
    passing["backward"] = {"activations": tape + working}
    passing["step"] = {}
    if _evaluates(train):
        scored = _scored(args, prompt, completion, shares, device)
        forward = _inference(config, args, evaluated, prompt + completion)
        passing["evaluation"] = {
            "working memory": max(forward, _head(config, args, evaluated, scored, device, training=False))
        }
    if args.model.use_peft and device == "cpu":
        # The base is read again, in fp32, from a file that is mapped meanwhile; glibc still holds the tape's memory.
        weights = sum(p.numel() for p in empty_model(config, args.model).parameters())
        stored = 0 if config.dtype == torch.float32 else 2 * weights
        passing["saving"] = {"merged model": 4 * weights + stored, "activations, freed": tape}
    grown = {"loss": accumulated, "backward": first, "step": gradients}
    return {
        phase: standing
        | ({"gradients": grown[phase]} if phase in grown else {})
        | parts
        | {"allocator": round(HOLES[device] * sum(parts.values()))}
        for phase, parts in passing.items()
    }


def _evaluates(train: Any) -> bool:
    return str(getattr(train.eval_strategy, "value", train.eval_strategy)) != "no"


def standing_bytes(
    config: PretrainedConfig, args: Any, processes: int = 1, device: str = "cpu"
) -> tuple[dict[str, int], int]:
    """({part: bytes} of what is in memory from the first step to the last, bytes of the gradients)."""
    model = empty_model(config, args.model)
    weights = weight_bytes(model, args.model)
    trained = [p for p in with_lora(model, args.model).parameters() if p.requires_grad]
    gradients = sum(map(_bytes, trained))
    parts = {"process": PROCESS[device], **weights}
    if args.model.use_peft:
        parts["LoRA"] = gradients
    parts["optimiser"] = sum(optimiser_bytes(p, _optimiser(args.train)) for p in trained)
    if args.trainer == "grpo" and args.train.beta and not args.model.use_peft:
        parts["reference model"] = sum(weights.values())  # TRL loads the path again
    if processes > 1:
        parts["gradient buckets"] = gradients  # DistributedDataParallel's copy, in which they are reduced
    return parts, gradients


def _optimiser(train: Any) -> str:
    return str(getattr(train.optim, "value", train.optim))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def weight_bytes(model: PreTrainedModel, args: Any) -> dict[str, int]:
    """{"weights, bfloat16": bytes, …} of a model without LoRA, as it is loaded.

    4 bit (Dettmers et al. 2023, arXiv:2305.14314, section 3): two weights a byte, and for each 64 of them a scale, of
    4 bytes, or with double quantisation of 1 and 4 bytes for each 256 scales: 4.127 bits a weight; bitsandbytes adds
    tables of 16 and 256 fp32 numbers and an offset to each matrix. 8 bit: a byte a weight and 4 a row. Bitsandbytes
    leaves embeddings, norms and LM head in `dtype`.
    """
    found: dict[str, int] = {}
    head = model.get_output_embeddings()
    packed = set()
    if args.load_in_4bit or args.load_in_8bit:
        packed = {m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head}
    for parameter in model.parameters():
        count = parameter.numel()
        if parameter not in packed:
            name, size = f"weights, {str(parameter.dtype).removeprefix('torch.')}", _bytes(parameter)
        elif args.load_in_8bit:
            name, size = "weights, 8 bit", count + 4 * parameter.shape[0]
        else:
            scales = math.ceil(count / 64)
            tables = 4 * 16
            nested = scales + 4 * math.ceil(scales / 256) + 4 * 256 + 4
            name = "weights, 4 bit"
            size = math.ceil(count / 2) + tables + (nested if args.use_bnb_nested_quant else 4 * scales)
        found[name] = found.get(name, 0) + size
    return found


def optimiser_bytes(parameter: torch.Tensor, name: str) -> int:
    """What an optimiser of Transformers' `optim` keeps for a parameter after its first step.

    torch's AdamW: two moments in the parameter's own precision and a counter of 4 bytes. 8 bit: a byte for each moment
    of each weight and a scale of 4 bytes for each 256; parameters below 4,096 weights, and the 32-bit optimisers of
    bitsandbytes, fp32 (Dettmers et al. 2021, arXiv:2110.02861). Adafactor: a row and a column of second moments
    (Shazeer & Stern 2018, arXiv:1804.04235). An optimiser not named here is taken to be AdamW.
    """
    count, moments = parameter.numel(), 2
    if name == "sgd":
        return 0
    if name == "adafactor":
        rows_and_columns = count if parameter.ndim < 2 else count // parameter.shape[-1] + count // parameter.shape[-2]
        return 4 * rows_and_columns + 4
    if "lion" in name or "rmsprop" in name or name == "adagrad":
        moments = 1
    if "ademamix" in name:
        moments = 3
    if "8bit" in name and count >= 4096:
        return moments * (count + 4 * math.ceil(count / 256))
    bitsandbytes = "8bit" in name or "paged" in name or "bnb" in name or "32bit" in name
    return moments * (4 if bitsandbytes else parameter.element_size()) * count + (0 if bitsandbytes else 4)


# --------------------------------------------------------------------------------------------------- model


def _dtype(config: PretrainedConfig, args: Any) -> torch.dtype:
    named = config.dtype if args.dtype in (None, "auto") else args.dtype
    return getattr(torch, named) if isinstance(named, str) else named or torch.float32


def empty_model(config: PretrainedConfig, args: Any, layers: int | None = None) -> PreTrainedModel:
    """The model in `dtype`, or one of its first `layers` layers, on torch's meta device: shapes, no numbers."""
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of a model that is loaded already
    if layers is not None:
        config.num_hidden_layers = min(layers, config.num_hidden_layers)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    attention = {"attn_implementation": args.attn_implementation} if args.attn_implementation else {}
    with init_empty_weights(include_buffers=True):
        return AutoModelForCausalLM.from_config(config, dtype=_dtype(config, args), **attention)


def with_lora(model: PreTrainedModel, args: Any) -> PreTrainedModel | PeftModel:
    """The model as the trainers train it: with LoRA, where the recipe says so.

    PEFT keeps adapters of a 16-bit model in fp32; TRL puts those of a quantised one into bf16.
    """
    if not args.use_peft:
        return model
    from peft import get_peft_model
    from trl import get_peft_config

    with init_empty_weights(include_buffers=True):
        model = get_peft_model(model, get_peft_config(args))
    if args.load_in_4bit or args.load_in_8bit:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def _shares(config: PretrainedConfig, args: Any) -> bool:
    """Whether prompts are shared (shared_prefix.py)."""
    from stonk_trainer.training.grouped import unsupported_reason

    return (
        args.options.shared_prefix != "false"
        and unsupported_reason(empty_model(config, args.model, 1), args.train) is None
    )


# --------------------------------------------------------------------------------------------------- passes


@contextmanager
def _fake(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, a model of the meta device is one of fake tensors on a CPU: torch picks the kernels of real ones.

    The masks of Transformers cannot be made on the meta device itself.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        model.tie_weights()
        yield


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it: `now`, those that are alive, and `peak`, the most there were."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # what comes in and was not made inside, such as a weight, is not counted, and neither are views of it
        self.seen.update(_storages((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _rows(args: Any) -> tuple[int, int]:
    """(rows of a rollout, distinct prompts among them), on one device; of the larger of training and evaluation."""
    train = args.train
    rows = train.per_device_train_batch_size * train.steps_per_generation
    found = [(rows, math.ceil(rows / train.num_generations))]
    if _evaluates(train):
        evaluated = train.per_device_eval_batch_size
        found.append((evaluated, math.ceil(evaluated / (train.num_generations_eval or train.num_generations))))
    return max(found)


def _rollout(config: PretrainedConfig, args: Any, prompt: int, completion: int, shares: bool) -> dict[str, int]:
    """Parts of the rollout: the cache of all rows at their longest, and what comes and goes beside it.

    Cache: 2 (keys, values) · layers · key-value heads · head dimension · bytes of dtype · B · (P + C), and one more
    layer while a token is added, because Transformers' DynamicCache makes a layer's keys and values anew. Beside it
    stands the larger of the prefill and the logits as sampled from: once in dtype, three times in fp32.
    """
    rows, prompts = _rows(args)
    dtype = _dtype(config, args.model)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layer = 2 * config.num_key_value_heads * width * dtype.itemsize * rows * (prompt + completion)
    logits = rows * config.vocab_size * (dtype.itemsize + 12)
    prefill = _inference(config, args, prompts if shares else rows, prompt)
    return {"KV cache": (config.num_hidden_layers + 1) * layer, "working memory": max(prefill, logits)}


def _inference(config: PretrainedConfig, args: Any, rows: int, tokens: int) -> int:
    """The most that a forward pass without gradient takes: a layer's, because it keeps nothing for another."""
    model = with_lora(empty_model(config, args.model, 1), args.model)
    with _fake(model), torch.no_grad(), _Live() as live, _autocast(args):
        ids_BL = torch.zeros(rows, tokens, dtype=torch.long)
        _backbone(model)(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False)
    return live.peak


def _passes(config: PretrainedConfig, args: Any, prompt: int, completion: int, shared: bool) -> tuple[int, int]:
    """(bytes that the layers keep for the backward pass of one micro-batch, what that pass takes beside them)."""
    tapes = []
    for layers in (1, 2):
        model = with_lora(empty_model(config, args.model, layers), args.model).train()
        if args.train.gradient_checkpointing:
            model.gradient_checkpointing_enable(args.train.gradient_checkpointing_kwargs)
            if args.model.use_peft:
                model.enable_input_require_grads()
        with _fake(model):
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)  # there already: gradients are counted by themselves
            with _Live() as live:
                with _autocast(args):
                    states = _states(_backbone(model), args, prompt, completion, shared)
                tapes.append(live.now)
                live.peak = live.now
                if layers == 2:
                    states.backward(torch.ones_like(states))
    one, two = tapes
    packed = _largest_matrix(config, args) if args.model.load_in_4bit or args.model.load_in_8bit else 0
    return one + (config.num_hidden_layers - 1) * (two - one), live.peak - two + packed


def _states(backbone: torch.nn.Module, args: Any, prompt: int, completion: int, shared: bool) -> torch.Tensor:
    """The last hidden states of one micro-batch, computed as the trainers do (shared_prefix.share_prompts)."""
    rows = args.train.per_device_train_batch_size
    if not shared:
        ids_BL = torch.zeros(rows, prompt + completion, dtype=torch.long)
        keys = {"attention_mask": torch.ones_like(ids_BL), "use_cache": False}
        return backbone(input_ids=ids_BL, **keys).last_hidden_state
    prompts = math.ceil(rows / args.train.num_generations)
    ids_UP = torch.zeros(prompts, prompt, dtype=torch.long)
    output = backbone(input_ids=ids_UP, attention_mask=torch.ones_like(ids_UP), use_cache=True)
    rows_B = torch.zeros(rows, dtype=torch.long)
    cache = output.past_key_values
    cache.batch_select_indices(rows_B)
    states_B1D = output.last_hidden_state[rows_B, -1:]
    if completion == 1:
        return states_B1D
    rest = backbone(
        input_ids=torch.zeros(rows, completion - 1, dtype=torch.long),
        attention_mask=torch.ones(rows, prompt + completion - 1, dtype=torch.long),
        position_ids=torch.arange(prompt, prompt + completion - 1)[None],
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([states_B1D, rest.last_hidden_state], dim=1)


def _backbone(model: PreTrainedModel | PeftModel) -> torch.nn.Module:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


def _autocast(args: Any) -> torch.autocast | nullcontext:
    half = torch.bfloat16 if args.train.bf16 else torch.float16 if args.train.fp16 else None
    return torch.autocast("cpu", half) if half else nullcontext()


def _largest_matrix(config: PretrainedConfig, args: Any) -> int:
    """A packed matrix is unpacked to be multiplied."""
    model = empty_model(config, args.model, 1)
    head = model.get_output_embeddings()
    return max(_bytes(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)


def _head_weight(config: PretrainedConfig, args: Any) -> int:
    return config.vocab_size * config.hidden_size * _dtype(config, args.model).itemsize


def _scored(args: Any, prompt: int, completion: int, shared: bool, device: str) -> int:
    """Positions of a row that go through the LM head. On a CPU, TRL projects all where the prompt is not shared."""
    learns_prompt = args.trainer == "sft" and args.train.completion_only_loss is False
    return prompt + completion - 1 if learns_prompt or device == "cpu" and not shared else completion


def _head(config: PretrainedConfig, args: Any, rows: int, scored: int, device: str, training: bool) -> int:
    """The most that the LM head and the loss take, forward and, in training, backward, beside what the layers keep.

    TRL projects at most 4,096 positions to 32,768 tokens at a time and works each tile out in fp32. On a GPU a kernel
    needs no fp32 copies: a tile in the dtype of the states, the states and their gradient (fp32), and where all weights
    train the gradient of the weight (fp32, then in dtype). Vocabularies of up to 4,096 tokens have whole logits in SFT.
    """
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    from stonk_trainer.training.resumable import SmallVocabularySFTTrainer

    grpo, vocabulary, width = args.trainer == "grpo", config.vocab_size, config.hidden_size
    dtype, positions = _dtype(config, args.model), rows * scored
    learns = training and not args.model.use_peft
    whole = not grpo and vocabulary <= SmallVocabularySFTTrainer.LARGEST
    if device != "cpu" and not whole:
        tile = min(positions, TOKEN_CHUNK_SIZE) * _CHUNKED_LOGPROB_CHUNK_SIZE * dtype.itemsize
        states = positions * width * (dtype.itemsize + 4 * training)
        return tile + states + (4 * vocabulary * width + _head_weight(config, args)) * learns
    tiles = -(-positions // TOKEN_CHUNK_SIZE)
    if tiles > 4 and not whole:  # a tile is like another, and there may be thousands
        sizes = [
            _head_passes(n * TOKEN_CHUNK_SIZE, vocabulary, width, dtype, training, learns, whole, grpo) for n in (3, 4)
        ]
        return sizes[1] + (tiles - 4) * (sizes[1] - sizes[0])
    return _head_passes(positions, vocabulary, width, dtype, training, learns, whole, grpo)


def _head_passes(
    positions: int,
    vocabulary: int,
    width: int,
    dtype: torch.dtype,
    training: bool,
    learns: bool,
    whole: bool,
    grpo: bool,
) -> int:
    """The most that these passes take on a CPU, by running them on fake tensors."""
    from transformers.loss.loss_utils import ForCausalLMLoss
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    with FakeTensorMode(), torch.set_grad_enabled(training):
        states_ND = torch.zeros(positions, width, dtype=dtype, requires_grad=True)
        weight_VD = torch.zeros(vocabulary, width, dtype=dtype, requires_grad=learns)
        with _Live() as live:
            labels_N = torch.zeros(positions, dtype=torch.long)
            if whole:
                logits_1NV = torch.nn.functional.linear(states_ND, weight_VD)[None]
                loss = ForCausalLMLoss(logits_1NV, labels_N[None], vocabulary)
            else:
                # TRL's tile is wider than a narrow vocabulary; what is never written to is never in memory
                tile = min(vocabulary, _CHUNKED_LOGPROB_CHUNK_SIZE)
                fields = ("entropy",) if grpo else ("entropy", "is_top1")
                found = ChunkedLogProbFunction.apply(states_ND, weight_VD, None, labels_N, 1.0, tile, None, 1.0, fields)
                loss = found[0].sum()
            if training:
                loss.backward()
    return live.peak
