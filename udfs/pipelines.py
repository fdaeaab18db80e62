"""A diffusers pipeline as a folder: finding it, refusing what is none, and loading it."""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from schemas.errors import ModelError
from udfs import hub
from udfs.model_files import WEIGHTS, digest_of, few, read_json, refuse_pickles, weight_files

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, ModelMixin

Pipe: TypeAlias = Any
"""A loaded pipeline: what diffusers' pipelines have in common is in no type."""

NANO = Path(__file__).parent / "weights" / "nano"
"""The pipeline that comes with the package."""

INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_READ = (".json", ".txt", ".model", WEIGHTS)
"""What is read of a component's folder: configurations, vocabularies, merges, weights."""

_WITHOUT_WEIGHTS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "FeatureExtractor")
_ANY_CLASS = re.compile(r"Auto[A-Z]|\w*Pipeline$")
"""Classes that load what another file names, such as AutoModel; AutoencoderKL is none of them."""

_OTHER_INPUTS = {"image", "mask_image", "control_mask", "init_image"}
"""Call arguments of pipelines that change or fill a picture instead of painting one."""


@dataclass(frozen=True)
class PipelineFolder:
    """A folder in diffusers' layout that was checked without loading anything of it.

    Attributes:
        path: the folder.
        class_name: of the pipeline.
        components: library and class of each of its sub-folders that are loaded.
    """

    path: Path
    class_name: str
    components: Mapping[str, tuple[str, str]]

    @classmethod
    def find(cls, model: str, revision: str | None = None, without: Sequence[str] = ()) -> "PipelineFolder":
        """A pipeline by its folder, by `nano`, or by its hub id. A folder wins over a hub id.

        A repository that was fetched before is used as it is, even if its branch has moved on since: a model
        that changes under a running project would make all of its images stale. `revision` asks for another.

        Raises ModelError.
        """
        if model == "nano":
            return cls.open(NANO, without)
        if not hub.is_fetched(model):
            return cls.open(Path(model), without)
        folder = hub.snapshot(model, revision, [INDEX])
        index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
        wanted = [f"{name}/*{kind}" for name in index if name not in without for kind in _READ]
        return cls.open(hub.fetch(model, folder.name, [INDEX, *wanted]), without)

    @classmethod
    def open(cls, path: Path, without: Sequence[str] = ()) -> "PipelineFolder":
        """Checks a folder; `without` names components that will not be loaded from it. Raises ModelError."""
        if path.is_file():
            raise ModelError(f"{path}: is a file; a pipeline is a folder in diffusers' layout")
        if not path.is_dir():
            raise ModelError(f"{path}: no such folder, and no model of the Hugging Face Hub (owner/name)")
        if not (path / INDEX).is_file():
            refuse_pickles(path)
            raise ModelError(f"{path}: is no diffusers pipeline: it has no {INDEX}")
        index = read_json(path / INDEX)
        name = index.get("_class_name")
        if isinstance(name, list):
            raise ModelError(
                f"{path}: its {INDEX} asks for Python code of its own ({name[0]}), never run here"
            )
        if not isinstance(name, str):
            raise ModelError(f"{path}: is no diffusers pipeline: its {INDEX} names no class")
        _refuse_code(path)
        components = {}
        for component, kind in index.items():
            if component.startswith("_") or not isinstance(kind, list) or component in without:
                continue
            if len(kind) != 2 or kind[1] is None:
                continue
            if kind[0] not in _LIBRARIES and (component, kind[0]) != ("safety_checker", "stable_diffusion"):
                raise ModelError(
                    f"{path}: its {component} comes from {kind[0]}; "
                    f"only {' and '.join(_LIBRARIES)} are loaded"
                )
            if _ANY_CLASS.match(str(kind[1])):
                raise ModelError(
                    f"{path}: its {component} is a {kind[1]}, which may become any class; only classes by "
                    "their names are loaded"
                )
            _check_component(path / component, str(kind[1]))
            components[component] = (str(kind[0]), str(kind[1]))
        return cls(path, name, components)

    def digests(self) -> dict[str, str]:
        """One digest a component, over all files that are read of it, and one of the index."""
        found = {"index": digest_of(self.path, [self.path / INDEX])}
        for component in self.components:
            folder = self.path / component
            found[component] = digest_of(folder, files_read(folder))
        return found

    def load(self, class_name: str | None, dtype: "torch.dtype", **given: Any) -> Pipe:
        """The pipeline on the CPU, frozen. given: components from elsewhere. Raises ModelError."""
        import torch

        kind = pipeline_class(class_name or self.class_name, self.path)
        for component in inspect.signature(kind.__init__).parameters:
            if component in self.components and component not in given:
                model = _model_class(*self.components[component])
                if model is not None:
                    given[component] = _load_model(model, self.path / component, dtype)
        try:
            # `_class_name` and all libraries were checked, so nothing but diffusers' own code runs.
            pipe = kind.from_pretrained(
                self.path, dtype=dtype, use_safetensors=True, local_files_only=True, **given
            )
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{self.path}: {kind.__name__} cannot be loaded from it: {_brief(error)}"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)
        return pipe


