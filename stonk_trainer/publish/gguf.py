"""Models as GGUF files for llama.cpp.

They are written with llama.cpp's own package `gguf`, whose tables name the tensors. That package does not hold
llama.cpp's converter, so only what was compared with the model and with llama.cpp itself is written here; the rest is
refused.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError
from stonk_trainer.files import whole
from stonk_trainer.models.loading import load_tokenizer

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

OTHERWISE = "merge to a folder instead (--to hf) and run llama.cpp's convert_hf_to_gguf.py on it"

# How a tokenizer splits text before BPE (its tokenizer.json), by llama.cpp's name of the same. Another split would give
# other tokens silently, so what is not here is refused.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
    "qwen2": [
        {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False},
        _BYTES | {"use_regex": False},
    ],
}
ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2"}


def write_gguf(folder: str | Path, output: str | Path) -> None:
    """The model in `folder` as one GGUF file: matrices in bf16, vectors in fp32; whole or not at all.

    Raises UserError for an architecture, a setting or a tokenizer whose GGUF was not compared with the model, and for a
    file that does not compute what the model does.
    """
    import gguf
    from transformers import AutoConfig

    folder, output = Path(folder), Path(output)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read: {error}") from error
    _check_architecture(config, folder)
    tokenizer = load_tokenizer(str(folder))
    split = _split_of(tokenizer, folder)
    tensors = dict(_tensor_files(folder))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]], config.num_hidden_layers)
    found = {name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in sorted(tensors)}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    named = {name: new for name, new in found.items() if new is not None}
    if unknown := [name for name in found if name not in named]:
        raise UserError(f"{folder}: GGUF has no place for the weight {unknown[0]}: {OTHERWISE}")

    with whole(output) as temporary:
        writer = gguf.GGUFWriter(temporary, config.model_type)
        _write_config(writer, config, output.stem)
        _write_tokenizer(writer, config, tokenizer, folder, split)
        for name, new in named.items():
            data, kind = _data(tensors[name], name, config)
            writer.add_tensor_info(new, data.shape, data.dtype, data.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in named:  # one at a time: a model larger than half the memory can be written
            writer.write_tensor_data(_data(tensors[name], name, config)[0])
        writer.close()
        _read_back(temporary, folder)


def _read_back(file: Path, folder: Path) -> None:
    """Compare the logits of the file, as Transformers reads it, with the model's; one after the other, in bf16."""
    read, meant = _logits(file.parent, gguf_file=file.name), _logits(folder)
    if not (read - meant).abs().max() < 1e-3 * meant.abs().max():
        raise UserError(f"the GGUF file computes something else than the model: {OTHERWISE}")


def _logits(source: Path, **how: str) -> torch.Tensor:
    import torch
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar for GGUF cannot be switched off
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, **how).eval()
    with torch.inference_mode():
        return model(torch.arange(min(64, model.config.vocab_size))[None]).logits.float()


def _check_architecture(config: PretrainedConfig, folder: Path) -> None:
    if config.model_type not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise UserError(f"{folder} is a {config.model_type} model; GGUF is written only for {known}: {OTHERWISE}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    for what, odd in (
        (f"rope_type {rope}", rope != "default"),
        (f"hidden_act {config.hidden_act}", config.hidden_act != "silu"),
        ("a sliding window", getattr(config, "use_sliding_window", False)),
        ("quantised weights", getattr(config, "quantization_config", None)),
    ):
        if odd:
            raise UserError(f"{folder} has {what}, which is not supported in GGUF here: {OTHERWISE}")


def _split_of(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """llama.cpp's name for how this tokenizer splits text. Raises UserError when it is not one of `SPLITS`."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    before = state["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    steps = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    name = next((name for name, known in SPLITS.items() if known == steps), None)
    normaliser = (state["normalizer"] or {}).get("type")
    # llama.cpp leaves out NFC, as Qwen's own GGUF files do: composed text, which is nearly all there is, is the same
    same = normaliser is None or (name == "qwen2" and normaliser == "NFC")
    if name is None or not same or state["model"]["type"] != "BPE" or state["model"].get("byte_fallback"):
        raise UserError(
            f"{folder} has a tokenizer that llama.cpp does not know as one of {', '.join(SPLITS)}: {OTHERWISE}"
        )
    return name


def _tensor_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name of a weight, safetensors file that holds it). Raises UserError where there is none."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no weights as safetensors (model.safetensors)")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                yield from ((name, path) for name in file.keys())  # noqa: SIM118 (no dict)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read: {error}") from error


def _data(path: Path, name: str, config: PretrainedConfig) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """A weight as numpy holds it, and its GGUF type: matrices as bf16 bytes, vectors as fp32."""
    import gguf
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensor = file.get_tensor(name)
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        tensor = _interleaved(tensor, heads)
    if tensor.ndim == 1:
        return tensor.float().numpy(), gguf.GGMLQuantizationType.F32
    return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy(), gguf.GGMLQuantizationType.BF16


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary halves as llama.cpp's llama reads them: pairs of neighbours instead of first half and second half."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _write_config(writer: gguf.GGUFWriter, config: PretrainedConfig, name: str) -> None:
    import gguf

    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(
    writer: gguf.GGUFWriter, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path, split: str
) -> None:
    import gguf

    if len(tokenizer) > config.vocab_size:
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, and the model {config.vocab_size}")
    words = {place: word for word, place in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for place in range(config.vocab_size):
        tokens.append(words.get(place, f"[PAD{place}]"))
        if place not in words:
            kinds.append(gguf.TokenType.UNUSED)
        elif place in added:
            kinds.append(gguf.TokenType.CONTROL if added[place].special else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=config.vocab_size)
    first = tokenizer("a")["input_ids"][0]
    special.add_special_token["bos"] = tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id
    special.add_to_gguf(writer, quiet=True)
