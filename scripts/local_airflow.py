"""What `make demo` and `make ui` share: a home of their own, the tiny twin, nothing of the user's touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"

SESSION_VARIABLE = "QWEN3_OPS_SESSION"
"""Every process started on behalf of one command carries this variable, so that all can be ended with it."""


def start_session(home: Path, twin: Path, **more: str) -> str:
    """Point this process and all it starts at ``home`` and ``twin``; must come before Airflow is imported.

    Returns:
        The value of ``SESSION_VARIABLE``.
    """
    inherited = [name for name in os.environ if name.startswith(("AIRFLOW_", "_AIRFLOW", "__AIRFLOW"))]
    for name in inherited:  # another Airflow's settings are not ours
        del os.environ[name]
    session = uuid.uuid4().hex
    os.environ.update(
        {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "QWEN3_OPS_TWIN_DIR": str(twin),
            "QWEN3_AIRFLOW_MODEL": "tiny",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # standalone starts `airflow`
            SESSION_VARIABLE: session,
            **more,
        }
    )
    home.mkdir(parents=True, exist_ok=True)
    return session


def ensure_database(home: Path) -> None:
    """`airflow db migrate`, unless this version of Airflow has done it here before."""
    stamp, version = home / "migrated", metadata.version("apache-airflow")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == version:
        return
    print("Preparing Airflow's database", flush=True)
    run_quietly([sys.executable, "-m", "airflow", "db", "migrate"])
    stamp.write_text(version, encoding="utf-8")


def ensure_twin(twin: Path) -> None:
    """Make the tiny twin, once; a half-made one never takes its place."""
    if twin.is_dir():
        return
    print("Making the tiny twin: a small Qwen3 with tokenizer, data and questions (once)", flush=True)
    half_made = twin.with_name(f".{twin.name}.half-made")
    shutil.rmtree(half_made, ignore_errors=True)
    half_made.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "qwen3_ops", "make-tiny", "--output", str(half_made)], check=True)
    half_made.rename(twin)


def run_quietly(argv: list[str], *, env: Mapping[str, str] | None = None) -> None:
    """Run a command and show what it printed only when it fails."""
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(argv)} ended with status {done.returncode}")
