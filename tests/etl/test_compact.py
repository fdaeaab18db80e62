"""Compaction changes files and no row, whoever else commits."""

import json
import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import etl.compact
from etl.compact import MIN_FILES, bundles, compact
from etl.lake import Lake
from tests.lake_rows import random_rows

PRINTS = ("a" * 16, "b" * 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of twenty small files, of two computations in turn."""
    lake = Lake.create(tmp_path_factory.mktemp("compact") / "lake")
    table = lake.table("metrics_keypoints")
    for i in range(20):
        table.append(random_rows("metrics_keypoints", 6, i, fingerprint=PRINTS[i % 2]))
    return lake


@pytest.fixture
def table(made, tmp_path):
    return Lake(shutil.copytree(made.url, tmp_path / "lake")).table("metrics_keypoints")


def in_order(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("image_id", "ascending")]).combine_chunks()


def test_the_rows_are_the_same_for_every_reader(table):
    before, version = table.read(), table.version()
    (bundle,) = bundles(table)
    assert (len(bundle.paths), bundle.rows) == (20, 120)
    assert compact(table, bundle)
    assert len(table.files()) == 1
    assert in_order(table.read()).equals(in_order(before))
    assert table.count() == 120
    oks = sorted(before.column("oks").drop_null().to_pylist())
    assert sorted(pl.read_delta(table.uri)["oks"].drop_nulls().to_list()) == oks
    assert sorted(DeltaTable(table.uri).to_pandas()["oks"].dropna()) == oks
    assert in_order(table.read(version=version)).equals(in_order(before)), (
        "the version before reads as before"
    )
    assert bundles(table) == []


def test_it_is_one_commit_that_says_that_no_data_changed(table):
    version = table.version()
    compact(table, bundles(table)[0])
    assert table.version() == version + 1
    log = table.store.read(f"{table.name}/_delta_log/{version + 1:020d}.json")
    actions = [json.loads(line) for line in log.splitlines()]
    changes = [a.get("add") or a.get("remove") for a in actions if "add" in a or "remove" in a]
    assert len(changes) == 21
    assert {change["dataChange"] for change in changes} == {False}
    assert table.history(1)[0]["posedreamer.compacted"] == "20"


def test_rows_of_one_computation_come_to_lie_together(table):
    compact(table, bundles(table)[0])
    values = table.read(["fingerprint"]).column(0).to_pylist()
    assert values == [PRINTS[0]] * 60 + [PRINTS[1]] * 60


def test_files_are_bundled_up_to_the_target_and_large_ones_left_alone(table, monkeypatch):
    sizes = table.described()["size_bytes"]
    monkeypatch.setattr(etl.compact, "TARGET_BYTES", int(sizes.max() * MIN_FILES) + 1)
    found = bundles(table)
    assert len(found) == 2
    assert all(len(b.paths) >= MIN_FILES and b.bytes < sizes.max() * MIN_FILES + 1 for b in found)
    monkeypatch.setattr(etl.compact, "TARGET_BYTES", int(sizes.min()))
    assert bundles(table) == []
    monkeypatch.setattr(etl.compact, "TARGET_BYTES", 2**30)
    monkeypatch.setattr(etl.compact, "TARGET_ROWS", 60)
    assert [b.rows for b in bundles(table)] == [60, 60]


def test_few_files_are_left_alone(tmp_path):
    table = Lake.create(tmp_path / "lake").table("poses")
    assert bundles(table) == []
    for i in range(MIN_FILES - 1):
        table.append(random_rows("poses", 2, i))
    assert bundles(table) == []


def test_a_writer_that_had_opened_the_table_before_neither_loses_nor_doubles_rows(table):
    other = Lake(table.store.url).table(table.name)
    known = random_rows(table.name, 6, 3, fingerprint=PRINTS[1])
    assert other.append(known).repeated == 6, "it has read the keys of all files"
    compact(table, bundles(table)[0])
    assert other.append(known).repeated == 6
    new = random_rows(table.name, 6, 99, fingerprint=PRINTS[0])
    assert other.append(pa.concat_tables([known, new])).rows == 6
    assert len(np.unique(table.read(["image_id"]).column(0))) == table.count() == 126


def test_a_commit_in_between_is_kept(table, monkeypatch):
    rival = Lake(table.store.url).table(table.name)
    opened = table._open_or_create

    def overtaken():
        delta = opened()
        monkeypatch.setattr(table, "_open_or_create", opened)
        rival.append(random_rows(table.name, 6, 50, fingerprint=PRINTS[0]))
        return delta

    bundle = bundles(table)[0]
    monkeypatch.setattr(table, "_open_or_create", overtaken)
    assert compact(table, bundle)
    assert table.count() == 126
    assert len(table.files()) == 2


def test_of_two_that_compact_at_once_one_changes_nothing(table):
    bundle = bundles(table)[0]
    late = Lake(table.store.url).table(table.name)
    assert compact(table, bundle)
    version = table.version()
    assert not compact(late, bundle)
    assert late.rearrange(bundle.paths, []) is None
    assert (table.version(), table.count()) == (version, 120)
