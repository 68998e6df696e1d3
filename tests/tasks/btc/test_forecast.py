import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.forecast import with_days_after
from stonk_trainer.tasks.btc.forecaster import GPTForecaster, load_forecaster
from stonk_trainer.tasks.btc.gpt import load_gpt, next_token_log_probs, sample_paths
from stonk_trainer.tasks.btc.returns import scale_of
from stonk_trainer.tasks.btc.tokens import to_text, tokenise

pytestmark = pytest.mark.slow

TRAIN_END, VALIDATION_END = "2021-06-30", "2021-09-30"
BOTH = pytest.mark.parametrize("patch", [1, 4])


@pytest.fixture
def forecaster(random_codec, gpt_folder, market):
    """A forecaster of the small market, or of other returns in its place."""

    def make(patch=1, returns=None, context_len=16):
        returns, scale = market.returns if returns is None else returns, scale_of(market, TRAIN_END)
        return load_forecaster(gpt_folder(patch), random_codec("vq", patch), returns, scale, context_len)

    return make


def random(seed=0):
    return np.random.default_rng(seed)


def exact(forecaster, market, origin, patch):
    """(probabilities, returns of the next day) by code, from the model and the codec themselves."""
    codec, scale = forecaster.codec, forecaster.scale
    known = torch.tensor(market.returns[origin % patch : origin] / scale, dtype=torch.float32)[None]
    context = codec.encode(known)[:, -16:]
    with torch.inference_mode():
        probabilities = forecaster.model(context).logits[0, -1, :16].softmax(-1).double().numpy()
    every = torch.cat([context.expand(16, -1), torch.arange(16)[:, None]], dim=1)
    return probabilities, codec.decode(every)[:, -patch].double().numpy() * scale


# ------------------------------------------------------------------------------------------------- the future


@BOTH
def test_changing_the_future_of_an_origin_changes_no_forecast_from_it(forecaster, market, patch):
    for origin in (500, 637, 638, 639, 640, 698):
        changed = market.returns.copy()
        changed[origin:] *= -50
        one, two = forecaster(patch), forecaster(patch, changed)
        assert (one.tokens_before(origin) == two.tokens_before(origin)).all()
        assert (one.one_day([origin], 40, random()) == two.one_day([origin], 40, random())).all()
        assert (one.sample(origin, 6, 20, random()) == two.sample(origin, 6, 20, random())).all()


@BOTH
def test_the_day_before_an_origin_is_known(forecaster, market, patch):
    for origin in (500, 637, 638, 639, 640, 698):
        changed = market.returns.copy()
        changed[origin - 1] *= -50
        one, two = forecaster(patch), forecaster(patch, changed)
        assert one.tokens_before(origin)[-1] != two.tokens_before(origin)[-1]
        assert (one.tokens_before(origin)[:-1] == two.tokens_before(origin)[:-1]).all()
        assert (one.one_day([origin], 40, random()) != two.one_day([origin], 40, random())).any()
        assert (one.sample(origin, 6, 20, random()) != two.sample(origin, 6, 20, random())).any()


@BOTH
def test_the_tokens_before_an_origin_end_on_the_day_before_it(forecaster, random_codec, market, patch):
    codec, predictor = random_codec("vq", patch), forecaster(patch)
    scaled = torch.tensor(market.returns / predictor.scale, dtype=torch.float32)[None]
    for origin in [*range(patch, 40), 641, 642, 643, 699]:
        own = codec.encode(scaled[:, origin % patch : origin])[0].tolist()
        assert predictor.tokens_before(origin).tolist() == own[-16:] and len(own) == origin // patch
    if patch == 4:
        with pytest.raises(UserError, match="3 days come before the first forecast, and one token needs 4"):
            predictor.tokens_before(3)


def test_a_series_shorter_than_two_patches_has_the_tokens_it_can(random_codec, gpt_folder):
    predictor = GPTForecaster("short", load_gpt(gpt_folder(4)), random_codec("vq", 4), np.full(5, 0.01), 0.02, 16)
    assert [len(predictor.tokens_before(origin)) for origin in (4, 5)] == [1, 1]
    assert predictor.sample(5, 3, 7, random()).shape == (7, 3)