def pipeline_class(name: str, path: Path | str) -> type["DiffusionPipeline"]:
    """A text-to-image pipeline of diffusers with a control input, by its name. Raises ModelError."""
    import diffusers

    quiet()
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise ModelError(f"{path}: diffusers {diffusers.__version__} has no pipeline {name}")
    if kind is diffusers.DiffusionPipeline or control_argument(kind) is None:
        raise ModelError(
            f"{path}: {name} paints without a control image; add a ControlNet (controlnet: folder), or for a "
            "control LoRA name the class that takes it (pipeline: FluxControlPipeline)"
        )
    return kind


def control_argument(kind: type["DiffusionPipeline"]) -> str | None:
    """Name of the call argument that takes the control image; None for other kinds of pipelines."""
    takes = set(inspect.signature(kind.__call__).parameters)
    if not {"prompt", "generator", "height", "width", "num_inference_steps", "output_type"} <= takes:
        return None
    if "control_image" in takes:
        return None if takes & _OTHER_INPUTS else "control_image"
    has_net = "controlnet" in inspect.signature(kind.__init__).parameters
    return "image" if has_net and takes & _OTHER_INPUTS == {"image"} else None


def load_controlnet(folder: Path, dtype: "torch.dtype") -> "ModelMixin":
    """A ControlNet of diffusers from its folder, checked by `find_controlnet`. Raises ModelError."""
    name = str(read_json(folder / "config.json").get("_class_name"))
    kind = _model_class("diffusers", name)
    if "ControlNet" not in name or kind is None:
        raise ModelError(f"{folder}: is no ControlNet: its config.json names the class {name}")
    quiet()
    return _load_model(kind, folder, dtype)


_BOTH = ("cross_attention_dim", "addition_embed_type", "joint_attention_dim", "pooled_projection_dim")
"""What a ControlNet's configuration says of its inputs as the denoiser's does: the text that both read."""


def check_controlnet(kind: type["DiffusionPipeline"], folder: PipelineFolder, net: Path | None) -> None:
    """Compares the ControlNet with the pipeline's class and its denoiser, by their configurations alone.

    net: its folder, where it is not the pipeline's own. Raises ModelError for one that cannot be called.
    """
    takes = inspect.signature(kind.__init__).parameters.get("controlnet")
    if takes is None:
        return
    listed = folder.components.get("controlnet", ("", ""))[1]
    if net is None and not listed:
        raise ModelError(
            f"{folder.path}: has no ControlNet, which {kind.__name__} paints with; name one "
            "(controlnet: folder)"
        )
    if net is None and "Multi" in listed:
        raise ModelError(f"{folder.path}: has several ControlNets; one control image feeds one")
    net = net or folder.path / "controlnet"
    config = read_json(net / "config.json")
    name = str(config.get("_class_name"))
    if "ControlNet" not in name:
        raise ModelError(f"{net}: is no ControlNet: its config.json names the class {name}")
    if "Union" in name or config.get("num_mode") is not None:
        raise ModelError(f"{net}: is a ControlNet of several modes ({name}), which are not offered here")
    # One class, or one class, lists of it, and the class of several.
    classes = [*get_args(takes.annotation), takes.annotation]
    fitting = [k.__name__ for k in classes if isinstance(k, type) and "Multi" not in k.__name__]
    if fitting and name not in fitting:
        raise ModelError(f"{net}: is a {name}; {kind.__name__} takes a {fitting[0]}")
    part = "unet" if "unet" in folder.components else "transformer"
    base = read_json(folder.path / part / "config.json")
    for key in _BOTH:
        # An older configuration lacks some; without joint_attention_dim the text is not read.
        absent = key not in config or key not in base or (key.endswith("dim") and config[key] is None)
        if not absent and config[key] != base[key]:
            raise ModelError(
                f"{net}: is a ControlNet for another base than {folder.path}: its {key} is {config[key]}, "
                f"that of the {part} is {base[key]}"
            )


