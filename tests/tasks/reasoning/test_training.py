"""The phases through their real entry points, with a tiny model: what one writes the next reads."""

import json
import re

import pytest
from upstream_rows import UPSTREAM

from stonk_trainer import grpo, sft

pytestmark = pytest.mark.slow

SMALL = ["--use_peft", "false", "--bf16", "false", "--dtype", "float32", "--max_steps", 2, "--max_length", 512]


@pytest.fixture(scope="module")
def run_sft(adding_model_folder):
    def run(out, *flags):
        argv = ["--config", "r1/demo/cold_start", "--model", adding_model_folder, "--out", out, *SMALL]
        sft.main([str(word) for word in (*argv, "--batch_size", 4, *flags)])
        return out

    return run


@pytest.fixture(scope="module")
def run_grpo(adding_model_folder):
    def run(out, *flags):
        argv = ["--config", "r1/demo/grpo", "--model", adding_model_folder, "--out", out, *SMALL[:8]]
        sizes = ["--num_generations", 4, "--batch_size", 8, "--max_completion_length", 8]
        grpo.main([str(word) for word in (*argv, *sizes, "--max_train_samples", 40, *flags)])
        return out

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_cold_start_leaves_a_model_and_logs_the_shares_of_the_tokens(run_sft, tmp_path):
    mixed = ["--sources", "arithmetic:stop=40", "arithmetic_choice:ratio=0.5"]
    out = run_sft(tmp_path / "sft", *mixed)
    assert (out / "best_model" / "config.json").is_file()
    log = (out / "training.log").read_text()
    assert "arithmetic_choice: 40 train rows, 50.0% (target 50.0%)" in log
    shares = [float(share) for share in re.findall(r"([\d.]+)%", log.split("shares of the tokens: ")[1].split("\n")[0])]
    assert len(shares) == 2 and sum(shares) == pytest.approx(100, abs=0.1) and shares[0] != shares[1]


def test_a_row_whose_end_would_be_cut_teaches_nothing(adding_model_folder, write_jsonl, tmp_path):
    """A thought too long for max_length, or cut upstream: the row is left out, counted, and no loss sees it."""

    def chat(thought):
        answer = f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{4}}."
        return {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": answer}]}

    unfinished = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\nhm"}]}
    short, long = [chat(f"so {i}") for i in range(8)], [chat("very " * 700 + str(i)) for i in range(3)]
    keys = ["--sft_recipe", "r1_rs_sft", "--held_out", 0]
    without = write_jsonl("short.jsonl", short)
    with_long = write_jsonl("long.jsonl", [*short, *long, unfinished])
    config = tmp_path / "rs.yaml"
    config.write_text("task: reasoning\n")
    losses = []
    for name, path in (("a", without), ("b", with_long)):
        flags = ["--config", config, "--rs_data", path, *keys, "--logging_steps", 1, "--batch_size", 8, "--lr", 1e-3]
        argv = ["--model", adding_model_folder, "--out", tmp_path / name, *SMALL, *flags]
        sft.main([str(word) for word in (*argv, "--save_strategy", "no", "--report_to", "none")])
        losses.append([line["loss"] for line in lines(tmp_path / name / "metrics.jsonl")])
    log = (tmp_path / "b" / "training.log").read_text()
    assert "chat: 1 of 12 rows left out: the thought is cut off" in log
    assert "left out: 3 of 11 training rows longer than max_length 512" in log
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_no_row_trains_on_its_prompt(run_sft, adding_model_folder, monkeypatch, tmp_path):
    from stonk_trainer.models.loading import load_tokenizer
    from stonk_trainer.training.resumable import SmallVocabularySFTTrainer

    seen = []

    def compute_loss(self, model, inputs, *args, original=SmallVocabularySFTTrainer.compute_loss, **keys):
        seen.extend(zip(inputs["input_ids"].tolist(), inputs["labels"].tolist(), strict=True))
        return original(self, model, inputs, *args, **keys)

    monkeypatch.setattr(SmallVocabularySFTTrainer, "compute_loss", compute_loss)
    run_sft(tmp_path / "sft", "--trial_pass", "false")
    tokenizer = load_tokenizer(str(adding_model_folder))
    assert len(seen) == 8
    for ids, labels in seen:
        learnt = tokenizer.decode([token for token, label in zip(ids, labels, strict=True) if label != -100])
        assert learnt.startswith("<think>") and learnt.rstrip().endswith("<|im_end|>")


def test_rows_without_a_token_to_learn_are_refused_with_their_count(adding_model_folder):
    from datasets import Dataset

    from stonk_trainer.errors import UserError
    from stonk_trainer.models.loading import load_tokenizer

    rows = Dataset.from_dict({"input_ids": [[5, 6], [], []]})
    with pytest.raises(UserError, match="2 of 3 training rows have no token to learn from"):
        sft.whole_rows(rows, load_tokenizer(str(adding_model_folder)), 100, "training")


def test_grpo_logs_every_answer_with_its_source_and_whether_it_is_right(run_grpo, tmp_path):
    out = run_grpo(tmp_path / "grpo", "--reward", "accuracy", "format", "overlong")
    records = lines(out / "training_log.jsonl")
    assert len(records) == 16 and {record["source"] for record in records} <= {"arithmetic", "arithmetic_choice"}
    for record in records:
        assert record["correct"] == (record["accuracy"] == 1.0) and record["format"] == 1.0
        assert record["answer"] and record["completion"].startswith("<think>")
    metrics = lines(out / "metrics.jsonl")
    assert all("frac_reward_zero_std" in line and "kl" in line for line in metrics)
    assert "groups without variance" in (out / "training.log").read_text()
    assert not (out / "market_stats.json").exists()


def test_the_kl_is_to_the_sft_model(run_sft, run_grpo, tmp_path):
    start = run_sft(tmp_path / "sft") / "best_model"
    out = run_grpo(tmp_path / "grpo", "--model", start, "--beta", 0.5, "--logging_steps", 1)
    assert lines(out / "metrics.jsonl")[0]["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--sources", "nothing"], "source nothing is unknown"),
        (["--sft_recipe", "r1_ot"], "keep one"),
        (["--chat_ratio", "2"], "chat_ratio: 2 must lie in"),
        (["--max_length", "20"], "every training row is longer"),
        (["--model", "new"], "starts from an instruct model"),
        (["--ot_stp", "5"], "did you mean ot_stop"),
    ],
)
def test_a_cold_start_that_cannot_train_ends_with_one_line(run_sft, flags, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_sft(tmp_path / "run", *flags)
    error = capsys.readouterr().err
    assert end.value.code == 2 and says in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_broken_line_of_the_data_is_named_with_file_and_number(run_sft, write_jsonl, tmp_path, capsys):
    path = write_jsonl("rows.jsonl", [UPSTREAM["chat"], "{torn"])
    with pytest.raises(SystemExit) as end:
        run_sft(tmp_path / "run", "--sources", f"chat:path={path}")
    error = capsys.readouterr().err
    assert end.value.code == 2 and "rows.jsonl, line 2 is not JSON" in error and error.count("\n") == 1
