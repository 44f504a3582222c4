"""A loss far above those before it: a sign of bad records, or of a learning rate that is too high."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

_WINDOW = 64  # iterations that a loss is compared with
_FEWEST = 16  # iterations before anything is called a spike
_TO_DEVIATION = 1.4826  # from the median absolute deviation of a normal distribution to its standard deviation
_LEAST = 0.05  # of the median: losses that hardly vary are no measure of a deviation


@dataclass(frozen=True, kw_only=True)
class Spike:
    """A loss and what it was expected to stay below."""

    loss: float
    usual: float
    limit: float


class SpikeWatch:
    """Compares each loss with the median of the last iterations, by their robust standard deviation.

    It begins anew in every process: a resumed run says nothing about its first iterations.
    """

    def __init__(self, deviations: float) -> None:
        self._deviations = deviations
        self._losses: deque[float] = deque(maxlen=_WINDOW)

    def look(self, loss: float) -> Spike | None:
        """Call it once a step. A new level of losses is a spike at first, and usual after half a window."""
        spike = self._spike(loss)
        self._losses.append(loss)
        return spike

    def _spike(self, loss: float) -> Spike | None:
        if len(self._losses) < _FEWEST:
            return None
        usual = statistics.median(self._losses)
        deviation = _TO_DEVIATION * statistics.median(abs(one - usual) for one in self._losses)
        limit = usual + self._deviations * max(deviation, _LEAST * abs(usual))
        return Spike(loss=loss, usual=usual, limit=limit) if loss > limit else None
