"""The machine in a few words, for tables of measurements."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Cores this process may use, CPU model, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{cores} cores, {_cpu_model()}, {memory:.0f} GB"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
