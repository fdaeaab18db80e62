"""A commit is all or nothing, whoever else commits and however a process ends."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from etl.lake import Lake
from etl.parquet import open_parquet
from etl.table import row_keys
from schemas.errors import ConfigError, ConflictError, LakeError, SchemaError
from schemas.tables import TABLES
from tests.lake_rows import random_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lake(tmp_path):
    return Lake.create(tmp_path / "lake")


def ids(table, key: str = "pose_id") -> list[int]:
    return sorted(table.read([key]).column(key).to_pylist())


@pytest.mark.parametrize("name", TABLES)
def test_every_table_keeps_what_it_is_given(lake, name):
    table = lake.table(name)
    rows = random_rows(name, 40, 1)
    assert not table.exists()
    assert (table.version(), table.count(), table.files(), table.history()) == (None, 0, [], [])
    assert table.read().equals(rows.schema.empty_table())
    assert table.append(rows, {"why": "test"}).rows == 40
    assert table.read().equals(rows)
    assert table.count() == 40
    assert table.history()[0]["why"] == "test"
    again = table.append(rows)
    assert (again.version, again.rows, again.repeated) == (None, 0, 40)
    assert lake.table(name).read().equals(rows)


@pytest.mark.parametrize("name", TABLES)
def test_other_readers_see_the_same_rows(lake, name):
    table = lake.table(name)
    rows = random_rows(name, 30, 1)
    table.append(rows.slice(0, 11))
    table.append(rows.slice(11))
    key = TABLES[name].key[0]
    expected = sorted(rows.column(key).to_pylist(), key=str)
    assert sorted(DeltaTable(table.uri).to_pandas()[key], key=str) == expected
    assert sorted(pl.read_delta(table.uri)[key], key=str) == expected
    files = DeltaTable(table.uri).file_uris()
    assert len(duckdb.sql(f"select {key} from read_parquet({files!r})").fetchall()) == 30
    assert len(table.to_pandas()) == 30
    frame = table.dask()
    assert frame.npartitions == 2
    assert sorted(frame[key].compute(scheduler="sync"), key=str) == expected


@pytest.mark.parametrize("name", ["metrics_keypoints", "selections", "dataset", "samples"])
def test_a_condition_on_any_column_finds_the_same_rows_in_every_engine(lake, name):
    """Statistics that are wrong, missing or misread hide rows without a word."""
    table = lake.table(name)
    parts = [random_rows(name, 20, seed) for seed in (1, 2)]
    empty = {f.name: None for f in parts[0].schema if f.nullable}
    parts.append(random_rows(name, 20, 3, **empty))
    for part in parts:
        table.append(part)
    rows = pa.concat_tables(parts)
    scan = pl.scan_delta(table.uri)
    for field in rows.schema:
        if pa.types.is_nested(field.type):
            continue
        column = rows.column(field.name)
        value = column[7] if column[7].is_valid else column.drop_null()[0]
        wanted = pc.fill_null(pc.equal(column, value), False)
        tests = {"==": (pc.field(field.name) == value, pl.col(field.name) == value.as_py(), pc.sum(wanted))}
        nulls = pc.sum(column.is_null())
        tests["null"] = (pc.field(field.name).is_null(), pl.col(field.name).is_null(), nulls)
        if not pa.types.is_boolean(field.type):
            above = pc.sum(pc.fill_null(pc.greater_equal(column, value), False))
            tests[">="] = (pc.field(field.name) >= value, pl.col(field.name) >= value.as_py(), above)
        for what, (arrow, polars, expected) in tests.items():
            where = f"{field.name} {what}"
            assert table.read([field.name], arrow).num_rows == expected.as_py(), where
            assert scan.filter(polars).select(pl.len()).collect().item() == expected.as_py(), where
            plain = DeltaTable(table.uri).to_pyarrow_dataset().to_table(filter=arrow)
            assert plain.num_rows == expected.as_py(), where


def test_reading_pushes_down_and_takes_text_conditions(lake):
    table = lake.table("metrics_keypoints")
    rows = random_rows("metrics_keypoints", 100, 1)
    table.append(rows)
    found = table.read(["oks", "persons"], "oks >= 0.5")
    assert found.column_names == ["oks", "persons"]
    assert (
        found.num_rows == pc.sum(pc.greater_equal(rows.column("oks"), pa.scalar(0.5, pa.float32()))).as_py()
    )
    with pytest.raises(LakeError, match=r"has no columns \['ok'\]"):
        table.read(["ok"])
    with pytest.raises(ConfigError, match="did you mean oks"):
        table.read(where="okz > 1")


def test_files_are_fixed_size_lists_again_when_read(lake):
    table = lake.table("labels")
    rows = random_rows("labels", 10, 1)
    table.append(rows)
    assert table.read(["joints_3d"]).schema.field("joints_3d").type == pa.list_(pa.float32(), 381)
    frame = table.dask(["joints_3d"]).compute(scheduler="sync")
    assert frame["joints_3d"].dtype == pd.ArrowDtype(pa.list_(pa.float32(), 381))


def test_a_version_stays_readable(lake):
    table = lake.table("poses")
    parts = [random_rows("poses", 5, i) for i in range(25)]  # passes a checkpoint
    versions = [table.append(part).version for part in parts]
    assert versions == list(range(1, 26))
    for i in (0, 10, 24):
        assert table.read(version=versions[i]).num_rows == 5 * (i + 1)
    assert len(table.history()) == 26
    with pytest.raises(LakeError, match="table poses has no version 99"):
        table.read(version=99)
    with pytest.raises(LakeError, match="no table captions yet"):
        lake.table("captions").delta()


def test_history_numbers_commits_as_the_log_does_while_others_write(lake, monkeypatch):
    table, rival = lake.table("poses"), Lake(lake.url).table("poses")
    for i in range(3):
        table.append(random_rows("poses", 2, i), {"n": str(i + 1)})
    opened = table.version

    def overtaken() -> int | None:
        version = opened()
        rival.append(random_rows("poses", 2, 50), {"n": "4"})
        return version

    monkeypatch.setattr(table, "version", overtaken)
    assert [(c["version"], c.get("n")) for c in table.history(2)] == [(3, "3"), (2, "2")]
    monkeypatch.undo()
    found = [(c["version"], c.get("n")) for c in table.history()]
    assert found == [(4, "4"), (3, "3"), (2, "2"), (1, "1"), (0, None)]
    plain = table.delta().history()
    assert [(c["version"], c.get("n"), c["timestamp"]) for c in plain] == [
        (c["version"], c.get("n"), c["timestamp"]) for c in table.history()
    ]


def test_repeated_rows_are_left_out_wherever_they_are(lake):
    table = lake.table("poses")
    rows = random_rows("poses", 30, 1)
    table.append(rows.slice(0, 10))
    twice = pa.concat_tables([rows.slice(5, 10), rows.slice(5, 3)])
    done = table.commit([table.write(twice), table.write(rows.slice(12, 18))])
    assert (done.rows, done.repeated) == (20, 5 + 3 + 3)
    assert ids(table) == sorted(rows.column("pose_id").to_pylist())
    other = Lake(lake.url).table("poses")
    assert other.append(rows).repeated == 30


def test_keys_of_several_columns_tell_null_from_zero(lake):
    table = lake.table("rejected")
    rows = random_rows("rejected", 3, 1, file_id=[1, 1, 1], fingerprint="f", row=[None, 0, 1])
    assert table.append(rows).rows == 3
    assert table.append(rows).repeated == 3


def test_one_id_for_two_contents_is_a_collision_and_refused(lake):
    table = lake.table("poses")
    rows = random_rows("poses", 5, 1)
    table.append(rows)
    other = rows.set_column(1, rows.schema.field("digest"), pa.array([0] * 5))
    for batch in ([other], [random_rows("poses", 2, 9), other]):
        with pytest.raises(LakeError, match="stands for two different rows, a collision of identities"):
            table.commit([table.write(part) for part in batch])
    with pytest.raises(LakeError, match="collision"):
        lake.table("captions").append(
            random_rows("captions", 2, 1, caption_id=[7, 7], fingerprint="f", digest=[1, 2])
        )
    elsewhere = other.set_column(
        rows.schema.get_field_index("fingerprint"), rows.schema.field("fingerprint"), pa.array(["other"] * 5)
    )
    with pytest.raises(LakeError, match="collision"):
        table.append(elsewhere)
    assert ids(table) == sorted(rows.column("pose_id").to_pylist())


@pytest.mark.parametrize("damage", ["cut", "gone", "noise", "other rows", "other table", "lied about"])
def test_a_damaged_file_commits_nothing(lake, damage):
    table = lake.table("poses")
    table.append(random_rows("poses", 5, 1))
    good, bad = table.write(random_rows("poses", 5, 2)), table.write(random_rows("poses", 5, 3))
    path = Path(table.store.full(f"poses/{bad.name}"))
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "gone":
        path.unlink()
    elif damage == "noise":
        path.write_bytes(data[:-500] + os.urandom(500))
    elif damage == "other rows":
        path.write_bytes(Path(table.store.full(f"poses/{good.name}")).read_bytes())
        bad = dataclasses.replace(bad, size=path.stat().st_size, rows=6)
    elif damage == "other table":
        other = lake.table("failures").write(random_rows("failures", 5, 1))
        path.write_bytes(Path(table.store.full(f"failures/{other.name}")).read_bytes())
        bad = dataclasses.replace(bad, size=other.size)
    elif damage == "lied about":
        bad = dataclasses.replace(bad, size=bad.size + 1)
    for commit in (table.commit, table.replace):
        with pytest.raises(LakeError, match="table poses: nothing was committed: "):
            commit([good, bad])
    assert table.version() == 1
    assert table.count() == 5


def test_a_file_of_another_table_is_refused(lake):
    file = lake.table("failures").write(random_rows("failures", 5, 1))
    with pytest.raises(LakeError, match="nothing was committed"):
        lake.table("rejected").commit([dataclasses.replace(file, table="rejected")])
    with pytest.raises(LakeError, match="nothing was committed"):
        lake.table("rejected").commit([file])
    assert lake.table("rejected").count() == 0


@pytest.mark.parametrize("name", ["../escape.parquet", "/etc/passwd", "a/../../lake.json"])
def test_a_file_outside_the_table_is_refused(lake, name):
    table = lake.table("failures")
    file = dataclasses.replace(table.write(random_rows("failures", 5, 1)), name=name)
    with pytest.raises(LakeError):
        table.commit([file])
    assert table.count() == 0


def test_invalid_rows_are_refused_before_anything_is_written(lake):
    with pytest.raises(SchemaError, match="column persons: -1 is beyond 0"):
        lake.table("metrics_keypoints").append(random_rows("metrics_keypoints", 2, 1, persons=-1))
    assert lake.tables() == {}


def test_replacing_holds_the_new_rows_alone_and_old_versions_theirs(lake):
    table = lake.table("poses")
    old, new = random_rows("poses", 9, 1), random_rows("poses", 6, 2)
    before = table.append(old).version
    after = table.replace([table.write(new.slice(3), 1), table.write(new.slice(0, 3), 0)])
    assert (after.version, after.rows) == (before + 1, 6)
    assert table.read().equals(new)
    assert table.read(version=before).equals(old)
    assert sorted(DeltaTable(table.uri).to_pandas()["pose_id"]) == sorted(new.column("pose_id").to_pylist())
    again = table.replace([table.write(old)])
    assert table.read(version=again.version).equals(old)
    assert lake.table("poses").append(new).rows == 6


def test_rows_that_were_replaced_may_come_again(lake):
    table = lake.table("poses")
    rows = random_rows("poses", 5, 1)
    table.append(rows)
    table.append(random_rows("poses", 5, 2))
    table.replace([table.write(random_rows("poses", 5, 3))])
    assert table.append(rows).rows == 5
    assert table.count() == 10


def test_keys_of_a_file_are_read_once(lake, monkeypatch):
    table = lake.table("poses")
    opened: list[str] = []

    def watched(store, path):
        opened.append(path)
        return open_parquet(store, path)

    monkeypatch.setattr("etl.table.open_parquet", watched)
    monkeypatch.setattr("etl.parquet.open_parquet", watched)
    for seed in range(4):
        table.append(random_rows("poses", 5, seed))
    assert sorted(opened) == table.files()


def test_replacing_refuses_rows_that_are_there_twice_and_nothing_at_all(lake):
    table = lake.table("poses")
    rows = random_rows("poses", 5, 1)
    table.append(rows)
    with pytest.raises(LakeError, match="5 rows are there twice"):
        table.replace([table.write(rows), table.write(rows)])
    with pytest.raises(LakeError, match="no files"):
        table.replace([])
    assert table.version() == 1


def test_replacing_loses_against_a_writer_in_between_and_tries_again(lake):
    table, rival = lake.table("poses"), Lake(lake.url).table("poses")
    table.append(random_rows("poses", 5, 1))
    opened = table._open_or_create

    def overtaken():
        delta = opened()
        table._open_or_create = opened
        rival.append(random_rows("poses", 5, 2))
        return delta

    table._open_or_create = overtaken
    new = random_rows("poses", 5, 3)
    assert table.replace([table.write(new)]).version == 3
    assert table.read().equals(new)


def test_a_commit_that_always_meets_another_writer_gives_up_and_says_so(lake):
    table, rival = lake.table("poses"), Lake(lake.url).table("poses")
    opened = table._open_or_create
    numbers = iter(range(100, 1000))

    def overtaken():
        delta = opened()
        rival.append(random_rows("poses", 1, next(numbers)))
        return delta

    table._open_or_create = overtaken
    with pytest.raises(ConflictError, match="met another writer"):
        table.append(random_rows("poses", 5, 1))


_COMMIT = """
import sys
from etl.lake import Lake
from tests.lake_rows import random_rows
url, first, own, shared = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
table = Lake(url).table("poses")
print("ready", flush=True)
sys.stdin.readline()
versions = []
for i in range(own):
    versions.append(table.append(random_rows("poses", 20, first + i)).version)
    if i < shared:
        table.append(random_rows("poses", 20, 500 + i))
