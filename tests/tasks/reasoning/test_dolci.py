import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from stonk_trainer.tasks.reasoning import dolci
from stonk_trainer.tasks.reasoning.dolci import SHARES, is_english, key_of, stratum_of

pytestmark = pytest.mark.slow

NAMES = {
    "reasoning": ["allenai/OpenThoughts3-merged", "allenai/IF_sft_data_verified", "synthetic-2-sft-verified"],
    "coding": ["allenai/nemotron-post-training-code", "saumyamalik/correct-python-sft-187k"],
    "general_chat": ["allenai/tulu_v3.9_wildchat_100k", "allenai/oasst1-r1", "somebody/odds-and-ends"],
    "safety": ["allenai/wildguardmix-r1", "allenai/coconot-r1", "allenai/wildjailbreak-r1"],
}
ENGLISH = "the of a number we find that this is then because total price sum each value next step first second".split()
FRENCH = "le la les des un une pour avec nous vous est sont dans ce cette qui que quoi comment pourquoi".split()


def dolci_row(rng, i, kind=None, words=None, language=ENGLISH):
    kind = kind or rng.choices(list(NAMES), [0.55, 0.2, 0.15, 0.1])[0]
    words = words or rng.choice((20, 60, 100, 150))

    def text(count):
        return " ".join(rng.choice(language) for _ in range(count))

    answer = f"<think>\n{text(words)}\n</think>\n\n{text(12)}."
    messages = [{"role": "user", "content": f"{text(15)}?"}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "dataset_source": rng.choice(NAMES[kind]), "id": f"id-{i}"}


@pytest.fixture
def source(write_jsonl):
    """4,000 rows of the upstream schema; 200 more are in French, 200 too long, 50 cut off."""
    rng = random.Random(0)
    rows = [dolci_row(rng, i) for i in range(4000)]
    rows += [dolci_row(rng, f"fr{i}", language=FRENCH) for i in range(200)]
    rows += [dolci_row(rng, f"long{i}", words=2000) for i in range(200)]
    for i in range(50):
        row = dolci_row(rng, f"cut{i}")
        row["messages"][1]["content"] = row["messages"][1]["content"].replace("</think>", "")
        rows.append(row)
    rng.shuffle(rows)
    return write_jsonl("dolci.jsonl", rows)


@pytest.fixture
def draw(stonk, source, tiny_model_folder, tmp_path):
    def run(*flags, out="out.jsonl"):
        path = tmp_path / "sample" / out
        keys = ("--path", source, "--tokenizer", tiny_model_folder, "--max_tokens", 3000, "--short_tokens", 300)
        text = stonk("data", "dolci", "--output", path, "--target_rows", 1000, *keys, *flags)
        return [json.loads(line) for line in path.read_text().splitlines()], text

    return run


def test_the_shares_are_those_asked_for_and_are_printed_beside_what_was_achieved(draw):
    rows, text = draw()
    counts = Counter(row["stratum"] for row in rows)
    assert {stratum: counts[stratum] / len(rows) for stratum in SHARES} == pytest.approx(SHARES, abs=0.005)
    assert "1000 of 4450 rows in" in text
    assert [line.split() for line in text.splitlines() if line.split()[:1] == ["coding"]] == [
        ["coding", "200", "20.0%", "200", "20.0%"]
    ]
    assert "50 rows left out: the thought is cut off" in text
    assert "rows per second" in text


def test_rows_are_english_short_enough_and_as_upstream_has_them(draw, source):
    rows, _ = draw()
    with open(source) as file:
        upstream = {row["id"]: row for row in map(json.loads, file)}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["messages"] == upstream[row["id"]]["messages"]
        assert not row["id"].startswith(("fr", "long", "cut"))
        assert row["tokens"] <= 3000
        assert (row["stratum"] == "short_reasoning") <= (row["tokens"] <= 300)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(draw):
    first, second, other = draw(out="a.jsonl")[0], draw(out="b.jsonl")[0], draw("--seed", 1, out="c.jsonl")[0]
    assert first == second
    shared = {row["id"] for row in first} & {row["id"] for row in other}
    assert len(shared) < 500  # a quarter of the rows, drawn twice


