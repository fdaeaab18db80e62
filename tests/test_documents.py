"""What README and notebooks say runs as it stands, on a lake as `make demo` makes it."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from etl.cli import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small demo where the README's commands and snippets expect the full one: in demo/."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "demo").mkdir()
    run = CliRunner()
    file = folder / "demo" / "pipeline.yaml"
    assert run.invoke(app, ["init", str(file)]).exit_code == 0
    text = file.read_text()
    assert "# every: 5" in text
    file.write_text(text.replace("# every: 5 ", "every: 6 "))
    result = run.invoke(app, ["run", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def _readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def readme_commands() -> list[list[str]]:
    """The `posedreamer` commands of the README's shell blocks."""
    lines = "\n".join(_readme_blocks("sh")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if w and w[0] == "posedreamer"]


def test_every_command_of_the_readme_runs(demo, monkeypatch):
    monkeypatch.chdir(demo)
    commands = readme_commands()
    assert len(commands) >= 5
    for words in commands:
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, (words, result.output)


def test_every_python_snippet_of_the_readme_runs(demo, monkeypatch):
    monkeypatch.chdir(demo)
    snippets = _readme_blocks("python")
    assert len(snippets) >= 2
    for snippet in snippets:
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (snippet, done.stderr)


def test_the_settings_of_the_readme_are_valid(tmp_path):
    from etl.filter import load_policy
    from etl.settings import load_pipeline

    blocks = _readme_blocks("yaml")
    assert len(blocks) == 6
    # Parts of a file are read within one.
    heads = {
        "curriculum:": "lake: lake\nposes: [{name: amass, path: a.npz}]\n",
        "metrics:": "lake: lake\nposes: [{name: amass, path: a.npz}]\n",
        "  - {column:": "name: mine\nrules:\n",
    }
    for block in blocks:
        file = tmp_path / "file.yaml"
        head = next((head for start, head in heads.items() if block.startswith(start)), "")
        file.write_text(head + block)
        (load_pipeline if "lake:" in file.read_text() else lambda path: load_policy(str(path)))(file)


def test_a_file_that_is_not_there_is_said(demo):
    file = str(demo / "demo" / "pipeline.yaml")
    nowhere = CliRunner().invoke(app, ["sheet", file, "--out", str(demo / "none" / "x.png")])
    assert "there is no folder" in str(nowhere.exception)
    notes = CliRunner().invoke(
        app, ["release", "create", "0.9.0", "-p", file, "--notes", str(demo / "none.txt")]
    )
    assert notes.exit_code == 2
    assert "--notes" in notes.output


def test_a_contact_sheet_is_drawn(demo):
    from PIL import Image

    out = demo / "sheet.png"
    result = CliRunner().invoke(
        app, ["sheet", str(demo / "demo" / "pipeline.yaml"), "--out", str(out), "-n", "6"]
    )
    assert result.exit_code == 0, result.output
    with Image.open(out) as image:
        assert min(image.size) > 200


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
