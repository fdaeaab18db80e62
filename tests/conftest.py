"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from etl.cli import app
from etl.lake import Lake
from etl.workers import Workers

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.create(tmp_path / "lake")


@pytest.fixture(scope="session")
def workers():
    """One in-process worker for all tests; tests/etl/test_workers.py starts real processes."""
    with Workers(count=0) as started:
        yield started


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real inputs that cannot be part of the repository."""
    if not DATA.is_dir():
        pytest.skip(f"real inputs are not at {DATA}: their licences keep them out of the repository")
    return DATA


@pytest.fixture(scope="session")
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
