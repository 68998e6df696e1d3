"""What several tests share: a tiny model with a real tokenizer, and data in the deepstock schema."""

import atexit
import datetime
import json
import logging
import os
import random
import shutil
import tempfile

import hypothesis
import pytest
from speaking_models import SPOKEN, speaking_tokenizer, write_speaking_model

# Before anything imports torch or the Hugging Face libraries: no network, and no trace in the user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors: threads would only wait for each other
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="stonk-tests-")
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)

hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def no_handler_outlives_its_test():
    """A command's log writes to the standard output of its own test, which is gone in the next."""
    yield
    logging.getLogger("stonk_trainer").handlers.clear()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The tokenizer of the tiny model."""
    return speaking_tokenizer(SPOKEN.values())


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory, tiny_tokenizer):
    """A model that says UP or DOWN, each half of the time, and stops."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_speaking_model(folder, tiny_tokenizer, SPOKEN.values())
    return folder


@pytest.fixture(scope="session")
def wide_model_folder(tmp_path_factory, tiny_tokenizer):
    """The same at a width that 4-bit blocks of 64 weights fit."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    write_speaking_model(folder, tiny_tokenizer, SPOKEN.values(), width=128)
    return folder


@pytest.fixture(scope="session")
def adding_model_folder(tmp_path_factory):
    """A model that answers a question about a sum with a number from 10 to 40, in the form of the reasoning task."""
    spoken = [f"<think>\nIt adds up to {n}.\n</think>\n\nThe answer is \\boxed{{{n}}}." for n in range(10, 41)]
    folder = tmp_path_factory.mktemp("models") / "adding"
    write_speaking_model(folder, speaking_tokenizer(spoken), spoken)
    return folder


@pytest.fixture(scope="session")
def small_gpt_folder(tmp_path_factory):
    """A GPT with random weights and its codec, which has learnt from days up to June 2018."""
    import torch

    from stonk_trainer.tasks.btc.codec import Codec, CodecConfig
    from stonk_trainer.tasks.btc.gpt import new_gpt

    folder = tmp_path_factory.mktemp("models") / "gpt"
    new_gpt(folder, 16, hidden_size=16, layers=1, heads=2, positions=256, seed=0)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "code_dim": 4, "num_blocks": 1, "kernel_size": 3}
    dates = {"train_end": "2018-06-30", "validation_end": "2018-12-31"}
    Codec(CodecConfig(codebook_size=16, quantizer="vq", **sizes, **dates)).save_pretrained(folder / "codec")
    return folder


@pytest.fixture(scope="session")
def tiny_adapter_folder(tmp_path_factory, tiny_model_folder, tiny_tokenizer):
    """A LoRA on the tiny model whose B is not zero, so that it differs from its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("models") / "adapter"
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trading_days():
    """`count` weekdays from `start` on."""

    def make(count, start="2019-01-02"):
        days, day = [], datetime.date.fromisoformat(start)
        while len(days) < count:
            if day.weekday() < 5:
                days.append(day)
            day += datetime.timedelta(days=1)
        return days

    return make


@pytest.fixture(scope="session")
def deepstock_rows(trading_days):
    """Rows of the deepstock schema: random walks, each row with an open, headlines and last year's financials."""

    def make(tickers=("AAPL", "MSFT"), days=60, seed=0, start="2019-01-02"):
        rows = []
        for number, ticker in enumerate(tickers):
            rng = random.Random(f"{seed}/{ticker}")
            closes = [100.0 * (number + 1)]
            for _ in range(days - 1):
                closes.append(round(closes[-1] * (1 + rng.choice((-1, 1)) * rng.uniform(0.002, 0.03)), 2))
            dates = trading_days(days, start)
            for i, (day, close) in enumerate(zip(dates, closes, strict=True)):
                before = max(i - 1, 0)
                price = {
                    "open": round(close * rng.uniform(0.99, 1.01), 2),
                    "close": close,
                    "open_previous": closes[before],
                    "close_previous": closes[before],
                    "price_date": day.isoformat(),
                    "previous_date": dates[before].isoformat(),
                }
                statement = {
                    "Revenues": str(1_000_000_000 + i),
                    "NetIncomeLoss": -12_340_000 - i,
                    "EPS": 1.5,
                    "Note": "x",
                }
                info = {
                    "ticker": ticker,
                    "current_date": day.isoformat(),
                    "company_info": {
                        "name": f"{ticker.title()} Inc.",
                        "description": f"{ticker.title()} Inc. makes things.",
                    },
                    "news": {
                        "news_headlines": [f"Analysts see item {i}.{k} at {ticker.title()} Inc." for k in range(3)],
                        "news_date": day.isoformat(),
                    },
                    "financials": {"year": str(day.year - 1), "financials": json.dumps(statement)},
                    "price": price,
                }
                rows.append({"ticker": ticker, "company_info": info, "user_prompt": f"UPSTREAM close {close}"})
        return rows

    return make


@pytest.fixture
def write_rows(tmp_path):
    """Write rows to a new file: parquet, JSONL, or a folder of JSONL parts. Each call gives another path."""
    written = []

    def write(rows, suffix=".parquet"):
        from datasets import Dataset

        written.append(None)
        path = tmp_path / f"rows-{len(written)}{suffix}"
        if suffix == ".parquet":
            Dataset.from_list(rows).to_parquet(path)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.mkdir()
            half = len(rows) // 2
            for part, some in enumerate((rows[:half], rows[half:])):
                (path / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        return str(path)

    return write


@pytest.fixture
def write_csv(tmp_path):
    """Write price rows (ticker, date, close) to a new CSV."""
    written = []

    def write(rows, header="ticker,date,close"):
        written.append(None)
        path = tmp_path / f"prices-{len(written)}.csv"
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
        return str(path)

    return write


@pytest.fixture
def stonk(capsys):
    """Run a command as from the shell; returns what it prints."""
    from stonk_trainer.cli import main

    def run(*argv):
        capsys.readouterr()
        main([str(word) for word in argv])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """Run a command that must end in one line on stderr and exit status 2; returns that line."""
    from stonk_trainer.cli import main

    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in argv])
        err = capsys.readouterr().err
        assert end.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        return err

    return run
