"""Speed of meta-learning as ratios, measured in one run, interleaved, median of five: against higher, TorchOpt, MAML.

Against higher and TorchOpt all compute the second-order gradient of the same network and tasks; a first call checks that
they agree. Against MAML stand all episodic methods that are found. Prints its sections, and puts them into
docs/speed.json and docs/speed.md; --only names a section by its first letters.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from page import record
from timing import interleaved
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.core.recorded import recorded
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.maml import MAML
from lifelong.meta.matching import MatchingNet
from lifelong.meta.oml import OML
from lifelong.meta.protonet import ProtoNet
from lifelong.models.base import Model, Net
from lifelong.models.convolutional import Conv4
from lifelong.notation.expression import vocabulary
from scenarios.datasets import load_dataset
from scenarios.episodes import ClassPool, class_pool
from scenarios.stream import generator

TASKS, RATE = 16, 0.4
PROGRESS = torch.zeros(())  # of the outer loop
NET = Conv4(32, norm="batch", halving="stride")
NOTES = {
    "second-order MAML against peers": "One meta-gradient: Conv4 of 32 channels with pooling and batch statistics, 16 tasks of 5 ways, 1 shot and 1 query a class; ours recorded once and played back, as pre-training does; theirs by a loop over tasks, as their examples have it. Seconds of theirs over ours.",
    "parts of a meta-iteration": "Episodes: drawing 16 tasks, as a share of drawing and the gradient together. OML: one meta-gradient with the encoder inside the inner loop over one on cached features, Conv4 of 32 channels with stride, 20 ways, 5 shots: 100 inner steps; the inner loop is measured with one query a class, the whole with 5 and 15 remembered images; called as they are, and both recorded and played back.",
    "methods beside MAML": "One meta-gradient of every method that learns from episodes alone, as it stands without settings but on the same episodes, 4 tasks of 5 ways, 1 shot and 1 query a class, over MAML's: Conv4 of 32 channels with stride and batch statistics; recorded once and played back, draws left out.",
    "metric episodes beside the encoder alone": "One meta-gradient of an episode, ProtoNet's and matching networks', over plain forward and backward passes of the encoder alone on the same images: Conv4 of 32 channels with stride and batch statistics. One task of 20 ways, 1 shot and 5 queries, as ProtoNet's rows are learned; and 8 tasks of 5 ways, 1 shot and 5 queries, which the encoder passes one after another, or all in one batch: fewer and larger products, but the statistics are then those of all tasks, which no method here may use. All recorded once and played back, draws left out.",
}


class Torch(nn.Module):
    """The same network as a module, for the peers."""

    def __init__(self, net: dict[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(4):
            out, into = net[f"block{i}.weight"].shape[:2]
            conv = nn.Conv2d(into, out, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(out, track_running_stats=False)
            with torch.no_grad():
                conv.weight.copy_(net[f"block{i}.weight"])
            layers += [conv, norm, nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(*net["head.weight"].shape)
        with torch.no_grad():
            self.head.weight.copy_(net["head.weight"].T)
            self.head.bias.copy_(net["head.bias"])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def by_higher(net: Torch, tasks: list[tuple[Tensor, ...]], steps: int) -> Callable[[], float]:
    """The meta-gradient as higher's own example takes it."""
    import higher

    inner = torch.optim.SGD(net.parameters(), RATE)

    def once() -> float:
        net.zero_grad()
        total = 0.0
        for x, y, query, target in tasks:
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (learner, optimiser):
                for _ in range(steps):
                    optimiser.step(F.cross_entropy(learner(x), y))
                loss = F.cross_entropy(learner(query), target) / len(tasks)
                loss.backward()
            total += float(loss.detach())
        return total

    return once


def by_torchopt(net: Torch, tasks: list[tuple[Tensor, ...]], steps: int) -> Callable[[], float]:
    """The meta-gradient as TorchOpt's own example takes it."""
    import torchopt

    inner = torchopt.MetaSGD(net, lr=RATE)

    def once() -> float:
        for parameter in net.parameters():
            parameter.grad = None
        total = 0.0
        start = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
        optimiser = torchopt.extract_state_dict(inner, by="reference")
        for x, y, query, target in tasks:
            for _ in range(steps):
                inner.step(F.cross_entropy(net(x), y))
            loss = F.cross_entropy(net(query), target) / len(tasks)
            loss.backward()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, optimiser)
            total += float(loss.detach())
        return total

    return once


def against_peers(images: ClassPool) -> dict[str, float]:
    """Their seconds over ours at 1 and 5 inner steps; refused where losses or gradients differ."""
    ratios = {}
    study = TaskDistribution(Conv4(32, norm="batch"), images, images)
    for steps in (1, 5):
        stage = MAML(steps=steps, rate=RATE, tasks=TASKS, query=1)
        meta, drawn = stage.init(study, generator(0)), stage.draw(study, generator(1))
        tasks = [
            (sx.float()[:, None] / 255, sy, qx.float()[:, None] / 255, qy)
            for sx, sy, qx, qy in zip(drawn.support_x, drawn.support_y, drawn.query_x, drawn.query_y, strict=True)
        ]
        higher, torchopt = (Torch(meta["net"]) for _ in range(2))
        play = recorded(partial(stage.gradient, study))
        work = {
            "ours": partial(play, meta, drawn, PROGRESS),
            "higher": by_higher(higher, tasks, steps),
            "TorchOpt": by_torchopt(torchopt, tasks, steps),
        }
        loss, gradient = work["ours"]()
        for name, net in (("higher", higher), ("TorchOpt", torchopt)):
            assert abs(work[name]() - float(loss)) < 1e-5, name
            theirs = dict(net.named_parameters())["head.weight"].grad
            head_gradient = gradient["net"]["head.weight"]
            gap = float((theirs.T - head_gradient).norm() / head_gradient.norm())
            print(f"  {name}, {steps} inner steps: relative gap of the gradients {gap:.1e}", flush=True)
            assert gap < 1e-2, name
        seconds = interleaved(work, 3)
        ratios[f"ours at {steps} inner steps, ms"] = 1e3 * seconds["ours"]
        ratios |= {f"{name} / ours at {steps} inner steps": seconds[name] / seconds["ours"] for name in list(work)[1:]}
    return ratios


