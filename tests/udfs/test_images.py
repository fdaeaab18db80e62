"""Image files: named by what made them, adopted when intact, painted over when not."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from etl.store import Store
from schemas.errors import RowError, StageError
from udfs.generator import Generator, Paint, Painted
from udfs.images import Images
from udfs.picture import decode, encode
from udfs.udf import Worker


@dataclass(frozen=True, kw_only=True)
class Tinted(Generator):
    """Noise from the row's seed; counts what it paints, fails on the seed `refused`."""

    name: ClassVar[str] = "tinted"
    version: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = ("seed", "image_height", "image_width")

    tint: int = 0
    refused: int = -1
    most: int = 100
    exhausted: Exception = field(default_factory=MemoryError)

    @property
    def batch_rows(self) -> int:
        return 3

    def parameters(self) -> dict[str, object]:
        return {"tint": self.tint}

    def load(self, worker: Worker) -> Paint:
        def paint(rows: pa.Table) -> Painted:
            CALLS.append(rows.num_rows)
            if rows.num_rows > self.most:
                raise self.exhausted
            if self.refused in rows.column("seed").to_pylist():
                raise RowError("cannot be painted")
            PAINTED.extend(rows.column("seed").to_pylist())
            size = (rows.column("image_height")[0].as_py(), rows.column("image_width")[0].as_py(), 3)
            seeds = rows.column("seed").to_pylist()
            pixels = [np.random.default_rng(s).integers(self.tint, 256, size, np.uint8) for s in seeds]
            return Painted(
                np.stack(pixels),
                "an abacus",
                "beads",
                [len(str(s)) for s in seeds],
                [s == 101 for s in seeds],
            )

        return paint


@dataclass(frozen=True, kw_only=True)
class Rounding(Tinted):
    """Its pictures depend on their batch in the last bit of the first pixel."""

    exact: ClassVar[bool] = False

    def load(self, worker: Worker) -> Paint:
        paint = super().load(worker)

        def rounded(rows: pa.Table) -> Painted:
            made = paint(rows)
            made.pixels[:, 0, 0, 0] = np.arange(rows.num_rows) + 10 * rows.num_rows
            return made

        return rounded


PAINTED: list[int] = []
CALLS: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_painted():
    PAINTED.clear()
    CALLS.clear()


def _rows(n: int, height: int = 32) -> pa.Table:
    return pa.table(
        {
            "sample_id": np.arange(n, dtype=np.int64),
            "seed": np.arange(n, dtype=np.int64) + 100,
            "image_height": np.where(np.arange(n) % 2, height, 48).astype(np.int32),
            "image_width": np.full(n, 40, np.int32),
        }
    )


def _run(tmp_path, rows, fingerprint="f", **settings):
    store = Store.at(tmp_path)
    return store, Images(generator=Tinted(), **settings).setup(Worker("cpu", store, fingerprint))(rows)


