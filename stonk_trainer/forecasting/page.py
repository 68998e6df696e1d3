"""The page of `stonk demo`: what is on it, and what happens when a button is pressed.

A tab per task. Everything that a model or an upload says is escaped before it becomes HTML. The page asks for nothing
from outside: system fonts, Gradio's own scripts.
"""

from __future__ import annotations

import base64
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from markupsafe import Markup, escape

from stonk_trainer.errors import UserError
from stonk_trainer.forecasting.prediction import Predictor
from stonk_trainer.report.page import printable
from stonk_trainer.task import Row
from stonk_trainer.tasks.btc import Btc
from stonk_trainer.tasks.stocks import Stocks
from stonk_trainer.tasks.stocks.rewards import score
from stonk_trainer.tasks.stocks.score import Scoring, read_scoring

if TYPE_CHECKING:
    from stonk_trainer.tasks.btc.returns import Series

UPLOADED_DAYS = 250  # of an uploaded series, that can be chosen
STREAM_SECONDS = 0.3  # between two looks at answers that are being written
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}

LOOK: dict[str, Any] = {
    "theme": gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    "css": """
.answer { white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); font-size: .85rem;
  border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .6rem; margin: .4rem 0; }
.grounded { color: #0b5d2a; }
.false { color: #8f1d14; }
.said, .said tr { border: 0 !important; }
.said td, .said th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; border: 0; }
.said td.number { text-align: right; font-variant-numeric: tabular-nums; }
h3, label span { overflow-wrap: anywhere; white-space: normal; }
.fan { width: 100%; height: auto; background: white; }
pre.answer { white-space: pre; overflow-x: auto; }
.big { font-size: 1.3rem; font-weight: 600; }
""",
}


