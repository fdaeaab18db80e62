import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.udfs.test_keypoint_augmentation import dotted
from udfs.keypoint_augmentation import Batch
from udfs.keypoint_network import GUESS_STRIDE, SIZE, STRIDE, UNIT, KeypointNetwork, Maps
from udfs.keypoint_training import losses, targets, train


def one_person():
    """A batch of one picture with one person, and its keypoints."""
    rng = np.random.default_rng(0)
    points = rng.uniform(30, 160, (17, 2)).astype(np.float32)
    keypoints = np.zeros((1, 3, 17, 3), np.float32)
    keypoints[0, 0] = np.concatenate([points, np.ones((17, 1))], 1)
    boxes = np.zeros((1, 3, 4), np.float32)
    boxes[0, 0] = (28, 28, 134, 134)
    state = np.array([[1, 0, 0]], np.int8)
    masks = np.zeros((1, SIZE, SIZE), bool)
    return Batch(np.zeros((1, SIZE, SIZE, 3), np.uint8), keypoints, boxes, state, masks)


def perfect(batch):
    """Maps that say exactly what the batch's labels do."""
    points = torch.from_numpy(batch.keypoints)
    people = torch.from_numpy(batch.state == 1)
    boxes = torch.from_numpy(batch.boxes)
    middles = boxes[..., :2] + boxes[..., 2:] / 2
    heat = targets(points[..., :2], (points[..., 2] > 0) & people[..., None]).clamp(1e-5, 1 - 1e-5)
    center = targets(middles[:, :, None], people[..., None]).clamp(1e-5, 1 - 1e-5)
    at = (torch.arange(SIZE // GUESS_STRIDE) + 0.5) * GUESS_STRIDE
    place = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
    box = boxes[0, 0]
    sides = torch.cat([place - box[:2], box[:2] + box[2:] - place], -1)
    offsets = (points[0, 0, :, :2] - place[:, :, None]).flatten(2)
    guesses = (torch.cat([sides, offsets], -1) / UNIT).permute(2, 0, 1)[None]
    return Maps(center.logit(), heat.logit(), guesses)


def test_a_blob_stands_on_its_keypoint_and_the_highest_of_two_counts():
    points = torch.tensor([[[[50.0, 90.0]]], [[[52.0, 90.0]]]]).permute(1, 0, 2, 3)
    both = targets(points, torch.ones(1, 2, 1, dtype=torch.bool))[0, 0]
    row, column = np.unravel_index(int(both.argmax()), both.shape)
    assert abs((column + 0.5) * STRIDE - 50) <= STRIDE / 2
    assert abs((row + 0.5) * STRIDE - 90) <= STRIDE / 2
    assert float(both.max()) <= 1
    assert not targets(points, torch.zeros(1, 2, 1, dtype=torch.bool)).any()


def test_no_answer_costs_less_than_the_right_one():
    batch = one_person()
    right = perfect(batch)
    best = losses(right, batch)
    assert float(best["guess"]) == pytest.approx(0, abs=1e-5)
    moved = Maps(right.centers.roll(2, 3), right.keypoints.roll(2, 2), right.guesses + 0.1)
    for name, value in losses(moved, batch).items():
        assert float(value) > float(best[name]) + 0.05


def test_a_person_to_be_ignored_is_neither_demanded_nor_held_against_the_network():
    batch = one_person()
    ignored = dataclasses.replace(batch, state=-batch.state)
    silent = Maps(
        torch.full((1, 1, 48, 48), -12.0), torch.full((1, 17, 48, 48), -12.0), torch.zeros(1, 38, 24, 24)
    )
    said = perfect(batch)
    for maps in (silent, said):
        assert sum(float(v) for v in losses(maps, ignored).values()) < 2.0
    assert float(losses(silent, batch)["keypoints"]) > 100


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("udfs.keypoint_training.CHECK_EVERY", 2)
    torch.set_num_threads(1)
    renders = dotted()
    settings = {"batch_size": 2, "rate": 1e-3, "seed": 3, "facts": {}}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(renders, renders, whole, whole / "w.safetensors", steps=4, **settings)

    real, calls = KeypointNetwork.save, []

    def killed(self, path, facts):
        real(self, path, facts)
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeypointNetwork, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(renders, renders, parts, parts / "w.safetensors", steps=4, **settings)
    train(renders, renders, parts, parts / "w.safetensors", steps=4, **settings)
    a = KeypointNetwork.load(whole / "w.safetensors").state_dict()
    b = KeypointNetwork.load(parts / "w.safetensors").state_dict()
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=1e-3) for name in a)
    rows = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert np.isfinite(rows[-1]["keypoints"])
