"""Methods that adapt by inner steps against the plain loops beside this file, closed forms and identities, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.core.inner_loop import batch_of, loss_of
from lifelong.meta import lstm_optimiser
from lifelong.meta.cavia import CAVIA
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.imaml import IMAML, conjugate_gradient
from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.learned import distribution_of_source
from lifelong.meta.lstm_optimiser import LSTMOptimiser
from lifelong.meta.maml import MAML
from lifelong.meta.maml_plus_plus import FirstOrderUntil, MAMLPlusPlus, step_weights
from lifelong.meta.metaoptnet import MetaOptNetRidge
from lifelong.meta.pretraining import pretrain, recorded
from lifelong.meta.reptile import Reptile
from lifelong.meta.testing import scored
from lifelong.models.base import apply_linear
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.per_step import PerStepSGD
from lifelong.studies.published.few_shot import NET, OPTIMISATION
from scenarios.episodes import Sines, Support, class_pool
from scenarios.stream import generator
from scenarios.synthetic import blobs
from tests.reference import plain_few_shot
from tests.reference import plain_optimisation as plain

DOUBLE = torch.float64
HALF = torch.tensor(0.5, dtype=DOUBLE)  # of the outer loop is over
ROWS = {row.method: row for row in OPTIMISATION}
TABLE = blobs(12, 6, 30)
TASKS = TaskDistribution(MLP(7), class_pool(TABLE, part="train"), class_pool(TABLE, part="test"), DOUBLE)
SMALL = {"way": 3, "shot": 2, "query": 2, "tasks": 3}


def characters():
    """Images in the shape of Omniglot's, and the rows' network."""
    dataset = blobs(24, 28 * 28, 20)
    images = class_pool(replace(dataset, x=dataset.x.view(-1, 28, 28)), rotations=True)
    return TaskDistribution(parse(NET, "models"), images, images, DOUBLE)


def begun(method, tasks, word=0):
    """What is learned, moved a little so that no part of it is 0, and what one iteration learns from."""
    random = generator("moved", word)
    meta = method.init(tasks, generator("start", word))
    meta = tree_map(lambda p: p + 0.02 * torch.randn(p.shape, generator=random, dtype=DOUBLE), meta)
    return meta, method.draw(tasks, generator("drawn", word))


def gaps(ours, theirs):
    """The largest difference of two trees, as a share of the second's largest number, by part."""
    return {
        f"{part}.{name}": float((ours[part][name] - value).abs().max() / value.abs().max().clamp(min=1e-12))
        for part, tree in theirs.items()
        for name, value in tree.items()
    }


