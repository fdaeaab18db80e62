import numpy as np

from schemas.coco import FLIP
from udfs.keypoint_augmentation import make_batch
from udfs.keypoint_network import SIZE
from udfs.keypoint_renders import SIDE, Renders

LEVELS = np.linspace(60, 255, 17)
"""A grey level for each keypoint: the pictures below are blue, the person green with such dots."""


def dotted(count=6, seed=0):
    """Renders whose every keypoint is a dot of its own brightness in the red channel."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, SIDE, SIDE, 4), np.uint8)
    pictures[..., 2] = 120
    keypoints = np.zeros((count, 17, 2), np.float32)
    for i in range(count):
        pictures[i, 40:220, 70:190] = (0, 130, 0, 255)
        grid = np.stack(np.meshgrid(np.linspace(80, 180, 5), np.linspace(52, 208, 5)), -1).reshape(-1, 2)
        keypoints[i] = grid[rng.permutation(25)[:17]].round()
        for k, (x, y) in enumerate(keypoints[i].astype(int)):
            pictures[i, y - 6 : y + 6, x - 6 : x + 6, 0] = LEVELS[k]
    boxes = np.tile(np.array([70, 40, 120, 180], np.float32), (count, 1))
    backgrounds = np.full((2, SIDE, SIDE, 3), (0, 0, 120), np.uint8)
    return Renders(pictures, backgrounds, keypoints, np.full((count, 17), 2, np.int8), boxes)


def test_labels_follow_the_picture_through_every_placement_and_mirroring():
    batch = make_batch(dotted(), 60, np.random.default_rng(1), difficulty=0.0)
    plain = mirrored = 0
    for picture, points in zip(batch.pictures, batch.keypoints[:, 0], strict=True):
        inside = points[:, 2] > 0
        if not inside.any():
            continue
        x, y = points[inside, :2].astype(int).T
        seen = picture[np.clip(y, 0, SIZE - 1), np.clip(x, 0, SIZE - 1), 0].astype(float)
        as_is = np.abs(seen - LEVELS[inside])
        flipped = np.abs(seen - LEVELS[list(FLIP)][inside])
        plain += np.median(as_is) < 3
        mirrored += np.median(flipped) < 3
        assert min(np.median(as_is), np.median(flipped)) < 3
    assert plain > 15
    assert mirrored > 15


def test_boxes_hold_the_person():
    batch = make_batch(dotted(), 40, np.random.default_rng(2), difficulty=0.0)
    for picture, box, state in zip(batch.pictures, batch.boxes[:, 0], batch.state[:, 0], strict=True):
        if state != 1:
            continue
        rows, columns = np.nonzero(picture[..., 1] > 65)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(edges, [*box[:2], *(box[:2] + box[2:])], atol=1.01)


def test_hard_pictures_have_nobody_one_and_several_people():
    batch = make_batch(dotted(), 120, np.random.default_rng(3))
    people = (batch.state != 0).sum(1)
    assert set(people.tolist()) == {0, 1, 2, 3}
    present = batch.keypoints[..., 2] > 0
    assert (batch.keypoints[present][:, :2] >= 0).all()
    assert (batch.keypoints[present][:, :2] < SIZE).all()
    assert present[batch.state == 1].sum(-1).min() >= 4


def test_a_seed_makes_the_same_batch_again():
    first, second = (make_batch(dotted(), 8, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.pictures, second.pictures)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
