"""Similarity on a stream: scores of the very sources whose transfer is measured, their agreement, the command."""

from __future__ import annotations

import json

import pytest
import torch
from scipy import stats

from lifelong.adaptation.few_shot import FewShot
from lifelong.adaptation.methods import FullFineTuning, TransferError
from lifelong.contracts.learners import tiny
from lifelong.core.learner import Learner
from lifelong.display.similarity import similarity_json
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.studies.similarity import SimilarityStudy, similarity_study
from lifelong.transfer.matrix import TransferMatrix, transfer_matrices
from lifelong.transfer.pairs import learned
from lifelong.transfer.similarity import leep
from scenarios.split import split
from scenarios.stream import Budget, Seed
from scenarios.synthetic import blobs

LEARNER, PROTOCOL = Learner(MLP(8), optimiser=Adam(0.01)), FewShot((2,), optimiser=Adam(0.03), steps=5)


def test_scores_are_of_the_sources_that_are_measured():
    stream = tiny("task")
    study = similarity_study(LEARNER, stream, [0, 1], [FullFineTuning()], PROTOCOL, rows=6)
    (matrix,) = study.matrices
    assert matrix.accuracy.shape == (2, 3, 3, 1) and all(value.shape == (2, 3, 3) for value in study.scores.values())
    alone = transfer_matrices(LEARNER, stream, [0, 1], [FullFineTuning()], PROTOCOL)[0]
    assert matrix.accuracy.shape == alone.accuracy.shape and matrix.tasks == alone.tasks
    held = json.loads(json.dumps(similarity_json(study)))
    assert len(held["scores"]["LogME"]) == len(held["tasks"]) == 3
    assert set(held["measured"]["FullFineTuning()"]["scores"]) == set(held["scores"])
    task2vec, cosines = study.scores["task2vec"], study.scores["gradient cosine"]
    for value in (task2vec, cosines):
        torch.testing.assert_close(value.diagonal(dim1=1, dim2=2), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(cosines, cosines.transpose(1, 2))
    # LEEP of source 0 for target 2, seed 1, from the rows themselves
    state = learned(LEARNER, stream[:1], [Seed(0, 0, 0), Seed(0, 1, 1)])[1]
    net, tasks = {name: value[1] for name, value in state.params["net"].items()}, stream.tasks_of(0)
    from lifelong.adaptation.few_shot import support

    rows = support(stream, [Seed(0, 1, 1)], 6)[0][0, 2].flatten()
    scores = LEARNER.model.head(net, LEARNER.model.features(net, stream.dataset.x[rows].float()))
    p = scores[:, list(tasks[0].classes)].double().softmax(1)
    labels = tasks[2].label[stream.dataset.y[rows]] - tasks[2].classes[0]
    assert float(study.scores["LEEP"][1, 0, 2]) == pytest.approx(float(leep(p, labels, 2)), abs=1e-5)


def study_of(scores, accuracy) -> SimilarityStudy:
    accuracy = accuracy[..., None]
    matrix = TransferMatrix("FullFineTuning()", accuracy, accuracy[:, 0], (2,), torch.ones(4, 1), True, torch.ones(3, dtype=torch.bool))  # fmt: skip
    return SimilarityStudy({"score": scores}, [matrix], 2)


def test_agreement_is_scipys_mean_over_targets_and_a_choice_costs_what_it_misses():
    random = torch.Generator().manual_seed(5)
    scores, accuracy = (torch.rand(3, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))
    accuracy[0, :, 1] = 0.5  # a target on which every source is worth the same says nothing
    study = study_of(scores, accuracy)
    expected, lost = [], []
    for s in range(3):
        each, gaps = [], []
        for t in range(4):
            others = [a for a in range(4) if a != t]
            if (s, t) != (0, 1):
                each.append(stats.spearmanr(scores[s, others, t], accuracy[s, others, t]).statistic)
            chosen = max(others, key=lambda a: scores[s, a, t])
            gaps.append(float(accuracy[s, others, t].max() - accuracy[s, chosen, t]))
        expected.append(sum(each) / len(each))
        lost.append(sum(gaps) / 4)
    assert study.agreement("score", study.matrices[0]).per_seed == pytest.approx(expected)
    assert study.lost("score", study.matrices[0]).per_seed == pytest.approx(lost)
    perfect = study_of(accuracy, accuracy)
    assert perfect.agreement("score", perfect.matrices[0]).mean == pytest.approx(1)
    assert perfect.lost("score", perfect.matrices[0]).mean == 0
    turned = study_of(scores.transpose(1, 2), accuracy)  # sources and targets confused
    assert turned.agreement("score", turned.matrices[0]).per_seed != pytest.approx(expected, abs=0.01)


def test_two_tasks_leave_no_choice():
    with pytest.raises(TransferError, match="at least 3 tasks"):
        similarity_study(LEARNER, tiny(tasks=2), [0], [FullFineTuning()], PROTOCOL)


def test_scores_leave_rows_of_every_class_to_choose_rates_on():
    stream = split(blobs(6, 6, 24), 3, "task", budget=Budget(iterations=2, batch=4))
    study = similarity_study(LEARNER, stream, [0], [FullFineTuning()], PROTOCOL, rows=50)
    y = stream.dataset.y
    least = min(int((task.label[y[task.train]] == c).sum()) for task in stream for c in task.classes)
    assert study.rows == least - 1, "all rows of a class were shown, and none stood in for validation"


def test_the_command(cli):
    words = ["similarity", "split-blobs", "--seeds", "2", "--iterations", "5", "--steps", "2", "--shot", "2"]
    code, out, errors = cli(*words, "--rows", "5", "--target", "3")
    assert code == 0 and "LEEP" in out and "drawn at random" in out and "for 3:" in out, errors
    assert max(map(len, out.splitlines())) <= 100


BAD = {
    "a first task": (["split-blobs", "--target", "2"], "from 3"),
    "no rows": (["split-blobs", "--rows", "0"], "at least 2 rows"),
    "an order for each seed": (["split-blobs", "--order-seed", "-1"], "name one order"),
}


@pytest.mark.parametrize("words, hint", BAD.values(), ids=BAD.keys())
def test_bad_words_are_one_line(cli, words, hint):
    code, out, errors = cli("similarity", *words)
    assert (code, out, errors.count("\n")) == (2, "", 1) and hint in errors, errors
