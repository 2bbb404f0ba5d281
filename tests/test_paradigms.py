"""One stream read four ways: the budget, what is held out, the dataset and its file."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, replace

import pytest
import torch
from scipy.stats import ttest_1samp

from lifelong.adaptation.few_shot import FewShot
from lifelong.commands.compare import compare
from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.core.strategy import FineTuning
from lifelong.display.report.paradigms import ANSWERED, paradigm_drawings, paradigms_page
from lifelong.meta.maml import MAML
from lifelong.meta.oml import OML
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.supervised import Pretrained
from lifelong.metrics import holm
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.runs.request import Request
from lifelong.strategies.projection.agem import AGEM
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.replay.replay import Replay
from lifelong.studies import comparison as side_by_side
from lifelong.studies.findings import findings
from lifelong.studies.paradigms import PARADIGMS, Comparison, Division, Line, divided, rows_of_step
from scenarios.blurry import blurry
from scenarios.errors import ConfigurationError
from scenarios.split import split, with_validation
from scenarios.stream import Budget, generator
from scenarios.synthetic import blobs
from scenarios.transformed import permuted

LEARNER = Learner(MLP(8), optimiser=Adam(0.01))
PROTOCOL = FewShot((1, 3), steps=4)
STAGE = MAML(shot=5, query=5, tasks=4, rate=0.1)
TABLE = blobs(12, 6, 40)


def compared(dataset=TABLE, seeds=(0, 4), **fields):
    stream = split(dataset, 6, "task", order=tuple(range(12)), validation=0.2, budget=Budget(iterations=12, batch=10))
    fields = {"strategies": (Replay(10, rows=4),), "protocol": PROTOCOL, "stages": (STAGE,), **fields}
    comparison = Comparison(stream, LEARNER, list(seeds), **fields)
    return comparison, comparison.learn()


@pytest.fixture(scope="module")
def whole():
    return compared()


def test_every_reading_stands_between_floors_and_ceilings(whole):
    _, lines = whole
    assert [line.paradigm for line in lines] == [
        *["floor"] * 3, "multi-task", "transfer", "meta", "continual", "continual", "ceiling", "ceiling",
    ]  # fmt: skip
    assert all(line.few_shot.shape == (2, 2) for line in lines if "pixels" not in line.method)
    assert all((line.by_means is None) == (line.paradigm == "ceiling") for line in lines)
    assert all((line.own_answers is None) == (line.paradigm != "meta") for line in lines)
    assert all(len(line.rates) == 2 for line in lines if line.paradigm in PARADIGMS)
    assert all((line.forgetting is not None) == (line.paradigm == "continual") for line in lines)
    assert all(line.sees for line in lines)
    assert float(lines[0].few_shot[0, 0]) == 0.5


def test_every_reading_passes_the_same_examples(whole):
    """N = trained tasks x iterations x batch; an episode's images are counted, those of two derivatives twice.

    What a memory adds to a batch passes, too, and is said.
    """
    comparison, lines = whole
    assert comparison.budget == 3 * 12 * 10
    examples = {line.method if line.paradigm == "continual" else line.paradigm: line.examples for line in lines}
    rows = 3 * 2 * 24  # of 40 of each class, 10 test and a fifth of the others validate
    images = 4 * 2 * (5 * 1 * 2 + 5)  # MAML: tasks x way x (shot x steps x order + query)
    assert examples.pop("meta") == comparison.budget // images * images
    assert examples.pop(repr(Replay(10, rows=4))) == 3 * 12 * (10 + 4)
    assert all(value == 360 for name, value in examples.items() if name not in ("floor", "ceiling"))
    assert all(line.passes == pytest.approx(line.examples / rows) for line in lines)
    assert [line.examples for line in lines if line.paradigm == "ceiling"] == [360, 720]


def test_steps_on_each_batch_pass_it_again_in_every_reading():
    """--repeats 3 is three times the steps, so three times the examples, of episodes too."""
    stream = split(TABLE, 6, "task", validation=0.2, budget=Budget(iterations=4, batch=10, repeats=3))
    fields = {"strategies": (Replay(10, rows=4),), "protocol": PROTOCOL, "stages": (MAML(shot=1, query=4, tasks=1),)}
    comparison = Comparison(stream, LEARNER, [0], **fields)
    steps = int(Session(LEARNER, comparison.trained, [0]).sampler.steps.sum())
    examples = {(line.paradigm, line.method): line.examples for line in comparison.learn()}
    assert comparison.budget == steps * 10 == 3 * 4 * 3 * 10
    assert examples["continual", "FineTuning()"] == examples["multi-task", "joint"] == steps * 10
    assert examples["continual", repr(Replay(10, rows=4))] == steps * 14
    assert steps * 10 - comparison.stages[0].images(comparison.studies[0]) < examples["meta", "MAML"] <= steps * 10


@pytest.mark.parametrize(
    ("strategy", "rows"),
    [
        (FineTuning(), 10),
        (EWC(), 10),
        (Replay(50), 20),
        (Replay(50, rows=3), 13),
        (EWC() + Replay(50), 20),
        (AGEM(5), 20),
    ],
)
def test_rows_of_a_step_are_counted_after_every_part(strategy, rows):
    stream = split(TABLE, 6, "task", budget=Budget(iterations=12, batch=10))
    assert rows_of_step(replace(LEARNER, strategy=strategy), stream) == rows


def test_held_out_tasks_by_class_means_are_those_of_a_loop(whole):
    """Mean of a class's shown features, nearest wins, for each seed and held-out task; the random start's."""
    comparison, lines = whole
    line = next(line for line in lines if line.method == "random start")
    unseen, shots = comparison.unseen, PROTOCOL.shots
    for s in range(2):
        for k, shot in enumerate(shots):
            scores = []
            for task in comparison.stream.tasks_of((0, 4)[s])[4:]:
                net = {name: value[s] for name, value in comparison.random.items()}

                def features(rows, net=net):
                    return (TABLE.x[rows] @ net["layer0.weight"] + net["layer0.bias"]).relu()

                number = int(task.number)
                shown = unseen.evaluator.support[s, number, :, :shot]
                means = torch.stack([features(shown[w]).mean(0) for w in range(2)])
                answers = torch.cdist(features(task.test), means).argmin(1)
                labels = TABLE.y[shown[:, 0]]
                scores.append((labels[answers] == TABLE.y[task.test]).double().mean())
            assert float(line.by_means[s, k]) == pytest.approx(float(torch.stack(scores).mean()))


def test_rates_are_chosen_on_tasks_that_nobody_trains_on(whole):
    """Other rows in the task to choose by change rates at most, never what was learned; and rates are of each k."""
    chosen = (TABLE.y >= 6) & (TABLE.y < 8)
    _, others = compared(replace(TABLE, x=torch.where(chosen[:, None], TABLE.x.flip(1), TABLE.x)))
    for line, other in zip(whole[1], others, strict=True):
        if line.final is not None and line.paradigm != "ceiling":
            assert torch.equal(line.final, other.final), line.method
        if line.by_means is not None:
            assert torch.equal(line.by_means, other.by_means), line.method


def test_a_stream_is_divided_in_three():
    assert divided(54) == Division(42, 6, 6)
    assert divided(12) == Division(8, 2, 2)
    assert divided(5) == Division(2, 1, 2)
    assert divided(48, 6, 6).held_out == range(42, 48)
    for words in ((4,), (10, 8), (10, 5, 4), (10, -1)):
        with pytest.raises(ConfigurationError, match="to train on"):
            divided(*words)


def test_what_is_established_is_paired_and_corrected():
    """Two meta-learners, four differences to joint, two of joint to continual: Holm over all six."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(4, 2, 5, generator=generator, dtype=torch.float64)

    def line(paradigm, method, place, few, means):
        shape = [noise[place, i, :, None] + level for i, level in enumerate((few, means))]
        return Line(paradigm, method, few_shot=shape[0], by_means=shape[1])

    lines = [
        line("multi-task", "joint", 0, 0.5, 0.6),
        line("meta", "A", 1, 0.5, 0.8),
        line("continual", "FineTuning()", 2, 0.4, 0.6),
        line("continual", "Replay()", 3, 0.1, 0.1),
    ]
    found = findings(lines, (1,))
    assert [(f.names, f.way) for f in found] == [
        (("meta (A)", "joint"), "few_shot"), (("meta (A)", "joint"), "by_means"),
        (("joint", "continual"), "few_shot"), (("joint", "continual"), "by_means"),
    ]  # fmt: skip
    plain = []
    for first, second in ((1, 0), (0, 2)):
        for i, level in enumerate(((0, 0.2), (0.1, 0))[first == 0]):
            gap = (noise[first, i] - noise[second, i] + level).numpy()
            plain.append(float(ttest_1samp(gap, 0).pvalue))
    assert [f.p for f in found] == pytest.approx(holm(plain), rel=1e-9)
    assert [f.established for f in found] == [False, True, True, False]
    assert "+" in found[1].text and "by class means" in found[1].text
    lost = replace(lines[1], few_shot=lines[1].few_shot.masked_fill(torch.arange(5)[:, None] > 0, torch.nan))
    assert len(findings([lines[0], lost, lines[2]], (1,))) == 3
    assert findings(lines[1:], (1,)) == []


