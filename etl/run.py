"""Runs a pipeline: every stage in turn, then the selection and the release."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from etl.compute import device_here
from etl.lake import Lake
from etl.mining import check_curriculum
from etl.picks import Picked
from etl.stage import Pending, Progress, Stage, partitions_of, pending, run_stage
from etl.stages import Stages
from etl.workers import Workers
from schemas.errors import LakeError
from schemas.pipeline import Pipeline
from udfs.udf import Worker

if TYPE_CHECKING:
    from etl.filter import Selection
    from etl.preferences import Preferences
    from etl.query import Release


_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class StagePlan:
    """What a stage has done and would do.

    Attributes:
        unit: what its input rows are.
        done, new, stale, failed: input rows that are there; `failed` are tried again with `--retry`.
        waiting: input rows that cannot be computed, because a stage before failed on them.
        coming: input rows that the stage before it would add.
        open_ended: files that were never read bring more, nobody knows how many.
        why_stale: what differs from the last computation.
        unpicked: they are poses of a round that is picked when those before it are measured.
    """

    name: str
    unit: str
    done: int
    new: int
    stale: int
    failed: int
    waiting: int
    coming: int
    open_ended: bool
    why_stale: str
    unpicked: bool = False

    @property
    def to_compute(self) -> int:
        return self.new + self.stale + self.coming


def plan_pipeline(pipeline: Pipeline) -> list[StagePlan]:
    """What `run_pipeline` would compute, and why; computes and writes nothing."""
    with _lake_to_look_at(pipeline) as lake:
        return list(_plans(lake, pipeline))


@contextmanager
def _lake_to_look_at(pipeline: Pipeline) -> Iterator[Lake]:
    if Lake.is_at(pipeline.lake):
        yield Lake(pipeline.lake)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Lake.create(folder)


def _plans(lake: Lake, pipeline: Pipeline) -> Iterator[StagePlan]:
    stages = Stages.latest(lake, pipeline)
    unread = False
    for stage in stages.reading:
        todo = pending(lake, stage)
        unread = unread or len(todo.new) + len(todo.stale) > 0
        yield _plan(stage, "files", todo, 0, False)
    coming = _NONE
    for one in stages.so_far:
        planned = pending(lake, one.samples)
        yield _plan(one.samples, "poses", planned, 0, unread, name=of_round(one.samples.name, one.round))
        coming = np.concatenate([coming, _sample_ids(one, planned)])
    labelled = pending(lake, stages.labels, coming)
    yield _plan(stages.labels, "samples", labelled, 0, unread)
    painted = pending(lake, stages.images, coming)
    images = _plan(stages.images, "samples", painted, 0, unread, labelled.failed)
    yield images
    for metric in stages.metrics:
        yield _plan(metric, "images", pending(lake, metric), images.to_compute, unread)
    if pipeline.curriculum is not None:
        picked = stages.round if stages.picking.done else 0
        for number, wanted in enumerate(pipeline.curriculum.rounds[picked:], picked + 1):
            yield StagePlan(f"round {number}", "poses", 0, 0, 0, 0, 0, wanted.budget, False, "", True)


def of_round(stage: str, number: int) -> str:
    """What a stage is called in a round."""
    return f"{stage}, round {number}" if number else stage


def _sample_ids(stages: Stages, planned: Pending) -> np.ndarray:
    """Ids that the pending poses will have as samples: planned here, and not written. Many exist already
    when a plan changes a little, and their labels and images with them."""
    stage = stages.samples
    ids = np.concatenate([planned.new, planned.stale])
    made = [np.empty(0, np.int64)]
    if len(ids):
        apply = stage.udf.setup(Worker("cpu", _Captions(stages), stage.fingerprint.value))
        for partition in partitions_of(stages.lake, stage, ids, np.ones(len(ids), np.int32)):
            rows = apply(partition.read(stages.lake.store))
            assert isinstance(rows, dict)
            made.append(rows["samples"].column("sample_id").to_numpy())
    return np.concatenate(made)


@dataclass(frozen=True)
class _Captions:
    """The captions file as it would be written."""

    stages: Stages

    def read(self, path: str) -> bytes:
        return self.stages.captions_bytes()

    def write(self, path: str, data: bytes) -> None:
        raise LakeError("a plan writes nothing")

    def create(self, path: str, data: bytes) -> bool:
        raise LakeError("a plan writes nothing")


def _plan(
    stage: Stage,
    unit: str,
    todo: Pending,
    coming: int,
    open_ended: bool,
    unready: np.ndarray = _NONE,
    name: str = "",
) -> StagePlan:
    """unready: ids that lack what the stage reads, because the stage before failed on them."""
    new, stale = (int((~np.isin(ids, unready)).sum()) for ids in (todo.new, todo.stale))
    return StagePlan(
        name=name or stage.name,
        unit=unit,
        done=todo.done,
        new=new,
        stale=stale,
        failed=len(todo.failed),
        waiting=len(todo.new) + len(todo.stale) - new - stale,
        coming=coming,
        open_ended=open_ended,
        why_stale=todo.why_stale,
    )


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        stages: rows and seconds of every stage that had something to do.
        failed: rows that have failed and are not computed, by stage, those of earlier runs too.
        picked: what each round of the curriculum chose.
    """

    stages: tuple[Progress, ...]
    failed: dict[str, int]
    picked: tuple[Picked, ...] = ()

    @property
    def computed(self) -> int:
        return sum(stage.computed for stage in self.stages)


