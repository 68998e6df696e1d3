"""Merging to a folder and to GGUF."""

import json
import shutil

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stonk_trainer.errors import UserError
from stonk_trainer.publish.gguf import write_gguf

IDS = torch.arange(5, 45).unsqueeze(0)
TEXTS = ["Close: $10.00 <|im_end|>\n  123 it's\t\n\n  naïve 你好 1,234.5%", "<|im_start|>user\nUP or DOWN?<|im_end|>\n"]


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


def load(folder, **how):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how)


def test_an_adapter_becomes_a_full_folder(stonk, tiny_adapter_folder, tmp_path):
    assert str(tmp_path / "merged") in stonk("merge", tiny_adapter_folder, tmp_path / "merged")
    assert (tmp_path / "merged/config.json").is_file() and not (tmp_path / "merged/adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_an_adapter_as_gguf_computes_what_its_merged_folder_computes(stonk, tiny_adapter_folder, tmp_path):
    """Read back through Transformers, which takes the weights apart again by llama.cpp's names: bit for bit."""
    stonk("merge", tiny_adapter_folder, tmp_path / "merged")
    stonk("merge", tiny_adapter_folder, tmp_path / "out/model.gguf", "--to", "gguf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]
    read = load(tmp_path / "out", gguf_file="model.gguf")
    assert read.config.model_type == "qwen2"
    assert torch.equal(logits(read), logits(load(tmp_path / "merged")))


def test_a_gguf_file_that_computes_something_else_is_not_left(refused, tiny_adapter_folder, tmp_path, monkeypatch):
    from stonk_trainer.publish import gguf as ours

    def turned(tensor, name, config, original=ours._data):
        data, kind = original(tensor, name, config)
        return (data[::-1].copy() if "down_proj" in name else data), kind

    monkeypatch.setattr(ours, "_data", turned)
    said = refused("merge", tiny_adapter_folder, tmp_path / "model.gguf", "--to", "gguf")
    assert "the GGUF file computes something else than the model" in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory, tiny_tokenizer):
    """A random Llama with fewer key-value heads than heads, a tied head and more rows than tokens, as SmolLM2 is."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer) + 7,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "llama"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_a_full_llama_in_shards_becomes_gguf(stonk, llama_folder, tmp_path):
    assert len(list(llama_folder.glob("model-*.safetensors"))) > 1
    stonk("merge", llama_folder, tmp_path / "llama.gguf", "--to", "gguf")
    read = load(tmp_path, gguf_file="llama.gguf")
    assert read.config.rope_parameters["rope_theta"] == 50_000 and read.config.tie_word_embeddings
    assert torch.equal(logits(read), logits(load(llama_folder)))


def test_the_tokenizer_of_a_gguf_gives_the_same_tokens(stonk, tiny_model_folder, tiny_tokenizer, tmp_path):
    stonk("merge", tiny_model_folder, tmp_path / "tiny.gguf", "--to", "gguf")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert [read(text)["input_ids"] for text in TEXTS] == [tiny_tokenizer(text)["input_ids"] for text in TEXTS]
    assert read.chat_template == tiny_tokenizer.chat_template
    assert (read.eos_token, read.pad_token) == (tiny_tokenizer.eos_token, tiny_tokenizer.pad_token)


@pytest.mark.parametrize(
    "steps, name",
    [
        ([("ByteLevel", True)], "gpt-2"),
        ([("Digits", True), ("ByteLevel", True)], "smollm"),
        ([("Digits", False), ("ByteLevel", True)], None),
        ([("ByteLevel", False)], None),
    ],
)
def test_how_a_tokenizer_splits_text_has_llama_cpps_name_or_is_refused(llama_folder, tmp_path, steps, name):
    """SmolLM2's cut, and that of the embedded model, which Transformers takes from its GGUF without the digits.

    Compared by hand with llama.cpp itself (xllamacpp 2026.10.11549, 2026-11-26): in each of the three cuts the tokens
    of six texts and 24 greedy tokens after each are the same, log-probabilities within 0.11, which is bf16's rounding.
    """
    model = shutil.copytree(llama_folder, tmp_path / "model")
    how = {"ByteLevel": {"add_prefix_space": False, "trim_offsets": True}, "Digits": {}}
    flag = {"ByteLevel": "use_regex", "Digits": "individual_digits"}
    cut = [{"type": kind, **how[kind], flag[kind]: on} for kind, on in steps]
    rewrite(model / "tokenizer.json", normalizer=None, pre_tokenizer={"type": "Sequence", "pretokenizers": cut})
    rewrite(model / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    if name is None:
        with pytest.raises(UserError, match="one of gpt-2, smollm, qwen2"):
            write_gguf(model, tmp_path / "model.gguf")
        return
    write_gguf(model, tmp_path / "model.gguf")
    assert gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.pre"].contents() == name


def rewrite(path, **values):
    """Other values in a JSON file of a model's folder."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
LOWER = {"tokenizer.json": {"normalizer": {"type": "Lowercase"}}}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"config.json": {"hidden_act": "gelu"}}, "hidden_act gelu"),
        ({"config.json": {"rope_parameters": LINEAR}}, "rope_type linear"),
        ({"config.json": {"model_type": "gpt_neox"}}, "is a gpt_neox model"),
        ({"config.json": {"vocab_size": 20}}, "the model 20"),
        (LOWER | {"tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}}, "one of gpt-2, smollm, qwen2"),
    ],
)
def test_a_model_whose_gguf_was_not_compared_is_refused(refused, llama_folder, tmp_path, changes, words):
    model = shutil.copytree(llama_folder, tmp_path / "model")
    for file, values in changes.items():
        rewrite(model / file, **values)
    said = refused("merge", model, tmp_path / "out/model.gguf", "--to", "gguf")
    assert words in said and not list(tmp_path.glob("out/*"))


def test_what_is_there_is_kept_and_wrong_words_are_one_line(refused, tiny_adapter_folder, tiny_model_folder, tmp_path):
    (tmp_path / "old.gguf").write_text("mine")
    assert "exists already" in refused("merge", tiny_model_folder, tmp_path / "old.gguf", "--to", "gguf")
    assert "exists already" in refused("merge", tiny_adapter_folder, tmp_path)
    assert "ends in .gguf" in refused("merge", tiny_adapter_folder, tmp_path / "x.bin", "--to", "gguf")
    assert "is not an adapter" in refused("merge", tiny_model_folder, tmp_path / "new")
    assert "not found" in refused("merge", "./nowhere", tmp_path / "new.gguf", "--to", "gguf")
    assert (tmp_path / "old.gguf").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_no_file(tiny_model_folder, tmp_path):
    """The weights end in the middle: what was written so far goes."""
    shutil.copytree(tiny_model_folder, tmp_path / "torn")
    weights = tmp_path / "torn/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        write_gguf(tmp_path / "torn", tmp_path / "out/model.gguf")
    assert not list(tmp_path.glob("out/*"))
