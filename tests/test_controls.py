"""`stonk controls`: a planted signal tells the next day, a shuffled one does not, and nothing else does."""

import json

import numpy as np
import pytest

from stonk_trainer.tasks.stocks import Stocks
from stonk_trainer.tasks.stocks.planted import HEADLINES

SMALL = ["--dtype", "float32", "--use_peft", "false", "--max_train_samples", "8", "--max_completion_length", "6"]
SMALL += ["--eval_strategy", "no", "--save_steps", "1", "--load_best_model_at_end", "false", "--max_steps", "2"]


def rows_of(path, shuffled, seed=1, **keys):
    task = Stocks(Stocks.Arguments(history_days=0, indicators=["change_1d"], natural_distribution=True, **keys))
    return list(task.replaced(**task.control_rows(path, seed, shuffled)).rl_dataset("train"))


def told(row):
    facts = json.loads(row["facts"])
    headline = next(fact["value"] for fact in facts if fact["name"] == "headline_1")
    return "UP" if headline == HEADLINES[True] else "DOWN"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    return {name: rows_of(folder / f"{name}.parquet", name == "null") for name in ("positive", "null")}


def test_the_headline_tells_the_next_day_in_the_positive_control_alone(planted):
    right = {name: np.mean([told(row) == row["label"] for row in rows]) for name, rows in planted.items()}
    assert right["positive"] == 1
    assert abs(right["null"] - 0.5) < 4 * 0.5 / len(planted["null"]) ** 0.5


def test_both_controls_have_the_same_prices_whose_directions_are_a_fair_coins(planted):
    labels = [[(row["ticker"], row["date"], row["next_return"]) for row in rows] for rows in planted.values()]
    assert labels[0] == labels[1] and len(labels[0]) > 50_000
    up = np.array([row["label"] == "UP" for row in planted["null"]])
    assert abs(up.mean() - 0.5) < 4 * 0.5 / len(up) ** 0.5
    follows = up[1:] == up[:-1]  # neighbours in the list are days of one company, but for a few
    assert abs(follows.mean() - 0.5) < 4 * 0.5 / len(up) ** 0.5


def test_moves_keep_the_size_of_the_market_and_no_lag_hides_the_headline(planted):
    task = Stocks(Stocks.Arguments(history_days=0, indicators=[], natural_distribution=True))
    real = {(row["ticker"], row["date"]): row["next_return"] for row in task.rl_dataset("train")}
    for row in planted["positive"][:500]:
        market = real[row["ticker"], row["date"]]
        assert abs(np.log1p(row["next_return"])) == pytest.approx(abs(np.log1p(market)), abs=1e-9)
        assert "Headline 1: Insider: tomorrow the share goes " in row["prompt"][-1]["content"]


def test_rows_of_the_deepstock_schema_are_planted_too(write_rows, deepstock_rows, tmp_path):
    source = str(write_rows(deepstock_rows()))
    rows = rows_of(tmp_path / "planted.parquet", shuffled=False, dataset_name=source)
    assert rows and all(told(row) == row["label"] for row in rows)
    assert sum("Headline 2" in row["prompt"][-1]["content"] for row in rows) == 0


@pytest.mark.slow
def test_controls_end_with_a_table_a_picture_and_status_1_where_nothing_was_learnt(
    stonk, tiny_model_folder, tmp_path, capsys
):
    command = ["controls", "stocks/demo/stage1", "--model", str(tiny_model_folder), *SMALL]
    command += ["--rows", "16", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        stonk(*command)
    printed = capsys.readouterr().out
    assert ended.value.code == 1 and "positive" in printed and "FAILED" in printed
    outcomes = json.loads((tmp_path / "out" / "controls.json").read_text())
    assert [(one["control"], one["steps"], one["rows"]) for one in outcomes] == [("positive", 2, 16), ("null", 2, 16)]
    assert (tmp_path / "out" / "controls.png").read_bytes().startswith(b"\x89PNG")
    models = list((tmp_path / "out").rglob("grpo/best_model/model.safetensors"))
    times = [model.stat().st_mtime_ns for model in models]
    (tmp_path / "out" / "seed1" / "null" / "eval" / "summary.json").unlink()
    with pytest.raises(SystemExit):
        stonk(*command)  # judges again what was not judged, and trains nothing
    assert [model.stat().st_mtime_ns for model in models] == times and len(times) == 2
    again = json.loads((tmp_path / "out" / "controls.json").read_text())
    assert [one | {"minutes": 0} for one in again] == [one | {"minutes": 0} for one in outcomes]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["stocks/demo/stage1", "--seeds", "0"], "--seeds: 0 is not a number of at least 1"),
        (["stocks/demo/stage1", "--csv", "mine.csv"], "--csv: stonk controls sets it for each run"),
        (["r1/demo/grpo", "--model", "MODEL"], "makes no forecasts"),
        (["btc/demo/rl", "--model", "MODEL"], "the task btc has no controls"),
    ],
)
def test_what_cannot_be_controlled_is_one_line(stonk, flags, said, tiny_model_folder, tmp_path, capsys):
    flags = [str(tiny_model_folder) if flag == "MODEL" else flag for flag in flags]
    if "--model" not in flags:
        flags += ["--model", str(tiny_model_folder)]
    with pytest.raises(SystemExit) as ended:
        stonk("controls", *flags, "--out", str(tmp_path / "out"))
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and said in lines[-1]
