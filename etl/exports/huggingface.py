"""Hugging Face `datasets`: Parquet files with the images in them, as `load_dataset` of the folder reads them.

The column `image` is an Image feature; all columns of the release follow as they are. The types that
`datasets` gives the columns are in the files' schema, so writing them needs no `datasets`. The release's card
is the `README.md` that the Hub shows.
"""

import json
from collections import deque
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from etl.card import read_card
from etl.card_html import card_html
from etl.card_markdown import card_markdown
from etl.exports.pieces import Piece, Step, image_names

_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_NAMES = {"float": "float32", "double": "float64"}
"""Arrow's names of types that NumPy and `datasets` call otherwise."""


def _feature(kind: pa.DataType) -> dict[str, object]:
    if pa.types.is_fixed_size_list(kind):
        # Versions before 4 know no List; later ones read a Sequence of values as a List.
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    return {"dtype": _NAMES.get(str(kind), str(kind)), "_type": "Value"}


def _schema(columns: pa.Schema) -> pa.Schema:
    features = {"image": {"_type": "Image"}} | {f.name: _feature(f.type) for f in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([pa.field("image", _IMAGE), *columns], metadata)


def _write(piece: Piece) -> None:
    schema = _schema(piece.schema)
    strings = [f.name for f in schema if pa.types.is_string(f.type)]
    name = f"data/train-{piece.index:05d}-of-{piece.count:05d}.parquet"
    with (
        piece.file(name) as path,
        pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=strings
        ) as out,
    ):
        for rows in piece.tables:
            names = [PurePosixPath(n).name for n in image_names(rows)]
            files = [pa.array(piece.images(rows), pa.binary()), pa.array(names, pa.string())]
            images = pa.StructArray.from_arrays(files, fields=list(_IMAGE))
            out.write_table(pa.table([images, *rows.columns], schema=schema))


def _write_card(piece: Piece) -> None:
    deque(piece.tables, maxlen=0)
    card = read_card(piece.release)
    pages = {"README.md": card_markdown(card, exported=True), "card.html": card_html(card)}
    for name, text in pages.items():
        with piece.file(name) as path:
            path.write_text(text, "utf-8")


STEPS = (
    Step("shards", None, _write, sized=True),
    Step("card", ("image_id",), _write_card, rows=None, block=100_000),
)
