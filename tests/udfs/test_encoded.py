from collections import Counter

import numpy as np
import pytest
import torch

from schemas.errors import ConfigError, InputError
from udfs.encoded import Rows, encode
from udfs.flow_matching import Flow
from udfs.nano_model import TINY, build


@pytest.fixture(scope="module")
def flow():
    return Flow(build(TINY), max_sequence_length=TINY.text_length)


def rows():
    """Three pairs, two of them with the same control image and prompt."""
    pairs = [("a", "b"), ("c", "d"), ("c", "a")]
    return Rows(pairs, ["x", "x", "y"], ["a man", "a man", "a woman"], np.arange(3))


class Pictures:
    """Pixels by name, and how often each was asked for."""

    def __init__(self, size=32):
        self.asked, self.size = Counter(), size

    def __call__(self, name):
        self.asked[name] += 1
        return np.random.default_rng(ord(name)).integers(0, 256, (self.size, self.size, 3), np.uint8)


def test_a_batch_holds_what_its_rows_say(flow, tmp_path):
    read = Pictures()
    encoded = encode(flow, rows(), read, tmp_path, "k")
    assert encoded.size == (32, 32)
    batch = encoded.batch(np.array([2, 0]), "cpu")
    assert batch.latents.shape == (2, 2, 16, 16)
    close = {"rtol": 0, "atol": 1e-5}
    for at, (images, control, prompt) in enumerate([("ca", "y", "a woman"), ("ab", "x", "a man")]):
        expected = flow.encode_pictures(np.stack([read(name) for name in images + control]))
        torch.testing.assert_close(batch.latents[at], expected[:2], **close)
        torch.testing.assert_close(batch.control[at], expected[2], **close)
        text = flow.encode_prompts([prompt])
        torch.testing.assert_close(batch.prompts.tokens[at], text.tokens[0], **close)
        torch.testing.assert_close(batch.prompts.pooled[at], text.pooled[0], **close)


def test_pictures_are_read_once_and_not_again_in_the_next_call(flow, tmp_path):
    read, told = Pictures(), []
    first = encode(flow, rows(), read, tmp_path, "k", watch=lambda *now: told.append(now))
    # The first one is looked at for the size of all.
    assert set(read.asked.values()) <= {1, 2}
    assert sum(read.asked.values()) == 7
    assert told[-1] == ("pictures", 6, 6)
    assert ("prompts", 2, 2) in told
    again = encode(flow, rows(), read, tmp_path, "k")
    assert sum(read.asked.values()) == 7
    both = (r.batch(np.arange(3), "cpu") for r in (first, again))
    assert torch.equal(*(b.latents for b in both))
    encode(flow, rows(), read, tmp_path, "other data")
    assert sum(read.asked.values()) == 14


def test_what_an_interrupted_call_left_is_not_taken_for_whole(flow, tmp_path):
    def interrupted(what, done, total):
        raise KeyboardInterrupt

    read = Pictures()
    encode(flow, rows(), read, tmp_path, "old")
    with pytest.raises(KeyboardInterrupt):
        encode(flow, rows(), read, tmp_path, "new", watch=interrupted)
    before = sum(read.asked.values())
    encode(flow, rows(), read, tmp_path, "old")
    assert sum(read.asked.values()) == before + 7


def test_pictures_of_several_or_wrong_sizes_are_refused_by_name(flow, tmp_path):
    def mixed(name):
        return Pictures(40 if name == "y" else 32)(name)

    with pytest.raises(InputError, match="y is 40 x 40 pixels, a is 32 x 32"):
        encode(flow, rows(), mixed, tmp_path, "k")
    with pytest.raises(ConfigError, match="multiples of 8"):
        encode(flow, rows(), Pictures(36), tmp_path, "k")


def test_bfloat16_comes_back_bit_for_bit(tmp_path):
    flow = Flow(build(TINY).to(torch.bfloat16), max_sequence_length=TINY.text_length)
    read = Pictures()
    encoded = encode(flow, Rows([("a",)], ["x"], ["a man"], np.arange(1)), read, tmp_path, "k")
    batch = encoded.batch(np.arange(1), "cpu")
    assert batch.latents.dtype == batch.prompts.tokens.dtype == torch.bfloat16
    expected = flow.encode_pictures(np.stack([read("a"), read("x")]))
    assert torch.equal(torch.cat([batch.latents[0], batch.control]), expected)
