"""The notebooks run as they are, on a lake as `make demo` makes it."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file, demo, tmp_path):
    notebook = nbformat.read(file, as_version=4)
    assert len(notebook.cells) < 12
    assert len(file.read_bytes()) < 20_000, "outputs are not kept"
    shutil.copytree(demo / "demo", tmp_path / "demo")
    (tmp_path / "notebooks").mkdir()
    NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    ).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert not any(out.get("data", {}).get("text/plain") == "False" for out in shown)
