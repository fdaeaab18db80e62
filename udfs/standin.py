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

from udfs import (
    standin_landmarks,
    standin_mesh,
    standin_shapes,
    standin_skeleton,
    standin_surface,
    standin_weights,
)

VERTEX_COUNT = 10475
_RECIPE = (
    standin_landmarks,
    standin_mesh,
    standin_shapes,
    standin_skeleton,
    standin_surface,
    standin_weights,
)


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
    half = standin_mesh.extract_half(standin_surface.on_grid, standin_surface.grid_axes())
    half = standin_mesh.simplify_half(*half, standin_surface.spacing, VERTEX_COUNT)
    half = standin_mesh.relax_half(*half, standin_surface.at_points, standin_surface.spacing, rounds=12)
    vertices, faces, twin = standin_mesh.mirror_half(*half)

    weights = standin_weights.skinning_weights(vertices, faces, twin)
    order = standin_landmarks.vertex_order(vertices, weights.argmax(axis=1), twin)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    vertices, weights, faces = vertices[order], weights[order], place[faces]

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
        "posedirs": np.zeros((VERTEX_COUNT, 3, 486), dtype=single),
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
    for module in (*_RECIPE, None):
        path = Path(__file__ if module is None else str(module.__file__))
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
    """Path of the stand-in body's npz; built on the first call, then taken from the cache.

    Several processes may call this at once: each writes its own temporary file and renames it, and all write
    the same bytes.
    """
    path = (
        cache_folder() / f"smplx_standin_{recipe_digest()}.npz"
    )  # smplx.create reads the model type off the name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = build_standin()
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path
