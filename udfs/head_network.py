"""A small network that sees which way a head is turned. Its training is `udfs/head_training.py`."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from udfs.head_angles import from_six
from udfs.small_network import WEIGHTS, SmallNetwork, halving

_WIDTHS = (24, 48, 96, 160)


class HeadNetwork(SmallNetwork):
    """0.8 million parameters: pictures of heads to the six numbers of a rotation."""

    weights = WEIGHTS / "head_pose.safetensors"
    form = "posedreamer-head-pose-1"

    def __init__(self) -> None:
        super().__init__()
        self.body = halving(_WIDTHS)
        self.answer = nn.Sequential(
            nn.Flatten(), nn.Linear(_WIDTHS[-1] * 16, 128), nn.ReLU(), nn.Linear(128, 6)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 6) of pictures (B, 3, 64, 64) float32 in [0, 255]."""
        return self.answer(self.body((pictures / 255 - 0.5) / 0.25))

    @torch.inference_mode()
    def rotations(self, pictures: np.ndarray) -> np.ndarray:
        """(N, 3, 3) float64: how N heads (N, 64, 64, 3) uint8 RGB are turned against their line of sight."""
        if not len(pictures):
            return np.empty((0, 3, 3))
        batch = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float()
        return from_six(self(batch).double().cpu().numpy())


def six_loss(six: Tensor, rotations: Tensor) -> Tensor:
    """Mean squared distance of the rotations of six numbers (B, 6) from the true ones (B, 3, 3)."""
    a, b = six[:, :3], six[:, 3:]
    x = F.normalize(a, dim=1)
    y = F.normalize(b - (x * b).sum(1, keepdim=True) * x, dim=1)
    found = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    return (found - rotations).square().sum((1, 2)).mean()
