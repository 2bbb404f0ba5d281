"""What `lifelong new` writes keeps the contract, is well by every diagnosis, and learns."""

from __future__ import annotations

import pytest

from lifelong.commands.completion import WORDS
from lifelong.contracts.check import check_subject, findings, subjects_of
from lifelong.contracts.new import TEXTS, TRIES, write_new
from lifelong.core.loop import run
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.pretraining import pretrain
from lifelong.metrics import average_accuracy
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.notation.user_code import name_files
from scenarios.catalogue import build
from scenarios.episodes import class_pool
from scenarios.errors import ConfigurationError
from scenarios.stream import Budget
from scenarios.synthetic import blobs


def test_every_kind_is_completed_and_has_a_command_to_try():
    assert set(TEXTS) == set(TRIES) == set(WORDS["files"])
    with pytest.raises(ConfigurationError, match="it is strategy, scenario, model, learner or meta"):
        write_new("optimiser", None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["learner", "meta"])
def test_what_is_written_keeps_the_contract(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = write_new(kind, (tmp_path / f"my_{kind}.py").relative_to(tmp_path))
    assert f"my_{kind}.py:My{kind.capitalize()}(" in command
    [(_, subject)] = subjects_of(f"my_{kind}.py")
    assert [row for row in check_subject(subject) if row[1]] == []
    assert [finding for finding in findings(subject) if finding.mend] == []
    assert len(findings(subject)) == (8 if kind == "meta" else 0)


def test_the_learner_that_is_written_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_new("learner", (tmp_path / "means.py").relative_to(tmp_path))
    name_files(["means.py:Means()"])
    learner = parse("means.py:Means(temperature=2.0)", "learners")
    stream = build("split-blobs", budget=Budget(iterations=20, batch=16))
    accuracy = average_accuracy(run(learner, stream, seeds=range(2)))
    assert float(accuracy.min()) > 0.9


def test_the_meta_learner_that_is_written_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_new("meta", (tmp_path / "mine.py").relative_to(tmp_path))
    name_files(["mine.py:Mine()"])
    method = parse("mine.py:Mine(iterations=100, way=5, query=5, tasks=4, outer=Adam(0.01))", "initialisations")
    pool = class_pool(blobs(12, 6, 30))
    losses = pretrain(method, TaskDistribution(MLP(8), pool, pool), episodes=0).losses[0]
    assert losses[-20:].mean() < 0.9 * losses[:20].mean()
