"""The page of `stonk demo`: a tab per task, which the task fills, and the parts that tabs share.

Whatever comes from a model or an upload is escaped before it becomes HTML. The page asks for nothing from outside:
system fonts, Gradio's own scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from markupsafe import Markup, escape

from stonk_trainer.errors import UserError
from stonk_trainer.forecasting.prediction import Predictor
from stonk_trainer.task import ForecastTask

T = TypeVar("T")

SIDE_BY_SIDE = 2  # models
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}

LOOK: dict[str, Any] = {
    "theme": gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    "css": """
.answer { white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--font-mono); font-size: .85rem;
  border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .6rem; margin: .4rem 0; }
.grounded { color: #0b5d2a; }
.false { color: #8f1d14; }
.cells, .cells tr { border: 0 !important; }
.cells td, .cells th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; border: 0; }
.cells td.number { text-align: right; font-variant-numeric: tabular-nums; }
h3, label span { overflow-wrap: anywhere; white-space: normal; }
.fan { width: 100%; height: auto; background: white; }
pre.answer { white-space: pre; overflow-x: auto; }
.big { font-size: 1.3rem; font-weight: 600; }
""",
}


def build(models: Sequence[Predictor], max_rows: int) -> gr.Blocks:
    """The page for these models, a tab for those of each task. Raises UserError for a task without one."""
    by_task: dict[type[ForecastTask], list[Predictor]] = {}
    for model in models:
        by_task.setdefault(type(model.task), []).append(model)
    tabs = [task.demo_tab(same, max_rows) for task, same in by_task.items()]
    with gr.Blocks(title="stonk_trainer", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown("# stonk_trainer\nTry trained models. Daily direction is close to chance: nothing here is advice.")
        for name, fill in tabs:
            with gr.Tab(name):
                fill()
    return page


# ------------------------------------------------------------------------------------------------------ shared parts


def choose_models(models: Sequence[Predictor]) -> gr.CheckboxGroup:
    """A box per model."""
    names = [model.name for model in models]
    return gr.CheckboxGroup(names, value=names[-SIDE_BY_SIDE:], label="Models, up to two side by side")


def chosen_models(models: Sequence[Predictor], names: Sequence[str]) -> list[Predictor]:
    """Those whose boxes are ticked, as many as stand side by side; without any, a note on the page."""
    chosen = [model for model in models if model.name in names][:SIDE_BY_SIDE]
    if not chosen:
        gr.Warning("Choose a model.", duration=5)
    return chosen


def result_columns(models: Sequence[Predictor]) -> list[gr.HTML]:
    """Places for the results of the chosen models, side by side."""
    columns = []
    with gr.Row():
        for _ in models[:SIDE_BY_SIDE]:
            with gr.Column(min_width=320):
                columns.append(gr.HTML())
    return columns


def in_columns(results: Sequence[str], models: Sequence[Predictor]) -> list[str] | str:
    """The results as Gradio wants them for `result_columns`: a list, or the one itself."""
    count = min(SIDE_BY_SIDE, len(models))
    filled = [*results, *[""] * count][:count]
    return filled if count > 1 else filled[0]


def upload_button() -> tuple[gr.UploadButton, gr.HTML]:
    """The button, and the place for what became of the file."""
    button = gr.UploadButton("Upload your own prices: a CSV with date and close", file_types=[".csv"])
    return button, gr.HTML()


def read_upload(path: str, read: Callable[[str], tuple[T, int]]) -> tuple[T | None, str]:
    """What `read` makes of an uploaded file (and of how many days), and HTML that reports it; the file is removed.

    None where the file cannot be read.
    """
    name = Path(path).name
    try:
        found, days = read(path)
        return found, Markup("<p>{} days of {}; the file is read and removed.</p>").format(days, name)
    except UserError as error:
        return None, Markup("<p><strong>Not read:</strong> {}</p>").format(str(error).replace(path, name))
    finally:
        Path(path).unlink(missing_ok=True)


def page_error(error: UserError) -> gr.Error:
    """The error as a note on the page."""
    return gr.Error(escape(str(error)))
