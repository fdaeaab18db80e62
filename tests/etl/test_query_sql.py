"""SQL sees the release and the tables behind it, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from etl.lake import Lake
from etl.release import create_release
from schemas.errors import ConfigError, LakeError
from schemas.tables import TABLES
from tests.lake_rows import LABELS, fill, random_rows, selected

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    lake = Lake.create(tmp_path_factory.mktemp("sql") / "lake")
    fill(lake, 200)
    return create_release(lake, "0.1.0", selected(lake), label_fingerprint=LABELS)


def test_sql_answers_what_pandas_answers(release):
    found = release.sql(
        "select source, count(*) n, max(oks) best from release group by source order by source"
    )
    by_hand = release.to_pandas(["source", "oks"]).groupby("source")["oks"].agg(["size", "max"])
    assert found["source"].tolist() == by_hand.index.tolist()
    assert found["n"].tolist() == by_hand["size"].tolist()
    assert found["best"].tolist() == by_hand["max"].tolist()


def test_a_condition_means_the_same_in_sql(release):
    value = float(release.array("oks")[7])
    for text in (f"oks >= {value}", "oks >= 0.7 and persons < 4", "source in ('amass', 'demo')"):
        found = release.sql(f"select image_id from release where {text}")["image_id"]
        assert sorted(found) == sorted(release.to_pandas(["image_id"], text)["image_id"])


def test_parameters_are_values_and_never_sql(release):
    want = len(release.to_arrow(["image_id"], "source == 'amass' and oks >= 0.75"))
    sql = "select count(*) n from release where source = ? and oks >= ?"
    assert release.sql(sql, ["amass", 0.75])["n"].tolist() == [want]
    named = "select count(*) n from release where source = $source"
    assert release.sql(named, {"source": "' or true --"})["n"].tolist() == [0]


def test_label_arrays_come_as_they_are_elsewhere(release):
    found = release.sql("select joints_3d, image_id from release", arrays="numpy")
    ours = release.to_pandas(["joints_3d", "image_id"], arrays="numpy")
    found, ours = (f.set_index("image_id")["joints_3d"].sort_index() for f in (found, ours))
    np.testing.assert_array_equal(np.stack(found), np.stack(ours))
    part = release.sql("select joints_3d[1:3] as joints_3d from release limit 2")
    assert [len(row) for row in part["joints_3d"]] == [3, 3]


def test_other_tables_are_as_they_were_when_the_release_was_made(release):
    sql = "select count(*) n from images"
    before = release.sql(sql)["n"].tolist()
    assert before == [release.lake.table("images").count()]
    release.lake.table("images").append(random_rows("images", 5, seed=99))
    assert release.sql(sql)["n"].tolist() == before
    steps = "select count(*) n, count(steps) s from release join images using (image_id)"
    assert release.sql(steps)["n"].tolist() == [len(release)]


@pytest.mark.parametrize(
    "text",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "select * from parquet_scan('{table}')",
        "copy (select 1) to '{folder}/out.csv'",
        "copy release to '{folder}/out.parquet'",
        "attach '{folder}/out.db'",
        "export database '{folder}/out'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "create table release as select 1",
        "select 1; select 2",
        "select * from outside",
    ],
)
def test_sql_reads_nothing_but_the_lakes_tables(release, tmp_path, text):
    outside = release.to_pandas(["image_id"])  # a variable that DuckDB would find by its name
    assert len(outside)
    file = tmp_path / "file.csv"
    file.write_text("a,b\n1,2\n")
    table = release.lake.store.full(release.scan.paths[0])
    with pytest.raises(ConfigError, match="sql: "):
        release.sql(text.format(file=file, folder=tmp_path, table=table))
    assert list(tmp_path.iterdir()) == [file]


def test_wrong_sql_is_answered_with_what_is_wrong(release, monkeypatch):
    with pytest.raises(ConfigError, match=r"\"okss\" not found(.|\n)*\"oks\""):
        release.sql("select okss from release")
    with pytest.raises(ConfigError, match="syntax error"):
        release.sql("select from where")
    with pytest.raises(ConfigError, match="this is empty"):
        release.sql("")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'posedreamer\[sql\]'"):
        release.sql("select 1")


def test_a_damaged_file_is_no_fault_of_the_query(tmp_path):
    lake = Lake.create(tmp_path / "lake")
    fill(lake, 20)
    release = create_release(lake, "0.1.0", selected(lake), label_fingerprint=LABELS)
    lake.store.fs.rm(lake.store.full(release.scan.paths[0]))
    with pytest.raises(LakeError, match=r"part-.*\.parquet"):
        release.sql("select sum(oks) from release")


def test_duckdb_is_loaded_when_it_is_used():
    code = "import sys, etl.query, etl.lake, etl.sql; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_table_is_called_as_the_release_is():
    assert "release" not in TABLES
