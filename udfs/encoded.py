"""Training rows as the transformer reads them: latents and text embeddings, computed once, kept in a folder.

Every distinct picture goes through the VAE once and every distinct prompt through the text encoders once,
however many rows share them. The arrays are memory-mapped, so a training holds what its batch needs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from schemas.errors import InputError
from udfs.flow_matching import Flow, Prompts

_PICTURES_AT_ONCE = 8
_PROMPTS_AT_ONCE = 16
_WHOLE = "encoded.json"


@dataclass(frozen=True)
class Rows:
    """N training rows before encoding.

    Attributes:
        images: N tuples of K picture names: the image, or the winner and the loser of a pair.
        controls: N picture names.
        prompts: N texts.
        poses: (N,) int64 pose ids, by which rows are held out.
    """

    images: Sequence[tuple[str, ...]]
    controls: Sequence[str]
    prompts: Sequence[str]
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.controls)


@dataclass(frozen=True)
class Batch:
    """B encoded rows.

    Attributes:
        latents: (B, K, L, C) of the images.
        control: (B, L, C).
        prompts: B prompts.
    """

    latents: Tensor
    control: Tensor
    prompts: Prompts


@dataclass(frozen=True)
class Encoded:
    """N encoded rows.

    Attributes:
        size: height and width of the pictures, pixels.
        latents: (P, L, C) of the distinct pictures.
        tokens, pooled: (Q, S, D) and (Q, E) of the distinct prompts.
        images, controls, prompts: (N, K), (N,) and (N,) places in those.
    """

    size: tuple[int, int]
    latents: np.ndarray
    tokens: np.ndarray
    pooled: np.ndarray
    images: np.ndarray
    controls: np.ndarray
    prompts: np.ndarray

    def __len__(self) -> int:
        return len(self.controls)

    def batch(self, rows: np.ndarray, device: torch.device | str) -> Batch:
        """The rows at these places, on a device."""
        images = self.images[rows]
        latents = _tensor(self.latents[images.ravel()]).to(device)
        return Batch(
            latents.unflatten(0, images.shape),
            _tensor(self.latents[self.controls[rows]]).to(device),
            Prompts(
                _tensor(self.tokens[self.prompts[rows]]).to(device),
                _tensor(self.pooled[self.prompts[rows]]).to(device),
            ),
        )


def encode(
    flow: Flow,
    rows: Rows,
    read: Callable[[str], np.ndarray],
    folder: Path,
    key: str,
    *,
    device: str = "cpu",
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Encoded:
    """Encodes the rows, or opens what an earlier call with the same key left in the folder.

    Args:
        read: a picture's pixels by its name, (H, W, 3) uint8.
        key: says what is encoded with which model.
        device: where the encoders run; they are brought back to where they were.
        watch: is told what is encoded, how many are done, and of how many.

    Raises:
        ConfigError: the pictures' size does not suit the model.
        InputError: they differ in size.
    """
    pictures, images, controls = _places(rows)
    texts, prompts = np.unique(np.asarray(rows.prompts, object).astype(str), return_inverse=True)
    if _key_of(folder) != key:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _WHOLE).unlink(missing_ok=True)
        # Text first: where memory is short, both encoders need not be on the device at once.
        _encode_texts(flow, texts.tolist(), folder, device, watch)
        size = _encode_pictures(flow, pictures, read, folder, device, watch)
        scratch = folder / f".{_WHOLE}.tmp"
        scratch.write_text(json.dumps({"key": key, "size": size}))
        scratch.replace(folder / _WHOLE)
    height, width = json.loads((folder / _WHOLE).read_text())["size"]
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "tokens", "pooled")
    }
    return Encoded((height, width), **arrays, images=images, controls=controls, prompts=prompts)


def _key_of(folder: Path) -> str | None:
    try:
        return json.loads((folder / _WHOLE).read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _places(rows: Rows) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = np.array([*(name for row in rows.images for name in row), *rows.controls], str)
    pictures, at = np.unique(names, return_inverse=True)
    images = at[: len(names) - len(rows)].reshape(len(rows), -1)
    return pictures.tolist(), images, at[len(names) - len(rows) :]


def _encode_pictures(
    flow: Flow,
    names: list[str],
    read: Callable[[str], np.ndarray],
    folder: Path,
    device: str,
    watch: Callable[[str, int, int], None],
) -> tuple[int, int]:
    first = read(names[0])
    height, width = first.shape[:2]
    flow.check_size(height, width)
    vae, home = flow.pipeline.vae, flow.pipeline.vae.device
    vae.to(device)
    kept: np.ndarray | None = None
    for start in range(0, len(names), _PICTURES_AT_ONCE):
        part = names[start : start + _PICTURES_AT_ONCE]
        pixels = [read(name) for name in part]
        for name, picture in zip(part, pixels, strict=True):
            if picture.shape != first.shape:
                raise InputError(
                    f"{name} is {picture.shape[1]} x {picture.shape[0]} pixels, {names[0]} is {width} x "
                    f"{height}; a training takes pictures of one size"
                )
        encoded = _array(flow.encode_pictures(np.stack(pixels)))
        if kept is None:
            kept = _new(folder / "latents.npy", len(names), encoded)
        kept[start : start + len(part)] = encoded
        watch("pictures", start + len(part), len(names))
    cast(np.memmap, kept).flush()
    vae.to(home)
    return height, width


def _encode_texts(
    flow: Flow, texts: list[str], folder: Path, device: str, watch: Callable[[str, int, int], None]
) -> None:
    encoders = (flow.pipeline.text_encoder, flow.pipeline.text_encoder_2)
    home = encoders[0].device
    for encoder in encoders:
        encoder.to(device)
    kept: dict[str, np.ndarray] = {}
    for start in range(0, len(texts), _PROMPTS_AT_ONCE):
        part = texts[start : start + _PROMPTS_AT_ONCE]
        prompts = flow.encode_prompts(part)
        for name, values in (("tokens", _array(prompts.tokens)), ("pooled", _array(prompts.pooled))):
            if name not in kept:
                kept[name] = _new(folder / f"{name}.npy", len(texts), values)
            kept[name][start : start + len(part)] = values
        watch("prompts", start + len(part), len(texts))
    for array in kept.values():
        cast(np.memmap, array).flush()
    for encoder in encoders:
        encoder.to(home)


def _new(path: Path, rows: int, like: np.ndarray) -> np.ndarray:
    # Another training may have the old one mapped: it keeps it, under no name.
    path.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, "w+", like.dtype, (rows, *like.shape[1:]))


def _array(values: Tensor) -> np.ndarray:
    """The values as NumPy; bfloat16, which NumPy has not, as its bits in int16."""
    values = values.cpu()
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()


def _tensor(values: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor
