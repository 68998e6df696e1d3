import json

import numpy as np
import pandas as pd
import pytest
import torch

from stonk_trainer.tasks.btc.codec import load_codec
from stonk_trainer.tasks.btc.returns import scale_of
from stonk_trainer.tasks.btc.tokens import range_of, read_tokens, tokenise

pytestmark = pytest.mark.slow

TRAIN_END, VALIDATION_END = "2021-06-30", "2021-09-30"
DATES = ("--train_end", TRAIN_END, "--validation_end", VALIDATION_END)
TINY = "--codebook_size 16 --hidden_size 8 --code_dim 4 --num_blocks 1 --kernel_size 3 --batch_size 4 --steps 5".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, market_csv):
    """The folder `stonk codec train` writes, by patch size: made once."""
    from stonk_trainer.cli import main

    made = {}

    def make(patch=1):
        if patch not in made:
            made[patch] = str(tmp_path_factory.mktemp("codec") / f"patch{patch}")
            out = ("--out", made[patch], "--patch_size", str(patch))
            main(["codec", "train", "--csv", market_csv, *DATES, *TINY, *out])
        return made[patch]

    return make


# ------------------------------------------------------------------------------------------------- train


def test_train_writes_a_codec_that_knows_its_dates_and_its_baseline(stonk, market_csv, tmp_path):
    out = stonk("codec", "train", "--csv", market_csv, *DATES, *TINY, "--out", tmp_path / "codec")
    assert "546 returns of 1 series up to 2021-06-30" in out
    assert "as k-means: validation error 0." in out and "step 5/5  loss" in out and "kept: validation error 0." in out
    assert out.rstrip().endswith(f"saved {tmp_path / 'codec'}")
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "codec").iterdir()}
    config = load_codec(tmp_path / "codec").config
    assert (config.train_end, config.validation_end, config.hidden_size) == (TRAIN_END, VALIDATION_END, 8)
    assert np.array(config.kmeans_centres).shape == (16, 1)
    assert 14 <= config.codes_used <= 16 and config.perplexity >= 0.4 * 16


def test_what_is_kept_is_no_worse_than_the_kmeans_it_began_with(stonk, market_csv, tmp_path):
    out = stonk("codec", "train", "--csv", market_csv, *DATES, *TINY, "--steps", 30, "--out", tmp_path / "codec")
    errors = {line.split(":")[0]: float(line.split("validation error ")[1].split()[0])
              for line in out.splitlines() if "validation error" in line and "step" not in line}  # fmt: skip
    assert errors["kept"] <= errors["as k-means"] < 1


def test_prices_after_validation_end_change_no_weight(stonk, trained, heavy_tailed, write_prices, tmp_path):
    returns = heavy_tailed(699)
    returns[638:] *= -20
    csv = write_prices(tmp_path / "COIN.csv", returns)
    stonk("codec", "train", "--csv", csv, *DATES, *TINY, "--out", tmp_path / "codec")
    one, two = load_codec(trained()).state_dict(), load_codec(tmp_path / "codec").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_series_too_young_is_left_out_with_a_warning(stonk, heavy_tailed, write_prices, tmp_path):
    folder = tmp_path / "prices"
    folder.mkdir()
    write_prices(folder / "OLD.csv", heavy_tailed(699))
    write_prices(folder / "YOUNG.csv", heavy_tailed(200), start="2021-06-10")
    out = stonk("codec", "train", "--csv", folder, *DATES, *TINY, "--steps", 0, "--out", tmp_path / "codec")
    assert "left out, with fewer than 30 days up to 2021-06-30: YOUNG" in out
    assert "546 returns of 1 series" in out


