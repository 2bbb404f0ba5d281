"""Tasks learned together: against closed forms, a solver, and plain loops."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.learners import states, stream_for, tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_request, run
from lifelong.core.problem import log_softmax
from lifelong.core.strategy import FineTuning, StrategyError, Sum
from lifelong.metrics import NotMeasured, multi_task_gain, multi_task_gains
from lifelong.models.anml import Gated
from lifelong.models.base import Described, ModelError, apply_linear
from lifelong.models.conditioned import PLACES, WAYS, Conditioned, block_gates
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.multitask.gradients import gramian
from lifelong.strategies.multitask.mgda import MGDA
from lifelong.strategies.multitask.pcgrad import PCGrad
from lifelong.strategies.multitask.surgery import mgda, pcgrad
from lifelong.strategies.multitask.weights import TaskWeights, UncertaintyWeights
from lifelong.strategies.regularisation.ewc import EWC
from scenarios.errors import ConfigurationError
from scenarios.joint import isolate, joint
from scenarios.split import split
from scenarios.stream import Budget, generator
from scenarios.synthetic import blobs
from tests.reference.plain_joint import RATE, TASKS, Plain, apart

DOUBLE = torch.float64
PLANTED = 1e-6  # further than this is a run with a planted error
PROJECTED_WRONGLY = ("what agrees is taken", "against what was projected before", "a mean")
PARTS = (FineTuning(), TaskWeights((1.0, 2.0, 0.5)), UncertaintyWeights(), PCGrad(), MGDA())


def vectors(tasks: int, seed: int, width: int = 8) -> torch.Tensor:
    """Gradients of very different lengths, [T, F]."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.rand(tasks, 1, generator=random, dtype=DOUBLE).mul(3).exp()
    return torch.randn(tasks, width, generator=random, dtype=DOUBLE) * lengths


def projected(g: torch.Tensor, order: torch.Tensor, taken: float = 1.0, planted: str = "") -> torch.Tensor:
    """PCGrad as its paper writes it, on the vectors; taken: of each projection, 1 unless an error is planted."""
    total, others = torch.zeros_like(g[0]), g.clone()
    for i in range(len(g)):
        direction = g[i].clone()
        for j in order[i].tolist():
            other = others[j]
            product = direction @ other
            # a product of exactly 0 takes nothing, so that < and <= are the same
            against = product > 0 if planted == "what agrees is taken" else product < 0
            if j != i and against:
                direction = direction - taken * product / (other @ other) * other
        total = total + direction
        if planted == "against what was projected before":
            others[i] = direction
    return total / len(g) if planted == "a mean" else total


def shortest(g: torch.Tensor, negative: bool = False) -> torch.Tensor:
    """The weights of the shortest mean of the vectors, exactly: for every set of tasks the point of equal slopes.

    negative: an error, weights below 0 are let through.
    """
    gramian, best, least = g @ g.T, None, torch.inf
    for count in [len(g)] if negative else range(1, len(g) + 1):
        for chosen in map(list, itertools.combinations(range(len(g)), count)):
            system = torch.ones(count + 1, count + 1, dtype=DOUBLE)  # G w = v, sum w = 1
            system[:count, :count], system[:count, count], system[count, count] = gramian[chosen][:, chosen], -1, 0
            found = torch.linalg.solve(system, torch.tensor([0.0] * count + [1.0], dtype=DOUBLE))[:count]
            weights = torch.zeros(len(g), dtype=DOUBLE).index_copy(0, torch.tensor(chosen), found)
            length = float(weights @ gramian @ weights)
            if (negative or (found >= 0).all()) and length < least:
                best, least = weights, length
    assert best is not None
    return best


# --- surgery on the Gramian -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_pcgrad_of_two_tasks(seed):
    g = vectors(2, seed, 3)
    (c11, c12), (_, c22) = g @ g.T
    expected = torch.stack([1 - c12 / c11, 1 - c12 / c22]) if c12 < 0 else torch.ones(2, dtype=DOUBLE)
    ours = pcgrad(g @ g.T, torch.tensor([1, 0]))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    wrong = torch.stack([1 - 1.001 * c12 / c11, 1 - c12 / c22])
    assert float((ours - wrong).abs().max()) > 1e-6, "nor is anything taken where they agree"


