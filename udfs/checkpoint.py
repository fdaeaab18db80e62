"""A training's checkpoint: weights, the optimiser's state, the step and whose training it is, in one file.

Noise and data order are functions of the seed and the step, so there is no random state to keep. The file is
safetensors: reading it runs nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.errors import ConfigError, ModelError

FILE = "checkpoint.safetensors"


def save(
    path: Path,
    step: int,
    identity: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any] | None = None,
) -> None:
    """Writes all or nothing. identity: what must be the same to go on from it, JSON."""
    tensors = {f"weights/{name}": _plain(p) for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = _plain(torch.as_tensor(value))
    facts = {"step": str(step), "identity": json.dumps(identity), "scaler": json.dumps(scaler or {})}
    scratch = path.with_suffix(".tmp")
    save_file(tensors, scratch, metadata=facts)
    scratch.replace(path)


def resume(
    path: Path,
    identity: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, dict[str, Any]]:
    """Puts weights and optimiser state in place; the step to go on from, 0 where there is no file, and the
    gradient scaler's state.

    Raises ConfigError when the checkpoint is of other settings, data or another base, and ModelError when it
    is damaged.
    """
    if not path.is_file():
        return 0, {}
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, whose, scaler = int(facts["step"]), json.loads(facts["identity"]), json.loads(facts["scaler"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: no intact checkpoint: {error}; remove it to start over") from error
    _same(path, whose, json.loads(json.dumps(identity)))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_taken(path, tensors, f"weights/{name}", parameter))
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            what, _, name = rest.partition("/")
            place = "cpu" if what == "step" else parameters[name].device
            optimizer.state[parameters[name]][what] = value.to(place)
    return step, scaler


def _plain(values: Tensor) -> Tensor:
    return values.detach().to("cpu", copy=True).contiguous()


def _taken(path: Path, tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    found = tensors.get(name)
    if found is None or found.shape != like.shape:
        raise ModelError(f"{path}: {name} is missing or of another shape; remove the file to start over")
    return found


def _same(path: Path, old: Any, new: Any) -> None:
    if old == new:
        return
    flat_old, flat_new = _flat(old), _flat(new)
    changes = [
        f"{key} {flat_old.get(key)!r} -> {flat_new.get(key)!r}"
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
    ]
    raise ConfigError(
        f"{path} is of another training ({', '.join(changes[:4])}); give --out another folder, or remove the "
        "checkpoint to start over"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}".lstrip("."))
    return flat
