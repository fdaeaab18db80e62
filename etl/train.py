"""Trains the pipeline file's model on rows of a lake, and writes the result with what it was made from."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.fingerprints import software
from etl.training_rows import LakeRows, control_rows, preference_rows
from schemas.errors import ConfigError, InputError, ModelError
from schemas.ids import text_hash
from schemas.pipeline import DiffusionSettings, Pipeline
from schemas.training import ControlTraining, DpoTraining, TrainingSettings
from udfs.generate import Diffusion

LINEAGE = "lineage.json"
PIPELINE = "pipeline"

Watch = Callable[[str, int, int, Mapping[str, float]], None]
"""Is told what is going on, how much of it is done, of how much, and what was measured."""


@dataclass(frozen=True)
class Report:
    """What a training left behind.

    Attributes:
        path: the LoRA's file or the pipeline's folder; None while the training is not finished.
        step: optimiser steps in all.
        learnt, held_out: rows.
        values: what was logged last, of whichever call.
        source: where the rows come from, as in the lineage.
    """

    path: Path | None
    step: int
    learnt: int
    held_out: int
    values: Mapping[str, float]
    source: Mapping[str, object]


def train_control(
    pipeline: Pipeline,
    settings: ControlTraining,
    out: Path,
    *,
    data: Pipeline | None = None,
    release: str | None = None,
    cpu: bool = False,
    watch: Watch = lambda what, done, total, values: None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Trains a control LoRA, or the whole transformer, on images with their control images and prompts.

    Of a training that is finished, the same call leaves the result as it is.

    Args:
        pipeline: whose generator is trained.
        out: folder of the result, the log and the checkpoint, from which the same call goes on.
        data: the pipeline whose images are learnt; by default the same.
        release: learn the rows of this release of its lake only.
        cpu: leave a GPU alone.
        stop: is asked after every step; at a yes it writes a checkpoint and returns.

    Raises:
        ConfigError, InputError, ModelError: settings, rows, the model or the checkpoint do not serve.
        StageError: the loss became no number.
    """
    base = _base(pipeline)
    return _train(base, control_rows(data or pipeline, release), settings, out, cpu, watch, stop)


