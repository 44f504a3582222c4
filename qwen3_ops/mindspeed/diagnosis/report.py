"""A diagnosis as a person reads it at the end of a task's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen3_ops.errors import ExitCode
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis

_WIDTH = 200  # characters of a quoted line


def block(diagnosis: Diagnosis) -> str:
    """What happened, where, the cure, and whether Airflow tries again; with the lines that show it."""
    where = [diagnosis.source] if diagnosis.source else []
    where += [f"rank {diagnosis.rank}"] if diagnosis.rank is not None else []
    where += [diagnosis.printed_at] if diagnosis.printed_at else []
    rows = [
        f"=== diagnosis: {diagnosis.name} ===",
        f"cause:   {diagnosis.cause}",
        f"class:   {fault_name(diagnosis)}; {decision(diagnosis.exit_code)}",
        *([f"where:   {', '.join(where)}"] if where else []),
        f"remedy:  {diagnosis.remedy}",
        *([f"seen too: {', '.join(diagnosis.also)}"] if diagnosis.also else []),
        *(f"  | {line[:_WIDTH]}" for line in diagnosis.lines),
        "=" * 40,
    ]
    return "\n".join(rows)


def decision(code: ExitCode) -> str:
    return "the next try may succeed" if code.retryable else "a retry changes nothing"


def fault_name(diagnosis: Diagnosis) -> str:
    return "unknown" if diagnosis.fault is None else diagnosis.fault.value


def as_event(diagnosis: Diagnosis) -> Mapping[str, Any]:
    """Fields of the ``diagnosis`` event."""
    return {
        "name": diagnosis.name,
        "cause": diagnosis.cause,
        "remedy": diagnosis.remedy,
        "fault": fault_name(diagnosis),
        "exit_code": int(diagnosis.exit_code),
        "retried": diagnosis.retried,
        "source": diagnosis.source,
        "rank": diagnosis.rank,
        "printed_at": diagnosis.printed_at,
        "lines": list(diagnosis.lines),
        "also": list(diagnosis.also),
    }


def print_known() -> None:
    """The failure table, for people."""
    from rich.console import Console
    from rich.table import Column, Table

    from qwen3_ops.mindspeed.diagnosis.table import SIGNATURES

    table = Table(Column("name", no_wrap=True), "class", "retried", "cause", "remedy")
    for row in SIGNATURES:
        table.add_row(row.name, row.fault.value, "yes" if row.fault.exit_code.retryable else "no", row.cause, row.remedy)
    Console().print(table, markup=False)