# ------------------------------------------------------------------------------------------------- distributions


@BOTH
def test_one_day_and_the_first_day_of_paths_have_the_exact_distribution(forecaster, market, patch):
    predictor, count, origins = forecaster(patch), 20_000, [patch, 30, 640, 643]
    one_day = predictor.one_day(origins, count, random())
    assert one_day.shape == (4, count)
    for row, origin in enumerate(origins):
        shares, days = exact(predictor, market, origin, patch)
        assert shares.max() > 0.15 and len(np.unique(days.round(7))) > 8  # far from uniform, and not one day for all
        for drawn in (one_day[row], predictor.sample(origin, 1, count, random())[:, 0]):
            nearest = np.abs(drawn[:, None] - days).argmin(1)
            assert np.abs(drawn - days[nearest]).max() < 1e-6
            for day in np.unique(days.round(7)):  # several codes may decode to the same day
                own = np.abs(days - day) < 1e-6
                expected = shares[own].sum()
                error = np.sqrt(expected * (1 - expected) / count)
                assert abs(own[nearest].mean() - expected) < 5 * error + 1e-4
            spread = np.sqrt(shares @ days**2 - (shares @ days) ** 2)
            assert abs(drawn.mean() - shares @ days) < 5 * spread / np.sqrt(count)


def test_one_day_in_any_order_of_origins_is_of_its_own_origin(forecaster, market):
    predictor, origins = forecaster(4), [643, 30, 640, 641, 8, 642]
    means = predictor.one_day(origins, 4000, random()).mean(1)
    for mean, origin in zip(means, origins, strict=True):
        shares, days = exact(predictor, market, origin, 4)
        spread = np.sqrt(shares @ days**2 - (shares @ days) ** 2)
        assert abs(mean - shares @ days) < 5 * spread / np.sqrt(4000)


def test_later_days_of_a_path_follow_its_own_tokens(forecaster, gpt_folder):
    """Two tokens ahead, the shares of pairs are the products of the model's own probabilities."""
    model, context = load_gpt(gpt_folder()), torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    pairs = sample_paths(model, context, 2, 40_000, 16, generator=torch.Generator().manual_seed(0))[0]
    with torch.inference_mode():
        first = model(context).logits[0, -1, :16].softmax(-1)
        every = torch.cat([context.expand(16, -1), torch.arange(16)[:, None]], dim=1)
        second = model(every).logits[:, -1, :16].softmax(-1)
    expected = (first[:, None] * second).flatten()
    found = torch.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256) / 40_000
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / 40_000).sqrt() + 1e-4).all()
    assert (second.max(0).values - second.min(0).values).max() > 0.05  # so that a wrong first token would show


def test_the_temperature_narrows_towards_the_likeliest_token(forecaster, market):
    predictor = forecaster()
    shares, days = exact(predictor, market, 640, 1)
    drawn = predictor.sample(640, 1, 50, random(), temperature=1e-4)
    assert drawn[:, 0] == pytest.approx(days[shares.argmax()])


def test_log_probabilities_are_of_the_token_at_each_origin_from_the_context_before_it(gpt_folder):
    model, tokens = load_gpt(gpt_folder()), random().integers(0, 16, 60)
    origins = [40, 1, 5, 41, 16, 60]
    found = next_token_log_probs(model, tokens, origins, 16, batch_size=2)
    for row, origin in zip(found, origins, strict=True):
        context = torch.from_numpy(tokens[max(0, origin - 16) : origin])[None]
        with torch.inference_mode():
            assert torch.allclose(row, model(context).logits[0, -1].log_softmax(-1), atol=1e-4)


# ------------------------------------------------------------------------------------------------- paths


def test_a_horizon_that_is_no_multiple_of_the_patch_is_the_start_of_a_longer_one(forecaster):
    predictor = forecaster(4)
    assert predictor.sample(640, 6, 11, random()).shape == (11, 6)
    assert (predictor.sample(640, 6, 11, random()) == predictor.sample(640, 8, 11, random())[:, :6]).all()


