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

import pytest

from airflow_rest import Airflow
from qwen3_ops.procfs import Identity, identify, with_variable

ROOT = Path(__file__).resolve().parents[2]


NO_SERVER = ("test_rehearsal", "test_sharded")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.path.stem not in NO_SERVER:
                item.add_marker(pytest.mark.server)


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
