"""What `lifelong new` writes keeps the contract, is well by every diagnosis, and learns."""

from __future__ import annotations

import re

import pytest
import torch

from lifelong.commands.completion import WORDS
from lifelong.contracts.check import check_subject, findings, subjects_of
from lifelong.contracts.every_verb import DECLARED
from lifelong.contracts.new import TEXTS, TRIES, write_new
from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.core.strategy import VERBS
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


@pytest.mark.parametrize("kind", ["strategy", "full", "scenario", "model", "learner", "meta"])
def test_what_is_written_keeps_the_contract(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full, kind = kind == "full", kind.replace("full", "strategy")
    command = write_new(kind, (tmp_path / f"my_{kind}.py").relative_to(tmp_path), full)
    assert f"my_{kind}.py:" + ("my_scenario" if kind == "scenario" else f"My{kind.capitalize()}(") in command
    [(_, subject)] = subjects_of(f"my_{kind}.py")
    assert [row for row in check_subject(subject) if row[1]] == []
    assert [finding for finding in findings(subject) if finding.mend] == []
    assert len(findings(subject)) == (8 if kind == "meta" else 0)


def test_every_verb_stands_there_and_does_nothing_until_it_is_changed(tmp_path, monkeypatch):
    """With all comments taken away it is still the same strategy, to the bit; with a strength of 0, fine-tuning."""
    monkeypatch.chdir(tmp_path)
    write_new("strategy", (tmp_path / "anchor.py").relative_to(tmp_path), full=True)
    text = (tmp_path / "anchor.py").read_text()
    filled = re.sub(r"^    # ", "    ", text, flags=re.MULTILINE)
    assert re.findall(r"^    def (\w+)", filled, re.MULTILINE) == [*DECLARED, *VERBS]
    (tmp_path / "filled.py").write_text(filled)
    name_files(["anchor.py:Anchor()", "filled.py:Anchor()"])
    stream = build("split-blobs", tasks=2, budget=Budget(iterations=5, batch=8))
    texts = ["anchor.py:Anchor(10.0)", "filled.py:Anchor(10.0)", "filled.py:Anchor(0.0)", "FineTuning()"]
    held, whole, none, plain = (
        run(Learner(MLP(8), parse(text, "strategies")), stream, seeds=range(2)).losses for text in texts
    )
    assert torch.equal(held, whole) and torch.equal(none, plain) and not torch.equal(held, plain)


def test_every_verb_is_a_strategys(tmp_path):
    with pytest.raises(ConfigurationError, match="--full shows every verb of a strategy"):
        write_new("model", tmp_path / "net.py", full=True)


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
