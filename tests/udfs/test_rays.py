import numpy as np
import pytest
import trimesh

from udfs.rays import hits


@pytest.mark.parametrize("last", [False, True])
def test_distances_are_those_of_an_independent_ray_caster(last):
    mesh = trimesh.util.concatenate(
        [trimesh.creation.icosphere(2, radius=0.5), trimesh.creation.box((0.4, 3.0, 0.3))]
    )
    rng = np.random.default_rng(0)
    origins, rays = rng.normal(0, 0.6, (60, 3)), rng.normal(size=(60, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    points, ray, _ = mesh.ray.intersects_location(origins, rays, multiple_hits=True)
    expected = np.full(60, np.nan)
    for i in range(60):
        distances = np.linalg.norm(points[ray == i] - origins[i], axis=1)
        if len(distances):
            expected[i] = distances.max() if last else distances.min()
    assert 10 < np.isnan(expected).sum() < 50
    np.testing.assert_allclose(hits(origins, rays, mesh.triangles, last=last), expected, atol=1e-4)
