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


YFINANCE = """Price,Close,High,Low,Open,Volume
Ticker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD
Date,,,,,
2020-01-02,10,12,9,9.5,0
2020-01-03,11.5,12,9,10,700
"""
_PRICE, _TICKER, _DATE, *_ROWS = YFINANCE.splitlines()


@pytest.mark.parametrize(
    "header",
    [
        [_PRICE, _TICKER, _DATE],
        [_PRICE, _TICKER],
        [_TICKER, _PRICE, _DATE],
        [_PRICE.replace("Price", "Date"), _TICKER.replace("Ticker", "")],
        [_PRICE.replace("Price", ""), _TICKER.replace("Ticker", ""), _DATE],
    ],
    ids=["three rows", "without the date row", "grouped by ticker", "index reset", "names lost"],
)
def test_the_header_rows_of_yfinance_name_the_ticker(tmp_path, header):
    frame = read_price_csv(write(tmp_path, "\n".join([*header, *_ROWS]), name="prices.csv"))
    assert list(frame["ticker"]) == ["BTC-USD", "BTC-USD"]
    assert list(frame["date"].astype(str)) == ["2020-01-02", "2020-01-03"]
    assert list(frame["close"]) == [10, 11.5] and list(frame["open"]) == [9.5, 10] and list(frame["volume"]) == [0, 700]


def test_yfinances_closes_alone_are_enough(tmp_path):
    frame = read_price_csv(write(tmp_path, "Price,Close\nTicker,ETH-USD\nDate,\n2020-01-02,10\n"))
    assert list(frame["ticker"]) == ["ETH-USD"] and list(frame["close"]) == [10]


def test_yahoos_own_columns_are_read_and_close_is_not_the_adjusted_one(tmp_path):
    header = "Date,Open,High,Low,Close,Adj Close,Volume"
    frame = read_price_csv(write(tmp_path, f"{header}\n2014-09-17,465.86,468.17,452.42,457.33,99,21056800.0\n"))
    assert frame.drop(columns="date").to_dict("records") == [
        {"ticker": "BTC", "close": 457.33, "open": 465.86, "volume": 21056800.0}
    ]


@pytest.mark.parametrize(
    "comment",
    [
        "Created on 10-17-2019,https://www.CryptoDataDownload.com",
        "https://www.CryptoDataDownload.com",
        "# closes of BTC, in USD",
        "# two lines\n# of comment",
    ],
)
def test_comment_lines_before_the_header_are_skipped_and_rows_may_be_newest_first(tmp_path, comment):
    text = "date,symbol,open,high,low,close,volume_btc,volume\n"
    text += (
        "2019-10-17,BTCUSD,7993.54,8070,7937.01,8034.32,1570.08,12\n2019-10-16,BTCUSD,8162.44,8171,7908,7993.54,8,1\n"
    )
    frame = read_price_csv(write(tmp_path, f"{comment}\n{text}"))
    assert set(frame["ticker"]) == {"BTCUSD"}
    assert list(frame.sort_values("date")["close"]) == [7993.54, 8034.32]


@pytest.mark.parametrize(
    "day",
    [
        "2019-10-17",
        "2019-10-17 00:00",
        "2019-10-17 00:00:00",
        "2019-10-17 00:00:00+00:00",
        "2019-10-17 00:00:00-04:00",
        "2019-10-17T00:00:00Z",
    ],
)
def test_a_time_of_day_after_the_date_is_ignored(tmp_path, day):
    frame = read_price_csv(write(tmp_path, f"date,close\n{day},10\n"))
    assert list(frame["date"].astype(str)) == ["2019-10-17"]


@pytest.mark.parametrize("day", ["2019-10-17x", "2019-10-17 09-AM", "17.10.2019", "10/17/2019", ""])
def test_other_text_in_a_date_is_a_bad_row(tmp_path, day):
    assert "line 2: date" in message(tmp_path, f"date,close\n{day},10\n")


@pytest.mark.parametrize(
    "text, line",
    [
        (YFINANCE + "2020-01-06,ten,12,9,9,1\n", 6),
        (f"# made by hand\n\n{YFINANCE}2020-01-03,10,12,9,9,1\n", 8),
        ("# made by hand\ndate,close\n2020-01-02,0\n", 3),
        ('note,date,close\n"two\nlines",2020-01-02,10\nx,2020-01-03,-1\n', 4),
    ],
    ids=["yfinance", "comment and yfinance", "comment", "a cell of two lines"],
)
def test_line_numbers_are_those_of_the_file(tmp_path, text, line):
    assert f"BTC.csv: line {line}: " in message(tmp_path, text)


def test_yahoos_null_rows_are_bad_rows(tmp_path):
    text = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n2020-04-17,null,null,null,null,null,null\n2020-04-18,1,1,1,1,1,1\n"
    )
    assert "line 2: close 'null' is not a number: correct or remove" in message(tmp_path, text)


@pytest.mark.parametrize("row", [",10,10", "Date,10,", "Close,BTC,BTC", ",nan,nan"])
def test_a_bad_row_after_the_header_is_not_taken_for_a_header_row(tmp_path, row):
    assert "line 2: " in message(tmp_path, f"date,close,open\n{row}\n2020-01-02,10,10\n")


@pytest.mark.parametrize(
    "text", ["Price,Close,Close\nTicker,AAPL,MSFT\nDate,,\n2020-01-02,1,2\n", "date,close,Close\n2020-01-02,1,2\n"]
)
def test_two_closes_side_by_side_are_refused(tmp_path, text):
    assert "BTC.csv has 2 columns close" in message(tmp_path, text)


def test_many_bad_rows_are_counted(tmp_path):
    text = message(tmp_path, "date,close\n" + "2020-01-02,x\n" * 8)
    assert "line 2" in text and "line 6" in text and "line 7" not in text and "3 more" in text


@pytest.mark.parametrize("header, missing", [("date,price", "close"), ("day,close", "date"), ("a,b", "date and close")])
def test_a_missing_column_is_named(tmp_path, header, missing):
    assert f"no column {missing}" in message(tmp_path, f"{header}\n2020-01-02,10\n")


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "date,close\n", "# only a comment\n", "".join(line + "\n" for line in (_PRICE, _TICKER, _DATE))],
)
def test_a_file_without_rows_is_refused(tmp_path, text):
    assert "BTC.csv" in message(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere.csv"):
        read_price_csv(tmp_path / "nowhere.csv")
