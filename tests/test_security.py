"""Attempts to make a model, a checkpoint, a recipe or data do more than be read, through the commands themselves.

Each attack leaves a mark when it works, and a control shows that it would: the same file, read by what trusts it.
"""

import json
import os
import pickle
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from stonk_trainer import sft
from stonk_trainer.task import market_statistics

pytestmark = pytest.mark.slow

SMALL = ["--dtype", "float32", "--max_steps", "1", "--max_train_samples", "8", "--max_eval_samples", "2"]
SMALL += ["--indicators", "change_1d", "--warmup_steps", "0"]
SFT = ["--config", "stocks/demo/warmup", *SMALL, "--max_length", "1024", "--eval_strategy", "no", "--save_steps", "1"]
SFT += ["--load_best_model_at_end", "false", "--save_strategy", "steps"]


@pytest.fixture
def mark(tmp_path):
    """The file that code touches when it runs."""
    return tmp_path / "code-ran"


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """A CSV of 300 days of prices of two companies."""
    return write_prices(tmp_path_factory.mktemp("prices") / "prices.csv", ["AAA", "BBB"])


def write_prices(path, tickers, days=300, start="2020-01-01"):
    rng = np.random.default_rng(0)
    dates = pd.bdate_range(start, periods=days).strftime("%Y-%m-%d")
    closes = [100 * np.exp(np.cumsum(0.02 * rng.standard_t(4, days))) for _ in tickers]
    frames = [pd.DataFrame({"ticker": t, "date": dates, "close": c}) for t, c in zip(tickers, closes, strict=True)]
    pd.concat(frames).to_csv(path, index=False)
    return path


@pytest.fixture
def market_model(tmp_path):
    """A tiny GPT over market tokens with its codec, both with random weights."""
    from stonk_trainer.tasks.btc.codec import Codec, CodecConfig
    from stonk_trainer.tasks.btc.gpt import new_gpt

    torch.manual_seed(0)
    config = CodecConfig(codebook_size=16, train_end="2020-07-31", validation_end="2020-09-30", num_blocks=1)
    new_gpt(tmp_path / "gpt", 16, hidden_size=16, layers=1, heads=2, positions=64, seed=0)
    Codec(config).save_pretrained(tmp_path / "gpt/codec")
    return tmp_path / "gpt"


# ------------------------------------------------------------------------------------------------- code in a model


SPY = """
from pathlib import Path
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

Path({mark!r}).touch()

class SpyConfig(Qwen2Config):
    model_type = {kind!r}

class SpyForCausalLM(Qwen2ForCausalLM):
    config_class = SpyConfig

class SpyTokenizer(Qwen2Tokenizer):
    pass

def generate(model, *args, **kwargs):
    pass
"""


@pytest.fixture
def with_code(mark, tmp_path):
    """A copy of a model that names Python files of its own, which touch the mark, as its classes."""

    def make(folder, kind):
        copy = shutil.copytree(folder, tmp_path / f"spy-{kind}")
        (copy / "spy.py").write_text(SPY.format(mark=str(mark), kind=kind))
        (copy / "custom_generate").mkdir()
        (copy / "custom_generate/generate.py").write_text(SPY.format(mark=str(mark), kind=kind))
        for file, auto in (
            ("config.json", {"AutoConfig": "spy.SpyConfig", "AutoModelForCausalLM": "spy.SpyForCausalLM"}),
            ("tokenizer_config.json", {"AutoTokenizer": ["spy.SpyTokenizer", None]}),
        ):
            content = json.loads((copy / file).read_text()) | {"auto_map": auto}
            (copy / file).write_text(json.dumps(content | {"model_type": kind} if file == "config.json" else content))
        return copy

    return make


def on(folder, base, tmp_path):
    """A copy of an adapter whose base is `base`."""
    adapter = shutil.copytree(folder, tmp_path / "adapter-on-it")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return adapter


