"""A release as a PyTorch dataset: samples are its rows, once each, in every process."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from etl.lake import Lake
from schemas.errors import InputError, LakeError, RowError
from tests.lake_rows import random_rows
from tests.released import publish_rows
from udfs.picture import encode

N = 47
SIZE = (10, 14)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Two files of several row groups; image i is a picture of the number i, which is `round`."""
    lake = Lake.create(tmp_path_factory.mktemp("torch") / "lake")
    paths = [f"files/images/{i}.png" for i in range(N)]
    for i, path in enumerate(paths):
        lake.store.write(path, encode(np.full((*SIZE, 3), i, np.uint8), "png"))
    rows = random_rows("dataset", N, image_path=paths, round=np.arange(N))
    return publish_rows(lake, [rows.slice(0, 20), rows.slice(20)], group_rows=7)


def middle(sample):
    """A crop: of a module, so that any worker can load it."""
    top, left = (SIZE[0] - 4) // 2, (SIZE[1] - 4) // 2
    sample["image"] = sample["image"][top : top + 4, left : left + 4]
    sample["joints_2d"] = sample["joints_2d"] - torch.tensor([left, top])
    return sample


@pytest.mark.parametrize("iterable", [False, True])
def test_a_sample_is_a_row_in_the_shapes_of_what_it_holds(release, iterable):
    columns = ["round", "joints_3d", "keypoints", "oks", "keypoints_visible", "caption", "person_score"]
    samples = list(release.torch(columns, iterable=iterable))
    table = release.to_pandas(columns)
    assert [int(s["round"]) for s in samples] == table["round"].tolist()
    assert [s["caption"] for s in samples] == table["caption"].tolist()
    for name in ("joints_3d", "keypoints", "keypoints_visible", "person_score", "oks"):
        ours = torch.stack([s[name] for s in samples])
        assert ours.numpy().dtype == release.array(name).dtype
        np.testing.assert_array_equal(ours.numpy(), release.array(name))
    assert np.isnan(release.array("keypoints")).any()
    assert np.isnan(release.array("person_score")).any()
    for i, sample in enumerate(samples):
        assert (sample["image"].dtype, tuple(sample["image"].shape)) == (torch.uint8, (*SIZE, 3))
        assert (sample["image"] == i).all()
    assert set(samples[0]) == {"image", *columns}


def test_defaults_are_the_id_and_all_labels(release):
    sample = release.torch()[-1]
    assert sample["image_id"].item() == release.array("image_id")[-1]
    assert {"body_pose", "joints_3d", "joints_2d", "focal", "bbox", "markers_3d"} <= set(sample)
    assert "keypoints" not in sample
    assert "image" not in release.torch(["oks"], images=False)[0]


@pytest.mark.parametrize("iterable", [False, True])
def test_a_condition_chooses_rows(release, iterable):
    where = "round >= 5 and round != 30"
    found = release.torch(["round"], where, iterable=iterable, images=False)
    want = [i for i in range(5, N) if i != 30]
    assert len(found) == len(want)
    assert [int(sample["round"]) for sample in found] == want
    none = release.torch(["round"], "round > 500", iterable=iterable, images=False)
    assert (len(none), list(none)) == (0, [])