def test_a_path_decodes_after_its_context(forecaster, gpt_folder, market):
    """Its tokens, decoded behind all tokens of the context, give the same days as the forecaster."""
    predictor = forecaster(4)
    paths = predictor.sample(640, 12, 9, random(3))
    seed = int(random(3).integers(2**63))
    context = torch.from_numpy(predictor.tokens_before(640).copy())[None]
    tokens = sample_paths(predictor.model, context, 3, 9, 16, generator=torch.Generator().manual_seed(seed))[0]
    whole = predictor.codec.decode(torch.cat([context.expand(9, -1), tokens], dim=1))[:, -12:].double().numpy()
    assert paths == pytest.approx(whole * predictor.scale, abs=1e-6)


def test_no_sample_is_a_special_token_however_likely_the_model_finds_it(forecaster, gpt_folder):
    predictor = forecaster()
    bonus = torch.zeros(20)
    bonus[16:] = 100
    predictor.model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bonus)
    context = torch.tensor([[1, 2, 3]])
    assert predictor.model(context).logits.argmax(-1).min() >= 16
    assert sample_paths(predictor.model, context, 20, 50, 16).max() < 16
    assert np.isfinite(predictor.sample(640, 5, 50, random())).all()
    assert np.isfinite(predictor.one_day([640], 50, random())).all()
    # what `stonk grpo` samples with
    generated = predictor.model.generate(
        context, attention_mask=torch.ones_like(context), do_sample=True, max_new_tokens=30, num_return_sequences=4
    )
    assert generated.shape == (4, 33) and generated.max() < 16


def test_a_model_of_other_codes_or_too_short_a_memory_is_refused(random_codec, gpt_folder, market):
    with pytest.raises(UserError, match="knows 16 market tokens and the codec has 64 codes"):
        load_forecaster(gpt_folder(), random_codec("vq", 1, 64), market.returns, 0.02, 16)
    with pytest.raises(UserError, match="context_len: 96 tokens leave no room in the 96 that"):
        load_forecaster(gpt_folder(), random_codec(), market.returns, 0.02, 96)


# ------------------------------------------------------------------------------------------------- stonk forecast


def quantile_rows(out):
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("day ahead"))
    rows = {}
    for line in lines[start + 1 :]:
        if not line.split()[0].isdigit():
            break
        day, *values = line.replace(",", "").split()
        rows[int(day)] = [float(value.rstrip("%")) for value in values]
    return lines[start].split(), rows


def close_on(csv, day):
    return pd.read_csv(csv).set_index("date")["close"][day]


@BOTH
def test_forecast_writes_paths_quantiles_and_a_fan_chart(stonk, gpt_folder, market_csv, tmp_path, patch):
    from PIL import Image

    out = stonk("forecast", "--model", gpt_folder(patch), "--csv", market_csv, "--horizon", 7, "--paths", 200,
                "--context-len", 24, "--out", tmp_path / "f")  # fmt: skip
    now = close_on(market_csv, "2021-11-30")
    assert f"COIN after 2021-11-30, close {now:,.6g}: 200 paths of 7 days" in out
    lines = (tmp_path / "f" / "paths.csv").read_text().splitlines()
    assert lines[:2] == ["# prices after 2021-11-30", "path," + ",".join(f"day_{day}" for day in range(1, 8))]
    table = pd.read_csv(tmp_path / "f" / "paths.csv", comment="#")
    assert list(table["path"]) == list(range(1, 201))
    prices = table.drop(columns="path").to_numpy()
    assert prices.shape == (200, 7) and (prices > 0).all() and len(np.unique(prices[:, 6])) > 50
    heading, rows = quantile_rows(out)
    assert heading == "day ahead 5% 25% 50% 75% 95% above now".split() and list(rows) == [1, 2, 5, 7]
    for day, values in rows.items():
        ahead = prices[:, day - 1]
        assert values[:5] == pytest.approx(np.quantile(ahead, [0.05, 0.25, 0.5, 0.75, 0.95]), rel=1e-4)
        assert values[5] == pytest.approx(100 * (ahead > now).mean(), abs=0.51)
    with Image.open(tmp_path / "f" / "fan.png") as picture:
        picture.load()
        assert picture.width > 500 and len(set(picture.convert("L").getdata())) > 20


