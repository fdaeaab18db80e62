"""Measures how well an image shows its labels: the keypoints a network sees against the labelled ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.coco import N_KEYPOINTS
from schemas.metrics import metric_outputs
from udfs.columns import matrix, metric_rows
from udfs.oks import match, oks
from udfs.picture import read_pictures
from udfs.udf import Apply, Udf, Worker, file_digest

WEIGHTS = Path(__file__).parent / "weights" / "keypoints.safetensors"
"""The network that comes with the package; `keypoints.md` beside it says what it is and how good."""


@dataclass(frozen=True, kw_only=True)
class KeypointMetric(Udf):
    """People in an image, and the object keypoint similarity of the one that the labels speak of.

    The person is the nearest to the labelled keypoints of those with four keypoints over 0.3; the scale is
    its box. Labelled keypoints outside of the image don't count; hidden ones do. Where nobody qualifies,
    or no keypoint is labelled inside the image, what could not be measured is NULL.

    Fields:
        threshold: certainty from which the network's person counts as one.
        weights: another network's file. Its content counts, not its place: no parameter.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "keypoints"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        "image_id",
        "image_path",
        "keypoints_2d",
        "keypoints_visible",
        "bbox",
        "image_height",
        "image_width",
    )
    outputs: ClassVar[pa.Schema] = metric_outputs("keypoints")
    batch_rows: ClassVar[int] = 32
    accelerated: ClassVar[bool] = True

    threshold: float = 0.4
    weights: Path | None = None

    def models(self) -> Mapping[str, str]:
        return {"keypoints": file_digest(self.weights or WEIGHTS)}

    def parameters(self) -> Mapping[str, object]:
        return {"threshold": self.threshold}

    def setup(self, worker: Worker) -> Apply:
        from udfs.keypoint_network import KeypointNetwork

        network = KeypointNetwork.load(self.weights or WEIGHTS, worker.device)

        def apply(rows: pa.Table) -> pa.Table:
            found = network.detect(read_pictures(worker.files, rows), threshold=self.threshold)
            truth = matrix(rows, "keypoints_2d").reshape(-1, N_KEYPOINTS, 2)
            visible = matrix(rows, "keypoints_visible")
            measured = [
                _measure(people.scores, people.keypoints, people.boxes, truth[i], visible[i])
                for i, people in enumerate(found)
            ]
            return metric_rows(rows["image_id"], measured, self.outputs)

        return apply


def _measure(
    scores: np.ndarray, keypoints: np.ndarray, boxes: np.ndarray, truth: np.ndarray, visible: np.ndarray
) -> dict[str, object]:
    """One row of the metric, without its id; arguments as in `People`, truth (17, 2), visible (17,)."""
    row: dict[str, object] = {"persons": len(scores)}
    row |= dict.fromkeys(("person_score", "keypoints", "keypoints_bbox", "oks"))
    index = match(keypoints, truth, visible)
    if index is None:
        return row
    row["person_score"] = float(scores[index])
    row["keypoints"] = keypoints[index].ravel()
    row["keypoints_bbox"] = boxes[index]
    if (visible > 0).any():
        area = boxes[index, 2:].prod(keepdims=True)
        similarity = oks(keypoints[None, index, :, :2], truth[None], visible[None], area)
        row["oks"] = min(float(similarity[0]), 1.0)
    return row
