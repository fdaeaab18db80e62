import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

from schemas.errors import InputError, ModelError
from schemas.smplx_params import SMPLX_PARAMS
from udfs.body import Body, body_files, read_body_file
from udfs.standin import standin_path


class Payload:
    """What a hostile file carries: unpickling it touches a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(standin_path(), allow_pickle=False) as data:
        return dict(data)


@pytest.fixture
def save(tmp_path, arrays):
    """Writes a body file with some arrays replaced or, with None, left out."""

    def write(name: str = "SMPLX_NEUTRAL.npz", **changes) -> Path:
        path = tmp_path / name
        np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
        return path

    return write


def random_params(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, (count, k)).astype(np.float32) for name, k in SMPLX_PARAMS.items()}


def run_smplx(path: Path, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with contextlib.redirect_stdout(io.StringIO()):
        layer = smplx.create(
            str(path), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True, num_betas=10
        )
    with torch.no_grad():
        out = layer(**{k: torch.as_tensor(v) for k, v in params.items()})
    return out.vertices.numpy(), out.joints.numpy()


def test_bodies_are_those_of_smplx_itself(body, save):
    params = random_params(5)
    vertices, joints = run_smplx(save(), params)
    out = body(params)
    assert out.vertices.shape == (5, 10475, 3)
    assert out.joints.shape == (5, 127, 3)
    np.testing.assert_allclose(out.vertices, vertices, atol=1e-5)
    np.testing.assert_allclose(out.joints, joints, atol=1e-5)


def test_a_file_with_all_400_directions_is_read_as_smplx_reads_it(save, arrays, body):
    """The licensed file's layout: expression directions start at 300; float64; pickled extra keys."""
    full = np.zeros((10475, 3, 400))
    full[..., :10], full[..., 300:310] = arrays["shapedirs"][..., :10], arrays["shapedirs"][..., 10:20]
    full[..., 10:20] = full[..., 310:320] = 1e3
    path = save(shapedirs=full, J_regressor=arrays["J_regressor"].astype(np.float64))
    params = random_params(3)
    vertices, joints = run_smplx(path, params)
    out = Body.load(path)(params)
    np.testing.assert_allclose(out.vertices, vertices, atol=1e-5)
    np.testing.assert_allclose(out.joints, joints, atol=1e-5)
    np.testing.assert_allclose(out.joints, body(params).joints, atol=1e-5)


def test_nothing_is_printed_when_a_body_is_loaded(capfd):
    Body.load()
    assert capfd.readouterr().out == ""


def test_a_row_is_the_same_whatever_rows_are_beside_it(body):
    params = random_params(70)
    together = body(params)
    for row in (0, 31, 32, 69):
        alone = body({name: value[row : row + 1] for name, value in params.items()})
        assert np.array_equal(alone.vertices[0], together.vertices[row])
        assert np.array_equal(alone.joints[0], together.joints[row])


def test_what_is_not_given_is_zero(body):
    out = body({"betas": np.zeros((2, 10))})
    np.testing.assert_allclose(out.vertices[1], body.template, atol=1e-6)
    np.testing.assert_allclose(out.joints[0, :55], body.joints, atol=1e-6)


def test_pelvis_is_the_first_joint_of_the_shaped_body(body):
    params = random_params(4)
    shape = {k: params[k] for k in ("betas", "expression")}
    np.testing.assert_allclose(body.pelvis(**shape), body(shape).joints[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "params", [{}, {"shoe_size": np.zeros((1, 1))}, {"betas": np.zeros((1, 16))}, {"jaw_pose": np.zeros(3)}]
)
def test_wrong_parameters_are_refused(body, params):
    with pytest.raises(InputError, match="SMPL-X parameter"):
        body(params)


def test_a_payload_in_an_array_that_is_needed_is_refused_and_never_runs(save, tmp_path):
    mark = tmp_path / "ran"
    path = save(hands_meanl=np.array([Payload(mark)], object))
    with pytest.raises(ModelError, match=r"hands_meanl.*pickled"):
        Body.load(path)
    assert not mark.exists()


def test_a_payload_in_an_array_that_nobody_needs_never_reaches_smplx(save, tmp_path, body):
    mark = tmp_path / "ran"
    path = save(vt=np.array([Payload(mark)], object))
    params = random_params(1)
    assert np.array_equal(Body.load(path)(params).joints, body(params).joints)
    assert not mark.exists()
    run_smplx(path, params)
    assert mark.exists(), "the payload would have run: the test above can fail"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "no array 'weights'"),
        ({"v_template": np.zeros((6890, 3))}, r"'v_template' has shape \(6890, 3\), SMPL-X has \(10475, 3\)"),
        ({"posedirs": np.zeros((10475, 3, 207))}, "'posedirs' has shape"),
        ({"shapedirs": np.zeros((10475, 3, 10))}, "'shapedirs' has 10 directions"),
        ({"f": np.zeros((20, 3))}, "'f' is of type float64, not whole numbers"),
        ({"f": np.full((20908, 3), 10475)}, "'f' names vertices"),
        ({"lmk_faces_idx": np.full(51, 10**6)}, "'lmk_faces_idx' names triangles"),
        ({"hands_meanr": np.full(45, np.nan)}, "'hands_meanr' holds values that are not finite"),
        ({"kintree_table": np.full((2, 55), 54)}, "'kintree_table' is no tree"),
        ({"v_template": np.full((10475, 3), "x")}, "'v_template' is of type <U1"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(save, changes, message):
    path = save(**changes)
    with pytest.raises(ModelError, match=message) as caught:
        read_body_file(path)
    assert str(path) in str(caught.value)


def test_an_absurd_shape_is_refused_before_it_is_read(save, tmp_path):
    path = save(shapedirs=None)
    header = io.BytesIO()
    shape = (10475, 3, 10**9)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("shapedirs.npy", header.getvalue())
    with pytest.raises(ModelError, match="'shapedirs' has shape"):
        read_body_file(path)


def test_missing_damaged_and_foreign_files_say_so(save, tmp_path):
    with pytest.raises(ModelError, match="no such body file"):
        Body.load(tmp_path / "SMPLX_NEUTRAL.npz")
    foreign = tmp_path / "SMPLX_NEUTRAL.pkl"
    foreign.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="only npz is read"):
        Body.load(foreign)
    whole = save()
    data = bytearray(whole.read_bytes())
    data[len(data) // 3] ^= 1
    whole.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        Body.load(whole)
    whole.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="npz"):
        Body.load(whole)


def test_a_folder_has_a_body_for_each_gender_and_a_file_one_for_all(save, tmp_path):
    assert list(body_files(None)) == ["neutral"]
    with pytest.raises(ModelError, match=r"SMPLX_NEUTRAL\.npz"):
        body_files(tmp_path)
    male, female = save("SMPLX_MALE.npz"), save("SMPLX_FEMALE.npz")
    assert body_files(tmp_path) == {"female": female, "male": male}
    assert body_files(female) == {"female": female}
    assert body_files(male) == {"male": male}
    assert body_files(tmp_path / "mine.npz") == {"neutral": tmp_path / "mine.npz"}


def test_the_digest_is_of_the_bytes(save, body):
    assert Body.load(save()).digest != Body.load(save("other.npz", note=np.zeros(1))).digest
    assert Body.load().digest == body.digest
