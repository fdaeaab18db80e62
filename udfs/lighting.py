"""The light of a picture, and what it does to a body: shadow, shade, highlights."""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from udfs.garments import surface
from udfs.grammar import LIGHTINGS, SCENES
from udfs.light_color import linear
from udfs.noise import value3

LIGHT = np.dtype(
    [
        ("direction", "f8", 3),
        ("color", "f8", 3),
        ("sky", "f8", 3),
        ("ground", "f8", 3),
        ("up", "f8", 3),
        ("contrast", "f8"),
        ("softness", "f8"),
        ("room", "f8"),
        ("rim", "f8"),
    ]
)
"""Unit vectors in camera space (`direction` points to the light); colours are linear; contrast and
softness in [0, 1]; `room` is how bright the surroundings are."""

SHADOW = 256
"""Side of the shadow map, pixels."""

_REACH = 24.0
"""Metres from the body's centre to the light's eye: far enough for its rays to be nearly parallel."""

_DIM = {
    "dim evening light": 0.45,
    "blue hour light": 0.45,
    "warm lamp light": 0.7,
    "dramatic side light": 0.4,
}
_BRIGHT = {"high-key studio light": 1.15, "bright midday sun": 1.1}


def up_direction(elevation: float) -> np.ndarray:
    """(3,) the world's up in the space of a camera that was lifted by `elevation` radians."""
    return np.array([0.0, -np.cos(elevation), -np.sin(elevation)])


def light(said: Mapping[str, str | None], up: np.ndarray, seed: int) -> np.void:
    """The light that a caption names, or one of the seed's choice, from a direction that the seed picks."""
    rng = np.random.default_rng([seed, 2])
    place = next((s.place for s in SCENES if s.name == said.get("scene")), None)
    kinds = [x for x in LIGHTINGS if place is None or place in x.places]
    kind = next((x for x in LIGHTINGS if x.name == said.get("lighting")), kinds[rng.integers(len(kinds))])
    flash, side = kind.name == "hard flash", "side" in kind.name or "sunset" in kind.name
    azimuth = rng.uniform(-0.25, 0.25) if flash else rng.choice([-1, 1]) * rng.uniform(0.3, 1.25 + 0.4 * side)
    height = rng.uniform(0.15, 0.4) if flash else rng.uniform(0.35, 0.7) if side else rng.uniform(0.6, 1.1)
    right = np.array([1.0, 0.0, 0.0])
    toward = np.cross(up, right)  # horizontal; whichever way, it must lead to the camera
    toward = toward if toward[2] < 0 else -toward
    level = np.cos(azimuth) * toward + np.sin(azimuth) * right
    o: Any = np.zeros((), LIGHT)
    direction = np.cos(height) * level + np.sin(height) * up
    o["direction"], o["up"] = direction / np.linalg.norm(direction), up
    # A camera balances most of the light's colour away: what is left is a tint, so colours stay readable.
    tint = linear(kind.color) ** 0.32
    tint /= tint @ np.array([0.3, 0.55, 0.15])
    o["color"] = tint * rng.normal(1, 0.012, 3)
    cool = np.array([0.985, 1.0, 1.025]) if kind.contrast > 0.3 else np.ones(3)
    o["sky"] = cool * (0.5 + 0.5 * tint)
    o["ground"] = np.array([1.0, 0.98, 0.95]) * rng.uniform(0.55, 0.8)
    o["contrast"] = np.clip(kind.contrast + rng.normal(0, 0.07), 0.05, 1)
    o["softness"] = 1 - o["contrast"] * rng.uniform(0.75, 1)
    o["room"] = _DIM.get(kind.name, _BRIGHT.get(kind.name, 1.0)) * rng.uniform(0.85, 1.1)
    o["rim"] = rng.uniform(0, 0.35)
    return o[()]


