"""Which source fits a target, asked before anything is learned on the target: scores, of which more is better.

Plain functions of tensors, without loops over rows. A score ranks the sources of one target; its size says nothing by
itself. All are of training rows. Whether one can be trusted on a stream, `lifelong similarity` measures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Outputs
from lifelong.core.row_gradients import row_sums
from lifelong.models.base import Model, Net

TINY = 1e-12


def leep(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """LEEP, 0-d, at most 0 (Nguyen et al., 2020): how well a source's answers, relabelled, would say the target's labels.

    P(y, z) = 1/N sum_n [y_n = y] p_nz; P(y | z) = P(y, z) / P(z); score = 1/N sum_n log sum_z P(y_n | z) p_nz.
    probabilities [N, Z]: of the source's Z classes for the target's rows; labels int64 [N] from 0 to classes - 1.
    """
    member = F.one_hot(labels, classes).to(probabilities.dtype)
    joint = member.T @ probabilities / len(labels)  # [C, Z]
    given = joint / joint.sum(0).clamp(min=TINY)
    return ((given[labels] * probabilities).sum(1).clamp(min=TINY)).log().mean()


def log_me(features: Tensor, labels: Tensor, classes: int, steps: int = 200) -> Tensor:
    """LogME, 0-d (You et al., 2021): the largest evidence of Bayesian linear regression from features, by row, mean over classes.

    Of each class c: y = [label = c], w ~ N(0, I / alpha), y ~ N(F w, I / beta); max over alpha, beta of
    log p(y | F) / N by the fixed point alpha = g / |m|^2, beta = (N - g) / |F m - y|^2, g = sum_i beta s_i / (alpha +
    beta s_i), s_i the squared singular values of F, m the posterior mean (MacKay, 1992).
    features [N, D]: of the target's rows by the source's trunk; labels int64 [N].
    """
    rows, width = features.shape
    y = F.one_hot(labels, classes).to(features.dtype)  # [N, C]
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    s = singular.square()[:, None]  # [K, 1]
    z = (left.T @ y).square()  # [K, C]
    rest = (y.square().sum(0) - z.sum(0)).clamp(min=0)  # what no features explain
    alpha, beta = torch.ones_like(rest), torch.ones_like(rest)

    def moments(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precision = alpha + beta * s
        mean = (beta**2 * s * z / precision.square()).sum(0)
        gap = (alpha**2 * z / precision.square()).sum(0) + rest
        return (beta * s / precision).sum(0), mean, gap

    for _ in range(steps):
        explained, mean, gap = moments(alpha, beta)
        alpha, beta = explained / mean.clamp(min=TINY), (rows - explained) / gap.clamp(min=TINY)
    _, mean, gap = moments(alpha, beta)
    determinant = (alpha + beta * s).log().sum(0) + (width - len(s)) * alpha.log()
    evidence = rows * beta.log() + width * alpha.log() - rows * math.log(2 * math.pi) - beta * gap - alpha * mean
    return ((evidence - determinant) / (2 * rows)).mean()


def h_score(features: Tensor, labels: Tensor, classes: int, shrinkage: float = 0.1) -> Tensor:
    """H-score, 0-d (Bao et al., 2019): tr(cov(f)^-1 cov(E[f | y])), between 0 and classes - 1.

    cov(f) is shrunk to (1 - a) cov(f) + a tr(cov(f)) / D I, since few rows say little of D^2 numbers (after Ibrahim et
    al., 2022); shrinkage = 0 is the paper's, with a pseudo-inverse. features [N, D], labels int64 [N].
    """
    rows, width = features.shape
    member = F.one_hot(labels, classes).to(features.dtype)
    centred = features - features.mean(0)
    count = member.sum(0).clamp(min=1)
    means = member.T @ centred / count[:, None]  # [C, D]
    between = (means * member.sum(0)[:, None]).T @ means / rows
    whole = centred.T @ centred / rows
    unit = torch.eye(width, dtype=features.dtype, device=features.device)
    shrunk = (1 - shrinkage) * whole + shrinkage * whole.trace() / width * unit
    return (torch.linalg.pinv(shrunk, hermitian=True) @ between).trace()


def task_embedding(model: Model, net: Net, x: Tensor, classes: Tensor) -> Tensor:
    """The embedding of a task by a network whose head was fitted to it, [U] (Achille et al., 2019: task2vec).

    Diagonal Fisher information of the trunk, F_p = 1/N sum_n sum_k p_nk (d log p_nk / dp)^2, in expectation over the
    network's own answers rather than by drawing them; its mean over the weights of each of U units. x [N, ...]; classes
    int64 [W]: the task's outputs.
    """

    def answers(outputs: Outputs) -> Tensor:
        return F.log_softmax(outputs.logits[:, classes], 1)

    features = model.features(net, x)
    weight = answers(Outputs(model.head(net, features), features)).exp() / len(x)
    fisher = row_sums(model, net, x, answers, (), weight, torch.square)
    trunk = {name: value for name, value in fisher.items() if not name.startswith("head.") and value.ndim > 1}
    # a linear layer is [in, out], a convolution [out, in, height, width]
    return torch.cat([value.mean(0) if value.ndim == 2 else value.flatten(1).mean(1) for value in trunk.values()])


def task2vec_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of F_a / (F_a + F_b) and F_b / (F_a + F_b), 0-d, 1 for equal embeddings [U] (Achille et al., 2019).

    Units that neither task moves count for nothing.
    """
    total = a + b
    share_a = torch.where(total > 0, a / total.where(total > 0, torch.ones_like(total)), torch.zeros_like(a))
    share_b = torch.where(total > 0, b / total.where(total > 0, torch.ones_like(total)), torch.zeros_like(b))
    return cosine(share_a, share_b)


def gradient_cosine(a: Net, b: Net) -> Tensor:
    """Cosine of two tasks' gradients with respect to one trunk, 0-d: whether a step for one is a step for the other.

    a, b: gradients by name; the head's are left out.
    """
    names = [name for name in a if not name.startswith("head.")]
    return cosine(*(torch.cat([net[name].flatten() for name in names]) for net in (a, b)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """a . b / (|a| |b|), 0-d, of vectors [U]; 0 where one of them is 0."""
    size = a.norm() * b.norm()
    return torch.where(size > 0, (a @ b) / size.where(size > 0, torch.ones_like(size)), torch.zeros_like(size))


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation of two lists [..., N], [...]: Pearson's of their ranks, ties at their mean rank (Spearman, 1904).

    NaN where all of one list are equal.
    """
    ranks = [_ranks(values) for values in (a, b)]
    x, y = (rank - rank.mean(-1, keepdim=True) for rank in ranks)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    """1 + how many are smaller + half of how many others are equal, float64 [..., N]."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return 1 + below.to(torch.float64) + (equal - 1) / 2
