"""Training pictures made of renders: other places and sizes, company, things in the way, damage."""

import io
from dataclasses import dataclass

import numba
import numpy as np
from PIL import Image

from schemas.coco import FLIP, N_KEYPOINTS
from udfs.background import blur
from udfs.keypoint_network import GREY, SIZE
from udfs.keypoint_renders import SIDE, Renders
from udfs.noise import cell, value2

MOST = 3
"""People in one training picture at the most."""

_KINDS = (0.05, 0.4, 0.22, 0.27, 0.06)
_EASY = (0.05, 0.95, 0.0, 0.0, 0.0)
"""Shares of pictures with nobody, one as rendered, one moved elsewhere, two people, three."""

_HIDDEN = 0.4
"""A person of whom less can be seen is neither demanded of the network nor held against it."""


@dataclass(frozen=True)
class Batch:
    """B training pictures and what is in them.

    Attributes:
        pictures: (B, 192, 192, 3) uint8.
        keypoints: (B, 3, 17, 3) float32: x, y in pixels; 1 where the keypoint is in the picture, else 0.
        boxes: (B, 3, 4) float32: x, y, width, height.
        state: (B, 3) int8: 1 a person to be found, 0 nobody, -1 a person to be ignored.
        masks: (B, 192, 192) bool: where a person is in sight.
    """

    pictures: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    state: np.ndarray
    masks: np.ndarray


def make_batch(renders: Renders, size: int, rng: np.random.Generator, difficulty: float = 1.0) -> Batch:
    """`size` training pictures; difficulty is the share of them that are no clean, upright renders."""
    out = Batch(
        np.empty((size, SIZE, SIZE, 3), np.uint8),
        np.zeros((size, MOST, N_KEYPOINTS, 3), np.float32),
        np.zeros((size, MOST, 4), np.float32),
        np.zeros((size, MOST), np.int8),
        np.zeros((size, SIZE, SIZE), bool),
    )
    for i in range(size):
        _compose(renders, out, i, rng, easy=rng.random() >= difficulty)
    return out


def _compose(renders: Renders, out: Batch, i: int, rng: np.random.Generator, easy: bool) -> None:
    canvas = np.zeros((SIZE, SIZE, 3), np.float32)
    owner = np.full((SIZE, SIZE), -1, np.int8)
    kind = rng.choice(5, p=_EASY if easy else _KINDS)  # nobody; as rendered; moved elsewhere; two; three
    people = (0, 1, 1, 2, 3)[int(kind)]
    backdrop = renders.backgrounds[rng.integers(len(renders.backgrounds))]
    alone = kind in (0, 2) or (not easy and rng.random() < 0.25)  # whom no render brings a place along
    if alone:
        _paint_over(canvas, backdrop, rng)
    areas = np.zeros(MOST)
    for p in range(people):
        k = rng.integers(len(renders))
        whole = p == 0 and not alone
        flip = rng.random() < 0.5
        # Every so often from near by: what a face looks like is hard to learn on twenty pixels.
        near = rng.random() < (0.3 if easy else 0.08)
        focus = renders.keypoints[k][[0, 5, 6]].mean(0) if near else None
        inverse, forward = _placement(renders.boxes[k], focus, people, p, flip, easy, rng)
        extent = np.array([SIZE, SIZE, -1, -1], np.int64)
        areas[p] = _warp(renders.pictures[k], inverse, whole, p, canvas, owner, extent)
        if areas[p] < 60:
            continue
        points = renders.keypoints[k][list(FLIP)] if flip else renders.keypoints[k]
        points = points @ forward[:, :2].T + forward[:, 2]
        out.keypoints[i, p, :, :2] = points
        out.boxes[i, p] = [*extent[:2], *(extent[2:] + 1 - extent[:2])]
        out.state[i, p] = 1
    if rng.random() < 0.3 and not easy:
        for _ in range(rng.integers(1, 4)):
            _occlude(canvas, owner, backdrop, rng)
    picture = canvas.astype(np.uint8) if easy else _damage(canvas, rng)
    low, high = np.zeros(2), np.full(2, float(SIZE))
    if rng.random() < 0.12 and not easy:  # bars, as around a picture that is not square
        axis, bar = rng.integers(2), int(rng.integers(4, 44))
        low[axis], high[axis] = bar, SIZE - bar
        picture = picture.swapaxes(0, 1) if axis == 0 else picture
        picture[:bar] = picture[SIZE - bar :] = GREY
        picture = picture.swapaxes(0, 1) if axis == 0 else picture
        strip = owner if axis == 1 else owner.T
        strip[:bar] = strip[SIZE - bar :] = -1
    out.pictures[i], out.masks[i] = picture, owner >= 0
    for p in range(people):
        if out.state[i, p] != 1:
            continue
        points, box = out.keypoints[i, p], out.boxes[i, p]
        points[:, 2] = ((points[:, :2] >= low) & (points[:, :2] < high)).all(1)
        corner = np.clip(box[:2], low, high)
        box[2:], box[:2] = np.maximum(np.clip(box[:2] + box[2:], low, high) - corner, 1), corner
        if (owner == p).sum() < _HIDDEN * areas[p] or points[:, 2].sum() < 4:
            out.state[i, p] = -1


