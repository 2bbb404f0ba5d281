"""What the fuzz and the attacks on the command line found, by name; messages; Ctrl-C; what is weighed before it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from lifelong.core import footprint as weighing
from lifelong.core.footprint import ResourceError, estimate_memory
from lifelong.core.learner import Learner
from lifelong.core.stopped import Stopped
from lifelong.display.explain import explain
from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.maml import MAML
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import ExpressionError, parse
from lifelong.notation.user_code import suggest
from lifelong.runs import execute
from lifelong.runs.initialisation_files import weigh_start
from lifelong.runs.request import Request, RequestError, read_seeds
from scenarios.catalogue import build
from scenarios.errors import LONGEST, in_a_line
from scenarios.stream import ScenarioError
from tests.fuzz.model import FILES, LEFT
from tests.fuzz.verdict import Trials

ROOT = Path(__file__).parent.parent
LONG = "a" * 300
RUN, TINY = ["run", "split-blobs"], ["--iterations", "2", "--seeds", "1"]
START = "MAML(data='my.npz', way=2, shot=1, query=1, {})"
PRETRAIN = ["pretrain", "split-digits", "--output", "x.safetensors", "--init"]
LEARNED = ["meta-test", "start.safetensors"]
REFUSED = {
    "endless epochs": ([*RUN, "--epochs", "inf"], "--epochs inf"),
    "epochs that are no number": ([*RUN, "--epochs", "nan"], "--epochs nan"),
    "400 digits of iterations": ([*RUN, "--iterations", "9" * 400], "--iterations"),
    "400 digits of threads": ([*RUN, "--threads", "9" * 400], "--threads"),
    "400 digits of shots": ([*RUN, "--few-shot", "9" * 400], "shots were asked for"),
    "5,000 digits of seeds": ([*RUN, "--seeds", "9" * 5000], "--seeds"),
    "a seed beyond 64 bits": ([*RUN, "--seeds", "0,99999999999999999999"], "below 2**63"),
    "a start seed beyond 64 bits": ([*RUN, "--start-seed", str(2**63)], "--start-seed"),
    "a null byte": ([*RUN, "--name", "a\0b"], "null byte"),
    "bytes that are no text": ([*RUN, "--name", "a\udce9"], "UTF-8"),
    "a name too long": ([*RUN, "--name", LONG], "too long"),
    "a folder too deep": ([*RUN, *TINY, "--out", "a/" * 1000], "too many folders"),
    "a run too long": (["show", LONG], "is not a run"),
    "a folder of data too long": (["data", "get", "mnist", "--data-root", LONG], "too long"),
    "an escape": ([*RUN, "--strategy", "\x1b[31mEWC()"], "\\x1b"),
    "a folder named by a bell": (["distil", "\x07", *TINY[:2]], "\\x07"),
    "a device that speaks much": ([*RUN, "--device", "xla"], "try auto or cpu"),
    "a word that is no share": (["run", "split-blobs(validation='x')"], "must be a number"),
    "all rows held out": (["run", "regression-digits(validation=1)"], "not a share"),
    "more than all rows held out": (["run", "multi-digits(validation=100000)"], "not a share"),
    "a model of numbers": (["features", "digits", "--model", "Gated(trunk=(1, 2))"], "trunk takes one of"),
    "a model of rates": (["features", "digits", "--model", "SharedLayers(trunk=Gated(vary(0.1, 10)))"], "takes one of"),
    "keys of a number": ([*PRETRAIN, "SNAIL(keys=1)"], "numbers in brackets"),
    "a foreign record": (["reproduce", "sines", "--table-only", "--record", "runs/a/run.json"], "must be a list"),
    "no such row of many": (["reproduce", "zzz"], "more"),
    "no online draws": ([*LEARNED, "--online", "3", "--runs", "0"], "--runs 0"),
    "no episodes": ([*LEARNED, "--episodes", "0"], "episodes=0"),
    "negative validation episodes": ([*PRETRAIN, START.format("tasks=2"), "--episodes", "-5"], "--episodes -5"),
    "more shots than images": ([*LEARNED, "--shot", "1000000000"], "need 1000000001 images"),
    # what is weighed, by the other commands than run
    "steps of an adaptation": (["transfer", "split-digits", "--steps", "1000000000000"], "--steps"),
    "transfer of a wide network": (["transfer", "split-digits", "--model", "MLP(1000000000)"], "--model"),
    "similarity of long tasks": (["similarity", "split-digits", "--iterations", "1000000000"], "--iterations"),
    "a wide student": (["distil", "runs/a", "--model", "MLP(1000000000)"], "--model"),
    "paradigms of a wide network": (["compare", "split-digits", "--paradigms", "all", "--model", "MLP(1000000000)"], "--model"),
    "an explained memory": (["explain", "Replay(size=1000000000)"], "--strategy"),
    "online memory": ([*LEARNED, "--online", "3", "--strategy", "Replay(size=1000000000)"], "--strategy"),
    "features of a wide network": (["features", "digits", "--model", "MLP(1000000000)"], "memory"),
    "a start of a wide network": ([*PRETRAIN, START.format("tasks=2"), "--model", "MLP(1000000000)"], "--model"),
    "a start of many tasks": ([*PRETRAIN, START.format("tasks=1000000000")], "--init"),
    "a start of many rows": ([*PRETRAIN, "Pretrained(data='my.npz', batch=1000000000)"], "--init"),
    "a start of many steps": ([*PRETRAIN, START.format("steps=1000000000")], "--init"),
    "starts of many seeds": ([*PRETRAIN, START.format("tasks=2"), "--seeds", "100000"], "--seeds"),
    "a run's start of many rows": (["run", "split-digits", "--init", "Pretrained(data='my.npz', batch=1000000000)"], "--init"),
    "many steps on each batch": ([*RUN, "--repeats", "1000000000"], "--repeats"),
    "scales beyond numbers": (["run", "unbalanced(tasks=10000)"], "fewer tasks"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Who tries command lines in a folder with runs and starts."""
    trials = Trials(tmp_path_factory.mktemp("words") / "folder")
    trials.prepare(LEFT, FILES)
    yield trials
    trials.close()


