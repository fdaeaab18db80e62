"""Colours as light: what can be added and multiplied."""

import numpy as np


def linear(color: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    """(3,) sRGB in 0..255 to linear light in 0..1."""
    c = np.asarray(color, np.float64) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
