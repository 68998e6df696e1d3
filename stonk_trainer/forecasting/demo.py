"""`stonk demo`: a page to try trained models on, in the browser.

    stonk demo --models runs/demo/stage1/best_model runs/demo/stage2/best_model
    stonk demo --models runs/btc/demo/sft/best_model runs/btc/demo/rl/best_model

Language models answer rows of their recipe's test split, or of a CSV that is uploaded; a GPT draws the paths a price
may take. The page loads nothing from elsewhere, and is served on 127.0.0.1 unless --host says otherwise.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.forecasting.prediction import Predict, Predictor
from stonk_trainer.options import option
from stonk_trainer.recipe import check_ranges, load_command
from stonk_trainer.terminal import log, start_log

LARGEST_UPLOAD = "5mb"


@dataclass
class Demo:
    """A page to try models on."""

    models: list[str] = option([], "Models (folder or name), of the stocks or the btc task.", "--model")
    dataset_name: str | None = option(None, "Rows or prices to choose from; left out: those of the recipe.", "--csv")
    recipe: str | None = option(None, "Recipe that makes the prompts; left out: recipe.yaml beside each model.")
    max_rows: int = option(300, "Rows to choose from, drawn at random from the test split.")
    calibration: str | None = option(None, "Judged forecasts (predictions.jsonl) by which confidences are calibrated.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: anyone who reaches this machine.")
    port: int = option(7860, "Port to listen on.")

    def __post_init__(self):
        if not self.models:
            raise UserError("no model: give folders with --models, such as runs/demo/stage2/best_model")
        if len(set(self.models)) < len(self.models):
            raise UserError("models: duplicate: name each model once")
        check_ranges(self, {"[1, 65535]": "port", "[1, inf)": "max_rows"})


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    run = load_command(argv, "demo", Demo, "--models runs/demo/stage2/best_model")
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
            keys = {key: getattr(run, key) for key in ("dataset_name", "recipe", "calibration")}
            models.append(Predictor(name, Predict(model=name, **keys)))
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


if __name__ == "__main__":
    main()
