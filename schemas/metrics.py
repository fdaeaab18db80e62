"""What metrics measure of an image: the columns of a narrow table each, `metrics_` and the metric's name."""

from collections.abc import Mapping

import pyarrow as pa

from schemas.coco import N_KEYPOINTS
from schemas.fields import FINGERPRINT, field, floats, id_field

_COLORED = ("top", "bottom", "shoes", "background")

MATCHED = ("scene", "lighting")
"""Caption attributes that `caption_match` looks for; colours are the metric `colors`'s."""

METRICS: Mapping[str, list[pa.Field]] = {
    "keypoints": [
        field("persons", pa.int32(), "people the detector sees", low=0),
        field("person_score", pa.float32(), "confidence of the matched person", null=True, low=0, high=1),
        floats("keypoints", N_KEYPOINTS * 3, "x, y, confidence of the matched person", unit="px", null=True),
        floats("keypoints_bbox", 4, "x, y, width, height of the matched person", unit="px", null=True),
        field(
            "oks", pa.float32(), "object keypoint similarity against keypoints_2d", null=True, low=0, high=1
        ),
    ],
    "colors": [
        *(
            field(f"{x}_color_read", pa.string(), f"colour word that the {x} shows", null=True)
            for x in _COLORED
        ),
        *(
            field(
                f"{x}_color_right", pa.bool_(), f"whether that is the caption's word for the {x}", null=True
            )
            for x in _COLORED
        ),
        field(
            "colors_right",
            pa.float32(),
            "share of the colours right, of those that the caption names and the image shows",
            null=True,
            low=0,
            high=1,
        ),
    ],
    "caption_match": [
        field(
            "caption_match",
            pa.float32(),
            "share of the caption's attributes that the image shows, of those that were looked for",
            null=True,
            low=0,
            high=1,
        ),
        field(
            "caption_similarity",
            pa.float32(),
            "cosine of the image's and the caption's embeddings; NULL from a model that has none",
            null=True,
            low=-1,
            high=1,
        ),
        *(field(f"{x}_read", pa.string(), f"{x} that the image shows", null=True) for x in MATCHED),
        *(field(f"{x}_right", pa.bool_(), f"whether that is the caption's {x}", null=True) for x in MATCHED),
    ],
    "head_pose": [
        field("heads", pa.int32(), "heads the detector sees", low=0),
        *(
            field(f"head_{x}", pa.float32(), f"{x} of the head in the image", unit="deg", null=True)
            for x in ("roll", "pitch", "yaw")
        ),
        field(
            "head_pose_error",
            pa.float32(),
            "mean absolute error of roll, pitch and yaw against the labels",
            unit="deg",
            null=True,
            low=0,
            high=180,
        ),
        field(
            "head_rotation_error",
            pa.float32(),
            "angle of the rotation between the head in the image and the labels'",
            unit="deg",
            null=True,
            low=0,
            high=180,
        ),
    ],
    "silhouette": [
        field(
            "silhouette_iou",
            pa.float32(),
            "intersection over union of the people in the image and the labels' silhouette",
            null=True,
            low=0,
            high=1,
        ),
        field(
            "silhouette_precision",
            pa.float32(),
            "share of the people in the image that the silhouette covers; NULL: no people",
            null=True,
            low=0,
            high=1,
        ),
        field(
            "silhouette_recall",
            pa.float32(),
            "share of the silhouette that the people in the image cover; NULL: the body is out of the image",
            null=True,
            low=0,
            high=1,
        ),
    ],
    "image_quality": [
        field("sharpness", pa.float32(), "1 minus the blur effect of Crete et al. 2007", low=0, high=1),
        field("brightness", pa.float32(), "mean luma", low=0, high=1),
        field("contrast", pa.float32(), "standard deviation of luma", low=0, high=0.5),
        field("clipped_dark", pa.float32(), "share of the pixels that are black", low=0, high=1),
        field("clipped_bright", pa.float32(), "share of the pixels with a channel at its end", low=0, high=1),
        field("colorfulness", pa.float32(), "M of Hasler and Suesstrunk 2003, of 255 levels", low=0),
        field(
            "blockiness", pa.float32(), "steps across the borders of JPEG's blocks over those inside", low=0
        ),
    ],
}
"""Columns by metric. What could not be measured is NULL."""

_IMAGE = id_field("image_id", "row of `images`")


def metric_table(name: str) -> pa.Schema:
    """Schema of a metric's table."""
    return pa.schema([_IMAGE, FINGERPRINT, *METRICS[name]])


def metric_outputs(name: str) -> pa.Schema:
    """What the metric's UDF writes; the stage adds the fingerprint."""
    return pa.schema([_IMAGE, *METRICS[name]])
