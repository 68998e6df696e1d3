"""The tab of the stocks task on the page of `stonk demo`: answers as they are written, their evidence and rewards."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from stonk_trainer.errors import UserError
from stonk_trainer.forecasting import page
from stonk_trainer.forecasting.prediction import Predictor
from stonk_trainer.task import Row
from stonk_trainer.tasks.prices import read_price_csv
from stonk_trainer.tasks.stocks.rewards import COMPONENTS, Scorer
from stonk_trainer.terminal import printable

UPLOADED_DAYS = 250  # of an uploaded series, that can be chosen
STREAM_SECONDS = 0.3  # between two looks at answers that are being written


def tab(models: Sequence[Predictor], max_rows: int) -> tuple[str, Callable[[], None]]:
    """See `ForecastTask.demo_tab`; the rows are those of the last model's recipe."""
    rows = _by_name(list(models[-1].task.replaced(max_eval_samples=max_rows).rl_dataset("test")))
    return "Stocks", lambda: _fill(models, rows)


def _by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {f"{row['ticker']} {row['date']}": row for row in rows}


def _fill(models: Sequence[Predictor], rows: dict[str, Row]) -> None:
    own = gr.State({})  # rows of an uploaded file, by name
    chosen = page.choose_models(models)
    first = next(iter(rows))
    with gr.Row():
        with gr.Column(min_width=300):
            row = gr.Dropdown(sorted(rows), value=first, label="Row: a company on a day of the test split")
            upload, uploaded = page.upload_button()
        with gr.Column(min_width=300):
            samples = gr.Slider(1, 16, value=4, step=1, label="Answers of each model")
            temperature = gr.Slider(0.1, 1.5, value=1.0, step=0.1, label="Temperature")
            seed = gr.Number(42, precision=0, minimum=0, maximum=2**31, label="Seed")
            with gr.Row():
                generate = gr.Button("Generate", variant="primary")
                stop = gr.Button("Stop")
    prompt = gr.HTML(_prompt_html(rows[first]), label="Prompt")
    columns = page.result_columns(models)

    def upload_prices(path: str) -> tuple[dict[str, Row], Any, str]:
        found, report = page.read_upload(path, lambda path: _uploaded_rows(models[-1], path))
        if not found:
            return {}, gr.update(choices=sorted(rows), value=first), report
        names = list(reversed(found))
        return found, gr.update(choices=names, value=names[0]), report

    def show_prompt(name: str, own: dict[str, Row]) -> str:
        return _prompt_html((rows | own)[name])

    def answer(
        names: list[str], name: str, own: dict[str, Row], samples: int, temperature: float, seed: int
    ) -> Iterator[list[str] | str]:
        done: list[str] = []
        for model in page.chosen_models(models, names):
            html = ""
            for html in answers(model, (rows | own)[name], int(samples), temperature, int(seed or 0)):
                yield page.in_columns([*done, html], models)
            done.append(html)

    upload.upload(upload_prices, upload, [own, row, uploaded])
    row.change(show_prompt, [row, own], prompt)
    inputs = [chosen, row, own, samples, temperature, seed]
    running = generate.click(answer, inputs, columns, **page.ONE_AT_A_TIME, show_progress="minimal")
    stop.click(None, None, None, cancels=running)


def _uploaded_rows(model: Predictor, path: str) -> tuple[dict[str, Row], int]:
    """The last days of a CSV of prices, the last of all included, whose outcome nobody knows yet; how many."""
    days = np.unique(read_price_csv(path)["date"].dt.strftime("%Y-%m-%d"))
    task = model.task.replaced(dataset_name=path, tickers=None)
    rows = _by_name(task.rows_to_forecast(str(days[-UPLOADED_DAYS:][0]), None))
    return rows, len(rows)


# ------------------------------------------------------------------------------------------------------ answers


class _Stopped(Exception):
    """Raised in the model's thread, between two tokens, to end it."""


def answers(model: Predictor, row: Row, samples: int, temperature: float, seed: int) -> Iterator[str]:
    """HTML of the answers as far as they are written, and at last of what they come to.

    Closing the iterator stops the model.
    """
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
        except BaseException as error:  # reported on the page, by the thread that serves it
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
        stopped.set()  # nobody reads any more: Stop was pressed, or the page left
    if failed and isinstance(failed[0], UserError):
        raise page.page_error(failed[0])
    if failed:
        raise failed[0]  # its traceback goes to the terminal
    yield _forecast_html(model, row, found[0])


# ------------------------------------------------------------------------------------------------------ HTML


