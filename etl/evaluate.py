"""Compares two generators on the same samples: what one pipeline's images measure against another's.

Both have the same poses, captions, cameras and seeds, so every difference is paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.lake import Lake
from etl.preferences import joined, seed_groups, sequences_of
from etl.stages import Stages
from etl.table import computed_by
from schemas.errors import InputError
from schemas.fingerprint import difference
from schemas.ids import mix
from schemas.pipeline import Pipeline
from udfs.bootstrap import Interval, mean_interval
from udfs.picture import read_picture
from udfs.threads import each
from udfs.variety import seed_variety

GOOD_OKS = 0.8
"""What the paper keeps."""

SIDES = ("base", "aligned")
COLORS = ("top_color", "bottom_color", "shoes_color", "background_color")
VARIETY_SAMPLES = 1000
"""Samples whose pictures are opened to compare their seeds, at the most."""

RESAMPLES = 10_000

ENOUGH_UNITS = 8
"""Of fewer, the percentile bootstrap's intervals are far too narrow."""


@dataclass(frozen=True)
class Measure:
    """One number of both generators.

    Attributes:
        name: what was measured.
        kind: `score` from 0 to 1, `share`, or `levels` of 255.
        base, aligned: means.
        difference: aligned less base, with its 95 % interval.
        n: images, or pairs of seeds, on each side.
        units: poses or sequences that these are of: what the bootstrap drew from.
    """

    name: str
    kind: str
    base: float
    aligned: float
    difference: Interval
    n: int
    units: int

    @property
    def enough(self) -> bool:
        """Whether its interval may be trusted."""
        return self.units >= ENOUGH_UNITS


