"""What commands that learn share: the run of a folder, shown meanwhile and afterwards; a comparison of paradigms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lifelong.display.console import output, refuse, say, waiting

if TYPE_CHECKING:
    from lifelong.core.result import Result
    from lifelong.display.live import Turns
    from lifelong.runs.folder import Loaded, RunFolder
    from lifelong.studies.comparison import Asked
    from lifelong.studies.ingredients import Ingredients


def learn(
    folder: RunFolder,
    quiet: bool,
    place: str = "",
    new: bool = True,
    track: Sequence[str] = (),
    turns: Turns | None = None,
) -> Result:
    """Execute the run of a folder, and show meanwhile where it stands; before a new one, what is to be expected.

    place: among others, as in "2 of 7"; turns: those others, for the time that is left. track: who else is told, see
    `lifelong.runs.tracking.TRACKERS`.
    """
    from lifelong.display.live import RunDisplay
    from lifelong.runs.execute import execute, warning_of_days
    from lifelong.runs.tracking import tracked

    if quiet:
        with tracked(folder, track) as watch:
            return execute(folder, watch=watch)
    if new and not (turns and turns.took) and (found := folder.request.own_data):
        say(f"found {found}")
    for line in folder.request.expectations() if new else ():
        say(f"note: {line}")
    if new and (warning := warning_of_days(folder.request)):
        say(f"note: {warning}")
    title = " · ".join(word for word in (place, folder.request.scenario, folder.request.method) if word)
    with RunDisplay(title, turns) as display, tracked(folder, track, display.run) as watch:
        return execute(folder, watch=watch, watch_start=display.start)


def finish(folder: RunFolder, as_json: bool, new: bool = True, track: Sequence[str] = ()) -> None:
    """Learn what a folder still lacks, show what it measured, and say where it lies; exit code 1 when seeds diverged."""
    from lifelong.runs.folder import load

    result = learn(folder, quiet=as_json, new=new, track=track)
    if as_json:
        print((folder.path / "summary.json").read_text())
    else:
        show_runs([load(folder.path)])
    say(f"saved in {folder.path}")
    for seed, (task, iteration) in zip(result.seeds, result.diverged.tolist(), strict=True):
        if task >= 0:
            where = f"seed {seed} diverged in task {task + 1} at iteration {iteration}"
            refuse(f"{where}: its loss is not finite; the other seeds and what was measured are kept")
    if not bool(result.kept.all()):
        raise typer.Exit(1)


def show_runs(runs: Sequence[Loaded]) -> None:
    """Matrix and metrics of one run, a comparison of several, or of one whose numbers varied."""
    from lifelong.display.tables import compare_tables, show
    from lifelong.runs.groups import groups_of

    views = [view for run in runs for view in run.by_setting()]
    if len(views) == 1:
        show(views[0].result, output)
        for group in groups_of(views):
            output.print(group.origin) if group.origin else None
    else:
        output.print(*compare_tables(groups_of(runs), output.width))


def found_runs(paths: list[Path]) -> list[Loaded]:
    """The finished runs in some folders; what was passed over is said in one line each."""
    from lifelong.runs.groups import found

    runs, passed = found(paths)
    for reason in passed:
        say(f"passed over: {reason}")
    return runs


def compare_paradigms(asked: Asked | Path, out: Path, report: Path | None, as_json: bool) -> None:
    """Read one stream four ways, or go on where a folder's comparison was stopped; show the table."""
    with waiting("reading the data"):
        from lifelong.core.files import write
        from lifelong.display.live import Stages
        from lifelong.display.paradigms import paradigm_tables
        from lifelong.display.report.paradigms import paradigms_page
        from lifelong.studies import comparison

    with Stages("reading the stream", quiet=as_json) as tell:
        about, lines, folder = comparison.compare_paradigms(asked, out, tell)
    if as_json:
        print(json.dumps(about))
    else:
        output.print(*paradigm_tables(about, lines, output.width), sep="\n")
    say(f"saved in {folder}")
    if report:
        write(report, paradigms_page(folder).encode())
        say(f"report: {report}")
    if any(line.final is not None and not bool(line.final.isfinite().all()) for line in lines):
        refuse("some seeds diverged and were left out; the table says of which methods")
        raise typer.Exit(1)


def mix_ingredients(asked: Ingredients | Path, out: Path, report: Path | None, as_json: bool) -> None:
    """Learn every combination of starts and strategies, or go on with a folder's; show what each ingredient adds."""
    with waiting("reading the data"):
        from lifelong.core.files import write
        from lifelong.display.ingredients import ingredient_tables
        from lifelong.display.report.ingredients import ingredients_page
        from lifelong.studies.ingredients import mix

    mixed, folder = mix(
        asked,
        out,
        (lambda stage: None) if as_json else lambda stage: say(str(stage)),
        lambda run, place: learn(run, quiet=as_json, place=place, new=False),
    )
    if as_json:
        print(json.dumps(mixed.as_json()))
    else:
        output.print(*ingredient_tables(mixed), sep="\n")
    say(f"saved in {folder}")
    if report:
        write(report, ingredients_page(folder).encode())
        say(f"report: {report}")
    if any(not bool(run.result.kept.all()) for run in mixed.runs.values()):
        refuse("some seeds diverged and were left out; `lifelong show` of the runs says which")
        raise typer.Exit(1)
