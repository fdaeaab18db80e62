"""The trainings of the metrics' small networks, on a handful of renders."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from schemas.errors import ModelError
from schemas.metrics import MATCHED
from udfs import attribute_training, head_training, person_mask_training
from udfs.body import Body
from udfs.grammar import WORDS
from udfs.head_network import six_loss
from udfs.keypoint_renders import make_renders
from udfs.keypoint_training import training_poses
from udfs.nano_renders import make_pairs
from udfs.shaded import Model
from udfs.small_network import load_weights, save_weights
from udfs.small_training import fit


@pytest.fixture(scope="module")
def model():
    return Model.load(Body.load(None))


def _weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def _line(seed):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)

    def batch(step):
        x = np.random.default_rng([seed, step]).normal(size=(16, 3))
        return torch.from_numpy(x).float()

    def loss(x):
        return F.mse_loss(network(x), x.sum(1, keepdim=True) + 2)

    fit(network, batch, loss, steps=300, rate=0.05, seed=seed)
    return network


def test_fitting_fits_and_is_the_same_for_the_same_seed():
    network = _line(1)
    assert torch.allclose(network.weight, torch.ones(1, 3), atol=0.05)
    assert not network.training
    assert torch.equal(_weights(network), _weights(_line(1)))
    assert not torch.equal(_weights(network), _weights(_line(2)))


def test_weights_come_back_and_others_are_refused(tmp_path):
    network = _line(1)
    file = tmp_path / "line.safetensors"
    save_weights(network, file, "line-1", {"steps": 300})
    back = load_weights(nn.Linear(3, 1), file, "line-1")
    assert torch.allclose(_weights(back), _weights(network), atol=1e-3)
    with pytest.raises(ModelError, match="format 'line-1', expected 'line-2'"):
        load_weights(nn.Linear(3, 1), file, "line-2")
    with pytest.raises(ModelError, match="not weights of this network"):
        load_weights(nn.Linear(4, 1), file, "line-1")
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_weights(nn.Linear(3, 1), file, "line-1")
    with pytest.raises(ModelError, match="no such weights"):
        load_weights(nn.Linear(3, 1), tmp_path / "none", "line-1")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ModelError, match="format None"):
        load_weights(nn.Linear(3, 1), tmp_path / "plain.safetensors", "line-1")


def test_a_mask_that_is_right_costs_nothing():
    truth = (torch.rand(2, 1, 8, 8) > 0.5).float()
    assert person_mask_training.mask_loss((truth * 2 - 1) * 50, truth) < 1e-6
    assert person_mask_training.mask_loss((1 - truth * 2) * 50, truth) > 10


def test_the_mask_head_learns_where_renders_show_people(model):
    renders = make_renders(model, training_poses, 12, seed=5)
    network = person_mask_training.train(renders, steps=1, batch=2, rate=1e-3, seed=0)
    again = person_mask_training.train(renders, steps=1, batch=2, rate=1e-3, seed=0)
    assert torch.equal(_weights(network.head), _weights(again.head))
    (share,) = network.shares([renders.pictures[0, :200, :, :3]])
    assert share.shape == (200, 256)
    assert ((share >= 0) & (share <= 1)).all()


def test_renders_of_heads_are_resumed_and_show_the_head(model, tmp_path):
    heads = head_training.make_heads(model, 6, 3, tmp_path)
    assert np.allclose(np.linalg.det(heads.rotations), 1, atol=1e-5)
    pictures = np.array(heads.pictures)
    seen = []
    again = head_training.make_heads(model, 6, 3, tmp_path, seen.append)
    assert seen == [6]
    assert np.array_equal(again.pictures, pictures)
    assert np.array_equal(head_training.make_heads(model, 6, 3).pictures, pictures)
    made, rotations = head_training.heads_batch(heads, 6, np.random.default_rng(0))
    assert made.shape == (6, 64, 64, 3)
    assert np.allclose(np.linalg.det(rotations), 1, atol=1e-5)


def test_the_loss_of_rotations_is_their_squared_distance():
    turn = torch.tensor([[[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]])  # 90 degrees about x
    six = torch.tensor([[2.0, 0, 0, 0.5, 3, 0]])  # the identity, neither of length 1 nor orthogonal
    assert six_loss(six, torch.eye(3)[None]) == pytest.approx(0, abs=1e-12)
    assert six_loss(six, turn) == pytest.approx(4 * (1 - np.cos(np.pi / 2)))


def test_what_a_caption_does_not_say_is_not_asked(model, tmp_path):
    pairs = make_pairs(model, training_poses, 8, 3, 128, tmp_path)
    words = attribute_training.said(pairs.captions)
    for row, caption in zip(words, pairs.captions, strict=True):
        for place, name in zip(row, MATCHED, strict=True):
            assert (caption.get(name) is None) == (place < 0)
            assert place < 0 or WORDS[name][place] == caption[name]
    network = attribute_training.train(pairs, steps=1, batch=4, rate=1e-3, seed=0)
    again = attribute_training.train(pairs, steps=1, batch=4, rate=1e-3, seed=0)
    assert torch.equal(_weights(network), _weights(again))
    (read,) = network.read([pairs.pictures[0][:100]])
    assert {name: read[name] in WORDS[name] for name in MATCHED} == dict.fromkeys(MATCHED, True)
