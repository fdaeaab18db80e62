"""Slices of a release against DuckDB, Polars, pandas and one HDF5 file an image, side by side.

python -m tests.bench.bench_query [--rows 500000 5000000] [--repeats 5] [--folder FOLDER]

Rows have the real schema and lie as a release writes them: by source, the highest OKS first, in files of
20,000 rows. Contestants take turns, so that what else the machine does meets all of them; the table shows
medians of wall clock and processor time and the ratio of ours to each (below 1: ours is faster). On a busy
machine trust the ratio of processor times.

Label arrays are random multiples of 1/4, so that 5 million rows fit a disk of 20 GB; real ones compress less.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from etl.join import BUCKET_ROWS
from etl.lake import Lake
from etl.query import Release
from schemas.tables import DATASET
from tests.lake_rows import random_rows
from tests.released import publish_rows

_PLAIN = ["image_id", "sample_id", "pose_id", "source", "sequence", "frame"]
NARROW = [*_PLAIN, "image_path", "caption", "oks", "persons"]
WITH_LABELS = [*_PLAIN, "body_pose", "betas", "joints_2d", "bbox"]
SLICES = {
    "best of a source": (
        "source == 'bedlam' and oks >= 0.92",
        "source = 'bedlam' and oks >= 0.92::float",
        (pl.col("source") == "bedlam") & (pl.col("oks") >= np.float32(0.92)),
    ),
    "all over the files": (
        "0.4 <= coverage < 0.45",
        "coverage >= 0.4::float and coverage < 0.45::float",
        (pl.col("coverage") >= np.float32(0.4)) & (pl.col("coverage") < np.float32(0.45)),
    ),
}
FILES = 5000
Ask = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[500_000, 5_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep lakes here and use those that are there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        for rows in given.rows:
            _bench(_lake(folder / str(rows), rows), given.repeats)
        _bench_files(_lake(folder / str(FILES), FILES), Path(scratch) / "hdf5", given.repeats)


def _lake(place: Path, rows: int) -> Lake:
    if not Lake.is_at(place):
        publish_rows(Lake.create(place), _rows(rows))
    return Lake(place)


def _rows(total: int) -> Iterator[pa.Table]:
    """About 5 % of the rows are of the source `bedlam` with an OKS of 0.92 or more."""
    rng = np.random.default_rng(0)
    block = _coarse(random_rows("dataset", min(BUCKET_ROWS, total)))
    source = rng.choice(["amass", "bedlam", "laion"], total, p=[0.3, 0.3, 0.4])
    oks = rng.uniform(0.5, 1, total).astype(np.float32)
    order = np.lexsort((-oks, source))
    for start in range(0, total, BUCKET_ROWS):
        place = order[start : start + BUCKET_ROWS]
        n = len(place)
        rows = block.slice(0, n)
        given = {
            "image_id": rng.integers(-(2**62), 2**62, n),
            "source": source[place],
            "oks": oks[place],
            "coverage": rng.uniform(0, 1, n),
            "persons": rng.integers(1, 5, n),
            "frame": rng.integers(0, 10**6, n),
        }
        for name, values in given.items():
            at = DATASET.get_field_index(name)
            rows = rows.set_column(
                at, DATASET.field(at), pa.array(values).cast(DATASET.field(at).type, safe=False)
            )
        yield rows


def _coarse(rows: pa.Table) -> pa.Table:
    for at, field in enumerate(rows.schema):
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_float32(field.type.value_type):
            cells = rows.column(at).combine_chunks()
            values = np.round(cells.values.to_numpy(zero_copy_only=False) * 4) / 4
            mask = cells.is_null() if cells.null_count else None
            array = pa.FixedSizeListArray.from_arrays(pa.array(values), type=field.type, mask=mask)
            rows = rows.set_column(at, field, array)
    return rows


def _bench(lake: Lake, repeats: int) -> None:
    release = lake.release("1.0.0")
    many = len(release) > 1_000_000
    for title, (text, sql, expression) in SLICES.items():
        for columns in (NARROW, WITH_LABELS):
            if many and columns == WITH_LABELS and title != "best of a source":
                continue  # every contestant decodes all labels of all rows: minutes
            asks = _engines(lake, release, columns, text, sql, expression)
            if columns == NARROW:
                asks["pandas.read_parquet, a mask"] = lambda c=columns, t=text: _by_pandas(
                    lake, release, c, t
                )
            found = release.to_arrow(columns, text).num_rows
            what = "10 narrow columns" if columns == NARROW else "6 narrow columns and 4 label arrays"
            _show(f"{len(release):,} rows, {title}: {found / len(release):.1%}, {what}", asks, repeats)
    ids = release.array("image_id")[
        np.random.default_rng(1).choice(len(release), 100, replace=False)
    ].tolist()
    asks = _engines(
        lake,
        release,
        WITH_LABELS,
        pc.field("image_id").isin(ids),
        f"image_id in ({','.join(map(str, ids))})",
        pl.col("image_id").is_in(ids),
    )
    _show(
        f"{len(release):,} rows, 100 ids, 6 narrow columns and 4 label arrays", asks, 2 if many else repeats
    )


def _engines(
    lake: Lake, release: Release, columns: list[str], where: Any, sql: str, expression: pl.Expr
) -> dict[str, Ask]:
    """The same question for each; all know the lake's place and the version and nothing else, but `ours,
    again`, which has been asked before."""
    uri, version = lake.table("dataset").uri, release.dataset_version
    names = ", ".join(columns)
    connection = duckdb.connect()

    def by_duckdb() -> pa.Table:
        files = DeltaTable(uri, version=version).file_uris()
        return connection.sql(f"select {names} from read_parquet({files!r}) where {sql}").to_arrow_table()

    def by_polars() -> pa.Table:
        return pl.scan_delta(uri, version=version).filter(expression).select(columns).collect().to_arrow()

    return {
        "ours": lambda: Lake(lake.url).release("1.0.0").to_arrow(columns, where),
        "ours, again": lambda: release.to_arrow(columns, where),
        "DuckDB": by_duckdb,
        "Polars": by_polars,
    }


def _by_pandas(lake: Lake, release: Release, columns: list[str], text: str) -> pd.DataFrame:
    """As people do who do not push conditions down: these columns of all rows, then a mask."""
    files = DeltaTable(lake.table("dataset").uri, version=release.dataset_version).file_uris()
    rows = pd.read_parquet(files, columns=[*columns, "coverage"])
    return rows.query(text)


def _bench_files(lake: Lake, folder: Path, repeats: int) -> None:
    """One HDF5 file an image, as the reference code keeps its labels."""
    release, where = lake.release("1.0.0"), SLICES["best of a source"][0]
    folder.mkdir(parents=True)
    for i, row in enumerate(release.to_arrow().to_pylist()):
        with h5py.File(folder / f"{i}.h5", "w") as file:
            for name, value in row.items():
                file[name] = np.nan if value is None else value

    def by_files() -> list[dict[str, Any]]:
        found = []
        for path in folder.iterdir():
            with h5py.File(path) as file:
                if file["source"][()] == b"bedlam" and file["oks"][()] >= np.float32(0.92):
                    found.append({name: file[name][()] for name in WITH_LABELS})
        return found

    asks: dict[str, Ask] = {
        "ours": lambda: Lake(lake.url).release("1.0.0").to_arrow(WITH_LABELS, where),
        "one HDF5 file an image": by_files,
    }
    _show(
        f"{len(release):,} rows, best of a source, 6 narrow columns and 4 label arrays", asks, min(repeats, 3)
    )


def _show(title: str, asks: dict[str, Ask], repeats: int) -> None:
    walls: dict[str, list[float]] = {name: [] for name in asks}
    cpus: dict[str, list[float]] = {name: [] for name in asks}
    counts = {len(ask()) for ask in asks.values()}  # and the files are in the cache
    assert len(counts) == 1, f"the contestants found {counts} rows"
    for _ in range(repeats):
        for name, ask in asks.items():
            wall, cpu = time.perf_counter(), time.process_time()
            ask()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    wall, cpu = ({name: statistics.median(times) for name, times in all_.items()} for all_ in (walls, cpus))
    print(f"\n{title}\n{'':<28}{'wall ms':>10}{'cpu ms':>10}{'ours / it':>12}{'by cpu':>10}", flush=True)
    for name in asks:
        ratios = f"{wall['ours'] / wall[name]:>12.2f}{cpu['ours'] / cpu[name]:>10.2f}"
        print(f"{name:<28}{wall[name] * 1000:>10.0f}{cpu[name] * 1000:>10.0f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