def build(models: Sequence[Predictor], max_rows: int) -> gr.Blocks:
    """The page for models of one task or of both."""
    tabs: list[tuple[str, Callable[[], None]]] = []
    language = [model for model in models if isinstance(model.task, Stocks)]
    markets = [model for model in models if isinstance(model.task, Btc)]
    if language:
        rows = _named(_test_rows(language[-1], max_rows))
        tabs.append(("Stocks", lambda: _stocks_tab(language, rows)))
    if markets:
        tabs.append(("Paths of a price", lambda: _paths_tab(markets)))
    with gr.Blocks(title="stonk_trainer", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown("# stonk_trainer\nTry trained models. Daily direction is close to a coin: nothing here is advice.")
        for name, fill in tabs:
            with gr.Tab(name):
                fill()
    return page


# ------------------------------------------------------------------------------------------------------ stocks


def _test_rows(model: Predictor, count: int) -> list[Row]:
    return list(model.task.replaced(max_eval_samples=count).rl_dataset("test"))


def _named(rows: Sequence[Row]) -> dict[str, Row]:
    return {f"{row['ticker']} {row['date']}": row for row in rows}


def _stocks_tab(models: Sequence[Predictor], rows: dict[str, Row]) -> None:
    names = [model.name for model in models]
    own = gr.State({})  # rows of an uploaded file, by name
    with gr.Row():
        chosen = gr.CheckboxGroup(names, value=names[-2:], label="Models, up to two side by side")
    with gr.Row():
        with gr.Column(min_width=300):
            row = gr.Dropdown(sorted(rows), value=next(iter(rows)), label="Row: a company on a day of the test split")
            upload = gr.UploadButton("Upload your own prices: a CSV with date and close", file_types=[".csv"])
            said = gr.HTML()
        with gr.Column(min_width=300):
            samples = gr.Slider(1, 16, value=4, step=1, label="Answers of each model")
            temperature = gr.Slider(0.1, 1.5, value=1.0, step=0.1, label="Temperature")
            seed = gr.Number(42, precision=0, minimum=0, maximum=2**31, label="Seed")
            with gr.Row():
                generate = gr.Button("Generate", variant="primary")
                stop = gr.Button("Stop")
    prompt = gr.HTML(_prompt_html(rows[next(iter(rows))]), label="Prompt")
    with gr.Row():
        columns = []
        for _ in range(min(2, len(models))):
            with gr.Column(min_width=320):
                columns.append(gr.HTML())

    def upload_prices(path: str) -> tuple[dict[str, Row], Any, str]:
        try:
            found = _named(_uploaded_rows(models[-1], Path(path)))
        except UserError as error:
            return {}, gr.update(choices=sorted(rows), value=next(iter(rows))), _not_read(error, path)
        finally:
            Path(path).unlink(missing_ok=True)
        names = list(reversed(found))
        return found, gr.update(choices=names, value=names[0]), _was_read(len(found), path)

    def show_prompt(name: str, own: dict[str, Row]) -> str:
        return _prompt_html(_find(name, own, rows))

    def answer(
        chosen: list[str], name: str, own: dict[str, Row], samples: int, temperature: float, seed: int
    ) -> Iterator[list[str] | str]:
        asked = [model for model in models if model.name in chosen][: len(columns)]
        if not asked:
            gr.Warning("Choose a model.", duration=5)
        shown = [""] * len(columns)
        for place, model in enumerate(asked):
            for html in _answers(model, _find(name, own, rows), int(samples), temperature, int(seed or 0)):
                shown[place] = html
                yield list(shown) if len(shown) > 1 else shown[0]

    upload.upload(upload_prices, upload, [own, row, said])
    row.change(show_prompt, [row, own], prompt)
    running = generate.click(
        answer, [chosen, row, own, samples, temperature, seed], columns, **ONE_AT_A_TIME, show_progress="minimal"
    )
    stop.click(None, None, None, cancels=running)


def _not_read(error: UserError, path: str) -> str:
    return Markup("<p><strong>Not read:</strong> {}</p>").format(str(error).replace(path, Path(path).name))


def _was_read(days: int, path: str) -> str:
    return Markup("<p>{} days of {}; the file is read and removed.</p>").format(days, Path(path).name)


def _find(name: str, own: dict[str, Row], rows: dict[str, Row]) -> Row:
    return own[name] if name in own else rows[name]


def _uploaded_rows(model: Predictor, path: Path) -> list[Row]:
    """The last days of a CSV of prices, the last of all included, whose outcome nobody knows yet."""
    from stonk_trainer.tasks.prices import read_price_csv

    days = np.unique(read_price_csv(path)["date"].dt.strftime("%Y-%m-%d"))
    task = model.task.replaced(dataset_name=str(path), tickers=None)
    return task.rows_to_forecast(str(days[-UPLOADED_DAYS:][0]), None)


class _Stopped(Exception):
    """Raised in the model's thread, between two tokens, to end it."""


def _answers(model: Predictor, row: Row, samples: int, temperature: float, seed: int) -> Iterator[str]:
    """HTML of the answers as far as they are written, and at last of what they come to."""
    model.sample_with(samples=samples, temperature=temperature, seed=seed)
    written: queue.Queue[list[str]] = queue.Queue()
    found: list[dict[str, Any]] = []
    failed: list[BaseException] = []
    stopped = threading.Event()

    def on_token(texts: list[str]) -> None:
        if stopped.is_set():
            raise _Stopped
        written.put(texts)

    def work() -> None:
        try:
            found.extend(model.forecasts([row], on_token))
        except _Stopped:
            pass
        except BaseException as error:  # said on the page, by the thread that serves it
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield _model_html(model, Markup("<p>reading the prompt …</p>"))
        while thread.is_alive():
            time.sleep(STREAM_SECONDS)
            texts = None
            while not written.empty():
                texts = written.get()
            if texts:
                yield _model_html(model, Markup("").join(map(_answer_html, texts)))
    finally:
        stopped.set()  # nobody listens any more: Stop was pressed, or the page left
    if failed and isinstance(failed[0], UserError):
        raise gr.Error(escape(str(failed[0])))
    if failed:
        raise failed[0]  # its traceback goes to the terminal
    yield _forecast_html(model, row, found[0])


def _forecast_html(model: Predictor, row: Row, forecast: dict[str, Any]) -> str:
    scoring = read_scoring(model.recipe)
    answers = Markup("").join(
        _answer_html(one["completion"]) + _evidence_html(one) + _rewards_html(one, row, scoring)
        for one in forecast["answers"]
    )
    return _model_html(model, _said_html(forecast) + answers)


def _model_html(model: Predictor, inside: Markup) -> str:
    return Markup("<h3>{}</h3>{}").format(model.name, inside)


def _said_html(forecast: dict[str, Any]) -> Markup:
    def percent(value: float | None, digits: int = 0) -> str:
        return "–" if value is None else f"{value:.{digits}%}"

    rows = [
        ("answers that say so", f"{percent(forecast['confidence'])} of {forecast['readable']} readable"),
        ("stated confidence, mean", percent(forecast["stated_confidence"])),
    ]
    if "calibrated_confidence" in forecast:
        rows.append(("calibrated confidence", percent(forecast["calibrated_confidence"])))
    rows.append(("expected move", percent(forecast["move"], 2)))
    rows.append(("base rate of UP", percent(forecast["base_rate_up"], 1)))
    came = "not known" if forecast["label"] is None else f"{forecast['label']} {forecast['next_return']:+.2%}"
    rows.append(("what came", came))
    cells = Markup("").join(Markup("<tr><th>{}</th><td>{}</td></tr>").format(*one) for one in rows)
    direction = forecast["direction"] or "no readable answer"
    return Markup('<p class="big">{}</p><table class="said">{}</table>').format(direction, cells)


def _answer_html(text: str) -> Markup:
    return Markup('<div class="answer">{}</div>').format(printable(text))


def _evidence_html(answer: dict[str, Any]) -> Markup:
    """The lines of evidence with their verdicts, invented numbers, and why the answer or its confidence is not read."""
    rows = Markup("")
    for line in answer["evidence"]:
        kind, mark = ("grounded", "✓") if line["verdict"] == "grounded" else ("false", "✗")
        form = Markup('<tr><td>{}</td><td>{}</td><td>{}</td><td class="{}">{}&nbsp;{}</td></tr>')
        rows += form.format(*(printable(line[key]) for key in ("name", "value", "side")), kind, mark, line["verdict"])
    head = Markup("<tr><th>evidence</th><th>value</th><th>side</th><th>verdict</th></tr>")
    table = Markup('<table class="said">{}{}</table>').format(head, rows) if rows else Markup("")
    notes = [f"not readable: {answer['problem']}"] if answer["problem"] else []
    notes += [answer["remark"]] if answer["remark"] else []
    notes += [f"invented numbers in the thought: {', '.join(answer['invented'])}"] if answer["invented"] else []
    return table + Markup("").join(Markup("<p><em>{}</em></p>").format(printable(note)) for note in notes)


def _rewards_html(answer: dict[str, Any], row: Row, scoring: Scoring) -> Markup:
    """The rewards of one answer by component; those that need the outcome are left open where it is not known."""
    known = row["label"] is not None
    outcome = row if known else {**row, "label": "UP", "next_return": 0.0}
    result = score(
        answer["completion"],
        outcome,
        accuracy=scoring.accuracy,
        skew_aware=scoring.skew_aware,
        evidence=scoring.evidence,
        weights=scoring.weights,
    )
    lines, short = Markup(""), []
    for name, weight in scoring.weights.items():
        open_ = name in ("accuracy", "magnitude") and not known
        value = "–" if open_ else f"{result[name]:.2f}"
        why = "what came is not known" if open_ else result["reasons"][name]
        line = Markup('<tr><th>{}</th><td class="number">{}</td><td class="number">× {:g}</td><td>{}</td></tr>')
        lines += line.format(name.replace("_", " "), value, weight, why)
        short.append(f"{name.replace('_', ' ')} {value}")
    if known:
        short.append(f"total {result['total']:.2f}")
    form = Markup("<details><summary>Rewards: {}</summary><table class='said'>{}</table></details>")
    return form.format(" · ".join(short), lines)


def _prompt_html(row: Row) -> str:
    shown = Markup("").join(
        Markup('<div class="answer"><strong>{}</strong>\n{}</div>').format(one["role"], printable(one["content"]))
        for one in row["prompt"]
    )
    return Markup("<details open><summary>Prompt</summary>{}</details>").format(shown)


# ------------------------------------------------------------------------------------------------------ paths


def _paths_tab(models: Sequence[Predictor]) -> None:
    names = [model.name for model in models]
    embedded = {series.name: series for series in _series(models[-1], None)}
    own = gr.State(None)  # the path's series, once a file was uploaded
    first = "BTC" if "BTC" in embedded else next(iter(embedded))
    days = _days(models[-1], embedded[first])
    chosen = gr.CheckboxGroup(names, value=names[-2:], label="Models, up to two side by side")
    with gr.Row():
        with gr.Column(min_width=300):
            ticker = gr.Dropdown(list(embedded), value=first, label="Series")
            upload = gr.UploadButton("Upload your own prices: a CSV with date and close", file_types=[".csv"])
            said = gr.HTML()
        with gr.Column(min_width=300):
            day = gr.Slider(0, len(days) - 1, value=len(days) // 2, step=1, label="Day of the forecast")
            shown_day = gr.Markdown(_day_text(days, len(days) // 2))
            horizon = gr.Slider(5, 90, value=30, step=1, label="Days ahead")
            paths = gr.Slider(100, 1000, value=200, step=100, label="Sampled paths")
            draw = gr.Button("Draw", variant="primary")
    with gr.Row():
        pictures = []
        for _ in range(min(2, len(models))):
            with gr.Column(min_width=320):
                pictures.append(gr.HTML())

    def series_of(ticker: str, own: Series | None) -> Series:
        return own if own is not None else embedded[ticker]

    def choose(ticker: str) -> tuple[None, Any, str]:
        days = _days(models[-1], embedded[ticker])
        middle = len(days) // 2
        return None, gr.update(maximum=len(days) - 1, value=middle), _day_text(days, middle)

    def upload_prices(path: str, ticker: str) -> tuple[Series | None, str, Any, str]:
        try:
            series, *others = _series(models[-1], path)
            if others:
                raise UserError(f"{path} has {len(others) + 1} series: upload one")
            models[-1].forecaster.on(series, len(series.dates))  # whether it can be forecast
            text, at = _was_read(len(series.dates), path), 1.0
        except UserError as error:
            series, text, at = None, _not_read(error, path), 0.5
        finally:
            Path(path).unlink(missing_ok=True)
        days = _days(models[-1], series_of(ticker, series))
        day = int(at * (len(days) - 1))
        return series, text, gr.update(maximum=len(days) - 1, value=day), _day_text(days, day)

    def tell(day: int, ticker: str, own: Series | None) -> str:
        return _day_text(_days(models[-1], series_of(ticker, own)), int(day))

    def fan(chosen: list[str], ticker: str, own: Series | None, day: int, horizon: int, paths: int) -> list[str] | str:
        asked = [model for model in models if model.name in chosen][: len(pictures)]
        if not asked:
            gr.Warning("Choose a model.", duration=5)
        series = series_of(ticker, own)
        made = [""] * len(pictures)
        for place, model in enumerate(asked):
            try:
                made[place] = _fan_html(model, series, _days(model, series)[int(day)], int(horizon), int(paths))
            except UserError as error:
                raise gr.Error(escape(str(error))) from error
        return made if len(made) > 1 else made[0]

    upload.upload(upload_prices, [upload, ticker], [own, said, day, shown_day])
    ticker.input(choose, ticker, [own, day, shown_day])
    day.change(tell, [day, ticker, own], shown_day, show_progress="hidden")
    inputs = [chosen, ticker, own, day, horizon, paths]
    draw.click(fan, inputs, pictures, **ONE_AT_A_TIME)
    day.input(fan, inputs, pictures, trigger_mode="always_last", **ONE_AT_A_TIME)  # by mouse and by keyboard


def _series(model: Predictor, path: str | None) -> list[Series]:
    """The series of the model's dataset, or of a file."""
    from stonk_trainer.tasks.btc.dataset import series_of

    task = model.task if path is None else model.task.replaced(dataset_name=str(path), tickers=None)
    return series_of(task.args)


def _days(model: Predictor, series: Series) -> np.ndarray:
    """The days a forecast may start from: those training has not seen, the last included; all where it saw all."""
    assert isinstance(model.task, Btc)
    unseen = series.dates[series.dates > np.datetime64(model.task.codec.config.train_end)]
    return unseen if len(unseen) > 1 else series.dates[len(series.dates) // 2 :]


def _day_text(days: np.ndarray, day: int) -> str:
    return f"**{days[day]}**: what came later is not shown to the model."


def _fan_html(model: Predictor, series: Series, day: np.datetime64, horizon: int, paths: int) -> str:
    """The fan chart, and the quantiles as a table."""
    from stonk_trainer.tasks.btc.forecast import draw_fan, quantile_table, sample_fan

    origin = int(np.searchsorted(series.dates, day, side="right"))
    fan = sample_fan(series, model.forecaster.on(series, origin), origin, horizon, paths, seed=42)
    alt = f"Fan chart: {paths} paths of {series.name} over {horizon} days after {day}; the table has the numbers."
    form = Markup('<h3>{}</h3><img class="fan" alt="{}" src="data:image/png;base64,{}"><pre class="answer">{}</pre>')
    picture = base64.b64encode(draw_fan(series.name, fan)).decode()
    return form.format(model.name, alt, picture, quantile_table(fan.known[-1], fan.prices_NH))