def _prompt_html(row: Row) -> str:
    messages = Markup("").join(
        Markup('<div class="answer"><strong>{}</strong>\n{}</div>').format(one["role"], printable(one["content"]))
        for one in row["prompt"]
    )
    return Markup("<details open><summary>Prompt</summary>{}</details>").format(messages)


def _model_html(model: Predictor, inside: Markup) -> str:
    return Markup("<h3>{}</h3>{}").format(model.name, inside)


def _answer_html(text: str) -> Markup:
    return Markup('<div class="answer">{}</div>').format(printable(text))


def _forecast_html(model: Predictor, row: Row, forecast: dict[str, Any]) -> str:
    args = model.task.args
    scorer = Scorer(args.accuracy, args.skew_aware, args.evidence)
    weights = dict(zip(model.task.reward_names, model.reward_weights, strict=True))
    weights = {name: weight for name, weight in weights.items() if name in COMPONENTS}  # imported ones are not called
    answers = Markup("").join(
        _answer_html(one["completion"]) + _evidence_html(one) + _rewards_html(one, row, scorer, weights)
        for one in forecast["answers"]
    )
    return _model_html(model, _summary_html(forecast) + answers)


def _summary_html(forecast: dict[str, Any]) -> Markup:
    def percent(value: float | None, digits: int = 0) -> str:
        return "–" if value is None else f"{value:.{digits}%}"

    rows = {
        "answers that agree": f"{percent(forecast['confidence'])} of {forecast['readable']} readable",
        "stated confidence, mean": percent(forecast["stated_confidence"]),
    }
    if "calibrated_confidence" in forecast:
        rows["calibrated confidence"] = percent(forecast["calibrated_confidence"])
    rows["expected move"] = percent(forecast["move"], 2)
    rows["base rate of UP"] = percent(forecast["base_rate_up"], 1)
    known = forecast["label"] is not None
    rows["outcome"] = f"{forecast['label']} {forecast['next_return']:+.2%}" if known else "not known"
    cells = Markup("").join(Markup("<tr><th>{}</th><td>{}</td></tr>").format(*one) for one in rows.items())
    direction = forecast["direction"] or "no readable answer"
    return Markup('<p class="big">{}</p><table class="cells">{}</table>').format(direction, cells)


def _evidence_html(answer: dict[str, Any]) -> Markup:
    """The lines of evidence with their verdicts, invented numbers, and why the answer or its confidence is not read."""
    rows = Markup("")
    for line in answer["evidence"]:
        kind, mark = ("grounded", "✓") if line["verdict"] == "grounded" else ("false", "✗")
        form = Markup('<tr><td>{}</td><td>{}</td><td>{}</td><td class="{}">{}&nbsp;{}</td></tr>')
        rows += form.format(*(printable(line[key]) for key in ("name", "value", "side")), kind, mark, line["verdict"])
    head = Markup("<tr><th>evidence</th><th>value</th><th>side</th><th>verdict</th></tr>")
    table = Markup('<table class="cells">{}{}</table>').format(head, rows) if rows else Markup("")
    notes = [f"not readable: {answer['problem']}"] if answer["problem"] else []
    notes += [answer["remark"]] if answer["remark"] else []
    notes += [f"invented numbers in the thought: {', '.join(answer['invented'])}"] if answer["invented"] else []
    return table + Markup("").join(Markup("<p><em>{}</em></p>").format(printable(note)) for note in notes)


def _rewards_html(answer: dict[str, Any], row: Row, scorer: Scorer, weights: dict[str, float]) -> Markup:
    """The rewards of one answer by component; those that need the outcome are left open where it is not known."""
    known = row["label"] is not None
    outcome = {} if known else {"label": "UP", "next_return": 0.0}
    result = scorer.explain(answer["completion"], {**row, **outcome}, weights)
    lines, summary = Markup(""), []
    for name, weight in weights.items():
        open_ = name in ("accuracy", "magnitude") and not known
        value = "–" if open_ else f"{result[name]:.2f}"
        why = "the outcome is not known" if open_ else result["reasons"][name]
        line = Markup('<tr><th>{}</th><td class="number">{}</td><td class="number">× {:g}</td><td>{}</td></tr>')
        lines += line.format(name.replace("_", " "), value, weight, why)
        summary.append(f"{name.replace('_', ' ')} {value}")
    if known:
        summary.append(f"total {result['total']:.2f}")
    form = Markup("<details><summary>Rewards: {}</summary><table class='cells'>{}</table></details>")
    return form.format(" · ".join(summary), lines)
