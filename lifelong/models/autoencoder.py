"""A variational auto-encoder (Kingma and Welling, 2014) as pure functions of its parameters, for those who make rows or weigh them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.models.base import Net, apply_linear, linear


def autoencoder(features: int, width: int, layers: int, latent: int, generator: torch.Generator) -> Net:
    """Fresh parameters: encoder and decoder of `layers` hidden layers, F pixels in and out, Z latent numbers."""
    net: Net = {}
    linear(net, "encoder0", features, width, generator)
    linear(net, "decoder0", latent, width, generator)
    for i in range(1, layers):
        linear(net, f"encoder{i}", width, width, generator)
        linear(net, f"decoder{i}", width, width, generator)
    for name, leaving in (("mean", latent), ("logvariance", latent), ("image", features)):
        linear(net, name, width, leaving, generator)
    return net


def hidden(vae: Net, name: str, x: Tensor) -> Tensor:
    """The last hidden layer of the encoder or of the decoder, [B, width]."""
    i = 0
    while f"{name}{i}.weight" in vae:
        x, i = apply_linear(vae, f"{name}{i}", x).relu(), i + 1
    return x


def decoded(vae: Net, latent: Tensor) -> Tensor:
    """Log odds of the pixels [B, F] from latent numbers [B, Z]."""
    return apply_linear(vae, "image", hidden(vae, "decoder", latent))


def encoded(vae: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean m and log variance v of the latent numbers of rows [B, F], both [B, Z]."""
    code = hidden(vae, "encoder", x)
    return apply_linear(vae, "mean", code), apply_linear(vae, "logvariance", code)


def autoencoder_loss(vae: Net, x: Tensor, noise: Tensor) -> Tensor:
    """V of each row [B], decoded from m + e^(v / 2) noise, noise [B, Z] standard normal."""
    mean, logvariance = encoded(vae, x)
    image = decoded(vae, mean + (logvariance / 2).exp() * noise)
    surprise = F.binary_cross_entropy_with_logits(image, x, reduction="none").sum(1)
    divergence = -0.5 * (1 + logvariance - mean.square() - logvariance.exp()).sum(1)
    return (surprise + divergence) / x.shape[1]
