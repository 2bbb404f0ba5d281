"""The command line: words become objects, a run, and a report. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scenarios.errors import ConfigurationError

if TYPE_CHECKING:
    from lifelong.core.result import Result
    from lifelong.runs.folder import Loaded, RunFolder
    from lifelong.runs.request import Request
    from lifelong.studies.comparison import Asked

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Continual learning: streams of tasks, learned by a fleet of seeds, measured.\n\n"
    "Try it: [bold]lifelong run split-digits --strategy 'Replay(size=200)'[/bold]",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what there is, and fetching it.")
app.add_typer(data_app, name="data")

Scenario = Annotated[str, typer.Argument(help="a named scenario, as in split-digits or 'split-digits(tasks=2)'")]
Setting = Annotated[str, typer.Option(help="task, domain or class; default: the scenario's")]
Model = Annotated[str, typer.Option(help="as in 'MLP(400, 400)' or 'my_net.py:Net(width=32)'")]
Optimiser = Annotated[str, typer.Option(help="as in 'Adam(0.001)'")]
Init = Annotated[str, typer.Option(help="where the network starts")]
Seeds = Annotated[str, typer.Option(help="3 is seeds 0, 1, 2; 3,4,9 are those; 3:4 is seed 3 alone, 7:12 is 7 ... 11")]
Iterations = Annotated[int, typer.Option(help="iterations of each task")]
Epochs = Annotated[
    float, typer.Option(help="instead of iterations: passes over each task; 1 is exactly one pass over each task")
]
Batch = Annotated[int, typer.Option(help="rows of a batch")]
Repeats = Annotated[
    int, typer.Option(help="steps on each batch before the next one comes; default: the scenario's, mostly 1")
]
OrderSeed = Annotated[int, typer.Option(help="one order of classes and tasks for all seeds; -1: each seed's own")]
StartSeed = Annotated[int, typer.Option(help="one draw of the first weights for all seeds; -1: each seed's own")]
DataSeed = Annotated[int, typer.Option(help="one order of rows, and of all draws, for all seeds; -1: each seed's own")]
EvalEvery = Annotated[int, typer.Option(help="evaluate also every so many iterations")]
EvalRows = Annotated[int, typer.Option(help="test rows, in all, of the evaluations along the way")]
Shots = Annotated[str, typer.Option(help="before each task, adapt with so many rows of each class, as in 1,5,10")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")]
FleetSize = Annotated[int, typer.Option("--fleet", help="seeds that run together; 0 is all")]
Threads = Annotated[int, typer.Option(help="processor threads; equal to the bit only for equal threads")]
Compile = Annotated[bool, typer.Option("--compile", help="compile the gradient: 45 s once, then faster")]
DataRoot = Annotated[str, typer.Option(help="folder of the data sets; default $LIFELONG_DATA, or the user's cache")]
Out = Annotated[Path, typer.Option(help="folder that the run's folder is made in")]
CheckpointEvery = Annotated[float, typer.Option(hidden=True)]


def _request(scenario: str, seeds: str, **fields: Any) -> Request:
    from lifelong.runs.request import Request, read_seeds

    return Request(scenario, seeds=read_seeds(seeds), **fields)


def _learn(folder: RunFolder, quiet: bool) -> Result:
    """Execute the run of a folder, and show meanwhile where it stands."""
    from lifelong.display import terminal
    from lifelong.runs.execute import execute

    if quiet:
        return execute(folder)
    with terminal.RunDisplay(f"{folder.request.scenario} · {folder.request.method}") as display:
        return execute(folder, watch=display.run, watch_start=display.start)


def _end(result: Result, path: Path) -> None:
    """Say where the run lies; exit code 1 when seeds diverged."""
    from lifelong.display import terminal

    _say(f"saved in {path}")
    for seed, (task, iteration) in zip(result.seeds, result.diverged.tolist(), strict=True):
        if task >= 0:
            where = f"seed {seed} diverged in task {task + 1} at iteration {iteration}"
            terminal.refuse(f"{where}: its loss is not finite; the other seeds and what was measured are kept")
    if not bool(result.kept.all()):
        raise typer.Exit(1)


@app.command()
def run(
    scenario: Scenario,
    setting: Setting = "",
    strategy: Annotated[str, typer.Option(help="as in 'EWC(strength=100.0) + Replay(size=200)'")] = "",
    learner: Annotated[str, typer.Option(help="instead of a strategy, as in 'NearestClassMean()'")] = "",
    baseline: Annotated[str, typer.Option(help="joint, joint(sampling='uniform') or isolate")] = "",
    model: Model = "",
    optimiser: Optimiser = "",
    init: Init = "Random()",
    seeds: Seeds = "5",
    order_seed: OrderSeed = -1,
    start_seed: StartSeed = -1,
    data_seed: DataSeed = -1,
    iterations: Iterations = 0,
    epochs: Epochs = 0.0,
    batch: Batch = 0,
    repeats: Repeats = 0,
    eval_every: EvalEvery = 0,
    eval_rows: EvalRows = 1000,
    few_shot: Shots = "",
    device: Device = "auto",
    fleet: FleetSize = 0,
    compile: Compile = False,
    threads: Threads = 1,
    data_root: DataRoot = "",
    name: Annotated[str, typer.Option(help="name of the run's folder; refused when it exists")] = "",
    out: Out = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say seconds and bytes, and stop")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json, and nothing else")] = False,
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Learn a scenario with many seeds at once, and measure it.

    Example: lifelong run split-digits --strategy "EWC(strength=100.0) + Replay(size=200)" --seeds 5
    """
    baseline = baseline or _baseline_of(strategy)
    request = _request(
        scenario, seeds, setting=setting, strategy=strategy, learner=learner, baseline=baseline, model=model,
        optimiser=optimiser, init=init, iterations=iterations, epochs=epochs, batch=batch, repeats=repeats,
        order_seed=order_seed, start_seed=start_seed, data_seed=data_seed, eval_every=eval_every, eval_rows=eval_rows,
        few_shot=few_shot, device=device, fleet=fleet, compile=compile, threads=threads, data_root=data_root,
    )  # fmt: skip
    from lifelong.display import terminal
    from lifelong.runs.execute import estimated, new_folder

    if dry_run:
        return terminal.output.print(estimated(request))
    _finish(new_folder(request, out, name, checkpoint_every), as_json)


