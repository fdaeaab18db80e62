"""Which triangle each pixel sees: a z-buffer for batches of meshes, on the CPU and on CUDA.

Camera space is OpenCV's (x right, y down, z forward, metres); pixel (i, j) is sampled at its centre
(j + 0.5, i + 0.5). Both sides of a triangle are seen. A triangle with a corner nearer than `NEAR` is
left out, not clipped: callers who must not lose any check `nearest` first.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from udfs.threads import each

NEAR = 0.05
"""Metres from the camera's centre, along its axis."""

_EDGE = 1e-9
"""Square pixels by which a pixel centre may lie outside an edge: rounding must not open seams."""

_PIXELS = 1 << 21
"""Pixels rasterised at once: 42 MB."""

_PAIRS = 1 << 21
"""Pixel-triangle pairs that the CUDA path holds at once: about 0.3 GB."""


@dataclass(frozen=True)
class Fragments:
    """What the pixels of B frames see.

    Attributes:
        face: (B, H, W) int32, -1 where the background shows.
        bary: (B, H, W, 3) float32, perspective-correct weights of the corners; 0 in the background.
        depth: (B, H, W) float32, metres along the camera's axis; infinite in the background.
    """

    face: np.ndarray
    bary: np.ndarray
    depth: np.ndarray


def rasterize(
    vertices: np.ndarray,
    faces: np.ndarray,
    focal: np.ndarray,
    princpt: np.ndarray,
    height: int,
    width: int,
    device: str = "cpu",
) -> Fragments:
    """Z-buffer of B meshes that share their triangles.

    Args:
        vertices: (B, V, 3) in camera space, metres.
        faces: (F, 3) vertex indices.
        focal, princpt: (B, 2), pixels.
        height, width: size of the frames, pixels.
        device: a torch device string; "cuda" goes through torch, all others through the CPU.
    """
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    cameras = np.concatenate([focal, princpt], axis=1).astype(np.float64)
    if device.split(":")[0] == "cuda":
        return rasterize_torch(vertices, faces, cameras, height, width, device)
    frames = len(vertices)
    face = np.empty((frames, height, width), np.int32)
    bary = np.empty((frames, height, width, 3), np.float32)
    depth = np.empty((frames, height, width), np.float32)
    each(lambda b: _rasterize_frame(vertices[b], faces, cameras[b], face[b], bary[b], depth[b]), frames)
    return Fragments(face, bary, depth)


