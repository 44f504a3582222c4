"""What every pipeline of this distribution has in common as a DAG."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from airflow.sdk import DAG

from qwen3_airflow.params import form_params
from qwen3_ops.recipes import Kind


def qwen3_dag(dag_id: str, *, doc: str | None, kind: Kind = "lora", tags: Collection[str] = ()) -> DAG:
    """A DAG started by hand, by REST or by another, with RunConfig as its form.

    A stage is tried three times, later each time: what it retries after (a full disk, a lost
    device) takes people minutes to mend, and a retry resumes from the last checkpoint.

    Args:
        kind: of the training, which chooses the recipe that the form starts from.
        doc: Markdown shown in the web UI; a pipeline gives its module's docstring.
    """
    return DAG(
        dag_id,
        doc_md=doc,
        params=form_params(kind),
        tags=["qwen3", *tags],
        schedule=None,
        catchup=False,
        max_active_runs=4,
        default_args={
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "retry_exponential_backoff": 4.0,
            "max_retry_delay": timedelta(minutes=10),
        },
    )
