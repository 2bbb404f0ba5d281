"""Networks of ours on rows of any shape that they take."""

from __future__ import annotations

import pytest
import torch

from lifelong.models.convolutional import Conv4
from scenarios.stream import generator


@pytest.mark.parametrize("halving", ["pool", "stride"])
@pytest.mark.parametrize("shape", [(28, 28), (3, 32, 32), (3, 40, 17), (16, 16, 3), (1, 2, 30), (1, 1)])
def test_a_convolution_takes_images_of_any_sides(shape, halving):
    """The head has an input for each feature that there is."""
    model = Conv4(8, 4, halving=halving)
    net = model.init(shape, 5, generator("net"))
    features = model.features(net, torch.zeros(2, *shape))
    assert features.shape == (2, len(net["head.weight"])) and model.head(net, features).shape == (2, 5)
