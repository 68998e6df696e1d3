import math

import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.prices import read_price_csv


def write(tmp_path, text, name="BTC.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def message(tmp_path, text):
    with pytest.raises(UserError) as error:
        read_price_csv(write(tmp_path, text))
    return str(error.value)


def test_date_and_close_are_enough_and_the_file_name_is_the_ticker(tmp_path):
    frame = read_price_csv(write(tmp_path, "date,close\n2020-01-02,10\n2020-01-03,11.5\n"))
    assert list(frame["ticker"]) == ["BTC", "BTC"]
    assert list(frame["close"]) == [10, 11.5]
    assert list(frame["date"].astype(str)) == ["2020-01-02", "2020-01-03"]
    assert frame["open"].isna().all() and frame["volume"].isna().all()


@pytest.mark.parametrize(
    "header", ["Date,Close,Volume", "DATE,CLOSE,VOLUME", " date , Close ,volume", "\ufeffdate,close,volume"]
)
def test_the_header_may_be_in_any_case(tmp_path, header):
    frame = read_price_csv(write(tmp_path, f"{header}\n2020-01-02,10,0\n"))
    assert (frame["close"][0], frame["volume"][0]) == (10, 0)


def test_other_columns_and_empty_lines_are_ignored(tmp_path):
    frame = read_price_csv(
        write(tmp_path, "Symbol,Adj Close,Date,Open,Close\nX,1,2020-01-02,9,10\n\n,2,2020-01-03,,11\n")
    )
    assert list(frame["ticker"]) == ["X", "BTC"]
    assert list(frame["close"]) == [10, 11]
    assert frame["open"][0] == 9 and math.isnan(frame["open"][1])


def test_rows_may_be_in_any_order(tmp_path):
    days = ["2020-01-06,12", "2020-01-02,10", "2020-01-03,11"]
    frame = read_price_csv(write(tmp_path, "\n".join(["date,close", *days])))
    ordered = read_price_csv(write(tmp_path, "\n".join(["date,close", *sorted(days)])))
    assert frame.sort_values("date").reset_index(drop=True).equals(ordered)


@pytest.mark.parametrize(
    "row, word",
    [
        ("2020-13-01,10", "2020-13-01"),
        ("yesterday,10", "yesterday"),
        ("2020-01-03,ten", "ten"),
        ("2020-01-03,", "''"),
        ("2020-01-03,0", "positive"),
        ("2020-01-03,-4", "positive"),
        ("2020-01-03,nan", "positive"),
        ("2020-01-03,inf", "positive"),
        ("2020-01-03", "too few columns"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row, word):
    text = message(tmp_path, f"date,close\n2020-01-02,10\n\n{row}\n2020-01-06,11\n")
    assert "line 4:" in text and word in text
    assert "line 2" not in text and "line 5" not in text


def test_a_day_that_stands_twice_names_both_lines(tmp_path):
    text = message(tmp_path, "date,close\n2020-01-02,10\n2020-01-03,11\n2020-01-02,10\n")
    assert "line 4" in text and "line 2" in text and "2020-01-02" in text


def test_the_same_day_of_two_tickers_is_no_repetition(tmp_path):
    frame = read_price_csv(write(tmp_path, "date,ticker,close\n2020-01-02,A,10\n2020-01-02,B,11\n"))
    assert len(frame) == 2


def test_many_bad_rows_are_counted(tmp_path):
    text = message(tmp_path, "date,close\n" + "2020-01-02,x\n" * 8)
    assert "line 2" in text and "line 6" in text and "line 7" not in text and "3 more" in text


@pytest.mark.parametrize("header, missing", [("date,price", "close"), ("day,close", "date"), ("a,b", "date and close")])
def test_a_missing_column_is_named(tmp_path, header, missing):
    assert f"no column {missing}" in message(tmp_path, f"{header}\n2020-01-02,10\n")


@pytest.mark.parametrize("text", ["", "date,close\n"])
def test_a_file_without_rows_is_refused(tmp_path, text):
    assert "BTC.csv" in message(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere.csv"):
        read_price_csv(tmp_path / "nowhere.csv")
