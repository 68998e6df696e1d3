"""What a command prints: its own plain lines, and of the libraries below it only warnings that matter."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

log = logging.getLogger("stonk_trainer")


def quiet_imports() -> None:
    """Before TRL is imported: no notes about kernels that are not installed, nor about keys renamed upstream."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)


def start_log(to: TextIO | None = None) -> None:
    """Send the package's lines to the terminal, on rank 0 only, and keep them until `log_to` names a file.

    to: standard output when left out; a command whose output others read gives standard error.
    """
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in ("peft", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it cannot read is said by our own line
    log.setLevel(logging.INFO)
    log.handlers.clear()
    log.propagate = False
    if os.environ.get("RANK", "0") != "0":
        log.addHandler(logging.NullHandler())
        return
    to_terminal = logging.StreamHandler(to or sys.stdout)
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(to_terminal)
    log.addHandler(MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


def log_to(path: Path) -> None:
    """Write what was logged so far, and all that follows, to `path` with time stamps."""
    to_file = logging.FileHandler(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in [h for h in log.handlers if isinstance(h, MemoryHandler)]:
        handler.setTarget(to_file)
        handler.flush()
        log.removeHandler(handler)
    log.addHandler(to_file)
