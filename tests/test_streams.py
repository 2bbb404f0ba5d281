"""Streams of other shapes: gradual, blurry, long-tailed, noisy, online, of numbers. Counts and shares, row by row."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from lifelong import metrics
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_learner, run
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.replay.replay import Replay
from scenarios.blurry import blurred
from scenarios.catalogue import CATALOGUE, build
from scenarios.datasets import load_dataset
from scenarios.few_classes import few_classes, in_blocks
from scenarios.gradual import GradualSchedule, faded, gradual
from scenarios.joint import isolate, joint
from scenarios.longtail import long_tailed
from scenarios.noise import noisy_labels
from scenarios.regression import NUMBERS, measured, mixed, regression
from scenarios.split import split, with_validation
from scenarios.stream import Budget, Dataset, ScenarioError, SequentialSchedule
from scenarios.synthetic import blobs
from scenarios.transformed import permuted

DOUBLE = torch.float64


def digits(name: str, budget: Budget | None = None, setting: str | None = None, **options):
    return build(CATALOGUE[f"{name}-digits"], options, setting, budget=budget)


def shown(stream, seed: int = 0):
    """Row, task and first of every phase, as the schedule says."""
    tasks = stream.tasks_of(seed)
    wanted = stream.wanted(tasks)
    return [stream.schedule.shown(tasks, t, wanted, seed, "order") for t in range(len(tasks))], wanted


@pytest.mark.parametrize("kind", ["gradual", "blurry", "longtail", "noisy", "online", "regression", "mixed"])
def test_each_kind_is_listed_on_digits_and_on_mnist(kind):
    for data in ("digits", "mnist"):
        entry = CATALOGUE[f"{kind}-{data}"]
        assert entry.data == data and entry.about and "\n" not in entry.about


# --- gradual --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2.5])
@pytest.mark.parametrize("width", [0.0, 0.3, 1.0])
def test_a_gradual_stream_shows_each_row_as_often_as_the_plain_one(width, epochs):
    stream = digits("gradual", Budget(epochs=epochs, batch=10), width=width)
    phases, wanted = shown(stream)
    assert [len(phase.row) for phase in phases] == wanted
    row, task, first = (torch.cat(parts) for parts in zip(*phases, strict=True))
    for t, source in enumerate(stream.tasks_of(0)):
        assert torch.isin(row[task == t], source.train).all() and int((task == t).sum()) == wanted[t]
        times = torch.bincount(row, minlength=len(stream.dataset.y))[source.train]
        assert times.min() == math.floor(epochs) and times.max() == math.ceil(epochs)
    # first: each row once, at its earliest showing
    assert int(first.sum()) == len(row.unique())
    earliest = torch.full((len(stream.dataset.y),), len(row)).scatter_reduce(0, row, torch.arange(len(row)), "amin")
    assert torch.equal(first, earliest[row] == torch.arange(len(row)))


def test_without_width_a_gradual_stream_is_the_plain_one():
    stream = digits("gradual", Budget(iterations=20, batch=10))
    for plain, fading in zip(
        shown(replace(stream, schedule=SequentialSchedule()))[0], shown(faded(stream, 0.0))[0], strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(plain, fading, strict=True))


def test_a_change_is_a_linear_ramp_of_its_width():
    """The share of the next task at each place around a boundary, over 400 seeds, beside the line."""
    stream = split(blobs(6, 2, 200), 3, budget=Budget(epochs=1))
    tasks = stream.tasks_of(0)
    wanted, width, seeds = stream.wanted(tasks), 0.5, 400
    size = wanted[0]
    assert wanted == [size] * 3
    total = torch.zeros(2 * size, dtype=DOUBLE)
    for seed in range(seeds):
        phases = [GradualSchedule(width).shown(tasks, t, wanted, seed, "order") for t in (0, 1)]
        total += torch.cat([phases[0].task == 1, phases[1].task >= 1])
    line = ((torch.arange(2 * size) + 0.5 - size) / (width * size) + 0.5).clamp(0, 1)
    line[2 * size - int(width * size / 2) :] = 1  # from there on task 2 fades in, counted as no task 0
    spread = (line * (1 - line) / seeds).sqrt()
    assert ((total / seeds - line).abs() <= 4.5 * spread + 1e-9).all()
    # over windows of ten places the line is told from a step and from an S
    for place in (size - 40, size, size + 40):
        window = slice(place - 5, place + 5)
        assert abs(float((total / seeds)[window].mean() - line[window].mean())) < 0.03


def test_tasks_of_other_lengths_fade_over_a_share_of_the_shorter_one():
    stream = long_tailed(gradual(load_dataset("digits"), 5, width=0.6, budget=Budget(epochs=1, batch=10)), 20.0)
    phases, wanted = shown(stream)
    assert len(set(wanted)) > 1
    for t in range(1, 5):
        half = int(0.6 * min(wanted[t - 1], wanted[t]) / 2)
        late, early = torch.nonzero(phases[t - 1].task == t)[:, 0], torch.nonzero(phases[t].task == t - 1)[:, 0]
        assert len(late) == len(early), "each task is shown as often as it would be"
        assert not len(early) or (int(early.max()) < half and int(late.min()) >= wanted[t - 1] - half)


def test_a_gradual_stream_hides_tasks_and_progress():
    stream = digits("gradual", Budget(iterations=4, batch=10))
    session = Session(Learner(MLP(4)), stream, [0])
    assert session.fleet.problem.tasks == 1 and not session.fleet.problem.task_ends
    assert all(float(batch.progress) == 0 for batch in session.sampler.batches(2))
    for text in ("Replay(size=50)", "EWC()", "SI()", "LwF()", "ClassReplay()"):
        with pytest.raises(ScenarioError, match="does not say when"):
            check_learner(Learner(MLP(4), parse(text, "strategies")), stream)
    with pytest.raises(ScenarioError, match=r"write Replay\(weighting='equal'\)"):
        check_learner(Learner(MLP(4), Replay(size=50)), stream)
    with pytest.raises(ScenarioError, match="takes 0"):
        faded(stream, 1.5)


def test_isolate_takes_a_gradual_stream_apart():
    """Each task alone: the neighbours' rows are not shown."""
    stream = isolate(digits("gradual", Budget(iterations=10, batch=10)))
    for t, phase in enumerate(shown(stream)[0]):
        assert (phase.task == t).all()
    assert joint(digits("gradual")).schedule != stream.schedule


