"""How much two pictures of one sample differ, which differ in their seed alone."""

import numpy as np


def seed_variety(first: np.ndarray, second: np.ndarray, body: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference of the pixels, 0 to 255, of the person and of the background.

    NaN where one of the two has no pixel.

    Args:
        first, second: (H, W, 3) uint8.
        body: (H, W) bool, where the label's body is: the same in both.
    """
    difference = np.abs(first.astype(np.int16) - second).mean(2)
    return _mean(difference[body]), _mean(difference[~body])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
