"""What happens when a loss or a gradient is not a number, or a loss is far above the last ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen3_ops.errors import QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.spikes import Spike, SpikeWatch


@dataclass(kw_only=True)
class Policy:
    """``--nan-policy`` and ``--loss-spike-policy``; asked before a step changes any weight.

    Attributes:
        records_of: record numbers of micro batches of the step at hand.
    """

    flags: FLAGS
    events: Events
    records_of: Callable[[list[int]], list[int]]
    watch: SpikeWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = SpikeWatch(self.flags.loss_spike_deviations)

    def check_losses(self, losses: Tensor, *, iteration: int) -> bool:
        """Whether a step may be taken, of the losses of its micro batches.

        Raises:
            QualityGate: it may not, and the policy is to stop.
        """
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            return self._not_a_number("loss", bad, iteration=iteration)
        spike = None if self.flags.loss_spike_policy == "off" else self.watch.look(float(losses.mean()))
        if spike is not None:
            self._spiked(spike, losses, iteration=iteration)
        return True

    def check_norm(self, norm: Tensor, *, iteration: int) -> bool:
        """As `check_losses`, of the gradient's norm."""
        return bool(torch.isfinite(norm)) or self._not_a_number("gradient norm", list(range(self.flags.micro_batches)), iteration=iteration)

    def _not_a_number(self, what: str, micro_batches: list[int], *, iteration: int) -> bool:
        said, seen = f"the {what} of iteration {iteration} is not a number", f"seen with the records {self._records(micro_batches)}"
        if self.flags.nan_policy == "stop":
            raise QualityGate(
                said,
                value=seen,
                source=self.flags.data_path[0],
                remedy="Lower --lr or look at these records; the last saved checkpoint is untouched.",
            )
        self.events.warning(f"{said}, its step is left out: {seen}")
        return False

    def _spiked(self, spike: Spike, losses: Tensor, *, iteration: int) -> None:
        high = (losses > spike.limit).nonzero().flatten().tolist()
        said = f"the loss of iteration {iteration} is {spike.loss:.4g}, the last ones were about {spike.usual:.4g}"
        seen = f"seen with the records {self._records(high)}"
        if self.flags.loss_spike_policy == "stop":
            raise QualityGate(
                said,
                value=seen,
                source=self.flags.data_path[0],
                remedy="Look at these records or lower --lr; the last saved checkpoint is untouched. --loss-spike-policy warn goes on.",
            )
        self.events.warning(f"{said}: {seen}")

    def _records(self, micro_batches: list[int]) -> str:
        return ", ".join(map(str, self.records_of(micro_batches)))