def test_recipe_and_flags_go_together(stonk, market_csv, tmp_path):
    stonk("codec", "train", "--config", "btc/codec", "--csv", market_csv, *DATES, *TINY, "--steps", 0,
          "--quantizer", "kmeans", "--out", tmp_path / "codec")  # fmt: skip
    config = load_codec(tmp_path / "codec").config
    assert (config.quantizer, config.train_end, config.codebook_size) == ("kmeans", TRAIN_END, 16)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["--codebok_size", "16"], "unknown flag --codebok_size; did you mean codebook_size?"),
        (["--patchsize", "2"], "did you mean patch_size?"),
        (["--quantizer", "rvq"], "quantizer"),
        (["--steps", "many"], "steps"),
        (["--train_end", "June"], "train_end: June is not a day"),
        (["--validation_end", "2021-06-30"], "validation_end: 2021-06-30 must come after train_end"),
        (["--train_end", "2020-01-20"], "codes need at least 32 patches of 1 days before train_end, there are 0"),
        (["--validation_end", "2021-07-02", "--patch_size", "3"], "validation_end: no series has the 3 days"),
        (["--codebook_size", "300"], "codes need at least 600 patches of 1 days before train_end, there are 546"),
        (["--codebook_size", "1"], "codebook_size: 1 must be at least 2"),
        (["--codebook_size", "17", "--quantizer", "fsq"], "codebook_size: 17 is not a product of levels"),
        (["--patch_size", "5"], "patch_size: 5 days do not fit code_dim 4"),
        (["--patch_size", "9", "--code_dim", "9"], "patch_size: 9 days do not fit code_dim 9 or hidden_size 8"),
        (["--patch_size", "0"], "patch_size: 0 must be at least 1"),
        (["--num_blocks", "0"], "num_blocks: 0 must be at least 1"),
        (["--steps", "-1"], "steps: -1 must be"),
        (["--csv", "nowhere.csv"], "nowhere.csv not found"),
        (["--tickers", "ETH"], "has no ticker ETH; it has COIN"),
    ],
)
def test_training_that_cannot_be_ends_in_one_line(refused, market_csv, tmp_path, keys, says):
    err = refused("codec", "train", "--csv", market_csv, *DATES, *TINY, "--out", tmp_path / "codec", *keys)
    assert says in err
    assert not (tmp_path / "codec").exists()


def test_training_without_dates_is_refused(refused, market_csv):
    for dates in ((), DATES[:2], DATES[2:]):
        assert "train_end and validation_end are missing" in refused("codec", "train", "--csv", market_csv, *dates)


# ------------------------------------------------------------------------------------------------- encode, decode


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_encode_writes_the_tokens_of_a_split(stonk, trained, market, market_csv, tmp_path, split):
    path = tmp_path / "data" / "tokens.txt"
    out = stonk("codec", "encode", "--codec", trained(), "--csv", market_csv, "--out", path, "--split", split)
    codec = load_codec(trained())
    tokenised = tokenise(market, codec)
    ends = range_of(tokenised, codec, split) if split != "all" else (0, 699)
    assert [line.tolist() for line in read_tokens(path, 16)] == [tokenised.tokens[slice(*ends)].tolist()]
    count = {"train": 546, "validation": 92, "test": 61, "all": 699}[split]
    assert out == f"{count} tokens in 1 lines ({split}): {path}\n"


def test_encode_also_writes_series_mirrored_and_calmer(stonk, trained, market, market_csv, tmp_path):
    path, codec = tmp_path / "tokens.txt", load_codec(trained())
    stonk("codec", "encode", "--codec", trained(), "--csv", market_csv, "--out", path, "--mirrored", "true",
          "--scales", "0.5", "1")  # fmt: skip
    expected = [tokenise(market, codec, factor).tokens[:546].tolist() for factor in (0.5, -0.5, 1, -1)]
    assert [line.tolist() for line in read_tokens(path, 16)] == expected
    assert len({tuple(line) for line in expected}) == 4


@pytest.mark.parametrize("patch", [1, 4])
def test_decoding_what_was_encoded_gives_the_series_as_the_codec_keeps_it(stonk, trained, market, tmp_path, patch,
                                                                          market_csv):  # fmt: skip
    tokens, out = tmp_path / "tokens.txt", tmp_path / "new" / "decoded.csv"
    codec = load_codec(trained(patch))
    scale = scale_of(market, TRAIN_END)
    stonk("codec", "encode", "--codec", trained(patch), "--csv", market_csv, "--out", tokens, "--split", "all")
    stonk("codec", "decode", "--codec", trained(patch), "--data", tokens, "--out", out, "--scale", scale)
    frame = pd.read_csv(out)
    count = 699 // patch * patch
    assert list(frame["series"]) == [1] * count and list(frame["day"]) == list(range(1, count + 1))
    tokenised = tokenise(market, codec)
    expected = codec.decode(torch.from_numpy(tokenised.tokens)[None])[0].double().numpy() * scale
    assert frame["log_return"].to_numpy() == pytest.approx(expected, rel=1e-6)
    truth = tokenised.returns.ravel()
    assert np.square(frame["log_return"] - truth).mean() < {1: 0.1, 4: 0.7}[patch] * truth.var()


