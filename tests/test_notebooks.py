"""The notebooks run from top to bottom."""

from pathlib import Path

import matplotlib
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """In this process: a kernel of its own would import and compile everything once more."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names = {"__name__": "__main__"}
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    for i, cell in enumerate(cells):
        exec(compile(cell.source, f"{path.name}, cell {i}", "exec"), names)
