"""One learner written, many run: the members of a fleet share each operation, and nothing else.

Members are seeds x settings. A fleet has two forms, and who uses one does not ask which: mapped, for learners that are
pure functions of tensors, every tensor [S, ...]; looped, member after member, for anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lifelong.core.batch import Batch, Block, FinishedTask, Params
from lifelong.core.initialisation import Initialisation, Random
from lifelong.core.learner import AnyLearner, State
from lifelong.core.playback import Captured, Playback, apart
from lifelong.core.problem import Problem, scaled
from lifelong.core.recorded import Recording, recorded, warn_not_recorded
from lifelong.notation.varied import Path, differing, with_values
from scenarios.stream import ScenarioError, Seed, generator

RECORD_STEPS = 500  # steps of a run that pay for a recording, most of whose time is torch's own first import
RECORD_PREDICTIONS = 100  # pieces of members' rows that are scored before one is recorded: nobody knows how many come
RECORD_TASKS = 64  # ends of tasks that pay for one: it takes as long as thirty, and few streams have so many
MOST_STEPS, SECONDS = 128, 0.1  # of a block, so that a run can be watched and stopped between them
PLACE = "tasks and steps done"  # among the named tensors of a looped member


class Fleet(Protocol):
    """What the loop needs of many learners together; `state` is whatever the fleet takes it to be."""

    learner: AnyLearner
    problem: Problem
    resumes_within_tasks: bool

    def init(self, seeds: list[Seed], start: Initialisation) -> Any:
        """The state before learning."""
        ...

    def steps(self, state: Any, block: Block, through: Sequence[int] = ()) -> tuple[Any, Tensor]:
        """The steps of a block: the new state and the losses [S, K]. Members in `through` stay as they are."""
        ...

    def at_once(self) -> int:
        """How many steps it would like in its next block."""
        ...

    def at_milestone(self, state: Any, task: FinishedTask, share: float, members: Sequence[int]) -> Any:
        """Some members turn to another phase of a task."""
        ...

    def after_task(self, state: Any, task: FinishedTask) -> Any:
        """Consolidate every member."""
        ...

    def prepare(self, state: Any, draws: Any) -> Any:
        """What an evaluation predicts with."""
        ...

    def predict(self, state: Any, row: Tensor, task: Tensor, told: Tensor) -> Tensor:
        """Scores [S, B, C] for rows [S, B], or [B] where all members see the same; task, told: [S, B].

        `told` is the task number that the learner may know, -1 where it is withheld.
        """
        ...

    def answer(self, state: Any, x: Tensor, told: int = -1) -> Tensor:
        """Scores [S, B, C] for rows [B, ...] from outside the dataset, the same for all members."""
        ...

    def on(self, problem: Problem) -> Fleet:
        """The same members on another dataset."""
        ...

    def finite(self, state: Any) -> Tensor:
        """Which members' parameters are all finite, bool [S]."""
        ...

    def tensors(self, state: Any) -> Any:
        """The state as a tree of tensors, for a file."""
        ...

    def restored(self, state: Any, tensors: Any) -> Any:
        """The state that such a tree holds."""
        ...


def fleet_of(
    learners: Sequence[AnyLearner],
    problem: Problem,
    compiled: bool = False,
    paces: Sequence[Any] = (),
    record: bool | None = None,
) -> Fleet:
    """The fleet of these members, one learner each, that differ in numbers alone; problem: with index [S, ...].

    paces: for each member how many steps it takes of each task; those of one pace count their steps together.
    """
    form = LoopedFleet if learners[0].looped else MappedFleet
    return form(learners, problem, compiled, paces, record)


def number_paths(learners: Sequence[AnyLearner]) -> list[tuple[Path, list[Any]]]:
    """Where members differ in numbers, and the number of each."""
    distinct = list(dict.fromkeys(learners))
    if len(distinct) == 1:
        return []
    place = {learner: i for i, learner in enumerate(distinct)}
    return [(path, [values[place[learner]] for learner in learners]) for path, values in differing(distinct)]


