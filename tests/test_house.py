"""The picture of the house in docs/design.md, held against the imports of the package."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stonk_trainer"
DESIGN = PACKAGE.parent / "docs" / "design.md"
FILES = [path for path in PACKAGE.rglob("*.py") if "recipes" not in path.relative_to(PACKAGE).parts]


def module_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imports_of(path):
    """The modules of the package that a file imports anywhere, in functions and for the type checker too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stonk_trainer"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("stonk_trainer")}
    return found - {module_of(path)}


def room_of(module):
    """A package or a module at the top, and each task by itself."""
    parts = module.split(".")[1:]
    if parts[:1] == ["tasks"] and len(parts) > 1 and (PACKAGE / "tasks" / parts[1]).is_dir():
        return ".".join(parts[:2])
    return parts[0] if parts else "stonk_trainer"


def picture():
    """{room: its line} of the picture, from the top."""
    block = re.search(r"compares this picture.*?```\n(.*?)```", DESIGN.read_text(), re.DOTALL)[1]
    lines = [re.split(r" {6,}", line)[0].split() for line in block.splitlines()]
    return {room: number for number, rooms in enumerate(lines) for room in rooms}


ARROWS = sorted(
    {
        (room_of(module_of(path)), room_of(module))
        for path in FILES
        for module in imports_of(path)
        if room_of(module) != room_of(module_of(path))
    }
)


def test_the_picture_shows_every_room_and_no_other():
    assert set(picture()) == {room_of(module) for module in MODULES} - {"stonk_trainer"}


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: " imports ".join(arrow))
def test_no_import_runs_back_up(arrow):
    line = picture() | {"stonk_trainer": -1}  # __init__.py, which only hands `predict` on
    importer, imported = arrow
    beside = {importer, imported} <= {"tasks", "tasks.stocks", "tasks.btc", "tasks.reasoning"}
    assert line[importer] < line[imported] or beside, f"{importer} imports {imported}, which stands above it"


def test_there_is_no_import_circle():
    TopologicalSorter({module_of(path): imports_of(path) for path in FILES}).prepare()  # raises CycleError


def test_no_file_is_longer_than_450_lines():
    long = {path.name: count for path in FILES if (count := len(path.read_text().splitlines())) > 450}
    assert long == {}


def test_every_file_that_the_documentation_names_exists():
    """As the end of a path: `tasks/base.py`, or `grpo.py` alone."""
    pages = [DESIGN.parent.parent / "README.md", DESIGN.parent.parent / "CONTRIBUTING.md", *DESIGN.parent.glob("*.md")]
    pages = [page for page in pages if page.name != "comparison.md"]  # which names files of other projects
    files = [f"/{path.relative_to(PACKAGE.parent)}" for path in PACKAGE.parent.glob("[!.r]*/**/*.py")]
    named = {(page.name, name) for page in pages for name in re.findall(r"`([\w./]+\.py)`", page.read_text())}
    elsewhere = {"convert_hf_to_gguf.py"}  # llama.cpp's
    assert [
        one for one in sorted(named) if one[1] not in elsewhere and not any(f.endswith(f"/{one[1]}") for f in files)
    ] == []
