"""Merging to a folder and to GGUF, and pushing to the Hub."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gguf
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stonk_trainer.errors import UserError
from stonk_trainer.publish import card, export
from stonk_trainer.recipe import load_recipe
from stonk_trainer.training import callbacks

IDS = torch.arange(5, 45).unsqueeze(0)
TEXTS = ["Close: $10.00 <|im_end|>\n  123 it's\t\n\n  naïve 你好 1,234.5%", "<|im_start|>user\nUP or DOWN?<|im_end|>\n"]


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


def load(folder, **how):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how)


# ------------------------------------------------------------------------------------------------------- merge


def test_an_adapter_becomes_a_full_folder(stonk, tiny_adapter_folder, tmp_path):
    assert str(tmp_path / "merged") in stonk("merge", tiny_adapter_folder, tmp_path / "merged")
    assert (tmp_path / "merged/config.json").is_file() and not (tmp_path / "merged/adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_an_adapter_as_gguf_computes_what_its_merged_folder_computes(stonk, tiny_adapter_folder, tmp_path):
    """Read back through Transformers, which takes the weights apart again by llama.cpp's names: bit for bit."""
    stonk("merge", tiny_adapter_folder, tmp_path / "merged")
    stonk("merge", tiny_adapter_folder, tmp_path / "out/model.gguf", "--to", "gguf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]
    read = load(tmp_path / "out", gguf_file="model.gguf")
    assert read.config.model_type == "qwen2"
    assert torch.equal(logits(read), logits(load(tmp_path / "merged")))


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory, tiny_tokenizer):
    """A random Llama with fewer key-value heads than heads, a tied head and more rows than tokens, as SmolLM2 is."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer) + 7,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "llama"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_a_full_llama_in_shards_becomes_gguf(stonk, llama_folder, tmp_path):
    assert len(list(llama_folder.glob("model-*.safetensors"))) > 1
    stonk("merge", llama_folder, tmp_path / "llama.gguf", "--to", "gguf")
    read = load(tmp_path, gguf_file="llama.gguf")
    assert read.config.rope_parameters["rope_theta"] == 50_000 and read.config.tie_word_embeddings
    assert torch.equal(logits(read), logits(load(llama_folder)))


def test_the_tokenizer_of_a_gguf_gives_the_same_tokens(stonk, tiny_model_folder, tiny_tokenizer, tmp_path):
    stonk("merge", tiny_model_folder, tmp_path / "tiny.gguf", "--to", "gguf")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert [read(text)["input_ids"] for text in TEXTS] == [tiny_tokenizer(text)["input_ids"] for text in TEXTS]
    assert read.chat_template == tiny_tokenizer.chat_template
    assert (read.eos_token, read.pad_token) == (tiny_tokenizer.eos_token, tiny_tokenizer.pad_token)


@pytest.mark.parametrize(
    "steps, name",
    [
        ([("ByteLevel", True)], "gpt-2"),
        ([("Digits", True), ("ByteLevel", True)], "smollm"),
        ([("Digits", False), ("ByteLevel", True)], None),
        ([("ByteLevel", False)], None),
    ],
)
def test_how_a_tokenizer_cuts_text_has_llama_cpps_name_or_is_refused(llama_folder, tmp_path, steps, name):
    """SmolLM2's cut, and that of the embedded model, which Transformers takes from its GGUF without the digits.

    Compared by hand with llama.cpp itself (xllamacpp 2026.10.11549, 2026-11-26): in each of the three cuts the tokens
    of six texts and 24 greedy tokens after each are the same, log-probabilities within 0.11, which is bf16's rounding.
    """
    model = shutil.copytree(llama_folder, tmp_path / "model")
    how = {"ByteLevel": {"add_prefix_space": False, "trim_offsets": True}, "Digits": {}}
    flag = {"ByteLevel": "use_regex", "Digits": "individual_digits"}
    cut = [{"type": kind, **how[kind], flag[kind]: on} for kind, on in steps]
    rewrite(model / "tokenizer.json", normalizer=None, pre_tokenizer={"type": "Sequence", "pretokenizers": cut})
    rewrite(model / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    if name is None:
        with pytest.raises(UserError, match="none of gpt-2, smollm, qwen2"):
            export.write_gguf(model, tmp_path / "model.gguf")
        return
    export.write_gguf(model, tmp_path / "model.gguf")
    assert gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.pre"].contents() == name


def rewrite(path, **values):
    """Other values in a JSON file of a model's folder."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
