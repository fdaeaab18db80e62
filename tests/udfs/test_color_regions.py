import numpy as np
import pytest

from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.color_regions import (
    BACKGROUND,
    BOTTOM,
    NOWHERE,
    SHOES,
    TOP,
    Tailor,
    color_regions,
)
from udfs.random_poses import random_poses
from udfs.raster import rasterize

SIDE = 96


@pytest.fixture(scope="module")
def tailor():
    return Tailor.load(Body.load(None))


def seen(tailor, n, seed=3):
    params = random_poses(n, seed)
    pelvis = tailor.body.pelvis(params["betas"], params["expression"])
    params = camera_params(params, pelvis, np.linspace(-3, 3, n), np.full(n, 0.1), np.full(n, 3.0))
    vertices = tailor.body(params).vertices
    focal, princpt = np.full((n, 2), 80.0), np.full((n, 2), SIDE / 2)
    box = boxes(project(vertices, focal, princpt))
    return params, vertices, *crop(box, focal, princpt, np.full(n, 0.1), np.full((n, 2), SIDE))


def test_garments_lie_on_the_body_and_the_background_away_from_it(tailor):
    params, vertices, focal, princpt = seen(tailor, 12)
    regions = color_regions(tailor, params, focal, princpt, SIDE, SIDE)
    body = rasterize(vertices, tailor.body.faces, focal, princpt, SIDE, SIDE).face >= 0
    assert regions.dtype == np.int8
    assert body[np.isin(regions, (TOP, BOTTOM, SHOES))].all()
    near = np.zeros_like(body)
    near[:, 2:-2, 2:-2] = np.lib.stride_tricks.sliding_window_view(body, (5, 5), (1, 2)).any((3, 4))
    assert not near[regions == BACKGROUND].any(), "not even two pixels from it, where edges are mixed"
    counts = [(regions == r).sum((1, 2)) for r in (TOP, BOTTOM, BACKGROUND)]
    assert (np.median(counts, axis=1) > 60).all(), "there is something to look at"


def test_standing_the_regions_come_in_the_order_of_the_clothes(tailor):
    zero = {"betas": np.zeros((1, 10)), "expression": np.zeros((1, 10)), "global_orient": np.zeros((1, 3))}
    pelvis = tailor.body.pelvis(zero["betas"], zero["expression"])
    params = camera_params(zero, pelvis, np.zeros(1), np.zeros(1), np.full(1, 3.0))
    regions = color_regions(tailor, params, np.full((1, 2), 130.0), np.full((1, 2), 64.0), 128, 128)[0]
    rows = {r: np.flatnonzero((regions == r).any(1)) for r in (TOP, BOTTOM, SHOES)}
    assert rows[TOP].max() < rows[BOTTOM].min()
    assert rows[BOTTOM].max() < rows[SHOES].min()
    assert (regions[:, :8] == BACKGROUND).any()
    assert (regions[100:, :8] == NOWHERE).all(), "beside the legs lies the floor"


def test_a_region_depends_on_its_own_row_alone(tailor):
    params, _, focal, princpt = seen(tailor, 5)
    together = color_regions(tailor, params, focal, princpt, SIDE, SIDE)
    last = {name: value[4:] for name, value in params.items()}
    alone = color_regions(tailor, last, focal[4:], princpt[4:], SIDE, SIDE)
    assert np.array_equal(together[4:], alone)
