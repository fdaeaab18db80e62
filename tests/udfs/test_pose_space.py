"""Cells of pose space against scipy, and that they are the same every time."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from schemas.errors import InputError
from udfs.pose_space import cell_of, cells
from udfs.random_poses import random_poses
from udfs.skeleton import descriptor


@pytest.fixture(scope="module")
def points():
    drawn = np.tile(random_poses(300, 8)["body_pose"], (5, 1))
    return descriptor(drawn + np.random.default_rng(9).normal(0, 0.1, drawn.shape))


def test_every_pose_is_in_the_cell_of_its_nearest_centroid(points):
    centroids = cells(points, 40, seed=1)
    place = cell_of(points, centroids)
    off = cdist(points.astype(float), centroids.astype(float))
    assert centroids.shape == (40, 66)
    assert (place == off.argmin(1)).all()
    assert len(np.unique(place)) == 40
    # k-means has converged about as far as it goes: centroids are their cells' means.
    means = np.stack([points[place == i].mean(0) for i in range(40)])
    assert np.linalg.norm(means - centroids, axis=1).mean() < 0.02


def test_cells_are_tighter_than_cells_round_poses_at_random(points):
    def spread(centroids):
        return (cdist(points, centroids).min(1) ** 2).mean()

    drawn = points[np.random.default_rng(0).permutation(1500)[:40]]
    assert spread(cells(points, 40, seed=1)) < 0.8 * spread(drawn)


def test_a_seed_gives_the_same_cells_whatever_the_threads(points, monkeypatch, capfd):
    first = cells(points, 40, seed=1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert np.array_equal(cells(points, 40, seed=1), first)
    assert not np.array_equal(cells(points, 40, seed=2), first)
    assert cells(points[:3], 3, seed=2**62).shape == (3, 66)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", [0, 1501])
def test_more_cells_than_poses_are_refused(points, count):
    with pytest.raises(InputError, match=f"1500 poses cannot make {count} cells"):
        cells(points, count, seed=0)
