"""Methods against closed forms, plain loops and torch's own optimisers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.learners import largest_gap, states, tiny
from lifelong.core.batch import FinishedTask
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.core.problem import Problem, log_softmax
from lifelong.core.strategy import FineTuning
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam, AdamW
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.regularisation.fisher import fisher
from lifelong.strategies.regularisation.quadratic import quadratic_gradient
from lifelong.strategies.replay.replay import ClassReplay, Replay
from scenarios.joint import joint
from scenarios.split import split
from scenarios.stream import Budget, generator
from scenarios.synthetic import blobs

DOUBLE = torch.float64


def plain_forward(net: dict, x: torch.Tensor) -> torch.Tensor:
    for name in [n[:-7] for n in net if n.endswith(".weight")]:
        x = x @ net[f"{name}.weight"] + net[f"{name}.bias"]
        x = x if name == "head" else x.relu()
    return x


def plain_ewc(stream, seed: int, strength: float, model: MLP) -> dict:
    """Three tasks by a plain loop: torch.optim.Adam, one stored penalty for each past task, Fisher row by row."""
    session = Session(Learner(model), stream, [seed], dtype=DOUBLE)
    net = {k: v[0].clone().requires_grad_() for k, v in session.first_state().params["net"].items()}
    optimiser = torch.optim.Adam(net.values(), lr=0.01)
    past: list[tuple[dict, dict]] = []
    for task in range(session.tasks):
        for batch in session.sampler.batches(task):
            loss = F.cross_entropy(plain_forward(net, batch.x[0]), batch.y[0])
            for importance, anchor in past:
                loss = loss + strength / 2 * sum((importance[k] * (net[k] - anchor[k]) ** 2).sum() for k in net)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finished = session.sampler.finished(task)
        rows = finished.row[0][finished.valid[0]]
        importance = {k: torch.zeros_like(v) for k, v in net.items()}
        for x in session.stream.dataset.x[rows].to(DOUBLE):
            log_p = plain_forward(net, x[None]).log_softmax(1)[0]
            for c in range(len(log_p)):
                gradient = torch.autograd.grad(log_p[c], list(net.values()), retain_graph=True)
                for k, g in zip(net, gradient, strict=True):
                    importance[k] = importance[k] + log_p[c].exp().detach() * g**2 / len(rows)
        past.append((importance, {k: v.detach().clone() for k, v in net.items()}))
    return {k: v.detach() for k, v in net.items()}


def test_ewc_is_a_plain_loop_with_one_penalty_per_task():
    stream = split(blobs(6, 8, 40), 3, "class", budget=Budget(iterations=50, batch=8))
    theirs = plain_ewc(stream, 1, 20.0, MLP(12))
    ours = states(Learner(MLP(12), EWC(20.0), Adam(0.01)), stream, [0, 1], DOUBLE).params["net"]
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name][1], value, rtol=1e-7, atol=1e-9)


def test_one_paraboloid_stands_for_one_penalty_per_task():
    """The pull of F = sum F_k around c = sum F_k p_k / F is autograd's gradient of strength/2 sum_k F_k (p - p_k)^2."""
    random = torch.Generator().manual_seed(0)
    f, past = (torch.rand(3, 5, dtype=DOUBLE, generator=random) for _ in range(2))
    p = torch.rand(5, dtype=DOUBLE, generator=random).requires_grad_()
    (theirs,) = torch.autograd.grad(7.0 / 2 * (f * (p - past).square()).sum(), p)
    memory = {"importance": {"p": f.sum(0)}, "centre": {"p": (f * past).sum(0) / f.sum(0)}}
    ours = quadratic_gradient({"net": {"p": torch.zeros_like(p)}}, {"net": {"p": p.detach()}}, memory, 7.0)
    torch.testing.assert_close(ours["net"]["p"], theirs)