def find_controlnet(model: str, revision: str | None = None) -> Path:
    """The folder of a ControlNet, by its path or hub id, checked without loading it. Raises ModelError."""
    folder = Path(model)
    if hub.is_fetched(model):
        folder = hub.snapshot(model, revision, ["config.json", f"*{WEIGHTS}*"])
    if folder.is_file():
        raise ModelError(f"{folder}: is a file; a ControlNet is a folder in diffusers' layout")
    _refuse_code(folder)
    _check_component(folder, "ControlNetModel")
    return folder


def with_controlnet(class_name: str) -> str:
    """The class that paints with a ControlNet what `class_name` paints without one.

    Raises ModelError for one whose base reads the control image itself.
    """
    if re.search(r"Control(?!Net)", class_name):
        raise ModelError(
            f"{class_name} reads the control image itself and takes no ControlNet beside it; leave "
            f"controlnet out, or name the class without (pipeline: {class_name.replace('Control', '')})"
        )
    return class_name if "ControlNet" in class_name else class_name.replace("Pipeline", "ControlNetPipeline")


def files_read(folder: Path) -> list[Path]:
    """The files of a component's folder that loading it reads; not its variants, nor its pickles."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix in _READ]
    return [p for p in files if p.suffix != WEIGHTS or "." not in p.stem]


def quiet() -> None:
    """Bars and hints that are meant for notebooks would fill a worker's log and the user's terminal."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _model_class(library: str, name: str) -> Any:
    """The class of a component that is a network; None for others, and for what the library does not have."""
    import diffusers
    import transformers

    place = "diffusers.pipelines.stable_diffusion" if library == "stable_diffusion" else library
    kind = getattr(importlib.import_module(place), name, None)
    networks = (diffusers.ModelMixin, transformers.PreTrainedModel)
    return kind if isinstance(kind, type) and issubclass(kind, networks) else None


def _load_model(kind: Any, folder: Path, dtype: "torch.dtype") -> Any:
    """A network from its folder, on the CPU. Raises ModelError, also where a weight is not in the files: the
    libraries put random numbers there, or none at all, and say so in a log that nobody reads."""
    where = {"use_safetensors": True, "local_files_only": True}
    try:
        model, info = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **where)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: {kind.__name__} cannot be loaded from it: {_brief(error)}") from error
    # Weights that are tied to others count once, buffers are computed.
    weights = dict(model.named_parameters())
    lacking = {name for name, weight in weights.items() if weight.is_meta} | weights.keys() & set(
        info["missing_keys"]
    )
    if lacking:
        raise ModelError(
            f"{folder}: its files lack weights of a {kind.__name__}: {few(sorted(lacking))}; save the whole "
            "model again"
        )
    return model


def _check_component(folder: Path, class_name: str) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder}: the folder is missing, of a {class_name}")
    _refuse_code(folder)
    configs = [p for p in folder.iterdir() if p.suffix == ".json"]
    if not configs:
        raise ModelError(f"{folder}: has no configuration (.json) of a {class_name}")
    for config in configs:
        if "transformers_weights" in read_json(config):
            raise ModelError(
                f"{config}: names a file of its own for the weights (transformers_weights); give that file "
                "the usual name and take the key out"
            )
    if class_name.endswith(("Tokenizer", "TokenizerFast")):
        _check_vocabulary(folder, class_name)
    if not class_name.endswith(_WITHOUT_WEIGHTS):
        # Beside an adapter_config.json alone, transformers would load the model that it names, from anywhere.
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: has no config.json of a {class_name}")
        weight_files(folder)


def _check_vocabulary(folder: Path, class_name: str) -> None:
    """Raises ModelError for a tokenizer without its words: transformers would make one that knows none."""
    there = {p.name for p in folder.iterdir()}
    whole = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"vocab.txt"})
    if not any(files <= there for files in whole) and not any(name.endswith(".model") for name in there):
        raise ModelError(
            f"{folder}: has no vocabulary of a {class_name}: neither tokenizer.json, nor vocab.json with "
            "merges.txt, nor a .model file; fetch it again"
        )


def _refuse_code(folder: Path) -> None:
    code = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py"))
    if code:
        raise ModelError(f"{folder}: holds Python code ({code[0]}), which is never run here")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
