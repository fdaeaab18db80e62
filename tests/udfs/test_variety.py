import math

import numpy as np
import pytest

from udfs.variety import seed_variety


def test_person_and_background_are_told_apart():
    first, second = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    body = np.zeros((4, 4), bool)
    body[1:3, 1:3] = True
    second[1:3, 1:3] = 90
    second[0, 0] = (250, 100, 100)
    assert seed_variety(first, second, body) == (10.0, pytest.approx(50 / 12))
    assert seed_variety(second, first, body) == seed_variety(first, second, body)


def test_what_has_no_pixel_is_no_number():
    picture = np.zeros((2, 2, 3), np.uint8)
    person, background = seed_variety(picture, picture, np.zeros((2, 2), bool))
    assert math.isnan(person)
    assert background == 0
