"""What a release's dataset card says: what is counted over all of its rows, and where they are from.

Everything is read at the versions that the release pins, batch by batch, so a card follows from its release:
memory holds ids and counts, and the same release gives the same card.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from etl.arrays import shaped
from etl.card_gallery import GALLERY, Shown, draw_shown, smallest
from etl.histogram import Histogram
from etl.pinned import Pinned, Wanted
from etl.query import Release
from etl.release import METRIC_TABLE
from etl.table import computed_by
from etl.tally import Tally
from schemas.caption_attributes import CAPTION_ATTRIBUTES
from schemas.policy import Policy
from schemas.tables import CAPTIONS, DATASET, IMAGES, SAMPLES, TABLES
from udfs.posture import postures

QUALITY, POSES, CAMERAS, CAPTION, ORIGIN = "measurements", "poses", "cameras", "captions", "origin"
"""Sections of a card."""

_MEASURED = ("oks", "person_score", "persons", "coverage")
_CAMERA = ("camera_yaw", "camera_elevation", "camera_distance", "camera_focal")
_POSTURES = {
    "trunk_tilt": "trunk against the picture's vertical; 0: upright",
    "facing": "which way the trunk faces; 0: towards the camera, 90: the picture's right",
    "arm_raise": "upper arm of the arm that is raised more; 0: hanging, 180: overhead",
    "elbow_bend": "of the elbow that is bent more; 0: straight",
    "knee_bend": "of the knee that is bent more; 0: straight",
}
_SCORES = "scores_plausibility"


@dataclass(frozen=True)
class Numbers:
    """How a number is distributed over the rows."""

    section: str
    name: str
    doc: str
    unit: str
    counted: Histogram


@dataclass(frozen=True)
class Words:
    """How often each word comes, over the rows."""

    section: str
    name: str
    doc: str
    counted: Tally


@dataclass(frozen=True)
class Step:
    """A rule, why it is there, and how many images it is the first to reject."""

    rule: str
    reason: str
    rejected: int


@dataclass(frozen=True)
class Funnel:
    """What became of the images that the policy decided on."""

    images: int
    kept: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Origin:
    """A source that rows of the release are from.

    Attributes:
        what: `poses` or `captions`.
        images: rows of the release.
        files: files of it that these rows were read from; 0: from no file.
        formats, licences: of those files; a licence that nobody stated is no licence here.
        unlicensed: files without a stated licence.
    """

    what: str
    source: str
    images: int
    files: int
    formats: tuple[str, ...]
    licences: tuple[str, ...]
    unlicensed: int


@dataclass(frozen=True)
class Card:
    """All that the pages of a card show.

    Attributes:
        counts: rows, and different poses, captions, sequences, sources, rounds.
        ingredients: what made images, labels and metrics: name of the fingerprint to its ingredients.
        image_bytes: size of all image files.
        cut_prompts: images whose generator read only the beginning of the prompt.
        gallery: some samples, chosen by a hash of their ids.
    """

    release: Release
    manifest: Mapping[str, Any]
    counts: Mapping[str, int]
    funnel: Funnel
    numbers: tuple[Numbers, ...]
    words: tuple[Words, ...]
    origins: tuple[Origin, ...]
    ingredients: Mapping[str, Mapping[str, object]]
    image_bytes: int
    cut_prompts: int
    gallery: tuple[Shown, ...]

    def number(self, name: str) -> Numbers:
        return next(numbers for numbers in self.numbers if numbers.name == name)

    def word(self, name: str) -> Words:
        return next(words for words in self.words if words.name == name)


def read_card(release: Release) -> Card:
    """Counts a release. Raises LakeError when its manifest or a file of its tables is gone."""
    manifest = release.manifest()
    facts = _Facts()
    sequences, chosen = _rows(release, facts)
    ids = {key: Wanted(release.to_arrow([key]).column(0).to_numpy()) for key in ("pose_id", "caption_id")}
    there = Pinned(release, manifest["table_versions"])
    pose_files = there.contents("poses", ids["pose_id"])
    caption_files = _captions(there, ids["caption_id"], facts)
    _scores(there, _SCORES, ids["pose_id"], facts, POSES)
    counts = {
        "rows": release.rows,
        "poses": len(ids.pop("pose_id").ids),
        "captions": len(ids.pop("caption_id").ids),
        "sequences": sequences,
        "sources": len(facts.words["source"].counted.counts),
        "rounds": len(facts.words["round"].counted.counts),
    }
    _samples(there, Wanted(release.to_arrow(["sample_id"]).column(0).to_numpy()), facts)
    images = Wanted(release.to_arrow(["image_id"]).column(0).to_numpy())
    prints = manifest["fingerprints"]
    image_bytes, cut = _images(there, images, facts, prints["images"])
    for table in TABLES:
        if table.startswith("metrics_") and table != METRIC_TABLE:
            _scores(there, table, images, facts, QUALITY, prints.get(table))
    origins = [
        *_origins("poses", there, pose_files, facts.words["source"].counted),
        *_origins("captions", there, caption_files, facts.words["caption_source"].counted),
    ]
    return Card(
        release,
        manifest,
        counts,
        _funnel(there, manifest["policy"]),
        tuple(facts.numbers.values()),
        tuple(facts.words.values()),
        tuple(origins),
        there.ingredients({k: v for k, v in prints.items() if k not in ("selection", "policy")}),
        image_bytes,
        cut,
        draw_shown(release, chosen),
    )


class _Facts:
    """Counts by name, in the order in which they came up."""

    def __init__(self) -> None:
        self.numbers: dict[str, Numbers] = {}
        self.words: dict[str, Words] = {}

    def number(
        self,
        section: str,
        name: str,
        doc: str,
        unit: str,
        values: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        whole: bool = False,
    ) -> None:
        if name not in self.numbers:
            self.numbers[name] = Numbers(section, name, doc, unit, Histogram(whole=whole))
        self.numbers[name].counted.add(values, weights)

    def word(
        self, section: str, name: str, doc: str, values: pa.ChunkedArray, weights: np.ndarray | None = None
    ) -> None:
        if name not in self.words:
            self.words[name] = Words(section, name, doc, Tally())
        self.words[name].counted.add(values, weights)

    def column(
        self, section: str, field: pa.Field, values: pa.ChunkedArray, weights: np.ndarray | None = None
    ) -> None:
        """Counts a column as its schema describes it: numbers as numbers, all else as words."""
        about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        if pa.types.is_boolean(field.type):
            values = pc.if_else(values, "yes", "no")
        elif not pa.types.is_string(field.type):
            numbers, unit = shaped(field.name, values), about.get("unit", "")
            if unit == "rad":
                numbers, unit = np.degrees(np.asarray(numbers, np.float64)), "°"
            whole = pa.types.is_integer(field.type)
            self.number(section, field.name, about["doc"], unit, numbers, weights, whole=whole)
            return
        self.word(section, field.name, about["doc"], values, weights)


def _rows(release: Release, facts: _Facts) -> tuple[int, np.ndarray]:
    """Counts what the release's own columns say; the number of sequences and the ids of the gallery."""
    words = {
        "source": (ORIGIN, "where the pose is from"),
        "round": (ORIGIN, "curriculum round; 0: without rounds"),
        "generator": (ORIGIN, "what made the image"),
        "gender": (POSES, "body model of the label"),
    }
    names = [*words, *_MEASURED, "sequence", "image_id", "joints_3d", "focal", "keypoints_visible"]
    sequences: list[np.ndarray] = []
    chosen = np.empty(0, np.int64)
    for rows in release.scan.batches([*names, "image_height", "image_width"]):
        for name, (section, doc) in words.items():
            facts.word(section, name, doc, rows.column(name).cast(pa.string()))
        for name in _MEASURED:
            facts.column(QUALITY, DATASET.field(name), rows.column(name))
        for name, values in postures(shaped("joints_3d", rows.column("joints_3d"))).items():
            facts.number(POSES, name, _POSTURES[name], "°", values)
        seen = (shaped("keypoints_visible", rows.column("keypoints_visible")) == 2).sum(1)
        facts.number(POSES, "keypoints_seen", "of the label's 17, those in sight", "", seen, whole=True)
        focal = shaped("focal", rows.column("focal"))[:, 0]
        across = rows.column("image_width").to_numpy()
        view = np.degrees(2 * np.arctan(across / (2 * focal.astype(np.float64))))
        facts.number(CAMERAS, "focal", "focal length of the label, of the image as it is", "px", focal)
        facts.number(CAMERAS, "field_of_view", "angle that the image's width spans", "°", view)
        sizes = [rows.column(c).cast(pa.string()) for c in ("image_width", "image_height")]
        size = pc.binary_join_element_wise(*sizes, " × ")
        facts.word(CAMERAS, "image_size", "width × height, pixels", size)
        pairs = rows.select(["source", "sequence"]).group_by(["source", "sequence"]).aggregate([])
        sequences.append(pd.util.hash_pandas_object(pairs.to_pandas(), index=False).to_numpy())
        chosen = smallest(np.concatenate([chosen, rows.column("image_id").to_numpy()]), GALLERY)
    return len(np.unique(np.concatenate(sequences))), chosen


