from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.returns import Series, returns_between, scale_of
from stonk_trainer.tasks.btc.tokens import (
    SPECIALS,
    contexts,
    from_text,
    make_tokenizer,
    range_of,
    read_tokens,
    scoring_windows,
    to_text,
    tokenise,
    training_windows,
    write_tokens,
)

# ------------------------------------------------------------------------------------------------- tokenise


@pytest.mark.parametrize("patch", [1, 4])
def test_a_token_carries_the_returns_and_the_last_day_of_its_patch(random_codec, market, patch):
    tokenised = tokenise(market, random_codec("vq", patch))
    count = len(market.returns) // patch
    left_over = len(market.returns) - count * patch
    assert left_over == {1: 0, 4: 3}[patch]
    assert tokenised.tokens.shape == tokenised.dates.shape == (count,) and tokenised.returns.shape == (count, patch)
    assert (tokenised.returns.ravel() == market.returns[left_over:]).all()
    assert tokenised.dates[-1] == market.dates[-1]
    assert (tokenised.dates == market.dates[left_over + patch - 1 :: patch]).all()
    assert tokenised.scale == scale_of(market, "2021-06-30")


def test_a_token_is_of_returns_in_units_of_the_training_scale_times_the_factor(random_codec, market):
    import torch

    codec = random_codec("vq", 1)
    scale = float(np.std(returns_between(market, until="2021-06-30"), ddof=1))
    for factor in (1.0, -1.0, 1.4):
        scaled = torch.tensor(factor * market.returns / scale, dtype=torch.float32)[None]
        tokenised = tokenise(market, codec, factor)
        assert tokenised.tokens.tolist() == codec.encode(scaled)[0].tolist()
        assert tokenised.scale == pytest.approx(scale / factor)  # what decoded returns have to be multiplied by
    assert (tokenise(market, codec, -1.0).tokens != tokenise(market, codec).tokens).any()


@pytest.mark.parametrize("patch", [1, 4])
def test_changing_prices_after_train_end_changes_no_token_up_to_it(random_codec, market, patch):
    codec, known = random_codec("vq", patch), market.dates <= np.datetime64("2021-06-30")
    changed = Series(market.name, market.dates, np.where(known, market.returns, -30 * market.returns), 100.0)
    one, two = tokenise(market, codec), tokenise(changed, codec)
    end = range_of(one, codec, "train")[1]
    assert (one.tokens[:end] == two.tokens[:end]).all() and one.scale == two.scale
    assert (one.tokens[end:] != two.tokens[end:]).any()


def test_a_series_shorter_than_a_patch_is_refused(random_codec, market):
    short = Series("COIN", market.dates[:35], market.returns[:35], 100.0)
    codec = SimpleNamespace(config=SimpleNamespace(patch_size=40, train_end="2021-06-30"))
    with pytest.raises(UserError, match="COIN has 35 returns, and one patch has 40 days"):
        tokenise(short, codec)


# ------------------------------------------------------------------------------------------------- splits by date


@pytest.mark.parametrize("patch", [1, 4])
def test_splits_are_by_the_last_day_of_a_token_and_share_none(random_codec, market, patch):
    codec = random_codec("vq", patch)
    tokenised = tokenise(market, codec)
    dates = tokenised.dates
    ranges = {split: range_of(tokenised, codec, split) for split in ("train", "validation", "test")}
    days = {split: dates[first:end].astype(str) for split, (first, end) in ranges.items()}
    assert [ranges[split][0] for split in ranges] == [0, ranges["train"][1], ranges["validation"][1]]
    assert ranges["test"][1] == len(dates)
    assert days["train"][-1] <= "2021-06-30" < days["validation"][0]
    assert days["validation"][-1] <= "2021-09-30" < days["test"][0]
    if patch == 1:
        assert (days["train"][-1], days["validation"][0]) == ("2021-06-30", "2021-07-01")
        assert (days["validation"][-1], days["test"][0]) == ("2021-09-30", "2021-10-01")


def test_a_split_without_days_is_empty(random_codec, market):
    tokenised = tokenise(market, random_codec())
    for split, train_end, validation_end, expected in (
        ("train", "2000-01-01", "2001-01-01", (0, 0)),
        ("test", "2030-01-01", "2031-01-01", (699, 699)),
    ):
        config = SimpleNamespace(train_end=train_end, validation_end=validation_end)
        assert range_of(tokenised, SimpleNamespace(config=config), split) == expected


# ------------------------------------------------------------------------------------------------- text


def test_token_ids_are_code_numbers_and_special_tokens_follow():
    tokenizer = make_tokenizer(64)
    assert len(tokenizer) == 68 and SPECIALS == ("<pad>", "<bos>", "<eos>", "<unk>")
    assert tokenizer(to_text(range(64)))["input_ids"] == list(range(64))
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id] == [64, 65]
    assert [tokenizer.eos_token_id, tokenizer.unk_token_id] == [66, 67]
    assert tokenizer("3 64 x -1")["input_ids"] == [3, 67, 67, 67]
    assert tokenizer.decode([5, 66, 12, 63], skip_special_tokens=True) == "5 12 63"
    assert from_text(tokenizer.decode([5, 12, 63])) == [5, 12, 63]


def test_a_saved_tokenizer_comes_back(tmp_path):
    from transformers import AutoTokenizer

    make_tokenizer(16).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == 20 and loaded("15 0 7")["input_ids"] == [15, 0, 7] and loaded.padding_side == "left"
    assert loaded.batch_decode([[1, 2], [3, 18]], skip_special_tokens=True) == ["1 2", "3"]


