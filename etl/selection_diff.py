"""What another policy would keep, and by which rule; pictures of those nearest to the thresholds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from etl.filter import Measured
from etl.lake import Lake
from etl.measured import labels_of
from etl.table import computed_by
from schemas.errors import ConfigError, InputError
from schemas.policy import Decision, Policy, decide
from schemas.ranking import Ranking
from schemas.rule import Group, Rule

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Change:
    """Images that come or go by one rule: `goes` by a rule of the other policy, `comes` without one of the
    first.

    Attributes:
        direction: `comes` or `goes`.
        place: of the rule in its policy.
        rule: the rule.
        count: number of images.
    """

    direction: str
    place: int
    rule: str
    count: int


@dataclass(frozen=True)
class SelectionDiff:
    """Two policies on the same N images.

    Attributes:
        rows: what they read, by image id.
        a, b: the policies, and what they say of each image.
    """

    rows: pa.Table
    a: Policy
    b: Policy
    in_a: Decision
    in_b: Decision

    @property
    def kept(self) -> dict[str, int]:
        """Number of images kept by both, by one alone, by none."""
        a, b = self.in_a.keep, self.in_b.keep
        cases = {"both": a & b, "only the first": a & ~b, "only the second": b & ~a, "neither": ~(a | b)}
        return {name: int(mask.sum()) for name, mask in cases.items()}

    @property
    def changes(self) -> tuple[Change, ...]:
        """What comes and goes, by rule, in the order of the rules."""
        return tuple(self._changes())

    def _changes(self) -> Iterator[Change]:
        for direction in ("goes", "comes"):
            policy, decision = self.of(direction)
            counts = np.bincount(decision.first[self.changed(direction)], minlength=len(policy.rules))
            for place, count in enumerate(counts):
                if count:
                    yield Change(direction, place, policy.rules[place].text, int(count))

    def of(self, direction: str) -> tuple[Policy, Decision]:
        """The policy that rejects what comes or goes."""
        return (self.b, self.in_b) if direction == "goes" else (self.a, self.in_a)

    def changed(self, direction: str) -> np.ndarray:
        """(N,) bool: the images that come, or go."""
        a, b = self.in_a.keep, self.in_b.keep
        return a & ~b if direction == "goes" else b & ~a

    def table(self) -> pa.Table:
        """All images that come or go with `change`, `rule` and the columns that the policies read."""
        parts = []
        for direction in ("goes", "comes"):
            policy, decision = self.of(direction)
            at = np.flatnonzero(self.changed(direction))
            texts = pa.array([rule.text for rule in policy.rules], pa.string())
            rows = self.rows.take(pa.array(at))
            rows = rows.add_column(0, "rule", texts.take(pa.array(decision.first[at])))
            parts.append(rows.add_column(0, "change", pa.repeat(direction, len(at))))
        return pa.concat_tables(parts)


def compare(rows: pa.Table, a: Policy, b: Policy) -> SelectionDiff:
    """Decides on the same rows with both policies; rows as `etl.filter.Measured.rows` reads them for both."""
    return SelectionDiff(rows, a, b, decide(a, rows), decide(b, rows))


@dataclass(frozen=True)
class Case:
    """An image near a threshold.

    Attributes:
        image_id, sample_id: which.
        state: `comes`, `goes` or `stays`.
        rule: whose threshold it is near.
        value: what the rule measures it by, as text; empty where it weighs several things.
    """

    image_id: int
    sample_id: int
    state: str
    rule: str
    value: str


def boundary(diff: SelectionDiff, each: int = 6) -> list[Case]:
    """The images nearest to the thresholds that matter: for each rule by which images come or go, `each` of
    those and `each` of those that both policies keep, nearest first.

    Rules that weigh several things have no single threshold; of what they move the lowest ids are shown.
    """
    cases = []
    stays = diff.in_a.keep & diff.in_b.keep
    for change in diff.changes:
        policy, decision = diff.of(change.direction)
        rule = policy.rules[change.place]
        moved = diff.changed(change.direction) & (decision.first == change.place)
        distance = _distance(rule, diff.rows, decision.first, change.place)
        for state, mask in ((change.direction, moved), ("stays", stays)):
            if distance is None:
                at = np.flatnonzero(mask)[: each if state != "stays" else 0]
            else:
                at = np.flatnonzero(mask & ~np.isnan(distance))
                at = at[np.argsort(np.abs(distance[at]), kind="stable")[:each]]
            for row in diff.rows.take(pa.array(at)).to_pylist():
                value = "" if distance is None else _value(rule.columns[0], row)
                cases.append(Case(row["image_id"], row["sample_id"], state, rule.text, value))
    return cases


def _distance(
    rule: Rule | Group | Ranking, rows: pa.Table, first: np.ndarray, place: int
) -> np.ndarray | None:
    """(N,) how far each row is from the rule's threshold; None where there is no single one."""
    if isinstance(rule, Rule):
        return rule.distance(rows)
    if isinstance(rule, Group) or rule.per is not None:
        return None
    scores = pc.cast(rows.column(rule.by), pa.float64()).to_numpy()
    kept = scores[(first < 0) | (first > place)]
    if np.isnan(kept).all():
        return None
    worst = np.nanmin(kept) if rule.best == "highest" else np.nanmax(kept)
    return np.abs(scores - worst)


