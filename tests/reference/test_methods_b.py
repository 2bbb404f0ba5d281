"""MAS, PackNet, BiC and generative replay against the plain loops: the same batches and draws, in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from lifelong.contracts.learners import _first, largest_gap
from lifelong.core.batch import normal
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, learned, run
from lifelong.core.settings import fleets_of_settings
from lifelong.models.convolutional import Conv4
from lifelong.models.module import Module
from lifelong.models.perceptron import MLP
from lifelong.notation.varied import Varied, with_values
from lifelong.optimisers.adam import Adam, AdamW
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.architecture.packnet import PackNet
from lifelong.strategies.regularisation.mas import MAS
from lifelong.strategies.replay.bic import BiC
from lifelong.strategies.replay.generative_replay import GenerativeReplay
from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs
from tests.reference import plain_methods as plain
from tests.reference.plain_methods import Rows

CLASSES, TASKS, STEPS, BATCH = 6, 3, 8, 5
CLOSE, FAR = 1e-9, 1e-6
DESCENT = SGD(0.05, momentum=0.9), partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = Adam(0.01), partial(torch.optim.Adam, lr=0.01)


class Witnessed:
    """One seed's run of a strategy, and all that a plain loop needs to run likewise."""

    def __init__(self, strategy, setting="class", optimiser=DESCENT[0], model=None, steps=STEPS, open="all"):
        dataset = blobs(CLASSES, 6, 60)
        dataset = replace(dataset, x=dataset.x.sigmoid())
        budget = Budget(iterations=steps, batch=BATCH)
        stream = split(dataset, TASKS, setting, open=open, budget=budget, validation=0.3)
        session = Session(Learner(model or MLP(7, 4), strategy, optimiser), stream, [3], dtype=torch.float64)
        self.session, self.problem, self.sampler = session, _first(session), session.sampler
        first = session.first_state()
        self.start = {name: value[0] for name, value in first.params["net"].items()}
        self.start_of_own = {name: value[0] for name, value in first.params.get("own", {}).get(self.label, {}).items()}
        self.batches = [[batch for batch in self.sampler.batches(t)] for t in range(TASKS)]
        self.tasks = [[self.rows(batch.row[0], batch.task[0]) for batch in batches] for batches in self.batches]
        self.state = learned(session)[1]
        self.params = {name: value[0] for name, value in self.state.params["net"].items()}
        self.memory = self.state.memory[0]

    @property
    def label(self):
        return self.session.fleet.learner.parts.labels[0]

    def rows(self, row, task):
        return Rows(self.problem.x(row, task).flatten(1), self.problem.y(row, task), self.problem.allowed(task))

    def of_task(self, t, part="row", valid="valid"):
        """Row numbers of a task, those to learn from or those held out."""
        finished = self.sampler.finished(t)
        return getattr(finished, part)[0][getattr(finished, valid)[0]]

    def drawn(self, t, i, name):
        return self.batches[t][i].draws[0][name][0].to(torch.float64)

    def scores(self, row, task, told):
        found = self.session.fleet.predict(self.state, row[None], task[None], told[None])
        return found[0]


# --- MAS ----------------------------------------------------------------------------------------------------------


def against_mas(strategy, strength, decay, optimiser, plain_optimiser):
    ours = Witnessed(strategy, "domain", optimiser)
    finished = [ours.rows(ours.of_task(t), torch.full_like(ours.of_task(t), t)) for t in range(TASKS)]
    theirs = plain.mas(ours.start, ours.tasks, plain_optimiser, finished, strength=strength, decay=decay)
    importance = {name: value[0] for name, value in ours.memory["importance"].items()}
    return largest_gap((ours.params, importance), (theirs.params, theirs.importance))


@pytest.mark.parametrize("optimisers", [DESCENT, ADAM], ids=["momentum", "adam"])
def test_mas_is_the_plain_loop(optimisers):
    assert against_mas(MAS(0.7, 0.9), 0.7, 0.9, *optimisers) < CLOSE


def test_mas_sees_a_small_error():
    assert against_mas(MAS(0.7 * 1.001, 0.9), 0.7, 0.9, *DESCENT) > FAR
    assert against_mas(MAS(0.7, 0.9 * 1.001), 0.7, 0.9, *DESCENT) > FAR


class Small(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.LayerNorm(5))
        self.head = nn.Linear(5, classes)


NETS = (MLP(9), Conv4(8, 2, 4), Conv4(8, 2, 4, halving="stride"), Module(Small, "Small()"))