def commands_that_load(model, adapter, out, prices):
    """Every command that loads a model, given this one."""
    few, to, data = ["--max_completion_length", 4], ["--out", out], ["--csv", prices]
    rl = [*SMALL, *few, *data, *to, "--per_device_train_batch_size", 8, "--eval_strategy", "no"]
    rl += ["--load_best_model_at_end", "false"]
    asked = ["--task", "reasoning", "--benchmarks", "r1_arithmetic", "--include_path", "r1/demo/tasks", "--limit", 2]
    prompts = ["--task_mix", "arithmetic:1", "--max_prompts", 2, "--num_generations", 2, "--batch_size", 2]
    return {
        "sft": ["sft", *SFT, *data, *to, "--model", model],
        "grpo": ["grpo", "--config", "stocks/demo/stage1", *rl, "--model", model],
        "grpo of an adapter": ["grpo", "--config", "stocks/demo/stage2", *rl, "--in", adapter],
        "eval": ["eval", "--config", "stocks/demo/eval", *data, *few, *to, "--max_eval_samples", 2, "--models", model],
        "benchmarks": ["eval", *asked, *to, "--batch_size", 2, "--max_gen_toks", 4, "--models", model],
        "check": ["check", "stocks/demo/stage1", *data, *to, "--model", model],
        "sample": ["sample", "--model", model, *prompts, *few, "--out", out / "rows.jsonl"],
        "merge": ["merge", adapter, out / "merged"],
        "gguf": ["merge", model, out / "model.gguf", "--to", "gguf"],
    }


NAMES = list(commands_that_load("", "", Path(), ""))


@pytest.mark.parametrize("command", NAMES)
def test_code_that_comes_with_a_model_is_refused_by_every_command(
    command, refused, with_code, tiny_model_folder, tiny_adapter_folder, prices, mark, tmp_path
):
    model = with_code(tiny_model_folder, "spy")
    adapter = on(tiny_adapter_folder, model, tmp_path)
    said = refused(*commands_that_load(model, adapter, tmp_path / "out", prices)[command])
    assert "brings code of its own" in said and not mark.exists()


def test_code_that_comes_with_a_market_model_is_refused(refused, with_code, market_model, tmp_path, mark):
    prices = write_prices(tmp_path / "prices.csv", ["AAA"])
    model = with_code(market_model, "spy")
    refused(
        "forecast", "--model", model, "--csv", prices, "--context_len", 16, "--paths", 100, "--out", tmp_path / "out"
    )
    assert not mark.exists()


def test_code_beside_a_model_that_transformers_knows_is_left_aside(
    with_code, tiny_model_folder, stonk, mark, tmp_path, prices
):
    model = with_code(tiny_model_folder, "qwen2")
    stonk(*commands_that_load(model, "", tmp_path / "out", prices)["eval"])
    assert (tmp_path / "out/summary.json").is_file() and not mark.exists()


@pytest.mark.parametrize("command", ["sft", "eval", "sample"])
def test_a_chat_template_cannot_reach_python(command, refused, tiny_model_folder, prices, mark, tmp_path):
    from jinja2 import Template

    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    attack = f"{{{{ cycler.__init__.__globals__.os.system('touch {mark}') }}}}"
    (model / "chat_template.jinja").write_text(attack)
    said = refused(*commands_that_load(model, "", tmp_path / "out", prices)[command])
    assert "chat template" in said and not mark.exists()
    Template(attack).render()  # it would have, outside of the sandbox of Transformers
    assert mark.exists()


def test_the_same_code_runs_where_its_flag_is_given(
    with_code, tiny_model_folder, stonk, prices, mark, tmp_path, monkeypatch
):
    """Which shows that the attack above is one."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = with_code(tiny_model_folder, "spy")
    stonk("sft", *SFT, "--csv", prices, "--model", model, "--out", tmp_path / "out", "--trust_remote_code", "true")
    assert mark.exists() and (tmp_path / "out/best_model/model.safetensors").is_file()


# ------------------------------------------------------------------------------------------------- pickles


class Evil:
    """Unpickled, it touches a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_the_pickle_of_these_tests_would_run(mark):
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


@pytest.mark.parametrize("command", ["eval", "sample", "merge"])
def test_weights_in_a_pickle_that_runs_code_run_none(
    command, refused, tiny_model_folder, tiny_adapter_folder, prices, mark, tmp_path
):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Evil(mark)}, model / "pytorch_model.bin")
    adapter = on(tiny_adapter_folder, model, tmp_path)
    said = refused(*commands_that_load(model, adapter, tmp_path / "out", prices)[command])
    assert "a pickle in it" in said and str(model) in said and not mark.exists()


def test_an_adapter_in_a_pickle_that_runs_code_runs_none(refused, tiny_adapter_folder, mark, tmp_path):
    adapter = shutil.copytree(tiny_adapter_folder, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weight": Evil(mark)}, adapter / "adapter_model.bin")
    assert f"{adapter} is refused" in refused("merge", adapter, tmp_path / "merged") and not mark.exists()


def test_a_market_model_and_a_codec_in_a_pickle_run_none(refused, market_model, tmp_path, mark):
    forecast = [
        "forecast",
        "--csv",
        write_prices(tmp_path / "prices.csv", ["AAA"]),
        "--context_len",
        16,
        "--out",
        tmp_path / "o",
    ]
    torch.save({"state_dict": Evil(mark)}, tmp_path / "codec.pt")
    assert "codec.pt is refused" in refused(*forecast, "--model", market_model, "--codec", tmp_path / "codec.pt")
    (market_model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Evil(mark)}, market_model / "pytorch_model.bin")
    assert "a pickle in it" in refused(*forecast, "--model", market_model)
    assert not mark.exists()


