"""GradVac, CAGrad, IMTL-G, Nash-MTL and Aligned-MTL: closed forms, a solver, the papers' loops; planted errors are seen."""

from __future__ import annotations

import math

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.strategies.multitask.aligned import AlignedMTL
from lifelong.strategies.multitask.cagrad import CAGrad
from lifelong.strategies.multitask.gradvac import GradVac
from lifelong.strategies.multitask.imtl import IMTLG
from lifelong.strategies.multitask.nash import NashMTL
from lifelong.strategies.multitask.pcgrad import PCGrad
from lifelong.strategies.multitask.surgery import aligned, cagrad, gradvac, imtl_g, mgda, nash, pcgrad
from tests.reference.plain_joint import DOUBLE, TASKS, Plain, gap
from tests.reference.test_multitask import vectors

SEEDS = range(12)
PLANTED = 1.001


def close(a, b, tolerance: float = 1e-9) -> bool:
    """Whether two vectors agree, by the length of the second."""
    return float((torch.as_tensor(a) - torch.as_tensor(b)).norm()) <= tolerance * float(torch.as_tensor(b).norm())


# --- GradVac ----------------------------------------------------------------------------------------------------------


def vaccinated(g, order, target, planted: float = 1.0):
    """The paper's loop, on the vectors; target is a list of lists. Returns the sum and the cosines that were met."""
    total, met = torch.zeros_like(g[0]), [[0.0] * len(g) for _ in g]
    for i in range(len(g)):
        turned = g[i].clone()
        for j in order[i].tolist():
            if j == i:
                continue
            cosine, rho = float(turned @ g[j] / turned.norm() / g[j].norm()), float(target[i][j])
            met[i][j] = cosine
            if cosine < rho:
                wanted = rho * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - rho**2) * planted
                turned = turned + turned.norm() * wanted / (g[j].norm() * math.sqrt(1 - rho**2)) * g[j]
        total = total + turned
    return total, met


def test_gradvac_is_the_papers_loop_and_a_planted_error_shows():
    random = torch.Generator().manual_seed(1)
    for seed in SEEDS:
        g, order = vectors(4, seed), torch.rand(4, 4, generator=random).argsort(1)
        target = torch.rand(4, 4, generator=random, dtype=DOUBLE) * 1.6 - 0.8
        weights, met = gradvac(g @ g.T, order, target)
        expected, cosines = vaccinated(g, order, target)
        assert close(weights @ g, expected)
        torch.testing.assert_close(met, torch.tensor(cosines, dtype=DOUBLE), rtol=1e-9, atol=1e-12)
        assert not close(weights @ g, vaccinated(g, order, target, PLANTED)[0], 1e-6)


def test_gradvac_with_target_zero_is_pcgrad():
    g = torch.stack([vectors(5, seed) for seed in range(20)])
    order = torch.rand(20, 5, 5, generator=torch.Generator().manual_seed(0)).argsort(-1)
    weights = torch.func.vmap(gradvac)(g @ g.mT, order, torch.zeros(20, 5, 5, dtype=DOUBLE))[0]
    torch.testing.assert_close(weights, torch.func.vmap(pcgrad)(g @ g.mT, order), rtol=1e-9, atol=1e-12)


def test_gradvac_turns_to_the_cosine_that_it_wants():
    g = vectors(2, 0)
    for rho in (-0.2, 0.3, 0.9):
        target = torch.full((2, 2), rho, dtype=DOUBLE)
        (c11, c12), (_, c22) = (g @ g.T).tolist()
        before = c12 / math.sqrt(c11 * c22)
        if before >= rho:
            continue
        weights, _ = gradvac(g @ g.T, torch.tensor([[1, 0], [1, 0]]), target)
        assert (weights > 1).all(), "each got some of the other"
        turned = g[0] + (weights[1] - 1) * g[1]
        assert math.isclose(float(turned @ g[1] / turned.norm() / g[1].norm()), rho, abs_tol=1e-9)


