"""A warm-up with each style of chat template: the model gives a readable answer that ends by itself, or is refused."""

import pytest
from chat_styles import REFUSED, STYLES, write_style
from one_answer import ANSWER, PROMPT
from real_tokenizers import NAMES, fetch

from stonk_trainer.models.generation import Sampling, TransformersGenerator
from stonk_trainer.models.loading import load_tokenizer
from stonk_trainer.tasks.stocks.answer import parse

pytestmark = pytest.mark.slow
WARMUP = (
    "--task one_answer:OneAnswer --max_steps 40 --learning_rate 1e-2 --lr_scheduler_type linear --warmup_steps 4 "
    "--per_device_train_batch_size 4 --use_peft false --dtype float32 --bf16 false --eval_strategy no "
    "--save_strategy no --report_to none --gradient_checkpointing false"
).split()


def new_model(folder, tokenizer):
    """A random two-layer Qwen2 for a tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, **heads)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def warmed_up(stonk, folder, out):
    stonk("sft", "--config", "stocks/demo/warmup", "--model", folder, "--out", out, *WARMUP)
    path = str(out / "best_model")
    tokenizer = load_tokenizer(path)
    (answer,) = TransformersGenerator(path, tokenizer, {"dtype": "float32"}).answers([PROMPT], Sampling(80))
    return answer, tokenizer


def judge(answer, tokenizer):
    assert answer.ended and answer.text.split() == ANSWER.split()
    assert parse(answer.text).direction == "DOWN"


@pytest.mark.parametrize("style", STYLES)
def test_a_warmup_with_a_style_of_template_teaches_its_answer_or_is_refused(
    stonk, refused, tiny_tokenizer, tmp_path, style
):
    write_style(tiny_tokenizer, style, tmp_path / "model")
    new_model(tmp_path / "model", tiny_tokenizer)
    if style in REFUSED:
        said = refused(
            "sft", "--config", "stocks/demo/warmup", "--model", tmp_path / "model", "--out", tmp_path / "run", *WARMUP
        )
        assert REFUSED[style] in said and not (tmp_path / "run").exists()
    else:
        judge(*warmed_up(stonk, tmp_path / "model", tmp_path / "run"))


@pytest.mark.parametrize("name", NAMES)
def test_a_warmup_with_a_real_tokenizer_teaches_its_answer(stonk, tmp_path, name):
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(fetch(name))
    except OSError as error:
        pytest.skip(f"no tokenizer of {name}: {error}")
    tokenizer.save_pretrained(tmp_path / "model")
    new_model(tmp_path / "model", tokenizer)
    judge(*warmed_up(stonk, tmp_path / "model", tmp_path / "run"))