def _captions(there: Pinned, wanted: Wanted, facts: _Facts) -> np.ndarray:
    for rows, weights in there.once("captions", ["source", *CAPTION_ATTRIBUTES], wanted):
        facts.word(ORIGIN, "caption_source", "where the caption is from", rows.column("source"), weights)
        for name in CAPTION_ATTRIBUTES:
            facts.column(CAPTION, CAPTIONS.field(name), rows.column(name), weights)
    return there.contents("captions", wanted)


def _samples(there: Pinned, wanted: Wanted, facts: _Facts) -> None:
    for rows, weights in there.once("samples", [*_CAMERA, "pick_reason"], wanted):
        for name in _CAMERA:
            facts.column(CAMERAS, SAMPLES.field(name), rows.column(name), weights)
        facts.column(ORIGIN, SAMPLES.field("pick_reason"), rows.column("pick_reason"), weights)


def _images(there: Pinned, wanted: Wanted, facts: _Facts, value: str) -> tuple[int, int]:
    size = cut = 0
    shown = ("status", "steps", "device", "dtype")
    columns = [*shown, "image_bytes", "prompt_truncated"]
    for rows, _ in there.once("images", columns, wanted, computed_by([value])):
        size += pc.sum(rows.column("image_bytes")).as_py()
        cut += pc.sum(rows.column("prompt_truncated")).as_py() or 0
        for name in shown:
            doc = IMAGES.field(name).metadata[b"doc"].decode()
            facts.word(ORIGIN, name, doc, rows.column(name).cast(pa.string()))
    return size, cut


