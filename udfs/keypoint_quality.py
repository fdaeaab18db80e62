"""How well a keypoint network tells pictures that show their labels from pictures that do not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from udfs.keypoint_network import KeypointNetwork, People
from udfs.oks import match, oks


@dataclass(frozen=True)
class Quality:
    """Figures of one set of pictures with one labelled person each.

    Attributes:
        matching: (N,) OKS of each picture against its own label, 0 where nobody is matched.
        shuffled: (N,) OKS against another picture's label whose box is the most like its own.
        counts: (N,) people found.
    """

    matching: np.ndarray
    shuffled: np.ndarray
    counts: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.matching))

    @property
    def auc(self) -> float:
        """Area under the ROC curve of "the picture matches its label" with OKS as the score."""
        return area_under_roc(self.matching, self.shuffled)


def measure(
    network: KeypointNetwork,
    pictures: Sequence[np.ndarray],
    keypoints: np.ndarray,
    visible: np.ndarray,
    boxes: np.ndarray,
    *,
    batch: int = 32,
) -> Quality:
    """Figures of N pictures; keypoints (N, 17, 2), visible (N, 17), boxes (N, 4) x, y, width, height."""
    found: list[People] = []
    for start in range(0, len(pictures), batch):
        found += network.detect(list(pictures[start : start + batch]))
    other = similar(boxes)
    return Quality(
        np.array([agreement(p, keypoints[i], visible[i]) for i, p in enumerate(found)]),
        np.array([agreement(p, keypoints[other[i]], visible[other[i]]) for i, p in enumerate(found)]),
        np.array([len(p.scores) for p in found]),
    )


def agreement(people: People, truth: np.ndarray, visible: np.ndarray) -> float:
    """OKS of the person that a label (17, 2), (17,) speaks of; 0 if there is none or nothing is labelled."""
    index = match(people.keypoints, truth, visible)
    if index is None or not (np.asarray(visible) > 0).any():
        return 0.0
    area = people.boxes[index, 2] * people.boxes[index, 3]
    return float(oks(people.keypoints[None, index, :, :2], truth[None], visible[None], area[None])[0])


def similar(boxes: np.ndarray) -> np.ndarray:
    """(N,) the other row whose box is most like each: centre and size, as shares of its own larger side.

    Labels exchanged like this sit where the person is and are as large: what is left to tell them apart
    is the pose.
    """
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    place = np.concatenate([middle, boxes[:, 2:]], axis=1)
    scale = np.maximum(boxes[:, 2:].max(1), 1)[:, None]
    distance = np.abs(place[:, None] - place[None]).sum(-1) / scale
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(1)


def area_under_roc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))
