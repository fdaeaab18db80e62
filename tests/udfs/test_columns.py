import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import InputError
from udfs.columns import list_column, matrix

PLAIN, FIXED = pa.list_(pa.float32()), pa.list_(pa.float32(), 3)


@pytest.mark.parametrize("kind", [PLAIN, FIXED])
def test_there_and_back(kind):
    array = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    table = pa.table({"a": list_column(array, kind)})
    assert table.schema.field("a").type == kind
    assert table["a"].to_pylist() == array.tolist()
    assert np.array_equal(matrix(table, "a"), array)
    # A slice and a column of several chunks start in the middle of their buffers.
    assert np.array_equal(matrix(table.slice(2, 3), "a"), array[2:5])
    assert np.array_equal(
        matrix(pa.concat_tables([table.slice(4), table.slice(0, 4)]), "a"), np.roll(array, 3, 0)
    )


def test_the_axes_of_a_row_are_flattened_and_its_type_follows_the_column():
    array = np.arange(24.0).reshape(2, 4, 3)
    assert list_column(array, pa.list_(pa.float32(), 12)).to_pylist() == array.reshape(2, 12).tolist()
    assert list_column(np.ones((2, 3), np.int64), pa.list_(pa.int8(), 3)).type == pa.list_(pa.int8(), 3)


@pytest.mark.parametrize("rows", [[[1.0, 2.0], None], [[1.0, None], [2.0, 3.0]], [[1.0], [2.0, 3.0, 4.0]]])
def test_rows_that_make_no_matrix_are_refused(rows):
    with pytest.raises(InputError, match="column a"):
        matrix(pa.table({"a": pa.array(rows, PLAIN)}), "a")


def test_a_row_of_another_length_does_not_fit_the_column():
    with pytest.raises(InputError, match="4 values a row"):
        list_column(np.ones((2, 4)), FIXED)


def test_no_rows():
    assert matrix(pa.table({"a": pa.array([], FIXED)}), "a").shape == (0, 3)
    assert len(list_column(np.empty((0, 3)), PLAIN)) == 0
