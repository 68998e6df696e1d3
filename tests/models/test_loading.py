import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stonk_trainer.errors import UserError
from stonk_trainer.models import loading
from stonk_trainer.recipe import load_recipe


def logits(model):
    ids = torch.arange(5, 45).unsqueeze(0)
    with torch.inference_mode():
        return model.eval()(ids).logits


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def merged_folder(tiny_adapter_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged") / "model"
    assert loading.merge_adapter(tiny_adapter_folder, folder) == folder
    return folder


@pytest.fixture
def orphan(tiny_adapter_folder, tmp_path):
    """An adapter whose base is gone."""
    folder = tmp_path / "orphan"
    shutil.copytree(tiny_adapter_folder, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


# ------------------------------------------------------------------------------------------------------- locating


def test_a_model_folder_is_found_as_it_is(tiny_model_folder, tmp_path):
    assert loading.locate_model(str(tiny_model_folder), tmp_path) == str(tiny_model_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "~/nowhere-model", "runs/stage1/best_model"])
def test_a_missing_path_is_named(name, tmp_path):
    with pytest.raises(UserError, match=f"model {name} not found"):
        loading.locate_model(name, tmp_path)


def test_a_name_that_no_folder_and_no_reachable_hub_holds_is_named(tmp_path):
    with pytest.raises(UserError, match="some/model not found"):
        loading.locate_model("some/model", tmp_path)


def test_a_folder_without_a_model_says_so_and_points_inside(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json") as error:
        loading.locate_model(str(tmp_path), tmp_path)
    assert "did you mean" not in str(error.value)
    (tmp_path / "best_model").mkdir()
    with pytest.raises(UserError, match="did you mean .*best_model"):
        loading.locate_model(str(tmp_path), tmp_path)


def test_an_unknown_embedded_model_names_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="embedded:smollm2-135m"):
        loading.locate_model("embedded:gpt5", tmp_path)


def test_an_adapter_is_merged_into_the_runs_folder(tiny_adapter_folder, merged_folder, tmp_path):
    where = loading.locate_model(str(tiny_adapter_folder), tmp_path / "run")
    assert where == str(tmp_path / "run/merged_model")
    assert torch.equal(logits(load(where)), logits(load(merged_folder)))


def test_a_dry_run_merges_nothing_and_gives_the_base(tiny_adapter_folder, tiny_model_folder, tmp_path):
    assert loading.locate_model(str(tiny_adapter_folder), tmp_path / "run", merge=False) == str(tiny_model_folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_whose_base_is_gone_is_refused(orphan, tmp_path, merge):
    with pytest.raises(UserError, match="is an adapter whose base .*gone cannot be found"):
        loading.locate_model(str(orphan), tmp_path / "run", merge=merge)
    assert not (tmp_path / "run/merged_model").exists()


# -------------------------------------------------------------------------------------------------------- merging


def test_a_merged_adapter_computes_what_the_adapter_computes(tiny_adapter_folder, tiny_model_folder, merged_folder):
    from peft import PeftModel

    base = logits(load(tiny_model_folder))
    adapted = logits(PeftModel.from_pretrained(load(tiny_model_folder), tiny_adapter_folder))
    merged = logits(load(merged_folder))
    effect = (adapted - base).abs().mean()
    assert effect > 0.1  # the adapter does something
    assert (merged - adapted).abs().mean() < 0.02 * effect  # what is left is the rounding of the weights to bf16


ADAPTERS = {
    "queries and values": {"target_modules": ["q_proj", "v_proj"]},
    "all linear layers": {"target_modules": "all-linear"},
    "the LM head": {"target_modules": ["lm_head"]},
    "the LM head and all others": {"target_modules": ["q_proj", "lm_head"]},
    "the embeddings": {"target_modules": ["embed_tokens"]},
    "a regular expression": {"target_modules": r".*\.(q_proj|embed_tokens)"},
    "the LM head whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "the embeddings whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("what", ADAPTERS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's, of tied weights
def test_an_adapter_of_any_layers_computes_the_same_once_merged(what, tied, tiny_tokenizer, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=len(tiny_tokenizer), tie_word_embeddings=tied, pad_token_id=None)
    base = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))  # so that bf16 rounds the adapter's share alone
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    adapter = get_peft_model(load(tmp_path / "base"), LoraConfig(r=4, init_lora_weights=False, **ADAPTERS[what]))
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "modules_to_save" in name and parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapter.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    plain = logits(load(tmp_path / "base"))
    adapted = logits(PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter"))
    merged = logits(load(loading.merge_adapter(tmp_path / "adapter", tmp_path / "merged")))
    assert (merged - adapted).abs().mean() < 0.02 * (adapted - plain).abs().mean()


def test_a_merged_model_that_computes_something_else_is_refused(tiny_adapter_folder, tmp_path, monkeypatch):
    from peft import LoraModel

    plain = LoraModel.merge_and_unload
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self: plain(self).apply(halve_norms))
    with pytest.raises(UserError, match="cannot be merged: the merged model's logits are .*% from the adapter's"):
        loading.merge_adapter(tiny_adapter_folder, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def halve_norms(module):
    if "Norm" in type(module).__name__:
        module.weight.data *= 0.5


def test_a_moved_adapter_finds_its_base_from_its_own_folder(tiny_adapter_folder, tiny_model_folder, tmp_path):
    moved = tmp_path / "elsewhere/runs/demo/stage2/best_adapter"
    shutil.copytree(tiny_adapter_folder, moved)
    shutil.copytree(tiny_model_folder, tmp_path / "elsewhere/runs/demo/stage1/best_model")
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "runs/demo/stage1/best_model"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    found = loading.locate_model(str(moved), tmp_path / "run", merge=False)
    assert found == str(tmp_path / "elsewhere/runs/demo/stage1/best_model")


def test_a_merged_model_is_bf16_and_has_no_trace_of_lora(merged_folder):
    model = AutoModelForCausalLM.from_pretrained(merged_folder)
    assert model.dtype == torch.bfloat16
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert not (merged_folder / "adapter_config.json").exists()


def test_a_saved_model_has_tokenizer_chat_template_and_end_of_turn(merged_folder, tiny_tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(merged_folder)
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"
    text = "Close: $10.00 <|im_end|>"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    generation = json.loads((merged_folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tiny_tokenizer.eos_token_id
    assert generation["pad_token_id"] == tiny_tokenizer.pad_token_id


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(tiny_adapter_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale").write_text("")
    loading.merge_adapter(tiny_adapter_folder, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (folder / "stale").exists() and (folder / "config.json").exists()


def test_the_tokenizer_pads_on_the_left(tiny_model_folder):
    tokenizer = loading.load_tokenizer(str(tiny_model_folder))
    assert tokenizer.padding_side == "left" and tokenizer.pad_token is not None


# -------------------------------------------------------------------------------------------------------- loading


def test_stage_two_trains_nf4_weights_with_double_quantisation_through_a_small_lora():
    args = load_recipe(["--config", "stocks/stage2", "--stage1_model", "some/model"], "grpo")
    form = loading.training_form(args.model)
    quantisation = form["quantization_config"]
    assert quantisation.load_in_4bit is True
    assert quantisation.bnb_4bit_quant_type == "nf4"
    assert quantisation.bnb_4bit_use_double_quant is True
    assert quantisation.bnb_4bit_compute_dtype == torch.bfloat16
    assert (form["peft_config"].r, form["peft_config"].lora_alpha) == (8, 16)


def test_the_demo_recipes_use_no_quantisation_and_full_fine_tuning_has_no_lora(tiny_model_folder):
    model = ["--model_name_or_path", str(tiny_model_folder)]
    args = load_recipe(["--config", "stocks/demo/stage1", *model, "--use_peft", "false"], "grpo")
    assert loading.training_form(args.model) == {"peft_config": None, "quantization_config": None}
    assert loading.loading_options(args.model)["dtype"] == "bfloat16"
