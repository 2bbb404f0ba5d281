"""Which combination of the tasks' gradients to step along, from their Gramian alone.

Plain functions for anybody's loop: a Gramian [T, T] of inner products g_i . g_j in, weights [T] out, and the step goes
along sum_i weights_i g_i. Their number of steps is fixed and they take no decision in Python, so `torch.func.vmap`
maps them over seeds. Nothing is differentiated through them. present: bool [T], the tasks that count, default all; the
others get weight 0, which a zero gradient does not bring about by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pcgrad(gramian: Tensor, order: Tensor) -> Tensor:
    """Take from each task's gradient what points against another task's, then add them up.

    For each i, g_i' starts as g_i and visits the others in order: where g_i' . g_j < 0, with the original g_j,
    g_i' <- g_i' - (g_i' . g_j) / |g_j|^2 g_j. The combination is sum_i g_i', the paper's sum and not a mean: without
    conflict every weight is 1. A task whose gradient is zero, one without rows, gets weight 0. Two tasks with
    c12 = g_1 . g_2 < 0: (1 - c12 / c11) g_1 + (1 - c12 / c22) g_2.

    gramian: [T, T]. order: int64, [T, T], row i the tasks as i visits them (itself is passed over), or [T], one order
    for all. Returns the weights [T]. (Yu et al., 2020.)
    """
    tasks = torch.arange(gramian.shape[0], device=gramian.device)
    square = gramian.diagonal()  # |g_j|^2
    order = order.expand(gramian.shape)
    # g_i' is followed as a combination of the g_j, row i of [T, T]: so it never has to be formed
    each = (tasks[:, None] == tasks).to(gramian.dtype) * (square > 0)
    for place in range(gramian.shape[0]):
        other = order[:, place]  # [T], whom each task visits now
        product = (each * gramian[other]).sum(1)
        against = (product < 0) & (other != tasks) & (square[other] > 0)
        share = torch.where(against, product, 0) / torch.where(against, square[other], 1)
        each = each - share[:, None] * (other[:, None] == tasks)
    return each.sum(0)


def gradvac(gramian: Tensor, order: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each task's gradient towards another's until their cosine is what it usually is, then add them up.

    For each i, g_i' starts as g_i and visits the others in order, with the original g_j; cos = cos(g_i', g_j). Where it
    is below rho = target_ij, g_i' <- g_i' + |g_i'| (rho (1 - cos^2)^(1/2) - cos (1 - rho^2)^(1/2)) / (|g_j| (1 - rho^2)^(1/2))
    g_j, after which the two have that cosine. A target of 0 is `pcgrad`. A task whose gradient is zero gets weight 0.

    gramian: [T, T]. order: int64 [T, T] or [T], as of `pcgrad`. target: [T, T], between -1 and 1. Returns the weights
    [T] and the cosines that were met [T, T], 0 where none was. (Wang et al., 2021.)
    """
    tasks = torch.arange(gramian.shape[0], device=gramian.device)
    square, order = gramian.diagonal(), order.expand(gramian.shape)
    each = (tasks[:, None] == tasks).to(gramian.dtype) * (square > 0)
    met = torch.zeros_like(gramian)
    for place in range(gramian.shape[0]):
        other = order[:, place]  # [T], whom each task visits now
        norm = (each @ gramian * each).sum(1).clamp(min=0).sqrt()  # |g_i'|
        length = square[other].sqrt()
        there = (norm > 0) & (length > 0) & (other != tasks)
        cosine = (each * gramian[other]).sum(1) / torch.where(there, norm * length, 1)
        cosine = torch.where(there, cosine.clamp(-1, 1), 0)
        met = met + cosine[:, None] * (other[:, None] == tasks)
        rho = target.gather(1, other[:, None])[:, 0]
        free = (1 - rho * rho).sqrt()
        turn = norm * (rho * (1 - cosine * cosine).sqrt() - cosine * free) / torch.where(there, length * free, 1)
        each = each + torch.where(there & (cosine < rho), turn, 0)[:, None] * (other[:, None] == tasks)
    return each.sum(0), met


def mgda(gramian: Tensor, iterations: int = 25, present: Tensor | None = None) -> Tensor:
    """The shortest vector among all weighted means of the tasks' gradients: no task gets worse along it.

    min over w >= 0, sum w = 1, of w^T G w, by Frank-Wolfe with exact line search, in its pairwise form (Lacoste-Julien
    and Jaggi, 2015): each iteration moves weight from one task to another, of all pairs the one that shortens the vector
    most. The plain form approaches as 1 / iterations, this one geometrically: 25 leave a gap of 1e-9 of w^T G w between
    5 random gradients of unequal lengths, 1e-3 between 10 (medians). For two tasks both are exact after one step,
    w_1 = clip((g_2 - g_1) . g_2 / |g_1 - g_2|^2, 0, 1). At the optimum min_i (G w)_i = w^T G w; where that is 0, no
    direction helps all tasks. A gradient of zero that is present is the shortest of all.

    gramian: [T, T]. Returns the weights [T]. (Desideri, 2012; Sener and Koltun, 2018.)
    """
    present = _present(gramian, present)
    curvature = torch.where(present > 0, _distances(gramian), torch.inf)  # nothing moves to a task that is not here
    weights = present / present.sum().clamp(min=1)
    for _ in range(iterations):
        slope = gramian @ weights  # half the gradient of w^T G w
        descent = slope[:, None] - slope
        length = torch.minimum(descent / curvature, weights[:, None]).clamp(min=0)  # no weight falls below 0
        gain = torch.where(length > 0, length * (2 * descent - length * curvature), 0)  # by which w^T G w shrinks
        weights = _moved(weights, length, gain)
    return weights


def cagrad(gramian: Tensor, c: float = 0.5, iterations: int = 25, present: Tensor | None = None) -> Tensor:
    """The direction near the mean gradient along which the worst-off task gains most.

    max over d of min_i g_i . d, |d - g_0| <= c |g_0|, g_0 = mean of the g_i. With g_w = sum w_i g_i, w >= 0, sum w = 1:
    d = g_0 + c |g_0| / |g_w| g_w where w minimises g_w . g_0 + c |g_0| |g_w|. c = 0 is the mean gradient; c >= 1 may
    turn away from it, towards MGDA's. w by Frank-Wolfe as in `mgda`: pairs of tasks, each with its exact line search,
    so that two tasks need one step. The paper's d as it stands: some of the authors' code divides it by 1 + c^2 or 1 + c.

    gramian: [T, T]. Returns the weights [T], of sum 1 + c |g_0| / |g_w|. (Liu et al., 2021.)
    """
    present = _present(gramian, present)
    mean = present / present.sum().clamp(min=1)
    tiny = torch.finfo(gramian.dtype).tiny
    reach = c * (mean @ gramian @ mean).clamp(min=0).sqrt()  # c |g_0|
    to_mean = gramian @ mean  # g_i . g_0
    distance = _distances(gramian)
    weights = mean
    for _ in range(iterations):
        products = gramian @ weights
        square = (weights @ products).clamp(min=tiny)  # |g_w|^2
        # weight x from i to j: linear falls by x p; |g_w|^2 becomes square - 2 x q + x^2 distance
        p, q = to_mean[:, None] - to_mean, products[:, None] - products
        least = q / distance  # where |g_w| is least, and from there as far as p draws
        room = (square - q * least).clamp(min=0)
        pull = (reach * reach * distance - p * p).clamp(min=0)
        drawn = torch.where(p == 0, 0, p * (room / (distance * torch.where(pull > 0, pull, 1))).sqrt())
        length = torch.where(pull > 0, least + drawn, torch.where(p > 0, torch.inf, 0))
        length = torch.minimum(length, weights[:, None]).clamp(min=0) * (present > 0)  # nor to a task that is not here
        shorter = length * (2 * q - length * distance)  # by how much |g_w|^2 falls
        fall = shorter / (square.sqrt() + (square - shorter).clamp(min=0).sqrt())  # and |g_w|
        gain = length * p + reach * fall
        weights = _moved(weights, length, torch.where(length > 0, gain, 0).clamp(min=0))
    length = (weights @ gramian @ weights).clamp(min=0).sqrt()
    return mean + torch.where(length > 0, reach / length.clamp(min=tiny), 0) * weights


def imtl_g(gramian: Tensor, present: Tensor | None = None) -> Tensor:
    """The combination whose projections on all tasks' gradients are equal: impartial to their lengths.

    d = sum a_i g_i with d . g_i / |g_i| the same for all i, and sum a_i = 1: with the cosines C, C b = 1 and a_i in
    proportion to b_i / |g_i|. Two tasks: a_1 = |g_2| / (|g_1| + |g_2|). With three and more an a_i may be negative, and
    where sum b_i / |g_i| is, d points against all tasks: the paper's formula as it stands. Tasks of zero gradient get
    weight 0; parallel gradients are told apart by rounding alone.

    gramian: [T, T]. Returns the weights [T]. (Liu et al., 2021: IMTL.)
    """
    cosines, length, there = _cosines(gramian, present)
    each = torch.linalg.solve_ex(cosines, torch.ones_like(length)[:, None])[0][:, 0] / length * there
    total = each.sum()
    return each / torch.where(total == 0, 1, total)


def nash(gramian: Tensor, iterations: int = 25, present: Tensor | None = None) -> Tensor:
    """The bargain that all tasks can agree to: a > 0 with G a = 1 / a, element by element.

    It is where a^T G a / 2 - sum log a_i is least, a convex function; found by damped Newton steps, which come to the digits
    of the type in 10 to 20 for any start (the authors solve a row of convex problems). d = sum a_i g_i has length T^(1/2)
    whatever the gradients'. Two tasks: a_i = 1 / (|g_i| (1 + cos)^(1/2)), so that d halves the angle. Undefined where some
    weighted mean of the gradients is 0: then the weights are large. Tasks of zero gradient get weight 0.

    gramian: [T, T]. Returns a [T]. (Navon et al., 2022: Nash-MTL.)
    """
    cosines, length, there = _cosines(gramian, present)
    each = cosines.sum(1).clamp(min=1).rsqrt()  # exact for orthogonal gradients, and for parallel ones
    for _ in range(iterations):
        slope = cosines @ each - 1 / each
        move = torch.linalg.solve_ex(cosines + torch.diag(1 / each.square()), -slope[:, None])[0][:, 0]
        decrement = -(slope * move).sum()  # of a self-concordant function, so this length stays inside
        each = each + move / (1 + decrement.clamp(min=0).sqrt())
    return each / length * there


def aligned(gramian: Tensor, present: Tensor | None = None) -> Tensor:
    """The mean of the gradients after their principal directions were given equal lengths: no task rules, none conflicts.

    With G = V diag(lambda) V^T over its non-zero eigenvalues, a = lambda_min^(1/2) V diag(lambda^(-1/2)) V^T 1 / T: the
    gradients G_ = U S V^T (columns) are replaced by sigma_min U V^T, whose condition number is 1. Where the g_i are
    orthogonal and of equal length nothing changes. An eigenvalue counts as 0 below T epsilon times the largest.

    gramian: [T, T]. Returns the weights [T]. (Senushkin et al., 2023: Aligned-MTL.)
    """
    present = _present(gramian, present)
    outside = present[:, None] * present
    values, vectors = torch.linalg.eigh(gramian * outside)
    most = values.amax()
    counted = values > most * len(values) * torch.finfo(gramian.dtype).eps
    least = torch.where(counted, values, torch.inf).amin()
    scale = torch.where(counted, (least / torch.where(counted, values, 1)).sqrt(), 0)
    mean = present / present.sum().clamp(min=1)
    return torch.where(most > 0, vectors @ (scale * (vectors.T @ mean)), mean) * present


def _present(gramian: Tensor, present: Tensor | None) -> Tensor:
    """1 for the tasks that count, else 0, [T]."""
    return gramian.new_ones(gramian.shape[0]) if present is None else present.to(gramian.dtype)


def _distances(gramian: Tensor) -> Tensor:
    """|g_i - g_j|^2 [T, T], above 0."""
    square = gramian.diagonal()
    return (square[:, None] + square - 2 * gramian).clamp(min=torch.finfo(gramian.dtype).tiny)


def _moved(weights: Tensor, length: Tensor, gain: Tensor) -> Tensor:
    """Weight moved from i to j, length_ij, for the pair of the largest gain."""
    pairs = torch.arange(gain.numel(), device=gain.device).view(gain.shape)
    moved = length * (gain.argmax() == pairs)
    return weights - moved.sum(1) + moved.sum(0)


def _cosines(gramian: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of the tasks that are there [T, T], nothing between the others; lengths [T], 1 for the others; 1 or 0 [T].

    The diagonal is larger than 1 by rounding, so that gradients that depend on each other leave a system to solve.
    """
    square = gramian.diagonal()
    there = _present(gramian, present) * (square > 0)
    length = torch.where(there > 0, square, 1).sqrt()
    identity = torch.eye(len(square), dtype=gramian.dtype, device=gramian.device)
    between = gramian / length / length[:, None] * there * there[:, None] * (1 - identity)
    return between + identity * (1 + 4 * len(square) * torch.finfo(gramian.dtype).eps), length, there
