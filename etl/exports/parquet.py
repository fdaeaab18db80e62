"""Plain Parquet and images: `metadata.parquet` with all columns, and the images in `images/`.

`file_name` stands before the release's columns and says where the image is, in the words of Hugging Face's
`imagefolder`, so that `load_dataset("imagefolder", data_dir=...)` reads the folder too.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from etl.exports.pieces import IMAGES, Piece, Step, image_names
from etl.parquet import ROW_GROUP_ROWS
from schemas.tables import DATASET

_SCHEMA = pa.schema([pa.field("file_name", pa.string(), nullable=False), *DATASET])


def _write(piece: Piece) -> None:
    strings = [f.name for f in _SCHEMA if pa.types.is_string(f.type)]
    with (
        piece.file("metadata.parquet") as path,
        pq.ParquetWriter(
            path, _SCHEMA, compression="zstd", compression_level=1, use_dictionary=strings
        ) as out,
    ):
        for rows in piece.tables:
            names = pa.array([f"images/{name}" for name in image_names(rows)])
            out.write_table(pa.table([names, *rows.columns], schema=_SCHEMA))


STEPS = (IMAGES, Step("metadata", DATASET.names, _write, rows=None, block=ROW_GROUP_ROWS))