def test_decode_numbers_series_by_their_line(stonk, trained, tmp_path):
    (tmp_path / "tokens.txt").write_text("1 2 3\n4\n")
    out = stonk("codec", "decode", "--codec", trained(), "--data", tmp_path / "tokens.txt", "--out", tmp_path / "d.csv")
    frame = pd.read_csv(tmp_path / "d.csv")
    assert list(zip(frame["series"], frame["day"], strict=True)) == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert out == f"4 returns of 2 series in {tmp_path / 'd.csv'}\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["encode", "--codec", "nowhere"], "codec nowhere not found"),
        (
            ["encode", "--codec", "CODEC", "--csv", "CSV", "--train_end", "2021-01-01"],
            "train_end: 2021-01-01 is not the",
        ),
        (["encode", "--codec", "CODEC", "--csv", "CSV", "--scales", "0"], "scales: 0.0 must be numbers above 0"),
        (["encode", "--codec", "CODEC", "--csv", "CSV", "--split", "dev"], "split"),
        (["encode", "--codec", "CODEC", "--csv", "CSV", "--splt", "all"], "did you mean split?"),
        (["encode", "--codec", "PT", "--csv", "CSV"], "train_end: codec"),
        (["decode", "--codec", "CODEC", "--data", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["decode", "--codec", "CODEC", "--data", "CSV"], "line 1: 'date,close' is not a token"),
        (["decode", "--codec", "CODEC", "--data", "CSV", "--scale", "0"], "scale: 0.0 must be above 0"),
        (["inspect", "--codec", "CODEC", "--csv", "CSV", "--split", "all"], "split"),
        (["inspect", "--codec", "CODEC", "--csv", "embedded:markets"], "tickers: 23 series: look at one"),
        (["inspect", "--codec", "CODEC", "--csv", "SHORT"], "COIN has 0 tokens in test and 546 in train: too few"),
        (["transcode"], "stonk codec transcode: no such command: the commands are train, encode, decode, inspect"),
    ],
)
def test_use_that_cannot_be_ends_in_one_line(
    refused, trained, market_csv, heavy_tailed, write_prices, tmp_path, argv, says
):
    torch.save(load_codec(trained()).state_dict(), tmp_path / "codec.pt")
    short = write_prices(tmp_path / "COIN.csv", heavy_tailed(699)[:638])
    places = {"CODEC": trained(), "CSV": market_csv, "PT": tmp_path / "codec.pt", "SHORT": short}
    out = () if argv[0] == "transcode" else ("--out", tmp_path / "out")
    assert says in refused("codec", *(places.get(word, word) for word in argv), *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "encode", "decode", "inspect"])
def test_a_place_that_cannot_be_written_is_refused(refused, trained, market_csv, tmp_path, command):
    """A folder where a file has to be, a file where a folder has to be."""
    (tmp_path / "file").write_text("1 2 3\n")
    (tmp_path / "folder").mkdir()
    argv = {
        "train": ["--csv", market_csv, *DATES, *TINY, "--out", "file"],
        "encode": ["--codec", trained(), "--csv", market_csv, "--out", "folder"],
        "decode": ["--codec", trained(), "--data", tmp_path / "file", "--out", "folder"],
        "inspect": ["--codec", trained(), "--csv", market_csv, "--out", "file"],
    }[command]
    key = "out" if command in ("encode", "decode") else "output_dir"
    err = refused("codec", command, *argv[:-1], tmp_path / argv[-1])
    assert err.startswith(f"error: {key}: ") and str(tmp_path / argv[-1]) in err
    below = refused("codec", command, *argv[:-1], tmp_path / "file" / "below")
    assert below.startswith(f"error: {key}: ")
    assert (tmp_path / "file").read_text() == "1 2 3\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_series_that_starts_after_train_end_is_left_out_of_the_tokens(
    stonk, refused, trained, heavy_tailed, write_prices, tmp_path
):
    folder = tmp_path / "prices"
    folder.mkdir()
    write_prices(folder / "NEW.csv", heavy_tailed(100), start="2021-07-10")
    argv = ("codec", "encode", "--codec", trained(), "--csv", folder, "--out", tmp_path / "tokens.txt")
    assert "NEW has 0 returns up to 2021-06-30" in refused(*argv)
    write_prices(folder / "OLD.csv", heavy_tailed(699))
    out = stonk(*argv, "--mirrored", "true")
    assert "left out: NEW has 0 returns" in out and "1092 tokens in 2 lines (train)" in out


