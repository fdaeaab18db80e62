"""Same inputs, same ids, same bytes; and a killed run ends where an undisturbed one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from etl.cli import app
from etl.lake import Lake

PIPELINE = """\
lake: lake
poses: [{name: demo, path: bundled, every: 40}]
plan: {image_size: [96, 96]}
generator: {name: shaded}
policy: lenient
release: 0.1.0
cluster: {partition_rows: 4, workers: 1}
"""
TABLES = ("poses", "captions", "samples", "labels", "images", "metrics_keypoints", "selections", "dataset")
CIRCUMSTANCES = ["seconds", "status"]
"""How long a row took and whether its file was found may differ; nothing else may."""


def _rows(lake: Lake, table: str) -> pd.DataFrame:
    rows = lake.table(table).to_pandas().drop(columns=CIRCUMSTANCES, errors="ignore")
    return rows.sort_values(list(lake.table(table).spec.key)).reset_index(drop=True).astype(str)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Lake:
    # Every run here has workers of one thread: sums over another number of threads round otherwise.
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    result = CliRunner().invoke(app, ["run", str(folder / "pipeline.yaml"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    return Lake(folder / "lake")


def _same(lake: Lake, other: Lake) -> None:
    for table in TABLES:
        pd.testing.assert_frame_equal(_rows(lake, table), _rows(other, table), obj=table)
    assert lake.table("images").count() > 15


def test_a_run_killed_while_painting_ends_in_the_tables_of_an_undisturbed_one(undisturbed, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    process = subprocess.Popen(
        [sys.executable, "-m", "posedreamer", "run", str(file), "--workers", "1"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    painted: list[Path] = []
    while len(painted) < 5 and process.poll() is None and time.monotonic() < deadline:
        painted = list((tmp_path / "lake" / "files" / "images").rglob("*.jpg"))
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(painted) >= 5, "the run ended before it could be killed"
    left = Lake(tmp_path / "lake")
    assert all(left.table(name).read().num_rows for name in left.tables())
    without_row = len(painted) - left.table("images").count()

    result = CliRunner().invoke(app, ["run", str(file), "--workers", "1"])
    assert result.exit_code == 0, result.output
    lake = Lake(tmp_path / "lake")
    _same(lake, undisturbed)
    images = lake.table("images").to_pandas()
    assert images["image_path"].is_unique
    adopted = (images["status"] == "adopted").sum()
    assert adopted >= without_row, "intact images that the crash left were made again"