def test_rows_describe_their_files(tmp_path):
    store, out = _run(tmp_path, _rows(7), format="png")
    for row in out.to_pylist():
        data = store.read(row["image_path"])
        assert hashlib.sha256(data).hexdigest() == row["image_sha256"]
        assert len(data) == row["image_bytes"]
        pixels, _ = decode(data, "x")
        assert pixels.shape == (row["image_height"], row["image_width"], 3)
        expected = np.random.default_rng(row["seed"]).integers(0, 256, pixels.shape, np.uint8)
        assert (pixels == expected).all()
    assert sorted(PAINTED) == list(range(100, 107))
    assert set(out["status"].to_pylist()) == {"generated"}


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_intact_files_are_adopted_and_others_painted_again(tmp_path, form):
    store, first = _run(tmp_path, _rows(5), format=form)
    paths = first["image_path"].to_pylist()
    whole = store.read(paths[1])
    store.write(paths[1], whole[: len(whole) // 2])
    store.write(paths[2], b"")
    store.write(paths[3], store.read(paths[1]))
    other = np.zeros((48, 40, 3), np.uint8)
    store.write(paths[4], encode(other, form, comment="another image"))
    os.utime(store.full(paths[0]), (0, 0))
    PAINTED.clear()

    _, again = _run(tmp_path, _rows(5), format=form)
    assert sorted(PAINTED) == [101, 102, 103, 104]
    assert again["status"].to_pylist() == ["adopted", *["generated"] * 4]
    assert again["seconds"].to_pylist()[0] is None
    assert again["image_sha256"] == first["image_sha256"], "painting again gives the same bytes"
    assert Path(store.full(paths[0])).stat().st_mtime > 0, "what is adopted is no old file to sweep"


def test_images_painted_beside_one_that_fails_are_not_adopted(tmp_path):
    store = Store.at(tmp_path)
    apply = Images(generator=Tinted(refused=106)).setup(Worker("cpu", store, "f"))
    with pytest.raises(RowError):
        apply(_rows(8))
    halves = [apply(_rows(8).slice(0, 6)), apply(_rows(8).slice(7))]
    for out in halves:
        assert set(out["status"].to_pylist()) == {"generated"}
        assert out["seconds"].null_count == 0
    assert sorted(PAINTED) == [100, 101, 102, 103, 104, 105, 107], "each is painted once"
    assert set(apply(_rows(6))["status"].to_pylist()) == {"adopted"}


def test_another_fingerprint_is_another_file(tmp_path):
    _, a = _run(tmp_path, _rows(3), "a")
    _, b = _run(tmp_path, _rows(3), "b")
    assert set(a["image_path"].to_pylist()).isdisjoint(b["image_path"].to_pylist())
    assert set(a["image_id"].to_pylist()).isdisjoint(b["image_id"].to_pylist())


def test_every_setting_of_the_generator_shapes_the_fingerprint():
    base = Images(generator=Tinted())
    values = {
        udf.fingerprint({"labels": "x"}).value
        for udf in (base, Images(generator=Tinted(tint=1)), Images(generator=Tinted(), quality=80))
    } | {
        base.fingerprint({"labels": "y"}).value,
        Images(generator=Tinted(), format="png").fingerprint().value,
    }
    assert len(values) == 5


def test_a_jpeg_keeps_the_colour_of_what_is_one_pixel_wide():
    stripes = np.full((16, 16, 3), 120, np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    seen, _ = decode(encode(stripes, "jpeg"), "stripes")
    redness = np.ptp(seen.astype(int), axis=2).mean(0)
    assert redness[::2].min() > 110
    assert redness[1::2].max() < 30


def test_hostile_and_damaged_pictures_are_refused():
    data = encode(np.zeros((16, 16, 3), np.uint8), "png")
    header = bytearray(data)
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    for bad in (b"", b"GIF89a", data[:40], bytes(header)):
        with pytest.raises(RowError, match=r"some/where\.png"):
            decode(bad, "some/where.png")


def _plain(table: pa.Table) -> list[dict]:
    return table.drop_columns(["seconds", "status"]).to_pylist()


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_rows_say_how_each_image_was_painted(tmp_path, form):
    apply = Images(generator=Rounding(), format=form).setup(Worker("cpu", Store.at(tmp_path), "f"))
    out = apply(_rows(8))
    rows = out.to_pylist()
    # Rows of 48 and of 32 pixels take turns; a call paints three of one size.
    by_size = [(r["batch_size"], r["batch_index"]) for r in rows[1::2]]
    assert by_size == [(3, 0), (3, 1), (3, 2), (1, 0)]
    assert {(r["device"], r["dtype"], r["prompt_tokens"]) for r in rows} == {("an abacus", "beads", 3)}
    assert [r["prompt_truncated"] for r in rows] == [False, True, *[False] * 6]
    again = apply(_rows(8))
    assert set(again["status"].to_pylist()) == {"adopted"}
    assert _plain(again) == _plain(out), "an image that a crash left without a row tells it all by itself"


def test_where_a_batch_does_not_matter_none_is_told(tmp_path):
    _, out = _run(tmp_path, _rows(4))
    assert out["batch_size"].null_count == out["batch_index"].null_count == 4
    assert set(out["device"].to_pylist()) == {"an abacus"}


def test_what_a_crash_left_to_paint_is_painted_in_the_company_it_would_have_had(tmp_path):
    store = Store.at(tmp_path)
    apply = Images(generator=Rounding(), format="png").setup(Worker("cpu", store, "f"))
    first = apply(_rows(14))
    for i in (1, 6):
        store.fs.rm(store.full(first["image_path"][i].as_py()))
    again = apply(_rows(14))
    assert _plain(again) == _plain(first)
    made = [i for i, status in enumerate(again["status"].to_pylist()) if status == "generated"]
    assert made == [1, 6]


@pytest.mark.parametrize(
    "facts",
    [
        " {",
        " []",
        " 7",
        ' {"colour": 1}',
        ' {"batch_size": "many"}',
        ' {"batch_size": 0}',
        ' {"batch_size": null}',
        ' {"batch_size": 3, "batch_index": 3}',
        ' {"batch_index": 0}',
        f' {{"prompt_tokens": {10**30}}}',
    ],
)
def test_a_file_with_other_facts_than_were_written_is_not_adopted(tmp_path, facts):
    store, out = _run(tmp_path, _rows(1), format="png")
    path = out["image_path"][0].as_py()
    pixels, comment = decode(store.read(path), path)
    store.write(path, encode(pixels, "png", comment=comment.partition(" {")[0] + facts))
    _, again = _run(tmp_path, _rows(1), format="png")
    assert again["status"].to_pylist() == ["generated"]
    assert _plain(again) == _plain(out)


class OutOfMemoryError(RuntimeError):
    """As torch calls that of a GPU."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("not enough memory: you tried to allocate 99 bytes"),
    ],
)
def test_out_of_memory_halves_the_batch_for_good_and_loses_no_row(tmp_path, error):
    generator = Rounding(most=1, exhausted=error)
    apply = Images(generator=generator).setup(Worker("cpu", Store.at(tmp_path), "f"))
    out = apply(_rows(6))
    assert sorted(PAINTED) == list(range(100, 106))
    assert set(out["batch_size"].to_pylist()) == {1}
    assert list(CALLS) == [3, *[1] * 6]
    CALLS.clear()
    apply(_rows(12).slice(6))
    assert list(CALLS) == [1] * 6, "the worker remembers"
    none = Images(generator=Tinted(most=0, exhausted=error))
    with pytest.raises(StageError, match="not enough memory to paint a single image"):
        none.setup(Worker("cpu", Store.at(tmp_path), "g"))(_rows(6))


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path):
    generator = Tinted(most=1, exhausted=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Images(generator=generator).setup(Worker("cpu", Store.at(tmp_path), "f"))(_rows(6))


@dataclass
class Watched:
    """A store that calls back before every write."""

    store: Store
    before: Callable[[str], None]

    def read(self, path: str) -> bytes:
        return self.store.read(path)

    def write(self, path: str, data: bytes) -> None:
        self.before(path)
        self.store.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self.before(path)
        return self.store.create(path, data)


def test_a_picture_that_another_run_painted_meanwhile_is_adopted(tmp_path):
    store, rows, theirs = Store.at(tmp_path), _rows(6), []
    alone = Images(generator=Rounding(), format="png").setup(Worker("cpu", store, "f"))

    def meanwhile(path: str) -> None:
        if not theirs:
            theirs.append(None)
            theirs[:] = [alone(rows.slice(i, 1)) for i in range(5)]

    files = Watched(store, meanwhile)
    out = Images(generator=Rounding(), format="png").setup(Worker("cpu", files, "f"))(rows)
    assert out["status"].to_pylist() == [*["adopted"] * 5, "generated"]
    assert _plain(out.slice(0, 5)) == _plain(pa.concat_tables(theirs)), "facts are the file's"
    for row in out.to_pylist():
        assert hashlib.sha256(store.read(row["image_path"])).hexdigest() == row["image_sha256"]


def test_files_are_written_while_the_next_batch_is_painted(tmp_path):
    met = []

    def wait(path: str) -> None:
        deadline = time.monotonic() + 20
        while len(CALLS) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        met.append(len(CALLS) >= 2)

    files = Watched(Store.at(tmp_path), wait)
    Images(generator=Tinted()).setup(Worker("cpu", files, "f"))(_rows(8))
    assert len(met) == 8
    assert all(met)


def test_a_file_that_cannot_be_written_fails_its_own_row(tmp_path):
    store = Store.at(tmp_path)
    bad = _run(tmp_path / "other", _rows(8))[1]["image_path"][0].as_py()

    def refuse(path: str) -> None:
        if path == bad:
            raise PermissionError(path)

    apply = Images(generator=Tinted()).setup(Worker("cpu", Watched(store, refuse), "f"))
    PAINTED.clear()
    with pytest.raises(PermissionError):
        apply(_rows(8))
    with pytest.raises(PermissionError):
        apply(_rows(8).slice(0, 1))
    rest = apply(_rows(8).slice(1))
    assert set(rest["status"].to_pylist()) == {"generated"}
    assert rest["seconds"].null_count == 0
    assert {r for r in PAINTED if PAINTED.count(r) == 1} >= {101, 103, 105, 107}