def running_targets(planted: float = 1.0, beta: float = 0.3):
    """GradVac in the plain loop: a running cosine for each pair."""
    target = [[0.0] * TASKS for _ in range(TASKS)]

    def rule(plain: Plain, batch):
        rows = plain.rows(batch)
        here = [t for t in range(TASKS) if bool((batch.task == t).any())]
        g = torch.stack([plain.gradient((rows * (batch.task == t)).sum() / len(rows)) for t in here])
        key = batch.draws[0]["order"][here]
        order = key.argsort().expand(len(here), -1)
        total, met = vaccinated(g, order, [[target[i][j] for j in here] for i in here])
        for a, i in enumerate(here):
            for b, j in enumerate(here):
                if i != j:
                    target[i][j] += beta * planted * (met[a][b] - target[i][j])
        return total

    return rule


def test_the_gradvac_part_keeps_a_running_cosine():
    assert gap(GradVac(beta=0.3), running_targets()) < 1e-9
    assert gap(GradVac(beta=0.3), running_targets(PLANTED)) > 1e-8
    assert gap(GradVac(beta=0.0), running_targets(0.0)) < 1e-9


# --- CAGrad -----------------------------------------------------------------------------------------------------------


def cagrad_of_two(g11: float, g12: float, g22: float, c: float = 0.5) -> tuple[float, float]:
    """CAGrad's weights in closed form, in plain numbers: the least of a line and a square root of a parabola."""
    reach, slope = c * math.sqrt(max(g11 + 2 * g12 + g22, 0)) / 2, (g11 - g22) / 2
    apart = g11 - 2 * g12 + g22
    if apart <= 0:
        x = 0.5
    else:
        middle, rest = (g22 - g12) / apart, max(g22 - (g22 - g12) ** 2 / apart, 0)
        pull = reach**2 * apart - slope**2
        x = middle - slope * math.sqrt(rest / (apart * pull)) if pull > 0 else float(slope < 0)
        x = min(max(x, 0), 1)
    length = math.sqrt(max(x * x * g11 + 2 * x * (1 - x) * g12 + (1 - x) ** 2 * g22, 0))
    scale = reach / length if length > 0 else 0.0
    return 0.5 + scale * x, 0.5 + scale * (1 - x)


def test_cagrad_of_two_tasks():
    for seed in range(30):
        g = vectors(2, seed, 3)
        g11, g12, g22 = float(g[0] @ g[0]), float(g[0] @ g[1]), float(g[1] @ g[1])
        for c in (0.2, 0.5, 0.9, 1.5):
            expected = torch.tensor(cagrad_of_two(g11, g12, g22, c), dtype=DOUBLE)
            assert close(cagrad(g @ g.T, c, 1), expected)
            assert not close(cagrad(g @ g.T, c, 1), torch.tensor(cagrad_of_two(g11, g12, g22, c * PLANTED)), 1e-6)


def test_cagrad_with_c_0_is_the_mean_to_the_bit():
    g = vectors(4, 2)
    assert torch.equal(cagrad(g @ g.T, 0.0), torch.full((4,), 0.25, dtype=DOUBLE))


def test_cagrad_is_what_a_solver_finds_of_the_problem_itself():
    """max over d of min_i g_i . d within the ball, in the space of the gradients: no dual, no Gramian."""
    from scipy.optimize import minimize

    for seed in range(6):
        g = vectors(4, seed, 4)
        g = g / g.norm(dim=1).mean()
        mean, c = g.mean(0), 0.5
        d = cagrad(g @ g.T, c, 200) @ g
        a, m, radius = g.numpy(), mean.numpy(), c * float(mean.norm())
        worst = {
            "type": "ineq",
            "fun": lambda v, a=a: a @ v[:4] - v[4],
            "jac": lambda v, a=a: [[*row, -1.0] for row in a],
        }
        ball = {
            "type": "ineq",
            "fun": lambda v, m=m, r=radius: r * r - ((v[:4] - m) ** 2).sum(),
            "jac": lambda v, m=m: [*(2 * (m - v[:4])), 0.0],
        }
        solved = minimize(
            lambda v: -v[4], [*m, float((g @ mean).min())], jac=lambda v: [0.0, 0.0, 0.0, 0.0, -1.0], method="SLSQP",
            constraints=[worst, ball], options={"ftol": 1e-14, "maxiter": 1000},
        )  # fmt: skip
        best = float((g @ d).min())
        assert math.isclose(best, float(solved.x[4]), rel_tol=1e-5), (seed, best, solved.x[4])
        assert float((d - mean).norm()) <= radius * (1 + 1e-9)
        short = cagrad(g @ g.T, c / PLANTED, 200) @ g
        assert not math.isclose(float((g @ short).min()), float(solved.x[4]), rel_tol=1e-5)


