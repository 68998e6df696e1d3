"""`stonk predict`: forecasts from rows and from prices, in files and pipes, and after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stonk_trainer import predict
from stonk_trainer.cli import main
from stonk_trainer.errors import UserError
from stonk_trainer.forecasting.calibration import Calibration

pytestmark = pytest.mark.slow

RECIPE = "stocks/demo/stage2"
QUICK = {"recipe": RECIPE, "samples": 4, "max_completion_length": 4}
FLAGS = ["--recipe", RECIPE, "--samples", "4", "--max_completion_length", "4"]


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    """30 rows of the demo's test split, as `stonk data rows` writes them."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with path.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "stonk_trainer.cli", "data", "rows", RECIPE, "--max_rows", "30"],
            stdout=file,
            check=True,
        )
    return path


@pytest.fixture(scope="module")
def rows(rows_file):
    return [json.loads(line) for line in rows_file.read_text().splitlines()]


@pytest.fixture
def prices(tmp_path):
    """Forty weekdays of one share, the last of which nobody knows the end of."""
    import pandas as pd

    days = pd.bdate_range("2024-01-01", periods=40)
    closes = [100 + day % 5 for day in range(40)]
    path = tmp_path / "MINE.csv"
    pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "close": closes}).to_csv(path, index=False)
    return path


def run(*argv):
    main(["predict", *map(str, argv)])


def refused(capsys, *argv):
    """The one line a command ends with, and status 2."""
    with pytest.raises(SystemExit) as ended:
        run(*argv)
    error = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and error[-1].startswith("error: ") and "Traceback" not in "\n".join(error)
    return error[-1]


# ------------------------------------------------------------------------------------------------------ what is said


def test_a_forecast_is_what_most_of_its_answers_say(tiny_model_folder, rows):
    for forecast in predict(tiny_model_folder, rows, **QUICK):
        directions = [answer["direction"] for answer in forecast["answers"]]
        assert len(directions) == forecast["samples"] == 4
        said = forecast["direction"]
        assert directions.count(said) >= 2 and forecast["confidence"] == directions.count(said) / forecast["readable"]
        stated = [0.6 if one == "UP" else 0.3 for one in directions if one]
        up = sum(stated) / len(stated)
        assert forecast["stated_confidence"] == pytest.approx(up if said == "UP" else 1 - up)
        assert forecast["move"] == pytest.approx(0.01) and said.lower() in forecast["answer"]


def test_answers_that_cannot_be_read_are_no_forecast(tiny_model_folder, rows):
    found = predict(tiny_model_folder, rows[:2], recipe=RECIPE, samples=2, max_completion_length=1, temperature=50.0)
    unreadable = [one for one in found if not one["readable"]]
    assert unreadable and all(one["direction"] is None and one["confidence"] is None for one in unreadable)
    assert all(answer["problem"] for one in unreadable for answer in one["answers"])


def test_a_row_is_answered_alike_alone_and_among_others(tiny_model_folder, rows):
    together = predict(tiny_model_folder, rows, dtype="float32", batch_size=30, **QUICK)
    alone = predict(tiny_model_folder, rows, dtype="float32", batch_size=1, **QUICK)
    assert together == alone
    other_seed = predict(tiny_model_folder, rows, dtype="float32", batch_size=30, seed=1, **QUICK)
    assert [one["answers"] for one in other_seed] != [one["answers"] for one in alone]


def test_the_last_day_of_a_csv_is_forecast_though_nobody_knows_its_outcome(tiny_model_folder, prices):
    (forecast,) = predict(tiny_model_folder, prices, **QUICK)
    assert (forecast["ticker"], forecast["date"]) == ("MINE", "2024-02-23")
    assert forecast["label"] is None and forecast["next_return"] is None
    assert forecast["base_rate_up"] == pytest.approx(32 / 39)  # 39 changes are known, every fifth of them a fall


