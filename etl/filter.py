"""Applies a policy to the metric tables and keeps the answer. Opens no image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.fingerprints import register
from etl.lake import Lake
from etl.table import computed_by
from schemas.errors import ConfigError, InputError
from schemas.fingerprint import Fingerprint, fingerprint
from schemas.ids import text_hash
from schemas.policy import Policy, decide, parse_policy
from schemas.yaml_file import did_you_mean

VERSION = 1
WRITE_ROWS = 1_000_000


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


def select(
    lake: Lake,
    policy: Policy,
    *,
    metric_fingerprints: Mapping[str, str],
    image_fingerprint: str,
    sample_fingerprints: Sequence[str] | None = None,
) -> Selection:
    """Decides on all measured images and writes the decisions to `selections`.

    metric_fingerprints: metric table to the computation to use; an image takes part when it is measured
    in all of them. image_fingerprint: what made the images. sample_fingerprints: only the samples of
    these plans; None takes those of every plan.

    The same call on the same rows writes nothing. Raises ConfigError for a rule on a table that is not
    among the metrics, and InputError when nothing was measured.
    """
    missing = [table for table in policy.tables if table not in metric_fingerprints]
    if missing:
        raise ConfigError(f"policy {policy.name} reads {', '.join(missing)}, which this pipeline has not")
    images = images_of(lake, image_fingerprint, sample_fingerprints)
    rows = images
    for table, value in sorted(metric_fingerprints.items()):
        names = [r.column for r in policy.rules if r.table == table]
        rows = with_metrics(lake, rows, table, value, list(dict.fromkeys(names)))
    if not rows.num_rows:
        raise InputError(
            f"no image is measured yet: {images.num_rows} images are there; `posedreamer run` measures them"
        )
    decision = decide(policy, rows)
    made = _fingerprint(policy, metric_fingerprints, image_fingerprint, rows)
    written = _write(lake, made, policy, rows, decision.first)
    counts = np.bincount(decision.first[decision.first >= 0], minlength=len(policy.rules))
    funnel = tuple(
        Rejects(rule.text, rule.reason, int(first), int(alone))
        for rule, first, alone in zip(policy.rules, counts, decision.alone, strict=True)
    )
    return Selection(
        made.value,
        policy,
        image_fingerprint,
        dict(metric_fingerprints),
        rows.num_rows,
        int(decision.keep.sum()),
        images.num_rows - rows.num_rows,
        funnel,
        written,
    )


def images_of(lake: Lake, image_fingerprint: str, sample_fingerprints: Sequence[str] | None) -> pa.Table:
    """`image_id` and `sample_id` of the images to decide on, by id."""
    rows = lake.table("images").read(["image_id", "sample_id"], computed_by([image_fingerprint]))
    if sample_fingerprints is not None:
        planned = lake.table("samples").read(["sample_id"], computed_by(sample_fingerprints))
        rows = rows.filter(pc.is_in(rows.column("sample_id"), planned.column("sample_id")))
    return rows.sort_by("image_id")


def with_metrics(lake: Lake, rows: pa.Table, table: str, value: str, names: list[str]) -> pa.Table:
    """The rows that the metric table has, with its columns, in the same order."""
    measured = lake.table(table).read(["image_id", *names], computed_by([value]))
    at = pd.Index(measured.column("image_id").to_numpy()).get_indexer(
        pd.Index(rows.column("image_id").to_numpy())
    )
    rows = rows.filter(pa.array(at >= 0))
    taken = measured.select(names).take(pa.array(at[at >= 0]))
    for name in names:
        rows = rows.append_column(measured.schema.field(name), taken.column(name))
    return rows


def _fingerprint(
    policy: Policy, metrics: Mapping[str, str], image_fingerprint: str, rows: pa.Table
) -> Fingerprint:
    ids = rows.column("image_id").to_numpy().astype("<i8")
    parameters = {"images": len(ids), "image_ids": text_hash(ids.tobytes()).hex()}
    upstream = {"policy": policy.fingerprint.value, "images": image_fingerprint, **metrics}
    return fingerprint("selection", VERSION, parameters, upstream=upstream)


def _write(lake: Lake, made: Fingerprint, policy: Policy, rows: pa.Table, first: np.ndarray) -> int:
    """One commit with all decisions, unless they are there. Returns the number of rows written."""
    table = lake.table("selections")
    if table.dataset().count_rows(filter=pc.field("selection") == made.value):
        return 0
    register(lake, policy.fingerprint)
    register(lake, made)
    texts = pa.array([*(rule.text for rule in policy.rules), None], pa.string())
    decisions = pa.table(
        {
            "selection": pa.repeat(made.value, rows.num_rows),
            "image_id": rows.column("image_id"),
            "sample_id": rows.column("sample_id"),
            "keep": pa.array(first < 0),
            "rejected_by": texts.take(pa.array(np.where(first < 0, len(texts) - 1, first))),
        }
    )
    cuts = range(0, rows.num_rows, WRITE_ROWS)
    files = [table.write(decisions.slice(start, WRITE_ROWS)) for start in cuts]
    note = {"posedreamer.selection": made.value, "posedreamer.policy": policy.name}
    return table.commit(files, note).rows
