"""Pseudo-random textures that are a function of place and seed: compiled, stateless, the same everywhere."""

import numba


@numba.njit(cache=True, nogil=True, inline="always")
def cell(x: int, y: int, z: int, seed: int) -> float:
    """A number in [0, 1) for each cell of an integer lattice."""
    h = (x * 374761393 + y * 668265263 + z * 1274126177 + seed * 1103515245) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    return (h ^ (h >> 16)) * 2.3283064365386963e-10


@numba.njit(cache=True, nogil=True)
def value2(x: float, y: float, seed: int) -> float:
    """Smooth noise in [0, 1], one hump a unit."""
    i, j = int(x // 1), int(y // 1)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    low = cell(i, j, 0, seed) * (1 - u) + cell(i + 1, j, 0, seed) * u
    high = cell(i, j + 1, 0, seed) * (1 - u) + cell(i + 1, j + 1, 0, seed) * u
    return low * (1 - v) + high * v


@numba.njit(cache=True, nogil=True)
def value3(x: float, y: float, z: float, seed: int) -> float:
    """Smooth noise in [0, 1] in space."""
    i, j, k = int(x // 1), int(y // 1), int(z // 1)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    total = 0.0
    for a in range(2):
        near = cell(i, j, k + a, seed) * (1 - u) + cell(i + 1, j, k + a, seed) * u
        far = cell(i, j + 1, k + a, seed) * (1 - u) + cell(i + 1, j + 1, k + a, seed) * u
        total += (near * (1 - v) + far * v) * (w if a else 1 - w)
    return total


@numba.njit(cache=True, nogil=True)
def clouds(x: float, y: float, seed: int, octaves: int, footprint: float) -> float:
    """Sum of octaves in [0, 1]; an octave finer than the pixel's `footprint` fades to its mean."""
    total, weight, gain, frequency = 0.0, 0.0, 1.0, 1.0
    for octave in range(octaves):
        sharp = min(max(1.0 / (footprint * frequency + 1e-9) - 1.0, 0.0), 1.0)
        noise = value2(x * frequency, y * frequency, seed + octave) if sharp > 0.0 else 0.5
        total += gain * (0.5 + (noise - 0.5) * sharp)
        weight += gain
        gain *= 0.55
        frequency *= 2.17
    return total / weight


@numba.njit(cache=True, nogil=True, inline="always")
def step(x: float, width: float) -> float:
    """0 below, 1 above 0, over a transition as wide as a pixel: the antialiased edge of a shape."""
    t = min(max(x / (width + 1e-9) + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)
