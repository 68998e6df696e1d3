"""`stonk demo`: a page to try trained models on, in the browser.

    stonk demo --models runs/demo/stage1/best_model runs/demo/stage2/best_model
    stonk demo --models runs/btc/demo/sft/best_model runs/btc/demo/rl/best_model

Language models answer rows of their recipe's test split, or of a CSV that is uploaded; a GPT draws the paths a price
may take. The page loads nothing from elsewhere, and is served on 127.0.0.1 unless told otherwise.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.forecasting.prediction import Predict, Predictor
from stonk_trainer.recipe import load_command
from stonk_trainer.terminal import log, start_log

LARGEST_UPLOAD = "5mb"


@dataclass
class Demo:
    """A page to try models on."""

    models: list[str] = field(
        default_factory=list,
        metadata={"help": "Models (folder or name), of the stocks or the btc task.", "aliases": ["--model"]},
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Rows or prices to choose from; left out: those of the recipe.", "aliases": ["--csv"]},
    )
    recipe: str | None = field(
        default=None, metadata={"help": "Recipe that makes the prompts; left out: recipe.yaml beside each model."}
    )
    max_rows: int = field(default=300, metadata={"help": "Rows to choose from, drawn at random from the test split."})
    calibration: str | None = field(
        default=None, metadata={"help": "Judged forecasts (predictions.jsonl) by which confidences are calibrated."}
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0: anyone who reaches this machine."}
    )
    port: int = field(default=7860, metadata={"help": "Port to listen on."})

    def __post_init__(self):
        if not self.models:
            raise UserError("no model: give folders with --models, such as runs/demo/stage2/best_model")
        if len(set(self.models)) < len(self.models):
            raise UserError("models: one is named twice")
        if not 1 <= self.port <= 65535:
            raise UserError(f"port: {self.port} must be in [1, 65535]")
        if self.max_rows < 1:
            raise UserError(f"max_rows: {self.max_rows} must be at least 1")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    run = load_command(
        list(sys.argv[1:] if argv is None else argv), "demo", Demo, "--models runs/demo/stage2/best_model"
    )
    if find_spec("gradio") is None:
        raise UserError("stonk demo needs Gradio: pip install 'stonk-trainer[demo]'")
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix="stonk-demo-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read when Gradio is imported; goes with what is in it

        from stonk_trainer.forecasting import page

        start_log()
        models = []
        for name in run.models:
            log.info("loading %s", name)
            models.append(Predictor(name, _asking(run, name)))
        log.info("http://%s:%d  Ctrl-C ends it", run.host, run.port)
        try:
            page.build(models, run.max_rows).launch(
                server_name=run.host,
                server_port=run.port,
                max_file_size=LARGEST_UPLOAD,
                share=False,
                ssr_mode=False,
                footer_links=[],
                quiet=True,
                **page.LOOK,
            )
        except OSError as error:
            raise UserError(f"port: {run.port} cannot be listened on ({error}): give another --port") from error


def _asking(run: Demo, model: str) -> Predict:
    return Predict(model=model, dataset_name=run.dataset_name, recipe=run.recipe, calibration=run.calibration)


if __name__ == "__main__":
    main()
