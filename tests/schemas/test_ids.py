"""Ids follow from content alone, the same on every machine and in every batch."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import content_ids, hex_id, mix, text_hash, text_id, uniform

PINNED_TEXT = -6033871267698350441
PINNED_CONTENT = (8975087937239939910, -5724806229790012692)
PINNED_MIX = [11254597445732985169, 234283498300492500]


def test_ids_are_pinned():
    """These numbers are in users' lakes: a change makes every row a new one."""
    assert text_id("amass", "walk", 7) == PINNED_TEXT
    ids, digests = content_ids("pose", [["a"], ["b"]], [np.arange(3, dtype=np.float32)[None]])
    assert (int(ids[0]), int(digests[0])) == PINNED_CONTENT
    assert mix(np.array([1, -1]), "seed", 0).tolist() == PINNED_MIX


def test_a_text_hash_is_blake2b_of_lengths_and_texts():
    data = b"".join(len(t).to_bytes(8, "little") + t for t in (b"a", b"\xff", b"7"))
    assert text_hash("a", b"\xff", 7) == hashlib.blake2b(data, digest_size=16).digest()
    assert text_id("a", b"\xff", 7) == int.from_bytes(text_hash("a", b"\xff", 7)[:8], "little", signed=True)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_other_parts_give_another_hash(one, other):
    assert (text_hash(*one) == text_hash(*other)) == (one == other)


def batch(n: int = 200) -> tuple[list[list[str]], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    names = [[f"s{i % 7}" for i in range(n)], [f"é{i}" for i in range(n)]]
    return names, [np.arange(n), rng.normal(size=(n, 3, 2)).astype(np.float32)]


def test_a_row_has_its_id_in_any_batch_order_and_memory_layout():
    strings, arrays = batch()
    ids, digests = content_ids("pose", strings, arrays)
    assert ids.dtype == digests.dtype == np.int64
    assert len(set(ids.tolist())) == len(set(digests.tolist())) == 200
    turned = np.random.default_rng(1).permutation(200)
    again = content_ids(
        "pose",
        [[column[i] for i in turned] for column in strings],
        [np.asfortranarray(a[turned]).astype(a.dtype.newbyteorder(">")) for a in arrays],
    )
    np.testing.assert_array_equal(again[0], ids[turned])
    np.testing.assert_array_equal(again[1], digests[turned])


@pytest.mark.parametrize("change", ["kind", "text", "split", "number", "dtype"])
def test_any_change_of_content_gives_another_id(change):
    strings, arrays = batch(3)
    kind = "pose"
    before = content_ids(kind, strings, arrays)[0]
    if change == "kind":
        kind = "sample"
    elif change == "text":
        strings[0][1] += "x"
    elif change == "split":
        strings[0][1], strings[1][1] = strings[0][1] + strings[1][1][0], strings[1][1][1:]
    elif change == "number":
        arrays[1][1, 2, 1] = np.nextafter(arrays[1][1, 2, 1], np.float32(9))
    elif change == "dtype":
        arrays[1] = arrays[1].astype(np.float64)
    after = content_ids(kind, strings, arrays)[0]
    assert after[1] != before[1]
    if change in ("text", "split", "number"):
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


def test_drawn_numbers_depend_on_the_id_and_the_salt_alone():
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 20_000)
    drawn = uniform(ids, "yaw", 3)
    np.testing.assert_array_equal(uniform(ids[5:9], "yaw", 3), drawn[5:9])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert not np.isclose(uniform(ids, "yaw", 4), drawn).any()


@pytest.mark.parametrize("ids", [np.arange(50_000), np.arange(50_000) << 40], ids=["low bits", "high bits"])
def test_drawn_numbers_are_uniform_and_independent_even_for_neighbouring_ids(ids):
    drawn = uniform(ids, "yaw")
    counts, _ = np.histogram(drawn, 50, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 100  # chi square, 49 degrees of freedom: p < 2e-5
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn, uniform(ids, "elevation"))[0, 1]) < 0.02


def test_an_id_in_hexadecimal_is_sixteen_digits():
    assert hex_id(-1) == "f" * 16
    assert hex_id(np.int64(1)) == "0" * 15 + "1"
    assert hex_id(-(2**63)) == "8" + "0" * 15
