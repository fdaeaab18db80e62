"""What makes an image good enough: rules applied to measured facts.

Rules on single rows come first; rankings, which weigh the rows that are left against each other, follow and
are applied in their order.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from schemas.errors import ConfigError
from schemas.fingerprint import Fingerprint, fingerprint
from schemas.ranking import Ranking
from schemas.rule import MAX_RULES, Group, Rule, kind_of
from schemas.rule_columns import metric_columns, rule_columns
from schemas.yaml_file import did_you_mean, load_yaml

VERSION = 1
"""Raise it when the same rules decide otherwise."""

_BOUNDS = ("min", "max", "equals")


def _kind(rule: Any) -> str:
    keys = ("top", "quantile", "at_most", "by")
    ranks = isinstance(rule, Ranking) or (isinstance(rule, dict) and any(key in rule for key in keys))
    return "ranking of rows" if ranks else kind_of(rule)


PolicyRule = Annotated[
    Annotated[Rule, Tag("single rule")]
    | Annotated[Group, Tag("group of rules")]
    | Annotated[Ranking, Tag("ranking of rows")],
    Discriminator(_kind),
]


class Policy(BaseModel):
    """Ordered rules; an image is kept when it passes all of them.

    Attributes:
        name: what selections and releases call it.
        description: for readers; decides nothing.
        rules: bounds on single images and groups of them (`schemas.rule`), then rankings and caps
            (`schemas.ranking`), each of what all rules before it keep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    rules: tuple[PolicyRule, ...] = Field(max_length=MAX_RULES)

    @field_validator("rules")
    @classmethod
    def _rows_first(cls, rules: tuple[PolicyRule, ...]) -> tuple[PolicyRule, ...]:
        ranked = [isinstance(rule, Ranking) for rule in rules]
        if ranked != sorted(ranked):
            late = rules[ranked.index(True) + ranked[ranked.index(True) :].index(False)]
            raise ValueError(
                f"`{late.text}` stands after a ranking: rankings come last, as they are applied to what all "
                "other rules keep"
            )
        return rules

    @property
    def fingerprint(self) -> Fingerprint:
        """Covers all that decides: rules and their order, not names, descriptions and reasons."""
        return fingerprint("policy", VERSION, {"rules": [rule.decision() for rule in self.rules]})

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the rules read."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.columns))

    @property
    def tables(self) -> tuple[str, ...]:
        """Metric tables that the rules read."""
        known = metric_columns()
        return tuple(sorted({known[name][0] for name in self.columns if name in known}))

    def place_of(self, column: str) -> int:
        """Which rule has the bound that `with_bound` changes. Raises ConfigError unless it is one."""
        name, bound = _split(column)
        found = [(i, rule) for i, rule in enumerate(self.rules) for rule in _on(rule, name)]
        if not found:
            known = {rule.column for top in self.rules for rule in _on(top, None)}
            hint = did_you_mean(name, known) if name in rule_columns() or known else ""
            raise ConfigError(f"policy {self.name} has no rule on {name}{hint}")
        if len(found) > 1:
            raise ConfigError(
                f"policy {self.name} has {len(found)} rules on {name}: change the one that is meant in a file"
            )
        place, rule = found[0]
        if bound is None and sum(b in rule.given() for b in _BOUNDS) != 1:
            given = " and ".join(rule.given())
            raise ConfigError(f"the rule on {name} has {given}: say which, such as {name}.min=1")
        return place

    def with_bound(self, column: str, value: float | str | bool) -> "Policy":
        """The policy with another bound in the one rule on a column; exceptions for sources stay.

        column: `oks`, or `persons.max` where the rule has several bounds or shall get this one. Raises
        ConfigError where that is no single rule, or the value none for it.
        """
        place = self.place_of(column)
        name, bound = _split(column)

        def change(rule: Rule) -> Rule:
            which = bound or next(b for b in _BOUNDS if b in rule.given())
            return Rule.model_validate(rule.model_dump() | {which: value})

        rules = list(self.rules)
        try:
            rules[place] = _replaced(rules[place], name, change)
        except ValidationError as error:
            what = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{column} = {value}: {what}") from error
        words = re.sub(r"[^A-Za-z0-9._-]", "_", f"{self.name}-{column}-{value}")
        return self.model_copy(update={"rules": tuple(rules), "name": words[:64]})


@dataclass(frozen=True)
class Decision:
    """What a policy says of N rows with its R rules.

    Attributes:
        keep: (N,) bool.
        first: (N,) int16, index of the first rule that rejects the row; -1 where it is kept.
        alone: (R,) int64, rows that each rule would reject by itself.
    """

    keep: np.ndarray
    first: np.ndarray
    alone: np.ndarray


def decide(policy: Policy, columns: pa.Table) -> Decision:
    """Applies a policy to N rows.

    columns: the policy's `columns`, and `image_id` where it ranks.
    """
    first = np.full(columns.num_rows, -1, np.int16)
    alone = np.zeros(len(policy.rules), np.int64)
    left = np.ones(columns.num_rows, bool)
    for index, rule in enumerate(policy.rules):
        if isinstance(rule, Ranking):
            kept = rule.keeps(columns, left)
            everything = kept if left.all() else rule.keeps(columns, np.ones_like(left))
            alone[index] = len(left) - np.count_nonzero(everything)
        else:
            kept = rule.keeps(columns)
            alone[index] = len(left) - np.count_nonzero(kept)
        first[left & ~kept] = index
        left &= kept
    return Decision(left, first, alone)


def parse_policy(text: str, name: str) -> Policy:
    """The policy in a YAML text; `name` is what messages call the file. Raises ConfigError."""
    return load_yaml(text, name, Policy)


def _split(column: str) -> tuple[str, str | None]:
    name, dot, bound = column.partition(".")
    if dot and bound not in _BOUNDS:
        raise ConfigError(f"{column}: a column has the bounds {', '.join(_BOUNDS)}, and no {bound!r}")
    return name, bound or None


def _on(rule: Rule | Group | Ranking, column: str | None) -> Iterator[Rule]:
    """The single rules on a column, or on any, in groups too; conditions are none."""
    if isinstance(rule, Group):
        for inner in rule.rules:
            yield from _on(inner, column)
    elif isinstance(rule, Rule) and column in (None, rule.column):
        yield rule


def _replaced(rule: Any, column: str, change: Callable[[Rule], Rule]) -> Any:
    if isinstance(rule, Group):
        name = "all" if rule.all else "any"
        inner = tuple(_replaced(r, column, change) for r in rule.rules)
        return rule.model_copy(update={name: inner})
    return change(rule) if isinstance(rule, Rule) and rule.column == column else rule
