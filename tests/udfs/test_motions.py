import io
from pathlib import Path

import numpy as np
import pytest

import etl
from schemas.smplx_params import SMPLX_PARAMS
from schemas.source import PoseSource
from udfs.body import Body
from udfs.columns import matrix
from udfs.motions import FPS, motion_file, motion_names, motion_params
from udfs.pose_files import read_pose_file

L_HIP, R_HIP, L_KNEE, R_KNEE, L_ANKLE, R_ANKLE, NECK, HEAD = 1, 2, 4, 5, 7, 8, 12, 15
L_SHOULDER, R_SHOULDER, L_WRIST, R_WRIST = 16, 17, 20, 21


@pytest.fixture(scope="module")
def body():
    return Body.load()


@pytest.fixture(scope="module")
def joints(body):
    return {
        name: body({k: v.astype(np.float32) for k, v in motion_params(name).items()}).joints
        for name in motion_names()
    }


def test_there_are_enough_of_them():
    frames = [len(motion_params(name)["transl"]) for name in motion_names()]
    assert len(frames) >= 12
    assert 300 <= sum(frames) <= 1000


@pytest.mark.parametrize("name", motion_names())
def test_ingesting_a_file_gives_the_motion_back(body, name):
    data = motion_file(name)
    assert data == motion_file(name)
    file = read_pose_file(data, f"{name}.npz", PoseSource(name="demo", path="."))
    expected = motion_params(name)
    assert file.kind == "amass"
    assert file.facts["fps"] == FPS
    assert not file.rejected
    got = {key: matrix(file.poses, key) for key in SMPLX_PARAMS}
    theirs = body({k: v.astype(np.float32) for k, v in expected.items()}).joints
    assert np.allclose(body(got).joints, theirs, atol=1e-3)
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    assert arrays["root_orient"].shape == (len(file.poses), 3)


@pytest.mark.parametrize("name", motion_names())
def test_nothing_jumps(joints, name):
    """No joint moves faster than a fast throw, 12 m/s."""
    points = joints[name][:, :22]
    assert np.linalg.norm(np.diff(points, axis=0), axis=-1).max() * FPS < 12


@pytest.mark.parametrize("name", ["walking", "running", "jumping_jacks"])
def test_cycles_close(name):
    pose = motion_params(name)["body_pose"]
    steps = np.abs(np.diff(pose, axis=0)).max(1)
    assert np.abs(pose[0] - pose[-1]).max() < 1.5 * steps.max()


def test_motions_are_what_they_are_called(joints):
    def height(name, joint):
        return joints[name][:, joint, 1] - joints[name][:, [L_ANKLE, R_ANKLE], 1].min(1)

    stride = np.abs((joints["walking"][:, L_ANKLE] - joints["walking"][:, R_ANKLE])[:, 2])
    assert 0.4 < stride.max() < 0.9
    assert joints["walking"][-1, 0, 2] - joints["walking"][0, 0, 2] > 1
    assert height("sitting_down", 0).min() < 0.6 < 0.8 < height("sitting_down", 0).max()
    assert (joints["waving"][:, R_WRIST, 1] - joints["waving"][:, HEAD, 1]).max() > 0
    assert (joints["reaching_up"][:, L_WRIST, 1] - joints["reaching_up"][:, HEAD, 1]).max() > 0.3
    assert height("squatting", 0).min() < 0.45
    assert (joints["kicking"][:, R_ANKLE, 1] - joints["kicking"][:, R_HIP, 1]).max() > -0.1
    assert height("push_ups", HEAD).max() < 0.9
    apart = np.linalg.norm(joints["jumping_jacks"][:, L_ANKLE] - joints["jumping_jacks"][:, R_ANKLE], axis=1)
    assert apart.min() < 0.3 < 0.6 < apart.max()


@pytest.mark.parametrize("name", motion_names())
def test_nobody_hovers_or_sinks(body, name):
    params = motion_params(name)
    vertices = body({k: v.astype(np.float32) for k, v in params.items()}).vertices
    low = vertices[..., 1].min(1) - body.joints[0][1]
    assert low.min() > -0.12
    assert low.max() < 0.25


def test_the_bundled_files_are_these_motions():
    folder = Path(etl.__file__).parent / "data" / "poses"
    assert {file.stem for file in folder.glob("*.npz")} == set(motion_names())
    for name in motion_names():
        bundled, made = (
            np.load(io.BytesIO(b)) for b in ((folder / f"{name}.npz").read_bytes(), motion_file(name))
        )
        assert set(bundled.files) == set(made.files)
        for key in made.files:
            if made[key].dtype.kind == "f":
                assert np.abs(bundled[key] - made[key]).max() < 1e-5, (name, key)
