import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from schemas.errors import InputError
from schemas.smplx_params import POSE_PARAMS, SMPLX_PARAMS
from schemas.source import PoseSource
from schemas.tables import POSES
from udfs.body import Body
from udfs.columns import matrix
from udfs.pose_files import read_pose_file

RNG = np.random.default_rng(0)
N = 12


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def source(**settings):
    return PoseSource(name="s", path="p", **settings)


def smplh(**changes):
    arrays = {
        "poses": RNG.normal(0, 0.4, (N, 156)),
        "trans": RNG.normal(size=(N, 3)),
        "betas": RNG.normal(size=16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
    } | changes
    return {k: v for k, v in arrays.items() if v is not None}


def amass_smplx(**changes):
    arrays = {
        "root_orient": RNG.normal(0, 0.4, (N, 3)),
        "pose_body": RNG.normal(0, 0.4, (N, 63)),
        "pose_hand": RNG.normal(0, 0.4, (N, 90)),
        "pose_jaw": RNG.normal(0, 0.1, (N, 3)),
        "pose_eye": RNG.normal(0, 0.1, (N, 6)),
        "trans": RNG.normal(size=(N, 3)),
        "betas": RNG.normal(size=16),
        "gender": np.array(b"male"),
        "mocap_frame_rate": np.array(60.0),
    } | changes
    return {k: v for k, v in arrays.items() if v is not None}


def smplx(n=N, **changes):
    arrays = {"global_orient": RNG.normal(0, 0.1, (n, 3)), "body_pose": RNG.normal(0, 0.3, (n, 63))}
    return {k: v for k, v in (arrays | changes).items() if v is not None}


def read(arrays, path="a/b.npz", **settings):
    return read_pose_file(npz(**arrays), path, source(**settings))


def params(table):
    return {name: matrix(table, name) for name in SMPLX_PARAMS}


def same_rotation(a, b, tolerance=1e-5):
    a, b = (Rotation.from_rotvec(np.asarray(x, np.float64).reshape(-1, 3)) for x in (a, b))
    return (a.inv() * b).magnitude().max() < tolerance


def test_smplh_layout():
    arrays = smplh()
    file = read(arrays)
    got = params(file.poses)
    poses = arrays["poses"]
    assert file.poses.schema == POSES
    assert np.allclose(got["body_pose"], poses[:, 3:66])
    assert np.allclose(got["left_hand_pose"], poses[:, 66:111])
    assert np.allclose(got["right_hand_pose"], poses[:, 111:])
    assert np.allclose(got["betas"], arrays["betas"][:10])
    assert not got["jaw_pose"].any()
    assert set(file.poses["gender"].to_pylist()) == {"female"}
    assert file.poses["frame"].to_pylist() == list(range(N))
    assert set(file.poses["sequence"].to_pylist()) == {"a/b"}
    assert file.kind == "amass"
    assert file.facts["betas"] == "16 coefficients cut to 10"
    assert file.facts["fps"] == 120


def test_smplx_layout_of_amass():
    arrays = amass_smplx()
    got = params(read(arrays).poses)
    assert np.allclose(got["left_hand_pose"], arrays["pose_hand"][:, :45])
    assert np.allclose(got["right_hand_pose"], arrays["pose_hand"][:, 45:])
    assert np.allclose(got["jaw_pose"], arrays["pose_jaw"])
    assert np.allclose(got["leye_pose"], arrays["pose_eye"][:, :3])
    assert np.allclose(got["reye_pose"], arrays["pose_eye"][:, 3:])
    assert read(arrays).poses["gender"][0].as_py() == "male"


def test_both_amass_layouts_say_the_same():
    split = amass_smplx()
    names = ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")
    flat = np.concatenate([split[n] for n in names], axis=1)
    rest = {k: v for k, v in split.items() if k not in names}
    assert read({"poses": flat} | rest).poses == read(split).poses


def test_z_up_becomes_y_up_as_scipy_turns_it():
    """Joints of the body with the file's parameters, turned by scipy, are those with ours."""
    arrays = smplh(betas=np.zeros(16))
    got = params(read(arrays).poses)
    body = Body.load()
    raw = {n: np.zeros((N, k), np.float32) for n, k in SMPLX_PARAMS.items()}
    raw |= {n: got[n] for n in ("body_pose", "left_hand_pose", "right_hand_pose")}
    raw |= {"global_orient": arrays["poses"][:, :3], "transl": arrays["trans"]}
    turn = Rotation.from_euler("x", -90, degrees=True)
    theirs, ours = body(raw).joints[:, :55], body(got).joints[:, :55]
    turned = turn.apply(theirs.reshape(-1, 3)).reshape(theirs.shape)
    assert np.allclose(turned - turned[:, :1], ours - ours[:, :1], atol=1e-5)
    # The way of the pelvis is the same up to a constant.
    offset = (turned - ours)[:, 0]
    assert np.allclose(offset, offset[0], atol=1e-5)


@pytest.mark.parametrize("up", ["y", "z", "-y"])
def test_up_is_measured_where_no_convention_says_it(up):
    turn = {"y": (0, 0, 0), "z": (90, 0, 0), "-y": (180, 0, 0)}[up]
    lean = Rotation.from_rotvec(RNG.normal(0, 0.3, (200, 3)))
    seen = Rotation.from_euler("xyz", turn, degrees=True) * lean
    file = read(smplx(200, global_orient=seen.as_rotvec()))
    assert file.facts["up"] == up
    assert same_rotation(params(file.poses)["global_orient"], lean.as_rotvec())
    one = read(smplx(200, global_orient=seen.as_rotvec()), every=50)
    assert one.facts["up"] == up


def test_long_rotations_are_wrapped_to_the_same_rotation():
    axis = RNG.normal(size=(N, 21, 3))
    axis /= np.linalg.norm(axis, axis=2, keepdims=True)
    angle = RNG.uniform(0, 30, (N, 21, 1))
    angle[0, :5, 0] = (0, np.pi, 2 * np.pi, 3 * np.pi, 1e-9)
    body = (axis * angle).reshape(N, 63)
    hands = RNG.normal(0, 4, (N, 45))
    file = read(smplx(body_pose=body, left_hand_pose=hands))
    got = params(file.poses)
    assert same_rotation(got["body_pose"], body)
    assert same_rotation(got["left_hand_pose"], hands)
    for name in POSE_PARAMS:
        assert np.linalg.norm(got[name].reshape(-1, 3), axis=1).max() <= np.pi + 1e-6
    assert file.facts["rotations_wrapped"] > N * 10
    short = np.linalg.norm(body.reshape(-1, 3), axis=1) <= np.pi
    assert np.array_equal(
        got["body_pose"].reshape(-1, 3)[short], body.astype(np.float32).reshape(-1, 3)[short]
    )


def test_frames_are_chosen_by_step_rate_or_chance():
    arrays = smplh(poses=RNG.normal(0, 0.3, (241, 156)), trans=np.zeros((241, 3)))
    assert read(arrays, every=50).poses["frame"].to_pylist() == [0, 50, 100, 150, 200]
    assert read(arrays, target_fps=30).poses["frame"].to_pylist() == list(range(0, 241, 4))
    assert len(read(arrays, target_fps=50).poses) == 101
    assert len(read(arrays, target_fps=1000).poses) == 241
    some = read(arrays, frames_per_sequence=15).poses["frame"].to_pylist()
    assert len(set(some)) == 15
    assert some == sorted(some)
    assert some == read(arrays, frames_per_sequence=15).poses["frame"].to_pylist()
    assert some != read(arrays, frames_per_sequence=15, seed=1).poses["frame"].to_pylist()
    assert some != read(arrays, "a/c.npz", frames_per_sequence=15).poses["frame"].to_pylist()
    assert len(read(arrays, frames_per_sequence=999).poses) == 241
    with pytest.raises(InputError, match="no frame rate"):
        read(smplh(mocap_framerate=None), target_fps=30)


def test_a_pose_has_the_same_id_however_it_was_chosen():
    arrays = smplh()
    everything = read(arrays).poses
    few = read(arrays, every=5).poses
    assert few == everything.take([0, 5, 10])
    ids = everything["pose_id"].to_pylist()
    assert len(set(ids)) == N
    assert not set(ids) & set(read(arrays, "a/other.npz").poses["pose_id"].to_pylist())
    assert not set(ids) & set(read(arrays, gender="neutral").poses["pose_id"].to_pylist())


def test_a_bad_frame_is_refused_alone():
    arrays = smplh()
    arrays["poses"][3, 70] = np.nan
    arrays["trans"][5] = np.inf
    arrays["poses"][7, :3] = 180, 90, 0
    arrays["trans"][9] = 0, 0, 1e6
    file = read(arrays)
    assert file.poses["frame"].to_pylist() == [0, 1, 2, 4, 6, 8, 10, 11]
    assert [r.row for r in file.rejected] == [3, 5, 7, 9]
    messages = [r.message for r in file.rejected]
    assert "`left_hand_pose` holds NaN" in messages[0]
    assert "`transl` holds NaN or infinity" in messages[1]
    assert "degrees" in messages[2]
    assert "millimetres" in messages[3]
    assert {r.error_code for r in file.rejected} == {"input"}


def test_a_file_of_bad_frames_gives_rejections_and_no_rows():
    file = read(smplh(poses=np.full((N, 156), np.nan)))
    assert len(file.poses) == 0
    assert file.poses.schema == POSES
    assert len(file.rejected) == N
    assert len(read(smplh(poses=np.empty((0, 156)), trans=np.empty((0, 3)))).poses) == 0


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (smplh(poses=np.zeros((N, 72))), "SMPL, which has no hands"),
        (smplh(poses=np.zeros(156)), "expected .N, k."),
        (smplh(trans=np.zeros((N + 1, 3))), r"`trans` is \(13, 3\), expected \(12, 3\)"),
        (smplh(poses=np.array([["a"] * 156])), "is of type <U1"),
        (smplh(betas=np.zeros((5, 16))), r"`betas` is \(5, 16\)"),
        (smplh(mocap_framerate=np.array(-1)), "frame rate"),
        (smplh(poses=np.array([[{}] * 156], dtype=object)), "Python objects"),
        (amass_smplx(pose_body=None), "`pose_body` .12, 63. is missing"),
        (amass_smplx(root_orient=None), "`root_orient`"),
        (amass_smplx(pose_hand=np.zeros((N, 24))), r"\(12, 24\), expected \(12, 90\)"),
        (smplx(global_orient=np.zeros((N, 4))), r"\(12, 4\), expected \(12, 3\)"),
        ({"shape": np.zeros(3), "name": np.array("x")}, "no pose layout known here.*name, shape"),
    ],
)
def test_a_file_of_another_layout_is_refused_by_name(arrays, complaint):
    with pytest.raises(InputError, match=rf"a/b\.npz: .*{complaint}"):
        read(arrays)


