"""Trains the small networks that come with the package, minutes each: the loop that they share."""

import argparse
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.logging import RichHandler
from torch import Tensor, nn

from udfs.shaded import Model

log = logging.getLogger("small_training")

_EMA = 0.99
_LOG_EVERY = 50

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Command:
    """What a training was asked for on the command line.

    Attributes:
        out: safetensors file to write.
        work: folder for renders.
        renders, steps, batch, rate, seed: of the training.
    """

    out: Path
    work: Path
    renders: int
    steps: int
    batch: int
    rate: float
    seed: int

    @classmethod
    def read(cls, doc: str, **defaults: float) -> "Command":
        """The command line's; `defaults` are those of renders, steps, batch, rate and seed."""
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
        parser.add_argument("--work", type=Path, required=True, help="folder for renders")
        for name, value in defaults.items():
            parser.add_argument(f"--{name}", type=type(value), default=value)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
        return cls(**vars(parser.parse_args()))

    def facts(self, model: Model) -> dict[str, object]:
        """What goes into the header of the weights."""
        named = {name: getattr(self, name) for name in ("renders", "steps", "batch", "rate", "seed")}
        return {**named, "body": model.body.digest}


def fit(
    network: nn.Module,
    batch: Callable[[int], Batch],
    loss: Callable[[Batch], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Trains in place; the network ends with the mean of its last weights.

    Args:
        batch: the step's examples, made in another thread while the step before is computed.
        loss: of a batch, by the network as it is.
        rate: highest learning rate; it falls as a cosine.
    """
    torch.manual_seed(seed)
    network.train().requires_grad_(True)
    parameters: list[Tensor] = list(network.parameters())
    means = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    total, began = 0.0, time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(batch, 0)
        for step in range(steps):
            examples = following.result()
            following = pool.submit(batch, step + 1)
            warm = min((step + 1) / 50, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
            value = loss(examples)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(means, parameters, 1 - min(_EMA, step / (step + 10)))
            total += float(value.detach())
            if (step + 1) % _LOG_EVERY == 0 or step + 1 == steps:
                n = step % _LOG_EVERY + 1
                seconds = (time.perf_counter() - began) / n
                log.info("step %d loss %.4f seconds_a_step %.2f", step + 1, total / n, seconds)
                total, began = 0.0, time.perf_counter()
    with torch.no_grad():
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.copy_(mean)
    network.eval().requires_grad_(False)
