"""The training loop that control training and preference training share, through accelerate.

Which rows a step sees and which noise they get are functions of the seed and the step. So a training that
was killed goes on from its checkpoint to the same weights; on one device and software, bit for bit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from schemas.errors import ConfigError, StageError
from schemas.training import DpoTraining, TrainingSettings
from udfs import checkpoint
from udfs.adapters import Lora, Whole
from udfs.encoded import Encoded
from udfs.flow_matching import Flow
from udfs.objectives import ControlObjective, DpoObjective, Objective
from udfs.training_log import TrainingLog

_MEASURED = 64
"""Held-out rows that are measured at a checkpoint, at the most."""

_LEARNING, _MEASURING = 1, 2
"""What noise is drawn for: no step shall meet the noise that is measured with."""


@dataclass(frozen=True)
class Split:
    """Places of the rows to learn from, and of those to measure on, which may be none."""

    learnt: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Progress:
    """How far a training is, and what was logged last."""

    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a training did.

    Attributes:
        step: optimiser steps in all.
        finished: whether these are all that were asked for.
        values: what was logged last.
        ran: how many of the steps this call took; 0 where all were done before.
    """

    step: int
    finished: bool
    values: Mapping[str, float]
    ran: int


def check_precision(settings: TrainingSettings, *, cpu: bool = False) -> None:
    """Raises ConfigError for a precision that the device has not."""
    if settings.mixed_precision == "fp16" and (cpu or not torch.cuda.is_available()):
        raise ConfigError("mixed_precision: fp16 needs a GPU; take bf16 or no")


def open_accelerator(settings: TrainingSettings, *, cpu: bool = False) -> Accelerator:
    """The device and the precision to train with. Raises ConfigError for a precision that it has not."""
    check_precision(settings, cpu=cpu)
    # accelerate keeps one state a process and refuses other settings than those of an earlier training.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        cpu=cpu,
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation,
    )


def objective_of(
    flow: Flow, size: tuple[int, int], part: Lora | Whole, settings: TrainingSettings
) -> Objective:
    """The objective that the settings ask for."""
    if not isinstance(settings, DpoTraining):
        return ControlObjective(flow, size)
    assert isinstance(part, Lora)
    return DpoObjective(flow, size, part, settings.beta, settings.winner_weight, settings.reference_weight)


