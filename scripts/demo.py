"""`make demo`: the DAG qwen3_lora_sft on the tiny twin, through a real Airflow, in this process."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import local_airflow

QUIET = {
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__LOGGING__LOG_FORMAT": "  %(message).150s",
    # The stages' own lines pass; how a task failed is told below the table of what was made.
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.task.operators.qwen3_airflow=INFO task=CRITICAL",
}


class Observer:
    """Tells in which task the run is, and remembers why tasks failed."""

    def __init__(self, dag: Any) -> None:
        self.failures: list[tuple[str, BaseException]] = []
        for task in dag.tasks:
            task.retries = 0  # someone is watching: tell at once instead of trying again
            task.on_execute_callback = [self.started]
            task.on_failure_callback = [self.failed]

    def started(self, context: Any) -> None:
        print(f"{time.strftime('%H:%M:%S')} {context['ti'].task_id}", flush=True)

    def failed(self, context: Any) -> None:
        self.failures.append((context["ti"].task_id, context["exception"]))

    def report(self) -> None:
        from airflow.sdk.exceptions import AirflowException

        for task_id, reason in self.failures:
            if not isinstance(reason, AirflowException):
                traceback.print_exception(reason)
            print(f"\nfailed: {task_id}: {reason}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=local_airflow.DEMO, help="of everything the demo makes")
    demo = parser.parse_args().folder.absolute()
    session = local_airflow.start_session(demo / "airflow", demo / "twin", **QUIET)
    end_everything_on_interrupt(session)
    local_airflow.ensure_twin(demo / "twin")
    local_airflow.ensure_database(demo / "airflow")

    sys.path.insert(0, str(local_airflow.ROOT / "dags"))
    from qwen3_lora_sft import dag

    observer = Observer(dag)
    started = time.monotonic()
    run = dag.test(run_conf={"recipe": "tiny", "output_root": str(demo / "outputs")})
    seconds = time.monotonic() - started
    if run.state != "success":
        observer.report()
        return 1
    show(run, output_root=demo / "outputs", seconds=seconds)
    return 0


def end_everything_on_interrupt(session: str) -> None:
    def interrupt(number: int, frame: object) -> None:
        from qwen3_airflow.runtimes.stopper import stop_all

        print("\nStopping; `make demo` goes on from what is saved.", file=sys.stderr, flush=True)
        stop_all(local_airflow.SESSION_VARIABLE, session, grace=30)
        os._exit(130)  # an exception would only fail the task, and Airflow would go on

    signal.signal(signal.SIGINT, interrupt)


def show(run: Any, *, output_root: Path, seconds: float) -> None:
    """The table, the losses, the accuracies, the exported model."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from qwen3_airflow.jobs import name_of_run
    from qwen3_ops.artifacts import require_artifact
    from qwen3_ops.plan import load_plan

    plan = load_plan(output_root / "runs" / name_of_run(run.dag_id, run.run_id) / "plan.json")
    artifacts = {stage.name: require_artifact(Path(stage.output), [stage.kind]) for stage in plan.stages}
    durations = {ti.task_id: ti.duration for ti in run.get_task_instances()}
    table = Table(box=box.SIMPLE, pad_edge=False, title=f"qwen3_lora_sft: {seconds:.0f} s", title_justify="left")
    for header in ("task", "seconds", "", "artifact"):
        table.add_column(header, justify="right" if header == "seconds" else "left", no_wrap=True)
    for stage in plan.stages:
        artifact = Path(stage.output).relative_to(output_root / "artifacts")
        table.add_row(stage.name, f"{durations[stage.name]:.1f}", "reused" if stage.reused else "made", str(artifact))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    training, base, tuned = (artifacts[name].metrics for name in ("train_lora", "mmlu_base", "mmlu_tuned"))
    console.print(f"artifacts are in {output_root / 'artifacts'}")
    console.print(f"training loss    first {training['first_loss']:.3f}, last {training['last_loss']:.3f}")
    console.print(f"MMLU accuracy    base {base['accuracy']:.1%}, tuned {tuned['accuracy']:.1%}")
    console.print(f"exported model   {Path(plan.stage('export_hf').output) / artifacts['export_hf'].facts['model']}")


if __name__ == "__main__":
    sys.exit(main())
