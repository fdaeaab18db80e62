"""Incremental stages: what is computed, what is not, and what becomes of rows that fail."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from etl.lake import Lake
from etl.stage import pending, run_stage
from etl.workers import Workers
from schemas.errors import StageError
from tests.toy import Toy, toy_images, toy_stage


def _measured(lake: Lake) -> dict[int, float]:
    rows = lake.table("metrics_keypoints").read(["image_id", "oks"]).to_pydict()
    assert len(set(rows["image_id"])) == len(rows["image_id"])
    return dict(zip(rows["image_id"], rows["oks"], strict=True))


def test_every_row_is_computed_once(lake, workers):
    lake.table("images").append(toy_images(np.arange(100)))
    first = run_stage(lake, toy_stage(), workers)
    assert (first.total, first.computed, first.failed) == (100, 100, 0)
    assert set(_measured(lake)) == set(range(100))

    version = lake.table("metrics_keypoints").version()
    again = run_stage(lake, toy_stage(), workers)
    assert again.total == 0
    assert lake.table("metrics_keypoints").version() == version

    lake.table("images").append(toy_images(np.arange(90, 130)))
    more = run_stage(lake, toy_stage(), workers)
    assert more.computed == 30
    assert set(_measured(lake)) == set(range(130))


def test_rows_of_other_computations_are_no_input(lake, workers):
    lake.table("images").append(toy_images(np.arange(10), "other"))
    assert run_stage(lake, toy_stage(), workers).total == 0


@pytest.mark.parametrize("partition_rows", [1, 7, 33, 1000])
def test_no_partition_size_loses_a_remainder(lake, workers, partition_rows):
    rng = np.random.default_rng(partition_rows)
    ids = rng.permutation(10_000)[:101]
    for part in np.array_split(ids, 3):
        lake.table("images").append(toy_images(part))
    run_stage(lake, toy_stage(partition_rows), workers)
    assert set(_measured(lake)) == set(ids.tolist())


def test_a_failed_row_is_a_row_and_the_rest_goes_on(lake, workers):
    lake.table("images").append(toy_images(np.arange(100)))
    report = run_stage(lake, toy_stage(bad=(17, 63)), workers)
    assert (report.computed, report.failed) == (98, 2)
    failures = lake.table("failures").to_pandas().sort_values("row_id")
    assert failures["row_id"].tolist() == [17, 63]
    assert failures["attempt"].tolist() == [1, 1]
    assert failures["error_code"].tolist() == ["row", "row"]
    assert "is bad" in failures["message"].iloc[0]

    todo = pending(lake, toy_stage(bad=(17, 63)))
    assert (todo.done, len(todo.new), sorted(todo.failed)) == (98, 0, [17, 63])
    assert run_stage(lake, toy_stage(), workers).total == 0, "without retry a failed row rests"

    retried = run_stage(lake, toy_stage(bad=(63,)), workers, retry=True)
    assert (retried.computed, retried.failed) == (1, 1)
    attempts = lake.table("failures").to_pandas().groupby("row_id")["attempt"].max()
    assert attempts.to_dict() == {17: 1, 63: 2}
    assert len(pending(lake, toy_stage()).failed) == 1


def test_a_row_that_breaks_the_schema_fails_alone(lake, workers):
    lake.table("images").append(toy_images(np.arange(100)))
    report = run_stage(lake, toy_stage(infinite=(17, 63)), workers)
    assert (report.computed, report.failed) == (98, 2)
    failures = lake.table("failures").to_pandas().sort_values("row_id")
    assert failures["row_id"].tolist() == [17, 63]
    assert set(failures["error_code"]) == {"schema"}
    assert failures["message"].str.contains("column oks: inf is not finite").all()
    assert set(_measured(lake)) == set(range(100)) - {17, 63}


def test_a_udf_that_always_breaks_the_schema_stops_the_stage(lake, workers):
    lake.table("images").append(toy_images(np.arange(64)))
    with pytest.raises(StageError, match="every row of a batch failed with SchemaError"):
        run_stage(lake, toy_stage(infinite=tuple(range(64))), workers)
    assert not lake.table("failures").exists()


def test_a_change_makes_rows_stale_and_says_why(lake, workers):
    lake.table("images").append(toy_images(np.arange(20)))
    run_stage(lake, toy_stage(scale=0.5), workers)
    todo = pending(lake, toy_stage(scale=0.25))
    assert (len(todo.new), len(todo.stale)) == (0, 20)
    assert todo.why_stale == "parameters.scale 0.5 -> 0.25"

    todo = pending(lake, toy_stage(upstream={"images": "abc"}))
    assert todo.why_stale == 'upstream.images (none) -> "abc"'

    class Raised(Toy):
        version = 2

    todo = pending(lake, replace(toy_stage(), udf=Raised()))
    assert todo.why_stale == "version 1 -> 2"


def test_output_rows_that_are_there_are_not_counted_again(lake, workers):
    lake.table("images").append(toy_images(np.arange(10)))
    three = replace(toy_stage(), expected=lambda ids: np.full(len(ids), 3))
    assert pending(lake, three).rows == 30
    run_stage(lake, toy_stage(), workers)
    todo = pending(lake, three)
    assert (todo.done, len(todo.new), todo.rows) == (0, 10, 20)


def test_a_stage_that_cannot_go_on_stops_and_keeps_what_was_done(lake, workers):
    lake.table("images").append(toy_images(np.arange(64)))
    with pytest.raises(StageError, match="no memory for a single row"):
        run_stage(lake, toy_stage(8, fatal=60, seconds=0.01), workers)
    assert not lake.table("failures").exists()
    done = set(_measured(lake)) if lake.table("metrics_keypoints").exists() else set()
    assert done.isdisjoint(range(56, 64))
    assert run_stage(lake, toy_stage(8), workers).computed == 64 - len(done)
    assert set(_measured(lake)) == set(range(64))


def test_a_defect_stops_the_stage_instead_of_failing_every_row(lake, workers):
    lake.table("images").append(toy_images(np.arange(64)))
    with pytest.raises(StageError, match="every row of a batch failed with KeyError"):
        run_stage(lake, toy_stage(broken=True), workers)
    assert not lake.table("failures").exists()


_KILLED = """
import sys
import numpy as np
from etl import stage
from etl.lake import Lake
from etl.workers import Workers
from tests.toy import toy_stage

