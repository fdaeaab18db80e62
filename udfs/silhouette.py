"""Measures whether the person in an image fills what the labels' body fills."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image

from schemas.errors import ModelError
from schemas.metrics import metric_outputs
from udfs.columns import metric_rows
from udfs.model_metric import Checkpoint, ModelMetric
from udfs.picture import IMAGE, read_picture, read_pictures
from udfs.udf import Apply, Worker

_WEIGHTS = Path(__file__).parent / "weights"

FindPeople: TypeAlias = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Pictures (H, W, 3) uint8 RGB of any sizes to (H, W) bool: the pixels that show a person."""


@dataclass(frozen=True, kw_only=True)
class Silhouette(ModelMetric):
    """Overlap of the people in an image with the silhouette of the labels' body.

    The body's silhouette is what the control image shows; it wears neither clothes nor hair, so that not even
    a perfect image reaches 1. Everybody in the image counts: a second person lowers precision, and what hides
    the body lowers recall. What has nothing to be a share of is NULL.

    Another model: a checkpoint of transformers' AutoModelForSemanticSegmentation, such as SegFormer, whose
    config names a class `person`.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "silhouette"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        *IMAGE,
        "control_path",
    )
    outputs: ClassVar[pa.Schema] = metric_outputs("silhouette")
    weights: ClassVar[tuple[Path, ...]] = (
        _WEIGHTS / "keypoints.safetensors",
        _WEIGHTS / "person_mask.safetensors",
    )

    def setup(self, worker: Worker) -> Apply:
        self.compare()
        checkpoint = self.checkpoint
        if checkpoint is not None:
            find = segmentation(checkpoint, worker.device)
        else:
            from udfs.person_mask import PersonMask

            network = PersonMask.load(worker.device)

            def find(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
                return [share > 0.5 for share in network.shares(pictures)]

        def apply(rows: pa.Table) -> pa.Table:
            pictures = read_pictures(worker.files, rows)
            bodies = [
                np.any(read_picture(worker.files, path, picture.shape[:2]), axis=-1)
                for path, picture in zip(rows["control_path"].to_pylist(), pictures, strict=True)
            ]
            found = [overlap(p, b) for p, b in zip(find(pictures), bodies, strict=True)]
            return metric_rows(rows["image_id"], found, self.outputs)

        return apply


def overlap(people: np.ndarray, body: np.ndarray) -> dict[str, float | None]:
    """The metric's columns of two masks (H, W) bool: the people in an image and the labels' body."""
    shared, seen, labelled = (int(m.sum()) for m in (people & body, people, body))
    union = seen + labelled - shared
    return {
        "silhouette_iou": shared / union if union else None,
        "silhouette_precision": shared / seen if seen else None,
        "silhouette_recall": shared / labelled if labelled else None,
    }


def segmentation(checkpoint: Checkpoint, device: str) -> FindPeople:
    """Finds people with a semantic segmentation model of transformers. Raises ModelError."""
    import torch
    from transformers import AutoModelForSemanticSegmentation

    classes = {int(k): str(v) for k, v in (checkpoint.config().get("id2label") or {}).items()}
    person = next((k for k, name in classes.items() if name.split(",")[0].strip().lower() == "person"), None)
    if person is None:
        raise ModelError(
            f"{checkpoint.name}: has no class `person` among the {len(classes)} that its config.json names "
            "in id2label; take a model that was trained to segment people"
        )
    model: Any = checkpoint.load(AutoModelForSemanticSegmentation, device)
    processor: Any = checkpoint.processor()
    processor.do_center_crop = False  # the mask is of the whole picture
    if getattr(processor, "do_pad", False):
        raise ModelError(
            f"{checkpoint.name}: its image processor pads pictures, so its masks are of more than those; "
            "take a model that resizes them"
        )

    @torch.inference_mode()
    def find(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = []
        for picture in pictures:  # processors pad or resize to one size, and pictures may differ in theirs
            inputs = processor(images=Image.fromarray(picture), return_tensors="pt")
            logits = model(pixel_values=inputs["pixel_values"].to(device)).logits.float()
            size = picture.shape[:2]
            whole = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
            found.append((whole.argmax(1)[0] == person).cpu().numpy())
        return found

    return find
