"""Fixtures that several tests of UDFs share."""

from pathlib import Path

import pytest

from tests import tiny_pipelines


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved tiny pipelines by kind, for reading."""
    return tiny_pipelines.save_all(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture
def files() -> tiny_pipelines.Folder:
    return tiny_pipelines.Folder()
