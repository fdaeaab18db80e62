import numpy as np
import pytest
import torch

from schemas.errors import ModelError
from udfs.body import Body
from udfs.keypoint_network import SIZE, STRIDE, KeypointNetwork, decode, letterbox
from udfs.keypoint_quality import area_under_roc, measure, similar
from udfs.keypoint_renders import make_renders
from udfs.keypoints import WEIGHTS
from udfs.random_poses import random_poses
from udfs.shaded import Model

CELLS = (np.arange(SIZE // STRIDE) + 0.5) * STRIDE


def blobs(points, sigma=5.2):
    """(K, 48, 48) maps with a blob at each of (K, 2) points, pixels."""
    x = np.exp(-0.5 * ((CELLS - points[:, :1]) / sigma) ** 2)
    y = np.exp(-0.5 * ((CELLS - points[:, 1:]) / sigma) ** 2)
    return 0.9 * y[:, :, None] * x[:, None, :]


def ideal_maps(people, boxes):
    """What a perfect network says about people (P, 17, 2) with boxes (P, 4) x, y, width, height."""
    heat = np.max([blobs(p) for p in people], axis=0)
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    centers = np.max(blobs(middles), axis=0)
    guesses = np.zeros((38, 24, 24))
    at = (np.arange(24) + 0.5) * 8
    place = np.stack(np.meshgrid(at, at), -1)
    owner = np.linalg.norm(place[:, :, None] - middles, axis=-1).argmin(-1)
    for p, (points, box) in enumerate(zip(people, boxes, strict=True)):
        rough = points + np.random.default_rng(p).normal(0, 4, points.shape)
        sides = np.concatenate([place - box[:2], box[:2] + box[2:] - place], -1)
        offsets = (rough - place[:, :, None]).reshape(24, 24, 34)
        said = np.concatenate([sides, offsets], -1) / 32
        guesses[:, owner == p] = said[owner == p].T
    return centers, heat, guesses


def test_decoding_finds_both_people_to_a_fraction_of_a_pixel():
    rng = np.random.default_rng(0)
    people = np.stack(
        [rng.uniform((20, 40), (80, 170), (17, 2)), rng.uniform((110, 40), (170, 170), (17, 2))]
    )
    boxes = np.array([[18.0, 35, 66, 140], [106.0, 36, 68, 140]])
    found = decode(*ideal_maps(people, boxes), 0.4)
    assert len(found.scores) == 2
    order = np.argsort(found.boxes[:, 0])
    error = np.linalg.norm(found.keypoints[order][..., :2] - people, axis=-1)
    assert np.median(error) < 0.1
    np.testing.assert_allclose(found.boxes[order], boxes, atol=1e-3)
    assert (found.keypoints[..., 2] <= 1).all()


def test_decoding_finds_nobody_in_empty_maps():
    found = decode(np.zeros((48, 48)), np.zeros((17, 48, 48)), np.zeros((38, 24, 24)), 0.4)
    assert found.keypoints.shape == (0, 17, 3)
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (192, 192), (64, 64)])
def test_letterbox_keeps_proportions_and_says_where_things_went(shape):
    picture = np.zeros((*shape, 3), np.uint8)
    y, x = shape[0] // 3, shape[1] // 4
    picture[y : y + 8, x : x + 8] = 255
    square, scale, corner = letterbox(picture)
    assert square.shape == (SIZE, SIZE, 3)
    rows, columns = np.nonzero(square[..., 0] > 200)
    assert (columns.mean() + 0.5 - corner[0]) / scale == pytest.approx(x + 4, abs=1)
    assert (rows.mean() + 0.5 - corner[1]) / scale == pytest.approx(y + 4, abs=1)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="no such weights"):
        KeypointNetwork.load(tmp_path / "none.safetensors")
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"x": 1}, pickled)
    with pytest.raises(ModelError, match="not a safetensors file"):
        KeypointNetwork.load(pickled)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match="format"):
        KeypointNetwork.load(other)
    save_file({"x": torch.zeros(1)}, other, metadata={"format": "posedreamer-keypoints-1"})
    with pytest.raises(ModelError, match="not weights of this network"):
        KeypointNetwork.load(other)


def test_what_is_saved_loads_as_the_same_network(tmp_path):
    torch.manual_seed(0)
    network = KeypointNetwork().eval()
    network.save(tmp_path / "w.safetensors", {"seed": 0})
    again = KeypointNetwork.load(tmp_path / "w.safetensors")
    picture = torch.rand(1, 3, SIZE, SIZE) * 255
    with torch.no_grad():
        assert torch.allclose(network(picture).keypoints, again(picture).keypoints, atol=0.05)


def test_roc_area_and_similar_boxes():
    assert area_under_roc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert area_under_roc(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.5
    boxes = np.array([[0, 0, 10, 20], [50, 50, 10, 20], [1, 0, 10, 21], [50, 52, 10, 20]], float)
    assert similar(boxes).tolist() == [2, 3, 0, 1]


@pytest.fixture(scope="module")
def renders():
    return make_renders(Model.load(Body.load(None)), random_poses, 24, seed=987_654, margin=(0.1, 0.1))


@pytest.fixture(scope="module")
def network():
    return KeypointNetwork.load(WEIGHTS)


def test_the_shipped_network_tells_whether_pictures_show_their_labels(renders, network):
    quality = measure(
        network, list(renders.pictures[..., :3]), renders.keypoints, renders.visible, renders.boxes
    )
    assert quality.median > 0.85
    assert quality.auc > 0.95
    assert np.median(quality.shuffled) < quality.median - 0.15
    assert (quality.counts == 1).mean() > 0.9


def test_the_shipped_network_sees_nobody_where_nobody_is(renders, network):
    blank = [np.full((256, 256, 3), level, np.uint8) for level in (0, 128, 255)]
    counts = [len(p.scores) for p in network.detect([*blank, *renders.backgrounds[..., :3]])]
    assert counts[:3] == [0, 0, 0]
    assert np.mean(np.array(counts) == 0) > 0.8


def test_the_shipped_network_counts_two_people(renders, network):
    pictures = renders.pictures[..., :3]
    pairs = [np.concatenate([pictures[i], pictures[i + 1]], axis=1) for i in range(0, 12, 2)]
    counts = [len(p.scores) for p in network.detect(pairs)]
    assert np.mean(np.array(counts) == 2) > 0.6


def test_a_picture_is_measured_alike_alone_and_in_a_batch(renders, network):
    pictures = list(renders.pictures[:6, ..., :3])
    alone = network.detect([pictures[4]])[0]
    together = network.detect(pictures)[4]
    np.testing.assert_allclose(alone.keypoints, together.keypoints, atol=0.02)
