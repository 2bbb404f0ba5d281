"""Every diagnosis on a sick learner made for it and on healthy ones; its numbers against plain loops and closed forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.contracts import diagnosis, gradients, leaks
from lifelong.contracts.case import Finding, case_of
from lifelong.contracts.check import findings, subjects_of
from lifelong.contracts.diagnosis import diagnose
from lifelong.contracts.gradients import inner_gradients_as_constants
from lifelong.contracts.peak_memory import peak_bytes
from lifelong.core.inner_loop import FirstOrder
from lifelong.core.problem import scaled
from lifelong.display.diagnosis import diagnosis as shown
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import params_of
from lifelong.meta.maml import MAML
from lifelong.meta.oml import OML
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.r2d2 import R2D2
from lifelong.meta.reptile import Reptile
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import vocabulary
from scenarios.episodes import class_pool
from scenarios.errors import ConfigurationError
from scenarios.synthetic import blobs
from tests.contracts.test_initialisations import ByPlace, Centred, FirstCounts
from tests.reference.test_meta import plain_maml

GRADIENT, SHARE, DEAD = "gradient against differences", "second order's share", "parameters without gradient"
TOGETHER, QUERIES, SUPPORT = "queries that help each other", "queries in another order", "support in another order"
ORDER, MEMORY = "labels told by order", "memory of one more inner step"


@cache
def found(subject) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(subject)}


def wrong(subject) -> set[str]:
    return {name for name, finding in found(subject).items() if finding.mend}


@dataclass(frozen=True, kw_only=True)
class ForgottenGraph(MAML):
    """First-order by accident: its inner gradients are constants, and it says nothing of it."""

    def inner_learner(self, distribution, meta, way):
        learner, rates = super().inner_learner(distribution, meta, way)
        return replace(learner, strategy=FirstOrder() + learner.strategy), rates


@dataclass(frozen=True, kw_only=True)
class OwnLoop(MetaLearner):
    """A step on the support as a user writes it; `graph`: whether it is kept."""

    any_way = False
    graph: bool = True
    rate: float = 0.4

    def adapt(self, distribution, meta, support, way):
        problem = distribution.problem(way)

        def loss(net):
            return F.cross_entropy(problem.logits({"net": net}, scaled(support.x, distribution.dtype)), support.y)

        slopes = torch.func.grad(loss)(meta["net"])
        if not self.graph:
            slopes = {name: slope.detach() for name, slope in slopes.items()}
        return {**meta, "net": {name: p - self.rate * slopes[name] for name, p in meta["net"].items()}}

    def query_scores(self, distribution, meta, support, query, way):
        return distribution.problem(way).logits(params_of(meta), scaled(query, distribution.dtype))

    @property
    def tests_way(self):
        return self.way


@dataclass(frozen=True)
class Idle(ProtoNet):
    """It holds a tensor that no loss reaches."""

    def init(self, distribution, generator):
        spare = torch.ones(2, dtype=distribution.dtype, device=distribution.device)
        return {**super().init(distribution, generator), "spare": {"scale": spare}}


@dataclass(frozen=True)
class Louder(ProtoNet):
    """Its gradient is 0.1 % too large."""

    def gradient(self, distribution, meta, drawn, progress):
        loss, gradient = super().gradient(distribution, meta, drawn, progress)
        return loss, tree_map(lambda slope: 1.001 * slope, gradient)


@dataclass(frozen=True)
class ByRote(ProtoNet):
    """It draws its episodes class by class, and learns a label for each place."""

    ordered = True

    def init(self, distribution, generator):
        place = torch.zeros(12, self.way, dtype=distribution.dtype, device=distribution.device)
        return {**super().init(distribution, generator), "place": place}

    def draw(self, distribution, generator):
        return leaks.class_by_class(super().draw(distribution, generator))

    def query_scores(self, distribution, meta, support, query, way):
        scores = super().query_scores(distribution, meta, support, query, way)
        return scores + 30 * meta["place"][: len(query), :way]

    @property
    def tests_way(self):
        return self.way


HEALTHY = [MAML(steps=2), MAML(order=1), MAML(adapts="head"), ProtoNet(), OML(), OwnLoop(), Reptile()]


@pytest.mark.parametrize("subject", HEALTHY, ids=lambda subject: f"{type(subject).__name__}-{HEALTHY.index(subject)}")
def test_nothing_is_wrong_with_the_healthy(subject):
    assert not wrong(subject) and len(found(subject)) == len(diagnosis.DIAGNOSES)


@pytest.mark.parametrize(
    ("sick", "named"),
    [
        (ForgottenGraph(steps=2), {GRADIENT, SHARE}),
        (OwnLoop(graph=False), {GRADIENT, SHARE}),
        (Louder(), {GRADIENT}),
        (Idle(), {DEAD}),
        (Centred(), {TOGETHER}),
        (FirstCounts(), {SUPPORT}),
        (ByPlace(), {QUERIES, TOGETHER, ORDER, DEAD}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_learner_was_made_sick_with_is_named_and_nothing_else(sick, named):
    assert wrong(sick) == named


def test_labels_learned_by_place_from_its_own_episodes_are_seen():
    assert ORDER in wrong(ByRote(way=3)) and "as it draws them" in found(ByRote(way=3))[ORDER].seen
    chances = leaks.right_by_order(case_of(ByRote(way=3)))
    assert chances["as it draws them"][0] > chances["as it draws them"][1]
    assert all(accuracy < limit for accuracy, limit in leaks.right_by_order(case_of(MAML())).values())


def test_what_is_named_says_which():
    assert "missing" in found(ForgottenGraph(steps=2))[SHARE].seen
    assert found(Idle())[DEAD].seen.endswith("spare.scale") and "net.layer0" not in found(Idle())[DEAD].seen
    assert "without the network's head" in found(ProtoNet())[DEAD].seen
    assert "states no loss" in found(Reptile())[GRADIENT].seen and "declares" in found(MAML(order=1))[GRADIENT].seen
    assert "no inner gradients" in found(ProtoNet())[SHARE].seen


class Shifted(R2D2):
    """It adds the same number to the scores of all classes, which drops out of the loss."""

    def init(self, distribution, generator):
        meta = super().init(distribution, generator)
        return {**meta, "shift": torch.zeros_like(meta["ridge"]["scale"])}

    def query_scores(self, distribution, meta, support, query, way):
        return super().query_scores(distribution, meta, support, query, way) + meta["shift"]


def test_what_changes_no_answer_has_no_gradient_and_no_method_learns_it():
    assert gradients.unreached(case_of(Shifted()))[-1] == "shift"
    made = {name: make() for name, make in vocabulary("initialisations").items() if name != "Random"}
    dead = {name: gradients.unreached(case_of(method)) for name, method in made.items()}
    assert "R2D2" in dead and {place for places in dead.values() for place in places} <= {
        "net.head.weight",
        "net.head.bias",
    }


def test_a_gradient_of_0_1_per_cent_too_much_is_measured():
    assert gradients.gradient_error(case_of(Louder()))[0] == pytest.approx(1e-3, rel=0.01)
    assert gradients.gradient_error(case_of(ProtoNet()))[0] < 1e-7


@dataclass(frozen=True)
class Kinked(ProtoNet):
    """Its loss has a kink just where it stands, whose slope to either side is a right one; `slope`: what it says."""

    slope: float = 1.0

    def init(self, distribution, generator):
        kink = torch.zeros(2, dtype=distribution.dtype, device=distribution.device)
        return {**super().init(distribution, generator), "kink": {"x": kink}}

    def loss(self, distribution, meta, drawn, progress):
        return super().loss(distribution, meta, drawn, progress) + meta["kink"]["x"].abs().sum()

    def gradient(self, distribution, meta, drawn, progress):
        loss, gradient = super().gradient(distribution, meta, drawn, progress)
        return loss, {**gradient, "kink": {"x": torch.full_like(meta["kink"]["x"], self.slope)}}

    def project(self, meta):
        return {**meta, "kink": {"x": torch.zeros_like(meta["kink"]["x"])}}


def test_at_a_kink_the_slope_of_either_side_is_right_and_one_beyond_is_not():
    assert all(gradients.gradient_error(case_of(Kinked(slope=slope)))[0] < 1e-6 for slope in (-1.0, 0.3, 1.0))
    gap, place = gradients.gradient_error(case_of(Kinked(slope=1.001)))
    assert gap == pytest.approx(0.001 / 1.001, rel=1e-3) and place == "kink.x"


@pytest.mark.parametrize("steps", [1, 3])
def test_the_second_order_is_that_of_plain_loops(steps):
    """|g - g_first| / |g| by two loops of autograd, the one with its graph and the other without."""
    case = case_of(MAML(steps=steps))
    full, first = (plain_maml(case.meta, case.drawn, 0.4, steps, first_order=cut)[1] for cut in (False, True))
    shares = gradients.second_order_shares(case)
    for layer in ("layer0", "head"):
        names = [f"{layer}.weight", f"{layer}.bias"]
        gap = sum((full[name] - first[name]).square().sum() for name in names)
        expected = float(gap / sum(full[name].square().sum() for name in names)) ** 0.5
        assert shares[layer] == pytest.approx(expected, rel=1e-9)
        assert abs(shares[layer] - 1.001 * expected) > 1e-9


@pytest.mark.parametrize("method", [MAML(steps=2), MAML(steps=2, adapts="head"), MAML(steps=2, learn_rates=True)])
def test_inner_gradients_that_are_cut_give_the_first_order(method):
    """By a name's own setting, and from outside: in a library's loop and in a user's."""
    case = case_of(method)
    with inner_gradients_as_constants():
        cut = case.gradient_by(case.method)
    first = case.gradient_by(replace(case.method, order=1))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(cut), tree_leaves(first), strict=True))