def run_stages(
    lake: Lake,
    pipeline: Pipeline,
    *,
    retry: bool = False,
    last: str | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> RunReport:
    """Computes what every stage lacks, in order, up to the stage `last` of every round.

    Raises StageError when a stage cannot go on; a policy or a model file that is not there is said before
    any work is done.
    """
    from etl.filter import load_policy

    load_policy(pipeline.policy)
    check_curriculum(pipeline)
    first = Stages(lake, pipeline)
    # They build on all other stages, so this takes all model files.
    _ = [metric.fingerprint for metric in Stages(lake, pipeline).metrics]
    reports: list[Progress] = []
    failed: dict[str, int] = {}
    picked: list[Picked] = []
    checked = False
    with Workers(pipeline.cluster.scheduler, pipeline.cluster.workers) as workers:

        def compute(stage: Stage, number: int = 0) -> None:
            nonlocal checked
            if not checked and _has_work(lake, stage, retry):
                # What stands against the generator is said now and not after hours of other stages.
                generator = first.generator
                far = pipeline.cluster.scheduler is not None
                generator.check(None if far else device_here(generator.accelerated))
                checked = True
            name = of_round(stage.name, number)
            report = run_stage(
                lake, stage, workers, retry=retry, watch=lambda p: watch(replace(p, stage=name))
            )
            if report.total:
                reports.append(replace(report, stage=name))
            left = len(pending(lake, stage).failed)
            failed[stage.name] = left

        for stage in first.reading:
            compute(stage)
        first.record_files()
        first.write_captions()
        for stages in Stages.rounds(lake, pipeline):
            if stages.round:
                mining = stages.picking.mining
                mining.prepare()
                for stage in mining.stages:
                    compute(stage, stages.round)
                picked.append(stages.picking.pick())
            for stage in stages.computing:
                compute(stage, stages.round)
                if stage.name == last:
                    break
    return RunReport(tuple(reports), {name: n for name, n in failed.items() if n}, tuple(picked))


def _has_work(lake: Lake, stage: Stage, retry: bool) -> bool:
    todo = pending(lake, stage)
    return len(todo.new) + len(todo.stale) + (len(todo.failed) if retry else 0) > 0


def select_images(lake: Lake, pipeline: Pipeline, policy: str | None = None) -> "Selection":
    """Applies a policy, by default the pipeline's, to what the pipeline measured."""
    from etl.filter import Measured, load_policy, select

    rules = load_policy(policy or pipeline.policy)
    return select(lake, rules, **vars(Measured.of(Stages.latest(lake, pipeline, as_run=True), rules)))


def choose_preferences(lake: Lake, pipeline: Pipeline, policy: str | None = None) -> "Preferences":
    """Chooses preference pairs among the pipeline's images, by the built-in policy or one in a file."""
    from etl.preferences import DEFAULT, load_preference_policy, prefer

    stages = Stages.latest(lake, pipeline, as_run=True)
    return prefer(
        lake,
        load_preference_policy(policy or DEFAULT),
        metric_fingerprints={metric.table: metric.fingerprint.value for metric in stages.metrics},
        image_fingerprint=stages.images.fingerprint.value,
        sample_fingerprints=stages.sample_fingerprints,
    )


def publish(
    lake: Lake,
    pipeline: Pipeline,
    selection: "Selection",
    name: str,
    notes: str | None = None,
    parent: str | None = None,
) -> "Release":
    """Publishes a selection under a new name; see `create_release`. Raises ConfigError when it is taken."""
    from etl.release import create_release

    labels = Stages.latest(lake, pipeline, as_run=True).labels.fingerprint.value
    return create_release(lake, name, selection, label_fingerprint=labels, notes=notes, parent=parent)


def failures_by_code(lake: Lake) -> list[tuple[str, str, int, str]]:
    """Stage, error code, number of rows that failed at least once, and one of the messages."""
    table = lake.table("failures")
    if not table.exists():
        return []
    rows = table.to_pandas(["stage", "error_code", "row_id", "message"])
    groups = rows.groupby(["stage", "error_code"], sort=True)
    return [(str(s), str(c), g["row_id"].nunique(), str(g["message"].iloc[-1])) for (s, c), g in groups]
