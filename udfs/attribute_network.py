"""A small network that reads caption attributes off pictures; `udfs/attribute_training.py` trains it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from schemas.metrics import MATCHED
from udfs.grammar import WORDS
from udfs.small_network import WEIGHTS, SmallNetwork, halving

SIDE = 64
_WIDTHS = (32, 64, 128, 192)
_GRID = SIDE // 2 ** len(_WIDTHS)


class AttributeNetwork(SmallNetwork):
    """0.9 million parameters. Each attribute looks where it wants to, and says which of its words it sees."""

    weights = WEIGHTS / "attributes.safetensors"
    form = "posedreamer-attributes-1"

    def __init__(self) -> None:
        super().__init__()
        self.body = halving(_WIDTHS)
        self.where = nn.Conv2d(_WIDTHS[-1], len(MATCHED), 1)
        self.place = nn.Parameter(torch.zeros(len(MATCHED), _GRID, _GRID))
        self.answers = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * _WIDTHS[-1], 96), nn.ReLU(), nn.Linear(96, len(WORDS[a])))
            for a in MATCHED
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Logits (B, words) of each of MATCHED, of pictures (B, 3, 64, 64) float32 in [0, 255]."""
        x = self.body((pictures / 255 - 0.5) / 0.25)
        weights = (self.where(x) + self.place).flatten(2).softmax(-1)
        seen = torch.einsum("bcp,bap->abc", x.flatten(2), weights)
        whole = x.mean((2, 3))
        return [answer(torch.cat([seen[i], whole], 1)) for i, answer in enumerate(self.answers)]

    @torch.inference_mode()
    def read(self, pictures: Sequence[np.ndarray]) -> list[dict[str, str]]:
        """The likeliest word of each of MATCHED in pictures (H, W, 3) uint8 RGB of any sizes."""
        batch = torch.from_numpy(np.stack([_squared(p) for p in pictures]))
        batch = batch.to(self.device).permute(0, 3, 1, 2).float()
        best = [logits.argmax(1).tolist() for logits in self(batch)]
        return [{a: WORDS[a][best[i][k]] for i, a in enumerate(MATCHED)} for k in range(len(pictures))]


def _squared(picture: np.ndarray) -> np.ndarray:
    if picture.shape[:2] == (SIDE, SIDE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
