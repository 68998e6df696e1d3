"""`stonk score`: what a completion earned and why, and what a run's log says when scored again."""

import json
import random
import subprocess
import sys

import pytest

from stonk_trainer.tasks.stocks import Stocks, StocksArguments
from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json, facts_to_json
from stonk_trainer.tasks.stocks.rewards import score
from stonk_trainer.tasks.stocks.score import main, print_score, stocks_of_recipe
from stonk_trainer.tasks.stocks.warmup import write_answer

FACTS = [
    Fact("company", "Acme", "text", "Acme"),
    Fact("close", 175.53, "usd", "$175.53"),
    Fact("change_1d", 0.5, "percent", "+0.50%"),
    Fact("change_5d", -2.31, "percent", "-2.31%"),
    Fact("sma_20", 171.8, "usd", "$171.80"),
    Fact("volatility_20d", 1.2, "percent", "1.20%"),
]
ROW = {
    "prompt": [{"role": "user", "content": "Will the next trading day's close be UP or DOWN?"}],
    "label": "UP",
    "next_return": 0.012,
    "facts": facts_to_json(FACTS),
    "base_rate_up": 0.6,
    "ticker": "ACME",
    "date": "2019-03-04",
}
ANSWER = (
    "<think>\nThe share rose 0.50% over the last day and has gained 9.99% since spring, it seems to me.\n</think>\n"
    "Evidence:\n- 1-day change | +0.50% | UP\n- 5-day change | 2.31% | UP\n- Close vs 20-day average | above | UP\n"
    "Prediction: UP\nExpected move: 1.2%\nConfidence: 70%"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    (tmp_path / "answer.txt").write_text(ANSWER)
    return tmp_path


def of_row(folder, *more, row="row.json", completion="answer.txt"):
    main(["--row", str(folder / row), "--completion", str(folder / completion), *more])


def error_of(capsys, argv):
    """The one line on stderr with which `argv` ends."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def write_row(folder, **changes):
    row = {key: value for key, value in (ROW | changes).items() if value is not None}
    (folder / "row.json").write_text(json.dumps(row))


# ---------------------------------------------------------------------------------------------------- one row


def test_the_table_shows_every_line_of_evidence_every_reward_and_the_weighted_total(folder, capsys):
    of_row(folder)
    out = " ".join(capsys.readouterr().out.split())
    assert "ACME 2019-03-04: UP, next return +1.20%" in out
    assert "1-day change +0.50% UP grounded" in out
    assert "5-day change 2.31% UP wrong value" in out
    assert "invented numbers in the thought: 9.99%" in out
    assert "forecast: UP, confidence 0.7, move 0.012" in out
    assert "accuracy 1.000 0.6 0.600 predicted UP, was UP" in out
    assert "direction accuracy of stocks/stage1; evidence required" in out


def test_json_holds_evidence_invented_numbers_and_a_remark_on_the_confidence(folder, capsys):
    (folder / "answer.txt").write_text(ANSWER.replace("70%", "8%"))
    of_row(folder, "--json")
    output = json.loads(capsys.readouterr().out)
    assert output["evidence"][1] == {"name": "5-day change", "value": "2.31%", "side": "UP", "verdict": "wrong value"}
    assert output["invented"] == ["9.99%"] and output["forecast"]["confidence"] is None
    of_row(folder)
    assert "note: the stated confidence of 8% is not between 50% and 100%" in capsys.readouterr().out


def test_prose_counts_where_evidence_is_optional(folder, capsys):
    (folder / "answer.txt").write_text("<think>It fell 2.31% and rose 0.50% to $175.53.</think>\nPrediction: UP")
    for flag, lines in (("required", 0), ("optional", 3)):
        of_row(folder, "--json", "--evidence", flag)
        output = json.loads(capsys.readouterr().out)
        assert len(output["evidence"]) == lines and output["scoring"]["evidence"] == flag
        assert (output["data_usage"] > 0) == (lines > 0)


REWARD = "def humility(completions, facts, **columns):\n    return [0.25] * len(completions)\n"


def test_a_recipe_that_is_named_may_import_a_reward(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "score_rewards.py").write_text(REWARD)
    (folder / "mine.yaml").write_text(
        "task: stocks\nreward: [accuracy, score_rewards:humility]\nreward_weights: [1, 2]\n"
    )
    of_row(folder, "--recipe", "mine.yaml", "--json")
    output = json.loads(capsys.readouterr().out)
    assert output["humility"] == 0.25 and output["total"] == 1.5
    of_row(folder, "--recipe", "mine.yaml")
    assert "humility 0.250 2 0.500 an imported reward" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_recipe_beside_a_log_imports_nothing_and_the_report_says_so(logged, capsys, monkeypatch):
    folder, _ = logged
    monkeypatch.chdir(folder)
    (folder / "log_rewards.py").write_text("open('ran', 'w')\n" + REWARD)
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(
        recipe.replace("coherence]", "coherence, log_rewards:humility]").replace("0.2, 0.2]", "0.2, 0.2, 0.1]")
    )
    report = report_of(capsys, folder, "--rebuild")
    assert "imported rewards are not scored again: log_rewards:humility" in report["notes"]
    assert not (folder / "ran").exists()


def test_without_a_recipe_the_total_is_stage_ones(folder, capsys):
    of_row(folder, "--json")
    output = json.loads(capsys.readouterr().out)
    assert output["scoring"]["weights"] == {"accuracy": 0.6, "data_usage": 0.2, "coherence": 0.2}
    assert output["total"] == pytest.approx(
        0.6 * output["accuracy"] + 0.2 * output["data_usage"] + 0.2 * output["coherence"]
    )


def test_a_recipe_gives_its_accuracy_and_its_weights(folder, capsys):
    of_row(folder, "--recipe", "stocks/stage2", "--json")
    output = json.loads(capsys.readouterr().out)
    assert output["accuracy"] == pytest.approx(1 - 0.3**2)
    parts = ("accuracy", "magnitude", "data_usage", "coherence")
    assert output["total"] == pytest.approx(
        sum(w * output[p] for w, p in zip((0.35, 0.15, 0.3, 0.2), parts, strict=True))
    )


def test_verdicts_are_coloured_where_colour_is_shown(capsys, monkeypatch):
    result = score(ANSWER, ROW)

    def printed():
        settings = {"recipe": "mine", "accuracy": "direction", "skew_aware": False, "evidence": "required"}
        print_score(ANSWER, ROW, result, settings | {"weights": {"accuracy": 1.0}})
        return capsys.readouterr().out

    assert "\x1b" not in printed()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = printed()
    assert "\x1b[32mgrounded" in coloured and "\x1b[31mwrong value" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in printed()


def test_a_completion_cannot_steer_the_terminal_or_pass_for_markup(folder, capsys):
    (folder / "answer.txt").write_text("\x1b[2J[bold]hello[/bold] \x07\nPrediction: UP")
    of_row(folder)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert "[bold]hello[/bold]" in out


def test_an_unreadable_completion_says_why_and_an_empty_one_earns_nothing(folder, capsys):
    (folder / "answer.txt").write_text("<think>\nwell")
    of_row(folder)
    assert "forecast: none, unclosed <think>" in capsys.readouterr().out
    (folder / "answer.txt").write_text("")
    of_row(folder, "--json")
    assert json.loads(capsys.readouterr().out)["total"] == 0
    of_row(folder)
    assert "(empty completion)" in capsys.readouterr().out


def test_the_completion_may_come_from_standard_input(folder, capsys, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("Prediction: DOWN"))
    main(["--row", str(folder / "row.json"), "--completion", "-", "--json"])
    assert json.loads(capsys.readouterr().out)["forecast"]["direction"] == "DOWN"


def test_a_row_is_taken_from_a_line_of_a_jsonl_file(folder, capsys):
    rows = [ROW, ROW | {"ticker": "SECOND", "facts": json.loads(ROW["facts"]), "headline": "a\u2028b"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    of_row(folder, "--json", row="rows.jsonl:2")
    assert json.loads(capsys.readouterr().out)["ticker"] == "SECOND"
    arguments = ["--completion", folder / "answer.txt", "--row"]
    assert "has no row in line 3: its last row is in line 2" in error_of(capsys, [*arguments, folder / "rows.jsonl:3"])
    assert "rows.jsonl:1" in error_of(capsys, [*arguments, folder / "rows.jsonl"])
    assert "has no row in line 0" in error_of(capsys, [*arguments, folder / "rows.jsonl:0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "lacks label"),
        ({"facts": None}, "lacks facts"),
        ({"next_return": None}, "lacks next_return"),
        ({"label": "up"}, "label: 'up' is neither UP nor DOWN"),
        ({"next_return": "1%"}, "next_return"),
        ({"next_return": 10**400}, "next_return"),
        ({"facts": "not json"}, "facts is not JSON"),
        ({"facts": {"close": 1}}, "facts is not a list"),
        ({"facts": [{"name": "close"}]}, "fact 1 must have exactly the keys"),
        ({"facts": [{"name": "close", "value": [], "unit": "usd", "shown": "$1"}]}, "fact 1: value"),
        ({"facts": [{"name": "close", "value": float("nan"), "unit": "usd", "shown": "$1"}]}, "fact 1: value"),
        ({"facts": [{"name": 1, "value": 1, "unit": "usd", "shown": "$1"}]}, "fact 1: name, unit and shown"),
    ],
)
def test_a_row_that_cannot_be_scored_ends_with_the_key(folder, capsys, changes, message):
    write_row(folder, **changes)
    output = error_of(capsys, ["--row", folder / "row.json", "--completion", folder / "answer.txt"])
    assert "row.json" in output and message in output


def test_the_base_rate_is_needed_only_where_it_is_used(folder, capsys):
    write_row(folder, base_rate_up=None)
    of_row(folder, "--json")
    capsys.readouterr()
    (folder / "aware.yaml").write_text("task: stocks\nskew_aware: true\n")
    arguments = ["--row", folder / "row.json", "--completion", folder / "answer.txt", "--recipe", folder / "aware.yaml"]
    assert "lacks base_rate_up" in error_of(capsys, arguments)
    write_row(folder, base_rate_up=0.8)
    main(list(map(str, [*arguments, "--json"])))
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "one of the arguments"),
        (["--row", "row.json", "--log", "log.jsonl"], "not allowed with"),
        (["--row", "row.json"], "--row needs --completion"),
        (["--from", "stocks/stage1"], "--from needs --ticker and --date"),
        (["--row", "row.json", "--completion", "-", "--rebuild"], "--rebuild goes with --log"),
        (["--log", "log.jsonl", "--completion", "-"], "--completion goes with --row or --from"),
        (["--log", "log.jsonl", "--rows", "r", "--rebuild"], "keep one"),
        (["--row", "missing.json", "--completion", "-"], "missing.json cannot be read"),
        (["--log", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["--row", "r", "--completion", "c", "--recipe", "nowhere"], "recipe nowhere not found"),
        (["--from", "stocks/demo/stage1", "--ticker", "AAPL", "--date", "4 March"], "not a day"),
    ],
)
def test_wrong_arguments_end_in_one_line(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, argv)


def test_files_that_are_no_json_or_no_text_end_in_one_line(folder, capsys):
    (folder / "bad.json").write_text('{"label": ')
    assert "is not JSON" in error_of(capsys, ["--row", folder / "bad.json", "--completion", folder / "answer.txt"])
    (folder / "bad.txt").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in error_of(capsys, ["--row", folder / "row.json", "--completion", folder / "bad.txt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: other\n", "supports the task stocks only"),
        ("task: stocks\nreward: [speed]\n", "reward"),
        ("task: stocks\nreward: [accuracy]\nreward_weights: [1, 2]\n", "reward_weights"),
        ("task: stocks\naccuracy: guessed\n", "accuracy: guessed"),
        ("task: stocks\nmax_completion_length: long\n", "max_completion_length: long"),
    ],
)
def test_a_recipe_that_cannot_score_stocks_is_refused(folder, capsys, text, message):
    (folder / "bad.yaml").write_text(text)
    arguments = ["--row", folder / "row.json", "--completion", folder / "answer.txt", "--recipe", folder / "bad.yaml"]
    assert message in error_of(capsys, arguments)


def test_help_shows_an_example_of_each_form(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for form in ("stonk score --row", "stonk score --log", "stonk score --from"):
        assert form in out


@pytest.mark.slow
def test_a_row_is_scored_without_importing_a_framework(folder):
    script = (
        "import sys; from stonk_trainer.tasks.stocks.score import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'pandas', 'datasets', 'scipy'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    arguments = ["--row", folder / "row.json", "--completion", folder / "answer.txt"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "total" in done.stdout


@pytest.mark.slow
def test_a_terminal_without_unicode_gets_plain_letters(folder):
    script = "import sys; from stonk_trainer.tasks.stocks.score import main; main(sys.argv[1:])"
    (folder / "answer.txt").write_text(ANSWER.replace("The share", "The share \u2014 caf\u00e9 \u2014"))
    done = subprocess.run(
        [sys.executable, "-c", script, "--row", folder / "row.json", "--completion", folder / "answer.txt"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"The share ? caf? ?" in done.stdout and b"wrong value" in done.stdout


# ---------------------------------------------------------------------------------------------------- a run


RECIPE = """
task: stocks
model_name_or_path: /no/longer/there
output_dir: out
dataset_name: embedded:sp500
history_days: 0
indicators: [change_1d, change_5d, sma_20]
max_train_samples: 48
max_eval_samples: 2
reward: [accuracy, data_usage, coherence]
reward_weights: [0.6, 0.2, 0.2]
evidence: required
num_generations: 4
per_device_train_batch_size: 4
max_completion_length: 96
use_cpu: true
bf16: false
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder as training leaves it: recipe, and a log of four warm-up texts on each of 48 rows."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(RECIPE)
    task = Stocks(
        StocksArguments(
            max_train_samples=48, history_days=0, indicators=["change_1d", "change_5d", "sma_20"], evidence="required"
        )
    )
    rng = random.Random(0)
    rows = list(task.rl_dataset("train"))
    rng.shuffle(rows)
    lines = []
    for number, row in enumerate(rows):
        for _ in range(4):
            text = write_answer(facts_from_json(row["facts"]), rng.choice(("UP", "DOWN")), rng)
            result = score(text, row, evidence="required")
            rewards = {name: result[name] for name in task.args.reward}
            total = sum(w * r for w, r in zip((0.6, 0.2, 0.2), rewards.values(), strict=True))
            lines.append(
                {"step": number // 2 + 1, **task.read([row], [text])[0], **rewards, "total": total}
                | {"completion": text}
            )
    return folder, rows, lines


@pytest.fixture
def logged(run, tmp_path):
    """(folder with recipe.yaml and training_log.jsonl, the log's lines)."""
    folder, rows, lines = run
    (tmp_path / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [dict(line) for line in lines]
    write_log(tmp_path, lines)
    return tmp_path, lines


def write_log(folder, lines, end=""):
    (folder / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def report_of(capsys, folder, *more):
    main(["--log", str(folder / "training_log.jsonl"), "--json", *more])
    return json.loads(capsys.readouterr().out)


def test_an_honest_log_scores_again_as_it_did_and_shows_no_pattern(logged, capsys):
    folder, lines = logged
    report = report_of(capsys, folder, "--rows", str(folder / "rows.jsonl"))
    assert set(report["rescored"]) == {"forecast", "accuracy", "data_usage", "coherence", "total"}
    assert all(c["compared"] == len(lines) and c["differ"] == 0 for c in report["rescored"].values())
    assert report["patterns"] == [] and report["notes"] == []
    assert report["scoring"]["recipe"].endswith("recipe.yaml")


@pytest.mark.slow
def test_the_rows_are_rebuilt_from_the_runs_recipe_though_its_model_is_gone(logged, capsys):
    folder, lines = logged
    report = report_of(capsys, folder, "--rebuild")
    assert report["rescored"]["data_usage"] == {"compared": len(lines), "differ": 0, "largest": 0.0, "line": None}
    (folder / "recipe.yaml").unlink()
    assert "--rebuild needs" in error_of(capsys, ["--log", folder / "training_log.jsonl", "--rebuild"])


def test_without_rows_only_what_the_log_holds_is_scored_again(logged, capsys):
    folder, _ = logged
    report = report_of(capsys, folder)
    assert set(report["rescored"]) == {"forecast", "accuracy", "total"}
    assert "data_usage, coherence: not scored again" in report["notes"][0]


def test_rewards_that_were_logged_wrongly_are_counted_with_the_largest(logged, capsys):
    folder, lines = logged
    lines[5]["data_usage"] += 0.25
    lines[9]["data_usage"] -= 0.125
    lines[7]["direction"] = "UP" if lines[7]["direction"] == "DOWN" else "DOWN"
    write_log(folder, lines)
    report = report_of(capsys, folder, "--rows", str(folder / "rows.jsonl"))
    assert report["rescored"]["data_usage"] == {"compared": 192, "differ": 2, "largest": 0.25, "line": 6}
    assert report["rescored"]["total"]["differ"] == 2
    assert report["rescored"]["forecast"]["differ"] == 1 and report["rescored"]["forecast"]["line"] == 8
    assert report["rescored"]["accuracy"]["differ"] == 0
    main(["--log", str(folder / "training_log.jsonl"), "--rows", str(folder / "rows.jsonl")])
    out = " ".join(capsys.readouterr().out.split())
    assert "data_usage 192 2 0.25 (completion 6)" in out and "no pattern of gaming found" in out


def test_rows_that_are_missing_or_differ_are_counted(logged, capsys):
    folder, lines = logged
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()][1:]
    rows[0]["next_return"] += 0.01
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = report_of(capsys, folder, "--rows", str(folder / "rows.jsonl"))
    assert report["notes"] == [
        "4 completions are of rows that are not among the 47 given",
        "4 completions have another label or return in the rows than in the log",
    ]
    assert report["rescored"]["coherence"]["compared"] == len(lines) - 4


def test_patterns_are_findings_and_end_with_status_zero(logged, capsys):
    folder, lines = logged
    for line in lines[96:]:
        line |= {"direction": "UP", "completion": "Prediction: UP"}
    write_log(folder, lines)
    main(["--log", str(folder / "training_log.jsonl")])
    out = capsys.readouterr().out
    assert "warning: one direction only. 100% of the 64 forecasts of steps 17-24 say UP" in out


def test_the_recipes_rewards_must_be_the_logs_for_the_total_to_be_checked(logged, capsys):
    folder, _ = logged
    report = report_of(capsys, folder, "--recipe", "stocks/stage2")
    assert "total" not in report["rescored"]
    assert any("total: not checked" in note for note in report["notes"])


def test_a_log_without_its_recipe_is_taken_as_stage_one_and_says_so(logged, capsys):
    folder, _ = logged
    (folder / "recipe.yaml").unlink()
    assert any("taken as a run of stocks/stage1" in note for note in report_of(capsys, folder)["notes"])


def test_a_last_line_that_is_cut_off_is_skipped_with_a_note(logged, capsys):
    folder, lines = logged
    write_log(folder, lines, end='{"step": 25, "ticker": "AA')
    report = report_of(capsys, folder)
    assert report["completions"] == len(lines)
    assert "line 193 is cut off and skipped" in report["notes"]


def test_a_broken_line_in_the_middle_is_named_by_its_number(logged, capsys):
    folder, lines = logged
    write_log(folder, lines[:3], end='{"step": 2, "ti\n' + json.dumps(lines[3]) + "\n")
    assert "line 4 is not a JSON object" in error_of(capsys, ["--log", folder / "training_log.jsonl"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no completion"),
        ("\n\n", "holds no completion"),
        ('{"step": 1, "ti', "line 1 is cut off"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('{"step": 1, "total": 0.5, "completion": "4"}\n', "line 1 lacks ticker, date, label, direction"),
    ],
)
def test_a_log_that_is_empty_or_of_another_task_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "log.jsonl").write_text(text)
    assert message in error_of(capsys, ["--log", tmp_path / "log.jsonl"])


def test_a_line_with_a_value_of_the_wrong_kind_is_refused(logged, capsys):
    folder, lines = logged
    write_log(folder, [*lines[:2], lines[2] | {"total": "high"}])
    assert "line 3: total: 'high'" in error_of(capsys, ["--log", folder / "training_log.jsonl"])


# ---------------------------------------------------------------------------------------------------- a dataset's row


def test_a_row_of_a_recipes_dataset_is_printed_and_scored(run, capsys, tmp_path):
    recipe = str(run[0] / "recipe.yaml")
    where = ["--from", recipe, "--ticker", "AAPL", "--date", "2019-03-04"]
    main(where)
    row = json.loads(capsys.readouterr().out)
    assert row["label"] == "DOWN" and row["next_return"] == pytest.approx(-0.00184, abs=1e-5)
    (tmp_path / "answer.txt").write_text("Prediction: DOWN")
    main([*where, "--completion", str(tmp_path / "answer.txt"), "--json"])
    output = json.loads(capsys.readouterr().out)
    assert output["accuracy"] == 1 and output["scoring"]["recipe"] == recipe


@pytest.mark.slow
def test_a_day_is_found_that_the_recipe_did_not_draw_or_dropped_for_balance(run, capsys):
    folder, rows, _ = run
    task = Stocks(StocksArguments(tickers=["AAPL"], history_days=0))
    balanced = set(task.rl_dataset("train")["date"])
    days = task.replaced(natural_distribution=True).rl_dataset("train")["date"]
    dropped = max(set(days) - balanced)
    main(["--from", str(folder / "recipe.yaml"), "--ticker", "AAPL", "--date", dropped])
    row = json.loads(capsys.readouterr().out)
    assert (row["ticker"], row["date"]) == ("AAPL", dropped)
    assert row["base_rate_up"] == rows[0]["base_rate_up"] == 0.5
    shown, expected = ({fact["name"] for fact in json.loads(r["facts"])} for r in (row, rows[0]))
    assert shown == expected


def test_a_day_or_company_without_a_row_ends_in_one_line(run, capsys):
    recipe = run[0] / "recipe.yaml"
    closed = error_of(capsys, ["--from", recipe, "--ticker", "AAPL", "--date", "2019-03-03"])
    assert "no row on 2019-03-03" in closed and "2019-03-01, 2019-03-04" in closed
    assert "XXXX" in error_of(capsys, ["--from", recipe, "--ticker", "XXXX", "--date", "2019-03-04"])


def test_a_recipe_gives_the_task_and_the_weight_of_each_reward():
    task, weights = stocks_of_recipe("stocks/stage2")
    assert task.args.accuracy == "calibrated" and not task.args.skew_aware
    assert weights == {"accuracy": 0.35, "magnitude": 0.15, "data_usage": 0.3, "coherence": 0.2}
    assert task.max_completion_length == 384 and task.args.evidence == "required"