def test_tokens_come_back_from_their_file_and_through_the_text_loader(tmp_path):
    from datasets import load_dataset

    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 64, length) for length in (300, 1, 77)]
    write_tokens(tmp_path / "new" / "all_tokens.txt", lines)
    path = str(tmp_path / "new" / "all_tokens.txt")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["all_tokens.txt"]
    assert [tokens.tolist() for tokens in read_tokens(path, 64)] == [line.tolist() for line in lines]
    rows = load_dataset("text", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = make_tokenizer(64)
    assert [tokenizer(row["text"])["input_ids"] for row in rows] == [line.tolist() for line in lines]


def test_empty_lines_of_a_token_file_hold_no_series(tmp_path):
    (tmp_path / "t.txt").write_text("1 2\n\n  3\t4  \n\n")
    assert [tokens.tolist() for tokens in read_tokens(tmp_path / "t.txt", 5)] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2\n3 64 5\n", "line 2: token 64 is outside 0..63"),
        ("1 2\n\n\n-1\n", "line 4: token -1 is outside 0..63"),
        ("1 2\n3 up 5\n", "line 2: 'up' is not a token"),
        ("1 2.5\n", "line 1: '2.5' is not a token"),
        ("1 --5\n", "line 1: '--5' is not a token"),
        ("1 5_0\n", "line 1: '5_0' is not a token"),
        ("1 ²\n", "line 1: '²' is not a token"),
        ("1 " + "9" * 30 + "\n", "line 1: '" + "9" * 30 + "' is not a token"),
        ("", "has no tokens"),
        ("\n \n", "has no tokens"),
    ],
)
def test_a_token_file_that_is_none_is_refused_by_its_line(tmp_path, text, says):
    path = tmp_path / "tokens.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_tokens(path, 64)
    assert str(error.value).startswith(f"data: {path}") and says in str(error.value)


def test_a_token_file_that_is_missing_or_no_text_is_refused(tmp_path):
    (tmp_path / "tokens.bin").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("nowhere.txt", "tokens.bin", "."):
        with pytest.raises(UserError, match="cannot be read|is not text in UTF-8"):
            read_tokens(tmp_path / name, 64)


# ------------------------------------------------------------------------------------------------- windows


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(1, 20), st.integers(1, 20))
def test_training_windows_are_runs_of_one_series_that_reach_its_end(lengths, length, step):
    series = [np.arange(100 * i, 100 * i + n) for i, n in enumerate(lengths)]
    if max(lengths) < length:
        with pytest.raises(UserError, match="^0 training windows"):
            training_windows(series, length, step)
        return
    rows = [row["input_ids"] for row in training_windows(series, length, step)]
    assert all(row == list(range(row[0], row[0] + length)) and row[0] // 100 == row[-1] // 100 for row in rows)
    assert len({row[0] for row in rows}) == len(rows)
    for number, n in enumerate(lengths):
        own = [row[0] - 100 * number for row in rows if row[0] // 100 == number]
        assert (own[0], own[-1]) == (0, n - length) if n >= length else own == []
        assert all(0 < b - a <= step for a, b in zip(own, own[1:], strict=False))
        assert own == [] or own[:-1] == list(range(0, n - length + 1, step))[: len(own) - 1]


def test_too_short_a_series_says_how_many_windows_there_are_and_what_to_set():
    with pytest.raises(UserError) as error:
        training_windows([np.arange(90), np.arange(120)], 256, 128)
    assert str(error.value) == (
        "0 training windows of context_len 256 tokens: the longest of 2 series has 120 before train_end; set "
        "--context-len to at most 120, or give more days"
    )


@pytest.mark.parametrize("length", range(2, 9))
def test_scoring_windows_predict_every_token_of_the_range_once_and_none_outside(length):
    for n, first, end in np.ndindex(16, 16, 16):
        if not first <= end <= n:
            continue
        tokens = np.arange(1000, 1000 + n)  # a token says its place
        expected = list(range(max(first, 1), end))  # the first token of a series follows nothing
        if not expected:
            with pytest.raises(UserError, match="no tokens to validate on"):
                scoring_windows([(tokens, first, end)], length)
            continue
        predicted = []
        for row in scoring_windows([(tokens, first, end)], length):
            ids, labels = row["input_ids"], row["labels"]
            assert len(ids) == len(labels) <= length and ids == list(range(ids[0], ids[0] + len(ids)))
            for place, label in enumerate(labels):
                if label == -100:
                    continue
                assert label == ids[place] and place > 0  # a label is compared with the output one place before it
                assert place >= min(label - 1000, length - length // 2)  # half a window before it, where there is one
                predicted.append(label - 1000)
        assert predicted == expected


def test_scoring_windows_of_several_series_stay_apart():
    rows = scoring_windows([(np.arange(10), 8, 10), (np.arange(20, 30), 9, 10)], 4)
    assert [row["input_ids"] for row in rows] == [[6, 7, 8, 9], [26, 27, 28, 29]]
    assert [row["labels"] for row in rows] == [[-100, -100, 8, 9], [-100, -100, -100, 29]]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_context_has_its_length_before_it_and_its_future_in_the_range(step):
    for first, count, context_len, horizon in np.ndindex(9, 9, 5, 5):
        end, context_len, horizon = first + count, context_len + 1, horizon + 1
        every = [o for o in range(end + 1) if context_len <= o and first <= o and o + horizon <= end]
        assert list(contexts(first, end, context_len, horizon, step)) == every[::step]
