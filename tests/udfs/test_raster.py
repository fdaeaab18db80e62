import numpy as np
import pytest
import trimesh

from udfs.raster import NEAR, interpolate, nearest, paint, rasterize, rasterize_torch

SIZE = (96, 128)


def scene(frames: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two meshes that pierce each other, turned and moved a little a frame; (B, V, 3), faces, cameras."""
    ball = trimesh.creation.icosphere(3, radius=0.5)
    rod = trimesh.creation.capsule(height=1.2, radius=0.15, count=[24, 24])
    both = trimesh.util.concatenate([ball, rod])
    rng = np.random.default_rng(0)
    turns = [trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3] for _ in range(frames)]
    vertices = np.stack([both.vertices @ t.T + (0.1 * i, -0.05 * i, 2.0) for i, t in enumerate(turns)])
    focal = np.tile([110.0, 90.0], (frames, 1)) + np.arange(frames)[:, None]
    princpt = np.tile([61.3, 47.1], (frames, 1))
    return vertices.astype(np.float32), both.faces.astype(np.int32), focal, princpt


def pixel_rays(focal: np.ndarray, princpt: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H * W, 3) directions with z = 1 through pixel centres."""
    row, column = np.mgrid[:height, :width] + 0.5
    x, y = (column - princpt[0]) / focal[0], (row - princpt[1]) / focal[1]
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def test_every_pixel_agrees_with_a_ray_caster():
    vertices, faces, focal, princpt = scene()
    got = rasterize(vertices, faces, focal, princpt, *SIZE)
    for b in range(len(vertices)):
        mesh = trimesh.Trimesh(vertices[b], faces, process=False)
        rays = pixel_rays(focal[b], princpt[b], *SIZE)
        points, ray, _ = mesh.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=False)
        depth = np.full(len(rays), np.inf)
        depth[ray] = points[:, 2]
        depth = depth.reshape(SIZE)
        covered = np.isfinite(depth)
        assert (covered == (got.face[b] >= 0)).mean() > 0.999
        both = covered & (got.face[b] >= 0)
        assert both.sum() > 500
        difference = np.abs(depth[both] - got.depth[b][both])
        assert np.median(difference) < 1e-6
        assert (difference < 1e-4).mean() > 0.999


def test_interpolation_is_perspective_correct():
    """The vertices' own positions, interpolated, are the points that the pixels' rays meet."""
    vertices, faces, focal, princpt = scene(2)
    fragments = rasterize(vertices, faces, focal, princpt, *SIZE)
    points = interpolate(fragments, faces, vertices)
    for b in range(2):
        hit = fragments.face[b] >= 0
        rays = pixel_rays(focal[b], princpt[b], *SIZE).reshape(*SIZE, 3)
        expected = rays[hit] * fragments.depth[b][hit][:, None]
        np.testing.assert_allclose(points[b][hit], expected, atol=1e-5)
        assert np.all(points[b][~hit] == 0)


def test_torch_sees_what_numba_sees():
    vertices, faces, focal, princpt = scene()
    ours = rasterize(vertices, faces, focal, princpt, *SIZE)
    cameras = np.concatenate([focal, princpt], axis=1)
    theirs = rasterize_torch(vertices, faces, cameras, *SIZE, device="cpu")
    same = ours.face == theirs.face
    assert same.mean() > 0.9999
    np.testing.assert_allclose(ours.bary[same], theirs.bary[same], atol=1e-6)
    np.testing.assert_allclose(ours.depth, theirs.depth, rtol=1e-6)
    for name in ("face", "bary", "depth"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
        assert getattr(ours, name).shape == getattr(theirs, name).shape


def flat(corners: list[tuple[float, float]], depth: float = 1.0) -> np.ndarray:
    """One frame of points at this depth whose pixels, at focal 1 and princpt 0, are the given ones."""
    return np.array([[(x * depth, y * depth, depth) for x, y in corners]], np.float32)


ONE = np.ones((1, 2))
ZERO = np.zeros((1, 2))


@pytest.mark.parametrize("device", ["numba", "torch"])
def test_a_pixel_belongs_to_the_triangle_over_its_centre(device):
    vertices, faces = flat([(1, 1), (4, 1), (1, 4)]), np.array([[0, 1, 2]])
    face = _rasterize(device, vertices, faces, 5, 6).face[0]
    expected = np.full((5, 6), -1)
    for row in range(5):
        for column in range(6):
            x, y = column + 0.5, row + 0.5
            if x >= 1 and y >= 1 and x + y <= 5:
                expected[row, column] = 0
    assert np.array_equal(face, expected)


@pytest.mark.parametrize("device", ["numba", "torch"])
def test_two_triangles_leave_no_seam_between_them(device):
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.uniform(0, 32, (2, 2))
        vertices = flat([(-9, -50), (41, -50), (41, 82), (-9, 82), tuple(a), tuple(b)])
        faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
        assert (_rasterize(device, vertices, faces, 32, 32).face >= 0).all()


@pytest.mark.parametrize("device", ["numba", "torch"])
def test_the_nearer_triangle_hides_the_other_and_turning_one_over_changes_nothing(device):
    far, near = flat([(0, 0), (9, 0), (0, 9)], 3.0), flat([(0, 0), (9, 0), (0, 9)], 2.0)
    vertices = np.concatenate([far, near], axis=1)
    for faces in ([[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [5, 4, 3]]):
        got = _rasterize(device, vertices, np.array(faces), 4, 4)
        assert (got.face == 1).all()
        np.testing.assert_allclose(got.depth, 2.0)


@pytest.mark.parametrize("device", ["numba", "torch"])
def test_a_triangle_that_reaches_behind_the_camera_is_left_out(device):
    vertices = np.array([[(-1, -1, 1), (1, -1, 1), (0, 1, NEAR / 2), (0, 1, 1)]], np.float32)
    assert nearest(vertices)[0] < NEAR
    behind = _rasterize(device, vertices, np.array([[0, 1, 2]]), 4, 4, focal=4.0, princpt=2.0)
    assert (behind.face == -1).all()
    assert np.isinf(behind.depth).all()
    assert (_rasterize(device, vertices, np.array([[0, 1, 3]]), 4, 4, focal=4.0, princpt=2.0).face == 0).any()


@pytest.mark.parametrize("device", ["numba", "torch"])
def test_what_lies_outside_the_image_is_cut_off(device):
    vertices = flat([(-1e6, -1e6), (1e6, -1e6), (0, 1e6)])
    assert (_rasterize(device, vertices, np.array([[0, 1, 2]]), 3, 7).face == 0).all()
    away = flat([(50, 50), (60, 50), (50, 60)])
    assert (_rasterize(device, away, np.array([[0, 1, 2]]), 3, 7).face == -1).all()


def test_paint_rounds_colours_to_the_nearest_byte():
    vertices, faces = flat([(-9, -9), (99, -9), (-9, 99)]), np.array([[0, 1, 2]])
    fragments = rasterize(vertices, faces, ONE, ZERO, 4, 4)
    color = np.array([0.2, 0.25, 1.0], np.float32)
    picture = paint(fragments, faces, np.tile(color, (3, 1)))
    assert (picture == np.round(color * 255)).all()


def _rasterize(device, vertices, faces, height, width, focal=1.0, princpt=0.0):
    focal, princpt = ONE * focal, ONE * princpt
    if device == "numba":
        return rasterize(vertices, faces, focal, princpt, height, width)
    cameras = np.concatenate([focal, princpt], axis=1)
    return rasterize_torch(vertices, faces.astype(np.int32), cameras, height, width, device="cpu")
