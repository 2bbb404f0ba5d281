"""A line through some classes' scores, fitted so that they compete fairly with the others'."""

from __future__ import annotations

import torch
from torch import Tensor

LENGTHS = 8  # of a step that are tried: 1, 1/2, 1/4 ...
DAMPING = 1e-6  # keeps a step finite where the loss is flat


def fitted_line(
    scores: Tensor, label: Tensor, weight: Tensor, allowed: Tensor, new: Tensor, pull: float | Tensor, steps: int
) -> Tensor:
    """alpha and beta [2] that minimise sum_n weight_n CE(z_n, label_n) + pull x beta^2 / 2, z = alpha s + beta for the
    classes in `new`, z = s for the others.

    scores: [N, C]; label: int64 [N]; weight: [N]; allowed: bool [N, C], the classes that compete; new: bool [C]. From
    (1, 0) by Newton steps in closed form, each as long as lowers the loss most.
    """

    def log_p(pairs: Tensor) -> Tensor:
        """Log probabilities [L, N, C] by L pairs [L, 2]."""
        z = torch.where(new, pairs[:, :1, None] * scores + pairs[:, 1:, None], scores)
        return z.masked_fill(~allowed, -torch.inf).log_softmax(2)

    def loss(pairs: Tensor) -> Tensor:
        surprise = -log_p(pairs).gather(2, label.expand(len(pairs), -1)[..., None])[..., 0]  # [L, N]
        return (surprise * weight).sum(1) + pull * pairs[:, 1].square() / 2

    unit = torch.eye(2, dtype=scores.dtype, device=scores.device)
    length = 0.5 ** torch.arange(LENGTHS, dtype=scores.dtype, device=scores.device)
    slopes = torch.stack([scores, torch.ones_like(scores)]) * new  # of z by alpha and by beta, [2, N, C]
    target = slopes.gather(2, label.expand(2, -1)[..., None])[..., 0]
    pair, quadratic_gradient = unit[0], pull * unit[1]
    for _ in range(steps):
        p = log_p(pair[None])[0].exp()
        mean = (slopes * p).sum(2)  # [2, N]
        gradient = ((mean - target) * weight).sum(1) + quadratic_gradient * pair
        # sums, not matrix products: those may be rounded otherwise in a fleet of another size
        spread = (slopes[:, None] * slopes * p).sum(3) - mean[:, None] * mean  # [2, 2, N]
        spread = (spread * weight).sum(2)
        step = torch.linalg.solve_ex(spread + torch.diag(quadratic_gradient + DAMPING), gradient)[0]
        tried = pair - length[:, None] * step  # [L, 2]
        pair = tried.gather(0, loss(tried).argmin().expand(1, 2))[0]
    return pair
