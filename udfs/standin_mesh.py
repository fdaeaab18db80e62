"""From an implicit surface to a closed triangle mesh with an exact number of vertices.

Half of a mirror-symmetric body is extracted (marching tetrahedra, x >= 0), simplified by edge collapses
against a sizing field, evened out, and mirrored. Working on one half makes the result exactly symmetric,
and an edge collapse removes exactly one vertex, so that any count can be met.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

Field = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Sizing = Callable[[np.ndarray], np.ndarray]

_MAX_FACES = 48  # incident faces a vertex may have while simplifying; valence is kept far below
# The six tetrahedra of a cell are paths 0 -> 7 along the axes in every order; the flag is the orientation.
_PATHS = [((0, 1, 2), 1), ((1, 2, 0), 1), ((2, 0, 1), 1), ((0, 2, 1), -1), ((2, 1, 0), -1), ((1, 0, 2), -1)]


def extract_half(field: Field, axes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Zero set of `field` on a rectilinear grid, as a manifold with its boundary on x = 0.

    `field(x, y, z)` takes the three axes (float64, increasing; x starts at exactly 0) and returns the
    (len(x), len(y), len(z)) values, negative inside. Returns vertices (V, 3) float64 and faces (F, 3)
    int64 facing outward.
    """
    values = field(*axes)
    values = np.where(np.abs(values) < 1e-7, 1e-7, values)
    inside = values < 0
    shape = np.array(values.shape)
    count = np.zeros(shape - 1, dtype=np.int8)
    for corner in range(8):
        dx, dy, dz = corner >> 2 & 1, corner >> 1 & 1, corner & 1
        count += inside[dx : shape[0] - 1 + dx, dy : shape[1] - 1 + dy, dz : shape[2] - 1 + dz]
    cells = np.argwhere((count > 0) & (count < 8))
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    base = cells @ strides
    flat = values.ravel()
    triangles = []
    for path, sign in _PATHS:
        steps = strides[list(path)]
        nodes = np.stack([base, base + steps[0], base + steps[0] + steps[1], base + steps.sum()], axis=1)
        below = flat[nodes] < 0
        # The inside nodes come first; an odd permutation flips the orientation.
        order = np.argsort(~below, axis=1, kind="stable")
        odd = np.zeros(len(nodes), dtype=bool)
        for i in range(4):
            for j in range(i + 1, 4):
                odd ^= order[:, i] > order[:, j]
        flip = odd if sign > 0 else ~odd
        n = np.take_along_axis(nodes, order, axis=1)
        inner = below.sum(axis=1)
        for k, quads in (
            (1, [((0, 1), (0, 2), (0, 3))]),
            (3, [((0, 3), (1, 3), (2, 3))]),
            (2, [((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2))]),
        ):
            chosen = inner == k
            for corners in quads:
                tri = np.stack([np.stack([n[chosen, a], n[chosen, b]], axis=1) for a, b in corners], axis=1)
                turned = flip[chosen]
                tri[turned] = tri[turned][:, ::-1]
                triangles.append(tri)
    edges = np.concatenate(triangles).reshape(-1, 2)
    edges.sort(axis=1)
    keys, faces = np.unique(edges[:, 0] * np.int64(flat.size) + edges[:, 1], return_inverse=True)
    a, b = np.divmod(keys, np.int64(flat.size))
    t = (flat[a] / (flat[a] - flat[b]))[:, None]

    def position(node: np.ndarray) -> np.ndarray:
        i, rest = np.divmod(node, strides[0])
        j, k = np.divmod(rest, strides[1])
        return np.stack([axes[0][i], axes[1][j], axes[2][k]], axis=1)

    vertices = position(a) * (1 - t) + position(b) * t
    return largest_component(vertices, faces.reshape(-1, 3))


def largest_component(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected part of the mesh that has most vertices, renumbered without gaps."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
    _, label = connected_components(graph, directed=False)
    keep = label == np.bincount(label).argmax()
    number = np.cumsum(keep) - 1
    return vertices[keep], number[faces[keep[faces[:, 0]]]].astype(np.int64)


def edges_of(faces: np.ndarray) -> np.ndarray:
    """(E, 2) int64: the undirected edges of a mesh, each once, smaller vertex first."""
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    count = np.int64(faces.max()) + 1
    return np.stack(np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1]), count), axis=1)


