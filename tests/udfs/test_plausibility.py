"""Real motion is plausible, broken poses are not; each fault against scipy, trimesh or plain numpy."""

import numpy as np
import pyarrow as pa
import pytest
import trimesh
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from schemas.errors import RowError
from schemas.source import PoseSource
from schemas.tables import POSES, SCORES_PLAUSIBILITY
from udfs import capsules
from udfs.body import Body
from udfs.capsules import body_points, penetration
from udfs.columns import list_column, matrix
from udfs.joint_limits import joint_excess
from udfs.motions import motion_names, motion_params
from udfs.plausibility import _MASS, Plausibility, imbalance
from udfs.pose_files import read_pose_file
from udfs.random_poses import random_poses
from udfs.skeleton import upright_joints
from udfs.standin_skeleton import BODY_JOINTS
from udfs.udf import Worker

FAULTS = ("joint_excess", "penetration", "tilt", "imbalance")


def score(global_orient, body_pose, pose_ids=None):
    ids = range(len(body_pose)) if pose_ids is None else pose_ids
    columns = {"pose_id": pa.array(ids, pa.int64())}
    for name, values in (("global_orient", global_orient), ("body_pose", body_pose)):
        columns[name] = list_column(np.asarray(values, np.float32), POSES.field(name).type)
    return Plausibility().setup(Worker(device="cpu", files=None))(pa.table(columns))


def scores(*pose):
    return score(*pose)["plausibility"].to_numpy()


def posed(**degrees):
    """(1, 63) with these joints' rotation vectors."""
    pose = np.zeros((1, 21, 3))
    for joint, turn in degrees.items():
        pose[0, BODY_JOINTS.index(joint) - 1] = np.radians(turn)
    return pose.reshape(1, 63)


def mirrored(body_pose):
    twins = [n.replace("left_", "@").replace("right_", "left_").replace("@", "right_") for n in BODY_JOINTS]
    swap = [BODY_JOINTS.index(twins[i]) - 1 for i in range(1, 22)]
    return (body_pose.reshape(-1, 21, 3)[:, swap] * [1, -1, -1]).reshape(-1, 63)


@pytest.fixture(scope="module")
def motions():
    params = [motion_params(name) for name in motion_names()]
    return tuple(np.concatenate([p[name] for p in params]) for name in ("global_orient", "body_pose"))


@pytest.fixture(scope="module")
def drawn():
    params = random_poses(300, 6)
    return params["global_orient"], params["body_pose"]


def test_rows_hold_what_the_schema_says(drawn):
    out = score(*drawn, pose_ids=range(1000, 1300))
    assert out.schema.equals(pa.schema([f for f in SCORES_PLAUSIBILITY if f.name != "fingerprint"]))
    assert out["pose_id"].to_pylist() == list(range(1000, 1300))
    values = np.stack([out[name].to_numpy() for name in ("plausibility", *FAULTS)])
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values[0].max() <= 1


def test_motions_and_varied_poses_are_plausible(motions, drawn):
    assert np.quantile(scores(*motions), 0.01) > 0.5
    assert np.quantile(scores(*drawn), 0.05) > 0.5
    assert np.median(scores(*drawn)) > 0.95


@pytest.mark.parametrize("name", ["amass_smplh_601frames", "smplx_wholebody_500"])
def test_real_poses_are_plausible(real_data, name):
    data = (real_data / f"{name}.npz").read_bytes()
    poses = read_pose_file(data, f"{name}.npz", PoseSource(name="real", path="real")).poses
    found = scores(matrix(poses, "global_orient"), matrix(poses, "body_pose"))
    assert np.quantile(found, 0.05) > 0.5
    assert np.median(found) > 0.95