# --- blurry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_blurry30_has_thirty_percent_from_each_of_the_others_evenly(setting):
    stream = digits("blurry", setting=setting)
    plain = digits("split", setting=setting)
    split_tasks, mixed_ = plain.tasks_of(3), stream.tasks_of(3)
    rows = torch.cat([task.train for task in mixed_])
    assert sorted(rows.tolist()) == list(range(stream.dataset.train_rows)), "every row is in one task"
    for t, task in enumerate(mixed_):
        came = [int(torch.isin(task.train, other.train).sum()) for other in split_tasks]
        assert came[t] == len(split_tasks[t].train) - int(0.3 * len(split_tasks[t].train))
        for u, other in enumerate(split_tasks):
            assert u == t or came[u] in (int(0.3 * len(other.train)) // 4, int(0.3 * len(other.train)) // 4 + 1)
        assert abs(1 - came[t] / len(task.train) - 0.3) < 0.01
        assert torch.equal(task.test, split_tasks[t].test)
        labels = task.label[stream.dataset.y[task.train]]
        assert labels.min() >= 0 and set(labels.tolist()) == set(task.classes)
        assert torch.equal(task.label[stream.dataset.y[task.test]], split_tasks[t].label[stream.dataset.y[task.test]])


def test_the_published_lists_of_blurry30_are_a_share_of_24_percent():
    """Bang et al. (2021), cifar10_train_blurry30_rand1: 7,413 of 9,750 rows of a task are of its two classes."""
    dataset = Dataset("balanced", torch.zeros(50_000, 1), torch.arange(10).repeat(5000), 48_750, 10)
    stream = blurred(split(dataset, 5), 0.24)
    for task in stream.tasks_of(0):
        assert len(task.train) == 9750
    split_task = split(dataset, 5).tasks_of(0)[0]
    major = int(torch.isin(stream.tasks_of(0)[0].train, split_task.train).sum())
    assert abs(major - 7413) < 15


def test_what_cannot_be_blurred_is_refused():
    with pytest.raises(ScenarioError, match="number the same class differently"):
        blurred(permuted(blobs(4, 3, 8), 2, "class"))[0]
    with pytest.raises(ScenarioError, match=r"share=1\.0"):
        digits("blurry", share=1.0)


# --- long-tailed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_class_counts_fall_exponentially(setting):
    stream = digits("longtail", setting=setting, imbalance=20.0)
    for seed in (0, 1):
        rows = torch.cat([task.train for task in stream.tasks_of(seed)])
        counts = torch.bincount(stream.dataset.y[rows], minlength=10).sort(descending=True).values
        most = int(torch.bincount(stream.dataset.y[: stream.dataset.train_rows]).min())
        assert counts.tolist() == [max(1, math.floor(most * 20 ** (-i / 9) + 1e-9)) for i in range(10)]
        assert len(rows.unique()) == len(rows)
        tests = torch.cat([task.test for task in stream.tasks_of(seed)])
        assert len(tests) == len(stream.dataset.y) - stream.dataset.train_rows
    counts = [torch.bincount(stream.dataset.y[torch.cat([t.train for t in stream.tasks_of(s)])]) for s in (0, 1)]
    assert not torch.equal(*counts), "which class is large is the seed's luck"


def test_ordered_long_tails_begin_with_the_large_classes():
    stream = digits("longtail", ordered=True, imbalance=20.0)
    for seed in range(3):
        sizes = [len(task.train) for task in stream.tasks_of(seed)]
        assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ScenarioError, match=r"imbalance=0\.5"):
        digits("longtail", imbalance=0.5)