def boundary_vertices(faces: np.ndarray, count: int) -> np.ndarray:
    """(count,) bool: which vertices lie on an open boundary."""
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    keys, times = np.unique(pairs[:, 0] * np.int64(count) + pairs[:, 1], return_counts=True)
    mask = np.zeros(count, dtype=bool)
    single = keys[times == 1]
    mask[single // count] = True
    mask[single % count] = True
    return mask


@numba.njit(cache=True)
def _incidence(faces, count):
    table = np.full((count, _MAX_FACES), -1, dtype=np.int64)
    used = np.zeros(count, dtype=np.int64)
    for f in range(faces.shape[0]):
        if faces[f, 0] < 0:
            continue
        for c in range(3):
            v = faces[f, c]
            table[v, used[v]] = f
            used[v] += 1
    return table, used


@numba.njit(cache=True)
def _ring(v, faces, table, used, out):
    n = 0
    for i in range(used[v]):
        for c in range(3):
            w = faces[table[v, i], c]
            if w == v:
                continue
            seen = False
            for k in range(n):
                if out[k] == w:
                    seen = True
                    break
            if not seen:
                out[n] = w
                n += 1
    return n


@numba.njit(cache=True)
def _shared_faces(a, b, faces, table, used):
    n = 0
    for i in range(used[a]):
        f = table[a, i]
        if faces[f, 0] == b or faces[f, 1] == b or faces[f, 2] == b:
            n += 1
    return n


@numba.njit(cache=True)
def _cross(u, v):
    # np.cross compiles to the same machine code, but takes ten seconds to do so.
    out = np.empty(3)
    out[0] = u[1] * v[2] - u[2] * v[1]
    out[1] = u[2] * v[0] - u[0] * v[2]
    out[2] = u[0] * v[1] - u[1] * v[0]
    return out


@numba.njit(cache=True)
def _normal(p, q, r):
    return _cross(q - p, r - p)


@numba.njit(cache=True)
def _turns_over(v, other, target, points, faces, table, used):
    """Whether moving v to target (while the edge v-other goes) flips or flattens a face of v."""
    for i in range(used[v]):
        f = table[v, i]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if a == other or b == other or c == other:
            continue
        old = _normal(points[a], points[b], points[c])
        pa = target if a == v else points[a]
        pb = target if b == v else points[b]
        pc = target if c == v else points[c]
        new = _normal(pa, pb, pc)
        size_old = np.sqrt(np.sum(old * old))
        size_new = np.sqrt(np.sum(new * new))
        if size_old < 1e-10:
            continue
        longest = max(np.sum((pa - pb) ** 2), max(np.sum((pb - pc) ** 2), np.sum((pc - pa) ** 2)))
        if size_new < 0.05 * longest and size_new < size_old:
            return True
        if np.sum(old * new) < 0.35 * size_old * size_new:
            return True
    return False


@numba.njit(cache=True)
def _collapse_pass(points, faces, border, alive, table, used, edges, size, limit, stop, total, mode, valence):
    """One sweep over `edges` (shortest first). Returns the number of vertices that the mirrored mesh has.

    mode 0 collapses any edge, 1 only edges off the border, 2 exactly one border edge.
    """
    ring_a = np.empty(256, dtype=np.int64)
    ring_b = np.empty(256, dtype=np.int64)
    for e in range(edges.shape[0]):
        if total <= stop:
            break
        a, b = edges[e, 0], edges[e, 1]
        if not (alive[a] and alive[b]):
            continue
        if border[b] and not border[a]:
            a, b = b, a
        if mode == 1 and border[b]:
            continue
        if mode == 2 and not border[b]:
            continue
        shared = _shared_faces(a, b, faces, table, used)
        both = border[a] and border[b]
        if shared == 0 or (both and shared != 1) or (not both and shared != 2):
            continue
        length = np.sqrt(np.sum((points[a] - points[b]) ** 2))
        scale = 0.5 * (size[a] + size[b])
        if length > limit * scale:
            continue
        na = _ring(a, faces, table, used, ring_a)
        nb = _ring(b, faces, table, used, ring_b)
        common = 0
        chord = False
        for i in range(nb):
            w = ring_b[i]
            found = False
            for k in range(na):
                if ring_a[k] == w:
                    found = True
                    break
            if found:
                common += 1
            # Both mirror halves would get an edge between two seam vertices, which then has four faces.
            seam = border[a] and border[w] and w != a and not border[b]
            if seam and (not found or _shared_faces(a, w, faces, table, used) != 1):
                chord = True
        if common != shared or chord or na + nb - 2 - common > valence:
            continue
        if border[a] and not border[b]:
            target = points[a].copy()
        else:
            target = 0.5 * (points[a] + points[b])
        if _turns_over(a, b, target, points, faces, table, used):
            continue
        if _turns_over(b, a, target, points, faces, table, used):
            continue
        points[a] = target
        size[a] = scale
        alive[b] = False
        for i in range(used[b]):
            f = table[b, i]
            if faces[f, 0] == a or faces[f, 1] == a or faces[f, 2] == a:
                for c in range(3):
                    w = faces[f, c]
                    if w == b:
                        continue
                    for k in range(used[w]):
                        if table[w, k] == f:
                            used[w] -= 1
                            table[w, k] = table[w, used[w]]
                            break
                faces[f, 0] = -1
            else:
                for c in range(3):
                    if faces[f, c] == b:
                        faces[f, c] = a
                table[a, used[a]] = f
                used[a] += 1
        used[b] = 0
        total -= 1 if both else 2
        if mode == 2:
            break
    return total


@numba.njit(cache=True)
def _flip_pass(points, faces, border, edges, table, used):
    """Flip edges whose opposite angles add up to more than pi (Delaunay), where that keeps the surface."""
    ring = np.empty(256, dtype=np.int64)
    flips = 0
    for e in range(edges.shape[0]):
        a, b = edges[e, 0], edges[e, 1]
        f0, f1 = -1, -1
        for i in range(used[a]):
            f = table[a, i]
            for c in range(3):
                if faces[f, c] == a and faces[f, (c + 1) % 3] == b:
                    f0 = f
                if faces[f, c] == b and faces[f, (c + 1) % 3] == a:
                    f1 = f
        if f0 < 0 or f1 < 0:
            continue
        c = faces[f0, 0] + faces[f0, 1] + faces[f0, 2] - a - b
        d = faces[f1, 0] + faces[f1, 1] + faces[f1, 2] - a - b
        if c == d or (border[c] and border[d]) or used[a] < 5 or used[b] < 5:
            continue
        n = _ring(c, faces, table, used, ring)
        linked = False
        for k in range(n):
            if ring[k] == d:
                linked = True
        if linked or used[c] > 9 or used[d] > 9:
            continue
        pa, pb, pc, pd = points[a], points[b], points[c], points[d]
        u, v = pa - pc, pb - pc
        s, t = pa - pd, pb - pd
        angle = np.arctan2(np.sqrt(np.sum(_cross(u, v) ** 2)), np.sum(u * v))
        angle += np.arctan2(np.sqrt(np.sum(_cross(s, t) ** 2)), np.sum(s * t))
        if angle < np.pi + 1e-3:
            continue
        n0, n1 = _normal(pa, pb, pc), _normal(pb, pa, pd)
        m0, m1 = _normal(pa, pd, pc), _normal(pd, pb, pc)
        old = n0 / np.sqrt(np.sum(n0 * n0)) + n1 / np.sqrt(np.sum(n1 * n1))
        s0, s1 = np.sqrt(np.sum(m0 * m0)), np.sqrt(np.sum(m1 * m1))
        if s0 < 1e-12 or s1 < 1e-12:
            continue
        if np.sum(m0 * old) < 0.6 * s0 or np.sum(m1 * old) < 0.6 * s1:
            continue
        if np.sum(m0 * m1) < 0.5 * s0 * s1:
            continue
        faces[f0, 0], faces[f0, 1], faces[f0, 2] = a, d, c
        faces[f1, 0], faces[f1, 1], faces[f1, 2] = d, b, c
        for v_old, f_old in ((a, f1), (b, f0)):
            for k in range(used[v_old]):
                if table[v_old, k] == f_old:
                    used[v_old] -= 1
                    table[v_old, k] = table[v_old, used[v_old]]
                    break
        table[c, used[c]] = f1
        used[c] += 1
        table[d, used[d]] = f0
        used[d] += 1
        flips += 1
    return flips


def simplify_half(
    points: np.ndarray, faces: np.ndarray, size: Sizing, total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Collapse edges, shortest by `size(points)` first, until the mirrored mesh has `total` vertices.

    Mirroring doubles all but the border, so the border's parity is that of `total`: one collapse adjusts it.
    """
    points, faces = points.copy(), faces.copy()
    border = boundary_vertices(faces, len(points))
    points[border, 0] = 0.0
    scale = size(points)
    alive = np.ones(len(points), dtype=np.bool_)
    table, used = _incidence(faces, len(points))
    have = 2 * int((~border).sum()) + int(border.sum())

    def sweep(have: int, limit: float, stop: int, mode: int, valence: int) -> int:
        edges = edges_of(faces[faces[:, 0] >= 0])
        length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
        relative = length / (0.5 * (scale[edges[:, 0]] + scale[edges[:, 1]]))
        order = np.argsort(relative, kind="stable")
        order = order[relative[order] <= limit]
        return int(
            _collapse_pass(
                points,
                faces,
                border,
                alive,
                table,
                used,
                edges[order],
                scale,
                limit,
                stop,
                have,
                mode,
                valence,
            )
        )

    limit = 0.25
    while have > total + 40 and limit < 50.0:
        have = sweep(have, limit, total + 40, 0, 10)
        scale[alive] = size(points[alive])
        limit *= 1.15
    if (have - total) % 2:
        have = sweep(have, 1e9, have - 1, 2, 12)
    while have > total and limit < 1e3:
        have = sweep(have, limit, total, 1, 11)
        limit *= 1.05
    number = np.cumsum(alive) - 1
    return points[alive], number[faces[faces[:, 0] >= 0]]


def flip_edges(points: np.ndarray, faces: np.ndarray, border: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """Faces after a few sweeps of Delaunay flips; the number of vertices and faces stays."""
    faces = faces.copy()
    for _ in range(sweeps):
        table, used = _incidence(faces, len(points))
        if _flip_pass(points, faces, border, edges_of(faces), table, used) == 0:
            break
    return faces


def gradient(field: Field, points: np.ndarray, step: float = 4e-4) -> tuple[np.ndarray, np.ndarray]:
    """Values (V,) and gradients (V, 3) of the field by central differences."""
    value = field(*points.T)
    slope = np.empty_like(points)
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        slope[:, axis] = (field(*(points + shift).T) - field(*(points - shift).T)) / (2 * step)
    return value, slope


def project(field: Field, points: np.ndarray, border: np.ndarray, reach: float, steps: int = 2) -> np.ndarray:
    """Points moved onto the zero set by Newton steps of at most `reach` metres; the border stays in x = 0."""
    points = points.copy()
    for _ in range(steps):
        value, slope = gradient(field, points)
        slope[border, 0] = 0.0
        step = -value[:, None] * slope / np.maximum((slope**2).sum(axis=1, keepdims=True), 1e-3)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        points += step * np.minimum(1.0, reach / np.maximum(length, 1e-12))
    return points


def relax_half(
    points: np.ndarray, faces: np.ndarray, field: Field, size: Sizing, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Even the triangles out along the surface: flips, tangential averaging, projection onto the zero set."""
    from scipy.sparse import coo_matrix

    border = boundary_vertices(faces, len(points))
    points = project(field, points, border, 0.004)
    for _ in range(rounds):
        faces = flip_edges(points, faces, border)
        edges = edges_of(faces)
        on_border = border[edges].all(axis=1)
        # A border vertex sees its two border neighbours only, so that the seam stays a curve in x = 0.
        inner = ~border[edges].any(axis=1)
        rows = np.concatenate([edges[inner | on_border], edges[inner | on_border][:, ::-1]])
        mixed = edges[~inner & ~on_border]
        outer_first = border[mixed[:, 0]]
        rows = np.concatenate([rows, np.where(outer_first[:, None], mixed[:, ::-1], mixed)])
        # Neighbours where coarser triangles are wanted pull less: the spacing follows the sizing field.
        scale = size(points)
        pull = 1.0 / scale[rows[:, 1]]
        matrix = coo_matrix((pull, (rows[:, 0], rows[:, 1])), shape=(len(points),) * 2).tocsr()
        mean = (matrix @ points) / np.asarray(matrix.sum(axis=1))
        _, slope = gradient(field, points)
        normal = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
        shift = 0.5 * (mean - points)
        shift -= normal * (shift * normal).sum(axis=1, keepdims=True)
        shift[border, 0] = 0.0
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        shift *= np.minimum(1.0, 0.3 * scale[:, None] / np.maximum(length, 1e-12))
        points = project(field, points + shift, border, 0.003, steps=1)
    return project(field, points, border, 0.003, steps=2), flip_edges(points, faces, border, 1)


def mirror_half(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The whole body: vertices (V, 3), faces (F, 3) and (V,) the index of every vertex's mirror image."""
    border = boundary_vertices(faces, len(points))
    points = points.copy()
    points[border, 0] = 0.0
    n = len(points)
    other = np.arange(n)
    other[~border] = n + np.arange(int((~border).sum()))
    vertices = np.concatenate([points, points[~border] * np.array([-1.0, 1.0, 1.0])])
    both = np.concatenate([faces, other[faces][:, ::-1]])
    twin = np.empty(len(vertices), dtype=np.int64)
    twin[:n] = other
    twin[other] = np.arange(n)
    return vertices, both, twin
