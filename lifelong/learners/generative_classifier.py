"""The generative classifier (van de Ven, Li and Tolias, 2021): a variational auto-encoder for each class, and Bayes' rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.core.batch import Batch, Params, Step, normal
from lifelong.core.learner import AnyLearner, Draws, State
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, require
from lifelong.models.autoencoder import autoencoder, autoencoder_loss, decoded, encoded
from lifelong.models.base import Net
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from scenarios.stream import Stream

LIKELIHOODS = ("gaussian", "bernoulli")


@dataclass(frozen=True)
class GenerativeClassifier(AnyLearner):
    """Learn what the rows of each class look like, and answer the class under which a row is likeliest.

    Each class has an auto-encoder of its own, which rows of no other class ever reach, so nothing learned is touched
    again; all classes count as equally frequent. score_c(x) = log p_c(x), by K = `samples` importance samples

        p_c(x) = (1 / K) sum_k p(x | z_k) p(z_k) / q_c(z_k | x),  z_k = m_c(x) + e^(v_c(x) / 2) noise_k;

    minus infinity for classes never seen. p(x | z): "gaussian" of unit variance around the decoded pixels, or
    "bernoulli". samples = 0 takes z = m_c(x), once. The auto-encoder of class c descends the mean of V (that of
    `GenerativeReplay`: binary cross-entropy and divergence, over F) over the rows of c in the batch, with an Adam of its
    own at `rate`; without such rows it stands still. width, layers, latent: hidden layers of encoder and decoder, Z.
    at_once: how many classes a step teaches, those with most rows in the batch; 0 for all: a step costs that many
    passes of its rows, so 2 is exact and five times cheaper where tasks have two of ten classes.

    As the authors' code has it: V is Bernoulli's while answers take Gaussian densities, and K is 50. What differs: there
    a step shows 128 rows of one class, and each class has 1000 steps; here rows come as the stream brings them. All rows
    and classes share the K draws of noise. Shapes: parameters [C, ...], noise [K, Z]. Answering costs C x K passes of a decoder.
    """

    rate: float = 1e-3
    width: int = 85
    layers: int = 2
    latent: int = 5
    samples: int = 50
    at_once: int = 0
    likelihood: str = "gaussian"
    model = MLP()
    keeps = "a small auto-encoder and its moments for each class"
    witness = "a plain float64 loop: tests/reference/witnesses/test_generative_classifier.py"
    defaults = "published for Split-MNIST"
    passes = (1.0, 1.0)

    def __post_init__(self) -> None:
        require(self, min(self.width, self.layers, self.latent) >= 1, "width, layers and latent must be at least 1")
        require(self, self.samples >= 0 and self.at_once >= 0, "samples and at_once must be at least 0")
        require(self, self.likelihood in LIKELIHOODS, f"likelihood is one of {', '.join(LIKELIHOODS)}")

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """Classes."""
        return [(repr(self), Requirements(paradigm="", classes=True))]

    def notes(self, stream: Stream) -> list[str]:
        """Where a class comes again it is overwritten."""
        if stream.setting != "domain":
            return []
        return [
            "GenerativeClassifier forgets what a class looked like in earlier tasks where tasks share their classes. On"
            " permuted-digits: 26.4 %, fine-tuning 50.9 (our own table, docs/methods.md)."
        ]

    def at_rate(self, rate: float) -> GenerativeClassifier:
        """The same at another learning rate."""
        return replace(self, rate=rate)

    def draws(self, problem: Problem) -> list[Draws]:
        """Noise for the stream's rows, and that of the importance samples."""
        step, prepare = (problem.batch, self.latent), (self.samples, self.latent)
        return [Draws("GenerativeClassifier", {"noise": step}, {}, {"noise": prepare} if self.samples else {})]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """A fresh auto-encoder and fresh moments for each class; rows that each class has seen, [C]."""
        sizes = (math.prod(problem.shape), self.width, self.layers, self.latent)
        fresh = [autoencoder(*sizes, generator) for _ in range(problem.classes)]
        net = {name: torch.stack([vae[name] for vae in fresh]) for name in fresh[0]}
        net = {name: value.to(problem.device, problem.dtype) for name, value in net.items()}
        moments = torch.func.vmap(Adam(self.rate).init)(net)
        moments = {**moments, "count": problem.zeros(problem.classes)}
        noise = problem.zeros(max(self.samples, 1), self.latent)
        return State({"net": net}, {}, {"moments": moments, "rows": problem.zeros(problem.classes), "noise": noise})

    def _taught(self, problem: Problem, batch: Batch) -> tuple[Tensor, Tensor]:
        """The classes that a step may teach, int64 [k], and which rows are theirs, 0 or 1 [k, B]."""
        classes = torch.arange(problem.classes, device=batch.y.device)
        member = ((batch.y == classes[:, None]) & batch.shown).to(problem.dtype)  # [C, B]
        if 0 < self.at_once < problem.classes:
            classes = member.sum(1).argsort(descending=True, stable=True)[: self.at_once]
        return classes, member[classes]

    def gradients(self, problem: Problem, state: State, batch: Batch) -> Step:
        """The gradient of each auto-encoder that may be taught; the loss is the mean over the rows."""
        classes, member = self._taught(problem, batch)
        share = member / member.sum(1, keepdim=True).clamp(min=1)
        x, noise = batch.x.flatten(1), normal(batch.draws[0]["noise"].to(problem.dtype))

        def loss(vae: Net, share: Tensor) -> Tensor:
            return share @ autoencoder_loss(vae, x, noise)

        chosen = {name: value[classes] for name, value in state.params["net"].items()}
        gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss))(chosen, share)
        mean = (losses * member.sum(1)).sum() / member.sum().clamp(min=1)
        return Step(batch, {"net": gradients}, (), mean)

    def finish(self, problem: Problem, state: State, step: Step) -> State:
        """Adam's step for each class that has rows in the batch; the others stand still."""
        classes, member = self._taught(problem, step.batch)
        net, moments, came = state.params["net"], state.memory["moments"], member.sum(1)
        old = tree_map(lambda leaf: leaf[classes], (net, moments))
        rate: Any = problem.zeros() + self.rate  # a tensor even where it is not varied: else it is rounded otherwise
        adam = Adam(rate)
        descend = torch.func.vmap(lambda vae, slope, kept: adam.update(vae, slope, kept, step.loss))
        new = descend(old[0], step.gradients["net"], old[1])

        def put(whole: Tensor, before: Tensor, after: Tensor) -> Tensor:
            moves = (came > 0).view(-1, *[1] * (after.ndim - 1))
            return whole.index_put((classes,), torch.where(moves, after, before))

        net, moments = tree_map(put, (net, moments), old, new)
        rows = state.memory["rows"].index_put((classes,), state.memory["rows"][classes] + came)
        return State({"net": net}, {}, {**state.memory, "moments": moments, "rows": rows})

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Both halves."""
        return self.finish(problem, state, self.gradients(problem, state, batch))

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """The noise of the importance samples; 0 where z is the mean."""
        if not self.samples:
            return state
        return state._replace(memory={**state.memory, "noise": normal(draws[0]["noise"].to(problem.dtype))})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """log p_c(x) [B, C]."""
        x = x.flatten(1)

        def likelihood(vae: Net) -> Tensor:
            mean, logvariance = encoded(vae, x)
            spread, total = (logvariance / 2).exp(), x.new_full((len(x),), -torch.inf)
            for noise in state.memory["noise"]:
                z = mean + spread * noise
                image = decoded(vae, z)
                if self.likelihood == "gaussian":
                    surprise = (x - image.sigmoid()).square().sum(1) / 2
                else:
                    surprise = F.binary_cross_entropy_with_logits(image, x, reduction="none").sum(1)
                # log p(z) - log q(z | x), in which the constants cancel
                weight = (noise.square() + logvariance - z.square()).sum(1) / 2
                total = torch.logaddexp(total, weight - surprise)
            return total - math.log(len(state.memory["noise"]))

        scores = torch.func.vmap(likelihood, out_dims=1)(state.params["net"])
        return scores.masked_fill(state.memory["rows"] == 0, -torch.inf)
