"""What the passes of a model keep in memory, measured on fake tensors: they have shapes and no storage.

The model's own code runs, with its LoRA, autocast, attention and checkpointing, and `Live` adds up the bytes that its
tensors would take. (By hand, Korthikanti et al. 2022, arXiv:2205.05198, section 4.1, count 34 sbh + 5 as²b bytes per
layer, for a GPT in 16 bit.) `args` is a recipe (`recipe.Arguments` of sft or grpo), or its ModelConfig.

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

from stonk_trainer.training import packed

if TYPE_CHECKING:
    from peft import PeftModel


def weight_dtype(config: PretrainedConfig, args: Any) -> torch.dtype:
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
        return AutoModelForCausalLM.from_config(config, dtype=weight_dtype(config, args), **attention)


def with_lora(model: PreTrainedModel, args: Any) -> PreTrainedModel | PeftModel:
    """The model as it is trained: with LoRA where the recipe asks for it.

    PEFT keeps adapters of a 16-bit model in fp32; TRL puts those of a quantised one into bf16, where we
    do not train in fp16.
    """
    if not args.use_peft:
        return model
    from peft import get_peft_model
    from trl import get_peft_config

    with init_empty_weights(include_buffers=True):
        model = get_peft_model(model, get_peft_config(args))
    if (args.load_in_4bit or args.load_in_8bit) and args.dtype != "float16":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def packed_weights(model: PreTrainedModel, args: Any) -> list[torch.Tensor]:
    """The matrices that bitsandbytes packs into 4 or 8 bit: of all linear layers but the LM head."""
    if not (args.load_in_4bit or args.load_in_8bit):
        return []
    head = model.get_output_embeddings()
    return [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]


# --------------------------------------------------------------------------------------------------- passes


@contextmanager
def fake_tensors(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, a model of the meta device has fake tensors on a CPU, so that torch picks the kernels of real ones.

    Transformers cannot make its masks on the meta device itself.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        model.tie_weights()
        yield


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it: `now`, those that are alive, and `peak`, the most there were."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # inputs that were not made inside, such as weights, are not counted, and neither are views of them
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


def _forward(backbone: torch.nn.Module, rows: int, tokens: int) -> Any:
    ids_BL = torch.zeros(rows, tokens, dtype=torch.long)
    return backbone(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False)


def forward_peak(config: PretrainedConfig, args: Any, rows: int, tokens: int) -> int:
    """The peak of a forward pass without gradient: that of one layer, because none keeps anything for another."""
    model = with_lora(empty_model(config, args.model, 1), args.model)
    with fake_tensors(model), torch.no_grad(), Live() as live, autocast(args):
        _forward(backbone(model), rows, tokens)
    return live.peak


def training_pass(config: PretrainedConfig, args: Any, prompt: int, completion: int, shared: bool) -> tuple[int, int]:
    """(bytes that the layers keep for the backward pass of one micro-batch, peak of that pass beside them).

    shared: on a packed row, the largest of a micro-batch of groups whose answers have nothing in common.
    """
    rows, how = args.train.per_device_train_batch_size, (config, args, prompt, completion)
    if not shared:
        return _training_pass(*how, rows)
    group, most = args.train.num_generations, args.options.packed_tokens
    if most:
        fits = (n for n in range(rows, 1, -1) if math.ceil(n / group) * prompt + n * completion <= most)
        rows = next(fits, 1)
    prompts = math.ceil(rows / group)
    if rows <= 8:
        return _training_pass(*how, rows, prompts)
    narrow, wide, both = (_training_pass(*how, *of) for of in ((4, 1), (8, 1), (8, 2)))  # rows, prompts: each alike
    tape, working = (
        w + (prompts - 1) * (b - w) + (rows - 8) * (w - n) // 4 for n, w, b in zip(narrow, wide, both, strict=True)
    )
    return tape, working


def _training_pass(
    config: PretrainedConfig, args: Any, prompt: int, completion: int, rows: int, prompts: int | None = None
) -> tuple[int, int]:
    """As `training_pass`, of padded rows, or of those of so many distinct prompts on a packed row."""
    tapes = []
    for layers in (1, 2):
        model = with_lora(empty_model(config, args.model, layers), args.model).train()
        layout = _layout(prompts, rows, prompt, completion) if prompts else None
        if layout:
            packed.accept_packed(model.get_base_model() if args.model.use_peft else model)
        if args.train.gradient_checkpointing:
            model.gradient_checkpointing_enable(args.train.gradient_checkpointing_kwargs)
            if args.model.use_peft:
                model.enable_input_require_grads()
        with fake_tensors(model):
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)  # exists already: gradients are counted elsewhere
            with Live() as live:
                with autocast(args):
                    if layout:
                        states = backbone(model)(**layout.inputs, use_cache=False).last_hidden_state
                    else:
                        states = _forward(backbone(model), rows, prompt + completion).last_hidden_state
                tapes.append(live.now)
                live.peak = live.now
                if layers == 2:
                    states.backward(torch.ones_like(states))
    one, two = tapes
    # a packed matrix is unpacked to be multiplied
    unpacked = max((p.nbytes for p in packed_weights(empty_model(config, args.model, 1), args.model)), default=0)
    return one + (config.num_hidden_layers - 1) * (two - one), live.peak - two + unpacked


def _layout(prompts: int, rows: int, prompt: int, completion: int) -> packed.Layout:
    ids_BL = torch.arange(rows)[:, None].repeat(1, prompt + completion)
    ids_BL[:, :prompt] //= math.ceil(rows / prompts)
    return packed.lay_out(ids_BL, torch.ones_like(ids_BL), completion)[0]


def backbone(model: PreTrainedModel | PeftModel) -> torch.nn.Module:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


def autocast(args: Any) -> torch.autocast | nullcontext:
    half = torch.bfloat16 if args.train.bf16 else torch.float16 if args.train.fp16 else None
    return torch.autocast("cpu", half) if half else nullcontext()


# --------------------------------------------------------------------------------------------------- LM head


def head_peak(config: PretrainedConfig, args: Any, positions: int, device: str, training: bool = False) -> int:
    """The peak of LM head and loss at `positions`, forward and, in training, backward, beside what the layers keep.

    TRL projects at most 4,096 positions to 32,768 tokens at a time and works each tile out in fp32. On a GPU a kernel
    needs no fp32 copies: a tile in the dtype of the states, the states and their gradient (fp32), and where all weights
    train the gradient of the weight (fp32, then in dtype). Vocabularies of up to 4,096 tokens have whole logits in SFT.
    """
    from transformers.loss.loss_utils import ForCausalLMLoss
    from trl.kernels import ChunkedLogProbFunction
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    from stonk_trainer.training.resumable import SmallVocabularySFTTrainer

    vocabulary, width, dtype = config.vocab_size, config.hidden_size, weight_dtype(config, args.model)
    learns = training and not args.model.use_peft
    whole = args.trainer == "sft" and vocabulary <= SmallVocabularySFTTrainer.LARGEST
    if device != "cpu" and not whole:
        tile = min(positions, TOKEN_CHUNK_SIZE) * _CHUNKED_LOGPROB_CHUNK_SIZE * dtype.itemsize
        states = positions * width * (dtype.itemsize + 4 * training)
        return tile + states + vocabulary * width * (4 + dtype.itemsize) * learns

    def run(positions: int) -> int:
        with FakeTensorMode(), torch.set_grad_enabled(training):
            states_ND = torch.zeros(positions, width, dtype=dtype, requires_grad=True)
            weight_VD = torch.zeros(vocabulary, width, dtype=dtype, requires_grad=learns)
            with Live() as live:
                labels_N = torch.zeros(positions, dtype=torch.long)
                if whole:
                    logits_1NV = torch.nn.functional.linear(states_ND, weight_VD)[None]
                    loss = ForCausalLMLoss(logits_1NV, labels_N[None], vocabulary)
                else:
                    # TRL's tile is wider than a narrow vocabulary; what is never written to is never in memory
                    tile = min(vocabulary, _CHUNKED_LOGPROB_CHUNK_SIZE)
                    fields = ("entropy",) if args.trainer == "grpo" else ("entropy", "is_top1")
                    inputs = states_ND, weight_VD, None, labels_N
                    found = ChunkedLogProbFunction.apply(*inputs, 1.0, tile, None, 1.0, fields)
                    loss = found[0].sum()
                if training:
                    loss.backward()
        return live.peak

    tiles = math.ceil(positions / TOKEN_CHUNK_SIZE)
    if tiles <= 4 or whole:
        return run(positions)
    three, four = run(3 * TOKEN_CHUNK_SIZE), run(4 * TOKEN_CHUNK_SIZE)  # tiles are alike, and there may be thousands
    return four + (tiles - 4) * (four - three)
