"""Measures whether an image shows what its caption says, beside the colours that `colors` measures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image

from schemas.errors import ModelError
from schemas.metrics import MATCHED, metric_outputs
from udfs.columns import metric_rows
from udfs.grammar import SCENES, WORDS
from udfs.model_metric import Checkpoint, ModelMetric
from udfs.picture import IMAGE, read_pictures
from udfs.udf import Apply, Worker

Reading: TypeAlias = tuple[dict[str, str], float | None]
"""The likeliest word of each of MATCHED, and the similarity of image and caption where there is one."""

Read: TypeAlias = Callable[[Sequence[np.ndarray], Sequence[str]], list[Reading]]
"""Of pictures (H, W, 3) uint8 RGB and their captions."""

_PHRASES = {
    "scene": "a photo of a person {}",
    "lighting": "a photo of a person in {}",
}
"""How CLIP is asked."""


@dataclass(frozen=True, kw_only=True)
class CaptionMatch(ModelMetric):
    """What an image shows of what its caption says: scene and light.

    The model chooses the likeliest of the grammar's words; it is right if it is the caption's. Words that
    the grammar does not know are not looked for. Where the caption says none of it, the share is NULL.

    Another model: a checkpoint of transformers' CLIPModel. It chooses words by zero-shot classification and
    also measures the similarity of the image and the whole caption, cut to what the model reads.

    Raises RowError, naming the file, for an image that cannot be read or has not the labels' size.
    """

    name: ClassVar[str] = "caption_match"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = (
        *IMAGE,
        "text",
        *MATCHED,
    )
    outputs: ClassVar[pa.Schema] = metric_outputs("caption_match")
    weights: ClassVar[tuple[Path, ...]] = (Path(__file__).parent / "weights" / "attributes.safetensors",)

    def setup(self, worker: Worker) -> Apply:
        self.compare()
        checkpoint = self.checkpoint
        if checkpoint is not None:
            read = clip_reader(checkpoint, worker.device)
        else:
            from udfs.attribute_network import AttributeNetwork

            network = AttributeNetwork.load(worker.device)

            def read(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> list[Reading]:
                return [(words, None) for words in network.read(pictures)]

        def apply(rows: pa.Table) -> pa.Table:
            readings = read(read_pictures(worker.files, rows), rows["text"].to_pylist())
            said = rows.select(MATCHED).to_pylist()
            found = [judge(s, *reading) for s, reading in zip(said, readings, strict=True)]
            return metric_rows(rows["image_id"], found, self.outputs)

        return apply


def judge(
    said: Mapping[str, str | None], read: Mapping[str, str], similarity: float | None
) -> dict[str, object]:
    """The metric's columns, of what a caption says and what was read off its image."""
    row: dict[str, object] = {"caption_similarity": similarity}
    rights = []
    for name in MATCHED:
        known = said[name] in WORDS[name]
        right = read[name] == said[name] if known else None
        row[f"{name}_read"] = read[name] if known else None
        row[f"{name}_right"] = right
        rights += [right] if known else []
    return row | {"caption_match": sum(map(bool, rights)) / len(rights) if rights else None}


def clip_reader(checkpoint: Checkpoint, device: str) -> Read:
    """Reads with a CLIP model of transformers. Raises ModelError."""
    import torch
    from transformers import CLIPModel

    if checkpoint.config().get("model_type") != "clip":
        kind = checkpoint.config().get("model_type")
        raise ModelError(f"{checkpoint.name}: is a {kind} model; caption_match looks with CLIP models")
    model: Any = checkpoint.load(CLIPModel, device)
    processor: Any = checkpoint.processor()
    tokenizer: Any = checkpoint.tokenizer()
    length = model.config.text_config.max_position_embeddings

    def embedded(texts: Sequence[str]) -> torch.Tensor:
        ids = tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        found = model.get_text_features(
            input_ids=ids["input_ids"].to(device), attention_mask=ids["attention_mask"].to(device)
        )
        return torch.nn.functional.normalize(_vectors(found).float(), dim=-1)

    with torch.inference_mode():
        asked = {name: embedded(_questions(name)) for name in MATCHED}

    @torch.inference_mode()
    def read(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> list[Reading]:
        inputs = processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt")
        found = model.get_image_features(pixel_values=inputs["pixel_values"].to(device))
        images = torch.nn.functional.normalize(_vectors(found).float(), dim=-1)
        alike = (images * embedded(captions)).sum(-1).clamp(-1, 1).tolist()
        best = {name: (images @ words.T).argmax(1).tolist() for name, words in asked.items()}
        return [
            ({name: WORDS[name][best[name][k]] for name in MATCHED}, alike[k]) for k in range(len(pictures))
        ]

    return read


def _vectors(found: Any) -> Any:
    """Older versions of transformers answer with the vectors, newer ones with an object that has them."""
    return getattr(found, "pooler_output", found)


def _questions(name: str) -> list[str]:
    words: Sequence[str] = WORDS[name]
    if name == "scene":  # as captions say it
        words = [s.phrase.replace("a plain {color} ", "a plain ").replace("{color} ", "") for s in SCENES]
    return [_PHRASES[name].format(word) for word in words]
