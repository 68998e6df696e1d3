import json
import random
import signal
import subprocess
import sys
import time

import pytest

from stonk_trainer.tasks.reasoning.reject import Rejection, keep
from stonk_trainer.tasks.reasoning.verify import is_correct, is_in_form

pytestmark = pytest.mark.slow

SMALL = ["--task_mix", "arithmetic:1", "--max_prompts", 24, "--num_generations", 4, "--batch_size", 8,
         "--max_completion_length", 6, "--engine", "transformers"]  # fmt: skip


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def argv(adding_model_folder):
    return ["sample", "--model", str(adding_model_folder), *map(str, SMALL)]


@pytest.fixture(scope="module")
def uninterrupted(argv, tmp_path_factory):
    from stonk_trainer.cli import main

    path = tmp_path_factory.mktemp("rs") / "rs.jsonl"
    main([*argv, "--output", str(path)])
    return path


def test_every_kept_row_verifies_again_from_the_file_alone(uninterrupted, stonk):
    rows = lines(uninterrupted)
    assert rows
    for row in rows:
        text = row["messages"][-1]["content"]
        assert row["messages"][-1]["role"] == "assistant"
        assert is_correct(text, row["target"], row["verifier"]) and is_in_form(text)
        assert row["source"] == "arithmetic" and row["id"] and row["reward"] == 1.0 and row["tokens"] == 2
    assert f"{len(rows)} of {len(rows)} gold answers accepted" in stonk(
        "data", "verify", "chat", "--path", uninterrupted
    )


def test_the_same_seed_samples_the_same_rows(argv, uninterrupted, stonk, tmp_path):
    text = stonk(*argv, "--output", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == uninterrupted.read_text()
    assert f"{len(lines(uninterrupted))} rows kept" in text and "of 96 answers ended" in text
    assert [path.name for path in tmp_path.iterdir()] == ["again.jsonl"]


def test_killed_at_random_moments_it_ends_with_the_rows_of_an_uninterrupted_run(argv, uninterrupted, tmp_path):
    """Twice SIGKILL in the middle of sampling, and a torn last line: the same file, no row twice."""
    path, rng = tmp_path / "rs.jsonl", random.Random(3)
    journal = tmp_path / ".rs.jsonl.journal"
    command = [sys.executable, "-m", "stonk_trainer.cli", *argv, "--output", str(path)]
    for after in (2, 5):  # lines of the journal: its settings, and then one per batch
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < until:
            if journal.exists() and journal.read_bytes().count(b"\n") >= after:
                break
        time.sleep(rng.uniform(0, 0.01))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not path.exists()
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) - rng.randint(1, 20)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert path.read_text() == uninterrupted.read_text()
    assert not journal.exists()
    assert "resuming:" in done.stdout


def test_answers_sampled_with_other_settings_are_not_lost(argv, tmp_path, refused):
    journal = tmp_path / ".rs.jsonl.journal"
    journal.write_text(
        json.dumps({"settings": "of another run"}) + "\n" + json.dumps({"batch": 0, "answers": []}) + "\n"
    )
    before = journal.read_text()
    assert "sampled with other settings" in refused(*argv, "--output", tmp_path / "rs.jsonl")
    assert journal.read_text() == before


def test_a_file_that_is_not_a_journal_is_named(argv, tmp_path, refused):
    (tmp_path / ".rs.jsonl.journal").write_text("not a journal\n")
    assert "is not a journal of stonk sample" in refused(*argv, "--output", tmp_path / "rs.jsonl")


def answer(n, words="", ended=True):
    return {"text": f"<think>\nso {words}\n</think>\n\n\\boxed{{{n}}}", "tokens": 5 + len(words), "ended": ended}


def kept(answers, **keys):
    run = Rejection(
        model_name_or_path="m", task_mix="arithmetic:1", num_generations=len(answers), batch_size=len(answers), **keys
    )
    prompt = {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "source": "s",
        "id": "1",
        "target": "4",
        "verifier": "math",
    }
    return [row["messages"][-1]["content"] for row in keep(run, [prompt], [answers])]


def test_right_answers_are_kept_once_the_shortest_first_and_at_most_so_many():
    answers = [answer(4, "abc"), answer(5), answer(4, "a"), answer(4, "a"), answer(4, "ab")]
    assert kept(answers) == [answer(4, "a")["text"]]
    assert kept(answers, keep_per_prompt=2) == [answer(4, "a")["text"], answer(4, "ab")["text"]]
    assert len(kept(answers, keep_per_prompt=9)) == 3
    assert set(kept(answers, keep_per_prompt=9, prefer="random")) == set(kept(answers, keep_per_prompt=9))
    firsts = {kept(answers, prefer="random", seed=seed)[0] for seed in range(20)}
    assert len(firsts) == 3


def test_an_answer_that_was_cut_off_or_is_out_of_form_is_not_kept():
    bare = {"text": "\\boxed{4}", "tokens": 3, "ended": True}
    assert kept([answer(4, ended=False), bare]) == []
    assert kept([bare], any_form=True) == ["\\boxed{4}"]


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--batch_size", 6], "must be a multiple of num_generations"),
        (["--temperature", 0], "temperature: 0 must be above 0"),
        (["--top_p", 0], "top_p: 0 must be above 0"),
        (["--keep_per_prompt", 0], "keep_per_prompt: 0 must be at least 1"),
        (["--task_mix", "arithmetic:0.5"], "sum to 0.5"),
        (["--model", "nowhere/at/all"], "not found"),
        (["--engine", "vllm"], "vllm needs the package vllm and a GPU"),
        (["--prefer", "longest"], "prefer"),
        (["--num_generation", 4], "did you mean num_generations"),
    ],
)
def test_bad_input_is_one_line(argv, flags, says, refused, tmp_path):
    assert says in refused(*argv, "--output", tmp_path / "rs.jsonl", *flags)
    assert not (tmp_path / "rs.jsonl").exists()


def test_when_no_answer_is_right_the_run_fails_and_says_so(tiny_model_folder, argv, refused, tmp_path):
    flags = ["--model", tiny_model_folder, "--max_prompts", 2]  # it says UP or DOWN
    assert "no answer was right" in refused(*argv, "--output", tmp_path / "rs.jsonl", *flags)
    assert not (tmp_path / "rs.jsonl").exists()


def test_a_model_without_a_chat_template_is_refused(adding_model_folder, argv, refused, tmp_path):
    import shutil

    bare = shutil.copytree(adding_model_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert "has no chat template" in refused(*argv, "--model", bare, "--output", tmp_path / "rs.jsonl")