@pytest.fixture(scope="module")
def checkpoint(tiny_model_folder, prices, tmp_path_factory):
    """A checkpoint of a real run, after one step."""
    out = tmp_path_factory.mktemp("run") / "run"
    sft.main([*SFT, "--csv", str(prices), "--model", str(tiny_model_folder), "--out", str(out)])
    return out / "checkpoint-1"


@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "extra_state_0.pt", "adapter_model.bin"]
)
def test_a_checkpoint_whose_states_would_run_code_runs_none(
    file, checkpoint, tiny_model_folder, prices, mark, tmp_path, capsys
):
    """Transformers resumes from each of these files; training_args.bin, a pickle too, is never read."""
    copy = shutil.copytree(checkpoint, tmp_path / "run/checkpoint-1")
    (copy / "checksums.json").unlink(missing_ok=True)  # whoever forges a file forges its checksum
    if file == "adapter_model.bin":
        (copy / "adapter_model.safetensors").unlink()
    else:
        assert (copy / file).is_file()
    torch.save({"state": Evil(mark)}, copy / file)
    torch.save(Evil(mark), copy / "training_args.bin")
    argv = [*SFT, "--csv", prices, "--model", tiny_model_folder, "--out", tmp_path / "run", "--max_steps", 2]
    with pytest.raises((SystemExit, pickle.UnpicklingError)):
        sft.main([*map(str, argv), "--resume_from_checkpoint", str(copy)])
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("command", ["sft", "grpo", "eval", "sample", "forecast", "codec train", "codec encode"])
def test_a_recipe_that_names_a_python_object_is_one_line_and_makes_none(command, refused, mark, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: stocks\nmodel_name_or_path: !!python/object/apply:os.system ['touch {mark}']\n")
    said = refused(*command.split(), "--config", recipe)
    assert "is not valid YAML" in said and "python/object/apply:os.system" in said and not mark.exists()
    yaml.unsafe_load(recipe.read_text())  # it would have
    assert mark.exists()


def test_the_recipe_of_a_run_that_names_a_python_object_is_told_as_text(stonk, tiny_model_folder, mark, tmp_path):
    """What a report and a model card are made from."""
    run = tmp_path / "run"
    shutil.copytree(tiny_model_folder, run / "best_model")
    (run / "recipe.yaml").write_text(f"# stonk sft\na: !!python/object/apply:os.system [touch {mark}]\n")
    (run / "run.json").write_text("{}")
    stonk("report", run)
    stonk("push", run, "me/x", "--dry_run")
    assert "python/object" in (run / "report/report.html").read_text() and not mark.exists()


# ------------------------------------------------------------------------------------------------- names from data


@pytest.fixture
def hostile(tmp_path):
    """Tickers that lead out of a folder, start HTML, formulas, the markup of the terminal, or a line."""
    away = "/[/b]$\\frac{1$<script>x</script>{{ 7*7 }}"
    return [f"../../up{away}", f"{tmp_path}/absolute{away}"]


def files_under(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_tickers_name_no_file_and_run_nothing_in_evaluation_and_report(stonk, tiny_model_folder, hostile, tmp_path):
    prices, out = write_prices(tmp_path / "prices.csv", hostile), tmp_path / "a/b/run"
    before = files_under(tmp_path) | {"a", "a/b", "a/b/run"}
    keys = ["--csv", prices, "--max_eval_samples", 8, "--max_completion_length", 4, "--dtype", "float32"]
    stonk("eval", "--config", "stocks/demo/eval", *keys, "--models", tiny_model_folder, "--audit", "true", "--out", out)
    stonk("report", out)
    assert hostile[0] in (out / "predictions.jsonl").read_text().replace("\\\\", "\\")
    assert {name for name in files_under(tmp_path) - before if not name.startswith("a/b/run/")} == set()
    assert_harmless(out / "report/report.html", shows="<script>x</script>")


def test_tickers_name_no_file_in_forecasts_and_codecs(stonk, market_model, hostile, tmp_path):
    out = tmp_path / "a/b/run"
    one, two = (write_prices(tmp_path / f"{n}.csv", hostile[:n], days=520, start="2019-01-01") for n in (1, 2))
    before = files_under(tmp_path) | {"a", "a/b", "a/b/run"}
    codec = ["--codec", market_model / "codec"]
    forecast = ["forecast", "--model", market_model, "--csv", one, "--context_len", 16, "--paths", 100]
    assert hostile[0] in stonk(*forecast, "--horizon", 3, "--out", out / "forecast")
    judged = ["--evaluate", "true", "--horizons", 2, "--reward_context_len", 8, "--reward_horizon", 4]
    assert "../../up/[/b]" in stonk(*forecast, *judged, "--test_end", "2020-12-15", "--out", out / "judged")
    stonk("codec", "encode", *codec, "--csv", two, "--out", out / "tokens.txt")
    stonk("codec", "inspect", *codec, "--csv", one, "--out", out / "inspect", "--split", "train")
    assert {name for name in files_under(tmp_path) - before if not name.startswith("a/b/run/")} == set()


# ------------------------------------------------------------------------------------------------- the report


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def assert_harmless(page, shows):
    found = Elements(page.read_text())
    assert found.tags & {"script", "iframe", "object", "embed", "svg", "link", "form", "base"} == set()
    assert [name for name, _ in found.attributes if name.startswith("on")] == []
    assert [
        value for name, value in found.attributes if name in ("href", "src") and re.match("(?i)javascript", value)
    ] == []
    assert shows in found.text


def test_everything_a_run_left_is_shown_as_text(stonk, tmp_path):
    """Completions, tickers, dates, evidence, recipe and its values, environment, console, names of models."""
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>{{ 7*7 }}</td>"
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    evidence = {"name": evil, "value": evil, "side": evil, "verdict": evil}
    line = {
        "step": 1,
        "ticker": evil,
        "date": evil,
        "label": "UP",
        "next_return": 0.01,
        "direction": "UP",
        "move": 0.01,
    }
    line |= {
        "confidence": 0.6,
        "grounded": 1,
        "accuracy": 1.0,
        "total": 1.0,
        "evidence": [evidence],
        "invented": [evil],
        "completion": evil,
    }
    (run / "training_log.jsonl").write_text(json.dumps(line) + "\n")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, evil: evil}) + "\n")
    recipe = yaml.safe_dump({"task": "stocks", "model_name_or_path": evil, "reward": [evil], evil: evil})
    (run / "recipe.yaml").write_text(f"# stonk grpo {evil}\n{recipe}")
    data = {"rows_in_split": 1, "rows_drawn": 1, "rows_after_balancing": None, "first": evil, "last": evil}
    record = {"command": evil, "trainer": "grpo", "task": "stocks", "stage": evil, "model": evil}
    record["rewards"] = ["accuracy"]
    record |= {"started": evil, "ended": evil, "milestone": {"reached": False, "reason": evil}}
    record |= {"data": {evil: data | {"share_up": None, "dropped": {evil: 3}}}}
    record |= {"environment": {"platform": evil, "packages": {evil: evil}}}
    (run / "run.json").write_text(json.dumps(record))
    statistics = market_statistics([line])
    market = {"overall": statistics, "window": {"size": 1, **statistics}}
    (run / "market_stats.json").write_text(json.dumps(market))
    milestone = {"step": evil, "thresholds": {evil: 1.0}, "evaluations": [{"step": evil, "means": {evil: 1.0}}]}
    (run / "milestone.json").write_text(json.dumps(milestone))
    (run / "training.log").write_text(f"2026-01-01 00:00:00,000 INFO milestone not reached: {evil}\n")
    model = {"n": 9, "reward_mean": 0.5, "reward_mean_ci95": None}
    model |= {"reward_components": {evil: 0.5}, "reward_components_ci95": {evil: None}}
    summary = {"command": evil, "split": evil, "model": evil, "models": {evil: model, f"{evil}/b": model}}
    summary |= {"differences": [{"model": evil, "against": evil, evil: {"difference": 0.1, "ci95": [0.0, 0.2]}}]}
    (run / "eval/summary.json").write_text(json.dumps(summary | {"reward_weights": {evil: 1.0}}))
    answer = line | {"model": evil, "rewards": {evil: 1.0}}
    (run / "eval/predictions.jsonl").write_text(json.dumps(answer) + "\n")
    stonk("report", run)
    assert_harmless(run / "report/report.html", shows="<script>alert(1)</script>")
    assert "{{ 7*7 }}" in (run / "report/report.html").read_text()  # as it is, not as the template's