def test_the_paths_are_the_forecasters_own_from_the_last_close(stonk, forecaster, gpt_folder, market_csv, tmp_path):
    argv = ("forecast", "--model", gpt_folder(), "--csv", market_csv, "--horizon", 4, "--paths", 100,
            "--context-len", 16, "--out", tmp_path / "f")  # fmt: skip
    stonk(*argv, "--seed", 7)
    prices = pd.read_csv(tmp_path / "f" / "paths.csv", comment="#").drop(columns="path").to_numpy()
    paths = forecaster().sample(699, 4, 100, random(7))
    assert prices == pytest.approx(close_on(market_csv, "2021-11-30") * np.exp(paths.cumsum(1)), rel=1e-6)
    stonk(*argv, "--seed", 8)
    other = pd.read_csv(tmp_path / "f" / "paths.csv", comment="#").drop(columns="path").to_numpy()
    assert (other != prices).any()


@BOTH
def test_a_forecast_from_a_past_date_is_that_of_prices_that_end_there(
    stonk, gpt_folder, heavy_tailed, market_csv, write_prices, tmp_path, patch
):
    argv = ("--horizon", 5, "--paths", 100, "--context-len", 16, "--model", gpt_folder(patch))
    past = write_prices(tmp_path / "COIN.csv", heavy_tailed(699)[:660])  # to 2021-10-22
    one = stonk("forecast", "--csv", market_csv, "--date", "2021-10-22", *argv, "--out", tmp_path / "one")
    two = stonk("forecast", "--csv", past, *argv, "--out", tmp_path / "two")
    assert "COIN after 2021-10-22" in one
    assert one.replace("/one/", "/two/") == two
    assert (tmp_path / "one" / "paths.csv").read_text() == (tmp_path / "two" / "paths.csv").read_text()


def test_evaluate_prints_tables_and_writes_them(stonk, gpt_folder, market, market_csv, tmp_path):
    models = (gpt_folder(1, 0), gpt_folder(1, 1))
    out = stonk("forecast", "--evaluate", "true", "--model", *models, "--csv", market_csv, "--paths", 100,
                "--context-len", 16, "--horizons", 5, "--reward_context_len", 16, "--reward_horizon", 4,
                "--reward", "token_acc", "crps", "--out", tmp_path / "e")  # fmt: skip
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert found["series"] == "COIN" and found["models"] == {"seed0": models[0], "seed1": models[1]}
    assert "COIN, validation, 2021-07-01 to 2021-09-30" in out and "COIN, test, 2021-10-01 to 2021-11-30" in out
    assert "1 day ahead, from 61 days" in out and "5 days ahead, from 12 days, every 5" in out
    for split in ("validation", "test"):
        bits = {one["name"]: one for one in found[f"bits_{split}"]}
        assert list(bits) == ["unigram", "bigram", "seed0", "seed1"]
        assert bits["seed0"]["minus_before"] is None
        difference = bits["seed1"]["mean"]["value"] - bits["seed0"]["mean"]["value"]
        assert bits["seed1"]["minus_before"]["value"] == pytest.approx(difference)
        assert bits["seed1"]["mean"]["ci95"][0] < bits["seed1"]["mean"]["value"] < bits["seed1"]["mean"]["ci95"][1]
    assert set(found["rewards"]) == {"token_acc", "crps"}
    assert all([one["name"] for one in earned] == ["seed0", "seed1"] for earned in found["rewards"].values())
    model = load_gpt(models[0])
    tokens = torch.from_numpy(tokenise(market, _codec_of(models[0])).tokens)
    expected = []
    for place in range(638, 699):
        with torch.inference_mode():
            logits = model(tokens[None, place - 16 : place]).logits[0, -1]
        expected.append(-logits.log_softmax(-1)[tokens[place]].item() / np.log(2))
    assert bits["seed0"]["mean"]["value"] == pytest.approx(np.mean(expected), rel=1e-4)
    names = {"garch-t", "ewma", "historical", "historical-250", "seed0", "seed1"}
    assert [h["days"] for h in found["judgement"]["horizons"]] == [1, 5] and found["judgement"]["test_days"] == 61
    for horizon in found["judgement"]["horizons"]:
        assert set(horizon["scores"]) == names
    assert all(name in out for name in names) and "bits per token" in out and "token_acc: seed1" in out
    assert out.rstrip().endswith(f"saved {tmp_path / 'e'}/evaluation.json")