def _placement(
    box: np.ndarray,
    focus: np.ndarray | None,
    people: int,
    place: int,
    flip: bool,
    easy: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(2, 3) affine maps, picture to render and back, that put the person of `box`, or `focus`, somewhere."""
    spread = rng.normal(0, 14) if rng.random() < 0.85 else rng.uniform(-180, 180)
    angle = np.radians(spread if rng.random() < 0.6 and not easy else 0.0)
    size = float(max(box[2:].max(), 8.0))
    share = rng.uniform(0.72, 1.0) if rng.random() < 0.5 else rng.uniform(0.22, 1.25)
    if easy:
        share = rng.uniform(0.8, 1.0)
    if focus is not None:
        share = rng.uniform(1.2, 2.6)
    elif people > 1:
        share = min(share, rng.uniform(0.35, 1.0))
    scale = share * SIZE / size
    center = np.array([SIZE / 2, SIZE / 2]) + rng.normal(0, 0.04 + 0.22 * max(1 - share, 0), 2) * SIZE
    if people > 1 and focus is None:
        center[0] = SIZE * (place + 0.5 + rng.normal(0, 0.22)) / people
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn = turn @ np.diag([-1.0, 1.0])
    middle = box[:2] + box[2:] / 2 if focus is None else focus
    forward = np.concatenate([turn, (center - turn @ middle)[:, None]], axis=1)
    back = np.linalg.inv(turn)
    return np.concatenate([back, (-back @ forward[:, 2])[:, None]], axis=1), forward


def _paint_over(canvas: np.ndarray, backdrop: np.ndarray, rng: np.random.Generator) -> None:
    """Fills the canvas with a piece of a background, any way up, or with noise."""
    if rng.random() < 0.1:
        noise = rng.uniform(0, 255, (rng.integers(1, 12), rng.integers(1, 12), 3)).astype(np.uint8)
        canvas[:] = np.asarray(Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        return
    zoom = rng.uniform(0.3, 1.0) * SIDE / SIZE
    corner = rng.uniform(0, max(SIDE - zoom * SIZE, 1e-3), 2)
    opaque = np.dstack([backdrop, np.full((SIDE, SIDE, 1), 255, np.uint8)])
    inverse = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]])
    scratch, extent = np.zeros((SIZE, SIZE), np.int8), np.zeros(4, np.int64)
    _warp(opaque, inverse, True, 0, canvas, scratch, extent)
    if rng.random() < 0.5:
        canvas[:] = canvas[:, ::-1].copy()


@numba.njit(cache=True, nogil=True)
def _warp(render, inverse, whole, person, canvas, owner, extent):
    """Draws a render, or the person of it alone, through an affine map; returns the person's pixels."""
    pixels = 0
    size = render.shape[0]
    value = np.empty(4, np.float32)
    # A map that shrinks reads four places a pixel, lest it skips what lies between.
    step = np.sqrt(abs(inverse[0, 0] * inverse[1, 1] - inverse[0, 1] * inverse[1, 0]))
    reads = 2 if step > 1.25 else 1
    for i in range(canvas.shape[0]):
        for j in range(canvas.shape[1]):
            value[:] = 0
            inside = False
            for k in range(reads * reads):
                px = j + (0.5 if reads == 1 else 0.25 + 0.5 * (k % 2))
                py = i + (0.5 if reads == 1 else 0.25 + 0.5 * (k // 2))
                u = inverse[0, 0] * px + inverse[0, 1] * py + inverse[0, 2] - 0.5
                v = inverse[1, 0] * px + inverse[1, 1] * py + inverse[1, 2] - 0.5
                if u < -1 or v < -1 or u > size or v > size:
                    if not whole:
                        continue
                else:
                    inside = True
                u, v = min(max(u, 0.0), size - 1.001), min(max(v, 0.0), size - 1.001)
                x, y = int(u), int(v)
                a, b = u - x, v - y
                for c in range(4):
                    top = render[y, x, c] * (1 - a) + render[y, x + 1, c] * a
                    bottom = render[y + 1, x, c] * (1 - a) + render[y + 1, x + 1, c] * a
                    value[c] += (top * (1 - b) + bottom * b) / (reads * reads)
            cover = value[3] / 255
            alpha = 1.0 if whole else cover
            if alpha > 0:
                for c in range(3):
                    canvas[i, j, c] += (value[c] - canvas[i, j, c]) * alpha
            if cover > 0.5 and inside:
                owner[i, j] = person
                pixels += 1
                extent[0], extent[1] = min(extent[0], j), min(extent[1], i)
                extent[2], extent[3] = max(extent[2], j), max(extent[3], i)
    return pixels


def _occlude(canvas: np.ndarray, owner: np.ndarray, backdrop: np.ndarray, rng: np.random.Generator) -> None:
    center = rng.uniform(0, SIZE, 2)
    half = rng.uniform(0.02, 0.16, 2) * SIZE
    patch = backdrop[rng.integers(0, SIDE, 1), rng.integers(0, SIDE, 1)][0].astype(np.float64)
    color = patch if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    _blot(
        canvas,
        owner,
        center,
        half,
        rng.uniform(0, np.pi),
        color,
        rng.random() < 0.5,
        int(rng.integers(1 << 20)),
    )


@numba.njit(cache=True, nogil=True)
def _blot(canvas, owner, center, half, angle, color, round_, seed):
    """A textured ellipse or rectangle in front of everything."""
    cos, sin = np.cos(angle), np.sin(angle)
    reach = int(half.sum()) + 2
    for i in range(max(int(center[1]) - reach, 0), min(int(center[1]) + reach, canvas.shape[0])):
        for j in range(max(int(center[0]) - reach, 0), min(int(center[0]) + reach, canvas.shape[1])):
            x, y = j + 0.5 - center[0], i + 0.5 - center[1]
            u, v = (cos * x + sin * y) / half[0], (cos * y - sin * x) / half[1]
            if (u * u + v * v if round_ else max(abs(u), abs(v))) < 1:
                shade = 0.6 + 0.8 * value2(x * 0.15, y * 0.15, seed)
                for c in range(3):
                    canvas[i, j, c] = min(color[c] * shade, 255.0)
                owner[i, j] = -1


def _damage(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(192, 192, 3) uint8: other light and colours, softness, noise, coarse pixels, JPEG."""
    gain = np.exp(rng.normal(0, 0.22) + rng.normal(0, 0.09, 3))
    bias = rng.normal(0, 10) + rng.normal(0, 4, 3)
    grey = 1.0 if rng.random() < 0.06 else max(rng.normal(0, 0.25), -0.5)
    if rng.random() < 0.03:
        canvas = np.ascontiguousarray(canvas[..., rng.permutation(3)])
    radius = int(rng.choice([0, 0, 0, 1, 1, 2], p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.1]))
    if radius:
        mix = rng.uniform(0.3, 1.0)
        canvas = canvas * np.float32(1 - mix) + blur(canvas, radius) * np.float32(mix)
    noise = rng.exponential(4.0) if rng.random() < 0.6 else 0.0
    out = np.empty(canvas.shape, np.uint8)
    _tone(canvas, gain, bias, grey, np.exp(rng.normal(0, 0.18)), noise, int(rng.integers(1 << 20)), out)
    if rng.random() < 0.2:
        coarse = int(SIZE / rng.uniform(1.2, 3.0))
        small = Image.fromarray(out).resize((coarse, coarse), Image.Resampling.BILINEAR)
        out = np.array(small.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    if rng.random() < 0.25:
        data = io.BytesIO()
        Image.fromarray(out).save(data, "JPEG", quality=int(rng.integers(15, 90)))
        out = np.array(Image.open(data))
    return out


@numba.njit(cache=True, nogil=True)
def _tone(canvas, gain, bias, grey, gamma, noise, seed, out):
    curve = np.empty(257, np.float32)
    for k in range(257):
        curve[k] = 255 * (k / 256) ** gamma
    for i in range(canvas.shape[0]):
        for j in range(canvas.shape[1]):
            mean = (canvas[i, j, 0] + canvas[i, j, 1] + canvas[i, j, 2]) / 3
            for c in range(3):
                value = (canvas[i, j, c] + (mean - canvas[i, j, c]) * grey) * gain[c] + bias[c]
                value = curve[int(min(max(value, 0.0), 255.0))]
                if noise > 0:
                    value += noise * 3.4 * (cell(i, j, c, seed) - 0.5)
                out[i, j, c] = np.uint8(min(max(value, 0.0), 255.0))