def test_pcgrad_is_the_papers_loop_mapped_over_seeds():
    g = torch.stack([vectors(5, seed) for seed in range(20)])
    random = torch.Generator().manual_seed(0)
    order = torch.rand(20, 5, 5, generator=random).argsort(-1)
    weights = torch.func.vmap(pcgrad)(g @ g.mT, order)
    for gradients, w, o in zip(g, weights, order, strict=True):
        torch.testing.assert_close(w @ gradients, projected(gradients, o), rtol=1e-9, atol=1e-9)
        assert float((w @ gradients - projected(gradients, o, 1.001)).abs().max()) > PLANTED
        for planted in PROJECTED_WRONGLY:
            assert float((w @ gradients - projected(gradients, o, planted=planted)).abs().max()) > PLANTED, planted
    assert not torch.allclose(weights, torch.ones_like(weights)), "some of them conflict"


def test_pcgrad_without_conflict_is_the_sum_to_the_bit():
    g = vectors(4, 3).abs()
    assert torch.equal(pcgrad(g @ g.T, torch.arange(4)), torch.ones(4, dtype=DOUBLE))
    g[2] = 0
    assert torch.equal(pcgrad(g @ g.T, torch.arange(4)), torch.tensor([1, 1, 0, 1], dtype=DOUBLE))


def test_mgda_of_two_tasks():
    inside = 0
    for seed in range(8):
        g = vectors(2, seed, 3)
        share, wrong = (
            (((g[1] - factor * g[0]) @ g[1]) / (g[0] - g[1]).square().sum()).clamp(0, 1) for factor in (1, 1.001)
        )
        ours = mgda(g @ g.T, 1)
        torch.testing.assert_close(ours, torch.stack([share, 1 - share]), rtol=1e-12, atol=1e-12)
        if 0 < share < 1:
            inside += 1
            assert float((ours[0] - wrong).abs()) > PLANTED
    assert 2 <= inside < 8, "some are on the edge, where one gradient has all the weight"


