"""stonk_trainer: post-training of language models for market prediction, a thin layer over TRL."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`predict` when it is asked for: what it needs takes seconds to import."""
    if name == "predict":
        from stonk_trainer.forecasting.prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
