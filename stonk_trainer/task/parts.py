"""What tasks hand to the commands, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Row = dict[str, Any]


@dataclass
class DataSummary:
    """What was read to make the rows of a split, for run.json.

    rows_in_split: usable rows of the split's dates. rows_after_balancing: None where nothing is balanced. rows_drawn:
    the rows of the run. first, last: their days. share_up: of the rows drawn. dropped: rows of the source by why they
    are not usable. None where a task has no such thing.
    """

    rows_in_split: int
    rows_drawn: int
    rows_after_balancing: int | None = None
    first: str | None = None
    last: str | None = None
    share_up: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.rows_in_split:,} rows in the split"]
        if self.rows_after_balancing is not None:
            parts.append(f"{self.rows_after_balancing:,} after balancing")
        drawn = f"{self.rows_drawn:,} drawn"
        if self.first:
            drawn += f" ({self.first} to {self.last}" + (f", {self.share_up:.1%} UP)" if self.share_up else ")")
        dropped = ", ".join(f"{count:,} {why}" for why, count in self.dropped.items() if count)
        return ", ".join([*parts, drawn]) + (f"; not usable in the source: {dropped}" if dropped else "")


class Table(NamedTuple):
    """A table for people, in text. The first cell of a row names it."""

    caption: str
    header: list[str]
    rows: list[list[str]]


class CardResults(NamedTuple):
    """Results for a model card. metrics: (data, metric, value) for its metadata."""

    tables: list[Table]
    metrics: list[tuple[str, str, float]]
    sentences: Sequence[str] = ()


@dataclass(frozen=True)
class Pattern:
    """A sign of gaming in a run log; `text` is a sentence with the numbers and steps that show it.

    severity: warning (the reward is being earned the wrong way, or not at all), notice (an honest run can look like
    this too), unjudged (too little to say).
    """

    name: str
    text: str
    severity: Literal["warning", "notice", "unjudged"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one check of an audit on one split, or on "all". passed: None where it could not be checked."""

    check: str
    split: str
    passed: bool | None
    message: str
