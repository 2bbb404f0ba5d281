"""Every initialisation and task source x every check, discovered; and methods that break one promise each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.initialisations import INITIALISATION_CHECKS, SOURCE_CHECKS, check_initialisation, check_source
from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.meta.cavia import CAVIA
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.imaml import IMAML
from lifelong.meta.infinite_mixture import InfiniteMixturePrototypes
from lifelong.meta.lstm_optimiser import LSTMOptimiser
from lifelong.meta.maml import MAML
from lifelong.meta.maml_plus_plus import MAMLPlusPlus
from lifelong.meta.matching import MatchingNet
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.reptile import Reptile
from lifelong.meta.task_episodes import TaskEpisodes
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import vocabulary
from scenarios.descriptors import described_blobs
from scenarios.episodes import Episode, Sines, class_pool
from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs

FOUND = [make for name, make in vocabulary("initialisations").items() if name != "Random"]
SUBJECTS = [
    *(make() for make in FOUND),
    MAML(order=1, steps=2),
    MAML(learn_rates=True, adapts="layer0*", steps=2, test_steps=3, chunk=1),
    MAML(adapts="head", steps=2),
    MAML(adapts="trunk", steps=2),
    MAMLPlusPlus(first_order=0.6, test_steps=4),
    CAVIA(by="concatenation", adapts="context, head", learn_rates=True),
    IMAML(adapts="head", chunk=1),
    LSTMOptimiser(order=2),
    Reptile(batch=3, steps=2),
    MatchingNet(distance="euclidean"),
    MatchingNet(full_context=True, steps=2),
    InfiniteMixturePrototypes(concentration=1e9),
]


@pytest.mark.parametrize("check", INITIALISATION_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{type(s).__name__}-{SUBJECTS.index(s)}")
def test_initialisation(subject, check):
    check.holds(subject)


def of_a_stream():
    """A stream's own tasks, of one seed."""
    stream = split(blobs(9, 6, 40), 3, "task", budget=Budget(iterations=1, batch=4))
    problem = Session(Learner(MLP(8)), stream, [0]).fleet.problem
    index = {name: value[0] for name, value in problem.index.items()}
    return TaskEpisodes(type(problem)(**{**vars(problem), "index": index}), 3)


def images():
    x = torch.arange(40 * 9, dtype=torch.float32).view(40, 3, 3)
    dataset = blobs(8, 9, 5)
    return type(dataset)("images", x, torch.arange(40) % 8, 40, 8)


SOURCES = {
    "pool": lambda: class_pool(blobs(7, 6, 20)),
    "turned pool": lambda: class_pool(images(), rotations=True),
    "tasks of a stream": of_a_stream,
    "sines": Sines,
    "described": lambda: described_blobs(7, 6, 3),
}


@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
@pytest.mark.parametrize("name", SOURCES)
def test_source(name, check):
    check.holds(SOURCES[name]())


@dataclass(frozen=True)
class ByPlace(ProtoNet):
    """Never looks at a row: a query's label is its place over the queries of a class."""

    def query_scores(self, distribution, meta, support, query, way):
        place = torch.arange(len(query)) // max(len(query) // way, 1)
        return F.one_hot(place.clamp(max=way - 1), way).to(distribution.dtype)


@dataclass(frozen=True)
class SequentialSchedule(class_pool(blobs(7, 6, 20)).__class__):
    """Rows class by class, as episodes used to come."""

    def draw(self, tasks, way, shot, query, generator):
        episode = super().draw(tasks, way, shot, query, generator)
        parts = []
        for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
            order = torch.sort(y, dim=1, stable=True).indices
            parts += [x[torch.arange(tasks)[:, None], order], y.gather(1, order)]
        return Episode(*parts, episode.classes)


def failed(rows):
    return [name for name, seen, _ in rows if seen]


def test_a_source_whose_places_tell_labels_is_caught():
    plain = class_pool(blobs(7, 6, 20))
    leaking = SequentialSchedule(**vars(plain))
    assert failed(check_source(leaking)) == ["a row's place tells nothing of its label"]
    assert not failed(check_source(plain))


def test_answering_by_place_is_caught_and_scores_chance():
    from lifelong.contracts.initialisations import tasks_for
    from lifelong.meta.pretraining import begin
    from lifelong.meta.testing import scored

    method = ByPlace(way=5, shot=1)
    names = failed(check_initialisation(method))
    assert "permuted queries give permuted answers" in names
    tasks = tasks_for(method)
    meta = {"net": {name: value[0] for name, value in begin(method, tasks, (0,)).meta["net"].items()}}
    found = scored(method, tasks, meta, tasks.train, way=5, shot=1, query=10, episodes=300)
    assert abs(float(found.scores.mean()) - 0.2) < 4 * found.half_width / 1.96