# ------------------------------------------------------------------------------------------------- inspect


@pytest.mark.parametrize("patch", [1, 4])
def test_inspect_measures_what_is_lost(stonk, trained, market, market_csv, tmp_path, patch):
    from PIL import Image

    out = stonk("codec", "inspect", "--codec", trained(patch), "--csv", market_csv, "--out", tmp_path / "i")
    found = json.loads((tmp_path / "i" / "inspect.json").read_text())
    codec, scale = load_codec(trained(patch)), scale_of(market, TRAIN_END)
    tokenised = tokenise(market, codec)
    in_test = tokenised.dates.astype(str) > VALIDATION_END
    before = tokenised.returns[in_test].ravel()
    decoded = codec.decode(torch.from_numpy(tokenised.tokens)[None])[0].double().numpy() * scale
    after = decoded.reshape(-1, patch)[in_test].ravel()
    assert found["days"] == len(before) == {1: 61, 4: 64}[patch] and found["bits_per_day"] == 4 / patch
    assert found["normalised_mse"] == pytest.approx(((before - after) ** 2).mean() / before.var())
    centres = scale * np.array(codec.config.kmeans_centres)
    nearest = ((before.reshape(-1, 1, patch) - centres) ** 2).sum(2).min(1).mean() / patch
    assert found["normalised_mse_kmeans"] == pytest.approx(nearest / before.var(), rel=1e-4)
    assert found["sign_agreement"] == pytest.approx((before * after > 0).mean())
    train = tokenised.tokens[tokenised.dates.astype(str) <= TRAIN_END]
    counts = np.bincount(train, minlength=16)
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * np.log2(shares)).sum()
    assert found["token_entropy_bits"] == pytest.approx(entropy) and found["train_tokens"] == len(train)
    assert found["codes"] == 16 and found["codes_used_here"] == (counts > 0).sum()
    assert found["codes_used"] == codec.config.codes_used and found["perplexity"] == codec.config.perplexity
    for key, returns in (("before", before), ("after", after)):
        size = abs(returns) - abs(returns).mean()
        centred = returns - returns.mean()
        assert found[key] == {
            "sigma": pytest.approx(returns.std()),
            "kurtosis": pytest.approx((centred**4).mean() / returns.std() ** 4 - 3),
            **{
                f"acf_abs_{lag}": pytest.approx((size[lag:] * size[:-lag]).sum() / (size**2).sum())
                for lag in (1, 5, 20)
            },
        }
    table = " ".join(out.split())
    assert f"squared error / variance {found['normalised_mse']:.4f}" in table
    assert f"k-means on the same data {found['normalised_mse_kmeans']:.4f}" in table
    assert f"codes used in training {found['codes_used']} of 16" in table
    with Image.open(tmp_path / "i" / "decoded.png") as picture:
        picture.load()
        assert picture.width > 500 and len(set(picture.convert("L").getdata())) > 20


def test_inspecting_a_bare_state_dict_says_that_kmeans_is_not_known(stonk, trained, market_csv, tmp_path):
    torch.save(load_codec(trained()).state_dict(), tmp_path / "codec.pt")
    out = stonk("codec", "inspect", "--codec", tmp_path / "codec.pt", "--csv", market_csv, *DATES,
                "--split", "validation", "--out", tmp_path / "i")  # fmt: skip
    found = json.loads((tmp_path / "i" / "inspect.json").read_text())
    assert "k-means on the same data not known" in " ".join(out.split()) and found["normalised_mse_kmeans"] is None
    assert found["codes_used"] == found["codes_used_here"] > 10
    assert found["perplexity"] == pytest.approx(2 ** found["token_entropy_bits"]) and found["days"] == 92


def test_help_names_every_key_and_an_example(stonk, capsys):
    assert "stonk codec {train,encode,decode,inspect}" in stonk("codec")
    for command, key in (("train", "codebook_size"), ("encode", "mirrored"), ("decode", "scale"), ("inspect", "split")):
        with pytest.raises(SystemExit) as end:
            stonk("codec", command, "--help")
        out = capsys.readouterr().out
        assert not end.value.code and f"--{key}" in out and f"example: stonk codec {command} --" in out
