"""Chat templates in the styles that people meet; imitations."""

import copy

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASSISTANT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
OF_ASSISTANT = (
    "{%% for m in messages %%}<|im_start|>{{ m.role }}\n{%% if m.role == 'assistant' %%}%s"
    "{%% else %%}{{ m.content }}{%% endif %%}<|im_end|>\n{%% endfor %%}"
)
STYLES = {
    "plain": TURNS + ASSISTANT,
    "strips the thought": OF_ASSISTANT % "{{ m.content.split('</think>')[-1] }}" + OPENED,
    "wraps the thought again": OF_ASSISTANT
    % "<think>\n{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}\n</think>\n\n"
    "{{ m.content.split('</think>')[-1].strip() }}" + OPENED,
    "thinks when it is switched on": TURNS
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    + "{% if enable_thinking is not defined or not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "has no system role": "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + TURNS
    + ASSISTANT,
    "ends no turn": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "ends a turn with another token": TURNS + ASSISTANT,
    "pads with the end": TURNS + ASSISTANT,
    "has a system text of its own": "<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + ASSISTANT,
}
REFUSED = {"strips the thought": "drops the thought of an answer", "ends no turn": "ends an answer with nothing"}


def write_style(tokenizer, style, folder):
    """Save a tokenizer with a template of that style."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = STYLES[style]
    if style == "ends a turn with another token":
        tokenizer.eos_token = "<|endoftext|>"
    if style == "pads with the end":
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
