"""Packed rows: what is in them, and that each has the states it would have alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from stonk_trainer.training import packed

PROMPT = [5, 6, 7, 8]
ANSWERS = ([10, 11, 12], [10, 11, 13, 14], [20])


def padded(rows, completion):
    """(ids, mask): prompts padded on the left by two, answers on the right."""
    ids, mask = [], []
    for prompt, answer in rows:
        missing = completion - len(answer)
        ids.append([0, 0, *prompt, *answer, *[0] * missing])
        mask.append([0, 0, *[1] * (len(prompt) + len(answer)), *[0] * missing])
    return torch.tensor(ids), torch.tensor(mask)


def test_each_distinct_token_is_there_once_and_none_is_padding():
    (layout,) = packed.lay_out(*padded([(PROMPT, answer) for answer in ANSWERS], 4), 4)
    tree = layout.inputs["tree"]
    assert layout.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 10, 11, 12, 13, 14, 20]]
    assert layout.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 6, 7, 4]]
    assert tree.shapes == [(1, 7, 7), (1, 2, 8), (1, 1, 5)]
    assert tree.seen.tolist() == [*range(7), *range(6), 7, 8, *range(4), 9]
    assert len(layout.row_N) == sum(map(len, ANSWERS)) and layout.labels_1M.shape[1] == len(layout.row_N) - 2


def test_answers_of_one_length_attend_together():
    answers = [[10, 11], [20, 21], [30, 31], [40, 41]]
    rows = [(PROMPT, answer) for answer in answers] + [([9, 9, 9, 9], answer) for answer in answers]
    (layout,) = packed.lay_out(*padded(rows, 2), 2)
    assert layout.inputs["tree"].shapes == [(2, 6, 6), (6, 2, 6)]


def test_a_layout_has_at_most_so_many_tokens_and_no_row_is_split():
    rows = padded([(PROMPT, answer) for answer in ANSWERS], 4)
    sizes = {most: [layout.inputs["input_ids"].numel() for layout in packed.lay_out(*rows, 4, most)]
             for most in (12, 10, 9, 8, 1)}  # fmt: skip
    assert sizes == {12: [10], 10: [10], 9: [9, 5], 8: [7, 8, 5], 1: [7, 8, 5]}
    layouts = packed.lay_out(*rows, 4, 8)
    placed = [tuple(pair) for one in layouts for pair in torch.stack([one.row_N, one.column_N], 1).tolist()]
    assert placed == [(row, column) for row, answer in enumerate(ANSWERS) for column in range(len(answer))]


ALIKE = [[[9], [9, 9]], [[9, 8, 7], [9, 8, 7]], [[], [4]], [[9, 9], [9]], [[1, 2], [3, 4], [5, 6], [1, 7]], [[], []]]


@pytest.mark.parametrize("completion", ALIKE, ids=str)
def test_a_packed_row_has_the_states_of_its_rows(tiny_model_folder, completion):
    """Answers that begin alike, that are the same, and one that is empty."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
    rows = [(PROMPT, answer) for answer in completion] + [([5, 6, 3, 3], [9, 1])]
    ids, mask = padded(rows, 3)
    with torch.no_grad():
        plain = [model(torch.tensor([p + a])).logits[0, len(p) - 1 : -1].log_softmax(-1) for p, a in rows]
        packed.accept_packed(model)
        (layout,) = packed.lay_out(ids, mask, 3)
        states = model.base_model(**layout.inputs, use_cache=False).last_hidden_state
        found = model.lm_head(states)[0].log_softmax(-1)[layout.place_N]
        again = model(torch.tensor([PROMPT])).logits  # and without a tree nothing has changed
    expected = torch.cat([logits for (_, answer), logits in zip(rows, plain, strict=True) if answer])
    assert (found - expected).abs().max() < 1e-5 and layout.inputs["tree"].used
    assert again.shape[1] == len(PROMPT)


def test_what_cannot_be_packed_says_why(tiny_model_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="eager")
    assert packed.unsupported_reason(model) == "attn_implementation is eager"
    model.set_attn_implementation("sdpa")
    assert packed.unsupported_reason(model) is None
    model._supports_attention_backend = False
    assert "cannot be replaced" in packed.unsupported_reason(model)
