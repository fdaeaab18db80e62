"""Teaches the nano model's text encoders what captions say, before they meet a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from schemas.source import GrammarSource
from udfs import checkpoint, grammar
from udfs.flow_matching import Prompts
from udfs.nano_recipes import Recipe
from udfs.nano_renders import framed
from udfs.nano_steps import LOG_EVERY, set_rate, tell
from udfs.pipelines import Pipe
from udfs.training_log import TrainingLog

_VOCABULARY = 4_096
"""Captions whose words are all the words there are."""
_CAPTION_SEEDS = 1 << 40
_PICTURED = ("subject", "top", "top_color", "bottom", "bottom_color", "shoes_color", "hair_color", "scene",
             "background_color", "lighting")  # fmt: skip
"""What captions say that a picture shows."""


class Reader(nn.Module):
    """Reads caption attributes off what the text encoders say; it is thrown away when they have learned."""

    def __init__(self, width: int, classes: Sequence[int]) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(nn.Linear(width, n) for n in classes)
        self.tokens = nn.ModuleList(nn.Linear(width, n) for n in classes)
        self.asks = nn.Parameter(torch.randn(len(classes), width) / width**0.5)

    def forward(self, prompts: Prompts) -> list[tuple[Tensor, Tensor]]:
        """Logits (B, classes) of each attribute, from the pooled vector and from the tokens."""
        weight = torch.einsum("bsd,ad->bas", prompts.tokens, self.asks).softmax(-1)
        found = torch.einsum("bas,bsd->bad", weight, prompts.tokens)
        return [
            (of_pooled(prompts.pooled), of_tokens(found[:, i]))
            for i, (of_pooled, of_tokens) in enumerate(zip(self.pooled, self.tokens, strict=True))
        ]


def train_text(pipe: Pipe, recipe: Recipe, work: Path, every: int) -> None:
    """Teaches both text encoders in place to tell what captions of the grammar say, before any picture.

    What they say at random takes a transformer very long to make sense of; what a caption names becomes
    linearly readable here within a minute or two.
    """
    words = [sorted({w for w in column if w is not None}) for column in _said(range(_VOCABULARY)).values()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        reader = Reader(recipe.model.text_dim, [len(w) + 1 for w in words]).to(pipe.device)
    parts = {"reader": reader, "text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    parameters = {
        f"{part}.{name}": p
        for part, m in parts.items()
        for name, p in m.requires_grad_(True).named_parameters()
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.text_rate, weight_decay=0.01)
    file = work / "text.safetensors"
    identity = {name: recipe.facts[name] for name in ("model", "text", "text_rate", "seed")}
    step, _ = checkpoint.resume(file, identity, parameters, optimizer)
    journal = TrainingLog(work / "text", step)
    places = [{None: 0, **{w: i + 1 for i, w in enumerate(known)}} for known in words]
    while step < recipe.text.steps:
        numbers = range(_VOCABULARY + step * recipe.text.batch, _VOCABULARY + (step + 1) * recipe.text.batch)
        said = _said(numbers)
        ids = token_ids(pipe, framed(_texts(numbers), [recipe.seed, 4, step]), recipe.model.text_length)
        set_rate(optimizer, recipe.text_rate, step, recipe.text.steps, 50)
        seen = encode_text(pipe, *ids)
        loss = torch.zeros((), device=pipe.device)
        right = []
        for (column, place), logits in zip(
            zip(said.values(), places, strict=True), reader(seen), strict=True
        ):
            truth = torch.tensor([place[w] for w in column], device=pipe.device)
            for scores in logits:
                loss = loss + nn.functional.cross_entropy(scores, truth)
                right.append((scores.argmax(1) == truth).float().mean())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        step += 1
        last = step == recipe.text.steps
        if step % LOG_EVERY == 0 or last:
            figures = {"loss": float(loss.detach()), "right": float(torch.stack(right).mean())}
            tell(journal, "text", step, figures)
        if step % every == 0 or last:
            checkpoint.save(file, step, identity, parameters, optimizer)


def _captions(numbers: range) -> pa.Table:
    return grammar.captions(np.arange(numbers.start, numbers.stop) + _CAPTION_SEEDS, GrammarSource())


def _texts(numbers: range) -> list[str]:
    return _captions(numbers)["text"].to_pylist()


def _said(numbers: range) -> dict[str, list[str | None]]:
    """What captions say, by attribute; the same captions for the same numbers."""
    return _captions(numbers).select(_PICTURED).to_pydict()


def token_ids(pipe: Pipe, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """(B, length) int64 ids of B prompts, for the CLIP and for the T5 encoder, as the pipeline makes them."""
    settings = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    clip, t5 = (t(texts, **settings)["input_ids"] for t in (pipe.tokenizer, pipe.tokenizer_2))
    return clip.to(pipe.device), t5.to(pipe.device)


def encode_text(pipe: Pipe, clip: Tensor, t5: Tensor) -> Prompts:
    """What both encoders say of the token ids, with gradients."""
    return Prompts(pipe.text_encoder_2(t5)[0], pipe.text_encoder(clip).pooler_output)
