"""What metrics that look with a model share: which model, its digest, and how a checkpoint is loaded."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from schemas.errors import ModelError
from schemas.pipeline import DEFAULT, ModelSettings
from udfs import hub
from udfs.model_files import digest_of, read_json, weight_files
from udfs.udf import Udf, file_digest

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Files of a checkpoint that transformers may read; none of them is code or a pickle."""


@dataclass(frozen=True)
class Checkpoint:
    """A model in transformers' format: a folder with config.json, preprocessor_config.json, safetensors.

    Attributes:
        path: the folder.
        name: as the pipeline file has it.
    """

    path: Path
    name: str

    @classmethod
    def find(cls, settings: ModelSettings) -> "Checkpoint":
        """The folder, or the hub's repository on this machine. Raises ModelError, for pickles too."""
        model, revision = settings.model, settings.revision
        if hub.is_fetched(model):
            path = hub.snapshot(model, revision, PATTERNS)
        elif revision is not None:
            raise ModelError(f"{model}: is no repository, so it has no revisions; leave revision out")
        else:
            path = Path(model)
        if not path.is_dir():
            raise ModelError(f"{path}: there is no such folder, and it is no owner/name of the hub")
        if not (path / "config.json").is_file():
            raise ModelError(f"{path}: no transformers checkpoint: it has no config.json")
        weight_files(path)
        return cls(path, model)

    def digest(self) -> str:
        """Of all files that are read."""
        return digest_of(self.path, (p for pattern in PATTERNS for p in self.path.glob(pattern)))

    def config(self) -> Mapping[str, Any]:
        return read_json(self.path / "config.json")

    def load(self, auto: Any, device: str) -> Any:
        """The model by one of transformers' Auto classes, ready to look. Raises ModelError."""
        try:
            model, info = auto.from_pretrained(
                self.path, use_safetensors=True, trust_remote_code=False, local_files_only=True,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as error:
            # transformers raises whatever the file that it stumbles over made it raise.
            raise ModelError(f"{self.name}: transformers cannot load it: {error}") from error
        # What is missing would be drawn at random, with no more than a warning.
        if info["missing_keys"]:
            lacking = sorted(info["missing_keys"])
            raise ModelError(
                f"{self.name}: has no weights for {len(lacking)} tensors of {type(model).__name__}, such as "
                f"{lacking[0]}: it was made for something else"
            )
        return model.eval().requires_grad_(False).to(device)

    def processor(self) -> Any:
        """What makes the model's input of pictures, on every machine by the same library."""
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(
                self.path, backend="pil", trust_remote_code=False, local_files_only=True
            )
        except Exception as error:
            raise ModelError(f"{self.name}: transformers cannot load its image processor: {error}") from error

    def tokenizer(self) -> Any:
        """What makes the model's input of texts."""
        from transformers import AutoTokenizer

        try:
            made: Any = AutoTokenizer.from_pretrained(
                self.path, trust_remote_code=False, local_files_only=True
            )
            alike = made("navy")["input_ids"] == made("pink")["input_ids"]
        except Exception as error:
            raise ModelError(f"{self.name}: transformers cannot load its tokenizer: {error}") from error
        # Where the vocabulary's file is not there, transformers makes one that knows no word.
        if alike:
            raise ModelError(
                f"{self.name}: its tokenizer tells no words apart; is tokenizer.json, or vocab.json and "
                "merges.txt, in the folder?"
            )
        return made


@dataclass(frozen=True, kw_only=True)
class ModelMetric(Udf):
    """A metric that looks at images with its own small network or with a transformers checkpoint.

    Fields:
        settings: as in the pipeline file, its path absolute. The model's content counts, not its place.
        digests: of the models, by role, that a worker has to find too; None compares nothing.
    """

    batch_rows: ClassVar[int] = 32
    accelerated: ClassVar[bool] = True
    weights: ClassVar[tuple[Path, ...]]
    """Files of the default model."""

    settings: ModelSettings = field(default_factory=ModelSettings)
    # The fingerprint holds it already.
    digests: tuple[tuple[str, str], ...] | None = field(default=None, compare=False, repr=False)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that is asked for; None: the default model."""
        return None if self.settings.model == DEFAULT else Checkpoint.find(self.settings)

    @property
    def helpers(self) -> Mapping[str, Path]:
        """Files of networks that it looks with whichever the model is, by role."""
        return {}

    def pinned(self) -> Self:
        """The same with a hub's model at the commit that is here now, so that all workers take that one."""
        found, settings = self.checkpoint, self.settings
        if found is not None and hub.is_fetched(settings.model):
            settings = settings.model_copy(update={"revision": found.path.name})
        pinned = replace(self, settings=settings)
        return replace(pinned, digests=tuple(sorted(pinned.models().items())))

    def models(self) -> Mapping[str, str]:
        found = self.checkpoint
        model = digest_of(self.weights[0].parent, self.weights) if found is None else found.digest()
        return {"model": model} | {role: file_digest(path) for role, path in self.helpers.items()}

    def parameters(self) -> Mapping[str, object]:
        return {}

    def compare(self) -> None:
        """Raises ModelError where a model on this machine is not the one that the fingerprint names."""
        if self.digests is not None and tuple(sorted(self.models().items())) != self.digests:
            raise ModelError(
                f"{self.settings.model}: the model of {self.name} on {socket.gethostname()} is not the one "
                "that the run began with; put the same files on all machines, and run again where they were "
                "changed"
            )
