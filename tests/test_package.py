"""The package as users install it: wheel and sdist of the tracked files, tried outside the repository."""

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent


def tracked_files():
    """Paths of the tracked files, relative to the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.split("\0") if path and os.path.lexists(REPOSITORY / path)]


def build(source, kind):
    """Build "sdist" or "wheel" of a source tree by the hook that pip calls, without a network; returns the file."""
    hook = f"from setuptools import build_meta; build_meta.build_{kind}('dist')"
    subprocess.run([sys.executable, "-c", hook], cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def contents(wheel):
    """Name and bytes of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tracked files."""
    folder = tmp_path_factory.mktemp("source")
    for path in tracked_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, folder / path, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(source):
    return build(source, "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a command of a new environment that holds the wheel, in an empty folder; returns what it prints.

    The dependencies are this environment's. A folder named in a .pth file is searched, but the .pth files in it are not
    read, so that an editable install of the checkout is not found.
    """
    environment, empty = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program, *arguments, **options):
        words = [str(environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(words, cwd=empty, env=variables, capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = own
    return run


def test_the_wheel_holds_every_tracked_file_of_the_package(wheel):
    inside = contents(wheel)
    tracked = [path for path in tracked_files() if (REPOSITORY / path).is_file()]
    expected = [path for path in tracked if path.startswith("stonk_trainer/")]
    expected += [f"stonk_trainer/{path}" for path in tracked if path.startswith("recipes/")]
    assert "stonk_trainer/py.typed" in expected and "stonk_trainer/recipes/stocks/stage1.yaml" in expected
    assert "stonk_trainer/assets/sp500_closes.csv.gz" in expected
    assert sorted(expected) == sorted(name for name in inside if name.startswith("stonk_trainer/"))
    assert all(inside[path] == (REPOSITORY / path).read_bytes() for path in tracked if path in inside)


def test_what_is_cited_and_the_changelog_are_of_this_version():
    from stonk_trainer import __version__

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    latest = re.search(r"^## (\S+?),? (.*)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert citation["version"] == latest[1] == __version__
    assert str(citation.get("date-released", "not released yet")) == latest[2]


def test_the_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build(source, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert contents(build(unpacked, "wheel")) == contents(wheel)


def test_python_imports_the_package_from_the_wheel(installed):
    program = (
        "import stonk_trainer\n"
        "from stonk_trainer import predict\n"
        "from stonk_trainer.tasks.stocks import score\n"
        "from importlib.metadata import version\n"
        "assert version('stonk-trainer') == stonk_trainer.__version__\n"
        "print(stonk_trainer.__file__)"
    )
    assert installed("python", "-c", program).strip() == str(installed.folder / "stonk_trainer" / "__init__.py")


def test_the_command_answers(installed):
    from stonk_trainer import __version__

    assert "usage: stonk COMMAND" in installed("stonk", "--help")
    assert installed("stonk", "--version").strip() == __version__


def test_a_shipped_recipe_is_checked_with_the_embedded_prices(installed, tiny_model_folder):
    flags = ["--model", tiny_model_folder, "--max_train_samples", "8"]
    text = installed("stonk", "check", "--config", "stocks/demo/stage1", *flags)
    assert "train: 8 rows" in text and "no errors found" in text


def test_an_answer_to_an_embedded_row_is_scored(installed, tmp_path):
    row = tmp_path / "row.json"
    row.write_text(
        installed("stonk", "score", "--from", "stocks/demo/stage1", "--ticker", "AAPL", "--date", "2019-03-04")
    )
    answer = "<think>\nThe share rose 0.5% to $42.49 today.\n</think>\nPrediction: UP\n"
    text = installed("stonk", "score", "--row", row, "--completion", "-", input=answer)
    assert "$42.49" in text and "accuracy" in text


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
)
def test_waiting_threads_spin_a_little_unless_the_user_says_otherwise(own, expected):
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import stonk_trainer, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=kept | own, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