def test_an_unchanged_close_is_an_outcome_too(tiny_model_folder, prices, stonk):
    lines = prices.read_text().splitlines()
    prices.write_text("\n".join([*lines, f"2024-02-26,{lines[-1].split(',')[1]}"]) + "\n")
    (forecast,) = predict(tiny_model_folder, prices, date="2024-02-23", **QUICK)
    assert forecast["label"] is None and forecast["next_return"] == 0
    flags = [part for key, value in QUICK.items() for part in (f"--{key}", str(value))]
    command = ["predict", "--model", str(tiny_model_folder), "--csv", str(prices), "--date", "2024-02-23", *flags]
    assert "unchanged" in stonk(*command)


def test_a_dataframe_of_prices_or_of_rows_is_forecast_as_its_file_is(tiny_model_folder, prices, rows):
    import pandas as pd

    (of_file,) = predict(tiny_model_folder, prices, **QUICK)
    frame = pd.read_csv(prices)
    for given in (frame, frame.assign(date=pd.to_datetime(frame["date"])).set_index("date")):
        (of_frame,) = predict(tiny_model_folder, given, **QUICK)
        assert [of_frame[key] for key in ("date", "base_rate_up")] == [of_file[key] for key in ("date", "base_rate_up")]
    some = predict(tiny_model_folder, rows[:3], **QUICK)
    assert predict(tiny_model_folder, pd.DataFrame(rows[:3]), **QUICK) == some


def test_a_day_of_a_csv_knows_nothing_of_what_came_after_it(tiny_model_folder, prices):
    (before,) = predict(tiny_model_folder, prices, date="2024-02-01", **QUICK)
    lines = prices.read_text().splitlines()
    cut = next(number for number, line in enumerate(lines) if line.startswith("2024-02-01"))
    prices.with_name("cut").mkdir()
    changed = prices.with_name("cut") / "MINE.csv"
    changed.write_text("\n".join([*lines[: cut + 1], "2024-02-02,7", *lines[cut + 2 :]]) + "\n")
    (after,) = predict(tiny_model_folder, changed, date="2024-02-01", **QUICK)
    assert before["label"] == "UP" and after["label"] == "DOWN"
    outcome = {"label", "next_return"}
    assert {k: v for k, v in before.items() if k not in outcome} == {k: v for k, v in after.items() if k not in outcome}


def test_an_adapter_forecasts_as_the_model_it_is_part_of(tiny_model_folder, rows, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_folder), LoraConfig(r=2))
    model.save_pretrained(tmp_path / "adapter")
    bare = predict(tiny_model_folder, rows[:4], **QUICK)
    adapted = predict(tmp_path / "adapter", rows[:4], **QUICK)  # a new adapter changes nothing
    assert [one["answers"] for one in adapted] == [one["answers"] for one in bare]


def test_the_recipe_beside_the_model_makes_the_prompt(tiny_model_folder, prices, tmp_path):
    run = tmp_path / "run"
    (run / "best_model").mkdir(parents=True)
    for file in Path(tiny_model_folder).iterdir():
        (run / "best_model" / file.name).symlink_to(file)
    (run / "recipe.yaml").write_text("task: stocks\nhistory_days: 3\nindicators: [sma_5]\nlearning_rate: 0.1\n")
    from stonk_trainer.forecasting.prediction import Predict, Predictor

    asked = Predict(model=str(run / "best_model"), dataset_name=str(prices))
    with Predictor(asked.model, asked) as predictor:
        (row,) = predictor.rows(asked)
    text = row["prompt"][-1]["content"]
    assert "Earlier closes: $102.00, $103.00, $104.00" not in text and text.count("$") == 3 + 1 + 1
    assert "5-day average" in text and "1-day change" not in text


def test_a_gpt_forecasts_days_ahead_beside_how_often_as_many_days_rose(small_gpt_folder, prices):
    """Prices that begin after its training, too; the closes go from 100 to 104, over and over."""
    asked = {"start": "2024-02-15", "horizon": 5, "samples": 50, "dataset_name": str(prices)}
    rows = predict(small_gpt_folder, **asked)
    assert [row["date"] for row in rows] == ["2024-02-15", "2024-02-16", *(f"2024-02-{day}" for day in range(19, 24))]
    for row in rows:
        assert row["samples"] == row["readable"] == 50 and row["stated_confidence"] is None
        assert row["base_rate_up"] < 0.5  # five days on, the price is what it was, up to rounding
        assert row["direction"] in ("UP", "DOWN") and row["confidence"] >= 0.5
    assert [row["direction"] for row in predict(small_gpt_folder, batch_size=1, **asked)] == [
        row["direction"] for row in rows
    ]
    (next_day,) = predict(small_gpt_folder, prices, date="2024-02-22", samples=50)
    assert next_day["label"] == "UP" and next_day["next_return"] == pytest.approx(1 / 103)


