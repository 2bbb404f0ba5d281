"""`lifelong compare`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifelong.commands.options import LEARNED, OUTPUT, Json, Options, Out, Strategies, Track, option, takes
from scenarios.errors import ConfigurationError

if TYPE_CHECKING:
    from lifelong.runs.request import Request

APART = (
    "init",
    "trainable",
    "memory",
    "eval_every",
    "eval_rows",
    "linear_probe",
    "probe",
    "fleet",
    "compile",
    "order_seed",
    "start_seed",
    "data_seed",
)  # not with --paradigms


@takes()
def compare(
    *,
    strategy: Strategies = None,
    learner: Annotated[
        list[str] | None,
        option(LEARNED, "as in 'NearestClassMean()', once for each method", "EXPR", names="learners"),
    ] = None,
    baselines: Annotated[str, option(LEARNED, "as in joint,joint(sampling='uniform'),isolate")] = "",
    paradigms: Annotated[str, option(LEARNED, "instead: one stream read four ways, as in all or multi-task,meta")] = "",
    meta: Annotated[
        list[str] | None,
        option(LEARNED, "of --paradigms or --ingredients: a meta-learner, as in 'MAML(shot=5)'", "EXPR"),
    ] = None,
    ingredients: Annotated[
        bool, option(LEARNED, "instead: starts, and strategies, in every combination", "", "--ingredients")
    ] = False,
    held_out: Annotated[int, option(LEARNED, "with --paradigms: tasks at the end that nobody trains on", "N")] = 0,
    options: Options,
    out: Out = Path("runs"),
    report: Annotated[Path | None, option(OUTPUT, "also write the HTML report here", "PATH")] = None,
    track: Track = "",
    as_json: Json = False,
) -> None:
    """Run several methods on the same seeds and data, side by side.

    Example: lifelong compare split-digits --strategy "EWC()" --strategy "Replay(size=200)"
    """
    if track and (paradigms or ingredients):
        raise ConfigurationError("--track follows runs: it goes with neither --paradigms nor --ingredients")
    if paradigms and ingredients:
        raise ConfigurationError("--paradigms and --ingredients are two questions: ask one at a time")
    if paradigms:
        from lifelong.commands.learning import compare_paradigms

        given = [*(["--learner"] if learner else []), *(["--baselines"] if baselines else []), *options.given(*APART)]
        for word in given:
            raise ConfigurationError(
                f"{word} does not go with --paradigms: the paradigms share one learner, start, schedule and evaluation"
            )
        from lifelong.studies.comparison import Asked

        asked = Asked(options.request(), tuple(strategy or ()), paradigms, tuple(meta or ()), held_out)
        return compare_paradigms(asked, out, report, as_json)
    if held_out or (meta and not ingredients):
        word = "--held-out" if held_out else "--meta"
        raise ConfigurationError(f"{word} says something of the four paradigms: it goes with --paradigms")
    if ingredients:
        from lifelong.commands.learning import mix_ingredients

        for word, given in (("--learner", learner), ("--baselines", baselines)):
            if given:
                raise ConfigurationError(f"{word} does not go with --ingredients: it crosses starts with strategies")
        from lifelong.studies.ingredients import PARTS, STARTS, Ingredients

        words = (tuple(meta or STARTS), tuple(strategy or PARTS))
        return mix_ingredients(Ingredients(options.request(), *words), out, report, as_json)
    from lifelong.display.console import waiting

    with waiting(f"reading {options.scenario}"):
        from lifelong.runs.execute import check
        from lifelong.runs.request import method_of, read_baselines
        from lifelong.runs.tracking import trackers_named

        trackers = trackers_named(track)
        methods = [method_of(text) for text in strategy or ["FineTuning()"]]
        methods += [{"learner": text} for text in learner or []]
        methods += [{"baseline": text} for text in read_baselines(baselines)]
        requests = [options.request(**method) for method in methods]
        for request in requests:  # all are sound before the first begins
            check(request)
    _side_by_side(requests, out, report, as_json, trackers)


def _side_by_side(requests: list[Request], out: Path, report: Path | None, as_json: bool, track: Sequence[str]) -> None:
    """Run each request, and put those that can be compared side by side."""
    from lifelong.commands.learning import learn
    from lifelong.display.console import output, refuse, say
    from lifelong.display.live import Turns
    from lifelong.display.report.page import write_report
    from lifelong.display.tables import compare_tables
    from lifelong.runs.execute import new_folder
    from lifelong.runs.folder import load
    from lifelong.runs.groups import groups_of

    paths, turns = [], Turns(len(requests))
    for request in requests:
        folder, began = new_folder(request, out), time.monotonic()
        result = learn(folder, quiet=as_json, place=turns.place, track=track, turns=turns)
        if not as_json:  # what is finished stays to be seen
            say(f"{turns.place} · {request.method}: {result.accuracy_in_words or 'done'}")
        turns.took.append(time.monotonic() - began)
        paths.append(folder.path)
    runs = [load(path) for path in paths]
    groups = groups_of(runs)
    if as_json:
        named = [(name, run.path) for group in groups for name, run in group.runs.items()]
        print(json.dumps({name: json.loads((path / "summary.json").read_text()) for name, path in named}))
    else:
        output.print(*compare_tables(groups, output.width))
    if report:
        write_report(groups, report)
        say(f"report: {report}")
    if not all(bool(run.result.kept.all()) for run in runs):
        refuse("some seeds diverged and were left out; `lifelong show RUN` says which")
        raise typer.Exit(1)
