"""Models for use elsewhere: `stonk merge` makes one folder or GGUF file of an adapter, `stonk push` puts a model on the
Hub with a card that says how it was made and how good it is.

GGUF is written with llama.cpp's own package `gguf`, whose tables name the tensors. That package does not hold
llama.cpp's converter, so only what was compared with the model and with llama.cpp itself is written here; the rest is
refused.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError, exits_cleanly, explained, first_line
from stonk_trainer.models.loading import check_folder, load_tokenizer, locate_model, merge_adapter

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

OTHERWISE = "merge to a folder instead (--to hf) and run llama.cpp's convert_hf_to_gguf.py on it"

# ------------------------------------------------------------------------------------------------- merge


@exits_cleanly
def merge_main(argv: list[str] | None = None) -> None:
    """`stonk merge MODEL OUTPUT`: adapter → full checkpoint; adapter or full checkpoint → GGUF."""
    parser = argparse.ArgumentParser(
        prog="stonk merge",
        description="Merge a LoRA adapter into its base model: a full checkpoint with tokenizer, or one GGUF file.",
        epilog="example: stonk merge runs/stage1/best_adapter stage1.gguf --to gguf",
    )
    parser.add_argument("model", help="folder of an adapter; with --to gguf also of a full model")
    parser.add_argument("output", help="folder, or with --to gguf the file, to write; must not exist yet")
    parser.add_argument(
        "--to", choices=["hf", "gguf"], default="hf", help="hf: a folder (default). gguf: bf16, for llama.cpp"
    )
    args = parser.parse_args(argv)
    model, output = Path(args.model).expanduser(), Path(args.output).expanduser()
    if args.to == "hf" and not (model / "adapter_config.json").is_file():
        raise UserError(f"{args.model} is no adapter (no adapter_config.json in it)")
    if output.exists():
        raise UserError(f"{args.output} exists already: give a new {'folder' if args.to == 'hf' else 'file'}")
    if args.to == "hf":
        with explained(f"adapter {model} does not fit its base"):
            merged = merge_adapter(model, output)
        print(f"merged model: {merged}")
        return
    if output.suffix != ".gguf":
        raise UserError(f"{args.output}: give the name of a file that ends in .gguf")
    with tempfile.TemporaryDirectory(prefix="stonk-merge-") as temporary:
        write_gguf(locate_model(args.model, temporary), output)
    print(f"GGUF in bf16: {output} (llama.cpp's llama-quantize makes it smaller)")


# ------------------------------------------------------------------------------------------------- GGUF

# How a tokenizer cuts text before BPE (its tokenizer.json) → llama.cpp's name of the same. Another cut would give other
# tokens without a word, so what is not here is refused.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {
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

    Raises UserError for an architecture, a setting or a tokenizer whose GGUF was not compared with the model.
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
    cut = _cut_of(tokenizer, folder)
    tensors = dict(_tensor_files(folder))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]], config.num_hidden_layers)
    found = {name: names.get_name(name, try_suffixes=(".weight", ".bias")) for name in sorted(tensors)}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    named = {name: new for name, new in found.items() if new is not None}
    if unknown := [name for name in found if name not in named]:
        raise UserError(f"{folder}: GGUF has no place for the weight {unknown[0]}: {OTHERWISE}")

    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}-")
    os.close(handle)
    try:
        writer = gguf.GGUFWriter(temporary, config.model_type)
        _write_config(writer, config, output.stem)
        _write_tokenizer(writer, config, tokenizer, folder, cut)
        for name, new in named.items():
            data, kind = _data(tensors[name], name, config)
            writer.add_tensor_info(new, data.shape, data.dtype, data.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in named:  # one at a time: a model larger than half the memory can be written
            writer.write_tensor_data(_data(tensors[name], name, config)[0])
        writer.close()
        os.chmod(temporary, 0o644)
        os.replace(temporary, output)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _check_architecture(config: PretrainedConfig, folder: Path) -> None:
    if config.model_type not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise UserError(f"{folder} is a {config.model_type} model, and GGUF is written of {known}: {OTHERWISE}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    for what, odd in (
        (f"rope_type {rope}", rope != "default"),
        (f"hidden_act {config.hidden_act}", config.hidden_act != "silu"),
        ("a sliding window", getattr(config, "use_sliding_window", False)),
        ("quantised weights", getattr(config, "quantization_config", None)),
    ):
        if odd:
            raise UserError(f"{folder} has {what}, of which no GGUF is written: {OTHERWISE}")


def _cut_of(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """llama.cpp's name of how this tokenizer cuts text. Raises UserError when it is none of `CUTS`."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    before = state["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    name = next(
        (name for name, known in CUTS.items() if [_essence(k) for k in known] == [_essence(s) for s in steps]), None
    )
    normaliser = (state["normalizer"] or {}).get("type")
    # llama.cpp leaves out NFC, as Qwen's own GGUF files do: composed text, which is nearly all there is, is the same
    same = normaliser is None or (name == "qwen2" and normaliser == "NFC")
    if name is None or not same or state["model"]["type"] != "BPE" or state["model"].get("byte_fallback"):
        raise UserError(f"{folder} has a tokenizer that is none of {', '.join(CUTS)} to llama.cpp: {OTHERWISE}")
    return name