def test_a_pickle_is_no_pose_file():
    with pytest.raises(InputError, match="pickles and other formats are not read"):
        read_pose_file(b"\x80\x04\x95", "a.pkl", source())
    with pytest.raises(InputError, match="not a whole npz"):
        read_pose_file(npz(**smplh())[:5000], "a.npz", source())


@pytest.mark.parametrize(
    ("gender", "expected"),
    [
        (np.array("male"), "male"),
        (np.array(b"Female"), "female"),
        (np.array(["male"]), "male"),
        (np.array("b'female'"), "female"),
        (np.array("unknown"), "neutral"),
        (np.array(3), "neutral"),
        (None, "neutral"),
    ],
)
def test_gender_is_read_in_every_spelling(gender, expected):
    file = read(smplh(gender=gender))
    assert set(file.poses["gender"].to_pylist()) == {expected}
    assert ("gender" in file.facts) == (expected == "neutral")


def test_coefficients_are_cut_or_filled_and_that_is_recorded():
    expression = RNG.normal(size=(N, 100))
    file = read(smplx(expression=expression, betas=RNG.normal(size=(1, 6))), num_expression=4)
    got = params(file.poses)
    assert np.allclose(got["expression"][:, :4], expression[:, :4])
    assert not got["expression"][:, 4:].any()
    assert got["betas"][:, 5].all()
    assert not got["betas"][:, 6:].any()
    assert file.facts["expression"] == "100 coefficients cut to 4"
    assert file.facts["betas"] == "6 coefficients filled up with zeros to 10"


