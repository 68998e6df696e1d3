"""What the tests of the path from prices to forecasts share: a small heavy-tailed market, tiny codecs, tiny GPTs."""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch

TRAIN_END, VALIDATION_END = "2021-06-30", "2021-09-30"  # 546 and 92 days of the market, and 61 of test
DAYS = 699  # returns


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def heavy_tailed():
    """`count` returns, Student-t with calm and wild months, in fractions."""

    def make(count, seed=0):
        rng = np.random.default_rng(seed)
        calm_or_wild = np.exp(0.6 * np.sin(np.arange(count) / 30 + 6 * rng.random()))
        return 0.02 * calm_or_wild * rng.standard_t(4, count)

    return make


@pytest.fixture(scope="session")
def write_prices():
    """Write a CSV of daily closes, from `start` on, that have these returns."""

    def write(path, returns, start="2020-01-01"):
        closes = 100 * np.exp(np.concatenate([[0], np.cumsum(returns)]))
        days = pd.date_range(start, periods=len(closes)).strftime("%Y-%m-%d")
        pd.DataFrame({"date": days, "close": closes}).to_csv(path, index=False)
        return str(path)

    return write


@pytest.fixture(scope="session")
def market_csv(tmp_path_factory, heavy_tailed, write_prices):
    """Prices from 2020-01-01 to 2021-11-30, a return on every day after the first."""
    return write_prices(tmp_path_factory.mktemp("market") / "COIN.csv", heavy_tailed(DAYS))


@pytest.fixture(scope="session")
def market(market_csv):
    from stonk_trainer.tasks.btc.returns import load_series

    return load_series(market_csv)[0]


@pytest.fixture(scope="session")
def random_codec():
    """A codec with random weights, where everything depends on all it can see; its codes are codes its encoder gives.

    No training: a trained one starts as the identity, which sees one patch only.
    """
    from stonk_trainer.tasks.btc.codec import Codec, CodecConfig

    @lru_cache
    def make(quantizer="vq", patch_size=1, codebook_size=16):
        torch.manual_seed(patch_size)
        sizes = {"hidden_size": 8, "code_dim": 4, "num_blocks": 2, "kernel_size": 3}
        dates = {"train_end": TRAIN_END, "validation_end": VALIDATION_END}
        config = CodecConfig(patch_size=patch_size, codebook_size=codebook_size, quantizer=quantizer, **sizes, **dates)
        codec = Codec(config).eval()
        with torch.no_grad():
            for parameter in codec.parameters():
                parameter.mul_(2)
            if quantizer == "fsq":
                project, x = codec.quantizer.project_in, codec.encoder(torch.randn(64, 40 * patch_size))[:, -1]
                project.weight.div_(project(x).std(0)[:, None])
                project.bias.sub_(project(x).mean(0))
            else:
                codes = codec.encoder(torch.randn(codebook_size, 40 * patch_size))[:, -1]
                codec.set_codebook(codes, torch.ones(codebook_size))
        return codec

    return make


@pytest.fixture(scope="session")
def gpt_folder(tmp_path_factory, random_codec):
    """A model's folder with a random GPT that is far from uniform, and the codec of its tokens."""
    from transformers import AutoModelForCausalLM

    from stonk_trainer.tasks.btc.gpt import new_gpt

    @lru_cache
    def make(patch_size=1, seed=0, codebook_size=16):
        folder = tmp_path_factory.mktemp("gpt") / f"seed{seed}"
        new_gpt(folder, codebook_size, hidden_size=16, layers=1, heads=2, positions=96, seed=seed)
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.lm_head.weight.mul_(15)
            model.get_input_embeddings().weight.mul_(30)
        model.save_pretrained(folder)
        random_codec("vq", patch_size, codebook_size).save_pretrained(folder / "codec")
        return str(folder)

    return make
