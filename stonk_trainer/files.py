"""Files: read with one kind of error, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from stonk_trainer.errors import UserError


@contextmanager
def _reading(path: str | Path) -> Iterator[TextIO]:
    """An open UTF-8 file, or standard input for `-`; UserError when it cannot be read, or is not UTF-8."""
    where = "standard input" if path == "-" else path
    try:
        if path == "-":
            yield sys.stdin
        else:
            with Path(path).expanduser().open(encoding="utf-8-sig") as file:
                yield file
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not text in UTF-8") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark; of standard input for `-`.

    Raises UserError when it cannot be read, or is not UTF-8.
    """
    with _reading(path) as file:
        return file.read()


class Dropped(NamedTuple):
    """A line that is not a JSON object. torn: it is the last one and has no line end, as a crash leaves it."""

    number: int
    torn: bool


def read_jsonl(path: str | Path, dropped: list[Dropped] | None = None) -> list[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line of a JSON-lines file that is not blank; `-` reads standard input.

    Raises UserError for a file that cannot be read and for the first line that is not a JSON object. dropped: such
    lines are added here instead and left out.
    """
    return list(iter_jsonl(path, dropped))


def iter_jsonl(path: str | Path, dropped: list[Dropped] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_jsonl`, one line at a time, in bounded memory."""
    where = "standard input" if path == "-" else path
    with _reading(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                problem = "" if isinstance(value, dict) else f"is a {type(value).__name__}, not a JSON object"
            except (ValueError, RecursionError) as error:
                problem = f"is not JSON: {error}"
            if not problem:
                yield number, value
            elif dropped is None:
                raise UserError(f"{where}, line {number} {problem}")
            else:
                dropped.append(Dropped(number, torn=not line.endswith("\n")))


def make_folder(path: str | Path, key: str) -> Path:
    """The folder, made if it does not exist. Raises UserError, which names the recipe key `key`, if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: folder {path} cannot be made: {error.strerror}") from error
    return Path(path)


@contextmanager
def whole(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """A temporary file (or folder) beside `path` that replaces it when the block ends without an error.

    Nobody sees a half-written file, and an error leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}-"
    if folder:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix)
        os.close(handle)
        temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o755 if folder else 0o644)
        if folder and path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary) if folder else temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")
