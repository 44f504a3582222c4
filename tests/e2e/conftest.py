"""One tiny twin, one artifact store and one Airflow for the whole session.

The store is the recipe's own, beside the twin: what one test has made the next one reuses.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qwen3_ops.procfs import Identity, identify, with_variable
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


class Airflow:
    """A running Airflow as its REST API shows it."""

    dag = "/api/v2/dags/qwen3_lora_sft"

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        token = self.http.post("/auth/token", json={"username": user, "password": password}).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def trigger(self, **conf: Any) -> str:
        """Start a run and return its id."""
        answer = self.http.post(f"{self.dag}/dagRuns", json={"logical_date": None, "conf": conf})
        assert answer.status_code == 200, answer.text
        return answer.json()["dag_run_id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.dag}/dagRuns/{run_id}").raise_for_status().json()

    def set_run_state(self, run_id: str, state: str) -> None:
        self.http.patch(f"{self.dag}/dagRuns/{run_id}", json={"state": state}).raise_for_status()

    def task(self, run_id: str, task_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}").raise_for_status().json()

    def log(self, run_id: str, task_id: str, *, attempt: int = 1) -> str:
        """Empty while the attempt has none."""
        answer = self.http.get(
            f"{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}",
            headers={"Accept": "application/json"},
            params={"full_content": True},
        )
        return "" if answer.status_code == 404 else answer.raise_for_status().text

    def clear(self, run_id: str, task_id: str) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.http.post(f"{self.dag}/clearTaskInstances", json=body).raise_for_status()

    def wait_for_run(self, run_id: str, *, seconds: float) -> str:
        return wait_for(f"end of {run_id}", lambda: self._ended(self.run(run_id)["state"]), seconds=seconds)

    def wait_for_task(self, run_id: str, task_id: str, *states: str, seconds: float) -> str:
        def look() -> str | None:
            state = self.task(run_id, task_id)["state"]
            return state if state in states else None

        return wait_for(f"{task_id} to be {' or '.join(states)}", look, seconds=seconds)

    @staticmethod
    def _ended(state: str) -> str | None:
        return state if state in ("success", "failed") else None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `.demo` of the repository."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def twin(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "qwen3_ops", "make-tiny", "--output", str(folder / "twin")], check=True, cwd=folder)
    return folder / "twin"


@pytest.fixture(scope="session")
def twin_environment(twin: Path) -> dict[str, str]:
    return {**os.environ, "QWEN3_OPS_TWIN_DIR": str(twin)}


@pytest.fixture(scope="session")
def airflow(folder: Path, twin: Path) -> Iterator[Airflow]:
    """What `make ui` starts; ended by Ctrl-C, after which nothing may be left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        str(ROOT / "scripts" / "ui.py"),
        "--home",
        str(folder / "airflow-ui"),
        "--twin",
        str(twin),
        "--port",
        str(port),
    ]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert ui.stdout is not None
    try:
        said = ""
        for line in ui.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        url, user, password = (re.search(pattern, said)[1] for pattern in (r"ready: (http://[^/]+)", r"login: (\S+)", r"password: (\S+)"))
        yield Airflow(url, user=user, password=password)
    finally:
        started = _descendants(ui.pid)
        ui.send_signal(signal.SIGINT)
        try:
            ui.wait(timeout=90)
        finally:
            left = {process for process in started | with_variable("QWEN3_OPS_TWIN_DIR", str(twin)) if process.is_alive()}
            for process in left:
                os.kill(process.pid, signal.SIGKILL)
    assert len(started) > 8, "the parts of Airflow were seen"
    assert left == set(), "make ui left processes behind"
    assert ui.returncode == 0, "Ctrl-C is the normal end"


def _descendants(root: int) -> set[Identity]:
    """``root`` and every process below it, as `ps` shows them."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (row.split() for row in listing.splitlines())}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {process for process in map(identify, found) if process is not None}
