import logging
from collections import Counter

import pytest
from upstream_rows import UPSTREAM

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.reasoning import Reasoning, ReasoningArguments
from stonk_trainer.tasks.reasoning.chats import SYSTEM


def chats(count, start=0):
    return [
        {"messages": [{"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": f"Hello {i}"}]}
        for i in range(start, start + count)
    ]


def thoughts(count):
    return [UPSTREAM["openthoughts3"] | {"conversations": turns(i)} for i in range(count)]


def turns(i):
    return [{"from": "human", "value": f"Thing {i}?"}, {"from": "gpt", "value": f"<think>\na\n</think>\n\nb{i}"}]


def sft_rows(split="train", **keys):
    return Reasoning(ReasoningArguments(**keys)).sft_dataset(split)


def rl_rows(split="train", **keys):
    return Reasoning(ReasoningArguments(**keys)).rl_dataset(split)


def refusal(function, *args, **keys):
    with pytest.raises(UserError) as error:
        function(*args, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def ot_and_chat(write_jsonl):
    """Local files in place of OpenThoughts3 (140 rows) and SmolTalk (300 rows)."""
    return [
        f"openthoughts3={write_jsonl('ot/train.jsonl', thoughts(140))}",
        f"smoltalk={write_jsonl('chat/train.jsonl', chats(300))}",
    ]


def test_the_chat_ratio_is_the_share_of_chat_in_all_rows(ot_and_chat, caplog):
    caplog.set_level(logging.INFO)
    rows = sft_rows(sft_recipe="r1_ot_mixed", source_paths=ot_and_chat, chat_ratio=0.3, held_out=0.0)
    assert Counter(rows["source"]) == {"openthoughts3": 140, "smoltalk": 60}
    assert "smoltalk: 60 train rows, 30.0% (target 30.0%)" in caplog.text


def test_rows_are_shuffled_by_the_seed(ot_and_chat):
    keys = {"sft_recipe": "r1_ot_mixed", "source_paths": ot_and_chat, "held_out": 0.0}
    orders = [sft_rows(sampling_seed=seed, **keys)["source"] for seed in (1, 1, 2)]
    assert list(orders[0]) == list(orders[1]) != list(orders[2])


def test_stop_is_kept_and_one_beyond_the_end_is_said(ot_and_chat, caplog):
    caplog.set_level(logging.INFO)
    keys = {"sft_recipe": "r1_ot", "source_paths": ot_and_chat[:1], "held_out": 0.0}
    assert len(sft_rows(ot_stop=50, **keys)) == 50
    assert "more than there are" not in caplog.text
    assert len(sft_rows(ot_stop=1_000_000, **keys)) == 140
    assert "stop 1000000 is more than there are: all 140 rows are read" in caplog.text
    assert len(sft_rows(ot_stop=-1, **keys)) == 140


def test_a_share_that_its_source_cannot_fill_takes_all_and_says_so(ot_and_chat, caplog):
    rows = sft_rows(sources=["openthoughts3", "smoltalk:ratio=0.8"], source_paths=ot_and_chat, held_out=0.0)
    assert Counter(rows["source"]) == {"openthoughts3": 140, "smoltalk": 300}
    assert "560 rows are needed, and it has 300" in caplog.text


def test_ot_mode_leaves_the_thoughts_out(ot_and_chat):
    rows = sft_rows(sft_recipe="r1_ot", source_paths=ot_and_chat[:1], ot_mode="answer_only", held_out=0.0)
    texts = [row["completion"][0]["content"] for row in rows]
    assert sorted(texts) == sorted(f"b{i}" for i in range(140))


def test_rows_left_out_are_counted_by_reason(write_jsonl, caplog):
    caplog.set_level(logging.INFO)
    cut = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<think>\nnever ends"}]}
    path = write_jsonl("train.jsonl", [*chats(9), cut, cut])
    rows = sft_rows(sources=[f"chat:path={path}"], held_out=0.0)
    assert len(rows) == 9 and not any("never ends" in str(row) for row in rows)
    assert "chat: 2 of 11 rows left out: the thought is cut off" in caplog.text


def test_a_changed_file_is_read_anew(write_jsonl):
    def texts():
        rows = sft_rows(sft_recipe="r1_rs_sft", rs_data=path, held_out=0.0)
        return sorted(row["completion"][0]["content"] for row in rows)

    path = write_jsonl("train.jsonl", chats(2))
    assert texts() == ["Hello 0", "Hello 1"]
    write_jsonl("train.jsonl", chats(3, start=5))
    assert texts() == ["Hello 5", "Hello 6", "Hello 7"]


@pytest.mark.slow
def test_the_task_mix_gives_the_shares_asked_for_and_each_row_its_verifier(write_jsonl):
    gsm8k = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(100)]
    mmlu = [UPSTREAM["mmlu"] | {"question": f"Which is {i}?", "subject": "virology"} for i in range(200)]
    paths = [
        f"gsm8k={write_jsonl('gsm8k_train.jsonl', gsm8k)}",
        f"mmlu_science={write_jsonl('mmlu_validation.jsonl', mmlu)}",
    ]
    mix = "gsm8k:0.4,mmlu_science:0.3,arithmetic:0.3"
    rows = rl_rows(task_mix=mix, source_paths=paths, max_train_samples=200, held_out=0.0)
    assert Counter(rows["source"]) == {"gsm8k": 80, "mmlu_science": 60, "arithmetic": 60}
    verifiers = {"gsm8k": "math", "mmlu_science": "choice", "arithmetic": "math"}
    for row in rows:
        assert row["verifier"] == verifiers[row["source"]]
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert row["prompt"][0]["content"] == SYSTEM
    assert set(rows.column_names) == {"prompt", "target", "verifier", "source", "id"}


