"""What the parts of the nano model's training share: learning rates, half precision, pictures, the log."""

import logging
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from udfs.training_log import TrainingLog

log = logging.getLogger("nano")

LOG_EVERY = 50
_PERSON_WEIGHT = 1.0
"""How much more what a person fills counts: people cover a fifth of a picture and are its point."""
_FEET_WEIGHT = 6.0
"""And what their ankles or feet fill: shoes are named in captions and are two tokens large."""
_FEET = (15, 16)
"""The ankles among COCO's keypoints."""
_REACH = 1 / 12
"""How far from an ankle its foot goes at most, of the picture's side."""


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int, warm: int) -> None:
    falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate * min((step + 1) / warm, 1.0) * falling


def half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return values.float() / 127.5 - 1


def parts(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


def shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size, 3) uint8: means of squares of pixels; the side is a multiple of the size."""
    n, side = pictures.shape[:2]
    if side == size:
        return pictures
    tile = side // size
    mean = pictures.reshape(n, size, tile, size, tile, 3).mean((2, 4), dtype=np.float32)
    return np.round(mean).astype(np.uint8)


def tell(journal: TrainingLog, part: str, step: int, figures: Mapping[str, float]) -> None:
    journal.write(step, figures)
    log.info(" ".join([part, str(step), *(f"{name} {value:.4g}" for name, value in figures.items())]))


def counts(
    controls: np.ndarray, keypoints: np.ndarray, cells: int, shoes: float | np.ndarray = 0.0
) -> np.ndarray:
    """(N, cells * cells) float32: what each cell of N pictures counts in a loss.

    controls: (N, S, S, 3) uint8, black where nobody is; keypoints: (N, 17, 2) pixels; shoes: how much more
    feet count than they do anyway, of all pictures or (N,).
    """
    n, side = controls.shape[:2]
    tile = side // cells
    person = (controls > 0).any(-1).reshape(n, cells, tile, cells, tile).mean((2, 4))
    middle = (np.arange(cells) + 0.5) * tile
    off = np.stack(np.meshgrid(middle, middle), -1) - keypoints[:, _FEET, None, None]
    feet = (np.linalg.norm(off, axis=-1) < _REACH * side).any(1)
    more = _FEET_WEIGHT + np.broadcast_to(shoes, n)[:, None, None]
    out = 1 + person * (_PERSON_WEIGHT + more * feet)
    return out.reshape(n, -1).astype(np.float32)
