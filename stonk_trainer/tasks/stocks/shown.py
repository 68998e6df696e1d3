"""An answer on the terminal: its text, and its evidence with the verdict on each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stonk_trainer.terminal import make_console, plain_table, printable, styled

if TYPE_CHECKING:
    from rich.console import Console


def print_answer(forecast: Mapping) -> None:
    """Print the answer of a forecast and its evidence; nothing where no answer is readable."""
    if forecast["answer"]:
        console = make_console()
        console.print(styled(printable(f"{forecast['ticker']} {forecast['date']}", console), "bold"))
        console.print(styled(printable(forecast["answer"].strip(), console)), soft_wrap=True)
        print_evidence(forecast["evidence"], forecast["invented"], console)
        console.print()


def print_evidence(evidence: Sequence[Mapping], invented: Sequence[str], console: Console) -> None:
    """Print the evidence of an answer as a table with verdicts, and the invented numbers of its thought."""
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
