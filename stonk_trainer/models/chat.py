"""What a chat template makes of messages, judged on what is rendered and not on the template.

A template may drop the thought of an answer, open the thought in the prompt, have no place for a system message, or end
a turn with a token other than the tokenizer's end. What can be made right is made right once, where the tokenizer is
loaded (`settle`); what cannot is said before anything is trained (`rendered_whole`).

Texts are compared without whitespace, which templates strip and add.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError, first_line
from stonk_trainer.terminal import log

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
_IT, _OTHER = "the model's chat template", "give one with --chat_template_path FILE"
_PROBE = [{"role": "system", "content": "A forecaster."}, {"role": "user", "content": "Up or down?"}]
_ANSWER, _LAST = f"{OPEN}\nIt rose.\n{CLOSE}\nIt falls", "falls"
# What is put before a template that does not render what was meant, and what it does.
_FOLD_SYSTEM = (
    "{%- if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] -%}{%- endif -%}"
)
_FOLDS = {"": "", _FOLD_SYSTEM: "it has no place for a system message, which is put before the first question"}
_SWITCHES = {"": ""} | {
    f"{{%- set {name} = true -%}}": f"thinking is switched on ({name})" for name in ("enable_thinking", "thinking")
}


class TemplateFault(Exception):
    """A template that raises an error for a conversation."""


def settle(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer's template and end token ones that can be trained with, where that is possible.

    A template that leaves out system messages, or whose prompt ends the thought before it begins, gets a first line
    that mends it. The token that ends an answer becomes the tokenizer's `eos_token`. A log line says what was changed.
    """
    plain = tokenizer.chat_template
    if isinstance(plain, dict):  # several, by name
        plain = plain.get("default")
    if not plain:
        return
    best: tuple[str, list[str]] | None = None
    for (fold, one), (switch, two) in itertools.product(_FOLDS.items(), _SWITCHES.items()):
        tokenizer.chat_template = fold + switch + plain
        if template_problem(tokenizer) is None:
            settled = tokenizer.chat_template, [what for what in (one, two) if what]
            best = best or settled
            if _probe_problem(tokenizer) is None:
                best = settled
                break
    tokenizer.chat_template, changes = best or (plain, [])
    for what in changes:
        log.info("chat template: %s", what)
    try:
        end = _rendered(tokenizer, _PROBE, _ANSWER).rpartition(_LAST)[2]
    except TemplateFault:  # a template that renders prompts only is enough for RL
        return
    tokens = _end_tokens(_bare(end), tokenizer)
    if tokens and tokenizer.eos_token not in tokens:
        log.info("chat template: it ends an answer with %s, where generation will stop", tokens[-1])
        tokenizer.eos_token = tokens[-1]


def template_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why the template cannot be used at all; None if it renders a system message and a question."""
    return _problem(tokenizer, _PROBE)


def _probe_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The same of an answer, how it ends left aside."""
    found = _problem(tokenizer, _PROBE, _ANSWER)
    return None if found and "teaches the model to stop" in found else found


def ends_answers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template ends an answer with a token at which generation stops."""
    return "teaches the model to stop" not in (_problem(tokenizer, _PROBE, _ANSWER) or "")


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


def rendered_whole(rows: Dataset, tokenizer: PreTrainedTokenizerBase, what: str) -> Dataset:
    """The rows that the template renders as they were meant; others are left out, with counts in the log.

    The messages of a prompt stand whole in it, and it does not end the thought. With a completion: its text, less an
    opening tag that the prompt holds, stands whole in the row; what is learnt begins with it and ends with a token at
    which generation stops. Rows of tokens and of text have no template. what: the rows' name in messages. Raises
    UserError where no row is right, or none of those with a thought, or none of those without: it is the template's
    fault.
    """
    if "input_ids" in rows.column_names or not len(rows) or isinstance(rows[0]["prompt"], str):
        return rows
    problems, kinds = [], []
    for row in rows:
        answer = row["completion"][-1]["content"] if "completion" in row else None
        several = answer is not None and len(row["completion"]) > 1
        problem = "a completion has several messages" if several else _problem(tokenizer, row["prompt"], answer)
        problems.append(problem)
        kinds.append(CLOSE in (answer or ""))
    for kind in set(kinds):
        of_kind = [problem for problem, other in zip(problems, kinds, strict=True) if other == kind]
        if all(of_kind):
            problem, count = Counter(of_kind).most_common(1)[0]
            raise UserError(f"{problem} ({count} of {len(rows)} {what} rows)")
    for problem, count in Counter(filter(None, problems)).most_common():
        log.warning("left out: %d of %d %s rows: %s", count, len(rows), what, problem)
    kept = [number for number, problem in enumerate(problems) if not problem]
    return rows if len(kept) == len(rows) else rows.select(kept)


def token_lengths(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """(tokens of each row's prompt, tokens of each row). Rows of tokens have no prompt; RL rows have no more."""
    import numpy as np

    if "input_ids" in rows.column_names:
        lengths = np.array([len(ids) for ids in rows["input_ids"]])
        return np.zeros_like(lengths), lengths
    is_text = isinstance(rows[0]["prompt"], str)  # which the tokenizer begins with its special tokens
    known: list[int] = []
    whole: list[int] = []
    for batch in rows.iter(1000):
        before = prompts(batch["prompt"], tokenizer)
        wholes = [
            tokenizer.apply_chat_template(prompt + completion, tokenize=False)
            for prompt, completion in zip(batch["prompt"], batch.get("completion", []), strict=False)
        ]
        known += map(len, tokenizer(before, add_special_tokens=is_text)["input_ids"])
        whole += map(len, tokenizer(wholes or before, add_special_tokens=is_text)["input_ids"])
    return np.array(known), np.array(whole)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict], answer: str | None = None) -> str:
    """A prompt, or a row with its answer, as rendered. Raises TemplateFault."""
    try:
        if answer is None:
            return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        answered = [*messages, {"role": "assistant", "content": answer}]
        return tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # whatever a template can do wrong
        raise TemplateFault(first_line(error)) from error


