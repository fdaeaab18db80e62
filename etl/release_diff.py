"""Compares two releases: which rows came, went and changed, why, and how their numbers shifted."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.lake import Lake
from etl.query import Release
from schemas.errors import LakeError
from schemas.fingerprint import difference
from schemas.tables import DATASET

ALL = "(all)"
"""In the place of a source: the rows of all sources."""

REASONS = {
    "labels": "other labels",
    "generator": "another generator",
    "metric": "another metric",
    "policy": "another policy",
    "candidates": "the same rules among other images",
    "new": "no image of it to decide on before",
    "gone": "no image of it to decide on any more",
}
"""Why a row differs: of the first four the first that differs, as each shapes those after it."""

CHANGES = ("added", "removed", "changed")

_PRINTS = {"labels": "labels", "generator": "images", "policy": "policy"}
_NOT_COMPARED = ("seed", "frame")
COMPARED = tuple(
    field.name
    for field in DATASET
    if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    and not field.name.endswith("_id")
    and field.name not in _NOT_COMPARED
)
"""Columns whose distributions are compared, where both have them."""


@dataclass(frozen=True)
class ReleaseDiff:
    """What differs between two releases.

    Attributes:
        rows: a row a sample: `sample_id`; `change`: `added`, `removed` or `changed`; `reason`: one of
            `REASONS`; `rule`: what rejected it where it is absent, None where no rule did.
        unchanged: samples that are the same in both.
        causes: by reason, what differs in the ingredients.
        shifts: a row a column and source: `rows`, `mean`, `q25`, `q50`, `q75` of each release (`_a`, `_b`),
            NaN where there is no number, and `ks`, the two-sample Kolmogorov-Smirnov statistic: 0 alike, 1
            apart.
    """

    rows: pd.DataFrame
    unchanged: int
    causes: Mapping[str, str]
    shifts: pd.DataFrame

    def counts(self) -> pd.DataFrame:
        """Number of rows by change, reason and rule, the most first."""
        by = self.rows.groupby(["change", "reason", "rule"], observed=True, dropna=False).size()
        return by.rename("rows").reset_index().sort_values(["change", "rows"], ascending=[True, False])


def diff_releases(lake: Lake, a: str, b: str) -> ReleaseDiff:
    """How release `b` differs from release `a`. Names or tags; raises LakeError when one is not there."""
    old, new = _Side(lake.release(a)), _Side(lake.release(b))
    causes = _causes(old, new)
    same = np.isin(new.images, old.images)
    changed = np.isin(new.samples, old.samples) & ~same
    parts = [_rows(new.samples[changed], "changed", "labels" if "labels" in causes else "generator")]
    # A row says what labelled and what measured it, so it may change where its picture stays.
    of_row = None
    if old.prints["labels"] != new.prints["labels"]:
        of_row = "labels"
    elif {name.removeprefix("metrics_") for name in _other_metrics(old, new)} & old.metrics & new.metrics:
        of_row = "metric"
    if of_row:
        parts.append(_rows(new.samples[same], "changed", of_row))
    parts.append(_decided(new, old, causes, "added", "new"))
    parts.append(_decided(old, new, causes, "removed", "gone"))
    rows = pd.concat(parts, ignore_index=True)
    rows["rule"] = pd.api.types.union_categoricals([part["rule"] for part in parts])
    shifts = pd.DataFrame(list(_shifts(old.release, new.release)))
    return ReleaseDiff(rows, 0 if of_row else int(same.sum()), causes, shifts)


class _Side:
    """One of the two releases."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.prints: Mapping[str, str] = release.manifest()["fingerprints"]
        self.metrics = set(release.metrics)
        ids = release.to_arrow(["image_id", "sample_id"])
        self.images, self.samples = (column.to_numpy() for column in ids.columns)

    @property
    def decisions(self) -> pd.DataFrame:
        """`image_id`, `sample_id` and `rejected_by` of all images that its policy decided on."""
        table = self.release.lake.table("selections")
        where = pc.field("selection") == self.release.selection
        rows = table.read(["image_id", "sample_id", "rejected_by"], where)
        if rows.num_rows < self.release.rows:
            raise LakeError(f"table selections has lost decisions behind release {self.release.name}")
        rule = rows.column("rejected_by").dictionary_encode()
        return rows.set_column(2, "rejected_by", rule).to_pandas()


def _rows(samples: np.ndarray, change: str, reason: Any, rule: Any = None) -> pd.DataFrame:
    n = len(samples)
    if isinstance(reason, str):
        reason = np.full(n, list(REASONS).index(reason), np.int8)
    if rule is None:
        rule = _categories(np.full(n, -1, np.int8), [])
    return pd.DataFrame(
        {
            "sample_id": samples,
            "change": _categories(np.full(n, CHANGES.index(change), np.int8), CHANGES),
            "reason": _categories(reason, REASONS),
            "rule": rule,
        }
    )


