"""Fixtures that several tests share."""

from pathlib import Path

import pytest

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
