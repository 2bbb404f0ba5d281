"""The folder that every line of the fuzz finds: runs, starts, a user's files, sound ones and damaged ones."""

from __future__ import annotations

import io

import numpy as np

_random = np.random.default_rng(0)
_file = io.BytesIO()
np.savez(_file, x=_random.integers(0, 256, (120, 8, 8), dtype=np.uint8), y=np.arange(120) % 6)
_NET = b"""
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        size = 1
        for length in shape:
            size *= length
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh())
        self.head = nn.Linear(width, classes)
"""
FILES = {
    "my.npz": _file.getvalue(),
    "my_net.py": _NET,
    "exits.py": b"import sys\nsys.exit(0)\n",
    "raises.py": b"raise RuntimeError('no')\n",
    "broken.py": b"def broken(:\n",
    "broken.json": b"{",
    "broken.npz": b"PK\x03\x04 no archive",
    "broken.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "empty": b"",
    "runs/half/run.json": b"{}",
}
LEFT = [
    ["new", "strategy", "my_idea.py"],
    ["new", "scenario", "odd_even.py"],
    ["run", "split-blobs", "--iterations", "2", "--seeds", "2", "--name", "a"],
    ["run", "split-blobs", "--iterations", "2", "--seeds", "2", "--strategy", "Replay(size=9)", "--name", "b"],
    ["pretrain", "split-digits", "--init", "ProtoNet(way=2, query=2, iterations=3, data='my.npz')", "--model", "MLP(12)",
     "--episodes", "2", "--output", "start.safetensors"],
]  # fmt: skip
