"""Novelty against scipy's search tree, and what it refuses."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial import cKDTree

from schemas.errors import InputError, ModelError, RowError
from schemas.tables import POSES, SCORES_NOVELTY
from udfs.columns import list_column
from udfs.novelty import Novelty, references_file
from udfs.random_poses import random_poses
from udfs.skeleton import descriptor
from udfs.udf import Worker, bytes_digest

PATH = "mining/references.arrow"


class Folder:
    """The lake's files, in memory."""

    def __init__(self, **data):
        self.data = {PATH: data["references"]} if data else {}

    def read(self, path):
        if path not in self.data:
            raise FileNotFoundError(path)
        return self.data[path]


@pytest.fixture(scope="module")
def poses():
    """Candidates (300, 63) and references (1700, 63) of one distribution."""
    drawn = random_poses(600, 4)["body_pose"]
    variants = np.tile(drawn[260:], (5, 1))
    noise = np.random.default_rng(5).normal(0, 0.15, variants.shape)
    return drawn[:300], (variants + noise).astype(np.float32)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).permutation(10_000)[:1700].astype(np.int64)


def table(pose_ids, body_pose):
    column = list_column(np.asarray(body_pose, np.float32), POSES.field("body_pose").type)
    return pa.table({"pose_id": pa.array(pose_ids, pa.int64()), "body_pose": column})


def score(data, rows, **settings):
    udf = Novelty(references=PATH, digest=bytes_digest(data), **settings)
    return udf.setup(Worker(device="cpu", files=Folder(references=data)))(rows)


def test_distance_and_nearest_pose_are_those_of_a_search_tree(poses, ids):
    candidates, references = poses
    out = score(references_file(ids, references), table(range(20_000, 20_300), candidates))
    off, place = cKDTree(descriptor(references).astype(np.float64)).query(
        descriptor(candidates).astype(np.float64)
    )
    assert out.schema.equals(pa.schema([f for f in SCORES_NOVELTY if f.name != "fingerprint"]))
    assert out["pose_id"].to_pylist() == list(range(20_000, 20_300))
    assert np.allclose(out["novelty"], off, rtol=1e-6, atol=0)
    assert (out["nearest_pose_id"].to_numpy() == ids[place]).all()
    assert (off > 0.02).mean() > 0.9


def test_a_reference_is_no_news_even_beside_its_double(poses, ids):
    _, references = poses
    doubled = references.copy()
    doubled[1] = doubled[0]
    out = score(references_file(ids, doubled), table(ids, doubled))
    assert (out["novelty"].to_numpy() == 0).all()
    assert (out["nearest_pose_id"].to_numpy() == ids).all()
    stranger = score(references_file(ids, doubled), table([20_000], doubled[:1])).to_pylist()[0]
    assert stranger == {"pose_id": 20_000, "novelty": 0, "nearest_pose_id": min(ids[:2])}


def test_small_differences_survive_float32(poses, ids):
    _, references = poses
    moved = references[:200].copy()
    moved[:, 51] += 1e-3  # the left elbow
    out = score(references_file(ids, references), table(range(20_000, 20_200), moved))
    off = np.linalg.norm(descriptor(moved).astype(float) - descriptor(references[:200]).astype(float), axis=1)
    assert np.allclose(out["novelty"], off, rtol=1e-6, atol=0)
    assert (out["nearest_pose_id"].to_numpy() == ids[:200]).all()
    assert off.max() < 1e-4


def test_global_orientation_and_position_do_not_count():
    assert Novelty.inputs == ("pose_id", "body_pose")


def test_an_approximate_search_finds_nearly_all_and_never_too_near(poses, ids):
    candidates, references = poses
    rows, data = table(range(20_000, 20_300), candidates), references_file(ids, references)
    exact, rough = score(data, rows), score(data, rows, exact_up_to=1000)
    found = exact["nearest_pose_id"].to_numpy() == rough["nearest_pose_id"].to_numpy()
    # 32 of 165 cells are searched.
    assert found.mean() >= 0.95
    assert (rough["novelty"].to_numpy() >= exact["novelty"].to_numpy()).all()
    assert (rough["novelty"].to_numpy()[found] == exact["novelty"].to_numpy()[found]).all()


