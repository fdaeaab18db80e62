import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from schemas.coco import KEYPOINT_NAMES, SMPLX_INDEX
from schemas.errors import InputError
from udfs.body import Body
from udfs.camera import camera_params, project
from udfs.pose_features import FEATURES, PARAMS, PARTS, pose_features
from udfs.random_poses import random_poses
from udfs.raster import rasterize
from udfs.visibility import HIDDEN, tolerances, visibility

POSES = 48


@pytest.fixture(scope="module")
def seen():
    """Parameters in camera space, yaw, elevation, smplx's joints, and the keypoints that the mesh hides."""
    body = Body.load()
    world = random_poses(POSES, 11)
    rng = np.random.default_rng(12)
    yaw, elevation = rng.uniform(-np.pi, np.pi, POSES), rng.uniform(-0.1, 0.3, POSES)
    pelvis = body.pelvis(world["betas"], world["expression"])
    params = camera_params(world, pelvis, yaw, elevation, np.full(POSES, 3.0))
    out = body(params)
    focal, princpt = np.full((POSES, 2), 130.0), np.full((POSES, 2), 64.0)
    fragments = rasterize(out.vertices, body.faces, focal, princpt, 128, 128)
    joints = out.joints[:, SMPLX_INDEX]
    shown = visibility(project(joints, focal, princpt), joints[..., 2], fragments, tolerances(body), focal)
    return params, yaw, elevation, out.joints, shown == HIDDEN


@pytest.fixture(scope="module")
def features(seen):
    return pose_features(*seen[:3])


def columns(features, *names):
    return features[:, [FEATURES.index(name) for name in names]].astype(np.float64)


def test_names_are_unique_and_every_one_has_a_part():
    assert len(set(FEATURES)) == len(FEATURES) == len(PARTS)
    assert {"left_knee.r6d.0", "camera.elevation", "wrist_gap", "left_wrist.x"} <= set(FEATURES)
    assert PARTS["left_knee.r6d.0"] == PARTS["left_foot.z"] == "left_leg"
    assert PARTS["right_wrist.x"] == "right_arm"
    assert PARTS["pelvis.r6d.5"] == "orientation"
    assert PARTS["spine2.y"] == "torso"
    assert PARTS["neck.r6d.1"] == PARTS["head.x"] == "head"


def test_they_are_float32_and_finite(features):
    assert features.shape == (POSES, len(FEATURES))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize(("joint", "index"), [("pelvis", -1), ("left_hip", 0), ("right_wrist", 20)])
def test_rotations_are_two_columns_of_scipys_matrices(seen, features, joint, index):
    params = seen[0]
    rotvec = params["global_orient"] if index < 0 else params["body_pose"][:, 3 * index : 3 * index + 3]
    expected = Rotation.from_rotvec(rotvec).as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(POSES, 6)
    got = columns(features, *(f"{joint}.r6d.{i}" for i in range(6)))
    assert np.allclose(got, expected, atol=1e-6)


def test_a_full_turn_more_is_the_same_pose(seen, features):
    params, yaw, elevation, *_ = seen
    body_pose = params["body_pose"].astype(np.float64).reshape(POSES, 21, 3)
    angle = np.linalg.norm(body_pose, axis=-1, keepdims=True)
    turned = (body_pose * (1 + 2 * np.pi / np.where(angle > 0, angle, np.inf))).reshape(POSES, 63)
    again = pose_features({**params, "body_pose": turned}, yaw + 2 * np.pi, elevation)
    near = np.isclose(again, features, atol=1e-4)
    # At the rim of a limb, rounding decides what is hidden.
    assert near.mean() > 0.999


def test_joints_are_near_those_of_smplx_in_the_cameras_frame(seen, features):
    joints = seen[3]
    for name, index in (("left_wrist", 20), ("right_ankle", 8), ("head", 15), ("spine3", 9)):
        got = columns(features, *(f"{name}.{axis}" for axis in "xyz"))
        off = np.linalg.norm(got - (joints[:, index] - joints[:, 0]), axis=1)
        assert off.mean() < 0.06, name
    gap = np.linalg.norm((joints[:, 20] - joints[:, 21])[:, :2], axis=1)
    assert np.corrcoef(gap, columns(features, "wrist_gap")[:, 0])[0, 1] > 0.98
    height = np.ptp(joints[:, :, 1], axis=1)
    assert np.corrcoef(height, columns(features, "extent.y")[:, 0])[0, 1] > 0.95


def test_what_is_hidden_follows_what_the_depth_buffer_hides(seen, features):
    truth = seen[4]
    hidden = columns(features, *(f"{name}.hidden" for name in KEYPOINT_NAMES)) > 0.5
    assert (hidden == truth).mean() > 0.85
    assert np.corrcoef(hidden.ravel(), truth.ravel())[0, 1] > 0.65
    share = columns(features, "visible_share")[:, 0]
    assert np.allclose(share, 1 - hidden.mean(axis=1))
    assert np.corrcoef(share, 1 - truth.mean(axis=1))[0, 1] > 0.7


def test_a_back_hides_the_face_and_a_front_shows_it():
    params = {"global_orient": np.array([[np.pi, 0, 0], [0, 0, np.pi]]), "body_pose": np.zeros((2, 63))}
    features = pose_features({**params, "betas": np.zeros((2, 10))}, np.zeros(2), np.zeros(2))
    face = columns(features, "nose.hidden", "left_eye.hidden", "right_eye.hidden")
    assert face.tolist() == [[0, 0, 0], [1, 1, 1]]
    facing = columns(features, "head.facing.z", "chest.facing.z")
    assert np.allclose(facing, [[-1, -1], [1, 1]], atol=1e-6)


def test_a_row_does_not_depend_on_its_batch(seen, features):
    params, yaw, elevation, *_ = seen
    some = slice(5, 8)
    alone = pose_features({name: value[some] for name, value in params.items()}, yaw[some], elevation[some])
    assert np.array_equal(alone, features[some])
    times = 24  # several chunks
    many = {name: np.tile(params[name], (times, 1)) for name in PARAMS}
    tiled = pose_features(many, np.tile(yaw, times), np.tile(elevation, times))
    assert np.array_equal(tiled, np.tile(features, (times, 1)))


def test_no_rows_give_no_rows():
    params = {"global_orient": np.zeros((0, 3)), "body_pose": np.zeros((0, 63)), "betas": np.zeros((0, 10))}
    assert pose_features(params, np.zeros(0), np.zeros(0)).shape == (0, len(FEATURES))


@pytest.mark.parametrize("name", [*PARAMS, "yaw", "elevation"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_rows_and_the_parameter(seen, name, value):
    params, yaw, elevation, *_ = seen
    values = {**params, "yaw": yaw, "elevation": elevation}
    values[name] = values[name].copy()
    values[name][[3, 7]] = value
    with pytest.raises(InputError, match=rf"^{name}: rows 3, 7, not finite"):
        pose_features(values, values.pop("yaw"), values.pop("elevation"))


def test_a_parameter_that_is_missing_or_of_another_shape_is_named(seen):
    params, yaw, elevation, *_ = seen
    with pytest.raises(InputError, match="have no betas"):
        pose_features({k: v for k, v in params.items() if k != "betas"}, yaw, elevation)
    with pytest.raises(InputError, match=r"body_pose has shape \(48, 60\); \(48, 63\) was expected"):
        pose_features({**params, "body_pose": params["body_pose"][:, :60]}, yaw, elevation)
