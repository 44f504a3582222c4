"""How many threads a model is worth."""

from __future__ import annotations

import os

import torch

from qwen3_ops.model import ModelSpec

_ONE_THREAD_BELOW = 20_000_000  # parameters: handing work to threads costs more than it saves


def choose_threads(spec: ModelSpec) -> None:
    """One thread for tiny models; ``OMP_NUM_THREADS`` has the last word."""
    if "OMP_NUM_THREADS" not in os.environ and spec.num_parameters < _ONE_THREAD_BELOW:
        torch.set_num_threads(1)