@pytest.mark.parametrize("model", NETS, ids=repr)
def test_mas_importance_is_each_rows_own_gradient(model):
    """On networks whose layers are seen, and on one whose layers are not."""
    dataset = blobs(CLASSES, 64, 30)
    stream = split(replace(dataset, x=dataset.x.view(-1, 8, 8)), TASKS, "task", budget=Budget(iterations=1, batch=4))
    session = Session(Learner(model, MAS()), stream, [0], dtype=torch.float64)
    problem, task = _first(session), session.sampler.finished(1)
    task = task._replace(**{name: value[0] for name, value in task._asdict().items() if name != "draws"})
    net = {name: value[0] for name, value in session.first_state().params["net"].items()}
    memory = MAS().init(problem, {"net": net}, torch.Generator())[1]
    found = MAS().after_task(problem, {"net": net}, memory, task)[1]["importance"]
    expected, row = {name: torch.zeros_like(value) for name, value in net.items()}, task.row[task.valid]
    for b in range(len(row)):
        live = {name: value.clone().requires_grad_() for name, value in net.items()}
        answer = problem.logits({"net": live}, problem.x(row[b : b + 1], task.number[None]))[0, 2:4]
        for name, part in zip(net, torch.autograd.grad(answer.pow(2).sum(), list(live.values())), strict=True):
            expected[name] += part.abs() / len(row)
    assert all(value.any() for value in expected.values())
    for name in net:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


# --- PackNet ------------------------------------------------------------------------------------------------------


def against_packnet(strategy, prune, share, optimiser, plain_optimiser):
    ours = Witnessed(strategy, "task", optimiser)
    before = [round(share * STEPS)] * TASKS
    theirs = plain.packnet(ours.start, ours.tasks, plain_optimiser, prune=prune, before=before)
    owner = {name: ours.memory["owner"][name][0].to(torch.int64) + 1 for name in theirs.owner}
    owners = largest_gap({name: value % (TASKS + 1) for name, value in owner.items()}, theirs.owner)
    answers, row = [], ours.of_task(0)
    for t in range(TASKS):
        number = torch.full_like(row, t)
        x = ours.problem.x(row, number).flatten(1)
        ours_here = ours.scores(row, number, number)[:, 2 * t : 2 * t + 2]
        answers.append(largest_gap(ours_here, plain.packnet_scores(theirs, t, x)[:, 2 * t : 2 * t + 2]))
    return max(owners, largest_gap(ours.params, theirs.params), *answers)


