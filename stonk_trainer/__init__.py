"""stonk_trainer: post-training of language models for market prediction, a thin layer over TRL."""

__version__ = "0.1.0"
