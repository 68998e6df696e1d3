"""A warm-up with each style of chat template: the model gives a readable answer that ends by itself, or is refused."""

import json
import shutil

import pytest
from chat_styles import REFUSED, STYLES, write_style
from one_answer import ANSWER, PROMPT
from real_tokenizers import NAMES, folder_of
from speaking_models import speaking_tokenizer, write_speaking_model

from stonk_trainer.models.generation import Sampling, TransformersGenerator
from stonk_trainer.models.loading import load_tokenizer
from stonk_trainer.tasks.stocks.answer import parse

pytestmark = pytest.mark.slow
WARMUP = (
    "--task one_answer:OneAnswer --max_steps 40 --learning_rate 1e-2 --lr_scheduler_type linear --warmup_steps 4 "
    "--per_device_train_batch_size 2 --use_peft false --dtype float32 --bf16 false --eval_strategy no "
    "--save_strategy no --report_to none --gradient_checkpointing false"
).split()


def new_model(folder, tokenizer, kind="qwen2"):
    """A random two-layer model for a tokenizer. kind: Transformers' type of it, which chooses the tokenizer's class."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1, "vocab_size": len(tokenizer)}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads)).save_pretrained(folder)


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

    if not folder_of(name).is_dir():
        pytest.skip("not fetched: python tests/helpers/real_tokenizers.py")
    tokenizer = AutoTokenizer.from_pretrained(folder_of(name))
    tokenizer.save_pretrained(tmp_path / "model")
    new_model(tmp_path / "model", tokenizer, "llama" if name.startswith("llama") else "qwen2")
    judge(*warmed_up(stonk, tmp_path / "model", tmp_path / "run"))


@pytest.mark.parametrize("command", ["check", "grpo", "sft"])
def test_prompts_that_a_template_cuts_are_refused(refused, tiny_model_folder, tiny_tokenizer, tmp_path, command):
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    write_style(tiny_tokenizer, "plain", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(STYLES["plain"].replace("m.content", "m.content[:200]"))
    flags = ["--model", tmp_path / "model", "--out", tmp_path / "run", "--max_train_samples", "8"]
    recipe = "stocks/demo/warmup" if command == "sft" else "stocks/demo/stage1"
    said = refused(command, "--config", recipe, *flags)
    assert "leaves out the user message of a prompt, or a part" in said
    assert ("train rows)" if command == "check" else "training rows)") in said
    assert not (tmp_path / "run").exists()


def test_in_rl_a_template_without_an_end_is_a_warning(stonk, tiny_model_folder, tiny_tokenizer, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    write_style(tiny_tokenizer, "ends no turn", tmp_path / "model")
    text = stonk("check", "stocks/demo/stage1", "--model", tmp_path / "model", "--max_train_samples", "8")
    assert "warning: the chat template ends an answer with no stop token" in text and "no errors found" in text


def test_in_rl_a_thought_that_the_prompt_opened_is_judged_as_opened(stonk, tmp_path):
    """The model goes on where the prompt stopped; a thought that never ends is no answer."""
    ends, never = "up it goes\n</think>\nPrediction: UP\nConfidence: 60%", "up it goes\nPrediction: UP\nConfidence: 60%"
    tokenizer = speaking_tokenizer([ends, never])
    write_speaking_model(tmp_path / "model", tokenizer, [ends, never])
    write_style(tokenizer, "strips the thought", tmp_path / "model")
    flags = ["--model", tmp_path / "model", "--out", tmp_path / "run", "--max_steps", "2", "--max_eval_samples", "4"]
    flags += ["--max_train_samples", "8", "--max_completion_length", "6", "--dtype", "float32"]
    stonk("grpo", "--config", "stocks/demo/stage1", *flags)
    lines = list(map(json.loads, (tmp_path / "run/training_log.jsonl").read_text().splitlines()))
    answers = {line["completion"]: line["direction"] for line in lines}
    assert answers == {f"<think>\n{ends}": "UP", f"<think>\n{never}": None}
