"""Model files as they lie on disk: safetensors headers, digests, and what is refused unread.

Nothing here imports torch: it runs wherever a fingerprint is taken.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from schemas.errors import ModelError
from udfs.threads import each
from udfs.udf import file_digest

WEIGHTS = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_MAX_HEADER = 100 * 2**20
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor names to shapes."""


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file, from its header.

    Raises ModelError for a file that is missing, damaged or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER):
                raise ValueError("its header is not one")
            header = json.loads(file.read(length))
        room = size - 8 - length
        shapes, spans = {}, []
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            start, end = tensor["data_offsets"]
            if not 0 <= start <= end:
                raise ValueError(f"the tensor {name} lies nowhere")
            if end > room:
                raise ValueError(f"the tensor {name} is cut off")
            wide = _BYTES.get(tensor["dtype"])
            if wide is not None and math.prod(tensor["shape"]) * wide != end - start:
                raise ValueError(f"the tensor {name} has not the size of its shape")
            shapes[name] = tuple(tensor["shape"])
            spans.append((start, end))
        at = 0
        for start, end in sorted(spans):
            if start != at:
                raise ValueError(f"its tensors leave out or share bytes at {at}")
            at = end
        if at != room:
            raise ValueError(f"{room - at} bytes follow its last tensor")
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: no intact safetensors file: {error}; fetch it again") from error
    if not shapes:
        raise ModelError(f"{path}: holds no tensor")
    return shapes


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files in a model's folder that diffusers and transformers load, checked.

    Variants such as `model.fp16.safetensors` are not loaded, and not looked at. Raises ModelError when
    there are none, when there are only pickles, or when one is missing, damaged or cut off.
    """
    files = sorted(p for p in folder.glob(f"*{WEIGHTS}") if "." not in p.stem)
    for index in sorted(folder.glob(f"*{WEIGHTS}.index.json")):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ModelError(f"{index}: lists no weights: its weight_map is no object of file names")
        listed = set(shards.values())
        absent = sorted(listed - {p.name for p in files})
        if absent:
            raise ModelError(f"{folder}: the file {absent[0]} is missing, which {index.name} lists")
    if not files:
        refuse_pickles(folder)
        raise ModelError(f"{folder}: has no weights ({WEIGHTS})")
    for file in files:
        tensor_shapes(file)
    return files


def refuse_pickles(folder: Path) -> None:
    """Raises ModelError when there are pickles in a folder."""
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder}: has its weights as a pickle only ({pickles[0]}), which can run code when it is "
            "loaded; save the model with safe_serialization=True"
        )


def read_json(path: Path) -> dict:
    """A JSON object. Raises ModelError."""
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ModelError(f"{path}: is no JSON object")
    return read


def digest_of(root: Path, files: Iterable[Path]) -> str:
    """BLAKE2b (128 bits, hex) of files: their names below `root` and their bytes, not the root's place."""
    known = sorted(files)
    digests = [""] * len(known)

    def digest(i: int) -> None:
        facts = known[i].stat()
        digests[i] = _cached_digest(known[i], facts.st_size, facts.st_mtime_ns)

    each(digest, len(known))
    together = hashlib.blake2b(digest_size=16)
    for path, value in zip(known, digests, strict=True):
        together.update(f"{path.relative_to(root).as_posix()}\0{value}\0".encode())
    return together.hexdigest()


@functools.lru_cache(maxsize=4096)
def _cached_digest(path: Path, size: int, modified: int) -> str:
    """Several stages ask for the same gigabytes; size and time of change tell a file that was replaced."""
    return file_digest(path)


def few(keys: Sequence[str]) -> str:
    """The first of many tensor names, for a message."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