def _codec_of(folder):
    from stonk_trainer.tasks.btc.codec import load_codec

    return load_codec(f"{folder}/codec")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "no model: give its folder with --model"),
        (["--model", "nowhere"], "model nowhere not found"),
        (["--model", "nowhere", "--codec", "CODEC"], "model nowhere not found"),
        (["--model", "BARE"], "bare has none: give the folder or .pt file of a codec"),
        (["--model", "GPT", "--codec", "OTHER"], "knows 16 market tokens and the codec has 64 codes"),
        (["--model", "GPT", "GPT"], "model: --evaluate true compares 2 models"),
        (["--model", "GPT", "--date", "2019-12-31"], "date: the prices start after 2019-12-31, on 2020-01-02"),
        (["--model", "GPT", "--date", "yesterday"], "date: yesterday is not a day"),
        (["--model", "GPT", "--paths", "99"], "paths: 99 are too few"),
        (["--model", "GPT", "--horizon", "0"], "horizon: 0 must be at least 1"),
        (["--model", "GPT", "--temperature", "0"], "temperature: 0.0 must be a finite number above 0"),
        (["--model", "GPT", "--context-len", "96"], "context_len: 96 tokens leave no room"),
        (["--model", "GPT", "--train_end", "2021-01-01"], "train_end: 2021-01-01 is not the 2021-06-30"),
        (["--model", "GPT", "--csv", "embedded:markets"], "embedded:markets has 23 series: choose one with --tickers"),
        (["--model", "GPT", "--csv", "nowhere.csv"], "nowhere.csv not found"),
        (["--model", "GPT", "--pths", "500"], "unknown flag --pths; did you mean paths?"),
        (["--model", "GPT", "--reward", "sharpe"], "reward: sharpe is not one of token_acc"),
        (["--model", "GPT", "--evaluate", "true", "--test_start", "2021-09-30"], "is not after 2021-09-30, where"),
        (["--model", "GPT", "--evaluate", "true", "--test_start", "2021-11-15"], "COIN has 16 days from 2021-11-15"),
        (["--model", "GPT", "--evaluate", "true", "--test_end", "2021-10-20"], "with at least 30 days of test"),
        (["--model", "GPT", "--evaluate", "true", "--test_start", "2023-01-01"], "COIN has 0 days from 2023-01-01"),
    ],
)
def test_a_forecast_that_cannot_be_ends_in_one_line(
    refused, gpt_folder, random_codec, market_csv, tmp_path, keys, says
):
    shutil.copytree(gpt_folder(), tmp_path / "bare", ignore=shutil.ignore_patterns("codec"))
    random_codec().save_pretrained(tmp_path / "codec")
    random_codec("vq", 1, 64).save_pretrained(tmp_path / "other")
    places = {"GPT": gpt_folder(), "BARE": tmp_path / "bare", "CODEC": tmp_path / "codec", "OTHER": tmp_path / "other"}
    csv = () if "--csv" in keys else ("--csv", market_csv)
    words = [places.get(word, word) for word in keys]
    context = () if "--context-len" in keys else ("--context-len", 16)
    err = refused("forecast", *words, *csv, *context, "--out", tmp_path / "out")
    assert says in err
    assert not list((tmp_path / "out").glob("*"))


def test_a_price_series_with_no_day_of_training_is_refused(refused, gpt_folder, heavy_tailed, write_prices, tmp_path):
    csv = write_prices(tmp_path / "COIN.csv", heavy_tailed(200), start="2021-07-15")
    assert "COIN has 0 returns up to 2021-06-30" in refused("forecast", "--model", gpt_folder(), "--csv", csv)