def two_losses(a: float, b: float):
    """The toy of Liu et al. (2021): two losses in the plane and their gradients, (loss, by a, by b) each."""
    t, h = math.tanh(b), math.tanh(b / 2)
    up, down, by_up, by_down = max(h, 0), max(-h, 0), (1 - h * h) / 2 * (h > 0), -(1 - h * h) / 2 * (h < 0)
    found = []
    for inside, sign, centre in ((0.5 * (-a - 7) + t, 1, 7), (0.5 * (-a + 3) - t + 2, -1, -7)):
        size, turn = abs(inside), 1 if inside > 0 else -1
        valley = math.log(max(size, 5e-6)) + 6
        va, vb = (-0.5 * turn / size, sign * (1 - t * t) * turn / size) if size > 5e-6 else (0.0, 0.0)
        bowl = ((a - centre) ** 2 + 0.1 * (b + 8) ** 2) / 10 - 20
        by_a = va * up + (a - centre) / 5 * down
        by_b = vb * up + valley * by_up + 0.02 * (b + 8) * down + bowl * by_down
        found.append((valley * up + bowl * down, by_a, by_b))
    return found


def descended(rule, start, rate: float = 1e-3, steps: int = 100_000, look=None) -> float:
    """The mean loss after Adam's steps along a combination, in plain numbers."""
    at, first, second, powers = list(start), [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]
    for step in range(steps):
        (_, a1, b1), (_, a2, b2) = two_losses(*at)
        products = (a1 * a1 + b1 * b1, a1 * a2 + b1 * b2, a2 * a2 + b2 * b2)
        w1, w2 = rule(*products)
        if look and step % 2000 == 0:
            look(products, (w1, w2))
        powers = [powers[0] * 0.9, powers[1] * 0.999]
        for i, slope in enumerate((w1 * a1 + w2 * a2, w1 * b1 + w2 * b2)):
            first[i], second[i] = 0.9 * first[i] + 0.1 * slope, 0.999 * second[i] + 0.001 * slope * slope
            root = math.sqrt(second[i] / (1 - powers[1])) + 1e-8
            at[i] -= rate * first[i] / (1 - powers[0]) / root
    return sum(loss for loss, _, _ in two_losses(*at)) / 2


STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))


def test_the_losses_of_the_toy_have_the_gradients_that_it_says():
    for a, b in ((-8.5, 7.5), (3.1, -2.0), (0.4, 0.7)):
        for k in range(2):
            for i in range(2):
                high, low = ([a, b] for _ in range(2))
                high[i], low[i] = high[i] + 1e-6, low[i] - 1e-6
                slope = (two_losses(*high)[k][0] - two_losses(*low)[k][0]) / 2e-6
                assert math.isclose(slope, two_losses(a, b)[k][1 + i], rel_tol=1e-5, abs_tol=1e-7)


def test_on_the_toy_cagrad_ends_in_the_middle_and_the_mean_is_stuck():
    """The paper's protocol: Adam, rate 1e-3, 100,000 steps; the best mean loss on the Pareto set is -15.09."""

    def same(products, weights):
        g11, g12, g22 = products
        gram = torch.tensor([[g11, g12], [g12, g22]], dtype=DOUBLE)
        assert close(cagrad(gram, 0.5, 1), torch.tensor(weights, dtype=DOUBLE), 1e-6)

    ends = [descended(cagrad_of_two, start, look=same) for start in STARTS]
    assert all(abs(end + 15.09) < 0.05 for end in ends), ends
    ends = [descended(lambda *_: (0.5, 0.5), start) for start in STARTS]
    assert ends[0] > 0 and ends[2] > 0 and abs(ends[1] + 15.09) < 0.05, ends


