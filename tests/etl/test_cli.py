"""The command line: quick to start, clear about mistakes, and as the README says."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from etl.cli import app

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "dask",
    "distributed",
    "matplotlib",
    "smplx",
    "numba",
    "deltalake",
}
README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    "code",
    [
        "import posedreamer",
        "import posedreamer; posedreamer.Lake",
        "import sys; sys.argv = ['posedreamer', '--help']\n"
        "import etl.cli\ntry: etl.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_starting_up_imports_nothing_heavy(code):
    listing = (
        code
        + "\nimport sys, json; sys.stderr.write(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    allowed = {"deltalake"} if "Lake" in code else set()
    assert loaded & HEAVY <= allowed


def _run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "posedreamer", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_mistake_is_a_sentence_and_not_a_traceback(tmp_path):
    missing = _run("run", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ")
    assert "posedreamer init" in missing.stderr
    assert "Traceback" not in missing.stderr

    file = tmp_path / "pipeline.yaml"
    file.write_text("lake: lake\nposes:\n  - {name: a, path: nowhere}\n")
    nowhere = _run("run", str(file))
    assert nowhere.returncode == 1
    assert "poses source a" in nowhere.stderr
    assert "nowhere" in nowhere.stderr
    assert _run("status", str(file)).returncode == 1
    assert _run("plan", "--frobnicate").returncode == 2


def test_a_file_that_is_not_there_is_said(demo):
    file = str(demo / "demo" / "pipeline.yaml")
    nowhere = CliRunner().invoke(app, ["sheet", file, "--out", str(demo / "none" / "x.png")])
    assert "there is no folder" in str(nowhere.exception)
    notes = CliRunner().invoke(
        app, ["release", "create", "0.9.0", "-p", file, "--notes", str(demo / "none.txt")]
    )
    assert notes.exit_code == 2
    assert "--notes" in notes.output


def test_init_writes_a_pipeline_that_plans_and_never_overwrites(tmp_path):
    file = tmp_path / "pipeline.yaml"
    run = CliRunner()
    assert run.invoke(app, ["init", str(file)]).exit_code == 0
    written = file.read_text()
    planned = run.invoke(app, ["plan", str(file)])
    assert planned.exit_code == 0, planned.output
    assert "17" in planned.output, "17 bundled files wait to be read"
    assert not (tmp_path / "lake").exists(), "a plan writes nothing"
    file.write_text(written + "# mine\n")
    assert run.invoke(app, ["init", str(file)]).exit_code == 1
    assert file.read_text().endswith("# mine\n")


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


def test_a_contact_sheet_is_drawn(demo):
    from PIL import Image

    out = demo / "sheet.png"
    result = CliRunner().invoke(
        app, ["sheet", str(demo / "demo" / "pipeline.yaml"), "--out", str(out), "-n", "6"]
    )
    assert result.exit_code == 0, result.output
    with Image.open(out) as image:
        assert min(image.size) > 200
