"""SQL over a release, by DuckDB: reads Arrow data that it is handed, and nothing else."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.errors import ConfigError, LakeError
from schemas.tables import DATASET, TABLES

if TYPE_CHECKING:
    import duckdb

    from etl.query import Release

Parameters = Sequence[Any] | Mapping[str, Any] | None

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "python_enable_replacements": False,
    # Spilling would make a folder where the user happens to stand.
    "temp_directory": "",
    "lock_configuration": True,
}


def run_sql(release: "Release", text: str, parameters: Parameters = None) -> pa.Table:
    """What one SELECT answers. Label arrays that it returns as they are come as fixed-size lists.

    Raises ConfigError for SQL that is wrong or does anything but read, and where DuckDB is not installed;
    LakeError for a file of a table that is gone or damaged.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError("SQL needs DuckDB: pip install 'posedreamer[sql]'") from error
    with duckdb.connect(config=_SETTINGS) as connection:
        try:
            _check(connection, text)
            connection.register("release", release.scan.dataset(release.columns))
            for name, version in _pinned(release, text).items():
                connection.register(name, release.lake.table(name).dataset(version))
            return _with_lengths(connection.sql(text, params=parameters).to_arrow_table())
        except duckdb.Error as error:
            # DuckDB has one kind of error for a wrong query and for files that Arrow cannot read.
            kind = LakeError if "IOError" in str(error) else ConfigError
            raise kind(f"sql: {error}") from error


def _check(connection: "duckdb.DuckDBPyConnection", text: str) -> None:
    kinds = [statement.type.name for statement in connection.extract_statements(text)]
    if kinds not in (["SELECT"], ["EXPLAIN"]):
        raise ConfigError(f"sql: one SELECT is run; this is {' and '.join(kinds).lower() or 'empty'}")


def _pinned(release: "Release", text: str) -> dict[str, int]:
    """Versions of the tables that the text seems to name, as they were when the release was made."""
    words = set(re.findall(r"\w+", text.lower()))
    if not words & set(TABLES):
        return {}
    versions: dict[str, int] = release.manifest()["table_versions"]
    return {name: version for name, version in versions.items() if name in words and name in TABLES}


def _with_lengths(rows: pa.Table) -> pa.Table:
    for at, field in enumerate(rows.schema):
        whole = DATASET.field(field.name) if field.name in DATASET.names else field
        if pa.types.is_fixed_size_list(whole.type) and pa.types.is_list(field.type):
            try:
                rows = rows.set_column(at, field.name, rows.column(at).cast(whole.type))
            except pa.ArrowInvalid:
                continue  # a part of the array under the array's name
    return rows
