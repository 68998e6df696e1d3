"""Every command, every Python block and every link of the documentation works."""

import re
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from docs_shell import MARKS, ROOT, Block, Fault, Sandbox, blocks, commands, pages


@pytest.fixture(scope="module")
def sandbox(tiny_model_folder, adding_model_folder):
    with Sandbox({"stocks": tiny_model_folder, "reasoning": adding_model_folder}) as one:
        yield one


def test_every_command_of_the_documentation_runs(sandbox):
    """README first, then page by page; all faults are told together. Slow blocks are shown by `pytest -s`."""
    faults = []
    for page in pages(ROOT):
        for block in blocks(page.read_text(), str(page.relative_to(ROOT))):
            start = time.monotonic()
            try:
                sandbox.run(block)
            except Fault as fault:
                faults.append(f"{block}\n{fault}")
            print(f"{time.monotonic() - start:6.1f} s  {block}  {block.mark or ''}")
    assert not faults, f"{len(faults)} of the blocks fail:\n\n" + "\n\n".join(faults)
