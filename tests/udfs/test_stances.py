import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from udfs.body import Body
from udfs.stances import (
    LAYOUT,
    WIDTH,
    Limb,
    Stance,
    as_row,
    joint_positions,
    mirrored,
    mirrored_rows,
    smplx_params,
)

PELVIS, L_HIP, R_HIP, L_KNEE, L_ANKLE = 0, 1, 2, 4, 7
L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = 16, 17, 18, 19, 20, 21


@pytest.fixture(scope="module")
def body():
    return Body.load()


def joints(body, *stances):
    params = smplx_params(np.stack([as_row(s) for s in stances]))
    return body({name: value.astype(np.float32) for name, value in params.items()}).joints


def direction(points, start, end):
    d = points[end] - points[start]
    return d / np.linalg.norm(d)


@pytest.mark.parametrize("to", [(0.1, -1, 0), (1, 0, 0), (0, 0, 1), (0.3, 1, 0.2), (0.6, -0.4, -0.5)])
@pytest.mark.parametrize("trunk", [{}, {"pitch": 40, "flex": 20}, {"twist": 30, "side": 15, "roll": -10}])
def test_arms_point_where_they_are_told_whatever_the_trunk_does(body, to, trunk):
    arm = Limb(to, 60)
    points = joints(body, Stance(left_arm=arm, right_arm=arm, **trunk))[0]
    want = np.array(to) / np.linalg.norm(to)
    # The rest pose's arms droop by a few degrees, and directions are relative to them.
    assert direction(points, L_SHOULDER, L_ELBOW) @ want > np.cos(np.radians(15))
    assert direction(points, R_SHOULDER, R_ELBOW) @ (want * [-1, 1, 1]) > np.cos(np.radians(15))
    for a, b, c in ((L_SHOULDER, L_ELBOW, L_WRIST), (R_SHOULDER, R_ELBOW, R_WRIST)):
        bend = np.degrees(np.arccos(direction(points, a, b) @ direction(points, b, c)))
        assert bend == pytest.approx(60, abs=12)


def test_elbows_bend_towards_the_pole_and_knees_backwards(body):
    hanging = Limb((0.1, -1, 0), 90, (0, 0, 1))
    points = joints(body, Stance(left_arm=hanging, left_leg=Limb((0, -1, 0), 90)))[0]
    assert direction(points, L_ELBOW, L_WRIST)[2] > 0.9
    assert direction(points, L_KNEE, L_ANKLE)[2] < -0.9


def test_knees_and_elbows_turn_about_one_axis_only():
    rows = np.stack([as_row(Stance())] * 200)
    rng = np.random.default_rng(0)
    for name in ("left_arm.to", "right_arm.to", "left_leg.to", "right_leg.to"):
        rows[:, LAYOUT[name]] = rng.normal(size=(200, 3))
    for name in ("left_arm.bend", "right_arm.bend", "left_leg.bend", "right_leg.bend"):
        rows[:, LAYOUT[name]] = rng.uniform(0, 140, (200, 1))
    pose = smplx_params(rows)["body_pose"].reshape(200, 21, 3)
    for joint, axis, sign in ((3, 0, 1), (4, 0, 1), (17, 1, -1), (18, 1, 1)):
        assert np.allclose(np.delete(pose[:, joint], axis, axis=1), 0, atol=1e-6)
        assert (sign * pose[:, joint, axis] >= -1e-9).all()


def test_level_feet_stand_level(body):
    squat = Limb((0.2, -0.5, 0.8), 80, (0.2, 0.5, 0.8))
    rest = body({"body_pose": np.zeros((1, 63), np.float32)}).joints[0]
    points = joints(body, Stance(), Stance(left_leg=squat, right_leg=squat, pitch=25))
    sole = (62, 60)  # heel and big toe of the left foot
    for p in points:
        assert abs((p[sole[1]] - p[sole[0]])[1] - (rest[sole[1]] - rest[sole[0]])[1]) < 0.06


def test_the_body_stands_on_the_floor(body):
    seat = Limb((0.16, -0.06, 1.0), 84, (0.05, 1, 0.1))
    stances = [Stance(), Stance(left_leg=seat, right_leg=seat), Stance(lift=0.3)]
    params = smplx_params(np.stack([as_row(s) for s in stances]))
    low = body({k: v.astype(np.float32) for k, v in params.items()}).vertices[..., 1].min(1)
    rest_pelvis = Body.load().joints[0][1]
    assert np.allclose(low - rest_pelvis, [0, 0, 0.3], atol=0.1)


def test_mirroring_exchanges_the_sides(body):
    stance = Stance(
        turn=30,
        roll=5,
        twist=20,
        look=10,
        left_arm=Limb((1, 0.2, 0.3), 40),
        right_leg=Limb((0.2, -1, 0.4), 30),
    )
    points = joints(body, stance, mirrored(stance))
    order = np.arange(22)
    for a, b in ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21)):
        order[[a, b]] = b, a
    assert np.allclose(points[1, order] * [-1, 1, 1], points[0, :22], atol=2e-3)
    row = as_row(stance)[None]
    assert np.array_equal(mirrored_rows(row)[0], as_row(mirrored(stance)))
    assert np.array_equal(mirrored_rows(mirrored_rows(row)), row)
    assert row.shape == (1, WIDTH)


def test_forward_kinematics_is_that_of_smplx(body):
    """Same rotations, nearly the same bones: joints agree with the body's to a few centimetres."""
    rng = np.random.default_rng(1)
    pose = rng.normal(0, 0.4, (20, 63))
    root = rng.normal(0, 1, (20, 3))
    points = body({"body_pose": pose.astype(np.float32), "global_orient": root.astype(np.float32)}).joints[
        :, :22
    ]
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(20, 21, 3, 3).transpose(1, 0, 2, 3)
    local = np.concatenate([np.broadcast_to(np.eye(3), (1, 20, 3, 3)), local])
    ours = joint_positions(Rotation.from_rotvec(root).as_matrix(), local).transpose(1, 0, 2)
    assert np.linalg.norm(ours - (points - points[:, :1]), axis=-1).max() < 0.12
