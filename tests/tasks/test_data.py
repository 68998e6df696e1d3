import logging
import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stonk_trainer.cli import main
from stonk_trainer.tasks import data
from stonk_trainer.tasks.prices import read_price_csv


def yahoo(days=4, ticker="BTC-USD"):
    """A frame as yfinance 1.7 returns it: columns (Price, Ticker) in alphabetical order, days without a zone."""
    columns = pd.MultiIndex.from_product(
        [["Close", "High", "Low", "Open", "Volume"], [ticker]], names=["Price", "Ticker"]
    )
    values = np.arange(1.0, days * 5 + 1).reshape(days, 5) + 1 / 3
    frame = pd.DataFrame(values, index=pd.date_range("2020-01-02", periods=days, name="Date"), columns=columns)
    return frame.astype({("Volume", ticker): "int64"})


@pytest.fixture
def download(monkeypatch):
    """A local stand-in for yfinance.download; returns its answer, and the keyword arguments of the call."""
    calls = {"answer": yahoo()}

    def stand_in(ticker, **options):
        calls.update(options, ticker=ticker)
        return calls["answer"]

    monkeypatch.setitem(sys.modules, "yfinance", SimpleNamespace(download=stand_in))
    return calls


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(["data", "fetch", *argv])
    captured = capsys.readouterr()
    assert end.value.code == 2 and captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


def test_fetched_prices_are_a_plain_csv_file_that_every_command_reads(download, tmp_path, capsys):
    path = tmp_path / "new" / "BTC-USD.csv"
    main(["data", "fetch", "BTC-USD", "--out", str(path)])
    assert path.read_text().splitlines()[0] == "Date,Open,High,Low,Close,Volume"
    frame = read_price_csv(path)
    assert set(frame["ticker"]) == {"BTC-USD"}
    assert list(frame["date"].astype(str)) == ["2020-01-02", "2020-01-03", "2020-01-04", "2020-01-05"]
    assert list(frame["close"]) == list(download["answer"]["Close"]["BTC-USD"])
    assert list(frame["open"]) == list(download["answer"]["Open"]["BTC-USD"])
    assert capsys.readouterr().out == f"{path}: 4 days, 2020-01-02 to 2020-01-05\n"
    assert [p.name for p in path.parent.iterdir()] == ["BTC-USD.csv"]


def test_the_last_day_is_included_and_today_never(download, tmp_path):
    out = ["--out", str(tmp_path / "x.csv")]
    main(["data", "fetch", "BTC-USD", "--start", "2020-01-02", "--end", "2020-01-05", *out])
    assert (download["ticker"], download["start"], download["end"]) == ("BTC-USD", "2020-01-02", "2020-01-06")
    assert download["auto_adjust"] is True and download["timeout"] <= 10
    for end in ([], ["--end", "2999-01-01"]):
        download.clear()
        download["answer"] = yahoo()
        main(["data", "fetch", "BTC-USD", *end, *out])
        assert download["period"] == "max" and "start" not in download
        today = datetime.now(UTC).date()  # yfinance leaves its end out
        assert download["end"] in (today.isoformat(), (today - timedelta(days=1)).isoformat())


def test_the_file_is_named_after_the_ticker_and_replaces_an_older_one(download, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ETH-USD.csv").write_text("old")
    download["answer"] = yahoo(ticker="ETH-USD")
    main(["data", "fetch", "ETH-USD"])
    assert len(read_price_csv("ETH-USD.csv")) == 4


def test_a_day_without_a_close_is_left_out_and_counted_and_an_unknown_open_is_empty(download, tmp_path, capsys):
    download["answer"].iloc[1, 0] = np.nan
    download["answer"].iloc[2, 3] = 0.0
    main(["data", "fetch", "BTC-USD", "--out", str(tmp_path / "x.csv")])
    frame = read_price_csv(tmp_path / "x.csv")
    assert list(frame["date"].astype(str)) == ["2020-01-02", "2020-01-04", "2020-01-05"]
    assert list(frame["open"].isna()) == [False, True, False]
    assert "3 days, 2020-01-02 to 2020-01-05 (1 without a close skipped)" in capsys.readouterr().out


def test_without_the_network_it_is_one_line_and_nothing_is_written(tmp_path):
    pytest.importorskip("yfinance")
    with socket.socket() as unheard:  # bound and not listening: whoever connects is refused, network or not
        unheard.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-m", "stonk_trainer.cli", "data", "fetch", "BTC-USD", "--out", str(tmp_path / "x.csv")],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
            env=os.environ | dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy),
        )
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("error: BTC-USD could not be fetched from Yahoo (") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_silent_network_is_not_waited_for_longer_than_the_limit(monkeypatch, tmp_path, capsys):
    over = threading.Event()
    silent = SimpleNamespace(download=lambda *_, **__: over.wait(20))
    monkeypatch.setitem(sys.modules, "yfinance", silent)
    monkeypatch.setattr(data, "FETCH_SECONDS", 0.1)
    assert "no answer from Yahoo" in refusal(capsys, "BTC-USD", "--out", str(tmp_path / "x.csv"))
    over.set()
    assert list(tmp_path.iterdir()) == []


def test_what_yfinance_complains_of_is_the_reason_given(monkeypatch, tmp_path, capsys):
    def nothing(ticker, **_):
        logging.getLogger("yfinance").error("\n1 Failed download:")
        logging.getLogger("yfinance").error(f"['{ticker}']: possibly delisted; no timezone found")
        return yahoo(0)

    monkeypatch.setitem(sys.modules, "yfinance", SimpleNamespace(download=nothing))
    text = refusal(capsys, "BTCUSD", "--out", str(tmp_path / "x.csv"))
    assert "BTCUSD could not be fetched" in text and "no timezone found" in text and "check the ticker" in text


def test_a_ticker_with_no_close_at_all_writes_nothing(download, tmp_path, capsys):
    download["answer"].loc[:, "Close"] = 0.0
    assert "has no close between its first day and" in refusal(capsys, "BTC-USD", "--out", str(tmp_path / "x.csv"))
    assert list(tmp_path.iterdir()) == []


def test_without_yfinance_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "yfinance", None)
    assert "pip install 'stonk-trainer[fetch]'" in refusal(capsys, "BTC-USD", "--out", str(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    "flags, words",
    [
        (["BTC-USD,ETH-USD"], "is not one ticker"),
        (["BTC USD"], "is not one ticker"),
        (["../BTC"], "is not one ticker"),
        (["BTC-USD", "--start", "2020"], "--start: 2020 is not a day"),
        (["BTC-USD", "--end", "01.02.2020"], "--end: 01.02.2020 is not a day"),
        (["BTC-USD", "--start", "2020-02-01", "--end", "2020-01-01"], "--start: 2020-02-01 is after the last day"),
        (["BTC-USD", "--out", "."], "is a folder"),
    ],
)
def test_wrong_flags_are_one_line_before_anything_is_fetched(download, flags, words, capsys):
    assert words in refusal(capsys, *flags)
    assert "ticker" not in download


def test_a_file_that_cannot_be_written_is_one_line(download, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(capsys, "BTC-USD", "--out", str(tmp_path / "file" / "x.csv"))


def test_the_data_command_lists_what_it_can_do(capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", "--help"])
    assert end.value.code == 0
    assert "fetch" in capsys.readouterr().out