LOWER = {"tokenizer.json": {"normalizer": {"type": "Lowercase"}}}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"config.json": {"hidden_act": "gelu"}}, "hidden_act gelu"),
        ({"config.json": {"rope_parameters": LINEAR}}, "rope_type linear"),
        ({"config.json": {"model_type": "gpt_neox"}}, "is a gpt_neox model"),
        ({"config.json": {"vocab_size": 20}}, "the model 20"),
        (LOWER | {"tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}}, "none of gpt-2, smollm, qwen2"),
    ],
)
def test_a_model_whose_gguf_was_not_compared_is_refused(refused, llama_folder, tmp_path, changes, words):
    model = shutil.copytree(llama_folder, tmp_path / "model")
    for file, values in changes.items():
        rewrite(model / file, **values)
    said = refused("merge", model, tmp_path / "out/model.gguf", "--to", "gguf")
    assert words in said and not list(tmp_path.glob("out/*"))


def test_what_is_there_is_kept_and_wrong_words_are_one_line(refused, tiny_adapter_folder, tiny_model_folder, tmp_path):
    (tmp_path / "old.gguf").write_text("mine")
    assert "exists already" in refused("merge", tiny_model_folder, tmp_path / "old.gguf", "--to", "gguf")
    assert "exists already" in refused("merge", tiny_adapter_folder, tmp_path)
    assert "ends in .gguf" in refused("merge", tiny_adapter_folder, tmp_path / "x.bin", "--to", "gguf")
    assert "is no adapter" in refused("merge", tiny_model_folder, tmp_path / "new")
    assert "not found" in refused("merge", "./nowhere", tmp_path / "new.gguf", "--to", "gguf")
    assert (tmp_path / "old.gguf").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_no_file(tiny_model_folder, tmp_path):
    """The weights end in the middle: what was written so far goes."""
    shutil.copytree(tiny_model_folder, tmp_path / "torn")
    weights = tmp_path / "torn/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        export.write_gguf(tmp_path / "torn", tmp_path / "out/model.gguf")
    assert not list(tmp_path.glob("out/*"))