def _problem(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict], answer: str | None = None) -> str | None:
    """What is wrong with a row as rendered."""
    texts = [message["content"] for message in messages] + [answer] * (answer is not None)
    if not all(isinstance(text, str) for text in texts):
        return "the content of a message is not text"
    try:
        before = _rendered(tokenizer, messages)
        whole = "" if answer is None else _rendered(tokenizer, messages, answer)
    except TemplateFault as fault:
        return f"{_IT} cannot render it: {fault}"
    problem = _prompt_problem(messages, before)
    return problem if problem or answer is None else _answer_problem(before, whole, answer, tokenizer)


def _prompt_problem(messages: Sequence[dict], before: str) -> str | None:
    left = prompt = _bare(before)
    lost = []
    for message in sorted(messages, key=lambda message: -len(message["content"])):  # a short one may be in a long one
        text = _bare(message["content"])
        lost += [message["role"]] * (text not in left)
        left = left.replace(text, "\n", 1)
    if lost:
        return f"{_IT} leaves out the {' and the '.join(sorted(set(lost)))} message of a prompt, or a part of it"
    if prompt.endswith(CLOSE):
        return f"{_IT} ends the thought in the prompt, before the model can think: take that of a thinking model"
    return None


def _answer_problem(before: str, whole: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    prompt, row, told = map(_bare, (before, whole, answer))
    opened = prompt.endswith(OPEN)
    told = told.removeprefix(OPEN) if opened else told
    if not told or tokenizer.eos_token and tokenizer.eos_token in answer:
        return f"an answer is empty, or has the end token {tokenizer.eos_token} in its text"
    if told not in row or any(part.strip() not in whole for part in re.split(f"{OPEN}|{CLOSE}", answer)):
        return f"{_IT} {_what_is_lost(row, told)} of an answer: {_OTHER} that keeps it"
    if not row.startswith(prompt):
        at = len(os.path.commonprefix([row, prompt]))
        return f"{_IT} leaves {_from(before, at)!r} of a prompt out when an answer follows: {_OTHER} that keeps it"
    learnt = row[len(prompt) :]
    if CLOSE not in told:
        empty = CLOSE if opened else OPEN + CLOSE  # may be put before an answer without a thought
        if opened and not learnt.startswith(CLOSE) or OPEN in told:
            return "an answer does not end its thought, or that which the prompt opened"
        learnt = learnt.removeprefix(empty)
    if not learnt.startswith(told):
        found = learnt.find(told)
        between = _from(whole, len(row) - len(learnt), found)
        return f"{_IT} puts {between!r} between a prompt and its answer: {_OTHER} that does not"
    end = learnt[len(told) :]
    if tokenizer.eos_token not in _end_tokens(end, tokenizer):
        said = f"{_from(whole, len(row) - len(end), 40)!r}, which is not a stop token" if end else "nothing"
        return f"{_IT} ends an answer with {said}, so nothing teaches the model to stop: {_OTHER} that ends turns"
    return None


def _what_is_lost(row: str, told: str) -> str:
    thought, close, rest = told.rpartition(CLOSE)
    if not close or rest not in row:
        return "changes the text"
    return "changes the tags of the thought" if thought.removeprefix(OPEN) in row else "drops the thought"


def _end_tokens(end: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens that a template puts after an answer; none if it puts other text there."""
    tokens = tokenizer.tokenize(end)
    return tokens if set(tokens) <= set(tokenizer.get_added_vocab()) else []


def _bare(text: str) -> str:
    return "".join(text.split())


def _from(text: str, start: int, length: int = 30) -> str:
    """`length` characters of the text from its character number `start` on, spaces not counted."""
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    part = places[start : start + length]
    return text[part[0] : part[-1] + 1] if part else ""