def small_problem(model) -> tuple[Problem, dict, FinishedTask]:
    stream = split(blobs(4, 6, 12), 2, "class", budget=Budget(iterations=2, batch=4))
    session = Session(Learner(model), stream, [0], dtype=DOUBLE)
    state = session.first_state()
    import dataclasses

    problem = dataclasses.replace(
        session.fleet.problem, index={k: v[0] for k, v in session.fleet.problem.index.items()}
    )
    finished = session.sampler.finished(0)
    task = FinishedTask(*(field[0] for field in finished[:-1]))
    return problem, {"net": {k: v[0] for k, v in state.params["net"].items()}}, task


class Unseen(MLP):
    """The same network whose layers nobody sees: every row's gradient is formed."""

    def features(self, net, x, at=None):
        return super().features(net, x)

    def head(self, net, features, at=None):
        return super().head(net, features)


def test_fisher_by_outer_products_is_fisher_row_by_row():
    fast = fisher(*small_problem(MLP(7)), "exact")
    slow = fisher(*small_problem(Unseen(7)), "exact")
    for name, value in fast.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-10, atol=1e-14)


def test_empirical_fisher_is_the_mean_square_of_row_gradients():
    problem, params, task = small_problem(MLP(5))
    ours = fisher(problem, params, task, "empirical")
    rows = task.row[task.valid]
    total = {k: torch.zeros_like(v) for k, v in params["net"].items()}
    for row in rows:
        net = {k: v.clone().requires_grad_() for k, v in params["net"].items()}
        x, y = problem.x(row[None], task.number[None]), problem.y(row[None], task.number[None])
        loss = F.cross_entropy(plain_forward(net, x), y)
        for k, g in zip(net, torch.autograd.grad(loss, list(net.values())), strict=True):
            total[k] = total[k] + g**2 / len(rows)
    for name, value in total.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("ours, theirs", [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGD(0.1, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
    (Adam(0.02, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.02, weight_decay=0.1)),
    (AdamW(0.02, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1)),
], ids=lambda v: repr(v)[:30] if not callable(v) else "")  # fmt: skip
def test_optimisers_are_torchs(ours, theirs):
    """Pure, in place on a fleet of three, and torch.optim: the same after ten steps."""
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 4, 5, dtype=DOUBLE, generator=random), torch.randn(3, 5, dtype=DOUBLE, generator=random)]
    steps = [[torch.randn(p.shape, dtype=DOUBLE, generator=random) for p in start] for _ in range(10)]
    fleet = [p.clone() for p in start]
    state = ours.init([p[0] for p in start])
    stacked = torch.utils._pytree.tree_map(lambda leaf: torch.stack([leaf] * 3), state)
    for gradients in steps:
        ours.update_(fleet, gradients, stacked, 0.0)
    for s in range(3):
        pure, pure_state = [p[s] for p in start], state
        live = [p[s].clone().requires_grad_() for p in start]
        reference = theirs(live)
        for gradients in steps:
            each = [g[s] for g in gradients]
            pure, pure_state = ours.update(pure, each, pure_state, torch.zeros(()))
            for p, g in zip(live, each, strict=True):
                p.grad = g
            reference.step()
        for a, b, c in zip(fleet, pure, live, strict=True):
            torch.testing.assert_close(a[s], c.detach(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(b, c.detach(), rtol=1e-9, atol=1e-12)


def test_clipping_bounds_each_seed_by_itself():
    ours = SGD(1.0, clip=1.0)
    params = [torch.zeros(2, 3, dtype=DOUBLE)]
    ours.update_(params, [torch.tensor([[3.0, 4.0, 0.0], [0.3, 0.4, 0.0]], dtype=DOUBLE)], {}, 0.0)
    torch.testing.assert_close(params[0].norm(dim=1), torch.tensor([1.0, 0.5], dtype=DOUBLE), rtol=1e-5, atol=0)


def test_reservoir_is_uniform():
    """Every row of a stream is kept equally often, over many seeds: chi-square of the counts."""
    stream = split(blobs(2, 4, 40), 1, "class", budget=Budget(epochs=2, batch=7))
    rows = int(stream.dataset.train_rows)
    state = states(Learner(MLP(2), Replay(size=10), SGD(0.01)), stream, list(range(400)), torch.float32)
    memory = state.memory[0]
    assert memory["seen"].tolist() == [rows] * 400
    assert all(len(set(memory_rows)) == 10 for memory_rows in memory["row"].tolist()), "no row is kept twice"
    counts = torch.bincount(memory["row"].flatten(), minlength=rows).to(DOUBLE)
    expected = 400 * 10 / rows
    chi_square = float(((counts - expected) ** 2 / (expected * (1 - 10 / rows))).sum())
    from scipy.stats import chi2

    assert 1e-4 < chi2.sf(chi_square, rows - 1) < 1 - 1e-4


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_class_replay_keeps_rows_of_every_class(setting):
    stream = split(blobs(6, 4, 24), 3, setting, budget=Budget(iterations=3, batch=4))
    memory = states(Learner(MLP(2), ClassReplay(4), SGD(0.01)), stream, [5], torch.float32).memory[0]
    assert memory["filled"].all()
    tasks = stream.tasks_of(5)
    rows, numbers = (memory[name][0].view(-1, 4) for name in ("row", "task"))
    for group in range(rows.shape[0]):
        task = tasks[int(numbers[group, 0])]
        assert set(rows[group].tolist()) <= set(task.train.tolist())
        assert len(set(task.label[stream.dataset.y[rows[group]]].tolist())) == 1
        assert len(set(rows[group].tolist())) == 4


def test_joint_is_training_on_the_concatenated_data():
    """One task that holds all classes, and the joint paradigm of a split: the same rows in the same order."""
    dataset = blobs(6, 8, 24)
    order = tuple(range(6))
    many = joint(split(dataset, 3, "class", order, budget=Budget(iterations=10, batch=4)))
    session = Session(Learner(MLP(4)), many, [0], dtype=DOUBLE)
    assert set(session.sampler.plan(0)[0][0].tolist()) <= set(range(dataset.train_rows))
    net = {k: v[0].clone() for k, v in session.first_state().params["net"].items()}
    for task in range(3):
        for batch in session.sampler.batches(task):
            live = {k: v.clone().requires_grad_() for k, v in net.items()}
            loss = F.cross_entropy(plain_forward(live, dataset.x[batch.row[0]].to(DOUBLE)), dataset.y[batch.row[0]])
            net = {
                k: (v - 0.1 * g)
                for (k, v), g in zip(net.items(), torch.autograd.grad(loss, list(live.values())), strict=True)
            }
    ours = states(Learner(MLP(4), FineTuning(), SGD(0.1)), many, [0], DOUBLE).params["net"]
    for name, value in net.items():
        torch.testing.assert_close(ours[name][0], value, rtol=1e-9, atol=1e-12)


def test_evaluation_does_not_touch_training():
    learner, stream = Learner(MLP(8), EWC(1.0) + Replay(10), Adam(0.01)), tiny()
    plain = run(learner, stream, [0, 1])
    watched = run(learner, stream, [0, 1], eval_every=2, eval_rows=6)
    assert torch.equal(plain.at_task_ends, watched.at_task_ends)
    assert watched.accuracy.shape[1] > plain.accuracy.shape[1]


def test_chunks_are_the_whole_fleet():
    learner = Learner(MLP(8), Replay(10), Adam(0.01))
    whole, parts = run(learner, tiny(), range(5)), run(learner, tiny(), range(5), fleet=2)
    assert torch.equal(whole.accuracy, parts.accuracy) and torch.equal(whole.losses, parts.losses)


def test_a_seed_of_unequal_tasks_has_a_budget_of_its_own():
    """In epochs, a seed takes as many steps of a task as its own rows fill, whoever runs beside it."""
    import dataclasses

    dataset = blobs(6, 6, 24)
    uneven = dataclasses.replace(dataset, y=torch.where(torch.arange(len(dataset.y)) % 5 == 0, 0, dataset.y))
    stream = split(uneven, 3, "domain", budget=Budget(epochs=2, batch=4))
    learner = Learner(MLP(8), Replay(10), Adam(0.01))
    steps = Session(learner, stream, range(4)).sampler.steps
    assert len({tuple(row) for row in steps.tolist()}) > 1
    for seed, row in enumerate(steps.tolist()):
        assert row == [-(-2 * len(task.train) // 4) for task in stream.tasks_of(seed)]
    whole, parts = run(learner, stream, range(4)), run(learner, stream, range(4), fleet=1)
    assert torch.equal(whole.losses, parts.losses) and torch.equal(whole.accuracy, parts.accuracy)


def test_a_diverged_seed_is_alone():
    """One seed starts from NaN: it is flagged with its place, and the others end as without it."""

    class Poisoned:
        def of(self, seed):
            return self

        def __call__(self, problem, params, generator_):
            poison = torch.rand((), generator=generator_) < 0.5
            return {"net": {k: torch.where(poison, torch.nan, v) for k, v in params["net"].items()}}

    seeds = list(range(6))
    poisoned = [bool(torch.rand((), generator=generator(s, "start")) < 0.5) for s in seeds]
    assert any(poisoned) and not all(poisoned)
    learner = Learner(MLP(8), FineTuning(), Adam(0.01))
    result, clean = run(learner, tiny(), seeds, Poisoned()), run(learner, tiny(), seeds)
    assert (result.diverged[:, 0] >= 0).tolist() == poisoned
    kept = ~torch.tensor(poisoned)
    assert torch.equal(result.accuracy[kept], clean.accuracy[kept])
    assert result.accuracy[~kept][:, -1].isnan().all()


def test_conv_learns_and_agrees_alone_in_double():
    images = copy.copy(blobs(4, 64, 20))
    import dataclasses

    dataset = dataclasses.replace(images, x=images.x.view(-1, 8, 8))
    stream = split(dataset, 2, "class", budget=Budget(iterations=5, batch=4))
    learner = Learner(Conv4(channels=8, blocks=2, groups=4), FineTuning(), SGD(0.05))
    alone, fleet = states(learner, stream, [2], DOUBLE), states(learner, stream, [1, 2], DOUBLE)
    for name, value in alone.params["net"].items():
        torch.testing.assert_close(fleet.params["net"][name][1], value[0], rtol=1e-12, atol=1e-12)


def test_masked_log_softmax_ignores_closed_classes():
    logits = torch.tensor([[1.0, 2.0, 99.0]])
    open_ = torch.tensor([[True, True, False]])
    expected = torch.tensor([1.0, 2.0]).log_softmax(0)
    assert torch.allclose(log_softmax(logits, open_)[0, :2], expected)


@pytest.mark.parametrize(
    "schedule, shares", [("linear", [1.0, 0.75, 0.5, 0.25]), ("cosine", [1.0, 0.853553, 0.5, 0.146447])]
)
def test_schedules_fall_over_a_task(schedule, shares):
    for i, share in enumerate(shares):
        params = [torch.zeros(1, 2)]
        SGD(1.0, schedule=schedule).update_(params, [torch.ones(1, 2)], {}, i / 4)
        assert float(params[0][0, 0]) == pytest.approx(-share, abs=1e-5)


def test_reset_starts_the_moments_afresh():
    stream = tiny()
    state = states(Learner(MLP(4), FineTuning(), Adam(0.01, at_task_end="reset")), stream, [0, 1], DOUBLE)
    assert float(state.optimiser["count"].sum()) == 0.0
    kept = states(Learner(MLP(4), FineTuning(), Adam(0.01)), stream, [0, 1], DOUBLE)
    assert state.optimiser["count"].shape == kept.optimiser["count"].shape
    assert largest_gap(state.params, kept.params) > 0


def test_reset_alone_is_fleet():
    learner = Learner(MLP(8), EWC(1.0), Adam(0.01, epsilon=1e-4, at_task_end="reset"))
    alone, fleet = states(learner, tiny(), [3], torch.float32), states(learner, tiny(), [1, 3], torch.float32)
    for a, b in zip(alone.params["net"].values(), fleet.params["net"].values(), strict=True):
        assert torch.equal(a[0], b[1])