def test_held_out_tasks_are_untouched(whole):
    """Other rows and labels in the last two tasks change nothing that was learned from the others."""
    held = TABLE.y >= 8
    x = torch.where(held[:, None], TABLE.x + 3 * torch.randn_like(TABLE.x), TABLE.x)
    _, others = compared(replace(TABLE, x=x))
    for line, other in zip(whole[1], others, strict=True):
        if line.paradigm != "ceiling" and line.final is not None:
            assert torch.equal(line.final, other.final), line.method
            assert line.rates == other.rates, line.method
    assert not torch.equal(whole[1][3].few_shot, others[3].few_shot)


def test_a_seed_is_the_same_beside_others(whole):
    _, alone = compared(seeds=(4,), paradigms=("multi-task", "continual"))
    by_name = {(line.paradigm, line.method): line for line in whole[1]}
    assert len(alone) == 8
    for line in alone:
        if line.final is not None:
            torch.testing.assert_close(line.final[0], by_name[line.paradigm, line.method].final[1])


def test_a_stage_can_be_named(whole):
    stages = (ProtoNet(shot=2, query=3, tasks=2), ProtoNet(shot=1, query=3, tasks=2), MAML(shot=2, query=2))
    _, lines = compared(paradigms=("meta",), stages=stages)
    metas = [line for line in lines if line.paradigm == "meta"]
    assert [line.method[:11] for line in metas] == [
        "ProtoNet(it",
        "ProtoNet(it",
        "MAML",
    ]  # in full where two share a name
    assert "2 rows" in metas[0].note and "1 row " in metas[1].note and float(metas[0].final.mean()) > 0.5
    assert torch.equal(metas[0].own_answers, metas[0].by_means)  # its own way is the nearest class mean of its features


