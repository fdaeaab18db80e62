"""LoRA adapters on a pipeline, such as control, preference and realism, one upon the other.

What diffusers lets pass in silence is refused here: an adapter that fits nothing of the model, one that fits
in part, one that displaces another.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ModelError
from schemas.pipeline import AdapterSettings
from udfs import hub
from udfs.model_files import PICKLES, WEIGHTS, Shapes, few, refuse_pickles, tensor_shapes, weight_files
from udfs.pipelines import Pipe
from udfs.udf import file_digest

NANO_DPO = Path(__file__).parent / "weights" / "nano_dpo"
"""The preference adapter that comes with the package, for `nano`."""

USUAL_NAME = f"pytorch_lora_weights{WEIGHTS}"
DENOISERS = ("transformer", "unet")
_GROWS = "x_embedder"
"""The input layer, which a control LoRA may widen by the channels of the control image."""

_OWN = re.compile(r"\.lora_[AB]\.")
"""In names of diffusers' own format."""

_HALF = re.compile(r"(lora\w*?[._])(A|B|down|up)(?=(\.\w+)?\.weight$)")
"""In names of the two matrices whose product is added to a layer, in all formats."""
_OTHER = {"A": "B", "B": "A", "down": "up", "up": "down"}

_DOWN = re.compile(r"[._](lora_A|lora_down|lora\.down|lora_linear_layer\.down)(\.\w+)?\.weight$")


@dataclass(frozen=True)
class LoraFile:
    """An adapter's file and how strongly it acts.

    Attributes:
        name: in the pipeline. Not the one in the settings, which layers would take as an attribute: `train`
            and `half` are such already.
        path: a safetensors file.
        weight: 1 is as trained.
    """

    name: str
    path: Path
    weight: float

    @classmethod
    def find(cls, settings: AdapterSettings, index: int) -> "LoraFile":
        """The file of an adapter: `nano-dpo`, a file, a folder with one, or a hub id. Raises ModelError."""
        place = settings.path
        if place == "nano-dpo":
            folder = NANO_DPO
        elif not hub.is_fetched(place):
            folder = Path(place)
        else:
            folder = hub.snapshot(place, settings.revision, [settings.weight_name or f"*{WEIGHTS}"])
        path = _file_in(folder, settings.weight_name)
        if path.suffix in PICKLES:
            raise ModelError(f"{path}: is a pickle, which can run code when it is loaded; use {WEIGHTS}")
        shapes = tensor_shapes(path)
        if any("dora_scale" in name for name in shapes):
            raise ModelError(f"{path}: is a DoRA, whose scales diffusers would leave out; use a LoRA")
        found = cls(f"adapter_{index}", path, settings.weight)
        found._check_halves(shapes)
        return found

    def digest(self) -> str:
        return file_digest(self.path)

    def check(self, pipeline: Path) -> None:
        """Compares its shapes with the denoiser in a pipeline's folder; only headers are read.

        An adapter in another format than diffusers' own is compared when it has been converted, in `stack`.
        Raises ModelError, naming keys, for one made for another architecture.
        """
        shapes = tensor_shapes(self.path)
        for part in DENOISERS:
            mine = {k.removeprefix(f"{part}."): v for k, v in shapes.items() if k.startswith(f"{part}.")}
            if (pipeline / part).is_dir() and any(".lora_A." in key for key in mine):
                weights: dict[str, tuple[int, ...]] = {}
                for file in weight_files(pipeline / part):
                    weights |= tensor_shapes(file)
                self._refuse(_misfits(mine, weights), part)

    def _check_halves(self, shapes: Shapes) -> None:
        """Raises ModelError where one of the two matrices of a layer is not there: peft would leave the other
        half as random as it is before a training."""
        halves = sorted(key for key in shapes if _HALF.search(key))
        flat = [key for key in halves if len(shapes[key]) < 2]
        if flat:
            raise ModelError(f"{self.path}: is no LoRA: not a matrix, as it should be: {few(flat)}")
        alone = [key for key in halves if _HALF.sub(lambda m: m[1] + _OTHER[m[2]], key) not in shapes]
        if alone:
            raise ModelError(
                f"{self.path}: is no whole LoRA, the other matrix of a layer is missing beside "
                f"{few(alone)}; fetch it again"
            )

    def _refuse(self, keys: Sequence[str], part: str) -> None:
        if keys:
            raise ModelError(f"{self.path}: is a LoRA for another architecture than this {part}: {few(keys)}")


