"""A UDF small enough to see through, over images that need no file."""

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from etl.stage import Stage
from schemas.errors import RowError, StageError
from schemas.metrics import metric_table
from udfs.udf import Apply, Udf, Worker


@dataclass(frozen=True, kw_only=True)
class Toy(Udf):
    """OKS is `scale`; fails on the ids in `bad`, stops the stage at `fatal`, breaks at `broken`.

    OKS of the ids in `infinite` breaks the table's schema.
    """

    name: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("image_id",)
    outputs: ClassVar[pa.Schema] = metric_table("keypoints")
    batch_rows: ClassVar[int] = 16

    scale: float = 0.5
    bad: tuple[int, ...] = ()
    fatal: int = -1
    infinite: tuple[int, ...] = ()
    broken: bool = False
    seconds: float = 0.0

    def parameters(self) -> dict[str, object]:
        return {"scale": self.scale}

    def setup(self, worker: Worker) -> Apply:
        def apply(rows: pa.Table) -> pa.Table:
            ids = rows.column("image_id").to_numpy()
            n = len(ids)
            time.sleep(self.seconds)
            if self.broken:
                raise KeyError("a defect")
            if self.fatal in ids:
                raise StageError("no memory for a single row")
            if np.isin(ids, self.bad).any():
                raise RowError(f"row {self.bad} is bad")
            return pa.table(
                {
                    "image_id": rows.column("image_id"),
                    "persons": pa.array(np.ones(n, np.int32)),
                    "person_score": pa.nulls(n, pa.float32()),
                    "keypoints": pa.nulls(n, pa.list_(pa.float32(), 51)),
                    "keypoints_bbox": pa.nulls(n, pa.list_(pa.float32(), 4)),
                    "oks": pa.array(np.where(np.isin(ids, self.infinite), np.inf, self.scale)),
                }
            )

        return apply


def toy_images(ids: np.ndarray, fingerprint: str = "x") -> pa.Table:
    """Rows of `images` with these ids."""
    n = len(ids)
    return pa.table(
        {
            "image_id": ids.astype(np.int64),
            "sample_id": ids.astype(np.int64),
            "fingerprint": [fingerprint] * n,
            "image_path": ["a"] * n,
            "image_sha256": ["a"] * n,
            "image_bytes": np.ones(n, np.int64),
            "image_height": np.ones(n, np.int32),
            "image_width": np.ones(n, np.int32),
            "generator": ["g"] * n,
            "seed": np.ones(n, np.int64),
            "steps": pa.nulls(n, pa.int32()),
            "guidance_scale": pa.nulls(n, pa.float32()),
            "status": ["generated"] * n,
            "seconds": pa.nulls(n, pa.float32()),
            "batch_size": pa.nulls(n, pa.int32()),
            "batch_index": pa.nulls(n, pa.int32()),
            "device": pa.nulls(n, pa.string()),
            "dtype": pa.nulls(n, pa.string()),
            "prompt_tokens": pa.nulls(n, pa.int32()),
            "prompt_truncated": pa.nulls(n, pa.bool_()),
        }
    )


def toy_stage(partition_rows: int = 64, upstream: dict[str, str] | None = None, **parameters) -> Stage:
    return Stage(
        "toy",
        Toy(**parameters),
        "metrics_keypoints",
        "images",
        source_fingerprints=("x",),
        upstream=upstream or {},
        partition_rows=partition_rows,
    )
