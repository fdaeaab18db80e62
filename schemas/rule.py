"""What a single image must be: bounds on columns, conditions, exceptions for sources, and groups of those.

A bound is compared at the precision of its column: a float32 column holds no 0.8, only the float32 next
to it, and with the bound rounded alike Arrow, SQL and pandas agree on every row.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StrictBool,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from schemas.rule_columns import rule_columns
from schemas.yaml_file import did_you_mean

MAX_RULES = 200


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; a number belongs here")
    return value


def _exact(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """Numbers as float64, so that 1 and 1.0 are one rule, but for whole ones that it cannot hold."""
    large = isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53
    return value if large else parse(value)


_AS_IT_IS = PlainSerializer(lambda value: value)
"""Else a whole number would be written as the float that cannot hold it."""

Number = Annotated[
    float, Field(allow_inf_nan=False), WrapValidator(_exact), BeforeValidator(_no_truth), _AS_IT_IS
]
Value = Annotated[StrictBool | float | str, WrapValidator(_exact), _AS_IT_IS]


def kind_of(rule: Any) -> str:
    """Which model a rule of a file is meant for."""
    return "group of rules" if isinstance(rule, Group) or _has(rule, "all", "any") else "single rule"


def _has(rule: Any, *keys: str) -> bool:
    return isinstance(rule, dict) and any(key in rule for key in keys)


AnyRule = Annotated[
    Annotated["Rule", Tag("single rule")] | Annotated["Group", Tag("group of rules")], Discriminator(kind_of)
]


class _Bounds(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def given(self) -> dict[str, Any]:
        """The bounds that are there."""
        names = ("min", "max", "equals", "one_of")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Override(_Bounds):
    """What is otherwise for one source: bounds that replace the rule's own; it keeps the rest of them."""

    min: Number | None = None
    max: Number | None = None
    equals: Value | None = None
    one_of: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    missing: Literal["reject", "keep"] | None = None

    @model_validator(mode="after")
    def _says(self) -> "Override":
        if not self.given() and self.missing is None:
            raise ValueError("nothing is otherwise: give min, max, equals, one_of or missing")
        return self