if __name__ == "__main__":
    stage.COMMIT_SECONDS = 0.05
    with Workers(count=int(sys.argv[2])) as workers:
        stage.run_stage(Lake(sys.argv[1]), toy_stage(4, seconds=0.02), workers)
"""


@pytest.mark.parametrize("wait", [0.3, 1.0])
def test_a_killed_run_leaves_a_lake_that_reads_and_goes_on(lake, workers, tmp_path, wait):
    lake.table("images").append(toy_images(np.arange(600)))
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}  # noqa: PTH109
    process = subprocess.Popen(
        [sys.executable, str(script), lake.url, "0"], env=environment, start_new_session=True
    )
    table = Lake(lake.url).table("metrics_keypoints")
    while not table.exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    survived = Lake(lake.url)
    before = _measured(survived)
    report = run_stage(survived, toy_stage(4), workers)
    assert report.computed == 600 - len(before)
    assert set(_measured(survived)) == set(range(600))


def test_two_runs_at_once_double_nothing(lake, workers):
    lake.table("images").append(toy_images(np.arange(50)))

    def interfere(progress):
        if progress.computed and not lake.table("metrics_keypoints").exists():
            with Workers(count=0) as others:
                run_stage(Lake(lake.url), toy_stage(), others)

    run_stage(lake, toy_stage(), workers, watch=interfere)
    assert set(_measured(lake)) == set(range(50))


def test_real_worker_processes_compute_the_same(lake):
    lake.table("images").append(toy_images(np.arange(100)))
    with Workers(count=2) as processes:
        report = run_stage(lake, toy_stage(16), processes)
    assert report.computed == 100
    assert set(_measured(lake)) == set(range(100))