@pytest.mark.parametrize("words, said", REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_in_one_line(trials, words, said):
    trial = trials.alone(words)
    assert not trial.failure, (trial.failure, trial.errors[-500:])
    assert trial.code == 2 and not trial.place and said in trial.errors, trial.errors


DONE = {
    "markup for a name": ([*RUN, *TINY, "--name", "[/]"], "runs/[/]"),
    "an escape for a name": ([*RUN, *TINY, "--name", "x\x1b[31mred"], "runs/x\\x1b[31mred"),
    "a start shown": (["show", "runs/a", "runs/[/]none", "runs/b"], "passed over"),
}


@pytest.mark.parametrize("words, said", DONE.values(), ids=DONE.keys())
def test_is_done_and_steers_no_terminal(trials, words, said):
    trial = trials.alone(words)
    assert not trial.failure and trial.code == 0 and said in trial.errors, (trial.failure, trial.errors)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_one_line_that_shows_all_it_quotes():
    assert in_a_line("no\n such\t thing") == "no such thing"
    assert in_a_line("\x1b[31m \u202e\x07é 😀") == "\\x1b[31m \\u202e\\x07é 😀"
    path = "/" + "a" * 200
    assert in_a_line(f"{path} is there") == f"{path} is there"  # what fits is not cut
    long = in_a_line(f"{'a' * 10_000} cannot be read: write it like EWC()")
    assert len(long) <= LONGEST and long.startswith("aaa") and long.endswith("cannot be read: write it like EWC()")
    many = in_a_line("first " + "word " * 1000 + "last")
    assert len(many) <= LONGEST and many.startswith("first") and many.endswith("last") and "..." in many


def test_names_are_few_and_the_nearest_come_first():
    known = [f"{word}{number}" for number in range(40) for word in ("alpha", "beta")]
    assert suggest("alpha7x", known) == "did you mean 'alpha7'?"
    many = suggest("zzb", known)
    assert many.startswith("there are beta") and "more" in many and len(many) < 200
    assert suggest("zz", ["b", "a"]) == "there are a, b" and suggest("zz", []) == "it has none"


def test_what_is_expected_fits_a_line():
    notes = [
        note
        for setting in ("task", "domain", "class")
        for strategy in ("EWC()", "SupervisedContrastiveReplay()", "L2Last()", "GSS()", "AGEM()")
        for note in Request("split-blobs", setting=setting, strategy=strategy).expectations()
    ]
    assert notes and max(map(len, notes)) <= LONGEST


@pytest.mark.parametrize(
    "text, said",
    [("NearestClassMean()", "memory on split-blobs"), ("MLP(5)", "parameters on split-blobs: 165"), ("Adam()", "optimiser: "),
     ("MAML()", "initialisation: "), ("Ring()", "memory: "), ("EWC()", "after_task")],
)  # fmt: skip
def test_anything_that_has_a_name_is_explained(text, said):
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as seen:
        console.print(explain(text, "split-blobs"))
    assert said in seen.get()


def test_what_is_misspelt_is_explained_by_the_kind_it_is_nearest_to():
    with pytest.raises(ExpressionError, match=r"unknown learner .*'NearestClassMean'"):
        explain("NearestClasMean()", "split-blobs")


def test_too_few_seeds_are_said_in_tables():
    from lifelong.display.tables import FEW, few_seeds

    assert "2 seeds are few" in str(few_seeds(2)) and "no interval" in str(few_seeds(1)) and few_seeds(FEW) is None


def test_the_tables_of_two_seeds_say_so(trials):
    for words in (["show", "runs/a"], ["show", "runs/a", "runs/b"]):
        assert "2 seeds are few" in " ".join(trials.alone(words).out.split())


# --- where words become values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iterations", "batch", "repeats", "eval_every", "eval_rows", "fleet"])
def test_a_request_has_the_same_bounds_from_python(name):
    with pytest.raises(RequestError, match=f"--{name.replace('_', '-')}"):
        Request("split-blobs", **{name: 10**12}).build()
    with pytest.raises(RequestError, match=r"2\*\*63"):
        _ = Request("split-blobs", data_seed=2**63).members
    with pytest.raises(RequestError, match="below"):
        read_seeds(f"1,{2**63}")


@pytest.mark.parametrize(
    "options", [{"tasks": True}, {"tasks": 2.0}, {"tasks": 10**6}, {"validation": [1]}, {"validation": True}, {"validation": 1},
                {"order": 3}, {"order": (0, "a")}, {"open": 1}], ids=str)  # fmt: skip
def test_options_of_a_scenario_are_of_their_types(options):
    with pytest.raises(ScenarioError):
        stream = build("split-blobs", options)
        stream.tasks_of(0)
    assert (
        len(build("split-blobs", order=None)) == 5
        and len(build("split-blobs", order=[1, 0, 2, 3, 4, 5, 6, 7, 8, 9])) == 5
    )


@pytest.mark.parametrize(
    "text, kind", [("MAML(outer=3)", "initialisations"), ("MAML(outer=MLP(2))", "initialisations"), ("Gated(1)", "models"),
                   ("TaskWeights(weights=1)", "strategies"), ("Replay(weighting=[1])", "strategies"),
                   ("MultiTask(tasks='a')", "initialisations")])  # fmt: skip
def test_fields_that_hold_things_are_of_their_kinds(text, kind):
    with pytest.raises(ExpressionError):
        parse(text, kind)
    assert repr(parse("MAML(outer=SGD(0.1))", "initialisations").outer).startswith("SGD(rate=0.1")


def test_a_start_is_weighed_by_its_parts(monkeypatch):
    with pytest.raises(InitialisationError, match="at most"):
        MAML(iterations=10**12)
    start = Request("split-digits", init="MAML(data='digits', allow_overlap=True)").build()[2]
    weigh_start(start)
    monkeypatch.setattr(weighing, "free_memory", lambda: 10**4)
    with pytest.raises(ResourceError, match="--model"):
        weigh_start(start)


def test_evaluations_along_the_way_and_steps_are_weighed(monkeypatch):
    monkeypatch.setattr(weighing, "free_memory", lambda: 10**9)
    stream = Request("split-blobs", iterations=1_000_000, batch=1).build()[1]
    estimate_memory(Learner(MLP(5)), stream, [0])
    estimate_memory(Learner(MLP(5)), stream, [0], eval_every=10)
    monkeypatch.setattr(weighing, "free_memory", lambda: 10**8)
    with pytest.raises(ResourceError, match="--eval-every"):
        estimate_memory(Learner(MLP(5)), stream, [0], eval_every=1)
    monkeypatch.setattr(weighing, "free_memory", lambda: 10**9)
    endless = Request("split-blobs", iterations=1_000_000, batch=1, repeats=10_000).build()[1]
    with pytest.raises(ResourceError, match="--repeats"):
        estimate_memory(Learner(MLP(5)), endless, [0])


def test_a_run_that_takes_days_says_so(monkeypatch):
    monkeypatch.setattr(execute, "cost", lambda *_: (10 * execute.DAY, 1))
    assert "10 days" in execute.warning_of_days(Request("split-blobs", iterations=200_000))
    assert execute.warning_of_days(Request("split-blobs", iterations=10)) == ""
    assert [execute.about(s) for s in (5, 600, 4 * 3600, 3e6)] == [
        "about 5 seconds", "about 10 minutes", "about 4 hours", "about 35 days"]  # fmt: skip
    assert "10 days of training" in execute.estimated(Request("split-blobs", iterations=200_000, seeds=(0,)))


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_before_anything_is_learned_ctrl_c_ends_the_planning():
    """Nothing was to be saved: it does not wait for a place where it could be; later it does."""
    early, late = (types.SimpleNamespace(stop_asked=False, begun=begun) for begun in (False, True))
    with pytest.raises(KeyboardInterrupt), execute.stopping(early):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    with execute.stopping(late):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert early.stop_asked and late.stop_asked


def test_a_run_that_is_stopped_while_it_is_planned_can_be_resumed(tmp_path, monkeypatch):
    from lifelong.runs.folder import RunFolder

    request = Request("split-blobs", iterations=2, seeds=(0,))
    folder = execute.new_folder(request, tmp_path, "a")
    plan = Request.build

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        return plan(self)

    monkeypatch.setattr(Request, "build", interrupted)
    with pytest.raises(Stopped, match="lifelong resume"):
        execute.execute(folder)
    monkeypatch.setattr(Request, "build", plan)
    resumed = execute.execute(RunFolder.open(tmp_path / "a"))
    assert torch.equal(resumed.accuracy, execute.execute(request, out=tmp_path).accuracy)


DEAF = """
import cli, os, sys, time
def deaf(*_, **__):
    said = "ready"
    while True:
        try:  # the word is said in here: a Ctrl-C that comes at once must find somebody who does not hear it
            print(said, flush=True)
            time.sleep(100)
        except KeyboardInterrupt:
            said = "heard"
cli.app = deaf
cli.main()
"""


def test_a_second_ctrl_c_ends_what_did_not_hear_the_first():
    process = subprocess.Popen([sys.executable, "-c", DEAF], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for said in ("ready", "heard"):
        assert process.stdout.readline().strip() == said
        process.send_signal(signal.SIGINT)
    assert process.wait(10) in (-signal.SIGINT, 130)


RAISED = {
    "a full disk": ("OSError(28, 'No space left on device', 'runs/a')", 1, "error: runs/a: No space left on device"),
    "a name": ("OSError(36, 'File name too long', 'aaa')", 2, "error: aaa: File name too long"),
    "no memory": ("MemoryError()", 1, "error: there is not enough memory"),
    "no memory for torch": ("RuntimeError('[enforce fail] DefaultCPUAllocator: not enough memory: you tried')", 1, "not enough memory"),
    "Ctrl-C": ("KeyboardInterrupt()", 130, ""),
    "a closed pipe": ("BrokenPipeError()", 1, ""),
}  # fmt: skip


@pytest.mark.parametrize("error, code, said", RAISED.values(), ids=RAISED.keys())
def test_exit_codes_are_those_of_the_table(error, code, said, monkeypatch, capsys):
    import cli

    def app(**_: object) -> None:
        raise eval(error)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["lifelong", "run"])
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    errors = capsys.readouterr().err
    assert ended.value.code == code and said in errors and errors.count("\n") == bool(said)
    assert signal.getsignal(signal.SIGINT) is before and f"| {code} |" in (cli.__doc__ or "")
    monkeypatch.setattr(cli, "app", lambda **_: (_ for _ in ()).throw(KeyError("a mistake of ours")))
    with pytest.raises(KeyError):  # and no mistake of ours is hidden
        cli.main()
