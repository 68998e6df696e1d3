"""Runs that are killed, stopped, torn or out of room: what is kept, and how they go on."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stonk_trainer import grpo, sft
from stonk_trainer.errors import UserError
from stonk_trainer.training import checkpoints

pytestmark = pytest.mark.slow

SMALL = "--indicators change_1d sma_20 --max_eval_samples 4 --save_total_limit 2 --lr 1e-3".split()
# Generations that last over several steps, an epoch that ends within the run, state in every callback, and in 16 bit
# drafts, of which a sample depends now and then on how many there are.
STAGE1 = "grpo --config stocks/demo/stage1 --max_steps 12 --max_train_samples 12 --max_completion_length 6".split()
STAGE1 += "--num_iterations 2 --steps_per_generation 4 --save_steps 1 --eval_steps 1 --logging_steps 3".split()
STAGE1 += "--dtype bfloat16 --draft_tokens 3".split()
STAGE1 += "--save_strategy steps --beta 0.05 --kl_target 0.01 --resample_groups 1 --skip_zero_variance true".split()
WARMUP = (
    "sft --config stocks/demo/warmup --max_steps 8 --max_train_samples 20 --max_length 1024 --logging_steps 3".split()
)
WARMUP += "--dtype float32 --save_strategy steps --save_steps 1".split()


def command(base, model, out, *flags):
    return [*base, *SMALL, "--model", str(model), "--out", str(out), *map(str, flags)]


def run(base, model, out, *flags):
    {"grpo": grpo, "sft": sft}[base[0]].main(command(base, model, out, *flags)[1:])
    return Path(out)


def start(base, model, out, *flags):
    """The command as a process of its own, once it trains; the lines it printed so far."""
    line = [sys.executable, "-m", "stonk_trainer.cli", *command(base, model, out, *flags)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.startswith("training:"):
            break
    return process, seen


def same_weights(one, other):
    a, b = (load_file(folder / "best_model/model.safetensors") for folder in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def steps(folder):
    return sorted(int(path.name.split("-")[1]) for path in checkpoints.checkpoints(folder))


def as_logged(folder, name):
    """The lines of a log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if not re.search("time|runtime|per_second", k)} for line in lines]