def test_joint_arrays_may_be_three_dimensional():
    arrays = smplx()
    split = arrays | {"body_pose": arrays["body_pose"].reshape(N, 21, 3)}
    assert read(split).poses == read(arrays).poses


def parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_our_own_parquet_comes_back_as_it_was():
    poses = read(smplh()).poses
    file = read_pose_file(parquet(poses), "x.parquet", source())
    assert file.poses == poses
    plain = poses.set_column(
        poses.schema.get_field_index("body_pose"),
        "body_pose",
        poses["body_pose"].cast(pa.list_(pa.float64())),
    )
    assert read_pose_file(parquet(plain), "x.parquet", source()).poses == poses
    again = read_pose_file(parquet(pa.concat_tables([poses, poses])), "x.parquet", source())
    assert again.poses == poses
    assert again.facts["repeated_rows"] == N


def test_bad_rows_of_a_parquet_file_are_refused_alone():
    body = [[0.1] * 63, None, [0.1] * 62, [0.1] * 62 + [None], [0.1] * 63, [0.1] * 63, [0.2] * 63]
    table = pa.table(
        {
            "body_pose": pa.array(body, pa.list_(pa.float32())),
            "frame": [0, 1, 2, 3, None, -5, 6],
            "sequence": ["a"] * 7,
        }
    )
    file = read_pose_file(parquet(table), "x.parquet", source())
    assert file.poses["frame"].to_pylist() == [0, 6]
    assert [r.row for r in file.rejected] == [1, 2, 3, 4, 5]
    assert "NULL" in file.rejected[0].message
    assert "62 values" in file.rejected[1].message


