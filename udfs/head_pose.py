"""Measures whether the head in an image is turned as the labels' head is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image

from schemas.coco import N_KEYPOINTS
from schemas.errors import ModelError
from schemas.metrics import metric_outputs
from udfs.columns import matrix, metric_rows
from udfs.head_angles import angle_error, angles, from_six, head_rotations, rotation_error, view_of
from udfs.head_crop import FACE, head_picture, head_squares
from udfs.keypoints import WEIGHTS as KEYPOINTS
from udfs.model_metric import Checkpoint, ModelMetric
from udfs.oks import CONFIDENT, match
from udfs.picture import IMAGE, read_pictures
from udfs.udf import Apply, Worker

_WEIGHTS = Path(__file__).parent / "weights"
_ENOUGH = 2
"""Confident keypoints of a face that make a head."""

ReadHeads: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Pictures of heads (N, 64, 64, 3) uint8 RGB to (N, 3, 3) rotations against their line of sight."""


@dataclass(frozen=True, kw_only=True)
class HeadPose(ModelMetric):
    """Roll, pitch and yaw of the head in an image, and how far they are from the labels' head joint.

    The keypoint network finds people; of several heads, the one counts whose person the labels speak of, by
    the rule of `udfs.oks.match`. NULL where nobody qualifies and where that head, or the labels', is not in
    the image. What the network sees is the head against its line of sight; the labels' camera turns that into
    camera space.

    Another model: a checkpoint of transformers' AutoModelForImageClassification with six outputs, which are
    the first two columns of the head's rotation against its line of sight: camera axes x right, y down, z
    forward; head axes x to its left, y up, z forward.

    Fields:
        finder: another keypoint network's file, as in `udfs.keypoints`.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "head_pose"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        *IMAGE,
        "global_orient",
        "body_pose",
        "focal",
        "princpt",
        "keypoints_2d",
        "keypoints_visible",
    )
    outputs: ClassVar[pa.Schema] = metric_outputs("head_pose")
    weights: ClassVar[tuple[Path, ...]] = (_WEIGHTS / "head_pose.safetensors",)

    finder: Path | None = None

    @property
    def helpers(self) -> Mapping[str, Path]:
        return {"keypoints": self.finder or KEYPOINTS}

    def setup(self, worker: Worker) -> Apply:
        from udfs.head_network import HeadNetwork
        from udfs.keypoint_network import KeypointNetwork

        self.compare()
        checkpoint = self.checkpoint
        if checkpoint is None:
            read: ReadHeads = HeadNetwork.load(worker.device).rotations
        else:
            read = six_numbers(checkpoint, worker.device)
        finder = KeypointNetwork.load(self.helpers["keypoints"], worker.device)

        def apply(rows: pa.Table) -> pa.Table:
            pictures = read_pictures(worker.files, rows)
            found = finder.detect(pictures)
            labelled = matrix(rows, "keypoints_2d").reshape(-1, N_KEYPOINTS, 2)
            visible = matrix(rows, "keypoints_visible")
            out: list[dict[str, object]] = []
            heads, middles, at = [], [], []
            for k, people in enumerate(found):
                seen = _heads(people.keypoints, pictures[k].shape[:2])
                out.append(dict.fromkeys(self.outputs.names) | {"heads": int(seen.sum())})
                person = match(people.keypoints, labelled[k], visible[k])
                if person is None or not seen[person] or not (visible[k, list(FACE)] > 0).any():
                    continue
                middle, side = head_squares(people.keypoints[[person]], people.boxes[[person]])
                heads.append(head_picture(pictures[k], middle[0], float(side[0])))
                middles.append(middle[0])
                at.append(k)
            if at:
                rotations = read(np.stack(heads))
                for k, row in zip(at, _compare(rows.take(pa.array(at)), rotations, middles), strict=True):
                    out[k] |= row
            return metric_rows(rows["image_id"], out, self.outputs)

        return apply


def _heads(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(P,) bool: which of P people (P, 17, 3) show a head in an image of this height and width."""
    face = keypoints[:, FACE]
    middle = face[..., :2].mean(1)
    inside = ((middle >= 0) & (middle < np.array(size)[::-1])).all(1)
    return inside & ((face[..., 2] > CONFIDENT).sum(1) >= _ENOUGH)


def _compare(rows: pa.Table, seen: np.ndarray, middles: list[np.ndarray]) -> list[dict[str, object]]:
    """The metric's columns of heads (N, 3, 3) seen in the middles of N crops, against the labels."""
    view = view_of(np.stack(middles), matrix(rows, "focal"), matrix(rows, "princpt"))
    turned = view @ seen
    truth = head_rotations({name: matrix(rows, name) for name in ("global_orient", "body_pose")})
    of_image = angles(turned)
    off = angle_error(of_image, angles(truth))
    apart = rotation_error(turned, truth)
    return [
        {
            "head_roll": float(of_image[k, 0]),
            "head_pitch": float(of_image[k, 1]),
            "head_yaw": float(of_image[k, 2]),
            "head_pose_error": float(off[k]),
            "head_rotation_error": float(apart[k]),
        }
        for k in range(rows.num_rows)
    ]


def six_numbers(checkpoint: Checkpoint, device: str) -> ReadHeads:
    """Reads heads with an image model of transformers that answers with six numbers. Raises ModelError."""
    import torch
    from transformers import AutoModelForImageClassification

    model: Any = checkpoint.load(AutoModelForImageClassification, device)
    if model.config.num_labels != 6:
        raise ModelError(
            f"{checkpoint.name}: has {model.config.num_labels} outputs; a model of head rotations has 6, the "
            "first two columns of a rotation matrix"
        )
    processor: Any = checkpoint.processor()

    @torch.inference_mode()
    def read(pictures: np.ndarray) -> np.ndarray:
        inputs = processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt")
        return from_six(model(pixel_values=inputs["pixel_values"].to(device)).logits.double().cpu().numpy())

    return read
