"""Applies a policy to the metric tables and keeps the answer. Opens no image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.fingerprints import register
from etl.lake import Lake
from etl.measured import images_of, with_facts, with_metrics
from etl.parquet import DataFile
from schemas.errors import ConfigError, InputError
from schemas.fingerprint import Fingerprint, fingerprint
from schemas.ids import text_hash
from schemas.policy import Decision, Policy, decide, parse_policy
from schemas.rule_columns import class_columns
from schemas.tables import TABLES
from schemas.yaml_file import did_you_mean
from udfs.threads import each

if TYPE_CHECKING:
    from etl.stages import Stages

VERSION = 1
WRITE_ROWS = 1_000_000
GROUP_ROWS = 100_000


@dataclass(frozen=True)
class Rejects:
    """What one rule does.

    Attributes:
        rule: the rule, such as `oks >= 0.8`.
        first: rows that it is the first to reject.
        alone: rows that it would reject if it were the only rule.
    """

    rule: str
    reason: str
    first: int
    alone: int


@dataclass(frozen=True)
class Selection:
    """A policy's decision on a set of measured images.

    Attributes:
        fingerprint: of policy, metrics and the set; names the rows in `selections`.
        image_fingerprint, metric_fingerprints: what made and what measured the images, the latter by
            metric table.
        images: number of images decided on, of which `kept` were kept.
        unmeasured: images that lack a measurement, left out until they have it.
        funnel: the rules in order.
        written: rows that were new in `selections`; 0 when the same was selected before.
    """

    fingerprint: str
    policy: Policy
    image_fingerprint: str
    metric_fingerprints: Mapping[str, str]
    images: int
    kept: int
    unmeasured: int
    funnel: tuple[Rejects, ...]
    written: int


def load_policy(name: str) -> Policy:
    """A built-in policy by name (`strict`, `lenient`), or the policy in a YAML file by path."""
    folder = resources.files("schemas") / "policies"
    known = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    if name in known:
        return parse_policy((folder / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    path = Path(name).expanduser()
    try:
        return parse_policy(path.read_text("utf-8"), str(path))
    except FileNotFoundError as error:
        hint = did_you_mean(name, known)
        raise ConfigError(f"policy {name!r} is neither built in nor a file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"policy {name}: cannot be read: {error}") from error


@dataclass(frozen=True)
class Measured:
    """Which images to decide on, and which computations say what they are.

    Attributes:
        metric_fingerprints: metric table to the computation to use; an image takes part when it is measured
            in all of them.
        image_fingerprint: what made the images.
        sample_fingerprints: only the samples of these plans; None takes those of every plan.
    """

    metric_fingerprints: Mapping[str, str]
    image_fingerprint: str
    sample_fingerprints: Sequence[str] | None = None

    @classmethod
    def of(cls, stages: "Stages", *policies: Policy) -> "Measured":
        """What a pipeline measured, of that what the policies read and what a release publishes.

        A metric that no rule reads has no part in the selection: to measure it too must not change a release.
        """
        read = {stages.keypoints.table, *(table for policy in policies for table in policy.tables)}
        return cls(
            {m.table: m.fingerprint.value for m in stages.metrics if m.table in read},
            stages.images.fingerprint.value,
            stages.sample_fingerprints,
        )

    def rows(self, lake: Lake, *policies: Policy) -> tuple[pa.Table, int]:
        """The measured images, with all columns that the policies read; and how many are not measured.

        Raises ConfigError for a rule on a table that is not among the metrics, and InputError when nothing
        was measured.
        """
        for policy in policies:
            missing = [table for table in policy.tables if table not in self.metric_fingerprints]
            if missing:
                add = ", ".join(f"{table.removeprefix('metrics_')}: true" for table in missing)
                raise ConfigError(
                    f"policy {policy.name} reads {', '.join(missing)}, which this pipeline has not; put "
                    f"`metrics: {{{add}}}` into its file, and `posedreamer run` measures that alone"
                )
        names = list(dict.fromkeys(name for policy in policies for name in policy.columns))
        known = class_columns()
        of = {table: [n for n in names if known[n].table == table] for table in TABLES}
        own = [n for n in of["images"] if n != "sample_id"]
        images = images_of(lake, self.image_fingerprint, self.sample_fingerprints, own)
        rows = images
        for table, value in sorted(self.metric_fingerprints.items()):
            rows = with_metrics(lake, rows, table, value, of[table])
        if not rows.num_rows:
            raise InputError(
                f"no image is measured yet: {images.num_rows} images are there; `posedreamer run` measures "
                "them"
            )
        joined = with_facts(lake, rows, names, self.image_fingerprint, self.sample_fingerprints)
        return joined, images.num_rows - rows.num_rows


def select(
    lake: Lake,
    policy: Policy,
    *,
    metric_fingerprints: Mapping[str, str],
    image_fingerprint: str,
    sample_fingerprints: Sequence[str] | None = None,
    write: bool = True,
) -> Selection:
    """Decides on all measured images and writes the decisions to `selections`.

    metric_fingerprints, image_fingerprint, sample_fingerprints: see `Measured`. write: False only says what
    would be.

    The same call on the same rows writes nothing. Raises ConfigError for a rule on a table that is not
    among the metrics, and InputError when nothing was measured.
    """
    measured = Measured(metric_fingerprints, image_fingerprint, sample_fingerprints)
    rows, unmeasured = measured.rows(lake, policy)
    decision = decide(policy, rows)
    rows = rows.select(["image_id", "sample_id"])  # the rest takes twice the memory
    made = _fingerprint(policy, measured, rows)
    written = _write(lake, made, policy, rows, decision.first) if write else 0
    return Selection(
        made.value,
        policy,
        image_fingerprint,
        dict(metric_fingerprints),
        rows.num_rows,
        int(decision.keep.sum()),
        unmeasured,
        funnel(policy, decision),
        written,
    )


def funnel(policy: Policy, decision: Decision) -> tuple[Rejects, ...]:
    """What each rule does, in order."""
    counts = np.bincount(decision.first[decision.first >= 0], minlength=len(policy.rules))
    return tuple(
        Rejects(rule.text, rule.reason, int(first), int(alone))
        for rule, first, alone in zip(policy.rules, counts, decision.alone, strict=True)
    )


def _fingerprint(policy: Policy, measured: Measured, rows: pa.Table) -> Fingerprint:
    ids = np.sort(rows.column("image_id").to_numpy()).astype("<i8", copy=False)
    parameters = {"images": len(ids), "image_ids": text_hash(ids.tobytes()).hex()}
    upstream = {
        "policy": policy.fingerprint.value,
        "images": measured.image_fingerprint,
        **measured.metric_fingerprints,
    }
    # Ids stand for all that samples, poses and captions say, but for the plan that asked for a sample.
    if measured.sample_fingerprints is not None and any(
        class_columns()[name].table == "samples" for name in policy.columns
    ):
        upstream["samples"] = "+".join(sorted(set(measured.sample_fingerprints)))
    return fingerprint("selection", VERSION, parameters, upstream=upstream)


def _write(lake: Lake, made: Fingerprint, policy: Policy, rows: pa.Table, first: np.ndarray) -> int:
    """One commit with all decisions, unless they are there. Returns the number of rows written."""
    table = lake.table("selections")
    if table.dataset().count_rows(filter=pc.field("selection") == made.value):
        return 0
    register(lake, policy.fingerprint, made)
    texts = pa.array([*(rule.text for rule in policy.rules), None], pa.string())
    starts = range(0, rows.num_rows, WRITE_ROWS)
    files: list[DataFile | None] = [None] * len(starts)

    def write(place: int) -> None:
        cut = slice(starts[place], starts[place] + WRITE_ROWS)
        part, rejected = rows.slice(cut.start, WRITE_ROWS), first[cut]
        decisions = {
            "selection": pa.repeat(made.value, part.num_rows),
            "image_id": part.column("image_id"),
            "sample_id": part.column("sample_id"),
            "keep": pa.array(rejected < 0),
            "rejected_by": texts.take(pa.array(np.where(rejected < 0, len(texts) - 1, rejected))),
        }
        files[place] = table.write(pa.table(decisions), group_rows=GROUP_ROWS)

    each(write, len(starts))
    note = {"posedreamer.selection": made.value, "posedreamer.policy": policy.name}
    return table.commit([file for file in files if file is not None], note).rows
