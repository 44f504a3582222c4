"""A million lines pass through a task in memory that does not grow with them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from airflow_parts import Task
from qwen3_airflow.ascend.hook import AscendHook
from qwen3_airflow.ascend.operators import AscendContainerOperator

PRINTS = "import sys\nfor line in range(int(sys.argv[1])): print('line', line)"
MILLION = 1_000_000


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "synchronous"])
def test_a_million_lines(monkeypatch, engine, profile, root, deferrable):
    connection = SimpleNamespace(
        host=engine.url, port=None, extra_dejson={"recipe": "cpu", "profile": profile.model_dump(exclude_defaults=True, mode="json")}
    )
    monkeypatch.setattr(AscendHook, "get_connection", classmethod(lambda cls, conn_id: connection))

    def peak_of(lines: int) -> int:
        """KiB of the largest part of the task, all of whose lines were told."""

        def operator() -> AscendContainerOperator:
            return AscendContainerOperator(
                task_id=f"print-{lines}", command=[sys.executable, "-c", PRINTS, str(lines)], folder=str(root), deferrable=deferrable
            )

        task = Task(folder=root / f"airflow-{lines}", make_operator=operator)
        outcomes = [task.worker().wait(seconds=300)]
        if deferrable:
            outcomes.append(task.triggerer(outcomes[-1]).wait(seconds=300))
            outcomes.append(task.worker(resume=outcomes[-1]).wait(seconds=300))
        assert outcomes[-1]["state"] == "success"
        told = task.told("trigger.log") + task.told()
        assert [int(line.split()[1]) for line in told.splitlines() if line.startswith("line ")] == list(range(lines))
        return max(outcome["peak_kib"] for outcome in outcomes)

    few, many = peak_of(1000), peak_of(MILLION)
    assert many - few < 24 * 1024, f"{few} KiB for a thousand lines, {many} KiB for a million"
