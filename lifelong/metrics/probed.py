"""What probes found, in short: the first number, the last, and the mean of all moments, each with its interval over seeds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.core.result import FEW_SHOT, Result
from lifelong.metrics.intervals import Estimate, estimate, one_setting
from lifelong.probes.linear_probe import LINEAR_PROBE


class Probed(NamedTuple):
    """Of one number that was measured again and again: how often, and three estimates in its own unit, no percent."""

    moments: int
    first: Estimate
    last: Estimate
    mean: Estimate


def probed(result: Result) -> dict[str, Probed]:
    """By the name of each probe; one that has several numbers at a moment [S, moments, K] counts them: "name, 2".

    Moments at which a number was not there (NaN) are passed over. What `few_shot` and `linear_probe` found is read by metrics
    of their own and is left out. Raises NotMeasured where numbers varied.
    """
    one_setting(result)
    found = {}
    for name, values in result.probes.items():
        if name.startswith(FEW_SHOT) or name == LINEAR_PROBE:
            continue
        each = values.unsqueeze(2) if values.dim() == 2 else values.flatten(2)
        for k in range(each.shape[2]):
            numbers = each[:, :, k].to(torch.float64)
            shown = numbers[:, ~numbers.isnan().all(0)]
            if shown.shape[1]:
                found[name if each.shape[2] == 1 else f"{name}, {k + 1}"] = _short(shown, result.kept)
    return found


def _short(numbers: Tensor, kept: Tensor) -> Probed:
    """Of [S, moments]."""
    three = (numbers[:, 0], numbers[:, -1], numbers.nanmean(1))
    return Probed(numbers.shape[1], *(estimate(values, kept) for values in three))
