"""Few-shot learning with graph neural networks (Garcia and Bruna, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.inner_loop import memberships
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import LearnedComparison, embedded, layers, log_weights
from lifelong.models.base import Net
from scenarios.episodes import Support


@dataclass(frozen=True)
class GraphNet(LearnedComparison):
    """Messages between the rows of a task: each query is a node of its own graph, beside the support's R nodes.

    A node has features v_i, f(x_i) at first, and for each class c numbers u_ic: its label, 1 or 0, and 1 / N for the
    query's. In each of L layers A_ij = softmax over j != i of phi(|v_i - v_j|, sum_c |u_ic - u_jc|), phi a perceptron with
    a hidden layer of H units; then v becomes [v, s(v a + A v b)] and u_c becomes [u_c, s([v, u_c] d + A [v, u_c] e)], s
    the leaky rectifier. The query's score for c is u_c p + A u_c q after the last; the loss is their cross-entropy.

    Weights are shared between the classes, so that any number of them is answered; in the paper labels enter as one
    vector, whose weights are those of one number of ways, and features are normalised over the graphs of a batch.
    """

    least: ClassVar[dict[str, int]] = {**LearnedComparison.least, "depth": 0, "units": 1}

    depth: int = 2
    units: int = 48

    def layers(self, width: int, generator: torch.Generator) -> Net:
        """Of every layer: phi's two, and the maps of a node's own numbers and of those it hears [2 I, O].

        What all links of a node, or all classes, share changes no answer: there the bias is left out, and in the score a
        query's own label.
        """
        widths = {}
        for layer in range(self.depth + 1):
            features, labels = width + layer * self.units, 1 + layer * self.units
            widths |= {f"gap{layer}": (features + labels, self.units), f"link{layer}": (self.units, 1)}
            if layer < self.depth:
                widths[f"feature{layer}"] = (2 * features, self.units)
                widths[f"label{layer}"] = (2 * (features + labels), self.units)
        net = layers({**widths, "score": (2 * labels - 1, 1)}, generator)
        silent = {"score.bias", *(f"link{layer}.bias" for layer in range(self.depth + 1))}
        return {name: leaf for name, leaf in net.items() if name not in silent}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N], each query beside the support alone."""
        shown, asked = embedded(distribution, meta, support, query, way)
        labels = memberships(support.y, way, shown.dtype)
        labels = torch.cat([labels, torch.full_like(labels[:1], 1 / way)])[..., None]  # [R + 1, N, 1]
        weights = log_weights(support, shown.dtype)
        weights = torch.cat([weights, torch.zeros_like(weights[:1])])

        def of_query(row: Tensor) -> Tensor:
            return self.passed(meta["comparison"], torch.cat([shown, row[None]]), labels, weights)[-1]

        return torch.func.vmap(of_query)(asked)

    def passed(self, net: Net, features: Tensor, labels: Tensor, log_weight: Tensor) -> Tensor:
        """A number for each node and class [n, N], from features [n, F] and labels [n, N, 1]; log_weight [n]."""
        for layer in range(self.depth):
            adjacency = _adjacency(net, layer, features, labels, log_weight)
            nodes = torch.cat([features[:, None].expand(-1, labels.shape[1], -1), labels], 2)  # [n, N, C]
            of_labels = _with_heard(adjacency, nodes) @ net[f"label{layer}.weight"] + net[f"label{layer}.bias"]
            of_features = _with_heard(adjacency, features) @ net[f"feature{layer}.weight"] + net[f"feature{layer}.bias"]
            labels = torch.cat([labels, F.leaky_relu(of_labels)], 2)
            features = torch.cat([features, F.leaky_relu(of_features)], 1)
        adjacency = _adjacency(net, self.depth, features, labels, log_weight)
        known = _with_heard(adjacency, labels)[..., 1:]  # but for a query's label, which says nothing
        return (known @ net["score.weight"]).squeeze(2)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "messages between a query and the support"


def _with_heard(adjacency: Tensor, nodes: Tensor) -> Tensor:
    """Nodes' numbers [n, ..., I] beside those they hear: [n, ..., 2 I]."""
    return torch.cat([nodes, (adjacency @ nodes.flatten(1)).view(nodes.shape)], -1)


def _adjacency(net: Net, layer: int, features: Tensor, labels: Tensor, log_weight: Tensor) -> Tensor:
    """How much each node hears of each other one [n, n]: rows sum to 1, and no node hears itself."""
    gaps = (features[:, None] - features).abs(), (labels[:, None] - labels).abs().sum(2)
    hidden = F.leaky_relu(torch.cat(gaps, 2) @ net[f"gap{layer}.weight"] + net[f"gap{layer}.bias"])
    links = (hidden @ net[f"link{layer}.weight"]).squeeze(2) + log_weight
    itself = torch.eye(len(links), dtype=torch.bool, device=links.device)
    return links.masked_fill(itself, -torch.inf).softmax(1)
