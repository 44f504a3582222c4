"""Airflow's parts as processes of their own, so that each may be killed and started again."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from airflow_rest import Airflow
from qwen3_ops.procfs import in_session
from waiting import wait_for

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
HOST = "127.0.0.1"


class AirflowServer:
    """A whole Airflow on loopback with its home in ``home``, quick to notice that a part is gone."""

    def __init__(self, home: Path, *, dags: Path, variables: dict[str, str]) -> None:
        self.home = home
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        port, worker_logs, trigger_logs = free_ports(3)
        self.url = f"http://{HOST}:{port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "sqlite_patience.CONNECT_ARGS",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": "sqlite_patience.CONNECT_ARGS",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_DETECTION_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **variables,
        }

    def start(self) -> None:
        self.home.mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self.environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for part in PARTS:
            self.start_part(part)
        wait_for("Airflow to be healthy", self._healthy, seconds=180)

    def start_part(self, part: str) -> None:
        with (self.home / f"{part}.log").open("ab") as log:
            self._running[part] = subprocess.Popen(
                [sys.executable, "-m", "airflow", part], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill_part(self, part: str) -> None:
        """SIGKILL to the part and all that belongs to its session."""
        process = self._running.pop(part)
        members = in_session(process.pid)
        for member in members:
            os.kill(member.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for part in list(self._running):
            try:
                self._running[part].wait(timeout=15)
            except subprocess.TimeoutExpired:
                continue
        for part in list(self._running):
            self.kill_part(part)

    def rest(self, dag_id: str) -> Airflow:
        passwords = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())
        ((user, password),) = passwords.items()
        return Airflow(self.url, user=user, password=password, dag_id=dag_id)

    def _healthy(self) -> bool:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
