"""The quickstart notebook runs from top to bottom, with a tiny model in place of the embedded one."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
NOTEBOOK = REPOSITORY / "examples" / "quickstart.ipynb"


def test_the_notebook_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []


@pytest.fixture(scope="module")
def executed(tiny_model_folder, tmp_path_factory):
    """Outputs of each code cell by its id, as text and HTML, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    small = f"MODEL, STEPS, ROWS = {str(tiny_model_folder)!r}, 2, 8"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))  # no history in the user's home
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.get("text", "") or output.get("data", {}).values() for output in cell.outputs]
            outputs[cell.id] = "\n".join(text if isinstance(text, str) else "\n".join(text) for text in shown)
    return outputs, folder


def test_the_good_answer_earns_more_than_the_bad_one(executed):
    outputs, _ = executed
    table = {line.split()[0]: line.split()[1:] for line in outputs["score"].splitlines() if line[:1].isalpha()}
    for reward in ("accuracy", "magnitude"):
        assert table[reward][0] == table[reward][1]
    for reward in ("data_usage", "coherence"):
        good, bad = map(float, table[reward])
        assert good == 1 and bad < 0.3
    assert "5.9%" in outputs["evidence"] and "wrong value" in outputs["evidence"]


def test_the_warm_up_trains_and_is_judged(executed):
    outputs, folder = executed
    assert "step 2/2" in outputs["warmup"] and (folder / "runs/quickstart/warmup/best_model/config.json").is_file()
    assert "<table" not in outputs["warmup"]  # our lines, and not those of Transformers beside them
    assert "8 test rows" in outputs["eval"] and "majority" in outputs["eval"]


def test_the_report_is_shown_with_its_figures(executed):
    outputs, folder = executed
    assert "<iframe" in outputs["report"] and "data:image/png;base64," in outputs["report"]
    assert list((folder / "runs/quickstart/report").glob("*.png"))
