"""Answers on the terminal: claims marked as grounded or not, and nothing that would steer it."""

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


def marks_of(console: Console) -> dict[bool, str]:
    return {True: "✓", False: "✗"} if console.encoding.startswith("utf") else {True: "+", False: "x"}


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


def marked(completion: str, claims: Sequence[Mapping], marks: Mapping[bool, str]) -> Text:
    """The completion with each claim as [✓ 2.10%] or [✗ 2.10%], green or red."""
    shown, at = styled(""), 0
    for claim in claims:
        start, end = claim.get("start"), claim.get("end")
        if start is None or end is None or start < at:
            continue
        shown.append(completion[at:start])
        colour = "green" if claim["grounded"] else "red"
        shown.append(f"[{marks[claim['grounded']]} {completion[start:end]}]", style=colour)
        at = end
    shown.append(completion[at:].rstrip())
    return shown
