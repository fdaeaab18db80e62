"""A small network that finds people and their 17 COCO keypoints in pixels.

Bottom-up and top-down at once: a map of person centres; from each centre a first guess of the box and of
every keypoint (Zhou et al., "Objects as Points"); and one map a keypoint, whose peak near the first guess
is the answer, to a fraction of a pixel. Its training is `udfs/keypoint_training.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from schemas.coco import FLIP, N_KEYPOINTS
from udfs.small_network import load_weights, save_weights

SIZE = 192
"""Side of the square that every picture is fitted into, pixels."""

STRIDE = 4
"""Pixels of that square between two cells of the centre and keypoint maps."""

GUESS_STRIDE = 8
"""Pixels between two cells of the guess map."""

UNIT = 32.0
"""Pixels of that square that a first guess of 1 stands for."""

MAX_PEOPLE = 20
FORMAT = "posedreamer-keypoints-1"
GREY = 114
_WIDTHS = (16, 32, 64, 128, 192)


@dataclass(frozen=True)
class People:
    """What was found in one picture, the most certain person first.

    Attributes:
        scores: (P,) float32 in [0, 1].
        keypoints: (P, 17, 3) float32: x, y in pixels of the picture, confidence in [0, 1].
        boxes: (P, 4) float32: x, y, width, height in pixels of the picture.
    """

    scores: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Maps:
    """What the network says about B pictures, before decoding.

    Attributes:
        centers: (B, 1, 48, 48) logits.
        keypoints: (B, 17, 48, 48) logits.
        guesses: (B, 38, 24, 24): distances left, up, right, down from the cell's middle to the box's
            sides, then 17 offsets x, y; in `UNIT` pixels.
    """

    centers: Tensor
    keypoints: Tensor
    guesses: Tensor

    def mirrored(self) -> "Maps":
        """What these maps say about the mirrored pictures."""
        order = list(FLIP)
        offsets = self.guesses[:, 4:].unflatten(1, (N_KEYPOINTS, 2))[:, order]
        offsets = offsets * torch.tensor([-1.0, 1.0], device=offsets.device)[:, None, None]
        guesses = torch.cat([self.guesses[:, [2, 1, 0, 3]], offsets.flatten(1, 2)], dim=1)
        return Maps(self.centers.flip(3), self.keypoints[:, order].flip(3), guesses.flip(3))


@dataclass(frozen=True)
class Features:
    """What the network computes on the way, for B pictures; other networks look with them too.

    Attributes:
        at2: (B, 16, 96, 96), edges and colours.
        at4: (B, 32, 48, 48).
        at8: (B, 128, 24, 24), what a place is, seen with all that is around it.
        at32: (B, 192, 6, 6).
    """

    at2: Tensor
    at4: Tensor
    at8: Tensor
    at32: Tensor

    def float(self) -> "Features":
        """The same in float32."""
        return Features(*(x.float() for x in (self.at2, self.at4, self.at8, self.at32)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs, 2), _Residual(outputs), _Residual(outputs))


class KeypointNetwork(nn.Module):
    """An hourglass of 3 million parameters; the maps at stride 4 are computed at stride 8 and unfolded."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth, smallest = _WIDTHS
        self.stem = nn.Sequential(
            _convolution(3, half, 2), _convolution(half, quarter, 2), _Residual(quarter)
        )
        self.down8 = _stage(quarter, eighth)
        self.down16 = _stage(eighth, sixteenth)
        self.down32 = _stage(sixteenth, smallest)
        self.up16 = nn.Conv2d(smallest, sixteenth, 1)
        self.merge16 = _Residual(sixteenth)
        self.up8 = nn.Conv2d(sixteenth, 96, 1)
        self.skip8 = nn.Conv2d(eighth, 96, 1)
        self.merge8 = nn.Sequential(_Residual(96), _convolution(96, 128))
        self.maps = nn.Conv2d(128, (1 + N_KEYPOINTS) * 4, 1)
        self.guess = nn.Conv2d(128, 4 + 2 * N_KEYPOINTS, 1)
        # Almost every cell is background.
        self.maps.bias = nn.Parameter(torch.full((self.maps.out_channels,), -4.0))

    def forward(self, pictures: Tensor) -> Maps:
        """pictures: (B, 3, 192, 192) float32 in [0, 255]."""
        at8 = self.features(pictures).at8
        maps = F.pixel_shuffle(self.maps(at8), 2)
        return Maps(maps[:, :1], maps[:, 1:], self.guess(at8))

    def features(self, pictures: Tensor) -> Features:
        """What the maps are computed from; arguments as in `forward`."""
        x = (pictures / 255 - 0.5) / 0.25
        at2 = self.stem[0](x.to(memory_format=torch.channels_last))
        at4 = self.stem[1:](at2)
        at8 = self.down8(at4)
        at16 = self.down16(at8)
        at32 = self.down32(at16)
        at16 = self.merge16(at16 + F.interpolate(self.up16(at32), scale_factor=2.0))
        at8 = self.merge8(self.skip8(at8) + F.interpolate(self.up8(at16), scale_factor=2.0))
        return Features(at2, at4, at8, at32)

    def channels_last(self) -> "KeypointNetwork":
        """The same network, its weights laid out as CPUs and tensor cores want them."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "KeypointNetwork":
        """The trained network, ready to detect. Raises ModelError for any other file."""
        return load_weights(cls(), path, FORMAT).channels_last().to(device)

    def save(self, path: Path, facts: dict[str, object]) -> None:
        """Half-precision weights as safetensors; `facts` (how it was trained) go into the file's header."""
        save_weights(self, path, FORMAT, facts)

    @torch.inference_mode()
    def detect(
        self, pictures: Sequence[np.ndarray], *, threshold: float = 0.4, mirror: bool = True
    ) -> list[People]:
        """The people in each picture.

        Args:
            pictures: (H, W, 3) uint8 RGB, of any sizes.
            threshold: certainty from which a centre is a person.
            mirror: looks at the mirror image as well and takes the mean: twice the time, a better answer.
        """
        if not pictures:
            return []
        fitted = [letterbox(picture) for picture in pictures]
        batch = torch.from_numpy(np.stack([canvas for canvas, _, _ in fitted]))
        batch = batch.to(next(self.parameters()).device).permute(0, 3, 1, 2).float()
        maps = [self(batch), self(batch.flip(3)).mirrored()] if mirror else [self(batch)]
        centers, keypoints, guesses = (
            sum(getattr(m, name).float() for m in maps).cpu().numpy() / len(maps)
            for name in ("centers", "keypoints", "guesses")
        )
        centers, keypoints = _sigmoid(centers[:, 0]), _sigmoid(keypoints)
        found = []
        for i, (_, scale, offset) in enumerate(fitted):
            people = decode(centers[i], keypoints[i], guesses[i], threshold)
            shift = np.asarray(offset, np.float32)
            boxes = people.boxes / scale
            boxes[:, :2] -= shift / scale
            points = people.keypoints.copy()
            points[..., :2] = (points[..., :2] - shift) / scale
            found.append(People(people.scores, points, boxes))
        return found


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def letterbox(picture: np.ndarray) -> tuple[np.ndarray, float, tuple[int, int]]:
    """A picture scaled to fit into the network's square, grey around it.

    Returns the (192, 192, 3) uint8 square, the scale, and the x, y of the picture's corner in it: a pixel
    p of the picture is at scale * p + corner.
    """
    height, width = picture.shape[:2]
    scale = SIZE / max(height, width)
    w, h = max(round(width * scale), 1), max(round(height * scale), 1)
    if (h, w) != (height, width):
        picture = np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR))
    canvas = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    x, y = (SIZE - w) // 2, (SIZE - h) // 2
    canvas[y : y + h, x : x + w] = picture
    return canvas, scale, (x, y)


