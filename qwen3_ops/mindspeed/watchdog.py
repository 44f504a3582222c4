"""What must not go on: a run that says nothing, and one whose loss is no longer a number."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

from qwen3_ops.errors import BadInput
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis
from qwen3_ops.mindspeed.diagnosis.signature import Fault
from qwen3_ops.mindspeed.log_events import Event, Iteration

SILENCE = "QWEN3_OPS_SILENCE_SECONDS"
"""Environment variable: seconds without a line after which a command is stopped."""

_SILENCE: Mapping[str, float] = {"train": 5400, "convert-ckpt": 3600, "preprocess-data": 3600, "generate": 3600, "evaluate": 3600}
# Longer than HCCL's own limit of 1800 s, so that its error comes first, and than saving 200 GB.


def silence_of(verb: str) -> float:
    """Raises BadInput: the variable holds no positive number."""
    return seconds_of(SILENCE, _SILENCE[verb])


def seconds_of(variable: str, default: float) -> float:
    """What an environment variable says.

    Raises:
        BadInput: it is no positive number.
    """
    text = os.environ.get(variable)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise BadInput("not a number of seconds", value=text, source=variable, remedy="Give a positive number, or unset it.")
    return seconds


class Watchdog:
    """``silence``: seconds without a line that are too many."""

    def __init__(self, *, silence: float) -> None:
        self._silence = silence
        self._heard = time.monotonic()

    def hear(self) -> None:
        self._heard = time.monotonic()

    def bark(self) -> Diagnosis | None:
        """Why the run must be stopped, or None."""
        if time.monotonic() - self._heard < self._silence:
            return None
        return Diagnosis(
            name="no-output",
            cause=f"nothing was printed for {self._silence:.0f} s: a rank hangs, or the other end of a pipe died",
            remedy="Look at the last lines; `py-spy dump` on a worker shows where it hangs; a dead saver can block a conversion's loader.",
            fault=Fault.INFRASTRUCTURE,
        )


def not_a_number(event: Event, line: str) -> Diagnosis | None:
    """An iteration whose loss is not a number: Megatron leaves the loss out of the line and trains on."""
    if not isinstance(event, Iteration):
        return None
    if event.lm_loss is not None:
        bad = not math.isfinite(event.lm_loss)
    else:  # also left out where it is zero, or the iteration was skipped
        bad = not event.skipped and event.grad_norm is not None and not math.isfinite(event.grad_norm)
    if event.nans or bad:
        return Diagnosis.of("nan-iterations", lines=(line,))
    return None
