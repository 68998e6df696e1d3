"""Memory: what is estimated from a config is what the tensors of a real model take."""

import time
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, MixtralConfig, Qwen2Config
from trl import get_peft_config, get_quantization_config

from stonk_trainer.errors import UserError
from stonk_trainer.recipe import load_recipe
from stonk_trainer.training import fake_passes, memory, packed

pytestmark = pytest.mark.slow

GIB = 2**30


@pytest.fixture(scope="module")
def recipe(tiny_model_folder):
    """Make the resolved arguments of a recipe over the tiny model."""

    def make(name="stocks/demo/warmup", **values):
        flags = [text for key, value in values.items() for text in (f"--{key}", str(value))]
        trainer = "sft" if name.endswith("warmup") else "grpo"
        return load_recipe(["--config", name, "--model", str(tiny_model_folder), *flags], trainer)

    return make


@pytest.fixture
def config(tiny_model_folder):
    return AutoConfig.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module")
def qwen():
    """Qwen2.5-1.5B."""
    return Qwen2Config(
        hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, intermediate_size=8960,
        vocab_size=151936, tie_word_embeddings=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """Three layers, wide enough for what the layers keep to outweigh the rest."""
    return Qwen2Config(
        hidden_size=1024, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, intermediate_size=4096,
        vocab_size=8192,
    )  # fmt: skip


def real_model(folder, args, **keys):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=args.model.dtype, **keys)
    return get_peft_model(model, get_peft_config(args.model)) if args.model.use_peft else model


def size_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


# ------------------------------------------------------------------------------------------------ what stays


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("lora", ["true", "false"])
def test_weights_gradients_and_optimiser_are_to_the_byte_those_of_a_real_step(
    recipe, config, tiny_model_folder, dtype, lora
):
    args = recipe(dtype=dtype, use_peft=lora)
    model = real_model(tiny_model_folder, args)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    model(input_ids=torch.zeros(1, 4, dtype=torch.long), labels=torch.zeros(1, 4, dtype=torch.long)).loss.backward()
    optimiser.step()
    parts, gradients = memory.standing_bytes(config, args)
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = sum(size for part, size in parts.items() if part.startswith("weights"))
    assert weights + parts.get("LoRA", 0) == size_of(model.parameters())
    assert parts.get("LoRA", 0) == (size_of(trained) if lora == "true" else 0)
    assert gradients == size_of(p.grad for p in trained)
    assert parts["optimiser"] == size_of(t for state in optimiser.state.values() for t in state.values())


