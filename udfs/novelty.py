"""Scores how far a candidate pose is from every pose that was generated before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.errors import InputError, ModelError
from schemas.smplx_params import SMPLX_PARAMS
from schemas.tables import POSES, SCORES_NOVELTY
from udfs.columns import check_finite, list_column, matrix
from udfs.pose_space import Neighbours
from udfs.skeleton import descriptor
from udfs.udf import Apply, Udf, Worker, bytes_digest

_REFERENCES = pa.schema([POSES.field(name).remove_metadata() for name in ("pose_id", "body_pose")])


def references_file(pose_ids: np.ndarray, body_pose: np.ndarray) -> bytes:
    """An Arrow file of the poses generated so far: the same bytes for the same poses in any order.

    pose_ids: (N,) int64, of which repeated ones count once; body_pose: (N, 63) radians.
    Raises InputError when there are none, or when one holds NaN or infinity.
    """
    ids, first = np.unique(np.asarray(pose_ids, np.int64), return_index=True)
    if not len(ids):
        raise InputError("no pose was generated yet: there is nothing to compare a candidate with")
    poses = np.asarray(body_pose, np.float32).reshape(-1, SMPLX_PARAMS["body_pose"])[first]
    bad = np.flatnonzero(~np.isfinite(poses).all(1))
    if len(bad):
        raise InputError(f"pose {ids[bad[0]]}: its body_pose holds NaN or infinity")
    table = pa.table(
        [pa.array(ids), list_column(poses, _REFERENCES.field("body_pose").type)], schema=_REFERENCES
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _REFERENCES) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True, kw_only=True)
class Novelty(Udf):
    """Root mean square distance of 22 joints to the nearest reference, and that one's id.

    Global orientation, position and the body's shape don't count: see `skeleton.descriptor`. A candidate
    that is a reference itself has novelty 0.

    Fields:
        references: lake-relative path of what `references_file` made.
        digest: of that file, its `bytes_digest`. The content counts, not its place: the path is no parameter.
        exact_up_to: references from which on the search is approximate. It then misses the nearest one of
            a few candidates in a hundred and gives them the next best, so their novelty is too high.

    Raises ModelError when the file is missing or is not what the digest says, RowError for a pose that
    holds NaN or infinity.
    """

    name: ClassVar[str] = "novelty"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ("pose_id", "body_pose")
    outputs: ClassVar[pa.Schema] = pa.schema([f for f in SCORES_NOVELTY if f.name != "fingerprint"])
    batch_rows: ClassVar[int] = 16384

    references: str
    digest: str
    exact_up_to: int = 100_000

    def models(self) -> Mapping[str, str]:
        return {"references": self.digest}

    def parameters(self) -> Mapping[str, object]:
        return {"exact_up_to": self.exact_up_to}

    def setup(self, worker: Worker) -> Apply:
        ids, poses = self._read(worker)
        neighbours = Neighbours(_descriptors(poses), self.exact_up_to)

        def apply(rows: pa.Table) -> pa.Table:
            if not len(rows):
                return self.outputs.empty_table()
            candidates, pose = rows["pose_id"].to_numpy(), matrix(rows, "body_pose")
            check_finite(candidates, {"body_pose": pose})
            distance, nearest = neighbours(descriptor(pose))
            # Among equal poses the nearest may bear another id; ids are ascending.
            own = np.minimum(np.searchsorted(ids, candidates), len(ids) - 1)
            known = ids[own] == candidates
            columns = {
                "pose_id": rows["pose_id"],
                "novelty": np.where(known, 0, distance).astype(np.float32),
                "nearest_pose_id": ids[np.where(known, own, nearest)],
            }
            return pa.table(columns, schema=self.outputs)

        return apply

    def _read(self, worker: Worker) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,), ascending, and body poses (N, 63)."""
        try:
            data = worker.files.read(self.references)
        except FileNotFoundError:
            raise ModelError(f"{self.references}: no such file of reference poses; write it again") from None
        if bytes_digest(data) != self.digest:
            raise ModelError(
                f"{self.references}: not the reference poses that were meant, their digest is "
                f"{bytes_digest(data)} and not {self.digest}; write the file again"
            )
        try:
            table = pa.ipc.open_file(data).read_all()
        except pa.ArrowInvalid as error:
            raise ModelError(f"{self.references}: no Arrow file of reference poses: {error}") from error
        if not table.schema.equals(_REFERENCES):
            raise ModelError(f"{self.references}: its columns are not {', '.join(_REFERENCES.names)}")
        if not len(table):
            raise ModelError(f"{self.references}: no reference pose is in it; make it of one pose at least")
        return table["pose_id"].to_numpy(), matrix(table, "body_pose")


def _descriptors(poses: np.ndarray) -> np.ndarray:
    """(N, 66) of (N, 63), in pieces: a million poses at once would take gigabytes."""
    pieces = range(0, len(poses), Novelty.batch_rows)
    return np.concatenate([descriptor(poses[i : i + Novelty.batch_rows]) for i in pieces])
