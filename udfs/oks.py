"""Object keypoint similarity, and which of several detected people a label speaks of."""

import numpy as np

from schemas.coco import SIGMAS

CONFIDENT = 0.3
"""A keypoint over this confidence counts as found (the reference pipeline's threshold)."""

MIN_CONFIDENT = 4
"""A detection with fewer confident keypoints is no candidate for a match."""


def oks(keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of N people, as pycocotools' `COCOeval.computeOks` defines it.

    The mean over the labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)).

    Args:
        keypoints: (N, 17, 2) detected, pixels.
        truth: (N, 17, 2) labelled, pixels.
        visible: (N, 17) COCO flags; keypoints flagged 0 are not compared.
        area: (N,) square pixels that set the scale.

    Returns:
        (N,) float64 in [0, 1]; NaN where no keypoint is labelled.
    """
    distance2 = ((np.asarray(keypoints, float) - np.asarray(truth, float)) ** 2).sum(-1)
    variances = (2 * np.asarray(SIGMAS)) ** 2
    scale = np.asarray(area, float)[:, None] + np.spacing(1)
    similarity = np.exp(-distance2 / variances / scale / 2)
    counted = np.asarray(visible) > 0
    count = counted.sum(1)
    total = np.where(counted, similarity, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def match(people: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> int | None:
    """Which detected person a label speaks of: the nearest one of those that are confidently there.

    Near is the mean pixel distance to the labelled keypoints, over those that the detection is confident
    of (all labelled ones if it is confident of none of them).

    Args:
        people: (P, 17, 3) x, y, confidence of each detected person.
        truth: (17, 2) labelled keypoints, pixels.
        visible: (17,) COCO flags; keypoints flagged 0 are not compared.

    Returns:
        Index of the person, None if nobody has `MIN_CONFIDENT` keypoints over `CONFIDENT`.
    """
    best, nearest = None, np.inf
    for index, person in enumerate(people):
        confident = person[:, 2] > CONFIDENT
        if confident.sum() < MIN_CONFIDENT:
            continue
        labelled = np.asarray(visible) > 0
        compared = confident & labelled if (confident & labelled).any() else labelled
        compared = compared if compared.any() else confident
        distance = float(np.linalg.norm(person[compared, :2] - truth[compared], axis=1).mean())
        if distance < nearest:
            best, nearest = index, distance
    return best
