"""What makes an image good enough: rules on metric columns, applied to measured facts.

A bound is compared at the precision of its column: a float32 column holds no 0.8, only the float32 next
to it, and with the bound rounded alike Arrow, SQL and pandas agree on every row.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.fingerprint import Fingerprint, fingerprint
from schemas.tables import TABLES
from schemas.yaml_file import did_you_mean, load_yaml

VERSION = 1
"""Raise it when the same rules decide otherwise."""


def metric_columns() -> dict[str, tuple[str, pa.Field]]:
    """Columns that a rule may name: numbers and words of the metric tables, with the name of their table."""
    return {
        field.name: (name, field)
        for name, spec in TABLES.items()
        if name.startswith("metrics_")
        for field in spec.schema
        if field.name not in {*spec.key, "fingerprint"}
        and not pa.types.is_nested(field.type)
        and not pa.types.is_boolean(field.type)
    }


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; a number belongs here")
    return value


Number = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
Value = Annotated[float | str, BeforeValidator(_no_truth)]


class Rule(BaseModel):
    """Keeps the rows whose column lies within all the bounds that are given.

    Attributes:
        column: of a metric table, such as `oks` or `persons`.
        min, max: inclusive.
        equals: the only value to keep.
        one_of: the values to keep.
        missing: what becomes of a row where the column is NULL, because it could not be measured.
        reason: for readers; decides nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    min: Number | None = None
    max: Number | None = None
    equals: Value | None = None
    one_of: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    missing: Literal["reject", "keep"] = "reject"
    reason: str = ""

    @field_validator("column")
    @classmethod
    def _known(cls, name: str) -> str:
        known = metric_columns()
        if name not in known:
            raise ValueError(f"no metric column is called {name!r}{did_you_mean(name, known)}")
        return name

    @model_validator(mode="after")
    def _decides(self) -> "Rule":
        if all(v is None for v in (self.min, self.max, self.equals, self.one_of)):
            raise ValueError(f"the rule on {self.column} has no bound: give min, max, equals or one_of")
        for name, value in self._given():
            _at_precision(value, self._type, f"{name} of {self.column}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the rule on {self.column} has min {self.min} above max {self.max}")
        return self

    @property
    def table(self) -> str:
        """The metric table that has the column."""
        return metric_columns()[self.column][0]

    @property
    def _type(self) -> pa.DataType:
        return metric_columns()[self.column][1].type

    def _given(self) -> Iterator[tuple[str, float | str]]:
        for name in ("min", "max", "equals"):
            value = getattr(self, name)
            if value is not None:
                yield name, value
        yield from (("one_of", value) for value in self.one_of or ())

    @property
    def text(self) -> str:
        """The rule in the words of a query, without what is for readers alone: `1 <= persons <= 4`."""
        parts = []
        low, high = (None if v is None else self._show(v) for v in (self.min, self.max))
        if low is not None and high is not None:
            parts.append(f"{low} <= {self.column} <= {high}")
        elif low is not None:
            parts.append(f"{self.column} >= {low}")
        elif high is not None:
            parts.append(f"{self.column} <= {high}")
        if self.equals is not None:
            parts.append(f"{self.column} == {self._show(self.equals)}")
        if self.one_of is not None:
            parts.append(f"{self.column} in [{', '.join(self._show(v) for v in self.one_of)}]")
        text = " and ".join(parts)
        return f"({text}) or {self.column} is None" if self.missing == "keep" else text

    def _show(self, value: float | str) -> str:
        exact = _at_precision(value, self._type, self.column)
        if isinstance(exact, float) and pa.types.is_float32(self._type):
            return str(np.float32(exact))
        return repr(exact)

    def passes(self, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """(N,) bool: the rows that the rule keeps."""
        tests = [
            compare(column, pa.scalar(_at_precision(value, column.type, name), column.type))
            for name, compare in (("min", pc.greater_equal), ("max", pc.less_equal), ("equals", pc.equal))
            if (value := getattr(self, name)) is not None
        ]
        if self.one_of is not None:
            wanted = [_at_precision(v, column.type, "one_of") for v in self.one_of]
            tests.append(pc.is_in(column, pa.array(wanted, column.type)))
        inside = np.logical_and.reduce([_bools(test) for test in tests])
        return np.where(_bools(column.is_valid()), inside, self.missing == "keep")

    def decision(self) -> dict[str, Any]:
        """What the rule decides by, for its fingerprint: equal decisions have equal text."""
        exact = {n: _at_precision(v, self._type, n) for n, v in self._given() if n != "one_of"}
        facts: dict[str, Any] = {"column": self.column, "missing": self.missing, **exact}
        if self.one_of is not None:
            facts["one_of"] = sorted({_at_precision(v, self._type, "one_of") for v in self.one_of})
        return facts


class Policy(BaseModel):
    """Ordered rules; an image is kept when it passes all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    rules: tuple[Rule, ...]

    @property
    def fingerprint(self) -> Fingerprint:
        """Covers all that decides: rules and their order, not names, descriptions and reasons."""
        return fingerprint("policy", VERSION, {"rules": [rule.decision() for rule in self.rules]})

    @property
    def tables(self) -> tuple[str, ...]:
        """Metric tables that the rules read."""
        return tuple(sorted({rule.table for rule in self.rules}))


@dataclass(frozen=True)
class Decision:
    """What a policy says of N rows with its R rules.

    Attributes:
        keep: (N,) bool.
        first: (N,) int64, index of the first rule that rejects the row; -1 where it is kept.
        alone: (R,) int64, rows that each rule would reject by itself.
    """

    keep: np.ndarray
    first: np.ndarray
    alone: np.ndarray


def decide(policy: Policy, columns: pa.Table) -> Decision:
    """Applies a policy to the metric columns of N rows."""
    first = np.full(columns.num_rows, -1, np.int64)
    alone = np.zeros(len(policy.rules), np.int64)
    for index, rule in enumerate(policy.rules):
        rejected = ~rule.passes(columns.column(rule.column))
        alone[index] = rejected.sum()
        first[rejected & (first < 0)] = index
    return Decision(first < 0, first, alone)


def parse_policy(text: str, name: str) -> Policy:
    """The policy in a YAML text; `name` is what messages call the file. Raises ConfigError."""
    return load_yaml(text, name, Policy)


def _bools(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(values, False), bool)


def _at_precision(value: float | str, kind: pa.DataType, what: str) -> int | float | str:
    """The value as the column can hold it. Raises ValueError where the column never can."""
    if isinstance(value, str) != pa.types.is_string(kind):
        holds = "text" if pa.types.is_string(kind) else "numbers"
        raise ValueError(f"{what} is {value!r}, but the column holds {holds}")
    if isinstance(value, str):
        return value
    if pa.types.is_integer(kind):
        if not math.isfinite(value) or value != int(value) or abs(value) >= 2.0 ** (kind.bit_width - 1):
            raise ValueError(f"{what} is {value}, but the column holds whole numbers ({kind})")
        return int(value)
    with np.errstate(over="ignore"):
        exact = float(np.float32(value)) if pa.types.is_float32(kind) else float(value)
    if not math.isfinite(exact):
        raise ValueError(f"{what} is {value}, which {kind} cannot hold")
    return exact + 0.0  # -0.0 and 0.0 decide alike