def test_no_source_is_repeated_and_the_shortest_for_its_share_limits_the_mix(write_jsonl, caplog):
    caplog.set_level(logging.INFO)
    gsm8k = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(30)]
    paths = [f"gsm8k={write_jsonl('gsm8k_train.jsonl', gsm8k)}"]
    rows = rl_rows(task_mix="gsm8k:0.5,arithmetic:0.5", source_paths=paths, held_out=0.0)
    assert Counter(rows["source"]) == {"gsm8k": 30, "arithmetic": 30}
    assert "gsm8k has 30 rows, which limits the mixture to 60" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("rows", [sft_rows, rl_rows])
def test_the_test_split_is_out_of_reach(rows):
    keys = {"sources": ["arithmetic"], "task_mix": "arithmetic:1"}
    assert "test split" in refusal(rows, "test", **keys)
    asked = {row["prompt"][-1]["content"] for split in ("train", "validation") for row in rows(split, **keys)}
    from stonk_trainer.tasks.reasoning.synthetic import arithmetic

    assert asked.isdisjoint(row["question"] for row in arithmetic("test"))


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"sources": ["opentoughts"]}, "did you mean openthoughts"),
        ({"sources": ["arithmetic:ratio=1.5"]}, "ratio 1.5 must lie in [0, 1]"),
        ({"sources": ["arithmetic:ratio=half"]}, "half is not a number"),
        ({"sources": ["arithmetic:stop=0"]}, "stop 0 must be above 0, or -1"),
        ({"sources": ["arithmetic:share=0.5"]}, "share=0.5 is not one of path="),
        ({"sources": ["arithmetic:mode=quick"]}, "mode=quick is not one of cot, answer_only"),
        ({"sources": ["mmlu:subjects="]}, "name in subjects= is blank"),
        ({"sources": ["arithmetic", "arithmetic_choice:ratio=1"]}, "leaves nothing for"),
        ({"sources": ["arithmetic:ratio=0.5", "arithmetic_choice:ratio=0.4"]}, "sum to 0.9, not to 1"),
        ({"task_mix": "gsm8k:0.4,math:0.3"}, "sum to 0.7, not to 1"),
        ({"task_mix": "gsm8k:0.4,mth:0.6"}, "did you mean math"),
        ({"task_mix": "smoltalk:1"}, "cannot be verified"),
        ({"task_mix": "gsm8k:x"}, "x is not a number"),
        ({"task_mix": ","}, "the mixture is empty"),
        ({"sft_recipe": "r1_ot", "dolci_stop": 5}, "dolci_stop: this mixture has no dolci"),
        ({"sft_recipe": "r1_ot", "chat_ratio": 0.2}, "chat_ratio: this mixture has no smoltalk"),
        ({"sft_recipe": "r1_ot_mixed", "chat_ratio": 1.2}, "chat_ratio: 1.2 must lie in"),
        ({"sft_recipe": "r1_ot", "sources": ["gsm8k"]}, "keep one"),
        ({"sources": ["gsm8k"], "source_paths": ["gsm8k"]}, "is not NAME=PATH"),
        ({"sources": ["gsm8k"], "source_paths": ["gsm8k=nowhere.jsonl"]}, "nowhere.jsonl does not exist"),
        ({"reward": ["accurate"]}, "accurate is not one of"),
        ({"prompt_field": "q"}, "go together"),
        ({"max_train_samples": 0}, "max_train_samples: 0 must be at least 1"),
        ({"held_out": 1.0}, "held_out: 1 must lie in"),
    ],
)
def test_an_invalid_mixture_is_reported_in_one_line(keys, says):
    assert says in refusal(lambda: Reasoning(ReasoningArguments(**keys)))


def test_a_recipe_without_a_mixture_says_what_to_set():
    assert "set sft_recipe" in refusal(sft_rows)
    assert "no task_mix" in refusal(rl_rows)