def _baseline_of(strategy: str) -> str:
    """The baseline that a strategy cannot do without, and a line that says so."""
    from lifelong.runs.request import method_of

    baseline = method_of(strategy).get("baseline", "") if strategy else ""
    if baseline:
        _say(f"{strategy} weighs tasks that are learned together: --baseline {baseline}")
    return baseline


def _finish(folder: RunFolder, as_json: bool) -> None:
    """Learn what a folder still lacks, show what it measured, and say where it lies."""
    from lifelong.runs.folder import load

    result = _learn(folder, quiet=as_json)
    if as_json:
        print((folder.path / "summary.json").read_text())
    else:
        _show([load(folder.path)])
    _end(result, folder.path)


def _show(runs: Sequence[Loaded]) -> None:
    """Matrix and metrics of one run, a comparison of several, or of one whose numbers varied."""
    from lifelong.display import terminal
    from lifelong.runs.groups import groups_of

    views = [view for run in runs for view in run.by_setting()]
    if len(views) == 1:
        terminal.show(views[0].result, terminal.output)
    else:
        terminal.output.print(*terminal.compare_tables(groups_of(runs)))


@app.command()
def resume(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="the folder of a run, or of a comparison of paradigms")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Go on with a run that was stopped or killed; equal, bit for bit on a CPU, to one that never was.

    Of a comparison of paradigms, the lines that are finished are kept. Example: lifelong resume runs/split-digits-ewc
    """
    from lifelong.runs.folder import RunFolder

    if (path / "paradigms.json").exists():
        return _paradigms(path, Path(), None, as_json)
    folder = RunFolder.open(path, checkpoint_every)
    if not folder.finished:
        from lifelong.core.footprint import use_threads

        use_threads(folder.request.threads)
        for change in folder.changes():
            _say(f"warning: {change}")
    _finish(folder, as_json)


@app.command()
def compare(
    scenario: Scenario,
    strategy: Annotated[list[str] | None, typer.Option(help="one for each method")] = None,
    learner: Annotated[list[str] | None, typer.Option(help="one for each learner")] = None,
    baselines: Annotated[str, typer.Option(help="as in joint,isolate")] = "",
    setting: Setting = "",
    model: Model = "",
    optimiser: Optimiser = "",
    init: Init = "Random()",
    seeds: Seeds = "5",
    order_seed: OrderSeed = -1,
    start_seed: StartSeed = -1,
    data_seed: DataSeed = -1,
    iterations: Iterations = 0,
    epochs: Epochs = 0.0,
    batch: Batch = 0,
    repeats: Repeats = 0,
    eval_every: EvalEvery = 0,
    eval_rows: EvalRows = 1000,
    few_shot: Shots = "",
    device: Device = "auto",
    fleet: FleetSize = 0,
    compile: Compile = False,
    threads: Threads = 1,
    data_root: DataRoot = "",
    out: Out = Path("runs"),
    paradigms: Annotated[
        str, typer.Option(help="instead: one stream read four ways, as in all or multi-task,meta")
    ] = "",
    meta: Annotated[
        str, typer.Option(help="with --paradigms: the stage of the meta paradigm, as in 'MAML(shot=5)'")
    ] = "",
    report: Annotated[Path | None, typer.Option(help="also write the HTML report here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one summary for each method")] = False,
) -> None:
    """Run several methods on the same seeds and data, and put them side by side.

    Example: lifelong compare split-digits --strategy "FineTuning()" --strategy "Replay(size=200)" --baselines joint
    """
    common = {
        "setting": setting, "model": model, "optimiser": optimiser, "init": init, "iterations": iterations,
        "epochs": epochs, "batch": batch, "repeats": repeats, "order_seed": order_seed, "start_seed": start_seed,
        "data_seed": data_seed, "eval_every": eval_every, "eval_rows": eval_rows, "few_shot": few_shot,
        "device": device, "fleet": fleet, "compile": compile, "threads": threads, "data_root": data_root,
    }  # fmt: skip
    if meta and not paradigms:
        raise ConfigurationError("--meta is the stage of the meta paradigm: it goes with --paradigms")
    if paradigms:
        given = {
            "--learner": bool(learner), "--baselines": bool(baselines), "--init": init != "Random()",
            "--eval-every": eval_every > 0, "--fleet": fleet > 0, "--compile": compile, "--order-seed": order_seed >= 0,
            "--start-seed": start_seed >= 0, "--data-seed": data_seed >= 0,
        }  # fmt: skip
        for word in (word for word, is_given in given.items() if is_given):
            raise ConfigurationError(
                f"{word} does not go with --paradigms: the paradigms share one learner, start and schedule"
            )
        from lifelong.studies.comparison import Asked

        asked = Asked(_request(scenario, seeds, **common), tuple(strategy or ()), paradigms, meta)
        return _paradigms(asked, out, report, as_json)
    from lifelong.runs.request import method_of, read_baselines

    methods = [method_of(text) for text in strategy or ["FineTuning()"]]
    methods += [{"learner": text} for text in learner or []]
    methods += [{"baseline": text} for text in read_baselines(baselines)]
    _compare([_request(scenario, seeds, **method, **common) for method in methods], out, report, as_json)


def _compare(requests: list[Request], out: Path, report: Path | None, as_json: bool) -> None:
    """Run each request, and put those that can be compared side by side."""
    from lifelong.display import terminal
    from lifelong.display.page import write_report
    from lifelong.runs.execute import check, new_folder
    from lifelong.runs.folder import load
    from lifelong.runs.groups import groups_of

    for request in requests:  # all are sound before the first begins
        check(request)
    paths = []
    for request in requests:
        folder = new_folder(request, out)
        _learn(folder, quiet=as_json)
        paths.append(folder.path)
    runs = [load(path) for path in paths]
    groups = groups_of(runs)
    if as_json:
        named = [(name, run.path) for group in groups for name, run in group.runs.items()]
        print(json.dumps({name: json.loads((path / "summary.json").read_text()) for name, path in named}))
    else:
        terminal.output.print(*terminal.compare_tables(groups))
    if report:
        write_report(groups, report)
        _say(f"report: {report}")
    if not all(bool(run.result.kept.all()) for run in runs):
        terminal.refuse("some seeds diverged and were left out; `lifelong show RUN` says which")
        raise typer.Exit(1)


def _paradigms(asked: Asked | Path, out: Path, report: Path | None, as_json: bool) -> None:
    """Read one stream four ways, or go on where a folder's comparison was stopped; show the table."""
    from lifelong.core.files import write
    from lifelong.display import terminal
    from lifelong.display.page import paradigms_page
    from lifelong.studies.comparison import compare_paradigms

    about, lines, folder = compare_paradigms(asked, out, (lambda line: None) if as_json else _say)
    print(json.dumps(about)) if as_json else terminal.output.print(*terminal.paradigm_tables(about, lines))
    _say(f"saved in {folder}")
    if report:
        write(report, paradigms_page(folder).encode())
        _say(f"report: {report}")
    if any(line.final is not None and not bool(line.final.isfinite().all()) for line in lines):
        terminal.refuse("some seeds diverged and were left out; the table says of which methods")
        raise typer.Exit(1)