def decode(centers: np.ndarray, heat: np.ndarray, guesses: np.ndarray, threshold: float) -> People:
    """People of one picture, in pixels of the network's square.

    Args:
        centers: (48, 48) probabilities.
        heat: (17, 48, 48) probabilities.
        guesses: (38, 24, 24), as in `Maps`.
        threshold: certainty from which a centre is a person.
    """
    people: list[tuple[float, np.ndarray, np.ndarray]] = []
    rows, columns = _peaks(centers, threshold)
    for row, column in zip(rows, columns, strict=True):
        r, c = row * STRIDE // GUESS_STRIDE, column * STRIDE // GUESS_STRIDE
        middle = (np.array([c, r]) + 0.5) * GUESS_STRIDE
        guess = guesses[:, r, c] * UNIT
        box = np.concatenate([middle - guess[:2], guess[:2] + guess[2:4]])
        box[2:] = np.maximum(box[2:], 1.0)
        points = _refine(
            heat, middle + guess[4:].reshape(N_KEYPOINTS, 2), reach=0.12 * box[2:].max() + STRIDE
        )
        if not any(_same(points, box, p, b) for _, p, b in people):
            people.append((float(centers[row, column]), points, box))
    if not people:
        return People(
            np.zeros(0, np.float32), np.zeros((0, N_KEYPOINTS, 3), np.float32), np.zeros((0, 4), np.float32)
        )
    scores, points, boxes = zip(*people, strict=True)
    return People(*(np.asarray(v, np.float32) for v in (scores, points, boxes)))


