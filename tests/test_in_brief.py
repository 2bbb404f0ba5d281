"""At a prompt: a record of tensors is a line, and a finished run's parameters have plain names."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map

from lifelong.core.learner import Learner
from lifelong.core.loop import Done, Session, Stepped, TaskEnded, run
from lifelong.models.perceptron import MLP
from lifelong.notation.varied import vary
from lifelong.runs.execute import execute
from lifelong.runs.folder import load, params_name
from lifelong.runs.request import Request
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.replay.replay import Replay
from scenarios.brief import WIDTH
from scenarios.catalogue import build
from scenarios.errors import ConfigurationError
from scenarios.joint import joint
from scenarios.stream import Budget, Seed

ROOT = Path(__file__).parent.parent
TINY = Budget(iterations=3, batch=4)
LEARNER = Learner(MLP(8), Replay(20))


def tiny(name: str = "split-blobs"):
    return build(name, budget=TINY)


def test_every_record_of_tensors_says_how_it_is_shown():
    """What is not said would be said by `dataclass` or `NamedTuple`: every number, by the page."""
    for path in [*ROOT.glob("lifelong/**/*.py"), *ROOT.glob("scenarios/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef) or not (node.decorator_list or node.bases):
                continue
            fields = [
                item for item in node.body if isinstance(item, ast.AnnAssign) and "repr=False" not in ast.unparse(item)
            ]
            held = [
                item for item in fields if re.search(r"\bTensor\b|\bParams\b|\bMeta\b", ast.unparse(item.annotation))
            ]
            said = any("__repr__" in ast.unparse(item).partition("\n")[0] for item in node.body)
            assert said or not held or node.name.startswith("_"), f"{path}: write `__repr__ = in_brief` in {node.name}"


def records():
    stream = tiny()
    session = Session(LEARNER, stream, [0, 1])
    state = session.begin()
    alone = tree_map(lambda leaf: leaf[0], (state.fleet, next(session.sampler.batches(0))))
    problem = replace(session.fleet.problem, index={k: v[0] for k, v in session.fleet.problem.index.items()})
    step = LEARNER.gradients(problem, *alone)
    result = run(LEARNER, stream, [0, 1])
    events = [Stepped(state, torch.zeros(2), False), TaskEnded(state, result.accuracy[:, 0]), Done(state, result)]
    shown = stream.schedule.shown(stream.tasks_of(0), 0, stream.wanted(stream.tasks_of(0)), 0)
    finished = session.sampler.finished(0)
    return [stream, stream.dataset, stream[0], shown, session.fleet.problem, state, *alone, step, step.outputs, finished, result, *events]  # fmt: skip


def test_reprs_are_lines():
    for record in records():
        for line in (repr(record), str(record)):
            assert line.startswith(type(record).__name__) and "\n" not in line and len(line) <= WIDTH == 120, line
            assert "tensor(" not in line, line


def test_reprs_say_what_it_is():
    stream, dataset, task, _, _, _, state, batch, *_ = records()
    assert repr(dataset) == "Dataset(blobs: 450 training and 150 test rows of float32[20], 10 classes)"
    assert repr(stream).startswith(
        "Stream(split-blobs: class-incremental, 5 tasks, 10 classes, blobs, Budget(iterations=3"
    )
    assert repr(task) == "Task(0: 90 training, 0 validation, 30 test rows, classes (0, 1))"
    assert repr(state) == "State(params=4 tensors, optimiser=9 tensors, memory=4 tensors)"
    assert repr(batch).startswith("Batch(row=int64[4], task=int64[4], x=float32[4, 20]")


def test_a_result_says_how_well_it_went():
    stream, line = tiny(), r"Result\({}, 5 tasks, {}, average accuracy \d+\.\d %{}\)"
    spread = r" \(\d+\.\d \.\.\. \d+\.\d\)"
    result = run(LEARNER, stream, [0, 1, 2])
    assert re.fullmatch(line.format("class-incremental", r"seeds 0 \.\.\. 2", spread), repr(result))
    each = 100 * result.at_task_ends[:, -1].mean(1)
    assert f"{each.mean():.1f} % ({each.min():.1f} ... {each.max():.1f})" in repr(result)
    assert re.fullmatch(
        line.format("joint, class-incremental", "seed 3", ""), repr(run(Learner(MLP(8)), joint(stream), [3]))
    )
    told_apart = run(LEARNER, stream, [Seed(0, 1, 2), Seed(0, 1, 3), 7])
    assert re.fullmatch(line.format("class-incremental", "3 seeds", spread), repr(told_apart))
    varied = run(Learner(MLP(8), EWC(vary(1.0, 10.0))), stream, [0, 1])
    assert repr(varied) == "Result(class-incremental, 5 tasks, 4 members, 2 settings: see by_setting())"
    lost = replace(result, diverged=torch.tensor([[-1, -1], [0, 2], [-1, -1]]))
    assert repr(lost).endswith("1 diverged)") and f"{each[[0, 2]].mean():.1f} %" in repr(lost)
    lost = replace(result, diverged=torch.zeros(3, 2, dtype=torch.int64))
    assert repr(lost) == "Result(class-incremental, 5 tasks, seeds 0 ... 2, 3 diverged)"
    mixed = run(LEARNER, tiny("mixed-digits"), [0])  # classes and numbers have no common mean
    assert repr(mixed) == "Result(task-incremental, 4 tasks, seed 0)"


# --- a finished run's parameters ------------------------------------------------------------------------------------

NESTED = '''
from dataclasses import dataclass
import torch
from lifelong import Strategy

@dataclass(frozen=True)
class Nested(Strategy):
    """Own parameters as a tree."""
    start: float = 1.0

    def init(self, problem, params, generator):
        tree = {"encoder": {"weight": torch.full((3, 2), self.start), "bias": torch.zeros(2)}, "scale": torch.ones(())}
        return {**params, "own": tree}, {}

    def penalty(self, problem, params, memory, batch, outputs):
        return params["own"]["encoder"]["weight"].square().sum() + params["own"]["scale"]
'''

LOOPED = '''
from dataclasses import dataclass
from tests.contracts.parts import ModuleLearner

@dataclass(frozen=True)
class Mine(ModuleLearner):
    """A learner that is no pure function of tensors."""
    width: int = 4
'''


def learned(tmp_path, **words):
    request = Request(**{"scenario": "split-blobs", "iterations": 3, "model": "MLP(8)", "device": "cpu", **words})
    execute(request, out=tmp_path, name="run")
    return load(tmp_path / "run")


def test_parameters_have_plain_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nested.py").write_text(NESTED)
    finished = learned(tmp_path, strategy="nested.py:Nested() + nested.py:Nested(2.0)", seeds=(0, 1, 2), fleet=2)
    part_shapes = {f"{part}.{name}": shape for part in ("Nested", "Nested/1") for name, shape in
           (("encoder.weight", (3, 3, 2)), ("encoder.bias", (3, 2)), ("scale", (3,)))}  # fmt: skip
    net = {
        "net.layer0.weight": (3, 20, 8),
        "net.layer0.bias": (3, 8),
        "net.head.weight": (3, 8, 10),
        "net.head.bias": (3, 10),
    }
    assert {name: tuple(value.shape) for name, value in finished.params.items()} == part_shapes | net
    gap = finished.params["Nested/1.encoder.weight"] - finished.params["Nested.encoder.weight"]
    assert gap.min() > 0.9  # each part has its own
    state = finished.sessions()[0][1]
    assert torch.equal(finished.params["net.head.bias"][:2], state.params["net"]["head.bias"])
    assert "\n" not in repr(finished) and len(repr(finished)) <= WIDTH and "split-blobs" in repr(finished)


def test_names_are_read_whatever_is_in_them():
    assert params_name("state.params['net']['head.bias']") == ("net.head.bias", None)
    assert params_name("""state.params['own']["It's/0"]['a'][3]""") == ("It's.a.3", None)
    assert params_name("state.params['own']['DER/1']['scale']") == ("DER/1.scale", None)
    assert params_name("state['12']['4.running_mean']") == ("4.running_mean", 12)
    assert params_name("state.memory[0]['row']") == params_name("result.accuracy") == ("", None)


def test_parameters_of_a_looped_learner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("looped.py").write_text(LOOPED)
    finished = learned(tmp_path, learner="looped.py:Mine()", model="", seeds=tuple(range(11)), iterations=1)
    state = finished.sessions()[0][1]
    weights = torch.stack([member.tensors()["1.weight"] for member in state])
    assert torch.equal(finished.params["1.weight"], weights) and weights.shape == (11, 4, 20)
    with pytest.raises(ConfigurationError, match="network of its own: leave --model out"):
        replace(finished.request, model="MLP(8)").build()


def test_a_view_of_one_setting_is_of_its_own_members(tmp_path):
    """Parameters and answers of a setting in a varied run are those of the run of that setting alone."""
    words = {"seeds": (0, 1), "iterations": 5}
    views = learned(tmp_path / "both", strategy="EWC(strength=vary(1.0, 1000.0))", **words).by_setting()
    rows = tiny().dataset.x[:5]
    for view, strength in zip(views, (1.0, 1000.0), strict=True):
        alone = learned(tmp_path / str(strength), strategy=f"EWC(strength={strength})", **words)
        assert view.request.strategy == alone.request.strategy
        torch.testing.assert_close(view.params, alone.params)
        torch.testing.assert_close(view.predict(rows), alone.predict(rows))
    assert not torch.equal(views[0].params["net.head.bias"], views[1].params["net.head.bias"])


def test_parameters_that_differ_in_shape_are_refused(tmp_path):
    from lifelong.core.files import RunError

    finished = learned(tmp_path, model="MLP(8)", learner="", strategy="Replay(size=vary(5, 20))", seeds=(0,))
    assert finished.params["net.head.bias"].shape == (2, 10)  # what differs is the memory
    chunk = tmp_path / "run/learner-1.safetensors"
    from lifelong.core.files import load_tensors, save_tensors

    tensors, about = load_tensors(chunk)
    tensors["state.params['net']['head.bias']"] = torch.zeros(1, 3)
    save_tensors(chunk, tensors, about)
    with pytest.raises(RunError, match="differ in shape"):
        _ = finished.params
