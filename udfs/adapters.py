"""What is trained of a FLUX transformer: a LoRA beside those that are there, or all of it.

A pipeline may hold adapters already, such as a control LoRA. They stay active and frozen; "without the
trained one" means with all of them, which is what a preference training compares with.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxControlPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from schemas.errors import ConfigError, ModelError
from udfs.flow_matching import Flow

LORA_FILE = LORA_WEIGHT_NAME_SAFE
LINEAGE_KEY = "posedreamer"
"""Key of the lineage in the metadata of a LoRA's safetensors file."""


@dataclass(frozen=True)
class Lora:
    """A LoRA under training.

    Attributes:
        transformer: that it is in.
        name: of the adapter.
        others: adapters that were active before it was added, in their order.
    """

    transformer: Any
    name: str
    others: tuple[str, ...]

    @classmethod
    def add(
        cls, flow: Flow, name: str, *, rank: int, alpha: float | None, targets: tuple[str, ...], seed: int
    ) -> "Lora":
        """Adds a LoRA that changes nothing yet, and freezes everything else.

        On a base without input channels for a control image, the input layer gets them, with zero weights,
        and the LoRA adapts that layer too, in full rank: it has to carry all of the control's way in. Raises
        ConfigError for targets that the transformer has not.
        """
        transformer = flow.transformer
        others = tuple(transformer.active_adapters()) if _layers(transformer) else ()
        if name in getattr(transformer, "peft_config", {}):
            raise ConfigError(f"the pipeline has an adapter {name} already; give the new one another name")
        alpha = alpha or float(rank)
        ranks, alphas = {}, {}
        if not flow.has_control:
            expand_for_control(flow)
            layer = transformer.x_embedder
            ranks["x_embedder"] = min(layer.in_features, layer.out_features)
            alphas["x_embedder"] = alpha / rank * ranks["x_embedder"]
        lacking = [t for t in targets if not _named(transformer, t)]
        if lacking:
            raise ConfigError(
                f"targets: the transformer has no linear layer {lacking[0]}; known are to_q, to_out.0, ..."
            )
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            target_modules=[*targets, *ranks],
            rank_pattern=ranks,
            alpha_pattern=alphas,
            init_lora_weights="gaussian",
        )
        transformer.requires_grad_(False)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(seed)
            # That there are other adapters is meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            transformer.add_adapter(config, adapter_name=name)
        lora = cls(transformer, name, others)
        lora.switch(on=True)
        for parameter in lora.parameters().values():
            # Steps of a small learning rate are lost in bfloat16.
            parameter.data = parameter.data.float()
        return lora

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {n: p for n, p in self.transformer.named_parameters() if self._is_mine(n)}

    def switch(self, on: bool) -> None:
        """Makes the LoRA part of the transformer or leaves it out; the others are active either way."""
        active = [*self.others, self.name] if on else list(self.others)
        for layer in _layers(self.transformer):
            layer.set_adapter(active)
        # Activating an adapter also makes it trainable.
        for name, parameter in self.transformer.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(self._is_mine(name))

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """The transformer as it was before the LoRA was added. `disable_adapters()` would be another one: it
        switches the control LoRA off as well."""
        self.switch(on=False)
        try:
            yield
        finally:
            self.switch(on=True)

    def save(self, folder: Path, lineage: Mapping[str, Any]) -> Path:
        """Writes a LoRA that diffusers loads into the folder, all of it or nothing; returns the file.

        The same weights and lineage give the same bytes.
        """
        from safetensors import safe_open
        from safetensors.torch import save

        # Without its configuration, a LoRA whose alpha is not its rank would load with another strength; sets
        # have another order in every process.
        config = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in self.transformer.peft_config[self.name].to_dict().items()
        }
        scratch = folder / f".{LORA_FILE}.tmp"
        FluxControlPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(self.transformer, adapter_name=self.name),
            transformer_lora_adapter_metadata=config,
            weight_name=scratch.name,
            safe_serialization=True,
        )
        with safe_open(scratch, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata[LINEAGE_KEY] = json.dumps(lineage, sort_keys=True)
        scratch.write_bytes(_in_order(save(tensors, metadata)))
        return scratch.replace(folder / LORA_FILE)

    def _is_mine(self, parameter: str) -> bool:
        return ".lora_" in parameter and f".{self.name}." in parameter


@dataclass(frozen=True)
class Whole:
    """All of a transformer under training."""

    transformer: Any

    @classmethod
    def of(cls, flow: Flow) -> "Whole":
        """Makes everything trainable, in float32. Raises ModelError when there are adapters in it."""
        transformer = flow.transformer
        if _layers(transformer):
            raise ModelError("full training changes the base itself: take the LoRAs out of the generator")
        if not flow.has_control:
            expand_for_control(flow)
        transformer.float().requires_grad_(True)
        return cls(transformer)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.transformer.named_parameters())

    def save(self, flow: Flow, folder: Path) -> Path:
        """Writes the pipeline in diffusers' layout, all of it or nothing, over what is there; returns the
        folder."""
        scratch = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        flow.pipeline.save_pretrained(scratch, safe_serialization=True)
        shutil.rmtree(folder, ignore_errors=True)
        return scratch.rename(folder)


def expand_for_control(flow: Flow) -> None:
    """Gives the input layer channels for a control image. Their weights are zero: nothing changes yet.

    Raises ModelError for a transformer that reads something else beside the latents.
    """
    transformer, width = flow.transformer, flow.latent_channels
    old = transformer.x_embedder
    if not isinstance(old, nn.Linear) or old.in_features != width:
        raise ModelError(
            f"the transformer reads {getattr(old, 'in_features', '?')} channels; a base for control training "
            f"reads {width}, the image's latents, or {2 * width}, the control's beside them"
        )
    new = nn.Linear(2 * width, old.out_features, old.bias is not None, old.weight.device, old.weight.dtype)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :width] = old.weight
        if old.bias is not None:
            new.bias.copy_(old.bias)
    transformer.x_embedder = new
    transformer.register_to_config(in_channels=2 * width, out_channels=transformer.out_channels)


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in a random order."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def _layers(transformer: nn.Module) -> list[BaseTunerLayer]:
    return [m for m in transformer.modules() if isinstance(m, BaseTunerLayer)]


def _named(transformer: nn.Module, target: str) -> bool:
    """Whether there are layers of that name, and all of them are linear."""
    found = [m for n, m in transformer.named_modules() if n == target or n.endswith(f".{target}")]
    return bool(found) and all(isinstance(m, nn.Linear | BaseTunerLayer) for m in found)
