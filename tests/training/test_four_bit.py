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


def test_under_fp16_lora_over_4_bit_weights_trains_in_float32(wide_model_folder, tmp_path, tiny_tokenizer):
    """Loss scaling cannot handle the bfloat16 that TRL puts it in, and an old GPU cannot compute it."""
    from one_answer import OneAnswer

    from stonk_trainer.recipe import load_recipe
    from stonk_trainer.training.resumable import SupervisedTrainer

    argv = [*WARMUP[1:], *FOUR_BIT, "--model", str(wide_model_folder), "--out", str(tmp_path), "--task"]
    args = load_recipe([*argv, "one_answer:OneAnswer"], trainer="sft")
    rows = OneAnswer.sft_dataset(args.task, "train")
    for fp16, dtype in {False: torch.bfloat16, True: torch.float32}.items():
        args.train.fp16 = fp16  # Accelerate does not do fp16 on a CPU: the run itself is not made here
        trainer = SupervisedTrainer(
            str(wide_model_folder), args.train, train_dataset=rows, eval_dataset=rows,
            processing_class=tiny_tokenizer, **loading.training_form(args.model),
        )  # fmt: skip
        assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {dtype}
