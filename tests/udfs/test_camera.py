import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from udfs.camera import boxes, camera_params, crop, project, view_rotations


def test_project_is_the_pinhole_formula():
    rng = np.random.default_rng(0)
    points = rng.normal((0, 0, 5), 1, (3, 5, 3))
    focal, princpt = rng.uniform(300, 900, (3, 2)), rng.uniform(100, 300, (3, 2))
    pixels = project(points, focal, princpt)
    for b in range(3):
        intrinsics = np.array([[focal[b, 0], 0, princpt[b, 0]], [0, focal[b, 1], princpt[b, 1]], [0, 0, 1]])
        homogeneous = points[b] @ intrinsics.T
        np.testing.assert_allclose(pixels[b], homogeneous[:, :2] / homogeneous[:, 2:])


def seen(point: tuple[float, float, float], yaw: float, elevation: float) -> np.ndarray:
    return view_rotations(np.array([np.deg2rad(yaw)]), np.array([np.deg2rad(elevation)]))[0] @ point


@pytest.mark.parametrize(
    ("what", "point", "yaw", "elevation", "axis", "sign"),
    [
        ("up is up in the image", (0, 1, 0), 70, 0, 1, -1),
        ("the subject's left is on the right of a frontal image", (1, 0, 0), 0, 0, 0, 1),
        ("and on the left of an image from behind", (1, 0, 0), 180, 0, 0, -1),
        ("the face is nearer to a frontal camera", (0, 0, 1), 0, 0, 2, -1),
        ("the left side is nearer to a camera at yaw 90", (1, 0, 0), 90, 0, 2, -1),
        ("the head is nearer to a camera that looks down", (0, 1, 0), 0, 40, 2, -1),
        ("the feet are nearer to a camera that looks up", (0, -1, 0), 120, -40, 2, -1),
    ],
)
def test_where_the_camera_stands(what, point, yaw, elevation, axis, sign):
    assert seen(point, yaw, elevation)[axis] * sign > 0.3, what


def test_views_are_proper_rotations_that_never_roll():
    rng = np.random.default_rng(0)
    views = view_rotations(rng.uniform(-4, 4, 50), rng.uniform(-1.2, 1.2, 50))
    np.testing.assert_allclose(views @ views.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(views), 1)
    np.testing.assert_allclose(views[:, 0, 1], 0, atol=1e-12)


def test_a_body_turned_about_its_pelvis_stands_where_the_camera_sees_it():
    """Against points moved by hand: smplx maps a rest point p to R (p - pelvis) + pelvis + transl."""
    rng = np.random.default_rng(1)
    rest, pelvis = rng.normal(size=(8, 3)), rng.normal(size=(1, 3)) * 0.3
    orient, yaw, elevation, distance = rng.normal(size=(1, 3)), 0.7, 0.3, 2.5
    got = camera_params(
        {"global_orient": orient, "transl": rng.normal(size=(1, 3))},
        pelvis,
        np.array([yaw]),
        np.array([elevation]),
        np.array([distance]),
    )
    rotation = Rotation.from_rotvec(got["global_orient"][0]).as_matrix()
    posed = (rest - pelvis) @ rotation.T + pelvis + got["transl"]
    world = (rest - pelvis) @ Rotation.from_rotvec(orient[0]).as_matrix().T
    view = view_rotations(np.array([yaw]), np.array([elevation]))[0]
    np.testing.assert_allclose(posed, world @ view.T + (0, 0, distance), atol=1e-6)
    assert got["global_orient"].dtype == got["transl"].dtype == np.float32


def test_a_crop_is_the_smallest_square_around_the_body_grown_by_the_margin():
    rng = np.random.default_rng(2)
    points = rng.uniform(-1, 1, (6, 40, 3)) * (0.3, 0.9, 0.2) + (0.2, 0, 4)
    focal, princpt = np.full((6, 2), 700.0), np.full((6, 2), 256.0)
    box = boxes(project(points, focal, princpt))
    new = crop(box, focal, princpt, np.full(6, 0.1), np.array([512, 512]))
    box = boxes(project(points, *new))
    side = (box[:, 2:] - box[:, :2]).max(axis=1)
    np.testing.assert_allclose(side * 1.1, 512)
    np.testing.assert_allclose((box[:, :2] + box[:, 2:]) / 2, 256)
    assert np.array_equal(new[0][:, 0], new[0][:, 1])


def test_a_crop_of_a_wide_image_keeps_its_proportions():
    points = np.array([[[-0.3, -0.9, 4], [0.3, 0.9, 4]]])
    focal, princpt = np.full((1, 2), 700.0), np.array([[320.0, 240.0]])
    box = boxes(project(points, focal, princpt))
    new = crop(box, focal, princpt, np.array([0.2]), np.array([640, 480]))
    box = boxes(project(points, *new))[0]
    assert (box[3] - box[1]) * 1.2 == pytest.approx(480)
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (320, 240))
