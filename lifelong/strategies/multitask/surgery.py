"""Which combination of the tasks' gradients to step along, from their Gramian alone.

Plain functions for anybody's loop: a Gramian [T, T] of inner products g_i . g_j in, weights [T] out, and the step goes
along sum_i weights_i g_i. Their number of steps is fixed and they take no decision in Python, so `torch.func.vmap`
maps them over seeds. Nothing is differentiated through them.
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


def mgda(gramian: Tensor, iterations: int = 25, present: Tensor | None = None) -> Tensor:
    """The shortest vector among all weighted means of the tasks' gradients: no task gets worse along it.

    min over w >= 0, sum w = 1, of w^T G w, by Frank-Wolfe with exact line search, in its pairwise form (Lacoste-Julien
    and Jaggi, 2015): each iteration moves weight from one task to another, of all pairs the one that shortens the vector
    most. The plain form approaches as 1 / iterations, this one geometrically: 25 leave a gap of 1e-9 of w^T G w between
    5 random gradients of unequal lengths, 1e-3 between 10 (medians). For two tasks both are exact after one step,
    w_1 = clip((g_2 - g_1) . g_2 / |g_1 - g_2|^2, 0, 1). At the optimum min_i (G w)_i = w^T G w; where that is 0, no
    direction helps all tasks.

    gramian: [T, T]. present: bool [T], the tasks that count, default all; the others get weight 0, which a zero
    gradient does not bring about by itself: it is the shortest of all. Returns the weights [T]. (Desideri, 2012; Sener
    and Koltun, 2018.)
    """
    present = gramian.new_ones(gramian.shape[0]) if present is None else present.to(gramian.dtype)
    square = gramian.diagonal()
    curvature = (square[:, None] + square - 2 * gramian).clamp(min=torch.finfo(gramian.dtype).tiny)  # |g_i - g_j|^2
    curvature = torch.where(present > 0, curvature, torch.inf)  # nothing moves to a task that is not here
    pairs = torch.arange(gramian.numel(), device=gramian.device).view(gramian.shape)
    weights = present / present.sum().clamp(min=1)
    for _ in range(iterations):
        slope = gramian @ weights  # half the gradient of w^T G w
        descent = slope[:, None] - slope
        length = torch.minimum(descent / curvature, weights[:, None]).clamp(min=0)  # no weight falls below 0
        gain = torch.where(length > 0, length * (2 * descent - length * curvature), 0)  # by which w^T G w shrinks
        moved = length * (gain.argmax() == pairs)
        weights = weights - moved.sum(1) + moved.sum(0)
    return weights
