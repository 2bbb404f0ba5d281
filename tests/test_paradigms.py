"""One stream read four ways: the budget, what is held out, the dataset and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch

from lifelong.adaptation.few_shot import FewShot
from lifelong.core.learner import Learner
from lifelong.display.page import paradigms_page
from lifelong.meta.maml import MAML
from lifelong.meta.oml import OML
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.supervised import Pretrained
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.runs.request import Request
from lifelong.strategies.replay.replay import Replay
from lifelong.studies import comparison as side_by_side
from lifelong.studies.paradigms import PARADIGMS, Comparison
from scenarios.errors import ConfigurationError
from scenarios.split import split, with_validation
from scenarios.stream import Budget
from scenarios.synthetic import blobs
from scenarios.transformed import permuted

LEARNER = Learner(MLP(8), optimiser=Adam(0.01))
PROTOCOL = FewShot((1, 3), steps=4)
TABLE = blobs(10, 6, 40)


def compared(dataset=TABLE, seeds=(0, 4), **fields):
    stream = split(dataset, 5, "task", order=tuple(range(10)), validation=0.2, budget=Budget(iterations=12, batch=10))
    fields = {"strategies": (Replay(10),), "protocol": PROTOCOL, **fields}
    comparison = Comparison(stream, LEARNER, list(seeds), **fields)
    return comparison, comparison.learn()


@pytest.fixture(scope="module")
def whole():
    return compared()


def test_every_reading_stands_between_floors_and_ceilings(whole):
    _, lines = whole
    assert [line.paradigm for line in lines] == [
        *["floor"] * 3, "multi-task", "transfer", "meta", "continual", "continual", "ceiling", "ceiling",
    ]  # fmt: skip
    assert all(line.few_shot.shape == (2, 2) for line in lines)
    assert all((line.forgetting is not None) == (line.paradigm == "continual") for line in lines)
    assert all(line.sees for line in lines)
    assert float(lines[0].few_shot[0, 0]) == 0.5


def test_every_reading_passes_the_same_examples(whole):
    """N = trained tasks x iterations x batch; an episode's images are counted, those of two derivatives twice."""
    comparison, lines = whole
    assert comparison.budget == 3 * 12 * 10
    passes = {line.method if line.paradigm == "continual" else line.paradigm: line.passes for line in lines}
    rows = 3 * 2 * 24  # of 40 of each class, 10 test and a fifth of the others validate
    images = 4 * 2 * (5 * 1 * 2 + 5)  # MAML: tasks x way x (shot x steps x order + query)
    assert passes.pop("meta") == pytest.approx(comparison.budget // images * images / rows)
    assert all(value == pytest.approx(360 / rows) for name, value in passes.items() if name not in ("floor", "ceiling"))


def test_held_out_tasks_are_untouched(whole):
    """Other rows and labels in the last two tasks change nothing that was learned from the others."""
    held = TABLE.y >= 6
    x = torch.where(held[:, None], TABLE.x + 3 * torch.randn_like(TABLE.x), TABLE.x)
    _, others = compared(replace(TABLE, x=x))
    for line, other in zip(whole[1], others, strict=True):
        if line.paradigm != "ceiling" and line.final is not None:
            assert torch.equal(line.final, other.final), line.method
            assert line.rate == other.rate, line.method
    assert not torch.equal(whole[1][3].few_shot, others[3].few_shot)


def test_a_seed_is_the_same_beside_others(whole):
    _, alone = compared(seeds=(4,), paradigms=("multi-task", "continual"))
    by_name = {(line.paradigm, line.method): line for line in whole[1]}
    assert len(alone) == 8
    for line in alone:
        if line.final is not None:
            torch.testing.assert_close(line.final[0], by_name[line.paradigm, line.method].final[1])


def test_a_stage_can_be_named(whole):
    _, lines = compared(paradigms=("meta",), stage=ProtoNet(shot=2, query=3, tasks=2))
    meta = next(line for line in lines if line.paradigm == "meta")
    assert meta.method == "ProtoNet" and "2 rows" in meta.note and float(meta.final.mean()) > 0.5


def test_what_is_kept_is_what_was_shown(whole, tmp_path):
    comparison, lines = whole
    about = side_by_side.as_json(comparison, side_by_side.Asked(Request("split-blobs")))
    path = side_by_side.save(about, tmp_path / "kept")
    again, loaded = side_by_side.load_lines(path.parent)
    assert again == json.loads(json.dumps(about))
    shots = tuple(about["shots"])
    assert [side_by_side.row(line, shots) for line in loaded] == [side_by_side.row(line, shots) for line in lines]
    page = paradigms_page(path.parent)
    assert all(word in page for word in PARADIGMS) and "src=" not in page.split("</script>")[-1]


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (MAML(rotations=True), "rotations"),
        (MAML(way=3), "way"),
        (MAML(tasks=64, shot=5, steps=50), "more than the 360"),
        (MAML(query=200), "query=200"),
        (Pretrained(), "episodes alone"),
        (OML(), "episodes alone"),
    ],
)
def test_a_stage_that_a_reading_cannot_honour_is_refused_before_anything_is_learned(stage, said):
    stream = split(TABLE, 5, "task", budget=Budget(iterations=12, batch=10))
    with pytest.raises(ConfigurationError, match=said):
        Comparison(stream, LEARNER, [0], stage=stage, protocol=PROTOCOL)


