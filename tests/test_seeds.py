"""Budgets and seeds as the command line says them: steps on a batch, passes, and what a seed means told apart."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch

from lifelong import metrics
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.models.perceptron import MLP
from lifelong.runs.folder import load
from lifelong.runs.request import Request, RequestError
from scenarios.split import split
from scenarios.stream import Budget, Seed, seed_of
from scenarios.synthetic import blobs

STREAM = split(blobs(6, 4, 24), 3, budget=Budget(iterations=5, batch=8))


def test_members_with_one_order_share_classes_and_differ_in_all_else():
    members = [Seed(0, s, s) for s in range(5)]
    session = Session(Learner(MLP(5)), STREAM, members)
    index = session.sampler.index
    assert all(torch.equal(index["label"][0], label) for label in index["label"])
    assert all(torch.equal(index["rows_train"][0], rows) for rows in index["rows_train"])
    weights, batch = session.first_state().params["net"]["head.weight"], next(session.sampler.batches(0))
    for a, b in itertools.combinations(range(5), 2):
        assert not torch.equal(weights[a], weights[b]) and not torch.equal(batch.row[a], batch.row[b])
    assert sorted(map(tuple, members)) == sorted(set(members))


@pytest.mark.parametrize("meaning", Seed._fields)
def test_each_meaning_of_a_seed_moves_what_it_says(meaning):
    """Seeds that differ in one meaning alone: classes, first weights, or the order of rows."""
    plain, other = Seed(1, 1, 1), Seed(1, 1, 1)._replace(**{meaning: 2})
    session = Session(Learner(MLP(5)), STREAM, [plain, other])
    labels = session.sampler.index["label"]
    weights = session.first_state().params["net"]["head.weight"]
    places = []  # of the rows shown, among those of their task
    for s in (0, 1):
        rows, train = next(session.sampler.batches(0)).row[s], session.sampler.index["rows_train"][s, 0]
        places.append([train.tolist().index(row) for row in rows.tolist()])
    assert torch.equal(labels[0], labels[1]) == (meaning != "order")
    assert torch.equal(weights[0], weights[1]) == (meaning != "start")
    assert (places[0] == places[1]) == (meaning != "data")


def test_a_plain_seed_is_the_same_for_all_three():
    results = [run(Learner(MLP(5)), STREAM, seeds) for seeds in ([3], [Seed(3, 3, 3)], [Seed(0, 1, 2), 3])]
    for result, place in zip(results, (0, 0, 1), strict=True):
        assert torch.equal(result.accuracy[place], results[0].accuracy[0])
        assert torch.equal(result.losses[place], results[0].losses[0])
    assert results[1].seeds == (3,) and seed_of(3) == Seed(3, 3, 3)
    assert results[2].to_csv().splitlines()[1].startswith("0/1/2,0,")


def test_the_variance_is_divided_among_what_seeds_mean():
    """Against an analysis written down: values made of known effects, and those of a run."""
    seeds = [Seed(*levels) for levels in itertools.product(range(3), range(2), range(4))]
    effects = {"order": [0.0, 3.0, 6.0], "start": [0.0, 1.0], "data": [0.0, 0.0, 2.0, 2.0]}
    values = torch.tensor([effects["order"][o] + effects["start"][s] + effects["data"][d] for o, s, d in seeds])
    shares = metrics.variance_shares(values, seeds)
    total = 6.0 + 0.25 + 1.0  # of the levels, each about its mean
    expected = {"order": 6.0 / total, "start": 0.25 / total, "data": 1.0 / total, "together": 0.0}
    assert shares.keys() == expected.keys()
    assert all(abs(shares[name] - expected[name]) < 1e-6 for name in expected)
    parity = torch.tensor([float((o + s + d) % 2) for o, s, d in seeds if o < 2])
    assert metrics.variance_shares(parity, [seed for seed in seeds if seed.order < 2])["together"] > 0.999
    few = [Seed(*levels) for levels in itertools.product(range(2), range(2), range(2))]
    result = run(Learner(MLP(5)), STREAM, few)
    shares = metrics.variance_shares(result.losses.mean((1, 2)), few)
    assert abs(sum(shares.values()) - 1) < 1e-9 and min(shares.values()) > -1e-9
    for wrong in (few[:-1], few[:-1] + few[:1]):
        with pytest.raises(metrics.NotMeasured, match="every combination"):
            metrics.variance_shares(torch.arange(len(wrong)), wrong)
    with pytest.raises(metrics.NotMeasured, match="no variance"):
        metrics.variance_shares(torch.ones(8), few)


def test_a_request_tells_its_members_apart():
    request = Request("split-blobs", seeds=(0, 3, 4))
    assert request.members == [0, 3, 4]
    assert replace(request, order_seed=7).members == [Seed(7, s, s) for s in (0, 3, 4)]
    assert replace(request, order_seed=7, data_seed=0).members == [Seed(7, s, 0) for s in (0, 3, 4)]
    assert replace(request, seeds=(2,), order_seed=0, start_seed=1, data_seed=2).members == [Seed(0, 1, 2)]
    with pytest.raises(RequestError, match="3 seeds would run the same"):
        _ = replace(request, order_seed=0, start_seed=0, data_seed=0).members
    with pytest.raises(RequestError, match="from 0 to"):
        _ = replace(request, start_seed=-2).members
    assert "--order-seed 7 --data-seed 0" in replace(request, order_seed=7, data_seed=0).command


def test_steps_on_a_batch_are_a_budget():
    stream = Request("split-blobs", seeds=(0,), epochs=1, batch=10, repeats=3)._stream()
    assert (stream.budget.repeats, stream.budget.epochs) == (3, 1)
    tasks = stream.tasks_of(0)
    assert stream.steps(tasks) == [3 * -(-len(task.train) // 10) for task in tasks]
    assert Request("online-digits(repeats=3)")._stream().budget.repeats == 3
    assert Request("online-digits", repeats=2)._stream().budget.repeats == 2
    with pytest.raises(RequestError, match="cannot be negative"):
        Request("split-blobs", repeats=-1)._stream()


def test_the_command_line_says_it_all(cli, tmp_path):
    words = ["--seeds", "2", "--epochs", "1", "--batch", "10", "--repeats", "2", "--order-seed", "5", "--device", "cpu"]
    code, _, errors = cli("run", "split-blobs", *words, "--name", "one")
    assert code == 0, errors
    held = load(tmp_path / "runs/one")
    assert held.result.seeds == (Seed(5, 0, 0), Seed(5, 1, 1))
    assert json.loads((tmp_path / "runs/one/summary.json").read_text())["seeds"] == [[5, 0, 0], [5, 1, 1]]
    learner, stream, _ = held.request.build()
    again = run(learner, stream, [Seed(5, 1, 1)])
    assert torch.equal(again.accuracy[0], held.result.accuracy[1])
    code, out, errors = cli(
        "run", "split-blobs", "--seeds", "2", "--order-seed", "0", "--start-seed", "0", "--data-seed", "0"
    )
    assert (code, out) == (2, "") and "would run the same" in errors and errors.count("\n") == 1
    help_ = " ".join(cli("run", "--help").stdout.replace("│", " ").split())
    assert "1 is exactly one pass over each task" in help_ and "--order-seed" in help_ and "--repeats" in help_
