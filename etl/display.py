"""What the command line shows: progress, tables and errors, through rich."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import TaskID

    from etl.filter import Selection
    from etl.picks import Picked
    from etl.preferences import Preferences
    from etl.run import StagePlan
    from etl.stage import Progress

FAILED_ROWS = 3
"""Exit code of a run that ended with failed rows; 1 is an error that stopped it, 2 a wrong command line."""

console = Console()
errors = Console(stderr=True)


@contextmanager
def watching() -> "Iterator[Callable[[Progress], None]]":
    """Bars for the stages of a run; yields the callback that moves them."""
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console) as bars:

        def move(now: "Progress") -> None:
            if now.stage not in tasks:
                tasks[now.stage] = bars.add_task(now.stage, total=now.total, rate="", failures="")
            done = now.computed + now.failed
            rate = f"{done / now.seconds:,.1f}/s" if now.seconds and done else ""
            failures = f"{now.failed} failed" if now.failed else ""
            bars.update(tasks[now.stage], completed=done, rate=rate, failures=failures)

        yield move


@contextmanager
def training() -> "Iterator[Callable[[str, int, int, Mapping[str, float]], None]]":
    """A bar for each part of a training; yields the callback that moves them and shows what was measured."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console) as bars:

        def move(what: str, done: int, total: int, values: "Mapping[str, float]") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, values="")
            shown = (name for name in ("loss", "accuracy") if name in values)
            text = " ".join(f"{name} {values[name]:.4f}" for name in shown)
            bars.update(tasks[what], completed=done, values=text)

        yield move


@contextmanager
def checking(what: str) -> "Iterator[Callable[[int, int], None]]":
    """A bar for files that are checked; yields the callback that moves it."""
    with Bars(TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), console=console) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def show_table(title: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers stand to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(names):
        number = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    console.print(table)


def show_plan(plans: "Sequence[StagePlan]") -> None:
    """What every stage would compute, and why."""
    rows = []
    for plan in plans:
        why = [f"{plan.new:,} new"] if plan.new else []
        why += [f"{plan.stale:,} stale: {plan.why_stale}"] if plan.stale else []
        if plan.unpicked:
            why += ["picked when what comes before is measured"]
        elif plan.coming:
            why += [f"{plan.coming:,} from the stages before"]
        why += ["more from files to be read"] if plan.open_ended else []
        why += [f"{plan.failed:,} failed before, --retry tries them again"] if plan.failed else []
        why += [f"{plan.waiting:,} wait for a stage that failed on them"] if plan.waiting else []
        more = "+" if plan.open_ended else ""
        rows.append((plan.name, plan.unit, plan.done, f"{plan.to_compute:,}{more}", "; ".join(why)))
    show_table("Plan", ("stage", "rows", "done", "to compute", "why"), rows)
    if not any(plan.to_compute or plan.open_ended for plan in plans):
        console.print("Nothing to compute.")


def show_funnel(selection: "Selection") -> None:
    """How many images each rule rejects, as the first to do so and if it were the only one."""
    rows = [(r.rule, r.first, r.alone, r.reason) for r in selection.funnel]
    title = f"Policy {selection.policy.name}: keeps {selection.kept:,} of {selection.images:,} images"
    show_table(title, ("rule", "rejects first", "rejects alone", "why"), rows)
    if selection.unmeasured:
        console.print(f"{selection.unmeasured:,} images are not measured yet and were left out")


def show_picks(rounds: "Sequence[Picked]") -> None:
    """What each round of a curriculum got, and why some got less than they asked for."""
    rows = []
    for one in rounds:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in one.reasons.items())
        short = ", ".join(f"{count:,} for {what}" for what, count in one.short.items())
        rows.append((one.number, one.budget, one.poses, reasons, short, "" if one.new else "as before"))
    show_table("Rounds", ("round", "budget", "poses", "picked as", "short of", ""), rows)


def show_preferences(chosen: "Preferences") -> None:
    """How many groups of images gave a pair, and why the others did not."""
    title = (
        f"Preference policy {chosen.policy.name}: {chosen.pairs:,} pairs of {chosen.groups:,} groups of "
        "images that differ in their seed alone"
    )
    rows = [(what, count, f"{count / chosen.groups:.1%}") for what, count in chosen.outcomes.items()]
    show_table(title, ("groups", "number", "share"), rows)
    if chosen.pairs:
        console.print(f"The choice is called {chosen.fingerprint}; `posedreamer train dpo` learns it.")
    if chosen.unmeasured:
        console.print(f"{chosen.unmeasured:,} images are not measured yet and were left out")
    if chosen.images == chosen.groups:
        console.print(
            "No two images differ in their seed alone: set `draws` to 2 or more and `camera.each_draw` to "
            "false under `plan`."
        )


def show_error(message: str) -> None:
    errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))
