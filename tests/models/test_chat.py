"""Chat templates, judged on what they render: eight styles people meet, and what becomes of each."""

import copy
import shutil

import pytest
from chat_styles import ASSISTANT, OF_ASSISTANT, OPENED, REFUSED, STYLES, TURNS, write_style
from datasets import Dataset
from real_tokenizers import NAMES, folder_of

from stonk_trainer.errors import UserError
from stonk_trainer.models import chat
from stonk_trainer.models.generation import Sampling, TransformersGenerator
from stonk_trainer.models.loading import load_tokenizer, save_model

PROMPT = [{"role": "system", "content": "You forecast."}, {"role": "user", "content": "Close: $4. Will it rise?"}]
ANSWER = "<think>\nIt was a weak week.\n</think>\nPrediction: DOWN"


@pytest.fixture
def model_of_style(tiny_model_folder, tiny_tokenizer, tmp_path):
    """A function that gives the tiny model a template of a style, in a folder of its own."""

    def make(style):
        folder = shutil.copytree(tiny_model_folder, tmp_path / style.replace(" ", "_"))
        write_style(tiny_tokenizer, style, folder)
        return folder

    return make


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """The tiny model's, to change."""
    return copy.deepcopy(tiny_tokenizer)


def rows_of(answer=None, prompt=PROMPT):
    answered = {"completion": [{"role": "assistant", "content": answer}]} if answer is not None else {}
    return Dataset.from_list([{"prompt": prompt, **answered}] * 2)


def why_refused(rows, tokenizer):
    with pytest.raises(UserError) as error:
        chat.rendered_whole(rows, tokenizer, "training")
    return str(error.value)


@pytest.mark.parametrize("style", STYLES)
def test_a_row_is_rendered_whole_or_refused_with_the_reason(model_of_style, style):
    tokenizer = load_tokenizer(str(model_of_style(style)))
    if style in REFUSED:
        assert REFUSED[style] in why_refused(rows_of(ANSWER), tokenizer)
        assert "(2 of 2 training rows)" in why_refused(rows_of(ANSWER), tokenizer)
    else:
        chat.rendered_whole(rows_of(ANSWER), tokenizer, "training")
        whole = tokenizer.apply_chat_template(PROMPT + rows_of(ANSWER)[0]["completion"], tokenize=False)
        assert all(text in whole for text in ("You forecast.", "It was a weak week.", "Prediction: DOWN"))
    chat.rendered_whole(rows_of(), tokenizer, "training")  # a prompt is all that RL renders


@pytest.mark.parametrize("name", NAMES)
def test_a_real_template_renders_a_row_whole(name):
    if not folder_of(name).is_dir():
        pytest.skip("not fetched: python tests/helpers/real_tokenizers.py")
    for rows in (rows_of(ANSWER), rows_of("It falls."), rows_of()):
        chat.rendered_whole(rows, load_tokenizer(str(folder_of(name))), "training")


def test_what_was_settled_is_saved_with_the_tokenizer(model_of_style, tmp_path):
    from transformers import AutoTokenizer

    for style in ("has no system role", "thinks when it is switched on", "ends a turn with another token"):
        load_tokenizer(str(model_of_style(style))).save_pretrained(tmp_path / "saved")
        plain = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert plain.eos_token == "<|im_end|>"
        rendered = plain.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
        assert "You forecast." in rendered and "</think>" not in rendered


def test_a_template_of_a_file_takes_the_place_of_the_models(model_of_style, tmp_path):
    (tmp_path / "keeps.jinja").write_text(STYLES["wraps the thought again"])
    folder = str(model_of_style("strips the thought"))
    chat.rendered_whole(rows_of(ANSWER), load_tokenizer(folder, template=str(tmp_path / "keeps.jinja")), "training")
    with pytest.raises(UserError, match="none.jinja"):
        load_tokenizer(folder, template=str(tmp_path / "none.jinja"))


