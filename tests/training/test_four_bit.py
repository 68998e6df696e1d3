"""4-bit weights with LoRA on a CPU, from SFT to a merged checkpoint that is loaded again."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from stonk_trainer.models import loading

pytestmark = pytest.mark.slow

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
FOUR_BIT = "--load_in_4bit true --bnb_4bit_quant_type nf4 --use_bnb_nested_quant true --dtype bfloat16".split()
FOUR_BIT += "--max_steps 2 --max_train_samples 16 --max_eval_samples 4 --indicators change_1d --lr 1e-2".split()
WARMUP = ["sft", "--config", "stocks/demo/warmup", "--max_length", "1024"]
STAGE2 = ["grpo", "--config", "stocks/demo/stage2", "--max_completion_length", "6", "--save_steps", "1"]


def logits(model):
    with torch.inference_mode():
        return model.eval()(torch.arange(5, 85).view(2, 40)).logits.float()


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, **options)


@pytest.mark.parametrize("base", [WARMUP, STAGE2], ids=["SFT", "GRPO"])
def test_a_merged_model_is_the_trained_one_up_to_the_quantisation_of_its_base(
    base, wide_model_folder, tmp_path, stonk, capsys
):
    out = tmp_path / "run"
    text = stonk(*base, *FOUR_BIT, "--model", wide_model_folder, "--out", out)
    assert "4-bit weights on a CPU work but are about ten times slower" in text
    nf4 = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.bfloat16)
    untrained = logits(load(wide_model_folder))
    quantisation = (logits(load(wide_model_folder, quantization_config=nf4)) - untrained).square().mean().sqrt()
    trained = logits(PeftModel.from_pretrained(load(wide_model_folder, quantization_config=nf4), out / "best_adapter"))
    merged = logits(load(out / "best_model"))
    moved, apart = ((merged - other).square().mean().sqrt() for other in (untrained, trained))
    with capsys.disabled():
        print(f"\nlogits, root mean square: NF4 moves the base by {quantisation:.3f}, training by {moved:.3f}; "
              f"merged and 4-bit with adapter are {apart:.3f} apart")  # fmt: skip
    assert apart < 2.5 * quantisation and apart < 0.2 * moved
    again = loading.merge_adapter(out / "best_adapter", tmp_path / "again")
    assert torch.equal(logits(load(again)), merged)
