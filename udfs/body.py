"""The SMPL-X body: a file that was checked, and `smplx`'s own layer behind a batched NumPy call."""

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError, ModelError
from schemas.smplx_params import GENDERS, SMPLX_PARAMS
from udfs.udf import file_digest

N_VERTICES = 10475
N_TREE_JOINTS = 55

_N_POSE_DIRS = 9 * (N_TREE_JOINTS - 1)
_BETAS, _EXPRESSION = SMPLX_PARAMS["betas"], SMPLX_PARAMS["expression"]
_SHAPE_SPACE = 300
"""Shape directions in the full file; expression directions follow them."""

# Name: shape, kind ("f" floating, "i" whole numbers). None: any length.
_KEYS: Mapping[str, tuple[tuple[int | None, ...], str]] = {
    "v_template": ((N_VERTICES, 3), "f"),
    "shapedirs": ((N_VERTICES, 3, None), "f"),
    "posedirs": ((N_VERTICES, 3, _N_POSE_DIRS), "f"),
    "J_regressor": ((N_TREE_JOINTS, N_VERTICES), "f"),
    "weights": ((N_VERTICES, N_TREE_JOINTS), "f"),
    "f": ((None, 3), "i"),
    "kintree_table": ((2, N_TREE_JOINTS), "i"),
    "hands_componentsl": ((None, 45), "f"),
    "hands_componentsr": ((None, 45), "f"),
    "hands_meanl": ((45,), "f"),
    "hands_meanr": ((45,), "f"),
    "lmk_faces_idx": ((51,), "i"),
    "lmk_bary_coords": ((51, 3), "f"),
}

_MOST_VALUES = N_VERTICES * 3 * 1024
"""Values that one array may hold: twice the largest of the full file."""

_CHUNK = 32
"""Bodies in one call of the layer. Always that many: matrix products round differently for different
sizes, and a row's labels must not depend on the rows that happen to share its batch."""


