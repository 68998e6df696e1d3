"""What a command prints: its own plain lines, tables, and of the libraries below it only warnings that matter."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # our own line reports what it cannot read
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


def with_progress(batches: Sequence[Sequence], label: str) -> Iterator[Sequence]:
    """The batches, one by one; after each a line with how much is done, the rate and the time left."""
    total, done, started = sum(map(len, batches)), 0, time.monotonic()
    for batch in batches:
        yield batch
        done += len(batch)
        seconds = time.monotonic() - started
        left = seconds / done * (total - done)
        log.info("%s: %d/%d, %.3g per second, %.0f s left", label, done, total, done / seconds, left)


def make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


# Control characters, byte-order and direction marks, lone surrogates.
_HIDDEN = {*range(32), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, 0xFEFF}
_HIDDEN |= {*range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)}
_REPLACEMENTS = dict.fromkeys(_HIDDEN - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}")


def printable(text: str, console: Console | None = None) -> str:
    """`text`, of the same length, with � for characters that steer a terminal or turn the direction of writing.

    console: where it is printed; what its encoding cannot show is replaced too. None: for HTML.
    """
    plain = text.translate(_REPLACEMENTS)
    return plain if console is None else plain.encode(console.encoding, "replace").decode(console.encoding)


def plain_table(*columns: str, numbers: Sequence[str] = (), narrow: bool = False) -> Table:
    """A table with these columns. numbers: those aligned to the right. narrow: without rules and with little space."""
    from rich.box import SIMPLE
    from rich.table import Table

    layout: dict[str, Any] = {"box": None, "padding": (0, 1, 0, 0)} if narrow else {"box": SIMPLE}
    table = Table(pad_edge=False, **layout)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def styled(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