def test_tasks_of_the_same_rows_keep_the_same_ones():
    tasks = long_tailed(permuted(blobs(4, 3, 40), 3), 10.0).tasks_of(0)
    assert all(torch.equal(task.train, tasks[0].train) for task in tasks)
    counts = torch.bincount(blobs(4, 3, 40).y[tasks[0].train]).sort(descending=True).values
    assert counts[0] == 30 and counts[-1] == 3


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_are_wrong_for_the_share_that_was_asked_and_evenly():
    dataset = Dataset("many", torch.zeros(40_000, 1), torch.arange(10).repeat(4000), 36_000, 10)
    task = noisy_labels(split(dataset, 2), 0.4).tasks_of(0)[0]
    true, classes = dataset.y[task.train], torch.nonzero(task.label >= 0)[:, 0]
    assert torch.isin(task.given, classes).all(), "a wrong label is a class of the task"
    wrong = task.given != true
    n = len(true)
    assert abs(float(wrong.float().mean()) - 0.4) < 4 * math.sqrt(0.4 * 0.6 / n)
    for c in classes.tolist():
        here = wrong & (true == c)
        for other in classes.tolist():
            share = float((task.given[here] == other).float().mean())
            assert share == 0 if other == c else abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / int(here.sum()))


def test_missing_labels_train_nothing_and_are_counted():
    stream = digits("noisy", Budget(epochs=1, batch=10), wrong=0.0, missing=0.5)
    session = Session(Learner(MLP(8)), stream, [0], dtype=DOUBLE)
    task = stream.tasks_of(0)[0]
    assert abs(float((task.given < 0).float().mean()) - 0.5) < 4 * math.sqrt(0.25 / len(task.given))
    params = {name: value[0] for name, value in session.first_state().params["net"].items()}
    problem = replace(session.fleet.problem, index={k: v[0] for k, v in session.sampler.index.items()})
    rows = task.train[task.given < 0][:8]
    gradient = problem.gradient({"net": params}, rows, torch.zeros_like(rows), torch.full((8,), 1 / 8, dtype=DOUBLE))
    assert all(bool((value == 0).all()) for value in gradient["net"].values())
    assert (problem.y(rows, torch.zeros_like(rows)) == -1).all()


