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