class Rule(_Bounds):
    """Keeps the rows whose column lies within all the bounds that are given.

    Attributes:
        column: of a metric table, such as `oks` or `persons`, or of the image's sample, labels, pose or
            caption, such as `coverage` or `source` (`schemas.rule_columns`).
        min, max: inclusive.
        equals: the only value to keep.
        one_of: the values to keep.
        missing: what becomes of a row where the column is NULL, because it could not be measured.
        when: the rule is for rows that pass this one; it keeps all others.
        sources: bounds that differ for the poses of a source, by its name.
        reason: for readers; decides nothing.
    """

    column: str
    min: Number | None = None
    max: Number | None = None
    equals: Value | None = None
    one_of: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    missing: Literal["reject", "keep"] = "reject"
    when: AnyRule | None = None
    sources: dict[str, Override] | None = Field(default=None, min_length=1)
    reason: str = ""

    @field_validator("column")
    @classmethod
    def _known(cls, name: str) -> str:
        known = rule_columns()
        if name not in known:
            raise ValueError(f"no column that a rule can read is called {name!r}{did_you_mean(name, known)}")
        return name

    @model_validator(mode="after")
    def _decides(self) -> "Rule":
        if not self.given():
            raise ValueError(f"the rule on {self.column} has no bound: give min, max, equals or one_of")
        for name, value in self._values():
            at_precision(value, self._type, f"{name} of {self.column}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the rule on {self.column} has min {self.min} above max {self.max}")
        for source in self.sources or ():
            self.of_source(source)
        return self

    def of_source(self, source: str) -> "Rule":
        """The bounds for one source, without conditions."""
        bounds = self.given() | {"column": self.column, "missing": self.missing}
        if self.sources is not None and source in self.sources:
            other = self.sources[source]
            bounds |= other.given() | ({} if other.missing is None else {"missing": other.missing})
        return Rule(**bounds)

    @property
    def table(self) -> str:
        """The table that has the column."""
        return rule_columns()[self.column].table

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the rule reads."""
        more = () if self.when is None else self.when.columns
        return tuple(dict.fromkeys([self.column, *more, *(["source"] if self.sources else [])]))

    @property
    def _type(self) -> pa.DataType:
        return rule_columns()[self.column].type

    def _values(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.given().items():
            yield from ((name, v) for v in (value if name == "one_of" else [value]))

    @property
    def text(self) -> str:
        """The rule in the words of a query, without what is for readers alone: `1 <= persons <= 4`."""
        others = [f"{name}: {self.of_source(name).text}" for name in sorted(self.sources or ())]
        text = self._bounds_text + (f" [{'; '.join(others)}]" if others else "")
        return text if self.when is None else f"{text} where {self.when.text}"

    @property
    def _bounds_text(self) -> str:
        parts = []
        low, high = (None if v is None else self.show(v) for v in (self.min, self.max))
        if low is not None and high is not None:
            parts.append(f"{low} <= {self.column} <= {high}")
        elif low is not None:
            parts.append(f"{self.column} >= {low}")
        elif high is not None:
            parts.append(f"{self.column} <= {high}")
        if self.equals is not None:
            parts.append(f"{self.column} == {self.show(self.equals)}")
        if self.one_of is not None:
            parts.append(f"{self.column} in [{', '.join(self.show(v) for v in self.one_of)}]")
        text = " and ".join(parts)
        return f"({text}) or {self.column} is None" if self.missing == "keep" else text

    def show(self, value: Any) -> str:
        """A value of the column as its bounds are shown."""
        exact = at_precision(value, self._type, self.column)
        if isinstance(exact, float) and pa.types.is_float32(self._type):
            return str(np.float32(exact))
        return repr(exact)

    def passes(self, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """(N,) bool: the rows of a column that lie within the bounds, whatever their source."""
        inside = None
        for name, compare in (("min", pc.greater_equal), ("max", pc.less_equal), ("equals", pc.equal)):
            value = getattr(self, name)
            if value is not None:
                bound = pa.scalar(at_precision(value, column.type, name), column.type)
                test = compare(column, bound)
                inside = test if inside is None else pc.and_(inside, test)
        if self.one_of is not None:
            wanted = [at_precision(v, column.type, "one_of") for v in self.one_of]
            test = pc.is_in(column, pa.array(wanted, column.type))
            inside = test if inside is None else pc.and_(inside, test)
        if self.one_of is not None and column.null_count:
            inside = pc.if_else(column.is_valid(), inside, None)
        if column.null_count:
            inside = pc.fill_null(inside, self.missing == "keep")
        return np.asarray(inside, bool)

    def keeps(self, rows: pa.Table) -> np.ndarray:
        """(N,) bool: the rows that the rule keeps, of a table that has its `columns`."""
        inside = self.passes(rows.column(self.column))
        for name in self.sources or ():
            own = truths(pc.equal(rows.column("source"), name))
            inside = np.where(own, self.of_source(name).passes(rows.column(self.column)), inside)
        return inside if self.when is None else inside | ~self.when.keeps(rows)

    def distance(self, rows: pa.Table) -> np.ndarray | None:
        """(N,) float64: how far each row is from the nearest bound, NaN where that is no number; None where
        the column holds none."""
        if not is_number(self._type):
            return None
        values = pc.cast(rows.column(self.column), pa.float64()).to_numpy()
        found = self._distance(values)
        for name in self.sources or ():
            own = truths(pc.equal(rows.column("source"), name))
            found = np.where(own, self.of_source(name)._distance(values), found)
        return found

    def _distance(self, values: np.ndarray) -> np.ndarray:
        bounds = [float(at_precision(v, self._type, n)) for n, v in self._values()]
        return np.min([np.abs(values - bound) for bound in bounds], axis=0)

    def decision(self) -> dict[str, Any]:
        """What the rule decides by, for its fingerprint: equal decisions have equal text."""
        exact = {n: at_precision(v, self._type, n) for n, v in self._values() if n != "one_of"}
        facts: dict[str, Any] = {"column": self.column, "missing": self.missing, **exact}
        if self.one_of is not None:
            facts["one_of"] = sorted({at_precision(v, self._type, "one_of") for v in self.one_of})
        if self.when is not None:
            facts["when"] = self.when.decision()
        if self.sources:
            facts["sources"] = [
                {"source": name, **self.of_source(name).decision()} for name in sorted(self.sources)
            ]
        return facts


class Group(BaseModel):
    """Keeps the rows that pass all of some rules, or any of them.

    Attributes:
        all, any: the rules, groups among them too; one of the two is given.
        when: the group is for rows that pass this one; it keeps all others.
        reason: for readers; decides nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: tuple[AnyRule, ...] | None = Field(default=None, min_length=1, max_length=MAX_RULES)
    any: tuple[AnyRule, ...] | None = Field(default=None, min_length=1, max_length=MAX_RULES)
    when: AnyRule | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _one(self) -> "Group":
        if (self.all is None) == (self.any is None):
            raise ValueError("a group has either all or any")
        return self

    @property
    def rules(self) -> "tuple[Rule | Group, ...]":
        return self.all or self.any or ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the rules read."""
        rules = [*self.rules, *([] if self.when is None else [self.when])]
        return tuple(dict.fromkeys(name for rule in rules for name in rule.columns))

    @property
    def text(self) -> str:
        """The rules in the words of a query: `(oks >= 0.8) or (persons == 1)`."""
        text = (" and " if self.all else " or ").join(f"({rule.text})" for rule in self.rules)
        return text if self.when is None else f"({text}) where {self.when.text}"

    def keeps(self, rows: pa.Table) -> np.ndarray:
        """(N,) bool: the rows that the group keeps, of a table that has its `columns`."""
        joined = np.logical_and if self.all else np.logical_or
        inside = joined.reduce([rule.keeps(rows) for rule in self.rules])
        return inside if self.when is None else inside | ~self.when.keeps(rows)

    def decision(self) -> dict[str, Any]:
        """What the group decides by, for its fingerprint."""
        facts: dict[str, Any] = {"all" if self.all else "any": [rule.decision() for rule in self.rules]}
        return facts if self.when is None else facts | {"when": self.when.decision()}


Rule.model_rebuild()
Group.model_rebuild()


def is_number(kind: pa.DataType) -> bool:
    """Whether a column's values can be weighed against each other."""
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def truths(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """(N,) bool, False for NULL."""
    return np.asarray(pc.fill_null(values, False) if values.null_count else values, bool)


def at_precision(value: Any, kind: pa.DataType, what: str) -> bool | int | float | str:
    """The value as the column can hold it. Raises ValueError where the column never can."""
    text, truth = pa.types.is_string(kind), pa.types.is_boolean(kind)
    if isinstance(value, str) != text or isinstance(value, bool) != truth:
        holds = "text" if text else "true and false" if truth else "numbers"
        raise ValueError(f"{what} is {value!r}, but the column holds {holds}")
    if text or truth:
        return value
    if pa.types.is_integer(kind):
        end = 2 ** (kind.bit_width - 1)
        if not -end <= value < end or value != int(value):
            raise ValueError(f"{what} is {value}, but the column holds whole numbers ({kind})")
        return int(value)
    try:
        with np.errstate(over="ignore"):
            exact = float(np.float32(value)) if pa.types.is_float32(kind) else float(value)
    except OverflowError:
        exact = math.inf
    if not math.isfinite(exact):
        raise ValueError(f"{what} is {value}, which {kind} cannot hold")
    return exact + 0.0  # -0.0 and 0.0 decide alike
