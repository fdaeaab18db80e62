"""Angles of bodies whose angles are known, and of the same bodies turned by scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from udfs.posture import postures


def body(**moved: tuple[float, float, float]) -> np.ndarray:
    """(1, 22, 3) a person who faces the camera, arms hanging; x right, y down, z forward."""
    joints = np.zeros((22, 3))
    places = {
        "pelvis": (0, (0, 0, 3)), "left_hip": (1, (0.1, 0.05, 3)), "right_hip": (2, (-0.1, 0.05, 3)),
        "left_knee": (4, (0.1, 0.45, 3)), "right_knee": (5, (-0.1, 0.45, 3)),
        "left_ankle": (7, (0.1, 0.85, 3)), "right_ankle": (8, (-0.1, 0.85, 3)), "neck": (12, (0, -0.5, 3)),
        "left_shoulder": (16, (0.2, -0.45, 3)), "right_shoulder": (17, (-0.2, -0.45, 3)),
        "left_elbow": (18, (0.2, -0.2, 3)), "right_elbow": (19, (-0.2, -0.2, 3)),
        "left_wrist": (20, (0.2, 0.05, 3)), "right_wrist": (21, (-0.2, 0.05, 3)),
    }  # fmt: skip
    for name, (index, place) in places.items():
        joints[index] = moved.get(name, place)
    return joints[None]


def test_a_person_at_rest_has_no_angles():
    assert {k: v.tolist() for k, v in postures(body()).items()} == {
        "trunk_tilt": [0], "facing": [0], "arm_raise": [0], "elbow_bend": [0], "knee_bend": [0],
    }  # fmt: skip


def test_one_raised_arm_and_one_bent_knee_count():
    raised = body(right_elbow=(-0.2, -0.7, 3), right_wrist=(-0.2, -0.7, 2.75), left_ankle=(0.1, 0.45, 3.4))
    found = postures(raised)
    assert found["arm_raise"] == pytest.approx([180])
    assert found["elbow_bend"] == pytest.approx([90])
    assert found["knee_bend"] == pytest.approx([90])
    aside = body(left_elbow=(0.45, -0.45, 3), left_wrist=(0.7, -0.45, 3))
    assert postures(aside)["arm_raise"] == pytest.approx([90])


@pytest.mark.parametrize("angle", [-170, -90, -20, 45, 90, 135])
def test_turning_and_leaning_are_what_scipy_turned(angle):
    still = body(left_elbow=(0.4, -0.3, 2.9))
    # Seen from above, from the camera's side: towards the picture's right is about -y, as y points down.
    turned = Rotation.from_euler("y", -angle, degrees=True).apply(still[0])[None]
    assert postures(turned)["facing"] == pytest.approx([angle])
    leaning = Rotation.from_euler("z", angle, degrees=True).apply(still[0])[None]
    assert postures(leaning)["trunk_tilt"] == pytest.approx([abs(angle)])
    for name in ("arm_raise", "elbow_bend", "knee_bend"):
        assert postures(turned)[name] == pytest.approx(postures(still)[name], abs=1e-5)
