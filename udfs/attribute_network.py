"""A small network that reads caption attributes off pictures; `udfs/attribute_training.py` trains it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from schemas.tables import MATCHED
from udfs.grammar import WORDS
from udfs.small_network import load_weights, save_weights

WEIGHTS = Path(__file__).parent / "weights" / "attributes.safetensors"
"""The network that comes with the package; `metrics.md` beside it says how good it is."""

FORMAT = "posedreamer-attributes-1"
SIDE = 64
_WIDTHS = (32, 64, 128, 192)
_GRID = SIDE // 2 ** len(_WIDTHS)


class AttributeNetwork(nn.Module):
    """0.9 million parameters. Each attribute looks where it wants to, and says which of its words it sees."""

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
        self.where = nn.Conv2d(before, len(MATCHED), 1)
        self.place = nn.Parameter(torch.zeros(len(MATCHED), _GRID, _GRID))
        self.answers = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * before, 96), nn.ReLU(), nn.Linear(96, len(WORDS[a]))) for a in MATCHED
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Logits (B, words) of each of MATCHED, of pictures (B, 3, 64, 64) float32 in [0, 255]."""
        x = self.body((pictures / 255 - 0.5) / 0.25)
        weights = (self.where(x) + self.place).flatten(2).softmax(-1)
        seen = torch.einsum("bcp,bap->abc", x.flatten(2), weights)
        whole = x.mean((2, 3))
        return [answer(torch.cat([seen[i], whole], 1)) for i, answer in enumerate(self.answers)]

    @classmethod
    def load(cls, device: str = "cpu", weights: Path = WEIGHTS) -> "AttributeNetwork":
        """The trained network, ready to look. Raises ModelError for any other file."""
        return load_weights(cls(), weights, FORMAT).to(device)

    def save(self, path: Path, facts: dict[str, object]) -> None:
        save_weights(self, path, FORMAT, facts)

    @torch.inference_mode()
    def read(self, pictures: Sequence[np.ndarray]) -> list[dict[str, str]]:
        """The likeliest word of each of MATCHED in pictures (H, W, 3) uint8 RGB of any sizes."""
        batch = torch.from_numpy(np.stack([_squared(p) for p in pictures]))
        batch = batch.to(next(self.parameters()).device).permute(0, 3, 1, 2).float()
        best = [logits.argmax(1).tolist() for logits in self(batch)]
        return [{a: WORDS[a][best[i][k]] for i, a in enumerate(MATCHED)} for k in range(len(pictures))]


def _squared(picture: np.ndarray) -> np.ndarray:
    if picture.shape[:2] == (SIDE, SIDE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
