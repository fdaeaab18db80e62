"""Weights of the small networks that come with the package: half precision, and how they were trained."""

import json
from pathlib import Path
from typing import TypeVar

from torch import nn

from schemas.errors import ModelError

Network = TypeVar("Network", bound=nn.Module)


def load_weights(network: Network, path: Path, form: str) -> Network:
    """The network with a file's weights, float32, ready to look. Raises ModelError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such weights")
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    if facts.get("format") != form:
        raise ModelError(f"{path}: format {facts.get('format')!r}, expected {form!r}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path}: not weights of this network: {error}") from error
    return network.eval().requires_grad_(False)


def save_weights(network: nn.Module, path: Path, form: str, facts: dict[str, object]) -> None:
    """Half-precision weights; `facts` (how it was trained) go into the file's header."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    half = {n: (t.half() if t.is_floating_point() else t.clone()).contiguous() for n, t in state.items()}
    save_file(half, path, metadata={"format": form, "training": json.dumps(facts, sort_keys=True)})
