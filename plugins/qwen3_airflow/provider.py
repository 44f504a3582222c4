"""What ``airflow providers list`` shows of this distribution."""

from __future__ import annotations

from typing import Any


def _field(label: str, description: str, *types: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [*types, "null"], **schema}}


_ASCEND_CONNECTION: dict[str, Any] = {
    "connection-type": "ascend",
    "hook-class-name": "qwen3_airflow.ascend.hook.AscendHook",
    "hook-name": "Ascend host",
    "conn-fields": {
        "recipe": _field("Host recipe", "What the other fields override.", "string", enum=["ascend-a3", "ascend-a2", "cpu", None]),
        "image": _field("Image", "Of the stages' containers.", "string"),
        "data_roots": _field("Data folders", "Runs read and write below these only.", "array", items={"type": "string"}),
        "profile": _field("Profile", "Any other field of HostProfile, as a JSON object.", "object"),
        "docker_conn_id": _field("Registry login", "A Docker connection.", "string"),
        "tls_ca_cert": _field("TLS: CA certificate", "File.", "string"),
        "tls_client_cert": _field("TLS: client certificate", "File.", "string"),
        "tls_client_key": _field("TLS: client key", "File.", "string"),
    },
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "login", "password"],
        "relabeling": {"host": "Docker Engine"},
        "placeholders": {"host": "unix:///var/run/docker.sock, tcp://host:2376 or ssh://user@host"},
    },
}


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, see Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "qwen3-ops",
        "name": "Qwen3 on Ascend",
        "description": "Plans, runs and supervises the fine-tuning of Qwen3 as dependent tasks.",
        "integrations": [
            {"integration-name": "Qwen3", "external-doc-url": "https://huggingface.co/Qwen/Qwen3-14B", "tags": ["software"]},
        ],
        "operators": [
            {
                "integration-name": "Qwen3",
                "python-modules": [
                    "qwen3_airflow.operators",
                    "qwen3_airflow.sharded",
                    "qwen3_airflow.ascend.operators",
                    "qwen3_airflow.ascend.reaper",
                    "qwen3_airflow.ascend.shared_container",
                ],
            }
        ],
        "hooks": [{"integration-name": "Qwen3", "python-modules": ["qwen3_airflow.ascend.hook"]}],
        "triggers": [{"integration-name": "Qwen3", "python-modules": ["qwen3_airflow.triggers"]}],
        "connection-types": [_ASCEND_CONNECTION],
    }