@dataclass(frozen=True)
class Evaluation:
    """What two generators make of the same samples.

    Attributes:
        images: on each side; `poses` is how many poses they show.
        unit: what the bootstrap draws; `units` is how many of them there are.
        left_out: samples that one side has no measured image of.
        nobody: images in which nobody was found, of base and aligned; their OKS counts as 0.
        measures: OKS first.
        fingerprints: of the samples, and of both sides' images.
        rows: one row a sample: what the side-by-side sheet shows.
    """

    images: int
    poses: int
    unit: Literal["pose", "sequence"]
    units: int
    left_out: int
    nobody: tuple[int, int]
    measures: tuple[Measure, ...]
    fingerprints: Mapping[str, str]
    rows: pd.DataFrame

    @property
    def oks(self) -> Measure:
        return self.measures[0]

    def verdict(self) -> Iterator[str]:
        """Whether OKS rose beyond its interval, and what fell beyond its own."""
        oks = self.oks.difference
        said = (
            f"compared on too few {self.unit}s to say" if not self.oks.enough
            else "higher beyond the 95 % interval" if oks.low > 0
            else "lower beyond the 95 % interval" if oks.high < 0
            else "no different as far as these images can tell"
        )  # fmt: skip
        yield f"Mean OKS of the aligned model is {said}."
        fallen = [m.name for m in self.measures[1:] if m.enough and m.difference.high < 0]
        if fallen:
            yield f"Fallen beyond the 95 % interval: {'; '.join(fallen)}."

    def facts(self) -> dict[str, Any]:
        """Everything but the rows, for JSON."""
        return {
            "images": self.images,
            "poses": self.poses,
            "left_out": self.left_out,
            "nobody_found": {"base": self.nobody[0], "aligned": self.nobody[1]},
            "interval": {
                "level": 0.95, "method": f"percentile bootstrap over {self.unit}s", "units": self.units,
                "resamples": RESAMPLES,
            },
            "measures": [
                {
                    "name": m.name, "kind": m.kind, "n": m.n, "units": m.units,
                    "base": m.base, "aligned": m.aligned,
                    "difference": m.difference.mean, "low": m.difference.low, "high": m.difference.high,
                }
                for m in self.measures
            ],
            "fingerprints": dict(self.fingerprints),
        }  # fmt: skip

    def table(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """Measure with its unit, base, aligned, difference, 95 % interval, n; as text."""
        for m in self.measures:
            d = m.difference
            interval = (
                f"{_text(d.low, m.kind, '+')} to {_text(d.high, m.kind, '+')}{'' if m.enough else ' *'}"
            )
            means = _text(m.base, m.kind), _text(m.aligned, m.kind), _text(d.mean, m.kind, "+")
            unit = {"share": ", %", "levels": ", levels"}.get(m.kind, "")
            yield f"{m.name}{unit}", *means, interval, m.n

    def notes(self) -> Iterator[str]:
        """What a reader of the table must know."""
        yield (
            f"{self.images:,} images of {self.poses:,} poses on each side, from the same captions, control "
            f"images and seeds; intervals are bootstrapped over {self.units:,} {self.unit}s. Seeds differ: "
            "mean absolute difference of the pixels of two seeds of one sample, of 255 levels."
        )
        if not all(m.enough for m in self.measures):
            yield (
                f"* Of fewer than {ENOUGH_UNITS} {self.unit}s, too few for an interval to be trusted: it is "
                "narrower than it should be."
            )
        yield (
            f"Images in which nobody was found count as OKS 0: {self.nobody[0]:,} of base, "
            f"{self.nobody[1]:,} of aligned."
        )
        if self.left_out:
            yield f"{self.left_out:,} samples were left out: one side has no measured image of them."

    def markdown(self) -> str:
        lines = ["| measure | base | aligned | difference | 95 % interval | n |", "|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in self.table()]
        return "\n".join([*lines, "", *self.notes(), ""])


@dataclass(frozen=True)
class Side:
    """What made one side's images, and what measured them: metric table to the computation to use."""

    image_fingerprint: str
    metric_fingerprints: Mapping[str, str]

    @classmethod
    def of(cls, stages: Stages) -> "Side":
        return cls(stages.images.fingerprint.value, {m.table: m.fingerprint.value for m in stages.metrics})


def evaluate_pipelines(
    lake: Lake, base: Pipeline, aligned: Pipeline, unit: Literal["pose", "sequence"] | None = None
) -> Evaluation:
    """Compares the images of two pipelines that differ in their generator alone; see `evaluate`.

    Raises InputError when they have not the same samples, or encode or measure their images differently.
    """
    one, other = (Stages.latest(lake, pipeline, as_run=True) for pipeline in (base, aligned))
    if one.sample_fingerprints != other.sample_fingerprints:
        raise InputError(
            "the two pipelines have different plans or poses: only samples of one can be compared"
        )
    if one.labels.fingerprint.value != other.labels.fingerprint.value:
        raise InputError("the two pipelines have different bodies, so their images show different things")
    if base.image != aligned.image:
        raise InputError(
            "the two pipelines write their images differently (`image`), which metrics see: only the "
            "generator may differ"
        )
    for metric in one.metrics:
        for twin in other.metrics:
            # By themselves: they build on images, which do differ.
            facts, others = metric.udf.fingerprint(), twin.udf.fingerprint()
            if metric.table == twin.table and facts != others:
                raise InputError(
                    f"the two pipelines measure {metric.name} differently "
                    f"({difference(facts.json, others.json)}): only the generator may differ"
                )
    return evaluate(
        lake,
        sample_fingerprints=one.sample_fingerprints,
        label_fingerprint=one.labels.fingerprint.value,
        base=Side.of(one),
        aligned=Side.of(other),
        unit=unit,
    )


def evaluate(
    lake: Lake,
    *,
    sample_fingerprints: Sequence[str],
    label_fingerprint: str,
    base: Side,
    aligned: Side,
    unit: Literal["pose", "sequence"] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Compares two sides' images of the same samples.

    All comes from tables but the variety between seeds, for which two pictures each of up to
    `VARIETY_SAMPLES` samples are opened. Colours are compared where both sides measured them.

    sample_fingerprints, label_fingerprint: the plans, and the labels with the control images. unit: what
    the bootstrap draws: what was held out as a whole, since frames of one sequence resemble each other; by
    default sequences where there are enough of them, else poses.
    seed, resamples: of the bootstrap. Raises InputError when no sample has a measured image on both sides.
    """
    names = ["sample_id", "pose_id", "caption_id", "draw"]
    rows = lake.table("samples").read(names, computed_by(sample_fingerprints)).to_pandas()
    rows = rows.drop_duplicates("sample_id")  # one that two plans hold is the same in both
    total = len(rows)
    for name, made in zip(SIDES, (base, aligned), strict=True):
        images = _measured_images(lake, made)
        renamed = images.rename(columns={c: f"{name}_{c}" for c in images.columns if c != "sample_id"})
        rows = rows.merge(renamed, on="sample_id")
    if rows.empty:
        raise InputError(
            f"none of {total:,} samples has a measured image on both sides; `posedreamer run` makes them"
        )
    labels = lake.table("labels").read(
        ["sample_id", "control_path", "image_height", "image_width"], computed_by([label_fingerprint])
    )
    rows = rows.merge(labels.to_pandas(), on="sample_id").sort_values("sample_id").reset_index(drop=True)

    nobody = [int(rows[f"{side}_oks"].isna().sum()) for side in SIDES]
    for side in SIDES:
        rows[f"{side}_oks"] = rows[f"{side}_oks"].fillna(0.0)
    poses = rows["pose_id"].to_numpy()
    if unit != "pose":
        rows["unit"] = sequences_of(lake, poses)
        unit = unit or ("sequence" if rows["unit"].nunique() >= ENOUGH_UNITS else "pose")
    if unit == "pose":
        rows["unit"] = poses
    measures = [
        _compare(name, kind, a, b, rows["unit"].to_numpy(), seed, resamples)
        for name, kind, a, b in _measured(rows)
    ]
    varied = _variety(lake, rows, sample_fingerprints)
    for part in ("person", "background"):
        a, b = (varied[f"{side}_{part}"] for side in SIDES)
        name = f"seeds differ, {part}"
        measures.append(_compare(name, "levels", a, b, varied["unit"], seed, resamples))
    return Evaluation(
        len(rows),
        rows["pose_id"].nunique(),
        unit,
        rows["unit"].nunique(),
        total - len(rows),
        (nobody[0], nobody[1]),
        tuple(m for m in measures if m is not None),
        {
            "samples": joined(sample_fingerprints),
            "base": base.image_fingerprint,
            "aligned": aligned.image_fingerprint,
        },
        rows,
    )


def _measured_images(lake: Lake, side: Side) -> pd.DataFrame:
    """Measured images of one side: `sample_id`, `image_path`, `oks`, `persons`, `keypoints` and colours."""
    columns = ["image_id", "sample_id", "image_path"]
    rows = lake.table("images").read(columns, computed_by([side.image_fingerprint])).to_pandas()
    for table, value in side.metric_fingerprints.items():
        if table == "metrics_colors":
            names = [f"{c}_right" for c in COLORS]
        elif table == "metrics_keypoints":
            names = ["oks", "persons", "keypoints"]
        else:
            continue
        measured = lake.table(table).read(["image_id", *names], computed_by([value]))
        rows = rows.merge(measured.to_pandas(), on="image_id")
    return rows.drop(columns="image_id")


def _measured(rows: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Name, kind, and both sides' values of every sample, NaN where there is none."""

    def both(column: str) -> list[np.ndarray]:
        return [rows[f"{side}_{column}"].to_numpy() for side in SIDES]

    base, aligned = both("oks")
    yield "mean OKS", "score", base, aligned
    base, aligned = (oks.astype(np.float32) >= np.float32(GOOD_OKS) for oks in (base, aligned))
    yield f"OKS at least {GOOD_OKS}", "share", base, aligned
    base, aligned = (persons == 1 for persons in both("persons"))
    yield "exactly one person", "share", base, aligned
    if not {f"{side}_{COLORS[0]}_right" for side in SIDES} <= set(rows.columns):
        return
    rights = [[side.astype(np.float64) for side in both(f"{color}_right")] for color in COLORS]
    for color, (base, aligned) in zip(COLORS, rights, strict=True):
        yield f"{color.removesuffix('_color')} colour right", "share", base, aligned
    known = ~np.isnan(np.array(rights))
    shares = np.where(known, rights, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    yield "colours right", "share", shares[0], shares[1]


def _compare(
    name: str, kind: str, base: Any, aligned: Any, units: Any, seed: int, resamples: int
) -> Measure | None:
    """None where nothing was measured on both sides."""
    base, aligned = np.asarray(base, np.float64), np.asarray(aligned, np.float64)
    known = ~(np.isnan(base) | np.isnan(aligned))
    base, aligned = base[known], aligned[known]
    units = np.asarray(units)[known]
    difference = mean_interval(aligned - base, units, resamples=resamples, seed=seed)
    if difference is None:
        return None
    means = float(base.mean()), float(aligned.mean())
    return Measure(name, kind, *means, difference, len(base), len(np.unique(units)))


def _variety(lake: Lake, rows: pd.DataFrame, samples: Sequence[str]) -> dict[str, np.ndarray]:
    """How much two seeds of one sample differ, on both sides; pictures of up to VARIETY_SAMPLES samples."""
    group = seed_groups(lake, pa.array(rows["sample_id"].to_numpy()), samples)[0]
    ordered = rows.assign(group=group).sort_values(["group", "draw"], kind="stable")
    place = ordered.groupby("group").cumcount()
    first = ordered[place == 0].set_index("group")
    second = ordered[place == 1].set_index("group")
    first = first.loc[second.index]
    # Which of many are looked at follows from their ids: no choice of anybody's.
    chosen = np.argsort(mix(first["sample_id"].to_numpy(), "variety"), kind="stable")[:VARIETY_SAMPLES]
    first, second = first.iloc[chosen], second.iloc[chosen]
    found = {
        f"{side}_{part}": np.full(len(first), np.nan) for side in SIDES for part in ("person", "background")
    }

    def look(i: int) -> None:
        size = (int(first["image_height"].iloc[i]), int(first["image_width"].iloc[i]))
        body = read_picture(lake.store, first["control_path"].iloc[i], size).max(2) > 0
        for side in SIDES:
            one, other = (
                read_picture(lake.store, f[f"{side}_image_path"].iloc[i], size) for f in (first, second)
            )
            found[f"{side}_person"][i], found[f"{side}_background"][i] = seed_variety(one, other, body)

    each(look, len(first))
    return {**found, "unit": first["unit"].to_numpy()}


def _text(value: float, kind: str, sign: str = "") -> str:
    """Shares in per cent, their differences in percentage points."""
    if kind == "share":
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.1f}" if kind == "levels" else f"{value:{sign}.3f}"
