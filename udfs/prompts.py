"""Prompts as a pipeline reads them: each encoded once, counted, and cut where its text length ends."""

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from schemas.errors import ModelError
from udfs.memory import free_memory, is_out_of_memory
from udfs.pipelines import Pipe

_KEPT_BYTES = 256 * 2**20
"""Memory for encoded prompts that may come again; those of FLUX take 4 MB each."""

AT_ONCE = 8
"""Prompts that are encoded together at the most: few of a large batch are new, and encoders are large."""

_CLASSIC = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)


class Length(NamedTuple):
    """Tokens of a whole prompt, special tokens included, and whether the model reads only its beginning."""

    tokens: int
    truncated: bool


@dataclass
class Prompts:
    """The prompts of one pipeline.

    Attributes:
        pipe: the pipeline.
        length: tokens that a T5 encoder reads; CLIP reads what its tokenizer says, 77 by rule.
        negative: the negative prompt.
        mixes: whether the denoiser also runs on the negative prompt (classifier-free guidance).
        at_once: prompts that are encoded together: always as many, so that one comes out the same in
            whatever company; halved for good where memory does not suffice.
    """

    pipe: Pipe
    length: int | None
    negative: str | None
    mixes: bool
    at_once: int = 1
    _kept: "OrderedDict[str, dict[str, Tensor]]" = field(default_factory=OrderedDict)
    _negative: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, pipe: Pipe, length: int | None, negative: str | None, mixes: bool, at_once: int = 1
    ) -> "Prompts":
        """Raises ModelError for a text length that is not taken, and for a negative prompt over it."""
        made = cls(pipe, cls._length(pipe, length), negative, mixes, at_once)
        if negative is not None and (read := made.measured(negative)).truncated:
            raise ModelError(
                f"negative_prompt: has {read.tokens} tokens, of which {type(pipe).__name__} reads "
                f"{made.room} and would cut off the rest; make it shorter"
            )
        return made

    @staticmethod
    def _length(pipe: Pipe, length: int | None) -> int | None:
        takes = inspect.signature(pipe.__call__).parameters
        if "max_sequence_length" not in takes:
            if length is not None:
                raise ModelError(
                    f"{type(pipe).__name__} takes no max_sequence_length: its encoders read "
                    f"{_room(pipe, 'tokenizer', None)} tokens"
                )
            return None
        # Beyond the length that a model was made for, it gets slower and worse.
        rooms = [_room(pipe, name, None) for name in _tokenizers(pipe) if not _is_clip(pipe, name)]
        default = takes["max_sequence_length"].default
        return length or min([default, *rooms])

    def encoded(self, prompts: Sequence[str]) -> Mapping[str, Any]:
        """Call arguments that stand for these prompts: embeddings (N, ...), each distinct one encoded once.

        A pipeline whose encoder is of another kind than FLUX's and Stable Diffusion's gets the texts.
        """
        names = self._names
        if names is None:
            texts: dict[str, Any] = {"prompt": list(prompts)}
            if self.mixes and self.negative is not None:
                texts["negative_prompt"] = [self.negative] * len(prompts)
            return texts if self.length is None else texts | {"max_sequence_length": self.length}
        distinct = list(dict.fromkeys(prompts))
        new = [prompt for prompt in distinct if prompt not in self._kept]
        while new:
            part = new[: self.at_once]
            # Filled up: matrices of another size are summed in another order.
            found = self._encode_or_not(part + part[-1:] * (self.at_once - len(part)))
            if found is None:
                self.at_once = max(self.at_once // 2, 1)
                free_memory()
                continue
            for row, prompt in enumerate(part):
                self._kept[prompt] = {name: rows[row].clone() for name, rows in found.items()}
            new = new[len(part) :]
        for prompt in distinct:
            self._kept.move_to_end(prompt)
        rows = [self._kept[p] for p in prompts]
        self._forget()
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def measured(self, prompt: str) -> Length:
        """By T5's tokenizer where there is one: beside it, CLIP gives no more than a summary."""
        tokens = len(getattr(self.pipe, self._tokenizer)(prompt).input_ids)
        return Length(tokens, tokens > self.room)

    @property
    def room(self) -> int:
        """Tokens that the model reads of a prompt, special tokens included."""
        return _room(self.pipe, self._tokenizer, self.length)

    @property
    def _tokenizer(self) -> str:
        return min(_tokenizers(self.pipe), key=lambda name: _is_clip(self.pipe, name))

    @property
    def _names(self) -> tuple[str, ...] | None:
        """Call arguments that `encode_prompt` answers with, in its order; None where that is not known."""
        kind = type(self.pipe).__name__
        if kind.startswith("StableDiffusion"):
            call = inspect.signature(self.pipe.__call__).parameters
            return tuple(name for name in _CLASSIC if name in call)
        return ("prompt_embeds", "pooled_prompt_embeds") if kind.startswith("Flux") else None

    def _encode_or_not(self, prompts: list[str]) -> dict[str, Tensor] | None:
        """None when the memory suffices for fewer at the most. In a function of its own: what the error's
        traceback holds on to is free before the next try."""
        try:
            return self._encode(prompts)
        except Exception as error:
            if len(prompts) == 1 or not is_out_of_memory(error):
                raise
            return None

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """(N, ...) embeddings."""
        found = self._embeddings(prompts, self.negative)
        if self.mixes and self.negative is not None and "negative_prompt_embeds" not in found:
            if not self._negative:
                self._negative.update(self._embeddings([self.negative], None))
            for name, row in self._negative.items():
                found[f"negative_{name}"] = row.expand(len(prompts), *row.shape[1:])
        return found

    def _embeddings(self, prompts: list[str], negative: str | None) -> dict[str, Tensor]:
        pipe, names = self.pipe, self._names
        assert names is not None
        takes = inspect.signature(pipe.encode_prompt).parameters
        given = {
            "prompt": prompts,
            "prompt_2": None,
            "prompt_3": None,
            "device": pipe._execution_device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": self.mixes,
            "negative_prompt": None if negative is None else [negative] * len(prompts),
            "max_sequence_length": self.length,
        }
        answer = pipe.encode_prompt(**{name: value for name, value in given.items() if name in takes})
        return {name: rows for name, rows in zip(names, answer, strict=False) if rows is not None}

    def _forget(self) -> None:
        """Keeps the most recently used."""
        if self._kept:
            each = sum(t.numel() * t.element_size() for t in next(iter(self._kept.values())).values())
            while len(self._kept) > max(_KEPT_BYTES // max(each, 1), 1):
                self._kept.popitem(last=False)


def _tokenizers(pipe: Pipe) -> list[str]:
    """Those that have an encoder behind them."""
    pairs = [(f"tokenizer{n}", f"text_encoder{n}") for n in ("", "_2", "_3")]
    return [name for name, encoder in pairs if getattr(pipe, name, None) and getattr(pipe, encoder, None)]


def _is_clip(pipe: Pipe, tokenizer: str) -> bool:
    return "CLIP" in type(getattr(pipe, tokenizer)).__name__


def _room(pipe: Pipe, tokenizer: str, length: int | None) -> int:
    """Tokens that the encoder behind a tokenizer reads."""
    if length is not None and not _is_clip(pipe, tokenizer):
        return length
    return int(getattr(pipe, tokenizer).model_max_length)