@pytest.mark.parametrize(
    ("joints", "turn"),
    [
        (("left_knee",), (-60, 0, 0)),
        (("right_knee",), (-60, 0, 0)),
        (("left_knee",), (0, 0, 70)),
        (("left_elbow",), (0, 0, 90)),
        (("right_elbow",), (0, 0, 90)),
        (("right_elbow",), (0, -75, 0)),
        (("head",), (0, 150, 0)),
        (("neck", "head"), (0, 75, 0)),
        (("spine1", "spine2", "spine3"), (0, 34, 0)),
        (("left_hip",), (90, 0, 0)),
        (("right_shoulder",), (0, 0, 170)),
        (("left_shoulder",), (0, -10, -120)),
    ],
)
def test_a_broken_joint_spoils_any_pose(drawn, joints, turn):
    orient, pose = drawn
    broken = pose.copy().reshape(-1, 21, 3)
    for joint in joints:
        broken[:, BODY_JOINTS.index(joint) - 1] = np.radians(turn)
    assert (scores(orient, broken.reshape(-1, 63)) < 0.5).mean() > 0.99


def test_joints_at_random_are_told_from_motion_every_time(motions, drawn):
    turns = Rotation.random(300 * 21, rng=np.random.default_rng(0)).as_rotvec().reshape(300, 63)
    assert scores(drawn[0], turns).max() < scores(*motions).min()


def test_an_arm_through_the_trunk_is_deep_in_it():
    # Down and inwards: the left forearm comes out of the right hip.
    row = score(np.zeros((1, 3)), posed(left_shoulder=(0, 0, -105), left_elbow=(0, 0, -30))).to_pylist()[0]
    assert row["penetration"] > 0.1
    assert row["joint_excess"] < 0.01
    assert row["plausibility"] < 0.1


@pytest.mark.parametrize(
    ("turn", "expected"),
    [((0, 70, 0), 0), ((90, 0, 0), np.pi / 2), ((0, 0, -90), np.pi / 2), ((180, 0, 0), np.pi)],
)
def test_only_standing_on_the_head_counts_against_a_pose(turn, expected):
    row = score(np.radians([turn]), np.zeros((1, 63))).to_pylist()[0]
    # The neck is a little behind the pelvis.
    assert row["tilt"] == pytest.approx(expected, abs=0.07)
    assert row["plausibility"] < 0.2 if expected > 3 else row["plausibility"] > 0.95


def test_upside_down_motion_is_implausible(motions):
    orient, pose = motions
    standing = score(orient, pose)["tilt"].to_numpy() < 0.4
    over = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(orient)).as_rotvec()
    assert standing.sum() > 100
    assert scores(over[standing], pose[standing]).max() < 0.5


def test_a_limb_beyond_its_limits_is_as_far_as_it_was_turned():
    def hip(x, z, twist):
        swing = Rotation.from_rotvec(np.radians([x, 0, z]))
        return np.degrees((swing * Rotation.from_rotvec([0, np.radians(twist), 0])).as_rotvec())

    def excess(**joints):
        return np.degrees(joint_excess(posed(**joints))[0])

    assert excess(left_hip=hip(-100, 40, 50)) == 0
    assert excess(left_hip=hip(-155, 0, 75)) == pytest.approx(25)
    assert excess(left_hip=hip(0, -65, 0)) == pytest.approx(20)
    assert excess(right_hip=hip(0, 65, 0)) == pytest.approx(20)
    assert excess(right_hip=hip(0, -65, 0)) == 0
    assert excess(left_knee=(-60, 0, 0), right_knee=(-30, 0, 0)) == pytest.approx(50)
    assert excess(left_elbow=(0, -150, 0), right_elbow=(0, 150, 0)) == 0
    assert excess(left_elbow=(0, 45, 0)) == pytest.approx(30)
    assert excess(neck=(0, 50, 0), head=(0, 50, 0)) == pytest.approx(5)


def test_the_mirror_image_and_a_full_turn_more_are_as_far_beyond(drawn):
    pose = drawn[1] + np.random.default_rng(1).normal(0, 0.6, drawn[1].shape)
    excess = joint_excess(pose)
    assert (excess > 0.1).mean() > 0.9
    assert np.allclose(joint_excess(mirrored(pose)), excess)
    joints = pose.reshape(-1, 21, 3)
    longer = joints * (1 + 2 * np.pi / np.linalg.norm(joints, axis=-1, keepdims=True))
    assert np.allclose(joint_excess(longer.reshape(-1, 63)), excess)
    assert joint_excess(np.zeros((1, 63)))[0] == 0