def test_evaluation_keeps_to_the_true_labels():
    """Of five classes with 40 % wrong labels each mean lies still nearest its own class: scores by them are far above 60 %."""
    ways = (digits("split", Budget(epochs=1, batch=32), tasks=2), digits("noisy", tasks=2, wrong=0.4))
    clean, noisy = (
        run(parse("NearestClassMean()", "learners"), replace(way, budget=Budget(epochs=1, batch=32)), [0, 1])
        for way in ways
    )
    assert clean.accuracy[:, -1].mean() > 0.88 and noisy.accuracy[:, -1].mean() > 0.8


def test_labels_by_row_survive_held_out_rows_and_a_long_tail():
    noisy = noisy_labels(split(blobs(6, 3, 40), 3), 0.4, 0.2)
    y = noisy.dataset.y
    shown_as = torch.cat([torch.stack([task.train, task.given]) for task in noisy.tasks_of(0)], 1)
    known = dict(shown_as.T.tolist())
    for stream in (with_validation(noisy, 0.25), long_tailed(noisy, 5.0), blurred(noisy, 0.3)):
        for task in stream.tasks_of(0):
            assert len(task.given) == len(task.train)
            assert task.given.tolist() == [known[row] for row in task.train.tolist()]
    for task in noisy_labels(long_tailed(split(blobs(6, 3, 40), 3), 5.0), 0.4).tasks_of(0):
        assert len(task.given) == len(task.train) and (task.given != y[task.train]).any()


def test_noise_that_cannot_be_is_refused():
    with pytest.raises(ScenarioError, match="two classes"):
        list(noisy_labels(split(blobs(3, 2, 8), 3), 0.2))
    for options in ({"wrong": 1.0}, {"missing": -0.1}):
        with pytest.raises(ScenarioError, match="is a share of the labels"):
            digits("noisy", **options)


# --- online ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_online_stream_shows_each_row_once_and_takes_so_many_steps(repeats):
    stream = digits("online", repeats=repeats)
    session = Session(Learner(MLP(4), Replay(20, rows=10, weighting="equal")), stream, [0, 1])
    for t in range(5):
        batches = list(session.sampler.batches(t))
        for s in (0, 1):
            train = stream.tasks_of(s)[t].train
            steps = -(-len(train) // 10) * repeats
            assert int(session.sampler.steps[s, t]) == steps
            fresh = torch.cat([batch.row[s][batch.first_seen[s]] for batch in batches])
            assert sorted(fresh.tolist()) == sorted(train.tolist())
            rows = torch.cat([batch.row[s][batch.shown[s]] for batch in batches[:steps]])
            assert (torch.bincount(rows)[train] == repeats).all() and len(rows) == repeats * len(train)
        draws = [batch.draws[0]["place"] for batch in batches[: 2 * repeats]]
        assert all(not torch.equal(a, b) for a, b in itertools.pairwise(draws)), "each step draws anew"


# --- numbers --------------------------------------------------------------------------------------------------------


def test_the_numbers_of_an_image_are_what_they_say():
    image = torch.zeros(4, 8, 8, dtype=torch.uint8)
    image[0, 2, 5] = 200  # one point: across 5, down 2
    image[1, 1:7, 3] = 100  # an upright stroke
    for v in range(1, 7):
        image[2, v, 7 - v] = 100  # leaning to the right, by one column a row
    image[3, :, :] = 50
    dataset = Dataset("drawn", image, torch.tensor([0, 1, 0, 1]), 4, 2)
    x = image.to(DOUBLE)
    across = (x * torch.arange(8)).sum((1, 2)) / x.sum((1, 2))
    down = (x * torch.arange(8)[:, None]).sum((1, 2)) / x.sum((1, 2))
    raw = {"across": across, "down": down, "mass": x.sum((1, 2)), "slant": torch.tensor([0.0, 0.0, 1.0, 0.0])}
    numbers = measured(dataset).targets
    assert numbers is not None and numbers.shape == (4, 5)
    for name, values in raw.items():
        values = values.to(DOUBLE)
        expected = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(numbers[:, NUMBERS.index(name)].to(DOUBLE), expected, rtol=1e-5, atol=1e-5)
    targets = measured(load_dataset("digits")).targets
    assert targets is not None
    train = targets[:1442].to(DOUBLE)
    assert train.mean(0).abs().max() < 1e-5 and (train.var(0, correction=0) - 1).abs().max() < 1e-4


def test_least_squares_is_where_a_linear_network_goes():
    """Full batches, float64: a network without hidden layers ends at torch.linalg.lstsq, task by task and output by output."""
    dataset = measured(load_dataset("digits"))
    x = dataset.x[:300].flatten(1).to(DOUBLE)
    basis = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:6]
    x = torch.cat([x, dataset.x[1442:1500].flatten(1).to(DOUBLE)]) @ basis.T
    x = (x - x[:300].mean(0)) / x[:300].std(0)
    targets = torch.cat([dataset.targets[:300], dataset.targets[1442:1500]])
    missing = torch.rand(300, 5, generator=torch.Generator().manual_seed(0)) < 0.2
    targets[:300][missing] = torch.nan
    small = Dataset("small", x, torch.cat([dataset.y[:300], dataset.y[1442:1500]]), 300, 10, targets=targets)
    task_generator = regression(load_dataset("digits"), 2).task_generator
    stream = replace(regression(load_dataset("digits"), 2), dataset=small, budget=Budget(iterations=400, batch=300))
    assert stream.task_generator == task_generator
    session = Session(Learner(MLP(), optimiser=SGD(0.2)), stream, [0, 1], dtype=DOUBLE)
    from lifelong.core.loop import learned

    result, state = learned(session)
    for s in (0, 1):
        for t, task in enumerate(stream.tasks_of(s)):
            asked = targets[:, task.columns[0]].to(DOUBLE)
            known = ~asked[:300].isnan()
            design = torch.cat([x, torch.ones(len(x), 1, dtype=DOUBLE)], 1)
            best = torch.linalg.lstsq(design[:300][known], asked[:300][known, None]).solution[:, 0]
            found = torch.cat(
                [state.params["net"]["head.weight"][s][:, t], state.params["net"]["head.bias"][s][t : t + 1]]
            )
            torch.testing.assert_close(found, best, rtol=1e-7, atol=1e-8)
            test = asked[300:]
            score = 1 - (design[300:] @ best - test).square().mean() / test.var(correction=0)
            assert abs(float(result.accuracy[s, -1, t] - score)) < 1e-8