def unshared(tree: Any, live: Any) -> Any:
    """The tree with copies of those leaves that share storage with a leaf of `live`; all contiguous.

    Both are written in place. Contiguous, since a product may be rounded otherwise where a matrix lies transposed.
    """
    taken = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(live) if leaf.numel()}

    def alone(leaf: Tensor) -> Tensor:
        leaf = leaf.contiguous()
        return leaf.clone() if leaf.untyped_storage().data_ptr() in taken else leaf

    return tree_map(alone, tree)


class MappedFleet:
    """A learner's methods on stacked state: every tensor of it is [S, ...].

    The first step is recorded where enough of them lie ahead, and played back from then on; the numbers are the same to
    the bit. Where it cannot be recorded it stays eager, with a warning that says so. On a CUDA device what is recorded
    is captured as a graph, a block of steps at a time. compiled: whether torch.compile takes the recorded step over.
    record: whether steps and ends of tasks are recorded; None: where there are enough of them to pay for it.
    """

    resumes_within_tasks = True

    def __init__(
        self,
        learners: Sequence[AnyLearner],
        problem: Problem,
        compiled: bool = False,
        paces: Sequence[Any] = (),
        record: bool | None = None,
    ) -> None:
        self.learners, self.learner, self.problem = list(learners), learners[0], problem
        # an optimiser's numbers go to its kernel as Python's, one slice of the fleet after another
        self.values = {
            path: torch.tensor(values, dtype=problem.dtype, device=problem.device)
            for path, values in number_paths(learners)
            if path[0] != "optimiser"
        }
        # what no step may write into, though a verb may hand it back as its memory
        dataset = problem.dataset
        self.fixed = (problem.index, self.values, [leaf for leaf in (dataset.x, dataset.y, dataset.targets) if leaf is not None])  # fmt: skip
        self.slices = _runs([learner.rule for learner in learners])
        self.together = len(set(paces)) < 2  # whether members have taken equally many steps, at any time
        self._look_up = torch.func.vmap(lambda index, rows: replace(problem, index=index).batch_of(rows))
        self._gradients, self._finish = self._mapped("gradients"), self._mapped("finish", kept=True)
        self._prepare = self._mapped("prepare")
        lengths = [max(steps) for steps in zip(*paces, strict=True)]  # of tasks, until the last member is through
        # where eager steps are dear, on a GPU, they are recorded in any case; and what is to be compiled is
        dear = compiled or problem.device.type == "cuda"
        self.compiled = compiled
        self.record_steps = dear or sum(lengths) >= RECORD_STEPS if record is None else record
        self.seconds = 0.0  # that the last step took
        self.playback: Playback | None = None
        many = len(lengths) >= RECORD_TASKS if record is None else record
        self._after_task = recorded(self._mapped("after_task", kept=True), "ends of tasks", record=many)
        pieces = RECORD_PREDICTIONS // len(learners)
        self._predict = recorded(self._scores, "predictions", after=pieces, record=self.record_steps)

    def _mapped(self, method: str, kept: bool = False) -> Callable[..., Any]:
        """A method of the learner, over members: of each its index, its numbers, its part of every argument.

        kept: whether the result is a state that goes on, and is written into.
        """

        def alone(index: dict[str, Tensor], values: dict[Path, Tensor], *arguments: Any) -> Any:
            learner, problem = self._member(index, values)
            result = getattr(learner, method)(problem, *arguments)
            return tree_map(_of_a_member, result) if kept else result

        mapped = torch.func.vmap(alone)
        return lambda *arguments: mapped(self.problem.index, self.values, *arguments)

    def _member(self, index: dict[str, Tensor], values: dict[Path, Tensor]) -> tuple[AnyLearner, Problem]:
        learner = with_values(self.learner, values) if values else self.learner
        return learner, replace(self.problem, model=learner.model, index=index)

    def init(self, seeds: list[Seed], start: Initialisation) -> State:
        """Initial states, one member after another, stacked."""
        states = []
        for s, (seed, learner) in enumerate(zip(seeds, self.learners, strict=True)):
            index = {name: value[s] for name, value in self.problem.index.items()}
            states.append(initial_state(learner, replace(self.problem, index=index), seed, start))
        flat = [tree_flatten(state) for state in states]
        leaves = [torch.stack(column) for column in zip(*(leaves for leaves, _ in flat), strict=True)]
        return tree_unflatten(leaves, flat[0][1])

    def at_once(self) -> int:
        """One while steps are eager; else as many as take a tenth of a second, or as a graph holds."""
        if self.playback is None:
            return 1
        return self.playback.steps or max(1, min(MOST_STEPS, int(SECONDS / max(self.seconds, 1e-6))))

    def steps(self, state: State, block: Block, through: Sequence[int] = ()) -> tuple[State, Tensor]:
        """The steps of a block. Parameters and the optimiser's state move in place."""
        began = time.perf_counter()
        if self.playback is None and self.record_steps:
            self._record(state, block)
        kept = _members_of(state, through) if through else None
        if self.playback is None or not self.playback.fits(state, block):
            losses = []
            for rows in block.each():
                state, loss = self._learned(state, rows)
                losses.append(loss)
            loss = torch.stack(losses, 1)
        else:
            state, loss = self.playback(state, block)
        if kept is not None:
            state = _put_back(state, kept, through)
        self.seconds = (time.perf_counter() - began) / block.steps
        return state, loss

    def _record(self, state: State, block: Block) -> None:
        """Record a step, or say once that it stays eager."""
        rows, owned = next(block.each()), 0 if self.compiled else len(tree_leaves(state))
        try:
            recording = Recording(self._played, apart(state), rows, owned=owned, compiled=self.compiled)
            capture = self.problem.device.type == "cuda" and self.learner.rule is not None
            self.playback = Captured(recording, state, block) if capture else Playback(recording)
        except Exception as error:  # a method may raise anything where it meets no values, and a compiler too
            if self.compiled:
                self.compiled = False
                warn_not_recorded("steps are not compiled, but played as they were recorded", error)
                return self._record(state, block)
            self.record_steps = False
            warn_not_recorded("steps are not recorded, but taken operation by operation", error)

    def _learned(self, state: State, rows: Block) -> tuple[State, Tensor]:
        """One step on what the stream shows: the definition of what is recorded."""
        return self.eager_step(state, self._look_up(self.problem.index, rows), rows.progress)

    def _played(self, state: State, rows: Block) -> tuple[State, Tensor]:
        """One step whose state can be written into by the next."""
        state, loss = self._learned(state, rows)
        return apart((state, loss))

    def step(self, state: State, batch: Batch, progress: Sequence[float]) -> tuple[State, Tensor]:
        """One eager step on a batch [S, B, ...]: the new state, and the losses [S]."""
        return self.eager_step(state, batch, torch.tensor(progress, dtype=torch.float64, device=batch.weight.device))

    def eager_step(self, state: State, batch: Batch, progress: Tensor) -> tuple[State, Tensor]:
        """The step itself, operation by operation. progress: float64 [S]."""
        learner = self.learner
        step = self._gradients(state, batch)
        if learner.wants_previous_params:
            step = step._replace(previous=tree_map(torch.clone, state.params))
        self._update_(learner.trained(state.params), step.gradients, state.optimiser, progress)
        if learner.finishes:
            finished = self._finish(state, step)
            params = unshared(apart(finished.params), self.fixed)
            state = State(params, state.optimiser, unshared(finished.memory, (params, batch, self.fixed)))
        return state, step.loss

    def _update_(self, moving: Params, gradients: Params, optimiser: Any, progress: Tensor) -> None:
        """The optimiser's step, in place: for all members at once, or for one run of equal settings after another."""
        trees = (moving, gradients, optimiser)
        for members, rule in self.slices:
            if rule is None:
                return
            part = trees
            if len(self.slices) > 1:
                part = tuple(tree_map(lambda leaf, here=members: leaf[here], tree) for tree in trees)
            rule.update_(*part, progress[members.start] if self.together else progress[members])

    def at_milestone(self, state: State, task: FinishedTask, share: float, members: Sequence[int]) -> State:
        """All turn to the other phase, and those whose turn it is keep it."""

        def alone(index: dict[str, Tensor], values: dict[Path, Tensor], member: State, seen: FinishedTask) -> State:
            learner, problem = self._member(index, values)
            return learner.at_milestone(problem, member, seen, share)

        new = torch.func.vmap(alone)(self.problem.index, self.values, state, task)
        turned = torch.zeros(len(self.learners), dtype=torch.bool, device=self.problem.device)
        turned[list(members)] = True
        chosen = tree_map(lambda a, b: torch.where(turned.view(-1, *[1] * (a.ndim - 1)), a, b), new, state)
        return State(chosen.params, chosen.optimiser, unshared(chosen.memory, chosen.params))

    def after_task(self, state: State, task: FinishedTask) -> State:
        """Consolidate every member."""
        new = self._after_task(state, task)
        # a fresh optimiser's zeros may be one tensor for all members, and are updated in place
        fresh = self._optimiser_after_task(new)
        optimiser = tree_map(lambda leaf: leaf.clone(memory_format=torch.contiguous_format), fresh)
        params = unshared(apart(new.params), (task, self.fixed))
        return State(params, optimiser, unshared(new.memory, (params, task, self.fixed)))

    def _optimiser_after_task(self, new: State) -> Any:
        """That of the members' states; where their optimisers differ, what each makes of it by its own record."""
        if len(self.slices) == 1 or self.slices[0][1] is None:
            return new.optimiser
        parts = []
        for members, rule in self.slices:
            trees = (self.learner.trained(new.params), new.optimiser)
            slices = (tree_map(lambda leaf, here=members: leaf[here], tree) for tree in trees)
            parts.append(torch.func.vmap(rule.after_task)(*slices))
        return tree_map(lambda *leaves: torch.cat(leaves), *parts)

    def prepare(self, state: State, draws: Any) -> State:
        """What an evaluation predicts with."""
        return self._prepare(state, draws)

    def answer(self, state: State, x: Tensor, told: int = -1) -> Tensor:
        """Scores [S, B, C] for rows [B, ...] from outside the dataset, the same for all members."""
        x = scaled(x, self.problem.dtype)
        task = torch.full((len(x),), told, device=x.device)

        def alone(index: dict[str, Tensor], values: dict[Path, Tensor], member: State) -> Tensor:
            learner, problem = self._member(index, values)
            return learner.predict(problem, member, x, task)

        return torch.func.vmap(alone)(self.problem.index, self.values, state)

    def predict(self, state: State, row: Tensor, task: Tensor, told: Tensor) -> Tensor:
        """Scores [S, B, C] for rows [S, B] or [B]."""
        return self._predict(state, row, task, told)

    def _scores(self, state: State, row: Tensor, task: Tensor, told: Tensor) -> Tensor:
        def alone(index: Any, values: Any, member: State, seen: Tensor, t: Tensor, shown: Tensor) -> Tensor:
            learner, problem = self._member(index, values)
            return learner.predict(problem, member, seen if row.ndim == 1 else problem.x(seen, t), shown)

        seen = row
        if row.ndim == 1:  # looked up once for all members
            x = self.problem.x(row, task[0])
            seen = x.expand(len(task), *x.shape)
        return torch.func.vmap(alone)(self.problem.index, self.values, state, seen, task, told)

    def on(self, problem: Problem) -> MappedFleet:
        """The same members on another dataset."""
        return type(self)(self.learners, problem)

    def finite(self, state: State) -> Tensor:
        """Which members' parameters are all finite, bool [S]."""
        leaves = tree_leaves(state.params)
        return torch.stack([leaf.reshape(len(leaf), -1).sum(1).isfinite() for leaf in leaves]).all(0)

    def tensors(self, state: State) -> State:
        """The state itself."""
        return state

    def restored(self, state: State, tensors: State) -> State:
        """The tree itself."""
        return tensors