def test_parquet_without_poses_is_refused():
    with pytest.raises(InputError, match="no column `body_pose`"):
        read_pose_file(parquet(pa.table({"x": [1]})), "x.parquet", source())
    with pytest.raises(InputError, match="expected lists of 63 numbers"):
        read_pose_file(parquet(pa.table({"body_pose": ["x"]})), "x.parquet", source())
    with pytest.raises(InputError, match="not a whole Parquet"):
        read_pose_file(parquet(pa.table({"body_pose": ["x"]}))[:40], "x.parquet", source())


def upright(table):
    turn = Rotation.from_rotvec(matrix(table, "global_orient").astype(np.float64))
    return turn.apply([0, 1, 0])[:, 1]


def test_real_amass(real_data):
    path = real_data / "amass_smplh_601frames.npz"
    file = read_pose_file(path.read_bytes(), path.name, source())
    raw = np.load(path)
    assert len(file.poses) == 601
    assert not file.rejected
    assert set(file.poses["gender"].to_pylist()) == {"male"}
    assert upright(file.poses).min() > 0.8
    turn = Rotation.from_euler("x", -90, degrees=True)
    expected = (turn * Rotation.from_rotvec(raw["poses"][:, :3])).as_rotvec()
    assert same_rotation(params(file.poses)["global_orient"], expected)
    assert np.allclose(params(file.poses)["transl"], turn.apply(raw["trans"]), atol=1e-6)


def test_real_whole_body_poses_stand_up(real_data):
    path = real_data / "smplx_wholebody_500.npz"
    file = read_pose_file(path.read_bytes(), path.name, source())
    raw = np.load(path)
    assert len(file.poses) == 500
    assert file.facts["expression"] == "100 coefficients cut to 10"
    assert file.facts["up"] == "-y"
    assert np.median(upright(file.poses)) > 0.95
    got = params(file.poses)
    expected = (
        Rotation.from_euler("x", 180, degrees=True) * Rotation.from_rotvec(raw["global_orient"])
    ).as_rotvec()
    assert same_rotation(got["global_orient"], expected, 1e-4)
    assert same_rotation(got["body_pose"], raw["body_pose"])
    assert np.allclose(got["expression"], raw["expression"][:, :10])
