import dataclasses

import numpy as np
import pytest

from schemas.errors import ModelError
from udfs.body import Body
from udfs.markers import MARKER_NAMES, marker_vertices


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


@pytest.fixture(scope="module")
def place(body) -> dict[str, np.ndarray]:
    return dict(zip(MARKER_NAMES, body.template[marker_vertices(body)], strict=True))


def test_eighty_markers_with_names_of_their_own_on_vertices_of_their_own(body):
    assert len(MARKER_NAMES) == len(set(MARKER_NAMES)) == 80
    vertices = marker_vertices(body)
    assert vertices.dtype == np.int64
    assert len(set(vertices.tolist())) == 80


def test_left_and_right_mirror_each_other(place):
    for name, left in place.items():
        if name.startswith("left_"):
            right = place["right_" + name.removeprefix("left_")]
            assert left[0] > 0.02, name
            np.testing.assert_allclose(left * (-1, 1, 1), right, atol=0.01, err_msg=name)
        elif not name.startswith("right_"):
            assert abs(left[0]) < 0.015, name


@pytest.mark.parametrize(
    ("axis", "order"),
    [
        (1, "head_top forehead chin larynx sternum_top sternum navel"),
        (1, "head_back nape upper_back lower_back sacrum"),
        (1, "left_hip_front left_thigh_front left_kneecap left_shin left_big_toe"),
        (1, "left_acromion left_chest left_rib left_waist left_hip_side left_knee_outer left_ankle_outer"),
        (0, "left_index_knuckle left_wrist_thumb left_forearm left_elbow_outer left_acromion left_clavicle"),
        (0, "left_ankle_outer left_ankle_inner"),
        (0, "left_knee_outer left_knee_inner right_knee_inner right_knee_outer"),
        (0, "left_little_toe left_big_toe"),
        (2, "sternum upper_back"),
        (2, "left_kneecap left_calf"),
        (2, "left_wrist_thumb left_wrist_pinky"),
        (2, "left_big_toe left_shin left_heel"),
        (2, "forehead left_temple head_back"),
    ],
)
def test_markers_are_where_their_names_say(place, axis, order):
    values = [place[name][axis] for name in order.split()]
    assert values == sorted(values, reverse=True)


def test_every_marker_rides_on_the_part_that_it_is_named_for(body):
    """Skinning weights know nothing of the rays that found the markers."""
    allowed = {
        "knee": {4, 1}, "shin": {4}, "calf": {4}, "thigh": {1}, "ankle": {4, 7}, "heel": {7}, "toe": {10},
        "elbow": {16, 18}, "forearm": {18}, "wrist": {18, 20}, "upper_arm": {16}, "head": {15},
        "knuckle": {20, 25, 26, 31, 32}, "temple": {15},
    }  # fmt: skip
    part = body.vertex_part[marker_vertices(body)]
    for name, joint in zip(MARKER_NAMES, part, strict=True):
        for word, joints in allowed.items():
            if name.startswith("left") and word in name.removeprefix("left_"):
                assert joint in joints, f"{name} is on joint {joint}"


def test_the_same_body_gives_the_same_markers_and_a_stretched_one_its_own(body):
    assert np.array_equal(marker_vertices(body), marker_vertices(Body.load()))
    size = np.float32(1.3)
    larger = dataclasses.replace(body, template=body.template * size, joints=body.joints * size)
    moved = larger.template[marker_vertices(larger)] / size
    np.testing.assert_allclose(moved, body.template[marker_vertices(body)], atol=0.02)


def test_a_mesh_that_is_no_body_is_refused(body):
    far_away = dataclasses.replace(body, template=body.template + np.float32(10))
    with pytest.raises(ModelError, match="marker"):
        marker_vertices(far_away)
