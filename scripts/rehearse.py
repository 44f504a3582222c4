"""`make rehearse`: a pipeline through the mindspeed engine, layout and flags of a real recipe, with the twin and without NPUs.

Every stage is started as in the container: ``run-stage``, torchrun, one process a device; only MindSpeed-LLM is the
stand-in of ``docker/rehearsal``, and model, data and batch sizes are the twin's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import local_airflow

_TWINS = ("model_dir", "input", "task_data_path", "seq_length", "micro_batch_size", "global_batch_size", "max_new_tokens", "lr", "min_lr")
"""Fields that the twin needs its own values of; the rest is the recipe's."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=local_airflow.DEMO, help="of the twin and of everything the rehearsal makes")
    parser.add_argument("--recipe", default="qwen3-14b-lora", help="whose layout, ports and flags are rehearsed")
    parser.add_argument("--pipeline", default="lora_sft")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as of `qwen3-ops plan`")
    options = parser.parse_args()
    folder = options.folder.absolute()
    local_airflow.ensure_twin(folder / "twin")
    os.environ["QWEN3_OPS_TWIN_DIR"] = str(folder / "twin")
    plan = make_plan(options, folder)
    seconds = {}
    for stage in plan.stages:
        print(f"{time.strftime('%H:%M:%S')} {stage.name}", flush=True)
        started = time.monotonic()
        log = Path(plan.run_dir) / stage.name / "stage.log"
        code = run_stage(plan, stage.name, log)
        seconds[stage.name] = time.monotonic() - started
        if code:
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
            print(f"\nfailed: {stage.name}, exit status {code}, {log}")
            return code
    show(plan, seconds)
    return 0


def make_plan(options: argparse.Namespace, folder: Path) -> Any:
    from qwen3_ops.pipelines import KINDS, PIPELINES
    from qwen3_ops.plan import make_plan as plan_of
    from qwen3_ops.plan import save_plan
    from qwen3_ops.planning_cli import parse_overrides
    from qwen3_ops.recipes import tiny

    twin = tiny(KINDS[options.pipeline]).model_dump()
    request = {
        "recipe": options.recipe,
        **{name: twin[name] for name in _TWINS},
        "output_root": str(folder / "rehearsal"),
        "train_iters": 20,
        "save_interval": 10,
        "engine": "mindspeed",
        "cpu_engine": "mindspeed",
        "mindspeed_dir": str(local_airflow.ROOT / "docker" / "rehearsal"),
        **parse_overrides(options.set),
    }
    plan = plan_of(request, stages=PIPELINES[options.pipeline], run_id="rehearsal")
    save_plan(plan)
    return plan


def run_stage(plan: Any, name: str, log: Path) -> int:
    """As the container would start it; no login shell, because this machine's has no CANN."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}", "QWEN3_OPS_LOGIN_SHELL": ""}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.run(
            [str(programs / "qwen3-ops"), "run-stage", str(Path(plan.run_dir) / "plan.json"), name],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode


def show(plan: Any, seconds: dict[str, float]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from qwen3_ops.artifacts import require_artifact

    table = Table("task", "seconds", "processes", "artifact", box=box.SIMPLE, pad_edge=False)
    for stage in plan.stages:
        processes = sum(int(argv[argv.index("--nproc_per_node") + 1]) for argv in (c.argv for c in stage.commands) if argv[0] == "torchrun")
        table.add_row(stage.name, f"{seconds[stage.name]:.1f}", str(processes or 1), stage.output)
        require_artifact(Path(stage.output), [stage.kind])
    Console(highlight=False, soft_wrap=True).print(table)
    print("All stages ended well, by MindSpeed-LLM's own signs. Nothing is said about NPUs: memory, speed and kernels are theirs.")


if __name__ == "__main__":
    sys.exit(main())
