"""The stand-in body: what smplx, the labels and a viewer of the pictures rely on."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
import trimesh
from smplx.joint_names import JOINT_NAMES

from schemas.errors import ModelError
from udfs import standin, standin_mesh, standin_solids
from udfs.standin_skeleton import PARENTS, rest_joints

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZES = {
    "global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3,
    "leye_pose": 3, "reye_pose": 3, "expression": 10, "betas": 10, "transl": 3,
}  # fmt: skip
J = {name: i for i, name in enumerate(JOINT_NAMES[:127])}
BODY_JOINT = {name: i - 1 for name, i in J.items() if 1 <= i <= 21}


@pytest.fixture(scope="module")
def arrays():
    with np.load(standin.standin_path(), allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


@pytest.fixture(scope="module")
def mesh(arrays):
    return trimesh.Trimesh(arrays["v_template"], arrays["f"].astype(np.int64), process=False)


@pytest.fixture(scope="module")
def forward():
    """Vertices (B, 10475, 3) and joints (B, 127, 3) of unmodified smplx, float64."""
    model = smplx.create(
        str(standin.standin_path()), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True,
        num_betas=10, num_expression_coeffs=10,
    )  # fmt: skip

    def run(**given):
        count = max((len(v) for v in given.values()), default=1)
        full = {name: np.zeros((count, size)) for name, size in SIZES.items()} | given
        with torch.no_grad():
            out = model(**{k: torch.tensor(np.asarray(v), dtype=torch.float32) for k, v in full.items()})
        return out.vertices.numpy().astype(np.float64), out.joints.numpy().astype(np.float64)

    return run


def body_pose(**degrees):
    pose = np.zeros((1, 63))
    for name, turn in degrees.items():
        pose[0, 3 * BODY_JOINT[name] : 3 * BODY_JOINT[name] + 3] = np.radians(turn)
    return pose


def volume(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0)


def edge_lengths(vertices, edges):
    return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=-1)


def test_file_has_the_layout_that_smplx_reads(arrays):
    layout = {
        "v_template": ((10475, 3), np.float32), "f": ((20946, 3), np.uint32),
        "shapedirs": ((10475, 3, 20), np.float32), "posedirs": ((10475, 3, 486), np.float32),
        "J_regressor": ((55, 10475), np.float32), "weights": ((10475, 55), np.float32),
        "kintree_table": ((2, 55), np.int64), "hands_componentsl": ((45, 45), np.float32),
        "hands_componentsr": ((45, 45), np.float32), "hands_meanl": ((45,), np.float32),
        "hands_meanr": ((45,), np.float32), "lmk_faces_idx": ((51,), np.int64),
        "lmk_bary_coords": ((51, 3), np.float32),
    }  # fmt: skip
    assert {k: (v.shape, v.dtype.type) for k, v in arrays.items()} == layout
    assert all(np.isfinite(v).all() for v in arrays.values())
    assert np.array_equal(arrays["kintree_table"][0], PARENTS)
    assert not arrays["hands_meanl"].any()


def test_skin_is_one_closed_surface_that_faces_outward(mesh):
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 1
    assert mesh.euler_number == 2
    assert 0.050 < mesh.volume < 0.080  # an adult of 50 to 80 kg
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}
    assert mesh.area_faces.min() > 0


def test_skin_is_mirror_symmetric(mesh):
    mirrored = mesh.vertices * [-1.0, 1.0, 1.0]
    away, _ = mesh.kdtree.query(mirrored)
    assert away.max() < 1e-7


def test_skin_does_not_run_through_itself_at_rest(mesh):
    # From a point just inside along the normal, an odd number of crossings leads out: the point is inside.
    probes = mesh.triangles_center[::7] - 2e-4 * mesh.face_normals[::7]
    assert mesh.contains(probes).mean() > 0.999


def test_proportions_are_an_adult_s(mesh):
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    height, span = high[1] - low[1], high[0] - low[0]
    assert 1.65 < height < 1.80
    assert 0.94 < span / height < 1.04
    joints = rest_joints()
    names = [JOINT_NAMES[i] for i in range(55)]
    crotch_to_floor = joints[names.index("left_hip"), 1] - low[1]
    assert 0.46 < crotch_to_floor / height < 0.53


def test_smplx_finds_its_picked_vertices_where_they_belong(mesh, forward):
    vertices, joints = (a[0] for a in forward())
    assert joints.shape == (127, 3)
    at = {name: joints[i] for name, i in J.items()}
    head = vertices[vertices[:, 1] > 0.2]
    assert at["nose"][2] > head[:, 2].max() - 1e-3
    assert at["nose"][0] == pytest.approx(0, abs=1e-6)
    assert at["left_ear"][0] > head[:, 0].max() - 8e-3
    for name in ("eye", "ear", "big_toe", "small_toe", "heel", "thumb", "index", "middle", "ring", "pinky"):
        left, right = at[f"left_{name}"], at[f"right_{name}"]
        assert left[0] > 0.005
        assert np.allclose(left, right * [-1, 1, 1], atol=1e-6)
    assert np.linalg.norm(at["left_eye"] - at["left_eye_smplhf"]) < 0.02
    assert at["left_eye"][2] > at["left_eye_smplhf"][2]
    foot = vertices[(vertices[:, 1] < -1.2) & (vertices[:, 0] > 0)]
    assert at["left_big_toe"][2] > foot[:, 2].max() - 2e-3
    assert at["left_heel"][2] < foot[:, 2].min() + 2e-3
    assert at["left_small_toe"][0] > at["left_big_toe"][0] + 0.04
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        last, tip = at[f"left_{finger}3"], at[f"left_{finger}"]
        along = (at[f"left_{finger}3"] - at[f"left_{finger}2"]) / np.linalg.norm(last - at[f"left_{finger}2"])
        assert 0.012 < (tip - last) @ along < 0.04
        # Nothing of this finger lies beyond its tip by more than a sliver.
        near = vertices[np.linalg.norm(vertices - tip, axis=1) < 0.008]
        assert ((near - tip) @ along).max() < 2e-3


def test_fingers_are_apart(arrays):
    # Neighbours at mid-finger: the skin of one is not the skin of the other.
    weights, vertices = arrays["weights"], arrays["v_template"]
    owner = weights.argmax(axis=1)
    for a, b in (("index", "middle"), ("middle", "ring"), ("ring", "pinky")):
        one = vertices[owner == J[f"left_{a}3"]]
        other = vertices[owner == J[f"left_{b}3"]]
        gap = np.linalg.norm(one[:, None] - other[None], axis=2).min()
        assert gap > 0.004


def test_landmarks_lie_on_the_face_in_ibug_order(mesh, forward):
    _, joints = forward()
    at = {name: joints[0, i] for name, i in J.items()}
    points = joints[0, 76:127]
    origins = points * [1, 1, 0] + [0, 0, 1]
    hits, rays, _ = mesh.ray.intersects_location(origins, np.tile([0.0, 0, -1], (51, 1)), multiple_hits=False)
    assert np.abs(hits[np.argsort(rays)] - points).max() < 2e-5  # on the skin, and seen from the front
    assert (points[:, 2] > 0.05).all()
    for name in JOINT_NAMES[76:127]:
        if name.startswith("left_"):
            assert np.allclose(at[name], at["right_" + name[5:]] * [-1, 1, 1], atol=2e-4), name
    brows, eyes = at["left_eye_brow3"][1], at["left_eye1"][1]
    assert brows > eyes > at["nose4"][1] > at["nose_middle"][1] > at["mouth_top"][1] > at["mouth_bottom"][1]
    assert at["right_eye_brow1"][0] < at["right_eye_brow5"][0] < 0 < at["left_eye_brow5"][0]
    assert at["right_mouth_1"][0] < at["right_mouth_3"][0] < 0
    assert at["lip_top"][1] > at["lip_bottom"][1]
    assert at["nose1"][1] > at["nose2"][1] > at["nose3"][1]
    assert at["right_eye1"][0] < at["right_eye4"][0]  # the outer corner comes first
    assert at["right_eye2"][1] > at["right_eye6"][1]


def test_weights_are_local(arrays):
    weights = arrays["weights"].astype(np.float64)
    assert (weights >= 0).all()
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert (weights > 0).sum(axis=1).max() <= 4
    assert (weights.max(axis=0) > 0.4).all()  # every joint moves something
    x, y = arrays["v_template"][:, 0], arrays["v_template"][:, 1]
    left = [i for i in range(55) if JOINT_NAMES[i].startswith("left_")]
    assert weights[x < -0.06][:, left].max() < 0.02  # nothing of the right side follows the left
    arm = [J[n] for n in ("left_elbow", "left_wrist")]
    assert weights[x < 0.25][:, arm].max() == 0
    assert weights[(y < -0.15) & (x < 0.25)][:, J["left_shoulder"]].max() < 0.02
    for a, b in (("index", "middle"), ("ring", "pinky"), ("index", "ring")):
        both = weights[:, J[f"left_{a}2"]] * weights[:, J[f"left_{b}2"]]
        assert both.max() == 0


def test_regressor_gives_the_joints(arrays):
    regressor = arrays["J_regressor"].astype(np.float64)
    assert (regressor >= 0).all()
    assert np.allclose(regressor.sum(axis=1), 1, atol=1e-5)
    assert (regressor > 0).sum(axis=1).max() < 1200
    assert np.abs(regressor @ arrays["v_template"] - rest_joints()).max() < 1e-4


def test_joints_stay_inside_the_body_for_unusual_shapes(arrays):
    faces = arrays["f"].astype(np.int64)
    inner = [
        J[n] for n in ("left_knee", "right_elbow", "left_hip", "spine2", "neck", "left_wrist", "right_ankle")
    ]
    for k in range(10):
        for amount in (-3.0, 3.0):
            shaped = arrays["v_template"] + amount * arrays["shapedirs"][:, :, k]
            joints = (arrays["J_regressor"] @ shaped)[inner]
            body = trimesh.Trimesh(shaped, faces, process=False)
            assert body.contains(joints).all(), (k, amount)


def test_shape_coefficients_do_what_they_are_for(arrays, forward):
    steps = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    faces = arrays["f"].astype(np.int64)

    def series(k, measure):
        betas = np.zeros((5, 10))
        betas[:, k] = steps
        vertices, joints = forward(betas=betas)
        return np.array([measure(v, j) for v, j in zip(vertices, joints, strict=True)])

    def distance(a, b):
        return lambda v, j: np.linalg.norm(j[J[a]] - j[J[b]])

    def ratio(a, b):
        return lambda v, j: a(v, j) / b(v, j)

    height = series(0, lambda v, j: np.ptp(v[:, 1]))
    assert (np.diff(height) > 0.04).all()
    assert (np.diff(height) < 0.09).all()
    mass = series(1, lambda v, j: volume(v, faces))
    assert (np.diff(mass) > 0.003).all()
    assert mass.min() > 0.04
    assert np.ptp(series(1, lambda v, j: np.ptp(v[:, 1]))) < 0.06
    leg, trunk = distance("left_hip", "left_ankle"), distance("pelvis", "neck")
    assert (np.diff(series(2, ratio(leg, trunk))) > 0).all()
    assert (np.diff(series(3, distance("left_shoulder", "left_wrist"))) > 0.005).all()
    assert (np.diff(series(4, distance("left_shoulder", "right_shoulder"))) > 0.005).all()
    assert (np.diff(series(5, distance("left_hip", "right_hip"))) > 0.002).all()
    assert (np.diff(series(6, lambda v, j: volume(v, faces))) > 0.0005).all()
    belly = series(7, lambda v, j: v[(np.abs(v[:, 1] + 0.27) < 0.04) & (np.abs(v[:, 0]) < 0.1), 2].max())
    assert (np.diff(belly) > 0.008).all()
    assert (np.diff(series(8, distance("nose", "left_ear"))) > 0.001).all()
    chest = series(9, lambda v, j: v[(np.abs(v[:, 1] + 0.045) < 0.03) & (np.abs(v[:, 0]) < 0.12), 2].max())
    assert (np.diff(chest) > 0.004).all()


def test_expressions_move_the_face_alone(arrays, forward):
    directions = arrays["shapedirs"][:, :, 10:]
    moved = np.linalg.norm(directions, axis=1)
    face = (arrays["v_template"][:, 1] > 0.13) & (arrays["v_template"][:, 2] > 0.0)
    assert moved[~face].max() < 1e-5
    assert (moved.max(axis=0) > 1e-3).all()
    assert moved.max() < 6e-3
    singular = np.linalg.svd(directions.reshape(-1, 10), compute_uv=False)
    assert singular[-1] > 0.05 * singular[0]  # ten different ones
    _, rest = forward()
    smile = np.zeros((1, 10))
    smile[0, 1] = 2
    _, joints = forward(expression=smile)
    corner = joints[0, J["left_mouth_1"]] - rest[0, J["left_mouth_1"]]
    assert corner[0] > 2e-3
    assert corner[1] > 2e-3


def test_jaw_opens_the_mouth(forward):
    _, rest = forward()
    _, joints = forward(jaw_pose=np.array([[0.3, 0.0, 0.0]]))
    gap = lambda j: j[0, J["mouth_top"], 1] - j[0, J["mouth_bottom"], 1]  # noqa: E731
    assert gap(joints) > gap(rest) + 0.015
    assert np.allclose(joints[0, J["nose"]], rest[0, J["nose"]], atol=1e-4)


@pytest.mark.parametrize(
    ("turns", "loss"),
    [
        ({"left_knee": (130, 0, 0)}, 0.0025),
        ({"left_elbow": (0, -130, 0)}, 0.0015),
        ({"left_hip": (-110, 0, 0)}, 0.0060),
        ({"left_shoulder": (0, 0, -75)}, 0.0140),
        ({"left_shoulder": (0, 0, 80)}, 0.0160),
        ({"left_wrist": (80, 0, 0)}, 0.0006),
        ({"left_hip": (0, 0, 60), "right_hip": (0, 0, -60)}, 0.0200),
    ],
)
def test_joints_keep_their_volume_when_they_bend(arrays, forward, turns, loss):
    faces = arrays["f"].astype(np.int64)
    vertices, _ = forward(body_pose=body_pose(**turns))
    rest = volume(arrays["v_template"].astype(np.float64), faces)
    assert abs(volume(vertices[0], faces) - rest) < loss * rest + 2e-4
    edges = standin_mesh.edges_of(faces)
    stretch = edge_lengths(vertices[0], edges) / edge_lengths(arrays["v_template"].astype(np.float64), edges)
    assert stretch.max() < 3.5
    assert np.percentile(stretch, 99.5) < 2.2


def test_pose_correctives_help(arrays, forward):
    # The same poses without them lose several times as much.
    faces = arrays["f"].astype(np.int64)
    rest = arrays["v_template"].astype(np.float64)
    share = arrays["weights"].astype(np.float64)
    for turns, joint in (({"left_knee": (120, 0, 0)}, 4), ({"left_hip": (-100, 0, 0)}, 1)):
        vertices, _ = forward(body_pose=body_pose(**turns))
        below = [j for j in range(55) if j == joint or joint in _ancestors(j)]
        angle = np.radians(next(iter(turns.values()))[0])
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        offset = rest - rest_joints()[joint]
        blended = rest + share[:, below].sum(axis=1, keepdims=True) * (offset @ turn.T - offset)
        lost = volume(rest, faces) - volume(blended, faces)
        lost_with = volume(rest, faces) - volume(vertices[0], faces)
        assert abs(lost_with) < 0.5 * lost


def _ancestors(joint):
    found = set()
    while PARENTS[joint] >= 0:
        joint = int(PARENTS[joint])
        found.add(joint)
    return found


def test_real_poses_neither_tear_nor_collapse(arrays, forward):
    path = DATA / "smplx_wholebody_500.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there: real whole-body poses are not part of the project")
    with np.load(path, allow_pickle=False) as data:
        keys = ("body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
        vertices, _ = forward(**{k: data[k][::5] for k in keys}, expression=data["expression"][::5, :10])
    faces = arrays["f"].astype(np.int64)
    rest = arrays["v_template"].astype(np.float64)
    edges = standin_mesh.edges_of(faces)
    stretch = np.stack([edge_lengths(v, edges) for v in vertices]) / edge_lengths(rest, edges)
    assert stretch.max() < 4.0
    assert np.percentile(stretch, 99.9) < 2.0
    ratio = np.array([volume(v, faces) for v in vertices]) / volume(rest, faces)
    assert ratio.min() > 0.95
    assert ratio.max() < 1.03


def test_building_twice_gives_the_same_numbers(arrays):
    again = standin.build_standin()
    assert again.keys() == arrays.keys()
    for key, value in again.items():
        assert value.dtype == arrays[key].dtype
        assert value.tobytes() == arrays[key].tobytes(), key


def _small_build():
    return {"v_template": np.arange(6.0)}


def test_cache_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEDREAMER_CACHE", str(tmp_path / "cache"))

    def fail():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(standin, "build_standin", fail)
    with pytest.raises(RuntimeError):
        standin.standin_path()
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(standin, "build_standin", _small_build)
    path = standin.standin_path()
    before = path.read_bytes()
    assert path.name.startswith("smplx_")  # smplx.create takes the model type from the name
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(standin, "build_standin", fail)  # found in the cache: not built again
    assert standin.standin_path() == path
    assert path.read_bytes() == before


def _build_into(folder):
    os.environ["POSEDREAMER_CACHE"] = folder
    standin.build_standin = _small_build
    return standin.standin_path().read_bytes()


def test_processes_that_build_at_once_agree(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        contents = pool.map(_build_into, [str(tmp_path)] * 4)
    assert len(set(contents)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_another_recipe_is_another_file(tmp_path, monkeypatch):
    source = Path(standin.__file__)
    for path in source.parent.glob("standin*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    digest = standin.recipe_digest()
    monkeypatch.setattr(standin, "__file__", str(tmp_path / source.name))
    assert standin.recipe_digest() == digest
    with (tmp_path / "standin_surface.py").open("a") as file:
        file.write("# wider\n")
    assert standin.recipe_digest() != digest


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("POSEDREAMER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="POSEDREAMER_CACHE"):
        standin.standin_path()


def test_any_count_is_met_on_a_ball():
    # The mesher alone, on a shape with known volume: exact counts of either parity, closed after mirroring.
    ball = standin_solids.Surface(
        ((0.0, (standin_solids.Group((standin_solids.ellipsoid((0, 0, 0), (1, 1, 1), 0.0),), 0.0),)),)
    )
    axes = (np.arange(0, 1.21, 0.1), np.arange(-1.15, 1.2, 0.1), np.arange(-1.15, 1.2, 0.1))
    half = standin_mesh.extract_half(ball.on_grid, axes)
    for total in (301, 400):
        small = standin_mesh.simplify_half(*half, lambda p: np.ones(len(p)), total)
        small = standin_mesh.relax_half(*small, ball.at_points, lambda p: np.ones(len(p)), 5)
        vertices, faces, twin = standin_mesh.mirror_half(*small)
        assert len(vertices) == total
        assert np.array_equal(vertices[twin], vertices * [-1, 1, 1])
        body = trimesh.Trimesh(vertices, faces, process=False)
        assert body.is_watertight
        assert body.euler_number == 2
        assert body.volume == pytest.approx(4 / 3 * np.pi, rel=0.05)