def _categories(codes: np.ndarray, names: Iterable[str]) -> "pd.Categorical[Any]":
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(pd.Index(list(names), dtype=object)))


def _decided(has: _Side, lacks: _Side, causes: Mapping[str, str], change: str, unknown: str) -> pd.DataFrame:
    """Rows that one side has and the other lacks, by what the other decided on them."""
    which = ~np.isin(has.samples, lacks.samples)
    samples, images = has.samples[which], has.images[which]
    decisions = lacks.decisions
    by_sample = decisions.drop_duplicates("sample_id")
    # The same picture, or else another one of the sample.
    at = pd.Index(decisions["image_id"]).get_indexer(pd.Index(images))
    other = pd.Index(by_sample["sample_id"]).get_indexer(pd.Index(samples))
    picture = at >= 0
    at = np.where(picture | (other < 0), at, by_sample.index.to_numpy()[other])
    alike = next((r for r in ("labels", "metric", "policy") if r in causes), "candidates")
    painted = "labels" if "labels" in causes else "generator"
    codes = {reason: code for code, reason in enumerate(REASONS)}
    reason = np.where(at < 0, codes[unknown], np.where(picture, codes[alike], codes[painted]))
    rules = decisions["rejected_by"].cat
    rule = np.where(at < 0, -1, rules.codes.to_numpy()[at])
    return _rows(samples, change, reason.astype(np.int8), _categories(rule, rules.categories))


def _other_metrics(old: _Side, new: _Side) -> list[str]:
    """Metric tables that both read and that were computed otherwise."""
    shared = sorted(n for n in old.prints if n.startswith("metrics_") and n in new.prints)
    return [name for name in shared if old.prints[name] != new.prints[name]]


def _causes(old: _Side, new: _Side) -> dict[str, str]:
    """What differs between the ingredients of the two, less what follows from what comes before."""
    lake = new.release.lake
    names = {reason: [print_] for reason, print_ in _PRINTS.items()} | {"metric": _other_metrics(old, new)}
    causes = {}
    for reason in REASONS:
        pairs = [(old.prints[n], new.prints[n]) for n in names.get(reason, ())]
        said = [why for before, after in pairs if before != after and (why := _why(lake, before, after))]
        if said:
            causes[reason] = "; ".join(said)
    return causes


def _why(lake: Lake, old: str, new: str) -> str:
    """What differs between two fingerprints themselves; empty where it is only what they build on."""
    where = pc.field("fingerprint").isin([old, new])
    known = lake.table("fingerprints").read(["fingerprint", "ingredients"], where)
    texts = dict(zip(*(column.to_pylist() for column in known.columns), strict=True))
    if len(texts) < 2:
        return f"{old} -> {new}"
    own = [_without_upstream(texts[value]) for value in (old, new)]
    return "" if own[0] == own[1] else difference(*own)


def _without_upstream(ingredients: str) -> str:
    facts = json.loads(ingredients)
    return json.dumps({k: v for k, v in facts.items() if not k.startswith("upstream.")})


def _shifts(old: Release, new: Release) -> Iterator[dict[str, object]]:
    """Statistics of every column, of all rows and by source."""
    sources = [
        release.to_arrow(["source"]).column(0).dictionary_encode().to_pandas() for release in (old, new)
    ]
    names = sorted(set(sources[0].cat.categories) | set(sources[1].cat.categories))
    there = set(old.columns) & set(new.columns)
    for column in [name for name in COMPARED if name in there]:
        values = [release.to_arrow([column]).column(0).to_pandas().to_numpy() for release in (old, new)]
        for source in (ALL, *names):
            sides = values
            if source != ALL:
                sides = [v[(of == source).to_numpy()] for v, of in zip(values, sources, strict=True)]
            numbers = [np.sort(side[~np.isnan(side)]) for side in sides]
            row: dict[str, object] = {"column": column, "source": source}
            for name, side, known in zip("ab", sides, numbers, strict=True):
                row[f"rows_{name}"] = len(side)
                row[f"mean_{name}"] = known.mean(dtype=np.float64) if len(known) else np.nan
                for q in (25, 50, 75):
                    row[f"q{q}_{name}"] = np.percentile(known, q) if len(known) else np.nan
            yield {**row, "ks": ks_statistic(*numbers)}


def ks_statistic(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance between the empirical distributions of two sorted samples; NaN when one is empty."""
    if not len(a) or not len(b):
        return np.nan
    both = np.concatenate([a, b])
    share = [np.searchsorted(side, both, side="right") / len(side) for side in (a, b)]
    return float(np.abs(share[0] - share[1]).max())
