"""Small files in the exact upstream schemas."""

import json

import pytest


@pytest.fixture
def write_jsonl(tmp_path):
    """Write rows to a JSONL file of that name; a string is written as it is."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