# ------------------------------------------------------------------------------------------------------ files and pipes


def test_the_table_shows_samples_base_rate_and_outcome(tiny_model_folder, rows_file, capsys):
    run("--model", tiny_model_folder, "--rows", rows_file, *FLAGS)
    printed = capsys.readouterr().out
    first = json.loads(rows_file.read_text().splitlines()[0])
    for part in (first["ticker"], first["date"], "base rate", "51.4%", f"{first['next_return']:+.2%}", "of 4"):
        assert part in printed, part


def test_rows_come_through_a_pipe_and_forecasts_leave_through_one(tiny_model_folder, rows_file):
    command = [sys.executable, "-m", "stonk_trainer.cli", "predict", "--model", str(tiny_model_folder), "--rows", "-"]
    for form in ("jsonl", "csv"):
        with rows_file.open() as file:
            done = subprocess.run([*command, *FLAGS, "--format", form], stdin=file, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and "rows: 30/30" in done.stderr and len(lines) == 30 + (form == "csv")
    assert lines[0].startswith("ticker,date,direction,confidence")


def test_the_forecasts_are_judged_as_they_are_written(tiny_model_folder, rows_file, tmp_path):
    out = tmp_path / "new" / "forecasts.jsonl"
    run("--model", tiny_model_folder, "--rows", rows_file, *FLAGS, "--out", out)
    main(["eval", "--config", "stocks/demo/eval", "--predictions", str(out), "--out", str(tmp_path / "eval")])
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    written = [json.loads(line) for line in out.read_text().splitlines()]
    right = sum(one["direction"] == one["label"] for one in written) / len(written)
    assert len(written) == 30 and summary["accuracy"] == pytest.approx(right)


def test_a_killed_run_goes_on_and_ends_with_the_forecasts_of_a_whole_one(tiny_model_folder, rows_file, tmp_path):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    argv = ["--model", tiny_model_folder, "--rows", rows_file, "--dtype", "float32", "--batch_size", 2, *FLAGS]
    run(*argv, "--out", whole)
    command = [sys.executable, "-m", "stonk_trainer.cli", "predict", *map(str, argv), "--out", str(killed)]
    process = subprocess.Popen(command)
    while process.poll() is None and (not killed.exists() or killed.read_text().count("\n") < 4):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = killed.read_text().count("\n")
    assert 4 <= before < 30
    with killed.open("a") as file:
        file.write('{"model": "torn')
    run(*argv, "--out", killed, "--resume", "true")
    assert killed.read_text() == whole.read_text()


def test_forecasts_of_other_rows_are_not_gone_on_with(tiny_model_folder, rows_file, prices, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    run("--model", tiny_model_folder, "--rows", rows_file, *FLAGS, "--out", out)
    before = out.read_bytes()
    argv = ["--model", tiny_model_folder, "--csv", prices, *FLAGS, "--out", out, "--resume", "true"]
    assert "forecasts of other rows, another model" in refused(capsys, *argv)
    assert out.read_bytes() == before


# ------------------------------------------------------------------------------------------------------ what is wrong


def test_what_cannot_be_forecast_is_said_in_one_line(
    tiny_model_folder, small_gpt_folder, rows_file, prices, tmp_path, capsys
):
    broken = tmp_path / "broken.jsonl"
    model = ["--model", tiny_model_folder]
    for text, told in (
        ("", "has none"),
        ("{", "line 1 is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"prompt": [], "next_return": "high"}', "next_return: 'high' is not a number"),
        ('{"facts": []}', "line 1: prompt is not a list of messages"),
        ('{"prompt": [{"role": "user", "content": "?"}], "facts": [1]}', "fact 1 must have exactly the keys"),
    ):
        broken.write_text(text)
        assert told in refused(capsys, *model, "--rows", broken, *FLAGS)
    csv = ["--csv", prices]
    for argv, told in (
        (csv, "no model"),
        (["--model", "runs/nothing/best_model", *csv], "not found"),
        ([*model, "--csv", tmp_path / "none.csv"], "cannot be read"),
        ([*model, *csv, "--tickers", "OTHER"], "OTHER not in"),
        ([*model, *csv, "--date", "2030-01-01"], "no day to forecast"),
        ([*model, *csv, "--date", "01/02/2024"], "is not a day (YYYY-MM-DD)"),
        ([*model, *csv, "--rows", rows_file], "keep one"),
        ([*model, *csv, "--out", prices], "is the file that dataset_name reads"),
        ([*model, "--rows", rows_file, "--out", rows_file], "is the file that rows reads"),
        ([*model, *csv, "--start", "2024-02-02", "--end", "2024-02-01"], "is after end"),
        (["--model", small_gpt_folder, *csv, "--top_p", "0.9"], "top_p: 0.9 is for language models"),
        ([*model, *csv, "--samples", "0"], "must be at least 1"),
        ([*model, *csv, "--temperature", "0"], "above 0"),
        ([*model, *csv, "--horizon", "5"], "one trading day ahead"),
        ([*model, *csv, "--out", tmp_path / "x.txt"], "name it .jsonl or .csv"),
        ([*model, *csv, "--resume", "true"], "give --out FILE.jsonl"),
        ([*model, *csv, "--recipe", "r1/grpo"], "stonk predict is for forecasts"),
        ([*model, *csv, "--calibration", tmp_path / "none"], "none cannot be read"),
        ([*model, *csv, "--sampels", "3"], "did you mean samples?"),
    ):
        assert told in refused(
            capsys, *argv, *([] if {"--recipe", small_gpt_folder} & set(argv) else ["--recipe", RECIPE])
        ), argv
    broken.write_text('{"model": "m", "date": "2024-01-01", "direction": "UP", "label": "UP", "confidence": "high"}')
    assert "a confidence is not a number" in refused(capsys, *model, *csv, *FLAGS, "--calibration", broken)
    with pytest.raises(UserError, match="row 1: a row is a JSON object"):
        predict(tiny_model_folder, ["AAPL"], recipe=RECIPE)


# ------------------------------------------------------------------------------------------------------ calibration


def judged(days, confidence, right):
    """A forecast a day of a forecaster that is right at the rate `right` when it says UP with `confidence`."""
    labels = ["UP" if (day * 7919) % 100 < 100 * right else "DOWN" for day in range(days)]
    dates = [f"{2000 + day // 300}-{1 + day // 28 % 10:02}-{1 + day % 28:02}" for day in range(days)]
    return [
        {"date": date, "label": label, "direction": "UP", "confidence": confidence}
        for date, label in zip(dates, labels, strict=True)
    ]


def test_a_confidence_is_calibrated_to_how_often_it_was_right():
    calibration = Calibration([*judged(1000, 0.95, 0.6), *judged(1000, 0.55, 0.5)])
    late = {"date": "2100-01-01", "direction": "UP"}
    assert calibration.p_up({**late, "confidence": 0.95}) == pytest.approx(0.6, abs=0.02)
    assert calibration.p_up({**late, "confidence": 0.55}) == pytest.approx(0.5, abs=0.02)


def test_a_calibration_knows_only_earlier_days():
    records = judged(1000, 0.9, 0.8)
    early = {"date": records[200]["date"], "direction": "UP", "confidence": 0.9}
    changed = [{**one, "label": "DOWN"} if one["date"] >= early["date"] else one for one in records]
    assert Calibration(records).p_up(early) == Calibration(changed).p_up(early)
    assert Calibration(records).p_up({**early, "date": records[20]["date"]}) is None  # too few came before


def test_predict_shows_the_calibrated_confidence(tiny_model_folder, prices, tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps({"model": "m", **one}) + "\n" for one in judged(300, 0.75, 0.5)))
    (forecast,) = predict(tiny_model_folder, prices, calibration=str(file), **QUICK)
    assert 0.4 < forecast["calibrated_confidence"] < 0.6
