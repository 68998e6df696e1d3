"""The page of `stonk demo` in a real browser: rows, uploads, paths, on a desk and on a phone."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
from headless_chromium import chromium, why_not
from speaking_models import speaking_tokenizer, write_speaking_model

pytestmark = pytest.mark.slow

ROW = "AAPL 2019-08-05"  # of the demo's test split: close $46.90, 5-day change -7.79%
ANSWER = (
    "<think>\nThe close is below the 20-day average, and it was $12.00 once. "
    "<script>document.title = 'broken'</script>\n</think>\nEvidence:\n- Close | $46.90 | DOWN\n"
    "- 20-day average | $12.00 | <b>\nPrediction: DOWN\nExpected move: 1.0%\nConfidence: 60%"
)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A model that gives one answer, with a line that is right, one that is not, an invented number, and a script."""
    folder = tmp_path_factory.mktemp("speaker")
    write_speaking_model(folder, speaking_tokenizer([ANSWER]), [ANSWER])
    return str(folder)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def site(speaker, small_gpt_folder, tmp_path_factory):
    """(address of the running page, the folder its uploads go to)."""
    temporary, port = tmp_path_factory.mktemp("temporary"), free_port()
    models = ["embedded:smollm2-135m", speaker, str(small_gpt_folder)]
    command = [sys.executable, "-m", "stonk_trainer.cli", "demo", "--models", *models, "--port", str(port)]
    log = (temporary / "log").open("w+")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        time.sleep(0.5)
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, (temporary / "log").read_text()
    yield address, temporary
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130)
    assert "Traceback" not in (temporary / "log").read_text()
    assert not list(temporary.glob("stonk-demo-*"))


@pytest.fixture(scope="module")
def browser():
    if reason := why_not():
        pytest.skip(reason)
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, site):
    """Open the page at a width. No console error, no request elsewhere, and no sideways scrolling is the page's end."""

    @contextmanager
    def open_page(width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        problems, elsewhere = [], []
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        local = (site[0], "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(local) else elsewhere.append(asked.url))
        page.goto(site[0])
        page.get_by_role("button", name="Generate").wait_for()
        yield page
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert (problems, elsewhere, overflow, page.title()) == ([], [], 0, "stonk_trainer")
        page.close()

    return open_page


def choose_row(page, name=ROW):
    row = page.get_by_label("Row: a company")
    row.fill(name)
    page.get_by_role("option", name=name).click()
    page.get_by_text(f"Date: {name.split()[1]}").wait_for()


def only(page, *models):
    for box in page.get_by_role("checkbox").all():
        if box.is_visible():
            box.set_checked(False)
    for model in models:
        page.get_by_role("checkbox", name=model, exact=True).check()


def upload(page, path):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload your own prices").locator("visible=true").click()
    chooser.value.set_files(str(path))


@pytest.fixture
def prices(tmp_path):
    import pandas as pd

    days = pd.bdate_range("2017-01-02", periods=600)
    path = tmp_path / "MINE.csv"
    closes = [100 + 3 * (day % 7) + day / 100 for day in range(600)]
    pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "close": closes}).to_csv(path, index=False)
    return path


# ------------------------------------------------------------------------------------------------------ stocks


@pytest.mark.parametrize("width", [1280, 390])
def test_an_answer_has_its_evidence_and_its_rewards_below(visit, speaker, width):
    with visit(width) as page:
        choose_row(page)
        only(page, speaker)
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("answers that agree").wait_for(timeout=60_000)
        assert page.locator("td.grounded").first.inner_text() == "✓\xa0grounded"
        assert "malformed" in page.locator("td.false").first.inner_text()
        assert page.get_by_text("invented numbers in the thought: $12.00").first.is_visible()
        green, red = (
            page.locator(f"td.{kind}").first.evaluate("e => getComputedStyle(e).color")
            for kind in ("grounded", "false")
        )
        assert green == "rgb(11, 93, 42)" and red == "rgb(143, 29, 20)"
        assert "<script>document.title" in page.locator(".answer").last.inner_text()
        assert re.search(r"Rewards: accuracy [01]\.\d\d · .*total \d\.\d\d", page.locator("details").last.inner_text())
        assert "UP +1.89%" in page.locator(".cells").first.inner_text()


def test_the_embedded_model_writes_while_one_looks_on_and_two_models_stand_side_by_side(visit, speaker):
    with visit() as page:
        choose_row(page)
        only(page, "embedded:smollm2-135m", speaker)
        page.get_by_label("number input for Answers of each model").fill("2")
        page.get_by_role("button", name="Generate").click()
        answer = page.locator("h3:has-text('embedded') ~ .answer").first
        answer.wait_for(timeout=60_000)
        early = answer.inner_text()
        page.locator("h3:has-text('embedded') ~ table").wait_for(timeout=240_000)
        assert len(answer.inner_text()) > len(early)
        page.get_by_text("answers that agree").nth(1).wait_for(timeout=60_000)
        one, two = (page.locator(f"h3:has-text('{name}')").bounding_box() for name in ("embedded", speaker))
        assert one["y"] == two["y"] and one["x"] + one["width"] <= two["x"]


