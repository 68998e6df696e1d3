import csv
import json

import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.evaluation import predictions
from stonk_trainer.recipe import load_recipe
from stonk_trainer.tasks.stocks import Stocks, StocksArguments

ANSWER = "The share is at its close.\nPrediction: {}\nConfidence: 60%"


@pytest.fixture(scope="module")
def rows():
    return list(Stocks(StocksArguments(tickers=["KO"], history_days=0)).rl_dataset("test"))


def saved(path):
    flags = ["--config", "stocks/demo/eval", "--tickers", "KO", "--predictions", str(path)]
    args = load_recipe(flags, "eval")
    return predictions.saved_records(str(path), args.task, args)


def jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def forecast(row, **fields):
    return {"ticker": row["ticker"], "date": row["date"], "direction": "UP", **fields}


@pytest.mark.slow
def test_a_csv_of_directions_needs_no_completion(rows, tmp_path):
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["ticker", "date", "direction", "confidence"])
        writer.writeheader()
        writer.writerow(forecast(rows[3], direction="down", confidence=0.7))
        writer.writerow(forecast(rows[1], direction="", confidence=""))
    judged, records = saved(path)
    assert [row["date"] for row in judged] == [rows[1]["date"], rows[3]["date"]]
    assert list(records) == ["mine"]
    unread, down = records["mine"]
    assert (unread["direction"], unread["confidence"]) == (None, None)
    assert (down["direction"], down["confidence"], down["label"]) == ("DOWN", 0.7, rows[3]["label"])


def test_completions_are_read_and_scored_as_fresh_ones(rows, tmp_path):
    lines = [{**forecast(row), "direction": "DOWN", "completion": ANSWER.format("UP")} for row in rows[:5]]
    _, records = saved(jsonl(tmp_path / "a.jsonl", lines))
    for record, row in zip(records["a"], rows, strict=False):
        assert record["direction"] == "UP" and record["confidence"] == 0.6  # of the completion, not of the line
        assert record["rewards"]["accuracy"] == pytest.approx(1 - (0.6 - (row["label"] == "UP")) ** 2)


@pytest.mark.slow
def test_what_is_saved_is_read_back(rows, tmp_path):
    lines = [{**forecast(row), "model": "m", "completion": ANSWER.format("UP")} for row in rows[:5]]
    _, records = saved(jsonl(tmp_path / "a.jsonl", lines))
    predictions.save(tmp_path / "b.jsonl", records)
    assert saved(tmp_path / "b.jsonl")[1] == records


def test_two_models_are_judged_on_the_rows_they_share(rows, tmp_path):
    lines = [forecast(row, model="one") for row in rows[:10]] + [forecast(row, model="two") for row in rows[5:15]]
    judged, records = saved(jsonl(tmp_path / "a.jsonl", lines))
    assert [row["date"] for row in judged] == [row["date"] for row in rows[5:10]]
    assert len(records["one"]) == len(records["two"]) == 5


def test_days_outside_the_split_are_left_out(rows, tmp_path):
    judged, _ = saved(
        jsonl(tmp_path / "a.jsonl", [forecast(rows[0]), forecast({"ticker": "KO", "date": "2004-01-05"})])
    )
    assert len(judged) == 1


@pytest.mark.parametrize(
    "lines, words",
    [
        ([{"ticker": "KO", "date": "2004-01-05", "direction": "UP"}], "no row of the test split"),
        ([{"date": "2020-01-06", "direction": "UP"}], r"a\.jsonl:1: a forecast needs ticker and date"),
        ([["KO", "2020-01-06", "UP"]], r"a\.jsonl, line 1 is a list, not a JSON object"),
        ([{"ticker": "KO", "date": "2020-01-06", "completion": 5}], "completion is int, not text"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "UP", "confidence": 10**400}], "must be numbers"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "UP", "model": "majority"}], "name of a baseline"),
        (
            [
                {"ticker": "KO", "date": "2020-01-06", "direction": "UP"},
                {"ticker": "KO", "date": "2020-01-07", "completion": "Prediction: UP"},
            ],
            r"a\.jsonl:2: a has completions in some lines and directions in others",
        ),
        ([{"ticker": "KO", "date": "2020-01-06"}], "needs a completion, or a direction"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "FLAT"}], "FLAT is not UP, DOWN"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "UP", "confidence": 63}], r"outside \[0, 1\]"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "UP", "confidence": "high"}], "must be numbers"),
        ([{"ticker": "KO", "date": "2020-01-06", "direction": "UP"}] * 2, r"a\.jsonl:2: duplicate forecast"),
        ([], "is empty"),
    ],
)
def test_a_wrong_line_is_named(lines, words, tmp_path):
    with pytest.raises(UserError, match=words):
        saved(jsonl(tmp_path / "a.jsonl", lines))


def test_a_missing_file_and_a_half_line_are_named(tmp_path):
    with pytest.raises(UserError, match="not found"):
        saved(tmp_path / "nowhere.jsonl")
    (tmp_path / "a.jsonl").write_text('{"ticker": "KO", "da')
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 is not JSON"):
        saved(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "content, words",
    [
        ("ticker,date,direction\n".encode("utf-16"), "not text in UTF-8"),
        (b"ticker,date,direction,confidence\nKO,2020-01-06,UP,0,6\n", r":2: more cells than the header"),
        (b"Ticker;Date;Direction\nKO;2020-01-06;UP\n", "columns ticker and date are needed .found: Ticker;Date"),
    ],
)
def test_a_csv_that_is_none_is_named(content, words, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        saved(tmp_path / "a.csv")


@pytest.mark.slow
def test_files_of_spreadsheets_and_newswires_are_read(rows, tmp_path):
    row = rows[0]
    (tmp_path / "a.csv").write_bytes(f"\ufeffticker,date,direction\r\nKO,{row['date']} 00:00:00, up \r\n".encode())
    assert saved(tmp_path / "a.csv")[1]["a"][0]["direction"] == "UP"
    text = "A line\u2028separator.\nPrediction: UP"
    line = json.dumps({"ticker": "KO", "date": row["date"], "completion": text}, ensure_ascii=False)
    (tmp_path / "b.jsonl").write_text(line + "\n\n", encoding="utf-8")
    assert saved(tmp_path / "b.jsonl")[1]["b"][0]["completion"] == text
