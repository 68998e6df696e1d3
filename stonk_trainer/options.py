"""Keys of recipes and commands as fields of dataclasses: a default and its help."""

from __future__ import annotations

import copy
from dataclasses import field
from typing import Any


def option(default: Any, help: str, *aliases: str) -> Any:
    """A field of an arguments dataclass, as TrlParser reads it.

    Args:
        default: its value when it is left out; each instance gets a list of its own.
        help: what `--help` shows.
        aliases: other flags for it, such as "--out".
    """
    metadata: dict[str, Any] = {"help": help}
    if aliases:
        metadata["aliases"] = list(aliases)
    if isinstance(default, list):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
