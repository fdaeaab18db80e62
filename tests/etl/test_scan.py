"""What is left out holds no wanted row."""

import numpy as np
import pyarrow.compute as pc
import pytest

from etl.lake import Lake
from etl.scan import RowGroup
from schemas.errors import LakeError
from schemas.tables import DATASET
from schemas.where import parse_where
from tests.lake_rows import random_rows
from tests.released import publish_rows

ROWS, FILES = 50, 4


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Four files of five row groups each, sorted by source and OKS, with measurements missing."""
    lake = Lake.create(tmp_path_factory.mktemp("scan") / "lake")
    total = ROWS * FILES
    oks = np.tile(np.linspace(1, 0.4, total // 2).astype(np.float32), 2).tolist()
    oks[90:100] = oks[190:] = [None] * 10
    sources = ["amass"] * (total // 2) + ["a source with a name that is longer than its bound" * 2] * (
        total // 2
    )
    rows = random_rows("dataset", total, oks=oks, source=sources, persons=np.arange(total) // 7)
    return publish_rows(lake, (rows.slice(i * ROWS, ROWS) for i in range(FILES)), group_rows=10)


@pytest.fixture(scope="module")
def all_rows(release):
    rows = release.scan.to_table(DATASET.names)
    assert rows.num_rows == ROWS * FILES
    return rows


CONDITIONS = [
    "oks >= 0.9",
    "oks < 0.5",
    "oks is None",
    "oks is not None and persons > 3",
    "not (oks >= 0.5)",
    "source == 'amass'",
    "source != 'amass' and oks > 0.95",
    "source > 'a source'",
    "source in ('amass', 'demo') and person_score < 0.1",
    "persons == 11",
    "persons == 11 or frame < 0",
    "persons == 1000",
    "3 <= persons < 5",
    "person_score is None",
    "image_id > 0",
]


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("columns", [["image_id", "oks"], ["joints_2d", "keypoints", "sequence"]])
@pytest.mark.parametrize("text", CONDITIONS)
def test_a_slice_is_what_a_filter_of_all_rows_leaves(release, all_rows, text, columns, limit):
    condition = parse_where(text, DATASET)
    wanted = all_rows.filter(condition).select(columns).slice(0, limit)
    assert release.scan.to_table(columns, condition, limit).equals(wanted)
    assert (
        sum(group.rows for group in release.scan.row_groups(condition)) == all_rows.filter(condition).num_rows
    )


def test_files_and_row_groups_without_wanted_rows_are_left_out(release):
    def where(text):
        return parse_where(text, DATASET)

    paths = release.scan.paths
    assert paths == release.lake.table("dataset").files(release.dataset_version)
    assert release.scan.files(where("source == 'amass' and oks > 0.75")) == paths[:2], "NULL is everywhere"
    assert release.scan.files(where("source == 'amass' and persons < 7")) == paths[:1]
    assert release.scan.files(where("source > 'amass'")) == []
    assert release.scan.files(where("oks is None")) == [paths[1], paths[3]]
    assert release.scan.files(where("persons == 1000")) == []
    assert release.scan.files() == paths
    assert release.scan.row_groups(where("persons == 11")) == [
        RowGroup(paths[1], 2, 3),
        RowGroup(paths[1], 3, 4),
    ]
    assert len(release.scan.row_groups()) == 20


def test_only_row_groups_with_wanted_rows_are_decoded_whole(release, monkeypatch):
    one = release.scan.to_table(["image_id"]).column(0)[77].as_py()
    decoded = []
    of = type(release.scan)._of
    monkeypatch.setattr(
        type(release.scan),
        "_of",
        lambda scan, parts: (
            decoded.append([g.num_rows for p in parts for g in p.row_groups]) or of(scan, parts)
        ),
    )
    found = release.scan.to_table(["joints_3d"], pc.field("image_id") == one)
    assert found.num_rows == 1
    assert decoded[-1] == [10]


def test_batches_are_the_same_rows(release):
    condition = parse_where("oks > 0.6", DATASET)
    parts = list(release.scan.batches(["oks", "bbox"], condition))
    assert all(part.num_rows for part in parts)
    assert len(parts) > 5
    whole = release.scan.to_table(["oks", "bbox"], condition)
    assert [row for part in parts for row in part.to_pylist()] == whole.to_pylist()


def test_a_damaged_file_and_a_missing_one_are_errors_that_say_so(tmp_path):
    lake = Lake.create(tmp_path / "lake")
    publish_rows(lake, [random_rows("dataset", 20)])
    (path,) = lake.release("1.0.0").scan.paths
    data = lake.store.read(path)
    for damaged in (b"x" * len(data), data[:4] + b"x" * (len(data) // 2) + data[4 + len(data) // 2 :], None):
        if damaged is None:
            lake.store.fs.rm(lake.store.full(path))
        else:
            lake.store.write(path, damaged)
        for ask in (
            lambda scan: scan.to_table(["joints_3d"]),
            lambda scan: scan.to_table(["joints_3d"], pc.field("oks") > 0),
            lambda scan: list(scan.batches(DATASET.names)),
        ):
            with pytest.raises(
                LakeError, match=r"version \d of the table dataset cannot be read.*release verify"
            ):
                ask(lake.release("1.0.0").scan)
