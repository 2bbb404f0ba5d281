"""Continual methods as plain loops in float64: the truth that strategies and learners are tested against.

Nothing of lifelong is imported. There is one learner, no seeds, no vmap; memories are Python lists; every random number
that a method consumes is an argument, so that a strategy that is given the same numbers must end at the same place.

A network is a dictionary of tensors as `lifelong.models.perceptron.MLP` has it: layer0.weight [in, out], layer0.bias [out], layer1...,
head.weight [F, C], head.bias [C]; rectified linear units between. A stream is a list of tasks, a task a list of `Rows`, a
step each. An optimiser is a function from a list of tensors to a `torch.optim` optimiser; its state is kept over tasks.

Numbers in (0, 1) that say which rows of a memory are replayed come as "place", in one of two shapes: [R] with replacement, where
u means place floor(u x n) of n filled ones; [M] without, where the R filled places with the smallest numbers are taken (all
of them, where fewer are filled). A reservoir's places are filled in order.

Equation numbers are as remembered. Where a paper leaves room, the authors' or a well-known code was read, and the docstring
says what it does: Mammoth (DER++, A-GEM), packnet's `prune.py`, FACIL's `bic.py`, Deep_SLDA, RanPAC, van de Ven's `vae.py`;
MAS is from the paper alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Params = dict[str, Tensor]
Optimiser = Callable[[list[Tensor]], torch.optim.Optimizer]
Draws = Sequence[Sequence[dict[str, Tensor]]]  # draws[t][i] are those of step i of task t


class Rows(NamedTuple):
    """B rows: x [B, F]; y int64 [B]; allowed bool [B, C], the classes that compete; first bool [B], shown for the first
    time in this task (None: all are)."""

    x: Tensor
    y: Tensor
    allowed: Tensor
    first: Tensor | None = None


def features(params: Params, x: Tensor) -> Tensor:
    """The last hidden layer [B, F]; the rows themselves where there is none."""
    i = 0
    while f"layer{i}.weight" in params:
        x = torch.relu(x @ params[f"layer{i}.weight"] + params[f"layer{i}.bias"])
        i += 1
    return x


def scores(params: Params, x: Tensor) -> Tensor:
    """Scores of all classes [B, C]."""
    return features(params, x) @ params["head.weight"] + params["head.bias"]


def row_losses(logits: Tensor, rows: Rows) -> Tensor:
    """-log softmax(logits)_y over the allowed classes, [B]."""
    return F.cross_entropy(logits.masked_fill(~rows.allowed, -torch.inf), rows.y, reduction="none")


def loss(params: Params, rows: Rows) -> Tensor:
    """Its mean over the rows."""
    return row_losses(scores(params, rows.x), rows).mean()


def joined(*parts: Rows) -> Rows:
    """Rows under one another."""
    return Rows(*(torch.cat([part[i] for part in parts]) for i in range(3)))


def leaves(params: Params) -> Params:
    """A copy to be learned."""
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def detached(params: Params) -> Params:
    """A copy that stays."""
    return {name: value.detach().clone() for name, value in params.items()}


def descend(optimiser: torch.optim.Optimizer, value: Tensor) -> None:
    """One step down a loss."""
    optimiser.zero_grad()
    value.backward()
    optimiser.step()


def fine_tuning(start: Params, tasks: Sequence[Sequence[Rows]], optimiser: Optimiser) -> Params:
    """Gradient descent on what the stream brings."""
    params = leaves(start)
    steps = optimiser(list(params.values()))
    for batches in tasks:
        for rows in batches:
            descend(steps, loss(params, rows))
    return detached(params)


def places(number: Tensor, filled: int, rows: int, replacement: bool) -> list[int]:
    """Which of the filled places the numbers mean; see the top of this file."""
    if replacement:
        return [min(int(u * filled), filled - 1) for u in number.tolist()]
    order = sorted(range(filled), key=lambda place: float(number[place]))
    return order[: min(rows, filled)]


# --- rehearsal ----------------------------------------------------------------------------------------------------


def der_plus_plus(
    start: Params,
    tasks: Sequence[Sequence[Rows]],
    optimiser: Optimiser,
    draws: Draws,
    *,
    size: int,
    rows: int,
    alpha: float,
    beta: float,
    replacement: bool = True,
    over: str = "mean",
) -> Params:
    """DER++ (Buzzega et al., 2020, eq. 6): L = CE(stream) + alpha E ||z' - h(x')||^2 + beta E CE(y'', h(x'')).

    (x', z') and (x'', y'') are two independent draws of R rows from a reservoir of M = size rows; z' are the scores of all
    C classes, unmasked, that the network gave when the row came by, before that step's update. The authors' code takes
    the mean over rows and over classes of the squares (over="mean"); the paper's formula sums over classes (over="sum").
    over="allowed": the mean over the classes that are allowed to the row; where all are, that is "mean".
    The stream's loss has weight 1; an empty memory brings nothing. beta = 0 is DER.

    draws[t][i]: "place" and "place_again", see the top: the first for (x', z'), the second for (x'', y'');
    "ticket" [B]: after the step, of all rows that were ever shown for the first time in their task, the first M are kept,
    each with its z, and the n-th one after them takes the place floor(ticket x n) where it is below M (Vitter's R).
    """
    params = leaves(start)
    steps = optimiser(list(params.values()))
    memory: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # x, y, allowed, z
    seen = 0
    for t, batches in enumerate(tasks):
        for i, batch in enumerate(batches):
            logits = scores(params, batch.x)
            total = row_losses(logits, batch).mean()
            if memory:
                chosen = [memory[k] for k in places(draws[t][i]["place"], len(memory), rows, replacement)]
                x, z = torch.stack([row[0] for row in chosen]), torch.stack([row[3] for row in chosen])
                squares = (scores(params, x) - z).pow(2)
                if over == "allowed":
                    allowed = torch.stack([row[2] for row in chosen])
                    squares = (squares * allowed).sum(1) / allowed.sum(1)
                total = total + alpha * (squares.sum(1).mean() if over == "sum" else squares.mean())
                chosen = [memory[k] for k in places(draws[t][i]["place_again"], len(memory), rows, replacement)]
                again = Rows(*(torch.stack([row[j] for row in chosen]) for j in (0, 1, 2)))
                total = total + beta * loss(params, again)
            descend(steps, total)
            for b, ticket in enumerate(draws[t][i]["ticket"].tolist()):
                if batch.first is not None and not batch.first[b]:
                    continue
                row, seen = (batch.x[b], batch.y[b], batch.allowed[b], logits[b].detach()), seen + 1
                if len(memory) < size:
                    memory.append(row)
                elif int(ticket * seen) < size:
                    memory[int(ticket * seen)] = row
    return detached(params)


class Projected(NamedTuple):
    """What A-GEM ends with; dots[t][i] = g . g_ref of each step, 0 where there was no memory."""

    params: Params
    dots: list[list[float]]


def a_gem(
    start: Params,
    tasks: Sequence[Sequence[Rows]],
    optimiser: Optimiser,
    draws: Draws,
    memory: Sequence[Rows | None],
    *,
    rows: int,
    replacement: bool = True,
    epsilon: float = 0.0,
) -> Projected:
    """A-GEM (Chaudhry et al., 2019, eq. 11): where g . g_ref < 0, g~ = g - (g . g_ref) / (g_ref . g_ref) g_ref.

    g: gradient of the mean loss of the stream's batch, all parameters as one vector; g_ref: of the mean loss of R rows of
    the memory, each among its own allowed classes, at the same parameters. epsilon is added to g_ref . g_ref.
    The optimiser gets g~.

    memory[t]: all rows that are in memory while task t is learned, in the memory's order; None for the first task.
    draws[t][i]: "place", see the top.
    """
    params = leaves(start)
    steps = optimiser(list(params.values()))
    dots: list[list[float]] = []
    for t, batches in enumerate(tasks):
        dots.append([])
        for i, batch in enumerate(batches):
            gradient = torch.autograd.grad(loss(params, batch), list(params.values()))
            g, kept, dot = torch.cat([part.flatten() for part in gradient]), memory[t], 0.0
            if kept is not None:
                chosen = places(draws[t][i]["place"], len(kept.y), rows, replacement)
                reference = loss(params, Rows(kept.x[chosen], kept.y[chosen], kept.allowed[chosen]))
                parts = torch.autograd.grad(reference, list(params.values()))
                g_ref = torch.cat([part.flatten() for part in parts])
                dot = float(g @ g_ref)
                if dot < 0:
                    g = g - (g @ g_ref) / (g_ref @ g_ref + epsilon) * g_ref
            dots[-1].append(dot)
            pieces = g.split([value.numel() for value in params.values()])
            for value, piece in zip(params.values(), pieces, strict=True):
                value.grad = piece.view_as(value)
            steps.step()
    return Projected(detached(params), dots)


# --- regularisation -----------------------------------------------------------------------------------------------


class Anchored(NamedTuple):
    """What a penalised network ends with: parameters, importances, and the anchor."""

    params: Params
    importance: Params
    anchor: Params


def mas_importance(params: Params, rows: Rows) -> Params:
    """MAS (Aljundi et al., 2018, eq. 2 and 3): mean over rows of |d ||f(x)||^2 / d p|, f the scores of the allowed classes."""
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for b in range(len(rows.x)):
        live = leaves(params)
        answer = scores(live, rows.x[b : b + 1])[0][rows.allowed[b]]
        gradient = torch.autograd.grad(answer.pow(2).sum(), list(live.values()))
        for name, part in zip(params, gradient, strict=True):
            total[name] += part.abs() / len(rows.x)
    return total


def mas(
    start: Params,
    tasks: Sequence[Sequence[Rows]],
    optimiser: Optimiser,
    finished: Sequence[Rows],
    *,
    strength: float,
    decay: float = 1.0,
) -> Anchored:
    """MAS (Aljundi et al., 2018, eq. 4): L = CE(stream) + strength sum_p importance_p (p - p*)^2, without a half.

    At a task's end importance <- decay x importance + `mas_importance`, over all of the task's training rows (labels are
    not looked at), and p* <- p; the paper adds up, decay = 1. No random numbers. finished[t]: those rows.
    """
    params = leaves(start)
    steps = optimiser(list(params.values()))
    importance = {name: torch.zeros_like(value) for name, value in detached(params).items()}
    anchor = detached(params)
    for batches, rows in zip(tasks, finished, strict=True):
        for batch in batches:
            penalty = sum((importance[n] * (params[n] - anchor[n]).pow(2)).sum() for n in params)
            descend(steps, loss(params, batch) + strength * penalty)
        anchor = detached(params)
        new = mas_importance(anchor, rows)
        importance = {name: decay * importance[name] + new[name] for name in importance}
    return Anchored(detached(params), importance, anchor)


# --- architecture -------------------------------------------------------------------------------------------------


class Packed(NamedTuple):
    """What PackNet ends with; owner: of each entry of each hidden weight, the number of its task from 1, 0 for a free one."""

    params: Params
    owner: Params


def packnet(
    start: Params, tasks: Sequence[Sequence[Rows]], optimiser: Optimiser, *, prune: float, before: Sequence[int]
) -> Packed:
    """PackNet (Mallya and Lazebnik, 2018, section 3; the authors' `prune.py`).

    Each task takes all free weights, learns them for before[t] batches, then gives up those of them with the smallest
    |w|: in each hidden layer by itself the k-th smallest |w| is the cut, k = round(prune x number of the task's weights)
    (Python's round, halves to even), and all up to it become 0 and free; with k = 0 none. The rest of the task's batches
    learn the weights that it keeps; those given up stay at 0. Weights of earlier tasks never move. The next task's free
    weights start from 0. The last task is pruned too.

    Biases of hidden layers are learned in the first task alone. The head is not pruned: its columns and biases of the
    task's classes, those allowed to its rows, are learned in that task alone. What may not move is put back after each
    step (the same as zero gradients under plain gradient descent). No random numbers.
    """
    params = leaves(start)
    steps = optimiser(list(params.values()))
    hidden = [name for name in params if name.endswith(".weight") and name != "head.weight"]
    owner = {name: torch.zeros_like(params[name], dtype=torch.int64) for name in hidden}
    taken = torch.zeros_like(params["head.bias"], dtype=torch.bool)
    for t, batches in enumerate(tasks):
        for name in hidden:
            owner[name][owner[name] == 0] = t + 1
        classes = torch.stack([rows.allowed.any(0) for rows in batches]).any(0) & ~taken
        for i, rows in enumerate(batches):
            if i == before[t]:
                _prune(params, owner, t + 1, prune)
            _masked_step(steps, params, rows, owner, t, classes)
        if before[t] >= len(batches):
            _prune(params, owner, t + 1, prune)
        taken |= classes
    return Packed(detached(params), owner)


def _prune(params: Params, owner: Params, task: int, share: float) -> None:
    for name, owned in owner.items():
        mine = owned == task
        sizes = params[name].detach().abs()
        rank = round(share * int(mine.sum()))
        if rank:
            cut = sorted(sizes[mine].tolist())[rank - 1]
            given_up = mine & (sizes <= cut)
            owned[given_up] = 0
            params[name].data[given_up] = 0.0


def _masked_step(
    steps: torch.optim.Optimizer, params: Params, rows: Rows, owner: Params, t: int, classes: Tensor
) -> None:
    before = detached(params)
    descend(steps, loss(params, rows))
    for name, value in params.items():
        if name in owner:
            moves = owner[name] == t + 1
        elif name.startswith("head."):
            moves = classes.expand_as(value)
        else:
            moves = torch.full_like(value, t == 0, dtype=torch.bool)
        value.data = torch.where(moves, value.data, before[name])


def packnet_scores(packed: Packed, task: int, x: Tensor) -> Tensor:
    """Scores for a told task, from 0: weights of later tasks and free ones count as 0. [B, C]."""
    masked = dict(packed.params)
    for name, owner in packed.owner.items():
        masked[name] = torch.where((owner > 0) & (owner <= task + 1), masked[name], 0.0)
    return scores(masked, x)


# --- distillation and correction ----------------------------------------------------------------------------------


class Corrected(NamedTuple):
    """What BiC ends with: parameters, the classes of each task, and each task's correction (alpha, beta)."""

    params: Params
    classes: Sequence[Sequence[int]]
    corrections: list[tuple[float, float]]


def bic(
    start: Params,
    tasks: Sequence[Sequence[Rows]],
    optimiser: Optimiser,
    *,
    classes: Sequence[Sequence[int]],
    exemplars: Sequence[Sequence[Rows | None]],
    validation: Sequence[Sequence[Rows]],
    correction_optimiser: Optimiser,
    temperature: float = 2.0,
    pull: float = 0.0,
    distilled: float = 1.0,
) -> Corrected:
    """BiC (Wu et al., 2019, eq. 1 to 5).

    Stage one, on the batch and its exemplars together, every row alike: lambda L_d + (1 - lambda) L_c with
    lambda = n / (n + m), n old and m new classes; L_c = mean CE over the allowed classes; L_d = mean over rows of
    -sum_{k old} softmax(o^ / T)_k log softmax(o / T)_k, both over the n old classes, without T^2. o^ are the corrected
    scores of the network at the end of the task before; o are the network's with the corrections of the tasks before,
    the new classes as they are (as in FACIL's `bic.py`; with one earlier task, whose correction is the identity, the same as
    without).
    Stage two, from the second task on: the network stays, and q_k = alpha o_k + beta of the new classes, those of old
    ones corrected by their own tasks' alpha and beta, learn alpha and beta, from 1 and 0, by the mean CE over the allowed classes
    (eq. 5) + pull x beta^2 / 2 (the authors' code: 0.1), a step for each of validation[t].

    exemplars[t][i]: rows replayed with batch i, or None; validation[t]: batches of the balanced rows that are held out,
    [] for the first task. Which rows these are is random, and is chosen outside.
    distilled: of lambda, 1 unless an error is planted.
    """
    params = leaves(start)
    steps = optimiser(list(params.values()))
    corrections: list[tuple[float, float]] = []
    teacher: Corrected | None = None
    for t, batches in enumerate(tasks):
        old = [c for earlier in classes[:t] for c in earlier]
        share = distilled * len(old) / (len(old) + len(classes[t]))
        for i, batch in enumerate(batches):
            extra = exemplars[t][i]
            rows = batch if extra is None else joined(batch, extra)
            logits = _correct(scores(params, rows.x), classes, corrections)
            total = (1 - share) * row_losses(logits, rows).mean()
            if teacher is not None:
                soft = (bic_scores(teacher, rows.x)[:, old] / temperature).softmax(1)
                student = (logits[:, old] / temperature).log_softmax(1)
                total = total + share * -(soft * student).sum(1).mean()
            descend(steps, total)
        pair = [torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)]
        pair = [value.requires_grad_() for value in pair]
        pair_steps = correction_optimiser(pair)
        for rows in validation[t]:
            fixed = scores(detached(params), rows.x)
            logits = _correct(fixed, classes, [*corrections, (pair[0], pair[1])])
            descend(pair_steps, row_losses(logits, rows).mean() + pull * pair[1].pow(2) / 2)
        corrections.append((float(pair[0].detach()), float(pair[1].detach())))
        teacher = Corrected(detached(params), classes, list(corrections))
    return Corrected(detached(params), classes, corrections)


def _correct(logits: Tensor, classes: Sequence[Sequence[int]], corrections: Sequence[tuple]) -> Tensor:
    columns = list(logits.unbind(1))
    for listed, (alpha, beta) in zip(classes, corrections, strict=False):
        for c in listed:
            columns[c] = alpha * columns[c] + beta
    return torch.stack(columns, 1)


def bic_scores(learned: Corrected, x: Tensor) -> Tensor:
    """Scores [B, C], each class by its task's correction."""
    return _correct(scores(learned.params, x), learned.classes, learned.corrections)


# --- closed forms over fixed features -----------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """Running means [C, F], their counts [C], and one covariance [F, F]."""

    mean: Tensor
    count: Tensor
    covariance: Tensor


def streaming_lda(z: Tensor, y: Tensor, classes: int, by: str = "all") -> Gaussian:
    """Deep streaming linear discriminant analysis (Hayes and Kanan, 2020, eq. 2 and 3), one row of features [F] after another.

    With t rows seen: S <- (t S + D) / (t + 1), D = t (z - m_y)(z - m_y)' / (t + 1), m_y before this row; then
    m_y <- (n_y m_y + z) / (n_y + 1). Everything starts at 0. by="class" has n_y / (n_y + 1) in D instead of t / (t + 1): S is then
    exactly the pooled covariance within classes, sum over rows of (z - m_y)(z - m_y)' / N with the final means, whatever
    the order. (With t a class's first row brings z z', since its mean is still 0.) No random numbers.
    """
    mean, count = torch.zeros(classes, z.shape[1], dtype=z.dtype), torch.zeros(classes, dtype=z.dtype)
    covariance = torch.zeros(z.shape[1], z.shape[1], dtype=z.dtype)
    for t, (row, c) in enumerate(zip(z, y.tolist(), strict=True)):
        gap, seen = row - mean[c], t if by == "all" else float(count[c])
        covariance = (t * covariance + torch.outer(gap, gap) * seen / (seen + 1)) / (t + 1)
        mean[c] = (count[c] * mean[c] + row) / (count[c] + 1)
        count[c] += 1
    return Gaussian(mean, count, covariance)


def lda_scores(gaussian: Gaussian, z: Tensor, shrinkage: float = 1e-4) -> Tensor:
    """z' P m_c - m_c' P m_c / 2 with P = ((1 - e) S + e I)^-1 (eq. 1, 4 and 5): [B, C]; classes never seen get 0."""
    unit = torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve((1 - shrinkage) * gaussian.covariance + shrinkage * unit, gaussian.mean.T)  # [F, C]
    return z @ weight - 0.5 * (gaussian.mean.T * weight).sum(0)


def random_features_ridge(
    z: Tensor, y: Tensor, query: Tensor, classes: int, projection: Tensor, ridge: float
) -> Tensor:
    """RanPAC's head (McDonnell et al., 2023, eq. 5 to 7): scores [Q, C] of queries, h_q' (sum h h' + ridge I)^-1 sum h e_y'.

    h = relu(z projection), z [N, L] the features of all rows so far, e_y the one-hot label. projection: [L, M], the random
    numbers, standard normal, drawn once before the first task. Sums do not depend on the order of rows or tasks.
    """
    gram = torch.zeros(projection.shape[1], projection.shape[1], dtype=z.dtype)
    moment = torch.zeros(projection.shape[1], classes, dtype=z.dtype)
    for row, c in zip(z, y.tolist(), strict=True):
        h = torch.relu(row @ projection)
        gram += torch.outer(h, h)
        moment[:, c] += h
    weight = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=z.dtype)) @ moment
    return torch.relu(query @ projection) @ weight


# --- generative replay --------------------------------------------------------------------------------------------


class Scholar(NamedTuple):
    """A solver, as the networks above, and a generator: encoder0..., mean, logvariance, decoder0..., image, each with weight
    [in, out] and bias."""

    solver: Params
    generator: Params


def _hidden(params: Params, name: str, x: Tensor) -> Tensor:
    i = 0
    while f"{name}{i}.weight" in params:
        x = torch.relu(x @ params[f"{name}{i}.weight"] + params[f"{name}{i}.bias"])
        i += 1
    return x


def generated(generator: Params, latent: Tensor) -> Tensor:
    """Images in (0, 1) from latent numbers [R, Z]: [R, F]."""
    hidden = _hidden(generator, "decoder", latent)
    return torch.sigmoid(hidden @ generator["image.weight"] + generator["image.bias"])


def autoencoder_losses(generator: Params, x: Tensor, noise: Tensor, scale: float = 1.0) -> Tensor:
    """A variational auto-encoder's loss of each row (Kingma and Welling, 2014), divided by F (van de Ven et al., 2022): [B].

    (1 / F) (sum over pixels of the binary cross-entropy - 1/2 sum over latents of (1 + v - m^2 - e^v)), with mean m and
    log-variance v of the encoder; decoded from m + e^(v / 2) noise, noise [B, Z] standard normal.
    scale: of the sum over latents, 1 unless an error is planted.
    """
    hidden = _hidden(generator, "encoder", x)
    mean = hidden @ generator["mean.weight"] + generator["mean.bias"]
    logvariance = hidden @ generator["logvariance.weight"] + generator["logvariance.bias"]
    image = generated(generator, mean + (logvariance / 2).exp() * noise)
    surprise = F.binary_cross_entropy(image, x, reduction="none").sum(1)
    divergence = -0.5 * (1 + logvariance - mean.pow(2) - logvariance.exp()).sum(1)
    return (surprise + scale * divergence) / x.shape[1]


def generative_replay(
    start: Scholar,
    tasks: Sequence[Sequence[Rows]],
    optimiser: Optimiser,
    generator_optimiser: Optimiser,
    draws: Draws,
    *,
    answers: Sequence[Tensor],
    weighting: str = "tasks",
    made: float = 1.0,
    divergence: float = 1.0,
) -> Scholar:
    """Deep generative replay (Shin et al., 2017, eq. 1), the generator a variational auto-encoder (van de Ven et al., 2022).

    From the second task on, with the scholar of the end of the task before: x' = its generator's images, y' = its solver's
    hardest answer on x' (argmax). The solver descends r L(x, y) + (1 - r) L(x', y'), the generator
    r V(x) + (1 - r) V(x'), L and V means over their rows, both steps from the parameters before. r = 1 / k in the k-th
    task for weighting "tasks", 1/2 for "equal"; 1 in the first task.

    answers[t]: bool [C], while task t is learned: the classes among which x' is labelled; its loss is among those that
    are allowed to the first row of the stream's batch (class-incremental, domain-incremental: the same for all).
    draws[t][i]: "noise" [B, Z] of the auto-encoder on the stream's rows; from the second task on "latent" [R, Z], of which x' is made,
    and "noise_again" [R, Z] of the auto-encoder on x'. All standard normal.
    made, divergence: of both losses of made rows, and of the divergence in V, 1 unless an error is planted.
    """
    solver, generator = leaves(start.solver), leaves(start.generator)
    steps, generator_steps = optimiser(list(solver.values())), generator_optimiser(list(generator.values()))
    before: Scholar | None = None
    for t, batches in enumerate(tasks):
        share = 1.0 if t == 0 else (1 / (t + 1) if weighting == "tasks" else 0.5)
        for i, rows in enumerate(batches):
            drawn = draws[t][i]
            total = share * loss(solver, rows)
            surprise = share * autoencoder_losses(generator, rows.x, drawn["noise"], divergence).mean()
            if before is not None:
                x = generated(before.generator, drawn["latent"])
                y = scores(before.solver, x).masked_fill(~answers[t], -torch.inf).argmax(1)
                total = total + made * (1 - share) * loss(solver, Rows(x, y, rows.allowed[:1].expand(len(y), -1)))
                again = autoencoder_losses(generator, x, drawn["noise_again"], divergence).mean()
                surprise = surprise + made * (1 - share) * again
            descend(steps, total)
            descend(generator_steps, surprise)
        before = Scholar(detached(solver), detached(generator))
    return Scholar(detached(solver), detached(generator))