# --- IMTL-G, Nash-MTL, Aligned-MTL --------------------------------------------------------------------------------------


def impartial(g):
    """IMTL-G as its paper writes it: (a_2 ... a_T) = g_1 U^T (D U^T)^-1, rows of D g_1 - g_i, of U u_1 - u_i."""
    unit = g / g.norm(dim=1, keepdim=True)
    far, apart = g[0] - g[1:], unit[0] - unit[1:]
    rest = g[0] @ apart.T @ torch.linalg.inv(far @ apart.T)
    return torch.cat([1 - rest.sum()[None], rest])


def test_imtl_is_its_papers_formula():
    for seed in SEEDS:
        g = vectors(2, seed, 3)
        lengths = g.norm(dim=1)
        expected = lengths.flip(0) / lengths.sum()
        assert close(imtl_g(g @ g.T), expected)
        assert not close(imtl_g(g @ g.T), lengths.flip(0).pow(PLANTED) / lengths.pow(PLANTED).sum(), 1e-6)
        g = vectors(4, seed)
        assert close(imtl_g(g @ g.T), impartial(g), 1e-8)
        projections = (g @ (imtl_g(g @ g.T) @ g)) / g.norm(dim=1)
        assert close(projections, projections.mean().expand(4), 1e-9)


def test_imtl_of_parallel_gradients_stays_finite():
    g = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(imtl_g(g @ g.T), torch.tensor([0.75, 0.25], dtype=DOUBLE))
    torch.testing.assert_close(nash(g @ g.T), torch.tensor([2**-0.5, 2**-0.5 / 3], dtype=DOUBLE))


def test_nash_of_two_tasks_and_its_equation_for_more():
    for seed in SEEDS:
        g = vectors(2, seed, 3)
        lengths = g.norm(dim=1)
        cosine = g[0] @ g[1] / lengths.prod()
        assert close(nash(g @ g.T), 1 / (lengths * (1 + cosine).sqrt()))
        assert not close(nash(g @ g.T), 1 / (lengths * (1 + cosine * PLANTED).sqrt()), 1e-6)
        g = vectors(6, seed)
        a = nash(g @ g.T)
        assert (a > 0).all() and close(g @ g.T @ a, 1 / a)
        assert math.isclose(float((a @ g).norm()), math.sqrt(6), rel_tol=1e-9)


def test_nash_is_what_a_solver_finds_of_the_bargain():
    """max over |d| <= 1 of sum_i log g_i . d has the direction of d."""
    from scipy.optimize import minimize

    for seed in range(4):
        g = vectors(3, seed, 3)
        g = g / g.norm(dim=1, keepdim=True)
        d = nash(g @ g.T) @ g
        d = d / d.norm()
        a = g.numpy()

        def loss(v, a=a):
            gains = a @ v
            return 1e3 if gains.min() <= 0 else -float(torch.tensor(gains).log().sum())

        ball = {"type": "ineq", "fun": lambda v: 1 - (v * v).sum()}
        start = (0.9 * mgda(g @ g.T, 200) @ g).numpy()
        solved = minimize(loss, start, method="SLSQP", constraints=[ball], options={"ftol": 1e-15, "maxiter": 500})
        assert math.isclose(loss(d.numpy()), solved.fun, rel_tol=1e-6, abs_tol=1e-6)
        assert close(d, torch.tensor(solved.x), 1e-3)