@pytest.fixture(scope="module")
def whole(tiny_model_folder, tmp_path_factory):
    """Both runs, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return {base[0]: run(base, tiny_model_folder, folder / base[0]) for base in (STAGE1, WARMUP)}


@pytest.mark.parametrize("base", [STAGE1, WARMUP], ids=["Stage I", "warm-up"])
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(base, whole, tiny_model_folder, tmp_path):
    rng, out = random.Random(3), tmp_path / "run"
    for _ in range(2):
        process, _ = start(base, tiny_model_folder, out, "--resume_from_checkpoint", "auto")
        deadline = time.monotonic() + 60
        goal = (max(steps(out), default=0) if out.exists() else 0) + rng.randint(1, 3)
        while process.poll() is None and max(steps(out), default=0) < goal and time.monotonic() < deadline:
            time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
    assert 0 < max(steps(out)) < int(base[base.index("--max_steps") + 1]), "killed too late to show anything"
    run(base, tiny_model_folder, out, "--resume_from_checkpoint", "auto")
    assert same_weights(out, whole[base[0]])
    names = {"grpo": ("training_log.jsonl", "metrics.jsonl"), "sft": ("metrics.jsonl",)}[base[0]]
    for name in names:
        assert as_logged(out, name) == as_logged(whole[base[0]], name)


def test_sigterm_saves_the_step_and_ends_with_143_and_the_run_goes_on_from_there(whole, tiny_model_folder, tmp_path):
    out = tmp_path / "run"
    process, _ = start(STAGE1, tiny_model_folder, out, "--save_steps", "100", "--eval_strategy", "no",
                       "--load_best_model_at_end", "false", "--max_steps", "500")  # fmt: skip
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 143, rest
    (step,) = steps(out)
    assert f"stopped by SIGTERM at step {step}" in rest and not (out / "best_model").exists()
    assert checkpoints.damage(out / f"checkpoint-{step}") is None


def test_a_finished_run_that_is_resumed_trains_no_further_step(whole, tiny_model_folder, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole["grpo"], out)
    run(STAGE1, tiny_model_folder, out, "--resume_from_checkpoint", "auto")
    assert max(steps(out)) == 12 and same_weights(out, whole["grpo"])


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.unlink(),
    ],
    ids=["a flipped bit", "half a file", "no file"],
)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(harm, name, whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole["grpo"], out)
    last, before = checkpoints.checkpoints(out)
    harm(last / name)
    assert checkpoints.resume_point("auto", out) == str(before)
    with pytest.raises(UserError, match=f"{last.name} is damaged .*{name}.*resume from .*{before.name}"):
        checkpoints.resume_point(str(last), out)


def test_a_run_resumed_past_a_damaged_checkpoint_ends_as_one_that_was_not(whole, tiny_model_folder, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole["sft"], out)
    last, _ = checkpoints.checkpoints(out)
    (last / "optimizer.pt").write_bytes(b"torn")
    run(WARMUP, tiny_model_folder, out, "--resume_from_checkpoint", "auto")
    assert same_weights(out, whole["sft"])
    assert (out / ".previous_run" / last.name / "optimizer.pt").read_bytes() == b"torn"  # nothing is lost
    log = (out / "training.log").read_text()
    assert f"{last.name} is damaged (optimizer.pt is not what was written): skipped" in log


def test_a_run_started_anew_in_the_same_folder_moves_what_was_there(whole, tiny_model_folder, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole["sft"], out)
    run(WARMUP, tiny_model_folder, out, "--max_steps", "2")
    assert steps(out) == [1, 2]
    old = {path.name for path in (out / ".previous_run").iterdir()}
    assert {"checkpoint-8", "best_model", "metrics.jsonl", "training.log"} <= old
    assert "training: 8 steps" not in (out / "training.log").read_text()


def test_the_best_checkpoint_outlives_the_limit(tiny_model_folder, tmp_path):
    flags = ["--max_steps", "8", "--temperature", "1.5"]
    out = run([*STAGE1, "--num_iterations", "1"], tiny_model_folder, tmp_path / "run", *flags)
    state = json.loads((checkpoints.checkpoints(out)[0] / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    assert best.is_dir() and checkpoints.damage(best) is None
    assert state["best_global_step"] < 7 and steps(out) == [state["best_global_step"], 8]
    assert not (out / checkpoints.UNFINISHED).exists()


def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_is_whole(tiny_model_folder, tmp_path, refused):
    """On a file system that has room for one checkpoint and not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", disk], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        flags = command(WARMUP, tiny_model_folder, disk / "run", "--use_peft", "false")
        line = refused(*flags)
        kept = checkpoints.checkpoints(disk / "run")
        assert re.search(r"checkpoint \d+ could not be written to .*no space is left", line)
        assert f"--resume_from_checkpoint auto (whole: {kept[0].name})" in line
        assert [checkpoints.damage(folder) for folder in kept] == [None] * len(kept)
        assert not (disk / "run" / checkpoints.UNFINISHED).exists()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_batch_saved(tiny_model_folder, tmp_path, refused):
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder, model)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    line = refused(*command(WARMUP, model, tmp_path / "run"))
    assert "step 1: the loss is nan before anything was learnt" in line
    saved = torch.load(tmp_path / "run/batch_not_finite_0.pt", weights_only=True)
    assert saved["step"] == 1 and "Prediction:" in saved["texts"][0] and saved["batch"]["input_ids"].ndim == 2


def test_a_gradient_that_is_not_finite_stops_the_run(tiny_model_folder, tmp_path, refused, monkeypatch):
    """The loss is finite: a bf16 gradient can overflow where its loss does not."""
    from stonk_trainer.training import resumable

    def infinite(self, model, inputs, *args, **kwargs):
        loss = resumable.SFTTrainer.compute_loss(self, model, inputs, *args, **kwargs)
        next(p for p in model.parameters() if p.requires_grad).register_hook(lambda grad: grad * torch.inf)
        return loss

    monkeypatch.setattr(resumable.SmallVocabularySFTTrainer, "compute_loss", infinite)
    line = refused(*command(WARMUP, tiny_model_folder, tmp_path / "run"))
    assert re.search("step 1: the gradient is (inf|nan)", line)


def test_an_output_folder_that_cannot_be_written_is_one_line(tiny_model_folder, refused):
    assert "output_dir" in refused(*command(WARMUP, tiny_model_folder, "/proc/run"))


@pytest.mark.parametrize("other", ["--lora_r 4", "--use_peft false", "--optim sgd"])
def test_a_checkpoint_of_another_recipe_is_one_line(other, whole, tiny_model_folder, tmp_path, refused):
    out = tmp_path / "run"
    shutil.copytree(whole["sft"], out)
    flags = ["--resume_from_checkpoint", str(out / "checkpoint-7"), *other.split()]
    line = refused(*command(WARMUP, tiny_model_folder, out, *flags))
    assert "is it of this recipe and model?" in line
    assert (out / "best_model").exists() and (out / "checkpoint-7").exists()