@pytest.mark.parametrize("nested", ["true", "false"])
def test_4_bit_weights_are_to_the_byte_those_of_bitsandbytes(recipe, config, tiny_model_folder, nested):
    args = recipe("stocks/stage2", use_bnb_nested_quant=nested)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model_folder, dtype=torch.bfloat16, quantization_config=get_quantization_config(args.model)
    )
    packed = [p for p in model.parameters() if hasattr(p, "quant_state")]
    tensors = []
    for weight in packed:
        state = weight.quant_state
        tensors += [weight, state.absmax, state.code]
        tensors += [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    found = memory.weight_bytes(memory.empty_model(config, args.model), args.model)
    assert found["weights, 4 bit"] == size_of(tensors)
    assert found["weights, bfloat16"] == size_of(p for p in model.parameters() if not hasattr(p, "quant_state"))
    assert memory.weight_bytes(memory.empty_model(model.config, args.model), args.model) == found


def test_lora_on_4_bit_weights_is_kept_in_bf16_and_on_16_bit_weights_in_fp32(recipe, config):
    kept = [memory.standing_bytes(config, recipe(load_in_4bit=bits))[0]["LoRA"] for bits in ("true", "false")]
    assert kept[1] == 2 * kept[0]


@pytest.mark.parametrize(
    ("name", "bytes_per_weight"),
    [("sgd", 0), ("adamw_torch", 8), ("adamw_8bit", 2), ("paged_adamw_32bit", 8), ("lion_8bit", 1), ("adafactor", 0)],
)
def test_the_optimiser_decides_what_is_kept_of_a_matrix(name, bytes_per_weight):
    kept = memory.optimiser_bytes(torch.zeros(1000, 1000, device="meta"), name)
    assert kept == pytest.approx(bytes_per_weight * 1_000_000, rel=0.02, abs=10_000)


def test_a_kl_without_lora_needs_the_model_twice_and_with_lora_once(recipe, config):
    for lora in ("true", "false"):
        parts, _ = memory.standing_bytes(config, recipe("stocks/demo/stage2", use_peft=lora))
        assert parts.get("reference model", 0) == (parts["weights, bfloat16"] if lora == "false" else 0)


def test_several_processes_hold_the_gradients_twice(recipe, config):
    parts, gradients = memory.standing_bytes(config, recipe(use_peft="false"), processes=2)
    assert parts["gradient buckets"] == gradients > 0


# ------------------------------------------------------------------------------------------------ what comes and goes


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dtype": "float32"},
        {"use_peft": "false"},
        {"use_peft": "false", "dtype": "float32", "bf16": "true"},
        {"gradient_checkpointing": "true"},
        {"attn_implementation": "eager"},
    ],
)
def test_the_layers_keep_what_a_real_forward_pass_keeps(recipe, config, values):
    args = recipe(**values)
    config.num_hidden_layers = 4
    config.layer_types = ["full_attention"] * 4
    model = AutoModelForCausalLM.from_config(
        config, dtype=args.model.dtype, attn_implementation=args.model.attn_implementation
    )
    model = get_peft_model(model, get_peft_config(args.model)) if args.model.use_peft else model
    model.train()
    if args.train.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    with fake_passes.Live() as live, fake_passes.autocast(args):
        ids = torch.zeros(4, 60, dtype=torch.long)
        mask = torch.ones_like(ids)
        mask[0, :3] = 0  # padded, as a batch of texts is
        states = fake_passes.backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        del ids, mask
        kept = live.now
    assert states.requires_grad
    assert fake_passes.training_pass(config, args, 40, 20, False)[0] == pytest.approx(kept, rel=1e-3)


def test_a_shared_prompt_is_kept_once(recipe, config, tiny_model_folder):
    args = recipe("stocks/demo/stage1")
    model = real_model(tiny_model_folder, args)
    packed.accept_packed(model.get_base_model())
    ids = torch.arange(4 * 60).view(4, 60)
    ids[:, :40] = ids[0, :40]
    (layout,) = packed.lay_out(ids, torch.ones_like(ids), 20)
    with fake_passes.Live() as live:
        states = fake_passes.backbone(model)(**layout.inputs, use_cache=False).last_hidden_state
        kept = live.now
    assert states.requires_grad
    shared, _ = fake_passes.training_pass(config, args, 40, 20, True)
    assert shared == pytest.approx(kept, rel=0.03)
    assert shared < 0.7 * fake_passes.training_pass(config, args, 40, 20, False)[0]


def test_the_cache_of_a_rollout_is_that_of_a_real_model(recipe, config, tiny_model_folder):
    args = recipe("stocks/demo/stage1")
    rows = args.train.generation_batch_size
    cache = real_model(tiny_model_folder, args)(torch.zeros(max(rows, 16), 30, dtype=torch.long)).past_key_values
    size = size_of(t for layer in cache.layers for t in (layer.keys, layer.values))
    rollout = memory.estimate(config, args, 20, 10)["rollout"]
    layers = config.num_hidden_layers
    assert rollout["KV cache"] == size * (layers + 1) / layers


def test_no_memory_is_taken_and_a_model_of_1_5_billion_takes_seconds(recipe, config, qwen):
    args = recipe("stocks/stage2")
    memory.estimate(config, args, 30, 30)  # what is imported is not counted

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before, started = resident(), time.process_time()
    found = memory.estimate(qwen, args, 1200, 256, device="cuda")
    assert time.process_time() - started < 5
    assert resident() - before < 0.1 * GIB < memory.total(found)