print(",".join(map(str, versions)), flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_processes_that_commit_at_once_lose_no_row_and_double_none(lake):
    writers = [start(_COMMIT, lake.url, first, 8, 4) for first in (1000, 2000, 3000)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outputs = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    seeds = [*range(1000, 1008), *range(2000, 2008), *range(3000, 3008), *range(500, 504)]
    expected = [i for s in seeds for i in random_rows("poses", 20, s).column("pose_id").to_pylist()]
    assert ids(lake.table("poses")) == sorted(expected)
    versions = [int(v) for out in outputs for v in out.split(",")]
    assert len(set(versions)) == len(versions) == 24
    first = random_rows("poses", 20, 1000).column("pose_id")
    made = int(outputs[0].split(",")[0])
    table = lake.table("poses")
    assert set(first.to_pylist()) <= set(table.read(["pose_id"], version=made).column(0).to_pylist())
    assert not set(first.to_pylist()) & set(table.read(["pose_id"], version=made - 1).column(0).to_pylist())


_ENDLESS = """
import sys
from etl.lake import Lake
from tests.lake_rows import random_rows
table = Lake(sys.argv[1]).table("poses")
for i in range(10_000):
    version = table.append(random_rows("poses", 200, i)).version
    print(i, version, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.029, 0.041])
def test_a_killed_writer_leaves_a_lake_that_reads_and_goes_on(lake, delay):
    writer = start(_ENDLESS, lake.url)
    for _ in range(3):
        assert writer.stdout.readline()
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    reported = [line for line in writer.communicate()[0].splitlines() if line]
    table = lake.table("poses")
    done = 3 + len(reported)
    found = table.read(["pose_id"]).column(0).to_pylist()
    assert len(found) in (200 * done, 200 * (done + 1))
    assert len(set(found)) == len(found)
    for i in range(done + 2):
        table.append(random_rows("poses", 200, i))
    everything = [random_rows("poses", 200, i).column("pose_id") for i in range(done + 2)]
    assert ids(table) == sorted(v for column in everything for v in column.to_pylist())


def test_keys_are_ids_or_hashes_that_depend_on_all_columns():
    one = pa.table({"a": pa.array([1, -1, 2], pa.int64())})
    np.testing.assert_array_equal(row_keys(one).view(np.int64), [1, -1, 2])
    two = pa.table({"a": pa.array([1, 1, 2, None], pa.int64()), "b": ["x", "y", "x", "x"]})
    assert len(set(row_keys(two).tolist())) == 4
    np.testing.assert_array_equal(row_keys(two.slice(2)), row_keys(two)[2:])


def _made_before(lake: Lake, name: str, absent: list[str]) -> None:
    """The table as a version that did not know some columns left it."""
    rows = random_rows(name, 5, 1).drop_columns(absent)
    write_deltalake(lake.table(name).uri, rows)


def test_a_table_made_before_its_newest_columns_gets_them(lake):
    """Delta takes files with more columns than the table has, and hides them from every other reader."""
    absent = ["batch_size", "batch_index", "device", "dtype", "prompt_tokens", "prompt_truncated"]
    _made_before(lake, "images", absent)
    table = lake.table("images")
    assert table.append(random_rows("images", 7, 2)).rows == 7
    there = pl.read_delta(table.uri)
    assert there.columns == table.spec.schema.names
    assert there["prompt_tokens"].null_count() < 12
    assert DeltaTable(table.uri).to_pandas()["device"].isna().sum() >= 5
    assert table.read().num_rows == 12
    version = table.version()
    table.append(random_rows("images", 7, 3))
    assert table.version() == version + 1, "the columns are added once"


def test_a_table_without_a_column_that_cannot_be_null_is_refused(lake):
    _made_before(lake, "images", ["seed"])
    table = lake.table("images")
    with pytest.raises(LakeError, match=r"without the columns seed, .* new lake"):
        table.append(random_rows("images", 7, 2))
    assert table.version() == 0