# ------------------------------------------------------------------------------------------------------- the card


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model_folder):
    """Two stages from Qwen2.5-1.5B-Instruct and an evaluation: real recipes, a real `stonk eval`, a tiny model."""
    from stonk_trainer.evaluation import evaluate

    root = tmp_path_factory.mktemp("home") / "runs"
    stage1, stage2 = root / "stage1", root / "stage2"
    started_from = {stage1: "Qwen/Qwen2.5-1.5B-Instruct", stage2: str(stage1 / "best_model")}
    for number, (folder, model) in enumerate(started_from.items(), start=1):
        flags = ["--model", model, "--out", str(folder), "--hub_token", "hf_secret", "--train_end", "2016-12-31"]
        shutil.copytree(tiny_model_folder, folder / "best_model")
        _, args = load_recipe(["--config", f"stocks/demo/stage{number}", *flags], "grpo")
        args.save(folder)
        callbacks.write_environment(folder, seed=42)
        (folder / "training.log").write_text(
            "2026-11-25 10:00:00,000 INFO train: 256 rows drawn of 9,000 in the split (2003-02-01 to 2016-12-30, "
            f"52.1% UP); source: {root}/prices.csv\n"
        )
        (folder / "metrics.jsonl").write_text('{"step": 10, "loss": 0.1}\n')
        (folder / "checkpoint-10").mkdir()
        (folder / "checkpoint-10/optimizer.pt").write_bytes(b"states")
    few = ["--max_eval_samples", "24", "--max_completion_length", "6", "--dtype", "float32", "--batch_size", "24"]
    models = [str(folder / "best_model") for folder in started_from]
    evaluate.main(["--config", "stocks/demo/eval", "--models", *models, "--out", str(root / "eval"), *few])
    for name in ("training_args.bin", "optimizer.pt", "notes.log"):
        (stage2 / "best_model" / name).write_bytes(b"not for others")
    return root


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_where_the_model_comes_from_and_under_which_licence(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    assert metadata(text) == {
        "base_model": "Qwen/Qwen2.5-1.5B-Instruct",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["stonk-trainer", "grpo", "stocks"],
    }
    for words in ("close to a coin", "investment advice", "1. stage1: reinforcement", "2. stage2: reinforcement"):
        assert words in text
    versions = json.loads((runs / "stage2/environment.json").read_text())["packages"]
    assert f"trl {versions['trl']}" in text and f"transformers {versions['transformers']}" in text
    assert "Training ends 2016-12-31" in text and "2003-02-01 to 2016-12-30, 52.1% UP" in text


def test_the_card_tells_the_results_beside_baselines_with_intervals(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    summary = json.loads((runs / "eval/summary.json").read_text())
    own = summary["models"][str(runs / "stage2/best_model")]
    low, high = own["accuracy_ci95"]
    assert f"| stage2 | {own['accuracy']:.0%} [{low:.0%}, {high:.0%}] |" in text
    for name in ("majority", "prior", "persistence", "logistic", "lightgbm"):
        assert f"| {name} (baseline) | {summary['baselines'][name]['accuracy']:.0%}" in text
    assert "| stage2 − majority | accuracy |" in text and "| stage2 − stage1 | accuracy |" in text
    assert "2 models were judged" in text
    given = str(card.make_card(runs / "stage2/best_model", "me/stage2", runs / "eval"))
    assert given == text


def test_no_path_of_this_machine_and_no_secret_stands_in_the_card(runs):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    assert str(runs) not in text and str(runs.parent) not in text and "hf_secret" not in text
    assert "model_name_or_path: best_model" in text
    recipe = {"source_paths": ["gsm8k=/home/me/gsm8k.parquet"], "data": "~/x/tokens.txt", "codec": "../../y/codec"}
    assert card.without_private(recipe) == {
        "source_paths": ["gsm8k=gsm8k.parquet"], "data": "tokens.txt", "codec": "codec",
    }  # fmt: skip


def test_the_code_of_the_card_runs_and_the_model_answers(runs, capsys):
    text = str(card.make_card(runs / "stage2/best_model", "me/stage2"))
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'model="me/stage2"' in code
    exec(code.replace("me/stage2", str(runs / "stage2/best_model")), {})
    assert "Prediction: " in capsys.readouterr().out


def test_a_model_without_results_or_recipe_says_so(tiny_model_folder, tmp_path, runs):
    alone = shutil.copytree(tiny_model_folder, tmp_path / "a/b/model")
    text = str(card.make_card(alone, "me/alone"))
    assert "nothing is known of how good it is" in text and "not recorded" in text
    assert "No licence is stated here" in text and "license" not in metadata(text)
    with pytest.raises(UserError, match="judges no model"):
        card.make_card(alone, "me/alone", runs / "eval")
    with pytest.raises(UserError, match="is no folder"):
        card.make_card(alone, "me/alone", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "files, licence",
    [
        ({"README.md": "---\nlicense: llama3.2\n---\nx"}, "llama3.2"),
        ({"LICENSE": "Apache License\nVersion 2.0, January 2004"}, "apache-2.0"),
        ({"README.md": "no metadata", "LICENSE": "All rights reserved."}, None),
        ({"README.md": "---\nlicense: [\n---\n"}, None),
    ],
)
def test_the_licence_of_a_local_base_is_read_from_its_folder(tiny_model_folder, tmp_path, files, licence):
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    for name, text in files.items():
        (base / name).write_text(text)
    model = shutil.copytree(tiny_model_folder, tmp_path / "run/best_model")
    (tmp_path / "run/recipe.yaml").write_text(f"# stonk sft, as resolved from: x\nmodel_name_or_path: {base}\n")
    assert card.licence_of(card.origin_of(model)) == licence


def test_the_results_of_the_other_tasks_are_told_with_their_errors(tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "runs/rl/best_model")
    (model.parent / "recipe.yaml").write_text("# stonk grpo, as resolved from: x\ntask: reasoning\n")
    told = {"gsm8k": {"questions": 100, "exact_match": 0.5, "exact_match_stderr": 0.05}}
    (tmp_path / "runs/eval").mkdir()
    (tmp_path / "runs/eval/results.json").write_text(json.dumps({"runs/rl/best_model": told}))
    assert "| rl | gsm8k | exact_match | 50.0 ± 5.0 | 100 |" in str(card.make_card(model, "me/rl"))

    score = {"value": 1.9, "ci95": [1.8, 2.0]}
    scores = {"garch-t": {"crps": score, "difference": None, "coverage": {"90": {"value": 0.88, "ci95": None}}}}
    scores |= {"rl": scores["garch-t"] | {"difference": {"value": 0.05, "ci95": [-0.01, 0.1]}}}
    judged = {"reference": "garch-t", "horizons": [{"days": 1, "origins": 381, "scores": scores}]}
    content = {"series": "BTC", "models": {"rl": "runs/rl/best_model"}, "judgement": judged}
    (tmp_path / "runs/eval/results.json").unlink()
    (tmp_path / "runs/eval/evaluation.json").write_text(json.dumps(content))
    (model.parent / "recipe.yaml").write_text("# stonk grpo, as resolved from: x\ntask: btc\n")
    text = str(card.make_card(model, "me/rl"))
    assert "| rl | 1.900 [1.800, 2.000] | 0.050 [−0.010, 0.100] | 0.88 |" in text
    assert "stonk forecast --model rl" in text and metadata(text)["pipeline_tag"] == "time-series-forecasting"


# ------------------------------------------------------------------------------------------------------- push


class FakeHub(BaseHTTPRequestHandler):
    """The part of the Hub's HTTP interface that an upload needs, in this process: it keeps what it is sent."""

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self):
        hub, body = self.server, self.body()
        hub.calls.append(self.path)
        if hub.refuses:
            self.answer({"error": hub.refuses[1]}, hub.refuses[0])
        elif self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self.answer({"url": f"{hub.url}/me/stage2", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/stage2/preupload/main":
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path == "/me/stage2.git/info/lfs/objects/batch":
            wanted = json.loads(body)["objects"]
            objects = [o | {"actions": {"upload": {"href": f"{hub.url}/store/{o['oid']}"}}} for o in wanted]
            self.answer({"transfer": "basic", "objects": objects})
        elif self.path == "/api/models/me/stage2/commit/main":
            hub.commit = [json.loads(line) for line in body.decode().splitlines()]
            self.answer({"success": True, "commitOid": "a" * 40, "commitUrl": f"{hub.url}/me/stage2/commit/a"})
        else:
            self.answer({"error": f"the fake knows no {self.path}"}, 404)

    def do_GET(self):
        hub = self.server
        hub.calls.append(self.path)
        self.answer({"id": "me/stage2", "private": not hub.is_public, "sha": "a" * 40})

    def do_PUT(self):
        body = self.body()
        self.server.stored[hashlib.sha256(body).hexdigest()] = body
        self.answer({})

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.calls, server.created, server.stored, server.commit = [], [], {}, []
    server.refuses, server.is_public = None, False
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push(home, endpoint, *argv, token="hf_fake"):
    """`stonk push` as from a shell of its own: the Hub client reads its settings once, when it is imported."""
    away = ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    settings = {key: value for key, value in os.environ.items() if key not in away}
    settings |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    settings |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "stonk_trainer.cli", "push", *map(str, argv)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def test_a_run_is_pushed_whole_with_its_card_and_nothing_else(runs, hub, tmp_path):
    """Against a fake of the Hub's interface, since no real Hub can run here: what is sent is what the client sends."""
    ended = push(tmp_path, hub.url, runs / "stage2", "me/stage2", "--private", "--message", "Stage II")
    assert ended.returncode == 0, ended.stderr
    assert f"{hub.url}/me/stage2" in ended.stdout
    (created,) = hub.created
    assert created["name"] == "stage2" and created["organization"] == "me" and created["visibility"] == "private"
    header, *files = hub.commit
    assert header["value"]["summary"] == "Stage II"
    sent = {}
    for file in files:
        value = file["value"]
        sent[value["path"]] = base64.b64decode(value["content"]) if file["key"] == "file" else hub.stored[value["oid"]]
    model = runs / "stage2/best_model"
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sent.keys() == expected | {"chat_template.jinja", "README.md"}
    card = sent.pop("README.md").decode()
    assert metadata(card)["base_model"] == "Qwen/Qwen2.5-1.5B-Instruct" and "stage2 − majority" in card
    for name, content in sent.items():
        assert content == (model / name).read_bytes()
        assert str(runs).encode() not in content and b"hf_secret" not in content
    assert not (model / "README.md").exists()  # nothing is written beside the model


def test_a_repository_that_is_public_is_not_pushed_to_as_private(runs, hub, tmp_path):
    """Against the fake Hub, which holds the repository already."""
    hub.is_public = True
    ended = push(tmp_path, hub.url, runs / "stage2", "me/stage2", "--private")
    assert ended.returncode == 2 and "exists and is public" in ended.stderr and not hub.commit


def test_a_dry_run_prints_card_and_files_and_sends_nothing(runs, hub, tmp_path):
    """No token is needed, and the fake Hub hears nothing."""
    ended = push(tmp_path, hub.url, runs / "stage2", "me/stage2", "--dry_run", token=None)
    assert ended.returncode == 0 and hub.calls == [], ended.stderr
    assert "base_model: Qwen/Qwen2.5-1.5B-Instruct" in ended.stdout and "nothing was sent" in ended.stdout
    size = (runs / "stage2/best_model/model.safetensors").stat().st_size
    assert f"{size:,} bytes  model.safetensors" in ended.stdout and "optimizer.pt" not in ended.stdout


@pytest.mark.parametrize(
    "token, refuses, words",
    [
        (None, None, "hf auth login"),
        ("hf_fake", (403, "You cannot write to me"), "You cannot write to me: the token needs write access"),
        ("hf_fake", "nobody listens", "was not pushed"),
    ],
)
def test_an_upload_that_cannot_be_is_one_line(runs, hub, tmp_path, token, refuses, words):
    """Against the fake Hub: no token, a refusal in the Hub's words, and no answer at all."""
    url = hub.url
    if refuses == "nobody listens":
        hub.shutdown()
        hub.server_close()
    else:
        hub.refuses = refuses
    ended = push(tmp_path, url, runs / "stage2", "me/stage2", token=token)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1 and words in ended.stderr


def test_what_is_no_model_or_no_name_is_one_line(refused, tiny_adapter_folder, tiny_model_folder, tmp_path):
    assert "is an adapter" in refused("push", tiny_adapter_folder, "me/x")
    assert "holds no model" in refused("push", tmp_path, "me/x")
    assert "not found" in refused("push", tmp_path / "nowhere", "me/x")
    assert "owner/name" in refused("push", tiny_model_folder, "only-a-name")
    assert "owner/name" in refused("push", tiny_model_folder, "me/../x")
    pickled = shutil.copytree(tiny_model_folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "no weights as safetensors" in refused("push", pickled, "me/x")


def test_a_link_out_of_the_folder_is_not_pushed(tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (tmp_path / "secret.json").write_text("{}")
    (model / "vocab.json").symlink_to(tmp_path / "secret.json")
    assert "vocab.json" not in export.files_to_push(model)
