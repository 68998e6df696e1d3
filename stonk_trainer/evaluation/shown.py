"""Answers on the terminal: text, evidence with its verdicts, and nothing that would steer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def printable(text: str, console: Console) -> str:
    """`text`, of the same length, without what would steer the terminal or what its encoding cannot show."""
    plain = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain.encode(console.encoding, "replace").decode(console.encoding)


def plain_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def styled(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def print_evidence(evidence: Sequence[Mapping], invented: Sequence[str], console: Console) -> None:
    """The lines of an answer's evidence as a table with verdicts, and the invented numbers of its thought."""
    if evidence:
        table = plain_table("evidence", "value", "side", "verdict")
        for line in evidence:
            colour = "green" if line["verdict"] == "grounded" else "red"
            cells = [styled(printable(line[key], console)) for key in ("name", "value", "side")]
            table.add_row(*cells, styled(line["verdict"], colour))
        console.print(table)
    if invented:
        text = f"invented numbers in the thought: {', '.join(invented)}"
        console.print(styled(printable(text, console), "red"), soft_wrap=True)
