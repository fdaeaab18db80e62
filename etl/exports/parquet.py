"""Plain Parquet and images: `metadata.parquet` with all columns, and the images in `images/`.

`file_name` stands before the release's columns and says where the image is, in the words of Hugging Face's
`imagefolder`, so that `load_dataset("imagefolder", data_dir=...)` reads the folder too.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from etl.exports.pieces import IMAGES, Piece, Step, image_names
from etl.parquet import ROW_GROUP_ROWS


def _write(piece: Piece) -> None:
    schema = pa.schema([pa.field("file_name", pa.string(), nullable=False), *piece.schema])
    strings = [f.name for f in schema if pa.types.is_string(f.type)]
    with (
        piece.file("metadata.parquet") as path,
        pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=strings
        ) as out,
    ):
        for rows in piece.tables:
            names = pa.array([f"images/{name}" for name in image_names(rows)])
            out.write_table(pa.table([names, *rows.columns], schema=schema))


STEPS = (IMAGES, Step("metadata", None, _write, rows=None, block=ROW_GROUP_ROWS))