def _members_of(state: State, members: Sequence[int]) -> State:
    """Copies of some members' tensors."""
    return tree_map(lambda leaf: leaf[list(members)], state)


def _put_back(state: State, kept: State, members: Sequence[int]) -> State:
    """The state with some members as they were."""
    place = torch.tensor(list(members), device=tree_leaves(state.params)[0].device)
    params = tree_map(lambda leaf, old: leaf.index_copy_(0, place, old), state.params, kept.params)
    optimiser = tree_map(lambda leaf, old: leaf.index_copy_(0, place, old), state.optimiser, kept.optimiser)
    memory = tree_map(lambda leaf, old: leaf.index_copy(0, place, old), state.memory, kept.memory)
    return State(params, optimiser, memory)


def initial_state(learner: AnyLearner, problem: Problem, seed: Seed, start: Initialisation) -> State:
    """One member's state before learning, its index in the problem."""
    net = learner.model.init(problem.shape, problem.classes, generator(seed.start, "model"))
    params: Params = {"net": {name: value.to(problem.device, problem.dtype) for name, value in net.items()}}
    params = start.of(seed.start)(problem, params, generator(seed.start, "start"))
    return learner.init(problem, params, generator(seed.start, "strategy"))


def _of_a_member(leaf: Any) -> Any:
    """A result that was made of no member's tensors may be a constant, which nobody may write into: a copy of it.

    In a fleet of many it is expanded and so copied later, but in a fleet of one it would be the constant itself.
    """
    constant = isinstance(leaf, Tensor) and torch.func.debug_unwrap(leaf, recurse=False) is leaf
    return leaf.clone() if constant else leaf


