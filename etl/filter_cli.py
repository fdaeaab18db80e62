"""`posedreamer filter`: apply a policy, see what another bound would keep, compare two policies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.display import console, show_funnel, show_table
from etl.options import DEFAULT_FILE, PolicyOption
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from etl.filter import Measured
    from etl.lake import Lake
    from schemas.pipeline import Pipeline
    from schemas.policy import Policy

filter_ = typer.Typer(
    invoke_without_command=True,
    help="Apply a policy to what was measured: write the selection and show how many each rule rejects.",
)

PipelineOption = Annotated[
    Path | None, typer.Option("--pipeline", "-p", help="the pipeline file; by default pipeline.yaml")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="another bound, such as oks=0.85 or persons.max=2; several times if need be"),
]
MAX_SHOWN = 20


@filter_.callback()
def apply(
    context: typer.Context,
    pipeline: PipelineOption = None,
    policy: PolicyOption = None,
    bounds: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be kept and write nothing")
    ] = False,
) -> None:
    """Apply a policy to what was measured: write the selection and show how many each rule rejects."""
    if context.invoked_subcommand is not None:
        if policy is not None or bounds or dry_run:
            raise ConfigError(f"give these options after the word {context.invoked_subcommand}")
        context.obj = pipeline
        return
    from etl.filter import select

    lake, settings = _opened(pipeline)
    chosen = with_bounds(_policy(policy, settings), bounds or [])
    show_funnel(select(lake, chosen, **vars(_measured(lake, settings, chosen)), write=not dry_run))
    if dry_run:
        console.print("A dry run: nothing was written.")


@filter_.command("sweep")
def sweep_(
    context: typer.Context,
    column: Annotated[str, typer.Argument(help="of the rule whose bound changes, such as oks")],
    bounds: Annotated[str, typer.Argument(help="first:last:step, or numbers with commas between")],
    pipeline: PipelineOption = None,
    policy: PolicyOption = None,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="PNG file to draw the curves into")] = None,
) -> None:
    """Show how many images the policy, and the rule alone, would keep at other bounds; write nothing."""
    from etl.sweep import parse_bounds, plot_sweep, sweep

    values = parse_bounds(bounds)
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    lake, settings = _opened(pipeline or context.obj)
    chosen = with_bounds(_policy(policy, settings), set_ or [])
    chosen.place_of(column)
    rows, _ = _measured(lake, settings, chosen).rows(lake, chosen)
    swept = sweep(rows, chosen, column, values)
    title = f"Policy {chosen.name}: keeps {swept.now:,} of {swept.images:,} images as it is"
    shown = [
        (f"{p.bound:g}", p.kept, f"{p.kept / swept.images:.1%}", p.alone, f"{p.alone / swept.images:.1%}")
        for p in swept.points
    ]
    show_table(title, (column, "policy keeps", "share", "rule alone keeps", "share"), shown)
    if out is not None:
        plot_sweep(swept, out)
        console.print(f"wrote {out}")


@filter_.command("diff")
def diff_(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="strict, lenient or a policy file")],
    b: Annotated[str, typer.Argument(help="the other one")],
    pipeline: PipelineOption = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="another bound of the second policy, such as oks=0.85")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the list of all and pictures near the thresholds")
    ] = None,
) -> None:
    """Show which images come and go between two policies, and by which rule; write no selection."""
    from etl.filter import load_policy
    from etl.selection_diff import boundary, compare, write_diff

    first, second = load_policy(a), with_bounds(load_policy(b), set_ or [])
    lake, settings = _opened(pipeline or context.obj)
    measured = _measured(lake, settings, first, second)
    rows, _ = measured.rows(lake, first, second)
    diff = compare(rows, first, second)
    title = f"{rows.num_rows:,} images by {first.name} (first) and {second.name} (second)"
    show_table(title, ("kept by", "images"), list(diff.kept.items()))
    if not diff.changes:
        console.print("No image comes or goes.")
        return
    shown = [(c.direction, c.count, _by(c.direction, first.name, second.name, c.rule)) for c in diff.changes]
    show_table("What comes and goes", ("change", "images", "by which rule"), shown)
    cases = [(f"{case.image_id}", case.state, case.value, case.rule) for case in boundary(diff) if case.value]
    show_table("Nearest to the thresholds", ("image", "change", "measured", "rule"), cases[:MAX_SHOWN])
    if out is not None:
        for path in write_diff(lake, measured, diff, out):
            console.print(f"wrote {path}")


def with_bounds(policy: "Policy", given: list[str]) -> "Policy":
    """The policy with bounds such as `oks=0.85`. Raises ConfigError where one is not clear."""
    for text in given:
        column, equals, value = text.partition("=")
        if not equals or not value:
            raise ConfigError(f"--set {text}: give column=value, such as oks=0.85")
        policy = policy.with_bound(column.strip(), _parsed(value.strip()))
    return policy


def _parsed(text: str) -> int | float | str | bool:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _by(direction: str, first: str, second: str, rule: str) -> str:
    return f"{second} rejects by {rule}" if direction == "goes" else f"{first} rejected by {rule}"


def _opened(file: Path | None) -> "tuple[Lake, Pipeline]":
    from etl.lake import Lake
    from etl.settings import load_pipeline

    settings = load_pipeline(file or DEFAULT_FILE)
    return Lake(settings.lake), settings


def _policy(name: str | None, settings: "Pipeline") -> "Policy":
    from etl.filter import load_policy

    return load_policy(name or settings.policy)


def _measured(lake: "Lake", settings: "Pipeline", *policies: "Policy") -> "Measured":
    from etl.filter import Measured
    from etl.stages import Stages

    return Measured.of(Stages.latest(lake, settings, as_run=True), *policies)
