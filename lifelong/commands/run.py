"""`lifelong run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from lifelong.commands.options import LEARNED, OUTPUT, CheckpointEvery, Json, Options, Out, Track, option, takes


@takes()
def run(
    *,
    strategy: Annotated[
        str,
        option(
            LEARNED,
            "as in 'EWC(strength=100.0) + Replay(size=200)'",
            "EXPR",
            usual="FineTuning()",
            names="strategies",
        ),
    ] = "",
    learner: Annotated[
        str,
        option(LEARNED, "instead of a strategy, as in 'NearestClassMean()'", "EXPR", names="learners"),
    ] = "",
    baseline: Annotated[str, option(LEARNED, "joint, joint(sampling='uniform') or isolate")] = "",
    options: Options,
    name: Annotated[str, option(OUTPUT, "name of the run's folder; refused when it exists")] = "",
    out: Out = Path("runs"),
    dry_run: Annotated[bool, option(OUTPUT, "say seconds and bytes, and stop", "", "--dry-run")] = False,
    as_json: Json = False,
    track: Track = "",
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Learn a scenario with many seeds at once, and measure it.

    Example: lifelong run split-digits --strategy "EWC(strength=100.0) + Replay(size=200)"
    """
    from lifelong.commands.learning import finish
    from lifelong.display.console import output, waiting

    with waiting(f"reading {options.scenario}"):
        from lifelong.runs.execute import estimated, new_folder
        from lifelong.runs.tracking import trackers_named

        trackers = trackers_named(track)
        baseline = baseline or _baseline_of(strategy)
        request = options.request(strategy=strategy, learner=learner, baseline=baseline)
        made: Any = estimated(request) if dry_run else new_folder(request, out, name, checkpoint_every)
    output.print(made, soft_wrap=True) if dry_run else finish(made, as_json, track=trackers)


def _baseline_of(strategy: str) -> str:
    """The baseline that a strategy cannot do without, and a line that says so."""
    from lifelong.display.console import say
    from lifelong.runs.request import method_of

    baseline = method_of(strategy).get("baseline", "") if strategy else ""
    if baseline:
        say(f"{strategy} weighs tasks that are learned together: --baseline {baseline}")
    return baseline
