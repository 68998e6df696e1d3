"""stonk_trainer: post-training of language models for market prediction, a thin layer over TRL."""

from stonk_trainer.version import __version__ as __version__


def __getattr__(name: str) -> object:
    """`predict` when it is asked for: what it needs takes seconds to import."""
    if name == "predict":
        from stonk_trainer.forecasting.prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