def test_mgda_is_optimal_and_what_a_solver_finds():
    from scipy.optimize import minimize

    g = torch.stack([vectors(5, seed) for seed in range(20)])
    weights = torch.func.vmap(lambda gram: mgda(gram, 200))(g @ g.mT)
    assert (weights >= 0).all() and torch.allclose(weights.sum(1), torch.ones(20, dtype=DOUBLE))
    for gram, w in zip(g @ g.mT, weights, strict=True):
        least, value = (gram @ w).min(), w @ gram @ w
        assert least >= value - 1e-6 * value, "some task would gain by more weight"
        sums_to_one = {"type": "eq", "fun": lambda v: v.sum() - 1}
        scaled = (gram / value).numpy()
        solved = minimize(
            lambda v, a=scaled: v @ a @ v, [0.2] * 5, jac=lambda v, a=scaled: 2 * a @ v, method="SLSQP",
            bounds=[(0, 1)] * 5, constraints=[sums_to_one], options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        torch.testing.assert_close(
            torch.tensor(solved.x @ scaled @ solved.x), torch.ones((), dtype=DOUBLE), rtol=1e-4, atol=0
        )


def test_mgda_is_the_exact_shortest_mean_and_a_planted_error_shows():
    """The vector itself, which a length near its least does not pin down."""
    held = 0
    for seed in range(20):
        g = vectors(5, seed)
        ours, exact = mgda(g @ g.T, 200) @ g, shortest(g)
        assert float((ours - exact @ g).norm()) < 1e-7 * float(g.norm(dim=1).max())
        assert float((ours - 1.001 * exact @ g).abs().max()) > PLANTED
        longer = torch.cat([1.001 * g[:1], g[1:]])
        assert float((ours - shortest(longer) @ g).abs().max()) > PLANTED or exact[0] == 0
        held += bool((exact == 0).any())
        assert float((ours - shortest(g, negative=True) @ g).abs().max()) > PLANTED or (exact > 0).all()
    assert held > 5, "some weights rest at 0"


def test_mgda_gives_absent_tasks_no_weight():
    g = vectors(3, 1)
    g[1] = 0
    assert mgda(g @ g.T)[1] > 0.99, "a zero vector is the shortest"
    weights = mgda(g @ g.T, present=torch.tensor([True, False, True]))
    assert weights[1] == 0
    torch.testing.assert_close(weights[[0, 2]], mgda(g[[0, 2]] @ g[[0, 2]].T))


# --- the same as parts of a strategy --------------------------------------------------------------------------------


def first_steps(strategy, stream, trainable: str = "all", dtype=DOUBLE):
    """Problem, params, batch and the part's gradients, of seed 0, for some batches at the start."""
    learner = Learner(MLP(5), strategy, SGD(0.1), trainable)
    session = Session(learner, stream, [0], dtype=dtype)
    state = torch.utils._pytree.tree_map(lambda leaf: leaf[0], session.first_state())
    problem = dataclasses.replace(
        session.fleet.problem, index={k: v[0] for k, v in session.fleet.problem.index.items()}
    )
    for fleet_batch in session.sampler.batches(0):
        batch = torch.utils._pytree.tree_map(lambda leaf: leaf[0], fleet_batch)
        yield problem, state.params, batch, learner.gradients(problem, state, batch).gradients


def by_hand(problem, params, batch, weight) -> dict:
    """Autograd's gradient of sum_b weight_b CE_b."""
    net = {k: v.clone().requires_grad_() for k, v in params["net"].items()}
    log_p = log_softmax(problem.logits({"net": net}, batch.x), batch.allowed)
    loss = (weight * F.nll_loss(log_p, batch.y, reduction="none")).sum()
    return dict(zip(net, torch.autograd.grad(loss, list(net.values())), strict=True))


def flat(net: dict) -> torch.Tensor:
    return torch.cat([leaf.flatten() for leaf in net.values()])


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_pcgrad_part_is_the_papers_loop_on_autograds_gradients(setting):
    conflicts = 0
    for problem, params, batch, ours in first_steps(PCGrad(), joint(tiny(setting, iterations=12))):
        each = [flat(by_hand(problem, params, batch, batch.weight * (batch.task == t))) for t in range(3)]
        here = [t for t in range(3) if (batch.task == t).any()]
        key = batch.draws[0]["order"][here]
        order = torch.tensor([here[i] for i in key.argsort().tolist()]).expand(3, -1)
        expected = projected(torch.stack(each), order)
        torch.testing.assert_close(flat(ours["net"]), expected, rtol=1e-9, atol=1e-12)
        plain = flat(by_hand(problem, params, batch, batch.weight))
        in_conflict = bool((torch.stack(each) @ torch.stack(each).T < 0).any())
        conflicts += in_conflict
        if not in_conflict:
            torch.testing.assert_close(flat(ours["net"]), plain, rtol=1e-12, atol=1e-15)
    assert conflicts > 0


def test_mgda_part_is_the_shortest_mean_of_autograds_gradients():
    for problem, params, batch, ours in first_steps(MGDA(iterations=200), joint(tiny("task", iterations=12))):
        here = [t for t in range(3) if (batch.task == t).any()]
        means = [(batch.task == t) / (batch.task == t).sum() for t in here]
        each = torch.stack([flat(by_hand(problem, params, batch, mean.to(DOUBLE))) for mean in means])
        expected = mgda(each @ each.T, 200) @ each
        # where the shortest vector is near 0, rounding in the Gramian moves it by its square root
        torch.testing.assert_close(flat(ours["net"]), expected, rtol=1e-6, atol=1e-7)


def test_normalised_mgda_takes_the_weights_of_unit_gradients():
    for problem, params, batch, ours in first_steps(MGDA(True, 200), joint(tiny("task", iterations=12))):
        here = [t for t in range(3) if (batch.task == t).any()]
        means = [(batch.task == t) / (batch.task == t).sum() for t in here]
        each = torch.stack([flat(by_hand(problem, params, batch, mean.to(DOUBLE))) for mean in means])
        unit = each / each.norm(dim=1, keepdim=True)
        torch.testing.assert_close(flat(ours["net"]), mgda(unit @ unit.T, 200) @ each, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("part", [PCGrad(), MGDA()], ids=repr)
def test_a_batch_of_one_task_is_the_plain_step(part):
    stream = joint(tiny("task"), sampling="round-robin")
    for problem, params, batch, ours in first_steps(part, stream):
        assert (batch.task == batch.task[0]).all()
        plain = by_hand(problem, params, batch, batch.weight)
        torch.testing.assert_close(flat(ours["net"]), flat(plain), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("part", [PCGrad(), MGDA()], ids=repr)
def test_fixed_parameters_take_no_part_in_a_conflict(part):
    _, _, _, ours = next(first_steps(part, joint(tiny("task")), trainable="head"))
    assert set(ours["net"]) == {"head.weight", "head.bias"}
    start = Session(Learner(MLP(5)), joint(tiny("task")), [0], dtype=DOUBLE).first_state().params["net"]
    end = states(Learner(MLP(5), part, SGD(0.1), "head"), joint(tiny("task")), [0], DOUBLE).params["net"]
    assert torch.equal(start["layer0.weight"], end["layer0.weight"])
    assert not torch.equal(start["head.weight"], end["head.weight"])


def test_task_weights_are_weights_and_reach_surgery():
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE)
    stream = joint(tiny("task"))
    for problem, params, batch, ours in first_steps(TaskWeights((1.0, 2.0, 0.5)), stream):
        expected = by_hand(problem, params, batch, weights[batch.task] / 4)
        torch.testing.assert_close(flat(ours["net"]), flat(expected))
    for problem, params, batch, ours in first_steps(TaskWeights((1.0, 2.0, 0.5)) + MGDA(iterations=200), stream):
        here = [t for t in range(3) if (batch.task == t).any()]
        shares = [weights[t] * (batch.task == t) / (batch.task == t).sum() for t in here]
        each = torch.stack([flat(by_hand(problem, params, batch, share)) for share in shares])
        torch.testing.assert_close(flat(ours["net"]), mgda(each @ each.T, 200) @ each, rtol=1e-6, atol=1e-7)
    plain, equal = (
        states(Learner(MLP(5), part, Adam(0.01)), stream, [0, 1], torch.float32).params["net"]
        for part in (FineTuning(), TaskWeights())
    )
    assert all(torch.equal(value, equal[name]) for name, value in plain.items())


def test_uncertainty_weights_gradient_is_autograds():
    """sum_i n_i / B (exp(-s_i) L_i + s_i / 2), written out with each task's mean loss; and s = 0 is the plain gradient."""
    for start in (0.0, -0.7):
        for problem, params, batch, ours in first_steps(UncertaintyWeights(start), joint(tiny("class"))):
            net = {k: v.clone().requires_grad_() for k, v in params["net"].items()}
            s = torch.full((3,), start, dtype=DOUBLE, requires_grad=True)
            rows = F.cross_entropy(problem.logits({"net": net}, batch.x), batch.y, reduction="none")
            loss = torch.zeros((), dtype=DOUBLE)
            for t in range(3):
                if (mask := batch.task == t).any():
                    loss = loss + mask.sum() / 4 * ((-s[t]).exp() * rows[mask].mean() + s[t] / 2)
            *expected, of_s = torch.autograd.grad(loss, [*net.values(), s])
            torch.testing.assert_close(flat(ours["net"]), torch.cat([leaf.flatten() for leaf in expected]))
            torch.testing.assert_close(ours["own"]["UncertaintyWeights/0"]["log_variance"], of_s)
            if start == 0:
                plain = by_hand(problem, params, batch, batch.weight)
                torch.testing.assert_close(flat(ours["net"]), flat(plain))


def test_uncertainty_weights_rest_where_the_variance_is_twice_the_loss():
    stream = joint(split(blobs(6, 6, 24), 3, "class", budget=Budget(iterations=300, batch=12)))
    learner = Learner(MLP(5), UncertaintyWeights(), SGD(0.2), "layer0.bias")
    # a network that hardly learns: the weights must find exp(s) = 2 L by themselves
    state = states(dataclasses.replace(learner, optimiser=SGD(0.02)), stream, [0], DOUBLE)
    s = state.params["own"]["UncertaintyWeights/0"]["log_variance"][0]
    session = Session(learner, stream, [0], dtype=DOUBLE)
    problem = dataclasses.replace(
        session.fleet.problem, index={k: v[0] for k, v in session.fleet.problem.index.items()}
    )
    for t in range(3):
        rows = problem.index["rows_train"][t, : problem.index["count_train"][t]]
        number = torch.full_like(rows, t)
        net = {"net": {k: v[0] for k, v in state.params["net"].items()}}
        loss = F.cross_entropy(problem.logits(net, problem.x(rows, number)), problem.y(rows, number))
        assert abs(float(s[t].exp() / (2 * loss)) - 1) < 0.1


# --- whole runs, in a plain loop -------------------------------------------------------------------------------------


def stream_in(setting: str):
    """Three tasks, 36 steps; now and then a batch lacks one of them."""
    return joint(tiny(setting, iterations=12, batch=8))


def of_shares(plain: Plain, batch) -> tuple[list[int], torch.Tensor]:
    """The tasks in a batch, and the gradient of each one's share of the batch times its mean loss."""
    rows = plain.rows(batch)
    here = [t for t in range(TASKS) if bool((batch.task == t).any())]
    return here, torch.stack([plain.gradient(rows[batch.task == t].sum() / len(rows)) for t in here])


def of_means(plain: Plain, batch) -> torch.Tensor:
    """The gradient of each task's mean loss."""
    return torch.stack([plain.gradient(loss) for loss in plain.of_tasks(batch)[1]])


def surgery_by_pcgrad(taken: float = 1.0, planted: str = ""):
    def rule(plain: Plain, batch):
        here, g = of_shares(plain, batch)
        order = batch.draws[0]["order"][here].argsort()
        order = torch.arange(len(here)) if planted == "in the order of the tasks" else order
        g = of_means(plain, batch) if planted == "of means" else g
        return projected(g, order.expand(len(here), -1), taken, planted)

    return rule


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_a_run_of_pcgrad_is_the_papers_loop(setting):
    gap = apart(PCGrad(), stream_in(setting))
    assert gap(surgery_by_pcgrad()) < 1e-9
    assert gap(surgery_by_pcgrad(1.001)) > PLANTED
    for planted in (*PROJECTED_WRONGLY, "in the order of the tasks", "of means"):
        assert gap(surgery_by_pcgrad(planted=planted)) > PLANTED, planted


def surgery_by_mgda(normalised: bool = False, scale: float = 1.0, first: float = 1.0, planted: str = ""):
    """scale: of the weights; first: of the first gradient, where they are found. 1 unless an error is planted."""

    def rule(plain: Plain, batch):
        g = of_shares(plain, batch)[1] if planted == "of shares" else of_means(plain, batch)
        seen = g / g.norm(dim=1, keepdim=True) if normalised else g
        weights = shortest(torch.cat([first * seen[:1], seen[1:]]), planted == "negative weights")
        return scale * weights @ g

    return rule


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_a_run_of_mgda_steps_along_the_exact_shortest_mean(setting, normalised):
    gap = apart(MGDA(normalised, 50), stream_in(setting))
    assert gap(surgery_by_mgda(normalised)) < 1e-9
    wrongs = [{"scale": 1.001}, {"first": 1.001}, {"normalised": not normalised}, {"planted": "of shares"}]
    if not normalised and setting != "class":  # else no weight rests at 0
        wrongs.append({"planted": "negative weights"})
    for wrong in wrongs:
        assert gap(surgery_by_mgda(**{"normalised": normalised, **wrong})) > PLANTED, wrong


def weighed_by_hand(weights: tuple[float, ...], planted: str = ""):
    def rule(plain: Plain, batch):
        here, g = of_shares(plain, batch)
        g = of_means(plain, batch) / len(here) if planted == "of means" else g
        return torch.tensor(weights, dtype=DOUBLE)[here] @ g

    return rule


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_a_run_of_task_weights_is_its_formula(setting):
    weights = (1.0, 2.0, 0.5)
    gap = apart(TaskWeights(weights), stream_in(setting))
    assert gap(weighed_by_hand(weights)) < 1e-9
    for t in range(TASKS):
        wrong = tuple(1.001 * a if t == i else a for i, a in enumerate(weights))
        assert gap(weighed_by_hand(wrong)) > PLANTED, t
    assert gap(weighed_by_hand(weights[::-1])) > PLANTED
    normalised = tuple(TASKS * a / sum(weights) for a in weights)
    assert gap(weighed_by_hand(normalised)) > PLANTED
    assert gap(weighed_by_hand(weights, "of means")) > PLANTED
    assert apart(TaskWeights(), stream_in(setting))(weighed_by_hand((1.0, 1.0, 1.0))) < 1e-9


def weighed_by_uncertainty(start: float, exponent: float = 1.0, regular: float = 0.5, planted: str = ""):
    """The network and s by one plain step each, of autograd's gradients of the formula."""
    s = torch.full((TASKS,), start, dtype=DOUBLE, requires_grad=True)

    def rule(plain: Plain, batch):
        here, losses = plain.of_tasks(batch)
        shares = [float((batch.task == t).sum()) / len(batch.task) for t in here]
        if planted == "of means":
            shares = [1 / len(here)] * len(here)
        each = [(-exponent * s[t]).exp() * loss + regular * s[t] for t, loss in zip(here, losses, strict=True)]
        total = sum(share * part for share, part in zip(shares, each, strict=True))
        direction = plain.gradient(total)
        by_s = torch.autograd.grad(total, s)[0]
        if planted != "s stays":
            s.data -= RATE * by_s
        return direction

    return rule


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
@pytest.mark.parametrize("start", [0.0, -0.7])
def test_a_run_of_uncertainty_weights_is_its_formula(setting, start):
    gap = apart(UncertaintyWeights(start), stream_in(setting))
    assert gap(weighed_by_uncertainty(start)) < 1e-9
    wrongs = ({"exponent": 1.001}, {"regular": 0.5005}, {"planted": "s stays"}, {"planted": "of means"})
    for wrong in wrongs:
        assert gap(weighed_by_uncertainty(start, **wrong)) > PLANTED, wrong
    assert gap(weighed_by_uncertainty(start + 0.001)) > PLANTED


# --- the joint paradigm ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Trimmed:
    """A task generator whose tasks keep only so many training rows."""

    task_generator: object
    counts: tuple[int, ...]

    def tasks(self, dataset, seed):
        tasks = self.task_generator.tasks(dataset, seed)
        return [dataclasses.replace(t, train=t.train[:n]) for t, n in zip(tasks, self.counts, strict=True)]


COUNTS = (36, 16, 4)


def unequal(sampling: str, iterations: int = 300, batch: int = 8):
    stream = split(blobs(6, 6, 24), 3, "task", budget=Budget(iterations=iterations, batch=batch))
    return joint(dataclasses.replace(stream, task_generator=Trimmed(stream.task_generator, COUNTS)), sampling)


def test_joint_is_training_on_the_concatenated_rows():
    """Heads of their own and unequal tasks: a plain loop over one data set, the tasks' rows one after another."""
    stream = unequal("proportional", 10)
    session = Session(Learner(MLP(4)), stream, [0], dtype=DOUBLE)
    tasks = stream.tasks_of(0)
    x = torch.cat([stream.dataset.x[t.train] for t in tasks]).to(DOUBLE)
    y = torch.cat([t.label[stream.dataset.y[t.train]] for t in tasks])
    closed = torch.ones(len(y), 6, dtype=torch.bool)
    for place, t in enumerate(torch.cat([torch.full((n,), t) for t, n in enumerate(COUNTS)]).tolist()):
        closed[place, list(tasks[t].classes)] = False
    net = {k: v[0].clone().requires_grad_() for k, v in session.first_state().params["net"].items()}
    optimiser = torch.optim.SGD(net.values(), 0.1)
    places = []  # pass after pass over all rows, phase after phase
    for k in range(-(-240 // len(y))):
        places += torch.randperm(len(y), generator=generator(0, "order", "pass", k)).tolist()
    for phase in range(3):
        for i in range(10):
            here = places[80 * phase + 8 * i : 80 * phase + 8 * i + 8]
            h = (x[here] @ net["layer0.weight"] + net["layer0.bias"]).relu()
            scores = (h @ net["head.weight"] + net["head.bias"]).masked_fill(closed[here], -torch.inf)
            optimiser.zero_grad()
            F.cross_entropy(scores, y[here]).backward()
            optimiser.step()
    ours = states(Learner(MLP(4), FineTuning(), SGD(0.1)), stream, [0, 1], DOUBLE).params["net"]
    for name, value in net.items():
        torch.testing.assert_close(ours[name][0], value.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sampling, power", [
    ("proportional", 1.0), ("uniform", 0.0), ("round-robin", 0.0), ("temperature(2)", 0.5), ("temperature(4)", 0.25),
])  # fmt: skip
def test_sampling_draws_tasks_as_it_says(sampling, power):
    stream = unequal(sampling)
    session = Session(Learner(MLP(2)), stream, [0, 1])
    row, number, _, _ = session.sampler.plan(0)
    share = torch.tensor(COUNTS, dtype=DOUBLE) ** power
    expected = 2400 * share / share.sum()
    for s in range(2):
        counts = torch.bincount(number[s], minlength=3).to(DOUBLE)
        if sampling == "round-robin":
            batches = number[s].view(300, 8)
            assert torch.equal(batches, (torch.arange(300) % 3)[:, None].expand(300, 8))
        slack = 56 if sampling == "proportional" else 5 * (expected * (1 - share / share.sum())).sqrt()
        assert ((counts - expected).abs() <= slack).all(), counts
        for t in range(3):  # within a task its rows come in turn
            often = torch.bincount(row[s][number[s] == t]).to(torch.int64)
            often = often[often > 0]
            assert len(often) == COUNTS[t] and int(often.max() - often.min()) <= 1


# --- networks that are told the task --------------------------------------------------------------------------------


def rows_and_net(model: Conditioned, features: int = 7, tasks: int = 3):
    random = torch.Generator().manual_seed(0)
    net = {k: v.to(DOUBLE) for k, v in model.init(Described(features, tasks), 4, random).items()}
    net = {k: torch.randn(v.shape, generator=random, dtype=DOUBLE) if "condition" in k else v for k, v in net.items()}
    task = torch.arange(10) % tasks
    pixels = torch.randn(10, features, generator=random, dtype=DOUBLE)
    return net, pixels, task, torch.cat([pixels, torch.eye(tasks, dtype=DOUBLE)[task]], 1)


@pytest.mark.parametrize("place", PLACES)
def test_concatenation_into_a_linear_layer_is_addition(place):
    """[h; z] with one weight matrix, its rows tied: those of h to W, those of z to V."""
    model = Conditioned(MLP(6, 5), "concatenation", place)
    net, pixels, _, x = rows_and_net(model)
    z, h = x[:, 7:], pixels
    for i in range(2):
        tied = net[f"layer{i}.weight"]
        if f"condition{i}.shift" in net:
            h, tied = torch.cat([h, z], 1), torch.cat([tied, net[f"condition{i}.shift"]])
        h = torch.nn.functional.linear(h, tied.T, net[f"layer{i}.bias"]).relu()
    torch.testing.assert_close(model.features(net, x), h, rtol=1e-12, atol=1e-14)
    addition = Conditioned(MLP(6, 5), "addition", place)
    assert torch.equal(addition.features(net, x), model.features(net, x))


def test_concatenation_is_drawn_like_one_layer_over_both():
    random = [torch.Generator().manual_seed(3) for _ in range(2)]
    ours = Conditioned(MLP(6), "concatenation").init(Described(7, 3), 4, random[0])
    plain = MLP(6).init((10,), 4, random[1])
    assert torch.equal(torch.cat([ours["layer0.weight"], ours["condition0.shift"]]), plain["layer0.weight"])


@pytest.mark.parametrize("by", ["addition", "gates", "film"])
def test_the_others_start_as_their_trunk(by):
    random = [torch.Generator().manual_seed(3) for _ in range(2)]
    ours = Conditioned(MLP(6, 5), by, "all").init(Described(7, 3), 4, random[0])
    plain = MLP(6, 5).init((7,), 4, random[1])
    assert all(torch.equal(ours[name], value) for name, value in plain.items())
    x = torch.rand(4, 10)
    assert torch.equal(Conditioned(MLP(6, 5), by, "all").features(ours, x), MLP(6, 5).features(plain, x[:, :7]))


@pytest.mark.parametrize("by", ["gates", "film"])
def test_film_is_its_formula(by):
    model = Conditioned(MLP(6, 5), by, "last")
    net, pixels, task, x = rows_and_net(model)
    h = apply_linear(net, "layer0", pixels).relu()
    gamma, beta = 1 + net["condition1.scale"][task], net.get("condition1.shift", torch.zeros(3, 5, dtype=DOUBLE))[task]
    expected = (gamma * apply_linear(net, "layer1", h) + beta).relu()
    torch.testing.assert_close(model.features(net, x), expected, rtol=1e-12, atol=1e-14)
    assert ("condition1.shift" in net) == (by == "film")


def test_one_hot_gates_over_blocks_are_heads():
    """A hidden layer in blocks, all but one shut: a head of a hidden layer for each task, before and after training."""
    model = Conditioned(MLP(6, 3 * 4), "gates", "last")
    net, pixels, task, x = rows_and_net(model)
    net["condition1.scale"] = block_gates(3, 4).to(DOUBLE) - 1
    shared = apply_linear(net, "layer0", pixels).relu()
    for b, t in enumerate(task.tolist()):
        block = slice(4 * t, 4 * t + 4)
        hidden = (shared[b] @ net["layer1.weight"][:, block] + net["layer1.bias"][block]).relu()
        expected = hidden @ net["head.weight"][block] + net["head.bias"]
        ours = model.head(net, model.features(net, x[b : b + 1]))[0]
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    first = task == 0

    def loss(params):
        return model.head(params, model.features(params, x[first])).square().sum()

    gradient = torch.func.grad(loss)(net)
    assert not gradient["layer1.weight"][:, 4:].any(), "no head learns from another task's rows"
    assert gradient["layer1.weight"][:, :4].any()


@pytest.mark.parametrize("by", WAYS)
def test_conditioned_alone_is_fleet_and_stays_itself(by):
    model = Conditioned(MLP(8, 8), by, "all")
    assert parse(repr(model), "models") == model
    for stream in (joint(tiny("task")), tiny("task")):
        learner = Learner(model, FineTuning(), Adam(0.01))
        alone, fleet = states(learner, stream, [3], torch.float32), states(learner, stream, [1, 3], torch.float32)
        assert all(torch.equal(v[0], fleet.params["net"][k][1]) for k, v in alone.params["net"].items())
    fixed = Learner(model, FineTuning(), Adam(0.01), "layer*, head")
    start = Session(fixed, joint(tiny("task")), [0]).first_state().params["net"]
    end = states(fixed, joint(tiny("task")), [0], torch.float32).params["net"]
    assert all(torch.equal(v, end[k]) == k.startswith("condition") for k, v in start.items())


# --- refusals and the metric ----------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_in_one_line():
    together, alone = joint(tiny("task")), tiny("task")
    two = TaskWeights((1.0, 2.0))
    refused = {
        "stream has 3 tasks": lambda: check_request(Learner(MLP(4), two), together, [0], "cpu"),
        "weights are numbers": lambda: TaskWeights((1.0, -1.0)),
        "goes with the baseline joint": lambda: check_request(Learner(MLP(4), PCGrad()), alone, [0], "cpu"),
        "FineTuning": lambda: check_request(Learner(MLP(4), EWC()), together, [0], "cpu"),
        "unheard": lambda: PCGrad() + UncertaintyWeights(),
        "unheard: leave": lambda: MGDA() + PCGrad(),
        "go unheard": lambda: UncertaintyWeights() + PCGrad(),
        "replace `objective`": lambda: UncertaintyWeights() + UncertaintyWeights(),
        "at least 1": lambda: MGDA(iterations=0),
        "hidden layers": lambda: Conditioned(Gated()),
        "as in MLP(100, 100)": lambda: Conditioned(MLP()),
        "concatenation, addition": lambda: Conditioned(MLP(4), "magic"),
        "first, last, all": lambda: Conditioned(MLP(4), "film", "middle"),
        "--setting task": lambda: check_request(Learner(Conditioned(MLP(4))), tiny("class"), [0], "cpu"),
        "nothing tells it": lambda: Conditioned(MLP(4)).init((10,), 2, torch.Generator()),
        "which task, not 7": lambda: (lambda m, n: m.features(n[0], n[1]))(
            Conditioned(MLP(4)), rows_and_net(Conditioned(MLP(4)))
        ),
    }
    for words, wrong in refused.items():
        with pytest.raises(ConfigurationError) as seen:
            wrong()
        assert words in str(seen.value) and "\n" not in str(seen.value), words
    assert isinstance(Sum((PCGrad(), TaskWeights())), Sum)
    assert issubclass(StrategyError, ConfigurationError) and issubclass(ModelError, ConfigurationError)


def test_multi_task_gain_is_the_relative_difference_to_each_task_alone():
    learner = Learner(MLP(4), FineTuning(), Adam(0.01))
    together, alone = run(learner, joint(tiny("task")), [0, 1]), run(learner, isolate(tiny("task")), [0, 1])
    matrix = torch.zeros(2, 3, 3, dtype=DOUBLE)
    matrix[:, -1] = torch.tensor([[0.9, 0.5, 1.0], [0.4, 0.4, 0.4]])
    single = torch.diag_embed(torch.tensor([[0.6, 1.0, 1.0], [0.8, 0.4, 0.2]], dtype=DOUBLE))
    before = torch.zeros(2, 1, 3, dtype=DOUBLE)
    together = dataclasses.replace(together, accuracy=torch.cat([before, matrix], 1))
    alone = dataclasses.replace(alone, accuracy=torch.cat([before, single], 1))
    gains = torch.tensor([[0.5, -0.5, 0.0], [-0.5, 0.0, 1.0]], dtype=DOUBLE)
    torch.testing.assert_close(multi_task_gains(together, alone), gains)
    torch.testing.assert_close(multi_task_gain(together, alone), torch.tensor([0.0, 1 / 6], dtype=DOUBLE))
    mixed = [dataclasses.replace(r, numbers=(0, 2)) for r in (together, alone)]  # their scores are 1 - error / variance
    single_errors, errors = torch.tensor([[0.4, 0.0], [0.2, 0.8]]), torch.tensor([[0.1, 0.0], [0.6, 0.6]])
    lower = ((single_errors - errors) / single_errors).to(DOUBLE)
    found = multi_task_gains(mixed[0], mixed[1])
    torch.testing.assert_close(found[:, 0], lower[:, 0])
    torch.testing.assert_close(found[1], torch.tensor([-2.0, 0.0, 0.25], dtype=DOUBLE))
    for pair in ((alone, alone), (together, together), (together, dataclasses.replace(alone, seeds=(4, 5)))):
        with pytest.raises(NotMeasured):
            multi_task_gain(*pair)


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_every_part_learns(part):
    stream = joint(split(blobs(6, 8, 60), 3, "task", budget=Budget(iterations=60, batch=16)))
    result = run(Learner(MLP(16), part, Adam(0.01)), stream, [0, 1])
    assert float(result.at_task_ends[:, -1].mean()) > 0.9
    assert stream_for(part).paradigm == ("continual" if part == FineTuning() else "joint")


def test_gramian_is_of_all_leaves():
    each = {"a": torch.randn(3, 4, 5, dtype=DOUBLE), "b": torch.randn(3, 2, dtype=DOUBLE)}
    rows = torch.cat([leaf.flatten(1) for leaf in each.values()], 1)
    torch.testing.assert_close(gramian(each), rows @ rows.T)
