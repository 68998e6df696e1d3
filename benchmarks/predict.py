"""How many rows a second `stonk predict` forecasts, in batches and one row at a time.

    .venv/bin/python benchmarks/predict.py --model runs/demo/warmup/best_model --rows 100
    .venv/bin/python benchmarks/predict.py --model runs/btc/demo/sft/best_model --rows 1000

The rows are the last ones of the model's own dataset. Batches and single rows take turns, so that whatever else the
machine does meets both; `--alone` rows of each turn are answered one by one. How many forecasts are the same both ways
is counted: in bf16 rounding depends on the batch.
"""

from __future__ import annotations

import argparse
import statistics
import time

from stonk_trainer.forecasting.prediction import Predict, Predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--alone", type=int, default=3, help="rows of a turn that are answered one by one")
    parser.add_argument("--samples", type=int, help="default: as stonk predict")
    parser.add_argument("--batch_size", type=int, default=Predict.batch_size)
    parser.add_argument("--max_completion_length", type=int, help="default: as the recipe says")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    asked = {key: getattr(options, key) for key in ("samples", "dtype", "max_completion_length")}
    run = Predict(model=options.model, start="1900-01-01", **asked)
    with Predictor(options.model, run) as predictor:
        rows = predictor.rows(run)[-options.rows :]
        predictor.forecasts(rows[:1])  # the first call of everything is slower
        speeds, same, compared = {"batch": [], "alone": []}, 0, 0
        for start in range(0, len(rows), options.batch_size):
            batch = rows[start : start + options.batch_size]
            began = time.perf_counter()
            together = predictor.forecasts(batch)
            speeds["batch"].append(len(batch) / (time.perf_counter() - began))
            for row, other in zip(batch[: options.alone], together, strict=False):
                began = time.perf_counter()
                (one,) = predictor.forecasts([row])
                speeds["alone"].append(1 / (time.perf_counter() - began))
                same, compared = same + (one["direction"] == other["direction"]), compared + 1
    batch, alone = (statistics.harmonic_mean(rates) for rates in speeds.values())
    print(f"{options.model}: {len(rows)} rows, {predictor.forecaster.asking.samples} samples each")
    print(f"batches of {options.batch_size}: {batch:.3g} rows per second")
    print(f"one row at a time: {alone:.3g} rows per second; batches are {batch / alone:.1f} times as fast")
    print(f"{same} of {compared} directions are the same both ways")


if __name__ == "__main__":
    main()