def test_stop_ends_the_models_work():
    import threading

    from stonk_trainer.forecasting.prediction import Predict, Predictor
    from stonk_trainer.tasks.stocks.page import answers

    asked = Predict(model="embedded:smollm2-135m", dataset_name="embedded:sp500", tickers=["AAPL"], dtype="float32")
    with Predictor(asked.model, asked) as model:
        before = threading.active_count()
        html = answers(model, model.rows(asked)[0], samples=2, temperature=1.0, seed=0)
        next(html)
        assert threading.active_count() == before + 1
        html.close()
        for _ in range(600):
            if threading.active_count() == before:
                break
            time.sleep(0.1)
        assert threading.active_count() == before


def test_the_keyboard_is_enough(visit, speaker):
    with visit() as page:
        only(page, speaker)
        page.get_by_label("Row: a company").focus()
        for key in [*ROW, "Enter", "Tab"]:
            page.keyboard.press(key if len(key) > 1 or key != " " else "Space")
        for _ in range(20):
            if page.evaluate("document.activeElement.innerText") == "Generate":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_text("answers that agree").wait_for(timeout=60_000)


def test_prices_are_uploaded_bad_ones_are_told_and_the_page_lives_on(visit, site, speaker, prices, tmp_path):
    bad = {
        "words.csv": ("date,close\n2024-01-01,high\n", "close 'high' is not a number"),
        "other.csv": ("day,price\n2024-01-01,3\n", "has no column date and close"),
        "<b>x.csv": ("", "is empty"),
        "zip.csv": ("PK\x03\x04\x00\xff", "is not text in UTF-8"),
    }
    with visit() as page:
        only(page, speaker)
        for name, (text, told) in bad.items():
            path = tmp_path / name
            path.write_bytes(text.encode("latin-1"))
            upload(page, path)
            page.get_by_text(told).wait_for()
            assert page.get_by_text("Not read:").is_visible() and str(site[1]) not in page.content()
        upload(page, prices)
        page.get_by_text("250 days of MINE.csv").wait_for()
        page.get_by_text("Date: 2019-04-19").wait_for()  # the last one
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("not known", exact=True).wait_for(timeout=60_000)
        assert "accuracy – " in page.locator("details").last.inner_text()
    assert [path for path in site[1].rglob("*") if path.suffix == ".csv"] == []


def test_a_file_that_is_too_large_is_refused(visit, tmp_path):
    large = tmp_path / "large.csv"
    large.write_text("date,close\n" + "2024-01-01,100.00\n" * 400_000)
    with visit() as page:
        upload(page, large)
        page.get_by_text("exceed the maximum allowed size").first.wait_for()


# ------------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize("width", [1280, 390])
def test_a_fan_of_paths_is_drawn_beside_what_came(visit, width, prices):
    with visit(width) as page:
        page.get_by_role("tab", name="Paths of a price").click()
        page.get_by_role("button", name="Draw").click()
        fan = page.locator("img.fan")
        fan.wait_for(timeout=60_000)
        before = fan.get_attribute("src")
        assert "paths of BTC over 30 days" in fan.get_attribute("alt")
        slider = page.get_by_label("range slider for Day of the forecast")
        day = page.get_by_text("the model does not see later days").inner_text()
        slider.focus()
        page.keyboard.press("End")
        page.wait_for_function("before => document.querySelector('img.fan').src != before", arg=before)
        assert page.get_by_text("the model does not see later days").inner_text() > day
        upload(page, prices)
        page.get_by_text("599 days of MINE.csv").wait_for()
        page.get_by_role("button", name="Draw").click()
        page.locator("img.fan[alt*='paths of MINE over']").wait_for(timeout=60_000)


# ------------------------------------------------------------------------------------------------------ the command


def test_what_the_page_cannot_be_made_of_is_said_in_one_line(speaker, capsys):
    from stonk_trainer.cli import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for argv, told in (
            ([], "no model"),
            (["--models", "runs/none/best_model"], "not found"),
            (["--models", speaker, speaker], "name each model once"),
            (["--models", speaker, "--port", "0"], "port: 0"),
            (["--models", speaker, "--recipe", "r1/grpo"], "stonk predict is for forecasts"),
            (["--models", speaker, "--port", str(taken.getsockname()[1])], "give another --port"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(["demo", *argv])
            error = capsys.readouterr().err.strip().splitlines()
            assert ended.value.code == 2 and told in error[-1] and len(error) == 1, (argv, error)