def test_depth_of_penetration_is_that_of_dense_points_on_the_bones():
    turns = Rotation.random(8 * 21, rng=np.random.default_rng(3)).as_rotvec().reshape(8, 63)
    points = body_points(upright_joints(turns))
    share = np.linspace(0, 1, 80)[:, None]
    deepest = np.zeros(len(points))
    for a, b in capsules._pairs():
        bones = []
        for start, end, begin, _ in (capsules._PARTS[a], capsules._PARTS[b]):
            way = points[:, None, end] - points[:, None, start]
            bones.append(points[:, None, start] + (begin + (1 - begin) * share) * way)
        gap = np.linalg.norm(bones[0][:, :, None] - bones[1][:, None], axis=-1).min((1, 2))
        deepest = np.maximum(deepest, capsules._PARTS[a][3] + capsules._PARTS[b][3] - gap)
    assert (deepest > 0.03).sum() > 3
    assert np.allclose(penetration(points), deepest, atol=3e-3)


def test_the_rest_pose_does_not_penetrate_itself():
    assert penetration(body_points(upright_joints(np.zeros((1, 63)))))[0] == 0


def test_imbalance_is_the_distance_from_the_hull_of_what_is_near_the_floor(drawn):
    turns = Rotation.random(60, rng=np.random.default_rng(5)).as_matrix()
    points = body_points(upright_joints(drawn[1][:60])) @ turns.swapaxes(1, 2)
    angle = np.linspace(0, 2 * np.pi, 120)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    expected = []
    for body in points:
        bottom = body[:, 1] - capsules.FLESH
        near = bottom <= bottom.min() + 0.1
        floor = (body[near][:, None, [0, 2]] + capsules.FLESH[near, None, None] * ring).reshape(-1, 2)
        hull, centre = ConvexHull(floor), (_MASS @ body)[[0, 2]]
        start, end = floor[hull.simplices].swapaxes(0, 1)
        along = ((centre - start) * (end - start)).sum(1) / ((end - start) ** 2).sum(1)
        nearest = start + np.clip(along, 0, 1)[:, None] * (end - start)
        outside = (hull.equations[:, :2] @ centre + hull.equations[:, 2]).max() > 0
        expected.append(np.linalg.norm(centre - nearest, axis=1).min() if outside else 0)
    assert (np.array(expected) > 0.05).sum() > 20
    assert (np.array(expected) == 0).sum() > 2
    assert np.allclose(imbalance(points), expected, atol=5e-4)


def test_the_centre_of_mass_is_that_of_the_mesh(drawn):
    pose = drawn[1][:3]
    body = Body.load(None)
    meshes = body({"body_pose": pose})
    points = body_points(upright_joints(pose))
    for i in range(len(pose)):
        mesh = trimesh.Trimesh(meshes.vertices[i] - meshes.joints[i, 0], body.faces, process=False)
        assert np.linalg.norm(mesh.center_mass - _MASS @ points[i]) < 0.06


def test_a_thrown_body_is_less_balanced_than_a_standing_one():
    standing, leaning = score(np.radians([[0, 0, 0], [50, 0, 0]]), np.zeros((2, 63))).to_pylist()
    assert standing["imbalance"] == 0
    assert leaning["imbalance"] > 0.5
    assert leaning["plausibility"] < standing["plausibility"]


def test_batches_change_nothing_and_neither_does_the_heading(motions, monkeypatch):
    orient, pose = motions
    whole = score(orient, pose)
    turned = (Rotation.from_rotvec([0, 1.3, 0]) * Rotation.from_rotvec(orient)).as_rotvec()
    turned = score(turned, pose)
    assert np.allclose(turned["imbalance"], whole["imbalance"], atol=1e-3)
    assert np.allclose(turned["plausibility"], whole["plausibility"], atol=1e-4)
    monkeypatch.setattr("udfs.plausibility._CHUNK", 50)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert score(orient, pose).equals(whole)


def test_a_pose_that_is_no_number_is_named(drawn):
    orient, pose = drawn[0].copy(), drawn[1]
    orient[7] = np.inf
    with pytest.raises(RowError, match=r"pose 1007: its global_orient holds NaN or infinity"):
        score(orient, pose, pose_ids=range(1000, 1300))


def test_no_rows_give_no_rows():
    out = score(np.empty((0, 3)), np.empty((0, 63)))
    assert out.num_rows == 0
    assert out.schema.equals(Plausibility.outputs)
