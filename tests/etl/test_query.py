"""A slice is the same rows for this package, for deltalake, Polars, DuckDB and pandas."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable

import etl.release
from etl.join import join
from etl.lake import Lake
from etl.release import create_release
from schemas.errors import ConfigError, InputError, LakeError
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import DATASET
from tests.lake_rows import LABELS, fill, selected

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    lake = Lake.create(tmp_path_factory.mktemp("query") / "lake")
    oks = np.round(np.random.default_rng(0).uniform(0.4, 1, 600), 1).astype(np.float32)
    fill(lake, 600, oks=oks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etl.release, "join", lambda parts: join(parts, 100))
        create_release(lake, "0.1.0", selected(lake, "lenient"), label_fingerprint=LABELS)
    return lake.release("0.1.0")


WHERE = "oks >= 0.7 and persons == 1 and source in ('amass', 'demo')"
SQL = "oks >= 0.7::float and persons = 1 and source in ('amass', 'demo')"


def ids(release) -> list[int]:
    return sorted(release.to_pandas(["image_id"], WHERE)["image_id"].tolist())


def test_a_condition_finds_what_a_loop_finds(release):
    rows = release.to_pandas().to_dict("records")
    by_hand = [
        r["image_id"]
        for r in rows
        if r["oks"] >= np.float32(0.7) and r["persons"] == 1 and r["source"] in ("amass", "demo")
    ]
    assert ids(release) == sorted(by_hand)
    assert len(by_hand) > 5
    assert any(r["oks"] == np.float32(0.7) for r in rows if r["image_id"] in by_hand)


def test_plain_deltalake_reads_the_same_rows(release):
    plain = DeltaTable(release.lake.table("dataset").uri, version=release.dataset_version).to_pandas()
    ours = release.to_pandas(arrays="numpy")
    assert list(plain.columns) == DATASET.names
    plain, ours = (f.sort_values("image_id").reset_index(drop=True) for f in (plain, ours))
    for name in release.columns:
        if isinstance(ours[name].dropna().iloc[0], np.ndarray):
            assert plain[name].isna().equals(ours[name].isna())
            for a, b in zip(plain[name].dropna(), ours[name].dropna(), strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            pd.testing.assert_series_equal(plain[name], ours[name])


def test_other_engines_find_the_same_rows(release):
    uri = release.lake.table("dataset").uri
    version = release.dataset_version
    frame = pl.scan_delta(uri, version=version)
    polars = frame.filter(
        (pl.col("oks") >= 0.7) & (pl.col("persons") == 1) & pl.col("source").is_in(["amass", "demo"])
    ).select("image_id", "joints_3d")
    found = polars.collect().sort("image_id")
    assert found["image_id"].to_list() == ids(release)
    files = DeltaTable(uri, version=version).file_uris()
    duck = duckdb.sql(
        f"select image_id, joints_3d from read_parquet({files!r}) where {SQL} order by image_id"
    )
    by_duckdb = duck.fetchall()
    assert [i for i, _ in by_duckdb] == ids(release)
    ours = release.to_pandas(["image_id", "joints_3d"], WHERE, arrays="numpy").sort_values("image_id")
    for row, a, b in zip(by_duckdb, ours["joints_3d"], found["joints_3d"].to_list(), strict=True):
        np.testing.assert_array_equal(np.array(row[1], np.float32), a)
        np.testing.assert_array_equal(np.array(b, np.float32), a)
    tuples = [("oks", ">=", float(np.float32(0.7))), ("persons", "=", 1), ("source", "in", ["amass", "demo"])]
    plain = DeltaTable(uri, version=version).to_pandas(columns=["image_id"], filters=tuples)
    assert sorted(plain["image_id"]) == ids(release)


def test_an_arrow_expression_and_a_text_mean_the_same(release):
    expression = (pads.field("oks") > np.float32(0.8)) & pads.field("keypoints").is_valid()
    assert release.to_arrow(["image_id"], expression).num_rows == sum(
        row["oks"] > np.float32(0.8) and row["keypoints"] is not None
        for row in release.to_arrow(["oks", "keypoints"]).to_pylist()
    )


def test_columns_come_in_the_order_asked_for(release):
    frame = release.to_pandas(["oks", "joints_2d", "image_id"], limit=3)
    assert list(frame.columns) == ["oks", "joints_2d", "image_id"]
    assert len(frame) == 3
    assert list(release.to_pandas(["joints_2d", "oks"], arrays="numpy").columns) == ["joints_2d", "oks"]


@pytest.mark.parametrize("limit", [0, 1, 150, 10_000])
def test_a_limit_takes_the_first_rows(release, limit):
    head = release.to_arrow(["image_id"], limit=limit)
    assert head.to_pylist() == release.to_arrow(["image_id"]).to_pylist()[:limit]


def test_arrays_have_the_shape_of_what_they_hold(release):
    n = len(release)
    for name, shape in {
        "joints_3d": (n, 127, 3),
        "joints_2d": (n, 127, 2),
        "keypoints_2d": (n, 17, 2),
        "keypoints_visible": (n, 17),
        "markers_3d": (n, 80, 3),
        "body_pose": (n, 63),
        "bbox": (n, 4),
        "oks": (n,),
        "caption": (n,),
    }.items():
        assert release.array(name).shape == shape
    rows = release.to_arrow(["joints_3d"]).to_pylist()
    np.testing.assert_array_equal(
        release.array("joints_3d")[5], np.array(rows[5]["joints_3d"], np.float32).reshape(127, 3)
    )
    assert release.array("joints_3d").dtype == np.float32
    assert release.array("keypoints_visible").dtype == np.int8


def test_a_missing_array_is_nan_and_shifts_no_row(release):
    rows = release.to_arrow(["keypoints"]).to_pylist()
    found = release.array("keypoints")
    assert found.shape == (len(release), 17, 3)
    missing = [row["keypoints"] is None for row in rows]
    assert 0 < sum(missing) < len(rows)
    np.testing.assert_array_equal(np.isnan(found).all((1, 2)), missing)
    last = max(i for i, gone in enumerate(missing) if not gone)
    np.testing.assert_array_equal(found[last].ravel(), np.array(rows[last]["keypoints"], np.float32))
    cells = release.to_pandas(["keypoints"], arrays="numpy")["keypoints"]
    assert [cell is None for cell in cells] == missing
    assert release.to_pandas(["keypoints"])["keypoints"].isna().tolist() == missing


def test_parameters_come_ready_for_smplx(release):
    params = release.smplx(where=WHERE)
    assert {k: v.shape[1] for k, v in params.items()} == dict(SMPLX_PARAMS)
    assert {len(v) for v in params.values()} == {len(ids(release))}
    assert all(v.dtype == np.float32 and v.flags.writeable for v in params.values())


def test_nothing_found_is_empty_and_typed(release):
    assert release.array("joints_3d", "persons == 99").shape == (0, 127, 3)
    assert release.to_pandas(where="persons == 99", arrays="numpy").columns.tolist() == release.columns
    assert release.smplx(where="persons == 99")["betas"].shape == (0, 10)


def test_wrong_questions_are_answered_with_what_is_wrong(release):
    with pytest.raises(InputError, match="no column 'joint_3d'; did you mean joints_3d"):
        release.to_pandas(["joint_3d"])
    with pytest.raises(InputError, match="columns is the text 'oks'"):
        release.to_pandas("oks")
    with pytest.raises(InputError, match="list or numpy"):
        release.to_pandas(arrays="torch")
    with pytest.raises(InputError, match="limit is -1"):
        release.to_pandas(limit=-1)
    with pytest.raises(ConfigError, match="did you mean oks"):
        release.to_pandas(where="okss > 1")
    with pytest.raises(LakeError, match=r"has no release '9\.9\.9'; there are 0\.1\.0"):
        release.lake.release("9.9.9")


def test_releases_are_listed_and_none_is_an_empty_list(release, tmp_path):
    frame = release.lake.releases()
    assert frame["release"].tolist() == ["0.1.0"]
    assert frame["rows"].tolist() == [len(release)]
    empty = Lake.create(tmp_path / "empty")
    assert len(empty.releases()) == 0
    with pytest.raises(LakeError, match="none was published yet"):
        empty.release("0.1.0")


def run(code: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return json.loads(done.stdout)


_HEAVY = (
    "sorted({'torch', 'diffusers', 'dask', 'distributed', 'matplotlib', 'scipy', 'numba'} & set(sys.modules))"
)


def test_the_public_module_loads_nothing_heavy(release):
    code = f"import json, sys, posedreamer; print(json.dumps({_HEAVY}))"
    assert run(code) == []
    code = (
        "import json, sys; from posedreamer import Lake; r = Lake(sys.argv[1]).release('0.1.0');"
        f"print(json.dumps([len(r.to_pandas(['oks'], 'oks >= 0.7')), {_HEAVY}]))"
    )
    assert run(code, release.lake.url) == [len(release.to_pandas(["oks"], "oks >= 0.7")), []]


def test_the_public_module_says_what_it_has():
    import posedreamer

    assert posedreamer.Lake is Lake
    assert posedreamer.__version__
    assert set(dir(posedreamer)) >= {"Lake", "Release", "PosedreamerError"}
    with pytest.raises(AttributeError, match="no attribute 'lake'"):
        _ = posedreamer.lake


def test_a_process_that_stops_in_the_middle_of_reading_ends_well(release):
    # With Arrow reading through Python file objects, one in five of these was killed by a signal.
    code = (
        "import sys; from posedreamer import Lake\n"
        "r = Lake(sys.argv[1]).release('0.1.0'); table = r.lake.table('dataset')\n"
        "delta, data = table.delta(), table.dataset(); rows = r.to_arrow(limit=3)\n"
        "batches = data.to_batches(batch_size=10); next(batches)"
    )
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", code, release.lake.url], cwd=ROOT, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


def test_all_columns_are_documented():
    for field in DATASET:
        assert field.metadata[b"doc"]