@dataclass(frozen=True)
class Named(ProtoNet):
    """Learns in a named tuple, which no file gives back."""

    def init(self, distribution, generator):
        from lifelong.core.learner import State

        zero = torch.zeros(2, dtype=distribution.dtype)
        return {**super().init(distribution, generator), "own": State(zero, zero.clone(), zero.clone())}


@dataclass(frozen=True)
class Stray(ProtoNet):
    """Makes a tensor on the processor, wherever its tasks lie."""

    def init(self, distribution, generator):
        return {**super().init(distribution, generator), "own": torch.ones(2, dtype=distribution.dtype)}


@dataclass(frozen=True)
class Detached(ProtoNet):
    """Its answers hide half of the gradient."""

    def query_scores(self, distribution, meta, support, query, way):
        scores = super().query_scores(distribution, meta, support, query, way)
        return scores / 2 + scores.detach() / 2


@dataclass(frozen=True)
class Centred(ProtoNet):
    """Subtracts the mean of the queries: a query's answer depends on the others."""

    def query_scores(self, distribution, meta, support, query, way):
        scores = super().query_scores(distribution, meta, support, query, way)
        return scores - scores.mean(0)


@dataclass(frozen=True)
class FirstCounts(ProtoNet):
    """The first row of the support counts twice."""

    def query_scores(self, distribution, meta, support, query, way):
        weight = torch.ones_like(support.y, dtype=distribution.dtype)
        weight = weight + (torch.arange(len(weight)) == 0)
        return super().query_scores(distribution, meta, support._replace(weight=weight), query, way)


@dataclass(frozen=True)
class Counting(ProtoNet):
    """Remembers in the object how often it was asked."""

    seen: ClassVar[list] = []

    def query_scores(self, distribution, meta, support, query, way):
        self.seen.append(1)
        return super().query_scores(distribution, meta, support, query, way) * (1 + 0.01 * len(self.seen))


@dataclass(frozen=True)
class Undeclared(ProtoNet):
    """Does not say that the support passes beside the queries."""

    together: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Undeclared, "the support passes beside the queries as declared"),
        (Named, "what it learns is saved and loaded to the bit"),
        (Stray, "it runs where its tasks lie"),
        (Detached, "its gradient is finite, and that of its loss"),
        (Centred, "queries do not help each other"),
        (FirstCounts, "the order of the support does not matter"),
        (FirstCounts, "the order of an episode's rows leaks nothing"),
        (Counting, "alone and in a fleet it learns the same"),
    ],
)
def test_a_broken_promise_is_caught(broken, said):
    assert said in failed(check_initialisation(broken()))


def test_the_contract_is_reached_from_a_file(cli, tmp_path):
    (tmp_path / "my_meta.py").write_text(MATCHING)
    done = cli("check", "my_meta.py")
    assert done.returncode == 0 and done.stdout.count("holds") >= len(INITIALISATION_CHECKS), done.stdout + done.stderr
    assert "fails" not in done.stdout
    (tmp_path / "my_bad.py").write_text(
        MATCHING.replace("* self.sharpness", "* self.sharpness * torch.arange(len(query))[:, None]")
    )
    done = cli("check", "my_bad.py")
    assert done.returncode == 2 and "permuted queries" in done.stdout


MATCHING = '''"""Matching networks without context embeddings (Vinyals et al., 2016): a metric method is its `answers` alone."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import params_of
from lifelong.core.problem import scaled


@dataclass(frozen=True)
class Matching(MetaLearner):
    """p(c) = sum over the support of class c of softmax(sharpness x cosine)."""

    kinds = ("classes",)
    sharpness: float = 10.0

    def query_scores(self, distribution, meta, support, query, way):
        problem = distribution.problem(way)
        x, q = (F.normalize(problem.features(params_of(meta), scaled(v, distribution.dtype))) for v in (support.x, query))
        attention = (q @ x.T * self.sharpness).softmax(1)
        return (attention @ F.one_hot(support.y, way).to(q.dtype) + 1e-9).log()
'''


def test_a_metric_method_is_its_answers_alone():
    """Nothing but `query_scores` is said, and the contract holds: the loss is that of the answers."""
    space = {}
    exec(compile(MATCHING, "matching", "exec"), space)
    public_names = {name for name in vars(space["Matching"]) if not name.startswith("_")}
    assert public_names == {"kinds", "sharpness", "query_scores"}
    assert issubclass(space["Matching"], MetaLearner)
