"""Deep generative replay (Shin, Lee, Kim and Kim, 2017), the generator a variational auto-encoder (Kingma and Welling, 2014)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, normal
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.autoencoder import autoencoder, autoencoder_loss, decoded
from lifelong.optimisers.adam import Adam
from lifelong.strategies.replay.replay import WEIGHTINGS, share_of_new
from scenarios.stream import Stream

PUBLISHED_STEPS = 2000  # a task (van de Ven et al., 2022)
FEW_STEPS = (
    "GenerativeReplay learns to draw in every task, and before it can it replays what misleads: its source takes 2,000"
    " iterations a task. On permuted-digits 100 give 32.1 %, 1,000 56.5 +- 10.3 and 3,000 87.5 +- 4.7, where fine-tuning"
    " has 50.9, 53.4 and 49.8 (our own runs)."
)


@dataclass(frozen=True)
class GenerativeReplay(Strategy):
    """Learn to make rows like those seen, and replay made rows instead of kept ones.

    Beside the network, the solver, learns a generator, with an Adam of its own at `rate`. From the second task on, both
    as they were at the end of the task before make R rows x' and label them y', by the solver's best class among those
    seen; the solver descends r L(x, y) + (1 - r) L(x', y'), the generator r V(x) + (1 - r) V(x'), with r = 1 / k in the
    k-th task for weighting "tasks", 1/2 for "equal", and 1 in the first task, in which nothing is replayed.

    V = (1 / F) (sum over the F pixels of the binary cross-entropy + KL(N(m, e^v) || N(0, 1)) of the latent numbers), for
    rows of numbers in 0 ... 1. width, layers, latent: hidden layers of encoder and of decoder, Z. rows: R, 0 for as many
    as the stream brings.

    As van de Ven et al. (2022) run it, with rate 0.001 and 2000 iterations a task. Labels are hard, as theirs are; soft ones would be distillation. Shin et al. take an adversarial generator, and a ratio r that
    they choose. Task-incremental, van de Ven et al. ask all past heads about each made row; here each row asks one of them,
    in turn, which is the same on average.
    """

    rate: float = 1e-3
    width: int = 400
    layers: int = 2
    latent: int = 100
    rows: int = 0
    weighting: str = "tasks"
    keeps = "an auto-encoder, and the solver and it as they were at the last task's end"
    runs_network = True
    witness = "a plain float64 loop: tests/reference/test_methods_b.py"
    defaults = "published for Split-MNIST (van de Ven et al., 2022)"
    passes = (8.0, 6.0)  # solver and auto-encoder, about two networks, on twice the rows; making and labelling
    acts_at_once = True
    requires = Requirements(task_ends=True)

    def __post_init__(self) -> None:
        require(self, min(self.width, self.layers, self.latent) >= 1, "width, layers and latent must be at least 1")
        require(self, self.rows >= 0, "rows must be at least 0")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")
        require(self, self.rate > 0, "rate must be above 0")

    @property
    def optimiser(self) -> Adam:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """The generator's."""
        return Adam(self.rate)

    def draws(self, problem: Problem) -> Shapes:
        """Noise of the auto-encoder on the stream's rows and on made ones, and what rows are made of."""
        made = (self.rows or problem.batch, self.latent)
        return {"noise": (problem.batch, self.latent), "latent": made, "noise_again": made}

    def notes(self, stream: Stream) -> list[str]:
        """Whether rows are such as it can make, and whether it has the time to learn to."""
        x, few = stream.dataset.x, min(stream.steps(list(stream))) < PUBLISHED_STEPS
        beyond = x.is_floating_point() and not (x.min() >= 0 and x.max() <= 1)
        words = f"GenerativeReplay makes numbers in 0 ... 1, and rows of {stream.dataset.name} reach beyond: scale them"
        return [words] * beyond + [FEW_STEPS] * few

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The generator, as own parameters; solver and generator of the task before, classes seen [C], tasks done."""
        net = autoencoder(math.prod(problem.shape), self.width, self.layers, self.latent, generator)
        net = {name: value.to(problem.device, problem.dtype) for name, value in net.items()}
        seen = torch.zeros(problem.classes, dtype=torch.bool, device=problem.device)
        before = {"solver": params["net"], "generator": net}
        before = {part: {name: value.clone() for name, value in held.items()} for part, held in before.items()}
        return {**params, "own": net}, {**before, "seen": seen, "done": problem.zeros()}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add made rows, labelled by the solver of the task before."""
        done, number = memory["done"], batch.task[:1].expand(self.rows or problem.batch)
        if problem.setting == "task":
            number = (torch.arange(len(number), device=done.device) % done.clamp(min=1)).to(torch.int64)
        x = decoded(memory["generator"], normal(batch.draws["latent"].to(problem.dtype))).sigmoid()
        x = x.view(len(number), *batch.x.shape[1:])
        known = problem.allowed(number) & (memory["seen"] | (done == 0))
        y = problem.logits({"net": memory["solver"]}, x).masked_fill(~known, -torch.inf).argmax(1)
        share = torch.where(done > 0, share_of_new(self.weighting, done), 1.0)
        batch = batch.replace(weight=batch.weight * share)
        weight = ((1 - share) / len(number)).expand(len(number))
        return batch.add(problem, torch.full_like(number, -1), number, weight, x=x, y=y)

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The generator's loss, by the weights of the rows."""
        x, weight = (
            torch.cat([value[batch.stream], value[batch.mine]]) for value in (batch.x.flatten(1), batch.weight)
        )
        noise = normal(torch.cat([batch.draws["noise"], batch.draws["noise_again"]]).to(problem.dtype))
        return weight @ autoencoder_loss(params["own"], x, noise)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Solver and generator become those that make and label the next task's rows."""
        now = {"solver": dict(params["net"]), "generator": dict(params["own"])}
        return params, {**now, "seen": memory["seen"] | task.classes, "done": memory["done"] + 1}
