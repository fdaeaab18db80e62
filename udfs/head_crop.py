"""Where a person's head is in an image, from their keypoints, and its picture."""

import numpy as np
from PIL import Image

from schemas.coco import KEYPOINT_NAMES

SIDE = 64
"""Pixels a side of a head's picture."""

FACE = tuple(KEYPOINT_NAMES.index(n) for n in ("nose", "left_eye", "right_eye", "left_ear", "right_ear"))
_SHOULDERS = tuple(KEYPOINT_NAMES.index(n) for n in ("left_shoulder", "right_shoulder"))

_OF_SHOULDERS, _OF_NECK, _OF_BODY = 1.15, 1.7, 0.16
"""The square's side: shares of the shoulders' width, of their distance to the face, and of the box. Whichever
way a person turns, one of them is not foreshortened."""


def head_squares(keypoints: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle (N, 2) and side (N,) in pixels of the squares around N heads.

    keypoints: (N, 17, 2 or more); boxes: (N, 4) x, y, width, height.
    """
    face = keypoints[:, FACE, :2].mean(1)
    left, right = np.moveaxis(keypoints[:, _SHOULDERS, :2], 1, 0)
    wide = np.linalg.norm(left - right, axis=-1)
    long = np.linalg.norm((left + right) / 2 - face, axis=-1)
    side = np.maximum(_OF_SHOULDERS * wide, _OF_NECK * long)
    return face, np.maximum(np.maximum(side, _OF_BODY * boxes[:, 2:].max(-1)), 4.0)


def head_picture(picture: np.ndarray, middle: np.ndarray, side: float) -> np.ndarray:
    """(64, 64, 3) uint8 RGB: the square of a picture (H, W, 3), black beyond its edges."""
    low = middle - side / 2
    outer = np.floor(low).astype(int)
    end = np.ceil(low + side).astype(int)
    piece = Image.fromarray(picture).crop((*outer.tolist(), *end.tolist()))
    box = (*(low - outer).tolist(), *(low - outer + side).tolist())
    return np.asarray(piece.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
