"""Weights of the small networks that come with the package: half precision, and how they were trained."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import torch
from torch import nn

from schemas.errors import ModelError

WEIGHTS = Path(__file__).parent / "weights"

Network = TypeVar("Network", bound=nn.Module)


class SmallNetwork(nn.Module):
    """A network that comes with the package.

    Class attributes:
        weights: its file; `metrics.md` beside it says how good it is.
        form: what the file's header must say.
    """

    weights: ClassVar[Path]
    form: ClassVar[str]

    @classmethod
    def load(cls, device: str = "cpu", weights: Path | None = None) -> Self:
        """The trained network, ready to look. Raises ModelError for any other file."""
        return load_weights(cls(), weights or cls.weights, cls.form).to(device)

    def save(self, path: Path, facts: dict[str, object]) -> None:
        save_weights(self, path, self.form, facts)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def halving(widths: Sequence[int]) -> nn.Sequential:
    """Pairs of convolutions, each of which halves a picture (B, 3, S, S) that is scaled about zero."""
    layers: list[nn.Module] = []
    for before, width in pairwise((3, *widths)):
        layers += [
            nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        ]  # fmt: skip
    return nn.Sequential(*layers)


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
