import pytest
from datasets import Dataset
from upstream_rows import OLD_THOUGHT, THOUGHT, UPSTREAM

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.reasoning.chats import SYSTEM
from stonk_trainer.tasks.reasoning.sources import SCIENCE, Part, examples, local_files
from stonk_trainer.tasks.reasoning.verify import is_correct


def read(name, path, split="train", held_out=0.0, **keys):
    return list(examples(Part(name, path, held_out=held_out, **keys), split))


def refusal(*args, **keys):
    with pytest.raises(UserError) as error:
        read(*args, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", UPSTREAM)
def test_every_source_is_read_in_its_upstream_schema(name, suffix, write_jsonl, tmp_path):
    path = write_jsonl("rows.jsonl", [UPSTREAM[name]])
    if suffix == ".parquet":
        path = str(tmp_path / "rows.parquet")
        Dataset.from_list([UPSTREAM[name]]).to_parquet(path)
    split = "validation" if name == "mmlu" else "train"  # MMLU's train split has another name
    if name == "mmlu":
        path = write_jsonl("validation.jsonl", [UPSTREAM[name]])
    (example,) = read(name, path, split)
    assert example["dropped"] == "" and example["source"] == name
    asked = example["prompt"][-1]["content"]
    assert asked.startswith("What is 2 + 2?")
    answer = example["completion"][-1]["content"]
    if example["verifier"]:
        assert is_correct(answer, example["target"], example["verifier"])
    if name in ("openthoughts", "openthoughts3", "dolci", "gsm8k"):
        assert answer == THOUGHT
        assert example["prompt"][0] == {"role": "system", "content": SYSTEM}


def test_choices_are_lettered_and_the_target_is_a_letter(write_jsonl):
    (example,) = read("arc_easy", write_jsonl("train.jsonl", [UPSTREAM["arc_easy"]]))
    assert example["prompt"][-1]["content"] == "What is 2 + 2?\nA. 3\nB. 4\nC. 5"
    assert (example["target"], example["verifier"], example["id"]) == ("B", "choice", "Mercury_1")


@pytest.mark.parametrize("text", [THOUGHT, OLD_THOUGHT])
def test_answer_only_removes_the_whole_thought_in_either_style(text, write_jsonl):
    row = {"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": text}]}
    (example,) = read("openthoughts3", write_jsonl("rows.jsonl", [row]), mode="answer_only")
    assert example["completion"] == [{"role": "assistant", "content": "The answer is \\boxed{4}."}]
    assert [message["role"] for message in example["prompt"]] == ["user"]


def test_the_metadata_configuration_of_openthoughts_is_read_too(write_jsonl):
    row = {
        "problem": "What is 2 + 2?",
        "deepseek_reasoning": "2 and 2 make 4.",
        "deepseek_solution": "The answer is \\boxed{4}.",
        "domain": "math",
    }
    (example,) = read("openthoughts", write_jsonl("rows.jsonl", [row]))
    assert example["completion"][0]["content"] == THOUGHT


def test_a_conversation_keeps_its_system_prompt_and_its_earlier_turns(write_jsonl):
    (example,) = read("smoltalk", write_jsonl("rows.jsonl", [UPSTREAM["smoltalk"]]))
    assert [message["role"] for message in example["prompt"]] == ["system", "user", "assistant", "user"]
    assert example["prompt"][0]["content"] == "Be kind."


@pytest.mark.parametrize(
    "answer, why",
    [
        ("<think>\nso long a thought that it never", "the thought is cut off"),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>The answer", "the thought is cut off"),
        ("<think>\na\n</think>\n", "no answer"),
        ("", "no answer"),
    ],
)
def test_a_row_without_a_whole_answer_is_left_out_and_says_why(answer, why, write_jsonl):
    rows = [
        UPSTREAM["chat"],
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]},
    ]
    first, second = read("chat", write_jsonl("rows.jsonl", rows))
    assert first["dropped"] == "" and second["dropped"] == why and second["completion"] == []


def test_a_chat_must_end_with_an_answer(write_jsonl):
    rows = [UPSTREAM["chat"], {"messages": [{"role": "user", "content": "Hi"}]}]
    assert read("chat", write_jsonl("rows.jsonl", rows))[1]["dropped"] == "the chat does not end with an answer"


def test_science_is_a_list_of_subjects_and_a_blank_subject_is_an_error(write_jsonl):
    rows = [UPSTREAM["mmlu"] | {"subject": subject} for subject in ("astronomy", "marketing", "virology")]
    path = write_jsonl("validation.jsonl", rows)
    assert [row["dropped"] for row in read("mmlu_science", path)] == ["", "of another subject", ""]
    assert {"astronomy", "virology"} <= set(SCIENCE) and "marketing" not in SCIENCE
    blank = write_jsonl("blank_validation.jsonl", [UPSTREAM["mmlu"] | {"subject": ""}])
    assert "blank subject" in refusal("mmlu_science", blank)
    assert read("mmlu", blank, "validation")[0]["dropped"] == ""


