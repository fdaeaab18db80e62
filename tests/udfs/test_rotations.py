import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from udfs.rotations import compose, matrix_from_rotvec, rotvec_from_matrix, wrap_rotvec


@pytest.fixture(scope="module")
def rotvecs() -> np.ndarray:
    """Random axes with angles from nothing to several turns, and those where formulas change."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(4000, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    axes[:6] = [*np.eye(3), *-np.eye(3)]
    angles = rng.uniform(0, 20, 4000)
    special = [0, 1e-12, 1e-8, 1e-4, np.pi - 1e-7, np.pi, np.pi + 1e-7, 2 * np.pi, 3 * np.pi, 4 * np.pi]
    angles[: 100 * len(special)] = np.repeat(special, 100)
    return axes[rng.permutation(4000)] * angles[:, None]


def test_matrices_are_scipys(rotvecs):
    np.testing.assert_allclose(
        matrix_from_rotvec(rotvecs), Rotation.from_rotvec(rotvecs).as_matrix(), atol=1e-12
    )


def test_a_matrix_gives_back_its_rotation_at_every_angle(rotvecs):
    matrices = Rotation.from_rotvec(rotvecs).as_matrix()
    back = rotvec_from_matrix(matrices)
    assert np.linalg.norm(back, axis=1).max() <= np.pi + 1e-12
    np.testing.assert_allclose(Rotation.from_rotvec(back).as_matrix(), matrices, atol=1e-7)


def test_wrapping_keeps_the_rotation_and_shortens_the_vector(rotvecs):
    wrapped = wrap_rotvec(rotvecs)
    assert np.linalg.norm(wrapped, axis=1).max() <= np.pi + 1e-9
    np.testing.assert_allclose(
        Rotation.from_rotvec(wrapped).as_matrix(), Rotation.from_rotvec(rotvecs).as_matrix(), atol=1e-12
    )


def test_wrapping_changes_no_bit_of_a_short_vector(rotvecs):
    short = rotvecs[np.linalg.norm(rotvecs, axis=1) <= np.pi]
    assert np.array_equal(wrap_rotvec(short), short)


def test_composing_is_multiplying_matrices(rotvecs):
    first, second = rotvecs, rotvecs[::-1]
    both = compose(first, second)
    expected = (Rotation.from_rotvec(first) * Rotation.from_rotvec(second)).as_matrix()
    np.testing.assert_allclose(Rotation.from_rotvec(both).as_matrix(), expected, atol=1e-12)
    assert np.linalg.norm(both, axis=1).max() <= np.pi + 1e-12


def test_any_leading_shape():
    rotvecs = np.random.default_rng(1).normal(size=(2, 5, 7, 3))
    np.testing.assert_allclose(
        rotvec_from_matrix(matrix_from_rotvec(rotvecs)), wrap_rotvec(rotvecs), atol=1e-9
    )