def _runs(values: Sequence[Any]) -> list[tuple[slice, Any]]:
    """Runs of equal values, one after another."""
    result, first = [], 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[first]:
            result.append((slice(first, i), values[first]))
            first = i
    return result


class LoopedFleet:
    """Members one after another, each an object of its own; see `lifelong.core.looped`.

    A member is saved as named tensors at the ends of tasks; random numbers that it draws from torch are, for every
    step, a function of its seed and place, so that they are the same alone and in a fleet, and after a resume.
    """

    resumes_within_tasks = False

    def __init__(
        self,
        learners: Sequence[AnyLearner],
        problem: Problem,
        compiled: bool = False,
        paces: Sequence[Any] = (),
        record: bool | None = None,
    ) -> None:
        self.learners, self.learner, self.problem = list(learners), learners[0], problem
        self.seeds: list[Seed] = []

    def _problem(self, s: int) -> Problem:
        index = {name: value[s] for name, value in self.problem.index.items()}
        return replace(self.problem, model=self.learners[s].model, index=index)

    def _place(self, s: int, *words: object) -> None:
        """Torch's own random numbers, set to a function of the member's seed and of what it is about to do."""
        torch.manual_seed(generator(self.seeds[s].data, "looped", *words).initial_seed())

    def init(self, seeds: list[Seed], start: Initialisation) -> list[Any]:
        """Every member, made in turn. Raises ScenarioError for a start that it would not look at."""
        if start != Random():
            raise ScenarioError(
                f"{self.learner!r} makes its own network, and cannot start from {start!r}: leave --init out"
            )
        self.seeds, members = seeds, []
        with torch.random.fork_rng():
            for s, (seed, learner) in enumerate(zip(seeds, self.learners, strict=True)):
                torch.manual_seed(generator(seed.start, "looped").initial_seed())
                members.append(learner.member(self._problem(s), generator(seed.start, "strategy")))
        return members

    def at_once(self) -> int:
        """One."""
        return 1

    def steps(self, state: list[Any], block: Block, through: Sequence[int] = ()) -> tuple[list[Any], Tensor]:
        """The steps of a block, member after member."""
        look_up = torch.func.vmap(lambda index, rows: replace(self.problem, index=index).batch_of(rows))
        losses = [self._step(state, look_up(self.problem.index, rows), through) for rows in block.each()]
        return state, torch.stack(losses, 1)

    def _step(self, state: list[Any], batch: Batch, through: Sequence[int]) -> Tensor:
        """One step of every member that is not through: losses [S]."""
        losses = batch.weight.new_zeros(len(state))
        with torch.random.fork_rng():
            for s, member in enumerate(state):
                if s in through:
                    continue
                rows = tree_map(lambda leaf, s=s: leaf[s], batch)
                self._place(s, "step", member.task, member.steps)
                losses[s] = member.step(self._problem(s), rows)
                member.steps += 1
        return losses

    def at_milestone(self, state: list[Any], task: FinishedTask, share: float, members: Sequence[int]) -> list[Any]:
        """Some members turn to another phase."""
        with torch.random.fork_rng():
            for s in members:
                self._place(s, "milestone", state[s].task, share)
                state[s].at_milestone(self._problem(s), tree_map(lambda leaf, s=s: leaf[s], task), share)
        return state

    def after_task(self, state: list[Any], task: FinishedTask) -> list[Any]:
        """Every member consolidates."""
        with torch.random.fork_rng():
            for s, member in enumerate(state):
                self._place(s, "task", member.task)
                member.after_task(self._problem(s), tree_map(lambda leaf, s=s: leaf[s], task))
                member.task, member.steps = member.task + 1, 0
        return state

    def prepare(self, state: list[Any], draws: Any) -> list[Any]:
        """Nothing: a member answers as it is."""
        return state

    def predict(self, state: list[Any], row: Tensor, task: Tensor, told: Tensor) -> Tensor:
        """Scores [S, B, C]."""
        scores = []
        for s, member in enumerate(state):
            problem = self._problem(s)
            rows = row if row.ndim == 1 else row[s]
            scores.append(member.predict(problem, problem.x(rows, task[s]), told[s]))
        return torch.stack(scores)

    def answer(self, state: list[Any], x: Tensor, told: int = -1) -> Tensor:
        """Scores [S, B, C] for rows [B, ...] from outside the dataset."""
        x, task = scaled(x, self.problem.dtype), torch.full((len(x),), told, device=x.device)
        return torch.stack([member.predict(self._problem(s), x, task) for s, member in enumerate(state)])

    def on(self, problem: Problem) -> LoopedFleet:
        """The same members on another dataset."""
        return type(self)(self.learners, problem)

    def finite(self, state: list[Any]) -> Tensor:
        """Which members' tensors are all finite, bool [S]."""
        each = [all(bool(leaf.isfinite().all()) for leaf in member.tensors().values()) for member in state]
        return torch.tensor(each, device=self.problem.device)

    def tensors(self, state: list[Any]) -> dict[str, dict[str, Tensor]]:
        """Every member's named tensors, and where it stands: tasks that have ended for it, and steps since."""
        return {
            str(s): {**member.tensors(), PLACE: torch.tensor([member.task, member.steps])}
            for s, member in enumerate(state)
        }

    def restored(self, state: list[Any], tensors: dict[str, dict[str, Tensor]]) -> list[Any]:
        """Members with the tensors that a file holds."""
        for s, member in enumerate(state):
            held = dict(tensors[str(s)])
            member.task, member.steps = held.pop(PLACE).tolist()
            member.load(held)
        return state
