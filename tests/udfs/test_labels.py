import dataclasses
import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import smplx
import torch
import trimesh
from PIL import Image

from schemas.coco import KEYPOINT_NAMES, SMPLX_INDEX
from schemas.errors import RowError
from schemas.smplx_params import SMPLX_PARAMS
from udfs.body import Body
from udfs.columns import list_column, matrix
from udfs.labels import Labels
from udfs.rotations import wrap_rotvec
from udfs.standin import standin_path
from udfs.udf import Worker

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "smplx_wholebody_500.npz"
POSE = [name for name in SMPLX_PARAMS if name != "transl"]
LIST = pa.list_(pa.float32())


class Memory:
    """The lake's files, kept in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        return self.data[path]

    def write(self, path: str, data: bytes) -> None:
        self.data[path] = data


@pytest.fixture(scope="module")
def files() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def apply(files):
    return Labels().setup(Worker("cpu", files))


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


def samples(count: int, seed: int = 0, **changes) -> pa.Table:
    """Random people seen from random places; a keyword replaces a column, a scalar fills it."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 0.25, (count, SMPLX_PARAMS[name])) for name in POSE}
    if "global_orient" not in changes:
        arrays["global_orient"] = rng.normal(0, 1.5, (count, 3))
    columns = {
        "sample_id": rng.integers(-(2**62), 2**62, count),
        "gender": "neutral",
        **arrays,
        "camera_yaw": rng.uniform(-3, 3, count),
        "camera_elevation": rng.uniform(-0.4, 0.5, count),
        "camera_distance": rng.uniform(2.5, 4, count),
        "camera_focal": rng.uniform(150, 300, count),
        "camera_margin": 0.1,
        "image_height": 128,
        "image_width": 128,
        **changes,
    }
    kinds = {"sample_id": pa.int64(), "image_height": pa.int32(), "image_width": pa.int32()}
    table = {}
    for name, value in columns.items():
        if name in SMPLX_PARAMS:
            table[name] = list_column(np.broadcast_to(value, (count, SMPLX_PARAMS[name])), LIST)
        elif isinstance(value, str | list):
            table[name] = pa.array([value] * count if isinstance(value, str) else value)
        elif value is None:
            table[name] = pa.nulls(count, pa.float32())
        else:
            table[name] = pa.array(np.broadcast_to(value, count)).cast(
                kinds.get(name, pa.float32()), safe=False
            )
    return pa.table(table)


@pytest.fixture(scope="module")
def real_samples() -> pa.Table:
    if not REAL.is_file():
        pytest.skip(f"needs the real poses of {REAL.name}, which are not part of the project")
    with np.load(REAL, allow_pickle=False) as data:
        rows = slice(0, 500, 12)
        pose = {name: data[name][rows, : SMPLX_PARAMS[name]] for name in POSE if name in data.files}
    pose["global_orient"] = wrap_rotvec(pose["global_orient"])
    zeros = {name: np.zeros(3) for name in ("leye_pose", "reye_pose")}
    return samples(len(pose["body_pose"]), **pose, **zeros)


@pytest.fixture(scope="module", params=["random", "uncropped", "real"])
def case(request, apply) -> tuple[pa.Table, pa.Table]:
    """Samples and their labels."""
    if request.param == "real":
        table = request.getfixturevalue("real_samples")
    else:
        table = samples(12, camera_margin=None if request.param == "uncropped" else 0.1)
    return table, apply(table)


def blocks(labels: pa.Table, name: str, width: int) -> np.ndarray:
    """(N, k, width) float64."""
    values = matrix(labels, name).astype(np.float64)
    return values.reshape(len(values), -1, width)


def thighs(labels: pa.Table) -> np.ndarray:
    """(N,) metres from the left hip to the left knee."""
    joints = blocks(labels, "joints_3d", 3)
    return np.linalg.norm(joints[:, 1] - joints[:, 4], axis=1)


def posed(body: Body, labels: pa.Table) -> np.ndarray:
    return body({name: matrix(labels, name) for name in SMPLX_PARAMS}).vertices


def by_hand(points: np.ndarray, labels: pa.Table) -> np.ndarray:
    focal, princpt = (matrix(labels, n).astype(np.float64)[:, None] for n in ("focal", "princpt"))
    return points[..., :2] / points[..., 2:] * focal + princpt


def test_rows_follow_the_schema_and_the_samples(case):
    table, labels = case
    assert labels.schema.equals(Labels.outputs)
    assert labels["sample_id"].to_pylist() == table["sample_id"].to_pylist()
    assert sum(column.null_count for column in labels.columns) == 0


def test_reprojecting_joints_and_markers_gives_the_stored_pixels(case):
    _, labels = case
    for name in ("joints", "markers"):
        pixels = by_hand(blocks(labels, f"{name}_3d", 3), labels)
        np.testing.assert_allclose(pixels, blocks(labels, f"{name}_2d", 2), atol=1e-3)
    keypoints = blocks(labels, "joints_2d", 2)[:, SMPLX_INDEX]
    assert np.array_equal(keypoints, blocks(labels, "keypoints_2d", 2))