def test_samples_as_text_are_read_back_by_the_rewards(gpt_folder, forecaster):
    """What GRPO hands to a reward, a decoded completion, is the tokens that were sampled."""
    from stonk_trainer.models.loading import load_tokenizer
    from stonk_trainer.tasks.btc.rewards import read_samples

    tokens = sample_paths(load_gpt(gpt_folder()), torch.tensor([[1, 2, 3]]), 6, 5, 16)[0]
    tokenizer = load_tokenizer(gpt_folder())
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert texts[0] == to_text(tokens[0].tolist())
    assert (read_samples(texts, 6) == tokens.numpy()).all()


def test_a_codec_with_other_codes_than_the_models_own_is_refused(
    refused, gpt_folder, random_codec, market_csv, tmp_path
):
    """As many codes are not the same codes: the tokens would decode to other returns."""
    other = copy.deepcopy(random_codec())
    other.set_codebook(other.quantizer.codebook.flip(0), torch.ones(16))
    other.save_pretrained(tmp_path / "other")
    says = "was trained on the tokens of another codec"
    keys = ("--csv", market_csv, "--context-len", 16)
    assert says in refused("forecast", "--model", gpt_folder(), "--codec", tmp_path / "other", *keys)
    second = shutil.copytree(gpt_folder(), tmp_path / "second")
    other.save_pretrained(second / "codec")
    assert says in refused("forecast", "--model", gpt_folder(), second, "--evaluate", "true", *keys)
    rl = ("grpo", "--config", "btc/rl", "--in", gpt_folder(), "--codec", tmp_path / "other", "--out", tmp_path / "rl")
    assert says in refused(*rl, "--csv", market_csv, "--context-len", 16, "--horizon", 4, "--steps", 1)
    assert not (tmp_path / "rl").exists()


def test_a_codec_with_other_dates_than_the_models_own_is_refused(
    refused, gpt_folder, random_codec, market_csv, tmp_path
):
    """A later train_end would train on days that the model's earlier stages are judged on."""
    other = copy.deepcopy(random_codec())
    other.config.train_end = "2021-01-31"
    other.save_pretrained(tmp_path / "other")
    rl = ("grpo", "--config", "btc/rl", "--in", gpt_folder(), "--codec", tmp_path / "other", "--out", tmp_path / "rl")
    assert "codec: its train_end is 2021-01-31" in refused(
        *rl, "--csv", market_csv, "--context-len", 16, "--horizon", 4
    )


def test_a_forecast_of_days_the_model_has_learnt_from_says_so(stonk, gpt_folder, market_csv, tmp_path):
    keys = ("forecast", "--model", gpt_folder(), "--csv", market_csv, "--context-len", 16, "--out", tmp_path)
    assert "is memory" in stonk(*keys, "--date", "2021-03-01")
    assert "is memory" not in stonk(*keys)


def test_the_days_of_a_forecast_are_the_seriess_own_then_the_next_ones():
    coins = np.arange("2024-01-01", "2024-01-11", dtype="datetime64[D]")
    assert str(with_days_after(coins, 8, 4)[-1]) == "2024-01-12"  # two days that are known, two that are not
    shares = coins[np.is_busday(coins)]
    assert [str(day) for day in with_days_after(shares, len(shares), 3)[-3:]] == [
        "2024-01-11",
        "2024-01-12",
        "2024-01-15",
    ]


def test_an_earlier_forecast_in_the_same_folder_is_kept(stonk, gpt_folder, market_csv, tmp_path):
    command = ["forecast", "--model", str(gpt_folder()), "--csv", str(market_csv), "--paths", "100"]
    command += ["--output_dir", str(tmp_path / "f"), "--context_len", "16", "--horizon", "3"]
    stonk(*command)
    first = (tmp_path / "f" / "paths.csv").read_text()
    stonk(*command, "--seed", "1")
    assert (tmp_path / "f" / ".previous_run" / "paths.csv").read_text() == first
    assert (tmp_path / "f" / "paths.csv").read_text() != first