@pytest.mark.parametrize(("start", "iterable"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_see_every_row_once_and_transform_it(release, iterable, start):
    data = release.torch(["round", "joints_2d"], transform=middle, iterable=iterable, shuffle=iterable)
    loader = DataLoader(
        data, batch_size=4, shuffle=not iterable, num_workers=2, multiprocessing_context=start
    )
    batches = list(loader)
    rounds = torch.cat([batch["round"] for batch in batches])
    assert sorted(rounds.tolist()) == list(range(N))
    assert rounds.tolist() != list(range(N))
    images = torch.cat([batch["image"] for batch in batches])
    assert images.shape == (N, 4, 4, 3)
    assert (images[:, 0, 0, 0] == rounds).all()
    joints = torch.cat([batch["joints_2d"] for batch in batches])
    moved = release.array("joints_2d")[rounds.numpy()] - np.array([5, 3], np.float32)
    np.testing.assert_array_equal(joints.numpy(), moved)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 3), (2, 1), (3, 2), (4, 16)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shares_of_ranks_and_workers_are_even_and_together_whole(
    release, monkeypatch, ranks, workers, shuffle
):
    where = "round != 9"
    seen, sizes, lengths = [], [], []
    for rank in range(ranks):
        stream = release.torch(["round"], where, iterable=True, images=False, shuffle=shuffle)
        stream.rank, stream.world_size = rank, ranks
        for worker in range(workers):
            info = type("Info", (), {"id": worker, "num_workers": workers})
            monkeypatch.setattr("etl.torch_dataset.get_worker_info", lambda info=info: info)
            mine = [int(sample["round"]) for sample in stream]
            seen += mine
            sizes.append(len(mine))
        lengths.append(len(stream))
    assert sorted(seen) == [i for i in range(N) if i != 9]
    assert max(sizes) - min(sizes) <= 1
    assert max(lengths) - min(lengths) <= 1
    assert sum(lengths) == N - 1
    assert (seen == sorted(seen)) != shuffle


def _rounds_of_rank(release, meet, rank, answer):
    torch.distributed.init_process_group("gloo", f"file://{meet}", rank=rank, world_size=2)
    stream = release.torch(["round"], iterable=True, images=False)
    answer.put((rank, [int(sample["round"]) for sample in stream]))


def test_ranks_come_from_torch_distributed(release, tmp_path):
    fork = multiprocessing.get_context("fork")
    answer = fork.Queue()
    assert release.scan.paths  # a Delta table cannot be opened in a forked process
    told = release, tmp_path / "meet"
    ranks = [fork.Process(target=_rounds_of_rank, args=(*told, rank, answer)) for rank in range(2)]
    for process in ranks:
        process.start()
    seen = dict(answer.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join()
    assert seen == {0: list(range(N // 2)), 1: list(range(N // 2, N))}


def test_a_shuffled_stream_has_another_order_every_epoch_and_the_same_again(release):
    def order(epoch, seed=0):
        stream = release.torch(["round"], iterable=True, images=False, shuffle=True, seed=seed)
        stream.set_epoch(epoch)
        return [int(sample["round"]) for sample in stream]

    assert order(0) == order(0)
    assert sorted(order(0)) == sorted(order(1))
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, seed=1))}) == 3


def test_workers_that_live_on_hear_of_the_next_epoch(release):
    stream = release.torch(["round"], iterable=True, images=False, shuffle=True)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append([int(sample["round"]) for sample in loader])
    assert orders[0] == orders[2] != orders[1]


def test_the_rows_file_goes_with_the_dataset_that_made_it(release, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = release.torch(["round"], images=False)
    again = pickle.loads(pickle.dumps(data))
    assert [int(s["round"]) for s in again] == list(range(N))
    (file,) = tmp_path.iterdir()
    child = os.fork()
    if not child:
        del data  # in a worker: the file stays
        os._exit(0)
    os.waitpid(child, 0)
    del again
    assert file.exists()
    del data
    assert not file.exists()
    with pytest.raises(IndexError, match="row 47 of 47"):
        _ = release.torch(["round"], images=False)[N]


def test_a_dataset_that_outlives_its_rows_says_so(release):
    data = release.torch(["round"], images=False)
    copy = pickle.loads(pickle.dumps(data))
    del data
    with pytest.raises(LakeError, match=r"make the dataset here with release\.torch"):
        _ = copy[0]


@pytest.mark.parametrize("iterable", [False, True])
def test_a_missing_image_is_named(tmp_path, iterable):
    lake = Lake.create(tmp_path / "lake")
    release = publish_rows(lake, [random_rows("dataset", 1, image_path=["files/images/gone.png"])])
    data = release.torch(["oks"], iterable=iterable)
    with pytest.raises(RowError, match=r"files/images/gone\.png: the image is not there"):
        list(DataLoader(data))  # with a worker as well, but that takes torch five seconds to end


def test_wrong_questions_are_answered_with_what_is_wrong(release):
    with pytest.raises(InputError, match="did you mean joints_3d"):
        release.torch(["joint_3d"])
    with pytest.raises(InputError, match=r"DataLoader\(shuffle=True\)"):
        release.torch(shuffle=True)