def stack(pipe: Pipe, files: Sequence[LoraFile], fuse: bool) -> None:
    """Loads adapters, makes all of them act with their weights, and freezes them.

    fuse: adds them to the model's own weights, so that they cost no time. In half precision a small adapter
    would drown in the rounding of those weights; there it stays apart.

    Raises ModelError for an adapter that the pipeline does not take whole.
    """
    if not files:
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise ModelError(f"{files[0].path}: {type(pipe).__name__} takes no LoRA")
    for file in files:
        _load(pipe, file)
    # Without this only the one loaded last would act.
    pipe.set_adapters([f.name for f in files], [f.weight for f in files])
    parts = {
        name: part for name in pipe._lora_loadable_modules if (part := getattr(pipe, name, None)) is not None
    }
    touched = [name for name, part in parts.items() if getattr(part, "peft_config", None)]
    if fuse:
        pipe.fuse_lora(components=touched, adapter_names=[f.name for f in files])
        for name in touched:
            # The pipeline's own way to unload would also take back the norms that a control LoRA brings.
            _unwrap(parts[name])
    for part in parts.values():
        part.requires_grad_(False)


def _load(pipe: Pipe, file: LoraFile) -> None:
    where = {"weight_name": file.path.name, "use_safetensors": True, "local_files_only": True}
    try:
        converted = pipe.lora_state_dict(str(file.path.parent), return_alphas=True, **where)[0]
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError, OSError) as error:
        raise ModelError(f"{file.path}: is no LoRA that {type(pipe).__name__} reads: {error}") from error
    parts = {
        name: part for name in pipe._lora_loadable_modules if (part := getattr(pipe, name, None)) is not None
    }
    mine = [key for key in converted if key.partition(".")[0] in parts]
    if not mine:
        raise ModelError(
            f"{file.path}: none of its keys begins with {' or '.join(f'{p}.' for p in parts)}, so nothing of "
            f"it would be used: {', '.join(sorted(converted)[:3])}"
        )
    file._check_halves({key: tuple(converted[key].shape) for key in mine})
    wild = [key for key in mine if not converted[key].float().isfinite().all()]
    if wild:
        raise ModelError(
            f"{file.path}: holds numbers that are infinite or none (NaN): {few(wild)}; take another state "
            "of its training"
        )
    for part in DENOISERS:
        if part in parts:
            own = [key for key in mine if key.startswith(f"{part}.") and _OWN.search(key)]
            lora = {key.removeprefix(f"{part}."): tuple(converted[key].shape) for key in own}
            weights = {
                k.replace(".base_layer.", "."): tuple(v.shape) for k, v in parts[part].state_dict().items()
            }
            file._refuse(_misfits(lora, weights), part)
    try:
        pipe.load_lora_weights(str(file.path.parent), adapter_name=file.name, **where)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        # Where an option in the file's metadata is not known here, only the cause names it.
        said = " ".join(f"{error} {error.__cause__ or ''}".split())[:300]
        raise ModelError(
            f"{file.path}: is a LoRA for another model than {type(pipe).__name__}, or was saved by another "
            f"version of peft: {said}"
        ) from error
    wanted = [key for key in converted if _DOWN.search(key)]
    loaded = {
        f"{name}.{inner}"
        for name, part in parts.items()
        for inner, module in part.named_modules()
        if file.name in getattr(module, "lora_A", ())
    }
    if len(loaded) < len(wanted) or not loaded:
        lost = sorted(k for k in wanted if _DOWN.sub("", k).replace(".processor", "") not in loaded)
        file._refuse(lost or sorted(converted), type(pipe).__name__)


def _misfits(lora: Shapes, weights: Shapes) -> list[str]:
    """Keys of a LoRA in diffusers' format, less the prefix, that do not fit the model's tensors."""
    wrong = []
    for key, shape in sorted(lora.items()):
        module, found, _ = key.partition(".lora_")
        if not found or len(shape) < 2:
            continue
        weight = weights.get(f"{module}.weight")
        if weight is None:
            wrong.append(f"{key} (no such layer)")
        elif ".lora_B." in key and shape[0] != weight[0]:
            wrong.append(f"{key} ({shape[0]} outputs, not {weight[0]})")
        elif ".lora_A." in key and shape[1] != weight[1] and module != _GROWS:
            wrong.append(f"{key} ({shape[1]} inputs, not {weight[1]})")
    return wrong


def _unwrap(part: Any) -> None:
    """Leaves the model as it was before adapters, with what was fused into its weights."""
    from diffusers.utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(part)
    if hasattr(part, "peft_config"):
        del part.peft_config
    part._hf_peft_config_loaded = False


def _file_in(place: Path, weight_name: str | None) -> Path:
    if place.is_file():
        if weight_name not in (None, place.name):
            raise ModelError(f"{place}: is a file, so weight_name {weight_name} does nothing; leave it out")
        return place
    if not place.is_dir():
        raise ModelError(f"{place}: no such LoRA file or folder")
    if weight_name is not None:
        if not (place / weight_name).is_file():
            raise ModelError(f"{place}: has no file {weight_name}")
        return place / weight_name
    found = sorted(place.glob(f"*{WEIGHTS}"))
    usual = place / USUAL_NAME
    if usual in found:
        return usual
    if not found:
        refuse_pickles(place)
        raise ModelError(f"{place}: has no LoRA ({WEIGHTS})")
    if len(found) > 1:
        raise ModelError(
            f"{place}: has several files ({found[0].name}, {found[1].name}, ...); say weight_name"
        )
    return found[0]