def train(
    flow: Flow,
    part: Lora | Whole,
    rows: Encoded,
    split: Split,
    settings: TrainingSettings,
    folder: Path,
    accelerator: Accelerator,
    *,
    data: Mapping[str, Any],
    watch: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains up to `settings.steps`, going on from the checkpoint in the folder where there is one.

    Args:
        part: what is trained of the pipeline's transformer.
        data: what the rows and the base are, JSON; a checkpoint made with others is refused.
        watch: is told whenever something is logged.
        stop: is asked after every step; at a yes the training writes a checkpoint and ends.

    Raises:
        StageError: the loss, its gradient or the weights are no numbers; the last checkpoint is kept.
        ConfigError: the checkpoint belongs to another training, or is beyond the steps that are asked for.
    """
    model, path = flow.transformer, folder / checkpoint.FILE
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    model.to(accelerator.device)
    parameters = part.parameters()
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    identity = {"settings": settings.identity, "data": dict(data), "processes": accelerator.num_processes}
    start, scaling = checkpoint.resume(path, identity, parameters, optimizer)
    if start > settings.steps:
        raise ConfigError(
            f"{path} is at step {start}, beyond the {settings.steps} that are asked for; ask for as many "
            "(--steps), give --out another folder, or remove the checkpoint to start over"
        )
    wrapped, stepper = accelerator.prepare(model, optimizer)
    if accelerator.scaler is not None and scaling:
        accelerator.scaler.load_state_dict(scaling)
    run = _Run(flow, rows, split, settings, accelerator, objective_of(flow, rows.size, part, settings))
    step, saved, means = start, start, _Means()
    with TrainingLog(folder, start, settings.tensorboard, accelerator.is_main_process) as log:
        values = dict(log.last)
        while step < settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = rate(settings, step)
            for micro in range(settings.gradient_accumulation):
                with accelerator.accumulate(wrapped):
                    loss, found = run.loss(wrapped, step, micro)
                    _check(loss, "losses", step + 1, saved)
                    accelerator.backward(loss)
                    means.add(found)
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(parameters.values(), settings.max_grad_norm)
                        # In fp16 an overflow is expected: the scaler leaves the step out and scales less.
                        if accelerator.scaler is None:
                            _check(norm, "gradients", step + 1, saved)
                    stepper.step()
                    stepper.zero_grad()
            step += 1
            halted = _any(stop(), accelerator)
            at_checkpoint = halted or step == settings.steps or step % settings.checkpoint_every == 0
            if at_checkpoint or step % settings.log_every == 0:
                values = means.take() | {"learning_rate": rate(settings, step - 1)}
                if at_checkpoint:
                    held_out = run.held_out()
                    # Losses so far are of the weights before this step; what is kept has to serve to go on.
                    _check(torch.tensor(list(held_out.values())), "held-out losses", step, saved)
                    for parameter in parameters.values():
                        _check(parameter, "weights", step, saved)
                    values |= held_out
                log.write(step, values)
            if at_checkpoint and accelerator.is_main_process:
                scaling = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
                checkpoint.save(path, step, identity, parameters, optimizer, scaling)
                saved = step
            if at_checkpoint or step % settings.log_every == 0:
                watch(Progress(step, settings.steps, values))
            if halted:
                break
    # Takes off what `prepare` put around the forward pass of the very model that the pipeline holds.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    accelerator.free_memory()
    return Trained(step, step >= settings.steps, values, step - start)


def rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of a step, the first being 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def order(rows: int, seed: int, start: int, count: int) -> np.ndarray:
    """(count,) places of the rows that stand at `start` and after it, when all rows are passed through again
    and again, each time in another order."""
    at = np.arange(start, start + count)
    passes = {n: np.random.default_rng([seed, int(n)]).permutation(rows) for n in np.unique(at // rows)}
    return np.array([passes[i // rows][i % rows] for i in at], np.int64)


@dataclass(frozen=True)
class _Run:
    flow: Flow
    rows: Encoded
    split: Split
    settings: TrainingSettings
    accelerator: Accelerator
    objective: Objective

    def loss(self, model: nn.Module, step: int, micro: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of this process's rows in one forward pass of one step."""
        size, seed, here = self.settings.batch_size, self.settings.seed, self.accelerator.process_index
        passes = step * self.settings.gradient_accumulation + micro
        start = (passes * self.accelerator.num_processes + here) * size
        places = self.split.learnt[order(len(self.split.learnt), seed, start, size)]
        return self._measured(model, places, [seed, _LEARNING, step, micro, here])

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Means over held-out rows, with the same noise each time, so that they can be compared."""
        means, size = _Means(), self.settings.batch_size
        places = self.split.held_out[:_MEASURED]
        for start in range(0, len(places), size):
            part = places[start : start + size]
            _, found = self._measured(self.flow.transformer, part, [self.settings.seed, _MEASURING, start])
            means.add(found, len(part))
        return {f"held_out_{name}": value for name, value in means.take().items()}

    def _measured(
        self, model: nn.Module, places: np.ndarray, seeds: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device, settings = self.accelerator.device, self.settings
        batch = self.rows.batch(places, device)
        # Drawn on the CPU: a GPU would draw other numbers.
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))
        shape = batch.control.shape
        noise = torch.randn(shape, generator=generator).to(device)
        levels = self.flow.levels(
            len(places),
            shape[1],
            generator,
            mean=settings.timestep_mean,
            std=settings.timestep_std,
            shifted=settings.timestep_shift == "pipeline",
        ).to(device)
        with self.accelerator.autocast():
            return self.objective(model, batch, noise, levels, generator)


class _Means:
    """Means of named scalars; they stay on their device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weight = 0

    def add(self, values: Mapping[str, Tensor], weight: int = 1) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * weight
        self._weight += weight

    def take(self) -> dict[str, float]:
        means = {name: float(total) / self._weight for name, total in self._sums.items()}
        self._sums, self._weight = {}, 0
        return means


def _any(here: bool, accelerator: Accelerator) -> bool:
    """Whether it holds in one of the processes: all of them have to stop after the same step."""
    if accelerator.num_processes == 1:
        return here
    said = torch.tensor([float(here)], device=accelerator.device)
    return bool(accelerator.reduce(said, "sum") > 0)


def _check(value: Tensor, what: str, step: int, saved: int) -> None:
    if not bool(torch.isfinite(value).all()):
        kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was written yet"
        raise StageError(
            f"training stopped at step {step}: the {what} are no finite numbers; {kept}. A lower "
            "learning_rate or mixed_precision: no often helps; they are another training, with another --out"
        )