def read_body_file(path: Path) -> dict[str, np.ndarray]:
    """The 13 arrays of an SMPL-X npz that smplx reads, checked; nothing in the file is ever unpickled.

    Floats come back as float32, whole numbers as int64, `shapedirs` as (V, 3, 20): ten of shape, ten of
    expression. Other keys of the file are not touched. Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(
            f"{path}: no such body file. Give the path of an SMPL-X model in npz format, such as "
            "SMPLX_NEUTRAL.npz, or leave the setting out to use the stand-in body"
        )
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not an npz file. SMPL-X comes as npz and as pkl; only npz is read")
    try:
        with zipfile.ZipFile(path) as archive:
            data = {name: _read_array(archive, name, path) for name in _KEYS}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ModelError(f"{path}: the file is damaged ({error}); copy it again") from error
    data["shapedirs"] = _twenty_directions(data["shapedirs"], path)
    _check_indices(data, path)
    return data


def _read_array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    shape, kind = _KEYS[name]
    try:
        member = archive.open(f"{name}.npy")
    except KeyError:
        raise ModelError(
            f"{path}: no array {name!r}: not an SMPL-X body file (SMPL and SMPL-H files lack arrays)"
        ) from None
    with member as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            found, _, dtype = read_header(file)
        except ValueError as error:
            raise ModelError(f"{path}: array {name!r} cannot be read: {error}") from error
    # The header alone is judged before a value is read: an object array would run code when unpickled,
    # and an absurd shape would fill the memory.
    if dtype.hasobject:
        raise ModelError(
            f"{path}: array {name!r} holds pickled Python objects, which can run code when loaded. "
            "The file was refused; get it from its publisher, or save this array as numbers"
        )
    if dtype.kind not in ("f" if kind == "f" else "iu"):
        wanted = "floating-point numbers" if kind == "f" else "whole numbers"
        raise ModelError(f"{path}: array {name!r} is of type {dtype}, not {wanted}")
    fits = len(found) == len(shape) and all(b in (None, a) for a, b in zip(found, shape, strict=True))
    if not fits or int(np.prod(found, dtype=object)) > _MOST_VALUES:
        text = ", ".join("any" if n is None else str(n) for n in shape)
        raise ModelError(f"{path}: array {name!r} has shape {tuple(found)}, SMPL-X has ({text})")
    with archive.open(f"{name}.npy") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise ModelError(f"{path}: array {name!r} cannot be read: {error}") from error
    if kind == "i":
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        raise ModelError(f"{path}: array {name!r} holds values that are not finite")
    return np.ascontiguousarray(array, np.float32)


def _twenty_directions(shapedirs: np.ndarray, path: Path) -> np.ndarray:
    """Where smplx looks for them: expression starts at 300 in a full file, at 10 in a short one."""
    count = shapedirs.shape[2]
    start = _SHAPE_SPACE if count >= _SHAPE_SPACE + 100 else _BETAS
    if count < start + _EXPRESSION:
        raise ModelError(f"{path}: 'shapedirs' has {count} directions, at least 20 are needed (10 + 10)")
    return np.concatenate([shapedirs[..., :_BETAS], shapedirs[..., start : start + _EXPRESSION]], axis=2)


def _check_indices(data: Mapping[str, np.ndarray], path: Path) -> None:
    faces, parents = data["f"], data["kintree_table"][0]
    if not len(faces) or faces.min() < 0 or faces.max() >= N_VERTICES:
        raise ModelError(f"{path}: array 'f' names vertices that do not exist")
    if data["lmk_faces_idx"].min() < 0 or data["lmk_faces_idx"].max() >= len(faces):
        raise ModelError(f"{path}: array 'lmk_faces_idx' names triangles that do not exist")
    if (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, N_TREE_JOINTS)).any():
        raise ModelError(f"{path}: array 'kintree_table' is no tree with parents before children")


@dataclass(frozen=True)
class BodyOutput:
    """vertices (B, 10475, 3) and joints (B, 127, 3), float32, metres, in smplx's order."""

    vertices: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class Body:
    """A body model, loaded.

    Attributes:
        digest: BLAKE2b of the file's bytes.
        faces: (F, 3) int32.
        template: (V, 3) float32, the mean shape in its rest pose, metres.
        weights: (V, 55) float32 skinning weights.
        joints: (55, 3) float32, the template's joints.
        parents: (55,) int64, -1 for the pelvis.
        hands_mean: (2, 45) float32, mean left and right hand pose, radians.
        device: where the layer computes.
    """

    digest: str
    faces: np.ndarray
    template: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    parents: np.ndarray
    hands_mean: np.ndarray
    device: str
    _layer: Any = field(repr=False)
    _pelvis: tuple[np.ndarray, np.ndarray] = field(repr=False)

    @classmethod
    def load(cls, path: Path | None = None, *, device: str = "cpu") -> "Body":
        """Loads a body file; None is the stand-in; of a folder the first of neutral, female, male.

        Raises ModelError.
        """
        path = next(iter(body_files(path).values()))
        digest = file_digest(path) if path.is_file() else ""
        data = read_body_file(path)
        regressor = data["J_regressor"].astype(np.float64)
        directions = np.einsum("v,vcd->cd", regressor[0], data["shapedirs"].astype(np.float64))
        return cls(
            digest=digest,
            faces=data["f"].astype(np.int32),
            template=data["v_template"],
            weights=data["weights"],
            joints=(regressor @ data["v_template"]).astype(np.float32),
            parents=np.concatenate([[-1], data["kintree_table"][0, 1:]]),
            hands_mean=np.stack([data["hands_meanl"], data["hands_meanr"]]),
            device=device,
            _layer=_smplx_layer(data, device),
            _pelvis=(regressor[0] @ data["v_template"], directions),
        )

    @property
    def vertex_part(self) -> np.ndarray:
        """(V,) int64: the joint that moves each vertex most."""
        return self.weights.argmax(axis=1)

    def pelvis(self, betas: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(B, 3) float64: the pelvis joint of the shaped body before it is posed. Both inputs (B, 10)."""
        mean, directions = self._pelvis
        shape = np.concatenate([betas, expression], axis=1).astype(np.float64)
        return mean + shape @ directions.T

    def __call__(self, params: Mapping[str, np.ndarray]) -> BodyOutput:
        """Poses B bodies.

        Args:
            params: (B, k) arrays by the names of `schemas.smplx_params.SMPLX_PARAMS`; what is missing is 0.
                Hand poses are absolute.
        """
        import torch

        rows = _checked(params)
        count = len(next(iter(rows.values())))
        vertices = np.empty((count, N_VERTICES, 3), np.float32)
        joints = np.empty((count, 127, 3), np.float32)
        with torch.no_grad():
            for start in range(0, count, _CHUNK):
                stop = min(start + _CHUNK, count)
                out = self._layer(
                    **{
                        name: torch.as_tensor(_padded(value[start:stop]), device=self.device)
                        for name, value in rows.items()
                    }
                )
                vertices[start:stop] = out.vertices[: stop - start].cpu().numpy()
                joints[start:stop] = out.joints[: stop - start].cpu().numpy()
        return BodyOutput(vertices, joints)


def body_files(path: Path | None) -> dict[str, Path]:
    """The body files that a setting means, by gender.

    None is the stand-in, built on first use. A file stands for all rows; it is neutral unless its name
    says otherwise (SMPLX_FEMALE.npz). A folder has one file or several of SMPLX_NEUTRAL.npz,
    SMPLX_FEMALE.npz, SMPLX_MALE.npz. Raises ModelError.
    """
    if path is None:
        from udfs.standin import standin_path

        return {"neutral": standin_path()}
    if path.is_dir():
        named = {gender: path / f"SMPLX_{gender.upper()}.npz" for gender in GENDERS}
        found = {gender: file for gender, file in named.items() if file.is_file()}
        if not found:
            raise ModelError(f"{path}: none of {', '.join(f.name for f in named.values())} is in this folder")
        return found
    name = path.stem.lower()
    gender = "female" if "female" in name else "male" if "male" in name else "neutral"
    return {gender: path}


def _checked(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every parameter, (B, k) float32."""
    unknown = sorted(set(params) - set(SMPLX_PARAMS))
    if unknown or not params:
        raise InputError(
            f"SMPL-X parameters are {', '.join(SMPLX_PARAMS)}; got {', '.join(unknown) or 'none'}"
        )
    count = len(next(iter(params.values())))
    rows = {}
    for name, length in SMPLX_PARAMS.items():
        value = np.asarray(params.get(name, np.zeros((count, length))), np.float32)
        if value.shape != (count, length):
            raise InputError(f"SMPL-X parameter {name}: shape {value.shape}, expected {(count, length)}")
        rows[name] = value
    return rows


def _padded(value: np.ndarray) -> np.ndarray:
    padded = np.zeros((_CHUNK, value.shape[1]), np.float32)
    padded[: len(value)] = value
    return padded


def _smplx_layer(data: Mapping[str, np.ndarray], device: str) -> Any:
    """`smplx` loads by np.load(allow_pickle=True) and reads every key: it is handed a copy of ours."""
    import smplx

    # Zeros where the full file has directions that are not used here: with fewer than 400, smplx prints
    # a warning on standard output.
    directions = np.zeros((N_VERTICES, 3, _SHAPE_SPACE + 100), np.float32)
    directions[..., :_BETAS] = data["shapedirs"][..., :_BETAS]
    directions[..., _SHAPE_SPACE : _SHAPE_SPACE + _EXPRESSION] = data["shapedirs"][..., _BETAS:]
    with tempfile.TemporaryDirectory(prefix="posedreamer-") as folder:
        copy = Path(folder) / "SMPLX_NEUTRAL.npz"  # smplx reads the kind of model off the name
        arrays: dict[str, Any] = {**data, "shapedirs": directions}
        np.savez(copy, **arrays)
        layer = smplx.create(
            str(copy),
            model_type="smplx",
            ext="npz",
            use_pca=False,
            flat_hand_mean=True,
            num_betas=_BETAS,
            num_expression_coeffs=_EXPRESSION,
        )
    return layer.requires_grad_(False).to(device).eval()
