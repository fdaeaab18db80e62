import numpy as np
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation

from udfs.head_angles import (
    angle_error,
    angles,
    from_six,
    head_rotations,
    rotation_error,
    view_of,
)
from udfs.random_poses import random_poses
from udfs.standin import standin_path

FACING = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def poses():
    params = random_poses(40, 5)
    params["global_orient"] = Rotation.random(40, random_state=1).as_rotvec()
    return {name: params[name] for name in ("global_orient", "body_pose")}


def test_the_eyes_of_smplx_turn_with_the_head(poses):
    """In smplx's own output the eyes keep their place in the head, which is turned as we say."""
    model = smplx.create(str(standin_path()), model_type="smplx", use_pca=False, num_betas=10, batch_size=40)
    given = {name: torch.tensor(np.asarray(v), dtype=torch.float32) for name, v in poses.items()}
    joints = model(**given).joints.detach().numpy()
    still = model(**{name: torch.zeros_like(v) for name, v in given.items()}).joints.detach().numpy()
    rotation = head_rotations(poses)
    for eye in (23, 24):
        assert np.allclose(
            joints[:, eye] - joints[:, 15],
            np.einsum("nij,nj->ni", rotation, still[:, eye] - still[:, 15]),
            atol=1e-5,
        )


def test_angles_are_those_of_scipy():
    rotation = Rotation.random(200, random_state=2).as_matrix()
    yaw, pitch, roll = Rotation.from_matrix(FACING @ rotation).as_euler("YXZ", degrees=True).T
    assert np.allclose(angles(rotation), np.stack([roll, pitch, yaw], 1), atol=1e-6)


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ([0, 0, 0], (0, 0, 0)),
        ([0, 30, 0], (0, 0, 30)),  # its own left is +x
        ([20, 0, 0], (0, 20, 0)),  # the nose, +z, goes down
        ([0, 0, 10], (10, 0, 0)),
    ],
)
def test_a_head_that_is_turned_one_way_has_one_angle(turn, wanted):
    rotation = FACING @ Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    assert np.allclose(angles(rotation), wanted, atol=1e-9)


def test_errors_go_the_short_way_round():
    assert angle_error(np.array([170.0, 0, -170]), np.array([-170.0, 10, 170])) == pytest.approx(50 / 3)
    one, other = Rotation.random(50, random_state=3), Rotation.random(50, random_state=4)
    wanted = np.degrees((one.inv() * other).magnitude())
    assert np.allclose(rotation_error(one.as_matrix(), other.as_matrix()), wanted)


def test_the_view_turns_the_cameras_axis_to_the_ray():
    points = np.array([[10.0, 20], [100, 40], [64, 64]])
    focal, princpt = np.full((3, 2), 90.0), np.full((3, 2), 64.0)
    rays = np.concatenate([(points - princpt) / focal, np.ones((3, 1))], 1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    view = view_of(points, focal, princpt)
    assert np.allclose(view[:, :, 2], rays)
    assert np.allclose(view @ view.transpose(0, 2, 1), np.eye(3))
    # No roll: the camera's horizon stays level.
    assert np.allclose(view[:, 1, 0], 0)


def test_six_numbers_are_the_first_two_columns():
    rotation = Rotation.random(20, random_state=6).as_matrix()
    six = np.concatenate([rotation[:, :, 0] * 3, rotation[:, :, 1] + 0.4 * rotation[:, :, 0]], 1)
    assert np.allclose(from_six(six), rotation)
    assert np.isfinite(from_six(np.zeros((1, 6)))).all()