def test_every_row_is_as_likely_as_another():
    """The rows with the smallest keys are a uniform sample: early rows are not favoured."""
    kept = sorted(range(10_000), key=lambda number: key_of(5, number))[:2000]
    quarters = Counter(number // 2500 for number in kept)
    assert all(420 < quarters[quarter] < 580 for quarter in range(4))


def test_a_stratum_that_runs_short_is_reported_and_filled_on_request(draw):
    rows, text = draw("--target_rows", 6000, out="a.jsonl")
    counts = Counter(row["stratum"] for row in rows)
    assert counts["safety"] < 600 and f"safety runs short by {600 - counts['safety']} rows" in text
    filled, text = draw("--target_rows", 3800, "--fill", "true", out="b.jsonl")
    assert len(filled) == 3800 and "filled from the others" in text


COMMAND = "import sys; from stonk_trainer.cli import main; main(sys.argv[1:])"


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(draw, source, tiny_model_folder, tmp_path, monkeypatch):
    whole, _ = draw(out="whole.jsonl")
    monkeypatch.setattr(dolci, "SAVE_EVERY", 1)
    monkeypatch.setattr(dolci, "BATCH", 300)
    saves = []

    def save(*args, original=dolci.Sample.save):
        original(*args)
        saves.append(args)
        if len(saves) in (3, 7):
            raise KeyboardInterrupt  # as a kill: nothing after the state is done

    monkeypatch.setattr(dolci.Sample, "save", save)
    for _ in range(2):
        with pytest.raises(SystemExit):
            draw(out="killed.jsonl")
        assert not (tmp_path / "sample" / "killed.jsonl").exists()
    rows, text = draw(out="killed.jsonl")
    assert rows == whole and "resuming after" in text
    assert sorted(path.name for path in (tmp_path / "sample").iterdir()) == ["killed.jsonl", "whole.jsonl"]


def test_memory_does_not_grow_with_the_rows(tiny_model_folder, write_jsonl, tmp_path):
    """Peak memory of a process over 3,000 rows and over 15,000, of which 300 are kept."""
    rng = random.Random(1)
    peaks = []
    for count in (3000, 15_000):
        path = write_jsonl(f"{count}.jsonl", (dolci_row(rng, i) for i in range(count)))
        script = f"{COMMAND}; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        keys = ["--path", path, "--tokenizer", tiny_model_folder, "--target_rows", "300"]
        argv = ["data", "dolci", "--output", tmp_path / "out.jsonl", *keys]
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, argv)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 60 and peaks[1] < 2048  # MiB


@pytest.mark.parametrize(
    "name, answer, stratum",
    [
        ("allenai/wildjailbreak-r1-v2-format-filtered", "no", "safety"),
        ("saumyamalik/correct-python-sft-187k", "x", "coding"),
        ("allenai/OpenThoughts3-merged", "so 4", "structured_reasoning"),
        ("allenai/OpenThoughts3-merged", "```python\nprint(4)\n```", "coding"),
        ("allenai/persona-precise-if-r1-final", "x", "structured_reasoning"),
        ("allenai/oasst1-r1", "x", "general_chat"),
        ("allenai/aya-100k", "x", "general_chat"),
        ("unheard of", "x", "general_chat"),
    ],
)
def test_the_stratum_follows_from_the_source_and_code_in_the_answer(name, answer, stratum):
    assert stratum_of({"dataset_source": name}, answer) == stratum
    assert stratum_of({"source": name}, answer) == stratum


def test_language_is_detected_from_prose_not_from_code_or_formulas():
    assert is_english("What is the value of the sum of these numbers?", "$x^2 + y^2 = z^2$")
    assert is_english("Write a function that sorts a list of numbers.", "```python\ndef f(x): return sorted(x)\n```")
    assert not is_english("Quelle est la valeur de la somme de ces nombres?", "La somme est égale à quatre.")
    assert not is_english("请问这些数字的总和是多少？请详细解释一下你的计算过程和推理步骤。", "答案是四")


def test_bad_input_is_one_line(refused, tmp_path, write_jsonl, tiny_model_folder):
    wrong = write_jsonl("wrong.jsonl", [{"text": "Hi"}])
    keys = ("--tokenizer", tiny_model_folder, "--output", tmp_path / "out.jsonl")
    assert "it needs messages" in refused("data", "dolci", "--path", wrong, *keys)
    torn = write_jsonl("torn.jsonl", [{"messages": "Hi", "id": "1"}])
    assert "row 1 of" in refused("data", "dolci", "--path", torn, *keys)
    assert "target_rows: 0" in refused("data", "dolci", "--path", wrong, "--target_rows", 0, *keys)
    assert "is a folder" in refused("data", "dolci", "--path", wrong, "--output", tmp_path)
    assert "did you mean max_tokens" in refused("data", "dolci", "--max_token", 5, *keys)
    french = write_jsonl("fr.jsonl", [dolci_row(random.Random(0), i, language=FRENCH) for i in range(20)])
    assert "no row is English" in refused("data", "dolci", "--path", french, *keys)
    assert not (tmp_path / "out.jsonl").exists()
