"""stonk_trainer: post-training of language models for market prediction, a thin layer over TRL."""

import os

from stonk_trainer.version import __version__ as __version__

# Before torch is loaded: threads that wait for work spin, and two busy processes slow each other ten times and more.
# libgomp reads this once; a setting of the user's stays.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"


def __getattr__(name: str) -> object:
    """`predict` when it is asked for: what it needs takes seconds to import."""
    if name == "predict":
        from stonk_trainer.forecasting.prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