@pytest.mark.parametrize(
    ("template", "answer", "reason"),
    {
        "text before": (TURNS.replace("\n{{ m.c", "\n{% if m.role == 'assistant' %}final: {% endif %}{{ m.c")
                        + ASSISTANT, ANSWER, "puts 'final:' between a prompt and its answer"),
        "an empty thought before": (OF_ASSISTANT % "<think>\n\n</think>\n\n{{ m.content }}" + ASSISTANT, ANSWER,
                                    "puts '<think>\\n\\n</think>' between a prompt and its answer"),
        "changed": (OF_ASSISTANT % "{{ m.content | upper }}" + ASSISTANT, ANSWER, "changes the text of an answer"),
        "another prompt": (OF_ASSISTANT % "{{ m.content }}" + OPENED, "It falls.",
                           "leaves '<think>' of a prompt out when an answer follows"),
        "text as an end": (TURNS.replace("<|im_end|>", "[END]") + ASSISTANT, ANSWER,
                           "ends an answer with '[END]', which is not a stop token"),
        "half an end": (TURNS.replace("<|im_end|>", "<|im_end|>!") + ASSISTANT, ANSWER, "which is not a stop token"),
    }.values(),
)  # fmt: skip
def test_other_ways_to_render_something_else_than_was_meant_are_named(tokenizer, template, answer, reason):
    tokenizer.chat_template = template
    assert reason in why_refused(rows_of(answer), tokenizer)


def test_an_answer_without_a_thought_may_get_an_empty_one(tokenizer):
    for template in (OF_ASSISTANT % "<think>\n\n</think>\n\n{{ m.content }}" + ASSISTANT,
                     OF_ASSISTANT % "<think>\n\n</think>\n\n{{ m.content }}" + OPENED):  # fmt: skip
        tokenizer.chat_template = template
        chat.rendered_whole(rows_of("It falls."), tokenizer, "training")


def test_a_prompt_that_loses_a_message_or_ends_the_thought_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages[-1].content[:8] }}" + ASSISTANT
    assert "leaves out the system and the user message" in why_refused(rows_of(), tokenizer)
    assert "leaves out the user message" in why_refused(rows_of(prompt=PROMPT[1:]), tokenizer)
    tokenizer.chat_template = TURNS + ASSISTANT + "{% if add_generation_prompt %}<think>\n\n</think>\n{% endif %}"
    assert "ends the thought in the prompt" in why_refused(rows_of(), tokenizer)
    assert "ends the thought in the prompt" in why_refused(rows_of(ANSWER), tokenizer)


def test_a_row_that_is_at_fault_itself_is_left_out_and_counted(tokenizer, caplog):
    def kept(*answers, prompt=PROMPT):
        rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": text}]} for text in answers]
        return [row["completion"][0]["content"] for row in chat.rendered_whole(Dataset.from_list(rows), tokenizer, "x")]

    caplog.set_level("WARNING", logger="stonk_trainer")
    assert kept(ANSWER, "It falls.<|im_end|>No.", "It falls.") == [ANSWER, "It falls."]
    assert "left out: 1 of 3 x rows: an answer is empty, or has the end token <|im_end|> in its text" in caplog.text
    assert kept(ANSWER, "<think>\nHm.", "It falls.") == [ANSWER, "It falls."]
    assert "1 of 3 x rows: an answer does not end its thought" in caplog.text
    tokenizer.chat_template = OF_ASSISTANT % "<think>\n{{ m.content.replace('<think>\n', '') }}" + OPENED
    assert "that which the prompt opened" in why_refused(rows_of("It falls."), tokenizer)  # learnt inside the thought
    assert kept(ANSWER, ANSWER) == [ANSWER, ANSWER]


def test_thoughts_that_are_all_lost_are_the_templates_fault(tokenizer):
    """Rows without a thought do not save a run whose thoughts are gone."""
    tokenizer.chat_template = OF_ASSISTANT % "{{ m.content.split('</think>')[-1] }}" + ASSISTANT
    rows = [{"prompt": PROMPT, "completion": [{"role": "assistant", "content": t}]} for t in (ANSWER, "Up.", "Down.")]
    assert "drops the thought of an answer" in why_refused(Dataset.from_list(rows), tokenizer)
    chat.rendered_whole(Dataset.from_list(rows[1:]), tokenizer, "training")
    tokenizer.chat_template = OF_ASSISTANT % "{{ m.content.replace('think>', 'thought>') }}" + ASSISTANT
    assert "changes the tags of the thought" in why_refused(rows_of(ANSWER), tokenizer)


