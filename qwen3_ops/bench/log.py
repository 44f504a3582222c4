"""How many lines of MindSpeed-LLM's log are read in a second, as the supervisor reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from qwen3_ops.bench.machine import describe_machine
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser
from qwen3_ops.mindspeed.log_events import Iteration
from qwen3_ops.mindspeed.log_lines import parse_line
from qwen3_ops.mindspeed.observation import Observation

REACH = 100_000  # lines a second of one core

_TRAINING = (
    " [2026-11-24 10:00:00] iteration {:8d}/  100000 | consumed samples: {:12d} | elapsed time per iteration (ms): 9120.4 | learning rate: "
    "1.249000E-05 | global batch size:    64 | lm loss: 1.234500E+00 | loss scale: 1.0 | grad norm: 0.810 | "
    "number of skipped iterations:   0 | number of nan iterations:   0 |"
)
_OTHERS = (
    "/root/miniconda3/envs/py310/lib/python3.10/site-packages/torch_npu/utils/path_manager.py:82: UserWarning: Warning: The "
    "/usr/local/Ascend/ascend-toolkit/latest owner does not match the current owner.",
    "[rank3]:[W1124 10:00:00.000000 ProcessGroupHCCL.cpp:1] Warning: HCCL only supports the sum of floating point numbers.",
    "INFO:root:correct: B, AI: C, rank: 0",
    "INFO:root:received transformer layer 17",
    "  warnings.warn(",
    " > building indices for blendable datasets ...",
)


class LogFigures(BaseModel):
    """Lines a second of CPU time; the fastest run of each kind of log."""

    model_config = ConfigDict(frozen=True)

    machine: str
    lines: int
    training_lines_per_second: float
    other_lines_per_second: float


def measure(*, lines: int, repeat: int) -> LogFigures:
    """Parse, count and diagnose ``lines`` lines of training, and as many of everything else that is printed."""
    training = [_TRAINING.format(number, 64 * number) for number in range(lines)]
    others = [_OTHERS[number % len(_OTHERS)] for number in range(lines)]
    return LogFigures(
        machine=describe_machine(),
        lines=lines,
        training_lines_per_second=round(max(_rate(training) for _ in range(repeat))),
        other_lines_per_second=round(max(_rate(others) for _ in range(repeat))),
    )


def print_figures(figures: LogFigures) -> None:
    print(f"{figures.machine}, {figures.lines} lines of each kind")
    for what, rate in (("training lines", figures.training_lines_per_second), ("other lines", figures.other_lines_per_second)):
        print(f"{what:<15} {rate:>10,.0f} a second of one core (reach: {REACH:,}) {'reached' if rate >= REACH else 'missed'}")


def _rate(lines: Sequence[str]) -> float:
    seen, diagnoser = Observation(), Diagnoser()
    started = time.process_time()
    for line in lines:
        events = parse_line(line)
        for event in events:
            seen.add(event)
        if not (events and isinstance(events[0], Iteration)):
            seen.texts.feed(line)
            diagnoser.feed(line)
    return len(lines) / (time.process_time() - started)
