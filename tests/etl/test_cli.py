"""The command line: quick to start and clear about mistakes."""

import json
import subprocess
import sys

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