def train_dpo(
    pipeline: Pipeline,
    settings: DpoTraining,
    out: Path,
    *,
    data: Pipeline | None = None,
    selection: str | None = None,
    cpu: bool = False,
    watch: Watch = lambda what, done, total, values: None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Trains a LoRA on preferred pairs of images, beside the adapters that the generator has.

    selection: which choice of pairs in `preferences`; by default the newest among the pipeline's images. The
    rest is as in `train_control`.
    """
    base = _base(pipeline)
    return _train(base, preference_rows(data or pipeline, selection), settings, out, cpu, watch, stop)


def _base(pipeline: Pipeline) -> Diffusion:
    if not isinstance(pipeline.generator, DiffusionSettings):
        raise ConfigError(
            f"generator: {pipeline.generator.name} is a renderer, which has nothing to train; name a model: "
            "generator: {name: diffusers, model: nano}"
        )
    return Diffusion(settings=pipeline.generator).pinned()


def _train(
    base: Diffusion,
    found: LakeRows,
    settings: TrainingSettings,
    out: Path,
    cpu: bool,
    watch: Watch,
    stop: Callable[[], bool],
) -> Report:
    import torch

    from udfs.encoded import encode
    from udfs.trainable import load_trainable
    from udfs.training import Split, open_accelerator, train

    learnt, held_out = found.split(settings.held_out)
    if len(learnt) < settings.batch_size:
        raise InputError(
            f"there are {len(learnt)} rows to learn from, {len(held_out)} more are held out; a batch of "
            f"{settings.batch_size} needs as many: make more images, or lower batch_size or held_out"
        )
    models = dict(base.models())
    accelerator = open_accelerator(settings, cpu=cpu)
    flow = load_trainable(base.settings, accelerator.device.type)
    make_folder(out)
    about = {"dtype": str(flow.pipeline.vae.dtype), "length": flow.max_sequence_length}
    facts = json.dumps([models, about, found.contents], sort_keys=True)
    # All of the base that shapes what is learnt: on other guidance, text or strengths it is another model.
    base_facts = {
        "digests": models,
        "weights": [adapter.weight for adapter in base.settings.adapters],
        "dtype": about["dtype"],
        "guidance_scale": flow.guidance_scale if flow.transformer.config.guidance_embeds else None,
        "max_sequence_length": flow.max_sequence_length,
    }

    def encoding(what: str, done: int, total: int) -> None:
        watch(f"encode {what}", done, total, {})
        if stop():  # nothing to save yet
            raise KeyboardInterrupt

    with accelerator.main_process_first():
        rows = encode(
            flow,
            found.rows,
            found.read,
            out / "encoded",
            text_hash(facts).hex(),
            device=str(accelerator.device),
            watch=encoding,
        )
    part = _part(flow, settings)
    watch("train", 0, settings.steps, {})
    done = train(
        flow,
        part,
        rows,
        Split(learnt, held_out),
        settings,
        out,
        accelerator,
        data={"base": base_facts, "rows": found.contents},
        watch=lambda now: watch("train", now.step, now.steps, now.values),
        stop=stop,
    )
    path = _place(part, out) if done.finished else None
    if path is not None and accelerator.is_main_process:
        lineage = {
            "base": {"model": _name(base.settings), **base_facts},
            "data": {**found.source, "contents": found.contents},
            "learnt": len(learnt),
            "held_out": len(held_out),
            "settings": settings.model_dump(mode="json"),
            "kind": "dpo" if isinstance(settings, DpoTraining) else "control",
            "software": software(),
            "device": str(accelerator.device)
            if cpu or not torch.cuda.is_available()
            else torch.cuda.get_device_name(),
        }
        # Written again, it would say today's software and table version: another file, and its images stale.
        if done.ran or not _is_made(path, lineage, settings):
            _save(flow, part, path, lineage, found.lake.url, done.values)
    accelerator.wait_for_everyone()
    return Report(path, done.step, len(learnt), len(held_out), done.values, found.source)


def _part(flow: Any, settings: TrainingSettings) -> Any:
    """What is trained of the model: a LoRA under a name that is free, or all of it."""
    from udfs.adapters import Lora, Whole

    if isinstance(settings, ControlTraining) and settings.full:
        return Whole.of(flow)
    if isinstance(settings, DpoTraining) and not flow.has_control:
        raise ModelError(
            "generator: its transformer has no channels for a control image, so it cannot be aligned yet: "
            "add a control LoRA to `adapters`, or train one (posedreamer train control)"
        )
    taken = getattr(flow.transformer, "peft_config", {})
    name = "dpo" if isinstance(settings, DpoTraining) else "control"
    while name in taken:
        name += "_next"
    return Lora.add(
        flow,
        name,
        rank=settings.rank,
        alpha=settings.alpha,
        targets=settings.targets,
        seed=settings.seed,
    )


def _place(part: Any, out: Path) -> Path:
    """Where the result goes: a LoRA's file or a pipeline's folder."""
    from udfs.adapters import LORA_FILE, Lora

    return out / (LORA_FILE if isinstance(part, Lora) else PIPELINE)


def _is_made(path: Path, lineage: Mapping[str, Any], settings: TrainingSettings) -> bool:
    """Whether the result of these steps on this base and these rows is there already."""
    try:
        there = json.loads(path.with_name(LINEAGE).read_text("utf-8"))
        asked = {**settings.identity, "steps": settings.steps}
        return (
            path.exists()
            and there["file"] == path.name
            and there["base"] == lineage["base"]
            and there["data"]["contents"] == lineage["data"]["contents"]
            and {name: there["settings"].get(name) for name in asked} == asked
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _save(
    flow: Any, part: Any, path: Path, lineage: Mapping[str, Any], lake: str, values: Mapping[str, float]
) -> None:
    from udfs.adapters import Lora

    if isinstance(part, Lora):
        part.save(path.parent, lineage)
    else:
        part.save(flow, path)
    # The place of the lake stands beside the weights only: the same training gives the same file anywhere.
    beside = {**lineage, "file": path.name, "lake": lake, "measured": dict(values)}
    scratch = path.with_name(f".{LINEAGE}.tmp")
    scratch.write_text(json.dumps(beside, indent=2, sort_keys=True) + "\n", "utf-8")
    scratch.replace(path.with_name(LINEAGE))


def make_folder(out: Path) -> None:
    """Makes the folder of a result, where it is not there. Raises ConfigError where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: no folder can be made there: {error}") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"--out {out}: cannot be written to")


def _name(settings: DiffusionSettings) -> str:
    """What the base is called, without the folders of the machine it lies on."""
    return f"{settings.model}@{settings.revision}" if settings.revision else Path(settings.model).name
