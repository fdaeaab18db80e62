"""A small network that says which pixels show a person: a head on the keypoint network's features.

Its training is `udfs/person_mask_training.py`.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from udfs.keypoint_network import Features, KeypointNetwork, letterbox
from udfs.keypoints import WEIGHTS as TRUNK
from udfs.small_network import WEIGHTS, SmallNetwork


class MaskHead(SmallNetwork):
    """20 thousand parameters; what is told apart at stride 8 is drawn along the edges seen at stride 2."""

    weights = WEIGHTS / "person_mask.safetensors"
    form = "posedreamer-person-mask-1"

    def __init__(self) -> None:
        super().__init__()
        self.from8 = nn.Conv2d(128, 32, 1)
        self.from4 = nn.Conv2d(32, 32, 1)
        self.mix4 = nn.Sequential(nn.ReLU(), nn.Conv2d(32, 24, 3, padding=1), nn.ReLU())
        self.from2 = nn.Conv2d(16, 24, 1)
        self.mix2 = nn.Sequential(
            nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 3, padding=1)
        )

    def forward(self, features: Features) -> Tensor:
        """(B, 1, 96, 96) logits: a person at two pixels of the network's square."""
        x = self.from4(features.at4) + _doubled(self.from8(features.at8))
        return self.mix2(self.from2(features.at2) + _doubled(self.mix4(x)))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class PersonMask:
    """The head with the network that it looks with."""

    def __init__(self, trunk: KeypointNetwork, head: MaskHead) -> None:
        self.trunk, self.head = trunk, head

    @classmethod
    def load(cls, device: str = "cpu") -> "PersonMask":
        """The trained network, ready to look. Raises ModelError for any other file."""
        return cls(KeypointNetwork.load(TRUNK, device), MaskHead.load(device))

    @torch.inference_mode()
    def shares(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(H, W) float32 of each picture (H, W, 3) uint8 RGB: how likely a pixel shows a person."""
        fitted = [letterbox(picture) for picture in pictures]
        batch = torch.from_numpy(np.stack([canvas for canvas, _, _ in fitted]))
        batch = batch.to(self.head.device).permute(0, 3, 1, 2).float()
        likely = _doubled(self.head(self.trunk.features(batch))).sigmoid()[:, 0].cpu().numpy()
        out = []
        for canvas, picture, (_, scale, (x, y)) in zip(likely, pictures, fitted, strict=True):
            height, width = picture.shape[:2]
            inner = canvas[y : y + max(round(height * scale), 1), x : x + max(round(width * scale), 1)]
            whole = Image.fromarray(inner).resize((width, height), Image.Resampling.BILINEAR)
            out.append(np.asarray(whole))
        return out
