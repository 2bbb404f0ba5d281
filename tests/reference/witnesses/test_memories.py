"""Each policy of what is kept against a plain list that keeps rows by the same rule; and each with the strategies that hold one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch.utils._pytree import tree_map

from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.core.strategy import StrategyError
from lifelong.memory.class_balanced import ClassBalanced, level_shares
from lifelong.memory.herding import Herding
from lifelong.memory.ring import Ring
from lifelong.notation.expression import parse, vocabulary
from lifelong.strategies.replay.replay import Replay
from scenarios.stream import Budget
from tests.reference.witnesses.beside import NET, SEED, Beside, beside, stream_of

SETTINGS = ("class", "task", "domain")


def one_pass(setting):
    """Every row once, in batches of 7 whose last is not full."""
    return replace(stream_of(setting), budget=Budget(epochs=1, batch=7))


def arrived(run: Beside):
    """Group, row, task and draws' ticket of every row, in the order in which they came by for the first time."""
    for task in range(run.session.tasks):
        for batch in run.session.sampler.batches(task):
            ticket = batch.draws[0].get("ticket", torch.zeros_like(batch.row, dtype=torch.float64))[SEED]
            for b in range(batch.row.shape[1]):
                if batch.first_seen[SEED][b]:
                    y = int(batch.y[SEED][b])
                    group = y + task * run.problem.classes if run.problem.setting == "domain" else y
                    yield group, int(batch.row[SEED][b]), task, float(ticket[b])


def kept(run: Beside):
    """Row and task of all filled places, in order of row and task."""
    (memory,) = run.memory
    filled = run.session.fleet.learner.strategy.memory.filled(memory)
    return sorted(zip(memory["row"][filled].tolist(), memory["task"][filled].tolist(), strict=True))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("each", [1, 3, 50])
def test_a_ring_keeps_the_last_rows_of_each_group(setting, each):
    groups = 6 if setting != "domain" else 2 * 3
    run = beside(Replay(each * groups + 1, memory=Ring()), one_pass(setting))
    last = defaultdict(list)
    for group, row, task, _ in arrived(run):
        last[group] = [*last[group], (row, task)][-each:]
    assert kept(run) == sorted(chain(*last.values()))
    first = defaultdict(list)
    for group, row, task, _ in arrived(run):
        first[group] = [*first[group], (row, task)][:each]
    assert each == 50 or kept(run) != sorted(chain(*first.values()))


def by_levels(counts, size):
    """How many of each stay, by taking one of the largest away until there is room; of equals the last."""
    shares = list(counts)
    while sum(shares) > size:
        largest = max(shares)
        shares[len(shares) - 1 - shares[::-1].index(largest)] -= 1
    return shares


def test_levels_are_what_taking_from_the_largest_leaves():
    luck = torch.Generator().manual_seed(0)
    for _ in range(300):
        counts = torch.randint(0, 9, (5,), generator=luck)
        size = int(torch.randint(1, 30, (), generator=luck))
        assert level_shares(counts, size).tolist() == by_levels(counts.tolist(), size)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", [5, 20, 1000])
def test_class_balanced_keeps_the_smallest_tickets_of_each_group(setting, size):
    run = beside(Replay(size, memory=ClassBalanced()), one_pass(setting))
    groups = defaultdict(list)
    for group, row, task, ticket in arrived(run):
        groups[group].append((ticket, row, task))
    numbers = sorted(groups)
    shares = by_levels([len(groups[g]) for g in numbers], size)
    expected = [row for g, n in zip(numbers, shares, strict=True) for row in sorted(groups[g])[:n]]
    assert kept(run) == sorted((row, task) for _, row, task in expected)
    largest = [row for g, n in zip(numbers, shares, strict=True) for row in sorted(groups[g])[::-1][:n]]
    assert size == 1000 or kept(run) != sorted((row, task) for _, row, task in largest)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("setting", SETTINGS)
def test_herding_is_the_greedy_algorithm(setting, normalised):
    """After the only task: algorithm 4 of Rebuffi et al. (2017) on the final network's features, row after row."""
    each = 4
    count = 2 if setting == "domain" else 6
    run = beside(Replay(each * count, memory=Herding(normalised)), one_pass(setting)[:1])
    task, problem = run.finished[0], run.problem
    rows = task.row[task.valid]
    y = problem.y(rows, torch.zeros_like(rows))
    expected = []
    for c in sorted(set(y.tolist())):
        members = rows[y == c]
        f = problem.features({"net": run.net}, problem.x(members, torch.zeros_like(members)))
        f = f / f.norm(dim=1, keepdim=True) if normalised else f
        chosen: list[int] = []
        for k in range(1, each + 1):
            gaps = [
                float((f.mean(0) - (f[i] + sum((f[j] for j in chosen), torch.zeros_like(f[0]))) / k).norm())
                if i not in chosen else float("inf") for i in range(len(f))
            ]  # fmt: skip
            chosen.append(gaps.index(min(gaps)))
        expected += [int(members[i]) for i in chosen]
    (memory,) = run.memory
    assert memory["row"][memory["filled"]].tolist() == expected  # in the order in which they were chosen
    far = problem.features({"net": run.net}, problem.x(rows, torch.zeros_like(rows))).norm(dim=1)
    assert expected != rows[far.argsort()][: len(expected)].tolist()


def test_a_memory_that_is_too_small_for_its_groups_is_refused():
    with pytest.raises(StrategyError, match="at least 6 rows"):
        run(Learner(NET, Replay(5, memory=Ring())), stream_of(), [0])


@pytest.mark.parametrize("policy", vocabulary("memories"))
@pytest.mark.parametrize("strategy", ["Replay(size=30, {})", "DERPlusPlus(size=30, {})", "AGEM(per_class=5, {})"])
def test_any_strategy_with_any_policy(strategy, policy):
    """Rows of several tasks are kept, whatever the policy."""
    memory = beside(parse(strategy.format(f"memory={policy}()"), "strategies"), stream_of()).memory[0]
    assert len(set(memory["task"].tolist())) > 1


def test_herding_keeps_the_first_of_both_tasks_before_the_second_of_either():
    """A class comes back with the very same rows, so that every rank is there twice: the earlier task's stays before."""
    policy = Herding()
    run = beside(Replay(6, memory=policy), one_pass("class"))
    label = run.problem.index["label"]
    index = {
        **run.problem.index,
        "label": label[:1].expand_as(label),
    }  # the second task asks for the first one's classes
    problem, params = replace(run.problem, index=index), {"net": run.net}
    finished = tree_map(lambda leaf: leaf[SEED], run.session.sampler.finished(0))
    state = policy.init(problem, 3 * problem.classes)
    for number in (0, 1):
        task = finished._replace(number=torch.full_like(finished.number, number))
        state = policy.insert_task(problem, params, state, task, {})
    for c in finished.classes.nonzero()[:, 0].tolist():
        places = slice(3 * c, 3 * c + 3)
        order = state["ticket"][places].argsort()
        assert state["task"][places][order].tolist() == [0, 1, 0]
        first, again, second = state["row"][places][order].tolist()
        assert first == again != second