def test_a_users_loop_has_the_share_of_the_librarys():
    shares = [gradients.second_order_shares(case_of(method)) for method in (OwnLoop(), MAML())]
    assert shares[0] == pytest.approx(shares[1], rel=1e-9) and min(shares[0].values()) > 0.05


def test_queries_help_each_other_where_rows_are_normalised_together():
    x = torch.rand(12 * 30, 8, 8, generator=torch.Generator().manual_seed(0))
    dataset = replace(blobs(12, 6, 30), x=x, y=torch.arange(360) % 12, train_rows=300)
    train, test = (class_pool(dataset, part=part) for part in ("train", "test"))
    tasks = TaskDistribution(Conv4(8, blocks=2, norm="batch"), train, test, torch.float64)
    seen = {finding.name: finding for finding in diagnose(ProtoNet(), tasks)}[TOGETHER]
    assert "expected" in seen.seen and not seen.mend


def test_the_peak_is_counted():
    x = torch.zeros(1000, device="meta", requires_grad=True)

    def chain():
        y = x.detach() + 1
        z = y + 1
        del y
        return z * 2

    assert peak_bytes(chain) == 8000  # two tensors of 1000 floats at any time
    assert (
        peak_bytes(lambda: x.sin().sin().sum()) == 3 * 4000 - 4000 + 4
    )  # a view of x, and what backward needs is kept


