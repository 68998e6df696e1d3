"""Pushing a model to the Hub."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stonk_trainer.publish.push import files_to_push

pytestmark = pytest.mark.slow


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
    assert "base_model: Qwen/Qwen2.5-1.5B-Instruct" in card and "stage2 − majority" in card
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
    assert "vocab.json" not in files_to_push(model)
