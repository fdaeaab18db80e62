"""The average skeleton against smplx itself."""

import numpy as np

from udfs.body import Body
from udfs.random_poses import random_poses
from udfs.skeleton import descriptor, upright_joints


def test_joints_are_close_to_those_of_smplx():
    pose = random_poses(64, 1)["body_pose"]
    joints = Body.load(None)({"body_pose": pose}).joints[:, :22]
    off = np.linalg.norm(joints - joints[:, :1] - upright_joints(pose), axis=-1)
    assert off.mean() < 0.03
    assert off.max() < 0.1


def test_distance_of_descriptors_is_that_of_the_joints():
    pose = random_poses(8, 2)["body_pose"]
    joints, points = upright_joints(pose), descriptor(pose)
    off = joints[:1] - joints
    assert np.allclose(
        np.linalg.norm(points[:1] - points, axis=1), np.sqrt((off**2).sum(-1).mean(1)), atol=1e-6
    )