def test_smplx_on_the_stored_parameters_gives_the_stored_joints(case, tmp_path):
    _, labels = case
    path = shutil.copy(standin_path(), tmp_path / "SMPLX_NEUTRAL.npz")
    layer = smplx.create(str(path), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True)
    with torch.no_grad():
        out = layer(**{name: torch.tensor(matrix(labels, name)) for name in SMPLX_PARAMS})
    np.testing.assert_allclose(out.joints.numpy(), blocks(labels, "joints_3d", 3), atol=1e-4)


def test_the_pelvis_stands_at_the_cameras_distance(case):
    table, labels = case
    pelvis = blocks(labels, "joints_3d", 3)[:, 0]
    np.testing.assert_allclose(pelvis[:, :2], 0, atol=1e-5)
    np.testing.assert_allclose(pelvis[:, 2], table["camera_distance"].to_numpy(), atol=1e-5)


def test_only_the_view_changes_the_body_keeps_its_pose(case, body):
    """Distances between joints in camera space are those in the world."""
    table, labels = case
    world = body({name: matrix(table, name) for name in POSE}).joints.astype(np.float64)
    seen = blocks(labels, "joints_3d", 3)
    for other in (20, 8, 60):
        np.testing.assert_allclose(
            np.linalg.norm(world - world[:, [other]], axis=2),
            np.linalg.norm(seen - seen[:, [other]], axis=2),
            atol=1e-5,
        )


def test_the_box_is_the_projected_surface_clipped_to_the_image(case, body):
    _, labels = case
    surface = by_hand(posed(body, labels).astype(np.float64), labels)
    low, high = np.clip(surface.min(axis=1), 0, 128), np.clip(surface.max(axis=1), 0, 128)
    np.testing.assert_allclose(matrix(labels, "bbox"), np.concatenate([low, high - low], axis=1), atol=2e-3)


def test_a_crop_leaves_the_margin_and_no_crop_leaves_the_camera_alone(apply):
    cropped = apply(samples(8, camera_margin=0.25))
    assert np.allclose(matrix(cropped, "bbox")[:, 2:].max(axis=1) * 1.25, 128, atol=1e-3)
    table = samples(8, camera_margin=None)
    labels = apply(table)
    assert np.all(matrix(labels, "princpt") == 64)
    assert np.all(matrix(labels, "focal") == table["camera_focal"].to_numpy()[:, None])


def test_visible_means_that_a_ray_reaches_the_keypoint(case, body):
    """Nose, eyes and ears lie on the surface: a ray caster knows without a tolerance.

    Where an edge of the nose runs through a pixel of these small images, the buffer cannot know.
    """
    _, labels = case
    points = blocks(labels, "joints_3d", 3)[:, SMPLX_INDEX[:5]]
    visible = matrix(labels, "keypoints_visible")[:, :5]
    right: dict[int, list[bool]] = {1: [], 2: []}
    for vertices, targets, marks in zip(posed(body, labels), points, visible, strict=True):
        mesh = trimesh.Trimesh(vertices, body.faces, process=False)
        length = np.linalg.norm(targets, axis=1)
        rays = targets / length[:, None]
        hits, ray, _ = mesh.ray.intersects_location(np.zeros((5, 3)), rays, multiple_hits=True)
        for k in np.flatnonzero(marks):
            before = length[k] - np.linalg.norm(hits[ray == k], axis=1)
            if np.all(before < 0.003):
                right[2].append(marks[k] == 2)
            elif before.max() > 0.1:
                right[1].append(marks[k] == 1)
    for kind, answers in right.items():
        assert len(answers) >= 10
        assert np.mean(answers) >= 0.97, kind


NEUTRAL = {name: np.zeros(SMPLX_PARAMS[name]) for name in POSE}


def marks(apply, yaw: float, **changes) -> dict[str, int]:
    """Visibility by keypoint of one person with the arms down, from a level camera at this azimuth."""
    arms_down = np.zeros(63)
    arms_down[[15 * 3 + 2, 16 * 3 + 2]] = -1.0, 1.0
    settings = {**NEUTRAL, "body_pose": arms_down, "camera_yaw": np.deg2rad(yaw), "camera_elevation": 0.0}
    labels = apply(samples(1, **{**settings, "image_height": 256, "image_width": 256, **changes}))
    return dict(zip(KEYPOINT_NAMES, matrix(labels, "keypoints_visible")[0].tolist(), strict=True))


def test_a_person_who_faces_the_camera_hides_nothing(apply):
    front = marks(apply, 0)
    assert {k for k, v in front.items() if v != 2} <= {"left_ear", "right_ear"}


def test_a_persons_back_hides_the_face_and_not_the_limbs(apply):
    back = marks(apply, 180)
    assert all(back[k] == 1 for k in ("nose", "left_eye", "right_eye"))
    assert all(v == 2 for k, v in back.items() if KEYPOINT_NAMES.index(k) >= 5)


@pytest.mark.parametrize(("yaw", "near", "far"), [(90, "left", "right"), (-90, "right", "left")])
def test_a_profile_hides_the_far_side(apply, yaw, near, far):
    profile = marks(apply, yaw)
    for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        # Arms that hang down hide the hip behind them: what is before it is an arm, not its own flesh.
        if joint != "hip":
            assert profile[f"{near}_{joint}"] == 2, joint
        assert profile[f"{far}_{joint}"] == 1, joint