@pytest.mark.parametrize("optimisers", [DESCENT, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_packnet_is_the_plain_loop(optimisers, share):
    assert against_packnet(PackNet(share, 0.6), 0.6, share, *optimisers) < CLOSE


def test_packnet_sees_a_small_error():
    """A rate that is wrong by 0.1 %, and another share of the weights or of the task, which are whole numbers."""
    assert against_packnet(PackNet(0.5, 0.6), 0.6, 0.5, SGD(0.05 * 1.001, momentum=0.9), DESCENT[1]) > FAR
    assert against_packnet(PackNet(0.5, 0.58), 0.6, 0.5, *DESCENT) > FAR
    assert against_packnet(PackNet(0.625, 0.6), 0.6, 0.5, *DESCENT) > FAR


@pytest.mark.parametrize("optimiser", [SGD(0.05, 0.9, weight_decay=0.1), Adam(0.05), AdamW(0.05, weight_decay=0.3)])
def test_packnet_never_changes_an_earlier_answer(optimiser):
    """Whatever the optimiser keeps or decays: answers in task 0 once it is over and at the stream's end, to the bit."""
    ours = Witnessed(PackNet(), "task", optimiser)
    row = ours.of_task(0)
    zero = torch.zeros_like(row)
    at_the_end = ours.scores(row, zero, zero)[:, :2]
    session = ours.session
    for event in session.events(session.begin()):
        if type(event).__name__ == "TaskEnded":
            ours.state = event.state.fleet
            break
    assert torch.equal(ours.scores(row, zero, zero)[:, :2], at_the_end)
    assert not torch.equal(ours.scores(row, zero, zero), ours.scores(row, zero, zero + 1))


def test_packnet_finds_a_heads_columns_whichever_way_they_lie():
    stream = split(blobs(CLASSES, 64, 30), TASKS, "task", order=(0, 1, 2, 3, 4, 5), budget=Budget(iterations=1))
    for model, turned in ((MLP(9), True), (Module(Small, "Small()"), False), (MLP(6), True)):
        state = Session(Learner(model, PackNet()), stream, [0]).first_state()
        owner = {name: value[0] for name, value in state.memory[0]["owner"].items()}
        weight = owner["head.weight"].T if turned else owner["head.weight"]
        expected = torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.int16)
        assert torch.equal(weight, expected[:, None].expand_as(weight)) and torch.equal(owner["head.bias"], expected)
        assert not any(value.any() for name, value in owner.items() if not name.startswith("head."))


def test_settings_that_prune_at_other_times_are_other_fleets():
    varied = {("strategy", "share"): Varied((0.25, 0.5)), ("strategy", "prune"): Varied((0.5, 0.75))}
    learner = with_values(Learner(MLP(4), PackNet()), varied)
    assert [len(settings) for settings in fleets_of_settings(learner)] == [2, 2]


# --- BiC ----------------------------------------------------------------------------------------------------------

PER_CLASS, HELD_OUT, REPLAYED = 6, 5, 4
OF_TASK = [[2 * t, 2 * t + 1] for t in range(TASKS)]


def kept(ours, t, size, name, part="row", valid="valid"):
    """Of each class of a task the rows with the smallest tickets, in their order."""
    row, ticket = ours.of_task(t, part, valid), ours.sampler.finished(t).draws[0][name][0]
    rows = ours.rows(row, torch.full_like(row, t))
    chosen = []
    for c in OF_TASK[t]:
        places = sorted((i for i in range(len(row)) if int(rows.y[i]) == c), key=lambda i: float(ticket[i]))
        assert len(places) >= size
        chosen += places[:size]
    return Rows(rows.x[chosen], rows.y[chosen], rows.allowed[chosen])


def against_bic(strategy, temperature, pull, optimiser=DESCENT, distilled=1.0):
    ours = Witnessed(strategy, "class", optimiser[0])
    memory = [kept(ours, t, PER_CLASS, "ticket") for t in range(TASKS)]
    held = [kept(ours, t, HELD_OUT, "held_out", "validation", "validation_valid") for t in range(TASKS)]
    exemplars = [[None] * STEPS]
    for t in range(1, TASKS):
        pool, exemplars = plain.joined(*memory[:t]), [*exemplars, []]
        for i in range(STEPS):
            chosen = plain.places(ours.drawn(t, i, "place"), len(pool.y), REPLAYED, strategy.replacement)
            exemplars[-1].append(Rows(pool.x[chosen], pool.y[chosen], pool.allowed[chosen]))
    validation = [[]] + [[plain.joined(*held[: t + 1])] * 400 for t in range(1, TASKS)]
    theirs = plain.bic(
        ours.start, ours.tasks, optimiser[1], classes=OF_TASK, exemplars=exemplars, validation=validation,
        correction_optimiser=partial(torch.optim.SGD, lr=4.0, momentum=0.8), temperature=temperature, pull=pull,
        distilled=distilled,
    )  # fmt: skip
    alpha, beta = (
        torch.tensor([pair[i] for pair in theirs.corrections for _ in range(2)], dtype=torch.float64) for i in (0, 1)
    )
    row = ours.of_task(0)
    answers = ours.scores(row, torch.zeros_like(row), torch.full_like(row, -1))
    expected = plain.bic_scores(theirs, ours.rows(row, torch.zeros_like(row)).x)
    return largest_gap(
        (ours.params, ours.memory["alpha"][0], ours.memory["beta"][0], answers), (theirs.params, alpha, beta, expected)
    )


@pytest.mark.parametrize("replacement", [True, False])
def test_bic_is_the_plain_loop(replacement):
    made = partial(BiC, PER_CLASS, HELD_OUT, REPLAYED, replacement)
    assert against_bic(made(2.0, 0.1), 2.0, 0.1) < CLOSE


def test_bic_sees_a_small_error():
    made = partial(BiC, PER_CLASS, HELD_OUT, REPLAYED, True)
    assert against_bic(made(2.0 * 1.001, 0.1), 2.0, 0.1) > FAR
    assert against_bic(made(2.0, 0.1 * 1.001), 2.0, 0.1) > FAR
    assert against_bic(made(2.0, 0.1), 2.0, 0.1, distilled=1.001) > FAR


def test_bic_stays_finite_where_held_out_rows_are_told_apart_perfectly():
    """Then no pair is the best: alpha would grow for ever."""
    strategy = BiC(20, 3, pull=0.0, steps=200)
    stream = split(blobs(4, 6, 60, spread=0.01), 2, "class", budget=Budget(iterations=60, batch=16), validation=0.3)
    session = Session(Learner(MLP(8), strategy, Adam(0.03)), stream, [0, 1])
    result, state = learned(session)
    assert all(state.memory[0][name].isfinite().all() for name in ("alpha", "beta"))
    assert float(result.accuracy[:, -1].mean()) > 0.9


# --- generative replay --------------------------------------------------------------------------------------------

LATENT = 3


def made_of(**words):
    return GenerativeReplay(**{"width": 8, "layers": 2, "latent": LATENT, "rows": 4, "rate": 0.02, **words})


def against_generative_replay(strategy, setting, weighting="tasks", rate=0.02, optimiser=DESCENT, **planted):
    ours = Witnessed(strategy, setting, optimiser[0])
    draws = [
        [{name: normal(ours.drawn(t, i, name)) for name in ("noise", "latent", "noise_again")} for i in range(STEPS)]
        for t in range(TASKS)
    ]
    seen = [ours.sampler.index["classes_of"][0, :t].any(0) for t in range(TASKS)]
    start = plain.Scholar(ours.start, ours.start_of_own)
    theirs = plain.generative_replay(
        start, ours.tasks, optimiser[1], partial(torch.optim.Adam, lr=rate), draws, answers=seen, weighting=weighting,
        **planted,
    )  # fmt: skip
    generator = {name: value[0] for name, value in ours.state.params["own"][ours.label].items()}
    assert generator.keys() == theirs.generator.keys()
    return largest_gap((ours.params, generator), (theirs.solver, theirs.generator))


@pytest.mark.parametrize("weighting", ["tasks", "equal"])
@pytest.mark.parametrize("setting", ["class", "domain"])
def test_generative_replay_is_the_plain_loop(setting, weighting):
    assert against_generative_replay(made_of(weighting=weighting), setting, weighting) < CLOSE


def test_generative_replay_sees_a_small_error():
    assert against_generative_replay(made_of(rate=0.02 * 1.001), "class") > FAR
    wrong = DESCENT[0], partial(torch.optim.SGD, lr=0.05 * 1.001, momentum=0.9)
    assert against_generative_replay(made_of(), "class", optimiser=wrong) > FAR
    for planted in ({"made": 1.001}, {"divergence": 1.001}, {"weighting": "equal"}):
        assert against_generative_replay(made_of(), "class", **planted) > FAR, planted


def test_generative_replay_asks_each_past_head_in_turn():
    """Task-incremental: in the third task made rows belong to the first two in turn, and are labelled in their heads."""
    ours = Witnessed(made_of(rows=6), "task", steps=2)
    problem, memory = ours.problem, {}
    for name in ("solver", "generator"):
        memory[name] = {key: value[0] for key, value in ours.memory[name].items()}
    memory |= {"seen": torch.tensor([True] * 4 + [False] * 2), "done": torch.tensor(2.0, dtype=torch.float64)}
    batch = ours.batches[2][0]
    fields = ("row", "task", "x", "y", "weight", "allowed", "first_seen", "shown", "progress")
    single = batch.replace(**{name: getattr(batch, name)[0] for name in fields})
    single = single.replace(draws={name: value[0] for name, value in batch.draws[0].items()}, bounds=(BATCH,), part=0)
    more = made_of(rows=6).extend(problem, {"net": ours.params}, memory, single)
    assert more.task[BATCH:].tolist() == [0, 1, 0, 1, 0, 1] and (more.row[BATCH:] == -1).all()
    assert torch.equal(more.y[BATCH:] // 2, more.task[BATCH:])
    x = plain.generated(memory["generator"], normal(ours.drawn(2, 0, "latent")))
    torch.testing.assert_close(more.x[BATCH:], x, rtol=1e-12, atol=1e-12)
    scores = plain.scores(memory["solver"], x).view(6, 3, 2)[torch.arange(6), torch.arange(6) % 2]
    assert torch.equal(more.y[BATCH:] % 2, scores.argmax(1))
    torch.testing.assert_close(more.weight[:BATCH].sum(), torch.tensor(1 / 3, dtype=torch.float64))
    torch.testing.assert_close(more.weight[BATCH:].sum(), torch.tensor(2 / 3, dtype=torch.float64))


def test_generative_replay_says_what_it_cannot_make():
    dataset = blobs(4, 6, 30)
    for some, beyond in ((dataset, True), (replace(dataset, x=dataset.x.sigmoid()), False)):
        assert any("reach beyond" in note for note in made_of().notes(split(some, 2))) == beyond


def test_generative_replay_learns_its_first_task_as_fine_tuning():
    """With nothing replayed, whatever its weighting."""
    stream = split(blobs(4, 6, 30), 2, "class", budget=Budget(iterations=10, batch=4))[:1]
    alone = run(Learner(MLP(5)), stream, [0], dtype=torch.float64)
    for weighting in ("tasks", "equal"):
        ours = run(Learner(MLP(5), made_of(weighting=weighting)), stream, [0], dtype=torch.float64)
        torch.testing.assert_close(ours.losses, alone.losses, rtol=1e-12, atol=1e-12)
