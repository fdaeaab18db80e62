"""What rules may read of an image: its metrics, and what its sample, labels, pose and caption say."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import pyarrow as pa

from schemas.coco import KEYPOINT_NAMES
from schemas.tables import TABLES

KEYS = {
    "poses": "pose_id",
    "samples": "sample_id",
    "labels": "sample_id",
    "captions": "caption_id",
    "images": "image_id",
}
"""Id by which a table joins. Of two columns with one name, that of the table named first is meant."""

_NO_FACTS = ("_id", "fingerprint", "digest", "_sha256", "_path")


class RuleColumn(NamedTuple):
    """Where a column is. `item`: which of the values of the list column `of`; None: it is a column itself."""

    table: str
    type: pa.DataType
    of: str
    item: int | None = None


@cache
def metric_columns() -> Mapping[str, tuple[str, pa.Field]]:
    """Single values of the metric tables, with the name of their table."""
    return {
        field.name: (name, field)
        for name, spec in TABLES.items()
        if name.startswith("metrics_")
        for field in spec.schema
        if field.name not in {*spec.key, "fingerprint"} and not pa.types.is_nested(field.type)
    }


@cache
def rule_columns() -> Mapping[str, RuleColumn]:
    """Columns that a rule may name: numbers, words and truths of the metric tables and of KEYS.

    `nose_visible` and its like are the labels' `keypoints_visible`, one for each of COCO's keypoints.
    """
    known = {name: RuleColumn(table, field.type, name) for name, (table, field) in metric_columns().items()}
    for table in KEYS:
        for field in TABLES[table].schema:
            if not pa.types.is_nested(field.type) and not field.name.endswith(_NO_FACTS):
                known.setdefault(field.name, RuleColumn(table, field.type, field.name))
    for item, keypoint in enumerate(KEYPOINT_NAMES):
        known[f"{keypoint}_visible"] = RuleColumn("labels", pa.int8(), "keypoints_visible", item)
    return known


@cache
def class_columns() -> Mapping[str, RuleColumn]:
    """Columns whose values may be classes of images: those of rules, and the ids of what images share."""
    ids = (("pose_id", "samples"), ("caption_id", "samples"), ("sample_id", "images"))
    return dict(rule_columns()) | {name: RuleColumn(table, pa.int64(), name) for name, table in ids}