def light_frame(vertices: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Where the light looks from, for a shadow map of one body (V, 3).

    Returns the (3, 3) rotation into the light's camera, the (3,) translation, and the focal length.
    """
    center = (vertices.min(0) + vertices.max(0)) / 2
    radius = float(np.linalg.norm(vertices - center, axis=1).max())
    forward = -direction
    right = np.cross(forward, [0.3, 1.0, 0.1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    translation = np.array([0.0, 0.0, _REACH]) - rotation @ center
    return rotation, translation, SHADOW * 0.5 * _REACH / (radius * 1.08)


@numba.njit(cache=True, nogil=True)
def vertex_normals(vertices, faces):
    """(V, 3) unit normals of the smooth surface, area-weighted."""
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        u, v = vertices[b] - vertices[a], vertices[c] - vertices[a]
        nx, ny, nz = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for k in range(len(normals)):
        length = np.sqrt(normals[k, 0] ** 2 + normals[k, 1] ** 2 + normals[k, 2] ** 2) + 1e-12
        for c in range(3):
            normals[k, c] /= length
    return normals


@numba.njit(cache=True, nogil=True)
def lit_share(shadow, rotation, translation, focal, px, py, pz, spread, bias):
    """Share of the light that reaches a point: 9 looks into the shadow map, `spread` map pixels apart."""
    x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + translation[0]
    y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + translation[1]
    z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + translation[2]
    size = shadow.shape[0]
    u, v = focal * x / z + size * 0.5, focal * y / z + size * 0.5
    total = 0.0
    for a in range(-1, 2):
        for b in range(-1, 2):
            i, j = int(v + a * spread), int(u + b * spread)
            if i < 0 or j < 0 or i >= size or j >= size or shadow[i, j] > z - bias:
                total += 1.0
    return total / 9.0


@numba.njit(cache=True, nogil=True)
def _openness(depth, i, j, reach, near):
    """1 in the open, less where the body around the pixel is nearer to the camera: creases, armpits."""
    height, width = depth.shape
    hidden, z = 0.0, depth[i, j]
    for k in range(12):
        angle = 2.39996 * k
        r = reach * np.sqrt((k + 0.5) / 12)
        a, b = int(i + r * np.sin(angle)), int(j + r * np.cos(angle))
        if a < 0 or b < 0 or a >= height or b >= width:
            continue
        closer = z - depth[a, b]
        if closer > 0.012 and closer < near * 4:
            hidden += min(closer / near, 1.0) * (1.0 - closer / (near * 4))
    return 1.0 - 0.75 * hidden / 12


@numba.njit(cache=True, nogil=True)
def shade_body(
    face, bary, depth, faces, template, normals, groups, outfit, figure, light, shadow, rotation, translation,
    light_focal, camera, out, area,
):  # fmt: skip
    """The lit body, 2 x 2 samples a pixel.

    face (2H, 2W), bary, depth: the z-buffer at twice the size; camera: its focal x, y, princpt x, y.
    out: (H, W, 4) float32, written: linear colour times coverage, and coverage.
    area: (H, W) int8, written: what most samples of the pixel belong to, -1 where the background does.
    """
    height, width = out.shape[:2]
    color, base = np.empty(3), np.empty(3)
    counts = np.empty(6, np.int64)
    total, samples = 0.0, 0
    direct, ambient = 0.25 + 0.75 * light.contrast, 0.85 - 0.55 * light.contrast
    lx, ly, lz = light.direction[0], light.direction[1], light.direction[2]
    wrap = 0.15 + 0.35 * light.softness
    for i in range(height):
        for j in range(width):
            for c in range(4):
                out[i, j, c] = 0.0
            covered = 0
            counts[:] = 0
            openness = -1.0
            for sample in range(4):
                si, sj = 2 * i + sample // 2, 2 * j + sample % 2
                f = face[si, sj]
                if f < 0:
                    continue
                covered += 1
                x = y = z = nx = ny = nz = 0.0
                for k in range(3):
                    v, w = faces[f, k], bary[si, sj, k]
                    x += w * template[v, 0]
                    y += w * template[v, 1]
                    z += w * template[v, 2]
                    nx += w * normals[v, 0]
                    ny += w * normals[v, 1]
                    nz += w * normals[v, 2]
                far = depth[si, sj]
                px, py = (sj + 0.5 - camera[2]) / camera[0] * far, (si + 0.5 - camera[3]) / camera[1] * far
                ray = np.sqrt(px * px + py * py + far * far)
                length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
                nx, ny, nz = nx / length, ny / length, nz / length
                facing = -(nx * px + ny * py + nz * far) / ray
                if facing < 0:  # the inside of the surface, seen through where it crosses itself
                    nx, ny, nz, facing = -nx, -ny, -nz, -facing
                kind = surface(outfit, figure, groups[f], x, y, z, 2 * far / camera[0], base)
                counts[kind] += 1
                if openness < 0:
                    openness = _openness(depth, si, sj, camera[0] * 0.14 / far, 0.05)
                share = lit_share(
                    shadow, rotation, translation, light_focal, px + nx * 0.012, py + ny * 0.012,
                    far + nz * 0.012, 0.8 + 2.0 * light.softness, 0.012,
                )  # fmt: skip
                towards = nx * lx + ny * ly + nz * lz
                diffuse = (
                    max(towards + wrap, 0.0)
                    / (1 + wrap)
                    * (0.25 * light.softness + (1 - 0.25 * light.softness) * share)
                )
                crease = 1.0
                if kind == 1 or kind == 2:
                    # Folds of cloth: relief of a noise, seen from one side.
                    deep = value3(x * 17, y * 9, z * 17, outfit.seed + 11)
                    crease += (
                        outfit.folds
                        * 0.75
                        * (deep - value3(x * 17 + 0.35, y * 9 + 0.25, z * 17, outfit.seed + 11))
                    )
                over = 0.5 + 0.5 * (nx * light.up[0] + ny * light.up[1] + nz * light.up[2])
                edge = (1 - facing) ** 3 * light.rim * over
                gloss = 0.0
                if kind == 0 or kind == 4 or kind == 3:
                    hx, hy, hz = lx - px / ray, ly - py / ray, lz - far / ray
                    h = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-12
                    gloss = max((nx * hx + ny * hy + nz * hz) / h, 0.0) ** 24 * 0.12 * share * light.contrast
                bright = 0.0
                for c in range(3):
                    fill = ambient * (light.sky[c] * over + light.ground[c] * (1 - over)) * openness
                    level = (direct * diffuse * light.color[c] * (0.6 + 0.4 * openness) + fill) * crease
                    if kind == 0:  # light that went through skin comes out red
                        level *= 1.0 + (0.06 if c == 0 else -0.03) * (1 - towards)
                    bright += level / 3
                    color[c] = base[c] * level + (gloss + edge * 0.3) * (0.3 + 0.7 * base[c])
                    out[i, j, c] += color[c]
                total += bright
                samples += 1
            out[i, j, 3] = covered / 4.0
            area[i, j] = -1
            if covered >= 2:
                area[i, j] = counts.argmax()
    # The camera exposes for the person: on average a surface shows its own colour.
    gain = 1.0 if samples == 0 else min(max(0.92 / (total / samples), 0.6), 2.2)
    for i in range(height):
        for j in range(width):
            for c in range(3):
                out[i, j, c] *= 0.25 * gain
