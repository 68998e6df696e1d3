"""What users type in a shell: the stage scripts and `accelerate launch`, with a tiny random model."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stonk_trainer import grpo, sft

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
TINY = "--dtype float32 --max_completion_length 6 --max_eval_samples 4 --indicators change_1d".split()


def shell(*command, **variables):
    """Run in the repository, where `.venv` may or may not be: this Python comes first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_stage2_passes_the_users_flags_on_and_refers_to_the_stage1_model(tiny_model_folder, tmp_path):
    flags = "--epochs 5 --batch_size 2 --lr 3e-6 --kl_coef 0.03 --save_steps 100 --max_train_samples 64 --max_steps 1"
    recipe = "--config recipes/stocks/demo/stage2.yaml".split()
    done = shell("./train_stage2.sh", tiny_model_folder, *flags.split(), *recipe, *TINY, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    expected = {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-6,
        "beta": 0.03,
        "save_steps": 100,
        "max_train_samples": 64,
        "max_steps": 1,
        "model_name_or_path": str(tiny_model_folder),
    }
    assert {key: resolved[key] for key in expected} == expected
    state = json.loads((tmp_path / "run/checkpoint-1/trainer_state.json").read_text())
    assert [entry["kl"] for entry in state["log_history"] if "kl" in entry] == [0.0]


def test_a_stage_script_fails_with_one_line_and_status_2_when_the_run_cannot_start(tmp_path):
    for command in (
        ["./train_stage2.sh"],
        ["./train_stage1.sh", "--model", tmp_path / "none", "--out", tmp_path / "o"],
    ):
        done = shell(*command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("error: ")


def test_accelerate_launch_runs_the_trainer(tiny_model_folder, tmp_path):
    launch = "-m accelerate.commands.launch --cpu --num_processes 2 -m stonk_trainer.grpo".split()
    recipe = "--config recipes/stocks/demo/stage1.yaml --max_steps 2 --max_train_samples 16".split()
    done = shell(sys.executable, *launch, *recipe, *TINY, "--model", tiny_model_folder, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/best_model/config.json").is_file()


def test_two_processes_log_each_completion_once_and_stop_together_at_the_milestone(tiny_model_folder, tmp_path):
    launch = f"-m torch.distributed.run --nproc_per_node 2 --master_port {free_port()} -m stonk_trainer.grpo".split()
    recipe = "--config recipes/stocks/demo/stage1.yaml --max_steps 4 --max_train_samples 16 --save_steps 1".split()
    always = "--milestone_reward -1 --milestone_accuracy -1 --milestone_coherence -1 --milestone_loss_std 9".split()
    flags = [*TINY, *always, "--milestone_evaluations", "1", "--model", tiny_model_folder, "--out", tmp_path / "run"]
    done = shell(sys.executable, *launch, *recipe, *flags, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/training_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1] * 16  # 2 processes x 4 answers x 2 accumulated
    evidence = json.loads((tmp_path / "run/milestone.json").read_text())
    assert [evaluation["completions"] for evaluation in evidence["evaluations"]] == [4]
    assert (tmp_path / "run/best_model/config.json").is_file()
    assert done.stdout.count("training: 4 steps") == 1


# ------------------------------------------------------------------------------- the same run, whatever its layout

GOLDEN = {
    "sft": "--config stocks/demo/warmup --max_length 1024 --use_peft false",
    "grpo": "--config stocks/demo/stage1 --num_generations 4 --max_completion_length 6 --use_peft false --beta 0.1",
}
STEADY = "--dtype float32 --max_steps 3 --logging_steps 1 --max_train_samples 32 --indicators change_1d --lr 1e-2"
STEADY += " --save_strategy no --eval_strategy no --load_best_model_at_end false"


def measured(folder):
    """(loss, gradient norm) of each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [number for line in lines if "loss" in line for number in (line["loss"], line["grad_norm"])]


@pytest.fixture(scope="module", params=["sft", "grpo"])
def one_process(request, tiny_model_folder, tmp_path_factory):
    """A run with a batch of 8 in one process: (its trainer, its flags, what it measured, its completions)."""
    trainer, out = request.param, tmp_path_factory.mktemp("golden")
    flags = [*GOLDEN[trainer].split(), *STEADY.split(), "--model", str(tiny_model_folder)]
    layout = "--batch 8 --gradient_accumulation_steps 1".split()
    {"sft": sft, "grpo": grpo}[trainer].main([*flags, *layout, "--out", str(out)])
    assert min(abs(number) for number in measured(out)[1::2]) > 1e-3  # it does learn something in every step
    return trainer, flags, measured(out), completions(out)


def completions(folder):
    log = folder / "training_log.jsonl"
    return [json.loads(line)["completion"] for line in log.read_text().splitlines()] if log.exists() else []


def test_a_batch_of_8_is_4_accumulated_twice(one_process, tmp_path):
    trainer, flags, expected, said = one_process
    layout = "--batch 4 --gradient_accumulation_steps 2".split()
    {"sft": sft, "grpo": grpo}[trainer].main([*flags, *layout, "--out", str(tmp_path)])
    assert measured(tmp_path) == pytest.approx(expected, rel=1e-5, abs=1e-5) and completions(tmp_path) == said


@pytest.mark.parametrize("kind", ["cpu", "fsdp2"])
def test_a_batch_of_8_is_4_in_each_of_two_processes(kind, one_process, tmp_path):
    trainer, flags, expected, said = one_process
    launch = ["-m", "accelerate.commands.launch", "--config_file", ROOT / f"recipes/accelerate/{kind}.yaml"]
    launch += ["--num_processes", "2", "--main_process_port", free_port(), "-m", f"stonk_trainer.{trainer}"]
    layout = "--batch 4 --gradient_accumulation_steps 1".split()
    layout += ["--packed_tokens", "2000"] * (trainer == "grpo")  # of a rank's rows, not all fit
    done = shell(sys.executable, *launch, *flags, *layout, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert measured(tmp_path) == pytest.approx(expected, rel=1e-5, abs=1e-5) and completions(tmp_path) == said


def test_the_accelerate_recipes_are_what_their_names_say():
    kinds = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "recipes/accelerate").glob("*.yaml")}
    assert {name: kind["distributed_type"] for name, kind in kinds.items()} == {
        "cpu": "MULTI_GPU", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"
    }  # fmt: skip
    assert kinds["fsdp2"]["fsdp_config"]["fsdp_version"] == 2 and kinds["zero3"]["deepspeed_config"]["zero_stage"] == 3


def test_a_stage_script_ends_with_the_status_of_its_trainer_after_sigterm(tiny_model_folder, tmp_path):
    """143, which a scheduler tells from a failure; and the same command goes on."""
    flags = ["--config", "stocks/demo/stage1", *TINY, "--max_steps", "200", "--max_train_samples", "16"]
    flags += ["--resume_from_checkpoint", "auto", "--model", str(tiny_model_folder), "--out", str(tmp_path / "run")]
    process = subprocess.Popen([ROOT / "train_stage1.sh", *flags], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 1/"):
            process.terminate()
    assert process.wait(60) == 143
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1
