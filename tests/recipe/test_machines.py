"""Machines people have: a GPU without bfloat16, and packages that are not installed."""

import pytest
import torch

from stonk_trainer.models import loading
from stonk_trainer.recipe import load_recipe


@pytest.fixture
def gtx_1080_ti(monkeypatch):
    """What PyTorch answers on the card: it emulates bfloat16 and has none."""
    import trl  # asks for the real device

    assert trl.GRPOConfig and trl.SFTConfig
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)


def settings(trainer, recipe, *flags):
    args = load_recipe(["--config", recipe, "--out", "runs/x", *flags], trainer, model_must_exist=False)
    precision = [name for name in ("bf16", "fp16") if getattr(args.train, name, False)]
    return args.model.dtype, precision, args.values["dtype"]


@pytest.mark.parametrize(
    ("trainer", "recipe", "flags", "dtype", "precision"),
    [
        ("sft", "stocks/warmup", [], "float16", ["fp16"]),  # 4-bit weights below LoRA
        ("grpo", "stocks/demo/stage1", ["--model", "org/m"], "float16", ["fp16"]),  # LoRA; bf16 was false
        ("grpo", "r1/grpo", [], "float32", ["fp16"]),  # all weights: loss scaling needs float32
        ("grpo", "stocks/demo/stage1", ["--model", "org/m", "--dtype", "float32"], "float32", []),
        ("grpo", "stocks/demo/stage1", ["--model", "org/m", "--dtype", "auto"], "float16", ["fp16"]),
        ("sft", "btc/demo/sft", ["--model", "org/m"], "float32", []),
        ("eval", "stocks/eval", ["--models", "org/m"], "float16", []),
    ],
)
def test_a_gpu_without_bfloat16_trains_in_fp16(gtx_1080_ti, trainer, recipe, flags, dtype, precision):
    *here, saved = settings(trainer, recipe, *flags)
    assert here == [dtype, precision]
    assert saved == (flags[-1] if "--dtype" in flags else "float32" if "btc" in recipe else "bfloat16")


def test_the_fallback_is_said_once_and_4_bit_weights_are_computed_in_float16(gtx_1080_ti):
    args = load_recipe(["--config", "stocks/warmup", "--out", "runs/x"], "sft", model_must_exist=False)
    assert "this GPU has no bfloat16: float16 takes its place" in args.notes
    assert loading.training_form(args.model)["quantization_config"].bnb_4bit_compute_dtype == torch.float16
    argv = ["--config", "stocks/demo/stage1", "--model", "org/m", "--out", "runs/x", "--dtype", "float32"]
    assert load_recipe(argv, "grpo", model_must_exist=False).notes == []


def test_a_gpu_with_bfloat16_keeps_it(gtx_1080_ti, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert settings("sft", "stocks/warmup") == ("bfloat16", ["bf16"], "bfloat16")


@pytest.mark.parametrize("command", ["grpo", "check"])
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--use_vllm", "true", "--load_in_4bit", "false"], "use_vllm: vLLM is not installed"),
        (["--attn_implementation", "flash_attention_2"], "flash_attention_2 needs a package"),
        (["--attn_implementation", "flash_attention_3"], "flash_attention_3 needs a package"),
    ],
)
def test_a_package_that_is_not_installed_is_named_once(refused, tiny_model_folder, command, flags, reason):
    recipe = ["--config", "stocks/stage1", "--model", tiny_model_folder, "--out", "runs/x", *flags]
    said = refused(command, *recipe)
    assert reason in said and str(tiny_model_folder) not in said and said.count("error:") == 1