def test_an_approximate_search_copes_with_one_pose_many_times(poses):
    same = np.repeat(poses[1][:1], 1500, axis=0)
    out = score(references_file(np.arange(1500), same), table([-1], poses[0][:1]), exact_up_to=10)
    off = np.linalg.norm(descriptor(same[:1]).astype(float) - descriptor(poses[0][:1]).astype(float))
    assert out["novelty"][0].as_py() == pytest.approx(off, rel=1e-6)
    assert out["nearest_pose_id"][0].as_py() in range(1500)


@pytest.mark.parametrize("exact_up_to", [1000, 100_000])
def test_neither_batches_nor_threads_change_an_answer(poses, ids, exact_up_to, monkeypatch):
    candidates, references = poses
    rows, data = table(range(20_000, 20_300), candidates), references_file(ids, references)
    whole = score(data, rows, exact_up_to=exact_up_to)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("udfs.pose_space._QUERIES", 40)
    assert score(data, rows, exact_up_to=exact_up_to).equals(whole)
    assert score(data, rows.slice(7, 1), exact_up_to=exact_up_to).equals(whole.slice(7, 1))


def test_the_file_is_the_same_in_any_order_and_its_place_does_not_count(poses, ids):
    _, references = poses
    order = np.random.default_rng(1).permutation(len(ids))
    data = references_file(ids, references)
    assert references_file(ids[order], references[order]) == data
    assert references_file(np.append(ids, ids[:5]), np.append(references, references[:5], axis=0)) == data
    assert bytes_digest(references_file(ids[1:], references[1:])) != bytes_digest(data)
    udf = Novelty(references=PATH, digest=bytes_digest(data))
    assert Novelty(references="elsewhere", digest=bytes_digest(data)).fingerprint() == udf.fingerprint()
    assert Novelty(references=PATH, digest="0" * 32).fingerprint() != udf.fingerprint()
    assert (
        Novelty(references=PATH, digest=bytes_digest(data), exact_up_to=5).fingerprint() != udf.fingerprint()
    )


@pytest.mark.parametrize("exact_up_to", [1000, 100_000])
def test_nothing_is_printed(poses, ids, exact_up_to, capfd):
    score(references_file(ids, poses[1]), table(range(300), poses[0]), exact_up_to=exact_up_to)
    assert capfd.readouterr() == ("", "")


def test_no_rows_give_no_rows(poses, ids):
    out = score(references_file(ids, poses[1]), table([], np.empty((0, 63))))
    assert out.num_rows == 0
    assert out.schema.equals(Novelty.outputs)


def test_a_pose_that_is_no_number_is_named(poses, ids):
    bad = poses[0].copy()
    bad[5, 60] = np.nan
    with pytest.raises(RowError, match=r"pose 20005: its body_pose holds NaN or infinity"):
        score(references_file(ids, poses[1]), table(range(20_000, 20_300), bad))
    with pytest.raises(InputError, match=r"pose 42: its body_pose holds NaN or infinity"):
        references_file(np.array([41, 42]), bad[4:6])


def empty_file():
    full = references_file(np.arange(1), np.zeros((1, 63)))
    sink = pa.BufferOutputStream()
    with pa.ipc.open_file(full) as file, pa.ipc.new_file(sink, file.schema):
        pass
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("data", "message"), [(empty_file(), "no reference pose is in it"), (b"\x80\x04pickle", "no Arrow file")]
)
def test_a_file_that_holds_no_references_is_refused(data, message):
    with pytest.raises(ModelError, match=rf"references.arrow: {message}"):
        score(data, table([1], np.zeros((1, 63))))


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(InputError, match="no pose was generated yet"):
        references_file(np.empty(0, np.int64), np.empty((0, 63)))


def test_a_file_of_another_digest_or_none_is_refused():
    data = references_file(np.arange(2), np.zeros((2, 63)))
    udf = Novelty(references=PATH, digest=bytes_digest(data))
    with pytest.raises(ModelError, match=r"references.arrow: not the reference poses that were meant"):
        udf.setup(Worker(device="cpu", files=Folder(references=data[:-1])))
    with pytest.raises(ModelError, match=r"references.arrow: no such file"):
        udf.setup(Worker(device="cpu", files=Folder()))
