"""The tab of the btc task on the page of `stonk demo`: fan charts of the paths a price may take."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from stonk_trainer.errors import UserError
from stonk_trainer.forecasting import page
from stonk_trainer.forecasting.prediction import Predictor
from stonk_trainer.tasks.btc.dataset import series_of
from stonk_trainer.tasks.btc.forecast import draw_fan, quantile_table, sample_fan
from stonk_trainer.tasks.btc.returns import Series


def tab(models: Sequence[Predictor]) -> tuple[str, Callable[[], None]]:
    """See `ForecastTask.demo_tab`; the series are those of the last model's recipe."""
    embedded = {series.name: series for series in series_of(models[-1].task.args)}
    return "Paths of a price", lambda: _fill(models, embedded)


def _fill(models: Sequence[Predictor], embedded: dict[str, Series]) -> None:
    own = gr.State(None)  # the series of an uploaded file
    first = "BTC" if "BTC" in embedded else next(iter(embedded))
    days = _days(models[-1], embedded[first])
    chosen = page.choose_models(models)
    with gr.Row():
        with gr.Column(min_width=300):
            ticker = gr.Dropdown(list(embedded), value=first, label="Series")
            upload, uploaded = page.upload_button()
        with gr.Column(min_width=300):
            day = gr.Slider(0, len(days) - 1, value=len(days) // 2, step=1, label="Day of the forecast")
            shown_day = gr.Markdown(_day_text(days, len(days) // 2))
            horizon = gr.Slider(5, 90, value=30, step=1, label="Days ahead")
            paths = gr.Slider(100, 1000, value=200, step=100, label="Sampled paths")
            draw = gr.Button("Draw", variant="primary")
    pictures = page.result_columns(models)

    def move_to(series: Series, at: float) -> tuple[Any, str]:
        """The slider and its text, at a share of the series' days."""
        days = _days(models[-1], series)
        day = int(at * (len(days) - 1))
        return gr.update(maximum=len(days) - 1, value=day), _day_text(days, day)

    def choose(ticker: str) -> tuple[None, Any, str]:
        return None, *move_to(embedded[ticker], 0.5)

    def upload_prices(path: str, ticker: str) -> tuple[Series | None, str, Any, str]:
        series, report = page.read_upload(path, lambda path: _uploaded_series(models[-1], path))
        return series, report, *(move_to(series, 1.0) if series else move_to(embedded[ticker], 0.5))

    def show_day(day: int, ticker: str, own: Series | None) -> str:
        return _day_text(_days(models[-1], own or embedded[ticker]), int(day))

    def fan(names: list[str], ticker: str, own: Series | None, day: int, horizon: int, paths: int) -> list[str] | str:
        series = own or embedded[ticker]
        try:
            made = [
                _fan_html(model, series, _days(model, series)[int(day)], int(horizon), int(paths))
                for model in page.chosen_models(models, names)
            ]
        except UserError as error:
            raise page.page_error(error) from error
        return page.in_columns(made, models)

    upload.upload(upload_prices, [upload, ticker], [own, uploaded, day, shown_day])
    ticker.input(choose, ticker, [own, day, shown_day])
    day.change(show_day, [day, ticker, own], shown_day, show_progress="hidden")
    inputs = [chosen, ticker, own, day, horizon, paths]
    draw.click(fan, inputs, pictures, **page.ONE_AT_A_TIME)
    day.input(fan, inputs, pictures, trigger_mode="always_last", **page.ONE_AT_A_TIME)  # by mouse and by keyboard


def _uploaded_series(model: Predictor, path: str) -> tuple[Series, int]:
    """The one series of a file, and how many days it has. Raises UserError when it cannot be forecast."""
    series, *others = series_of(model.task.replaced(dataset_name=path, tickers=None).args)
    if others:
        raise UserError(f"{path} has {len(others) + 1} series: upload one")
    model.forecaster.on(series, len(series.dates))
    return series, len(series.dates)


def _days(model: Predictor, series: Series) -> np.ndarray:
    """The days a forecast may start from: those training has not seen, the last included; all where it saw all."""
    unseen = series.dates[series.dates > np.datetime64(model.forecaster.codec.config.train_end)]
    return unseen if len(unseen) > 1 else series.dates[len(series.dates) // 2 :]


def _day_text(days: np.ndarray, day: int) -> str:
    return f"**{days[day]}**: the model does not see later days."


def _fan_html(model: Predictor, series: Series, day: np.datetime64, horizon: int, paths: int) -> str:
    """The fan chart, and the quantiles as a table."""
    origin = int(np.searchsorted(series.dates, day, side="right"))
    fan = sample_fan(series, model.forecaster.on(series, origin), origin, horizon, paths, seed=42)
    alt = f"Fan chart: {paths} paths of {series.name} over {horizon} days after {day}; the table has the numbers."
    form = Markup('<h3>{}</h3><img class="fan" alt="{}" src="data:image/png;base64,{}"><pre class="answer">{}</pre>')
    picture = base64.b64encode(draw_fan(series.name, fan)).decode()
    return form.format(model.name, alt, picture, quantile_table(fan.known[-1], fan.prices_NH))
