"""What never changes while a run goes on: the network, the data, and the index of one seed's stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, Block, Outputs, Params
from lifelong.models.base import Described, Hook, Model
from scenarios.brief import in_brief
from scenarios.stream import Dataset


@dataclass(frozen=True)
class Problem:
    """Model and dataset, shared by all seeds, and the index of one seed (the fleet maps over them).

    index: `scenarios.stream.stream_index` without the leading S. tasks: T, or 1 where the stream does not say how many there
    are. batch: rows of the stream in a step. task_rows, validation_rows: N and V of a finished task, padding included.
    task_ends: whether the learner is told when a task ends.
    """

    model: Model
    dataset: Dataset
    index: dict[str, Tensor]
    setting: str
    classes: int
    tasks: int
    batch: int
    dtype: torch.dtype = torch.float32
    task_rows: int = 0
    validation_rows: int = 0
    task_ends: bool = True
    __repr__ = in_brief

    @property
    def device(self) -> torch.device:
        """Where the data lies and the arithmetic happens."""
        return self.dataset.x.device

    def zeros(self, *shape: int) -> Tensor:
        """Zeros in the run's precision, where its tensors lie."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row, as a network's `init` takes it."""
        if "task_embedding" in self.index:
            shape = self.dataset.shape
            square = len(shape) in (2, 3) and shape[-1] == shape[-2]
            image = (shape[0] if len(shape) == 3 else 1, shape[-1]) if square else (0, 0)
            return Described(math.prod(shape), self.index["task_embedding"].shape[-1], *image)
        return self.dataset.shape

    def x(self, row: Tensor, task: Tensor) -> Tensor:
        """Rows as the network sees them in their task: [B, ...], bytes scaled to 0 ... 1.

        A network that takes a task's task_embedding [Z] sees flat rows with the task_embedding at their end, [B, F + Z].
        """
        x = self.dataset.x[row]
        if "permutation" in self.index:
            x = x.flatten(1).gather(1, self.index["permutation"][task]).view(x.shape)
        x = scaled(x, self.dtype)
        if "angle" in self.index:
            x = rotate(x, self.index["angle"][task].to(self.dtype))
        if "task_embedding" in self.index:
            x = torch.cat([x.flatten(1), self.index["task_embedding"][task].to(self.dtype)], 1)
        return x

    @property
    def alike_in_all_tasks(self) -> bool:
        """Whether the network sees a row in the same way whatever the task, and the member."""
        return not {"permutation", "angle", "task_embedding"} & self.index.keys()

    def y(self, row: Tensor, task: Tensor) -> Tensor:
        """Classes of the stream as training shows them, int64 [B]; -1 where the label is missing."""
        if "given" not in self.index:
            return self.index["label"][task, self.dataset.y[row]]
        original = self.index["given"][row]  # labels by row: noise, or none at all
        return torch.where(original < 0, -1, self.index["label"][task, original.clamp(min=0)])

    def numbers(self, row: Tensor, task: Tensor) -> Tensor:
        """What tasks of numbers ask of each output [B, C], NaN where nothing is asked, as of rows that were made."""
        column = self.index["column"][task]  # [B, C]
        assert self.dataset.targets is not None
        asked = self.dataset.targets[row].gather(1, column.clamp(min=0)).to(self.dtype)
        return asked.masked_fill((column < 0) | (row < 0)[:, None], torch.nan)

    def allowed(self, task: Tensor) -> Tensor:
        """The classes that compete for rows of these tasks, bool [B, C]."""
        return self.index["allowed"][task]

    def features(self, params: Params, x: Tensor, at: Hook | None = None) -> Tensor:
        """The network's features [B, F]; `at` sees each layer, see `lifelong.models.base.Hook`."""
        return self.model.features(params["net"], x, at)

    def logits(self, params: Params, x: Tensor, at: Hook | None = None) -> Tensor:
        """The network's scores for all classes [B, C]."""
        return self.model.head(params["net"], self.features(params, x, at), at)

    def outputs(self, params: Params, x: Tensor, at: Hook | None = None) -> Outputs:
        """Scores and features in one forward pass."""
        features = self.features(params, x, at)
        return Outputs(self.model.head(params["net"], features, at), features)

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each row [B], by its kind.

        Classes: cross-entropy over those open to the row, mixed with its soft target where it has one; 0 where the
        label is missing. Numbers: the mean square over the outputs that are asked for and not missing.
        """
        log_p = log_softmax(logits, batch.allowed)
        if "given" in self.index:
            hard = -log_p.gather(1, batch.y.clamp(min=0)[:, None])[:, 0]
            rows = torch.where(batch.y < 0, torch.zeros_like(hard), hard)
        else:
            rows = -log_p.gather(1, batch.y[:, None])[:, 0]
        if isinstance(batch.target, Tensor):
            soft = -(batch.target * torch.where(batch.allowed, log_p, torch.zeros_like(log_p))).sum(1)
            rows = (1 - batch.soft) * rows + batch.soft * soft
        if isinstance(batch.numbers, Tensor):
            rows = torch.where(self.index["numeric"][batch.task], squares(logits, batch.numbers), rows)
        return rows

    def objective(self, params: Params, batch: Batch) -> tuple[Tensor, Outputs]:
        """The plain objective, sum_i w_i l_i, and what its one forward pass made."""
        outputs = self.outputs(params, batch.x)
        return (batch.weight * self.loss_rows(outputs.logits, batch)).sum(), outputs

    def gradient(self, params: Params, row: Tensor, task: Tensor, weight: Tensor) -> Params:
        """Gradient of the weighted loss of some rows [R] with respect to all parameters."""
        batch = self.batch_of_rows(row, task, weight)
        return torch.func.grad(lambda p: self.objective(p, batch)[0])(params)

    def batch_of(self, rows: Block) -> Batch:
        """What the stream shows in one step, looked up: the rows that count share the weight equally."""
        share = rows.shown.to(self.dtype)
        batch = self.batch_of_rows(rows.row, rows.task, share / share.sum().clamp(min=1))
        progress = rows.progress.to(self.dtype)
        return batch.replace(first_seen=rows.first_seen, shown=rows.shown, progress=progress, draws=rows.draws)

    def batch_of_rows(self, row: Tensor, task: Tensor, weight: Tensor) -> Batch:
        """Rows of the dataset in their tasks as a batch: row, task int64 [R], weight [R]."""
        yes = torch.ones_like(row, dtype=torch.bool)
        return Batch(
            row=row,
            task=task,
            x=self.x(row, task),
            y=self.y(row, task),
            weight=weight,
            allowed=self.allowed(task),
            first_seen=yes,
            shown=yes,
            progress=weight.new_zeros(()),
            numbers=self.numbers(row, task) if "column" in self.index else (),
            bounds=(len(row),),
        )


def flush_denormals() -> None:
    """Let the processor take numbers below the smallest normal one, 1e-38 in float32, for 0, in the whole process.

    A moment of an input that stays black decays to such numbers, each of which costs a hundred normal ones: on
    Split-MNIST steps of Adam took three times as long after a few hundred. What such a moment moves a weight by is below
    1e-30, which no weight that is not itself so small can tell from 0.
    """
    torch.set_flush_denormal(True)


def squares(scores: Tensor, numbers: Tensor) -> Tensor:
    """Mean squared difference over the outputs that are asked for [B]; 0 where none is. NaN asks for nothing."""
    asked = ~numbers.isnan()
    difference = torch.where(asked, scores - numbers.nan_to_num(), torch.zeros_like(scores))
    return difference.square().sum(1) / asked.sum(1).clamp(min=1)


def scaled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows as numbers a network can take: bytes become 0 ... 1, anything else keeps its values."""
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x.to(dtype)


def log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log probabilities [B, C] over the classes that compete; minus infinity for the others."""
    return F.log_softmax(logits.masked_fill(~allowed, -torch.inf), 1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn images [B, H, W] or [B, K, H, W] by angles in degrees [B], bilinear, black outside."""
    images = x if x.ndim == 4 else x[:, None]
    radians = angle * (torch.pi / 180)
    zero = torch.zeros_like(radians)
    rows = [radians.cos(), -radians.sin(), zero, radians.sin(), radians.cos(), zero]
    theta = torch.stack(rows, 1).view(-1, 2, 3)
    height, width = images.shape[-2:]
    across, down = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) * ((n - 1) / n) for n in (width, height))
    place = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], -1)
    place = torch.cat([place, torch.ones_like(place[..., :1])], -1).view(-1, 3)
    # torch's affine_grid in a matrix product, which vmap maps: its own would go member by member
    grid = (place @ theta.mT).view(-1, height, width, 2)
    return F.grid_sample(images, grid, align_corners=False).view(x.shape)
