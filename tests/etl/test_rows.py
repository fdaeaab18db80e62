"""Rows are found and read where they are, in the order asked for."""

import numpy as np
import pyarrow.parquet as pq

from etl import parquet
from etl.rows import Located, Partition
from tests.toy import toy_images


def test_any_rows_in_any_order(lake, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 7)
    rng = np.random.default_rng(0)
    ids = rng.permutation(1000)[:120]
    table = lake.table("images")
    for part in np.array_split(ids, 4):
        table.append(toy_images(part))
    assert pq.ParquetFile(lake.store.full(table.files()[0])).num_row_groups > 1

    located = Located(table, "image_id")
    wanted = rng.permutation(ids)[:33]
    rows = located.slice(located.find(wanted), ("image_id", "seed")).read(lake.store)
    assert rows.column_names == ["image_id", "seed"]
    assert rows.column("image_id").to_pylist() == wanted.tolist()
    assert (located.find(np.array([5000])) == -1).all()
    assert (located.values("sample_id") == located.keys).all()


def test_fingerprints_choose_and_a_repeated_id_is_found_once(lake):
    table = lake.table("metrics_keypoints")
    from tests.toy import Toy
    from udfs.udf import Worker

    rows = Toy().setup(Worker("cpu", lake.store))(toy_images(np.arange(5)))
    for fingerprint in ("a", "b"):
        table.append(rows.append_column("fingerprint", [[fingerprint] * 5]))
    assert len(Located(table, "image_id").keys) == 5
    assert len(Located(table, "image_id", ("b",)).keys) == 5
    assert len(Located(table, "image_id", ("c",)).keys) == 0


def test_slices_of_several_tables_stand_side_by_side(lake):
    table = lake.table("images")
    table.append(toy_images(np.arange(10)))
    located = Located(table, "image_id")
    at = located.find(np.array([3, 1]))
    partition = Partition(
        (located.slice(at, ("image_id",)), located.slice(at, ("sample_id",))), None, np.ones(2, np.int32)
    )
    assert partition.read(lake.store).to_pydict() == {"image_id": [3, 1], "sample_id": [3, 1]}
