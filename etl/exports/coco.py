"""COCO keypoints: the images, and `annotations/person_keypoints.json` with one annotation for each.

Ids of images and of annotations are the release's image ids, so one image has one id in every export.
`area` is what COCO means by it, the pixels that the body covers. `v` is 0 for a point outside the image,
1 for one that the body hides, 2 for one that is seen; x and y of the first are 0.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa

from etl.exports.pieces import IMAGES, Piece, Step, arrays, image_names, scalars, short
from schemas.coco import KEYPOINT_NAMES, SKELETON

_CATEGORY = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": KEYPOINT_NAMES,
    "skeleton": [[a + 1, b + 1] for a, b in SKELETON],
}
_COLUMNS = (
    "image_id",
    "image_path",
    "image_height",
    "image_width",
    "bbox",
    "keypoints_2d",
    "keypoints_visible",
    "coverage",
)


def _write(piece: Piece) -> None:
    facts = piece.folder.facts
    about = {"description": f"posedreamer release {facts['release']}", "version": facts["release"]}
    with (
        piece.file("annotations/person_keypoints.json") as path,
        path.open("w", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as annotations,
    ):
        out.write(
            f'{{"info": {json.dumps(about)},\n"licenses": [],\n"categories": {json.dumps([_CATEGORY])},'
        )
        out.write('\n"images": [')
        start = True
        for rows in piece.tables:
            for image, annotation in _entries(rows):
                _add(out, image, start)
                _add(annotations, annotation, start)
                start = False
        out.write('\n],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, out)
        out.write("\n]}\n")


def _add(out: IO[str], entry: dict[str, Any], first: bool) -> None:
    out.write(("\n" if first else ",\n") + json.dumps(entry))


def _entries(rows: pa.Table) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Image and annotation of each row."""
    labels = arrays(rows)
    visible = labels["keypoints_visible"]
    points = np.where(visible[..., None] > 0, labels["keypoints_2d"], 0)
    places = _short(np.concatenate([points, visible[..., None]], axis=2, dtype=np.float32))
    boxes = _short(labels["bbox"])
    for name, values, seen, place, box in zip(
        image_names(rows), scalars(rows), visible, places, boxes, strict=True
    ):
        size = {"width": values["image_width"], "height": values["image_height"]}
        yield (
            {"id": values["image_id"], "file_name": name, **size},
            {
                "id": values["image_id"],
                "image_id": values["image_id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": round(values["coverage"] * size["width"] * size["height"]),
                "num_keypoints": int(np.count_nonzero(seen)),
                "keypoints": [int(v) if i % 3 == 2 else v for i, v in enumerate(place)],
            },
        )


def _short(array: np.ndarray) -> list[list[float]]:
    return short(pa.array(array.reshape(-1))).to_numpy().reshape(len(array), -1).tolist()


STEPS = (IMAGES, Step("annotations", _COLUMNS, _write, rows=None, block=1000))
