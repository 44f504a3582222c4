"""Who may end a run early: a signal, a clock, a counter."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS


class StopRequest:
    """Set by SIGTERM or SIGINT in any process of the run, or by ``--exit-duration-in-mins`` and ``--exit-interval``.

    The loop asks after every step, and all processes get the same answer.

    Attributes:
        urgent: a signal was the reason: there is time for a save, not for more.
    """

    urgent = False

    def __init__(self, flags: FLAGS, world: World) -> None:
        self._flags, self._world = flags, world
        self._signal = 0
        self._started = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        if threading.current_thread() is not threading.main_thread():  # only there handlers can be set
            yield self
            return
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def reason(self, iteration: int) -> str | None:
        """Why the run ends after ``iteration``; None to go on."""
        minutes, interval = self._flags.exit_duration_in_mins, self._flags.exit_interval
        over = minutes is not None and time.monotonic() - self._started >= minutes * 60
        noted = self._world.gather(torch.tensor([self._signal, int(over)], device=self._world.device)).amax(0)
        number, over = int(noted[0]), bool(noted[1])
        self.urgent = number != 0
        if number:
            return signal.Signals(number).name
        if over:
            return f"--exit-duration-in-mins {minutes}"
        if interval is not None and iteration % interval == 0:
            return f"--exit-interval {interval}"
        return None
