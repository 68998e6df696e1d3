"""What a chat template makes of messages, judged on what is rendered and not on the template.

A template may drop the thought of an answer, open the thought in the prompt, have no place for a system message, or end
a turn with a token other than the tokenizer's end. What can be made right is made right once, where the tokenizer is
loaded (`settle`); what cannot is one line before anything is trained (`check_rows`).

Texts are compared without whitespace, which templates strip and add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.terminal import log

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
_PROBE = [{"role": "system", "content": "A forecaster."}, {"role": "user", "content": "Up or down?"}]
_OTHER = "give one with --chat_template_path FILE"
_ANSWER, _LAST = f"{OPEN}\nIt rose.\n{CLOSE}\nIt falls", "falls"
# What is put before a template whose prompt is not what was meant, and why. The first that helps is taken.
_FOLD_SYSTEM = (
    "{%- if messages|length > 1 and messages[0]['role'] == 'system' -%}{%- set messages = [{'role': messages[1]['role']"
    ", 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] -%}{%- endif -%}"
)
_REMEDIES = {
    "": "",
    _FOLD_SYSTEM: "it has no place for a system message, which is put before the first question",
    "{%- set enable_thinking = true -%}": "thinking is switched on (enable_thinking)",
    "{%- set thinking = true -%}": "thinking is switched on (thinking)",
}


def settle(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer's template and end token ones that can be trained with, where that is possible.

    A template that leaves out system messages, or whose prompt ends the thought before it begins, gets a first line
    that mends it. The token that ends an answer becomes the tokenizer's `eos_token`. A log line says what was changed.
    """
    plain = tokenizer.chat_template
    if not isinstance(plain, str):
        return
    for remedy, what in _REMEDIES.items():
        tokenizer.chat_template = remedy + plain
        if template_problem(tokenizer) is None:
            if what:
                log.info("chat template: %s", what)
            break
    else:
        tokenizer.chat_template = plain
        return
    answered = [*_PROBE, {"role": "assistant", "content": _ANSWER}]
    end = tokenizer.apply_chat_template(answered, tokenize=False).rpartition(_LAST)[2]
    tokens = _end_tokens(_bare(end), tokenizer)
    if tokens and tokenizer.eos_token not in tokens:
        log.info("chat template: it ends an answer with %s, where generation will stop", tokens[0])
        tokenizer.eos_token = tokens[0]