def test_what_leaves_the_image_is_outside(apply):
    close = marks(apply, 0, camera_margin=None, camera_focal=400.0, camera_distance=1.2)
    assert close["left_ankle"] == close["right_ankle"] == 0
    assert close["left_hip"] == 2


def test_the_control_image_is_the_file_that_the_row_names(case, files):
    _, labels = case
    surfaces = set()
    for row in labels.select(["control_path", "control_sha256", "coverage"]).to_pylist():
        data = files.read(row["control_path"])
        assert hashlib.sha256(data).hexdigest() == row["control_sha256"]
        image = np.asarray(Image.open(io.BytesIO(data)))
        assert image.shape == (128, 128, 3)
        assert image.any(axis=2).mean() == pytest.approx(row["coverage"], abs=0.002)
        surfaces.add(row["control_sha256"])
    assert len(surfaces) == len(labels)


def test_a_row_alone_gets_the_labels_and_the_picture_that_it_gets_in_a_batch(apply, files):
    sizes = [64, 96, 64, 128, 96, 64, 64]
    table = samples(7, image_height=sizes, image_width=[64, 128, 64, 128, 128, 64, 64])
    together = apply(table)
    assert together["image_height"].to_pylist() == sizes
    pictures = {path: files.read(path) for path in together["control_path"].to_pylist()}
    for row in range(7):
        assert apply(table.slice(row, 1)).equals(together.slice(row, 1))
    assert {path: files.read(path) for path in pictures} == pictures
    for row, data in zip(table.to_pylist(), pictures.values(), strict=True):
        assert Image.open(io.BytesIO(data)).size == (row["image_width"], row["image_height"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_distance": 0.3}, "behind the camera"),
        ({"camera_distance": 80.0}, "under 4.9%"),
        ({"camera_distance": 4000.0, "camera_margin": None}, "covers no pixel"),
    ],
)
def test_a_row_that_cannot_be_seen_is_refused_by_its_id(apply, changes, message):
    table = samples(1, seed=3, **changes)
    name = f"{table['sample_id'][0].as_py() & (2**64 - 1):016x}"
    with pytest.raises(RowError, match=message) as caught:
        apply(pa.concat_tables([samples(2, seed=4), table]))
    assert name in str(caught.value)


def test_no_rows_give_no_rows(apply):
    assert apply(samples(1).slice(0, 0)).equals(Labels.outputs.empty_table())


def test_another_body_is_another_fingerprint_and_other_files(tmp_path, files):
    with np.load(standin_path(), allow_pickle=False) as data:
        arrays = dict(data)
    paths = {}
    for folder, size in (("one", 1.0), ("two", 1.0), ("tall", 1.2)):
        (tmp_path / folder).mkdir()
        np.savez(
            tmp_path / folder / "SMPLX_NEUTRAL.npz", **{**arrays, "v_template": arrays["v_template"] * size}
        )
        paths[folder] = tmp_path / folder / "SMPLX_NEUTRAL.npz"
    one, two, tall = (Labels(body_file=path) for path in paths.values())
    assert one.fingerprint().value == two.fingerprint().value != tall.fingerprint().value
    table = samples(1)
    made = [udf.setup(Worker("cpu", files))(table)["control_path"][0].as_py() for udf in (one, tall)]
    assert made[0] != made[1]
    assert made[0].endswith(f"{table['sample_id'][0].as_py() & (2**64 - 1):016x}.png")


def test_a_folder_of_bodies_takes_each_rows_gender_and_one_body_takes_all(tmp_path, files, apply):
    with np.load(standin_path(), allow_pickle=False) as data:
        arrays = dict(data)
    np.savez(tmp_path / "SMPLX_MALE.npz", **{**arrays, "v_template": arrays["v_template"] * 1.1})
    shutil.copy(standin_path(), tmp_path / "SMPLX_FEMALE.npz")
    table = samples(3, gender=["male", "female", "male"], body_pose=np.zeros(63))
    labels = Labels(body_file=tmp_path).setup(Worker("cpu", files))(table)
    assert labels["gender"].to_pylist() == ["male", "female", "male"]
    single = apply(table)
    assert single["gender"].to_pylist() == ["neutral"] * 3
    np.testing.assert_allclose(thighs(labels) / thighs(single), [1.1, 1, 1.1], atol=1e-3)
    with pytest.raises(RowError, match=r"SMPLX_NEUTRAL\.npz"):
        Labels(body_file=tmp_path).setup(Worker("cpu", files))(samples(1))


def test_the_place_of_the_body_is_no_parameter_and_the_version_counts():
    class Later(Labels):
        version = 2

    assert "body_file" not in Labels(body_file=standin_path()).fingerprint().json
    assert Labels().fingerprint().value == Labels(body_file=standin_path()).fingerprint().value
    assert Later().fingerprint().value != Labels().fingerprint().value
    assert {f.name for f in dataclasses.fields(Labels)} == {"body_file"}
