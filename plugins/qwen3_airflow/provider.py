"""What ``airflow providers list`` shows of this distribution."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, see Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "qwen3-ops",
        "name": "Qwen3 on Ascend",
        "description": "Plans, runs and supervises the fine-tuning of Qwen3 as dependent tasks.",
        "integrations": [
            {"integration-name": "Qwen3", "external-doc-url": "https://huggingface.co/Qwen/Qwen3-14B", "tags": ["software"]},
        ],
        "operators": [{"integration-name": "Qwen3", "python-modules": ["qwen3_airflow.operators"]}],
    }