@app.command()
def pretrain(
    scenario: Scenario,
    init: Annotated[str, typer.Option(help="as in 'MAML(way=5, shot=1, iterations=2000)'")],
    output: Annotated[Path, typer.Option(help="the file to write; a checkpoint lies beside it meanwhile")],
    model: Model = "",
    seeds: Annotated[str, typer.Option(help="starts to learn together, 0 ... N - 1, or as in 3,4,9")] = "1",
    validate_every: Annotated[int, typer.Option(help="iterations between validations; default: a tenth")] = 0,
    episodes: Annotated[int, typer.Option(help="validation episodes")] = 200,
    device: Device = "auto",
    threads: Threads = 1,
    data_root: DataRoot = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="print what the file says of itself, and nothing else")
    ] = False,
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Learn a start on a scenario's background classes, for --init; the same words go on after a stop.

    Example: lifelong pretrain split-omniglot --init "ProtoNet(iterations=2000)" --output start.safetensors
    """

    from lifelong.core.footprint import use_threads
    from lifelong.display import terminal
    from lifelong.runs.execute import stopping
    from lifelong.runs.initialisation_files import Work

    use_threads(threads)
    request = _request(scenario, seeds, init=init, model=model, data_root=data_root, device=device, threads=threads)
    work = Work(request, output, validate_every, episodes, checkpoint_every)
    with stopping(work.checkpointer), terminal.PretrainingWatcher(init.partition("(")[0]) as watch:
        about = work.learn(None if as_json else watch)
    if as_json:
        print(json.dumps(about))
    else:
        terminal.output.print(terminal.initialisation_table(about))
        terminal.errors.print(f"saved in {output}", soft_wrap=True, highlight=False)


@app.command("meta-test")
def meta_test(
    starts: Annotated[list[Path], typer.Argument(metavar="FILE...", help="starts that `lifelong pretrain` wrote")],
    data: Annotated[
        str, typer.Option(help="a data set; default: the one of the scenario that the start was made for")
    ] = "",
    way: Annotated[int, typer.Option(help="classes of an episode; default: as trained")] = 0,
    shot: Annotated[int, typer.Option(help="support images of each class; default: as trained")] = -1,
    query: Annotated[int, typer.Option(help="query images of each class")] = 15,
    episodes: Annotated[int, typer.Option(help="episodes, the same for all starts")] = 600,
    online: Annotated[int, typer.Option(help="instead: learn so many classes one after another, image by image")] = 0,
    strategy: Annotated[list[str] | None, typer.Option(help="with --online, as in 'Replay(size=200)'")] = None,
    runs: Annotated[int, typer.Option(help="with --online: draws of the classes")] = 10,
    optimiser: Annotated[
        str, typer.Option(help="with --online: of the head, as in 'SGD()'; its rate is chosen from a grid")
    ] = "Adam()",
    device: Device = "auto",
    threads: Threads = 1,
    data_root: DataRoot = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the figures, and nothing else")] = False,
) -> None:
    """Test starts on classes that they never saw: few-shot episodes, or a stream of classes learned online.

    Example: lifelong meta-test start.safetensors --way 5 --shot 1 --episodes 600
    """

    from lifelong.core.footprint import use_threads
    from lifelong.display import terminal
    from lifelong.runs.initialisation_files import few_shot_rows, online_rows

    use_threads(threads)
    of_episodes = {"--way": way > 0, "--shot": shot >= 0, "--query": query != 15, "--episodes": episodes != 600}
    of_online = {"--strategy": bool(strategy), "--runs": runs != 10, "--optimiser": optimiser != "Adam()"}
    for word in (word for word, given in (of_episodes if online else of_online).items() if given):
        raise ConfigurationError(f"{word} {'does not go' if online else 'goes'} with --online")
    if online:
        rows = online_rows(starts, data, online, strategy or ["FineTuning()"], runs, optimiser, data_root, device)
    else:
        with terminal.EpisodeWatcher() as tell:
            rows = few_shot_rows(starts, data, way, shot, query, episodes, data_root, device, tell)
    print(json.dumps(rows)) if as_json else terminal.output.print(*terminal.tested(rows))


@app.command()
def transfer(
    scenario: Scenario,
    adaptation: Annotated[
        list[str] | None, typer.Option(help="one for each method of adaptation; `lifelong list adaptations`")
    ] = None,
    shots: Annotated[str, typer.Option(help="rows of each class of a target")] = "1,5,10",
    steps: Annotated[int, typer.Option(help="full-batch steps of an adaptation")] = 50,
    adapt: Annotated[str, typer.Option(help="its optimiser; the rate is the middle of the grid")] = "Adam(0.003)",
    setting: Annotated[str, typer.Option(help="in which the sources learn")] = "task",
    model: Model = "",
    optimiser: Optimiser = "",
    seeds: Seeds = "5",
    iterations: Iterations = 0,
    epochs: Epochs = 0.0,
    batch: Batch = 0,
    device: Device = "auto",
    threads: Threads = 1,
    data_root: DataRoot = "",
    as_json: Annotated[bool, typer.Option("--json", help="print every cell as JSON, and nothing else")] = False,
) -> None:
    """Learn each task as a source, adapt to each as a target with k rows of each class, and compare with scratch.

    Example: lifelong transfer split-digits --adaptation "FullFineTuning()" --adaptation "LinearProbe()" --shots 1,5,10
    """
    from lifelong.display import terminal
    from lifelong.display import transfer as tables
    from lifelong.studies.transfer import transfer as measured

    request = _request(
        scenario, seeds, setting=setting, model=model, optimiser=optimiser, iterations=iterations, epochs=epochs,
        batch=batch, few_shot=shots, device=device, threads=threads, data_root=data_root,
    )  # fmt: skip
    matrices = measured(request, adaptation or [], adapt, steps, _say if not as_json else lambda line: None)
    if as_json:
        print(json.dumps(tables.transfer_json(matrices)))
    else:
        tables.show_transfer(matrices, terminal.output)


@app.command()
def distil(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="the folder of a finished run: the teacher")],
    model: Annotated[str, typer.Option(help="the student, as in 'MLP(50)'")] = "MLP(50)",
    share: Annotated[float, typer.Option(help="share of the training rows that the student sees")] = 0.1,
    alpha: Annotated[float, typer.Option(help="weight of the labels; 1 - alpha is the teacher's")] = 0.1,
    temperature: Annotated[float, typer.Option(help="by which both scores are divided")] = 2.0,
    optimiser: Optimiser = "",
    iterations: Iterations = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the estimates as JSON, and nothing else")] = False,
) -> None:
    """Teach a fresh network by a finished run on fewer rows, beside the same network without a teacher.

    Example: lifelong distil runs/split-digits-replay --model "MLP(50)" --share 0.1
    """
    from lifelong.display import terminal
    from lifelong.display import transfer as tables
    from lifelong.studies.transfer import distil as distilled
    from lifelong.transfer.distillation import Distillation

    results, words = distilled(run, model, share, Distillation(alpha, temperature), optimiser, iterations)
    if as_json:
        print(json.dumps(tables.distilled_json(results)))
    else:
        terminal.output.print(tables.distilled_table(results, words))


Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")]


@app.command()
def show(runs: Runs, csv: Annotated[bool, typer.Option("--csv", help="print the accuracies as CSV")] = False) -> None:
    """Show finished runs: matrix and metrics of one, a comparison of several, like with like.

    Folders that hold runs are looked into, unfinished ones passed over. Example: lifelong show runs/*
    """
    from lifelong.display import terminal
    from lifelong.runs.groups import csv_of

    found = _found(runs)
    if csv:
        print(csv_of(found) if len(found) > 1 else found[0].to_csv(), end="")
        return
    if len(found) == 1:
        terminal.output.print(found[0].name, highlight=False, markup=False)
    _show(found)


def _found(paths: list[Path]) -> list[Any]:
    """The finished runs in some folders; what was passed over is said in one line each."""
    from lifelong.runs.groups import found

    runs, passed = found(paths)
    for why in passed:
        _say(f"passed over: {why}")
    return runs


@app.command()
def report(runs: Runs, output: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html")) -> None:
    """Write one HTML page about finished runs; it loads nothing from outside.

    Example: lifelong report runs/* --output report.html
    """
    from lifelong.display.page import write_report
    from lifelong.runs.groups import groups_of

    write_report(groups_of(_found(runs)), output)
    _say(f"report: {output}")


KINDS = (
    "scenarios",
    "strategies",
    "learners",
    "models",
    "optimisers",
    "initialisations",
    "adaptations",
    "metrics",
    "data",
)


@app.command("list")
def list_(kind: Annotated[str, typer.Argument(help=", ".join(KINDS))] = "") -> None:
    """List what can be named.

    Example: lifelong list strategies
    """
    import inspect

    from lifelong.display import terminal
    from lifelong.metrics import METRICS
    from lifelong.notation.expression import suggest, vocabulary
    from scenarios.catalogue import CATALOGUE
    from scenarios.datasets import DATASETS

    if kind and kind not in KINDS:
        raise ConfigurationError(f"unknown kind {kind!r}: {suggest(kind, KINDS)}")
    for one in [kind] if kind else KINDS:
        if one == "scenarios":
            rows = {name: entry.about for name, entry in CATALOGUE.items()}
        elif one == "data":
            rows = {name: data.about for name, data in DATASETS.items()}
        else:
            known = METRICS if one == "metrics" else vocabulary(one)
            rows = {name: (inspect.getdoc(value) or "").partition("\n")[0] for name, value in known.items()}
        _listing(one, rows, terminal.output)


def _listing(title: str, rows: dict[str, str], console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, about in rows.items():
        table.add_row(name, Text(about))
    console.print(table)


@app.command()
def explain(
    expression: Annotated[str, typer.Argument(metavar="EXPR")],
    scenario: Annotated[str, typer.Option(help="where its memory is measured")] = "split-digits",
) -> None:
    """Say what each part of a strategy changes, stores and costs, and what to expect.

    Example: lifelong explain "EWC(strength=100.0) + Replay(size=200)"
    """
    from lifelong.display import terminal
    from lifelong.display.explain import explain as explained
    from lifelong.runs.request import Request

    terminal.output.print(explained(Request(scenario, strategy=expression, seeds=(0,))))


@app.command()
def check(target: Annotated[str, typer.Argument(metavar="FILE.py[:NAME]")]) -> None:
    """Run the contract on your own strategy, learner, initialisation or scenario; one line for each check.

    Example: lifelong check my_idea.py
    """
    import torch

    from lifelong.contracts.check import check_target
    from lifelong.display import terminal

    torch.set_num_threads(1)
    failures = 0
    for name, subject, problem, mend in check_target(target):
        if problem:
            failures += 1
            terminal.output.print(
                f"[red]fails[/red]  {subject}: {name}: {problem}. {mend}", soft_wrap=True, highlight=False
            )
        else:
            terminal.output.print(f"[green]holds[/green]  {subject}: {name}", soft_wrap=True, highlight=False)
    if failures:
        terminal.refuse(f"{failures} of the contract's checks failed")
        raise typer.Exit(2)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="strategy or scenario")],
    path: Annotated[Path, typer.Argument(metavar="FILE.py")],
) -> None:
    """Write a small working file to start from.

    Example: lifelong new strategy my_idea.py
    """
    from lifelong.contracts.new import write_new
    from lifelong.display import terminal

    command = write_new(kind, path)
    terminal.output.print(f"wrote {path}; try it: {command}", soft_wrap=True, highlight=False)


@app.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(help="rows: names or their beginnings, as in split-mnist-class-ewc,sines; else all not done"),
    ] = "",
    data_root: DataRoot = "",
    record: Annotated[Path, typer.Option(help="where cells are kept")] = Path("docs/reference.json"),
    page: Annotated[Path, typer.Option(help="the table to write")] = Path("docs/reference.md"),
    device: Device = "auto",
    table_only: Annotated[bool, typer.Option("--table-only", help="write the page from what is kept")] = False,
    cheap_first: Annotated[bool, typer.Option("--cheap-first", help="by the seconds of earlier cells")] = False,
) -> None:
    """Run published tables again: protocol, ours, theirs, verdict. Finished cells are kept, so it can be cut off.

    Example: lifelong reproduce split-mnist-class-er
    """
    import torch

    from lifelong.display import terminal
    from lifelong.studies.published.reproduce import reproduce as again

    torch.set_num_threads(1)
    for line in again(name, data_root, record, page, device, table_only, cheap_first):
        terminal.output.print(line, soft_wrap=True, highlight=False, markup=False)


@data_app.command("list")
def data_list() -> None:
    """The data sets that can be named.

    Example: lifelong data list
    """
    list_("data")


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument()], data_root: DataRoot = "") -> None:
    """Fetch and decode a data set, and check its content.

    Example: lifelong data get mnist
    """
    from lifelong.display import terminal
    from scenarios.datasets import describe, load_dataset

    table = load_dataset(name, data_root or None)
    words = f"{describe(table)}, content {table.content_hash()}"
    terminal.output.print(words, soft_wrap=True, highlight=False, markup=False)


def main() -> None:
    """The console script: errors become one line, and exit codes 0, 1 and 2."""
    from lifelong.notation.user_code import name_files

    name_files(sys.argv[1:])
    try:
        code = app(standalone_mode=False)
    except ConfigurationError as error:
        code = _refused(error)
    except KeyboardInterrupt:
        code = 1
    except Exception as error:
        if type(error).__name__ == "Stopped":
            _say(f"stopped, and saved: {error or 'the same command goes on'}")
            code = 1
        elif hasattr(error, "format_message"):  # a usage error of typer's
            code = _refused(error.format_message() or "see --help")
        elif type(error).__name__ == "Abort":
            code = 1
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _refused(error: object) -> int:
    _say(f"error: {' '.join(str(error).split())}")
    return 2


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
