"""What users type in a shell: the stage scripts and `accelerate launch`, with a tiny random model."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TINY = "--dtype float32 --max_completion_length 6 --max_eval_samples 4 --indicators change_1d".split()


def shell(*command, **variables):
    """Run in the repository, where `.venv` may or may not be: this Python comes first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = f"-m torch.distributed.run --nproc_per_node 2 --master_port {port} -m stonk_trainer.grpo".split()
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
