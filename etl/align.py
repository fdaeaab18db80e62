"""Aligns a pipeline's diffusion model with what its metrics prefer, and measures what that changed.

    candidates -> preferences -> training -> both generators on held-out poses -> comparison

Every part is the ordinary one: candidates and test images are rows of the lake, so a second call goes on
where the first one ended.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from etl.evaluate import Evaluation, evaluate_pipelines
from etl.lake import Lake
from etl.preferences import DEFAULT, Preferences, check_measured, load_preference_policy
from etl.run import choose_preferences, run_stages
from etl.stage import Progress
from etl.stages import Stages
from etl.table import computed_by
from schemas.errors import ConfigError, InputError
from schemas.pipeline import DPO, AdapterSettings, DiffusionSettings, Pipeline
from schemas.plan import Part
from schemas.training import DpoTraining

if TYPE_CHECKING:
    from etl.train import Report

TEST_DRAWS = 2
"""Seeds of each held-out sample: two, so that their variety can be measured."""


Watching: TypeAlias = Callable[[str], AbstractContextManager[Callable[[Progress], None]]]
_Steps: TypeAlias = Callable[[str, int, int, Mapping[str, float]], None]
Tutoring: TypeAlias = Callable[[], AbstractContextManager[tuple[_Steps, Callable[[], bool]]]]


def _nobody_watches(name: str) -> AbstractContextManager[Callable[[Progress], None]]:
    return nullcontext(lambda progress: None)


def _nobody_tutors() -> AbstractContextManager[tuple[_Steps, Callable[[], bool]]]:
    return nullcontext((lambda what, done, total, values: None, lambda: False))


@dataclass(frozen=True)
class AlignSettings:
    """How an alignment is made.

    Attributes:
        candidates: images of each sample to choose from.
        held_out: share of the poses, or of the sequences, that the comparison is made on.
        split: what is held out: whole sequences, so that no frame just before or after a test pose was
            learnt, or poses.
        share: of the poses that are used at all; less is quicker.
        test_seed: of the comparison's plan, whose cameras, image seeds and captions of the grammar are other
            ones than the pipeline's; None: the pipeline's seed plus 1. Captions of files are the same ones.
        policy: of preferences; None: the built-in one.
    """

    candidates: int = 4
    held_out: float = 0.2
    split: Literal["pose", "sequence"] = "sequence"
    share: float = 1.0
    test_seed: int | None = None
    policy: str | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.candidates <= 1000:
            raise ConfigError(
                f"--candidates {self.candidates}: a pair takes 2 at least, and 1000 is the most"
            )
        for name in ("held_out", "share"):
            if not 0 < getattr(self, name) <= (1 if name == "share" else 0.9):
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: not a share of the poses"
                )
        if self.test_seed is not None and not -(2**63) <= self.test_seed < 2**63:
            raise ConfigError(f"--test-seed {self.test_seed}: has to fit into 64 bits")


@dataclass(frozen=True)
class Alignment:
    """What an alignment left behind.

    Attributes:
        adapter: the trained LoRA's file; None while the training is not finished.
        evaluation: None as long as there is no adapter.
        failed: rows that failed in any of the runs, by stage.
    """

    preferences: Preferences
    training: "Report"
    adapter: Path | None
    evaluation: Evaluation | None
    failed: Mapping[str, int]


def candidate_pipeline(pipeline: Pipeline, settings: AlignSettings) -> Pipeline:
    """The base generator's images to choose from: some seeds each of the poses to learn from."""
    part = _part(pipeline, settings, 0, (1 - settings.held_out) * settings.share)
    return _derived(pipeline, settings.candidates, pipeline.plan.seed, part)


def held_out_pipelines(
    pipeline: Pipeline, settings: AlignSettings, adapter: Path
) -> tuple[Pipeline, Pipeline]:
    """The held-out samples as the base paints them and as it does with the adapter."""
    kept = 1 - settings.held_out
    part = _part(pipeline, settings, kept, kept + settings.held_out * settings.share)
    seed = pipeline.plan.seed + 1 if settings.test_seed is None else settings.test_seed
    base = _derived(pipeline, TEST_DRAWS, seed, part)
    return base, with_adapter(base, adapter)


def with_adapter(pipeline: Pipeline, adapter: Path) -> Pipeline:
    """The pipeline with one more LoRA, called dpo."""
    generator = pipeline.generator
    assert isinstance(generator, DiffusionSettings)
    added = (*generator.adapters, AdapterSettings(path=str(adapter.absolute()), name=DPO))
    return pipeline.model_copy(update={"generator": generator.model_copy(update={"adapters": added})})


