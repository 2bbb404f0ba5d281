"""Brain-inspired replay (van de Ven, Siegelmann and Tolias, 2020), on pixels: the network is its own generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, normal
from lifelong.core.problem import Problem, log_softmax
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.base import Net, apply_linear, linear
from lifelong.strategies.replay.replay import WEIGHTINGS, share_of_new
from scenarios.stream import Stream


@dataclass(frozen=True)
class BrainInspiredReplay(Strategy):
    """Learn to make rows of each class backwards through the network, and be asked again what it answered to them.

    Replay through feedback: from the network's features two layers lead to mean m and log variance v of Z latent numbers,
    and a decoder from z = m + e^(v / 2) noise back to the pixels; all learn together. Conditional replay: latent numbers of
    class c come from N(mu_c, e^s_c), which is learned. Gating: of the decoder's hidden units a random share `gated` is
    closed for each class; where tasks share their classes, for each task. V of a row x whose class is c with probability
    p_c, and whose gates are open as far as p @ gates says, is

        (1 / F) (binary cross-entropy of its F pixels + log q(z | x) - log sum_c p_c N(z; mu_c, e^s_c)).

    From the second task on, network and decoder as they were at the end of the task before make R rows x', a class at
    random of those seen for each, and the network says p(x') = softmax(scores / temperature) over them. Minimised is
    r (L + V)(x, y) + (1 - r) (D + V)(x', p), D = -sum_c p_c log softmax(scores(x') / temperature)_c, and r = 1 / k in the
    k-th task for weighting "tasks", 1/2 for "equal"; no factor temperature^2, as in the authors' code.

    As van de Ven et al. (2022) run it on Split MNIST, with 2000 iterations a task: no internal replay, which starts above
    pre-trained convolutions. Task-incremental, past tasks are made in turn, each among its own classes; there the authors
    gate nothing, gated = 0. width, layers: of the decoder; rows: R, 0 for as many as the stream brings.
    """

    width: int = 400
    layers: int = 2
    latent: int = 100
    gated: float = 0.1
    temperature: float = 2.0
    rows: int = 0
    weighting: str = "tasks"
    acts_at_once = True
    keeps = "a decoder, and network and decoder of the task before"
    witness = "a plain float64 loop: tests/reference/witnesses/test_brain_inspired.py"
    defaults = "published for Split-MNIST (van de Ven et al., 2022)"
    passes = (5.0, 4.0)  # network and decoder over two batches, and both once to make and label rows
    requires = Requirements(task_ends=True, classes=True)

    def __post_init__(self) -> None:
        require(self, min(self.width, self.layers, self.latent) >= 1, "width, layers and latent must be at least 1")
        require(self, self.rows >= 0, "rows must be at least 0")
        require(self, self.temperature > 0, "temperature must be above 0")
        require(self, 0 <= self.gated < 1, "gated is a share of the units, at least 0 and below 1")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")

    def notes(self, stream: Stream) -> list[str]:
        """Whether rows are such as it can make."""
        x = stream.dataset.x
        if not x.is_floating_point() or (x.min() >= 0 and x.max() <= 1):
            return []
        return [f"BrainInspiredReplay makes numbers in 0 ... 1, and rows of {stream.dataset.name} reach beyond"]

    def draws(self, problem: Problem) -> Shapes:
        """Noise for the stream's rows and for made ones; class, task and latent numbers of what is made."""
        made = self.rows or problem.batch
        latent = {name: (made, self.latent) for name in ("latent", "noise_again")}
        return {"noise": (problem.batch, self.latent), "class": (made,), "task": (made,), **latent}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Layers to latent numbers, decoder and prior, as own parameters; those of the task before; gates, open ones 1."""
        wide = problem.model.head_rows(params["net"]).shape[1]
        net: Net = {}
        for name, sizes in {"mean": (wide, self.latent), "logvariance": (wide, self.latent)}.items():
            linear(net, name, *sizes, generator)
        del net["logvariance.bias"]  # as in the authors' code
        for i in range(self.layers):
            linear(net, f"decoder{i}", self.width if i else self.latent, self.width, generator)
        linear(net, "image", self.width, math.prod(problem.shape), generator)
        for name in ("prior.mean", "prior.logvariance"):
            net[name] = torch.randn(problem.classes, self.latent, generator=generator)
        many = problem.tasks if problem.setting == "domain" else problem.classes
        gates = torch.rand(many, self.layers, self.width, generator=generator) >= self.gated
        net = {name: value.to(problem.device, problem.dtype) for name, value in net.items()}
        before = {"network": params["net"], "decoder": net}
        before = {part: {name: value.clone() for name, value in held.items()} for part, held in before.items()}
        seen = torch.zeros(problem.classes, dtype=torch.bool, device=problem.device)
        gates = gates.to(problem.device, problem.dtype)
        return {**params, "own": net}, {**before, "gates": gates, "seen": seen, "done": problem.zeros()}

    def _share(self, memory: Memory) -> Tensor:
        """r, 0-d."""
        return torch.where(memory["done"] > 0, share_of_new(self.weighting, memory["done"]), 1.0)

    def _image(self, problem: Problem, net: Net, memory: Memory, z: Tensor, chance: Tensor, task: Tensor) -> Tensor:
        """Log odds of the pixels from latent numbers [B, Z], by the chance of each class [B, C] or by the task [B]."""
        gates: Tensor = memory["gates"]  # [C or T, layers, width]
        if problem.setting == "domain":
            chance = sure(task, len(gates), z)
        opened = (chance @ gates.flatten(1)).view(len(z), *gates.shape[1:])
        for i in range(self.layers):
            z = (apply_linear(net, f"decoder{i}", z) * opened[:, i]).relu()
        return apply_linear(net, "image", z)

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add made rows and what the network of the task before says to them; `penalty` weighs them."""
        draws, done, past = batch.draws, memory["done"], memory["decoder"]
        number = (draws["task"] * done).to(torch.int64)
        if problem.setting == "task":
            number = (torch.arange(len(number), device=done.device) % done.clamp(min=1)).to(torch.int64)
        allowed = problem.allowed(number)
        known = allowed & (memory["seen"] | (done == 0))  # [R, C]
        nth = (draws["class"].to(problem.dtype) * known.sum(1)).floor()
        y = (known.cumsum(1) > nth[:, None]).to(torch.int8).argmax(1)  # the class that comes nth of those known
        spread = (past["prior.logvariance"][y] / 2).exp()
        z = past["prior.mean"][y] + spread * normal(draws["latent"].to(problem.dtype))
        hot = sure(y, problem.classes, z)
        x = self._image(problem, past, memory, z, hot, number).sigmoid().view(len(number), *batch.x.shape[1:])
        said = log_softmax(problem.logits({"net": memory["network"]}, x) / self.temperature, known).exp()
        batch = batch.replace(weight=batch.weight * self._share(memory))
        row, none = torch.full_like(number, -1), torch.zeros_like(z[:, 0])
        return batch.add(problem, row, number, none, x=x, y=y, target=said, soft=none + 1)

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """V of all rows, and D of those that were made."""
        net, old, made = params["own"], batch.stream, batch.mine
        y, weight = batch.y[old], batch.weight[old]
        again = (1 - self._share(memory)) / len(batch.row[made])
        weight = torch.cat([torch.where(y < 0, torch.zeros_like(weight), weight), again.expand(len(batch.row[made]))])
        chance = torch.cat([sure(y.clamp(min=0), problem.classes, weight), batch.target[made]])
        x, features, task = (
            torch.cat([value[old], value[made]]) for value in (batch.x.flatten(1), outputs.features, batch.task)
        )
        noise = normal(torch.cat([batch.draws["noise"], batch.draws["noise_again"]]).to(problem.dtype))
        mean, logvariance = apply_linear(net, "mean", features), features @ net["logvariance.weight"]
        z = mean + (logvariance / 2).exp() * noise
        image = self._image(problem, net, memory, z, chance, task)
        surprise = F.binary_cross_entropy_with_logits(image, x, reduction="none").sum(1)
        entropy = -(logvariance + noise.square()).sum(1) / 2  # log q(z | x), but for a constant that log p has, too
        apart = z[:, None] - net["prior.mean"]  # [B, C, Z]
        prior = -(net["prior.logvariance"] + apart.square() * (-net["prior.logvariance"]).exp()).sum(2) / 2
        value = (surprise + entropy - (prior + chance.log()).logsumexp(1)) / x.shape[1]
        log_p = log_softmax(outputs.logits[made] / self.temperature, batch.allowed[made])
        distilled = -(chance[len(y) :] * torch.where(batch.allowed[made], log_p, torch.zeros_like(log_p))).sum(1)
        return weight @ value + again * distilled.sum()

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Network and decoder become those that make and label the next task's rows."""
        now = {"network": dict(params["net"]), "decoder": dict(params["own"])}
        return params, {**memory, **now, "seen": memory["seen"] | task.classes, "done": memory["done"] + 1}


def sure(number: Tensor, many: int, like: Tensor) -> Tensor:
    """1 at each row's number [B], else 0: [B, many]."""
    return (number[:, None] == torch.arange(many, device=number.device)).to(like.dtype)
