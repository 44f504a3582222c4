"""Registers the plugin where Airflow is given a plugins folder instead of the installed distribution."""

from __future__ import annotations

from qwen3_airflow.plugin import Qwen3Plugin

__all__ = ["Qwen3Plugin"]
