"""LwF, and the warm-up of its paper, against a plain float64 loop written from Li and Hoiem (2016), in each setting.

y' = y^(1/T) / sum_j y_j^(1/T) of the softmax y is taken as it stands there; the answers of old heads to the new task's rows
are recorded before the task, as there.
"""

from __future__ import annotations

import pytest
import torch

from lifelong.strategies.distillation.lwf import LwF
from lifelong.strategies.regularisation.warm_up import WarmUp
from tests.reference.plain_methods import descend, detached, leaves, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of

PER_TASK = 2  # classes; in stream_of, task t of the class- and task-incremental stream has classes 2 t and 2 t + 1


def flattened(logits, temperature):
    """Softmax, then its powers 1 / T, normed again."""
    powers = torch.softmax(logits, 1) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def distilled(old, new, temperature):
    """-sum_c y'_c log y^'_c, mean over rows."""
    return -(flattened(old, temperature) * flattened(new, temperature).log()).sum(1).mean()


def old_loss(setting, t, recorded, logits, temperature, first=False):
    """first: a planted error, the first old head alone."""
    if setting == "task":
        heads = [slice(PER_TASK * k, PER_TASK * (k + 1)) for k in range(1 if first else t)]
        return sum(distilled(recorded[:, head], logits[:, head], temperature) for head in heads)
    if setting == "domain":
        return (1 if first else t) * distilled(recorded, logits, temperature)
    target = flattened(recorded[:, : PER_TASK * (1 if first else t)], temperature)
    target = torch.nn.functional.pad(target, (0, logits.shape[1] - target.shape[1]))
    return -(target * flattened(logits, temperature).log()).sum(1).mean()


def lwf(start, tasks, setting, strength, temperature, factor, warm=0, **planted):
    """warm: steps of each task but the first in which only the new head moves."""
    params = leaves(start)
    steps = adam(list(params.values()))
    for t, batches in enumerate(tasks):
        with torch.no_grad():
            recorded = [scores(params, rows.x) for rows in batches]
        for i, rows in enumerate(batches):
            logits = scores(params, rows.x)
            total = row_losses(logits, rows).mean()
            if t:
                total = total + factor * strength * old_loss(setting, t, recorded[i], logits, temperature, **planted)
            before = detached(params)
            descend(steps, total)
            if t and i < warm:
                with torch.no_grad():
                    for name, p in params.items():
                        learns = torch.zeros_like(p, dtype=torch.bool)
                        if name.startswith("head."):
                            learns[..., slice(PER_TASK * t, PER_TASK * (t + 1)) if setting != "domain" else ...] = True
                        p.copy_(torch.where(learns, p, before[name]))
    return detached(params)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_lwf_is_its_plain_loop(setting, scaled):
    ours = beside(LwF(0.7, 3.0, scaled), stream_of(setting))
    factor = 3.0**2 if scaled else 1.0

    def plain(strength=0.7, temperature=3.0, factor=factor, **planted):
        return lwf(ours.start, ours.tasks, setting, strength, temperature, factor, **planted)

    assert gap(ours.net, plain()) < TOLERANCE
    assert gap(ours.net, plain(strength=0.7 * 1.001)) > PLANTED
    assert gap(ours.net, plain(temperature=3.0 * 1.001)) > PLANTED
    assert gap(ours.net, plain(factor=factor * 1.001)) > PLANTED
    assert gap(ours.net, plain(first=True)) > PLANTED


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_the_new_head_learns_alone_at_first(setting):
    ours = beside(LwF(scaled=False) + WarmUp(0.25), stream_of(setting))
    words = (ours.start, ours.tasks, setting, 1.0, 2.0, 1.0)
    assert gap(ours.net, lwf(*words, warm=3)) < TOLERANCE  # 12 steps a task
    assert gap(ours.net, lwf(*words, warm=2)) > PLANTED
    assert gap(ours.net, lwf(*words, warm=4)) > PLANTED


def test_warm_up_alone_is_fine_tuning_with_parameters_put_back():
    ours = beside(WarmUp(0.25), stream_of("task"))
    assert gap(ours.net, lwf(ours.start, ours.tasks, "task", 0.0, 2.0, 1.0, warm=3)) < TOLERANCE
