"""`make ui`: Airflow standalone on loopback, ended with everything it started."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import local_airflow

HOST = "127.0.0.1"
START_SECONDS = 180.0
GRACE_SECONDS = 30.0


def main() -> int:
    options = parse()
    url = f"http://{HOST}:{options.port}"
    session = local_airflow.start_session(options.home, options.twin, **settings(options.port, url))
    local_airflow.ensure_twin(options.twin)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # all end as Ctrl-C does
    log = options.home / "standalone.log"
    print(f"Starting Airflow (its log: {log})", flush=True)
    with log.open("wb") as output:
        airflow = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_healthy(url, airflow, log)
        user, password = login(options.home)
        print(f"\nAirflow is ready: {url}/dags/qwen3_lora_sft\nlogin: {user}\npassword: {password}\nCtrl-C ends it.\n", flush=True)
        return airflow.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        end_everything(session, airflow)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=local_airflow.DEMO / "airflow", help="AIRFLOW_HOME")
    parser.add_argument("--twin", type=Path, default=local_airflow.DEMO / "twin", help="folder of the tiny twin")
    parser.add_argument("--port", type=int, default=None, help="default: 8080, or the next that is free")
    options = parser.parse_args()
    options.home, options.twin = options.home.absolute(), options.twin.absolute()
    if options.port is None:
        options.port = free_port(range(8080, 8180))
    elif not is_free(options.port):
        parser.error(f"port {options.port} is taken")
    return options


def settings(port: int, url: str) -> dict[str, str]:
    """Airflow's settings; without the base URL tasks would look for the server at its default port."""
    taken = {port}
    log_ports = []
    for _ in range(2):
        log_ports.append(free_port(number for number in range(8793, 8993) if number not in taken))
        taken.add(log_ports[-1])
    return {
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
    }


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(candidates: Iterable[int]) -> int:
    for port in candidates:
        if is_free(port):
            return port
    raise SystemExit("no free port found")


def wait_until_healthy(url: str, airflow: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not healthy(url):
        if airflow.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
            raise SystemExit("\n".join([*tail, f"Airflow did not start; its whole log: {log}"]))
        time.sleep(0.3)


def healthy(url: str) -> bool:
    """Whether the server answers and the scheduler and the DAG processor send signs of life."""
    with suppress(urllib.error.URLError, ConnectionError, TimeoutError, ValueError):
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=2) as answer:  # noqa: S310 - our own http URL
            parts = json.load(answer)
        return all((parts.get(name) or {}).get("status") == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))
    return False


def login(home: Path) -> tuple[str, str]:
    """The user and the password that Airflow's simple auth manager made up."""
    ((user, password),) = json.loads((home / "simple_auth_manager_passwords.json.generated").read_text(encoding="utf-8")).items()
    return user, password


def end_everything(session: str, airflow: subprocess.Popen[bytes]) -> None:
    """Ends the stages, Airflow, and whatever those leave behind, in sessions of their own or not."""
    from qwen3_airflow.runtimes.stopper import stop_all
    from qwen3_ops.procfs import Identity, is_session_leader, with_variable

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # the terminal may be gone
        print("Ending Airflow and the stages it runs", flush=True)
    airflow.send_signal(signal.SIGINT)
    told: set[Identity] = set()
    deadline = time.monotonic() + GRACE_SECONDS
    while airflow.poll() is None and time.monotonic() < deadline:
        # Airflow waits for its tasks, and they for their stages: those save and end, also one that starts only now.
        stages = {process for process in with_variable(local_airflow.SESSION_VARIABLE, session) if is_session_leader(process)}
        for process in stages - told:
            if process.pid != airflow.pid:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
        told |= stages
        time.sleep(0.2)
    stop_all(local_airflow.SESSION_VARIABLE, session, session=airflow.pid, grace=5)
    airflow.wait()


if __name__ == "__main__":
    os.chdir(local_airflow.ROOT)
    sys.exit(main())
