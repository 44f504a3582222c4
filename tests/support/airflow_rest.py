"""A running Airflow, over its REST API."""

from __future__ import annotations

from typing import Any

import httpx

from waiting import wait_for


class Airflow:
    """A running Airflow as its REST API shows it."""

    def __init__(self, url: str, *, user: str, password: str, dag_id: str = "qwen3_lora_sft") -> None:
        self.dag = f"/api/v2/dags/{dag_id}"
        self.http = httpx.Client(base_url=url, timeout=120)
        token = self.http.post("/auth/token", json={"username": user, "password": password}).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def trigger(self, **conf: Any) -> str:
        """Start a run and return its id."""
        answer = self.http.post(f"{self.dag}/dagRuns", json={"logical_date": None, "conf": conf})
        assert answer.status_code == 200, answer.text
        return answer.json()["dag_run_id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.dag}/dagRuns/{run_id}").raise_for_status().json()

    def set_run_state(self, run_id: str, state: str) -> None:
        self.http.patch(f"{self.dag}/dagRuns/{run_id}", json={"state": state}).raise_for_status()

    def task(self, run_id: str, task_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}").raise_for_status().json()

    def mapped_states(self, run_id: str, task_id: str) -> list[str | None]:
        """By map index."""
        path = f"{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}/listMapped"
        found = self.http.get(path).raise_for_status().json()["task_instances"]
        return [one["state"] for one in sorted(found, key=lambda one: one["map_index"])]

    def log(self, run_id: str, task_id: str, *, attempt: int = 1) -> str:
        """Empty while the attempt has none."""
        answer = self.http.get(
            f"{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}",
            headers={"Accept": "application/json"},
            params={"full_content": True},
        )
        return "" if answer.status_code == 404 else answer.raise_for_status().text

    def clear(self, run_id: str, task_id: str) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.http.post(f"{self.dag}/clearTaskInstances", json=body).raise_for_status()

    def wait_for_run(self, run_id: str, *, seconds: float) -> str:
        return wait_for(f"end of {run_id}", lambda: self._ended(self.run(run_id)["state"]), seconds=seconds)

    def wait_for_task(self, run_id: str, task_id: str, *states: str, seconds: float) -> str:
        def look() -> str | None:
            state = self.task(run_id, task_id)["state"]
            return state if state in states else None

        return wait_for(f"{task_id} to be {' or '.join(states)}", look, seconds=seconds)

    @staticmethod
    def _ended(state: str) -> str | None:
        return state if state in ("success", "failed") else None
