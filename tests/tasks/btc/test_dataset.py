import logging

import numpy as np
import pytest
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc import Btc
from stonk_trainer.tasks.btc.arguments import BtcArguments, Market
from stonk_trainer.tasks.btc.dataset import check_codec_of_model, series_of
from stonk_trainer.tasks.btc.returns import load_series
from stonk_trainer.tasks.btc.tokens import make_tokenizer, tokenise, write_tokens

TRAIN_END, VALIDATION_END = "2021-06-30", "2021-09-30"


@pytest.fixture
def task(tmp_path, random_codec, market_csv):
    """The task on the small market; the codec of this patch size lies in a new folder."""

    def make(patch=1, csv=market_csv, model=None, **keys):
        folder = tmp_path / f"codec{patch}"
        if not folder.exists():
            random_codec("vq", patch).save_pretrained(folder)
        keys = {"codec": str(folder), "context_len": 16, "horizon": 5} | keys
        return Btc(BtcArguments(dataset_name=csv, **keys), model=model)

    return make


def refusal(function, *args):
    with pytest.raises(UserError) as error:
        function(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def codec_of(task):
    return task.codec


@pytest.fixture
def changed_after_train(tmp_path, heavy_tailed, write_prices):
    """The small market with other returns after train_end, ten times as wild."""
    returns = heavy_tailed(699)
    returns[546:] = -10 * returns[546:][::-1]
    return write_prices(tmp_path / "COIN.csv", returns)


# ------------------------------------------------------------------------------------------------- RL rows


@pytest.mark.parametrize("patch", [1, 4])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_future_of_an_rl_row_lies_whole_in_its_split(task, market, split, patch):
    own = task(patch)
    rows = list(own.rl_dataset(split))
    assert len(rows) > 5
    bounds = {"train": ("", TRAIN_END), "validation": (TRAIN_END, VALIDATION_END), "test": (VALIDATION_END, "9")}
    after, until = bounds[split]
    days = list(market.dates.astype(str))
    tokenised = tokenise(market, own.codec)
    places = {str(day): place for place, day in enumerate(tokenised.dates)}
    for row in rows:
        known = days.index(row["date"]) + 1  # days up to the last the context knows
        assert row["future_returns"] == market.returns[known : known + 5 * patch].tolist()
        # the last day of each token of the future; the first of them may begin in the split before
        assert after < days[known + patch - 1] and days[known + 5 * patch - 1] <= until
        origin = places[row["date"]] + 1
        assert row["prompt"].split() == [str(t) for t in tokenised.tokens[origin - 16 : origin]]
        assert row["future_tokens"] == tokenised.tokens[origin : origin + 5].tolist()
        move = np.prod(1 + np.expm1(row["future_returns"])) - 1
        assert row["next_return"] == pytest.approx(move) and row["label"] == ("UP" if move > 0 else "DOWN")
        assert row["ticker"] == "COIN" and row["scale"] == tokenised.scale
    if patch == 1:
        count = {"train": 546 - 16 - 5 + 1, "validation": 92 - 5 + 1, "test": 61 - 5 + 1}[split]
        assert len(rows) == count and len({row["date"] for row in rows}) == count


@pytest.mark.parametrize("patch", [1, 4])
def test_changing_all_prices_after_train_end_changes_no_training_row(task, changed_after_train, patch):
    one, two = task(patch), task(patch, changed_after_train)
    for name in ("rl_dataset", "sft_dataset"):
        rows, changed = getattr(one, name), getattr(two, name)
        assert rows("train").to_list() == changed("train").to_list()
        assert rows("validation").to_list() != changed("validation").to_list()


def test_contexts_are_context_step_apart(task):
    every = task().rl_dataset("train")["date"]
    assert list(task(context_step=7).rl_dataset("train")["date"]) == list(every)[::7]


def test_contexts_are_drawn_at_random_over_the_dates_and_the_same_again(task):
    every = list(task().rl_dataset("train")["date"])
    some = list(task(max_train_samples=40).rl_dataset("train")["date"])
    assert len(set(some)) == 40 and some == sorted(some) and set(some) < set(every)
    assert some[0] < every[100] and some[-1] > every[-100]
    assert some == list(task(max_train_samples=40).rl_dataset("train")["date"])
    assert some != list(task(max_train_samples=40, sampling_seed=1).rl_dataset("train")["date"])
    assert len(task(max_train_samples=40).rl_dataset("validation")) == 88
    assert len(task(max_eval_samples=9).rl_dataset("validation")) == 9
    assert len(task(max_train_samples=10**6).rl_dataset("train")) == len(every)


def test_a_context_that_fits_nowhere_says_how_long_the_split_is(task):
    says = refusal(task(horizon=93).rl_dataset, "validation")
    assert says.startswith("0 validation contexts: a context of 16 tokens and a future of 93 fit in no series")
    assert "(validation has 92 tokens at most): set a shorter --context-len" in says
    assert "0 train contexts" in refusal(task(context_len=546).rl_dataset, "train")


def test_the_run_log_of_a_row_has_the_direction_and_size_of_the_sampled_path(task):
    own = task()
    row, codec = own.rl_dataset("validation")[3], own.codec
    sample = [3, 1, 4, 1, 5]
    (found,) = own.read([row], [" ".join(map(str, sample))])
    tokens = torch.tensor([[*map(int, row["prompt"].split()), *sample]])
    move = float(np.expm1(codec.decode(tokens)[0, -5:].double().numpy().sum() * row["scale"]))
    assert found == {
        "ticker": "COIN", "date": row["date"], "label": row["label"], "next_return": row["next_return"],
        "direction": "UP" if move > 0 else "DOWN", "confidence": None, "move": pytest.approx(abs(move), rel=1e-4),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------- SFT rows


@pytest.mark.parametrize("patch", [1, 4])
def test_training_windows_hold_the_tokens_up_to_train_end_and_no_later_one(task, market, patch):
    own = task(patch, context_step=3)
    tokenised = tokenise(market, own.codec)
    known = int((tokenised.dates.astype(str) <= TRAIN_END).sum())
    rows = own.sft_dataset("train")["input_ids"]
    starts = [*range(0, known - 16, 3), known - 16]
    assert [list(row) for row in rows] == [tokenised.tokens[start : start + 16].tolist() for start in starts]


def test_validation_predicts_the_tokens_of_its_dates_from_what_came_before(task, market):
    own = task()
    tokens = tokenise(market, own.codec).tokens
    rows = own.sft_dataset("validation")
    predicted = [label for row in rows for label in row["labels"] if label != -100]
    assert predicted == tokens[546:638].tolist()
    assert rows[0]["input_ids"] == tokens[538:554].tolist() and rows[0]["labels"][:8] == [-100] * 8


def test_the_last_tenth_of_each_line_of_a_token_file_is_held_out(task, tmp_path):
    lines = [np.arange(100) % 16, (np.arange(50) * 7) % 16]
    write_tokens(tmp_path / "tokens.txt", lines)
    own = task(data=str(tmp_path / "tokens.txt"), context_len=10, context_step=10)
    assert [row["input_ids"] for row in own.sft_dataset("train")] == [
        lines[i][s : s + 10].tolist() for i, starts in ((0, range(0, 90, 10)), (1, [0, 10, 20, 30, 35])) for s in starts
    ]
    held_out = [label for row in own.sft_dataset("validation") for label in row["labels"] if label != -100]
    assert held_out == [*lines[0][90:], *lines[1][45:]]


def test_a_token_file_of_another_codec_is_refused(task, tmp_path):
    (tmp_path / "tokens.txt").write_text("1 2 3\n4 16\n")
    says = refusal(task(data=str(tmp_path / "tokens.txt")).sft_dataset, "train")
    assert "line 2: token 16 is outside 0..15" in says


def test_windows_longer_than_the_data_or_of_one_token_are_refused(task):
    says = refusal(task(context_len=547).sft_dataset, "train")
    assert says.startswith("0 training windows of context_len 547") and "at most 546" in says
    assert "context_len" in refusal(task(context_len=1).sft_dataset, "train")


# ------------------------------------------------------------------------------------------------- which prices


def test_one_of_the_embedded_markets_is_named_alone():
    (bitcoin,) = series_of(Market(dataset_name="embedded:btc"))
    (same,) = load_series("embedded:markets", ["BTC"])
    assert bitcoin.name == "BTC" and (bitcoin.returns == same.returns).all()
    assert [s.name for s in series_of(Market(tickers=["ETH", "AAPL"]))] == ["ETH", "AAPL"]


def test_an_unknown_embedded_market_is_refused_with_those_there_are():
    says = refusal(series_of, Market(dataset_name="embedded:BTX"))
    assert "has no ticker BTX; it has BTC" in says


# ------------------------------------------------------------------------------------------- which codec and dates


def test_the_codec_is_the_one_named_or_the_one_in_the_models_folder(task, gpt_folder, tmp_path):
    assert task(codec=None, model=gpt_folder(4)).codec.config.patch_size == 4
    assert task(1, model=gpt_folder(4)).codec.config.patch_size == 1
    for model, name in ((str(tmp_path), tmp_path), (None, "the model")):
        says = refusal(codec_of, task(codec=None, model=model))
        assert says.startswith(f"codec: {name} has none: give the folder or .pt file")


@pytest.mark.parametrize("key", ["train_end", "validation_end"])
def test_dates_that_are_not_the_codecs_are_refused(task, key):
    says = refusal(codec_of, task(**{key: "2021-08-15"}))
    own = {"train_end": TRAIN_END, "validation_end": VALIDATION_END}[key]
    assert says.startswith(f"{key}: 2021-08-15 is not the {own} that codec") and f"leave {key} out" in says


def test_dates_that_are_the_codecs_may_be_said_again(task):
    config = task(train_end=TRAIN_END, validation_end=VALIDATION_END).codec.config
    assert (config.train_end, config.validation_end) == (TRAIN_END, VALIDATION_END)


def test_a_bare_state_dict_needs_the_dates_from_the_recipe(task, random_codec, tmp_path):
    torch.save(random_codec().state_dict(), tmp_path / "codec.pt")
    bare = str(tmp_path / "codec.pt")
    assert refusal(codec_of, task(codec=bare)).startswith("train_end: codec ")
    says = refusal(codec_of, task(codec=bare, train_end=TRAIN_END))
    assert says.startswith("validation_end: codec ") and "give --validation_end YYYY-MM-DD" in says
    dated = task(codec=bare, train_end=TRAIN_END, validation_end=VALIDATION_END)
    assert dated.rl_dataset("train").to_list() == task().rl_dataset("train").to_list()
    # other dates afterwards are other dates: nothing is kept from the call before
    other = task(codec=bare, train_end="2021-03-31", validation_end=VALIDATION_END)
    assert max(other.rl_dataset("train")["date"]) < "2021-03-31"


def test_the_codec_written_beside_a_model_knows_its_dates(task, random_codec, tmp_path):
    torch.save(random_codec().state_dict(), tmp_path / "codec.pt")
    own = task(codec=str(tmp_path / "codec.pt"), train_end=TRAIN_END, validation_end=VALIDATION_END)
    own.add_to_model(tmp_path / "model")
    later = task(codec=None, model=str(tmp_path / "model"))
    assert later.codec.config.train_end == TRAIN_END
    assert later.rl_dataset("train").to_list() == task().rl_dataset("train").to_list()


def test_a_model_of_another_number_of_codes_is_refused(random_codec):
    check_codec_of_model(random_codec(), make_tokenizer(16), "runs/model")
    says = refusal(check_codec_of_model, random_codec(), make_tokenizer(64), "runs/model")
    assert says.startswith("model runs/model knows 64 market tokens and the codec has 16 codes")


def test_a_new_model_has_the_codecs_tokens_and_its_own_seed(task, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = task(gpt_hidden_size=16, gpt_layers=1, gpt_heads=2, gpt_positions=64)
    for name, seed in (("one", 1), ("same", 1), ("two", 2)):
        own.new_model(tmp_path / name, seed)
    one, same, two = (AutoModelForCausalLM.from_pretrained(tmp_path / n).state_dict() for n in ("one", "same", "two"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], two["lm_head.weight"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    own.check_tokenizer(tokenizer, "one")
    assert len(tokenizer) == len(one["lm_head.weight"]) == 20


def test_rows_of_several_assets_each_have_their_own_scale(task, heavy_tailed, write_prices, tmp_path, caplog):
    folder = tmp_path / "prices"
    folder.mkdir()
    write_prices(folder / "CALM.csv", 0.1 * heavy_tailed(699))
    write_prices(folder / "WILD.csv", heavy_tailed(699))
    with caplog.at_level(logging.WARNING):
        rows = task(csv=str(folder)).rl_dataset("train").to_list()
    calm, wild = ([row for row in rows if row["ticker"] == name] for name in ("CALM", "WILD"))
    assert len(calm) == len(wild) == 526
    assert wild[0]["scale"] == pytest.approx(10 * calm[0]["scale"])
    assert sum(a["prompt"] == b["prompt"] for a, b in zip(calm, wild, strict=True)) > 500  # the same shapes


def test_a_series_that_starts_after_train_end_is_left_out_of_every_stage(
    random_codec, heavy_tailed, write_prices, tmp_path
):
    random_codec().save_pretrained(tmp_path / "codec")
    prices = tmp_path / "prices"
    prices.mkdir()
    write_prices(prices / "OLD.csv", heavy_tailed(699))
    keys = {"codec": str(tmp_path / "codec"), "context_len": 16, "horizon": 4}

    def rows():
        own = Btc(BtcArguments(dataset_name=str(prices), **keys))
        return own.sft_dataset("train").to_list(), own.rl_dataset("train").to_list()

    alone = rows()
    write_prices(prices / "NEW.csv", heavy_tailed(100), start="2021-07-10")
    assert rows() == alone
