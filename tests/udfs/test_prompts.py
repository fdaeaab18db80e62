"""How a pipeline's prompts are read: each encoded once, the same in any company, counted and cut."""

import functools

import pyarrow as pa
import pytest
import torch
from diffusers import FluxControlPipeline

from tests.tiny_pipelines import KINDS, LONG_PROMPT, furthest, painter, sample_rows, with_columns
from udfs.nano_model import TINY


@pytest.fixture
def read(monkeypatch):
    """The prompts of each call of the encoders, which run out of memory for more than four."""
    read: list[list[str]] = []
    encode = FluxControlPipeline.encode_prompt

    @functools.wraps(encode)
    def counted(self, *args, **given):
        if given.get("prompt") is not None:
            read.append(given["prompt"])
            if len(given["prompt"]) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, *args, **given)

    monkeypatch.setattr(FluxControlPipeline, "encode_prompt", counted)
    return read


def test_encoders_get_fewer_prompts_where_memory_ends(folders, files, read):
    paint = painter(folders["flux_control"], files, batch_rows=64)
    made = paint(sample_rows(files, 6))
    assert [len(prompts) for prompts in read] == [8, 4, 4], "the rows of the batch stay together"
    assert len(made.pixels) == 6
    paint(with_columns(sample_rows(files, 1), prompt="a woman"))
    assert len(read[-1]) == 4, "what did not fit once is not tried again"


def test_each_distinct_caption_is_encoded_once(folders, files, read):
    rows = with_columns(sample_rows(files, 6), prompt=["a", "b", "a", "c", "b", "a"])
    paint = painter(folders["flux_control"], files, batch_rows=2)
    for start in range(0, 6, 2):
        paint(rows.slice(start, 2))
    assert read == [["a", "b"], ["c", "c"]], "as many at once whatever is new, so that sums round alike"


def test_a_caption_reads_the_same_in_whatever_company(folders, files):
    texts = [f"a person with {n} hats" for n in range(7)]
    alone = painter(folders["flux_control"], files, batch_rows=4).prompts.encoded(texts[4:5])
    beside = painter(folders["flux_control"], files, batch_rows=4).prompts.encoded(texts)
    for name, rows in alone.items():
        assert (rows[0] == beside[name][4]).all(), name


def test_memory_for_captions_is_bounded(folders, files, monkeypatch):
    paint = painter(folders["flux_control"], files)
    before = paint(sample_rows(files, 6)).pixels
    monkeypatch.setattr("udfs.prompts._KEPT_BYTES", 0)
    assert (paint(sample_rows(files, 6)).pixels == before).all()
    assert len(paint.prompts._kept) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_a_prompt_is_recorded(folders, files, kind):
    rows = with_columns(sample_rows(files, 3), prompt=["a man", LONG_PROMPT, LONG_PROMPT + " and a hat"])
    paint = painter(folders[kind], files)
    made = paint(rows)
    tokenizer = paint.pipe.tokenizer_2 if kind.startswith("flux") else paint.pipe.tokenizer
    assert list(made.prompt_tokens) == [len(tokenizer(p).input_ids) for p in rows["prompt"].to_pylist()]
    assert made.prompt_tokens[1] > 2000
    assert list(made.prompt_truncated) == [False, True, True]
    same = with_columns(
        rows.slice(1, 1).take(pa.array([0, 0])), prompt=[LONG_PROMPT, LONG_PROMPT + " and a hat"]
    )
    first, second = paint(same).pixels
    assert furthest(first, second) <= 1, "what is cut off changes nothing"


def test_the_text_length_is_the_model_s_unless_asked(folders, files):
    row = with_columns(sample_rows(files, 1), prompt="a man in a red shirt and blue jeans with black shoes")
    assert painter(folders["flux_control"], files).prompts.length == TINY.text_length
    paint = painter(folders["flux_control"], files, max_sequence_length=4)
    assert paint(row).prompt_truncated == [True]
