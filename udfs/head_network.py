"""A small network that sees which way a head is turned. Its training is `udfs/head_training.py`."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from udfs.head_angles import from_six
from udfs.small_network import load_weights, save_weights

WEIGHTS = Path(__file__).parent / "weights" / "head_pose.safetensors"
"""The network that comes with the package; `metrics.md` beside it says how good it is."""

FORMAT = "posedreamer-head-pose-1"
_WIDTHS = (24, 48, 96, 160)


class HeadNetwork(nn.Module):
    """0.8 million parameters: pictures of heads to the six numbers of a rotation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            ]  # fmt: skip
            before = width
        self.body = nn.Sequential(*layers)
        self.answer = nn.Sequential(nn.Flatten(), nn.Linear(before * 16, 128), nn.ReLU(), nn.Linear(128, 6))

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 6) of pictures (B, 3, 64, 64) float32 in [0, 255]."""
        return self.answer(self.body((pictures / 255 - 0.5) / 0.25))

    @classmethod
    def load(cls, device: str = "cpu", weights: Path = WEIGHTS) -> "HeadNetwork":
        """The trained network, ready to look. Raises ModelError for any other file."""
        return load_weights(cls(), weights, FORMAT).to(device)

    def save(self, path: Path, facts: dict[str, object]) -> None:
        save_weights(self, path, FORMAT, facts)

    @torch.inference_mode()
    def rotations(self, pictures: np.ndarray) -> np.ndarray:
        """(N, 3, 3) float64: how N heads (N, 64, 64, 3) uint8 RGB are turned against their line of sight."""
        if not len(pictures):
            return np.empty((0, 3, 3))
        batch = torch.from_numpy(pictures).to(next(self.parameters()).device).permute(0, 3, 1, 2).float()
        return from_six(self(batch).double().cpu().numpy())


def six_loss(six: Tensor, rotations: Tensor) -> Tensor:
    """Mean squared distance of the rotations of six numbers (B, 6) from the true ones (B, 3, 3)."""
    a, b = six[:, :3], six[:, 3:]
    x = F.normalize(a, dim=1)
    y = F.normalize(b - (x * b).sum(1, keepdim=True) * x, dim=1)
    found = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    return (found - rotations).square().sum((1, 2)).mean()
