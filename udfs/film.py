"""From light to the pixels of a file: what a camera adds to a picture."""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from udfs.noise import cell

FILM = np.dtype(
    [
        ("grain", "f8"),
        ("vignette", "f8"),
        ("balance", "f8", 3),
        ("contrast", "f8"),
        ("focus", "i8"),
        ("soft", "f8"),
        ("seed", "i8"),
    ]
)
"""`focus`: radius in pixels (at 256) by which the background is out of focus; `soft`: how much a pixel
takes of its neighbours; `grain`: standard deviation in levels of 255."""

_CURVE = np.linspace(0, 1, 4097)
_CURVE = (255 * np.where(_CURVE <= 0.0031308, 12.92 * _CURVE, 1.055 * _CURVE ** (1 / 2.4) - 0.055)).astype(
    np.float32
)
"""Linear light in 0..1 to sRGB levels."""


def film(said: Mapping[str, str | None], seed: int) -> np.void:
    """The camera that a caption names, with a seed's small differences."""
    rng = np.random.default_rng([seed, 4])
    camera, realism = said.get("camera") or "", said.get("realism") or ""
    o: Any = np.zeros((), FILM)
    grainy = "film" in camera or "film" in realism
    o["grain"] = rng.uniform(3.5, 6.5) if grainy else rng.uniform(0.6, 3.0)
    o["vignette"] = rng.uniform(0.0, 0.22)
    o["balance"] = 1 + rng.normal(0, 0.012, 3)
    o["contrast"] = rng.uniform(-0.06, 0.08)
    shallow = "85mm" in camera or "telephoto" in camera or "medium-format" in camera
    deep = "wide" in camera or "smartphone" in camera
    o["focus"] = rng.integers(2, 5) if shallow else rng.integers(0, 2) if deep else rng.integers(0, 4)
    o["soft"] = 0.0 if "sharp" in realism else rng.choice([0.0, 0.1, 0.2])
    o["seed"] = rng.integers(1 << 20)
    return o[()]


@numba.njit(cache=True, nogil=True)
def _develop(person, background, film, curve, out):
    height, width = out.shape[:2]
    linear = np.empty((height, width, 3), np.float32)
    for i in range(height):
        for j in range(width):
            u, v = (j + 0.5) / width - 0.5, (i + 0.5) / height - 0.5
            fall = 1 - film.vignette * (u * u + v * v) * 2
            for c in range(3):
                light = person[i, j, c] + background[i, j, c] * (1 - person[i, j, 3])
                light *= fall * film.balance[c]
                light += film.contrast * light * (1 - light) * (light - 0.35) * 4
                if light > 0.85:  # highlights roll off instead of clipping
                    light = 0.85 + 0.15 * (1 - np.exp(-(light - 0.85) / 0.15))
                linear[i, j, c] = min(max(light, 0.0), 1.0)
    for i in range(height):
        for j in range(width):
            # Three uniform numbers make a good enough bell.
            common = cell(i, j, 0, film.seed) + cell(i, j, 1, film.seed) + cell(i, j, 2, film.seed) - 1.5
            for c in range(3):
                light = linear[i, j, c]
                if film.soft > 0:
                    around = (
                        linear[max(i - 1, 0), j, c]
                        + linear[min(i + 1, height - 1), j, c]
                        + linear[i, max(j - 1, 0), c]
                        + linear[i, min(j + 1, width - 1), c]
                    )
                    light = light * (1 - film.soft) + around * 0.25 * film.soft
                own = cell(i, j, 3 + c, film.seed) - 0.5
                level = curve[int(light * 4096 + 0.5)] + film.grain * (1.6 * common + 1.2 * own)
                out[i, j, c] = np.uint8(min(max(level + 0.5, 0.0), 255.0))


def develop(person: np.ndarray, background: np.ndarray, film: np.void) -> np.ndarray:
    """(H, W, 3) uint8 from a person (H, W, 4), colour times coverage, before (H, W, 3); linear float32."""
    out = np.empty(background.shape, np.uint8)
    _develop(person, background, film, _CURVE, out)
    return out