def _peaks(centers: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells that are at least as high as their eight neighbours, the highest first."""
    padded = np.pad(centers, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    rows, columns = np.nonzero((centers >= windows.max((2, 3))) & (centers >= threshold))
    order = np.argsort(-centers[rows, columns], kind="stable")[:MAX_PEOPLE]
    return rows[order], columns[order]


def _refine(heat: np.ndarray, guess: np.ndarray, reach: float) -> np.ndarray:
    """(17, 3) keypoints: the peak of each map near its guess, to a fraction of a cell.

    Nearness is a Gaussian prior of standard deviation `reach` pixels, so that of two people's wrists the
    right one wins. The peak is that of the parabola through the logarithms of three cells, exact for the
    Gaussian blobs that the maps were trained on.
    """
    size = heat.shape[-1]
    cells = (np.arange(size) + 0.5) * STRIDE
    prior_x = np.exp(-0.5 * ((cells - guess[:, :1]) / reach) ** 2)
    prior_y = np.exp(-0.5 * ((cells - guess[:, 1:]) / reach) ** 2)
    index = (heat * prior_y[:, :, None] * prior_x[:, None, :]).reshape(len(heat), -1).argmax(1)
    row, column = np.divmod(index, size)
    k = np.arange(len(heat))
    confidence = heat[k, row, column]
    log = np.log(np.pad(np.maximum(heat, 1e-6), ((0, 0), (1, 1), (1, 1)), mode="edge"))
    middle = log[k, row + 1, column + 1]
    x = column + 0.5 + _vertex(log[k, row + 1, column], middle, log[k, row + 1, column + 2])
    y = row + 0.5 + _vertex(log[k, row, column + 1], middle, log[k, row + 2, column + 1])
    points = np.stack([x * STRIDE, y * STRIDE], 1)
    # Where the map is silent the first guess is the better answer; its confidence stays as low.
    points = np.where((confidence > 0.1)[:, None], points, guess)
    return np.concatenate([points, confidence[:, None]], 1)


def _vertex(before: np.ndarray, middle: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where the parabola through three equidistant values has its top, in cells from the middle one."""
    curvature = before - 2 * middle + after
    return np.clip(
        np.where(curvature < -1e-6, (before - after) / (2 * np.minimum(curvature, -1e-6)), 0), -0.5, 0.5
    )


def _same(points: np.ndarray, box: np.ndarray, other: np.ndarray, other_box: np.ndarray) -> bool:
    """Whether two detections are one person: the same keypoints, or boxes that almost coincide."""
    size = np.sqrt(max(box[2] * box[3], other_box[2] * other_box[3]))
    apart = np.median(np.linalg.norm(points[:, :2] - other[:, :2], axis=1))
    low = np.maximum(box[:2], other_box[:2])
    high = np.minimum(box[:2] + box[2:], other_box[:2] + other_box[2:])
    shared = np.prod(np.maximum(high - low, 0))
    union = box[2] * box[3] + other_box[2] * other_box[3] - shared
    return bool(apart < 0.08 * size or shared > 0.75 * union)
