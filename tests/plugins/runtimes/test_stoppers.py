"""The processes that keep a grace start in a task's environment, which hides Airflow's database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("module", ["stopper", "docker_stopper", "exec_stopper"])
def test_they_import_no_airflow(module):
    program = f"import sys; import qwen3_airflow.runtimes.{module}; sys.exit('airflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
