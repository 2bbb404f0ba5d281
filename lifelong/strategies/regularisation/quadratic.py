"""The penalty that EWC, SI and their kin share: a paraboloid around past parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Params


def quadratic_gradient(gradients: Params, params: Params, memory: dict[str, Any], strength: float | Tensor) -> Params:
    """The gradient with that of strength / 2 x sum_i F_i (p_i - c_i)^2 added: g_i + strength x F_i (p_i - c_i).

    memory: importance F and centre c, shaped like the net. Written as a gradient because it is two passes over the
    parameters, where the same penalty through autograd is eight: on a processor, a third of a whole step. A strength
    that varies within a fleet is a tensor, and takes a third pass; the numbers are the same.
    """
    net, importance, centre = params["net"], memory["importance"], memory["centre"]
    varies = isinstance(strength, Tensor)
    moved = {}
    for name, gradient in gradients["net"].items():  # fixed parameters have none
        firmness = strength * importance[name] if varies else importance[name]
        value = 1.0 if varies else strength
        moved[name] = torch.addcmul(gradient, firmness, net[name] - centre[name], value=value)
    return {**gradients, "net": moved}
