"""Paints the photograph of every sample and keeps it as a file of the lake."""

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.errors import RowError, StageError
from schemas.ids import content_ids, hex_id
from schemas.tables import IMAGES, subset
from udfs.generator import Generator, Paint, Painted
from udfs.memory import free_memory, is_out_of_memory
from udfs.picture import SUFFIX, Format, decode, encode
from udfs.udf import Apply, Files, Udf, Worker


@dataclass(frozen=True, kw_only=True)
class Images(Udf):
    """Rows of `images` from samples, their labels and captions; the generator says which columns it needs.

    A file is named by its image id, which covers everything that shaped it, and carries that id and the facts
    of its row inside. So an intact file that a crash left without a row is adopted, and any other file is
    painted over. Where pixels depend on the batch, by rounding, batches are cut without regard to what can be
    adopted: what is left to paint is painted in the company that it would have had.

    Attributes:
        generator: what paints.
        format, quality: how it is encoded; quality is JPEG's, 1 to 95.
    """

    name = "images"
    version = 2  # 1 kept the colours of a JPEG at half the resolution
    inputs = ("sample_id", "seed", "image_height", "image_width")
    outputs = IMAGES
    batch_rows = 1024

    generator: Generator = field()
    format: Format = "jpeg"
    quality: int = 92

    @property
    def accelerated(self) -> bool:
        return self.generator.accelerated

    def parameters(self) -> Mapping[str, object]:
        kind = {"name": self.generator.name, "version": self.generator.version}
        return {
            "format": self.format,
            "quality": self.quality if self.format == "jpeg" else None,
            "generator": {**kind, **self.generator.parameters()},
        }

    def models(self) -> Mapping[str, str]:
        return self.generator.models()

    def setup(self, worker: Worker) -> Apply:
        paint = self.generator.load(worker)
        most = self.generator.batch_rows
        painted: dict[int, float] = {}

        def apply(rows: pa.Table) -> pa.Table:
            nonlocal most
            images = _Batch(self, worker, rows, painted)
            sizes = np.stack([rows.column(c).to_numpy() for c in ("image_height", "image_width")], 1)
            # Files are encoded and written while the next batch is painted. What goes wrong there is raised
            # here one batch later, still within the call that has the row.
            with ThreadPoolExecutor(1) as pool:
                kept: Future[None] | None = None
                for height, width in np.unique(sizes, axis=0):
                    todo = np.flatnonzero((sizes == (height, width)).all(1))
                    if self.generator.exact:
                        todo = todo[~images.adopted[todo]]
                    while len(todo):
                        at = todo[:most]
                        if images.adopted[at].all():
                            todo = todo[len(at) :]
                            continue
                        began = time.perf_counter()
                        made = _painted_or_not(paint, rows.take(pa.array(at)), self.generator.name)
                        if made is None:
                            # As this worker's memory does not suffice now, it will not later.
                            most = max(len(at) // 2, 1)
                            free_memory()
                            continue
                        seconds = (time.perf_counter() - began) / len(at)
                        if kept is not None:
                            kept.result()
                        kept = pool.submit(images.keep, at, made, seconds)
                        todo = todo[len(at) :]
                if kept is not None:
                    kept.result()
            for i in images.ids.tolist():
                painted.pop(i, None)
            return images.table()

        return apply


def _painted_or_not(paint: Paint, rows: pa.Table, generator: str) -> Painted | None:
    """None when the memory does not suffice. In a function of its own: what the error's traceback holds on
    to is free before the next try. Raises StageError when it does not suffice for a single row."""
    try:
        return paint(rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if rows.num_rows == 1:
            raise StageError(f"{generator}: not enough memory to paint a single image: {error}") from error
        return None


_FACTS = subset(IMAGES, ("batch_size", "batch_index", "device", "dtype", "prompt_tokens", "prompt_truncated"))


class _Batch:
    """File names and facts of one batch of images.

    painted: seconds by image id, of images painted here in a batch that another row made fail. They come
    again in a smaller batch, where their files are found but were not left by a crash.
    """

    def __init__(self, udf: Images, worker: Worker, rows: pa.Table, painted: dict[int, float]) -> None:
        n = rows.num_rows
        self.painted = painted
        self.udf, self.files, self.rows, self.fingerprint = udf, worker.files, rows, worker.fingerprint
        self.sizes = np.stack([rows.column(c).to_numpy() for c in ("image_height", "image_width")], 1)
        self.ids, _ = content_ids("image", [[worker.fingerprint] * n], [rows.column("sample_id").to_numpy()])
        self.paths = [image_path(int(i), worker.fingerprint, udf.format) for i in self.ids]
        self.sha256 = [""] * n
        self.bytes = np.zeros(n, np.int64)
        self.seconds: list[float | None] = [None] * n
        self.facts: list[dict[str, object]] = [{} for _ in range(n)]
        self.adopted = np.array([self._adopt(i) for i in range(n)], bool)

    def _adopt(self, i: int) -> bool:
        """Whether the file is there already, whole and of this very image."""
        data = _read_if_there(self.files, self.paths[i])
        if data is None:
            return False
        try:
            pixels, comment = decode(data, self.paths[i])
        except RowError:
            return False
        facts = _facts_in(comment, int(self.ids[i]))
        if facts is None or pixels.shape[:2] != tuple(self.sizes[i]):
            return False
        # Written again, its age counts from now: maintenance sweeps old files that no row names.
        self.files.write(self.paths[i], data)
        self._note(i, data)
        self.facts[i] = facts
        self.seconds[i] = self.painted.get(int(self.ids[i]))
        return True

    def keep(self, at: np.ndarray, made: Painted, seconds: float) -> None:
        """Encodes and writes the pictures of the rows `at`, which were one call of the generator.

        One that is there already was painted again as company of the others only.
        """
        exact = self.udf.generator.exact
        for place, (i, picture) in enumerate(zip(at.tolist(), made.pixels, strict=True)):
            if picture.shape != (*self.sizes[i], 3) or picture.dtype != np.uint8:
                raise RowError(f"{self.udf.generator.name} painted {picture.shape} {picture.dtype}")
            if self.adopted[i]:
                continue
            facts = {
                "batch_size": None if exact else len(at),
                "batch_index": None if exact else place,
                "device": made.device,
                "dtype": made.dtype,
                "prompt_tokens": None if made.prompt_tokens is None else made.prompt_tokens[place],
                "prompt_truncated": None if made.prompt_truncated is None else made.prompt_truncated[place],
            }
            self.facts[i] = {name: fact for name, fact in facts.items() if fact is not None}
            comment = _comment(int(self.ids[i]), self.facts[i])
            data = encode(picture, self.udf.format, self.udf.quality, comment)
            if not self.files.create(self.paths[i], data):
                # Another run painted it meanwhile, perhaps in other company, and its row may name those very
                # bytes. Or it is what was not adopted before.
                if self._adopt(i):
                    continue
                self.files.write(self.paths[i], data)
            self._note(i, data)
            self.seconds[i] = self.painted[int(self.ids[i])] = seconds

    def _note(self, i: int, data: bytes) -> None:
        self.sha256[i] = hashlib.sha256(data).hexdigest()
        self.bytes[i] = len(data)

    def table(self) -> pa.Table:
        n, generator = len(self.ids), self.udf.generator
        columns = {
            "image_id": self.ids,
            "sample_id": self.rows.column("sample_id"),
            "fingerprint": pa.repeat(self.fingerprint, n),
            "image_path": self.paths,
            "image_sha256": self.sha256,
            "image_bytes": self.bytes,
            "image_height": self.sizes[:, 0],
            "image_width": self.sizes[:, 1],
            "generator": pa.repeat(generator.name, n),
            "seed": self.rows.column("seed"),
            "steps": pa.array([generator.steps] * n, pa.int32()),
            "guidance_scale": pa.array([generator.guidance_scale] * n, pa.float32()),
            "status": ["adopted" if seconds is None else "generated" for seconds in self.seconds],
            "seconds": pa.array(self.seconds, pa.float32()),
        }
        facts = {f.name: pa.array([row.get(f.name) for row in self.facts], f.type) for f in _FACTS}
        return pa.table(columns | facts)


def image_path(image_id: int, fingerprint: str, form: Format) -> str:
    """Lake-relative path of an image; two hexadecimal digits keep folders small."""
    name = hex_id(image_id)
    return f"files/images/{fingerprint}/{name[:2]}/{name}.{SUFFIX[form]}"


def _comment(image_id: int, facts: Mapping[str, object]) -> str:
    """What a file says of itself: its image's id, and what a row that a crash left unwritten would say."""
    said = f" {json.dumps(facts, sort_keys=True)}" if facts else ""
    return f"posedreamer {hex_id(image_id)}{said}"


def _facts_in(comment: str, image_id: int) -> dict[str, object] | None:
    """The facts in a file's comment; None when it is not this image's, or not as it was written."""
    bare = _comment(image_id, {})
    if not comment.startswith(bare):
        return None
    try:
        facts = json.loads(comment[len(bare) :] or "{}")
        for name, fact in facts.items():
            pa.array([fact], _FACTS.field(name).type)
            low = (_FACTS.field(name).metadata or {}).get(b"low")
            if fact is None or (low is not None and fact < float(low)):
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    if facts.get("batch_index", -1) >= facts.get("batch_size", 0):
        return None
    return facts


def _read_if_there(files: Files, path: str) -> bytes | None:
    try:
        return files.read(path)
    except FileNotFoundError:
        return None
