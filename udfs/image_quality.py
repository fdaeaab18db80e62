"""Measures how good an image is as a photograph: sharpness, exposure, colour, traces of compression."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from scipy.ndimage import sobel, uniform_filter1d

from schemas.metrics import metric_outputs
from udfs.columns import metric_rows
from udfs.picture import IMAGE, read_pictures
from udfs.threads import each
from udfs.udf import Apply, Udf, Worker

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601, as JPEG has it."""

_BLOCK = 8
"""Pixels a side of JPEG's blocks."""

_REBLUR = 11
"""Pixels over which the blur effect blurs again."""

_BLACK, _END = 1, 254
"""Levels from which a channel is at its end: encoders move the last one."""


def luma(picture: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1] of an (H, W, 3) uint8 RGB picture."""
    return picture @ (_LUMA / 255)


def sharpness(grey: np.ndarray) -> float:
    """1 minus the blur effect of a picture (H, W): 1 is sharp; 0 is blurred, or without any step at all.

    Crete, Dolmiere, Ladret and Nicolas, "The blur effect: perception and estimation with a new no-reference
    perceptual blur metric", 2007: what a picture loses by being blurred, in the direction that loses less.
    """
    left = []
    for axis in (0, 1):
        steps, after = (
            # The borders have no neighbours to be blurred with.
            np.abs(sobel(picture, axis=axis))[2:-1, 2:-1]
            for picture in (grey, uniform_filter1d(grey, _REBLUR, axis=axis))
        )
        total, lost = steps.sum(), np.maximum(0, steps - after).sum()
        left.append(abs(total - lost) / total if total > 0 else 1.0)
    return 1 - float(max(left))


def colorfulness(picture: np.ndarray) -> float:
    """M of a picture (H, W, 3) of 255 levels: 0 is grey, about 30 moderate, over 80 extremely colourful.

    Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003.
    """
    red, green, blue = np.moveaxis(picture.astype(np.float32), -1, 0)
    opponents = red - green, (red + green) / 2 - blue
    spread = np.hypot(*(o.std() for o in opponents))
    return float(spread + 0.3 * np.hypot(*(o.mean() for o in opponents)))


def blockiness(grey: np.ndarray) -> float:
    """Mean step across the borders of JPEG's 8 x 8 blocks over the mean step inside; about 1 shows none.

    After Wang, Sheikh and Bovik, "No-reference perceptual quality assessment of JPEG compressed images",
    2002. 1 for pictures of a single block and for flat ones.
    """
    across, inside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(1 - axis)
        border = np.arange(1, len(steps) + 1) % _BLOCK == 0
        across.append(steps[border])
        inside.append(steps[~border])
    borders, others = np.concatenate(across), np.concatenate(inside)
    if not len(borders) or not others.any():
        return 1.0
    return float(borders.mean() / others.mean())


def image_quality(picture: np.ndarray) -> dict[str, float]:
    """All of the metric's columns of an (H, W, 3) uint8 RGB picture."""
    grey = luma(picture)
    return {
        "sharpness": sharpness(grey),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "clipped_dark": float((picture <= _BLACK).all(-1).mean()),
        "clipped_bright": float((picture >= _END).any(-1).mean()),
        "colorfulness": colorfulness(picture),
        "blockiness": blockiness(grey),
    }


@dataclass(frozen=True, kw_only=True)
class ImageQuality(Udf):
    """Sharpness, exposure, clipping, colourfulness and traces of JPEG, from the pixels alone.

    They depend on the image's size: compare images of one size.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "image_quality"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = IMAGE
    outputs: ClassVar[pa.Schema] = metric_outputs("image_quality")
    batch_rows: ClassVar[int] = 32

    def setup(self, worker: Worker) -> Apply:
        def apply(rows: pa.Table) -> pa.Table:
            pictures = read_pictures(worker.files, rows)
            found: list[dict[str, float]] = [{} for _ in pictures]

            def measure(k: int) -> None:
                found[k] = image_quality(pictures[k])

            each(measure, len(pictures))
            return metric_rows(rows["image_id"], found, self.outputs)

        return apply
