"""The stand-in body: a procedural human in SMPL-X's file layout.

SMPL-X's model file is licensed and can't be shipped. This body is made here from scratch: no vertex of it
comes from SMPL-X. It has the same numbers of vertices and joints, the same kinematic tree and keys, and the
vertices that `smplx` picks by number (nose, eyes, ears, fingers, toes) in the right places, so it loads with
`smplx.create(path, model_type="smplx", ext="npz", use_pca=False)` wherever the licensed file would.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from schemas.errors import ModelError

VERTEX_COUNT = 10475


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, area-weighted over the incident faces."""
    corners = vertices[faces]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for c in range(3):
        np.add.at(normals, faces[:, c], face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def build_standin() -> dict[str, np.ndarray]:
    """The 13 arrays of an SMPL-X model file, made from nothing but this package's own code.

    v_template (10475, 3), shapedirs (10475, 3, 20: 10 shape then 10 expression), posedirs (10475, 3, 486),
    J_regressor (55, 10475), weights (10475, 55), hands_* and lmk_bary_coords float32; f uint32;
    kintree_table and lmk_faces_idx int64. Metres; deterministic.
    """
    # Here and not at the top: a process that finds the body in the cache loads neither numba nor scipy.
    from udfs import (
        standin_correctives,
        standin_landmarks,
        standin_mesh,
        standin_shapes,
        standin_skeleton,
        standin_surface,
        standin_weights,
    )

    surface, spacing = standin_surface.body_surface(), standin_surface.spacing
    half = standin_mesh.extract_half(surface.on_grid, standin_surface.grid_axes())
    half = standin_mesh.simplify_half(*half, spacing, VERTEX_COUNT)
    half = standin_mesh.relax_half(*half, surface.at_points, spacing, rounds=12)
    vertices, faces, twin = standin_mesh.mirror_half(*half)
    if len(vertices) != VERTEX_COUNT or len(faces) != 2 * VERTEX_COUNT - 4:
        raise ModelError(
            f"stand-in body: {len(vertices)} vertices and {len(faces)} faces came out, a closed body has "
            f"{VERTEX_COUNT} and {2 * VERTEX_COUNT - 4}; the recipe in udfs/standin_surface.py makes holes"
        )

    weights = standin_weights.skinning_weights(vertices, faces, twin)
    order = standin_landmarks.vertex_order(vertices, weights.argmax(axis=1), twin)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    vertices, weights, faces, twin = vertices[order], weights[order], place[faces], place[twin[order]]

    normals = vertex_normals(vertices, faces)
    shapes, joint_moves = standin_shapes.shape_directions(vertices, normals, weights)
    expressions = standin_shapes.expression_directions(vertices)
    regressor = standin_weights.joint_regressor(vertices, weights, shapes, joint_moves)
    landmark_faces, landmark_bary = standin_landmarks.place_landmarks(vertices, faces)
    single = np.float32
    return {
        "v_template": vertices.astype(single),
        "f": faces.astype(np.uint32),
        "shapedirs": np.concatenate([shapes, expressions], axis=2).astype(single),
        "posedirs": standin_correctives.pose_correctives(vertices, weights, twin),
        "J_regressor": regressor.astype(single),
        "weights": weights.astype(single),
        "kintree_table": np.stack([standin_skeleton.PARENTS, np.arange(55)]),
        "hands_componentsl": np.eye(45, dtype=single),
        "hands_componentsr": np.eye(45, dtype=single),
        "hands_meanl": np.zeros(45, dtype=single),
        "hands_meanr": np.zeros(45, dtype=single),
        "lmk_faces_idx": landmark_faces,
        "lmk_bary_coords": landmark_bary.astype(single),
    }


def recipe_digest() -> str:
    """Hex digest of the source code that makes the body: another recipe is another file in the cache."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("standin*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where built bodies are kept: $POSEDREAMER_CACHE, else the user's cache folder."""
    chosen = os.environ.get("POSEDREAMER_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("posedreamer"))


def standin_path() -> Path:
    """Path of the stand-in body's npz; built on the first call (seconds), then taken from the cache.

    Several processes may call this at once: each writes a temporary file of its own and renames it, and all
    write the same bytes. ModelError when the cache folder cannot be written.
    """
    # smplx.create reads the kind of model off the file's name: it must begin with "smplx_".
    path = cache_folder() / f"smplx_standin_{recipe_digest()}.npz"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise ModelError(
            f"the stand-in body cannot be kept in {path.parent}: {error.strerror}; "
            "set POSEDREAMER_CACHE to a folder that can be written"
        ) from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **build_standin())  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)  # mkstemp's files are private, and a cache may be shared
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