def align(
    pipeline: Pipeline,
    out: Path,
    settings: AlignSettings,
    training: DpoTraining,
    *,
    cpu: bool = False,
    watching: Watching = _nobody_watches,
    tutoring: Tutoring = _nobody_tutors,
    chose: Callable[[Preferences], None] = lambda chosen: None,
) -> Alignment:
    """Trains an adapter on the preferences among a pipeline's images, and compares with and without it.

    The pipeline's own adapter called dpo, if any, is left out of everything. `out` gets the folder `dpo`
    with the training, and what `write_evaluation` writes.

    Args:
        cpu: train on the CPU even where there is a GPU.
        watching: opened around each run of the stages with its name, gives what is told of rows.
        tutoring: opened around the training, gives what is told of its steps, and what is asked after each
            whether to stop: at a yes the alignment ends there, and the next call goes on.
        chose: is told which pairs were chosen, before the training.

    Raises ConfigError or ModelError for a generator that cannot be trained, a policy, a folder or a
    precision that will not do, all of them before any work; InputError before the first image where there
    are no poses to learn from or to compare on, and where there are no pairs; and what the stages and the
    training raise.
    """
    if not isinstance(pipeline.generator, DiffusionSettings):
        raise ConfigError(
            f"generator: {pipeline.generator.name} is a renderer, which has nothing to align; name a "
            "diffusion model: generator: {name: diffusers, model: nano}"
        )
    from etl.train import make_folder, train_dpo

    candidates = candidate_pipeline(pipeline, settings)
    _check_at_once(pipeline.generator, candidates, settings, training, cpu)
    make_folder(out / DPO)
    lake = Lake.create(pipeline.lake)
    failed: dict[str, int] = {}

    def run(name: str, one: Pipeline, last: str | None = None) -> None:
        with watching(name) as watch:
            report = run_stages(lake, one, last=last, watch=watch)
        for stage, count in report.failed.items():
            failed[stage] = max(count, failed.get(stage, 0))

    for name, one in (
        ("poses to learn from", candidates),
        ("held-out poses", held_out_pipelines(pipeline, settings, out)[0]),
    ):
        run(name, one, last="samples")
        _check_poses(lake, one, name, settings)
    run("candidates", candidates)
    chosen = choose_preferences(lake, candidates, settings.policy)
    chose(chosen)
    if not chosen.pairs:
        raise InputError(
            f"none of {chosen.groups:,} groups of candidates gave a pair: "
            + ", ".join(f"{count:,} {what}" for what, count in chosen.outcomes.items())
            + "; more candidates or a milder policy (--policy) give some"
        )
    with tutoring() as (watch_training, stop):
        report = train_dpo(
            candidates,
            training,
            out / DPO,
            data=candidates,
            selection=chosen.fingerprint,
            cpu=cpu,
            watch=watch_training,
            stop=stop,
        )
    if report.path is None:
        return Alignment(chosen, report, None, None, failed)
    base, aligned = held_out_pipelines(pipeline, settings, report.path)
    run("held-out samples, base", base)
    run("held-out samples, aligned", aligned)
    evaluation = evaluate_pipelines(lake, base, aligned, settings.split)
    return Alignment(chosen, report, report.path, evaluation, failed)


def _part(pipeline: Pipeline, settings: AlignSettings, low: float, high: float) -> Part:
    """From `low` to `high` of the poses that the pipeline itself plans."""
    whole = pipeline.plan.part or Part(by=settings.split)
    if whole.by != settings.split and (whole.low, whole.high) != (0, 1):
        raise ConfigError(
            f"plan.part takes some of the {whole.by}s, so align can only divide {whole.by}s further: "
            f"--split {whole.by}"
        )
    width = whole.high - whole.low
    return Part(low=whole.low + width * low, high=min(whole.low + width * high, 1.0), by=settings.split)


def _check_poses(lake: Lake, pipeline: Pipeline, what: str, settings: AlignSettings) -> None:
    """Raises InputError where there are none."""
    stages = Stages.latest(lake, pipeline)
    if lake.table("samples").dataset().count_rows(filter=computed_by(stages.sample_fingerprints)):
        return
    if not lake.table("poses").dataset().count_rows():
        raise InputError(
            "no pose was read from the sources; the tables `rejected` and `failures` say why "
            "(posedreamer status)"
        )
    hint = "--split pose, another --held-out" if settings.split == "sequence" else "another --held-out"
    raise InputError(
        f"there are no {what}: divided by {settings.split}, none is on that side; {hint} or more poses help"
    )


def _check_at_once(
    generator: DiffusionSettings,
    candidates: Pipeline,
    settings: AlignSettings,
    training: DpoTraining,
    cpu: bool,
) -> None:
    """Raises here what would otherwise come after hours of candidates."""
    from udfs.trainable import find_trainable

    measured = [f"metrics_{name}" for name, asked in candidates.metrics if asked]
    check_measured(load_preference_policy(settings.policy or DEFAULT), measured)
    find_trainable(generator)
    if training.mixed_precision == "fp16":  # torch takes seconds to import
        from udfs.training import check_precision

        check_precision(training, cpu=cpu)


def _derived(pipeline: Pipeline, draws: int, seed: int, part: Part) -> Pipeline:
    """The same sources and generator with another plan; colours are measured as well."""
    plan = pipeline.plan
    camera = plan.camera.model_copy(update={"each_draw": False})
    changed = {"draws": draws, "seed": seed, "part": part, "camera": camera}
    return pipeline.without_adapter(DPO).model_copy(
        update={
            "plan": plan.model_copy(update=changed),
            "curriculum": None,
            "metrics": pipeline.metrics.model_copy(update={"colors": True}),
            "release": None,
        }
    )
