"""The few-shot rows against the plain loops beside this file: the same meta-gradients and answers, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.reptile import Reptile
from lifelong.notation.expression import parse
from lifelong.studies.published.few_shot import NET, OURS
from scenarios.episodes import Support, class_pool
from scenarios.stream import generator
from scenarios.synthetic import blobs
from tests.reference import plain_few_shot

DOUBLE = torch.float64
LOOPS = {"weight": "convs.{}.weight", "scale": "norms.{}.weight", "shift": "norms.{}.bias"}


def by_the_loops_names(net):
    """Our parameters as the loop calls and lays them out."""
    renamed = {}
    for name, value in net.items():
        part, leaf = name.split(".")
        block = part.removeprefix("block")
        renamed[LOOPS[leaf].format(block) if block != part else name] = value.T if name == "head.weight" else value
    return renamed


@pytest.mark.parametrize("row", OURS, ids=lambda row: row.method)
def test_a_row_learns_and_answers_as_its_plain_loop(row):
    """So a row's accuracy and its loop's differ by their random numbers alone."""
    dataset = blobs(24, 28 * 28, 20)
    images = class_pool(replace(dataset, x=dataset.x.view(-1, 28, 28)), rotations=True)
    method = parse(row.stage, "initialisations")
    tasks = TaskDistribution(parse(NET, "models"), images, images, DOUBLE)
    meta = method.init(tasks, generator("start"))
    drawn = method.draw(tasks, generator("tasks"))
    episode, batches = drawn if isinstance(method, Reptile) else (drawn, [None] * method.tasks)
    _, gradient = method.gradient(tasks, meta, drawn, torch.tensor(0.5, dtype=DOUBLE))

    net = plain_few_shot.Net(ways=len(meta["net"]["head.bias"])).to(DOUBLE)
    net.load_state_dict(by_the_loops_names(meta["net"]))
    x, query = (part.to(DOUBLE)[:, :, None] for part in (episode.support_x, episode.query_x))
    plain = list(zip(x, episode.support_y, query, episode.query_y, batches, strict=True))
    plain_few_shot.meta_gradient(row.method, net, plain)
    for name, leaf in by_the_loops_names(gradient["net"]).items():
        theirs = dict(net.named_parameters())[name].grad
        torch.testing.assert_close(leaf, torch.zeros_like(leaf) if theirs is None else theirs, rtol=1e-9, atol=1e-12)
        assert theirs is None or theirs.any()

    episode = images.draw(1, 5, 1, 15, generator("test"))
    x, y, query = (part[0] for part in (episode.support_x.to(DOUBLE), episode.support_y, episode.query_x.to(DOUBLE)))
    theirs = plain_few_shot.answers(row.method, net, x[:, None], y, query[:, None])
    torch.testing.assert_close(
        method.predict(tasks, meta, Support(x, y), query, 5), theirs.detach(), rtol=1e-9, atol=1e-9
    )