def compared(row, method, meta=None):
    """The largest gap of the meta-gradient, and of the answers, to the plain loop's of the row as it stands."""
    tasks, exact = characters(), replace(parse(row.stage, "initialisations"), tasks=2)
    method = replace(method, tasks=2)
    given, drawn = begun(exact, tasks)
    progress = HALF / 10  # amid the annealing of MAML++'s weights
    _, gradient = method.gradient(tasks, meta(given) if meta else given, drawn, progress)
    x, query = (part.to(DOUBLE)[:, :, None] for part in (drawn.support_x, drawn.query_x))
    plain_tasks = list(zip(x, drawn.support_y, query, drawn.query_y, strict=True))
    theirs = plain.meta_gradient(row.method, given, plain_tasks, exact, float(progress))
    unused = ("head.weight", "head.bias") if row.method == "metaoptnet-ridge" else ()
    assert all(value.any() for tree in theirs.values() for name, value in tree.items() if name not in unused)
    asked = tasks.train.draw(1, 5, 1, 3, generator("test")).task(0)
    x, query = asked.support_x.to(DOUBLE), asked.query_x.to(DOUBLE)
    expected = plain.answers(row.method, given, (x[:, None], asked.support_y, query[:, None], asked.query_y), exact)
    with torch.no_grad():
        ours = method.predict(tasks, meta(given) if meta else given, Support(x, asked.support_y), query, 5)
    return max(gaps(gradient, theirs).values()), float(((ours - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("row", OPTIMISATION, ids=lambda row: row.method)
def test_a_row_learns_and_answers_as_its_plain_loop(row):
    method = parse(row.stage, "initialisations")
    assert max(compared(row, method)) < 1e-9


@pytest.mark.parametrize("row", OPTIMISATION, ids=lambda row: row.method)
def test_a_plain_loop_starts_from_what_the_row_learns(row):
    """The same tensors of the same sizes, whose spreads are alike; and one of the loops goes round."""
    method = replace(parse(row.stage, "initialisations"), tasks=1, iterations=1)
    ours, theirs = method.init(characters(), generator("start")), plain.fresh(row.method, method)
    assert {part: {n: p.shape for n, p in tree.items()} for part, tree in ours.items()} == {
        part: {n: p.shape for n, p in tree.items()} for part, tree in theirs.items()
    }
    for part, tree in ours.items():
        for name, p in tree.items():
            size, other = (float(values.detach().square().mean().sqrt()) for values in (p, theirs[part][name]))
            assert p.numel() < 100 or size == pytest.approx(other, rel=0.25), name
    if row.method == "boil":
        images = np.random.default_rng(0).integers(0, 255, (40, 28, 28), dtype=np.uint8)
        characters_of_noise = plain_few_shot.Characters(images, np.arange(40) % 8, range(8), 4)
        learned = plain.train(row.method, method, characters_of_noise, 0)
        assert 0 <= plain.accuracy(row.method, learned, replace(method, query=1), plain_few_shot.Characters(
            np.tile(images, (4, 1, 1)), np.arange(160) % 8, range(8), 1), 0, episodes=2)[0] <= 1  # fmt: skip


def scaled_part(part):
    """A thousandth more of a part of what is learned, as a planted error."""
    return lambda meta: {**meta, part: tree_map(lambda p: 1.001 * p, meta[part])}


def a_thousandth_more(field):
    return lambda method: replace(method, **{field: 1.001 * getattr(method, field)})


PLANTED = {
    "meta-sgd: its rates": ("meta-sgd", lambda m: m, scaled_part("rates")),
    "meta-sgd: first order": ("meta-sgd", lambda m: replace(m, order=1), None),
    "boil: its rate": ("boil", a_thousandth_more("rate"), None),
    "boil: the head moves too": ("boil", lambda m: replace(m, adapts="all"), None),
    "maml++: its rates": ("maml++", lambda m: m, scaled_part("rates")),
    "maml++: its weights": ("maml++", a_thousandth_more("multi_step"), None),
    "cavia: its rate": ("cavia", a_thousandth_more("rate"), None),
    "cavia: its maps": ("cavia", lambda m: m, scaled_part("told")),
    "imaml: its pull": ("imaml", a_thousandth_more("strength"), None),
    "imaml: its rate": ("imaml", a_thousandth_more("rate"), None),
    "imaml: a step of the solver more": ("imaml", lambda m: replace(m, solver_steps=m.solver_steps + 1), None),
    "lstm-optimiser: its cell": ("lstm-optimiser", lambda m: m, scaled_part("cell")),
    "lstm-optimiser: second order": ("lstm-optimiser", lambda m: replace(m, order=2), None),
    "metaoptnet-ridge: its strength": ("metaoptnet-ridge", a_thousandth_more("strength"), None),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_error_is_seen(planted):
    name, change, meta = PLANTED[planted]
    row = ROWS[name]
    assert max(compared(row, change(parse(row.stage, "initialisations")), meta)) > 1e-6


def test_the_learned_optimisers_preprocessing_by_hand(monkeypatch):
    x = torch.tensor([0.0, 1.0, -1.0, 2e-5, -1e-5, 30.0, 4e-5, -5e-5], dtype=DOUBLE)
    torch.testing.assert_close(lstm_optimiser.size_and_sign(x), plain.size_and_sign(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        lstm_optimiser.size_and_sign(x[1]), torch.tensor([0.0, 1.0], dtype=DOUBLE), rtol=0, atol=0
    )
    monkeypatch.setattr(lstm_optimiser, "SPREAD", 10.01)
    assert not torch.allclose(lstm_optimiser.size_and_sign(x), plain.size_and_sign(x), rtol=1e-6)


# --- MAML++ -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.7])
@pytest.mark.parametrize("order", [1, 2])
def test_equal_rates_and_the_last_loss_alone_are_maml(order, progress):
    shared = {**SMALL, "steps": 3, "rate": 0.3, "order": order}
    maml, plus = MAML(**shared), MAMLPlusPlus(**shared, multi_step=0.0)
    meta, drawn, now = plus.init(TASKS, generator("start")), plus.draw(TASKS, generator("drawn")), HALF * 2 * progress
    (loss, gradient), (theirs, expected) = (m.gradient(TASKS, meta, drawn, now) for m in (plus, maml))
    torch.testing.assert_close(loss, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient["net"], expected["net"], rtol=1e-12, atol=1e-12)
    rates = {name: value.new_full(value.shape, 0.3) for name, value in meta["net"].items()}
    # and the rates' gradient, summed over steps, is Meta-SGD's summed over a tensor
    _, by_weight = MAML(**shared, learn_rates=True).gradient(TASKS, {**meta, "rates": rates}, drawn, now)
    for name, slope in gradient["rates"].items():
        torch.testing.assert_close(slope.sum(), by_weight["rates"][name].sum(), rtol=1e-9, atol=1e-12)
    after = replace(plus, multi_step=0.6)  # when the weights have been annealed, and before
    found = after.gradient(TASKS, meta, drawn, now)[0]
    assert torch.allclose(found, theirs, rtol=1e-12) == (progress > 0.6)


def test_weights_of_the_steps():
    torch.testing.assert_close(step_weights(4, 0.5, HALF * 0), torch.full((4,), 0.25, dtype=DOUBLE))
    torch.testing.assert_close(step_weights(4, 1.0, HALF), torch.tensor([0.125, 0.125, 0.125, 0.625], dtype=DOUBLE))
    torch.testing.assert_close(step_weights(2, 0.5, HALF * 2), torch.tensor([0.0, 1.0], dtype=DOUBLE))


@pytest.mark.parametrize(("share", "order"), [(0.5, 2), (0.6, 1)])
def test_first_order_until_a_share_of_the_outer_loop(share, order):
    """From half on the gradient at half is of second order; until three fifths it is of first."""
    annealed = MAMLPlusPlus(**SMALL, steps=2, rate=0.3, first_order=share)
    meta, drawn = begun(annealed, TASKS)
    expected = replace(annealed, first_order=0.0, order=order).gradient(TASKS, meta, drawn, HALF)
    torch.testing.assert_close(annealed.gradient(TASKS, meta, drawn, HALF), expected, rtol=1e-12, atol=1e-12)
    other = replace(annealed, first_order=0.0, order=3 - order).gradient(TASKS, meta, drawn, HALF)
    assert not torch.allclose(other[1]["net"]["layer0.weight"], expected[1]["net"]["layer0.weight"], rtol=1e-3)
    assert FirstOrderUntil().share == 1.0


def test_more_steps_than_rates_go_on_at_the_last():
    method = MAMLPlusPlus(**SMALL, steps=2, test_steps=4)
    meta, drawn = begun(method, TASKS)
    task = drawn.task(0)
    net = meta["net"]
    for j in range(4):
        batch = batch_of(task.support_x, task.support_y, 3, DOUBLE)
        slope = torch.func.grad(lambda net, b=batch: loss_of(TASKS.problem(3), {"net": net}, b))(net)
        net = {name: p - meta["rates"][name][min(j, 1)] * slope[name] for name, p in net.items()}
    torch.testing.assert_close(method.adapt(TASKS, meta, task.support, 3)["net"], net, rtol=1e-12, atol=1e-12)


def test_rates_of_steps_in_both_forms():
    """Pure, and in place on a fleet's tensors, over more steps than there are rates."""
    ours, random = PerStepSGD(0.1, steps=2), generator("forms")
    fleet = {name: torch.randn(3, *size, generator=random, dtype=DOUBLE) for name, size in (("w", (2, 4)), ("b", (4,)))}
    state = {name: torch.rand(3, 2, generator=random, dtype=DOUBLE) for name in fleet}
    alone = [tree_map(lambda leaf, s=s: leaf[s].clone(), (fleet, state)) for s in range(3)]
    assert ours.init(alone[0][0])["w"].tolist() == [0.1, 0.1]
    for _ in range(3):
        gradients = {name: torch.randn(p.shape, generator=random, dtype=DOUBLE) for name, p in fleet.items()}
        ours.update_(fleet, gradients, state, 0.0)
        alone = [ours.update(p, tree_map(lambda g, s=s: g[s], gradients), r, HALF) for s, (p, r) in enumerate(alone)]
    torch.testing.assert_close(tree_map(lambda *leaves: torch.stack(leaves), *alone), (fleet, state))


# --- CAVIA --------------------------------------------------------------------------------------------------------


def test_a_concatenated_context_is_rows_that_are_longer():
    method = CAVIA(**SMALL, by="concatenation", context=4, steps=3, rate=0.5)
    meta, drawn = begun(method, TASKS)
    assert list(meta["told"]) == ["layer0.shift"]
    longer = torch.cat([meta["net"]["layer0.weight"], meta["told"]["layer0.shift"]])
    for task in (drawn.task(i) for i in range(3)):
        context = torch.zeros(4, dtype=DOUBLE, requires_grad=True)

        def answers(context, x):
            rows = torch.cat([x.to(DOUBLE), context.expand(len(x), -1)], 1)
            hidden = (rows @ longer + meta["net"]["layer0.bias"]).relu()
            return hidden @ meta["net"]["head.weight"] + meta["net"]["head.bias"]

        for _ in range(3):
            loss = F.cross_entropy(answers(context, task.support_x), task.support_y)
            context = context - 0.5 * torch.autograd.grad(loss, context)[0]
        ours = method.predict(TASKS, meta, task.support, task.query_x, 3)
        torch.testing.assert_close(ours, answers(context, task.query_x).detach(), rtol=1e-12, atol=1e-12)


class Closed(MLP):
    """A network that keeps its layers to itself."""

    shows_layers = False


def test_layers_that_are_told_the_context():
    images = characters()
    start = generator("start")
    assert {name.rpartition(".")[0] for name in CAVIA().init(images, start)["told"]} == {
        f"block{i}.norm" for i in range(4)
    }
    assert set(CAVIA(layers="block2.norm").init(images, start)["told"]) == {"block2.norm.scale", "block2.norm.shift"}
    with pytest.raises(InitialisationError, match="block0"):
        CAVIA(layers="layer0").init(images, start)
    with pytest.raises(InitialisationError, match="film"):
        CAVIA(by="addition")
    with pytest.raises(InitialisationError, match="does not show its layers"):
        CAVIA().init(replace(TASKS, model=Closed(7)), start)


def test_a_context_of_zero_is_the_network_itself_and_a_task_moves_nothing_else():
    method = CAVIA(**SMALL)
    meta, drawn = begun(method, TASKS)
    task = drawn.task(0)
    plain_scores = TASKS.problem(3).logits({"net": meta["net"]}, task.query_x.to(DOUBLE))
    none = Support(task.support_x[:0], task.support_y[:0])
    assert torch.equal(method.predict(TASKS, meta, none, task.query_x, 3), plain_scores)
    adapted = method.adapt(TASKS, meta, task.support, 3)
    assert adapted["context"].any() and all(torch.equal(adapted["net"][name], p) for name, p in meta["net"].items())


# --- implicit MAML ------------------------------------------------------------------------------------------------


def linear_tasks():
    """Least squares by a linear network: every loss is a quadratic."""
    return TaskDistribution(MLP(), Sines(), Sines(), DOUBLE)


@pytest.mark.parametrize("damping", [0.0, 7.0])
def test_on_quadratics_the_implicit_gradient_is_exact(damping):
    """q = (H + strength)^{-1} (H q* + strength p), so the meta-gradient is strength (H + strength)^{-1} grad.

    Damped, it is that of strength + damping, at the same q.
    """
    tasks = linear_tasks()
    method = IMAML(shot=5, query=4, tasks=2, steps=120, rate=0.025, strength=20.0, solver_steps=2, damping=damping)
    meta, drawn = begun(method, tasks)
    _, gradient = method.gradient(tasks, meta, drawn, HALF)
    start, total = torch.cat([meta["net"]["head.weight"].flatten(), meta["net"]["head.bias"]]), 0.0
    for i in range(2):
        task = drawn.task(i)
        rows, asked = (torch.cat([x, torch.ones_like(x)], 1).to(DOUBLE) for x in (task.support_x, task.query_x))
        hessian = 2 * rows.T @ rows / len(rows)
        matrix = hessian + 20.0 * torch.eye(2, dtype=DOUBLE)
        solution = torch.linalg.solve(matrix, 2 * rows.T @ task.support_y[:, 0].to(DOUBLE) / len(rows) + 20.0 * start)
        slope = 2 * asked.T @ (asked @ solution - task.query_y[:, 0].to(DOUBLE)) / len(asked)
        damped = matrix + damping * torch.eye(2, dtype=DOUBLE)
        total = total + (20.0 + damping) * torch.linalg.solve(damped, slope) / 2
    ours = torch.cat([gradient["net"]["head.weight"].flatten(), gradient["net"]["head.bias"]])
    torch.testing.assert_close(ours, total, rtol=1e-9, atol=1e-12)
    for wrong in (replace(method, strength=20.02), replace(method, damping=damping + 0.02)):
        _, other = wrong.gradient(tasks, meta, drawn, HALF)
        assert not torch.allclose(other["net"]["head.weight"], gradient["net"]["head.weight"], rtol=1e-5)


class Smooth(MLP):
    """A perceptron of hyperbolic tangents: at a corner of rectified units a solution may rest where there is no slope."""

    def features(self, net, x, at=None):
        for i in range(len(self.widths)):
            x = apply_linear(net, f"layer{i}", x.flatten(1), at).tanh()
        return x


@pytest.mark.parametrize("adapts", ["all", "head", "trunk"])
def test_the_implicit_gradient_is_that_of_the_proximal_solution(adapts):
    """By central differences of the loss at where adaptation ends, also by parameters that do not adapt."""
    tasks = replace(TASKS, model=Smooth(7))
    method = IMAML(**SMALL, steps=80, rate=0.05, strength=10.0, solver_steps=30, adapts=adapts)
    meta, drawn = begun(method, tasks)
    _, gradient = method.gradient(tasks, meta, drawn, HALF)
    random, step = generator("direction"), 1e-5
    for _ in range(2):
        direction = {name: torch.randn(p.shape, dtype=DOUBLE, generator=random) for name, p in meta["net"].items()}
        ends = []
        for sign in (step, -step):
            moved = {name: p + sign * direction[name] for name, p in meta["net"].items()}
            ends.append(float(method.loss(tasks, {"net": moved}, drawn, HALF)))
        exact = sum(float((gradient["net"][name] * d).sum()) for name, d in direction.items())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(exact, rel=1e-6)


def test_conjugate_gradient_is_a_solver_and_rests_where_it_is_done():
    random = generator("matrix")
    root = torch.randn(5, 5, generator=random, dtype=DOUBLE)
    matrix, b = root @ root.T + torch.eye(5, dtype=DOUBLE), torch.randn(5, generator=random, dtype=DOUBLE)
    expected = torch.linalg.solve(matrix, b)
    for steps in (5, 12):
        torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, b, steps), expected)
    assert not torch.allclose(conjugate_gradient(lambda v: matrix @ v, b, 4), expected, rtol=1e-6)
    assert torch.equal(conjugate_gradient(lambda v: v, torch.zeros_like(b), 3), torch.zeros_like(b))


def test_conjugate_gradient_stops_before_a_direction_of_negative_curvature():
    """By hand: along b = (1, 1/2) diag(2, -1) has curvature 7/4, along the next direction less than 0."""
    matrix, b = torch.tensor([2.0, -1.0], dtype=DOUBLE), torch.tensor([1.0, 0.5], dtype=DOUBLE)
    for steps in (1, 2, 5):
        torch.testing.assert_close(conjugate_gradient(lambda v: matrix * v, b, steps), b * 1.25 / 1.75)
        torch.testing.assert_close(conjugate_gradient(lambda v: -matrix * v, b, steps), b)
    assert not conjugate_gradient(lambda v: matrix * v, b, 0).any()


def test_products_with_the_hessian_are_forward_over_reverse():
    method = IMAML(**SMALL)
    meta, drawn = begun(method, TASKS)
    task, names = drawn.task(0), list(meta["net"])
    direction = {name: torch.randn(p.shape, dtype=DOUBLE, generator=generator(name)) for name, p in meta["net"].items()}

    def slopes(net):
        return method._slopes(TASKS, net, task.support)

    _, forward = torch.func.jvp(slopes, (meta["net"],), (direction,))
    (backward,) = torch.func.vjp(slopes, meta["net"])[1](torch.cat([direction[n].flatten() for n in names]))
    torch.testing.assert_close(torch.cat([backward[n].flatten() for n in names]), forward, rtol=1e-10, atol=1e-12)


# --- a convex head ------------------------------------------------------------------------------------------------


def test_a_convex_heads_scores_are_half_the_quadratic_programs():
    """min over a of 1/2 a' (K + strength) a - 2 a' y, as the authors' code has it, by a solver: scores are K_q a."""
    method = MetaOptNetRidge(**SMALL, strength=3.0)
    meta, drawn = begun(method, TASKS)
    task = drawn.task(0)
    f = TASKS.problem(3).features(meta, torch.cat([task.support_x, task.query_x]).to(DOUBLE))
    shown, asked = f[:6], f[6:]
    kernel, y = shown @ shown.T + 3.0 * torch.eye(6, dtype=DOUBLE), F.one_hot(task.support_y, 3).to(DOUBLE)
    dual = torch.zeros(6, 3, dtype=DOUBLE, requires_grad=True)
    solver = torch.optim.LBFGS([dual], lr=1, max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def program():
        solver.zero_grad()
        value = (dual * (kernel @ dual)).sum() / 2 - 2 * (dual * y).sum()
        value.backward()
        return value

    solver.step(program)
    expected = meta["ridge"]["scale"] / 2 * asked @ shown.T @ dual.detach()
    ours = method.predict(TASKS, meta, task.support, task.query_x, 3)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(replace(method, strength=3.003).predict(TASKS, meta, task.support, task.query_x, 3), ours, rtol=1e-6)  # fmt: skip


# --- all of them --------------------------------------------------------------------------------------------------

METHODS = (
    MAML(**SMALL, adapts="trunk", steps=2, rate=0.3),
    MAML(**SMALL, learn_rates=True, steps=2, rate=0.3),
    MAMLPlusPlus(**SMALL, steps=2, rate=0.3, multi_step=0.8),
    CAVIA(**SMALL, context=4),
    CAVIA(**SMALL, context=4, by="concatenation", learn_rates=True),
    IMAML(**SMALL, steps=3, solver_steps=2),
    LSTMOptimiser(**SMALL, steps=2, hidden=3),
    LSTMOptimiser(**SMALL, steps=2, hidden=3, order=2),
    MetaOptNetRidge(**SMALL),
)
names = {"ids": lambda m: f"{type(m).__name__}-{METHODS.index(m)}"}


@pytest.mark.parametrize("method", METHODS, **names)
def test_tasks_together_are_tasks_in_a_loop_and_recorded_to_the_bit(method):
    meta, drawn = begun(method, TASKS)
    together = method.gradient(TASKS, meta, drawn, HALF)
    apart = [method.gradient(TASKS, meta, drawn.some(i, i + 1), HALF) for i in range(3)]
    torch.testing.assert_close(together, tree_map(lambda *leaves: sum(leaves) / 3, *apart), rtol=1e-9, atol=1e-12)
    play = recorded(lambda *given: method.gradient(TASKS, *given))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(play(meta, drawn, HALF)), tree_leaves(together), strict=True))  # fmt: skip


@pytest.mark.parametrize("method", [m for m in METHODS if "numbers" in m.kinds], **names)
def test_numbers_are_predicted_too(method):
    """On sine waves: a fleet of two seeds, the second as it learns alone; finite answers; the gradient by differences."""
    method = replace(method, shot=4, query=3, iterations=2)
    waves = replace(distribution_of_source(method, MLP(6), Sines()), dtype=DOUBLE)
    fleet, alone = (pretrain(method, waves, seeds, episodes=0) for seeds in ((0, 5), (5,)))
    torch.testing.assert_close(tree_map(lambda leaf: leaf[1:], fleet.meta), alone.meta, rtol=1e-9, atol=1e-12)
    assert scored(method, waves, alone.of(0), waves.validation, shot=4, episodes=10).scores.isfinite().all()
    if not method.differentiates:
        return
    meta, drawn = begun(method, waves)
    _, gradient = method.gradient(waves, meta, drawn, HALF)
    direction = tree_map(lambda p: torch.randn(p.shape, dtype=DOUBLE, generator=generator("direction")), meta)
    ends = [
        method.loss(waves, tree_map(lambda p, d, sign=sign: p + sign * d, meta, direction), drawn, HALF)
        for sign in (1e-6, -1e-6)
    ]
    exact = sum(float((g * d).sum()) for g, d in zip(tree_leaves(gradient), tree_leaves(direction), strict=True))
    assert float(ends[0] - ends[1]) / 2e-6 == pytest.approx(exact, rel=1e-5)


def test_what_cannot_be_honoured_is_said_in_a_line():
    for make, words in (
        (lambda: MAMLPlusPlus(multi_step=1.5), "share"),
        (lambda: MAMLPlusPlus(steps=0), "at least 1"),
        (lambda: IMAML(strength=0.0), "above 0"),
        (lambda: LSTMOptimiser(rate=1.0), "between 0 and 1"),
        (lambda: LSTMOptimiser(order=3), "first-order"),
        (lambda: MetaOptNetRidge(strength=0.0), "above 0"),
        (lambda: MAML(rate=float("nan")), r"rate=nan\): it is a finite number"),
        (lambda: CAVIA(rate=float("inf")), "finite"),
        *((lambda name=name: Reptile(**{name: 0}), f"{name}=0.*at least 1") for name in ("steps", "batch", "shot")),
        (lambda: Reptile(test_steps=-1), "at least 0"),
    ):
        with pytest.raises(InitialisationError, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
