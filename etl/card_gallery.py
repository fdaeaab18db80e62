"""Pictures of some samples for a dataset card: control image, image, and the label drawn on the image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from etl.pictures import read_image
from etl.query import Release
from etl.sheet import square, with_keypoints
from schemas.errors import RowError
from schemas.ids import mix
from udfs.picture import encode

GALLERY = 24
TILE = 160
_GAP = 2
_SAID = ("image_id", "caption", "source", "sequence", "frame", "oks")
_DRAWN = ("image_path", "control_path", "image_height", "image_width", "keypoints_2d", "keypoints_visible")


@dataclass(frozen=True)
class Shown:
    """A sample of the gallery.

    Attributes:
        jpeg: three square tiles side by side; None where a picture cannot be read, and `fault` says why.
    """

    image_id: int
    caption: str
    source: str
    sequence: str
    frame: int
    oks: float | None
    jpeg: bytes | None
    fault: str | None = None


def smallest(ids: np.ndarray, n: int) -> np.ndarray:
    """The `n` ids with the smallest hashes: as if drawn at random, whatever the order of the rows."""
    return ids[np.argsort(mix(ids, "card"), kind="stable")[:n]]


def draw_shown(release: Release, ids: np.ndarray) -> tuple[Shown, ...]:
    """These images of a release, in this order."""
    return tuple(_shown(release, row) for row in release.to_arrow([*_SAID, *_DRAWN], ids=ids).to_pylist())


def _shown(release: Release, row: dict[str, Any]) -> Shown:
    said = {name: row[name] for name in _SAID}
    try:
        control, image = (read_image(release.lake.store, row[p]) for p in ("control_path", "image_path"))
    except RowError as error:
        # The release is published: its card says what is wrong with a file rather than not to come to be.
        return Shown(**said, jpeg=None, fault=str(error))
    tiles = [square(control, TILE), square(image, TILE)]
    tiles.append(with_keypoints(tiles[1], _label(row), (row["image_height"], row["image_width"])))
    strip = Image.new("RGB", (3 * TILE + 2 * _GAP, TILE), "white")
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (TILE + _GAP), 0))
    return Shown(**said, jpeg=encode(np.asarray(strip), "jpeg", 85))


def _label(row: dict[str, Any]) -> np.ndarray:
    """(17, 3) as a drawing takes them: the label's keypoints, those outside the image with no confidence."""
    points = np.reshape(row["keypoints_2d"], (-1, 2))
    inside = np.array(row["keypoints_visible"])[:, None] > 0
    return np.concatenate([points, inside], axis=1)
