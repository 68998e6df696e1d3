import json

import pytest

pytestmark = pytest.mark.slow

TASK = """\
task: sums_of_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: []
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder with a task of one's own, in lm-eval's YAML, on a local file."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(30)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "sums.yaml").write_text(TASK.format(name="mine", data=data))
    return folder


def test_models_are_measured_on_local_tasks_with_standard_errors(stonk, adding_model_folder, tasks, tmp_path):
    argv = ["eval", "--task", "reasoning", "--models", adding_model_folder, "--benchmarks", "r1_arithmetic"]
    keys = ["--include_path", "r1/demo/tasks", "--batch_size", 10, "--max_gen_toks", 8, "--limit", 40]
    text = stonk(*argv, *keys, "--system_instruction", "reasoning", "--out", tmp_path / "a")
    (of_model,) = json.loads((tmp_path / "a" / "results.json").read_text()).values()
    figures = of_model["r1_arithmetic"]
    assert figures["questions"] == 40 and figures["in_form"] == 1.0 and 0 <= figures["accuracy"] < 1
    p = figures["accuracy"]
    assert figures["accuracy_stderr"] == pytest.approx((p * (1 - p) / 39) ** 0.5, abs=1e-6)
    assert [line.split()[1:] for line in text.splitlines() if " in_form " in line] == [
        ["r1_arithmetic", "in_form", "100.0", "0.0", "40"]
    ]
    argv[-1] = "sums_of_mine"
    stonk(*argv, "--include_path", tasks, "--batch_size", 10, "--max_gen_toks", 8, "--out", tmp_path / "b")
    (of_model,) = json.loads((tmp_path / "b" / "results.json").read_text()).values()
    assert of_model["sums_of_mine"]["questions"] == 30


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--benchmarks", "r1_arithmetik"], "lm-eval has no task r1_arithmetik; did you mean r1_arithmetic"),
        (["--benchmarks", "humaneval"], "execute what a model writes: --run_code true"),
        (["--limit", "0"], "limit: 0 must be at least 1"),
        (["--batch_size", "many"], "batch_size: many must be a number"),
        (["--include_path", "nowhere"], "include_path: nowhere is not a folder"),
        (["--models", "no/such/model"], "not found"),
        (["--benchmark", "gsm8k"], "did you mean benchmarks"),
    ],
)
def test_bad_input_is_one_line(refused, flags, says, adding_model_folder, tmp_path):
    argv = ["eval", "--config", "r1/demo/eval", "--models", adding_model_folder, "--out", tmp_path / "a"]
    assert says in refused(*argv, *flags)
    assert not (tmp_path / "a").exists()