def interpolate(fragments: Fragments, faces: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Vertex attributes at the pixels: (V, C) or (B, V, C) to (B, H, W, C) float32, 0 in the background."""
    return _shade(_interpolate_frame, fragments, faces, attributes, np.float32)


def paint(fragments: Fragments, faces: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Vertex colours in [0, 1] as pictures: (V, 3) or (B, V, 3) to (B, H, W, 3) uint8, black background."""
    return _shade(_paint_frame, fragments, faces, colors, np.uint8)


def frames_at_once(height: int, width: int) -> int:
    """How many frames to rasterise in one call: 20 bytes a pixel, few enough for the allocator to reuse."""
    return max(1, _PIXELS // (height * width))


def nearest(vertices: np.ndarray) -> np.ndarray:
    """(B,) smallest depth of (B, V, 3) camera-space vertices, metres."""
    return vertices[..., 2].min(axis=1)


def _shade(
    kernel: Any, fragments: Fragments, faces: np.ndarray, values: np.ndarray, dtype: Any
) -> np.ndarray:
    faces = np.ascontiguousarray(faces, np.int32)
    values = np.ascontiguousarray(values, np.float32)
    shared = values.ndim == 2
    out = np.empty((*fragments.face.shape, values.shape[-1]), dtype)
    face, bary = fragments.face, fragments.bary
    each(lambda b: kernel(face[b], bary[b], faces, values if shared else values[b], out[b]), len(out))
    return out


@numba.njit(cache=True, nogil=True)
def _rasterize_frame(vertices, faces, camera, face, bary, depth):
    height, width = face.shape
    n = vertices.shape[0]
    x, y, inverse = np.empty(n), np.empty(n), np.empty(n)
    for v in range(n):
        z = np.float64(vertices[v, 2])
        if z < NEAR:
            inverse[v] = 0.0
            continue
        inverse[v] = 1.0 / z
        x[v] = camera[0] * vertices[v, 0] * inverse[v] + camera[2]
        y[v] = camera[1] * vertices[v, 1] * inverse[v] + camera[3]
    face[:] = -1
    depth[:] = 0.0  # holds 1/z, which is linear in the image, until the last loop
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ia, ib, ic = inverse[a], inverse[b], inverse[c]
        if ia == 0.0 or ib == 0.0 or ic == 0.0:
            continue
        ax, ay, bx, by, cx, cy = x[a], y[a], x[b], y[b], x[c], y[c]
        left = max(0, int(np.ceil(max(min(ax, bx, cx) - 0.5, -1.0))))
        right = min(width - 1, int(np.floor(min(max(ax, bx, cx) - 0.5, width))))
        top = max(0, int(np.ceil(max(min(ay, by, cy) - 0.5, -1.0))))
        bottom = min(height - 1, int(np.floor(min(max(ay, by, cy) - 0.5, height))))
        if left > right or top > bottom:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        # Along a row every weight is linear: its slope times the column, from a start of its own.
        sign = 1.0 if area > 0.0 else -1.0
        scale = 1.0 / abs(area)
        slope_a, slope_b, slope_c = sign * (by - cy), sign * (cy - ay), sign * (ay - by)
        slope = (slope_a * ia + slope_b * ib + slope_c * ic) * scale
        px = left + 0.5
        for i in range(top, bottom + 1):
            py = i + 0.5
            wa = sign * ((cx - bx) * (py - by) - (cy - by) * (px - bx))
            wb = sign * ((ax - cx) * (py - cy) - (ay - cy) * (px - cx))
            wc = sign * ((bx - ax) * (py - ay) - (by - ay) * (px - ax))
            near = (wa * ia + wb * ib + wc * ic) * scale
            for k in range(right - left + 1):
                if wa + k * slope_a < -_EDGE or wb + k * slope_b < -_EDGE or wc + k * slope_c < -_EDGE:
                    continue
                nearer = np.float32(near + k * slope)
                if nearer > depth[i, left + k]:
                    depth[i, left + k] = nearer
                    face[i, left + k] = f
    for i in range(height):
        for j in range(width):
            f = face[i, j]
            if f < 0:
                depth[i, j] = np.inf
                bary[i, j, 0] = bary[i, j, 1] = bary[i, j, 2] = 0.0
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            px, py = j + 0.5, i + 0.5
            wa = ((x[c] - x[b]) * (py - y[b]) - (y[c] - y[b]) * (px - x[b])) * inverse[a]
            wb = ((x[a] - x[c]) * (py - y[c]) - (y[a] - y[c]) * (px - x[c])) * inverse[b]
            wc = ((x[b] - x[a]) * (py - y[a]) - (y[b] - y[a]) * (px - x[a])) * inverse[c]
            total = wa + wb + wc
            bary[i, j, 0], bary[i, j, 1], bary[i, j, 2] = wa / total, wb / total, wc / total
            depth[i, j] = 1.0 / depth[i, j]


@numba.njit(cache=True, nogil=True)
def _interpolate_frame(face, bary, faces, values, out):
    height, width = face.shape
    for i in range(height):
        for j in range(width):
            f = face[i, j]
            for k in range(values.shape[1]):
                if f < 0:
                    out[i, j, k] = 0.0
                else:
                    out[i, j, k] = (
                        bary[i, j, 0] * values[faces[f, 0], k]
                        + bary[i, j, 1] * values[faces[f, 1], k]
                        + bary[i, j, 2] * values[faces[f, 2], k]
                    )


@numba.njit(cache=True, nogil=True)
def _paint_frame(face, bary, faces, colors, out):
    height, width = face.shape
    for i in range(height):
        for j in range(width):
            f = face[i, j]
            for k in range(colors.shape[1]):
                if f < 0:
                    out[i, j, k] = 0
                else:
                    value = (
                        bary[i, j, 0] * colors[faces[f, 0], k]
                        + bary[i, j, 1] * colors[faces[f, 1], k]
                        + bary[i, j, 2] * colors[faces[f, 2], k]
                    )
                    out[i, j, k] = np.uint8(min(max(value, 0.0), 1.0) * 255.0 + 0.5)


def rasterize_torch(
    vertices: np.ndarray, faces: np.ndarray, cameras: np.ndarray, height: int, width: int, device: str
) -> Fragments:
    """`rasterize` in torch: every pixel of every triangle's box at once, the nearest kept by a scatter.

    cameras: (B, 4) focal x, y and princpt x, y. The arithmetic is float64, as on the CPU: the two paths
    differ where two triangles are equally near to float32 precision, and nowhere else.
    """
    import torch

    frames, n_faces = len(vertices), len(faces)
    points = torch.as_tensor(vertices, device=device).double()
    corners = torch.as_tensor(faces, device=device).long()
    camera = torch.as_tensor(cameras, device=device)[:, None]
    z = points[..., 2]
    inverse = torch.where(z < NEAR, 0.0, 1 / z.clamp(min=NEAR))
    xy = camera[..., :2] * points[..., :2] * inverse[..., None] + camera[..., 2:]
    tri = xy[:, corners].reshape(frames * n_faces, 3, 2)
    weight = inverse[:, corners].reshape(frames * n_faces, 3)

    size = torch.tensor([width, height], device=device, dtype=torch.float64)
    low = (tri.amin(1) - 0.5).ceil().clamp(min=0)
    high = torch.minimum((tri.amax(1) - 0.5).floor(), size - 1)
    keep = ((high >= low).all(1) & (weight > 0).all(1) & (_cross(tri, 0, 1, tri[:, 2]) != 0)).nonzero()[:, 0]
    low, extent = low[keep].long(), (high - low + 1)[keep].long()
    tri, weight = tri[keep], weight[keep]
    counts = extent.prod(1)
    firsts = counts.cumsum(0) - counts
    ends = (firsts + counts).cpu().numpy()

    best = torch.zeros(frames * height * width, dtype=torch.int64, device=device)
    start = 0
    while start < len(keep):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        part = torch.arange(start, stop, device=device).repeat_interleave(counts[start:stop])
        offset = torch.arange(len(part), device=device) - (firsts[part] - int(done))
        column = low[part, 0] + offset % extent[part, 0]
        row = low[part, 1] + offset // extent[part, 0]
        edges = _edges(tri[part], torch.stack([column, row], 1) + 0.5)
        area = edges.sum(1)
        inside = (edges * area.sign()[:, None] >= -_EDGE).all(1)
        near = ((edges * weight[part]).sum(1) / area)[inside].float()
        owner = keep[part[inside]]
        pixel = ((owner // n_faces) * height + row[inside]) * width + column[inside]
        # Positive floats sort like their bits: one integer holds 1/z and, to break ties as the CPU does,
        # the first triangle.
        key = (near.view(torch.int32).long() << 32) | (n_faces - 1 - owner % n_faces)
        best.scatter_reduce_(0, pixel, key, "amax")
        start = stop

    hit = best > 0
    face = torch.where(hit, n_faces - 1 - (best & 0xFFFFFFFF), -1)
    depth = torch.where(hit, 1 / (best >> 32).int().view(torch.float32), torch.inf)
    pixels = hit.nonzero()[:, 0]
    frame, place = pixels // (height * width), pixels % (height * width)
    seen = corners[face[pixels]]
    centers = torch.stack([place % width, place // width], 1) + 0.5
    bary = torch.zeros(frames * height * width, 3, device=device)
    weights = _edges(xy[frame[:, None], seen], centers.double()) * inverse[frame[:, None], seen]
    bary[pixels] = (weights / weights.sum(1, keepdim=True)).float()
    shape = (frames, height, width)
    return Fragments(
        face.int().reshape(shape).cpu().numpy(),
        bary.reshape(*shape, 3).cpu().numpy(),
        depth.reshape(shape).cpu().numpy(),
    )


def _cross(tri: Any, i: int, j: int, point: Any) -> Any:
    a, b = tri[:, i], tri[:, j]
    return (b[:, 0] - a[:, 0]) * (point[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (point[:, 0] - a[:, 0])


def _edges(tri: Any, point: Any) -> Any:
    """(N, 3) signed areas opposite each corner, twice over."""
    import torch

    return torch.stack([_cross(tri, 1, 2, point), _cross(tri, 2, 0, point), _cross(tri, 0, 1, point)], 1)
