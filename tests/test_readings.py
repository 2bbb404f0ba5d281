"""One stream read four ways: the budget, what is held out, the table and its file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lifelong import side_by_side
from lifelong.adaptation.few_shot import FewShot
from lifelong.learner import Learner
from lifelong.meta.protonet import ProtoNet
from lifelong.model import MLP
from lifelong.optimisers import Adam
from lifelong.readings import READINGS, Comparison
from lifelong.report import readings_page
from lifelong.request import Request
from lifelong.strategies.replay import Replay
from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs

LEARNER = Learner(MLP(8), optimiser=Adam(0.01))
WHAT = FewShot((1, 3), steps=4)
TABLE = blobs(10, 6, 40)


def compared(table=TABLE, seeds=(0, 4), **fields):
    stream = split(table, 5, "task", order=tuple(range(10)), validation=0.2, budget=Budget(iterations=12, batch=10))
    fields = {"strategies": (Replay(10),), "what": WHAT, **fields}
    one = Comparison(stream, LEARNER, list(seeds), **fields)
    return one, one.learn()


@pytest.fixture(scope="module")
def whole():
    return compared()


def test_every_reading_stands_between_floors_and_ceilings(whole):
    _, lines = whole
    assert [line.reading for line in lines] == [
        *["floor"] * 3, "multi-task", "transfer", "meta", "continual", "continual", "ceiling", "ceiling",
    ]  # fmt: skip
    assert all(line.few_shot.shape == (2, 2) for line in lines)
    assert all((line.forgetting is not None) == (line.reading == "continual") for line in lines)
    assert all(line.sees for line in lines)
    assert float(lines[0].few_shot[0, 0]) == 0.5


def test_every_reading_passes_the_same_examples(whole):
    """N = trained tasks x iterations x batch; an episode's images are counted, those of two derivatives twice."""
    one, lines = whole
    assert one.budget == 3 * 12 * 10
    passes = {line.method if line.reading == "continual" else line.reading: line.passes for line in lines}
    rows = 3 * 2 * 24  # of 40 of each class, 10 test and a fifth of the others validate
    images = 4 * 2 * (5 * 1 * 2 + 5)  # MAML: tasks x way x (shot x steps x order + query)
    assert passes.pop("meta") == pytest.approx(one.budget // images * images / rows)
    assert all(value == pytest.approx(360 / rows) for name, value in passes.items() if name not in ("floor", "ceiling"))


def test_held_out_tasks_are_untouched(whole):
    """Other rows and labels in the last two tasks change nothing that was learned from the others."""
    held = TABLE.y >= 6
    x = torch.where(held[:, None], TABLE.x + 3 * torch.randn_like(TABLE.x), TABLE.x)
    _, others = compared(replace(TABLE, x=x))
    for line, other in zip(whole[1], others, strict=True):
        if line.reading != "ceiling" and line.final is not None:
            assert torch.equal(line.final, other.final), line.method
            assert line.rate == other.rate, line.method
    assert not torch.equal(whole[1][3].few_shot, others[3].few_shot)


def test_a_seed_is_the_same_beside_others(whole):
    _, alone = compared(seeds=(4,), readings=("multi-task", "continual"))
    by_name = {(line.reading, line.method): line for line in whole[1]}
    assert len(alone) == 8
    for line in alone:
        if line.final is not None:
            torch.testing.assert_close(line.final[0], by_name[line.reading, line.method].final[1])


def test_a_stage_can_be_named(whole):
    _, lines = compared(readings=("meta",), stage=ProtoNet(shot=2, query=3, tasks=2))
    meta = next(line for line in lines if line.reading == "meta")
    assert meta.method == "ProtoNet" and "2 rows" in meta.note and float(meta.final.mean()) > 0.5


def test_what_is_kept_is_what_was_shown(whole, tmp_path):
    one, lines = whole
    about = side_by_side.as_json(one, Request("split-blobs"))
    path = side_by_side.save(about, tmp_path / "kept")
    again, loaded = side_by_side.load_lines(path.parent)
    assert again == json.loads(json.dumps(about))
    shots = tuple(about["shots"])
    assert [side_by_side.row(line, shots) for line in loaded] == [side_by_side.row(line, shots) for line in lines]
    page = readings_page(path.parent)
    assert all(word in page for word in READINGS) and "src=" not in page.split("</script>")[-1]