def _essence(step: dict) -> dict:
    """A step of cutting without what concerns offsets only."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


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
    writer: gguf.GGUFWriter, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path, cut: str
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
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=config.vocab_size)
    first = tokenizer("a")["input_ids"][0]
    special.add_special_token["bos"] = tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id
    special.add_to_gguf(writer, quiet=True)


# ------------------------------------------------------------------------------------------------- push

# What of a model's folder is pushed: no pickles, no states of optimisers, no logs.
PUSHED: tuple[str, ...] = ("config.json", "generation_config.json", "model*.safetensors", "*.gguf")
PUSHED += ("model.safetensors.index.json",)
PUSHED += ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
PUSHED += ("chat_template.jinja", "codec/config.json", "codec/model.safetensors", "LICENSE*", "NOTICE*")


@exits_cleanly
def push_main(argv: list[str] | None = None) -> None:
    """`stonk push FOLDER REPO_ID`: a trained model to the Hugging Face Hub, with a model card."""
    parser = argparse.ArgumentParser(
        prog="stonk push",
        description="Put a trained model on the Hugging Face Hub, with a model card made of what the run left.",
        epilog="example: stonk push runs/stage2 me/my-model --private --eval runs/eval --dry_run",
    )
    parser.add_argument("folder", help="folder of a run (its best_model is pushed), or of a model")
    parser.add_argument("repo_id", help="owner/name on the Hub")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print card and files, send nothing")
    parser.add_argument("--message", default="Add model", help="commit message (default: Add model)")
    parser.add_argument("--eval", metavar="FOLDER", help="folder of an evaluation of this model (default: looked for)")
    args = parser.parse_args(argv)

    from stonk_trainer.publish import card

    _check_repo_id(args.repo_id)
    model = model_to_push(Path(args.folder).expanduser())
    files = files_to_push(model)
    text = card.make_card(model, args.repo_id, Path(args.eval).expanduser() if args.eval else None)
    if args.dry_run:
        print(f"{text}\n")
        for name, size in [("README.md", len(str(text).encode())), *((n, p.stat().st_size) for n, p in files.items())]:
            print(f"{size:>15,} bytes  {name}")
        print(f"dry run: nothing was sent to {args.repo_id}")
        return
    print(f"pushed: {push(files, str(text), args.repo_id, args.private, args.message)}")


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id} is no name on the Hub (owner/name): {error}") from error
    if "/" not in repo_id:
        raise UserError(f"{repo_id} is no name on the Hub: give owner/name")


def model_to_push(folder: Path) -> Path:
    """The folder of the full model that `folder` names: itself, or its `best_model`. Raises UserError for others."""
    if (folder / "best_model" / "config.json").is_file():
        return folder / "best_model"
    check_folder(str(folder))
    if not folder.is_dir():
        raise UserError(f"{folder} not found: give the folder of a run, or of a model")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is an adapter: push the merged best_model, or merge it first (stonk merge)")
    return folder


def files_to_push(model: Path) -> dict[str, Path]:
    """What of a model's folder goes to the Hub, by its name there: weights, configs, tokenizer, codec, licence.

    Anything else (pickles, states of optimisers, checkpoints, logs) stays. A link may not lead out of the folder.
    Raises UserError when there are no weights as safetensors.
    """
    found = sorted({path for pattern in PUSHED for path in model.glob(pattern) if path.is_file()})
    chosen = {p.relative_to(model).as_posix(): p for p in found if p.resolve().is_relative_to(model.resolve())}
    if not any(name.endswith((".safetensors", ".gguf")) and "/" not in name for name in chosen):
        raise UserError(f"{model} holds no weights as safetensors: nothing else is pushed")
    return chosen


def push(files: dict[str, Path], card: str, repo_id: str, private: bool, message: str) -> str:
    """Upload the files and the card. Returns the repository's address.

    Raises UserError, in one line, for whatever keeps it from being done, and for a public repository where `private` is
    asked for: the Hub would leave it public.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if get_token() is None:
        raise UserError("no Hub token on this machine: log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        with tempfile.TemporaryDirectory(prefix="stonk-push-") as temporary:
            # a folder of links: exactly what the dry run lists, and nothing is written beside the model
            for name, path in files.items():
                link = Path(temporary) / name
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(path.resolve())
            (Path(temporary) / "README.md").write_text(card, encoding="utf-8")
            url = api.create_repo(repo_id, private=private or None, exist_ok=True)
            if private and not api.model_info(repo_id).private:
                raise UserError(
                    f"{repo_id} exists and is public: make it private in its settings, or leave --private out"
                )
            api.upload_folder(repo_id=repo_id, folder_path=temporary, commit_message=message)
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = {401: ": log in with `hf auth login`", 403: ": the token needs write access to it"}.get(status, "")
        reason = error.server_message or first_line(error)
        raise UserError(f"the Hub refused {repo_id} (status {status}): {reason}{hint}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{repo_id} was not pushed: {first_line(error.__cause__ or error)}: run it again") from error
    return str(url)
