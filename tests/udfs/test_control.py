import numpy as np
import pytest
import trimesh

from udfs.body import Body
from udfs.camera import boxes, camera_params, crop, project
from udfs.control import canonical_vertices, pncc_colors, render_control
from udfs.raster import rasterize_torch

SIZE = 256


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


@pytest.fixture(scope="module")
def colors(body) -> np.ndarray:
    return pncc_colors(body)


@pytest.fixture(scope="module")
def posed(body) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six strongly bent bodies from all sides, cropped: vertices, focal, princpt."""
    count = 6
    rng = np.random.default_rng(0)
    pose = {
        "betas": rng.normal(size=(count, 10)),
        "expression": np.zeros((count, 10)),
        "global_orient": rng.normal(0, 0.3, (count, 3)),
        "body_pose": rng.normal(0, 0.4, (count, 63)),
        "left_hand_pose": rng.normal(0, 0.3, (count, 45)),
    }
    pelvis = body.pelvis(pose["betas"], pose["expression"])
    yaw, elevation = np.linspace(0, 5, count), rng.uniform(-0.3, 0.5, count)
    vertices = body(camera_params(pose, pelvis, yaw, elevation, np.full(count, 2.5))).vertices
    focal, princpt = np.full((count, 2), 300.0), np.full((count, 2), SIZE / 2)
    box = boxes(project(vertices, focal, princpt))
    return vertices, *crop(box, focal, princpt, np.full(count, 0.1), np.array([SIZE, SIZE]))


def test_the_canonical_body_stands_in_an_a_pose(body):
    joints = {"left_wrist": 20, "left_shoulder": 16, "left_ankle": 7, "left_hip": 1}
    part = body.vertex_part
    vertices = canonical_vertices(body)
    wrist, shoulder = (vertices[part == joints[k]].mean(0) for k in ("left_wrist", "left_shoulder"))
    drop, reach = shoulder[1] - wrist[1], wrist[0] - shoulder[0]
    assert 0.5 < drop / reach < 2, "arms hang at about 45 degrees"
    ankles = [vertices[part == k].mean(0) for k in (7, 8)]
    hips = body.joints[[1, 2]]
    assert 0.05 < (ankles[0][0] - ankles[1][0]) - (hips[0][0] - hips[1][0]) < 0.6, "legs slightly apart"


def test_each_axis_fills_the_range_of_its_colour(body, colors):
    assert colors.dtype == np.float32
    np.testing.assert_allclose(colors.min(axis=0), 0)
    np.testing.assert_allclose(colors.max(axis=0), 1)
    vertices = canonical_vertices(body)
    for axis in range(3):
        assert np.corrcoef(vertices[:, axis], colors[:, axis])[0, 1] > 0.9999


def test_left_and_right_head_and_foot_front_and_back_differ(body, colors):
    part = body.vertex_part
    left, right = (colors[part == k].mean(axis=0) for k in (20, 21))
    assert left[0] - right[0] > 0.5
    head, foot = (colors[part == k].mean(axis=0) for k in (15, 10))
    assert head[1] - foot[1] > 0.7


def test_pixels_agree_with_a_ray_caster(body, colors, posed):
    vertices, focal, princpt = posed
    images = render_control(vertices, body.faces, colors, focal, princpt, SIZE, SIZE)
    assert images.shape == (len(vertices), SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    for b, image in enumerate(images):
        x, y = (column - princpt[b, 0]) / focal[b, 0], (row - princpt[b, 1]) / focal[b, 1]
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        mesh = trimesh.Trimesh(vertices[b], body.faces, process=False)
        points, ray, face = mesh.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=False)
        corners = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
        expected = np.zeros((SIZE * SIZE, 3))
        expected[ray] = np.einsum("nk,nkc->nc", corners, colors[body.faces[face]]) * 255
        expected = expected.reshape(SIZE, SIZE, 3)
        covered = np.zeros(SIZE * SIZE, bool)
        covered[ray] = True
        covered = covered.reshape(SIZE, SIZE)
        ours = image.any(axis=-1)
        assert (ours & covered).sum() / (ours | covered).sum() >= 0.995
        both = ours & covered
        assert np.abs(image.astype(float) - expected)[both].mean() <= 2
        assert not image[~ours].any()


def test_the_cuda_path_draws_the_same_picture(body, colors, posed, monkeypatch):
    vertices, focal, princpt = (a[:2] for a in posed)
    ours = render_control(vertices, body.faces, colors, focal, princpt, SIZE, SIZE)
    monkeypatch.setattr(
        "udfs.raster.rasterize_torch",
        lambda *args: rasterize_torch(*args[:-1], "cpu"),
    )
    theirs = render_control(vertices, body.faces, colors, focal, princpt, SIZE, SIZE, device="cuda")
    assert np.abs(ours.astype(int) - theirs).max(axis=-1).mean() < 0.01


def test_a_picture_does_not_depend_on_those_beside_it(body, colors, posed):
    vertices, focal, princpt = posed
    together = render_control(vertices, body.faces, colors, focal, princpt, SIZE, SIZE)
    alone = render_control(vertices[3:4], body.faces, colors, focal[3:4], princpt[3:4], SIZE, SIZE)
    assert np.array_equal(together[3], alone[0])
