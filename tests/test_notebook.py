"""The Colab notebook, executed on a tiny model; only Colab's own cells are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "finetune_colab.ipynb"

# As papermill does it: what comes after the cell tagged `parameters` overrides it.
TINY = """
MODEL = ["--model", {model!r}]
OPTIONS += ["--epochs", "1", "--threads", "1", "--max-target-length", "32", "--eval-steps", "10"]
SAMPLE_ROWS = {{"train": 320, "dev": 40}}
"""


def read() -> Any:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def test_the_notebook_is_clean_and_installs_from_the_repository() -> None:
    cells = read().cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "colab-badge.svg" in cells[0].source
    assert "notebooks/finetune_colab.ipynb" in cells[0].source
    text = "\n".join(cell.source for cell in code)
    for word in ("git+{REPOSITORY}", "colab-t4", "files.upload", "files.download", "curves.png"):
        assert word in text, word
    # What runs on Colab only must not hide what this test should run.
    assert all(
        "google.colab" in cell.source or "%pip" in cell.source
        for cell in code
        if "colab" in tags(cell)
    )


@pytest.mark.slow
def test_every_cell_runs(trained: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = read()
    notebook.cells = [cell for cell in notebook.cells if "colab" not in tags(cell)]
    [place] = [n for n, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(TINY.format(model=str(trained))))
    client = nbclient.NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    said = {
        cell.source.splitlines()[0]: "".join(
            output.get("text", "") + str(output.get("data", {}).keys()) for output in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source
    }
    whole = "\n".join(said.values())
    assert "exact match" in whole
    assert "image/png" in whole
    assert f"| {trained} |" in whole
    assert "lora" in whole
    assert " → " in whole
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    assert (tmp_path / "my-model-artifacts.zip").stat().st_size > 1_000_000