def test_what_is_kept_is_what_was_shown(whole, tmp_path):
    comparison, lines = whole
    about = side_by_side.as_json(comparison, side_by_side.Asked(Request("split-blobs")))
    path = side_by_side.save(about, tmp_path / "kept")
    again, loaded = side_by_side.load_lines(path.parent)
    assert again == json.loads(json.dumps(about))
    assert side_by_side.tables(about, loaded) == side_by_side.tables(about, lines)
    assert [line.rates for line in loaded] == [line.rates for line in lines]
    page = paradigms_page(path.parent)
    assert all(word in page for word in PARADIGMS) and "src=" not in page.split("</script>")[-1]
    assert about["findings"] and all(html.escape(sentence) in page for sentence in about["findings"])
    for line in lines:  # every mark says whose it is, how it answered, and what it was allowed to see
        for group, way in ANSWERED.items():
            if getattr(line, group) is not None:
                said = html.escape(f"{line.paradigm}: {line.method}, {way}: ", quote=False)
                assert re.search(re.escape(said) + f"[^<]*; saw {re.escape(line.sees)}<", page), (line.method, way)
    files = paradigm_drawings(path.parent)
    assert {"few-shot", "by-means", "against-sight", "against-stored", "against-examples"} <= set(files)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (MAML(rotations=True), "rotations"),
        (MAML(way=3), "way"),
        (MAML(tasks=64, shot=5, steps=50), "more than the 360"),
        (MAML(query=200), "query=200"),
        (Pretrained(), "episodes alone"),
        (OML(), "episodes alone"),
    ],
)
def test_a_stage_that_a_reading_cannot_honour_is_refused_before_anything_is_learned(stage, said):
    stream = split(TABLE, 6, "task", budget=Budget(iterations=12, batch=10))
    with pytest.raises(ConfigurationError, match=said):
        Comparison(stream, LEARNER, [0], stages=(stage,), protocol=PROTOCOL)


def test_tasks_of_unequal_numbers_of_classes_are_refused():
    @dataclass(frozen=True)
    class Uneven:
        task_generator: object

        def tasks(self, dataset, seed):
            first, *others = self.task_generator.tasks(dataset, seed)
            return [replace(first, classes=first.classes[:1]), *others]

    stream = split(TABLE, 5, "task", budget=Budget(iterations=12, batch=10))
    with pytest.raises(ConfigurationError, match="1 to 2"):
        Comparison(replace(stream, task_generator=Uneven(stream.task_generator)), LEARNER, [0], protocol=PROTOCOL)


def test_tasks_that_share_classes_are_refused():
    """Of a blurry stream the trained tasks hold rows of the held-out ones: nothing would be new there."""
    stream = blurry(TABLE, 6, "task", budget=Budget(iterations=12, batch=10))
    with pytest.raises(ConfigurationError, match="share classes"):
        Comparison(stream, LEARNER, [0], protocol=PROTOCOL)