def test_an_inner_step_costs_the_same_whichever_it_is():
    case = case_of(MAML(steps=2))
    size = gradients.bytes_of_inner_step(case)
    weights = sum(leaf.nbytes for leaf in tree_leaves(case.meta))
    assert size > 2 * weights  # the step's weights and gradients at least
    assert gradients.bytes_of_inner_step(case_of(MAML(steps=2, order=1))) == 0


def test_what_breaks_says_where_and_the_rest_is_looked_at():
    class Mute(ProtoNet):
        def query_scores(self, *given):
            raise ValueError("no scores")

    class Few(ProtoNet):
        def draw(self, distribution, generator):
            if self.tasks == leaks.NOISE:
                raise ValueError("too many")
            return super().draw(distribution, generator)

    (finding,) = diagnose(Mute())
    assert finding.name == "it learns at all" and "no scores" in finding.seen and finding.mend
    assert wrong(Few()) == {ORDER} and found(Few())[ORDER].seen == "ValueError: too many"
    assert len(found(Few())) == len(diagnosis.DIAGNOSES)


def test_it_fits_a_page_of_eighty_columns():
    console = Console(width=80, record=True, file=StringIO())
    for part in shown("MAML(steps=5)", [*found(MAML(steps=2)).values(), *found(ForgottenGraph(steps=2)).values()]):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text and "create_graph=False" in text
    assert shown("an EWC", []) == []


def test_names_of_ours_and_texts_are_checked(tmp_path, monkeypatch):
    """A method, a sum, a network, a scenario; a file of the same name comes first; what is nothing says what is near."""
    monkeypatch.chdir(tmp_path)
    texts = ("ProtoNet(way=3)", "EWC(2.0) + Replay(size=20)", "NearestClassMean()", "MLP(8)", "split-blobs(tasks=3)")
    kinds = [type(subject).__name__ for text in texts for _, subject in subjects_of(text)]
    assert kinds == ["ProtoNet", "Sum", "NearestClassMean", "MLP", "Stream"]
    (tmp_path / "ProtoNet.py").write_text(SICK)
    assert [key for key, _ in subjects_of("ProtoNet")] == ["Forgetful"]
    assert subjects_of("ProtoNet.py:Forgetful(rate=0.2)")[0][1].rate == 0.2
    with pytest.raises(ConfigurationError, match="'ProtoNett': did you mean 'ProtoNet'"):
        subjects_of("ProtoNett()")
    assert findings(MAML()) and not findings(MLP(8))


def test_a_users_file_is_diagnosed(cli, tmp_path):
    (tmp_path / "idea.py").write_text(SICK)
    done = cli("check", "idea.py:Forgetful(rate=0.2)")
    assert done.returncode == 2 and "diagnosis of idea.py:Forgetful(rate=0.2)" in done.stdout, done.stderr
    text = " ".join(done.stdout.split())  # however wide the terminal is
    assert "the graph through the inner steps is missing" in text and "fails idea.py:Forgetful" in text, text


SICK = '''
from dataclasses import dataclass, replace
from lifelong.core.inner_loop import FirstOrder
from lifelong.meta import MAML

@dataclass(frozen=True, kw_only=True)
class Forgetful(MAML):
    """First-order by accident."""

    def inner_learner(self, distribution, meta, way):
        learner, rates = super().inner_learner(distribution, meta, way)
        return replace(learner, strategy=FirstOrder() + learner.strategy), rates
'''
