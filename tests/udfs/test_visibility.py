import numpy as np

from schemas.coco import KEYPOINT_NAMES
from udfs.body import Body
from udfs.raster import Fragments
from udfs.visibility import HIDDEN, OUTSIDE, SEEN, tolerances, visibility


def test_tolerances_are_the_thickness_of_the_limbs():
    found = dict(zip(KEYPOINT_NAMES, tolerances(Body.load()), strict=True))
    centimetres = {"shoulder": (5, 13), "elbow": (3, 9), "wrist": (2, 6), "hip": (9, 22), "knee": (4, 11)}
    for joint, (low, high) in centimetres.items():
        assert low / 100 < found[f"left_{joint}"] < high / 100, joint
        assert abs(found[f"left_{joint}"] - found[f"right_{joint}"]) < 0.01
    assert max(found[k] for k in ("nose", "left_eye", "right_ear")) <= 0.02


def test_a_point_is_hidden_by_what_is_nearer_than_its_tolerance_and_a_pixel():
    """A wall at 2 m on the left half of a 4 x 6 image; focal 100 px, so a pixel spans 2 cm there."""
    depth = np.full((1, 4, 6), np.inf, np.float32)
    depth[:, :, :3] = 2.0
    empty = Fragments(np.zeros((1, 4, 6), np.int32), np.zeros((1, 4, 6, 3), np.float32), depth)
    points = {
        (1.5, 1.5, 1.9): SEEN,
        (2.9, 0.1, 2.11): SEEN,
        (2.9, 0.1, 2.13): HIDDEN,
        (3.1, 0.1, 9.0): SEEN,
        (0.0, 0.0, 2.5): HIDDEN,
        (-0.1, 1.0, 1.0): OUTSIDE,
        (6.0, 1.0, 1.0): OUTSIDE,
        (1.0, 4.0, 1.0): OUTSIDE,
        (5.9, 3.9, 1.0): SEEN,
    }
    where = np.array(list(points))[None]
    tolerance = np.full(len(points), 0.1)
    got = visibility(where[..., :2], where[..., 2], empty, tolerance, np.array([[100.0, 100.0]]))
    assert got.dtype == np.int8
    assert got[0].tolist() == list(points.values())