def test_a_score_of_numbers_is_over_test_rows_that_are_known():
    """Half of a task's test numbers are missing: neither the variance nor the mean may count them."""
    dataset = measured(load_dataset("digits"))
    targets = dataset.targets.clone()
    targets[1442::2] = torch.nan
    stream = regression(load_dataset("digits"), 1, "task", budget=Budget(iterations=1, batch=8))
    stream = replace(stream, dataset=replace(dataset, targets=targets))
    session = Session(Learner(MLP(), optimiser=SGD(1e-9)), stream, [0], dtype=DOUBLE)
    net = {name: value[0] for name, value in session.first_state().params["net"].items()}
    accuracy = run(Learner(MLP(), optimiser=SGD(1e-9)), stream, [0], dtype=DOUBLE).before[0, 0]
    column = stream.tasks_of(0)[0].columns[0]
    asked = targets[1442:, column].to(DOUBLE)
    known = ~asked.isnan()
    answer = (dataset.x[1442:].flatten(1).to(DOUBLE) / 255) @ net["head.weight"][:, 0] + net["head.bias"][0]
    expected = 1 - (answer - asked)[known].square().mean() / asked[known].var(correction=0)
    assert abs(float(accuracy - expected)) < 1e-9


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_a_mixed_stream_learns_both_kinds(setting):
    stream = digits("mixed", Budget(iterations=100, batch=32), setting, tasks=4, missing=0.3)
    tasks = stream.tasks_of(0)
    assert [bool(task.columns) for task in tasks] == [False, True, False, True]
    targets = stream.dataset.targets
    assert targets is not None and abs(float(targets[:1442].isnan().float().mean()) - 0.3) < 0.03
    assert not targets[1442:].isnan().any()
    session = Session(Learner(MLP(4)), stream, [0])
    allowed, numbers = session.sampler.index["allowed"][0], slice(stream.classes - 5, stream.classes)
    assert not allowed[0, numbers].any() and not allowed[2, numbers].any(), "numbers compete with no class"
    assert allowed[1].nonzero()[:, 0].tolist() == list(range(stream.classes - 5, stream.classes))
    result = run(Learner(MLP(30), optimiser=Adam(0.005)), stream, [0])
    assert result.numbers == (1, 3)
    learned = result.at_task_ends[0].diagonal()
    assert learned[0] > 0.95 and learned[1] > 0.5 and learned[3] > 0.5
    if setting == "task":
        assert learned[2] > 0.9
    assert bool(result.losses.isfinite().all())


