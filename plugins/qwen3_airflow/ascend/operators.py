"""Containers on an Ascend host for any command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_airflow.jobs import JobOperator, labels_of, name_of_run
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.base import Job, Runtime

if TYPE_CHECKING:
    from airflow.sdk import Context


class AscendContainerOperator(JobOperator):
    """Runs a command in a container of the host's profile, crash-proof as a stage.

    Exit statuses mean what ``docs/adr/0007-exit-codes.md`` says, others are tried again.

    Args:
        command: the argv; it never passes through a shell.
        folder: below the profile's ``data_roots``; the log and the records of each run are kept there.
        reads: folders and files that the command may read, at the same place in the container.
        writes: folders that it may write as well.
        npus: how many it gets for itself.
        multi_node: whether it talks to other machines; without it there is no network.

    Returns:
        ``{"folder": where stage.log lies}``.
    """

    template_fields: Sequence[str] = ("command", "folder", "reads", "writes")

    def __init__(
        self,
        *,
        command: Sequence[str],
        folder: str,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
        npus: int = 0,
        multi_node: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command, self.folder, self.reads, self.writes = command, folder, reads, writes
        self.npus, self.multi_node = npus, multi_node

    def launch(self, context: Context) -> tuple[Runtime, Job]:
        job = Job(
            folder=self._job_folder(context),
            argv=tuple(self.command),
            labels=labels_of(context),
            reads=tuple(map(Path, self.reads)),
            writes=(Path(self.folder), *map(Path, self.writes)),
            npus=self.npus,
            multi_node=self.multi_node,
            stop_grace=self.stop_grace.total_seconds(),
        )
        return get_runtime("docker", ascend_conn_id=self.ascend_conn_id), job

    def result(self, context: Context) -> dict[str, str]:
        return {"folder": str(self._job_folder(context))}

    def _job_folder(self, context: Context) -> Path:
        ti = context["ti"]
        name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}+{ti.map_index}"  # no task id has a +, so another's is never met
        return Path(self.folder) / name_of_run(ti.dag_id, ti.run_id) / name
