import numpy as np
from scipy.spatial.transform import Rotation

from schemas.smplx_params import SMPLX_PARAMS
from udfs.body import Body
from udfs.random_poses import random_poses


def test_shapes_names_and_seeds():
    a, b, c = random_poses(40, 1), random_poses(40, 1), random_poses(40, 2)
    assert set(a) == set(SMPLX_PARAMS) - {"transl"}
    for name, array in a.items():
        assert array.shape == (40, SMPLX_PARAMS[name])
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert np.array_equal(array, b[name])
        assert not np.array_equal(array, c[name])
    assert len(random_poses(1, 0)["betas"]) == 1


def test_joints_stay_within_what_they_can_do():
    pose = random_poses(3000, 0)["body_pose"].reshape(-1, 21, 3)
    angle = np.degrees(np.linalg.norm(pose, axis=-1))
    limits = {"hip": (0, 1, 140), "knee": (3, 4, 141), "ankle": (6, 7, 90), "elbow": (17, 18, 146),
              "wrist": (19, 20, 120), "neck": (11, 14, 70), "collar": (12, 13, 60)}  # fmt: skip
    for name, (left, right, most) in limits.items():
        assert angle[:, [left, right]].max() < most, name
    # Hinges: knees about +x, left elbows about -y, right ones about +y, and nothing else.
    for joint, axis, sign in ((3, 0, 1), (4, 0, 1), (17, 1, -1), (18, 1, 1)):
        assert np.abs(np.delete(pose[:, joint], axis, axis=1)).max() < 1e-5
        assert (sign * pose[:, joint, axis]).min() > -1e-5


def test_poses_are_diverse_and_mostly_upright():
    params = random_poses(1500, 0)
    up = Rotation.from_rotvec(params["global_orient"].astype(np.float64)).apply([0, 1, 0])[:, 1]
    assert 0.7 < (up > 0.7).mean() < 0.97
    joints = Body.load()(params).joints[:, :22]
    turn = Rotation.from_rotvec(params["global_orient"].astype(np.float64)).inv()
    local = np.stack([turn.apply(joints[:, j] - joints[:, 0]) for j in range(22)], axis=1)
    # Wrists reach all around the body, ankles spread in front, aside and behind.
    assert (local[:, 20].std(0) > 0.15).all()
    assert (local[:, 7].std(0)[1:] > 0.15).all()
    # Few poses are near twins.
    flat = local[:300].reshape(300, -1)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1) / 22**0.5
    np.fill_diagonal(distance, np.inf)
    assert np.median(distance.min(1)) > 0.08


def test_hands_are_outside_the_trunk():
    joints = Body.load()(random_poses(800, 3)).joints
    trunk = np.linspace(joints[:, 0], joints[:, 12], 9)
    for wrist in (20, 21):
        gap = np.linalg.norm(trunk - joints[:, wrist], axis=-1).min(0)
        assert (gap < 0.08).mean() < 0.01