def test_tasks_of_unequal_numbers_of_classes_are_refused():
    @dataclass(frozen=True)
    class Uneven:
        task_generator: object

        def tasks(self, dataset, seed):
            first, *others = self.task_generator.tasks(dataset, seed)
            return [replace(first, classes=first.classes[:1]), *others]

    stream = split(TABLE, 5, "task", budget=Budget(iterations=12, batch=10))
    with pytest.raises(ConfigurationError, match="1 to 2"):
        Comparison(replace(stream, task_generator=Uneven(stream.task_generator)), LEARNER, [0], protocol=PROTOCOL)


def test_where_nothing_is_held_out_a_tenth_is(whole):
    """Of rows that two tasks share, the same ones, so that no task trains on what another validates on."""
    for stream in (split(TABLE, 5, "task"), permuted(TABLE, 4, "task")):
        plain, held = (s.tasks_of(3) for s in (stream, with_validation(stream, 0.1)))
        everything = torch.cat([task.train for task in held])
        for before, after in zip(plain, held, strict=True):
            assert len(after.validation) == len(before.train) // 10
            assert torch.equal(torch.cat([after.train, after.validation]).sort().values, before.train.sort().values)
            assert not torch.isin(after.validation, everything).any()
    comparison, _ = whole
    assert (
        comparison.stream.tasks_of(0)[0].validation.tolist()
        == split(TABLE, 5, "task", order=tuple(range(10)), validation=0.2).tasks_of(0)[0].validation.tolist()
    )


def test_the_readings_begin_from_the_same_draw():
    """A stage that learns nothing has the trunk that a run of this seed starts from, and so takes to tasks alike."""
    _, lines = compared(paradigms=("meta",), stage=MAML(shot=2, query=2, tasks=2, outer=SGD(1e-30)))
    random, meta = (next(line for line in lines if word in line.method) for word in ("random", "MAML"))
    torch.testing.assert_close(meta.few_shot, random.few_shot)


def test_seeds_that_diverge_are_left_out_and_said(tmp_path):
    wild = replace(LEARNER, optimiser=SGD(1e30))
    stream = split(TABLE, 5, "task", budget=Budget(iterations=12, batch=10))
    comparison = Comparison(stream, wild, [0, 1], protocol=PROTOCOL, stage=MAML(shot=2, query=2, rate=1e30))
    lines = comparison.learn()
    assert comparison.diverged
    lost = [line for line in lines if "2 of 2 seeds diverged" in line.note]
    assert {"multi-task", "transfer", "meta", "continual"} <= {line.paradigm for line in lost}
    about = side_by_side.as_json(comparison, side_by_side.Asked(Request("split-blobs")))
    assert "NaN" not in json.dumps(about)
    side_by_side.save(about, tmp_path / "kept")
    _, again = side_by_side.load_lines(tmp_path / "kept")
    rows = [side_by_side.row(line, PROTOCOL.shots) for line in again]
    assert rows == [side_by_side.row(line, PROTOCOL.shots) for line in lines] and "diverged" in rows[3][2:6]
    kept = replace(lines[3], final=torch.tensor([0.5, torch.nan]), few_shot=None)
    assert side_by_side.row(kept, PROTOCOL.shots)[2] == "50.0"
