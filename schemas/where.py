"""Conditions on rows as text, such as "oks >= 0.8 and source in ('amass', 'demo')".

The text is parsed, never evaluated: comparisons of a column with constants, `in`, `is None`, `and`, `or`
and `not` become an Arrow expression, anything else is refused. NULL behaves as in SQL: a comparison with
it is neither true nor false, so the row is left out, under `not` as well.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError
from schemas.yaml_file import did_you_mean

_MAX_CHARACTERS = 100_000
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}


def parse_where(text: str, schema: pa.Schema) -> pc.Expression:
    """A condition on a table's columns as an Arrow expression.

    Constants are brought to the column's type: a bound on a float32 column is rounded to float32, so that
    every engine draws the same line.

    Raises:
        ConfigError: names the unknown column, the unknown construct or the wrong type.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"where: the condition has {len(text)} characters, {_MAX_CHARACTERS} is the most")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _Parser(text.strip(), schema).condition(tree.body, False)
    except SyntaxError as error:
        hint = "compare with ==, <, <=, >, >=, !=, in; join with and, or, not; test NULL with `is None`"
        raise ConfigError(f"where: {_brief(text)} is no condition: {error.msg}; {hint}") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"where: {_brief(text)} is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"where: {_brief(text)} is no condition: {error}") from error


class _Parser:
    """Walks the syntax tree. `negate` pushes a `not` down to the comparisons: Arrow's `is_in` is false
    for NULL, and inverting it afterwards would let NULL in."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text = text
        self.schema = schema

    def condition(self, node: ast.expr, negate: bool) -> pc.Expression:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.condition(v, negate) for v in values]
                both = isinstance(op, ast.And) != negate
                joined = parts[0]
                for part in parts[1:]:
                    joined = joined & part if both else joined | part
                return joined
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.condition(operand, not negate)
            case ast.Compare(left=left, ops=ops, comparators=right):
                return self._chain(left, ops, right, negate)
            case ast.Name() if pa.types.is_boolean(self._field(node).type):
                return ~pc.field(node.id) if negate else pc.field(node.id)
        raise self._refused(node, "a condition compares a column with a constant")

    def _chain(
        self, left: ast.expr, ops: list[ast.cmpop], right: list[ast.expr], negate: bool
    ) -> pc.Expression:
        """`0.5 <= oks < 0.8` is two comparisons."""
        terms = [left, *right]
        parts = [self._compare(a, op, b, negate) for a, op, b in zip(terms, ops, terms[1:], strict=False)]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined | part if negate else joined & part
        return joined

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr, negate: bool) -> pc.Expression:
        kind: type[ast.cmpop] = type(op)
        if isinstance(op, ast.In | ast.NotIn):
            return self._member(left, right, isinstance(op, ast.NotIn) != negate)
        if not isinstance(left, ast.Name) and isinstance(right, ast.Name):
            left, right, kind = right, left, _MIRRORED.get(kind, kind)
        if not isinstance(left, ast.Name):
            raise self._refused(left, "one side of a comparison is a column")
        column = pc.field(self._field(left).name)
        if isinstance(right, ast.Constant) and right.value is None:
            if not isinstance(op, ast.Is | ast.IsNot):
                raise self._refused(right, f"write `{left.id} is None` or `{left.id} is not None`")
            return column.is_valid() if isinstance(op, ast.IsNot) != negate else column.is_null()
        if kind not in _COMPARE:
            raise self._refused(right, "`is` goes with None alone; use ==")
        if negate:
            kind = _OPPOSITE[kind]
        return _COMPARE[kind](column, self._constant(right, self._field(left)))

    def _member(self, left: ast.expr, right: ast.expr, negate: bool) -> pc.Expression:
        if not isinstance(left, ast.Name):
            raise self._refused(left, "a column stands before `in`")
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise self._refused(right, "values in brackets stand after `in`, such as ('amass', 'demo')")
        field = self._field(left)
        found = [self._constant(item, field) for item in right.elts]
        # A value of another type is beyond the column's range: no row has it.
        values = pa.array([v.as_py() for v in found if v.type == field.type], field.type)
        column = pc.field(field.name)
        inside = column.isin(values)
        return ~inside & column.is_valid() if negate else inside

    def _field(self, node: ast.Name) -> pa.Field:
        if node.id not in self.schema.names:
            if node.id.lower() in ("null", "none"):
                raise self._refused(node, "NULL is tested with `is None` and `is not None`")
            near = did_you_mean(node.id, self.schema.names)
            raise ConfigError(f"where: no column is called {node.id!r}{near}")
        field = self.schema.field(node.id)
        if pa.types.is_nested(field.type):
            raise ConfigError(f"where: {node.id} holds an array a row; conditions take single values only")
        return field

    def _constant(self, node: ast.expr, field: pa.Field) -> pa.Scalar:
        value = self._literal(node)
        if pa.types.is_boolean(field.type):
            fits = isinstance(value, bool)
        elif pa.types.is_string(field.type):
            fits = isinstance(value, str)
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fits = False
        if not fits:
            raise ConfigError(f"where: column {field.name} holds {field.type}, {value!r} is none")
        if pa.types.is_floating(field.type):
            with np.errstate(over="ignore"):
                value = float(np.float32(value)) if pa.types.is_float32(field.type) else float(value)
            return pa.scalar(value, field.type)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            # A number beyond the column's range is a fair question with a clear answer.
            narrow = abs(value) < 2 ** (field.type.bit_width - 1)
            wide = -(2**63) <= value < 2**63
            return pa.scalar(value, field.type if narrow else pa.int64()) if wide else pa.scalar(float(value))
        return pa.scalar(value)

    def _literal(self, node: ast.expr) -> bool | int | float | str:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Constant(value=None):
                raise self._refused(node, "NULL is tested with `is None` and `is not None`")
            case ast.Name():
                raise self._refused(node, "compare a column with a constant; text goes in quotes")
        raise self._refused(node, "a constant is a number, a text in quotes, True or False")

    def _refused(self, node: ast.expr, why: str) -> ConfigError:
        part = ast.get_source_segment(self.text, node) or type(node).__name__
        return ConfigError(f"where: {_brief(part)} cannot stand there: {why}")


def _brief(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