def test_stage_two_fits_the_8_gib_gpu_its_recipe_is_for_and_4_bit_is_why(recipe, qwen):
    packed, whole = (
        memory.total(memory.estimate(qwen, recipe("stocks/stage2", load_in_4bit=bits), 1200, 256, device="cuda"))
        for bits in ("true", "false")
    )
    assert 2 * GIB < packed < 8 * GIB
    assert whole > packed + 1.5 * GIB


def test_a_4_bit_run_leaves_a_model_in_16_bit(recipe, qwen):
    args = recipe("stocks/stage2", load_in_4bit="true")
    assert 2.8 * GIB < memory.saved_bytes(qwen, args) < 3.1 * GIB
    whole = recipe("stocks/demo/stage1", use_peft="false", dtype="float32")
    assert 5.6 * GIB < memory.saved_bytes(qwen, whole) < 5.9 * GIB


def test_longer_texts_need_more_and_shared_prompts_and_checkpointing_less(recipe, small):
    def needs(prompt=400, **values):
        args = recipe("stocks/demo/stage1", per_device_eval_batch_size=1, **values)
        return memory.total(memory.estimate(small, args, prompt, 64, device="cuda"))

    plain = needs(shared_prefix="false")
    assert needs() < plain
    assert needs(shared_prefix="false", gradient_checkpointing="true") < plain
    assert plain < needs(shared_prefix="false", prompt=800)
    assert needs(per_device_train_batch_size=8, packed_tokens=600) < needs(per_device_train_batch_size=8)


def test_a_large_batch_is_judged_by_a_few_of_its_rows(recipe, small):
    args = recipe("stocks/demo/stage1", per_device_train_batch_size=24, num_generations=8)
    measured = fake_passes._training_pass(small, args, 40, 20, rows=24, prompts=3)
    assert fake_passes.training_pass(small, args, 40, 20, shared=True) == measured
    huge = recipe("stocks/demo/stage1", per_device_train_batch_size=24 * 2**20, num_generations=8)
    assert fake_passes.training_pass(small, huge, 40, 20, shared=True)[0] > 2**19 * measured[0]


def test_the_total_is_the_largest_phase_and_not_the_sum(recipe, config):
    phases = memory.estimate(config, recipe("stocks/demo/stage1"), 40, 20)
    assert {"rollout", "loss", "backward", "step"} <= set(phases)
    assert memory.total(phases) == sum(phases[memory.peak(phases)].values())
    assert all(sum(parts.values()) <= memory.total(phases) for parts in phases.values())


def test_a_mixture_of_experts_is_estimated_where_it_runs_without_numbers_and_refused_in_one_line_where_not(recipe):
    config = MixtralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=300, num_local_experts=4,
    )  # fmt: skip
    found = memory.estimate(config, recipe(use_peft="false"), 10, 10)
    weights = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).parameters()
    assert found["step"]["gradients"] == size_of(weights)
    with pytest.raises(UserError, match="mixtral") as refusal:
        memory.estimate(config, recipe(use_peft="false", dtype="float32"), 10, 10)
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------------------------------------------ advice


def test_advice_saves_what_it_says(recipe, small):
    args = recipe(use_peft="false")
    everything = memory.total(memory.estimate(small, args, 400, 64, device="cuda"))
    found = memory.advice(small, args, 400, 64, device="cuda")
    assert 1 <= len(found) <= 3 and all(saved > 0 for _, saved in found)
    lighter = memory.estimate(small, recipe(use_peft="true"), 400, 64, device="cuda")
    assert everything - dict(found)["use_peft: true"] == memory.total(lighter)


def test_advice_leaves_out_what_the_recipe_has_already(recipe, small):
    found = dict(memory.advice(small, recipe("stocks/warmup"), 1200, 256, device="cuda"))
    assert any("per_device_train_batch_size: 2, gradient_accumulation_steps: 8" in text for text in found)
    assert not any("checkpointing" in text or "4bit" in text or "use_peft" in text for text in found)


def test_half_the_rows_in_twice_the_steps_sample_as_many_answers(recipe):
    args = recipe("stocks/stage2")
    changed = memory._with(args, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8})
    assert memory._rows(changed) == memory._rows(args)
    assert args.train.per_device_train_batch_size == 4
