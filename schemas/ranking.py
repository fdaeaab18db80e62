"""Which of many images are kept: the best by a score, of all that are left or of each class of them."""

from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.rule import Number, is_number
from schemas.rule_columns import class_columns, rule_columns
from schemas.yaml_file import did_you_mean


class Ranking(BaseModel):
    """Keeps the best of the rows that every rule before it keeps; of equal scores the lower `image_id`.

    Attributes:
        by: the column that says which is better; a number.
        top: how many to keep.
        quantile: the share that is dropped from the worst end: 0.25 keeps the better three quarters.
        at_most: how many to keep of each class.
        per: the column whose values are the classes, such as `sequence`, `source`, `pose_id` or an attribute
            that captions name; for `at_most` and `quantile`. Rows where it is NULL are in no class, and kept.
        best: which end of the score is the better one.
        missing: rows without a score are rejected, or rank below all others.
        reason: for readers; decides nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    top: int | None = Field(default=None, ge=1, strict=True)
    quantile: Number | None = Field(default=None, gt=0, lt=1)
    at_most: int | None = Field(default=None, ge=1, strict=True)
    per: str | None = None
    best: Literal["highest", "lowest"] = "highest"
    missing: Literal["reject", "keep"] = "reject"
    reason: str = ""

    @field_validator("by")
    @classmethod
    def _a_score(cls, name: str) -> str:
        known = [n for n, c in rule_columns().items() if is_number(c.type)]
        if name not in known:
            raise ValueError(f"no column called {name!r} is a score{did_you_mean(name, known)}")
        return name

    @field_validator("per")
    @classmethod
    def _a_class(cls, name: str | None) -> str | None:
        if name is not None and name not in (known := class_columns()):
            raise ValueError(f"no column of classes is called {name!r}{did_you_mean(name, known)}")
        return name

    @model_validator(mode="after")
    def _one(self) -> "Ranking":
        if sum(v is not None for v in (self.top, self.quantile, self.at_most)) != 1:
            raise ValueError("a ranking has one of top, quantile and at_most")
        if self.at_most is not None and self.per is None:
            raise ValueError("at_most lacks `per`: give the column whose values are the classes, or use top")
        if self.top is not None and self.per is not None:
            raise ValueError("top takes no `per`: use at_most")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the ranking reads. A sequence's name is its own within its source alone."""
        classes = ["source"] if self.per == "sequence" else []
        return tuple(dict.fromkeys([self.by, *([self.per] if self.per else []), *classes]))

    @property
    def text(self) -> str:
        """In words: `top 1000 by oks`, `at most 3 per sequence by oks`."""
        what = (
            f"top {self.top}" if self.top is not None
            else f"at most {self.at_most}" if self.at_most is not None
            else f"all but the worst {self.quantile}"
        )  # fmt: skip
        per = "" if self.per is None else f" per {self.per}"
        by = f" by {'lowest ' if self.best == 'lowest' else ''}{self.by}"
        return what + per + by + (", unmeasured last" if self.missing == "keep" else "")

    def keeps(self, rows: pa.Table, left: np.ndarray) -> np.ndarray:
        """(N,) bool: the rows to keep of those that are left.

        rows: `image_id` and the ranking's `columns`. left: (N,) bool.
        """
        scores = rows.column(self.by)
        known = scores.is_valid().to_numpy()
        at = np.flatnonzero(left if self.missing == "keep" else left & known)
        kept = np.zeros(len(left), bool)
        classes = self._classes(rows)
        if classes is not None:
            kept[at] = classes[at] < 0
            at = at[classes[at] >= 0]
        values = pc.fill_null(scores, 0).to_numpy()[at].astype(np.float64)
        worse = np.where(known[at], values if self.best == "lowest" else -values, np.inf)
        group = np.zeros(len(at), np.int64) if classes is None else classes[at]
        order = np.lexsort((rows.column("image_id").to_numpy()[at], worse, group))
        sizes = np.bincount(group)
        group = group[order]
        rank = np.arange(len(at)) - np.concatenate([[0], np.cumsum(sizes)])[group]
        kept[at[order[rank < self._room(sizes)[group]]]] = True
        return kept

    def _room(self, sizes: np.ndarray) -> np.ndarray:
        """How many to keep of each class."""
        if self.quantile is None:
            return np.full(len(sizes), self.top if self.at_most is None else self.at_most)
        # In binary, 0.29 of 100 is less than 29.
        share = Decimal(repr(self.quantile))
        each, place = np.unique(sizes, return_inverse=True)
        return np.array([int(n) - int(share * int(n)) for n in each], np.int64)[place]

    def _classes(self, rows: pa.Table) -> np.ndarray | None:
        """(N,) int64 class of each row, -1 where it has none."""
        if self.per is None:
            return None
        codes = _codes(rows.column(self.per))
        if self.per != "sequence":
            return codes
        sources = _codes(rows.column("source"))
        return np.unique(codes * (sources.max(initial=0) + 1) + sources, return_inverse=True)[1]

    def decision(self) -> dict[str, Any]:
        """What the ranking decides by, for its fingerprint."""
        return self.model_dump(exclude={"reason"}, exclude_none=True)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
