"""Columns with their documentation, units and allowed ranges in the field's metadata."""

import pyarrow as pa


def field(
    name: str,
    kind: pa.DataType,
    doc: str,
    *,
    unit: str = "",
    null: bool = False,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[str, ...] = (),
) -> pa.Field:
    """A documented column; `low`, `high` (inclusive) and `one_of` are enforced before a commit."""
    facts = {"doc": doc, "unit": unit, "one_of": "|".join(one_of)}
    facts |= {"low": "" if low is None else repr(low), "high": "" if high is None else repr(high)}
    return pa.field(name, kind, nullable=null, metadata={k: v for k, v in facts.items() if v})


def floats(name: str, length: int, doc: str, **kwargs) -> pa.Field:
    """A label array: `length` float32 values."""
    return field(name, pa.list_(pa.float32(), length), doc, **kwargs)


def id_field(name: str, doc: str) -> pa.Field:
    return field(name, pa.int64(), doc)


FINGERPRINT = field("fingerprint", pa.string(), "what computed this row; see the table `fingerprints`")