def test_aligned_is_the_singular_value_decomposition():
    for seed in SEEDS:
        for tasks in (2, 4):
            g = vectors(tasks, seed)
            left, singular, right = torch.linalg.svd(g.T, full_matrices=False)
            expected = singular.min() * (left @ right).mean(1)
            assert close(aligned(g @ g.T) @ g, expected, 1e-8)
            assert not close(aligned(g @ g.T) @ g, PLANTED * expected, 1e-6)
    g = torch.linalg.qr(vectors(3, 0).T)[0].T
    torch.testing.assert_close(aligned(g @ g.T), torch.full((3,), 1 / 3, dtype=DOUBLE))
    copies = torch.stack([g[0], g[0], g[1]])  # rank 2: its zero direction is left out
    left, singular, right = torch.linalg.svd(copies.T, full_matrices=False)
    expected = singular[1] * (left[:, :2] @ right[:2]).mean(1)
    assert close(aligned(copies @ copies.T) @ copies, expected, 1e-7)


RULES = {"cagrad": cagrad, "imtl_g": imtl_g, "nash": nash, "aligned": aligned, "mgda": mgda}


@pytest.mark.parametrize("name", RULES)
def test_absent_tasks_get_no_weight_and_change_nothing(name):
    g = vectors(5, 3)
    g[1] = 0
    here = torch.tensor([True, False, True, True, False])
    weights = RULES[name](g @ g.T, present=here)
    assert not weights[~here].any()
    torch.testing.assert_close(weights[here], RULES[name](g[here] @ g[here].T), rtol=1e-9, atol=1e-12)
    assert torch.isfinite(RULES[name](torch.zeros(3, 3, dtype=DOUBLE), present=torch.zeros(3, dtype=torch.bool))).all()


@pytest.mark.parametrize("name", RULES)
def test_it_maps_over_seeds_and_holds_in_single_precision(name):
    g = torch.stack([vectors(4, seed) for seed in range(5)])
    grams = g @ g.mT
    apart = torch.stack([RULES[name](gram) for gram in grams])
    torch.testing.assert_close(torch.func.vmap(RULES[name])(grams), apart, rtol=1e-8, atol=1e-10)
    single = torch.func.vmap(RULES[name])(grams.to(torch.float32))
    assert single.dtype == torch.float32
    for w, exact, rows in zip(single.to(DOUBLE), apart, g, strict=True):
        assert close(w @ rows, exact @ rows, 2e-2)


# --- the same as parts of a strategy --------------------------------------------------------------------------------


def of_means(rule):
    """A rule on the gradients of the tasks' mean losses."""

    def direction(plain: Plain, batch):
        g = torch.stack([plain.gradient(loss) for loss in plain.of_tasks(batch)[1]])
        return rule(g) @ g

    return direction


def shares(g):
    a = nash(g @ g.T)
    return a / a.sum()


def by_svd(g):
    left, singular, right = torch.linalg.svd(g.T, full_matrices=False)
    return torch.linalg.pinv(g.T) @ (singular.min() * (left @ right).mean(1))


PARTS = {
    "CAGrad": (CAGrad(0.4), lambda g: cagrad(g @ g.T, 0.4), lambda g: cagrad(g @ g.T, 0.4004)),
    "IMTLG": (IMTLG(), impartial, lambda g: impartial(g).pow(1) * PLANTED),
    "NashMTL": (NashMTL(), shares, lambda g: shares(g) * PLANTED),
    "AlignedMTL": (AlignedMTL(), by_svd, lambda g: by_svd(g) * PLANTED),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_the_part_steps_along_the_rule_of_autograds_gradients(name):
    part, rule, planted = PARTS[name]
    assert gap(part, of_means(rule)) < 1e-8
    assert gap(part, of_means(planted)) > 1e-6


def test_what_cannot_be_is_refused():
    for words, wrong in (
        ("beta must be", lambda: GradVac(beta=2.0)),
        ("c must be", lambda: CAGrad(c=-1.0)),
        ("iterations must be", lambda: NashMTL(iterations=0)),
        ("unheard", lambda: PCGrad() + CAGrad()),
    ):
        with pytest.raises(StrategyError, match=words) as seen:
            wrong()
        assert "\n" not in str(seen.value)
