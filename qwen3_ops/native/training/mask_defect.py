"""Megatron-LM 0.8.0's damaged loss mask, imitated so that its pre-training curves can be repeated.

``GPTDataset`` makes its loss mask once in each worker of the data loader, hands the same tensor
to every sample and writes a zero into it where a label is the padding token. From then on that
position is left out of all samples of that worker, whatever token stands there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qwen3_ops.native.data.turns import IGNORE_INDEX


class LossMaskDefect:
    """The masks of the workers of one data loader.

    They begin whole in every process, as the real ones do: a run that is resumed forgets the damage
    that was done before. Worker ``n % workers`` gets the n-th micro batch of the process.

    Args:
        workers: the real run's ``--num-workers``; 0 (all in the main process) is one mask as well.
        seq_length: tokens of a sample.
    """

    def __init__(self, workers: int, *, seq_length: int) -> None:
        self._left_out = torch.zeros(max(workers, 1), seq_length, dtype=torch.bool)
        self._first: int | None = None

    def damage(self, labels: Tensor, *, first: int) -> Tensor:
        """``labels`` [b, s] of the micro batch that starts with sample ``first``, less what the mask leaves out.

        Its rows share one mask, so a padding token of any of them counts for all.
        """
        if self._first is None:
            self._first = first
        mask = self._left_out[(first - self._first) // len(labels) % len(self._left_out)]
        mask |= (labels == IGNORE_INDEX).any(0)
        return labels.masked_fill(mask, IGNORE_INDEX)
