"""Reading caption files: COCO's JSON, CSV, JSON lines and Parquet, as rows of `captions`."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from schemas.errors import InputError
from schemas.ids import caption_ids
from schemas.source import CaptionSource, Rejection
from schemas.tables import CAPTIONS
from udfs.grammar import read_attributes
from udfs.npz import MAX_BYTES

MAX_CHARACTERS = 10_000

# What is no white space and yet not printed: control characters, the marks that reverse the direction of
# writing, zero-width spaces (not joiners, which Persian and emoji need), private use, halves of surrogates.
_UNPRINTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ue000-\uf8ff]"
)
_KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "coco", ".parquet": "parquet"}


@dataclass(frozen=True)
class CaptionFile:
    """What a caption file gave: rows of CAPTIONS, the rows refused, and what was found and changed."""

    captions: pa.Table
    rejected: tuple[Rejection, ...]
    kind: str
    facts: Mapping[str, object]


Entry = tuple[int, object, object]
"""Row or line, key (None: the row's number) and text as the file has them."""


def read_caption_file(data: bytes, path: str, source: CaptionSource) -> CaptionFile:
    """Reads a caption file; attributes are read from the text by plain word rules.

    Rows are counted from 0, in JSON lines as lines. White space becomes single blanks. Characters that print
    nothing are removed and counted; a text that is empty, over 10,000 characters or no text is refused alone.
    Raises InputError when the whole file is of no use.
    """
    kind = source.kind if source.kind != "auto" else _KINDS.get(PurePosixPath(path).suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: a caption file ends in .json (COCO), .csv, .jsonl or .parquet; or name its `kind` in "
            f"source {source.name!r}"
        )
    rejected: list[Rejection] = []
    if kind == "parquet":
        entries = _parquet(data, path, source)
    else:
        text = _decode(data, path)
        if kind == "coco":
            entries = _coco(text, path)
        elif kind == "csv":
            entries = _csv(text, path, source)
        else:
            entries = _jsonl(text, path, source, rejected)
    facts: dict[str, object] = {}
    keys, texts = _clean(entries, rejected, facts)
    captions, repeated = _table(keys, texts, source)
    if repeated:
        facts["repeated_rows"] = repeated
    rejected.sort(key=lambda r: r.row if r.row is not None else -1)
    return CaptionFile(captions, tuple(rejected), kind, facts)


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: not UTF-8, byte {error.start} in line {line} is 0x{data[error.start]:02x}; convert it, "
            "for example with `iconv -t utf-8`"
        ) from error


def _coco(text: str, path: str) -> Iterator[Entry]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error}); for one JSON object a line use kind `jsonl`") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise InputError(f"{path}: no list `annotations`, which COCO's captions JSON has")
    if annotations and not any(isinstance(a, dict) and "caption" in a for a in annotations):
        raise InputError(
            f"{path}: no annotation has a `caption`; is this COCO's instances or keypoints file?"
        )
    for row, annotation in enumerate(annotations):
        if isinstance(annotation, dict):
            yield row, annotation.get("image_id"), annotation.get("caption")
        else:
            yield row, None, None


def _csv(text: str, path: str, source: CaptionSource) -> Iterator[Entry]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(reader.fieldnames or [], path, source)
        for row, record in enumerate(reader):
            yield (
                row,
                record.get(source.key_column) if source.key_column else None,
                record[source.text_column],
            )
    except csv.Error as error:
        raise InputError(f"{path}: broken CSV at line {reader.line_num} ({error})") from error


def _jsonl(text: str, path: str, source: CaptionSource, rejected: list[Rejection]) -> Iterator[Entry]:
    seen: set[str] = set()
    good = False
    for line, content in enumerate(text.split("\n")):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            rejected.append(Rejection(line, InputError.code, f"line {line + 1}: no JSON ({error})"))
            continue
        if not isinstance(record, dict):
            rejected.append(Rejection(line, InputError.code, f"line {line + 1}: no JSON object"))
            continue
        good = good or source.text_column in record
        seen.update(record)
        yield (
            line,
            record.get(source.key_column) if source.key_column else None,
            record.get(source.text_column),
        )
    if seen and not good:
        _check_columns(sorted(seen), path, source)


def _parquet(data: bytes, path: str, source: CaptionSource) -> Iterator[Entry]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        _check_columns(file.schema_arrow.names, path, source)
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise InputError(f"{path}: it unpacks to more than 4 GiB; split the file")
        columns = [source.text_column] + ([source.key_column] if source.key_column else [])
        table = file.read(columns=columns)
        texts = table[source.text_column].to_pylist()
        keys = table[source.key_column].to_pylist() if source.key_column else [None] * len(texts)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error}); copy or write it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: column `{source.text_column}` holds text that is not UTF-8") from error
    yield from zip(range(len(texts)), keys, texts, strict=True)


def _check_columns(names: Iterable[str], path: str, source: CaptionSource) -> None:
    names = list(names)
    for role, name in (("text_column", source.text_column), ("key_column", source.key_column)):
        if name is not None and name not in names:
            raise InputError(
                f"{path}: no column {name!r}; it has {', '.join(map(repr, names[:12])) or 'none'}. Set "
                f"`{role}` of source {source.name!r}"
            )


def _clean(
    entries: Iterable[Entry], rejected: list[Rejection], facts: dict[str, object]
) -> tuple[list[str], list[str]]:
    """Keys and texts of the entries that are captions; the others are added to `rejected`."""
    keys: list[str] = []
    texts: list[str] = []
    rows = cleaned = 0
    for row, key, text in entries:
        rows += 1
        wrong = None
        if not isinstance(text, str):
            wrong = f"the caption is {'missing' if text is None else type(text).__name__}, not text"
        elif not isinstance(key, str | int | None) or isinstance(key, bool):
            wrong = f"the key is {type(key).__name__}, not text or a whole number"
        elif len(text) > MAX_CHARACTERS:
            wrong = f"the caption has {len(text)} characters, more than {MAX_CHARACTERS}"
        else:
            printed = _UNPRINTED.sub("", text)
            plain = " ".join(printed.split())
            if plain:
                cleaned += printed != text
                keys.append(_UNPRINTED.sub("", str(row if key is None else key)))
                texts.append(plain)
            else:
                wrong = "the caption is empty"
        if wrong is not None:
            rejected.append(Rejection(row, InputError.code, f"row {row}: {wrong}"))
    facts["rows"] = rows
    if cleaned:
        facts["unprintable_characters_removed_from"] = cleaned
    return keys, texts


def _table(keys: list[str], texts: list[str], source: CaptionSource) -> tuple[pa.Table, int]:
    """Rows of CAPTIONS, each text once a key, and how many repeats there were."""
    if not texts:
        return CAPTIONS.empty_table(), 0
    pairs = list(dict.fromkeys(zip(keys, texts, strict=True)))
    kept_keys, kept_texts = [p[0] for p in pairs], [p[1] for p in pairs]
    names = [source.name] * len(pairs)
    attributes = read_attributes(kept_texts)
    said = {"text": kept_texts, **attributes.to_pydict()}
    caption_id, digest = caption_ids(names, kept_keys, said)
    columns: dict[str, object] = {"caption_id": caption_id, "digest": digest, "source": names}
    columns |= {"key": kept_keys, "text": kept_texts}
    columns |= {name: attributes[name] for name in attributes.column_names}
    return pa.table({name: columns[name] for name in CAPTIONS.names}, schema=CAPTIONS), len(texts) - len(
        pairs
    )
