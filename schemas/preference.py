"""Which of several images of one sample is preferred to which: by a score, as preference training learns it.

Scores, gaps and bounds are compared at the precision of their float32 columns, so whoever applies a bound
to the stored numbers finds the same pairs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.fingerprint import Fingerprint, fingerprint
from schemas.rule import Number, Rule
from schemas.rule_columns import metric_columns
from schemas.yaml_file import did_you_mean, load_yaml

VERSION = 1
"""Raise it when the same policy pairs otherwise."""

OUTCOMES = (
    "paired",
    "fewer than two measured images",
    "no image passes the rules for winners",
    "the best is under min_winner",
    "the gap is under min_gap",
    "its sequence has enough pairs",
)
"""What becomes of a group of images; each has the first that applies."""
PAIRED, FEW, UNFIT, POOR, CLOSE, CAPPED = range(6)


class PreferencePolicy(BaseModel):
    """How pairs are chosen among the images of one sample that differ in their seed alone.

    The best image that passes the rules is preferred to the worst, the second best to the second worst,
    and so on, as long as score and gap suffice.

    Attributes:
        score: the metric column that says which is better; higher is.
        min_gap: least difference of the two scores.
        min_winner: least score of the preferred image.
        max_pairs: of one sample.
        max_pairs_per_sequence: of all samples of a pose sequence, those with the widest gaps; None: all.
        missing: an image whose score is NULL, because nobody was found in it, counts as `zero`, or is left
            out with `skip`.
        winner: rules that the preferred image must pass as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    score: str = "oks"
    min_gap: Number = Field(default=0.05, gt=0)
    min_winner: Number = 0.5
    max_pairs: int = Field(default=1, ge=1, le=500)
    max_pairs_per_sequence: int | None = Field(default=None, ge=1)
    missing: Literal["zero", "skip"] = "zero"
    winner: tuple[Rule, ...] = ()

    @field_validator("score")
    @classmethod
    def _a_number(cls, name: str) -> str:
        known = {n for n, (_, field) in metric_columns().items() if pa.types.is_floating(field.type)}
        if name not in known:
            raise ValueError(f"no metric called {name!r} is a score{did_you_mean(name, known)}")
        return name

    @field_validator("winner")
    @classmethod
    def _of_metrics(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for rule in rules:
            if rule.column not in metric_columns() or rule.when is not None or rule.sources:
                raise ValueError(f"`{rule.text}`: a rule for winners is bounds on one metric alone")
        return rules

    @property
    def fingerprint(self) -> Fingerprint:
        """Covers all that decides, not names, descriptions and reasons."""
        facts = self.model_dump(exclude={"name", "description", "winner"})
        facts |= {n: float(np.float32(facts[n])) for n in ("min_gap", "min_winner")}
        return fingerprint(
            "preference policy", VERSION, facts | {"winner": [r.decision() for r in self.winner]}
        )

    @property
    def tables(self) -> tuple[str, ...]:
        """Metric tables that it reads."""
        return tuple(sorted({metric_columns()[self.score][0], *(rule.table for rule in self.winner)}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Metric columns that it reads."""
        return tuple(dict.fromkeys([self.score, *(rule.column for rule in self.winner)]))


@dataclass(frozen=True)
class Pairs:
    """What a policy chose among G groups of images.

    Attributes:
        group: (P,) group of each pair, ascending.
        winner, loser: (P,) rows of the images.
        winner_score, loser_score, gap: (P,) float32.
        outcome: (G,) index into OUTCOMES.
    """

    group: np.ndarray
    winner: np.ndarray
    loser: np.ndarray
    winner_score: np.ndarray
    loser_score: np.ndarray
    gap: np.ndarray
    outcome: np.ndarray


def choose_pairs(
    policy: PreferencePolicy, group: np.ndarray, sequence: np.ndarray, ids: np.ndarray, columns: pa.Table
) -> Pairs:
    """Pairs of N measured images.

    Of equal scores the image with the smaller id comes first, so the answer does not depend on the order
    of the rows.

    Args:
        group: (N,) int64 from 0 on: images that differ in their seed alone.
        sequence: (G,) which pose sequence each group belongs to, any integers.
        ids: (N,) int64 image ids.
        columns: N rows of the policy's metric columns.
    """
    groups = len(sequence)
    score = columns.column(policy.score).to_numpy(zero_copy_only=False).astype(np.float32)
    missing = np.isnan(score)
    counts = ~missing if policy.missing == "skip" else np.ones(len(score), bool)
    score = np.where(missing, np.float32(0), score)
    fit = counts.copy()
    for rule in policy.winner:
        fit &= rule.passes(columns.column(rule.column))

    rows = pd.DataFrame({"row": np.arange(len(ids)), "group": group, "score": score, "id": ids})
    best = _ranked(rows[fit], ascending=False)
    worst = _ranked(rows[counts], ascending=True)
    pairs = best.merge(worst, on=["group", "rank"], suffixes=("_winner", "_loser"))
    # Later ranks are closer, so the pairs that are left are the first of their group.
    gap = (pairs["score_winner"] - pairs["score_loser"]).to_numpy(np.float32)
    wide = gap >= np.float32(policy.min_gap)
    good = (pairs["score_winner"] >= np.float32(policy.min_winner)).to_numpy()
    pairs = pairs.assign(gap=gap)[wide & good & (pairs["rank"] < policy.max_pairs).to_numpy()]

    outcome = np.full(groups, CLOSE, np.int64)
    top = np.full(groups, -np.inf, np.float32)
    np.maximum.at(top, group[fit], score[fit])
    outcome[top < np.float32(policy.min_winner)] = POOR
    outcome[np.bincount(group[fit], minlength=groups) == 0] = UNFIT
    outcome[np.bincount(group[counts], minlength=groups) < 2] = FEW
    if policy.max_pairs_per_sequence is not None:
        outcome[pairs["group"]] = CAPPED
        pairs = _widest(pairs.assign(sequence=sequence[pairs["group"]]), policy.max_pairs_per_sequence)
    outcome[pairs["group"]] = PAIRED
    return Pairs(
        pairs["group"].to_numpy(),
        pairs["row_winner"].to_numpy(),
        pairs["row_loser"].to_numpy(),
        pairs["score_winner"].to_numpy(np.float32),
        pairs["score_loser"].to_numpy(np.float32),
        pairs["gap"].to_numpy(np.float32),
        outcome,
    )


def _widest(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """The pairs of each sequence with the widest gaps, in the order in which they came."""
    ordered = pairs.sort_values(["gap", "id_winner", "id_loser"], ascending=[False, True, True])
    kept = ordered.groupby("sequence", sort=False).cumcount() < count
    return pairs.loc[np.sort(ordered.index[kept])]


def _ranked(rows: pd.DataFrame, ascending: bool) -> pd.DataFrame:
    """The rows with `rank`, their place from 0 on within their group."""
    rows = rows.sort_values(["group", "score", "id"], ascending=[True, ascending, True], kind="stable")
    return rows.assign(rank=rows.groupby("group", sort=False).cumcount())


def parse_preference_policy(text: str, name: str) -> PreferencePolicy:
    """The policy in a YAML text; `name` is what messages call the file. Raises ConfigError."""
    return load_yaml(text, name, PreferencePolicy)
