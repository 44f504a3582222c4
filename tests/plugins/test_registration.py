"""What Airflow finds of us: by entry point and in a plugins folder."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import airflow
import jsonschema
from airflow._shared.module_loading import find_path_from_directory

from qwen3_airflow.plugin import Qwen3Plugin
from qwen3_airflow.provider import get_provider_info

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


def test_the_provider_info_is_what_airflow_expects():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_shim_offers_the_plugin():
    assert runpy.run_path(str(PLUGINS / "qwen3_plugin.py"))["Qwen3Plugin"] is Qwen3Plugin


def test_airflow_runs_only_the_shim_of_the_plugins_folder():
    found = [Path(path) for path in find_path_from_directory(str(PLUGINS), ".airflowignore", "glob") if path.endswith(".py")]
    assert found == [PLUGINS / "qwen3_plugin.py"]
