"""Valid random rows for any table, made from its schema, and lakes filled with them."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from etl.filter import Selection, load_policy, select
from etl.lake import Lake
from schemas.policy import Policy
from schemas.tables import TABLES

IMAGES, LABELS, METRICS, SAMPLES = "0123456789abcdef", "1" * 16, "2" * 16, "3" * 16
"""Fingerprints of the rows that `fill` makes."""

_START = datetime(2026, 1, 1, tzinfo=UTC)


def random_rows(table: str, n: int, seed: int = 0, **given: object) -> pa.Table:
    """N rows that `schemas.validate` accepts, with keys that differ.

    given: columns to use as they are: a value for all rows, or N values.
    """
    rng = np.random.default_rng(seed)
    columns = []
    for field in TABLES[table].schema:
        if field.name in given:
            value = given[field.name]
            values = [value] * n if isinstance(value, str | int | float | None) else value
            columns.append(pa.array(values, field.type))
        else:
            columns.append(_column(field, n, rng, field.name in TABLES[table].key))
    return pa.table(columns, schema=TABLES[table].schema)


def fill(lake: Lake, n: int, seed: int = 0, **metrics: object) -> None:
    """Puts `n` measured images with all that stands behind them into a lake; no image files.

    metrics: columns of `metrics_keypoints` to use as they are.
    """
    rng = np.random.default_rng([seed, 1])
    some = max(n // 2, 1)
    sources = rng.choice(["amass", "demo", "laion"], some).tolist()
    poses = random_rows("poses", some, seed, source=sources)
    captions = random_rows("captions", some, seed + 1)
    samples = random_rows(
        "samples",
        n,
        seed + 2,
        fingerprint=SAMPLES,
        pose_id=rng.choice(poses.column("pose_id").to_numpy(), n),
        caption_id=rng.choice(captions.column("caption_id").to_numpy(), n),
    )
    ids = samples.column("sample_id").to_numpy()
    labels = random_rows("labels", n, seed + 3, fingerprint=LABELS, sample_id=rng.permutation(ids))
    paths = [f"files/images/{i:016x}.jpg" for i in ids.view(np.uint64)]
    images = random_rows("images", n, seed + 4, fingerprint=IMAGES, sample_id=ids, image_path=paths)
    measured = rng.permutation(images.column("image_id").to_numpy())
    facts = {"persons": rng.integers(0, 7, n)} | metrics
    scores = random_rows("metrics_keypoints", n, seed + 5, fingerprint=METRICS, image_id=measured, **facts)
    for table, rows in (
        ("poses", poses),
        ("captions", captions),
        ("samples", samples),
        ("labels", labels),
        ("images", images),
        ("metrics_keypoints", scores),
    ):
        half = rows.num_rows // 2
        files = [
            lake.table(table).write(part) for part in (rows.slice(0, half), rows.slice(half)) if part.num_rows
        ]
        lake.table(table).commit(files)


def give_files(lake: Lake) -> None:
    """Image and control files for the rows that `fill` made, where a run would put them."""
    # Not above: they take Pillow and SciPy along, and tests see to it that filtering does without.
    from udfs.images import image_path
    from udfs.labels import control_path

    for table, key, path, digest in (
        ("images", "image_id", "image_path", "image_sha256"),
        ("labels", "sample_id", "control_path", "control_sha256"),
    ):
        rows = lake.table(table).read()
        ids = rows.column(key).to_pylist()
        data = [f"{table} {i}".encode() * 20 for i in ids]
        if table == "images":
            paths = [image_path(i, IMAGES, "jpeg") for i in ids]
        else:
            paths = [control_path(f"files/controls/{LABELS}", i) for i in ids]
        for name, content in zip(paths, data, strict=True):
            lake.store.write(name, content)
        digests = [hashlib.sha256(content).hexdigest() for content in data]
        for column, values in ((path, paths), (digest, digests)):
            rows = rows.set_column(rows.column_names.index(column), column, pa.array(values))
        lake.table(table).replace([lake.table(table).write(rows)])


def measure(lake: Lake, metric: str) -> None:
    """Measures all images by another metric, with its name as the fingerprint."""
    ids = lake.table("images").read(["image_id"]).column(0).to_numpy()
    lake.table(f"metrics_{metric}").append(
        random_rows(f"metrics_{metric}", len(ids), 6, fingerprint=metric, image_id=ids)
    )


def selected(lake: Lake, policy: str | Policy = "lenient", metrics: Sequence[str] = ()) -> Selection:
    """The selection of what `fill` made. metrics: others than keypoints that `measure` measured."""
    chosen = load_policy(policy) if isinstance(policy, str) else policy
    prints = {"metrics_keypoints": METRICS} | {f"metrics_{name}": name for name in metrics}
    return select(lake, chosen, metric_fingerprints=prints, image_fingerprint=IMAGES)


def _column(field: pa.Field, n: int, rng: np.random.Generator, key: bool) -> pa.Array:
    facts = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    empty = (rng.random(n) < 0.2) if field.nullable and not key else np.zeros(n, bool)
    if "one_of" in facts:
        return pa.array(rng.choice(facts["one_of"].split("|"), n), field.type, mask=empty)
    if pa.types.is_fixed_size_list(field.type):
        length = field.type.list_size
        values = _numbers(field.type.value_type, facts, n * length, rng)
        flat = pa.array(values, field.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, length, mask=pa.array(empty))
    if pa.types.is_string(field.type):
        texts = [f"{field.name} {x:08x} é" for x in rng.integers(0, 2**32, n)]
        return pa.array(texts, field.type, mask=empty)
    if pa.types.is_boolean(field.type):
        return pa.array(rng.random(n) < 0.5, mask=empty)
    if pa.types.is_timestamp(field.type):
        return pa.array(
            [_START + timedelta(microseconds=int(x)) for x in rng.integers(0, 2**40, n)], field.type
        )
    return pa.array(_numbers(field.type, facts, n, rng), field.type, mask=empty)


def _numbers(kind: pa.DataType, facts: dict[str, str], n: int, rng: np.random.Generator) -> np.ndarray:
    if pa.types.is_floating(kind):
        low, high = float(facts.get("low", -100)), float(facts.get("high", 100))
        return rng.uniform(low, high, n).astype(np.float32)
    bits = kind.bit_width
    low = int(float(facts["low"])) if "low" in facts else -(2 ** (bits - 1))
    high = int(float(facts["high"])) if "high" in facts else 2 ** (bits - 1) - 1
    return rng.integers(low, high, n, dtype=np.int64, endpoint=True)