def test_local_files_are_grouped_by_the_split_in_their_name(write_jsonl, tmp_path):
    for name in ("main/train-00000-of-00001.jsonl", "main/test-00000-of-00001.jsonl", "other/train.jsonl"):
        write_jsonl(name, [UPSTREAM["gsm8k"]])
    files = local_files(str(tmp_path), "main")
    assert {split: [file.name for file in its] for split, its in files.items()} == {
        "test": ["test-00000-of-00001.jsonl"],
        "train": ["train-00000-of-00001.jsonl"],
    }


def test_training_cannot_be_given_a_test_file(write_jsonl):
    path = write_jsonl("gsm8k_test.jsonl", [UPSTREAM["gsm8k"]])
    assert "holds test" in refusal("gsm8k", path, "train")
    assert "holds test" in refusal("gsm8k", path, "validation")
    assert len(read("gsm8k", path, "test")) == 1


def test_validation_is_a_share_of_train_where_upstream_has_none(write_jsonl):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(400)]
    path = write_jsonl("train.jsonl", rows)
    split = {
        name: {row["prompt"][-1]["content"] for row in read("gsm8k", path, name, held_out=0.1) if not row["dropped"]}
        for name in ("train", "validation")
    }
    assert split["train"].isdisjoint(split["validation"])
    assert len(split["train"]) + len(split["validation"]) == 400 and 20 <= len(split["validation"]) <= 60


def test_an_upstream_validation_split_is_validation_and_nothing_is_held_out(write_jsonl, tmp_path):
    for split in ("train", "validation"):
        write_jsonl(f"arc/{split}.jsonl", [UPSTREAM["arc_easy"] | {"id": f"{split}{i}"} for i in range(30)])
    for split in ("train", "validation"):
        rows = read("arc_easy", str(tmp_path / "arc"), split, held_out=0.5)
        assert [row["id"] for row in rows] == [f"{split}{i}" for i in range(30)]
        assert not any(row["dropped"] for row in rows)


@pytest.mark.slow
def test_generated_questions_are_in_one_split_and_are_right():
    seen = {}
    for split in ("train", "validation", "test"):
        for row in read("arithmetic", None, split) + read("arithmetic_choice", None, split):
            assert is_correct(row["completion"][0]["content"], row["target"], row["verifier"])
            question = row["prompt"][-1]["content"].partition("\n")[0]
            assert seen.setdefault(question, split) == split


def test_stop_is_the_number_of_upstream_rows_read(write_jsonl):
    path = write_jsonl("rows.jsonl", [UPSTREAM["chat"]] * 5)
    assert len(read("chat", path, stop=3)) == 3 and len(read("chat", path, stop=9)) == 5


@pytest.mark.parametrize(
    "name, rows, says",
    [
        ("gsm8k", [{"q": 1, "a": 2}], "has the columns q, a; it needs question, answer"),
        ("chat", [{"prompt": "Hi", "answer": "Hello"}], "has the columns prompt, answer; it needs messages"),
        ("chat", [UPSTREAM["chat"], "{broken\n"], "rows.jsonl, line 2 is not JSON"),
        ("chat", ["[1]\n"], "rows.jsonl, line 1 is a list, not a JSON object"),
        ("gsm8k", [{"question": "?", "answer": 5}], "row 1 of"),
        ("chat", [UPSTREAM["chat"] | {"verifier": "odd"}], "verifier odd is not one of math, choice"),
    ],
)
def test_wrong_columns_and_broken_lines_are_named(name, rows, says, write_jsonl):
    assert says in refusal(name, write_jsonl("rows.jsonl", rows))


def test_a_prompt_and_an_answer_column_may_be_named(write_jsonl):
    path = write_jsonl("rows.jsonl", [{"q": "Hi", "a": "Hello"}])
    (example,) = read("chat", path, prompt_field="q", answer_field="a")
    assert example["completion"][0]["content"] == "Hello"


def test_files_that_are_not_there_or_torn_are_named(tmp_path, write_jsonl):
    assert "does not exist" in refusal("gsm8k", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "has no .parquet" in refusal("gsm8k", str(tmp_path / "empty"))
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 torn")
    assert "cannot be read as parquet" in refusal("gsm8k", str(torn))
    assert "did you mean gsm8k?" in refusal("gsm8", None)
    assert "needs a file" in refusal("chat", None)
