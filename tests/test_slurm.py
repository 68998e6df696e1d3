"""The Slurm scripts on a real Slurm of two nodes on this machine."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from loopback_slurm import LoopbackSlurm, why_not

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PHASES = ["sft", "grpo", "rs_generate", "rs_sft", "eval"]
# Every phase at the size of a test; the recipes are the demo's.
SETTINGS = {
    "CONFIG_SFT": "r1/demo/cold_start",
    **{f"CONFIG_{phase.upper()}": f"r1/demo/{phase}" for phase in PHASES[1:]},
    "EXTRA_GRPO": "--max_steps 1 --num_generations 4 --per_device_train_batch_size 8 --max_completion_length 8",
    "EXTRA_RS_GENERATE": "--max_prompts 80 --max_completion_length 8",
    "EXTRA_RS_SFT": "--max_steps 1 --per_device_train_batch_size 1 --max_length 512",
    "EXTRA_EVAL": "--limit 5 --max_gen_toks 8",
    "VENV": str(Path(sys.executable).parent.parent),
}


@pytest.fixture(scope="module")
def slurm():
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, LoopbackSlurm(Path(folder)) as cluster:
        yield cluster


@pytest.fixture
def submit(slurm, adding_model_folder, tmp_path):
    """Run a script of `slurm/` or sbatch from the repository; RUN is a new folder."""

    def run(*command, **settings):
        model = f"--model {adding_model_folder} --max_steps 1 --per_device_train_batch_size 2 --max_length 512"
        start = {"RUN": str(tmp_path / "run"), "EXTRA_SFT": model, "FROM": str(tmp_path / "run" / "sft" / "best_model")}
        environment = {**slurm.environment, **SETTINGS, **start, **settings}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    return run


SMALL = "--max_steps 1 --bf16 false --gradient_checkpointing false --save_strategy no"


def job_numbers(text):
    return [line.rsplit(" ", 1)[1] for line in text.splitlines()]


def test_a_dry_run_prints_every_sbatch_line_and_its_dependency():
    done = subprocess.run(
        [ROOT / "slurm/full_run.sh", "--dry-run", "--partition", "gpu"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == [f"slurm/{phase}.sbatch" for phase in PHASES]
    assert "--dependency" not in lines[0]
    for before, line in zip(PHASES, lines[1:], strict=False):
        assert f"--dependency=afterok:<job of {before}> --kill-on-invalid-dep=yes" in line
    assert all("--export=ALL" in line and "--partition gpu" in line for line in lines)


def test_the_chain_runs_in_order_and_each_phase_reads_what_the_one_before_wrote(slurm, submit, tmp_path):
    jobs = slurm.finish(job_numbers(submit("slurm/full_run.sh", "--output", str(tmp_path / "%x.out"))))
    texts = {path.name: path.read_text()[-1500:] for path in tmp_path.glob("*.out")}
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 5, texts
    for before, after in zip(jobs, jobs[1:], strict=False):
        assert before["EndTime"] <= after["StartTime"]
    run = tmp_path / "run"
    assert yaml.safe_load((run / "grpo/recipe.yaml").read_text())["model_name_or_path"] == f"{run}/sft/best_model"
    assert yaml.safe_load((run / "rs_sft/recipe.yaml").read_text())["rs_data"] == f"{run}/rs_data.jsonl"
    results = json.loads((run / "eval/results.json").read_text())
    assert list(results) == [f"{run}/{phase}/best_model" for phase in ("sft", "grpo", "rs_sft")]


def test_a_phase_that_fails_leaves_the_later_ones_cancelled(slurm, submit, tmp_path):
    text = submit("slurm/full_run.sh", "--output", str(tmp_path / "%x.out"), TASK_MIX="arithmetic:0.5")
    jobs = slurm.finish(job_numbers(text))
    assert [job["JobState"] for job in jobs] == ["COMPLETED", "FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert jobs[0]["ExitCode"] == "0:0" and jobs[1]["ExitCode"] != "0:0"
    assert "the shares sum to 0.5" in (tmp_path / "r1-grpo.out").read_text()


def test_exported_settings_reach_the_run(slurm, submit, write_rows, adding_model_folder, tmp_path):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nso\n</think>\n\nHello"}]
    path = write_rows([{"messages": chat, "dataset_source": "x", "id": str(i)} for i in range(30)], ".jsonl")
    settings = "ALL,SFT_RECIPE=dolci_mid,DOLCI_STOP=20"
    small = f"--model {adding_model_folder} {SMALL} --source_paths dolci={path}"
    out = str(tmp_path / "sft.out")
    number = submit(
        "sbatch", "--parsable", f"--export={settings}", "--output", out, "slurm/sft.sbatch", EXTRA_SFT=small,
        CONFIG_SFT="",
    ).strip()  # fmt: skip
    (job,) = slurm.finish([number])
    assert job["JobState"] == "COMPLETED", Path(out).read_text()
    recipe = yaml.safe_load((tmp_path / "run/sft/recipe.yaml").read_text())
    assert (recipe["sft_recipe"], recipe["dolci_stop"]) == ("dolci_mid", 20)
    assert "20 training rows" in Path(out).read_text()


def test_two_nodes_train_together_with_one_process_each(slurm, submit, tmp_path):
    out = str(tmp_path / "two.out")
    command = ["sbatch", "--parsable", "--nodes", "2", "--export=ALL", "--output", out, "slurm/sft.sbatch"]
    (job,) = slurm.finish([submit(*command).strip()])
    assert job["JobState"] == "COMPLETED" and job["NumNodes"] == "2", Path(out).read_text()
    environment = json.loads((tmp_path / "run/sft/run.json").read_text())["environment"]
    assert environment["world_size"] == 2
    assert Path(out).read_text().count("training: 1 steps") == 1


def test_a_job_told_to_stop_saves_goes_back_into_the_queue_and_goes_on(slurm, submit, adding_model_folder, tmp_path):
    """TERM to the batch script, as before its time is up or when it is preempted."""
    steps = f"--model {adding_model_folder} {SMALL} --max_steps 60 --logging_steps 1 --per_device_train_batch_size 2"
    command = ["sbatch", "--parsable", "--export=ALL", "--output", str(tmp_path / "%x.out"), "slurm/sft.sbatch"]
    number = submit(*command, EXTRA_SFT=f"{steps} --max_length 512").strip()
    log = tmp_path / "run/sft/training.log"
    until = time.monotonic() + 120
    while not (log.exists() and "step 2/60" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    slurm.run("scancel", "--signal=TERM", "--batch", number)
    while slurm.job(number)["JobState"] != "PENDING" and time.monotonic() < until:
        time.sleep(0.1)
    slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now")  # Slurm would wait two minutes
    (job,) = slurm.finish([number])
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    said = re.search(r"stopped by SIGTERM at step (\d+)", log.read_text())
    assert f"resuming from {tmp_path}/run/sft/checkpoint-{said[1]}" in log.read_text()
    lines = [json.loads(line) for line in (tmp_path / "run/sft/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))


@pytest.mark.skipif(not os.access("/usr/bin/shellcheck", os.X_OK), reason="shellcheck is not installed")
def test_the_scripts_pass_shellcheck():
    scripts = [*ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/*.sbatch"), *ROOT.glob("*.sh")]
    subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, check=True)