def _value(column: str, row: dict[str, Any]) -> str:
    value = row[column]
    return f"{column} {value:.4g}" if isinstance(value, float) else f"{column} {value}"


def boundary_sheet(
    lake: Lake, measured: Measured, cases: list[Case], *, columns: int = 4, tile: int = 160
) -> "Image.Image":
    """Control image and image, with the keypoints that the detector saw, of each case. Opens these images.

    Raises InputError when there are none.
    """
    from etl.pictures import read_image
    from etl.sheet import Strip, draw_strips, square, with_keypoints

    if not cases:
        raise InputError("no image comes or goes: there is nothing to show")
    samples = [case.sample_id for case in cases]
    images = [case.image_id for case in cases]
    made = measured.image_fingerprint
    paths = _by_id(lake, "images", "image_id", images, "image_path", made)
    controls = _by_id(lake, "labels", "sample_id", samples, "control_path", labels_of(lake, made))
    value = measured.metric_fingerprints.get("metrics_keypoints")
    seen = {} if value is None else _by_id(lake, "metrics_keypoints", "image_id", images, "keypoints", value)
    strips = []
    for case in cases:
        tiles = []
        for path in (controls[case.sample_id], paths[case.image_id]):
            pixels = read_image(lake.store, path)
            tiles.append(square(pixels, tile))
        points = seen.get(case.image_id)
        if points is not None:
            tiles[1] = with_keypoints(tiles[1], np.reshape(points, (-1, 3)), pixels.shape[:2])
        strips.append(Strip(tiles, f"{case.state}: {case.rule}", case.value))
    return draw_strips(strips, columns, tile)


def _by_id(lake: Lake, table: str, key: str, ids: list[int], column: str, value: str) -> dict[int, Any]:
    where = computed_by([value]) & pc.field(key).isin(pa.array(ids, pa.int64()))
    rows = lake.table(table).read([key, column], where)
    return dict(zip(rows.column(key).to_pylist(), rows.column(column).to_pylist(), strict=True))


def write_diff(lake: Lake, measured: Measured, diff: SelectionDiff, out: Path) -> list[Path]:
    """Writes `changes.csv` with all images that come or go, and `boundary.png`; returns their paths."""
    cases = boundary(diff)
    sheet = boundary_sheet(lake, measured, cases) if cases else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = [out / "changes.csv"]
        csv.write_csv(diff.table(), files[0])
        if sheet is not None:
            files.append(out / "boundary.png")
            sheet.save(files[1], "PNG")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written to: {error}") from error
    return files