def test_outputs_for_numbers_answer_no_question_of_classes():
    """Scores of numbers lie far above those of classes: they must not win."""
    stream = digits("mixed", Budget(iterations=1, batch=8), "class", tasks=4)
    for open_ in ("all", "seen"):
        session = Session(Learner(MLP()), replace(stream, open=open_), [0])
        state = session.first_state()
        state.params["net"]["head.bias"][:, -5:] += 1000
        score = session.evaluator.scores(state, True, 3)[0][0]
        assert score[0] > 0 and score[2] >= 0
        assert session.evaluator._answers(torch.eye(stream.classes)[None], torch.zeros(1, stream.classes, dtype=torch.int64), 3).max() < 8  # fmt: skip


def test_metrics_of_numbers_say_what_they_mean_or_refuse():
    budget = Budget(iterations=20, batch=32)
    numbers = run(Learner(MLP(20)), digits("regression", budget, "domain", tasks=3), [0, 1])
    assert numbers.numbers == (0, 1, 2)
    a = numbers.at_task_ends
    assert torch.equal(metrics.average_accuracy(numbers), a[:, -1].mean(1))
    assert torch.equal(
        metrics.forgetting_avalanche(numbers), ((a[:, 0, 0] - a[:, 2, 0]) + (a[:, 1, 1] - a[:, 2, 1])) / 2
    )
    both = run(Learner(MLP(20)), digits("mixed", budget, tasks=4), [0, 1])
    assert metrics.available(both) == {}
    with pytest.raises(metrics.NotMeasured, match="no common mean"):
        metrics.average_accuracy(both)
    together, alone = (
        run(Learner(MLP(20)), way(digits("regression", budget, tasks=2)), [0]) for way in (joint, isolate)
    )
    left = [1 - a for a in (alone.at_task_ends.diagonal(dim1=1, dim2=2), together.at_task_ends[:, -1])]
    torch.testing.assert_close(metrics.multi_task_gains(together, alone), (left[0] - left[1]) / left[0])
    from lifelong.core.result import Result

    assert Result.of(both.tensors(), both.about()).numbers == both.numbers == (1, 3)


@pytest.mark.parametrize("text", ["EWC()", "EWC(fisher='empirical')", "LwF()", "ClassReplay()"])
def test_what_reads_classes_refuses_numbers(text):
    with pytest.raises(ScenarioError, match="asks for numbers"):
        check_learner(Learner(MLP(4), parse(text, "strategies")), digits("regression"))


def test_what_needs_no_classes_learns_numbers():
    """Domain-incremental slants: replay keeps the first digits' score, fine-tuning loses some of it."""
    with pytest.raises(ScenarioError, match="asks for numbers"):
        check_learner(parse("NearestClassMean()", "learners"), digits("regression"))
    stream = digits("regression", Budget(iterations=100, batch=32), "domain", tasks=3)
    for text in ("EWC(fisher='batch')", "SI()"):
        check_learner(Learner(MLP(4), parse(text, "strategies")), stream)
    plain, replayed = (
        run(Learner(MLP(30), way, Adam(0.005)), stream, [0])
        for way in (parse("FineTuning()", "strategies"), Replay(300))
    )
    assert metrics.forgetting(replayed).mean() < metrics.forgetting(plain).mean()
    assert metrics.average_accuracy(replayed).mean() > 0.8


def test_numbers_that_are_not_there_are_refused():
    for options, words in (
        ({"number": "colour"}, "number='colour'"),
        ({"tasks": 6}, "tasks=6"),
        ({"missing": 1.0}, "missing=1.0"),
    ):
        with pytest.raises(ScenarioError, match=words):
            digits("regression", **options)
    with pytest.raises(ScenarioError, match="only images"):
        mixed(blobs(4, 3, 8))