def test_where_nothing_is_held_out_a_tenth_is(whole):
    """Of rows that two tasks share, the same ones, so that no task trains on what another validates on."""
    for stream in (split(TABLE, 5, "task"), permuted(TABLE, 4, "task")):
        plain, held = (s.tasks_of(3) for s in (stream, with_validation(stream, 0.1)))
        everything = torch.cat([task.train for task in held])
        for before, after in zip(plain, held, strict=True):
            assert len(after.validation) == len(before.train) // 10
            assert torch.equal(torch.cat([after.train, after.validation]).sort().values, before.train.sort().values)
            assert not torch.isin(after.validation, everything).any()
    comparison, _ = whole
    assert (
        comparison.stream.tasks_of(0)[0].validation.tolist()
        == split(TABLE, 6, "task", order=tuple(range(12)), validation=0.2).tasks_of(0)[0].validation.tolist()
    )


def test_the_readings_begin_from_the_same_draw():
    """A stage that learns nothing has the trunk that a run of this seed starts from, and so takes to tasks alike."""
    _, lines = compared(paradigms=("meta",), stages=(MAML(shot=2, query=2, tasks=2, outer=SGD(1e-30)),))
    random, meta = (next(line for line in lines if word in line.method) for word in ("random", "MAML"))
    torch.testing.assert_close(meta.few_shot, random.few_shot)
    torch.testing.assert_close(meta.by_means, random.by_means)


def test_seeds_that_diverge_are_left_out_and_said(tmp_path):
    wild = replace(LEARNER, optimiser=SGD(1e30))
    stream = split(TABLE, 6, "task", budget=Budget(iterations=12, batch=10))
    comparison = Comparison(stream, wild, [0, 1], protocol=PROTOCOL, stages=(MAML(shot=2, query=2, rate=1e30),))
    lines = comparison.learn()
    assert comparison.diverged
    lost = [line for line in lines if "2 of 2 seeds diverged" in line.note]
    assert {"multi-task", "transfer", "meta", "continual"} <= {line.paradigm for line in lost}
    about = side_by_side.as_json(comparison, side_by_side.Asked(Request("split-blobs")))
    assert "NaN" not in json.dumps(about)
    side_by_side.save(about, tmp_path / "kept")
    _, again = side_by_side.load_lines(tmp_path / "kept")
    shown = side_by_side.tables(about, again)
    assert shown == side_by_side.tables(about, lines) and shown[0].rows[3][2] == "diverged"
    assert about["findings"] == side_by_side.said([]) and "nothing was tested" in about["findings"][0]
    half = replace(lines[3], final=torch.tensor([0.5, torch.nan]), few_shot=None)
    assert side_by_side.tables(about, [half])[0].rows[0][2] == "50.0"


def test_a_seed_that_diverges_loses_no_other_of_its_meta_learner(whole):
    """As in every other reading; and what is kept is what it is without the lost one."""

    @dataclass(frozen=True)
    class Fragile(MAML):
        def draw(self, distribution, generator):
            episode = super().draw(distribution, generator)
            lost = generator.initial_seed() in seeds_of_four
            return episode._replace(query_x=episode.query_x * (torch.nan if lost else 1))

    seeds_of_four = {generator(4, "episode", i).initial_seed() for i in range(60)}
    stage = Fragile(shot=5, query=5, tasks=4, rate=0.1)
    comparison, lines = compared(paradigms=("meta",), stages=(stage,))
    line, plain = (next(x for x in found if x.paradigm == "meta") for found in (lines, whole[1]))
    assert "1 of 2 seeds diverged" in line.note and comparison.diverged
    for name in ("final", "by_means", "own_answers"):
        here, there = getattr(line, name), getattr(plain, name)
        torch.testing.assert_close(here[0], there[0], rtol=0, atol=1e-9)
        assert bool(here[1].isnan().all()), name
    assert bool(line.few_shot[0].isfinite().all()) and bool(line.few_shot[1].isnan().all())


def test_what_was_tested_is_said_of_the_smallest_k():
    same = torch.tensor([[0.5], [0.6], [0.4]], dtype=torch.float64)
    other = torch.tensor([[0.6], [0.5], [0.4]], dtype=torch.float64)
    lines = [Line("multi-task", "joint", few_shot=same), Line("meta", "A", few_shot=other)]
    assert side_by_side.said(findings(lines, (5,)))[0] == "no difference at k = 5 is established"
    assert "nothing was tested" in side_by_side.said(findings(lines[1:], (5,)))[0]


def test_paradigms_are_named_once_each():
    assert side_by_side.read_paradigms("meta, multi-task,meta") == ("meta", "multi-task")
    for words in (",", "mete", "all,meta"):
        with pytest.raises(ConfigurationError):
            side_by_side.read_paradigms(words)


@pytest.mark.parametrize("words", [{"memory": "50kB"}, {"linear_probe": True}, {"eval_rows": 10}, {"eval_every": 2}])
def test_an_option_that_no_reading_honours_is_refused(words):
    flag = "--" + next(iter(words)).replace("_", "-")
    with pytest.raises(ConfigurationError, match=f"{flag} does not go with --paradigms"):
        compare(scenario="split-digits", paradigms="all", **words)