def _scores(
    there: Pinned, table: str, wanted: Wanted, facts: _Facts, section: str, asked: str | None = None
) -> None:
    """Counts what one computation of a table says: the asked one, else the one that says it of most rows."""
    schema = TABLES[table].schema
    fields = [f for f in schema if not pa.types.is_nested(f.type) and not f.name.endswith("_id")]
    fields = [f for f in fields if f.name != "fingerprint"]
    found: dict[str, tuple[int, _Facts]] = {}
    where = None if asked is None else computed_by([asked])
    for rows, at in there.matches(table, ["fingerprint", *(f.name for f in fields)], wanted, where):
        for value in sorted(pc.unique(rows.column("fingerprint")).to_pylist()):
            mine = pc.equal(rows.column("fingerprint"), value)
            part, weights = rows.filter(mine), wanted.rows[at[mine.to_numpy()]]
            total, own = found.get(value, (0, _Facts()))
            for field in fields:
                own.column(section, field, part.column(field.name), weights)
            found[value] = (total + int(weights.sum()), own)
    if found:
        best = min(found, key=lambda value: (-found[value][0], value))
        facts.numbers |= found[best][1].numbers
        facts.words |= found[best][1].words


def _origins(what: str, there: Pinned, contents: np.ndarray, sources: Tally) -> Iterator[Origin]:
    """The sources of the rows, those of most rows first, with what is noted of their files."""
    seen: set[int] = set()
    files: dict[str, list[tuple[str, str]]] = {}
    where = pc.field("content_id").isin(pa.array(contents, pa.int64()))
    for rows in there.batches("sources", ["content_id", "source", "licence", "kind"], where):
        for row in rows.to_pylist():
            if row["content_id"] not in seen:
                seen.add(row["content_id"])
                files.setdefault(row["source"], []).append((row["kind"], row["licence"].strip()))
    for source, images in sources.top(len(sources.counts)):
        of = files.get(source, [])
        formats, licences = (tuple(sorted({pair[i] for pair in of} - {""})) for i in (0, 1))
        unlicensed = sum(not licence for _, licence in of)
        yield Origin(what, source, images, len(of), formats, licences, unlicensed)


def _funnel(there: Pinned, policy: Mapping[str, Any]) -> Funnel:
    """The rules in their order, with what each rejected; those of a policy that cannot be read by number."""
    tally = Tally()
    where = pc.field("selection") == there.release.selection
    for rows in there.batches("selections", ["rejected_by"], where):
        tally.add(rows.column("rejected_by"))
    try:
        reasons = {rule.text: rule.reason for rule in Policy.model_validate(policy).rules}
    except ValidationError:  # of another version of this software; what it did is known all the same
        reasons = {}
    rules = [*reasons, *(rule for rule, _ in tally.top(len(tally.counts)) if rule not in reasons)]
    steps = tuple(Step(rule, reasons.get(rule, ""), tally.counts[rule]) for rule in rules)
    return Funnel(tally.n + tally.missing, tally.missing, steps)
