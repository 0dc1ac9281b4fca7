"""A line of PyTorch's side of `cpu.py`. The module of a group has `lines(what, network, batch)`, which says what
`tintype bench WHAT --network NETWORK --batch BATCH` measures, under the same names."""

from dataclasses import dataclass
from typing import Callable

import torch


@dataclass(frozen=True)
class Line:
    name: str
    # Makes the call that is timed: networks are made only for lines that are wanted.
    make: Callable[[], Callable[[], object]]


def forward(name, make):
    """A line whose call needs no gradient."""
    return Line(name, lambda: torch.inference_mode()(make()))
