"""The notebook of the examples runs from top to bottom."""

import ast
import importlib
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "notebook.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_notebook_launches_follows_and_plots_a_sweep(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = " ".join(str(output.get("data", {}).get("text/plain", "")) for output in outputs)
    assert "9 trials ended" in told
    assert "'effective_batch_size': " in told
    assert sum("plotly" in kind for output in outputs for kind in output.get("data", {})) == 2
    assert (tmp_path / "studies" / "notebook" / "report" / "index.html").exists()


def test_what_the_notebook_takes_from_this_package_is_there() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    froms = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    own = [node for node in froms if str(node.module).startswith("sweeper")]

    assert own
    for node in own:
        module = importlib.import_module(str(node.module))
        assert not [name.name for name in node.names if not hasattr(module, name.name)]


def test_the_notebook_is_kept_without_outputs() -> None:
    text = NOTEBOOK.read_text()

    assert '"outputs": []' in text
    assert '"execution_count": null' in text
    assert "output_type" not in text
