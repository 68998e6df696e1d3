"""Drafted answers: the same tokens as without drafts, in fewer passes."""

import re
from functools import partial

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stonk_trainer.errors import UserError
from stonk_trainer.models import drafting
from stonk_trainer.models.decoding import decode
from stonk_trainer.models.drafting import MOST, Drafter

WAYS = [
    {"do_sample": False},
    {"temperature": 1.0},
    {"temperature": 0.6, "top_k": 8},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.0, "suppress_tokens": [7, 8, 9]},
]
ROWS, TOKENS, END = 24, 40, 3


def causal_model(**keys):
    config = Qwen2Config(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=END, pad_token_id=0, **keys,
    )  # fmt: skip
    torch.manual_seed(3)
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
        model.lm_head.weight[END] *= 0.3
    return model


@pytest.fixture(scope="module")
def model():
    """A random model whose answers have many lengths."""
    return causal_model()


def answered(model, drafter=None, seed=0, **way):
    """Answers to four prompts of several lengths, padded on the left, six of each."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(4, 40, (4, 12), generator=generator).repeat_interleave(ROWS // 4, 0)
    mask = (torch.arange(12) >= torch.tensor([0, 3, 7, 1])[:, None]).long().repeat_interleave(ROWS // 4, 0)
    draws = torch.rand(ROWS, TOKENS, dtype=torch.float64, generator=generator)
    way = {"do_sample": True, "top_k": 0} | way
    return model.generate(
        input_ids=prompts * mask, attention_mask=mask, max_new_tokens=TOKENS, pad_token_id=0,
        custom_generate=partial(decode, draws_BC=draws, drafter=drafter), **way,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_answers_are_the_same_token_for_token(model, way):
    plain = [answered(model, seed=seed, **way) for seed in range(3)]
    assert len({int((ids == 0).sum()) for ids in plain}) > 1  # answers of many lengths
    for tokens in (1, 3, MOST, None):
        drafter = Drafter(tokens, lasting=True)
        for seed, expected in enumerate(plain):
            assert answered(model, drafter, seed, **way).equal(expected)
        assert drafter.right > 0 or tokens is None


def test_answers_that_were_given_before_take_a_quarter_of_the_passes(model):
    def again(lasting):
        drafter = Drafter(MOST, lasting)
        answered(model, drafter)
        before = drafter.passes
        answered(model, drafter)
        return before, drafter.passes - before

    first, second = again(lasting=True)
    assert second < first / 4
    assert len(set(again(lasting=False))) == 1


def test_the_next_drafts_follow_from_the_state_of_a_checkpoint(model):
    first = Drafter(None, lasting=True)
    first.cost = 0.1
    answered(model, first)
    resumed = Drafter(None, lasting=True)
    resumed.load_state(first.state())
    begun = first.passes, first.drafted, first.right
    answered(model, first, seed=1)
    answered(model, resumed, seed=1)
    assert (resumed.passes, resumed.drafted, resumed.right) == tuple(
        now - then for now, then in zip((first.passes, first.drafted, first.right), begun, strict=True)
    )


def test_as_many_tokens_are_drafted_as_pay(model):
    def drafted(cost, **way):
        drafter = Drafter()
        drafter.cost = cost
        answered(model, drafter, **way)
        return drafter.drafted / drafter.passes

    cheap, dear = drafted(0.01, temperature=0.1), drafted(5.0, temperature=0.1)
    assert dear < cheap / 10
    assert drafted(0.2, temperature=0.1) > drafted(0.2, temperature=2.0)


def test_what_a_token_costs_is_measured_once(model):
    drafter = Drafter()
    answered(model, drafter)
    cost = drafter.cost
    assert 0 <= cost < 5
    answered(model, drafter)
    assert drafter.cost == cost


@pytest.mark.parametrize("way", [{"repetition_penalty": 1.3}, {"min_new_tokens": 5}], ids=str)
def test_processors_that_look_at_tokens_before_switch_it_off_with_one_line(model, way, monkeypatch):
    drafter, said = Drafter(4), []
    monkeypatch.setattr(drafting.log, "info", lambda text, *values: said.append(text % values))
    found = [answered(model, drafter, **way) for _ in range(2)]
    assert found[0].equal(answered(model, **way))
    assert drafter.passes == 0
    (line,) = said
    assert re.fullmatch(r"answers are not drafted: (\w+, )?(Repet|MinNew)\w+Processor looks at the tokens before", line)


def test_drafts_that_were_wrong_leave_the_cache(model):
    lengths = []
    forward = model.forward

    def seen(*args, past_key_values=None, **keys):
        output = forward(*args, past_key_values=past_key_values, **keys)
        lengths.append(output.past_key_values.get_seq_length())
        return output

    model.forward = seen
    try:
        answered(model, Drafter(MOST), temperature=2.0)
    finally:
        del model.forward
    assert max(lengths) < 1.25 * (12 + TOKENS) + MOST + 2


@pytest.mark.parametrize(("said", "tokens"), [("auto", None), ("0", 0), ("8", 8)])
def test_the_key_is_auto_or_a_number(said, tokens):
    assert drafting.tokens_of(said) == tokens


@pytest.mark.parametrize("said", ["9", "-1", "many", "1.5", ""])
def test_another_value_is_refused(said):
    with pytest.raises(UserError, match=f"draft_tokens: {said} is not auto or a number from 0 to 8"):
        drafting.tokens_of(said)