def parts(images: ClassPool) -> dict[str, float]:
    """What episodes cost, and what caching a frozen encoder's features saves."""
    study = TaskDistribution(Conv4(32, norm="batch"), images, images)
    stage = MAML(steps=1, rate=RATE, tasks=TASKS, query=1)
    meta, drawn, chance = stage.init(study, generator(0)), stage.draw(study, generator(1)), generator(2)
    grouped = TaskDistribution(Conv4(32, halving="stride"), images, images)
    maml = recorded(partial(stage.gradient, study))
    work = {"episodes": partial(stage.draw, study, chance), "MAML": partial(maml, meta, drawn, PROGRESS)}
    for kind, fields in {"OML": {}, "OML's inner loop": {"query": 1, "remember": 1}}.items():
        for cached in (True, False):
            method = OML(way=20, shot=5, cached=cached, **fields)
            first, line = method.init(grouped, generator(0)), method.draw(grouped, generator(1))
            plain = partial(method.gradient, grouped)
            for way, call in (("called", plain), ("recorded", recorded(plain))):
                work[f"{kind}, {way}, {cached}"] = partial(call, first, line, PROGRESS)
    seconds = interleaved(work, 3)
    ratios = {"episodes, share": seconds["episodes"] / (seconds["episodes"] + seconds["MAML"])}
    for kind in ("OML's inner loop", "OML"):
        for way in ("called", "recorded"):
            name = f"{kind}, {way}"
            ratios[f"{name}: encoder inside / cached"] = seconds[f"{name}, False"] / seconds[f"{name}, True"]
    return ratios


SAME = {"tasks": 4, "way": 5, "shot": 1, "query": 1}  # episodes of every method


def episodic_methods() -> dict[str, MetaLearner]:
    """Every method that learns from episodes of classes alone, without their descriptors, by name, on the same episodes."""
    found = {name: make() for name, make in vocabulary("initialisations").items()}
    return {
        name: replace(method, **SAME)
        for name, method in sorted(found.items())
        if isinstance(method, MetaLearner) and "classes" in method.kinds and not method.described
    }


def beside_maml(images: ClassPool, model: Model = NET, repeats: int = 3) -> dict[str, float]:
    """Seconds of each method's meta-gradient over those of MAML's, whose milliseconds come first."""
    study, work = TaskDistribution(model, images, images), {}
    for name, method in episodic_methods().items():
        meta, drawn = method.init(study, generator(0)), method.draw(study, generator(1))
        work[name] = partial(recorded(partial(method.gradient, study)), meta, drawn, PROGRESS)
    seconds = interleaved(work, repeats)
    maml = seconds["MAML"]
    return {"MAML, ms": 1e3 * maml, **{name: value / maml for name, value in seconds.items() if name != "MAML"}}


def beside_encoder(images: ClassPool, model: Model = NET, repeats: int = 20) -> dict[str, float]:
    """Seconds of a metric method's meta-gradient over those of the encoder's passes, on the same images."""
    study, ratios = TaskDistribution(model, images, images), {}
    for words, sizes in (("20 ways", {"way": 20, "tasks": 1}), ("5 ways, 8 tasks", {"way": 5, "tasks": 8})):
        methods = {make.__name__: make(shot=1, query=5, **sizes) for make in (ProtoNet, MatchingNet)}
        drawn = methods["ProtoNet"].draw(study, generator(1))
        metas = {name: method.init(study, generator(0)) for name, method in methods.items()}
        work = {
            name: partial(recorded(partial(method.gradient, study)), metas[name], drawn, PROGRESS)
            for name, method in methods.items()
        }
        x = torch.cat([drawn.support_x, drawn.query_x], 1).to(torch.float32) / 255
        batches = {"encoder": list(x)}
        if len(x) > 1:
            batches = {"encoder, task by task": list(x), "encoder, all at once": [x.flatten(0, 1)]}
        for name, rows in batches.items():
            work[name] = partial(recorded(partial(encoder_passes, model)), metas["ProtoNet"]["net"], rows)
        seconds = interleaved(work, repeats)
        ratios |= {f"{name}; {words}, ms": 1e3 * seconds[name] for name in batches}
        ratios |= {
            f"{name} / {encoder}; {words}": seconds[name] / seconds[encoder] for encoder in batches for name in methods
        }
    return ratios


def encoder_passes(model: Model, net: Net, batches: list[Tensor]) -> Net:
    """Forward and backward, batch by batch, with a loss that costs next to nothing."""

    def loss(net: Net) -> Tensor:
        return torch.stack([model.features(net, x).square().mean() for x in batches]).mean()

    return torch.func.grad(loss)(net)


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"))
    words.add_argument("--output", type=Path, default=Path("docs/speed.json"))
    words.add_argument("--only", default="", help="the beginning of a section's title")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    images = class_pool(load_dataset("omniglot-background", chosen.data_root), rotations=True)
    for title, measure in {
        "second-order MAML against peers": against_peers,
        "parts of a meta-iteration": parts,
        "methods beside MAML": beside_maml,
        "metric episodes beside the encoder alone": beside_encoder,
    }.items():
        if title.startswith(chosen.only):
            record(title, NOTES[title], measure(images), chosen.output)


if __name__ == "__main__":
    main()
