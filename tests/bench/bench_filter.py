"""Selecting by 5 rules and writing the selection, next to bare pyarrow and to measuring again.

python -m tests.bench.bench_filter [--rows 500000 10000000] [--folder FOLDER] [--repeats 3]

`bare` reads one wide table, as if all were joined already, masks it and writes ids and decisions; `joined`
reads the lake's own tables and joins them with pyarrow first. Both know of no plan, no fingerprint, no
funnel and no commit. Every figure is the best of the repeats, each in a process of its own; on a busy
machine the CPU seconds say more than the others. A folder that
is given keeps the lakes for the next time.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from etl.filter import select
from etl.lake import Lake
from schemas.coco import N_KEYPOINTS
from schemas.policy import Policy
from schemas.tables import TABLES

FILE_ROWS = 500_000
IMAGES, METRICS, SAMPLES = "0123456789abcdef", "2" * 16, "3" * 16
COLUMNS = ["persons", "person_score", "oks", "image_bytes", "seconds"]


def policy(oks: float) -> Policy:
    """oks: another one is another selection."""
    bounds = ({"min": 1, "max": 4}, {"min": 0.5}, {"min": oks}, {"min": 2000}, {"max": 9.5})
    return Policy(
        name="bench",
        rules=[{"column": name, **bound} for name, bound in zip(COLUMNS, bounds, strict=True)],
    )


def build(folder: Path, rows: int) -> None:
    """A lake as a pipeline leaves it, with files in no order, and the same joined beforehand."""
    rng = np.random.default_rng(rows)
    lake = Lake.create(folder / "lake")
    (folder / "wide").mkdir()
    files: dict[str, list] = {"samples": [], "images": [], "metrics_keypoints": []}
    for start in range(0, rows, FILE_ROWS):
        n = min(FILE_ROWS, rows - start)
        ids, samples = rng.integers(-(2**63), 2**63 - 1, (2, n))
        size = rng.integers(1000, 50_000, n)
        seconds = rng.uniform(0, 10, n).astype(np.float32)
        persons = rng.integers(0, 6, n).astype(np.int32)
        scores, oks = np.sqrt(rng.random((2, n), dtype=np.float32))
        given = {
            "samples": {"sample_id": samples, "fingerprint": SAMPLES},
            "images": {
                "image_id": ids, "sample_id": samples, "fingerprint": IMAGES, "image_bytes": size,
                "seconds": seconds,
            },
            "metrics_keypoints": {
                "image_id": ids, "fingerprint": METRICS, "persons": persons, "person_score": scores,
                "oks": oks,
            },
        }  # fmt: skip
        for table, columns in given.items():
            files[table].append(lake.table(table).write(filled(table, n, columns)))
        values = (ids, samples, persons, scores, oks, size, seconds)
        wide = pa.table(dict(zip(["image_id", "sample_id", *COLUMNS], values, strict=True)))
        pq.write_table(wide, folder / f"wide/{start:09}.parquet", compression="zstd")
    for table, written in files.items():
        lake.table(table).commit(written)


def filled(table: str, n: int, given: dict) -> pa.Table:
    """N rows; columns that nobody reads are empty or all the same."""
    columns = []
    for field in TABLES[table].schema:
        value = given.get(field.name)
        if value is None:
            facts = field.metadata or {}
            kind = field.type.value_type if pa.types.is_nested(field.type) else field.type
            zero = float(facts.get(b"low", b"0"))
            zero = zero if pa.types.is_floating(kind) else int(zero)
            if pa.types.is_string(kind):
                zero = facts.get(b"one_of", b"x").decode().split("|")[0]
            value = pa.nulls(n, field.type)
            if not field.nullable:
                zero = zero if kind == field.type else [zero] * field.type.list_size
                value = pa.repeat(pa.scalar(zero, field.type), n)
        columns.append(pa.repeat(value, n) if isinstance(value, str) else pa.array(value, field.type))
    return pa.table(columns, schema=TABLES[table].schema)


def ours(folder: Path, oks: float) -> int:
    found = select(
        Lake(folder / "lake"),
        policy(oks),
        metric_fingerprints={"metrics_keypoints": METRICS},
        image_fingerprint=IMAGES,
        sample_fingerprints=[SAMPLES],
    )
    assert found.written == found.images
    return found.kept


def masked(rows: pa.Table, oks: float, out: Path) -> int:
    tests = (
        pc.greater_equal(rows["persons"], 1),
        pc.less_equal(rows["persons"], 4),
        pc.greater_equal(rows["person_score"], pa.scalar(0.5, pa.float32())),
        pc.greater_equal(rows["oks"], pa.scalar(oks, pa.float32())),
        pc.greater_equal(rows["image_bytes"], 2000),
        pc.less_equal(rows["seconds"], pa.scalar(9.5, pa.float32())),
    )
    keep = tests[0]
    for test in tests[1:]:
        keep = pc.and_(keep, test)
    kept = rows.select(["image_id", "sample_id"]).append_column("keep", keep)
    pq.write_table(kept, out, compression="zstd")
    return pc.sum(keep).as_py()


def bare(folder: Path, oks: float) -> int:
    return masked(pads.dataset(folder / "wide").to_table(), oks, folder / "bare.parquet")


def joined(folder: Path, oks: float) -> int:
    def read(table: str, names: list[str]) -> pa.Table:
        # Of this lake alone: all files of the folder are of the newest version.
        return pads.dataset(sorted((folder / "lake" / table).glob("*.parquet"))).to_table(columns=names)

    rows = read("images", ["image_id", "sample_id", *COLUMNS[3:]])
    rows = rows.join(read("metrics_keypoints", ["image_id", *COLUMNS[:3]]), "image_id", join_type="inner")
    return masked(rows, oks, folder / "bare.parquet")


def measure_again(folder: Path, oks: float) -> int:
    """The keypoint metric on 1,000 images of 256 x 256 pixels."""
    from udfs.keypoints import KeypointMetric
    from udfs.picture import encode
    from udfs.udf import Worker

    count, side = 1000, 256
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    data = encode(pixels, "jpeg")

    class Same:
        def read(self, path: str) -> bytes:
            return data

        def write(self, path: str, data: bytes) -> None:
            raise NotImplementedError

    udf = KeypointMetric()
    apply = udf.setup(Worker("cpu", Same()))
    for start in range(0, count, udf.batch_rows):
        n = min(udf.batch_rows, count - start)
        apply(
            pa.table(
                {
                    "image_id": np.arange(n),
                    "image_path": ["a"] * n,
                    "keypoints_2d": pa.array([[100.0] * 34] * n, pa.list_(pa.float32(), N_KEYPOINTS * 2)),
                    "keypoints_visible": pa.array([[2] * 17] * n, pa.list_(pa.int8(), N_KEYPOINTS)),
                    "bbox": pa.array([[0.0, 0.0, 200.0, 200.0]] * n, pa.list_(pa.float32(), 4)),
                    "image_height": [side] * n,
                    "image_width": [side] * n,
                }
            )
        )
    return count


AGAIN = "measure 1,000 again"
VARIANTS = {"ours": ours, "bare": bare, "joined": joined, AGAIN: measure_again}


def child(variant: str, folder: Path, oks: float) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    kept = VARIANTS[variant](folder, oks)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(
        json.dumps({"seconds": seconds, "cpu": cpu, "peak": after.ru_maxrss / 1e6, "kept": kept})
    )


def best(variant: str, folder: Path, repeats: int) -> dict[str, float]:
    runs = []
    for _ in range(repeats):
        # A bound of its own, so that no selection is there already.
        oks = f"{0.8 + (time.time() % 1000) / 100_000:.6f}"
        command = [sys.executable, "-m", "tests.bench.bench_filter", "--child", variant, oks]
        done = subprocess.run([*command, "--folder", folder], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return {
        **{key: min(run[key] for run in runs) for key in ("seconds", "cpu", "kept")},
        "peak": max(run["peak"] for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], given.folder, float(given.child[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        once: dict[str, float] = {}
        for rows in given.rows:
            folder = (given.folder or Path(temporary)) / str(rows)
            if not folder.exists():
                folder.mkdir(parents=True)
                build(folder, rows)
            measured = {v: best(v, folder, given.repeats) for v in ("ours", "bare", "joined")}
            once = once or best(AGAIN, folder, 1)
            measured[AGAIN] = once
            ours_took = measured["ours"]
            print(f"{rows:,} rows")
            for variant, m in measured.items():
                wall, cpu = (ours_took[key] / m[key] for key in ("seconds", "cpu"))
                print(
                    f"  {variant:<20}{m['seconds']:8.2f} s {m['cpu']:8.2f} CPU s  peak {m['peak']:5.2f} GB"
                    f"   ours / this {wall:6.2f}, CPU {cpu:6.2f}"
                )


if __name__ == "__main__":
    main()
