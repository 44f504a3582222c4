"""What Airflow's plugin manager loads."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class Qwen3Plugin(AirflowPlugin):
    """The name under which operators, links and pages of this distribution are registered."""

    name = "qwen3"