def test_targets_are_part_of_the_content():
    dataset = load_dataset("digits")
    assert measured(dataset).content_hash() != measured(dataset, 0.1).content_hash() != dataset.content_hash()
    assert dataset.content_hash() == "718ee69e0baa2ed1"


# --- many small tasks; related and unrelated ones -----------------------------------------------------------------------


def test_a_few_classes_each_are_drawn_without_return_and_images_shrink_by_means():
    dataset = blobs(12, 16, 20)
    images = replace(dataset, x=dataset.x.view(-1, 4, 4))
    stream = few_classes(images, tasks=3, way=3, size=2)
    assert (stream.classes, stream.setting, stream.dataset.shape) == (9, "task", (2, 2))
    block = images.x[:, :2, 2:].mean((1, 2))
    torch.testing.assert_close(stream.dataset.x[:, 0, 1], block)
    drawn = [[int(c) for task in stream.tasks_of(seed) for c in (task.label >= 0).nonzero()[:, 0]] for seed in (0, 1)]
    assert all(len(set(classes)) == 9 for classes in drawn) and drawn[0] != drawn[1]
    assert few_classes(images, tasks=3, way=3, size=0).dataset is images


def test_few_classes_of_bytes_stay_bytes():
    dataset = blobs(4, 16, 6)
    table = replace(dataset, x=(dataset.x.view(-1, 1, 4, 4) * 20).clamp(0, 255).to(torch.uint8))
    smaller = in_blocks(table, 2)
    assert smaller.x.dtype == torch.uint8 and smaller.shape == (1, 2, 2)
    exact = table.x.view(-1, 1, 2, 2, 2, 2).to(torch.float64).mean((3, 5))
    assert (smaller.x - exact).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": 5, "way": 3}, "need 15, and blobs has 12"),
        ({"tasks": 0}, "need 0"),
        ({"size": 3}, "cannot be brought to 3 x 3"),
        ({"validation": 1.0}, "not a share"),
    ],
)
def test_few_classes_that_cannot_be_are_refused(options, said):
    dataset = blobs(12, 16, 20)
    with pytest.raises(ScenarioError, match=said):
        few_classes(replace(dataset, x=dataset.x.view(-1, 4, 4)), **{"tasks": 2, "way": 2, "size": 2, **options})


def test_related_tasks_are_turned_and_unrelated_ones_permuted():
    stream = build("related-digits", tasks=6, largest=30.0)
    tasks = stream.tasks_of(0)
    assert [task.angle for task in tasks] == [0.0, 0.0, 15.0, 0.0, 30.0, 0.0]
    plain = torch.arange(64)
    assert [torch.equal(task.permutation, plain) for task in tasks] == [True, False] * 3
    assert not torch.equal(tasks[1].permutation, tasks[3].permutation)
    assert not torch.equal(tasks[1].permutation, stream.tasks_of(1)[1].permutation)
    problem = Session(Learner(MLP(4)), stream, [0]).fleet.problem
    problem = replace(problem, index={name: value[0] for name, value in problem.index.items()})
    rows = torch.arange(3)
    x = stream.dataset.x[rows].to(torch.float32) / (255 if stream.dataset.x.dtype == torch.uint8 else 1)
    torch.testing.assert_close(problem.x(rows, torch.zeros(3, dtype=torch.int64)), x)
    moved = x.flatten(1)[:, tasks[1].permutation].view(x.shape)
    torch.testing.assert_close(problem.x(rows, torch.ones(3, dtype=torch.int64)), moved)
    with pytest.raises(ScenarioError, match="at least 2"):
        build("related-digits", tasks=1)


def test_split_takes_so_many_classes_for_each_task():
    stream = split(blobs(12, 4, 10), 3, "task", way=2)
    assert stream.classes == 6 and [len(task.classes) for task in stream.tasks_of(0)] == [2, 2, 2]
    with pytest.raises(ScenarioError, match="need 15"):
        split(blobs(12, 4, 10), 3, way=5)