def test_a_template_that_cannot_render_a_row_says_so(tokenizer):
    tokenizer.chat_template = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no answers') }}{% endif %}"
    tokenizer.chat_template += TURNS + ASSISTANT
    chat.settle(tokenizer)
    chat.rendered_whole(rows_of(), tokenizer, "training")  # RL renders none
    assert "cannot render it: no answers" in why_refused(rows_of(ANSWER), tokenizer)
    parts = [{"role": "user", "content": None}]
    assert "the content of a message is not text" in why_refused(rows_of(prompt=parts), tokenizer)


def test_remedies_are_combined_and_judged_on_the_row_too(tokenizer):
    no_system, switched = (STYLES[name] for name in ("has no system role", "thinks when it is switched on"))
    both = no_system.split(TURNS)[0] + switched
    last_only = (  # as Mistral's: the system message stands before the last message, if that is the user's
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last and m.role == 'user' and messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
        "{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + ASSISTANT
    )
    for template in (both, last_only, {"default": no_system, "tools": "{{ tools }}"}):
        tokenizer.chat_template = template
        chat.settle(tokenizer)
        chat.rendered_whole(rows_of(ANSWER), tokenizer, "training")


def test_the_end_of_a_turn_is_its_last_token_unless_the_tokenizers_is_there(tokenizer):
    for end, expected in {
        "<|im_end|><|endoftext|>": "<|im_end|>",
        "<|im_start|><|endoftext|>": "<|endoftext|>",
    }.items():
        tokenizer.chat_template, tokenizer.eos_token = TURNS.replace("<|im_end|>", end) + ASSISTANT, "<|im_end|>"
        chat.settle(tokenizer)
        assert tokenizer.eos_token == expected


def test_a_short_message_is_not_found_inside_a_long_one(tokenizer):
    turns = [{"role": "user", "content": "Why"}, {"role": "assistant", "content": "So."}]
    turns.append({"role": "user", "content": "Why not?"})
    tokenizer.chat_template = TURNS.replace("messages %}", "messages[1:] %}") + ASSISTANT
    assert "leaves out the user message" in why_refused(rows_of(prompt=turns), tokenizer)


def test_a_models_answer_has_the_tag_that_its_prompt_opened(model_of_style):
    folder = str(model_of_style("strips the thought"))
    generator = TransformersGenerator(folder, load_tokenizer(folder), {"dtype": "float32"})
    seen = []
    (one,) = generator.answers([PROMPT], Sampling(2))
    (two,) = generator.samples([PROMPT], 1, Sampling(2), seeds=[0], on_token=seen.extend)
    for text in (one.text, two[0].text, *seen):
        assert text.startswith("<think>\n") and text.count("<think>") == 1
    assert chat.whole_answer("assistant\n<think>\n", "It rose.\n</think>\nUP") == "<think>\nIt rose.\n</think>\nUP"
    assert chat.whole_answer("assistant\n", "It rose.") == "It rose."


def test_generation_stops_at_the_end_that_the_template_writes(model_of_style):
    from transformers import GenerationConfig

    folder = model_of_style("ends a turn with another token")
    tokenizer = load_tokenizer(str(folder))
    end, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    GenerationConfig(eos_token_id=other).save_pretrained(folder)
    generator = TransformersGenerator(str(folder), tokenizer, {"dtype": "float32"})
    assert generator.answers([PROMPT], Sampling(8))[0].ended
    assert chat.stop_tokens(GenerationConfig(eos_token_id=other), tokenizer) == [other, end]
    assert chat.stop_tokens(GenerationConfig(eos_token_id=[end]), tokenizer) == end
    assert chat.stop_tokens(GenerationConfig(), tokenizer) == end


def test_a_saved_model_stops_at_the_tokenizers_end_too(model_of_style, tmp_path):
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = model_of_style("ends a turn with another token")
    tokenizer = load_tokenizer(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    save_model(model, tokenizer, tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").eos_token_id == [other, tokenizer.eos_token_id]
