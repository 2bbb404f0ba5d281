"""One learner written, many run: the seeds of a fleet share each operation, and nothing else."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lifelong.learner import AnyLearner, Learner, State
from lifelong.problem import Batch, FinishedTask, Params, Problem, Start


def random_start(problem: Problem, params: Params, generator: torch.Generator) -> Params:
    """The initialisation that keeps the model's own draw."""
    return params


def unshared(tree: Any, live: Any) -> Any:
    """The tree with copies of those leaves that share storage with a leaf of `live`, which is updated in place."""
    taken = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(live) if leaf.numel()}
    return tree_map(lambda leaf: leaf.clone() if leaf.untyped_storage().data_ptr() in taken else leaf, tree)


@dataclass
class Fleet:
    """A learner's outer methods on stacked state: every tensor of it is [S, ...].

    problem: with the rules of all seeds, [S, ...]. compiled: whether the gradient goes through torch.compile.
    graphs: whether steps on a CUDA device are captured as a graph.
    """

    learner: AnyLearner
    problem: Problem
    compiled: bool = False
    graphs: bool = True

    def __post_init__(self) -> None:
        self._gradients = torch.func.vmap(self._one("gradients")) if isinstance(self.learner, Learner) else None
        if self.compiled and self._gradients is not None:
            self._gradients = torch.compile(self._gradients)
        self._finish = torch.func.vmap(self._one("finish")) if isinstance(self.learner, Learner) else None
        self._captured: CapturedStep | None = None
        self._step = torch.func.vmap(self._one("step"))
        self._end_task = torch.func.vmap(self._one("end_task"))
        self._prepare = torch.func.vmap(self._one("prepare"))
        self._predict = torch.func.vmap(self._one("predict"))

    def _one(self, method: str) -> Any:
        def call(rules: dict[str, Tensor], *arguments: Any) -> Any:
            return getattr(self.learner, method)(replace(self.problem, rules=rules), *arguments)

        return call

    def init(self, seeds: list[int], generators: Any, start: Start) -> State:
        """Initial states, one seed after another, stacked.

        generators(seed, purpose) makes a random generator of that seed's own.
        """
        states = []
        for s, seed in enumerate(seeds):
            problem = replace(self.problem, rules={name: value[s] for name, value in self.problem.rules.items()})
            net = self.learner.model.init(problem.shape, problem.classes, generators(seed, "model"))
            params: Params = {"net": {k: v.to(problem.table.x.device, problem.dtype) for k, v in net.items()}}
            own = start.of(seed) if hasattr(start, "of") else start
            params = own(problem, params, generators(seed, "start"))
            states.append(self.learner.init(problem, params, generators(seed, "strategy")))
        flat = [tree_flatten(state) for state in states]
        leaves = [torch.stack(column) for column in zip(*(leaves for leaves, _ in flat), strict=True)]
        return tree_unflatten(leaves, flat[0][1])

    def step(self, state: State, batch: Batch, progress: float) -> tuple[State, Tensor]:
        """One step of every seed: the new state and the losses [S]. Parameters move in place.

        On a CUDA device the step is captured once as a graph and replayed; where that is impossible it stays eager,
        with a warning that says so.
        """
        if batch.weight.device.type == "cuda" and self.graphs and isinstance(self.learner, Learner):
            if self._captured is None:
                try:
                    self._captured = CapturedStep(self, state, batch)
                except RuntimeError as error:
                    self.graphs = False
                    warnings.warn(f"no CUDA graph, steps are eager: {str(error).splitlines()[0]}", stacklevel=2)
                    return self.eager_step(state, batch, progress)
            return self._captured(state, batch, progress)
        return self.eager_step(state, batch, progress)

    def eager_step(self, state: State, batch: Batch, progress: float | Tensor) -> tuple[State, Tensor]:
        """The step itself, operation by operation."""
        learner, rules = self.learner, self.problem.rules
        if not isinstance(learner, Learner):
            return self._step(rules, state, batch), batch.weight.new_zeros(batch.weight.shape[0])
        assert self._gradients is not None and self._finish is not None
        step = self._gradients(rules, state, batch)
        strategy = learner.sum
        if strategy.needs_previous_params:
            step = step._replace(previous=tree_map(torch.clone, state.params))
        learner.optimiser.update_(learner.trained(state.params), step.gradients, state.optimiser, progress)
        if strategy.finishes:
            finished = self._finish(rules, state, step)
            state = State(finished.params, state.optimiser, unshared(finished.memory, finished.params))
        return state, step.loss

    def end_task(self, state: State, task: FinishedTask) -> State:
        """Consolidate every seed."""
        new = self._end_task(self.problem.rules, state, task)
        # a fresh optimiser's zeros may be one tensor for all seeds, and are updated in place
        optimiser = tree_map(torch.clone, new.optimiser)
        return State(new.params, optimiser, unshared(new.memory, new.params))

    def prepare(self, state: State) -> State:
        """What an evaluation predicts with."""
        return self._prepare(self.problem.rules, state)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """Scores [S, B, C] for rows [B, ...] from outside the table, the same for all seeds; no task is told."""
        problem = self.problem
        x = x.to(problem.dtype) / 255 if x.dtype == torch.uint8 else x.to(problem.dtype)
        told = torch.full((len(x),), -1, device=x.device)

        def one(rules: dict[str, Tensor], own: State) -> Tensor:
            return self.learner.predict(replace(problem, rules=rules), own, x, told)

        return torch.func.vmap(one)(problem.rules, state)

    def predict(self, state: State, row: Tensor, task: Tensor, told: Tensor) -> Tensor:
        """Scores [S, B, C] for rows [S, B]; `told` is the task number the learner may know, -1 where withheld."""

        def one(rules: dict[str, Tensor], own: State, r: Tensor, t: Tensor, shown: Tensor) -> Tensor:
            problem = replace(self.problem, rules=rules)
            return self.learner.predict(problem, own, problem.x(r, t), shown)

        return torch.func.vmap(one)(self.problem.rules, state, row, task, told)


class CapturedStep:
    """A fleet's step as one CUDA graph: its own state and batch lie still, and a call copies into them and replays.

    The warm-up runs on copies, so nothing is learned and nothing is drawn before the first replay.
    """

    def __init__(self, fleet: Fleet, state: State, batch: Batch) -> None:
        self.state, self.batch = tree_map(torch.clone, state), tree_map(torch.clone, batch)
        self.progress = torch.zeros((), dtype=batch.weight.dtype, device=batch.weight.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            trial = tree_map(torch.clone, state)
            for _ in range(3):
                trial, _ = fleet.eager_step(trial, self.batch, self.progress)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            new, self.loss = fleet.eager_step(self.state, self.batch, self.progress)
            self._copy(self.state, new)

    @staticmethod
    def _copy(to: Any, source: Any) -> None:
        """Copy the leaves that are not the very same tensors."""
        for own, other in zip(tree_leaves(to), tree_leaves(source), strict=True):
            if own.data_ptr() != other.data_ptr():
                own.copy_(other)

    def __call__(self, state: State, batch: Batch, progress: float) -> tuple[State, Tensor]:
        """Bring in what changed outside (a batch; a state after a task's end), and replay."""
        self._copy(self.state, state)
        self._copy(self.batch, batch)
        self.progress.fill_(progress)
        self.graph.replay()
        return self.state, self.loss