def template_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why the template cannot be used at all; None if it renders a system message and a question."""
    try:
        return _prompt_problem(_PROBE, prompts([_PROBE], tokenizer)[0])
    except Exception as error:  # whatever a template can do wrong
        return f"cannot be used: {error}"


def stop_tokens(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> int | list[int] | None:
    """The `eos_token_id` of a model's generation config, with the tokenizer's end."""
    known = config.eos_token_id
    found = [*known] if isinstance(known, list) else [] if known is None else [known]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in found:
        found.append(tokenizer.eos_token_id)
    return found if len(found) > 1 else found[0] if found else None


# ------------------------------------------------------------------------------------------------- opened thoughts


def prompts(messages: Sequence[Any], tokenizer: PreTrainedTokenizerBase, **options: Any) -> list[str]:
    """Prompts as the model reads them; texts stay as they are. options: of `apply_chat_template`."""
    if isinstance(messages[0], str):
        return list(messages)
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **options)


def whole_answer(prompt: str, text: str) -> str:
    """An answer with the opening tag that its prompt, as rendered, holds."""
    is_open = prompt.rstrip().endswith(OPEN) and not text.lstrip().startswith(OPEN)
    return f"{OPEN}\n{text}" if is_open else text


# ------------------------------------------------------------------------------------------------- rows


def check_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """Raise UserError unless every row is rendered as it was meant. what: the rows' name in the message.

    The messages of a prompt stand whole in it, and it does not end the thought. With a completion: its text, less an
    opening tag that the prompt holds, stands whole in the row; what is learnt begins with it and ends with a token at
    which generation stops. Rows of tokens and of text have no template.
    """
    if "input_ids" in rows.column_names or isinstance(rows[0]["prompt"], str):
        return
    found = []
    for batch, before, wholes in _batches(rows, tokenizer):
        for number, (messages, prompt) in enumerate(zip(batch["prompt"], before, strict=True)):
            problem = _prompt_problem(messages, prompt)
            if wholes and not problem:
                problem = _answer_problem(prompt, wholes[number], batch["completion"][number][-1]["content"], tokenizer)
            found += [problem] * bool(problem)
    if found:
        raise UserError(f"the model's chat template {found[0]} ({len(found)} of {len(rows)} {what} rows)")


def token_lengths(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """(tokens of each row's prompt, tokens of each row). Rows of tokens have no prompt; RL rows have no more."""
    import numpy as np

    if "input_ids" in rows.column_names:
        lengths = np.array([len(ids) for ids in rows["input_ids"]])
        return np.zeros_like(lengths), lengths
    is_text = isinstance(rows[0]["prompt"], str)  # which the tokenizer begins with its special tokens
    known: list[int] = []
    whole: list[int] = []
    for _, before, wholes in _batches(rows, tokenizer):
        known += map(len, tokenizer(before, add_special_tokens=is_text)["input_ids"])
        whole += map(len, tokenizer(wholes or before, add_special_tokens=is_text)["input_ids"])
    return np.array(known), np.array(whole)


def _batches(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[dict, list[str], list[str]]]:
    """(rows as columns, their prompts as rendered, the rows with their completions; none in RL)."""
    for batch in rows.iter(1000):
        wholes = [
            tokenizer.apply_chat_template(prompt + completion, tokenize=False)
            for prompt, completion in zip(batch["prompt"], batch.get("completion", []), strict=False)
        ]
        yield batch, prompts(batch["prompt"], tokenizer), wholes


def _prompt_problem(messages: Sequence[dict], rendered: str) -> str | None:
    """What is wrong with a prompt as rendered, as the predicate of a sentence about the template."""
    prompt = _bare(rendered)
    for message in messages:
        if _bare(message["content"]) not in prompt:
            return f"leaves out the {message['role']} message of a prompt, or a part of it"
    if prompt.endswith(CLOSE):
        return "ends the thought in the prompt, before the model can think: take the one of a thinking model"
    return None


def _answer_problem(before: str, whole: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The same of an answer. before: the prompt as rendered. whole: the row."""
    prompt, row, told = map(_bare, (before, whole, answer))
    opened = prompt.endswith(OPEN)
    told = told.removeprefix(OPEN) if opened else told
    if told not in row:
        dropped = CLOSE in told and told.rpartition(CLOSE)[2] in row
        return f"{'drops the thought' if dropped else 'changes the text'} of an answer: {_OTHER} that keeps it"
    if not row.startswith(prompt):
        return (
            f"ends a prompt with {before.rstrip()[-20:]!r}, which is not there before an answer: {_OTHER} that keeps it"
        )
    learnt = row[len(prompt) :]
    if CLOSE not in told:  # an empty thought may be put before an answer without one
        learnt = learnt.removeprefix(CLOSE if opened else OPEN + CLOSE)
    if not learnt.startswith(told):
        return f"puts {learnt[: learnt.find(told)]!r} between a prompt and its answer: {_OTHER} that does not"
    end = learnt[len(told) :]
    if tokenizer.eos_token not in _end_tokens(end, tokenizer):
        said = f"{end[:40]!r}, which is not a stop token" if end else "nothing"
        return (
            f"ends an answer with {said}, so the model would not learn to stop: end assistant turns with a stop token"
        )
    return None


def _end_tokens(end: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens that a template puts after an answer; none if it puts other text there."""
    tokens = tokenizer.tokenize(end)
    return tokens if set(tokens) <= set(tokenizer.get_added_vocab()) else []


def _bare(text: str) -> str:
    return "".join(text.split())
